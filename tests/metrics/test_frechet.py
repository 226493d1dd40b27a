from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import linregress

from petgan.errors import ConfigError
from petgan.metrics import blocks, frechet_distance, frechet_infinity
from petgan.metrics.frechet import intercept

random = np.random.default_rng(2)


def samples_with(mean, covariance, n):
    """n samples whose own mean and covariance are exactly these."""
    z = random.normal(size=(n, len(mean)))
    z -= z.mean(axis=0)
    whitened = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / (n - 1))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_gaussians_with_diagonal_covariance_have_a_closed_form():
    m1, m2 = random.normal(size=(2, 6))
    s1, s2 = random.uniform(0.1, 3, (2, 6))
    expected = np.sum((m1 - m2) ** 2) + np.sum((s1 - s2) ** 2)
    a, b = samples_with(m1, np.diag(s1**2), 50), samples_with(m2, np.diag(s2**2), 9)
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 40, 8), (12, 9, 30), (12, 50, 30), (20, 20, 20)])
def test_it_equals_the_matrix_square_root(n, m, d):
    a, b = random.normal(size=(n, d)), random.normal(size=(m, d)) @ random.normal(size=(d, d)) / 3 + 0.5
    root = np.real(sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False) + 0j))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(
        np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_gaussians_whose_covariances_do_not_commute_have_a_closed_form_in_the_plane():
    # The root of a 2 x 2 matrix M has the trace sqrt(Tr M + 2 sqrt(det M)).
    s1, s2 = np.array([[2.0, 0.9], [0.9, 0.5]]), np.array([[1.0, -0.3], [-0.3, 4.0]])
    root = np.sqrt(np.trace(s1 @ s2) + 2 * np.sqrt(np.linalg.det(s1) * np.linalg.det(s2)))
    expected = 9 + np.trace(s1 + s2) - 2 * root
    a, b = samples_with(np.zeros(2), s1, 40), samples_with(np.array([0, 3]), s2, 12)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_directions_of_tiny_variance_keep_their_digits():
    # Variances from 1 to 1e-24: through the eigenvalues of a covariance, all below 1e-16 would be noise.
    s1 = 10.0 ** -np.arange(13)
    a, b = np.linalg.qr(random.normal(size=(40, 13)))[0], np.linalg.qr(random.normal(size=(60, 13)))[0]
    a, b = ((x - x.mean(axis=0)) @ np.diag(s1) for x in (a, b))
    assert frechet_distance(a * 1e3, a) == pytest.approx(999**2 * np.sum(a**2) / 39, rel=1e-12)
    small = frechet_distance(a[:, 9:], b[:, 9:])
    assert 0 < small < 1e-17
    assert frechet_distance(a[:, 9:] * 1e9, b[:, 9:] * 1e9) == pytest.approx(small * 1e18, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_do_not_change_it(monkeypatch, dtype):
    a, b = (5 + random.normal(size=(n, 6)) @ random.normal(size=(6, 6)) for n in (100, 71))
    a, b = a.astype(dtype), b.astype(dtype)
    whole = frechet_distance(a, b)
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", 7)  # raised to 12, twice the features
    assert frechet_distance(a, b) == pytest.approx(whole, rel=1e-12)
    assert frechet_distance(a.astype(float), b.astype(float)) == pytest.approx(whole, rel=1e-12)


def test_one_distribution_at_404_against_150_scores_its_floor():
    def score():
        draws = np.maximum(random.normal(size=(554, 32)) @ mixing, 0)
        return frechet_distance(draws[:404], draws[404:])

    mixing = random.normal(size=(32, 96)) / 6
    floor = np.array([score() for _ in range(30)])
    assert floor.min() > 5 * floor.std()  # clearly above 0
    others = np.array([score() for _ in range(30)])
    error = np.sqrt((floor.var(ddof=1) + others.var(ddof=1)) / 30)
    assert abs(floor.mean() - others.mean()) < 2.6 * error
    assert np.mean((others > np.quantile(floor, 0.025)) & (others < np.quantile(floor, 0.975))) > 0.7


def test_infinity_of_fakes_that_are_all_the_same_is_the_distance_itself():
    # Any subset has the same mean and no covariance: the line is level, and fits exactly.
    real, fake = random.normal(size=(20, 5)), np.repeat(random.normal(size=(1, 5)), 40, axis=0)
    value, error = frechet_infinity(real, fake)
    assert value == pytest.approx(frechet_distance(real, fake), rel=1e-12)
    assert error < 1e-12


def test_infinity_is_nearer_to_the_truth_than_the_distance_is():
    scales = 1 / np.sqrt(np.arange(1, 13))
    real = samples_with(np.zeros(12), np.diag(scales**2), 100)
    truth = 0.1**2 + np.sum((0.2 * scales) ** 2)
    values = []
    for seed in range(60):
        fake = 1.2 * scales * random.normal(size=(80, 12)) + 0.1 * np.eye(12)[11]
        values.append((frechet_distance(real, fake), *frechet_infinity(real, fake, seed)))
    plain, infinite, errors = np.array(values).T
    assert plain.mean() - truth > 6 * plain.std() / np.sqrt(60)
    assert abs(infinite.mean() - truth) < (plain.mean() - truth) / 3
    assert 0 < errors.mean() < infinite.std()  # other fakes differ by more


def test_infinity_repeats_and_leaves_the_bias_of_the_reals():
    real, fake = np.split(random.normal(size=(1040, 12)), [40])
    assert (
        frechet_infinity(real, fake, 1) == frechet_infinity(real, fake, 1) != frechet_infinity(real, fake, 2)
    )
    assert frechet_infinity(real, fake)[0] > 0.2


def test_the_intercept_is_that_of_least_squares():
    x = 1 / np.linspace(75, 150, 15)
    assert intercept(x, 3 + 500 * x) == pytest.approx((3, 0), abs=1e-12)
    y = 3 + 500 * x + random.normal(size=15)
    line = linregress(x, y)
    assert intercept(x, y) == pytest.approx((line.intercept, line.intercept_stderr))


def test_infinity_needs_fakes_to_extrapolate_from():
    with pytest.raises(ConfigError, match="too few fake samples: got 29; allowed: 30 or more"):
        frechet_infinity(np.zeros((4, 3)), np.zeros((29, 3)))


def test_a_set_against_itself_is_zero_and_a_shift_is_its_square():
    a = random.normal(size=(15, 40))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 0.5) == pytest.approx(0.25 * 40, abs=1e-9)


def test_it_is_symmetric_and_does_not_mind_a_rotation():
    a, b = random.normal(size=(15, 6)), random.normal(size=(9, 6)) * 2
    rotation, _ = np.linalg.qr(random.normal(size=(6, 6)))
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(frechet_distance(a, b))


@pytest.mark.parametrize(
    ("real", "fake", "word"),
    [
        (np.zeros((1, 3)), np.zeros((4, 3)), "too few real"),
        (np.zeros((4, 3)), np.zeros((4, 2)), "differ"),
        (np.zeros(3), np.zeros((4, 3)), "shape"),
        (np.zeros((4, 3)), np.full((4, 3), np.nan), "not finite"),
        (np.zeros((4, 3)), np.full((4, 3), "1"), "wrong type"),
    ],
)
def test_unfit_arrays_are_refused_by_name(real, fake, word):
    with pytest.raises(ConfigError, match=word):
        frechet_distance(real, fake)
