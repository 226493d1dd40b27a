"""One update of a translation, alone and by several ranks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan.config import resolve_point
from petgan.methods import translation
from petgan.methods.feed import Data
from petgan.methods.pixels import to_network
from petgan.methods.translation import METHOD, draw_places, make_networks, make_update
from petgan.models import cut

random = np.random.default_rng(0)
DATA = Data(
    random.integers(0, 256, (12, 16, 16, 1), dtype=np.uint8),
    source=random.integers(0, 256, (10, 16, 16, 1), dtype=np.uint8),
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cut, "GENERATOR_FILTERS", (2, 3, 4))
    monkeypatch.setattr(cut, "BLOCKS", 2)
    monkeypatch.setattr(cut, "DISCRIMINATOR_LAYERS", ((2, 2), (3, 2), (4, 1)))
    monkeypatch.setattr(cut, "HEAD_UNITS", 12)
    monkeypatch.setattr(translation, "PATCHES", 20)


def point_of(**values):
    return resolve_point({"preset": "cut", "image_size": 16, "batch_size": 2, **values})


def trained(point, steps=2, networks=None, first=0, data=DATA):
    networks = networks or make_networks(point)
    update = make_update(point, networks, data)  # without a graph, whose making takes longer than its use
    metrics = [update(tf.constant(step)) for step in range(first, first + steps)]
    return networks, [{k: float(v) for k, v in m.items()} for m in metrics]


def weights(networks):
    models = (part for part in networks.values() if isinstance(part, keras.Model))
    return [w for model in models for w in model.get_weights()]


def same(a, b):
    return all((x == y).all() for x, y in zip(a, b, strict=True))


def test_an_update_changes_all_networks_and_reports_finite_numbers():
    point = point_of()
    before = make_networks(point)
    networks, metrics = trained(point)
    assert set(metrics[0]) == {
        "d_loss", "g_loss", "nce_loss", "d_real", "d_fake", "d_gradient", "g_gradient", "variation"
    }  # fmt: skip
    assert all(np.isfinite(list(m.values())).all() for m in metrics)
    for part in ("generator", "discriminator", "heads", "ema_generator"):
        assert not same(networks[part].get_weights(), before[part].get_weights()), part


def test_the_first_losses_are_those_of_the_papers_in_numpy():
    """The generator's turn meets the discriminator after its own: at a rate of almost 0 that is the same."""
    point = point_of(learning_rate=1e-30)
    networks, (metrics, *_) = trained(point, 1)
    update = make_update(point, networks, DATA)
    step = tf.constant(0)
    real, source = (to_network(feed.batch(step, 0)) for feed in (update._feed, update._sources))
    fake, identity = (networks.generator(x).numpy() for x in (source, real))
    judged_real, judged_fake = (networks.discriminator(x).numpy() for x in (real, fake))
    d_loss = (np.mean((judged_real - 1) ** 2) + np.mean(judged_fake**2)) / 2
    assert metrics["d_loss"] == pytest.approx(d_loss, rel=1e-4)

    def nce(originals, translated):
        total, layers = 0.0, 0
        for layer, (q, k) in enumerate(zip(embedded(translated), embedded(originals), strict=True)):
            side = (16, 8, 4, 4, 4)[layer]
            places = draw_places(point.seed, step, layer, side**2).numpy()
            q, k = q[:, places], k[:, places]
            similar = np.exp(np.einsum("npd,nqd->npq", q, k) / 0.07)
            total += np.mean(-np.log(np.einsum("npp->np", similar) / similar.sum(axis=2)))
            layers += 1
        return total / layers

    def embedded(images):
        features = [np.asarray(images), *(x.numpy() for x in cut.encoder(networks.generator)(images))]
        flat = [x.reshape(len(x), -1, x.shape[-1]) for x in features]
        heads = [h.numpy() for h in networks.heads(flat)]
        return [h / np.maximum(np.linalg.norm(h, axis=-1, keepdims=True), 1e-6) for h in heads]

    contrast = (nce(source, fake) + nce(real, identity)) / 2
    assert metrics["nce_loss"] == pytest.approx(contrast, rel=1e-3)
    assert metrics["g_loss"] == pytest.approx(np.mean((judged_fake - 1) ** 2) / 2 + contrast, rel=1e-3)


def test_patches_are_drawn_without_repetition_and_anew_in_every_update_and_layer():
    draws = [tuple(draw_places(3, tf.constant(s), layer, 64).numpy()) for s in (0, 1) for layer in (0, 1)]
    assert len(set(draws)) == 4
    for places in draws:
        assert len(set(places)) == 20
        assert set(places) <= set(range(64))
    assert sorted(draw_places(3, tf.constant(0), 0, 16).numpy()) == list(range(16))


def test_the_contrastive_loss_alone_makes_a_translation_resemble_its_source(monkeypatch):
    nothing = lambda *scores: tf.reduce_mean(scores[0]) * 0  # noqa: E731
    monkeypatch.setitem(translation.LOSSES, "least-squares", (nothing, nothing))
    _, metrics = trained(point_of(learning_rate=5e-3), steps=15)
    early, late = (np.mean([m["nce_loss"] for m in part]) for part in (metrics[:3], metrics[-3:]))
    assert late < 0.95 * early
    assert metrics[-1]["g_loss"] == metrics[-1]["nce_loss"]


def test_the_same_seed_gives_the_same_weights_and_another_gives_others():
    first, second, other = (trained(point_of(seed=seed), 1) for seed in (3, 3, 4))
    assert same(weights(first[0]), weights(second[0]))
    assert first[1] == second[1]
    assert not same(weights(first[0]), weights(other[0]))


def test_a_graph_holds_an_update():
    point = point_of()
    update = tf.function(make_update(point, make_networks(point), DATA), autograph=False)
    for step, expected in enumerate(trained(point)[1]):
        metrics = {k: float(v) for k, v in update(tf.constant(step)).items()}
        assert metrics == pytest.approx(expected, rel=1e-3)


def test_updates_do_not_depend_on_who_carried_out_those_before():
    """Nothing hangs on the past but the networks: so a resumed run equals an undisturbed one."""
    point = point_of()
    whole, expected = trained(point, 3)
    networks, first = trained(point, 1)
    networks, rest = trained(point, 2, networks, first=1)
    assert same(weights(networks), weights(whole))
    assert [*first, *rest] == expected


def test_sources_are_drawn_from_the_source_alone():
    black = Data(DATA.images, source=np.zeros_like(DATA.source))
    point = point_of(learning_rate=1e-30)
    update = make_update(point, make_networks(point), black)
    assert not update._sources.batch(tf.constant(5), 0).numpy().any()
    assert trained(point, 1, data=black)[1][0]["d_real"] == trained(point, 1)[1][0]["d_real"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_it_trains_in_lower_precision(precision):
    networks, metrics = trained(point_of(compute_dtype=precision))
    _, full = trained(point_of())
    assert all(np.isfinite(list(m.values())).all() for m in metrics)
    assert metrics[0]["nce_loss"] == pytest.approx(full[0]["nce_loss"], rel=0.05)
    assert {w.dtype for w in networks.generator.weights} == {"float32"}


def test_images_are_shown_in_the_range_of_the_network():
    pixels = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    assert METHOD.inputs(pixels).numpy().ravel().tolist() == [-1, 1]
