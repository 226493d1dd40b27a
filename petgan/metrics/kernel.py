"""Kernel distance of two sets of features (KID; Binkowski et al. 2018)."""

from __future__ import annotations

import math

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.checks import check_same_width, checked_features

LARGEST_SUBSET = 1000


def kernel_distance(
    real: np.ndarray, fake: np.ndarray, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Unbiased squared maximum mean discrepancy with k(x, y) = (x.y / d + 1)^3, mean over random subsets.

    Its expectation is 0 for two sets of the same distribution, whatever their sizes, so the estimate may
    be negative. The standard error is that of the delete-d jackknife (Shao and Wu 1989): the deviation
    over subsets times sqrt(m / (n - m)) for m of n samples. It speaks of the samples drawn, where the
    deviation over subsets divided by sqrt(subsets) would speak of the subsets alone and vanish with their
    number. Near 0 it is too large, by about a half.

    Parameters
    ----------
    real, fake : ndarray (n, d)
        Features; sets may differ in length.
    subsets : int
        2 or more.
    subset_size : int, optional
        Samples of the smaller set in a subset, drawn without replacement; half of it by default, 1000 at
        most. The larger set gives the same share of its samples.
    seed : int
        Of the subsets.

    Returns
    -------
    mean : float
        Lower is better.
    standard_error : float
        NaN where a subset is the whole set.

    Raises
    ------
    ConfigError
        If a set has fewer than 4 samples, a subset would be larger than the smaller set, or the arrays
        are of another kind.
    """
    real, fake = checked_features("real", real, at_least=4), checked_features("fake", fake, at_least=4)
    check_same_width(real, fake)
    smaller = min(len(real), len(fake))
    size = min(smaller // 2, LARGEST_SUBSET) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise ConfigError("impossible subset_size", value=size, allowed=f"2 to {smaller}, the smaller set")
    if subsets < 2:
        raise ConfigError("impossible number of subsets", value=subsets, allowed="2 or more")
    random = np.random.default_rng(seed)

    def draw(features: np.ndarray) -> np.ndarray:
        count = round(size * len(features) / smaller)
        return features[random.choice(len(features), count, replace=False)]

    estimates = [_unbiased_mmd2(draw(real), draw(fake)) for _ in range(subsets)]
    left_out = smaller - size
    scale = math.sqrt(size / left_out) if left_out else math.nan
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) * scale)


def _unbiased_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Gretton et al. 2012, eq. 3."""
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (_kernel(x, x), _kernel(y, y)))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
    return out
