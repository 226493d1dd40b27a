"""Optimizers, penalties and averages, each against its own formula."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from graphs import ancestors

from petgan.config import OPTIMIZERS, OPTIMIZERS_WITH_BETAS, resolve_point
from petgan.distributed import ALONE
from petgan.methods.networks import (
    Networks,
    adversaries,
    averaged_copy,
    cell_moments,
    make_optimizer,
    relative_variation,
    update_average,
    update_part,
    variation,
    with_penalty,
)


def point_of(**values):
    return resolve_point({"preset": "dcgan", "image_size": 16, "batch_size": 4, **values})


def by_hand(name, gradients, start, rate, decay, clip):
    """Keras' own formulae (Tieleman 2012, Kingma 2015, Zeiler 2012) in float64."""
    w, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, gradient in enumerate(gradients):
        g, lr = np.clip(gradient, -clip, clip), rate / (1 + decay * t)
        if name == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            w = w - lr * g / np.sqrt(v + 1e-7)
        elif name == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            correction = np.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
            w = w - lr * correction * m / (np.sqrt(v) + 1e-7)
        else:
            v = 0.95 * v + 0.05 * g**2
            change = -np.sqrt(m + 1e-7) / np.sqrt(v + 1e-7) * g
            m = 0.95 * m + 0.05 * change**2
            w = w + lr * change
    return w


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adadelta"])
def test_the_studys_optimizers_with_decay_and_clipping(name):
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=6), random.normal(0, 3, (4, 6))
    point = point_of(optimizer=name, learning_rate=0.01, gradient_clip=1.0)
    variable = keras.Variable(start.astype("float32"))
    optimizer = make_optimizer(point, [variable], 0.01, decay=0.5)
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    expected = by_hand(name, gradients, start, rate=0.01, decay=0.5, clip=1.0)
    assert variable.numpy() - start == pytest.approx(expected - start, rel=1e-3, abs=1e-7)
    assert (np.abs(gradients) > 1).any()


def test_the_lists_of_optimizers_are_those_of_keras():
    kinds = {
        name.lower(): kind
        for name, kind in vars(keras.optimizers).items()
        if inspect.isclass(kind) and issubclass(kind, keras.Optimizer)
    }
    others = {"optimizer", "lossscaleoptimizer", "multioptimizer"}
    # The first keeps weights of its own, by which those of a transfer are lost; one gradient of 0 makes a
    # weight 0 with the second.
    others |= {"schedulefreeadamw", "ftrl"}
    assert set(OPTIMIZERS) - {"sc-rmsprop"} == set(kinds) - others
    with_betas = {n for n in kinds if {"beta_1", "beta_2"} <= {*inspect.signature(kinds[n]).parameters}}
    assert set(OPTIMIZERS_WITH_BETAS) <= with_betas


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_the_weights(name):
    variable = keras.Variable(np.ones((3, 3), "float32"))
    optimizer = make_optimizer(point_of(optimizer=name), [variable], 1e-3, decay=1e-3)
    optimizer.apply([tf.ones((3, 3))], [variable])
    assert np.isfinite(variable.numpy()).all()
    assert (variable.numpy() != 1).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_from_weights_that_are_set_after_it_was_built(name):
    """As a transfer does; and a first gradient of 0 changes little."""
    variable = keras.Variable(np.zeros((3, 3), "float32"))
    optimizer = make_optimizer(point_of(optimizer=name), [variable], 1e-3)
    variable.assign(np.full((3, 3), 5.0))
    for gradient in (0.0, 1.0):
        optimizer.apply([tf.fill((3, 3), gradient)], [variable])
        assert variable.numpy() == pytest.approx(np.full((3, 3), 5.0), abs=0.1)


@pytest.mark.parametrize(("own", "expected"), [(None, 0.002), (0.01, 0.005)])
def test_a_transfer_is_trained_at_its_share_of_both_rates(own, expected):
    values = {"learning_rate": 0.004, "discriminator_learning_rate": own, "transfer_rate": 0.5}
    rates = []
    for start in ({"init_from": "other.h5"}, {}):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        point = point_of(**values, **start, generator_decay=0.0, discriminator_decay=0.0)
        parts = adversaries(point, model, model)
        rates += [float(parts[f"{part}_optimizer"].learning_rate) for part in ("generator", "discriminator")]
    assert rates == pytest.approx([0.002, expected, 0.004, own or 0.004])


def sgd(scale=None, **options):
    """Plain, or with a loss scale as float16 has."""
    optimizer = keras.optimizers.SGD(0.5)
    if scale is not None:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale, **options)
    return optimizer


