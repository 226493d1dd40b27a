"""Pictures that a person has to look at before they go in: a list to decide on, and sheets to look at.

``NAME.quarantine.csv`` has a line for each picture; ``NAME.quarantine.png``, ``NAME.quarantine-2.png``
and so on show them under the numbers of the list. Who has looked writes ``accept`` or ``reject`` into the
list's column ``decision`` and gives the list to the next ingest; what is not accepted stays out. A decision
is on one picture (column ``image``: its number in its file), and on what the file held when it was looked at
(column ``content``, a keyed hash of its bytes; empty if it could not be read): another content waits anew.
List and sheets may show a name that is burned in, so nobody else may read them (mode 0600).
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from petgan.errors import ConfigError
from petgan.runs import atomic_path, file_digest

COLUMNS = ("number", "id", "image", "content", "key", "reason", "collection", "view", "decision")
ACCEPT, REJECT = "accept", "reject"
PER_SHEET = 100
TILES = (256, 512)  # pixels: the smaller one where no picture has more

_MEND = "mend the line, or move the list away to begin another without its decisions"
_GAP, _CAPTION, _HEAD = 8, 24, 64
_ID, _KEY, _IMAGE = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{8}"), re.compile("[0-9]{1,9}")
_SHEET = re.compile(r"(.+)\.quarantine(?:-[0-9]+)?\.png", re.DOTALL)

logger = logging.getLogger(__name__)

#: A picture: the id of its file, and its number there, from 0.
Which = tuple[str, int]


@dataclass(frozen=True)
class Decision:
    """``accept``, ``reject`` or nothing, on a file that held `content`; ids and content by the key `key`."""

    word: str
    content: str
    key: str


@dataclass(frozen=True)
class Entry:
    """One picture in quarantine.

    Parameters
    ----------
    id, content : str
        Keyed hashes of the file's name and of its bytes, 16 hexadecimal digits; no content if the file
        cannot be read.
    reason : str
        In petgan's own words.
    view, collection : str
        As in a dataset.
    preview : ndarray (h, w) uint8, or callable () -> ndarray
        The picture, or what makes it when its sheet is drawn, so that not all need be in memory. Best with
        its longer side 512 pixels: text on it must be legible.
    image : int
        The picture's number in its file, from 0.
    """

    id: str
    content: str
    reason: str
    view: str
    collection: str
    preview: np.ndarray | Callable[[], np.ndarray]
    image: int = 0

    @property
    def which(self) -> Which:
        return self.id, self.image


def list_file(stem: Path | str) -> Path:
    """The list of a dataset whose path, without suffix, is `stem`."""
    stem = Path(stem)
    return stem.with_name(f"{stem.name}.quarantine.csv")


def sheet_file(stem: Path | str, number: int) -> Path:
    """Its sheet number 1, 2 and so on."""
    stem = Path(stem)
    return stem.with_name(f"{stem.name}.quarantine{'' if number == 1 else f'-{number}'}.png")


def is_sheet(path: Path) -> bool:
    """Whether a file is named as the sheets of a quarantine are, and its list lies beside it."""
    match = _SHEET.fullmatch(path.name)
    return match is not None and list_file(path.with_name(match[1])).exists()


def write_quarantine(
    stem: Path | str,
    entries: Sequence[Entry],
    decisions: Mapping[Which, Decision] | None = None,
    *,
    key: str,
    drawn: Sequence[str] = (),
) -> list[Path]:
    """Write the list and its sheets, atomically and for the user alone.

    Parameters
    ----------
    stem : path
        Of the dataset, without suffix.
    entries : sequence of Entry
        In the order of their numbers: those accepted already among them, so that a decision is not lost.
    decisions : mapping of (str, int) to Decision, optional
        By picture; those in a list that is there already count where this has none, and stay in it even if
        their pictures are not among the entries.
    key : str
        Id of the key. Decisions by another one are dropped: their ids would tie two sets of pseudonyms.
    drawn : sequence of str
        SHA-256 of the sheets, if an earlier call drew these entries: sheets that are still the same stay.

    Returns
    -------
    list of Path
        The list first. Without entries and decisions there are none, and those of an earlier ingest are
        removed. A list that is there and cannot be read is kept as ``NAME.quarantine.csv.old`` (or ``.old-2``
        and so on, if there is one), with a warning.

    Raises
    ------
    DiskError
        If the disk is full.
    """
    path = list_file(stem)
    known = {**_decisions_there(stem), **(decisions or {})}
    known = {which: decision for which, decision in known.items() if decision.key == key}
    sheets = [sheet_file(stem, sheet + 1) for sheet in range(math.ceil(len(entries) / PER_SHEET))]
    stay = [file_digest(sheet) if sheet.exists() else "" for sheet in sheets] == list(drawn)
    # Whenever this is cut short, no sheet lies there that shows others than the list.
    for old in path.parent.glob("*.png"):
        match = _SHEET.fullmatch(old.name)
        if match and match[1] == Path(stem).name and not (stay and old in sheets):
            old.unlink()
    if not entries and not any(decision.word for decision in known.values()):
        path.unlink(missing_ok=True)
        return []
    text = _table(entries, known, key).encode()
    _write_private(path, lambda file: file.write(text))
    for number, sheet in enumerate([] if stay else sheets):
        start = number * PER_SHEET
        pixels = quarantine_sheet(entries[start : start + PER_SHEET], start + 1, path.name)
        _write_private(sheet, partial(Image.fromarray(pixels).save, format="PNG"))
    return [path, *sheets]


def read_decisions(path: Path | str) -> dict[Which, Decision]:
    """What was decided, by picture.

    Raises
    ------
    ConfigError
        If the file is missing or no such list, by line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        hint = "petgan ingest writes it beside the dataset, as NAME.quarantine.csv; save it as CSV in UTF-8"
        raise ConfigError(f"cannot read the quarantine list {path}", hint=hint) from None
    # Spreadsheets write other separators in other countries.
    separator = max(",;\t", key=lines[0].count)
    heads: list[str] = []
    decisions: dict[Which, Decision] = {}
    for number, line in enumerate(lines, 1):  # one by one: no quotation mark reaches beyond its own
        where = f"line {number} of {path}"
        try:
            cells = next(csv.reader([line], delimiter=separator, strict=True), [])
        except csv.Error as error:
            raise ConfigError(
                f"{where} cannot be read ({error})", hint=f"a quotation mark may be too many there; {_MEND}"
            ) from None
        cells = [cell.strip().lower() for cell in cells]
        if number == 1:
            heads = cells
            if not {"id", "image", "content", "key", "decision"} <= set(heads):
                raise ConfigError(
                    f"{path} is no quarantine list", allowed=f"the columns {', '.join(COLUMNS)}"
                )
        elif any(cells):
            which, decision = _decision(heads, cells, where)
            if decisions.setdefault(which, decision) != decision:
                raise ConfigError(f"{where} decides otherwise than a line above it", hint=_MEND)
    return decisions


