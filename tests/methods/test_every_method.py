"""What holds for every preset, recipe and precision: resumed is undisturbed, ranks are one, exports load."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from ranks import InThread

from petgan.checkpoint import export_generator, read_newest, write_checkpoint
from petgan.config import DatasetRef, RunConfig, resolve_point
from petgan.distributed import ALONE
from petgan.methods import method_of
from petgan.methods.feed import Data
from petgan.methods.networks import variables_of
from petgan.models import cut, gan, pggan, srgan, unet
from petgan.presets import PRESETS
from petgan.trainer import in_one_call

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)
DATA = Data(IMAGES, "mammogram", source=IMAGES[::-1].copy())
NARROW = {"generator_width": 0.5, "discriminator_width": 0.125, "n_critic": 1, "batch_size": 4}

WITH_RECIPES = [(preset, recipe) for preset in PRESETS for recipe in PRESETS[preset].recipes or [None]]
WITH_PRECISIONS = [(preset, precision) for preset in PRESETS for precision in ("bfloat16", "float16")]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """The presets' own layers, but few of them and narrow."""
    monkeypatch.setattr(pggan, "FILTERS", (16, 16, 8))
    monkeypatch.setattr(unet, "WIDTHS", (16, 16, 8))
    monkeypatch.setattr(srgan, "GENERATOR_FILTERS", 8)
    monkeypatch.setattr(srgan, "BLOCKS", 2)
    monkeypatch.setattr(srgan, "DISCRIMINATOR_LAYERS", ((8, 1), (8, 2), (16, 2)))
    monkeypatch.setattr(cut, "GENERATOR_FILTERS", (8, 16, 16))
    monkeypatch.setattr(cut, "BLOCKS", 1)
    monkeypatch.setattr(cut, "DISCRIMINATOR_LAYERS", ((8, 2), (16, 2), (16, 1)))
    monkeypatch.setattr(gan, "GENERATOR_UNITS", (32, 64, 64))
    monkeypatch.setattr(gan, "DISCRIMINATOR_UNITS", (64, 32))


def point_of(preset, recipe=None, **values):
    taken = {key: value for key, value in NARROW.items() if key in PRESETS[preset].defaults}
    recipes = {"recipe": recipe} if recipe else {}
    return resolve_point({"preset": preset, "image_size": 16, "steps": 4, **taken, **recipes, **values})


def arrays(networks):
    return [v.numpy().copy() for part in networks.values() for v in variables_of(part)]


def resumed_is_undisturbed(point, path):
    method = method_of(point.preset)
    networks = method.make_networks(point)
    update = tf.function(method.make_update(point, networks, DATA, ALONE), autograph=False)
    reference = DatasetRef(path="data.h5", digest="d" * 64, image_size=16, modality="mammogram")
    config = RunConfig(run_id="abc", point=point, dataset=reference)
    update(tf.constant(0))
    write_checkpoint(path, networks, config, step=1)
    for step in (1, 2):
        metrics = update(tf.constant(step))
    assert all(np.isfinite(value) for value in metrics.values())
    expected = arrays(networks)
    assert read_newest([path], networks, config).step == 1
    assert any((a != b).any() for a, b in zip(arrays(networks), expected, strict=True))
    for step in (1, 2):
        update(tf.constant(step))
    for ours, theirs in zip(arrays(networks), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("preset", "recipe"), WITH_RECIPES)
def test_from_a_checkpoint_on_every_update_is_the_same_bit_for_bit(preset, recipe, tmp_path):
    resumed_is_undisturbed(point_of(preset, recipe), tmp_path / "step.h5")


@pytest.mark.parametrize(("preset", "precision"), WITH_PRECISIONS)
def test_so_it_is_in_every_precision(preset, precision, tmp_path):
    resumed_is_undisturbed(point_of(preset, compute_dtype=precision), tmp_path / "step.h5")


def together(point, ranks, steps=1):
    """What each rank has after some updates: its metrics, and its networks."""
    method = method_of(point.preset)
    barrier, board = threading.Barrier(ranks), {}
    networks = [method.make_networks(point) for _ in range(ranks)]

    def train(rank):
        mine = InThread(rank, ranks, barrier, board) if ranks > 1 else ALONE
        update = method.make_update(point, networks[rank], DATA, mine)
        return [{k: float(v) for k, v in update(tf.constant(step)).items()} for step in range(steps)]

    with ThreadPoolExecutor(ranks) as pool:
        return list(zip(pool.map(train, range(ranks)), networks, strict=True))


@pytest.fixture
def without_graphs():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(("preset", "recipe"), WITH_RECIPES)
def test_two_ranks_do_together_what_one_does(preset, recipe, float64_without_graphs):
    point = point_of(preset, recipe)
    ((expected, alone),) = together(point, 1, steps=2)
    for metrics, networks in together(point, 2, steps=2):
        for ours, theirs in zip(metrics, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-7, abs=1e-9)
        for ours, theirs in zip(arrays(networks), arrays(alone), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("precision", "digits"), [("bfloat16", 2**-8), ("float16", 2**-11)])
@pytest.mark.parametrize("preset", PRESETS.names())
def test_in_half_precision_two_ranks_differ_by_the_rounding_of_their_sums(
    preset, precision, digits, without_graphs
):
    """By up to 20 rounding errors of the format at the size of the scores: sums are split in other places."""
    point = point_of(preset, compute_dtype=precision, **({"dropout": 0.0} if preset == "gan" else {}))
    ((one,), _), ((two,), _) = together(point, 1)[0], together(point, 2)[0]
    scale = max([1.0, *(abs(one[name]) for name in ("d_real", "d_fake") if name in one)])
    first = "d_loss" if "d_loss" in one else "g_loss"  # of the weights that nothing has changed yet
    assert two[first] == pytest.approx(one[first], abs=20 * digits * scale)


@pytest.mark.parametrize(("preset", "recipe"), [*((p, None) for p in PRESETS), ("dcgan", "few-shot")])
def test_xla_gives_what_the_plain_graph_gives(preset, recipe):
    """Late updates too: their random numbers were once those of the first ones again."""
    point, method = point_of(preset, recipe, optimizer="sgd", learning_rate=1e-4), method_of(preset)
    ends = []
    for compiled in (False, True):
        networks = method.make_networks(point)
        update = in_one_call(method.make_update(point, networks, DATA, ALONE), compiled)
        ends.append([{k: float(v[0]) for k, v in update(step, 1).items()} for step in (0, 1, 20, 2**20)])
    for plain, xla in zip(*ends, strict=True):
        assert xla == pytest.approx(plain, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("preset", PRESETS.names())
def test_the_export_loads_in_plain_keras_and_does_the_same(preset, tmp_path):
    point = point_of(preset)
    generator = method_of(preset).make_networks(point).ema_generator
    export_generator(tmp_path / "generator.keras", generator)
    random = np.random.default_rng(0)
    inputs = [random.normal(size=[2, *(side or 4 for side in i.shape[1:])]) for i in generator.inputs]
    inputs = [
        np.abs(x).astype(i.dtype) if "int" in i.dtype else x.astype("float32")
        for x, i in zip(inputs, generator.inputs, strict=True)
    ]
    given = inputs if len(inputs) > 1 else inputs[0]
    exported = keras.models.load_model(tmp_path / "generator.keras")
    np.testing.assert_allclose(exported(given), generator(given, training=False), rtol=1e-4, atol=1e-5)
