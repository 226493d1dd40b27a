from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

from petgan.errors import ConfigError
from petgan.metrics import spectrum
from petgan.metrics.spectrum import FLOOR, radial_spectrum, spectral_distance


def noise(n, size=16, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (n, size, size)).astype(np.uint8)


def waves(size, down, right, amplitude=100):
    y, x = np.mgrid[:size, :size]
    wave = 128 + amplitude * np.cos(2 * np.pi * (down * y + right * x) / size)
    return np.rint(wave).astype(np.uint8)[None]


def test_it_equals_sums_written_out():
    images, places = noise(3, 8), [(y, x) for y in range(8) for x in range(8)]
    window = {(y, x): (math.sin(math.pi * y / 8) * math.sin(math.pi * x / 8)) ** 2 for y, x in places}

    def power(image, v, u):
        mean = sum(window[p] * image[p] for p in places) / sum(window.values())
        turns = {(y, x): cmath.exp(-2j * math.pi * (v * y + u * x) / 8) for y, x in places}
        total = sum(window[p] * (image[p] - mean) * turns[p] for p in places)
        return abs(total) ** 2 / sum(w**2 for w in window.values())

    rings: dict[int, list[float]] = {}
    for v in range(-4, 4):
        for u in range(-4, 4):
            rings.setdefault(round(math.hypot(v, u)), []).extend(power(image, v, u) for image in images)
    expected = [10 * math.log10(np.mean(rings[ring])) for ring in range(1, max(rings) + 1)]
    np.testing.assert_allclose(radial_spectrum(images), expected, rtol=1e-9)


def test_contrast_of_c_times_lifts_every_ring_by_20_log_c():
    images = noise(20, high=60)
    np.testing.assert_allclose(
        radial_spectrum(4 * images) - radial_spectrum(images), 20 * np.log10(4), rtol=1e-9
    )
    assert spectral_distance(images, 4 * images) == pytest.approx(20 * np.log10(4), rel=1e-9)


def test_brightness_does_not_count():
    images = noise(5, high=200)
    assert spectral_distance(images, images + np.uint8(55)) == pytest.approx(0, abs=1e-9)


def test_white_noise_is_flat_at_its_variance_but_for_what_the_mean_takes():
    found = radial_spectrum(noise(4000)) - 10 * np.log10((256**2 - 1) / 12)
    np.testing.assert_allclose(found[1:], 0, atol=0.15)
    # Of (1, 0) and (1, 1): the window's transform is 1, -1/2, 0 along an axis, that of its square 1, -2/3.
    shares = [1 + (1 / 2) ** 2 - 2 * 1 / 2 * 2 / 3, 1 + (1 / 4) ** 2 - 2 * 1 / 4 * (2 / 3) ** 2]
    assert found[0] == pytest.approx(10 * np.log10(np.mean(shares)), abs=0.15)


@pytest.mark.parametrize(
    ("down", "right", "ring"), [(5, 0, 5), (0, 9, 9), (3, 4, 5), (16, 16, 23), (0, 16, 16)]
)
def test_a_wave_lies_in_the_ring_of_its_frequency(down, right, ring):
    found = radial_spectrum(waves(32, down, right))
    assert np.argmax(found) + 1 == ring
    far = np.abs(np.arange(1, len(found) + 1) - ring) > 2  # a Hann window spreads it by one along either axis
    assert found[far].max() < found[ring - 1] - 40


def test_images_that_do_not_close_at_their_edges_leave_the_high_frequencies_alone():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (1, 64, 1))
    high = radial_spectrum(ramp)[20:]
    assert high.max() < 10 * np.log10(FLOOR) + 10
    plain = np.abs(np.fft.fft2(ramp[0].astype(float))) ** 2 / 64**2
    assert 10 * np.log10(plain[0, 20:33].min()) > high.max() + 20


def test_black_images_have_the_floor_and_a_finite_distance():
    black = np.zeros((2, 16, 16), np.uint8)
    np.testing.assert_array_equal(radial_spectrum(black), 10 * np.log10(FLOOR))
    assert spectral_distance(black, black) == 0
    rings = radial_spectrum(noise(30)) - 10 * np.log10(FLOOR)
    assert spectral_distance(noise(30), black) == pytest.approx(rings.mean(), rel=1e-12)


def test_the_floor_is_the_power_of_rounding():
    exact = np.random.default_rng(0).uniform(50, 200, (1000, 16, 16))
    error = exact - np.rint(exact)
    assert error.var() == pytest.approx(FLOOR, rel=0.01)


@pytest.mark.parametrize("size", [8, 9, 15, 28, 33])
def test_every_size_has_all_its_rings(size):
    found = radial_spectrum(noise(3, size))
    assert len(found) == round(math.hypot(size // 2, size // 2))
    assert np.isfinite(found).all()


def test_blocks_of_images_do_not_change_it(monkeypatch):
    images = noise(9)
    whole = radial_spectrum(images)
    monkeypatch.setattr(spectrum, "_PIXELS_AT_ONCE", 2 * 16 * 16)
    np.testing.assert_allclose(radial_spectrum(images[..., None]), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("real", "fake", "word"),
    [
        (noise(2), noise(2).astype(float), "uint8"),
        (noise(2), noise(2, 8), "differ"),
        (noise(2, 7), noise(2, 7), "too small"),
    ],
)
def test_unfit_arrays_are_refused_by_name(real, fake, word):
    with pytest.raises(ConfigError, match=word):
        spectral_distance(real, fake)
