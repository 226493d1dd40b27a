from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kurtosis, skew

from petgan.errors import ConfigError
from petgan.metrics import texture
from petgan.metrics.frechet import frechet_distance
from petgan.metrics.texture import texture_distance, texture_features


def textures(n, size=12, width=1, seed=0, contrast=50):
    images = np.random.default_rng(seed).normal(size=(n, size, size))
    for _ in range(width):
        images = images + np.roll(images, 1, 1) + np.roll(images, 1, 2)
    return np.clip(128 + contrast * images / images.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("offset", "table"),
    [
        ((0, 1), [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]]),
        ((1, 0), [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]]),
        ((1, 1), [[2, 1, 3, 0], [1, 2, 1, 0], [3, 1, 0, 2], [0, 0, 2, 0]]),
        ((1, -1), [[4, 1, 0, 0], [1, 2, 2, 0], [0, 2, 4, 1], [0, 0, 1, 0]]),
    ],
)
def test_the_tables_are_those_of_haralicks_example(offset, table):
    levels = np.array([[[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]]], np.uint8)  # his figure 3
    found = texture._cooccurrence(levels, *offset)[0]
    np.testing.assert_allclose(found[:4, :4], np.array(table) / np.sum(table), rtol=1e-12)
    assert found[4:].sum() == found[:, 4:].sum() == 0


def second_order(image, distance):
    """Pair by pair, formula by formula."""
    size, means = len(image), np.zeros(4)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        p = np.zeros((16, 16))
        for y in range(size):
            for x in range(size):
                v, u = y + down * distance, x + right * distance
                if 0 <= v < size and 0 <= u < size:
                    p[image[y, x] // 16, image[v, u] // 16] += 1
                    p[image[v, u] // 16, image[y, x] // 16] += 1
        p /= p.sum()
        pairs = [(i, j) for i in range(16) for j in range(16)]
        mean = sum(i * p[i, j] for i, j in pairs)
        variance = sum((i - mean) ** 2 * p[i, j] for i, j in pairs)
        means += [
            sum((i - j) ** 2 * p[i, j] for i, j in pairs) / 4,
            sum(p[i, j] / (1 + (i - j) ** 2) for i, j in pairs) / 4,
            sum(p[i, j] ** 2 for i, j in pairs) / 4,
            sum((i - mean) * (j - mean) * p[i, j] for i, j in pairs) / variance / 4,
        ]
    return means


def test_features_equal_brute_force_pair_by_pair():
    images = textures(3, 9)
    pixels = images.reshape(3, -1).astype(float)
    first = [pixels.mean(1), pixels.std(1), skew(pixels, axis=1), kurtosis(pixels, axis=1)]
    second = [np.concatenate([second_order(image, d) for d in (1, 2, 4)]) for image in images]
    expected = np.hstack([np.transpose(first), second])
    np.testing.assert_allclose(texture_features(images), expected, rtol=1e-9, atol=1e-12)


def test_stripes_are_known_in_advance():
    stripes = np.zeros((1, 8, 8), np.uint8)
    stripes[:, :, ::2] = 255
    features = texture_features(stripes)[0]
    assert features[:4] == pytest.approx([127.5, 127.5, 0, -2])
    one, two = features[4:8], features[8:12]
    # At distance 1 the pairs along the columns are alike, those of the other directions are not.
    assert one[0] == pytest.approx(3 / 4 * 15**2)
    assert one[1] == pytest.approx(1 / 4 + 3 / 4 / (1 + 15**2))
    assert one[2] == pytest.approx(1 / 2)
    assert one[3] == pytest.approx(1 / 4 - 3 / 4, abs=0.01)  # an odd number of columns is not half of each
    assert two[[0, 1, 3]] == pytest.approx([0, 1, 1])


def test_an_image_of_one_grey_value_has_finite_features():
    flat = np.full((2, 8, 8), 77, np.uint8)
    expected = [77, 0, 0, 0] + 3 * [0, 1, 1, 1]
    np.testing.assert_allclose(texture_features(flat), [expected, expected], rtol=1e-12)
    assert texture_distance(flat, flat) == pytest.approx(0, abs=1e-9)
    assert math.isfinite(texture_distance(textures(5, 8), flat))
    assert math.isfinite(texture_distance(flat, textures(5, 8)))


def test_features_that_all_real_images_share_are_not_blown_up_by_rounding():
    real, fake = np.repeat(textures(1), 9, axis=0), textures(5, seed=1)
    expected = frechet_distance(texture_features(real), texture_features(fake))
    assert texture_distance(real, fake) == pytest.approx(expected, rel=1e-9)


def test_turning_an_image_by_a_right_angle_changes_nothing():
    images = textures(4)
    np.testing.assert_allclose(
        texture_features(np.rot90(images, 1, (1, 2))), texture_features(images), rtol=1e-9
    )


def test_the_distance_is_frechets_in_deviations_of_the_real_features():
    real, fake = textures(30), textures(20, width=2, seed=1)
    a, b = texture_features(real), texture_features(fake)
    scaled = [
        np.array([[x / np.std(a[:, k], ddof=1) for k, x in enumerate(row)] for row in f]) for f in (a, b)
    ]
    assert texture_distance(real, fake[..., None]) == pytest.approx(frechet_distance(*scaled), rel=1e-9)


def test_another_texture_and_another_contrast_are_further_than_another_sample():
    real = textures(60, width=3)
    same = texture_distance(real, textures(60, width=3, seed=1))
    assert texture_distance(real, textures(60, width=1, seed=1)) > 10 * same
    assert texture_distance(real, textures(60, width=3, seed=1, contrast=30)) > 10 * same


def test_blocks_of_images_do_not_change_it(monkeypatch):
    images = textures(7)
    whole = texture_features(images)
    monkeypatch.setattr(texture, "_PIXELS_AT_ONCE", 2 * 12 * 12)
    np.testing.assert_allclose(texture_features(images), whole, rtol=1e-9)


@pytest.mark.parametrize(
    ("real", "fake", "word"),
    [
        (textures(2), textures(2).astype(float), "uint8"),
        (textures(2), textures(2, 16), "differ"),
        (textures(2), textures(1), "too few fake"),
        (textures(2, 4), textures(2, 4), "too small"),
    ],
)
def test_unfit_arrays_are_refused_by_name(real, fake, word):
    with pytest.raises(ConfigError, match=word):
        texture_distance(real, fake)
