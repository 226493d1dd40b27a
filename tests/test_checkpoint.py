"""Checkpoints: what goes in comes out, damage is noticed, and the study's own files are read."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan.checkpoint import (
    export_generator,
    read_generator,
    read_header,
    read_newest,
    read_published_generator,
    start_from,
    write_checkpoint,
)
from petgan.config import DatasetRef, RunConfig, resolve_point
from petgan.errors import CheckpointError, DatasetError
from petgan.methods.adversarial import make_networks, make_update
from petgan.methods.feed import Data
from petgan.methods.networks import variables_of
from petgan.models import build
from petgan.runs import file_digest

ROOT = Path(__file__).parents[1]
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)


def config_of(preset="dcgan", digest="d" * 64, **values):
    values = {"preset": preset, "image_size": 16, "batch_size": 4, "latent_size": 8, **values}
    reference = DatasetRef(path="data.h5", digest=digest, image_size=16, modality="pet")
    return RunConfig(run_id="abc", point=resolve_point(values), dataset=reference)


def variables(networks):
    return [variable for part in networks.values() for variable in variables_of(part)]


def same(a, b):
    return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A DCGAN after one update, and its checkpoint."""
    config = config_of()
    networks = make_networks(config.point)
    make_update(config.point, networks, Data(IMAGES))(tf.constant(0))
    path = tmp_path_factory.mktemp("trained") / "step-00000001.h5"
    write_checkpoint(path, networks, config, step=1)
    return config, networks, path


def test_everything_comes_back(trained):
    config, networks, path = trained
    other = make_networks(config_of(seed=9).point)
    assert not same(variables(other), variables(networks))
    header = read_newest([path], other, config)
    assert same(variables(other), variables(networks))
    assert (header.step, header.run_id, header.point) == (1, "abc", config.point)


def test_a_checkpoint_tells_any_tool_what_it_is(trained):
    config, networks, path = trained
    with h5py.File(path) as file:
        assert set(file) == set(networks)
        attributes = dict(file.attrs)
    assert attributes.pop("point") == config.point.model_dump_json()
    assert attributes.pop("digest") == read_header(path).digest
    expected = {"schema_version": 1, "run_id": "abc", "preset": "dcgan", "step": 1, "seed": 0}
    assert attributes == expected | {"dataset_digest": "d" * 64}


def test_the_averaged_generator_is_the_one_that_is_read(trained):
    _, networks, path = trained
    generator, header = read_generator(path)
    assert header.step == 1
    assert same(generator.weights, networks.ema_generator.weights)
    assert not same(generator.weights, networks.generator.weights)


# --- damage -------------------------------------------------------------------------------------


def damaged(path, where, tmp_path):
    target = tmp_path / f"{where}.h5"
    content = path.read_bytes()
    if where == "cut":
        target.write_bytes(content[: len(content) // 2])
    elif where == "empty":
        target.write_bytes(b"")
    else:
        target.write_bytes(content)
        with h5py.File(target, "r+") as file:
            if where == "weight":
                file["discriminator/000_kernel"][0, 0, 0, 0] += 1
            elif where == "step":
                file.attrs["step"] = 7
            elif where == "group":
                del file["ema_generator"]
            else:
                file.attrs["schema_version"] = 99
    return target


@pytest.mark.parametrize("where", ["cut", "empty", "weight", "step", "group", "schema"])
def test_damage_is_noticed_and_the_one_before_is_taken(trained, where, tmp_path, caplog):
    config, networks, path = trained
    bad = damaged(path, where, tmp_path)
    with pytest.raises(CheckpointError, match=bad.name):
        read_header(bad)
    other = make_networks(config.point)
    with caplog.at_level(logging.WARNING):
        assert read_newest([bad, path], other, config).step == 1
    assert bad.name in caplog.text
    assert path.name in caplog.text
    assert same(variables(other), variables(networks))


def test_without_a_whole_one_the_run_does_not_start_over(trained, tmp_path):
    config, _, path = trained
    bad = damaged(path, "weight", tmp_path)
    with pytest.raises(CheckpointError, match="does not match its digest"):
        read_newest([bad], make_networks(config.point), config)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "gan"}, "preset is 'dcgan': got 'gan'"),
        ({"latent_size": 16}, "latent_size is 8: got 16"),
        ({"optimizer": "adam"}, "optimizer is 'rmsprop': got 'adam'"),
        ({"seed": 3}, "seed is 0: got 3"),
    ],
)
def test_another_run_is_refused_by_what_differs_and_nothing_is_loaded(trained, values, words):
    _, _, path = trained
    config = config_of(**values)
    networks = make_networks(config.point)
    before = [np.asarray(v).copy() for v in variables(networks)]
    with pytest.raises(CheckpointError, match=words):
        read_newest([path], networks, config)
    assert same(variables(networks), before)


def test_a_changed_dataset_is_refused(trained):
    _, _, path = trained
    config = config_of(digest="e" * 64)
    with pytest.raises(DatasetError, match="changed since the run began"):
        read_newest([path], make_networks(config.point), config)


