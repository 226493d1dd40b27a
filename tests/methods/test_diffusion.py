"""Diffusion: its schedule, its loss, and sampling with denoisers that are known in closed form."""

from __future__ import annotations

import gc
import math
import os
import signal
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from petgan import trainer
from petgan.checkpoint import read_generator, read_header
from petgan.config import resolve_point
from petgan.draws import Draw, draw_indices, normal, seed_for
from petgan.errors import Interrupted
from petgan.methods import diffusion
from petgan.methods.diffusion import (
    TIMES,
    ddim_invert,
    image_shares,
    images,
    make_networks,
    make_update,
    noisy,
    sampling_times,
)
from petgan.methods.feed import Data
from petgan.methods.networks import Networks, averaged_copy, make_optimizer
from petgan.methods.pixels import to_network
from petgan.models import unet
from petgan.samples import generate
from petgan.session import Session
from petgan.store import Dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)


@pytest.fixture
def small(monkeypatch):
    """A network of a few hundred weights."""
    monkeypatch.setattr(unet, "WIDTHS", (8, 4))
    monkeypatch.setattr(unet, "GROUPS", 2)
    monkeypatch.setattr(unet, "TIME_WIDTH", 4)


def point_of(**values):
    return resolve_point({"preset": "ddpm", "image_size": 16, "batch_size": 4, **values})


def weights(networks):
    return [w for part in ("generator", "ema_generator") for w in networks[part].get_weights()]


def noise_of(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 16, 16, 1)).astype("float32")


# --- the schedule -------------------------------------------------------------------------------


def test_the_schedule_is_the_papers():
    def f(t):
        return math.cos((t / TIMES + 0.008) / 1.008 * math.pi / 2) ** 2

    left, expected = 1.0, [1.0]
    for t in range(1, TIMES + 1):
        beta = min(1 - f(t) / f(t - 1), 0.999)
        left *= 1 - beta
        expected.append(left)
    shares = image_shares()
    assert shares == pytest.approx(expected, rel=1e-9)
    assert shares[: TIMES - 10] == pytest.approx([f(t) / f(0) for t in range(TIMES - 10)], rel=1e-9)
    assert (np.diff(shares) < 0).all()
    assert 0 < shares[TIMES] < 1e-8
    assert math.sqrt(1 - shares[1]) < 2 / 255  # below one grey level


@pytest.mark.parametrize("steps", [2, 10, 25, 50])
def test_sampling_visits_the_squares_from_the_image_almost_to_noise(steps):
    times = np.array(sampling_times(steps))
    assert len(times) == steps
    assert (times[0], times[-1]) == (1, 980)
    assert (np.diff(times) >= 0).all()
    ways = np.sqrt((times - 1) / 979)
    assert ways == pytest.approx(np.linspace(0, 1, steps), abs=1 / math.sqrt(979))
    assert image_shares()[times[-1]] < 1e-3


def test_a_noisy_image_has_the_mean_and_variance_of_its_time():
    image, draws = np.linspace(-1, 1, 4)[None, :, None, None], 40_000
    noise = np.random.default_rng(0).standard_normal((draws, 4, 1, 1))
    for time in (1, 300, 900):
        share = image_shares()[time]
        x = noisy(tf.constant(image), tf.constant(noise), tf.constant(share)).numpy()
        variance = 1 - share
        assert np.abs(x.mean(0) - math.sqrt(share) * image[0]).max() < 5 * math.sqrt(variance / draws)
        assert x.var(0) == pytest.approx(np.full((4, 1, 1), variance), rel=5 * math.sqrt(2 / draws))


# --- training -----------------------------------------------------------------------------------

FACTOR, SLOPE = 0.7, 1e-3


def linear_networks(point):
    """A denoiser that says FACTOR x + SLOPE t, by two weights."""
    image, time = keras.Input((16, 16, 1)), keras.Input((1,))
    scaled = keras.layers.Conv2D(1, 1, use_bias=False)(image)
    risen = keras.layers.Reshape((1, 1, 1))(keras.layers.Dense(1, use_bias=False)(time))
    model = keras.Model([image, time], keras.layers.Add()([scaled, risen]))
    factor, slope = sorted(model.trainable_variables, key=lambda v: -len(v.shape))
    factor.assign(np.full(factor.shape, FACTOR, "float32"))
    slope.assign(np.full(slope.shape, SLOPE, "float32"))
    optimizer = make_optimizer(point, model.trainable_variables, point.learning_rate)
    parts = Networks(generator=model, ema_generator=averaged_copy(model), generator_optimizer=optimizer)
    return parts, factor


