"""Pixels to network and back."""

from __future__ import annotations

import numpy as np
import pytest

from petgan.methods.pixels import downscaled, to_network, to_pixels, upscaled


def test_pixels_go_there_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    scaled = to_network(pixels).numpy()
    assert (scaled[0], scaled[-1]) == (-1, 1)
    assert (to_pixels(scaled) == pixels).all()
    assert (to_pixels([-1.4, 1.4]) == [0, 255]).all()


def test_unit_range_leaves_a_grey_veil():
    pixels = np.arange(256, dtype=np.uint8)
    learned = to_network(pixels, unit_range=True).numpy()
    assert (learned.min(), learned.max()) == (0, 1)
    assert to_pixels(learned).min() == 128


def test_a_downscaled_pixel_is_the_mean_of_those_it_stands_for():
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")
    expected = np.empty((2, 2, 3, 3))
    for n, y, x, c in np.ndindex(*expected.shape):
        expected[n, y, x, c] = images[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4, c].mean(dtype="float64")
    assert downscaled(images, 4).numpy() == pytest.approx(expected, abs=1e-6)


def test_an_upscaled_pixel_stands_for_equal_ones():
    images = np.random.default_rng(0).normal(size=(2, 3, 4, 2)).astype("float32")
    large = upscaled(images, 3).numpy()
    assert large.shape == (2, 9, 12, 2)
    for n, y, x, c in np.ndindex(*large.shape):
        assert large[n, y, x, c] == images[n, y // 3, x // 3, c]