def test_a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint(tmp_path):
    """A limit on file sizes stops HDF5 where a full disk would, also when it closes the file."""
    script = f"""
import resource, signal
from pathlib import Path
from petgan.checkpoint import read_newest, write_checkpoint
from petgan.errors import DiskError
from petgan.methods.adversarial import make_networks
from tests.test_checkpoint import config_of

config = config_of()
networks = make_networks(config.point)
path = Path({str(tmp_path)!r}) / "step-00000002.h5"
write_checkpoint(path, networks, config, step=2)
before = path.read_bytes()
for limit in (4096, len(before) // 2, len(before) - 1):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_checkpoint(path, networks, config, step=2)
    except DiskError as error:
        print("DiskError", error)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("DiskError cannot write") == 3


# --- transfer -----------------------------------------------------------------------------------


def test_a_transfer_starts_from_the_average_and_the_discriminator_with_fresh_optimizers(trained):
    _, source, path = trained
    networks = make_networks(config_of(seed=5, optimizer="adam").point)
    start_from(path, file_digest(path), networks)
    assert same(networks.generator.weights, source.ema_generator.weights)
    assert same(networks.ema_generator.weights, source.ema_generator.weights)
    assert same(networks.discriminator.weights, source.discriminator.weights)
    assert int(networks.generator_optimizer.iterations) == 0


def test_layers_that_nothing_starts_are_not_frozen_as_they_happen_to_be(trained):
    frozen = make_networks(config_of(init_from="other.h5", freeze_layers=2).point)
    start_from(trained[2], None, frozen)
    with pytest.raises(CheckpointError, match="no discriminator, whose first layers are to stay"):
        start_from(trained[2], None, frozen, parts="generator")
    start_from(trained[2], None, make_networks(config_of().point), parts="generator")


@pytest.mark.parametrize(
    ("values", "digest", "words"),
    [
        ({"latent_size": 16}, None, r"another network: in the generator, its variable 0 is \(8, 4096\)"),
        ({"preset": "gan"}, None, "another network: in the generator"),
        ({}, "0" * 64, "has changed since this run was made"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(trained, values, digest, words):
    networks = make_networks(config_of(**values).point)
    with pytest.raises(CheckpointError, match=words):
        start_from(trained[2], digest, networks)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        start_from(tmp_path / "none.h5", None, make_networks(config_of().point))


# --- export, and the study's files --------------------------------------------------------------


def test_an_exported_generator_draws_the_same_images(trained, tmp_path):
    _, networks, _ = trained
    export_generator(tmp_path / "generator.keras", networks.ema_generator)
    noise = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    images = keras.models.load_model(tmp_path / "generator.keras")(noise)
    assert images.numpy() == pytest.approx(networks.ema_generator(noise).numpy(), abs=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["generator.keras"]


def as_keras2(path, model, layout, turned=False):
    """Write weights as Keras 2 did: a full model, weights alone, or all within one inner layer.

    With `turned` the last layer is written as the Conv2D that the study had in its place.
    """
    weighted = [layer for layer in model.layers if layer.weights]
    layers = {}
    for number, layer in enumerate(weighted):
        kind, values = layer.name.rstrip("_0123456789"), layer.get_weights()
        if turned and layer is weighted[-1]:
            kind, values = "conv2d", [values[0][::-1, ::-1].transpose(0, 1, 3, 2), values[1]]
        name = f"{kind}_{number}"
        layers[name] = {f"{name}/{w.name}:0": v for w, v in zip(layer.weights, values, strict=True)}
    if layout == "nested":
        layers = {"sequential_2": {k: v for members in layers.values() for k, v in members.items()}}
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if layout == "model" else file
        root.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers)]
        for name, members in {"input_1": {}, **layers}.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in members]
            for key, value in members.items():
                group.create_dataset(key, data=value)


@pytest.mark.parametrize("layout", ["model", "weights", "nested"])
@pytest.mark.parametrize(
    ("preset", "size", "turned"),
    [("dcgan", 28, True), ("dcgan", 64, False), ("wgan-gp", 32, False), ("gan", 16, False)],
)
def test_a_published_generator_is_recognized_by_its_shapes(preset, size, turned, layout, tmp_path):
    original, _ = build(preset, size, latent_size=12)
    random = np.random.default_rng(1)
    original.set_weights([np.abs(random.normal(0, 0.2, w.shape)) for w in original.get_weights()])
    as_keras2(tmp_path / "old.h5", original, layout, turned)
    generator, found = read_published_generator(tmp_path / "old.h5")
    noise = random.normal(size=(2, 12)).astype("float32")
    assert found == preset
    assert generator.output_shape == (None, size, size, 1)
    assert generator(noise).numpy() == pytest.approx(original(noise).numpy(), abs=1e-5)


def test_a_convolution_as_the_transposed_one_that_petgan_has():
    """The turned and swapped kernel, on an image of its own: stride 1, odd kernel, padding same."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(5, 5, 4, 1)).astype("float32")
    image = random.normal(size=(2, 9, 9, 4)).astype("float32")
    theirs = tf.nn.conv2d(image, kernel, 1, "SAME")
    layer = keras.layers.Conv2DTranspose(1, 5, padding="same", use_bias=False)
    layer.build(image.shape)
    layer.set_weights([kernel[::-1, ::-1].transpose(0, 1, 3, 2)])
    assert layer(image).numpy() == pytest.approx(theirs.numpy(), abs=1e-5)


@pytest.mark.parametrize("content", ["other layers", "no HDF5", "other HDF5"])
def test_a_foreign_file_is_one_sentence(content, tmp_path):
    path = tmp_path / "foreign.h5"
    if content == "no HDF5":
        path.write_text("hello")
    elif content == "other HDF5":
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros(3)
    else:
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(3, 3)(inputs)
        as_keras2(path, keras.Model(inputs, keras.layers.Conv2D(1, 1)(x)), "weights")
    with pytest.raises(CheckpointError, match="foreign.h5"):
        read_generator(path)


def test_a_setting_that_is_none_on_purpose_comes_back_as_none(tmp_path):
    config = config_of("wgan-gp", beta_1=None)
    networks = make_networks(config.point)
    write_checkpoint(tmp_path / "step-00000001.h5", networks, config, step=1)
    header = read_newest([tmp_path / "step-00000001.h5"], networks, config)
    assert header.point == config.point
    assert header.point.beta_1 is None
