from __future__ import annotations

import numpy as np
import pytest

from petgan.corruptions import CORRUPTIONS, repeated

GREY = np.full((3, 64, 64), 100, np.uint8)


def test_a_blur_keeps_what_is_even_and_spreads_a_point_with_the_deviation_of_a_64th_of_the_side():
    np.testing.assert_array_equal(CORRUPTIONS["blurred"](GREY), GREY)
    point = np.zeros((1, 128, 128), np.uint8)
    point[0, 60:68, 60:68] = 255
    rows = CORRUPTIONS["blurred"](point)[0].sum(axis=1).astype(float)
    places = np.arange(128) - 63.5
    variance = (rows * places**2).sum() / rows.sum()
    assert variance == pytest.approx((8**2 - 1) / 12 + 2**2, rel=0.03)


def test_noise_has_a_tenth_of_the_range_and_comes_back_the_same():
    found = CORRUPTIONS["noisy"](GREY)
    assert found.std() == pytest.approx(25.5, rel=0.03)
    assert found.mean() == pytest.approx(100, abs=1)
    np.testing.assert_array_equal(found, CORRUPTIONS["noisy"](GREY))


def test_checkers_differ_from_each_neighbour_and_keep_the_mean():
    found = CORRUPTIONS["checkered"](GREY).astype(int)
    assert set(np.abs(np.diff(found, axis=1)).ravel()) | set(np.abs(np.diff(found, axis=2)).ravel()) <= {
        25,
        26,
    }
    assert found.mean() == pytest.approx(100, abs=0.5)


def test_a_shift_is_of_grey_values_and_stays_within_them():
    white = np.full((1, 4, 4), 250, np.uint8)
    assert np.all(CORRUPTIONS["shifted"](GREY) == 126)
    assert np.all(CORRUPTIONS["shifted"](white) == 255)


@pytest.mark.parametrize(("count", "few"), [(100, 10), (12, 3), (2, 1)])
def test_repetition_makes_as_many_of_a_few(count, few):
    chosen = np.arange(1000, 1000 + count)
    found = repeated(chosen)
    assert len(found) == count
    assert set(found) == set(chosen[:few])