def _decision(heads: Sequence[str], cells: list[str], where: str) -> tuple[Which, Decision]:
    if len(cells) == len(heads) - 1 and heads[-1] == "decision" and not {ACCEPT, REJECT} & set(cells):
        cells = [*cells, ""]  # some spreadsheets leave out a last cell that is empty
    if len(cells) != len(heads):
        raise ConfigError(
            f"{where} has another number of cells", value=len(cells), allowed=str(len(heads)), hint=_MEND
        )
    values = dict(zip(heads, cells, strict=True))
    name, image, content, key, word = (values[head] for head in ("id", "image", "content", "key", "decision"))
    if word not in (ACCEPT, REJECT, ""):
        raise ConfigError(f"{where} has an unknown decision", allowed="accept, reject, or nothing")
    if word and not content:
        raise ConfigError(
            f"{where} decides on a file that could not be read",
            hint="leave its decision empty, and ingest again when the file can be read",
        )
    whole = _ID.fullmatch(name) and _IMAGE.fullmatch(image) and _KEY.fullmatch(key)
    if not whole or not _ID.fullmatch(content or name):
        raise ConfigError(
            f"{where} has no id, image, content or key: 16 hexadecimal digits, a number, 16 and 8 digits "
            "are those",
            hint="a spreadsheet may have made a number of one; edit the list as text",
        )
    return (name, int(image)), Decision(word, content, key)


