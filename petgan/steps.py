"""One update of a GAN, as one fused graph with the dataset resident in memory.

Random numbers are drawn from (seed, step, position in the global batch) alone: an update does not know
what came before it, and a resumed run draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import keras
import numpy as np
import tensorflow as tf

from petgan.config import Point
from petgan.distributed import ALONE, Alone
from petgan.models import build
from petgan.models.layers import dropout_stream, statistics_over_ranks
from petgan.place import share_of
from petgan.presets import PRESETS

Metrics = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Networks:
    """What a run trains, and what a checkpoint holds."""

    generator: keras.Model
    discriminator: keras.Model
    ema_generator: keras.Model
    generator_optimizer: keras.Optimizer
    discriminator_optimizer: keras.Optimizer


def make_networks(point: Point) -> Networks:
    """Build the networks and optimizers of a point; initial weights depend on its seed alone."""
    keras.utils.set_random_seed(point.seed)
    options = {"latent_size": point.latent_size, "dropout": point.dropout, "quirks": point.quirks}
    generator, discriminator = build(point.preset, point.image_size, **options)
    ema_generator = keras.models.clone_model(generator)
    ema_generator.set_weights(generator.get_weights())
    generator_optimizer = make_optimizer(point, point.generator_decay)
    generator_optimizer.build(generator.trainable_variables)
    discriminator_optimizer = make_optimizer(point, point.discriminator_decay)
    discriminator_optimizer.build(discriminator.trainable_variables)
    return Networks(generator, discriminator, ema_generator, generator_optimizer, discriminator_optimizer)


def make_optimizer(point: Point, decay: float) -> keras.Optimizer:
    """Make Keras' optimizer; its rate after t updates is learning_rate / (1 + decay * t)."""
    rate = point.learning_rate
    if decay:
        rate = keras.optimizers.schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=decay)
    options = {"learning_rate": rate, "clipvalue": point.gradient_clip}
    options |= {k: v for k in ("beta_1", "beta_2") if (v := getattr(point, k)) is not None}
    # By class: keras.optimizers.get does not know all of them (not Lamb, in 3.15).
    kinds = {name.lower(): kind for name, kind in vars(keras.optimizers).items()}
    return kinds[point.optimizer](**options)


# --- random numbers -----------------------------------------------------------------------------


class Draw(IntEnum):
    """What a random number is for: each use has a stream of its own."""

    IMAGES = 0
    NOISE = 1
    MIX = 2
    GENERATOR_DROPOUT = 3
    REAL_DROPOUT = 4
    FAKE_DROPOUT = 5
    MIX_DROPOUT = 6


def seed_for(seed: int, step: tf.Tensor | int, draw: Draw, turn: int) -> tf.Tensor:
    """The seed (2,) int64 of one draw in turn `turn` of update `step`.

    Its second number is the use's own place in step, turn, draw and layer (the last 8 bits, which
    `dropout_stream` counts up), so that no two uses share a seed. TensorFlow scrambles it.
    """
    place = ((tf.cast(step, tf.int64) * 2**16 + turn) * 2**4 + int(draw)) * 2**8
    return tf.stack([tf.constant(seed, tf.int64), place])


def draw_indices(seed: tf.Tensor, batch_size: int, images: int) -> tf.Tensor:
    """Positions (batch_size,) of training images, drawn with replacement as the study did."""
    return tf.random.stateless_uniform((batch_size,), seed, maxval=images, dtype=tf.int32)


def draw_noise(seed: tf.Tensor, batch_size: int, latent_size: int, *, uniform: bool = False) -> tf.Tensor:
    """Noise (batch_size, latent_size): standard normal, or uniform in [-1, 1)."""
    shape, dtype = (batch_size, latent_size), keras.backend.floatx()
    if uniform:
        return tf.random.stateless_uniform(shape, seed, minval=-1.0, maxval=1.0, dtype=dtype)
    return tf.random.stateless_normal(shape, seed, dtype=dtype)


# --- pixels -------------------------------------------------------------------------------------