def test_the_loss_and_its_gradient_are_the_papers():
    point = point_of(seed=3, optimizer="sgd", learning_rate=0.5, batch_size=8)
    networks, factor = linear_networks(point)
    step = 5
    metrics = make_update(point, networks, Data(PIXELS[:1]))(tf.constant(step))

    times = 1 + draw_indices(seed_for(3, step, Draw.TIMES, 0), 8, TIMES).numpy()[:, None]
    noise = normal((8, 16, 16, 1), seed_for(3, step, Draw.NOISE, 0)).numpy()
    assert len(set(times[:, 0])) > 4
    share = image_shares()[times][:, :, None, None]
    x = np.sqrt(share) * to_network(PIXELS[:1]).numpy() + np.sqrt(1 - share) * noise
    error = noise - (FACTOR * x + SLOPE * times[:, :, None, None])
    assert float(metrics["g_loss"]) == pytest.approx((error**2).mean(), rel=1e-5)
    gradient = [(-2 * error * x).mean(), (-2 * error * times[:, :, None, None]).mean()]
    assert float(metrics["g_gradient"]) == pytest.approx(math.hypot(*gradient), rel=1e-4)
    assert factor.numpy().item() - FACTOR == pytest.approx(-0.5 * gradient[0], rel=1e-4)


def test_a_fresh_network_knows_nothing_and_learns(small):
    point = point_of(batch_size=16, learning_rate=5e-3, dropout=0.0)
    networks = make_networks(point)
    smooth = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8)[:, None, None], (2, 16, 16, 1))
    update = tf.function(make_update(point, networks, Data(smooth.copy())), autograph=False)
    losses = [float(update(tf.constant(step))["g_loss"]) for step in range(60)]
    assert losses[0] == pytest.approx(1, abs=5 * math.sqrt(2 / (16 * 16 * 16)))
    assert np.mean(losses[-10:]) < 0.5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_gives_the_same_loss_to_its_digits(small, precision):
    def first(precision):
        point = point_of(compute_dtype=precision)
        networks = make_networks(point)
        spread(networks.generator)
        metrics = make_update(point, networks, Data(PIXELS))(tf.constant(0))
        assert networks.generator.output.dtype == networks.ema_generator.output.dtype == "float32"
        return float(metrics["g_loss"])

    assert first(precision) == pytest.approx(first("float32"), rel=0.02)
    assert first(precision) != first("float32")


def spread(model, seed=0):
    """Give all trained weights values, those too that begin as 0."""
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        fan_in = max(1, math.prod(variable.shape[:-1]))
        variable.assign(variable + random.normal(0, 0.3 / math.sqrt(fan_in), variable.shape))


def test_an_interrupted_run_ends_as_an_undisturbed_one(small, monkeypatch, make_dataset, make_run):
    monkeypatch.setattr(diffusion, "SAMPLING_STEPS", 2)
    dataset = make_dataset()

    def run_of(name):
        every = {"log": 2, "sample": 3, "score": 3, "checkpoint": 2}
        return make_run(dataset, name, every=every, preset="ddpm", steps=6)

    def train(run, score):
        with Dataset(dataset) as opened, Session(run) as session:
            trainer.train(run, run.config(), Data(opened.images("train")), session, score)

    def score(generator):
        return sum(float(np.square(w).sum()) for w in generator.get_weights())

    def stop_in_the_middle(generator):
        os.kill(os.getpid(), signal.SIGTERM)
        return score(generator)

    def results(run):
        files = {p.name: p.read_bytes() for p in [run.metrics_file, *sorted(run.samples.glob("*.png"))]}
        names = ["best.h5", *(path.name for path in run.last_checkpoints())]
        return files | {name: read_header(run.checkpoints / name).digest for name in names}

    whole, interrupted = run_of("whole"), run_of("interrupted")
    train(whole, score)
    with pytest.raises(Interrupted, match="stopped at step 4 of 6"):
        train(interrupted, stop_in_the_middle)
    train(interrupted, score)
    assert results(interrupted) == results(whole)
    assert len(results(whole)) == 6
    assert {*whole.metrics()[0]} == {"step", "g_loss", "g_gradient"}
    drawn, _ = read_generator(whole.checkpoint_file(6))
    again = keras.models.load_model(whole.generator_file)
    inputs = [noise_of(2), np.array([[1], [TIMES]])]
    assert again(inputs).numpy() == pytest.approx(drawn(inputs).numpy(), abs=1e-6)


