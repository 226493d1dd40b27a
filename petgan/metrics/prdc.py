"""Fidelity and diversity apart: precision and recall, density and coverage, by nearest neighbours.

Around each sample lies the ball that reaches its k-th nearest neighbour of its own set; all balls of a set
stand for the region that the set fills. On two sets of one distribution density is 1 on average and
coverage about 1 - 1/2^k (sets of equal size), while precision and recall stay below 1 by an amount that
depends on the sizes and the distribution: compare them with those of real images against real ones.
"""

from __future__ import annotations

import numpy as np

from petgan.metrics.checks import check_same_width, checked_features
from petgan.metrics.neighbours import ball_counts, in_each_others_balls, squared_radii


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Share of the fakes within the real region, and of the reals within the fakes'.

    Kynkaanniemi et al. 2019, equations 1 to 3, with closed balls as there.

    Parameters
    ----------
    real, fake : ndarray (n, d)
        Features; sets may differ in length.
    k : int
        Which neighbour a ball reaches; each set needs k + 1 samples.

    Returns
    -------
    precision, recall : float
        0 to 1; higher is better.

    Raises
    ------
    ConfigError
        If k is below 1 or too large for a set, or the arrays are of another kind.
    """
    real, fake = checked_features("real", real), checked_features("fake", fake)
    check_same_width(real, fake)
    reals, fakes = in_each_others_balls(real, squared_radii(real, k), fake, squared_radii(fake, k))
    return float(np.mean(fakes)), float(np.mean(reals))


def density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Mean number of real balls around a fake, over k; share of the real balls that hold a fake.

    Naeem et al. 2020, equations 3 and 4: density is 1/(kM) times the sum, over M fakes, of the balls that
    hold them.

    An outlier among the reals, whose ball is large, counts for little in either. A generator that repeats
    a few good images keeps its density and loses its coverage.

    Parameters
    ----------
    real, fake : ndarray (n, d)
        Features; sets may differ in length.
    k : int
        Which neighbour a ball reaches; the reals must be k + 1 or more.

    Returns
    -------
    density : float
        0 or more, and above 1 where fakes crowd into dense regions; higher is better.
    coverage : float
        0 to 1; higher is better.

    Raises
    ------
    ConfigError
        If k is below 1 or too large for the reals, or the arrays are of another kind.
    """
    real, fake = checked_features("real", real), checked_features("fake", fake, at_least=1)
    check_same_width(real, fake)
    held, around_fakes = ball_counts(real, squared_radii(real, k), fake)
    return float(np.mean(around_fakes)) / k, float(np.mean(held > 0))
