"""Fréchet distance of two Gaussians fitted to features (FID; Heusel et al. 2017), also for endless fakes."""

from __future__ import annotations

import numpy as np

from petgan.metrics.blocks import column_means, row_blocks
from petgan.metrics.checks import check_same_width, checked_features

SIZES = 15  # of the subsets that are extrapolated from, as in Chong and Forsyth
FEWEST_FAKES = 30
_Gaussian = tuple[np.ndarray, np.ndarray]


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """|m_A - m_B|^2 + Tr(S_A + S_B - 2 (S_A S_B)^(1/2)), with the means m and covariances S of the sets.

    Exact for any number of samples, and without a matrix square root: with A and B the centred features
    over sqrt(n - 1), S_A = A^T A and Tr((S_A S_B)^(1/2)) is the sum of the singular values of A B^T.
    No multiple of the identity is added to the covariances.

    The estimate is biased upwards for few samples: two sets of the same distribution do not give 0.

    Parameters
    ----------
    real, fake : ndarray (n, d)
        Features; sets may differ in length.

    Returns
    -------
    float
        0 or more, up to rounding; lower is better.

    Raises
    ------
    ConfigError
        If a set has fewer than 2 samples, or the arrays are of another kind.
    """
    real, fake = checked_features("real", real), checked_features("fake", fake)
    check_same_width(real, fake)
    return _distance(_fitted(real), _fitted(fake))


def frechet_infinity(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """`frechet_distance` as it would be with infinitely many fakes (Chong and Forsyth 2020).

    The bias of M fakes falls as 1/M, so the distance is taken for 15 subsets of the fakes, from half of
    them to all, and a straight line over 1/M is followed to 0. That removes the bias of the generated
    side only: the real side's stays, and two sets of the same distribution still do not give 0. Where the
    fakes do not far outnumber the directions in which the features vary, the bias is no straight line in
    1/M, and the value may lie to either side of the limit.

    Parameters
    ----------
    real, fake : ndarray (n, d)
        Features; sets may differ in length; 30 fakes or more.
    seed : int
        Of the subsets.

    Returns
    -------
    value : float
        The line at 1/M = 0; lower is better, and it may be negative.
    standard_error : float
        Of the intercept by least squares. It speaks of the draw of the subsets, which share their fakes:
        other fakes would differ by more.

    Raises
    ------
    ConfigError
        If there are fewer than 30 fakes or 2 reals, or the arrays are of another kind.
    """
    real, fake = checked_features("real", real), checked_features("fake", fake, at_least=FEWEST_FAKES)
    check_same_width(real, fake)
    random, fitted = np.random.default_rng(seed), _fitted(real)
    sizes = np.linspace(len(fake) // 2, len(fake), SIZES).round().astype(int)
    subsets = (np.sort(random.choice(len(fake), size, replace=False)) for size in sizes)
    return intercept(1 / sizes, np.array([_distance(fitted, _fitted(fake[subset])) for subset in subsets]))


def intercept(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Of the line of least squares through points (n,), (n,) at x = 0, and its standard error."""
    x_mean, x_squares = x.mean(), np.sum((x - x.mean()) ** 2)
    slope = np.sum((x - x_mean) * y) / x_squares
    value = y.mean() - slope * x_mean
    variance = np.sum((y - value - slope * x) ** 2) / (len(x) - 2)
    return float(value), float(np.sqrt(variance * (1 / len(x) + x_mean**2 / x_squares)))


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    (a_mean, A), (b_mean, B) = a, b
    cross = np.linalg.svd(A @ B.T, compute_uv=False).sum()
    return float(np.sum((a_mean - b_mean) ** 2) + np.sum(A**2) + np.sum(B**2) - 2 * cross)


def _fitted(features: np.ndarray) -> _Gaussian:
    """Mean (d,) and A (min(n, d), d) with A^T A the covariance of the features."""
    n, d = features.shape
    mean = column_means(features)
    if n <= d:
        return mean, (features - mean) / np.sqrt(n - 1)
    # X = QR with orthogonal Q: R has the same covariance, and A B^T the same singular values. R of a tall
    # X is that of R of its first rows above the next ones (Demmel et al. 2012, sequential TSQR).
    R = np.zeros((0, d))
    for rows in row_blocks(n, at_least=2 * d):
        R = np.asarray(np.linalg.qr(np.vstack([R, features[rows] - mean]), mode="r"))
    return mean, R / np.sqrt(n - 1)
