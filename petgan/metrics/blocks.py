"""Sets of features a few rows at a time, so that no metric holds a whole set in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROWS_AT_ONCE = 1024  # 16 MiB of 2048 features in float64


def row_blocks(count: int, at_least: int = 1) -> Iterator[slice]:
    """Slices that cover `count` rows in order, `ROWS_AT_ONCE` or `at_least` of them at a time."""
    step = max(ROWS_AT_ONCE, at_least)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def column_means(features: np.ndarray) -> np.ndarray:
    """Means (d,) float64 of features (n, d)."""
    total = np.zeros(features.shape[1])
    for rows in row_blocks(len(features)):
        total += features[rows].sum(axis=0, dtype=np.float64)
    return total / len(features)
