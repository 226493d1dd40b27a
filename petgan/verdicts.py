"""Is one configuration better than another? Means over seeds, their intervals, and verdicts of a whole table.

A score is uncertain for two reasons, and the variance of a mean over n seeds is the sum of two parts:

- the seeds, each with a training and a draw of generated images of its own: s^2 / n, with s the sample
  deviation of the seeds' scores;
- the patients among the real images, whom all runs share: the delete-a-group jackknife of the mean over the
  seeds, (G - 1) / G * sum((m_g - mean(m))^2), where m_g is the mean without group g (Shao and Wu 1989;
  Künsch 1989 for whole blocks). In a difference of two configurations the groups pair.

For means this is what a bootstrap over seeds and patients gives with infinitely many draws (Efron and
Tibshirani 1993, ch. 6 and 11), times n / (n - 1), without which it is too small for few seeds. It is exact,
and the same each time. Intervals take quantiles of Student's t: percentiles of a bootstrap from five seeds
cover far too rarely (Hesterberg 2015). Real images are left out and never drawn twice: repeated ones bias
KID, and nearest neighbours find them at distance 0.

The half-width of an interval is the root of the sum of (t * deviation)^2 over the two parts, each with the t
of its own degrees of freedom, n - 1 and G - 1 (Banerjee 1960). It is never too short. One t with the degrees
of Welch and Satterthwaite is, from two or three seeds: when these happen to agree, it takes the patients'
degrees for all. Without the patients' part it is the usual t, paired or Welch's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from petgan.errors import ConfigError

LEVEL = 0.05
_ROUNDING = 1e-12  # a deviation below this share of the largest score is none


@dataclass(frozen=True)
class Measured:
    """One configuration under one score.

    Parameters
    ----------
    values : mapping of int to float
        The score of each seed.
    without : mapping of int to sequence of float
        For each seed the score without each group of test patients, the groups in the same order for all
        configurations that are compared. Where a seed has none, intervals speak of the seeds alone.
    """

    values: Mapping[int, float]
    without: Mapping[int, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """Mean over `n` seeds, and where the configuration's mean lies with 95 % confidence."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of the first minus the second configuration.

    Parameters
    ----------
    mean, low, high : float
        With its interval of 95 % confidence.
    p : float
        Of a difference at least as large, either way, between equal configurations.
    n : int
        Seeds: those of both if `paired`, otherwise of the one that has fewer.
    paired : bool
        Whether the seeds pair.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    paired: bool


