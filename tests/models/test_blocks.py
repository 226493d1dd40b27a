"""What a point chooses in its networks: normalization, activation, widths, minibatch deviation, precision."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf

from petgan.errors import ConfigError
from petgan.models import build
from petgan.models.blocks import activate, normalize
from petgan.models.layers import (
    BatchNormalization,
    Dropout,
    MinibatchStd,
    Segment,
    dropout_stream,
    plain,
    statistics_over_ranks,
)

EPSILON = 1e-3  # Keras'
SEED = tf.constant([3, 1 << 20], tf.int64)


def model_of(block, shape):
    x = keras.Input(shape)
    return keras.Model(x, block(x))


# --- normalization ------------------------------------------------------------------------------


def standardized(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + EPSILON)


@pytest.mark.parametrize(
    ("channels", "groups"), [(16, 8), (8, 8), (12, 6), (10, 5), (7, 7), (11, 1), (1, 1), (20, 5)]
)
def test_group_normalization_has_the_most_groups_up_to_eight(channels, groups):
    x = np.random.default_rng(0).normal(2, 3, (3, 4, 5, channels))
    grouped = x.reshape(3, 4, 5, groups, channels // groups)
    expected = standardized(grouped, (1, 2, 4)).reshape(x.shape)
    found = model_of(lambda y: normalize(y, "group", 0.9), x.shape[1:])(x).numpy()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("kind", "axes"), [("instance", (1, 2)), ("layer", (1, 2, 3))])
def test_instance_and_layer_normalization(kind, axes):
    x = np.random.default_rng(0).normal(2, 3, (3, 4, 5, 6))
    found = model_of(lambda y: normalize(y, kind, 0.9), x.shape[1:])(x).numpy()
    assert found == pytest.approx(standardized(x, axes), rel=1e-4, abs=1e-5)


def test_layer_normalization_of_units_is_of_all_units():
    x = np.random.default_rng(0).normal(2, 3, (3, 6))
    found = model_of(lambda y: normalize(y, "layer", 0.9), (6,))(x).numpy()
    assert found == pytest.approx(standardized(x, (1,)), rel=1e-4, abs=1e-5)


def test_batch_is_ours_and_none_is_nothing():
    assert isinstance(
        model_of(lambda y: normalize(y, "batch", 0.9), (2, 2, 3)).layers[-1], BatchNormalization
    )
    assert len(model_of(lambda y: normalize(y, "none", 0.9), (3,)).layers) == 1


@pytest.mark.parametrize("preset", ["dcgan", "wgan"])
@pytest.mark.parametrize("kind", ["batch", "instance", "group", "layer", "none"])
def test_both_networks_of_convolutions_take_every_normalization(preset, kind):
    kinds = (keras.layers.BatchNormalization, keras.layers.GroupNormalization)
    networks = build(preset, 32, normalization=kind, discriminator_width=0.125)
    counts = [sum(isinstance(layer, kinds) for layer in network.layers) for network in networks]
    assert counts == ([0, 0] if kind == "none" else [3, 4])


def test_the_dense_network_refuses_instances():
    for kind in ("batch", "group", "layer", "none"):
        build("gan", 16, normalization=kind)
    with pytest.raises(ConfigError, match="instance.*batch, group, layer, none"):
        build("gan", 16, normalization="instance")


def test_spectral_norm_replaces_the_discriminators_normalization():
    generator, discriminator = build("dcgan", 16, spectral_norm=True, discriminator_width=0.25)
    assert any(isinstance(layer, BatchNormalization) for layer in generator.layers)
    assert not any(isinstance(layer, BatchNormalization) for layer in discriminator.layers)


# --- activation and width -----------------------------------------------------------------------

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.05070098 * np.where(x > 0, x, 1.67326324 * np.expm1(x)),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_against_their_formulae(kind):
    x = np.linspace(-4, 4, 81, dtype="float32")[None]
    for chosen, published in ((kind, "relu"), (None, kind)):
        found = model_of(lambda y: activate(y, chosen, published), (81,))(x).numpy()  # noqa: B023
        assert found == pytest.approx(ACTIVATIONS[kind](x.astype("float64")), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan"])
def test_an_activation_is_that_of_all_hidden_layers_and_of_no_other(preset):
    for network in build(preset, 16, activation="elu", discriminator_width=0.25):
        kinds = {layer.activation.__name__ for layer in network.layers if hasattr(layer, "activation")}
        assert kinds <= {"elu", "linear", "tanh", "sigmoid"}
        assert "elu" in kinds
        assert not any(
            isinstance(layer, (keras.layers.ReLU, keras.layers.LeakyReLU)) for layer in network.layers
        )


def filters_of(network):
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    return [layer.filters for layer in network.layers if isinstance(layer, kinds)]


def units_of(network):
    return [layer.units for layer in network.layers if isinstance(layer, keras.layers.Dense)]


def test_widths_multiply_the_published_filters():
    generator, discriminator = build("dcgan", 64, generator_width=1.5, discriminator_width=0.25)
    assert filters_of(generator) == [48, 24, 12, 1]
    assert units_of(generator) == [8 * 8 * 96]
    assert filters_of(discriminator) == [16, 32, 64, 128]
    generator, critic = build("wgan", 32, generator_width=0.5, discriminator_width=2)
    assert filters_of(generator) == [16, 8, 32, 1]
    assert filters_of(critic) == [128, 256, 512, 1024]
    generator, discriminator = build("gan", 16, generator_width=0.25, discriminator_width=0.5)
    assert units_of(generator) == [64, 128, 256, 256]
    assert units_of(discriminator) == [256, 128, 1]


@pytest.mark.parametrize("options", [{"spectral_norm": True}, {"normalization": "group"}])
def test_a_seed_draws_the_same_kernels_whatever_stands_between_them(options):
    def kernels(**options):
        keras.utils.set_random_seed(5)
        networks = build("dcgan", 16, discriminator_width=0.125, **options)
        return [w.numpy() for network in networks for w in network.trainable_weights if w.name == "kernel"]

    pairs = zip(kernels(), kernels(**options), strict=True)
    assert all((a == b).all() for a, b in pairs)


def test_a_filter_is_always_left():
    generator, _ = build("dcgan", 112, generator_width=0.01)
    assert filters_of(generator) == [1, 1, 1, 1, 1]


# --- minibatch standard deviation ---------------------------------------------------------------


def deviation(x):
    return np.sqrt(x.var(0) + 1e-8).mean()


@pytest.mark.parametrize("shape", [(8, 5), (8, 3, 4, 5)])
def test_the_last_channel_is_the_mean_deviation_over_the_batch(shape):
    x = np.random.default_rng(0).normal(3, 2, shape).astype("float32")
    out = MinibatchStd()(x).numpy()
    assert (out[..., :-1] == x).all()
    assert out.shape == (*shape[:-1], shape[-1] + 1)
    assert out[..., -1] == pytest.approx(np.full(shape[:-1], deviation(x.astype("float64"))), rel=1e-5)


def test_equal_images_have_a_slope():
    x = tf.ones((4, 2, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = MinibatchStd()(x, training=True)
    assert np.isfinite(tape.gradient(out, x)).all()


def test_halves_have_the_deviation_of_the_whole_batch_and_its_gradient():
    random = np.random.default_rng(0)
    x, slope = random.normal(3, 2, (8, 3, 3, 2)), random.normal(size=(8, 3, 3, 3))
    x[:4] *= 4
    whole = tf.Variable(x)
    with tf.GradientTape() as tape:
        out = MinibatchStd(dtype="float64")(whole, training=True)
        value = tf.reduce_sum(slope * out)
    expected = tape.gradient(value, whole)

    shares = [tf.Variable(share) for share in np.split(x, 2)]
    with tf.GradientTape() as tape:
        moments = tf.stack([tf.stack(tf.nn.moments(share, [0])) for share in shares])[:, :, None]
        outs = []
        for share in shares:
            with statistics_over_ranks(lambda mine: moments):
                outs.append(MinibatchStd(dtype="float64")(share, training=True))
        value = tf.reduce_sum(slope * tf.concat(outs, 0))
    assert np.concatenate(outs) == pytest.approx(out.numpy(), rel=1e-12)
    found = np.concatenate(tape.gradient(value, shares))
    assert found == pytest.approx(np.asarray(expected), rel=1e-9, abs=1e-12)


def test_each_half_tells_its_own_moments():
    x, told = np.random.default_rng(0).normal(3, 2, (4, 5)).astype("float32"), []
    with statistics_over_ranks(lambda mine: told.append(mine) or mine[None]):
        MinibatchStd()(x, training=True)
        MinibatchStd()(x, training=False)
    assert len(told) == 1
    assert np.asarray(told[0]) == pytest.approx(np.stack([x.mean(0), x.var(0)])[:, None], rel=1e-5)


class Half:
    """One of two threads; its sums wait for the other's, and their gradients are such sums again."""

    def __init__(self, rank, barrier, board):
        self.rank, self._barrier, self._board = rank, barrier, board

    def gather(self, tensor):
        return self._sum(tf.pad(tensor[None], [[self.rank, 1 - self.rank], *[[0, 0]] * len(tensor.shape)]))

    def _sum(self, tensor):
        @tf.custom_gradient
        def summed(x):
            self._board[self.rank] = tf.identity(x)
            self._barrier.wait(60)
            total = self._board[0] + self._board[1]
            self._barrier.wait(60)
            return total, self._sum

        return summed(tensor)


