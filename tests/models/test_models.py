"""The networks: the study's parameter counts, any size, and quirks that do what they say."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from graphs import ancestors

from petgan.errors import ConfigError
from petgan.models import build
from petgan.models.layers import (
    BatchNormalization,
    Dropout,
    GroupNormalization,
    LeakyReLU,
    MinibatchStd,
    Segment,
    dropout_stream,
    leaky_relu,
    plain,
    statistics_over_ranks,
)

# All weights and trainable ones of generator and discriminator at 224 pixels, as the study printed them.
PUBLISHED = {
    "gan": ((52_102_912, 52_099_328), (25_822_209, 25_822_209)),
    "dcgan": ((184_853, 178_453), (4_407_553, 4_405_633)),
    "wgan": ((453_569, 453_569), (1_951_233, 1_951_233)),
    "wgan-gp": ((453_569, 453_569), (1_951_233, 1_951_233)),
}


def carried_out(graph):
    """The operations that its outputs hang on."""
    return {op for tensor in graph.outputs for op in (tensor.op, *ancestors(tensor.op))}


def counts(model):
    return model.count_params(), sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_parameter_counts_are_the_published_ones(preset):
    generator, discriminator = build(preset)
    assert (counts(generator), counts(discriminator)) == PUBLISHED[preset]
    keras.backend.clear_session()


@pytest.mark.parametrize("size", [14, 16, 28, 32, 64, 448])
@pytest.mark.parametrize("preset", ["dcgan", "wgan-gp"])
def test_any_size_of_7_or_8_doubled(preset, size):
    generator, discriminator = build(preset, size)
    assert generator.output_shape == (None, size, size, 1)
    assert discriminator.input_shape == (None, size, size, 1)
    assert discriminator.output_shape == (None, 1)


def test_filters_beyond_the_published_ones_repeat_the_last():
    generator, _ = build("dcgan", 448)
    kinds = [layer for layer in generator.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert [layer.filters for layer in kinds] == [32, 16, 8, 4, 4, 4, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 30},
        {"image_size": 8},
        {"image_size": 32, "dropout": 1.0},
        {"image_size": 32, "quirks": ("unit-rang",)},
        {"image_size": 32, "depth": 3},
    ],
)
def test_an_impossible_network_is_refused(options):
    with pytest.raises(ConfigError):
        build("dcgan", **options)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_images_lie_between_minus_one_and_one_and_bce_networks_give_probabilities(preset):
    generator, discriminator = build(preset, 16)
    noise = 30 * np.random.default_rng(0).standard_normal((8, generator.input_shape[1])).astype("float32")
    images = generator(noise, training=False).numpy()
    assert images.dtype == np.float32
    assert np.abs(images).max() <= 1
    assert images.std() > 0
    scores = discriminator(50 * images, training=False).numpy()
    if preset in ("gan", "dcgan"):
        assert ((scores >= 0) & (scores <= 1)).all()
    else:
        assert discriminator.layers[-1].activation is keras.activations.linear


def test_relu_before_leaky_silences_the_leaky_relu():
    image = np.random.default_rng(0).normal(size=(4, 32, 32, 1)).astype("float32")

    def negatives_into_leaky(quirks):
        _, discriminator = build("dcgan", 32, quirks=quirks)
        leaky = [x for x in discriminator.layers if isinstance(x, keras.layers.LeakyReLU)][1:]
        inputs = keras.Model(discriminator.input, [layer.input for layer in leaky])(image)
        return [int((x.numpy() < 0).sum()) for x in inputs]

    assert negatives_into_leaky(("relu-before-leaky",)) == [0, 0, 0]
    assert min(negatives_into_leaky(())) > 0


# --- dropout ------------------------------------------------------------------------------------

SEED = tf.constant([3, 1 << 20], tf.int64)


def dropped(layer, x, seed=SEED, offset=0):
    with dropout_stream(Segment(seed, offset)):
        return layer(x, training=True).numpy()


def test_dropout_keeps_the_share_it_should_and_the_mean():
    out = dropped(Dropout(0.4), tf.ones((64, 32, 32, 2)))
    kept = 1 - round(0.4 * 2**16) / 2**16
    assert set(np.unique(out)) == {0, np.float32(1 / kept)}
    n = out.size  # six standard deviations of a binomial share
    assert abs((out == 0).mean() - 0.4) < 6 * np.sqrt(0.4 * 0.6 / n)


def test_dropout_depends_on_its_seed_and_its_place_in_the_network_only():
    x = tf.ones((8, 100))
    first, second = Dropout(0.5), Dropout(0.5)
    with dropout_stream(Segment(SEED, 0)):
        a, b = first(x, training=True).numpy(), second(x, training=True).numpy()
    with dropout_stream(Segment(SEED, 0)):
        again = second(x, training=True).numpy()
    assert (a != b).any()
    assert (a == again).all()
    assert (a != dropped(first, x, SEED + tf.constant([0, 256], tf.int64))).any()


def test_the_slopes_of_dropout_are_its_mask_times_theirs():
    x, outer = tf.random.stateless_normal((2, 4, 50), (1, 2))
    mask = dropped(Dropout(0.4), tf.ones_like(x))
    with tf.GradientTape() as second:
        second.watch(outer)
        with tf.GradientTape() as first, dropout_stream(Segment(SEED, 0)):
            first.watch(x)
            value = tf.reduce_sum(outer * Dropout(0.4)(x, training=True))
        slope = first.gradient(value, x)
        squares = tf.reduce_sum(slope**2)
    assert slope.numpy() == pytest.approx(outer.numpy() * mask, rel=1e-6)
    assert second.gradient(squares, outer).numpy() == pytest.approx(2 * outer.numpy() * mask**2, rel=1e-6)


def test_dropout_holds_its_mask_as_bytes():
    dropout = Dropout(0.4)

    @tf.function
    def slope(x):
        with tf.GradientTape() as tape, dropout_stream(Segment(SEED, 0)):
            tape.watch(x)
            value = tf.reduce_sum(dropout(x, training=True))
        return tape.gradient(value, x)

    graph = slope.get_concrete_function(tf.TensorSpec((4, 50))).graph
    backward = [op for op in carried_out(graph) if "gradient_tape" in op.name]
    taken = [t for op in backward for t in op.inputs if t.op not in backward]
    assert {t.dtype for t in taken if t.shape == (4, 50)} == {tf.bool}


def test_a_rank_leaves_out_what_one_process_would():
    x = tf.random.stateless_normal((12, 5, 5, 3), (1, 2))
    whole = dropped(Dropout(0.3), x)
    parts = [dropped(Dropout(0.3), x[i : i + 4], offset=i) for i in (0, 4, 8)]
    assert (np.concatenate(parts) == whole).all()


def test_dropout_does_nothing_in_inference():
    x = tf.random.stateless_normal((4, 7), (1, 2))
    assert (Dropout(0.9)(x, training=False).numpy() == x.numpy()).all()


# --- leaky ReLU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("layer", [False, True])
def test_leaky_relu_and_its_slopes_are_those_of_a_product(layer, mode, dtype):
    x, outer = (tf.cast(t, dtype) for t in tf.random.stateless_normal((2, 6, 50), (1, 2)))
    rectify = LeakyReLU(dtype=dtype) if layer else leaky_relu

    def of_all_orders(x, outer):
        with tf.GradientTape() as second:
            second.watch(outer)
            with tf.GradientTape() as first:
                first.watch(x)
                y = rectify(x)
                value = tf.reduce_sum(outer * y)
            slope = first.gradient(value, x)
            squares = tf.reduce_sum(slope**2)
        return y, slope, second.gradient(squares, outer)

    if mode != "eager":
        of_all_orders = tf.function(of_all_orders, jit_compile=mode == "xla")
    found = of_all_orders(x, outer)
    assert {t.dtype for t in found} == {x.dtype}
    x, outer = (t.numpy().astype("float64") for t in (x, outer))
    factor = np.where(x > 0, 1, 0.2)
    digits = {"float32": 1e-6, "bfloat16": 2**-6, "float16": 2**-9}[dtype]
    for ours, expected in zip(found, (factor * x, factor * outer, 2 * factor**2 * outer), strict=True):
        assert ours.numpy().astype("float64") == pytest.approx(expected, rel=digits, abs=1e-4)


@pytest.mark.parametrize(
    ("rectify", "zeros"), [(leaky_relu, 0), (lambda x: tf.nn.leaky_relu(x, 0.2), 1)], ids=["ours", "theirs"]
)
def test_the_slope_of_a_leaky_slope_takes_no_zeros_as_large_as_the_images(rectify, zeros):
    @tf.function
    def penalty(x):
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                value = tf.reduce_sum(rectify(x**2))
            squares = tf.reduce_sum(first.gradient(value, x) ** 2)
        return second.gradient(squares, x)

    graph = penalty.get_concrete_function(tf.TensorSpec((4, 9))).graph
    constants = [op for op in carried_out(graph) if op.type == "Const" and op.outputs[0].shape == (4, 9)]
    assert len(constants) == zeros


# --- batch normalization ------------------------------------------------------------------------


def normalized(kind, x, dtype="float32"):
    """Output, gradient (of the weights too) and moving statistics of one training pass."""
    layer = kind(momentum=0.9, dtype=dtype)
    layer.build(x.shape)
    random = np.random.default_rng(1)
    layer.set_weights([w + random.uniform(0.1, 1, w.shape) for w in layer.get_weights()])
    x, slope = tf.constant(x, dtype), tf.constant(random.normal(size=x.shape), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = layer(x, training=True)
        value = tf.reduce_mean(slope * out)
    gradients = tape.gradient(value, [x, *layer.trainable_variables])
    return [np.asarray(v) for v in (out, *gradients, *layer.weights)]


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 4, 3)])
def test_on_one_rank_it_does_what_keras_own_does(shape):
    x = np.random.default_rng(0).normal(3, 2, shape)
    ours, keras_own = (normalized(kind, x) for kind in (BatchNormalization, keras.layers.BatchNormalization))
    for a, b in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32"])  # images of float32 by fused operations
@pytest.mark.parametrize("shape", [(12, 5), (12, 4, 4, 3)])
def test_shares_are_normalized_by_the_whole_batch_and_differentiated_so(shape, dtype):
    """Three ranks' shares in one process: the sum over ranks of what each passes back to the others."""
    random = np.random.default_rng(0)
    x, slope = random.normal(3, 2, shape), random.normal(size=shape)
    x[:4] *= 5  # shares of unlike mean and variance
    own, layers = keras.layers.BatchNormalization(dtype="float64"), []
    whole = tf.Variable(x)
    with tf.GradientTape() as tape:
        out = own(whole, training=True)
        value = tf.reduce_sum(slope * out)
    expected = tape.gradient(value, whole)

    shares = [tf.Variable(share.astype(dtype)) for share in np.split(x, 3)]
    with tf.GradientTape() as tape:
        axes = list(range(len(shape) - 1))
        moments = tf.stack([tf.stack(tf.nn.moments(share, axes)) for share in shares])
        outs = []
        for share in shares:
            layers.append(BatchNormalization(dtype=dtype))
            with statistics_over_ranks(lambda mine: moments):
                outs.append(layers[-1](share, training=True))
        value = tf.reduce_sum(slope.astype(dtype) * tf.concat(outs, 0))
    found = tape.gradient(value, shares)

    rounding = 1e-12 if dtype == "float64" else 1e-5
    assert np.concatenate(outs) == pytest.approx(out.numpy(), rel=rounding, abs=rounding)
    assert np.concatenate(found) == pytest.approx(np.asarray(expected), rel=1e3 * rounding, abs=rounding)
    for layer in layers:
        for ours, theirs in zip(layer.get_weights(), own.get_weights(), strict=True):
            assert ours == pytest.approx(theirs, rel=rounding)


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 3, 5)])
def test_each_rank_tells_its_own_moments(shape):
    x, told = np.random.default_rng(0).normal(3, 2, shape).astype("float32"), []
    with statistics_over_ranks(lambda mine: told.append(mine) or mine[None]):
        BatchNormalization()(x, training=True)
    axes = tuple(range(len(shape) - 1))
    assert np.asarray(told[0]) == pytest.approx(np.stack([x.mean(axes), x.var(axes)]), rel=1e-5)


