"""Progressive growing: the schedule, what an update touches, alone and by several ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf
from graphs import ancestors
from ranks import InThread

from petgan.checkpoint import all_variables, read_generator, read_newest, write_checkpoint
from petgan.config import OPTIMIZERS, OPTIMIZERS_WITH_BETAS, DatasetRef, RunConfig, resolve_point
from petgan.draws import Draw, draw_indices, draw_noise, seed_for, uniform
from petgan.methods.feed import Data
from petgan.methods.losses import gradient_penalty
from petgan.methods.networks import make_optimizer
from petgan.methods.pixels import downscaled, to_network
from petgan.methods.progressive import begin_again, first_values, make_networks, make_update, stage_of
from petgan.models import pggan
from petgan.samples import generate
from petgan.trainer import in_one_call

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(pggan, "FILTERS", (4, 3))


def point_of(**values):
    small = {"preset": "pggan", "image_size": 16, "batch_size": 4, "latent_size": 6, "steps": 6}
    return resolve_point({**small, **values})


def values_of(networks):
    return [np.asarray(v) for v in all_variables(networks)]


def same(a, b):
    return all((x == y).all() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("steps", "levels"), [(5, 3), (7, 2), (100, 4), (4000, 6), (1, 2)])
def test_levels_fade_in_and_stay_in_equal_shares(steps, levels):
    for step in [*range(0, steps, steps // 100 + 1), steps - 1]:
        place = Fraction(step, steps) * (2 * levels - 1)
        share = place.numerator // place.denominator
        fading = share % 2 == 1
        stage = stage_of(tf.constant(step), steps, levels)
        assert int(stage.level) == (share + 1) // 2
        assert float(stage.alpha) == pytest.approx(float(place - share) if fading else 1.0, abs=1e-6)
        assert float(stage.depth) == pytest.approx(share // 2 + float(fading * (place - share)), abs=1e-5)
    if steps >= 2 * levels - 1:
        assert float(stage.depth) == levels - 1


def test_an_updates_losses_are_those_of_the_paper():
    """At level 0, before any update: Karras 2018, appendix A.1."""
    point = point_of()
    networks = make_networks(point)
    metrics = make_update(point, make_networks(point), Data(IMAGES))(tf.constant(0))

    chosen = draw_indices(seed_for(0, 0, Draw.IMAGES, 0), 4, len(IMAGES)).numpy()
    real = downscaled(to_network(IMAGES[chosen]), 2)
    noise = draw_noise(seed_for(0, 0, Draw.NOISE, 0), 4, 6)
    fake = pggan.images_at(networks.generator, 0)(noise)
    mix = uniform((4, 1, 1, 1), seed_for(0, 0, Draw.MIX, 0))
    critic = networks.discriminator
    scores, fakes = critic(real).numpy(), critic(fake).numpy()
    penalty = float(gradient_penalty(critic, real, fake, mix))
    loss = fakes.mean() - scores.mean() + 10 * penalty + 0.001 * (scores**2).mean()
    assert float(metrics["d_real"]) == pytest.approx(scores.mean(), abs=1e-5)
    assert float(metrics["d_fake"]) == pytest.approx(fakes.mean(), abs=1e-5)
    assert float(metrics["gradient_penalty"]) == pytest.approx(penalty, rel=1e-4)
    assert float(metrics["d_loss"]) == pytest.approx(loss, rel=1e-4)


def test_an_update_moves_the_weights_of_its_level_and_no_others():
    point = point_of()
    networks, fresh = make_networks(point), make_networks(point)
    make_update(point, networks, Data(IMAGES))(tf.constant(0))
    for part, above in (("generator", "image_1"), ("discriminator", None)):
        network, before = networks[part], fresh[part]
        if above is None:
            later = {id(v) for layer in (network.entries[1], network.blocks[0]) for v in layer.weights}
        else:
            used = {id(v) for v in pggan.images_at(network, 0).trainable_variables}
            later = {id(v) for v in network.trainable_variables} - used
        assert later
        for now, old in zip(network.trainable_variables, before.trainable_variables, strict=True):
            unchanged = (np.asarray(now) == np.asarray(old)).all()
            assert unchanged == (id(now) in later), now.path


def test_sheets_show_the_level_that_was_trained_last():
    point = point_of()
    networks = make_networks(point)
    updates = in_one_call(make_update(point, networks, Data(IMAGES)))
    for first, count, whole in ((0, 2, True), (2, 2, False), (4, 2, False)):
        metrics = updates(first, count)
        images = generate(networks.ema_generator, 3, 0, "pggan")
        blocks = images.reshape(3, 8, 2, 8, 2)
        assert (blocks == blocks[:, :, :1, :, :1]).all() == whole
    assert metrics["depth"].numpy().tolist() == [1.0, 1.0]


def test_a_resumed_run_equals_an_undisturbed_one_across_the_border_of_a_stage(tmp_path):
    point = point_of()
    reference = DatasetRef(path="data.h5", digest="d" * 64, image_size=16, modality="pet")
    config = RunConfig(run_id="abc", point=point, dataset=reference)
    whole = make_networks(point)
    in_one_call(make_update(point, whole, Data(IMAGES)))(0, 6)

    begun, resumed = make_networks(point), make_networks(point_of(seed=9))
    in_one_call(make_update(point, begun, Data(IMAGES)))(0, 3)
    write_checkpoint(tmp_path / "step-00000003.h5", begun, config, 3)
    read_newest([tmp_path / "step-00000003.h5"], resumed, config)
    updates = in_one_call(make_update(point, resumed, Data(IMAGES)))
    for step in range(3, 6):
        updates(step, 1)
    assert same(values_of(resumed), values_of(whole))

    generator, _ = read_generator(tmp_path / "step-00000003.h5")
    assert same(generator.get_weights(), begun.ema_generator.get_weights())


@pytest.mark.parametrize("compute_dtype", ["float32", "float16"])
def test_a_new_level_begins_with_steps_as_long_as_the_rate(compute_dtype):
    """Adam begins with the rate in each weight; one whose first gradient was 0 moves by up to 1.42 of it."""
    point = point_of(steps=30, compute_dtype=compute_dtype)
    networks = make_networks(point)
    optimizer = getattr(networks.generator_optimizer, "inner_optimizer", networks.generator_optimizer)
    updates = in_one_call(make_update(point, networks, Data(IMAGES)))
    updates(0, 10)
    for count, step in enumerate((10, 11), start=1):  # of three shares, the second fades in
        before = [w.numpy() for w in networks.generator.trainable_variables]
        updates(step, 1)
        after = [w.numpy() for w in networks.generator.trainable_variables]
        moved = max(np.abs(new - old).max() for new, old in zip(after, before, strict=True))
        assert int(optimizer.iterations) == count
        assert 0.9 < moved / point.learning_rate < 1.42


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_begins_again_as_a_new_one(name):
    random = np.random.default_rng(0)
    point = point_of(optimizer=name, **({"beta_1": 0.9} if name in OPTIMIZERS_WITH_BETAS else {}))
    starts = [random.normal(size=shape).astype("float32") for shape in ((3, 4), (4,), (3, 3, 2, 4))]

    def begun(updates):
        variables = [keras.Variable(start) for start in starts]
        optimizer = make_optimizer(point, variables, point.learning_rate)
        for _ in range(updates):
            optimizer.apply([tf.constant(random.normal(size=s.shape), tf.float32) for s in starts], variables)
        begin_again(optimizer, tf.constant(True), first_values(point, variables))
        for variable, start in zip(variables, starts, strict=True):
            variable.assign(start)
        return optimizer, variables

    gradients = [tf.constant(random.normal(size=start.shape), tf.float32) for start in starts]
    (a, ours), (b, theirs) = begun(3), begun(0)
    a.apply(gradients, ours)
    b.apply(gradients, theirs)
    for x, y, start in zip(ours, theirs, starts, strict=True):
        assert (x.numpy() == y.numpy()).all()
        assert (x.numpy() != start).any()


def test_turns_are_taken_one_after_another():
    point = point_of(n_critic=2)
    update = make_update(point, make_networks(point), Data(IMAGES))
    graph = tf.function(update, autograph=False).get_concrete_function(tf.TensorSpec((), tf.int32)).graph
    turns = [op for op in graph.get_operations() if op.type == "Case"]
    assert len(turns) == 3
    draws = [{op for op in ancestors(turn) if "Random" in op.type} for turn in turns]
    for before, turn, own in zip(turns, turns[1:], map(set.difference, draws[1:], draws), strict=False):
        assert own
        assert all(before in ancestors(op) for op in own)
        assert before in ancestors(turn)


def test_ranks_do_together_what_one_does(float64_without_graphs):
    ranks, point = 2, point_of(batch_size=8, n_critic=2)
    steps = (1, 3)  # at level 0, and while level 1 fades in
    alone = make_networks(point)
    update = make_update(point, alone, Data(IMAGES))
    expected = [update(tf.constant(step)) for step in steps]
    networks = [make_networks(point) for _ in range(ranks)]
    barrier, board = threading.Barrier(ranks), {}

    def train(rank):
        update = make_update(point, networks[rank], Data(IMAGES), InThread(rank, ranks, barrier, board))
        return [update(tf.constant(step)) for step in steps]

    with ThreadPoolExecutor(ranks) as pool:
        metrics = list(pool.map(train, range(ranks)))
    assert float(expected[1]["depth"]) == 0.5
    for rank in range(ranks):
        for ours, theirs in zip(values_of(networks[rank]), values_of(alone), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)
        for ours, theirs in zip(metrics[rank], expected, strict=True):
            assert {k: float(v) for k, v in ours.items()} == pytest.approx(
                {k: float(v) for k, v in theirs.items()}, rel=1e-9
            )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(precision):
    """Their numbers have 8 and 11 digits: a few per cent at the first update."""
    half, full = (
        make_update(point, make_networks(point), Data(IMAGES))(tf.constant(3))
        for point in (point_of(compute_dtype=precision), point_of())
    )
    assert all(value.dtype == tf.float32 for value in half.values())
    for name in ("d_real", "d_fake", "variation"):
        assert float(half[name]) == pytest.approx(float(full[name]), rel=0.05, abs=0.02)
