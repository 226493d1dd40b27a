"""Training that grows with its images: Progressive Growing of GANs (Karras 2018).

A run goes through the levels of resolution in equal shares: the first one, then for each further one its
fade-in and its stay. Where an update stands depends on its number alone. It computes the resolution that is
its own, and no other. Generator and critic play for the Wasserstein distance with a gradient penalty.

Where a level begins to fade in, the optimizers begin again: Adam, whose correction for its young averages
would be over by then, would take steps of ten times its rate in the new weights. (The published code has them
begin again where a level has faded in, too.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from petgan.config import Point
from petgan.distributed import ALONE, Alone
from petgan.draws import Draw, draw_noise, seed_for, uniform
from petgan.methods import Method, Metrics, Update
from petgan.methods.feed import Data, make_feed
from petgan.methods.losses import gradient_penalty, wasserstein_critic, wasserstein_generator
from petgan.methods.networks import (
    Networks,
    adversaries,
    all_gradients,
    cell_moments,
    computing_in,
    make_optimizer,
    one_after_another,
    relative_variation,
    update_average,
    update_part,
    with_penalty,
)
from petgan.methods.pixels import downscaled, to_network, upscaled
from petgan.models import pggan
from petgan.models.layers import statistics_over_ranks
from petgan.place import share_of

DRIFT = 0.001  # weight of the real scores' mean square, which keeps them near 0 (Karras 2018, appendix A.1)

Gradients = list[tf.Tensor]


def make_networks(point: Point) -> Networks:
    """Build the networks and optimizers of a point; initial weights depend on its seed alone."""
    keras.utils.set_random_seed(point.seed)
    with computing_in(point.compute_dtype):
        generator, critic = pggan.build(point)
    return adversaries(point, generator, critic)


@dataclass(frozen=True)
class Stage:
    """Where an update stands.

    Parameters
    ----------
    level : tf.Tensor () int32
        Of resolution; 0 is the first.
    alpha : tf.Tensor () float
        How far it has faded in, from 0 to 1; 1 at level 0.
    """

    level: tf.Tensor
    alpha: tf.Tensor

    @property
    def depth(self) -> tf.Tensor:
        """The level that images look like: between two of them while the upper one fades in."""
        return tf.cast(self.level, self.alpha.dtype) - 1 + self.alpha


def stage_of(step: tf.Tensor, steps: int, levels: int) -> Stage:
    """The stage of update `step` of `steps`; levels fade in and stay in 2 * levels - 1 equal shares."""
    place = tf.cast(step, tf.int64) * (2 * levels - 1)
    share, within = tf.cast(place // steps, tf.int32), tf.cast(place % steps, keras.backend.floatx())
    return Stage((share + 1) // 2, tf.where(share % 2 == 1, within / steps, tf.ones_like(within)))


def make_update(point: Point, networks: Networks, data: Data, ranks: Alone = ALONE) -> Update:
    """Make the function that carries out update `step`; see `petgan.methods.Method`.

    Its metrics: ``depth``, see `Stage`; ``d_loss``, ``g_loss``; ``gradient_penalty`` before its weight;
    ``d_real`` and ``d_fake``, mean scores; ``d_gradient`` and ``g_gradient``, norms; ``variation`` of the
    generated images as a share of the real ones' (see `cell_moments`). Those of the critic are its last
    turn's.

    Raises
    ------
    ConfigError
        If the ranks cannot share the batch evenly.
    """
    return _Progressive(point, networks, data, ranks)


METHOD = Method(make_networks, lambda point: pggan.build(point)[0], make_update)


class _Progressive:
    def __init__(self, point: Point, networks: Networks, data: Data, ranks: Alone) -> None:
        assert point.latent_size is not None and point.gp_weight is not None  # noqa: S101, PT018
        self._point, self._networks, self._ranks = point, networks, ranks
        self._latent_size, self._gp_weight = point.latent_size, point.gp_weight
        self._share = share_of(point.batch_size, ranks.rank, ranks.ranks)
        self._feed = make_feed(data.images, point, self._share, point.n_critic)
        self._levels = pggan.levels_of(point.image_size)
        self._generators = [pggan.images_at(networks.generator, level) for level in range(self._levels)]
        self._first_values = [
            (networks[f"{part}_optimizer"], first_values(point, networks[part].trainable_variables))
            for part in ("generator", "discriminator")
        ]

    def __call__(self, step: tf.Tensor) -> Metrics:
        point, networks = self._point, self._networks
        stage = stage_of(step, point.steps, self._levels)
        begins = stage.level > stage_of(step - 1, point.steps, self._levels).level
        for optimizer, values in self._first_values:
            begin_again(optimizer, begins, values)
        with contextlib.ExitStack() as together:
            if self._ranks.ranks > 1:
                together.enter_context(statistics_over_ranks(self._ranks.gather))
            metrics: Metrics = {}
            for turn in range(point.n_critic):
                with one_after_another(metrics):
                    metrics = self._critic_turn(step, turn, stage)
            with one_after_another(metrics):
                metrics |= self._generator_turn(step, stage)
        update_average(networks.ema_generator, networks.generator, step, point.ema_decay)
        for generator in (networks.generator, networks.ema_generator):
            pggan.set_depth(generator, stage.depth)
        return metrics | {"depth": stage.depth}

    # --- turns ----------------------------------------------------------------------------------

    def _critic_turn(self, step: tf.Tensor, turn: int, stage: Stage) -> Metrics:
        pixels, noise, mix = self._feed.batch(step, turn), self._noise(step, turn), self._mix(step, turn)
        real_images = to_network(pixels)
        critic, optimizer = self._networks.discriminator, self._networks.discriminator_optimizer

        def at(level: int) -> tuple[Gradients, Metrics]:
            real = self._seen_at(level, real_images, stage.alpha)
            fake = self._generate(level, noise, stage.alpha)
            with tf.GradientTape() as tape:
                real_scores, fake_scores = (self._judge(images, stage.alpha) for images in (real, fake))
                loss = wasserstein_critic(real_scores, fake_scores)
                loss += DRIFT * tf.reduce_mean(tf.square(real_scores))
                scaled = optimizer.scale_loss(loss)
            gradients, penalty = with_penalty(
                optimizer,
                critic.trainable_variables,
                all_gradients(tape, scaled, critic.trainable_variables),
                self._gp_weight,
                lambda: gradient_penalty(lambda x: self._judge(x, stage.alpha), real, fake, mix),
            )
            metrics = {
                "d_loss": loss + self._gp_weight * penalty,
                "d_real": tf.reduce_mean(real_scores),
                "d_fake": tf.reduce_mean(fake_scores),
                "gradient_penalty": penalty,
                "moments": cell_moments(upscaled(fake, 2)),  # twice as large: of 8 pixels it knows no cells
            }
            return gradients, metrics

        gradients, metrics = self._at_its_level(stage, at)
        metrics["real_moments"] = cell_moments(real_images)
        metrics = self._apply("discriminator", gradients, metrics)
        moments = (metrics.pop(name) for name in ("moments", "real_moments"))
        return metrics | {"variation": relative_variation(*moments)}

    def _generator_turn(self, step: tf.Tensor, stage: Stage) -> Metrics:
        noise = self._noise(step, self._point.n_critic)

        def at(level: int) -> tuple[Gradients, Metrics]:
            with tf.GradientTape() as tape:
                fake = self._generate(level, noise, stage.alpha)
                loss = wasserstein_generator(self._judge(fake, stage.alpha))
                scaled = self._networks.generator_optimizer.scale_loss(loss)
            variables = self._networks.generator.trainable_variables
            return all_gradients(tape, scaled, variables), {"g_loss": loss}

        return self._apply("generator", *self._at_its_level(stage, at))

    def _at_its_level(
        self, stage: Stage, turn: Callable[[int], tuple[Gradients, Metrics]]
    ) -> tuple[Gradients, Metrics]:
        """Carry out `turn` at the stage's level, and no other."""
        branches = [lambda level=level: turn(level) for level in range(self._levels)]
        gradients, metrics = tf.switch_case(stage.level, branches)
        return gradients, metrics

    def _apply(self, part: str, gradients: Gradients, metrics: Metrics) -> Metrics:
        variables = getattr(self._networks, part).trainable_variables
        return update_part(self._networks, part, variables, gradients, metrics, self._ranks)

    # --- passes ---------------------------------------------------------------------------------

    def _generate(self, level: int, noise: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        *below, images = tf.nest.flatten(self._generators[level](noise, training=True))
        return _mixed(upscaled(below[0], 2), images, alpha) if below else images

    def _seen_at(self, level: int, real: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        """Real images as large as those of `level`, faded in as they are (Karras 2018, figure 2)."""
        images = downscaled(real, 2 ** (self._levels - 1 - level))
        return _mixed(upscaled(downscaled(images, 2), 2), images, alpha) if level else images

    def _judge(self, images: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
        return self._networks.discriminator(images, alpha=alpha, training=True)

    # --- draws ----------------------------------------------------------------------------------

    def _noise(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        seed = seed_for(self._point.seed, step, Draw.NOISE, turn)
        return draw_noise(seed, self._point.batch_size, self._latent_size)[self._share]

    def _mix(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        seed = seed_for(self._point.seed, step, Draw.MIX, turn)
        return uniform((self._point.batch_size, 1, 1, 1), seed)[self._share]


def first_values(point: Point, variables: Sequence[keras.Variable]) -> list[float]:
    """With what a point's optimizer of `variables` begins: one number for each of its own variables.

    That is 0 but for a few, such as Adagrad's sums. It is read from an optimizer of as many single weights.
    """
    single = [keras.Variable(np.zeros([1] * len(variable.shape), "float32")) for variable in variables]
    return [float(np.ravel(v)[0]) for v in _own(make_optimizer(point, single, point.learning_rate)).variables]


def begin_again(optimizer: keras.Optimizer, begins: tf.Tensor, values: Sequence[float]) -> None:
    """Set an optimizer's moments and its count of updates to `first_values`, if `begins` says so."""
    for variable, value in zip(_own(optimizer).variables, values, strict=True):
        if variable.name != "learning_rate":
            first = tf.fill(variable.shape, tf.cast(value, variable.dtype))
            variable.assign(tf.where(begins, first, variable))


def _own(optimizer: keras.Optimizer) -> keras.Optimizer:
    return getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales losses


def _mixed(a: tf.Tensor, b: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    return (1 - alpha) * a + alpha * b
