from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from petgan.metrics import collapse

GRADIENT = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))


def blobs(n, seed, size=32):
    draws = np.random.default_rng(seed).normal(size=(n, size, size))
    smooth = np.stack([gaussian_filter(d, 3) for d in draws])
    return to_grey(128 + 40 * smooth / smooth.std())


def to_grey(images):
    return np.clip(np.round(images), 0, 255).astype(np.uint8)


REAL, HONEST = blobs(60, 0), blobs(60, 1)
NOISE = np.random.default_rng(2).normal(size=REAL.shape)


def test_values_are_those_of_the_definition():
    images = np.stack([GRADIENT, GRADIENT.T, GRADIENT // 2])
    assert collapse.black(images, images).value == 240
    assert collapse.constant(images, images).value == pytest.approx(GRADIENT.std())
    right, below = (GRADIENT[:, :-1], GRADIENT[:, 1:]), (GRADIENT[:-1], GRADIENT[1:])
    mean = GRADIENT.mean()
    products = [np.mean((a - mean) * (b - mean)) for a, b in (right, below)]
    expected = np.mean(products) / GRADIENT.var()
    assert collapse.noise(images, images).value == pytest.approx(expected)


def test_noise_takes_from_the_correlation_its_share_of_the_variance():
    real = blobs(8, 3, size=128).astype(float)
    deviation = real.std()
    noisy = to_grey(128 + ((real - 128) + np.random.default_rng(0).normal(0, deviation, real.shape)) / 2)
    measure = collapse.noise(noisy, to_grey(real))
    assert measure.value / (2 * measure.limit) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("fake", "name"),
    [
        (np.zeros_like(REAL), "black"),
        (REAL // 40, "black"),
        (128 + REAL // 100, "constant"),
        (to_grey(128 + 60 * NOISE), "noise"),
        (to_grey(0.2 * REAL + 60 + 40 * NOISE), "noise"),
        (np.repeat(REAL[:1], 60, axis=0), "single_mode"),
        (np.tile(HONEST[:5], (12, 1, 1)), "single_mode"),
        (to_grey(REAL[:1] + 3 * NOISE), "single_mode"),
        (to_grey(REAL[:1] * np.linspace(0.5, 1.2, 60)[:, None, None]), "single_mode"),
    ],
)
def test_failures_are_recognised(fake, name):
    assert getattr(collapse, name)(fake, REAL).failed


@pytest.mark.parametrize(
    "fake",
    [
        HONEST,
        HONEST[:10],
        HONEST[:2],
        REAL,
        to_grey(gaussian_filter(HONEST.astype(float), (0, 3, 3))),
        to_grey(HONEST + 30 * NOISE),
        to_grey(0.5 * HONEST + 64),
        np.concatenate([HONEST[:40], np.zeros_like(REAL[:20])]),
    ],
    ids=["honest", "ten", "two", "copies", "blurred", "noisy", "faint", "some black"],
)
def test_what_is_merely_bad_is_no_failure(fake):
    for measure in (collapse.black, collapse.constant, collapse.noise, collapse.single_mode):
        assert not measure(fake, REAL).failed


@pytest.mark.parametrize("n", [3, 10, 60])
def test_small_honest_sets_have_many_modes(n):
    ratios = []
    for seed in range(30):
        measure = collapse.single_mode(blobs(n, 100 + seed), blobs(n, 200 + seed), seed)
        ratios.append(measure.value / measure.limit)
    assert min(ratios) > 2


def test_slices_of_one_patient_are_no_single_mode():
    """Real and honest images alike are slices that barely differ."""
    real, honest = (
        to_grey(np.repeat(x[:10], 6, axis=0) + 0.1 * (blobs(60, 5).astype(float) - 128))
        for x in (REAL, HONEST)
    )
    assert not collapse.single_mode(honest, real).failed
    assert collapse.single_mode(honest, REAL).failed


def test_what_cannot_be_told_is_none():
    assert collapse.single_mode(HONEST[:1], REAL) is None
    assert collapse.single_mode(HONEST, np.repeat(REAL[:1], 9, axis=0)) is None
    assert collapse.noise(HONEST, to_grey(128 + 60 * NOISE)) is None


def test_real_images_that_are_dark_make_no_dark_ones_black():
    assert not collapse.black(HONEST // 40, REAL // 40).failed
