"""Which part of a picture goes into the dataset.

===========  =============================================================================================
``full``     the whole picture
``breast``   the box around the breast, the same for all slices of a series
``170mm``    a square of so many millimetres around the breast's middle, cut off or filled up with black,
             so that a millimetre is as many pixels in every picture; with ``--orient left`` from the
             breast's left edge to the right
===========  =============================================================================================

The breast is what is brighter than the background: Otsu's threshold (1979), on the logarithm of the values
between a hundredth of their 99th percentile and it. The logarithm, since activity and films are skewed: on
the values themselves a hot lesion, the heart or the densest tissue would part from the breast before the
breast parts from the air. The percentile, since a lesion of a few voxels may be any number of times as
bright. Specks are left out: what a square of three pixels (of the picture, shrunk to 256) does not fit into,
and what is smaller than a twentieth of the largest piece. Of a series it is found on the maximum over all
slices.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from petgan.errors import ConfigError
from petgan.ingest.frame import Refused
from petgan.ingest.raster import check_size

GRAMMAR = "full, breast, or the side of a square such as 170mm"
DECADES = 2.0  # of values below the 99th percentile that count
COARSE = 256  # pixels of the longer side that are enough to find it
SPECK = 0.05  # share of the largest piece
MARGIN = 0.02  # of the box's longer side
BINS = 256

Box = tuple[int, int, int, int]  # top, bottom, left, right: rows top to bottom - 1, columns left to right - 1


@dataclass(frozen=True)
class Field:
    """`kind` is ``full``, ``breast`` or ``square``; `side_mm` is that of the square."""

    kind: str = "full"
    side_mm: float = 0.0

    def __str__(self) -> str:
        return f"{self.side_mm:g}mm" if self.kind == "square" else self.kind


def parse_field(text: str) -> Field:
    """Read a field.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if text in ("full", "breast"):
        return Field(text)
    found = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,3})?) ?mm", text, re.ASCII)
    if not found or not float(found[1]) > 0:
        raise ConfigError("there is no such field", value=text, allowed=GRAMMAR)
    return Field("square", float(found[1]))


def maximum(images: Iterable[np.ndarray]) -> np.ndarray:
    """Largest value of each pixel over slices (h, w) of one size, taken one by one.

    Raises
    ------
    Refused
        If they differ in size.
    """
    images = iter(images)
    largest = np.array(next(images))
    for image in images:
        if image.shape != largest.shape:
            raise Refused(
                "lies in a series whose slices differ in size: Rows (0028,0010), Columns (0028,0011)"
            )
        np.maximum(largest, image, out=largest)
    return largest


def breast_box(image: np.ndarray) -> Box:
    """The box around what is brighter than the background.

    Parameters
    ----------
    image : ndarray (h, w)
        A mammogram, a projection, or the maximum over the slices of a series; black is 0.

    Returns
    -------
    (int, int, int, int)
        First row, row after the last, first column, column after the last; with a margin, within the
        picture. The whole picture if nothing is above 0.
    """
    height, width = image.shape
    step = math.ceil(max(height, width) / COARSE)
    coarse = np.asarray(Image.fromarray(image.astype(np.float32)).reduce(step))
    white = float(np.percentile(coarse, 99))
    if not white > 0:
        return 0, height, 0, width
    bright = np.log10(np.clip(coarse / white, 10.0**-DECADES, 1)).clip(-DECADES, 0)
    mask = _without_specks(bright > _otsu(bright, -DECADES, 0.0))
    top, bottom = _span(mask, 1, step)
    left, right = _span(mask, 0, step)
    margin = math.ceil(MARGIN * max(bottom - top, right - left))
    return (
        max(0, top - margin),
        min(height, bottom + margin),
        max(0, left - margin),
        min(width, right + margin),
    )


def square_box(
    box: Box, side_mm: float, spacing: tuple[float, float] | None, *, at_left: bool = False
) -> Box:
    """A square around the middle of a box; it may reach beyond the picture.

    Parameters
    ----------
    box : (int, int, int, int)
    side_mm : float
    spacing : (float, float), optional
        Between rows and between columns, in mm.
    at_left : bool
        From the box's left edge, rather than around its middle, to the right.

    Raises
    ------
    Refused
        If the spacing is not known, or the square has no pixel or too many.
    """
    if spacing is None:
        raise Refused(
            "lacks PixelSpacing (0028,0030), without which it has no millimetres: choose --field breast"
        )
    top, bottom, left, right = box
    rows, columns = (round(side_mm / step) for step in spacing)
    if not rows * columns:
        raise Refused("has pixels larger than the field")
    check_size(columns, rows)
    first_row = (top + bottom - rows) // 2
    first_column = left if at_left else (left + right - columns) // 2
    return first_row, first_row + rows, first_column, first_column + columns


def cut(image: np.ndarray, box: Box, black: float = 0.0) -> np.ndarray:
    """What lies in a box; black where it reaches beyond the picture.

    Returns
    -------
    ndarray (bottom - top, right - left)
        In the picture's dtype.
    """
    top, bottom, left, right = box
    out = np.full((bottom - top, right - left), black, image.dtype)
    first, start = max(top, 0), max(left, 0)
    inside = image[first : max(bottom, 0), start : max(right, 0)]
    if inside.size:
        rows, columns = inside.shape
        out[first - top : first - top + rows, start - left : start - left + columns] = inside
    return out


def field_box(
    field: Field, image: np.ndarray, spacing: tuple[float, float] | None, *, at_left: bool = False
) -> Box | None:
    """The box of a field, found on this picture; None if it is the whole picture."""
    if field.kind == "full":
        return None
    box = breast_box(image)
    return box if field.kind == "breast" else square_box(box, field.side_mm, spacing, at_left=at_left)


def _otsu(values: np.ndarray, low: float, high: float) -> float:
    """The threshold with the largest variance between what is above and below it (Otsu 1979).

    It is below all values if they are too alike to be parted.
    """
    counts, edges = np.histogram(values, BINS, (low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    between[(below == 0) | (above == 0)] = 0
    if not between.max() > 0:
        return -math.inf
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))  # the middle of equally good ones
    return float(edges[1:][best[(len(best) - 1) // 2]])


def _without_specks(mask: np.ndarray) -> np.ndarray:
    opened = ndimage.binary_opening(mask, np.ones((3, 3), bool))
    if not opened.any():
        return mask
    pieces, _ = ndimage.label(opened)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (sizes >= SPECK * sizes.max())[pieces] & opened


def _span(mask: np.ndarray, across: int, step: int) -> tuple[int, int]:
    """First index and index after the last, of the picture."""
    found = np.flatnonzero(mask.any(axis=across))
    return int(found[0]) * step, (int(found[-1]) + 1) * step
