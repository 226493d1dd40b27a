from __future__ import annotations

import math

import numpy as np
import pytest

from petgan.errors import ConfigError
from petgan.metrics import blocks, kernel_distance

random = np.random.default_rng(3)


def brute_force(x, y):
    def k(a, b):
        return (sum(float(i) * float(j) for i, j in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(s):
        return np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j])

    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


def test_one_whole_subset_equals_brute_force():
    x, y = random.normal(size=(7, 5)), random.normal(size=(7, 5)) + 1
    mean, error = kernel_distance(x, y, subsets=2, subset_size=7)
    assert mean == pytest.approx(brute_force(x, y), rel=1e-12)
    assert math.isnan(error)


def test_subsets_of_unlike_sets_average_to_brute_force():
    x, y = random.normal(size=(6, 4)), random.normal(size=(12, 4)) + 1
    mean, _ = kernel_distance(x, y, subsets=3000, subset_size=3)
    assert mean == pytest.approx(brute_force(x, y), rel=0.05)


def test_it_is_zero_on_average_for_one_distribution_and_may_be_negative():
    draws = [kernel_distance(*random.normal(size=(2, 20, 8)), subsets=10, seed=s)[0] for s in range(60)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / math.sqrt(60)
    assert min(draws) < 0


def test_the_standard_error_is_the_spread_over_fresh_samples():
    draws = [
        kernel_distance(random.normal(size=(24, 8)), random.normal(size=(56, 8)) + 1, subsets=40, seed=s)
        for s in range(150)
    ]
    means, errors = zip(*draws, strict=True)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.3)


def test_more_subsets_do_not_shrink_the_standard_error():
    x, y = random.normal(size=(30, 8)), random.normal(size=(30, 8)) + 1
    few, many = (kernel_distance(x, y, subsets=s)[1] for s in (50, 800))
    assert few == pytest.approx(many, rel=0.35)


def estimates(x, y, subsets, size, seed):
    """As `kernel_distance` says it, with the whole kernel of each subset."""
    generator, smaller = np.random.default_rng(seed), min(len(x), len(y))

    def draw(s):
        return s[generator.choice(len(s), round(size * len(s) / smaller), replace=False)].astype(float)

    out = []
    for _ in range(subsets):
        a, b = draw(x), draw(y)
        aa, bb, ab = ((p @ q.T / x.shape[1] + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        within = sum(k[~np.eye(len(k), dtype=bool)].mean() for k in (aa, bb))
        out.append(within - 2 * ab.mean())
    return out


@pytest.mark.parametrize("rows", [7, 1024])
@pytest.mark.parametrize(("subsets", "size"), [(3, 5), (40, 5), (40, 15)])  # apart, then all at once
@pytest.mark.parametrize(("n", "m"), [(50, 30), (30, 50)])
def test_it_equals_the_kernels_of_its_subsets_however_they_are_taken(monkeypatch, rows, subsets, size, n, m):
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", rows)
    x, y = (random.normal(size=(k, 6)).astype(np.float32) + 1 for k in (n, m))
    expected = estimates(x, y, subsets, size, seed=4)
    error = np.std(expected, ddof=1) * math.sqrt(size / (30 - size))
    assert kernel_distance(x, y, subsets, size, 4) == pytest.approx((np.mean(expected), error), rel=1e-10)


KINDS = {
    "normal": lambda r, n: r.normal(size=(n, 48)),
    "rectified": lambda r, n: np.maximum(r.normal(size=(n, 48)) * 3 / np.sqrt(np.arange(1, 49)), 0),
    "five modes": lambda r, n: 0.3 * r.normal(size=(n, 48)) + MODES[r.integers(0, 5, n)],
    "heavy tails": lambda r, n: r.standard_t(3, size=(n, 48)),
    "unlike lengths": lambda r, n: r.normal(size=(n, 48)) * np.sqrt(3 / r.chisquare(3, size=(n, 1))),
    "few directions": lambda r, n: np.exp(0.4 * r.normal(size=(n, 5)) @ MODES),
}
MODES = np.random.default_rng(7).normal(size=(5, 48))


@pytest.mark.parametrize("kind", KINDS)
def test_one_distribution_at_404_against_150_is_within_two_standard_errors_of_zero(kind):
    draws = []
    for seed in range(100):
        samples = KINDS[kind](np.random.default_rng([8, seed]), 554)
        draws.append(kernel_distance(samples[:404], samples[404:], seed=seed))
    means, errors = np.array(draws).T
    assert np.sum(np.abs(means) <= 2 * errors) >= 93
    assert abs(means.mean()) < 3 * means.std() / 10  # unbiased


def test_two_standard_errors_do_not_hide_a_difference():
    shifted = [
        kernel_distance(
            KINDS["rectified"](np.random.default_rng([8, seed]), 404),
            0.2 + KINDS["rectified"](np.random.default_rng([9, seed]), 150),
        )
        for seed in range(20)
    ]
    assert sum(mean > 2 * error for mean, error in shifted) >= 19


def test_it_repeats_and_its_seed_counts():
    x, y = random.normal(size=(10, 4)), random.normal(size=(9, 4))
    assert kernel_distance(x, y, seed=1) == kernel_distance(x, y, seed=1) != kernel_distance(x, y, seed=2)


@pytest.mark.parametrize("size", [1, 6])
def test_a_subset_is_no_larger_than_the_smaller_set(size):
    with pytest.raises(ConfigError, match="subset_size.*2 to 5"):
        kernel_distance(np.zeros((8, 3)), np.zeros((5, 3)), subset_size=size)


def test_three_samples_are_too_few():
    with pytest.raises(ConfigError, match="too few fake"):
        kernel_distance(np.zeros((8, 3)), np.zeros((3, 3)))
