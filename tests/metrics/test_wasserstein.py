from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import convolve
from scipy.stats import wasserstein_distance

from petgan.errors import ConfigError
from petgan.metrics import sliced_wasserstein, wasserstein

random = np.random.default_rng(5)

ONE_SCORE = """
import numpy as np
from petgan.metrics import sliced_wasserstein
images = np.random.default_rng(0).integers(0, 256, (2, 40, 32, 32)).astype(np.uint8)
print(sliced_wasserstein(images[0], images[1]).hex())
"""


def textures(n, size=32, width=0, seed=0):
    images = np.random.default_rng(seed).normal(size=(n, size, size))
    for _ in range(width):
        images = (images + np.roll(images, 1, 1) + np.roll(images, 1, 2)) / 3
    return np.clip(128 + 60 * images / images.std(), 0, 255).astype(np.uint8)


def test_a_set_against_itself_is_exactly_zero_with_or_without_channel():
    images = textures(5)
    assert sliced_wasserstein(images, images[..., None]) == 0


def test_it_is_symmetric_also_for_sets_of_unlike_length():
    a, b = textures(6, width=2), textures(9, seed=1)
    assert sliced_wasserstein(a, b, seed=3) == pytest.approx(sliced_wasserstein(b, a, seed=3), rel=1e-12)


def test_it_repeats_and_its_seed_counts():
    a, b = textures(4), textures(4, seed=1)
    assert sliced_wasserstein(a, b, 1) == sliced_wasserstein(a, b, 1) != sliced_wasserstein(a, b, 2)


def test_another_texture_is_further_than_another_sample():
    real = textures(40, width=2)
    same = sliced_wasserstein(real, textures(40, width=2, seed=1))
    assert sliced_wasserstein(real, textures(40, seed=1)) > 1.5 * same


def test_brightness_and_contrast_of_the_whole_set_do_not_count():
    real = textures(10) // 2 * 2
    assert sliced_wasserstein(real, real // 2 + 10) == pytest.approx(0, abs=1e-9)


def test_the_order_of_images_matters_little():
    a, b = textures(30, width=2), textures(30, width=1, seed=1)
    assert sliced_wasserstein(a, b[::-1]) == pytest.approx(sliced_wasserstein(a, b), rel=0.05)


def test_flat_images_give_a_finite_distance():
    flat = np.full((3, 32, 32), 90, np.uint8)
    assert sliced_wasserstein(flat, flat) == 0
    assert 0 < sliced_wasserstein(textures(3), flat) < np.inf


def test_one_level_equals_brute_force_patch_by_patch_and_direction_by_direction(monkeypatch):
    monkeypatch.setattr(wasserstein, "PATCHES_PER_IMAGE", 10)
    monkeypatch.setattr(wasserstein, "DIRECTIONS", 4)
    monkeypatch.setattr(wasserstein, "_DIRECTIONS_AT_ONCE", 4)
    real, fake = textures(3, 16), textures(2, 16, width=2, seed=1)
    draws = np.random.default_rng(7)
    ys, xs = draws.integers(0, 16 - 7 + 1, (2, 30))
    directions = draws.standard_normal((4, 49))
    sets = []
    for images in (real, fake):
        owners = [p * len(images) // 30 for p in range(30)]
        patches = np.array(
            [
                images[o, y : y + 7, x : x + 7].ravel().astype(float)
                for o, y, x in zip(owners, ys, xs, strict=True)
            ]
        )
        sets.append((patches - patches.mean()) / patches.std())
    expected = np.mean(
        [wasserstein_distance(*(s @ (d / np.linalg.norm(d)) for s in sets)) for d in directions]
    )
    assert sliced_wasserstein(real, fake, seed=7) == pytest.approx(1000 * expected, rel=1e-6)


def test_the_pyramid_equals_the_papers_two_dimensional_filter():
    images = random.normal(size=(2, 32, 32))
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    small = np.stack([convolve(image, kernel, mode="mirror")[::2, ::2] for image in images])
    zeros = np.zeros_like(images)
    zeros[:, ::2, ::2] = small
    large = np.stack([convolve(image, 4 * kernel, mode="mirror") for image in zeros])
    fine, rest = wasserstein.laplacian_pyramid(images, 2)
    np.testing.assert_allclose(rest, small, atol=1e-12)
    np.testing.assert_allclose(fine, images - large, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "levels"), [(14, [14]), (16, [16]), (28, [28]), (64, [64, 32, 16]), (224, [224, 112, 56, 28])]
)
def test_levels_go_down_to_sixteen_pixels(size, levels):
    assert wasserstein.level_sizes(size) == levels


def test_blocks_of_images_do_not_change_the_value(monkeypatch):
    a, b = textures(9), textures(7, seed=1)
    whole = sliced_wasserstein(a, b)
    monkeypatch.setattr(wasserstein, "_IMAGES_AT_ONCE", 2)
    assert sliced_wasserstein(a, b) == pytest.approx(whole, rel=1e-12)


def test_the_number_of_threads_changes_no_bit():
    # Which checkpoint is the best hangs on it, and with it whether a resumed run is the undisturbed one.
    said = [
        subprocess.run(
            [sys.executable, "-c", ONE_SCORE],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for threads in ("1", "2")
    ]  # fmt: skip
    assert said[0] == said[1]
    assert float.fromhex(said[0]) > 0


@pytest.mark.parametrize(
    ("real", "fake", "word"),
    [
        (np.zeros((2, 16, 16)), np.zeros((2, 16, 16)), "uint8"),
        (np.zeros((2, 16, 15), np.uint8), np.zeros((2, 16, 16), np.uint8), "shape"),
        (np.zeros((2, 16, 16), np.uint8), np.zeros((2, 32, 32), np.uint8), "differ"),
        (np.zeros((2, 16, 16), np.uint8), np.zeros((0, 16, 16), np.uint8), "too few fake"),
        (np.zeros((2, 6, 6), np.uint8), np.zeros((2, 6, 6), np.uint8), "patch"),
    ],
)
def test_unfit_arrays_are_refused_by_name(real, fake, word):
    with pytest.raises(ConfigError, match=word):
        sliced_wasserstein(real, fake)
