"""Films of DDSM as raw values, with the .ics file of their case, in optical density.

Stanford's program ``jpeg -d -s X.LJPEG`` writes ``X.LJPEG.1``: big-endian uint16, no header. The case's .ics
says lines, pixels a line, bits, resolution and digitizer. What a value means depends on the digitizer;
optical density does not.

================  =============  =====================================================================
digitizer         hospital       optical density of a value x
================  =============  =====================================================================
DBA               A (MGH)        (log10(x + 1) - 4.80662) / -1.07553
HOWTEK            A (MGH)        3.789 - 0.00094568 x
HOWTEK            D (ISMD)       3.96604095 - 0.00099055807612 x
LUMISYS           B, C (WFU)     (x - 4096.99) / -1009.01
================  =============  =====================================================================

Source: DDSM's own calibration of its digitizers. The density is clipped to 0.05..4 and turned round:
4 - density, so that black film is 0 and clear film, where dense tissue lay, is bright, 3.95.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from petgan.ingest.collections import ddsm_film, view
from petgan.ingest.frame import Header, Refused, Skipped
from petgan.ingest.raster import check_size

UNITS = "optical-density"
CLEAREST, BLACKEST = 0.05, 4.0
SPAN = (0.0, BLACKEST - CLEAREST)
DECODED = "compressed film of DDSM, taken from its decoded form"
ICS_BYTES = 65536  # a real one has less than 1000

Density = Callable[[np.ndarray], np.ndarray]

_DENSITY: dict[tuple[str, str], Density] = {
    ("DBA", "A"): lambda x: (np.log10(x + 1) - 4.80662) / -1.07553,
    ("HOWTEK", "A"): lambda x: 3.789 - 0.00094568 * x,
    ("HOWTEK", "D"): lambda x: 3.96604095 - 0.00099055807612 * x,
    ("LUMISYS", "B"): lambda x: (x - 4096.99) / -1009.01,
    ("LUMISYS", "C"): lambda x: (x - 4096.99) / -1009.01,
}


@dataclass(frozen=True)
class Film:
    """What a case's .ics says of one of its films; `resolution` in micrometres."""

    lines: int
    pixels_per_line: int
    bits: int
    resolution: float
    digitizer: str


def scan(path: Path) -> list[Header]:
    """What a raw film of DDSM is.

    Raises
    ------
    Refused
        If it is still compressed, or its .ics is missing, incomplete or does not suit it.
    Skipped
        If it is a raw file of something else, or its decoded form lies beside it.
    """
    film, name = _film(path)
    side, projection = name[4], name[5]
    return [
        Header(
            span=SPAN,
            pixels=film.lines * film.pixels_per_line,
            modality="mammogram",
            units=UNITS,
            view=view(side, projection),
            spacing=(film.resolution / 1000, film.resolution / 1000),
            collection="ddsm",
        )
    ]


def read(path: Path, index: int = 0) -> np.ndarray:
    """A raw film as 4 - optical density: (lines, pixels a line) float32, 0 to 3.95, bright on dark."""
    film, name = _film(path)
    stored = np.fromfile(path, ">u2")
    if film.bits < 16 and int(stored.max()) >= 2 << film.bits:  # some films do exceed their bits by a little
        raise Refused("holds values beyond the bits that its .ics gives; petgan reads big-endian ones")
    table = brightness(film.digitizer, name[1])
    return table[stored].reshape(film.lines, film.pixels_per_line)


def beside(path: Path) -> list[Path]:
    """The .ics file of a film's case, if there is one; the first of several counts."""
    name = ddsm_film(path.name)
    if name is None:
        return []
    stems = (mark.join(name.group(1, 2, 3)) for mark in "-_")
    cases = [path.with_name(stem + ending) for stem in stems for ending in (".ics", ".ICS")]
    return [case for case in cases if os.path.isfile(case)]  # noqa: PTH113 (pathlib's raises, with the name)


def brightness(digitizer: str, hospital: str) -> np.ndarray:
    """4 - optical density of each stored value: (65536,) float32.

    Parameters
    ----------
    digitizer : str
        ``DBA``, ``HOWTEK`` or ``LUMISYS``.
    hospital : str
        The letter at the start of a file name.

    Raises
    ------
    Refused
        If the two do not belong together.
    """
    density = _DENSITY.get((digitizer.upper(), hospital.upper()))
    if density is None:
        raise Refused("is of a digitizer and hospital whose optical density is not known")
    values = density(np.arange(65536, dtype=np.float64))
    return (BLACKEST - np.clip(values, CLEAREST, BLACKEST)).astype(np.float32)


def parse_ics(content: bytes, shown: str) -> Film:
    """What an .ics says of a film. It holds date of study and age, too: nothing else is looked at.

    Parameters
    ----------
    content : bytes
    shown : str
        Which film, as it names them: ``LEFT_CC``.

    Raises
    ------
    Refused
        If something is missing, no number, or said twice and differently.
    """
    lines = [line.upper().split() for line in content.decode("ascii", "replace").splitlines()]
    digitizers = {words[1] for words in lines if len(words) > 1 and words[0] == "DIGITIZER"}
    films = {tuple(words[1:]) for words in lines if words and words[0] == shown.upper()}
    if len(digitizers) != 1:
        raise Refused("has an .ics without DIGITIZER, or with several")
    if len(films) != 1:
        raise Refused("has an .ics that does not list it once")
    words = list(films.pop())
    pairs = dict(pairwise(words))
    return Film(
        _number(pairs, "LINES", 1, 99999),
        _number(pairs, "PIXELS_PER_LINE", 1, 99999),
        _number(pairs, "BITS_PER_PIXEL", 8, 16),
        _resolution(pairs),
        digitizers.pop(),
    )


def _film(path: Path) -> tuple[Film, re.Match[str]]:
    name = ddsm_film(path.name)
    if name is None:
        if path.suffix.lower() == ".raw":
            raise Skipped("no image")
        raise Refused("is not named as DDSM names its films (A_1141_1.LEFT_CC.LJPEG.1)")
    if path.suffix.lower() == ".ljpeg":
        if path.with_name(f"{path.name}.1").exists():
            raise Skipped(DECODED)
        raise Refused(
            "is a film of DDSM in its own compression: Stanford's program jpeg (jpeg -d -s FILE) makes "
            "FILE.1 of it, which is read"
        )
    film = parse_ics(_ics(path), f"{name[4]}_{name[5]}")
    brightness(film.digitizer, name[1])
    check_size(film.pixels_per_line, film.lines)
    if path.stat().st_size != 2 * film.lines * film.pixels_per_line:
        raise Refused("does not have the size that its .ics gives")
    return film, name


def _ics(path: Path) -> bytes:
    for case in beside(path):
        with open(case, "rb") as file:
            return file.read(ICS_BYTES)
    raise Refused("lacks the .ics file of its case beside it, which gives its size and digitizer")


def _number(pairs: dict[str, str], key: str, lowest: int, highest: int) -> int:
    word = pairs.get(key, "")
    if not re.fullmatch(r"[0-9]{1,5}", word) or not lowest <= int(word) <= highest:
        raise Refused(f"has an .ics without {key}, or with one that cannot be")
    return int(word)


def _resolution(pairs: dict[str, str]) -> float:
    word = pairs.get("RESOLUTION", "")
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", word) or not float(word):
        raise Refused("has an .ics without RESOLUTION, or with one that cannot be")
    return float(word)
