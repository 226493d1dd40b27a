"""One update of a GAN, alone and by several ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from graphs import ancestors
from ranks import InThread

from petgan.config import resolve_point
from petgan.distributed import Alone
from petgan.errors import ConfigError
from petgan.methods import adversarial
from petgan.methods.adversarial import make_networks, make_update, raw_scores
from petgan.methods.augment import IMAGES_TO_FULL
from petgan.methods.feed import Data
from petgan.methods.pixels import to_network

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)


def point_of(preset="dcgan", **values):
    return resolve_point({"preset": preset, "image_size": 16, "batch_size": 4, **values})


def trained(point, steps=2, images=IMAGES):
    networks = make_networks(point)
    update = tf.function(make_update(point, networks, Data(images)), autograph=False)
    metrics = [update(tf.constant(step)) for step in range(steps)]
    return networks, [{k: float(v) for k, v in m.items()} for m in metrics]


def weights(networks):
    models = (networks.generator, networks.discriminator, networks.ema_generator)
    return [w for model in models for w in model.get_weights()]


def same(a, b):
    return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(a, b, strict=True))


def test_lecams_averages_follow_the_scores():
    """Tseng 2021, section 4.1, with the early limit that the average of the weights has."""
    networks, metrics = trained(point_of(lecam_weight=0.1), steps=4)
    real = fake = 0.0
    for t, values in enumerate(metrics):
        keep = min(0.99, (1 + t) / (10 + t))
        real, fake = (keep * m + (1 - keep) * values[k] for m, k in ((real, "d_real"), (fake, "d_fake")))
    assert abs(real - fake) > 1e-3
    assert float(networks.state.mean_real) == pytest.approx(real, rel=1e-5)
    assert float(networks.state.mean_fake) == pytest.approx(fake, rel=1e-5)


def test_raw_scores_are_the_logits_of_the_discriminator():
    discriminator = make_networks(point_of()).discriminator
    image = np.random.default_rng(0).normal(size=(3, 16, 16, 1)).astype("float32")
    logits = raw_scores(discriminator)(image, training=False).numpy()
    assert discriminator(image, training=False).numpy() == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-6)


def test_without_decay_the_average_is_the_generator():
    networks, _ = trained(point_of(ema_decay=0.0))
    assert same(networks.ema_generator.get_weights(), networks.generator.get_weights())


@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan-gp"])
def test_an_update_changes_both_networks_and_reports_finite_numbers(preset):
    point = point_of(preset, n_critic=2)
    before = weights(make_networks(point))
    networks, metrics = trained(point)
    names = {"d_loss", "g_loss", "d_real", "d_fake", "d_gradient", "g_gradient", "variation"} | (
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


@pytest.mark.parametrize(
    ("preset", "option"), [("wgan-gp", {"gp_weight": 10.0}), ("gan", {"r1_weight": 5.0})], ids=["gp", "r1"]
)
def test_the_discriminator_follows_the_gradient_of_loss_and_penalty(preset, option, float64_without_graphs):
    """To first order, a step against the gradient lowers the loss by the rate times its squared norm."""
    rate = 1e-7
    point = point_of(preset, **option, n_critic=1, dropout=0.0, optimizer="sgd", beta_1=None, beta_2=None,
                     gradient_clip=None, discriminator_learning_rate=rate, learning_rate=1e-15)  # fmt: skip
    update = make_update(point, make_networks(point), Data(IMAGES))
    before, after = (update(tf.constant(0)) for _ in range(2))  # of the same images and draws
    fallen = float(before["d_loss"] - after["d_loss"])
    assert fallen == pytest.approx(rate * float(before["d_gradient"]) ** 2, rel=1e-3)


def test_the_generator_waits_for_n_critic_turns():
    networks, _ = trained(point_of("wgan", n_critic=3), steps=2)
    assert int(networks.discriminator_optimizer.iterations) == 6
    assert int(networks.generator_optimizer.iterations) == 2


def test_no_turn_holds_the_images_of_a_later_one():
    """Each generates its images after the gradients of the one before."""
    point = point_of("wgan", n_critic=2)
    update = make_update(point, make_networks(point), Data(IMAGES))
    graph = tf.function(update, autograph=False).get_concrete_function(tf.TensorSpec((), tf.int32)).graph
    named = [op for op in graph.get_operations() if op.name.startswith("generator")]
    turns = [op for op in named if op.type == "MatMul"]  # of its first layer
    assert len(turns) == 3
    gradients = [sum("gradient_tape" in op.name for op in ancestors(turn)) for turn in turns]
    assert gradients[0] == 0
    assert 0 < gradients[1] < gradients[2]


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


@pytest.mark.parametrize(
    ("preset", "ranks"), [("gan", 2), ("dcgan", 2), ("dcgan", 4), ("wgan", 2), ("wgan-gp", 4)]
)
def test_ranks_do_together_what_one_does(preset, ranks, float64_without_graphs):
    values = {"n_critic": 2} if preset.startswith("wgan") else {}
    ranks_and_one_agree(point_of(preset, batch_size=8, **values), ranks)


def ranks_and_one_agree(point, ranks):
    alone, expected = trained(point)
    networks = [make_networks(point) for _ in range(ranks)]
    barrier, board = threading.Barrier(ranks), {}

    def train(rank):
        update = make_update(point, networks[rank], Data(IMAGES), InThread(rank, ranks, barrier, board))
        return [update(tf.constant(step)) for step in range(2)]

    with ThreadPoolExecutor(ranks) as pool:
        metrics = list(pool.map(train, range(ranks)))
    for rank in range(ranks):
        for ours, theirs in zip(weights(networks[rank]), weights(alone), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)
        for ours, theirs in zip(metrics[rank], expected, strict=True):
            assert {k: float(v) for k, v in ours.items()} == pytest.approx(theirs, rel=1e-9)


# Every recipe's parts at once, in sets that make sense together.
VARIANTS = {
    "spectral": {"spectral_norm": True, "loss": "hinge", "augment": "translation,cutout,color"},
    "adaptive": {"ada_target": 0.1, "augment": "translation,cutout", "minibatch_std": True},
    "penalties": {"normalization": "group", "r1_weight": 0.5, "lecam_weight": 0.1, "activation": "gelu"},
    "two-scales": {"loss": "least-squares", "discriminator_learning_rate": 2e-3, "generator_width": 0.5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ranks_do_together_what_one_does_in_every_variant(variant, float64_without_graphs):
    ranks_and_one_agree(point_of("dcgan", batch_size=8, discriminator_width=0.125, **VARIANTS[variant]), 2)


def test_two_ranks_see_together_what_one_process_sees():
    point = point_of("wgan-gp", n_critic=1)

    def first_step(rank, ranks):
        shares = Alone()
        shares.rank, shares.ranks = rank, ranks
        update = make_update(point, make_networks(point), Data(IMAGES), shares)
        metrics = tf.function(update, autograph=False)(tf.constant(0))
        return [float(metrics[name]) for name in ("d_real", "d_fake", "gradient_penalty")]

    shares = [first_step(rank, 2) for rank in (0, 1)]
    assert shares[0] != pytest.approx(shares[1], rel=1e-3)
    assert np.mean(shares, axis=0) == pytest.approx(first_step(0, 1), rel=1e-4)


# --- passes, precision, frozen layers -----------------------------------------------------------


def test_one_pass_of_the_discriminator_does_what_two_do(monkeypatch):
    point = point_of(
        "dcgan",
        spectral_norm=True,
        minibatch_std=True,
        discriminator_width=0.125,
        optimizer="sgd",
        dropout=0.4,
    )
    asked = []
    monkeypatch.setattr(adversarial, "can_judge_in_one_pass", lambda d: asked.append(d) or False)
    two, two_metrics = trained(point, steps=3)
    assert asked
    monkeypatch.undo()
    assert adversarial.can_judge_in_one_pass(two.discriminator)
    one, one_metrics = trained(point, steps=3)
    learned = [[*n.generator.trainable_variables, *n.discriminator.trainable_variables] for n in (one, two)]
    for ours, theirs in zip(*learned, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(one_metrics, two_metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_where_statistics_are_of_a_batch_real_and_generated_images_do_not_share_a_pass():
    assert not adversarial.can_judge_in_one_pass(make_networks(point_of("dcgan")).discriminator)
    assert adversarial.can_judge_in_one_pass(make_networks(point_of("wgan-gp")).discriminator)


def test_the_generator_learns_through_the_augmentation(monkeypatch):
    """Where the augmentation blots all out, the generator has nothing to learn from; else it has."""
    point = point_of(augment="translation", normalization="none", discriminator_width=0.125)
    _, metrics = trained(point, steps=1)
    assert metrics[0]["g_gradient"] > 1e-3
    monkeypatch.setattr(adversarial, "augment", lambda images, *_: images * 0)
    _, metrics = trained(point, steps=1)
    assert metrics[0]["g_gradient"] == 0


def test_adaptive_augmentation_starts_with_none_and_rises_while_real_images_are_told():
    point = point_of(augment="translation", ada_target=0.01, learning_rate=1e-5, discriminator_width=0.125)
    networks = make_networks(point)
    update = tf.function(make_update(point, networks, Data(IMAGES)), autograph=False)
    bias = raw_scores(networks.discriminator).layers[-1].bias
    bias.assign(bias + 100)  # all images are told to be real with certainty
    probabilities = [float(update(tf.constant(step))["augment_probability"]) for step in range(4)]
    assert probabilities[0] == 0
    assert np.diff(probabilities) == pytest.approx([4 / IMAGES_TO_FULL] * 3)


def test_where_nothing_is_changed_no_strength_is_controlled():
    point = point_of(augment="auto", ada_target=0.01, discriminator_width=0.125)
    metrics = {
        modality: make_update(point, make_networks(point), Data(IMAGES, modality=modality))(tf.constant(0))
        for modality in ("pet", "mammogram")
    }
    assert {m for m, found in metrics.items() if "augment_probability" in found} == {"mammogram"}


@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan-gp"])
@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_reduced_precision_stays_near_float32_and_keeps_float32_weights(preset, precision, bound):
    """One update's metrics, within 20 rounding errors of the format, which sums of hundreds of terms make."""
    options = {"n_critic": 1, "dropout": 0.0, **({} if preset == "gan" else {"discriminator_width": 0.125})}
    _, (exact,) = trained(point_of(preset, **options), steps=1)
    networks, (rounded,) = trained(point_of(preset, compute_dtype=precision, **options), steps=1)
    for name in ("d_real", "d_fake", "d_loss", "gradient_penalty"):
        if name in exact:
            scale = max(abs(exact["d_real"]), abs(exact["d_fake"]), 1)
            assert rounded[name] == pytest.approx(exact[name], abs=20 * bound * scale), name
    assert networks.generator.layers[1].compute_dtype == precision
    assert {w.dtype for w in networks.generator.weights} == {"float32"}
    assert networks.ema_generator.layers[1].compute_dtype == "float32"
    noise = np.ones((2, networks.generator.input_shape[1]), "float32")
    assert networks.generator(noise).dtype == networks.discriminator(IMAGES[:2] / 255).dtype == "float32"


