"""The networks that grow: the published sizes, equalized weights, and levels that fade in."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan.config import resolve_point
from petgan.methods.networks import averaged_copy
from petgan.methods.pixels import downscaled, upscaled
from petgan.models import pggan
from petgan.models.layers import plain
from petgan.models.pggan import Critic, EqualizedConv2D, EqualizedDense


def point_of(image_size=32, **values):
    return resolve_point({"preset": "pggan", "image_size": image_size, "latent_size": 8, **values})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(pggan, "FILTERS", (6, 4, 3))


def test_with_the_published_filters_layers_have_the_published_numbers_of_weights(monkeypatch):
    """Karras 2018, table 2, from 64 to 1024 pixels; here they make 16 to 128."""
    monkeypatch.setattr(pggan, "FILTERS", (256, 128, 64, 32, 16))
    generator, critic = pggan.build(point_of(128))

    def numbers(network):
        flat = network._flatten_layers(include_self=False)
        convolutions = [x for x in flat if isinstance(x, EqualizedConv2D) and x.kernel_size == (3, 3)]
        return [x.count_params() for x in convolutions]

    published = [295e3, 147e3, 74e3, 37e3, 18e3, 9.2e3, 4.6e3, 2.3e3]
    assert numbers(generator)[1:] == pytest.approx(published, rel=0.03)
    assert sorted(numbers(critic)[:-1], reverse=True) == pytest.approx(published, rel=0.03)
    assert generator.get_layer("image_4").count_params() == 16 + 1
    assert critic.entries[-1].count_params() == 16 + 16


@pytest.mark.parametrize("activation", [None, "leaky_relu"])
@pytest.mark.parametrize("layer", [EqualizedDense(400), EqualizedConv2D(40, 3)])
def test_at_first_every_layer_passes_on_the_variance_that_it_is_given(layer, activation):
    keras.utils.set_random_seed(0)
    layer = type(layer).from_config({**layer.get_config(), "activation": activation})
    x = normal(16, 12, 12, 50)
    square = float(tf.reduce_mean(tf.square(layer(x))))
    # Of a normal x, E max(x, 0.2 x)^2 = (1 + 0.2^2) / 2; He's constant leaves the slope out.
    assert square == pytest.approx(1.0 if activation is None else 1.04, rel=0.05)
    assert float(tf.math.reduce_std(layer.kernel)) == pytest.approx(1, rel=0.05)


def test_pixel_norm_divides_by_the_root_mean_square_of_the_channels():
    x = 3 * normal(2, 4, 4, 5)
    inputs = keras.Input((4, 4, 5))
    model = keras.Model(inputs, pggan._pixel_norm(inputs))
    expected = x / np.sqrt((x.astype("float64") ** 2).mean(axis=-1, keepdims=True) + 1e-8)
    assert model(x).numpy() == pytest.approx(expected, rel=1e-5)
    assert model.trainable_weights == []


def test_at_a_whole_depth_the_generator_shows_that_level_alone(small):
    generator, _ = pggan.build(point_of())
    noise = normal(3, 8)
    for level in range(3):
        pggan.set_depth(generator, tf.constant(float(level)))
        images = pggan.images_at(generator, level)(noise)
        expected = upscaled(tf.nest.flatten(images)[-1], 2 ** (2 - level))
        assert (generator(noise).numpy() == expected.numpy()).all()


def test_between_two_levels_the_generator_mixes_them(small):
    generator, _ = pggan.build(point_of())
    noise = normal(3, 8)
    pggan.set_depth(generator, tf.constant(1.25))
    below, above = pggan.images_at(generator, 2)(noise)
    expected = 0.75 * upscaled(below, 2) + 0.25 * above
    assert generator(noise).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_the_critics_new_level_fades_in(small):
    critic = Critic(32)
    images = normal(4, 32, 32, 1)
    halved = critic(downscaled(images, 2)).numpy()
    assert critic(images, alpha=0.0).numpy() == pytest.approx(halved, abs=1e-6)
    with tf.GradientTape() as tape:
        scores = critic(images, alpha=1.0)
    gradients = tape.gradient(scores, critic.entries[1].trainable_variables)
    assert all((g.numpy() == 0).all() for g in gradients)
    assert scores.numpy() != pytest.approx(halved, abs=1e-3)


def test_a_level_does_not_use_those_above(small):
    generator, critic = pggan.build(point_of())
    used = {id(v) for v in pggan.images_at(generator, 1).trainable_variables}
    assert id(generator.get_layer("image_2").kernel) not in used
    with tf.GradientTape() as tape:
        scores = critic(normal(4, 16, 16, 1))
    above = [*critic.entries[2].trainable_variables, *critic.blocks[1].trainable_variables]
    assert tape.gradient(scores, above) == [None] * len(above)


@pytest.mark.parametrize("depth", [0.4, 1.0])
def test_an_export_shows_what_the_generator_shows_where_petgan_is_not(small, tmp_path, depth):
    keras.utils.set_random_seed(1)
    generator = averaged_copy(pggan.build(point_of(16))[0])
    generator.set_weights([w + 0.1 for w in generator.get_weights()])
    pggan.set_depth(generator, tf.constant(depth))
    noise = normal(5, 8)
    plain(generator).save(tmp_path / "generator.keras")
    np.save(tmp_path / "noise.npy", noise)
    script = (
        "import sys; sys.modules['petgan'] = None\n"
        "import keras, numpy as np\n"
        "np.save('images.npy', keras.models.load_model('generator.keras')(np.load('noise.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert np.load(tmp_path / "images.npy") == pytest.approx(generator(noise).numpy(), abs=1e-5)
