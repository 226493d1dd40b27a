from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from petgan.errors import ConfigError
from petgan.metrics import histogram
from petgan.metrics.histogram import histogram_wasserstein


def images(n, seed, low=0, high=256, size=8):
    return np.random.default_rng(seed).integers(low, high, (n, size, size)).astype(np.uint8)


@pytest.mark.parametrize(("n", "m", "low", "high"), [(3, 3, 0, 256), (2, 7, 20, 90), (5, 1, 250, 256)])
def test_it_is_scipys_distance_between_all_pixels(n, m, low, high):
    a, b = images(n, 0), images(m, 1, low, high)
    assert histogram_wasserstein(a, b) == pytest.approx(wasserstein_distance(a.ravel(), b.ravel()), rel=1e-12)
    assert histogram_wasserstein(b, a) == histogram_wasserstein(a, b)


def test_grey_that_is_shifted_is_as_far_as_the_shift_and_black_is_255_from_white():
    a = images(4, 0, 0, 200)
    assert histogram_wasserstein(a, a + np.uint8(55)) == pytest.approx(55, rel=1e-12)
    assert histogram_wasserstein(np.zeros((1, 4, 4), np.uint8), np.full((2, 4, 4), 255, np.uint8)) == 255


def test_where_pixels_are_does_not_count_nor_how_often_a_set_is_repeated():
    a = images(4, 0)
    moved = np.random.default_rng(1).permutation(a.ravel()).reshape(a.shape)
    assert histogram_wasserstein(a, moved[..., None]) == 0
    assert histogram_wasserstein(a, np.concatenate([a, a, a])) == pytest.approx(0, abs=1e-12)


def test_blocks_do_not_change_the_value(monkeypatch):
    a, b = images(7, 0), images(5, 1, 0, 100)
    whole = histogram_wasserstein(a, b)
    monkeypatch.setattr(histogram, "_PIXELS_AT_ONCE", 2 * 64)
    assert histogram_wasserstein(a, b) == whole


@pytest.mark.parametrize(
    ("fake", "word"),
    [
        (np.zeros((2, 8, 8)), "uint8"),
        (np.zeros((2, 16, 16), np.uint8), "differ"),
        (np.zeros((0, 8, 8), np.uint8), "too few fake"),
    ],
)
def test_unfit_arrays_are_refused_by_name(fake, word):
    with pytest.raises(ConfigError, match=word):
        histogram_wasserstein(np.zeros((2, 8, 8), np.uint8), fake)
