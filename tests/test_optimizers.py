"""SC-RMSprop against its algorithm in NumPy, and through a checkpoint; RMSprop against Keras'."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan.checkpoint import read_newest, write_checkpoint
from petgan.config import DatasetRef, RunConfig, resolve_point
from petgan.methods.adversarial import make_networks, make_update
from petgan.methods.feed import Data
from petgan.methods.networks import make_optimizer
from petgan.optimizers import RMSprop, SCRMSprop


def point_of(**values):
    small = {"preset": "gan", "image_size": 16, "batch_size": 4, "optimizer": "sc-rmsprop"}
    return resolve_point({**small, "generator_width": 0.1, "discriminator_width": 0.1, **values})


def by_hand(gradients, start, rate, decay=0.0, clip=np.inf, gamma=0.9, xi_1=0.1, xi_2=0.1):
    w, v = start.astype("float64"), np.zeros(start.shape)
    for t, gradient in enumerate(gradients, start=1):
        g = np.clip(gradient, -clip, clip)
        beta = 1 - gamma / t
        v = beta * v + (1 - beta) * g**2
        w = w - rate / (1 + decay * (t - 1)) * g / (t * v + xi_2 * np.exp(-xi_1 * t * v))
    return w


def test_it_follows_its_algorithm():
    random = np.random.default_rng(0)
    start = random.normal(size=(3, 4)).astype("float32")
    gradients = random.normal(0, 1, (12, 3, 4)) * np.logspace(-3, 1, 4)
    variable = keras.Variable(start)
    optimizer = SCRMSprop(0.02, gamma=0.8, xi_1=0.3, xi_2=0.2)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    expected = by_hand(gradients, start, 0.02, gamma=0.8, xi_1=0.3, xi_2=0.2)
    assert variable.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_a_point_names_it_with_decay_and_clipping():
    random = np.random.default_rng(0)
    start, gradients = random.normal(size=6).astype("float32"), random.normal(0, 3, (4, 6))
    variable = keras.Variable(start)
    optimizer = make_optimizer(point_of(gradient_clip=1.0), [variable], 0.01, decay=0.5)
    assert type(optimizer) is SCRMSprop
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    assert variable.numpy() == pytest.approx(by_hand(gradients, start, 0.01, 0.5, 1.0), rel=1e-6, abs=1e-6)


def test_rmsprop_is_that_of_keras():
    random = np.random.default_rng(0)
    start = random.normal(size=(3, 4)).astype("float32")
    options = {"learning_rate": 0.02, "rho": 0.8, "epsilon": 1e-3, "clipvalue": 2.0}
    weights = {}
    for kind in (RMSprop, keras.optimizers.RMSprop):
        variable, optimizer = keras.Variable(start), kind(**options)
        optimizer.build([variable])
        for gradient in np.random.default_rng(1).normal(0, 1, (12, 3, 4)) * np.logspace(-3, 1, 4):
            optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        weights[kind] = variable.numpy()
    assert np.abs(weights[RMSprop] - start).max() > 0.1
    assert weights[RMSprop] == pytest.approx(weights[keras.optimizers.RMSprop], rel=1e-6, abs=1e-6)
    assert type(make_optimizer(point_of(optimizer="rmsprop"), [variable], 0.01)) is RMSprop


@pytest.mark.parametrize("option", [{"momentum": 0.5}, {"centered": True}])
def test_rmsprop_refuses_what_it_does_not_do(option):
    with pytest.raises(ValueError, match="Keras' own"):
        RMSprop(0.01, **option)


def test_it_comes_back_from_its_configuration():
    again = keras.optimizers.deserialize(keras.optimizers.serialize(SCRMSprop(0.5, 0.7, 0.2, 0.3)))
    assert (type(again), again.gamma, again.xi_1, again.xi_2) == (SCRMSprop, 0.7, 0.2, 0.3)


def test_its_state_survives_a_checkpoint(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
    point = point_of()
    reference = DatasetRef(path="data.h5", digest="d" * 64, image_size=16, modality="pet")
    config = RunConfig(run_id="abc", point=point, dataset=reference)

    through = make_networks(point)
    update = make_update(point, through, Data(images))
    for step in range(2):
        update(tf.constant(step))
    write_checkpoint(tmp_path / "step.h5", through, config, step=2)
    resumed = make_networks(point)
    read_newest([tmp_path / "step.h5"], resumed, config)
    update(tf.constant(2))
    make_update(point, resumed, Data(images))(tf.constant(2))
    assert int(resumed.discriminator_optimizer.iterations) == 3
    for ours, theirs in (
        (resumed.discriminator, through.discriminator),
        (resumed.generator, through.generator),
    ):
        for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            assert (a == b).all()