def test_halves_have_the_gradient_penalty_of_the_whole_batch_and_its_gradient():
    """A score depends on the other images too: slopes go from rank to rank, and so do theirs."""
    random = np.random.default_rng(0)
    images, w1, w2 = (random.normal(size=shape) for shape in ((8, 3, 3, 1), (18, 6), (6, 1)))

    def penalty_of(share, gather=lambda mine: mine[None]):
        layer, v1, v2, x = MinibatchStd(dtype="float64"), tf.Variable(w1), tf.Variable(w2), tf.constant(share)
        with statistics_over_ranks(gather), tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                seen = layer(x, training=True)
                scores = tf.tanh(tf.reshape(seen, (len(share), -1)) @ v1) @ v2
            slopes = inner.gradient(scores, x)
            value = tf.reduce_mean(tf.square(tf.sqrt(tf.reduce_sum(slopes**2, axis=(1, 2, 3))) - 1))
        return [np.asarray(v) for v in (value, *tape.gradient(value, [v1, v2]))]

    barrier, board = threading.Barrier(2), {}
    halves = [Half(rank, barrier, board) for rank in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda h: penalty_of(images[4 * h.rank :][:4], h.gather), halves))
    for *parts, whole in zip(*found, penalty_of(images), strict=True):
        assert np.mean(parts, axis=0) == pytest.approx(whole, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan"])
def test_the_discriminator_scores_one_channel_more(preset):
    narrow = {"discriminator_width": 0.25}

    def weights_of_the_score(minibatch_std):
        dense = next(
            layer
            for layer in reversed(build(preset, 16, minibatch_std=minibatch_std, **narrow)[1].layers)
            if isinstance(layer, keras.layers.Dense)
        )
        return dense.kernel.shape[0]

    places = {"gan": 1, "dcgan": 1, "wgan": 4}[preset]
    assert weights_of_the_score(True) == weights_of_the_score(False) + places


# --- one pass through several segments ----------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_one_pass_through_real_and_fake_is_one_pass_through_each(ranks):
    """Without batch normalization: masks by each one's seed, deviations of each one's batch."""
    _, discriminator = build(
        "dcgan", 16, spectral_norm=True, minibatch_std=True, dropout=0.4, discriminator_width=0.125
    )
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(2, 4, 16, 16, 1)).astype("float32") * [[[[[1]]]], [[[[3]]]]]
    segments = [Segment(SEED + tf.constant([0, 256 * n], tf.int64), 4 * (ranks - 1)) for n in (0, 1)]

    def judge(images, *parts):
        with dropout_stream(*parts):
            return discriminator(images, training=True).numpy()

    apart = [judge(images, part) for images, part in zip((real, fake), segments, strict=True)]
    together = judge(np.concatenate([real, fake]), *segments)
    assert together == pytest.approx(np.concatenate(apart), rel=1e-5)
    swapped = judge(np.concatenate([real, fake]), *segments[::-1])
    assert swapped != pytest.approx(together, rel=1e-3)


