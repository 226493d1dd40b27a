"""Translation between two sets of images without pairs: Contrastive Unpaired Translation (Park 2020).

A discriminator asks that translated images look like those of the dataset; a contrastive loss asks that each
patch of one has more in common with the same patch of its source than with other patches of it. Images of the
dataset are to stay what they are, by the same loss.

There is no pool of earlier translations for the discriminator, as some of its kind have: what an update
sees would then depend on what came before it.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from petgan.config import Point
from petgan.distributed import ALONE, Alone
from petgan.draws import Draw, seed_for, uniform
from petgan.methods import Method, Metrics, Update
from petgan.methods.feed import Data, make_feed
from petgan.methods.losses import LOSSES, patch_contrast
from petgan.methods.networks import (
    Networks,
    averaged_copy,
    cell_moments,
    computing_in,
    learning_rate,
    make_optimizer,
    relative_variation,
    update_average,
    update_part,
)
from petgan.methods.pixels import to_network
from petgan.models import cut
from petgan.place import share_of

PATCHES = 256  # of an image and a layer, at most (Park 2020, section 4.1)
TEMPERATURE = 0.07


def make_networks(point: Point) -> Networks:
    """Build the networks and optimizers of a point; initial weights depend on its seed alone.

    The generator's optimizer has the heads' weights, too.
    """
    keras.utils.set_random_seed(point.seed)
    with computing_in(point.compute_dtype):
        generator, discriminator, heads = cut.build(point)
    rate = learning_rate(point)
    return Networks(
        generator=generator,
        discriminator=discriminator,
        heads=heads,
        ema_generator=averaged_copy(generator),
        generator_optimizer=make_optimizer(point, _trained_together(generator, heads), rate),
        discriminator_optimizer=make_optimizer(point, discriminator.trainable_variables, rate),
    )


def _trained_together(generator: keras.Model, heads: keras.Model) -> list[keras.Variable]:
    return [*generator.trainable_variables, *heads.trainable_variables]


def make_update(point: Point, networks: Networks, data: Data, ranks: Alone = ALONE) -> Update:
    """Make the function that carries out update `step`; see `petgan.methods.Method`.

    Its metrics: ``d_loss``; ``g_loss``, of which ``nce_loss`` is the contrastive part; ``d_real`` and
    ``d_fake``, mean scores; ``d_gradient`` and ``g_gradient``, norms; ``variation`` of the translated images
    as a share of the real ones' (see `cell_moments`).

    Raises
    ------
    ConfigError
        If the ranks cannot share the batch evenly.
    """
    return _Translation(point, networks, data, ranks)


METHOD = Method(make_networks, lambda point: cut.build(point)[0], make_update, inputs=to_network)


class _Translation:
    def __init__(self, point: Point, networks: Networks, data: Data, ranks: Alone) -> None:
        assert data.source is not None and point.loss is not None  # noqa: S101, PT018
        self._point, self._networks, self._ranks = point, networks, ranks
        share = share_of(point.batch_size, ranks.rank, ranks.ranks)
        self._feed = make_feed(data.images, point, share, 1)
        self._sources = make_feed(data.source, point, share, 1, Draw.SOURCE_IMAGES)
        generator = networks.generator
        self._encoder = cut.encoder(generator)
        self._generator = keras.Model(generator.input, [generator.output, *self._encoder.outputs])
        self._discriminator_loss, self._generator_loss = LOSSES[point.loss]

    def __call__(self, step: tf.Tensor) -> Metrics:
        networks, optimizer = self._networks, self._networks.generator_optimizer
        real = to_network(self._feed.batch(step, 0))
        originals = tf.concat([to_network(self._sources.batch(step, 0)), real], axis=0)
        with tf.GradientTape() as tape:
            translated, *features = self._generator(originals, training=True)
            translated = _full(translated)
            fake, _ = tf.split(translated, 2)
            with tape.stop_recording():
                metrics = self._discriminator_turn(real, fake)
            keys = self._patches([originals, *features], step)
            queries = self._patches([translated, *self._encoder(translated, training=True)], step)
            contrast = _contrast(queries, keys)
            loss = self._generator_loss(_full(networks.discriminator(fake, training=True))) + contrast
            scaled = optimizer.scale_loss(loss)
        variables = _trained_together(networks.generator, networks.heads)
        gradients, losses = tape.gradient(scaled, variables), {"g_loss": loss, "nce_loss": contrast}
        metrics |= update_part(networks, "generator", variables, gradients, losses, self._ranks)
        update_average(networks.ema_generator, networks.generator, step, self._point.ema_decay)
        return metrics

    def _discriminator_turn(self, real: tf.Tensor, fake: tf.Tensor) -> Metrics:
        discriminator = self._networks.discriminator
        with tf.GradientTape() as tape:
            # In one pass: each image is normalized by itself.
            scores = _full(discriminator(tf.concat([real, fake], axis=0), training=True))
            real_scores, fake_scores = tf.split(scores, 2)
            loss = self._discriminator_loss(real_scores, fake_scores)
            scaled = self._networks.discriminator_optimizer.scale_loss(loss)
        variables = discriminator.trainable_variables
        metrics = {
            "d_loss": loss,
            "d_real": tf.reduce_mean(real_scores),
            "d_fake": tf.reduce_mean(fake_scores),
            "moments": tf.stack([cell_moments(fake), cell_moments(real)]),
        }
        gradients = tape.gradient(scaled, variables)
        metrics = update_part(self._networks, "discriminator", variables, gradients, metrics, self._ranks)
        return metrics | {"variation": relative_variation(*tf.unstack(metrics.pop("moments")))}

    def _patches(self, layers: list[tf.Tensor], step: tf.Tensor) -> list[tf.Tensor]:
        """Features (n, patches, d) of unit length, of each layer, at the update's places."""
        patches = []
        for number, features in enumerate(layers):
            _, height, width, channels = features.shape
            places = draw_places(self._point.seed, step, number, height * width)
            flat = tf.reshape(features, (-1, height * width, channels))
            patches.append(tf.gather(flat, places, axis=1))
        return [tf.math.l2_normalize(_full(x), axis=-1) for x in self._networks.heads(patches, training=True)]


def _contrast(queries: list[tf.Tensor], keys: list[tf.Tensor]) -> tf.Tensor:
    """Mean over layers, and over sources and images of the dataset, of the contrastive loss.

    That is half of what the paper adds up (eq. 5, both weights 1), as the adversarial loss is half of it.
    """
    losses = [patch_contrast(q, k, TEMPERATURE) for q, k in zip(queries, keys, strict=True)]
    return tf.add_n(losses) / len(losses)


def draw_places(seed: int, step: tf.Tensor, layer: int, places: int) -> tf.Tensor:
    """Which of a layer's places are compared in an update: at most `PATCHES`, the same in all images."""
    stream = seed_for(seed, step, Draw.PATCHES, turn=layer)
    return tf.math.top_k(uniform((places,), stream), min(places, PATCHES)).indices


def _full(values: tf.Tensor) -> tf.Tensor:
    """In the precision of the losses."""
    return tf.cast(values, keras.backend.floatx())