def to_network(pixels: tf.Tensor, *, unit_range: bool = False) -> tf.Tensor:
    """Turn uint8 pixels into Keras' float in [-1, 1]; in [0, 1] as published with `unit_range`."""
    values = tf.cast(pixels, keras.backend.floatx())
    return values / 255 if unit_range else values / 127.5 - 1


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Turn a generator's output, float in [-1, 1], into uint8.

    A generator trained with the quirk ``unit-range`` learned [0, 1]; the study read it by the same rule,
    which is where the grey veil of its images comes from.
    """
    return np.clip(np.round((np.asarray(images) + 1) * 127.5), 0, 255).astype(np.uint8)


# --- losses -------------------------------------------------------------------------------------


def bce_discriminator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Mean of -log s(real) and -log(1 - s(fake)) with the sigmoid s (Goodfellow 2014, eq. 1)."""
    return 0.5 * (tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(fake)))


def bce_generator(fake: tf.Tensor) -> tf.Tensor:
    """-log s(fake), the loss that does not saturate (Goodfellow 2014, section 3)."""
    return tf.reduce_mean(tf.nn.softplus(-fake))


def wasserstein_critic(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Mean f(fake) - mean f(real) (Arjovsky 2017, algorithm 1)."""
    return tf.reduce_mean(fake) - tf.reduce_mean(real)


def wasserstein_generator(fake: tf.Tensor) -> tf.Tensor:
    """-mean f(fake) (Arjovsky 2017, algorithm 1)."""
    return -tf.reduce_mean(fake)


LOSSES: dict[str, tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]] = {
    "bce": (bce_discriminator, bce_generator),
    "wasserstein": (wasserstein_critic, wasserstein_generator),
}


def gradient_penalty(
    critic: Callable[[tf.Tensor], tf.Tensor], real: tf.Tensor, fake: tf.Tensor, mix: tf.Tensor
) -> tf.Tensor:
    """Mean of (|grad f(x)| - 1)^2 at x = mix * real + (1 - mix) * fake (Gulrajani 2017, eq. 3).

    Parameters
    ----------
    critic : callable
        (n, h, w, c) to (n, 1).
    real, fake : tf.Tensor (n, h, w, c)
    mix : tf.Tensor (n, 1, 1, 1)
        In [0, 1).
    """
    between = mix * real + (1 - mix) * fake
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = critic(between)
    slopes = tape.gradient(scores, between)
    # A norm of exactly 0 has no gradient; the smallest normal number keeps it finite.
    squares = tf.reduce_sum(tf.square(slopes), axis=(1, 2, 3))
    norms = tf.sqrt(tf.maximum(squares, np.finfo(np.float32).tiny))
    return tf.reduce_mean(tf.square(norms - 1))


def raw_scores(discriminator: keras.Model) -> keras.Model:
    """The discriminator up to its sigmoid, if it ends in one: losses are computed on logits."""
    last = discriminator.layers[-1]
    if isinstance(last, keras.layers.Activation) and last.activation is keras.activations.sigmoid:
        return keras.Model(discriminator.input, last.input)
    return discriminator


# --- the update ---------------------------------------------------------------------------------


def make_update(
    point: Point, networks: Networks, images: np.ndarray, ranks: Alone = ALONE
) -> Callable[[tf.Tensor], Metrics]:
    """Make the function that carries out update `step` (0 is the first) and returns its metrics.

    Parameters
    ----------
    point : Point
    networks : Networks
        Changed in place by every call.
    images : ndarray (n, size, size, 1) uint8
        The training images.
    ranks : Alone or Ranks
        With whom this process shares the global batch. Gradients and metrics are averaged over the ranks
        in one call a turn, and batch normalization sees the whole batch, so that every rank carries out
        the same update.

    Returns
    -------
    callable
        Scalar int tensor to a dict of float32 scalars: ``d_loss``, ``g_loss``, ``d_real`` and ``d_fake``
        (mean scores before any sigmoid) and with a penalty ``gradient_penalty``; those of the
        discriminator are its last turn's.

    Raises
    ------
    ConfigError
        If the ranks cannot share the batch evenly.
    """
    resident = tf.constant(images)
    mine = share_of(point.batch_size, ranks.rank, ranks.ranks)
    offset = mine.start
    discriminator_loss, generator_loss = LOSSES[PRESETS[point.preset].loss]
    scores = raw_scores(networks.discriminator)
    uniform_noise = "uniform-noise" in point.quirks

    def generate(step: tf.Tensor, turn: int) -> tf.Tensor:
        noise = draw_noise(
            seed_for(point.seed, step, Draw.NOISE, turn),
            point.batch_size,
            point.latent_size,
            uniform=uniform_noise,
        )[mine]
        with dropout_stream(
            seed_for(point.seed, step, Draw.GENERATOR_DROPOUT, turn), offset, point.batch_size
        ):
            return networks.generator(noise, training=True)

    def judge(batch: tf.Tensor, step: tf.Tensor, draw: Draw, turn: int) -> tf.Tensor:
        with dropout_stream(seed_for(point.seed, step, draw, turn), offset, point.batch_size):
            return scores(batch, training=True)

    def penalty(real: tf.Tensor, fake: tf.Tensor, step: tf.Tensor, turn: int) -> tf.Tensor:
        mix = tf.random.stateless_uniform(
            (point.batch_size, 1, 1, 1),
            seed_for(point.seed, step, Draw.MIX, turn),
            dtype=keras.backend.floatx(),
        )[mine]
        return gradient_penalty(lambda x: judge(x, step, Draw.MIX_DROPOUT, turn), real, fake, mix)

    def discriminator_turn(step: tf.Tensor, turn: int) -> Metrics:
        indices = draw_indices(seed_for(point.seed, step, Draw.IMAGES, turn), point.batch_size, len(images))[
            mine
        ]
        real = to_network(tf.gather(resident, indices), unit_range="unit-range" in point.quirks)
        fake = generate(step, turn)
        metrics: Metrics = {}
        with tf.GradientTape() as tape:
            real_scores = judge(real, step, Draw.REAL_DROPOUT, turn)
            fake_scores = judge(fake, step, Draw.FAKE_DROPOUT, turn)
            loss = discriminator_loss(real_scores, fake_scores)
            if point.gp_weight is not None:
                metrics["gradient_penalty"] = penalty(real, fake, step, turn)
                loss += point.gp_weight * metrics["gradient_penalty"]
        metrics |= {
            "d_loss": loss,
            "d_real": tf.reduce_mean(real_scores),
            "d_fake": tf.reduce_mean(fake_scores),
        }
        variables = networks.discriminator.trainable_variables
        gradients, metrics = averaged(tape.gradient(loss, variables), metrics)
        networks.discriminator_optimizer.apply(gradients, variables)
        if point.weight_clip is not None:
            for variable in variables:
                variable.assign(tf.clip_by_value(variable, -point.weight_clip, point.weight_clip))
        return metrics

    def generator_turn(step: tf.Tensor) -> Metrics:
        turn = point.n_critic
        with tf.GradientTape() as tape:
            loss = generator_loss(judge(generate(step, turn), step, Draw.FAKE_DROPOUT, turn))
        variables = networks.generator.trainable_variables
        gradients, metrics = averaged(tape.gradient(loss, variables), {"g_loss": loss})
        networks.generator_optimizer.apply(gradients, variables)
        return metrics

    def averaged(gradients: list[tf.Tensor], metrics: Metrics) -> tuple[list[tf.Tensor], Metrics]:
        means = ranks.average([*gradients, *metrics.values()])
        count = len(gradients)
        return means[:count], dict(zip(metrics, means[count:], strict=True))

    @tf.function
    def update(step: tf.Tensor) -> Metrics:
        with contextlib.ExitStack() as together:
            if ranks.ranks > 1:
                together.enter_context(statistics_over_ranks(ranks.gather))
            for turn in range(point.n_critic):
                metrics = discriminator_turn(step, turn)
            metrics |= generator_turn(step)
            update_average(networks, step, point.ema_decay)
        return metrics

    return update


def update_average(networks: Networks, step: tf.Tensor, decay: float) -> None:
    """Move the averaged generator: a' = d a + (1 - d) w, with d = min(decay, (1 + t) / (10 + t)).

    The early limit is that of TensorFlow's ExponentialMovingAverage with `num_updates`: the average
    forgets the random start quickly. Statistics of batch normalization are averaged with the weights.
    """
    t = tf.cast(step, keras.backend.floatx())
    keep = tf.minimum(tf.constant(decay, t.dtype), (1 + t) / (10 + t))
    pairs = zip(networks.ema_generator.weights, networks.generator.weights, strict=True)
    for average, weight in pairs:
        average.assign(keep * average + (1 - keep) * weight)
