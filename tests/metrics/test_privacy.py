from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu

from petgan.errors import ConfigError
from petgan.metrics import privacy
from petgan.metrics.privacy import authenticity, memorisation_test, nearest_neighbours


def draw(n, seed, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


# --- authenticity -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(9, 5), (5, 40), (2, 1)])
@pytest.mark.parametrize("grouped", [False, True])
def test_authenticity_is_that_of_the_definition(n, m, grouped):
    train, fake = draw(n, 0), draw(m, 1)
    groups = np.arange(n) // (2 if grouped and n > 3 else 1)
    authentic = 0
    for x in fake:
        nearest = min(range(n), key=lambda i: np.linalg.norm(x - train[i]))
        others = [np.linalg.norm(train[nearest] - train[j]) for j in range(n) if groups[j] != groups[nearest]]
        authentic += np.linalg.norm(x - train[nearest]) > min(others)
    assert authenticity(train, fake, groups if grouped else None) == authentic / m


def test_no_copy_is_authentic_and_everything_far_away_is():
    train = draw(20, 0)
    assert authenticity(train, np.repeat(train, 3, axis=0) + 1e-9) == 0
    assert authenticity(train, train + 100) == 1


def test_authenticity_takes_two_groups():
    with pytest.raises(ConfigError, match="two patients"):
        authenticity(draw(4, 0), draw(4, 1), np.zeros(4))


# --- nearest neighbours -------------------------------------------------------------------------


def test_neighbours_are_those_of_brute_force():
    fake, train, held_out = draw(7, 0), draw(9, 1), draw(4, 2)
    found = nearest_neighbours(fake, train, held_out)
    np.testing.assert_allclose(found.to_train, cdist(fake, train).min(axis=1))
    np.testing.assert_array_equal(found.nearest, cdist(fake, train).argmin(axis=1))
    np.testing.assert_allclose(found.to_held_out, cdist(fake, held_out).min(axis=1))
    np.testing.assert_allclose(found.ratios, found.to_train / found.to_held_out)


@pytest.mark.parametrize(("trained", "held"), [(5, 2), (2, 5), (3, 3)])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cells", [1, 1 << 23])
def test_the_share_is_the_mean_over_all_equal_draws_of_patients(monkeypatch, trained, held, ties, cells):
    monkeypatch.setattr(privacy, "_CELLS_AT_ONCE", cells)
    monkeypatch.setattr(privacy, "_COLUMNS_AT_ONCE", 3)
    patients, others = np.arange(2 * trained) % trained, np.arange(3 * held) % held
    fake, train, held_out = draw(6, 0), draw(2 * trained, 1), draw(3 * held, 2)
    if ties:
        fake, train, held_out = (np.round(x[:, :1]) for x in (fake, train, held_out))
    fewer = min(trained, held)
    shares = []
    for ours in itertools.combinations(range(trained), fewer):
        for theirs in itertools.combinations(range(held), fewer):
            t = cdist(fake, train[np.isin(patients, ours)]).min(axis=1)
            h = cdist(fake, held_out[np.isin(others, theirs)]).min(axis=1)
            shares.append(np.mean((t < h) + (t == h) / 2))
    found = nearest_neighbours(fake, train, held_out, patients, others).nearer_train_share
    assert found == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_auc_is_that_of_mann_whitney(ties):
    fake, train, held_out = draw(6, 0), draw(30, 1), draw(11, 2)
    if ties:
        fake, train, held_out = (np.round(x[:, :1]) for x in (fake, train, held_out))
    near, far = cdist(train, fake).min(axis=1), cdist(held_out, fake).min(axis=1)
    oracle = mannwhitneyu(-near, -far).statistic / (30 * 11)
    assert nearest_neighbours(fake, train, held_out).membership_auc == pytest.approx(oracle, abs=1e-12)


def test_one_half_without_memory_and_one_with():
    honest = [nearest_neighbours(draw(50, s), draw(60, 100 + s), draw(20, 200 + s)) for s in range(40)]
    assert np.mean([found.nearer_train_share for found in honest]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([found.membership_auc for found in honest]) == pytest.approx(0.5, abs=0.03)
    train = draw(60, 0)
    copied = nearest_neighbours(train, train, draw(20, 1))
    assert copied.nearer_train_share > 0.99 or copied.to_train.max() == 0
    assert (copied.membership_auc, copied.ratios.max()) == (1, 0)


# --- the test -----------------------------------------------------------------------------------


def by_the_definition(fake, train, held_out, patients, others):
    """Both p-values, from every choice of patients, with distances anew for each."""
    pool, whose = np.concatenate([train, held_out]), np.concatenate([patients, others])
    between = cdist(pool, pool)
    between[whose[:, None] == whose] = np.inf
    scale = between.min(axis=1)
    scale = np.maximum(scale, np.median(scale) / 2)

    def statistics(held):
        inside = ~np.isin(whose, held)
        distance = cdist(fake, pool)
        t, h = distance[:, inside].min(axis=1), distance[:, ~inside].min(axis=1)
        short = np.maximum(0, 1 - (distance / scale)[:, inside].min(axis=1))
        return np.array([np.mean((h - t) / (h + t)), short.mean()])

    observed = statistics(np.unique(others))
    choices = itertools.combinations(np.unique(whose), len(np.unique(others)))
    return np.mean([statistics(held) >= observed - 1e-12 for held in choices], axis=0)


PATIENTS, OTHERS = np.repeat(np.arange(9), 2), np.repeat(np.arange(9, 13), [1, 2, 3, 1])


@pytest.mark.parametrize("memory", [0, 0.5, 0.95])
def test_p_values_are_those_of_all_labelings(memory):
    train, held_out = draw(18, 0), draw(7, 1)
    fake = memory * train[:12] + (1 - memory) * draw(12, 2)
    found = memorisation_test(fake, train, held_out, PATIENTS, OTHERS)
    expected = by_the_definition(fake, train, held_out, PATIENTS, OTHERS)
    np.testing.assert_allclose([found.p_nearer, found.p_inauthentic], expected, rtol=1e-12)
    assert found.rejects == (min(expected) <= 0.005)
    assert found.labelings == 715


def test_random_labelings_come_near_to_all(monkeypatch):
    train, held_out = draw(18, 0), draw(7, 1)
    fake = 0.3 * train[:12] + 0.7 * draw(12, 2)
    exact = memorisation_test(fake, train, held_out, PATIENTS, OTHERS)
    monkeypatch.setattr(privacy, "PERMUTATIONS", 700)
    drawn = memorisation_test(fake, train, held_out, PATIENTS, OTHERS)
    assert drawn.p_nearer != exact.p_nearer
    assert drawn.p_nearer == pytest.approx(exact.p_nearer, abs=0.06)
    assert drawn.p_inauthentic == pytest.approx(exact.p_inauthentic, abs=0.06)


def test_the_level_holds_for_generators_that_know_nothing(monkeypatch):
    monkeypatch.setattr(privacy, "PERMUTATIONS", 199)
    p = []
    for seed in range(300):
        person = np.repeat(draw(16, seed, 4), 3, axis=0)  # patients differ, and their samples are alike
        samples = person + 0.2 * draw(48, 1000 + seed, 4)
        fake = np.repeat(draw(5, 2000 + seed, 4), 4, axis=0) + 0.2 * draw(20, 3000 + seed, 4)
        groups = np.repeat(np.arange(16), 3)
        found = memorisation_test(fake, samples[:36], samples[36:], groups[:36], groups[36:], seed)
        p.append([found.p_nearer, found.p_inauthentic])
    for level in (0.05, 0.2):
        allowed = level + 3 * np.sqrt(level * (1 - level) / len(p))
        assert (np.mean(np.array(p) <= level, axis=0) <= allowed).all()


def test_memory_of_any_kind_is_found():
    train, held_out = draw(40, 0, 10), draw(10, 1, 10)
    patients, others = np.arange(40), np.arange(40, 50)
    for fake in (train, train[:20] + 0.3 * draw(20, 2, 10), 0.8 * train + 0.6 * draw(40, 3, 10)):
        assert memorisation_test(fake, train, held_out, patients, others).rejects
    assert memorisation_test(draw(40, 4, 10), train, held_out, patients, others).rejects is False


def test_too_few_patients_decide_nothing():
    train, held_out = draw(18, 0), draw(2, 1)
    found = memorisation_test(train, train, held_out, PATIENTS, np.array([9, 9]))
    assert (found.rejects, found.labelings) == (None, 10)
    assert "cannot be decided" in str(found)
    assert "10 ways" in str(found)


def test_a_patient_on_both_sides_is_refused():
    with pytest.raises(ConfigError, match="at once"):
        memorisation_test(draw(3, 0), draw(18, 0), draw(7, 1), PATIENTS, OTHERS - 1)


def test_features_that_do_not_fit_are_refused():
    for fake in (draw(3, 0, d=4), draw(3, 0) * np.nan, draw(3, 0)[0]):
        with pytest.raises(ConfigError):
            memorisation_test(fake, draw(18, 0), draw(7, 1), PATIENTS, OTHERS)
    with pytest.raises(ConfigError, match="groups do not fit"):
        memorisation_test(draw(3, 0), draw(18, 0), draw(7, 1), PATIENTS[1:], OTHERS)


def test_a_set_of_thousands_of_patients_is_tested(monkeypatch):
    monkeypatch.setattr(privacy, "PERMUTATIONS", 400)
    random = np.random.default_rng(0)
    train, held_out, fake = (random.normal(size=(count, 4)) for count in (2000, 615, 20))
    found = memorisation_test(fake, train, held_out, np.arange(2000), 2000 + np.arange(615))
    assert found.labelings == 1_000_000
    assert found.rejects is False
    assert memorisation_test(train[:20], train, held_out, np.arange(2000), 2000 + np.arange(615)).rejects
