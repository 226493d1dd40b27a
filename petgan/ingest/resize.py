"""From a picture of any shape to a square one, antialiased."""

from __future__ import annotations

import numpy as np
from PIL import Image


def square(grey: np.ndarray, size: int) -> np.ndarray:
    """Pad a picture to a square on black, its middle in the middle, and resize it.

    Parameters
    ----------
    grey : ndarray (h, w) float32
        In any units in which black is 0.
    size : int
        Pixels.

    Returns
    -------
    ndarray (size, size) float32
        Lanczos over the source's pixels, so that shrinking does not alias; its overshoots beyond the
        smallest and the largest value are clipped.
    """
    height, width = grey.shape
    side = max(height, width)
    padded = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    padded[top : top + height, left : left + width] = grey
    if side != size:
        padded = np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.LANCZOS))
    return np.clip(padded, min(0.0, float(grey.min())), float(grey.max()))


def to_integers(grey: np.ndarray, dtype: str) -> np.ndarray:
    """Round grey levels to whole ones of this type."""
    return np.clip(np.rint(grey), 0, np.iinfo(dtype).max).astype(dtype)
