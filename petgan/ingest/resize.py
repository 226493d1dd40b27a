"""From a picture of any shape to a square one of square pixels, antialiased."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from petgan.ingest.raster import check_size


def square(grey: np.ndarray, size: int, spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Pad a picture to a square on black, its middle in the middle, and resize it.

    Parameters
    ----------
    grey : ndarray (h, w) float32
        In any units in which black is 0.
    size : int
        Pixels.
    spacing : (float, float)
        Between rows and between columns, in any unit: only their ratio counts. The square is one of
        millimetres, so that pixels which are no squares become squares.

    Returns
    -------
    ndarray (size, size) float32
        Resampled once, antialiased: Lanczos over the source's pixels, so that shrinking does not alias, its
        overshoots beyond the smallest and the largest value clipped; linear where an axis is enlarged.

    Raises
    ------
    Refused
        If it is so far from a square that the padding would fill the memory.
    """
    height, width = grey.shape
    if math.isclose(*spacing, rel_tol=1e-4):
        side = max(height, width)
        if height == width == size:
            return grey.astype(np.float32)
        padded = _centred(grey, side, side)
        whole = (0.0, 0.0, float(side), float(side))
        return _resized(padded, size, whole, grey) if side != size else padded
    extent = max(height * spacing[0], width * spacing[1])
    rows, columns = extent / spacing[0], extent / spacing[1]  # of the square, in pixels of the source
    padded = _centred(grey, _padded_length(height, rows), _padded_length(width, columns))
    top, left = (padded.shape[0] - rows) / 2, (padded.shape[1] - columns) / 2
    bottom, right = padded.shape[0] - max(top, 0), padded.shape[1] - max(left, 0)
    return _resized(padded, size, (max(left, 0), max(top, 0), right, bottom), grey)


def to_integers(grey: np.ndarray, dtype: str) -> np.ndarray:
    """Round grey levels to whole ones of this type."""
    return np.clip(np.rint(grey), 0, np.iinfo(dtype).max).astype(dtype)


def _padded_length(length: int, least: float) -> int:
    """At least so long, with as much on either side."""
    return length + 2 * math.ceil(max(0.0, round((least - length) / 2, 6)))


def _centred(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    check_size(width, height)
    padded = np.zeros((height, width), np.float32)
    top, left = (height - grey.shape[0]) // 2, (width - grey.shape[1]) // 2
    padded[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    return padded


def _resized(
    padded: np.ndarray, size: int, box: tuple[float, float, float, float], grey: np.ndarray
) -> np.ndarray:
    left, top, right, bottom = box
    # Between samples that lie apart Lanczos rings: dark seams beside a hot lesion.
    enlarges = size > min(right - left, bottom - top)
    how = Image.Resampling.BILINEAR if enlarges else Image.Resampling.LANCZOS
    picture = Image.fromarray(padded).resize((size, size), how, box=box)
    return np.clip(np.asarray(picture), min(0.0, float(grey.min())), float(grey.max()))
