from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from petgan.errors import ConfigError
from petgan.metrics import frechet_distance

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
    ],
)
def test_unfit_arrays_are_refused_by_name(real, fake, word):
    with pytest.raises(ConfigError, match=word):
        frechet_distance(real, fake)
