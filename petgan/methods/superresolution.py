"""Images of four times the size: SRGAN (Ledig 2017), with the content loss on pixels ("SRGAN-MSE").

The generator is shown what is left of a real image where each pixel is the mean of 4 x 4, and is to make the
image of it. Its loss is the mean square of what it misses, and a thousandth of what the discriminator says.
The published training begins with the first of both alone.
"""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import tensorflow as tf

from petgan.config import Point
from petgan.distributed import ALONE, Alone
from petgan.methods import Method, Metrics, Update
from petgan.methods.feed import Data, make_feed
from petgan.methods.losses import bce_discriminator, bce_generator
from petgan.methods.networks import (
    Networks,
    adversaries,
    cell_moments,
    computing_in,
    relative_variation,
    update_average,
    update_part,
)
from petgan.methods.pixels import downscaled, to_network
from petgan.models import srgan
from petgan.models.layers import statistics_over_ranks
from petgan.place import share_of

ADVERSARIAL_WEIGHT = 1e-3  # Ledig 2017, eq. 3


def make_networks(point: Point) -> Networks:
    """Build the networks and optimizers of a point; initial weights depend on its seed alone."""
    keras.utils.set_random_seed(point.seed)
    with computing_in(point.compute_dtype):
        generator, discriminator = srgan.build(point)
    return adversaries(point, generator, discriminator)


def shown(images: np.ndarray) -> np.ndarray:
    """What the generator is shown of real images.

    Parameters
    ----------
    images : ndarray (n, size, size, 1) uint8

    Returns
    -------
    ndarray (n, size / 4, size / 4, 1) float32
        In [-1, 1].
    """
    return np.asarray(_small(to_network(images)), np.float32)


def _small(images: tf.Tensor) -> tf.Tensor:
    return downscaled(images, srgan.FACTOR)


def make_update(point: Point, networks: Networks, data: Data, ranks: Alone = ALONE) -> Update:
    """Make the function that carries out update `step`; see `petgan.methods.Method`.

    Its metrics: ``d_loss``; ``g_loss``, of which ``content_loss`` is the mean square; ``d_real`` and
    ``d_fake``, mean scores before any sigmoid; ``d_gradient`` and ``g_gradient``, norms; ``variation`` of the
    generated images as a share of the real ones' (see `cell_moments`).

    Raises
    ------
    ConfigError
        If the ranks cannot share the batch evenly.
    """
    return _SuperResolution(point, networks, data, ranks)


METHOD = Method(make_networks, lambda point: srgan.build(point)[0], make_update, inputs=shown)


class _SuperResolution:
    def __init__(self, point: Point, networks: Networks, data: Data, ranks: Alone) -> None:
        self._point, self._networks, self._ranks = point, networks, ranks
        share = share_of(point.batch_size, ranks.rank, ranks.ranks)
        self._feed = make_feed(data.images, point, share, 1)

    def __call__(self, step: tf.Tensor) -> Metrics:
        networks = self._networks
        real = to_network(self._feed.batch(step, 0))
        with contextlib.ExitStack() as together:
            if self._ranks.ranks > 1:
                together.enter_context(statistics_over_ranks(self._ranks.gather))
            with tf.GradientTape() as tape:
                fake = networks.generator(_small(real), training=True)
                with tape.stop_recording():
                    metrics = self._discriminator_turn(real, fake)
                content = tf.reduce_mean(tf.square(fake - real))
                loss = content + ADVERSARIAL_WEIGHT * bce_generator(self._judge(fake))
                scaled = networks.generator_optimizer.scale_loss(loss)
            metrics |= self._apply("generator", tape, scaled, {"g_loss": loss, "content_loss": content})
        update_average(networks.ema_generator, networks.generator, step, self._point.ema_decay)
        return metrics

    def _discriminator_turn(self, real: tf.Tensor, fake: tf.Tensor) -> Metrics:
        with tf.GradientTape() as tape:
            real_scores, fake_scores = self._judge(real), self._judge(fake)
            loss = bce_discriminator(real_scores, fake_scores)
            scaled = self._networks.discriminator_optimizer.scale_loss(loss)
        metrics = {
            "d_loss": loss,
            "d_real": tf.reduce_mean(real_scores),
            "d_fake": tf.reduce_mean(fake_scores),
            "moments": tf.stack([cell_moments(fake), cell_moments(real)]),
        }
        metrics = self._apply("discriminator", tape, scaled, metrics)
        return metrics | {"variation": relative_variation(*tf.unstack(metrics.pop("moments")))}

    def _judge(self, images: tf.Tensor) -> tf.Tensor:
        return self._networks.discriminator(images, training=True)

    def _apply(self, part: str, tape: tf.GradientTape, loss: tf.Tensor, metrics: Metrics) -> Metrics:
        variables = getattr(self._networks, part).trainable_variables
        gradients = tape.gradient(loss, variables)
        return update_part(self._networks, part, variables, gradients, metrics, self._ranks)
