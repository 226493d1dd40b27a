"""From files to the pixels of the dataset: what the worker processes do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from petgan.ingest import film
from petgan.ingest.deidentify import Key
from petgan.ingest.duplicates import fingerprint
from petgan.ingest.field import Box, Field, cut, field_box, maximum
from petgan.ingest.formats import FORMATS
from petgan.ingest.frame import QUANTILES, Frame, Made, Picture, Refused
from petgan.ingest.known import code_version
from petgan.ingest.mute import mute
from petgan.ingest.raster import check_size
from petgan.ingest.resize import square, to_integers
from petgan.ingest.scan import refusal
from petgan.ingest.volume import geometry, project, projected_axis
from petgan.ingest.window import Limits, Window, apply, sampled

HELD = 2**24  # values of a series that are kept in memory rather than read twice
SAMPLE = 2**16  # values that an image's quantiles are taken from
#: Collections whose images are scanned films, on which somebody may have written.
FILMS = ("cbis-ddsm", "ddsm", "ddsm-overview", "mini-mias", "other")
SURE_FILMS = ("cbis-ddsm", "ddsm", "mini-mias")
PREVIEW = 512  # pixels
INCOMPLETE = "lies in a series of which another slice cannot be read"


@dataclass(frozen=True)
class How:
    """What is done to every picture alike."""

    window: Window
    size: int
    dtype: str
    field: Field
    orient: str
    mask_film: bool


@dataclass(frozen=True)
class Unit:
    """Pictures that are made together, since they share a window and a field: those of one series.

    Parameters
    ----------
    volume : tuple of Frame
        All of the series.
    pictures : tuple of Picture
        To be made.
    how : How
    """

    volume: tuple[Frame, ...]
    pictures: tuple[Picture, ...]
    how: How

    def place(self, key: Key) -> bytes:
        """Where a cache keeps what is made of it: it follows from all that the pixels depend on."""
        facts = {
            "volume": [(f.stamp, f.index, f.scale) for f in self.volume],
            "pictures": [([(f.stamp, f.index) for f in p.frames], p.view, p.rank) for p in self.pictures],
            "how": {**asdict(self.how), "window": str(self.how.window)},
            "version": code_version(),
        }
        return key.place("made", json.dumps(facts, sort_keys=True))


def make_unit(unit: Unit) -> list[Made | Refused]:
    """Each of its pictures, or why there is none."""
    series = _Series(unit)
    with mute():
        made = [series.make(picture) for picture in unit.pictures]
    if len(unit.volume) > 1 and any(isinstance(one, Refused) for one in made):
        # A series is taken whole or not at all.
        made = [Refused(INCOMPLETE) if isinstance(one, Made) else one for one in made]
    return made


def preview(picture: Picture) -> np.ndarray | Refused:
    """A picture for a person to look at, nothing cut off it: (h, w) uint8, at most `PREVIEW` pixels wide."""
    try:
        with mute():
            values = read(picture.frames[len(picture.frames) // 2])
        grey = apply(values, (float(values.min()), float(values.max())))
        return to_integers(square(grey, min(PREVIEW, max(grey.shape))), "uint8")
    except Exception as error:
        return refusal(error)


def read(frame: Frame) -> np.ndarray:
    """An image's values in the dataset's units: (h, w) float32."""
    values = FORMATS[frame.format].read(frame.path, frame.index)
    if frame.scale != 1:
        values = (values * np.float64(frame.scale)).astype(np.float32)
    if not np.isfinite(values).all():
        raise Refused("holds values that are not finite numbers")
    return values


class _Series:
    """A series being read: no slice of a small one more than once."""

    def __init__(self, unit: Unit) -> None:
        self._unit, self._how = unit, unit.how
        self._holds = sum(frame.header.pixels for frame in unit.volume) <= HELD
        self._held: dict[tuple[str, int], np.ndarray] = {}

    def make(self, picture: Picture) -> Made | Refused:
        how, header = self._how, picture.frames[0].header
        try:
            values, spacing = self._values(picture)
            text = False
            if header.modality != "pet":
                values, text = self._seen_to(picture, values)
            quantiles = _quantiles(values)
            at_left = how.orient == "left" and header.modality != "pet"
            if picture.view == "slice":
                box = self._box
            else:
                box = field_box(how.field, values, spacing, at_left=at_left)
            if how.dtype != "float32":
                values = apply(values, self._limits_of(picture, values), np.iinfo(how.dtype).max)
            if box is not None:
                values = cut(values, box)
            if at_left:
                values = _widened(values, spacing or (1.0, 1.0))
            pixels = square(values, how.size, spacing or (1.0, 1.0))
            if how.dtype != "float32":
                pixels = to_integers(pixels, how.dtype)
            return Made(pixels, quantiles, fingerprint(pixels), text)
        except Exception as error:
            return refusal(error)

    def _seen_to(self, picture: Picture, values: np.ndarray) -> tuple[np.ndarray, bool]:
        """A mammogram masked and oriented as asked for, and whether a person ought to look for writing."""
        how = self._how
        header = picture.frames[0].header
        is_film = header.collection in FILMS
        if not (is_film or how.mask_film or how.orient == "left"):
            return values, False
        seen = film.look(values)
        found = seen.found is not None
        text = film.has_text(values, seen) if is_film else False
        is_page = header.collection == "other" and film.is_page(values, seen)
        out = values
        if how.mask_film:
            out, _ = film.mask_film(values, seen)
            text = text and film.has_text(out)
        # Where no breast is found, no writing beside it is either.
        unreadable = not found and (is_film if how.mask_film else header.collection in SURE_FILMS)
        if how.orient == "left":
            out = film.orient_left(out, _side(picture.view), seen)
        return out, text or unreadable or is_page

    def _values(self, picture: Picture) -> tuple[np.ndarray, tuple[float, float] | None]:
        frames = picture.frames
        axis = projected_axis(picture.view)
        if axis is not None:
            return project(map(self._read, frames), geometry(frames), axis)
        return self._read(frames[0]), frames[0].header.spacing

    def _limits_of(self, picture: Picture, values: np.ndarray) -> Limits:
        """Slices of a series share theirs; a projection and a picture have their own."""
        if picture.view == "slice" and len(self._unit.volume) > 1:
            return self._limits
        return self._how.window.limits([values], values.size, picture.frames[0].header.span)

    @cached_property
    def _limits(self) -> Limits:
        pixels = sum(frame.header.pixels for frame in self._unit.volume)
        return self._how.window.limits(self._readable(), pixels, self._unit.volume[0].header.span)

    @cached_property
    def _box(self) -> Box | None:
        """What the field shows of every slice: found in the largest values along the series."""
        if self._how.field.kind == "full":
            return None
        return field_box(self._how.field, maximum(self._readable()), self._unit.volume[0].header.spacing)

    def _readable(self) -> Iterator[np.ndarray]:
        for frame in self._unit.volume:
            try:
                values = self._read(frame)
            except Exception:  # noqa: S112 (said when its own picture is made)
                continue
            yield values

    def _read(self, frame: Frame) -> np.ndarray:
        where = (frame.id, frame.index)
        if where in self._held:
            return self._held[where]
        values = read(frame)
        if self._holds:
            self._held[where] = values
        return values


def _quantiles(values: np.ndarray) -> np.ndarray:
    """At the shares of `QUANTILES`; of a large image every k-th value counts, its ends are exact."""
    sample = np.sort(sampled(values, math.ceil(values.size / SAMPLE)))
    places = np.array(QUANTILES) * (len(sample) - 1)
    out = np.interp(places, np.arange(len(sample)), sample)
    out[0], out[-1] = values.min(), values.max()
    return out.astype(np.float32)


def _widened(grey: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """As wide as it is high, with black on the right: the chest wall stays at the left edge."""
    height, width = grey.shape
    wide = max(width, round(height * spacing[0] / spacing[1]))
    check_size(wide, height)
    return cut(grey, (0, height, 0, wide))


def _side(view: str) -> str | None:
    words = view.removeprefix("thumbnail-").split("-")
    return words[0] if words[0] in ("left", "right") else None
