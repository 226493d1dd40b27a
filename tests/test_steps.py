"""One update: losses, penalty, optimizers, average and random draws, each against its own formula."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan.config import OPTIMIZERS, OPTIMIZERS_WITH_BETAS, resolve_point
from petgan.distributed import Alone
from petgan.models import dcgan
from petgan.models.layers import BatchNormalization
from petgan.steps import (
    Draw,
    bce_discriminator,
    bce_generator,
    draw_indices,
    draw_noise,
    gradient_penalty,
    make_networks,
    make_optimizer,
    make_update,
    raw_scores,
    seed_for,
    to_network,
    to_pixels,
    update_average,
    wasserstein_critic,
    wasserstein_generator,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)


def point_of(preset="dcgan", **values):
    return resolve_point({"preset": preset, "image_size": 16, "batch_size": 4, **values})


def trained(point, steps=2, images=IMAGES):
    networks = make_networks(point)
    update = make_update(point, networks, images)
    metrics = [update(tf.constant(step)) for step in range(steps)]
    return networks, [{k: float(v) for k, v in m.items()} for m in metrics]


def weights(networks):
    models = (networks.generator, networks.discriminator, networks.ema_generator)
    return [w for model in models for w in model.get_weights()]


def same(a, b):
    return all((x == y).all() for x, y in zip(a, b, strict=True))


# --- losses -------------------------------------------------------------------------------------


def test_bce_is_keras_binary_cross_entropy_on_probabilities():
    random = np.random.default_rng(0)
    real, fake = random.normal(0, 2, (2, 9, 1))
    p_real, p_fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    expected = (-np.log(p_real).mean() - np.log(1 - p_fake).mean()) / 2
    assert float(bce_discriminator(real, fake)) == pytest.approx(expected, rel=1e-12)
    assert float(bce_generator(fake)) == pytest.approx(-np.log(p_fake).mean(), rel=1e-12)


def test_bce_stays_finite_where_the_sigmoid_is_0_or_1():
    certain = tf.constant([[-2000.0]])
    assert float(bce_generator(certain)) == 2000
    assert float(bce_discriminator(-certain, certain)) == 0


def test_wasserstein_losses():
    real, fake = tf.constant([[1.0], [4.0]]), tf.constant([[-1.0], [2.0]])
    assert float(wasserstein_critic(real, fake)) == 0.5 - 2.5
    assert float(wasserstein_generator(fake)) == -0.5


def test_raw_scores_are_the_logits_of_the_discriminator():
    discriminator = make_networks(point_of()).discriminator
    image = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype("float32")
    logits = raw_scores(discriminator)(image, training=False).numpy()
    assert discriminator(image, training=False).numpy() == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-6)


# --- gradient penalty ---------------------------------------------------------------------------


def tiny_critic(w1, w2):
    def critic(x):
        return tf.tanh(tf.reshape(x, (len(x), -1)) @ w1) @ w2

    return critic


def penalty_by_hand(w1, w2, real, fake, mix):
    x = (mix * real + (1 - mix) * fake).reshape(len(real), -1)
    slopes = ((1 - np.tanh(x @ w1) ** 2) * w2[:, 0]) @ w1.T
    return ((np.linalg.norm(slopes, axis=1) - 1) ** 2).mean()


def test_gradient_penalty_and_its_gradient_against_finite_differences():
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(2, 5, 2, 3, 1))
    mix = random.uniform(size=(5, 1, 1, 1))
    w1, w2 = random.normal(size=(6, 4)), random.normal(size=(4, 1))
    v1, v2 = tf.Variable(w1), tf.Variable(w2)
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(tiny_critic(v1, v2), *map(tf.constant, (real, fake, mix)))
    gradients = tape.gradient(penalty, [v1, v2])
    assert float(penalty) == pytest.approx(penalty_by_hand(w1, w2, real, fake, mix), rel=1e-12)

    h = 1e-6
    for which, gradient in enumerate(gradients):
        expected = np.empty(gradient.shape)
        for index in np.ndindex(*expected.shape):
            ends = []
            for sign in (1, -1):
                moved = [w1.copy(), w2.copy()]
                moved[which][index] += sign * h
                ends.append(penalty_by_hand(*moved, real, fake, mix))
            expected[index] = (ends[0] - ends[1]) / (2 * h)
        assert gradient.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_a_critic_without_slope_has_a_finite_penalty_and_gradient():
    weight = tf.Variable(tf.zeros((4, 1)))
    images = tf.ones((3, 2, 2, 1))
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(
            lambda x: tf.reshape(x, (3, 4)) @ weight, images, images, tf.ones((3, 1, 1, 1))
        )
    assert float(penalty) == pytest.approx(1)
    assert np.isfinite(tape.gradient(penalty, weight)).all()


# --- optimizers ---------------------------------------------------------------------------------


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
    optimizer = make_optimizer(point, decay=0.5)
    variable = keras.Variable(start.astype("float32"))
    optimizer.build([variable])
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
    assert set(OPTIMIZERS) == set(kinds) - others
    with_betas = {n for n in OPTIMIZERS if {"beta_1", "beta_2"} <= {*inspect.signature(kinds[n]).parameters}}
    assert set(OPTIMIZERS_WITH_BETAS) <= with_betas


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_the_weights(name):
    optimizer = make_optimizer(point_of(optimizer=name), decay=1e-3)
    variable = keras.Variable(np.ones((3, 3), "float32"))
    optimizer.build([variable])
    optimizer.apply([tf.ones((3, 3))], [variable])
    assert np.isfinite(variable.numpy()).all()
    assert (variable.numpy() != 1).all()


def test_betas_reach_the_optimizer():
    optimizer = make_optimizer(point_of("wgan-gp", beta_1=0.3, beta_2=0.8), 0.0)
    assert (optimizer.beta_1, optimizer.beta_2) == (0.3, 0.8)


# --- the average --------------------------------------------------------------------------------


def test_the_average_follows_its_recurrence():
    networks = make_networks(point_of())
    expected = [w.astype("float64") for w in networks.ema_generator.get_weights()]
    for step in range(20):
        random = np.random.default_rng(step)
        now = [random.normal(size=w.shape).astype("float32") for w in expected]
        networks.generator.set_weights(now)
        update_average(networks, tf.constant(step), 0.6)
        keep = min(0.6, (1 + step) / (10 + step))
        expected = [keep * a + (1 - keep) * w for a, w in zip(expected, now, strict=True)]
    for average, wanted in zip(networks.ema_generator.get_weights(), expected, strict=True):
        assert average == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_without_decay_the_average_is_the_generator():
    networks, _ = trained(point_of(ema_decay=0.0))
    assert same(networks.ema_generator.get_weights(), networks.generator.get_weights())


# --- random draws -------------------------------------------------------------------------------


def test_no_two_draws_share_a_seed():
    seeds = [
        tuple(seed_for(5, step, draw, turn).numpy())
        for step in (0, 1, 2, 2**31 - 1)
        for draw in Draw
        for turn in range(6)
    ]
    assert len(set(seeds)) == len(seeds)
    # Its layers count up from it: the next seed is more than that away.
    assert min(np.diff(sorted(seed[1] for seed in seeds))) >= 256


def test_draws_depend_on_seed_step_and_position_alone():
    seed = seed_for(1, 7, Draw.IMAGES, 0)
    first = draw_indices(seed, 8, 100).numpy()
    draw_indices(seed_for(1, 8, Draw.IMAGES, 0), 8, 100)
    assert (draw_indices(seed, 8, 100).numpy() == first).all()
    assert (draw_indices(seed, 16, 100).numpy()[:8] == first).all()
    assert (draw_indices(seed_for(2, 7, Draw.IMAGES, 0), 8, 100).numpy() != first).any()


def test_images_are_drawn_evenly_and_with_replacement():
    drawn = draw_indices(seed_for(0, 0, Draw.IMAGES, 0), 20_000, 10).numpy()
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_squared < 33.7  # 1 in 10,000 with 9 degrees of freedom


@pytest.mark.parametrize("uniform", [False, True])
def test_noise_is_normal_or_as_published_uniform(uniform):
    from scipy import stats

    noise = draw_noise(seed_for(0, 0, Draw.NOISE, 0), 500, 20, uniform=uniform).numpy().ravel()
    wanted, other = stats.norm(), stats.uniform(-1, 2)
    if uniform:
        wanted, other = other, wanted
    assert stats.kstest(noise, wanted.cdf).pvalue > 1e-3
    assert stats.kstest(noise, other.cdf).pvalue < 1e-6


# --- pixels -------------------------------------------------------------------------------------


def test_pixels_go_there_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    scaled = to_network(pixels).numpy()
    assert (scaled[0], scaled[-1]) == (-1, 1)
    assert (to_pixels(scaled) == pixels).all()
    assert (to_pixels([-1.4, 1.4]) == [0, 255]).all()


def test_unit_range_leaves_a_grey_veil():
    pixels = np.arange(256, dtype=np.uint8)
    learned = to_network(pixels, unit_range=True).numpy()
    assert (learned.min(), learned.max()) == (0, 1)
    assert to_pixels(learned).min() == 128


# --- the whole update ---------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan-gp"])
def test_an_update_changes_both_networks_and_reports_finite_numbers(preset):
    point = point_of(preset, n_critic=2)
    before = weights(make_networks(point))
    networks, metrics = trained(point)
    names = {"d_loss", "g_loss", "d_real", "d_fake"} | (
        {"gradient_penalty"} if preset == "wgan-gp" else set()
    )
    assert all(set(m) == names and np.isfinite(list(m.values())).all() for m in metrics)
    for model, old in zip(("generator", "discriminator"), (0, len(networks.generator.weights)), strict=True):
        new = getattr(networks, model).trainable_variables
        assert any((a.numpy() != b).any() for a, b in zip(new, before[old:], strict=False)), model


def test_the_same_seed_gives_the_same_weights_and_another_gives_others():
    first, second, other = (trained(point_of(seed=seed)) for seed in (3, 3, 4))
    assert same(weights(first[0]), weights(second[0]))
    assert first[1] == second[1]
    assert not same(weights(first[0]), weights(other[0]))


def test_the_critics_weights_stay_within_the_clip():
    networks, _ = trained(point_of("wgan", n_critic=2, learning_rate=0.05))
    bounds = [float(np.abs(w.numpy()).max()) for w in networks.discriminator.trainable_variables]
    assert max(bounds) == pytest.approx(0.01)
    assert max(float(np.abs(w.numpy()).max()) for w in networks.generator.trainable_variables) > 0.01


def test_the_generator_waits_for_n_critic_turns():
    networks, _ = trained(point_of("wgan", n_critic=3), steps=2)
    assert int(networks.discriminator_optimizer.iterations) == 6
    assert int(networks.generator_optimizer.iterations) == 2


def test_real_and_fake_images_have_batch_statistics_of_their_own():
    """Images of one grey level: normalized alone they vanish, in a batch with others they would not."""
    point = point_of(dropout=0.0, n_critic=1)
    networks = make_networks(point)
    flat = np.full((4, 16, 16, 1), 200, np.uint8)
    _, metrics = trained(point, steps=1, images=flat)
    networks = make_networks(point)
    expected = raw_scores(networks.discriminator)(to_network(flat), training=True)
    assert metrics[0]["d_real"] == pytest.approx(float(tf.reduce_mean(expected)), abs=1e-5)


@pytest.mark.parametrize(("quirk", "changed"), [("unit-range", {"d_real"}), ("uniform-noise", {"d_fake"})])
def test_a_quirk_changes_what_it_names_and_nothing_else(quirk, changed):
    with_quirk, without = (trained(point_of(quirks=q, dropout=0.0), 1)[1][0] for q in ((quirk,), ()))
    assert {name for name in ("d_real", "d_fake") if with_quirk[name] != without[name]} == changed


class InThread(Alone):
    """A rank that is a thread of this process, whose collectives wait for the other threads."""

    def __init__(self, rank, ranks, barrier, board):
        self.rank, self.ranks, self._barrier, self._board = rank, ranks, barrier, board

    def _exchange(self, value):
        self._board[self.rank] = value
        self._barrier.wait(60)
        values = [self._board[rank] for rank in range(self.ranks)]
        self._barrier.wait(60)
        return values

    def average(self, tensors):
        return [tf.reduce_mean(tf.stack(each), axis=0) for each in zip(*self._exchange(tensors), strict=True)]

    def gather(self, tensor):
        @tf.custom_gradient
        def gathered(x):
            def back(upstream):
                return tf.add_n(self._exchange(upstream))[self.rank]

            return tf.stack(self._exchange(x)), back

        return gathered(tensor)


@pytest.fixture
def float64_without_graphs():
    """Threads cannot wait for each other within one graph; rounding is not what is tested."""
    floats, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(floats)


@pytest.mark.parametrize(
    ("preset", "ranks"), [("gan", 2), ("dcgan", 2), ("dcgan", 4), ("wgan", 2), ("wgan-gp", 4)]
)
def test_ranks_do_together_what_one_does(preset, ranks, float64_without_graphs):
    values = {"n_critic": 2} if preset.startswith("wgan") else {}
    point = point_of(preset, batch_size=8, **values)
    alone, expected = trained(point)
    networks = [make_networks(point) for _ in range(ranks)]
    barrier, board = threading.Barrier(ranks), {}

    def train(rank):
        update = make_update(point, networks[rank], IMAGES, InThread(rank, ranks, barrier, board))
        return [update(tf.constant(step)) for step in range(2)]

    with ThreadPoolExecutor(ranks) as pool:
        metrics = list(pool.map(train, range(ranks)))
    for rank in range(ranks):
        for ours, theirs in zip(weights(networks[rank]), weights(alone), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)
        for ours, theirs in zip(metrics[rank], expected, strict=True):
            assert {k: float(v) for k, v in ours.items()} == pytest.approx(theirs, rel=1e-9)


def test_on_one_rank_batch_normalization_is_keras_own_bit_for_bit(monkeypatch):
    ours, metrics = trained(point_of(), steps=3)
    monkeypatch.setattr(dcgan, "BatchNormalization", keras.layers.BatchNormalization)
    theirs, their_metrics = trained(point_of(), steps=3)
    assert not any(isinstance(layer, BatchNormalization) for layer in theirs.generator.layers)
    assert same(weights(ours), weights(theirs))
    assert metrics == their_metrics


def test_two_ranks_see_together_what_one_process_sees():
    point = point_of("wgan-gp", n_critic=1)

    def first_step(rank, ranks):
        shares = Alone()
        shares.rank, shares.ranks = rank, ranks
        metrics = make_update(point, make_networks(point), IMAGES, shares)(tf.constant(0))
        return [float(metrics[name]) for name in ("d_real", "d_fake", "gradient_penalty")]

    shares = [first_step(rank, 2) for rank in (0, 1)]
    assert shares[0] != pytest.approx(shares[1], rel=1e-3)
    assert np.mean(shares, axis=0) == pytest.approx(first_step(0, 1), rel=1e-4)
