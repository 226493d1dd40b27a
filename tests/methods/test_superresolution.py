"""Super-resolution: what the generator is shown, its losses, alone and by several ranks."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from petgan.checkpoint import all_variables
from petgan.config import resolve_point
from petgan.draws import Draw, draw_indices, seed_for
from petgan.methods.feed import Data
from petgan.methods.superresolution import make_networks, make_update, shown
from petgan.models import srgan
from petgan.samples import generate
from petgan.trainer import in_one_call

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(srgan, "GENERATOR_FILTERS", 4)
    monkeypatch.setattr(srgan, "BLOCKS", 1)
    monkeypatch.setattr(srgan, "DISCRIMINATOR_LAYERS", ((3, 1), (4, 2)))
    monkeypatch.setattr(srgan, "DISCRIMINATOR_UNITS", 5)


def point_of(**values):
    return resolve_point({"preset": "srgan", "image_size": 16, "batch_size": 4, "steps": 4, **values})


def values_of(networks):
    return [np.asarray(v) for v in all_variables(networks)]


def test_the_generator_is_shown_means_of_four_by_four_pixels():
    small = shown(IMAGES)
    assert (small.shape, small.dtype) == ((24, 4, 4, 1), np.float32)
    for n, y, x in np.ndindex(24, 4, 4):
        mean = IMAGES[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean()
        assert small[n, y, x, 0] == pytest.approx(mean / 127.5 - 1, abs=1e-6)


def softplus(x):
    return np.log1p(np.exp(x))


def test_an_updates_losses_are_those_of_the_paper():
    """Before any update, but for the discriminator's, which comes first: Ledig 2017, eq. 3, 4 and 6."""
    point = point_of()
    networks, before = make_networks(point), make_networks(point)
    metrics = make_update(point, networks, Data(IMAGES))(tf.constant(0))
    metrics = {name: float(value) for name, value in metrics.items()}

    pixels = IMAGES[draw_indices(seed_for(0, 0, Draw.IMAGES, 0), 4, len(IMAGES)).numpy()]
    real = pixels / np.float32(127.5) - 1
    fake = before.generator(shown(pixels), training=True).numpy()
    real_scores, fake_scores = (before.discriminator(x, training=True).numpy() for x in (real, fake))
    content = ((fake - real) ** 2).mean()
    told = networks.discriminator(fake, training=True).numpy()
    d_loss = 0.5 * (softplus(-real_scores).mean() + softplus(fake_scores).mean())
    assert metrics["d_loss"] == pytest.approx(d_loss, rel=1e-4)
    assert metrics["content_loss"] == pytest.approx(content, rel=1e-4)
    assert metrics["g_loss"] == pytest.approx(content + 1e-3 * softplus(-told).mean(), rel=1e-5)
    assert metrics["g_loss"] != pytest.approx(content, rel=1e-5)


def test_it_learns_what_it_is_shown():
    """Images of one grey level are easy."""
    flat = np.broadcast_to(np.arange(0, 240, 10, np.uint8)[:, None, None, None], (24, 16, 16, 1)).copy()
    point = point_of(learning_rate=3e-3, steps=300, ema_decay=0.9, batch_size=16)
    networks = make_networks(point)
    metrics = in_one_call(make_update(point, networks, Data(flat)))(0, 300)
    content = metrics["content_loss"].numpy()
    assert content[-10:].mean() < 0.1 * content[:10].mean()
    images = generate(networks.ema_generator, 3, 0, "srgan", inputs=flat[[2, 12, 22]])
    grey = images.mean(axis=(1, 2))
    assert images.shape == (3, 16, 16)
    assert grey[0] < grey[1] < grey[2]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(precision):
    """Their numbers have 8 and 11 digits: a few per cent at the first update."""
    half, full = (
        make_update(point, make_networks(point), Data(IMAGES))(tf.constant(0))
        for point in (point_of(compute_dtype=precision), point_of())
    )
    assert all(value.dtype == tf.float32 for value in half.values())
    for name in ("d_loss", "content_loss"):
        assert float(half[name]) == pytest.approx(float(full[name]), rel=0.05)
