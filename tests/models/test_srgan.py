"""The networks of super-resolution: the published blocks, pixel shuffle, any size."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from petgan.config import resolve_point
from petgan.errors import ConfigError
from petgan.models import srgan
from petgan.models.layers import BatchNormalization, plain
from petgan.models.srgan import PixelShuffle


def point_of(image_size=16, **values):
    return resolve_point({"preset": "srgan", "image_size": image_size, **values})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(srgan, "GENERATOR_FILTERS", 4)
    monkeypatch.setattr(srgan, "BLOCKS", 2)


def test_with_the_published_sizes_it_is_the_network_of_the_paper(monkeypatch):
    """Ledig 2017, figure 4, with one grey channel."""
    monkeypatch.setattr(srgan, "GENERATOR_FILTERS", 64)
    monkeypatch.setattr(srgan, "BLOCKS", 16)
    layers = tuple((4 * filters, stride) for filters, stride in srgan.DISCRIMINATOR_LAYERS)
    monkeypatch.setattr(srgan, "DISCRIMINATOR_LAYERS", layers)
    monkeypatch.setattr(srgan, "DISCRIMINATOR_UNITS", 1024)
    generator, discriminator = srgan.build(point_of())

    def convolutions(network):
        kind = keras.layers.Conv2D
        found = [layer for layer in network.layers if type(layer) is kind]
        return [(layer.kernel_size[0], layer.filters, layer.strides[0]) for layer in found]

    k3n64 = (3, 64, 1)
    assert convolutions(generator) == [(9, 64, 1), *[k3n64] * 33, (3, 256, 1), (3, 256, 1), (9, 1, 1)]
    assert convolutions(discriminator) == [
        (3, 64, 1), (3, 64, 2), (3, 128, 1), (3, 128, 2), (3, 256, 1), (3, 256, 2), (3, 512, 1), (3, 512, 2),
    ]  # fmt: skip
    for network, count in ((generator, 33), (discriminator, 7)):
        assert sum(isinstance(layer, BatchNormalization) for layer in network.layers) == count
    assert sum(isinstance(layer, keras.layers.PReLU) for layer in generator.layers) == 1 + 16 + 2


def test_pixel_shuffle_against_brute_force():
    x = normal(2, 3, 5, 12)
    out = PixelShuffle()(x).numpy()
    assert out.shape == (2, 6, 10, 3)
    for n, y, column, c in np.ndindex(*out.shape):
        place = 2 * (y % 2) + column % 2
        assert out[n, y, column, c] == x[n, y // 2, column // 2, 3 * place + c]


@pytest.mark.parametrize("shape", [(4, 4), (7, 7), (3, 5)])
def test_the_generator_takes_images_of_any_size(small, shape):
    generator, _ = srgan.build(point_of())
    height, width = shape
    assert generator(normal(2, height, width, 1)).shape == (2, 4 * height, 4 * width, 1)


@pytest.mark.parametrize("size", [16, 28])
def test_the_discriminator_scores_images_of_the_datasets_size(size):
    assert srgan.build(point_of(size))[1](normal(3, size, size, 1)).shape == (3, 1)


def test_a_size_without_a_quarter_is_refused():
    with pytest.raises(ConfigError, match="quarter of their size: got '14 pixels'"):
        srgan.build(point_of(14))


def test_an_export_makes_the_same_images_where_petgan_is_not(small, tmp_path):
    keras.utils.set_random_seed(1)
    generator, _ = srgan.build(point_of())
    generator.set_weights([w + 0.1 for w in generator.get_weights()])
    images = normal(2, 5, 6, 1)
    plain(generator).save(tmp_path / "generator.keras")
    np.save(tmp_path / "shown.npy", images)
    script = (
        "import sys; sys.modules['petgan'] = None\n"
        "import keras, numpy as np\n"
        "np.save('images.npy', keras.models.load_model('generator.keras')(np.load('shown.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert np.load(tmp_path / "images.npy") == pytest.approx(generator(images).numpy(), rel=1e-5, abs=1e-5)
