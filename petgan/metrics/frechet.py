"""Fréchet distance of two Gaussians fitted to features (FID; Heusel et al. 2017)."""

from __future__ import annotations

import numpy as np

from petgan.metrics.checks import check_same_width, checked_features


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
    A, B = _scaled(real), _scaled(fake)
    mean_term = np.sum((real.mean(axis=0) - fake.mean(axis=0)) ** 2)
    cross = np.linalg.svd(A @ B.T, compute_uv=False).sum()
    return float(mean_term + np.sum(A**2) + np.sum(B**2) - 2 * cross)


def _scaled(features: np.ndarray) -> np.ndarray:
    """A (min(n, d), d) with A^T A the covariance of the features."""
    n, d = features.shape
    A: np.ndarray = (features - features.mean(axis=0)) / np.sqrt(n - 1)
    # A = QR with orthogonal Q: R has the same covariance, and A B^T the same singular values.
    if n > d:
        A = np.linalg.qr(A).R
    return A