def test_in_inference_nobody_is_asked():
    def ask(mine):
        raise AssertionError

    x = np.ones((2, 3), "float32")
    with statistics_over_ranks(ask):
        BatchNormalization()(x, training=False)
    BatchNormalization()(x, training=True)


def test_an_exported_generator_loads_where_petgan_is_not(tmp_path):
    generator, _ = build("dcgan", 16)
    noise = np.random.default_rng(0).standard_normal((5, 32)).astype("float32")
    plain(generator).save(tmp_path / "generator.keras")
    np.save(tmp_path / "noise.npy", noise)
    script = (
        "import sys; sys.modules['petgan'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('generator.keras')\n"
        "np.save('images.npy', model(np.load('noise.npy')))\n"
        "assert type(model.layers[2]) is keras.layers.BatchNormalization, model.layers[2]\n"
        "assert type(model.layers[5]) is keras.layers.Dropout, model.layers[5]\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert np.load(tmp_path / "images.npy") == pytest.approx(generator(noise).numpy(), abs=1e-6)


# --- slopes of slopes, which penalties of slopes are trained by ---------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_normalization_is_keras_own(groups):
    x = np.random.default_rng(0).normal(3, 2, (3, 5, 5, 4)).astype("float32")
    ours, keras_own = GroupNormalization(groups), keras.layers.GroupNormalization(groups)
    for layer in (ours, keras_own):
        layer.build(x.shape)
        layer.set_weights([np.arange(1.0, 5), np.arange(4.0)])
    np.testing.assert_allclose(ours(x), keras_own(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: GroupNormalization(2, dtype="float64"),
        lambda: BatchNormalization(dtype="float64"),
        lambda: MinibatchStd(dtype="float64"),
    ],
    ids=["group", "batch", "minibatch"],
)
def test_the_slope_of_a_penalty_against_finite_differences(layer):
    """Keras' own layers hold the mean constant, which is right for a slope, but not for its slope."""
    random = np.random.default_rng(0)
    layer, x, direction = layer(), random.normal(size=(3, 2, 2, 4)), random.normal(size=(3, 2, 2, 4))

    def penalty(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.tanh(layer(x, training=True) if has_mode else layer(x)) ** 3)
        return tf.reduce_sum(tf.square(tape.gradient(value, x)))

    has_mode = not isinstance(layer, GroupNormalization)
    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = penalty(point)
    slope = float(tf.reduce_sum(tape.gradient(value, point) * direction))
    h = 1e-6
    ends = [float(penalty(tf.constant(x + sign * h * direction))) for sign in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)
