"""Does a generator know its training samples by heart? Authenticity, nearest neighbours, and an exact test.

All of it compares distances of fakes to training samples with distances to samples that were held out.
Samples of one patient are alike, so patients are counted, drawn and permuted, never samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln
from scipy.stats import rankdata

from petgan.errors import ConfigError
from petgan.metrics.checks import check_same_width, checked_features
from petgan.metrics.neighbours import nearest_distances

ALPHA = 0.01  # honest generators that `memorisation_test` rejects, at most
PERMUTATIONS = 1999  # p = 0.0005 can be told, a tenth of what is judged
_MANY = 1_000_000
_CELLS_AT_ONCE = 1 << 23  # of a matrix of distances: 64 MB
_COLUMNS_AT_ONCE = 1024
_ROUNDING = 1e-12


def authenticity(train: np.ndarray, fake: np.ndarray, train_groups: np.ndarray | None = None) -> float:
    """Share of the fakes that are not too near to a training sample (Alaa et al. 2022, section 3.3).

    A fake is authentic if it lies farther from its nearest training sample than that sample lies from its
    own nearest other training sample.

    Parameters
    ----------
    train, fake : ndarray (n, d), (m, d)
    train_groups : ndarray (n,), optional
        Such as patients: two samples of one group do not count as neighbours.

    Returns
    -------
    float
        0, all are copies, to 1.

    Raises
    ------
    ConfigError
        If the arrays are of another kind, or there is only one group.
    """
    groups = _checked_groups("training", train_groups, len(train))
    if len(np.unique(groups)) < 2:
        raise ConfigError("authenticity takes training samples of two patients or more")
    distance, nearest = nearest_distances(fake, train)
    asked, position = np.unique(nearest, return_inverse=True)
    between, _ = nearest_distances(train[asked], train, groups[asked], groups)
    return float(np.mean(distance > between[position]))


# --- nearest neighbours -------------------------------------------------------------------------


@dataclass(frozen=True)
class NearestNeighbours:
    """Fakes between training samples and ones that were held out.

    Parameters
    ----------
    to_train, to_held_out : ndarray (n,) float64
        Distance of each fake to its nearest training and held-out sample.
    nearest : ndarray (n,) int
        Which training sample that is.
    nearer_train_share : float
        Chance that a fake is nearer to the training than to the held-out samples of equally many groups.
    membership_auc : float
        Chance that a training sample lies nearer to its nearest fake than a held-out one does; ties count
        half. It is what an attacker gains who guesses by that distance who was trained on.
    """

    to_train: np.ndarray
    to_held_out: np.ndarray
    nearest: np.ndarray
    nearer_train_share: float
    membership_auc: float

    @property
    def ratios(self) -> np.ndarray:
        """`to_train` over `to_held_out`; 1 where both are 0."""
        equal = self.to_train == self.to_held_out
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(equal, 1.0, self.to_train / self.to_held_out)


def nearest_neighbours(
    fake: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    train_groups: np.ndarray | None = None,
    held_out_groups: np.ndarray | None = None,
) -> NearestNeighbours:
    """Compare the distances of fakes to training samples with those to held-out samples.

    Share and AUC are about 0.5 if the generator has memorised nothing. There are usually more training
    samples, and the nearest of many is nearer; so the share is the mean over all draws of as many groups
    from the larger side as the smaller one has, which has a closed form.

    Parameters
    ----------
    fake, train, held_out : ndarray (n, d), (m, d), (h, d)
    train_groups, held_out_groups : ndarray (m,), (h,), optional
        Such as patients; by default each sample is its own.

    Raises
    ------
    ConfigError
        If the arrays are of another kind.
    """
    to_train, nearest = nearest_distances(fake, train)
    to_held_out, _ = nearest_distances(fake, held_out)
    train_groups = _checked_groups("training", train_groups, len(train))
    held_out_groups = _checked_groups("held-out", held_out_groups, len(held_out))
    shares = [
        _share_of_equal_draws(_to_groups(fake[rows], train, train_groups), theirs)
        for rows in _row_blocks(len(fake), max(len(train), len(held_out)))
        for theirs in [_to_groups(fake[rows], held_out, held_out_groups)]
    ]
    return NearestNeighbours(
        to_train,
        to_held_out,
        nearest,
        float(np.mean(np.concatenate(shares))),
        _auc(nearest_distances(train, fake)[0], nearest_distances(held_out, fake)[0]),
    )


def _share_of_equal_draws(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Chance, for each row, that the minimum of as many columns of `ours` as of `theirs` is the smaller."""
    if ours.shape[1] < theirs.shape[1]:
        return 1 - _share_of_equal_draws(theirs, ours)
    nearest = theirs.min(axis=1, keepdims=True)
    drawn, of = theirs.shape[1], ours.shape[1]
    none_below = _chance_of_none((ours < nearest).sum(axis=1), of, drawn)
    none_up_to = _chance_of_none((ours <= nearest).sum(axis=1), of, drawn)
    return 1 - (none_below + none_up_to) / 2