# --- sampling -----------------------------------------------------------------------------------


class OfGaussian:
    """The best denoiser of images whose pixels are normal with this mean and variance, each on its own.

    The mean of the image given x at share s is m + sqrt(s) v / (s v + 1 - s) (x - sqrt(s) m).
    """

    def __init__(self, mean, variance):
        self._mean, self._variance = mean, variance
        self._shares = tf.constant(image_shares(), tf.float32)

    def __call__(self, inputs, training):
        x, times = inputs
        share = tf.gather(self._shares, times)[:, None, None]
        gain = tf.sqrt(share) * self._variance / (share * self._variance + 1 - share)
        image = self._mean + gain * (x - tf.sqrt(share) * self._mean)
        return (x - tf.sqrt(share) * image) / tf.sqrt(1 - share)


def test_of_one_image_that_image_is_drawn():
    image = np.random.default_rng(1).uniform(-1, 1, (1, 16, 16, 1)).astype("float32")
    drawn = images(OfGaussian(image, 0.0), noise_of(3)).numpy()
    assert drawn.shape == (3, 16, 16, 1)
    assert np.abs(drawn - image).max() < 1e-4


@pytest.mark.parametrize(("deviation", "bound"), [(0.05, 0.11), (0.15, 0.08), (0.25, 0.07)])
def test_of_a_gaussian_its_deviation_is_drawn_within_a_bound(deviation, bound):
    """Against the exact solution of the differential equation whose steps DDIM takes (Song 2021, eq. 14).

    That moves each pixel from its normal distribution at the first time to that of the images.
    """
    mean, noise = 0.1, noise_of(4)
    drawn = images(OfGaussian(mean, deviation**2), noise).numpy()
    share = image_shares()[sampling_times(diffusion.SAMPLING_STEPS)[-1]]
    start = (noise - math.sqrt(share) * mean) / math.sqrt(share * deviation**2 + 1 - share)
    exact = mean + deviation * start
    assert (drawn - exact).std() < bound * deviation
    assert drawn.mean() == pytest.approx(exact.mean(), abs=0.01)


def test_more_steps_draw_a_gaussian_better(monkeypatch):
    noise, deviation = noise_of(4), 0.15

    def error(steps):
        monkeypatch.setattr(diffusion, "SAMPLING_STEPS", steps)
        drawn = images(OfGaussian(0.0, deviation**2), noise).numpy()
        share = image_shares()[sampling_times(steps)[-1]]
        return 1 - drawn.std() / noise.std() / deviation * math.sqrt(share * deviation**2 + 1 - share)

    errors = [error(steps) for steps in (10, 40, 160)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0


@pytest.mark.parametrize("deviation", [0.05, 0.15, 0.25])
def test_ddim_reverses_itself_within_a_hundredth(deviation):
    denoiser, noise = OfGaussian(0.1, deviation**2), noise_of(4)
    drawn = images(denoiser, noise)
    assert np.abs(drawn).max() < 1
    back = ddim_invert(denoiser, drawn).numpy()
    assert np.abs(back - noise).max() < 0.01 * np.abs(noise).max()


def test_what_leaves_the_range_is_clipped():
    drawn = images(OfGaussian(np.float32(1.5), 0.0), noise_of(2)).numpy()
    assert (drawn == 1).all()


def test_an_image_depends_on_its_seed_and_number_alone(small, monkeypatch):
    monkeypatch.setattr(diffusion, "SAMPLING_STEPS", 2)
    generator = make_networks(point_of()).generator
    spread(generator)
    few, many = (generate(generator, count, 5, "ddpm") for count in (3, 70))
    assert few.shape == (3, 16, 16)
    assert (few == many[:3]).all()
    assert (many[0] != many[64]).any()
    assert (few != generate(generator, 3, 6, "ddpm")).any()


def test_sampling_sees_weights_that_have_changed_since(small, monkeypatch):
    """Its graph is kept with the network; the weights are not."""
    monkeypatch.setattr(diffusion, "SAMPLING_STEPS", 2)
    generator = make_networks(point_of()).generator
    noise = noise_of(2)
    before = images(generator, noise).numpy()
    spread(generator)
    assert (images(generator, noise).numpy() != before).any()


def test_a_graph_goes_with_its_network():
    denoiser = OfGaussian(0.0, 1.0)
    images(denoiser, noise_of(1))
    assert denoiser in diffusion._samplers
    gone = weakref.ref(denoiser)
    del denoiser
    gc.collect()
    assert gone() is None
