"""The steps of CONTRIBUTING, taken: a way of training that petgan does not have, in a module and a line."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest

from petgan.checkpoint import read_generator
from petgan.presets import PRESETS, Preset
from petgan.runs import RunFolder
from petgan.samples import generate
from petgan.session import Session
from petgan.trainer import train

# Step 1: a linear autoencoder's decoder (principal components), trained on its codes' reconstructions.
MODULE = """
import keras
import tensorflow as tf

from petgan.methods import Method
from petgan.methods.feed import make_feed
from petgan.methods.networks import (
    Networks, averaged_copy, computing_in, learning_rate, make_optimizer, update_average, update_part,
)
from petgan.methods.pixels import to_network
from petgan.models import networks_of
from petgan.place import share_of


def build(point):
    size = point.image_size
    noise, image = keras.Input((point.latent_size,)), keras.Input((size, size, 1))
    pixels = keras.layers.Dense(size * size)(noise)
    generator = keras.Model(noise, keras.layers.Reshape((size, size, 1))(pixels))
    code = keras.layers.Dense(point.latent_size)(keras.layers.Flatten()(image))
    return generator, keras.Model(image, code)


def make_networks(point):
    keras.utils.set_random_seed(point.seed)
    with computing_in(point.compute_dtype):
        generator, encoder = networks_of(point)
    variables = [*generator.trainable_variables, *encoder.trainable_variables]
    return Networks(
        generator=generator, encoder=encoder, ema_generator=averaged_copy(generator),
        generator_optimizer=make_optimizer(point, variables, learning_rate(point)),
    )


def make_update(point, networks, data, ranks):
    share = share_of(point.batch_size, ranks.rank, ranks.ranks)
    feed = make_feed(data.images, point, share, turns=1)
    generator, encoder = networks.generator, networks.encoder
    variables = [*generator.trainable_variables, *encoder.trainable_variables]

    def update(step):
        images = to_network(feed.batch(step, 0))
        with tf.GradientTape() as tape:
            made = tf.cast(generator(encoder(images)), images.dtype)
            loss = tf.reduce_mean(tf.square(made - images))
            scaled = networks.generator_optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, variables)
        metrics = update_part(networks, "generator", variables, gradients, {"g_loss": loss}, ranks)
        update_average(networks.ema_generator, generator, step, point.ema_decay)
        return metrics

    return update


METHOD = Method(make_networks, lambda point: networks_of(point)[0], make_update)
"""


@pytest.fixture
def new_preset(tmp_path, monkeypatch):
    (tmp_path / "autoencoder.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(PRESETS, "_entries", dict(PRESETS._entries))
    # Step 2: the line.
    PRESETS.add(
        "autoencoder",
        Preset(
            "autoencoder:build",
            "autoencoder:METHOD",
            {"latent_size": 8, "batch_size": 4, "optimizer": "adam", "learning_rate": 1e-2, "ema_decay": 0.9},
        ),
    )
    yield "autoencoder"
    sys.modules.pop("autoencoder", None)


@pytest.mark.parametrize("compute_dtype", ["float32", "float16"])
def test_a_new_way_of_training_needs_a_module_and_a_line(new_preset, make_dataset, make_run, compute_dtype):
    from petgan.methods.feed import Data
    from petgan.store import Dataset

    few = {"steps": 40, "latent_size": 8, "compute_dtype": compute_dtype}
    run: RunFolder = make_run(make_dataset(), preset=new_preset, **few)
    with Dataset(run.config().dataset.path) as dataset, Session(run) as session:
        train(run, run.config(), Data(dataset.images("train")), session)
    losses = [line["g_loss"] for line in run.metrics()]
    assert losses[-1] < losses[0] / 2
    assert run.status().state == "done"
    generator, header = read_generator(run.last_checkpoints()[0])
    assert header.point.preset == new_preset
    assert generate(generator, 3, seed=0, preset=new_preset).shape == (3, 16, 16)
    exported = keras.models.load_model(run.generator_file)
    noise = np.ones((2, 8), "float32")
    assert exported(noise).numpy() == pytest.approx(generator(noise).numpy(), abs=1e-6)


def test_it_takes_the_settings_of_its_recipe_and_no_others(new_preset):
    from petgan.config import resolve_point
    from petgan.errors import ConfigError

    with pytest.raises(ConfigError, match="preset autoencoder does not take 'dropout'"):
        resolve_point({"preset": new_preset, "image_size": 16, "dropout": 0.1})
