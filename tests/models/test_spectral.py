"""Spectral normalization: largest singular value 1, Miyato's gradient, and passes that change nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan.models import build
from petgan.models.layers import plain
from petgan.models.spectral import (
    Spectral,
    SpectralConv2D,
    SpectralDense,
    find_vectors,
    first_right_singular_vector,
)


def spectral_layers(model):
    return [layer for layer in model.layers if isinstance(layer, Spectral)]


def largest(kernel):
    """Singular value of a kernel (..., units), by NumPy."""
    kernel = np.asarray(kernel, np.float64)
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def off(model):
    """By how much the largest singular values of the kernels that a model uses differ from 1."""
    return max(abs(largest(layer.normalized(layer.kernel)) - 1) for layer in spectral_layers(model))


def small_layers(**options):
    convolution = SpectralConv2D(6, 3, strides=2, padding="same", **options)
    convolution.build((None, 8, 8, 3))
    dense = SpectralDense(5, activation="tanh", **options)
    dense.build((None, 12))
    return [(convolution, (4, 8, 8, 3)), (dense, (4, 12))]


@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan"])
def test_every_kernel_of_a_fresh_discriminator_has_the_largest_singular_value_1(preset):
    generator, discriminator = build(preset, 16, spectral_norm=True, discriminator_width=0.25)
    kernels = [w for w in discriminator.trainable_weights if w.name == "kernel"]
    assert len(spectral_layers(discriminator)) == len(kernels)
    assert not spectral_layers(generator)
    assert off(discriminator) < 1e-5


def test_in_training_too():
    """Updates so large that the first singular vector is soon another one."""
    keras.utils.set_random_seed(0)
    _, discriminator = build("dcgan", 16, spectral_norm=True, dropout=0.0, discriminator_width=0.125)
    optimizer = keras.optimizers.RMSprop(1e-3)
    optimizer.build(discriminator.trainable_variables)
    before = [layer.vector.numpy() for layer in spectral_layers(discriminator)]
    random, slope = np.random.default_rng(0), np.linspace(-1, 1, 16, dtype="float32")
    worst = 0.0
    for step in range(20):
        x = random.normal(size=(8, 16, 16, 1)).astype("float32") + 0.3 * slope[:, None]
        if step % 2:
            x = -x
        with tf.GradientTape() as tape:
            loss = (-1) ** step * tf.reduce_mean(discriminator(x, training=True))
        variables = discriminator.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        find_vectors(discriminator)
        worst = max(worst, off(discriminator))
    after = [layer.vector.numpy() for layer in spectral_layers(discriminator)]
    assert min(abs(a @ b) for a, b in zip(before, after, strict=True)) < 0.5
    assert worst < 1e-3


@pytest.mark.parametrize("second", [0.0, 0.9, 0.999, 0.9999, 1.0])
@pytest.mark.parametrize("units", [1, 3, 512])
def test_sigma_is_found_within_its_bound_whatever_the_singular_values_are(units, second):
    """One above many alike, in directions that no column prefers: a hard case for the bound."""
    random = np.random.default_rng(units)
    left, right = (np.linalg.qr(random.normal(size=(n, units)))[0] for n in (600, units))
    values = np.full(units, second)
    values[0] = 1.0
    matrix = tf.constant(7.0 * left * values @ right.T, tf.float32)
    u = first_right_singular_vector(matrix)
    sigma = np.linalg.norm(matrix.numpy().astype(np.float64) @ u.numpy())
    assert np.linalg.norm(u) == pytest.approx(1, abs=1e-6)
    assert units ** -(0.5**13) - 1e-5 <= sigma / largest(matrix) <= 1 + 1e-6


def test_a_unit_without_weights_is_no_start():
    u = first_right_singular_vector(tf.constant(np.diag([0.0, 0.5, 1.0]), tf.float32))
    assert np.abs(u) == pytest.approx([0, 0, 1], abs=1e-6)


def test_the_vectors_find_a_direction_that_overtakes_the_first():
    layer, _ = small_layers()[1]
    random = np.random.default_rng(0)
    left, right = np.linalg.qr(random.normal(size=(12, 1)))[0], np.linalg.qr(random.normal(size=(5, 1)))[0]
    layer.kernel.assign(layer.kernel + 5 * left @ right.T)
    layer.find_vector()
    assert largest(layer.normalized(layer.kernel)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_the_layer_is_kerass_with_the_kernel_over_its_singular_value(which):
    layer, shape = small_layers()[which]
    layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    kind = (keras.layers.Conv2D, keras.layers.Dense)[which]
    own = kind.from_config(layer.get_config())
    own.build(shape)
    own.set_weights([layer.kernel.numpy() / largest(layer.kernel), layer.bias.numpy()])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    assert layer(x).numpy() == pytest.approx(own(x).numpy(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_the_gradient_flows_through_sigma_with_its_vectors_held(which):
    """(G - <G, W / sigma> v u^T) / sigma, where G is the gradient by W / sigma (Miyato 2018, eq. 12)."""
    layer, _ = small_layers(dtype="float64")[which]
    layer.kernel.assign(layer.kernel + 0.1)  # u and v are not its singular vectors now
    slope = np.random.default_rng(0).normal(size=layer.kernel.shape)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(slope * layer.normalized(layer.kernel))
    found = tape.gradient(value, layer.kernel.value)

    w = layer.kernel.numpy().reshape(-1, layer.kernel.shape[-1])
    g, u = slope.reshape(w.shape), layer.vector.numpy()
    v = w @ u / np.linalg.norm(w @ u)
    sigma = v @ w @ u
    expected = (g - (g * w / sigma).sum() * np.outer(v, u)) / sigma
    assert found.numpy().reshape(w.shape) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_a_pass_changes_no_weight():
    _, discriminator = build("dcgan", 16, spectral_norm=True, discriminator_width=0.125, dropout=0.0)
    before = discriminator.get_weights()
    discriminator(np.ones((2, 16, 16, 1), "float32"), training=True)
    assert all((a == b).all() for a, b in zip(before, discriminator.get_weights(), strict=True))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_divides_in_full(policy):
    for layer, shape in small_layers(dtype=policy):
        out = layer(np.ones(shape, "float32"))
        assert out.dtype == layer.compute_dtype
        half = tf.cast(tf.convert_to_tensor(layer.kernel), layer.compute_dtype)
        assert layer.normalized(half).dtype == layer.compute_dtype
        assert largest(tf.cast(layer.normalized(half), "float32")) == pytest.approx(1, abs=4e-3)
        assert layer.vector.dtype == "float32"


def test_it_is_saved_and_exported(tmp_path):
    _, discriminator = build("dcgan", 16, spectral_norm=True, minibatch_std=True, discriminator_width=0.125)
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype("float32")
    expected = discriminator(x).numpy()
    discriminator.save(tmp_path / "discriminator.keras")
    loaded = keras.models.load_model(tmp_path / "discriminator.keras")
    assert (loaded(x).numpy() == expected).all()
    pairs = zip(loaded.get_weights(), discriminator.get_weights(), strict=True)
    assert all((a == b).all() for a, b in pairs)

    exported = plain(discriminator)
    assert not spectral_layers(exported)
    assert exported(x).numpy() == pytest.approx(expected, abs=1e-6)


def test_a_kernel_that_is_not_a_number_ends_nothing_and_shows():
    layer = SpectralDense(5)
    layer.build((None, 12))
    layer.kernel.assign(np.full((12, 5), np.nan))
    layer.find_vector()
    assert np.isnan(layer(np.ones((1, 12), "float32"))).all()