@pytest.mark.parametrize("scale", [None, 8.0])
def test_a_penaltys_gradients_are_added_with_their_weight_and_scale(scale):
    start = np.random.default_rng(0).normal(size=5).astype("float32")
    weight, apart = keras.Variable(start), keras.Variable(start)
    optimizer = sgd(scale)
    optimizer.build([weight, apart])
    with tf.GradientTape() as tape:
        scaled = optimizer.scale_loss(tf.reduce_sum(weight**2 + apart**2))
    gradients = tape.gradient(scaled, [weight.value, apart.value])
    (of_both, of_loss), penalty = with_penalty(
        optimizer, [weight, apart], gradients, 10.0, lambda: tf.reduce_sum(weight**3)
    )
    assert of_both.numpy() == pytest.approx((scale or 1) * (2 * start + 10 * 3 * start**2), rel=1e-5)
    assert of_loss.numpy() == pytest.approx((scale or 1) * 2 * start)
    assert float(penalty) == pytest.approx((start**3).sum(), rel=1e-5)


def test_a_penalty_begins_when_the_losss_gradients_are_there():
    weight, optimizer = keras.Variable(np.ones(5, "float32")), sgd()
    optimizer.build([weight])

    @tf.function
    def turn():
        gradients = [tf.multiply(weight, 2.0, name="of_loss")]
        with_penalty(optimizer, [weight], gradients, 1.0, lambda: tf.reduce_sum(tf.square(weight, "inner")))

    graph = turn.get_concrete_function().graph
    of_loss, inner = (graph.get_operation_by_name(name) for name in ("of_loss", "inner"))
    assert of_loss in ancestors(inner)


def test_the_norm_of_gradients_is_without_the_scale_that_an_update_changes():
    variable, optimizer = keras.Variable(np.zeros(2, "float32")), sgd(8.0, dynamic_growth_steps=1)
    optimizer.build([variable])
    networks = Networks(generator_optimizer=optimizer)
    metrics = update_part(networks, "generator", [variable], [tf.constant([24.0, 32.0])], {}, ALONE)
    assert float(metrics["g_gradient"]) == 5
    assert float(optimizer.dynamic_scale) == 16
    assert variable.numpy() == pytest.approx([-1.5, -2.0])


def test_the_average_follows_its_recurrence():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    average = averaged_copy(model)
    expected = [w.astype("float64") for w in average.get_weights()]
    for step in range(20):
        random = np.random.default_rng(step)
        now = [random.normal(size=w.shape).astype("float32") for w in expected]
        model.set_weights(now)
        update_average(average, model, tf.constant(step), 0.6)
        keep = min(0.6, (1 + step) / (10 + step))
        expected = [keep * a + (1 - keep) * w for a, w in zip(expected, now, strict=True)]
    for ours, wanted in zip(average.get_weights(), expected, strict=True):
        assert ours == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_betas_reach_the_optimizer():
    point = resolve_point({"preset": "wgan-gp", "image_size": 16, "beta_1": 0.3, "beta_2": 0.8})
    optimizer = make_optimizer(point, [keras.Variable(1.0)], 1e-4)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.3, 0.8)


@pytest.mark.parametrize("size", [16, 28])
def test_variation_is_the_deviation_of_cells_over_the_images(size):
    images = np.random.default_rng(0).uniform(-1, 1, (6, size, size, 1)).astype("float32")
    cells = 8 if size == 16 else 7
    means = np.stack([[[np.mean(part) for part in np.split(rows, cells, axis=1)]
                       for rows in np.split(image, cells)] for image in images])  # fmt: skip
    expected = np.sqrt(means.astype("float64").var(axis=0).mean())
    halves = [cell_moments(tf.constant(half)) for half in (images[:3], images[3:])]
    for moments in (cell_moments(tf.constant(images)), (halves[0] + halves[1]) / 2):
        assert float(variation(moments)) == pytest.approx(expected, rel=1e-4)
    share = relative_variation(cell_moments(images / 4 + 0.5), cell_moments(images))
    assert float(share) == pytest.approx(0.25, rel=1e-3)
    assert float(relative_variation(cell_moments(images[:1] * tf.ones((6, 1, 1, 1))), moments)) < 0.01


@pytest.mark.parametrize("number", [1, 32])
def test_generated_images_are_not_compared_with_one_real_image(number):
    random = np.random.default_rng(0)
    real = np.repeat(random.uniform(-1, 1, (1, 16, 16, 1)), number, axis=0).astype("float32")
    generated = random.uniform(-1, 1, (number, 16, 16, 1)).astype("float32")
    assert float(relative_variation(cell_moments(generated), cell_moments(real))) == 1
