"""The networks of a translation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan.checkpoint import export_generator
from petgan.config import resolve_point
from petgan.errors import ConfigError
from petgan.models import cut


def point_of(size=16):
    return resolve_point({"preset": "cut", "image_size": size})


@pytest.mark.parametrize("size", [16, 28, 56])
def test_an_image_becomes_one_of_its_size_and_is_judged_patch_by_patch(size):
    generator, discriminator, heads = cut.build(point_of(size))
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 1)).astype("float32")
    made = generator(images)
    assert made.shape == images.shape
    assert np.abs(made).max() <= 1
    assert discriminator(images).shape == (2, -(-size // 8), -(-size // 8), 1)
    features = [images, *cut.encoder(generator)(images)]
    assert [x.shape[1] for x in features] == [size, size // 2, size // 4, size // 4, size // 4]
    embedded = heads([tf.reshape(x, (2, -1, x.shape[-1])) for x in features])
    assert {x.shape[-1] for x in embedded} == {cut.HEAD_UNITS}


def test_an_image_is_normalized_by_itself():
    """Whatever else stands in the batch, it is translated alike."""
    generator, discriminator, _ = cut.build(point_of())
    images = np.random.default_rng(1).uniform(-1, 1, (3, 16, 16, 1)).astype("float32")
    for network in (generator, discriminator):
        together, alone = network(images, training=True)[:1], network(images[:1], training=True)
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_patch_of_scores_sees_70_pixels_as_published():
    """Isola 2017, section 6.1.2: the field grows backwards from one score by stride and kernel."""
    field = 1
    for stride in [1, *(stride for _, stride in reversed(cut.DISCRIMINATOR_LAYERS))]:
        field = (field - 1) * stride + cut.DISCRIMINATOR_KERNEL
    assert field == 70


def test_sizes_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(ConfigError, match=r"halves its images 2 times: got '14 pixels'.*multiples of 4"):
        cut.build(point_of(14))


def test_the_exported_generator_needs_no_petgan(tmp_path):
    generator, _, _ = cut.build(point_of())
    export_generator(tmp_path / "generator.keras", generator)
    loaded = keras.models.load_model(tmp_path / "generator.keras", custom_objects={})
    assert not any(type(layer).__module__.startswith("petgan") for layer in loaded.layers)
    images = np.random.default_rng(2).uniform(-1, 1, (1, 16, 16, 1)).astype("float32")
    np.testing.assert_allclose(loaded(images), generator(images), atol=1e-6)