def test_masks_do_not_depend_on_the_precision():
    masks = []
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        with dropout_stream(Segment(SEED, 0)):
            out = Dropout(0.3, dtype=dtype)(tf.ones((6, 500), dtype), training=True)
        assert out.dtype == dtype
        masks.append(np.asarray(tf.cast(out, "float32")) > 0)
    assert all((mask == masks[0]).all() for mask in masks)


# --- precision and export -----------------------------------------------------------------------


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan"])
def test_in_half_precision_images_scores_and_weights_are_float32(preset, policy):
    options = {"minibatch_std": True, "spectral_norm": True, "normalization": "group"}
    options["discriminator_width"] = 0.25
    generator, discriminator = build(preset, 16, **options)
    images = generator(tf.random.stateless_normal((4, generator.input_shape[1]), (1, 2)), training=False)
    scores = discriminator(images, training=False)
    score = next(x for x in reversed(discriminator.layers) if isinstance(x, keras.layers.Dense))
    assert images.dtype == scores.dtype == score.output.dtype == "float32"
    assert np.isfinite(scores).all()
    assert {w.dtype for w in (*generator.weights, *discriminator.weights)} == {"float32"}
    assert policy.removeprefix("mixed_") in {layer.compute_dtype for layer in generator.layers}


def test_every_generator_is_exported_exactly(tmp_path):
    choices = [
        {"normalization": "group", "activation": "selu"},
        {"normalization": "instance", "activation": "gelu", "generator_width": 0.5},
        {"normalization": "layer", "activation": "elu"},
    ]
    random = np.random.default_rng(0)
    noise = random.standard_normal((5, 32)).astype("float32")
    expected = []
    for n, options in enumerate(choices):
        generator, _ = build("dcgan", 16, discriminator_width=0.125, **options)
        generator.set_weights([w + random.normal(0, 0.1, w.shape) for w in generator.get_weights()])
        plain(generator).save(tmp_path / f"{n}.keras")
        expected.append(generator(noise).numpy())
    np.save(tmp_path / "noise.npy", noise)
    script = (
        "import sys; sys.modules['petgan'] = None\n"
        "import keras, numpy as np\n"
        "noise = np.load('noise.npy')\n"
        "np.save('images.npy', [keras.models.load_model(f'{n}.keras')(noise) for n in range(3)])\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert np.load(tmp_path / "images.npy") == pytest.approx(np.array(expected), abs=1e-5)