def decisions_beside(stem: Path | str) -> dict[Which, Decision]:
    """What was decided in the list of a dataset, if there is one; raises as `read_decisions`."""
    path = list_file(stem)
    return read_decisions(path) if path.exists() else {}


def quarantine_sheet(entries: Sequence[Entry], first: int, list_name: str) -> np.ndarray:
    """Lay out pictures, each under its number; the note at the head says what to do.

    Returns
    -------
    ndarray (h, w) uint8
    """
    previews = [entry.preview() if callable(entry.preview) else entry.preview for entry in entries]
    largest = max(max(preview.shape) for preview in previews)
    tile = TILES[0] if largest <= TILES[0] else TILES[1]
    columns = max(math.ceil(1024 / tile), math.ceil(math.sqrt(len(entries))))
    rows = math.ceil(len(entries) / columns)
    sheet = Image.new(
        "L", (columns * (tile + _GAP) + _GAP, _HEAD + rows * (tile + _CAPTION + _GAP)), color=32
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(18)
    for line, text in enumerate(
        (
            "Does a picture show a name, a number or a date of a person? Write accept or reject beside its",
            f"number in {list_name} and give that list to --accept-quarantined.",
        )
    ):
        draw.text((_GAP, 6 + 26 * line), text, fill=255, font=font)
    for index, (entry, preview) in enumerate(zip(entries, previews, strict=True)):
        left = _GAP + (tile + _GAP) * (index % columns)
        top = _HEAD + (tile + _CAPTION + _GAP) * (index // columns)
        caption = f"{first + index}  {entry.collection}, {entry.view}"
        draw.text((left, top + _CAPTION // 2), caption, fill=255, font=font, anchor="lm")
        picture = _fitted(preview, tile)
        sheet.paste(picture, (left + (tile - picture.width) // 2, top + _CAPTION))
    return np.asarray(sheet)


def _fitted(preview: np.ndarray, tile: int) -> Image.Image:
    """Its longer side the tile's: pixels are repeated, or averaged."""
    picture = Image.fromarray(preview)
    scale = tile / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.resize(size, how)


def _table(entries: Sequence[Entry], decisions: Mapping[Which, Decision], key: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, entry in enumerate(entries, 1):
        decision = decisions.get(entry.which)
        word = decision.word if decision and decision.content == entry.content else ""
        writer.writerow(
            (number, *entry.which, entry.content, key, entry.reason, entry.collection, entry.view, word)
        )
    for which in sorted(decisions.keys() - {entry.which for entry in entries}):
        word, content = decisions[which].word, decisions[which].content
        if word:
            writer.writerow(("", *which, content, key, "was decided on in another ingest", "", "", word))
    return out.getvalue()


def _decisions_there(stem: Path | str) -> dict[Which, Decision]:
    try:
        return decisions_beside(stem)
    except ConfigError as error:  # somebody's work is in it
        path = list_file(stem)
        number, old = 1, path.with_name(f"{path.name}.old")
        while old.exists():
            number += 1
            old = path.with_name(f"{path.name}.old-{number}")
        path.replace(old)
        logger.warning("%s; it is kept as %s, and its decisions do not count", error, old)
        return {}


def _write_private(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with atomic_path(path) as temporary:
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            write(file)