def _chance_of_none(marked: np.ndarray, of: int, drawn: int) -> np.ndarray:
    """Chance that `drawn` of `of` items, drawn without putting back, miss all the marked ones."""
    rest = np.maximum(of - marked, drawn)  # fewer cannot be drawn from: the chance is 0

    def log_choose(n: np.ndarray | int) -> np.ndarray:
        return np.asarray(gammaln(n + 1) - gammaln(drawn + 1) - gammaln(n - drawn + 1))

    return np.where(of - marked < drawn, 0.0, np.exp(log_choose(rest) - log_choose(of)))


def _auc(nearer: np.ndarray, farther: np.ndarray) -> float:
    """Chance that a value of the first is below one of the second: Mann-Whitney U over the pairs."""
    ranks = rankdata(np.concatenate([nearer, farther]))[: len(nearer)].sum()
    below = len(nearer) * (len(nearer) + 2 * len(farther) + 1) / 2 - ranks
    return float(below / (len(nearer) * len(farther)))


# --- the test -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemorisationTest:
    """What `memorisation_test` found.

    Parameters
    ----------
    rejects : bool or None
        Whether the generator knows who was trained on. None where that cannot be decided.
    p_nearer, p_inauthentic : float or None
        Of the two statistics; not corrected.
    labelings : int
        The ways to say which patients were trained on; a million stands for that many or more.
    error_rate : float
        Honest generators that are rejected, at most.
    """

    rejects: bool | None
    p_nearer: float | None
    p_inauthentic: float | None
    labelings: int
    error_rate: float

    def __str__(self) -> str:
        if self.rejects is None:
            return (
                "whether the generator knows who was trained on cannot be decided: with so few patients "
                f"there are {self.labelings} ways to hold some out, and it takes {2 / self.error_rate:.0f}"
            )
        verdict = "knows" if self.rejects else "was not shown to know"
        return (
            f"the generator {verdict} who was trained on (p = {self.p_nearer:.4f} by distances to training "
            f"and held-out images, {self.p_inauthentic:.4f} by authenticity; each is judged at "
            f"{self.error_rate / 2:g}, so that at most {self.error_rate:.0%} of honest generators fail)"
        )


