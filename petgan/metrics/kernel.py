"""Kernel distance of two sets of features (KID; Binkowski et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.blocks import row_blocks
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
        return random.choice(len(features), count, replace=False)

    drawn = [(draw(real), draw(fake)) for _ in range(subsets)]
    if subsets * size**2 < smaller**2:
        members = [np.ones((1, len(places))) for places in drawn[0]]
        estimates = [_unbiased_mmd2(real[i], fake[j], *members)[0] for i, j in drawn]
    else:  # Most pairs are in several subsets: the kernel is taken once for all.
        reals, fakes = zip(*drawn, strict=True)
        members = [_membership(reals, len(real)), _membership(fakes, len(fake))]
        estimates = list(_unbiased_mmd2(real, fake, *members))
    left_out = smaller - size
    scale = math.sqrt(size / left_out) if left_out else math.nan
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) * scale)


def _membership(subsets: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Which of `count` samples are in which subset: (subsets, count), 1 or 0."""
    out = np.zeros((len(subsets), count))
    for row, places in zip(out, subsets, strict=True):
        row[places] = 1
    return out


def _unbiased_mmd2(x: np.ndarray, y: np.ndarray, S: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Gretton et al. 2012, equation 3, for each pair of subsets: their members are 1 in a row of S and T."""
    m, n = S[0].sum(), T[0].sum()
    within_x = (_kernel_sums(x, x, S, S) - S @ _kernel_diagonal(x)) / (m * (m - 1))
    within_y = (_kernel_sums(y, y, T, T) - T @ _kernel_diagonal(y)) / (n * (n - 1))
    out: np.ndarray = within_x + within_y - 2 * _kernel_sums(x, y, S, T) / (m * n)
    return out


def _kernel_sums(x: np.ndarray, y: np.ndarray, S: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Sum of k(x, y) over the pairs of each subset, s K t for the rows s and t of S and T."""
    out = np.zeros(len(S))
    for rows in row_blocks(len(x)):
        a = x[rows].astype(np.float64) / x.shape[1]
        for columns in row_blocks(len(y)):
            K = a @ y[columns].astype(np.float64).T + 1
            out += np.sum(S[:, rows] @ (K * K * K) * T[:, columns], axis=1)
    return out


def _kernel_diagonal(x: np.ndarray) -> np.ndarray:
    squares = np.empty(len(x))
    for rows in row_blocks(len(x)):
        block = x[rows].astype(np.float64)
        squares[rows] = np.einsum("ij,ij->i", block, block)
    out: np.ndarray = (squares / x.shape[1] + 1) ** 3
    return out