@dataclass(frozen=True)
class Verdict:
    """What a table shows of one configuration.

    Parameters
    ----------
    word : str
        ``best``: the best mean of those with two seeds or more. ``worse``: the best one beats it. ``tie``:
        no difference to the best is shown. ``single seed``: it is shown and not judged.
    difference : Difference or None
        This configuration minus the best; None for the best and single seeds, and where it cannot be told.
    p : float or None
        Adjusted for all comparisons of the table; None where there is no difference.
    """

    word: str
    difference: Difference | None = None
    p: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The verdicts of a table, in its order, and which one is the best (None if all have a single seed)."""

    best: int | None
    verdicts: tuple[Verdict, ...]


def interval(measured: Measured) -> Interval | None:
    """Mean over the seeds with its 95 % interval; None for fewer than two seeds.

    Raises
    ------
    ConfigError
        If a score is not finite, or the seeds have different numbers of patient groups.
    """
    seeds = sorted(measured.values)
    if len(seeds) < 2:
        return None
    values = _values(measured, seeds)
    mean = fmean(values)
    reach = _reach([_of_seeds(values), *_of_patients(_groups(measured, seeds))], LEVEL)
    return Interval(mean, mean - reach, mean + reach, len(seeds))


def difference(a: Measured, b: Measured) -> Difference | None:
    """Mean of `a` minus mean of `b`: over their shared seeds in pairs if there are two, otherwise Welch's.

    None where it cannot be told: with a single seed, and where every seed gives the same difference, other
    than 0. A spread of 0 is an accident of coarse scores (a share of 60 images) and few seeds, or a sign
    that the seeds are no sample; it would make any difference a certain one.

    Raises
    ------
    ConfigError
        If a score is not finite, or the seeds have different numbers of patient groups.
    """
    shared = sorted(a.values.keys() & b.values.keys())
    paired = len(shared) >= 2
    of_a, of_b = (shared, shared) if paired else (sorted(a.values), sorted(b.values))
    x, y = _values(a, of_a), _values(b, of_b)
    n = min(len(x), len(y))
    if n < 2:
        return None
    seeds = _of_seeds(x - y) if paired else _welch(_of_seeds(x), _of_seeds(y))
    mean = fmean(x - y) if paired else fmean(x) - fmean(y)
    rounding = _ROUNDING * max(np.abs(x).max(), np.abs(y).max())
    if seeds.variance <= rounding**2:
        if abs(mean) > rounding:
            return None
        mean = 0.0
    without_a, without_b = _groups(a, of_a), _groups(b, of_b)
    if without_a is None or without_b is None:
        parts = [seeds]
    else:
        _check_groups({len(without_a), len(without_b)})
        parts = [seeds, *_of_patients(without_a - without_b)]
    reach = _reach(parts, LEVEL)
    return Difference(mean, mean - reach, mean + reach, _p_value(parts, mean), n, paired)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: all those below a level hold together at it (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def against_best(measured: Sequence[Measured], better: str = "lower") -> Comparison:
    """Compare the configurations of a table with the best of them.

    In at most 5 % of tables is any configuration called worse that is not. Holm's correction over the
    m - 1 comparisons is not enough for that, because the best is picked from the same scores: any of the m
    could have come out as the best. So each of them gets a share 1 / m of the level, and as it is the best
    only in one direction, one-sided: p / 2 times m, and Holm's correction of that.

    Parameters
    ----------
    measured : sequence of Measured
        All of one score, ruler, protocol and number of images.
    better : str
        ``lower`` or ``higher``.

    Raises
    ------
    ConfigError
        If `better` is anything else, a score is not finite, or numbers of patient groups differ.
    """
    if better not in ("lower", "higher"):
        raise ConfigError("impossible direction of a score", value=better, allowed=("lower", "higher"))
    judged = [index for index, one in enumerate(measured) if len(one.values) > 1]
    verdicts = [Verdict("single seed")] * len(measured)
    if not judged:
        return Comparison(None, tuple(verdicts))
    sign = 1 if better == "lower" else -1
    best = min(judged, key=lambda index: sign * fmean(measured[index].values.values()))
    verdicts[best] = Verdict("best")
    others = [index for index in judged if index != best]
    found = [difference(measured[index], measured[best]) for index in others]
    raw = [1.0 if one is None else one.p for one in found]
    for index, one, p in zip(others, found, holm([p * len(judged) / 2 for p in raw]), strict=True):
        shown = one is not None and p <= LEVEL and sign * one.mean > 0
        verdicts[index] = Verdict("worse" if shown else "tie", one, None if one is None else p)
    return Comparison(best, tuple(verdicts))


# --- parts of a variance ------------------------------------------------------------------------


class _Part(NamedTuple):
    variance: float
    degrees: float  # of freedom


def _of_seeds(values: np.ndarray) -> _Part:
    return _Part(float(np.var(values, ddof=1)) / len(values), len(values) - 1)


def _welch(a: _Part, b: _Part) -> _Part:
    """Both together, with the degrees of freedom of Welch (1947)."""
    variance = a.variance + b.variance
    if not variance:
        return _Part(0.0, min(a.degrees, b.degrees))
    # Shares of the variance, whose squares cannot underflow.
    return _Part(variance, 1 / sum((part.variance / variance) ** 2 / part.degrees for part in (a, b)))


def _of_patients(means: np.ndarray | None) -> list[_Part]:
    """The part of the patients, where there is one: `means` (G,) over the seeds, without each group."""
    if means is None:
        return []
    return [_Part((len(means) - 1) * float(np.var(means)), len(means) - 1)]


def _reach(parts: Sequence[_Part], p: float) -> float:
    """Half-width of the interval of confidence 1 - p."""
    return math.sqrt(sum(part.variance * float(stdtrit(part.degrees, p / 2)) ** 2 for part in parts))


def _p_value(parts: Sequence[_Part], mean: float) -> float:
    """The p at which `_reach` is |mean|: between those of one t with the most and the fewest degrees."""
    if not mean:
        return 1.0
    t = abs(mean) / math.sqrt(sum(part.variance for part in parts))
    bounds = {2 * float(stdtr(part.degrees, -t)) for part in parts}
    low, high = min(bounds), max(bounds)
    while low and high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _reach(parts, middle) < abs(mean) else (middle, high)
    return high


# --- scores as arrays ---------------------------------------------------------------------------


def _values(measured: Measured, seeds: Sequence[int]) -> np.ndarray:
    values = np.array([measured.values[seed] for seed in seeds], float)
    if not np.isfinite(values).all():
        raise ConfigError(
            "a score is not a number", value=values.tolist(), hint="score its run again: 'petgan evaluate'"
        )
    return values


def _groups(measured: Measured, seeds: Sequence[int]) -> np.ndarray | None:
    """Means over the seeds without each group of patients (G,); None if a seed has no such scores."""
    without = [measured.without.get(seed, ()) for seed in seeds]
    if min(map(len, without)) < 2:
        return None
    _check_groups({len(scores) for scores in without})
    means: np.ndarray = np.mean(np.array(without, float), axis=0)
    return means


def _check_groups(counts: set[int]) -> None:
    if len(counts) > 1:
        raise ConfigError(
            "scores without groups of patients pair only for the same groups",
            value=f"{' and '.join(map(str, sorted(counts)))} groups",
            hint="score all runs alike: 'petgan evaluate --force'",
        )