def memorisation_test(
    fake: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    train_groups: np.ndarray,
    held_out_groups: np.ndarray,
    seed: int = 0,
) -> MemorisationTest:
    """Test by permutation of patients whether fakes tell who was trained on.

    If the generator knows nothing of who of all patients was trained on, then each choice of as many
    patients was as likely as the true one, given the fakes. So the rank of a statistic of the true choice
    among those of all choices, or of `PERMUTATIONS` random ones, is an exact p-value (Phipson and Smyth
    2010), for any number of patients, samples and fakes. It takes that patients were held out at random.

    Two statistics, each judged at half of `ALPHA` (Bonferroni):

    - nearer: mean over fakes of (h - t) / (h + t), with t and h the distances to the nearest training and
      held-out sample. Fakes near to training samples, at any scale, raise it.
    - inauthentic: mean over fakes of max(0, 1 - d / s), with d the distance to a training sample and s how
      far that one lies from the nearest sample of another patient, trained on or held out; the sample for
      which d / s is least counts. It is authenticity by degrees. Of blends and noisy copies of
      mammograms it found more than the share of d < s, because it tells the near from the very near.

    Parameters
    ----------
    fake, train, held_out : ndarray (n, d), (m, d), (h, d)
        A matrix of fakes x patients is held in memory.
    train_groups, held_out_groups : ndarray (m,), (h,)
        Patients; the two sides share none.
    seed : int
        Of the permutations.

    Raises
    ------
    ConfigError
        If the arrays are of another kind, or a patient is on both sides.
    """
    train_groups = _checked_groups("training", train_groups, len(train))
    held_out_groups = _checked_groups("held-out", held_out_groups, len(held_out))
    for name, samples in (("training", train), ("held-out", held_out)):
        check_same_width(
            checked_features(name, samples, at_least=1), checked_features("fake", fake, at_least=1)
        )
    if both := set(train_groups.tolist()) & set(held_out_groups.tolist()):
        raise ConfigError("patients are trained on and held out at once", value=len(both), allowed="0")
    trained, held = len(np.unique(train_groups)), len(np.unique(held_out_groups))
    labelings = min(math.comb(trained + held, held), _MANY)
    if labelings < 2 / ALPHA:
        return MemorisationTest(None, None, None, labelings, ALPHA)
    groups = np.concatenate([train_groups, held_out_groups])
    pool = np.concatenate([train, held_out])
    between, _ = nearest_distances(pool, pool, groups, groups)
    # As for copies: a sample that two patients share must not hide its copies.
    scale = np.maximum(between, np.median(between) / 2)
    distances = np.concatenate(
        [_to_groups(fake, train, train_groups), _to_groups(fake, held_out, held_out_groups)], axis=1
    ).T.copy()
    ratios = np.concatenate(
        [
            _to_groups(fake, train, train_groups, scale[: len(train)]),
            _to_groups(fake, held_out, held_out_groups, scale[len(train) :]),
        ],
        axis=1,
    ).T.copy()  # fmt: skip
    observed = _statistics(distances, ratios, np.arange(trained + held) < trained)
    reached, count = np.zeros(2), 0
    for labels in _labelings(trained, held, labelings, seed):
        reached += _statistics(distances, ratios, labels) >= observed - _ROUNDING
        count += 1
    p = reached / count if labelings <= PERMUTATIONS else (1 + reached) / (1 + count)
    return MemorisationTest(bool(p.min() <= ALPHA / 2), float(p[0]), float(p[1]), labelings, ALPHA)


def _statistics(distances: np.ndarray, ratios: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Both statistics, of (patients, fakes) distances, as they are and scaled, for one labelling."""
    t, h = distances[trained].min(axis=0), distances[~trained].min(axis=0)
    both = t + h
    nearer = np.divide(h - t, both, out=np.zeros_like(t), where=both > 0)
    return np.array([nearer.mean(), np.maximum(0, 1 - ratios[trained].min(axis=0)).mean()])


def _labelings(trained: int, held: int, possible: int, seed: int) -> Iterator[np.ndarray]:
    """Who was trained on: every choice if they are few, the true one among them, or random ones."""
    patients = trained + held
    if possible <= PERMUTATIONS:
        for chosen in itertools.combinations(range(patients), held):
            labels = np.ones(patients, bool)
            labels[list(chosen)] = False
            yield labels
    else:
        random = np.random.default_rng(seed)
        true = np.arange(patients) < trained
        for _ in range(PERMUTATIONS):
            yield random.permutation(true)


# --- distances to groups ------------------------------------------------------------------------


def _checked_groups(name: str, groups: np.ndarray | None, count: int) -> np.ndarray:
    """Groups (n,); by default each sample is its own."""
    out = np.arange(count) if groups is None else np.asarray(groups)
    if out.shape != (count,):
        raise ConfigError(f"the {name} groups do not fit", value=out.shape, allowed=f"({count},)")
    return out


def _to_groups(
    query: np.ndarray, reference: np.ndarray, groups: np.ndarray, scale: np.ndarray | None = None
) -> np.ndarray:
    """Distance of each query to the nearest sample of each group, (n, groups), in the groups' order.

    With `scale` (m,), distances are taken over that of the reference sample.
    """
    names, codes = np.unique(groups, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    out = np.full((len(query), len(names)), np.inf)
    for start in range(0, len(reference), _COLUMNS_AT_ONCE):
        chosen = order[start : start + _COLUMNS_AT_ONCE]
        columns = reference[chosen].astype(np.float64)
        here, starts = np.unique(codes[chosen], return_index=True)
        for rows in _row_blocks(len(query), _COLUMNS_AT_ONCE):
            block = query[rows].astype(np.float64)
            squares = np.sum(block**2, axis=1)[:, None] - 2 * (block @ columns.T) + np.sum(columns**2, axis=1)
            distances = np.sqrt(np.maximum(squares, 0))
            if scale is not None:
                distances /= scale[chosen]
            out[rows, here] = np.minimum(out[rows, here], np.minimum.reduceat(distances, starts, axis=1))
    return out


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CELLS_AT_ONCE // columns)
    return (slice(first, first + step) for first in range(0, rows, step))
