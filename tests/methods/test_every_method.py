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
from petgan.presets import PRESETS

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)
DATA = Data(IMAGES, "mammogram", source=IMAGES[::-1].copy())
NARROW = {"generator_width": 0.5, "discriminator_width": 0.125, "n_critic": 1, "batch_size": 4}

WITH_RECIPES = [(preset, recipe) for preset in PRESETS for recipe in PRESETS[preset].recipes or [None]]
WITH_PRECISIONS = [(preset, precision) for preset in PRESETS for precision in ("bfloat16", "float16")]


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


def together(point, ranks):
    """The metrics of one update, as rank 0 sees them."""
    method = method_of(point.preset)
    if ranks == 1:
        return method.make_update(point, method.make_networks(point), DATA, ALONE)(tf.constant(0))
    networks = [method.make_networks(point) for _ in range(ranks)]
    barrier, board = threading.Barrier(ranks), {}

    def update(rank):
        mine = InThread(rank, ranks, barrier, board)
        return method.make_update(point, networks[rank], DATA, mine)(tf.constant(0))

    with ThreadPoolExecutor(ranks) as pool:
        first, *_ = pool.map(update, range(ranks))
    return first


@pytest.fixture
def without_graphs():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(("preset", "recipe"), WITH_RECIPES)
def test_two_ranks_carry_out_one_ranks_update(preset, recipe, float64_without_graphs):
    point = point_of(preset, recipe)
    one, two = together(point, 1), together(point, 2)
    for name, value in one.items():
        assert float(two[name]) == pytest.approx(float(value), rel=1e-7, abs=1e-10), name


@pytest.mark.parametrize(("precision", "digits"), [("bfloat16", 2**-8), ("float16", 2**-11)])
@pytest.mark.parametrize("preset", PRESETS.names())
def test_in_half_precision_two_ranks_differ_by_the_rounding_of_their_sums(
    preset, precision, digits, without_graphs
):
    """By up to 20 rounding errors of the format at the size of the scores: sums are split in other places."""
    point = point_of(preset, compute_dtype=precision, **({"dropout": 0.0} if preset == "gan" else {}))
    one, two = together(point, 1), together(point, 2)
    scale = max(1.0, *(abs(float(one[name])) for name in ("d_real", "d_fake") if name in one))
    for name in one:
        if name.endswith("_loss"):
            assert float(two[name]) == pytest.approx(float(one[name]), abs=20 * digits * scale), name


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
