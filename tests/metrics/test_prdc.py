from __future__ import annotations

import math

import numpy as np
import pytest

from petgan.errors import ConfigError
from petgan.metrics import blocks, density_coverage, precision_recall

random = np.random.default_rng(5)


def distance(a, b):
    return math.sqrt(math.fsum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def radius(points, i, k):
    return sorted(distance(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]


def share_in_region(points, region, k):
    radii = [radius(region, i, k) for i in range(len(region))]
    inside = [any(distance(p, c) <= r for c, r in zip(region, radii, strict=True)) for p in points]
    return sum(inside) / len(points)


def brute_force(real, fake, k):
    balls = [(c, radius(real, i, k)) for i, c in enumerate(real)]
    held = [sum(distance(f, c) <= r for f in fake) for c, r in balls]
    return (
        share_in_region(fake, real, k),
        share_in_region(real, fake, k),
        sum(held) / (k * len(fake)),
        sum(h > 0 for h in held) / len(real),
    )


def all_four(real, fake, k):
    return *precision_recall(real, fake, k), *density_coverage(real, fake, k)


@pytest.mark.parametrize("rows", [4, 1024])
@pytest.mark.parametrize(("n", "m"), [(30, 12), (12, 30), (7, 7)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_equal_brute_force(monkeypatch, rows, n, m, k):
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", rows)
    real, fake = random.normal(size=(n, 3)), 0.8 * random.normal(size=(m, 3)) + 0.5
    assert all_four(real, fake, k) == pytest.approx(brute_force(real, fake, k), rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_they_equal_brute_force_with_duplicates_and_copies(k):
    # Whole numbers, whose distances are exact on either way: many ties, balls of radius 0.
    real = random.integers(0, 3, (25, 2)) + 50
    fake = np.concatenate([real[:9], real[:9], random.integers(-1, 4, (15, 2)) + 50])
    assert all_four(real, fake, k) == pytest.approx(brute_force(real, fake, k), rel=1e-12)


def test_copies_of_the_reals_are_in_the_balls_that_they_bound():
    real = random.normal(size=(40, 100)).astype(np.float32) + 30
    assert all_four(real, real, 5) == (1, 1, 6 / 5, 1)  # a ball holds its centre and 5 others


def test_expectations_for_one_distribution():
    # Ranked by distance from a real one, n - 1 others and m fakes are in random order: a ball holds k / n of
    # the fakes, and none with the probability that the first k are all real.
    n, m, k = 60, 40, 5
    draws = np.array([density_coverage(*np.split(random.normal(size=(n + m, 4)), [n])) for _ in range(300)])
    empty = math.prod((n - 1 - j) / (n + m - 1 - j) for j in range(k))
    for values, expected in zip(draws.T, (1, 1 - empty), strict=True):
        assert abs(values.mean() - expected) < 3 * values.std() / math.sqrt(len(draws))
    coverage = [density_coverage(*random.normal(size=(2, 300, 8)))[1] for _ in range(20)]
    assert np.mean(coverage) == pytest.approx(1 - 1 / 2**k, abs=0.005)


def test_each_sees_what_it_is_for():
    real = random.normal(size=(200, 8))
    common = real[np.linalg.norm(real, axis=1).argsort()[:5]]
    narrow, outside = common.repeat(20, axis=0) + 1e-3 * random.normal(size=(100, 8)), real + 100
    precision, recall, density, coverage = all_four(real, narrow, 5)
    assert precision == 1
    assert density > 1
    assert recall < 0.05
    assert coverage < 0.4
    assert all_four(real, outside, 5) == (0, 0, 0, 0)


def test_an_outlier_among_the_reals_fools_precision_and_not_density():
    real = np.concatenate([random.normal(size=(100, 4)), np.full((1, 4), 50.0)])
    fake = random.normal(size=(50, 4)) * 0.1 + 30  # nearer to the outlier than its neighbours are
    assert precision_recall(real, fake)[0] == 1
    assert density_coverage(real, fake)[0] == pytest.approx(1 / 5)


def test_few_fakes_do_for_density_and_not_for_recall():
    real, fake = random.normal(size=(2, 9, 4))
    density_coverage(real, fake[:1])
    with pytest.raises(ConfigError, match="impossible k: got 5; allowed: 1 to 4"):
        precision_recall(real, fake[:5])
    with pytest.raises(ConfigError, match="impossible k: got 0"):
        density_coverage(real, fake, k=0)
    with pytest.raises(ConfigError, match="differ"):
        density_coverage(real, fake[:, 1:])
