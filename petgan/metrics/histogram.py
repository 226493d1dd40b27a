"""Distance between the grey values of two sets, wherever in the images they are."""

from __future__ import annotations

import numpy as np

from petgan.metrics.checks import check_same_width, checked_images

_PIXELS_AT_ONCE = 1 << 22  # bincount makes 8 bytes of each


def histogram_wasserstein(real: np.ndarray, fake: np.ndarray) -> float:
    """Wasserstein-1 distance, in grey levels, between the grey values of all pixels of either set.

    In one dimension it is the area between the cumulative distributions (Vallender 1974), here
    over the 256 levels of uint8, so it is exact. It sees whether the set as a whole is too bright,
    too dark or too flat, and nothing of where the grey values are.

    Parameters
    ----------
    real, fake : ndarray (n, size, size) or (n, size, size, 1) uint8
        Sets may differ in length.

    Returns
    -------
    float
        From 0 to 255; lower is better.

    Raises
    ------
    ConfigError
        If the arrays are of another kind.
    """
    real, fake = checked_images("real", real), checked_images("fake", fake)
    check_same_width(real, fake)
    return float(np.abs(_cumulative(real) - _cumulative(fake)).sum())


def _cumulative(images: np.ndarray) -> np.ndarray:
    """Share of the pixels at or below each of the 256 grey levels."""
    counts = np.zeros(256, np.int64)
    step = max(1, _PIXELS_AT_ONCE // images[0].size)
    for start in range(0, len(images), step):
        counts += np.bincount(images[start : start + step].ravel(), minlength=256)
    return np.cumsum(counts) / images.size
