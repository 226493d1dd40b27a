"""Verdicts: against SciPy and brute force, and how often they are wrong or see nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from petgan.errors import ConfigError
from petgan.metrics import frechet_distance, kernel_distance
from petgan.verdicts import Measured, against_best, difference, holm, interval

RANDOM = np.random.default_rng(5)
GROUPS = 10


def of(values, first=0, without=None):
    """A configuration with seeds from `first` on."""
    seeds = range(first, first + len(values))
    return Measured(
        dict(zip(seeds, map(float, values), strict=True)),
        {} if without is None else dict(zip(seeds, np.asarray(without).tolist(), strict=True)),
    )


# --- other implementations ----------------------------------------------------------------------


def test_the_interval_of_seeds_alone_is_students():
    values = RANDOM.normal(3, 1, 5)
    found, known = interval(of(values)), stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), *known))
    assert found.n == 5
    assert interval(of(values[:1])) is None


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_the_difference_of_seeds_alone_is_scipys(paired, n):
    a, b = RANDOM.normal(0, 1, n), RANDOM.normal(1, 3, n if paired else n + 2)
    found = difference(of(a), of(b, first=0 if paired else n))
    known = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    assert (found.low, found.high, found.p) == pytest.approx((*known.confidence_interval(), known.pvalue))
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert (found.n, found.paired) == (n, paired)


def test_only_shared_seeds_pair_and_one_shared_seed_pairs_nothing():
    a, b = RANDOM.normal(size=5), RANDOM.normal(size=4)
    assert difference(of(a), of(b, first=2)) == difference(of(a[2:], first=2), of(b[:3], first=2))
    assert difference(of(a), of(b, first=3)).paired
    assert not difference(of(a), of(b, first=4)).paired


def test_the_variance_is_that_of_a_bootstrap_over_seeds_and_patients():
    # A score that is a mean over groups of patients, so that the jackknife is exact as well.
    n, draws = 5, 200_000
    patients, seeds = RANDOM.normal(0, 2, GROUPS), RANDOM.normal(0, 1, n)
    table = seeds[:, None] + patients
    without = (table.sum(axis=1, keepdims=True) - table) / (GROUPS - 1)
    drawn_seeds = seeds[RANDOM.integers(n, size=(draws, n))].mean(axis=1)
    drawn_patients = patients[RANDOM.integers(GROUPS, size=(draws, GROUPS))].mean(axis=1)
    assert np.var(drawn_seeds + drawn_patients) == pytest.approx(
        np.var(drawn_seeds) + np.var(drawn_patients), rel=0.02
    )
    of_seeds, of_patients = np.var(drawn_seeds) * n / (n - 1), np.var(drawn_patients) * GROUPS / (GROUPS - 1)
    reach = math.hypot(
        math.sqrt(of_seeds) * stats.t.ppf(0.975, n - 1),
        math.sqrt(of_patients) * stats.t.ppf(0.975, GROUPS - 1),
    )
    found = interval(of(table.mean(axis=1), without=without))
    assert (found.high - found.low) / 2 == pytest.approx(reach, rel=0.01)
    assert (found.high + found.low) / 2 == pytest.approx(table.mean())


def test_holm_by_hand_and_by_all_intersections():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    p = RANDOM.uniform(0, 0.4, 6)
    subsets = [s for size in range(1, 7) for s in itertools.combinations(range(6), size)]
    closed = [max(min(1, len(s) * min(p[list(s)])) for s in subsets if i in s) for i in range(6)]
    assert holm(p) == pytest.approx(closed)


# --- properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("paired", [True, False])
def test_p_is_the_level_at_which_the_interval_ends_at_no_difference(paired, monkeypatch):
    a = of(RANDOM.normal(0, 1, 3), without=RANDOM.normal(0, 0.2, (3, GROUPS)))
    b = of(RANDOM.normal(2, 1, 3), first=0 if paired else 3, without=RANDOM.normal(0, 0.2, (3, GROUPS)))
    monkeypatch.setattr("petgan.verdicts.LEVEL", difference(a, b).p)
    assert difference(a, b).high == pytest.approx(0, abs=1e-7)


def test_a_difference_turns_with_its_sides():
    a, b = (of(RANDOM.normal(size=3), without=RANDOM.normal(size=(3, GROUPS))) for _ in range(2))
    there, back = difference(a, b), difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert there.p == pytest.approx(back.p)


def test_what_the_patients_do_to_both_alike_cancels():
    common = RANDOM.normal(0, 5, GROUPS)
    a, b = RANDOM.normal(0, 1, 4), RANDOM.normal(1, 1, 4)
    with_patients = difference(of(a, without=a[:, None] + common), of(b, without=b[:, None] + common))
    assert with_patients.p == pytest.approx(difference(of(a), of(b)).p)
    assert interval(of(a, without=a[:, None] + common)).high > interval(of(a)).high


def test_where_a_seed_has_no_scores_without_groups_the_seeds_speak_alone():
    a, b = of([1, 2, 4]), of([3, 3, 5], without=RANDOM.normal(size=(3, GROUPS)))
    assert difference(a, b) == difference(a, of([3, 3, 5]))
    partly = Measured(b.values, {0: b.without[0], 1: [], 2: b.without[2]})
    assert interval(partly) == interval(of([3, 3, 5]))


def test_groups_that_cannot_be_the_same_are_refused():
    a, b = (of([1, 2], without=RANDOM.normal(size=(2, groups))) for groups in (9, 10))
    with pytest.raises(ConfigError, match="same groups: got '9 and 10 groups'"):
        difference(a, b)
    with pytest.raises(ConfigError, match="same groups"):
        interval(Measured({0: 1.0, 1: 2.0}, {0: [1.0, 2.0, 3.0], 1: [1.0, 2.0]}))
    with pytest.raises(ConfigError, match="not a number"):
        interval(of([1, math.nan]))


def test_scores_without_spread_are_a_tie_if_equal_and_cannot_be_told_if_not():
    third = 1 / 3
    same = difference(of([third] * 3), of([third] * 3))
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    for paired in (0, 3):
        assert difference(of([0.1] * 3), of([0.3] * 3, first=paired)) is None
    # Equal differences by accident, but for their rounding.
    a = np.array([0.1, 0.2, 0.7])
    assert difference(of(a), of(a + 0.1)) is None
    assert difference(of(a), of(a + 0.1, without=RANDOM.normal(size=(3, GROUPS)))) is None
    assert [v.word for v in against_best([of([0.1] * 3), of([0.3] * 3)]).verdicts] == ["best", "tie"]
    one_varies = difference(of([0.0] * 3, first=3), of(a))
    assert one_varies.p == pytest.approx(stats.ttest_1samp(a, 0).pvalue)


# --- tables -------------------------------------------------------------------------------------


def test_a_table_has_its_best_what_it_beats_ties_and_single_seeds():
    table = [of([5, 5.1, 4.9]), of([0.1]), of([1, 1.1, 1.05]), of([1.02, 1.1, 1.04]), of([6.0, 6.1])]
    found = against_best(table)
    assert found.best == 2
    assert [v.word for v in found.verdicts] == ["worse", "single seed", "best", "tie", "tie"]
    assert found.verdicts[0].difference == difference(table[0], table[2])
    assert (found.verdicts[1].difference, found.verdicts[2].p) == (None, None)
    mirrored = [of([-value for value in one.values.values()]) for one in table]
    assert [v.word for v in against_best(mirrored, "higher").verdicts] == [v.word for v in found.verdicts]
    with pytest.raises(ConfigError, match="got 'smaller'; allowed: lower, higher"):
        against_best(table, "smaller")


def test_a_table_of_single_seeds_has_no_best():
    found = against_best([of([1]), of([2])])
    assert found.best is None
    assert {v.word for v in found.verdicts} == {"single seed"}


def test_the_level_is_shared_among_all_that_could_have_been_the_best():
    # One-sided, at a share 1 / m for each candidate, then all intersections of its comparisons.
    table = [of(RANDOM.normal(mean, 0.1, 4)) for mean in (0, 0.05, 0.5, 0.6, 3)]
    found = against_best(table)
    best = np.array(list(table[found.best].values.values()))
    others = [i for i in range(5) if i != found.best]
    p = {
        i: stats.ttest_rel(list(table[i].values.values()), best, alternative="greater").pvalue for i in others
    }
    subsets = [s for size in range(1, 5) for s in itertools.combinations(others, size)]
    for i in others:
        closed = 5 * max(len(s) * min(p[j] for j in s) for s in subsets if i in s)
        assert found.verdicts[i].p == pytest.approx(min(1, closed))
    assert {"worse", "tie"} <= {v.word for v in found.verdicts}


# --- rates, at fixed seeds ----------------------------------------------------------------------


def equal_configurations(m, n, patients, random):
    """Seeds of deviation 1, and patients that move each configuration by a deviation of `patients`."""
    effects = random.normal(0, patients * math.sqrt(GROUPS), (m, GROUPS))
    values = random.normal(0, 1, (m, n))
    without = values[:, :, None] + (effects.sum(axis=1, keepdims=True) - effects)[:, None] / (GROUPS - 1)
    values = values + effects.mean(axis=1, keepdims=True)
    return [of(v, without=w if patients else None) for v, w in zip(values, without, strict=True)]


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize(
    ("m", "patients", "tables"), [(2, 0, 500), (2, 0.3, 500), (9, 0, 200), (9, 0.3, 200)]
)
def test_of_equal_configurations_any_is_called_worse_in_at_most_5_of_100_tables(m, n, patients, tables):
    random = np.random.default_rng(m + n)
    wrong = sum(
        any(v.word == "worse" for v in against_best(equal_configurations(m, n, patients, random)).verdicts)
        for _ in range(tables)
    )
    assert wrong <= stats.binom.ppf(0.99, tables, 0.05)


@pytest.mark.parametrize("n", [2, 5])
def test_the_interval_covers_in_at_least_95_of_100(n):
    random, draws = np.random.default_rng(n), 500
    covered = 0
    for _ in range(draws):
        (one,) = equal_configurations(1, n, 0.5, random)
        found = interval(one)
        covered += found.low <= 0 <= found.high
    assert covered >= stats.binom.ppf(0.01, draws, 0.95)


def scored(score, real, groups, generate):
    """Five seeds of 150 generated samples, each scored against the real ones and those without each group."""
    fakes = [generate() for _ in range(5)]
    without = [[score(real[groups != g], fake) for g in range(GROUPS)] for fake in fakes]
    return of([score(real, fake) for fake in fakes], without=without)


@pytest.mark.parametrize(
    ("score", "repeats"),
    [
        (frechet_distance, 100),
        (lambda real, fake: kernel_distance(real, fake, subsets=2, subset_size=len(real))[0], 20),
    ],
    ids=["fid", "kid"],
)
def test_equal_generators_tie_and_one_that_is_a_floor_worse_is_found(score, repeats):
    random, d = np.random.default_rng(3), 16
    groups = np.arange(150) // 2 % GROUPS

    def draw(n, shift=0.0):
        return random.normal(size=(n, d)) + shift * np.eye(d)[0]

    def real(n):
        """Two images a patient, who is half of their variance."""
        return (np.repeat(draw(n // 2), 2, axis=0) + draw(n)) / math.sqrt(2)

    test, train = real(150), real(404)
    floor = np.mean(
        [frechet_distance(test, train[random.choice(404, 150, replace=False)]) for _ in range(20)]
    )
    ties = found = 0
    for _ in range(repeats):
        test = real(150)
        a, b = (scored(score, test, groups, lambda: draw(150)) for _ in range(2))
        worse = scored(score, test, groups, lambda: draw(150, math.sqrt(floor)))  # of mean FID + floor
        ties += [v.word for v in against_best([a, b]).verdicts].count("tie")
        found += against_best([a, worse]).verdicts[1].word == "worse"
    assert ties >= 0.95 * repeats
    assert found >= 0.90 * repeats
