"""Training images made of the stored ones: every pixel of them accounted for."""

from __future__ import annotations

import numpy as np
import pytest

from petgan.enlarge import enlarge, moved, patched, ricap, rotation, translation, turned
from petgan.policies import ENLARGEMENTS

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 1), dtype=np.uint8)
WAYS = tuple(ENLARGEMENTS)


@pytest.mark.parametrize("how", WAYS)
def test_the_originals_come_first_and_all_is_uint8(how):
    larger = enlarge(IMAGES, how, 3, seed=1)
    assert larger.shape == (15, 16, 24, 1)
    assert larger.dtype == np.uint8
    np.testing.assert_array_equal(larger[:5], IMAGES)
    assert len(np.unique(larger[5:].reshape(10, -1), axis=0)) > 5


@pytest.mark.parametrize("how", ["none", *WAYS])
def test_a_factor_of_1_changes_nothing(how):
    np.testing.assert_array_equal(enlarge(IMAGES, how, 1, seed=1), IMAGES)


@pytest.mark.parametrize("how", WAYS)
def test_a_made_image_depends_on_the_seed_and_its_position_alone(how):
    larger = enlarge(IMAGES, how, 4, seed=1)
    np.testing.assert_array_equal(enlarge(IMAGES, how, 3, seed=1), larger[:15])
    assert (enlarge(IMAGES, how, 4, seed=2) != larger).any()


@pytest.mark.parametrize("how", ["rotation", "translation"])
def test_every_image_has_its_turn(how):
    """Flat images stay flat in the middle, so that each made one tells what it is made of."""
    flat = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None] * 50, IMAGES.shape)
    assert (enlarge(flat, how, 3, seed=1)[:, 8, 12, 0] == np.tile(np.arange(5) * 50, 3)).all()


# --- rotation -------------------------------------------------------------------------------------


def test_turned_by_0_is_the_image_and_by_90_its_transpose():
    square = IMAGES[0, :16, :16, 0]
    np.testing.assert_array_equal(turned(square, 0), square)
    np.testing.assert_array_equal(turned(square, 90), np.rot90(square))


def test_turned_is_bilinear_about_the_centre():
    """Against the definition, at every pixel whose source lies within the image."""
    image, degrees = IMAGES[0, ..., 0], 11.0
    found, seen = turned(image, degrees), 0
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    for i in range(16):
        for j in range(24):
            up, right = 7.5 - i, j - 11.5
            x, y = 11.5 + right * cosine + up * sine, 7.5 - (up * cosine - right * sine)
            if 0 <= y <= 15 and 0 <= x <= 23:
                top, left = min(int(y), 14), min(int(x), 22)
                dy, dx = y - top, x - left
                square = image[top : top + 2, left : left + 2]
                expected = np.array([1 - dy, dy]) @ square @ np.array([1 - dx, dx])
                assert abs(int(found[i, j]) - expected) <= 0.51
                seen += 1
    assert seen > 300


def test_rotations_are_of_both_signs_and_of_15_degrees_at_most():
    """The angle of a bar, by its second moments."""
    y, x = np.mgrid[:33, :33] - 16
    bar = (255 * np.exp(-((y / 2) ** 2) / 2 - (x / 8) ** 2 / 2)).astype(np.uint8)
    angles = []
    for seed in range(200):
        image = rotation(bar[None], 0, np.random.default_rng(seed)).astype(float)
        moments = [(image * p).sum() for p in (x * y, x * x, y * y)]
        angles.append(-np.degrees(np.arctan2(2 * moments[0], moments[1] - moments[2]) / 2))
    assert -15.5 < min(angles) < -13
    assert 13 < max(angles) < 15.5
    assert abs(np.mean(angles)) < 2


def test_what_comes_in_is_black():
    white = np.full((16, 16), 200, np.uint8)
    assert {turned(white, 14)[place] for place in ((0, 0), (0, 15), (15, 0), (15, 15))} == {0}
    assert turned(white, 14)[8, 8] == 200


# --- translation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -3), (-1, 3)])
def test_moved_against_brute_force(down, right):
    image = IMAGES[0, ..., 0]
    found = moved(image, down, right)
    for i in range(16):
        for j in range(24):
            inside = 0 <= i - down < 16 and 0 <= j - right < 24
            assert found[i, j] == (image[i - down, j - right] if inside else 0)


def test_translations_go_an_eighth_of_each_side_in_all_directions():
    y, x = np.mgrid[:16, :24]
    places = (16 * x + y)[None]  # int, and each tells where it was
    shifts = set()
    for seed in range(500):
        image = translation(places, 0, np.random.default_rng(seed))
        shifts.add((8 - image[8, 12] % 16, 12 - image[8, 12] // 16))
    assert shifts == {(i, j) for i in range(-2, 3) for j in range(-3, 4)}


# --- RICAP ----------------------------------------------------------------------------------------


def test_patched_against_brute_force():
    four = IMAGES[:4, ..., 0]
    for row, column in ((0, 0), (5, 7), (16, 24), (16, 0)):
        found = patched(four, row, column)
        for i in range(16):
            for j in range(24):
                assert found[i, j] == four[2 * (i >= row) + (j >= column), i, j]


def test_every_pixel_of_ricap_is_one_of_its_images_at_that_place():
    """The upper left one is the image whose turn it is; rows and columns change their images at most once."""
    images = IMAGES[..., 0] // 6 * 5 + np.arange(5, dtype=np.uint8)[:, None, None]  # value % 5 says which
    met = 0
    for seed in range(50):
        made = ricap(images, 2, np.random.default_rng(seed))
        source = (made % 5).astype(int)
        np.testing.assert_array_equal(made, np.take_along_axis(images, source[None], 0)[0])
        assert (np.diff(source, axis=0) != 0).any(axis=1).sum() <= 1
        assert (np.diff(source, axis=1) != 0).any(axis=0).sum() <= 1
        met += source[0, 0] == 2
    assert met > 25


def test_ricap_meets_where_the_beta_distribution_says():
    """The share of the image whose turn it is is b b' of two of them: its mean and variance are known."""
    images = np.zeros((50, 20, 20), np.uint8)
    images[0] = 1
    random = np.random.default_rng(0)
    shares = [ricap(images, 0, random).mean() for _ in range(4000)]
    second = (0.25 / (2 * 0.3 + 1) + 0.25) ** 2  # E[b^2]^2, with the variance of Beta(a, a), 1/4 / (2a + 1)
    # The other three patches are image 0 too, once in 50.
    assert np.mean(shares) == pytest.approx(0.25 + 0.75 / 50, abs=5 * np.sqrt((second - 1 / 16) / 4000))


def test_combination_is_patched_then_turned_then_moved():
    random, same = np.random.default_rng((7, 0)), enlarge(IMAGES, "combination", 2, seed=7)[5, ..., 0]
    image = ricap(IMAGES[..., 0], 0, random)
    image = turned(image, random.uniform(-15, 15))
    image = moved(image, *random.integers([-2, -3], [3, 4]))
    np.testing.assert_array_equal(same, image)