def test_in_float16_an_update_that_overflows_is_skipped_and_the_scale_halved():
    networks, metrics = trained(point_of("gan", compute_dtype="float16", dropout=0.0), steps=1)
    scale = networks.generator_optimizer.dynamic_scale
    before = [variable.numpy() for variable in networks.generator.trainable_variables]
    scale.assign(2.0**40)
    point = point_of("gan", compute_dtype="float16", dropout=0.0)
    metrics = make_update(point, networks, Data(IMAGES))(tf.constant(1))
    assert same(networks.generator.trainable_variables, before)
    assert float(scale) == 2.0**39
    assert float(metrics["g_gradient"]) == 0


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_frozen_layers_stay_bit_for_bit_and_the_others_learn(spectral_norm):
    point = point_of(
        freeze_layers=2, init_from="other.h5", discriminator_width=0.125, spectral_norm=spectral_norm
    )
    before = make_networks(point).discriminator.get_weights()
    networks, _ = trained(point, steps=2)
    names = [weight.path for weight in networks.discriminator.weights]
    changed = [
        (old != new).any() for old, new in zip(before, networks.discriminator.get_weights(), strict=True)
    ]
    kernels = [i for i, weight in enumerate(networks.discriminator.weights) if weight.name == "kernel"]
    assert not any(changed[: kernels[2]]), names
    assert all(changed[i] for i in kernels[2:])


def test_with_all_layers_frozen_nothing_is_left_to_train():
    with pytest.raises(ConfigError, match="nothing of the discriminator is left to train") as caught:
        make_networks(point_of(freeze_layers=5, init_from="other.h5"))
    assert "below 5" in str(caught.value)


def test_r1_and_batch_statistics_are_refused_where_they_meet():
    with pytest.raises(ConfigError, match="R1 is of one image at a time"):
        make_networks(point_of("dcgan").model_copy(update={"r1_weight": 1.0}))  # as of a preset of one's own
    for allowed in (point_of("gan", r1_weight=1.0), point_of(r1_weight=1.0, normalization="group")):
        make_networks(allowed)


def test_probabilities_are_not_taken_for_scores():
    image = keras.Input((16, 16, 1))
    ends_in_probability = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(image))
    with pytest.raises(ConfigError, match="ends in scores"):
        raw_scores(keras.Model(image, ends_in_probability))
