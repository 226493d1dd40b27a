"""A generator against a discriminator: one update as one fused graph.

The discriminator takes ``n_critic`` turns, then the generator one. Loss, penalties, augmentation and
precision are the point's; the networks are the preset's.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from petgan.config import Point
from petgan.distributed import ALONE, Alone
from petgan.draws import Draw, draw_noise, seed_for, uniform
from petgan.errors import ConfigError
from petgan.methods import Method, Metrics, Update
from petgan.methods.augment import adjust, augment, overfitting
from petgan.methods.feed import Data, make_feed
from petgan.methods.losses import LOSSES, UNDECIDED, gradient_penalty, lecam_penalty, r1_penalty
from petgan.methods.networks import (
    Networks,
    State,
    adversaries,
    cell_moments,
    computing_in,
    one_after_another,
    relative_variation,
    update_average,
    update_part,
    with_penalty,
)
from petgan.methods.pixels import to_network
from petgan.models import networks_of
from petgan.models.layers import (
    Segment,
    dropout_stream,
    statistics_over_ranks,
)
from petgan.models.spectral import find_vectors
from petgan.place import share_of
from petgan.policies import policy_of

LECAM_DECAY = 0.99  # of the scores' moving averages (Tseng 2021, section 4.1)


def make_networks(point: Point) -> Networks:
    """Build the networks and optimizers of a point; initial weights depend on its seed alone.

    Raises
    ------
    ConfigError
        If what the point asks of the discriminator cannot be.
    """
    keras.utils.set_random_seed(point.seed)
    with computing_in(point.compute_dtype):
        generator, discriminator = networks_of(point)
    if point.r1_weight is not None and not can_judge_in_one_pass(discriminator):
        raise ConfigError(
            "R1 is of one image at a time, and batch normalization mixes them",
            value="normalization: batch",
            allowed="instance, group, layer, none",
        )
    freeze(discriminator, 0 if point.init_from is None else point.freeze_layers)
    parts = adversaries(point, generator, discriminator)
    if point.ada_target is not None or point.lecam_weight is not None:
        parts["state"] = State(augment_probability=0.0, mean_real=0.0, mean_fake=0.0)
    return parts


def freeze(discriminator: keras.Model, layers: int) -> None:
    """Keep the first `layers` layers with kernels, and all before the next one, as they are (Mo 2020).

    Batch normalization among them uses and keeps the statistics that it came with.

    Raises
    ------
    ConfigError
        If nothing would be left to train.
    """
    kernels = 0
    for layer in discriminator.layers:
        kernels += hasattr(layer, "kernel")
        if kernels > layers:
            return
        layer.trainable = layers == 0
    if layers:
        raise ConfigError(
            "nothing of the discriminator is left to train",
            value=f"freeze_layers: {layers}",
            allowed=f"below {kernels}",
        )


def raw_scores(discriminator: keras.Model) -> keras.Model:
    """The discriminator up to its sigmoid, if it ends in one: losses are computed on logits.

    Raises
    ------
    ConfigError
        If its last layer has an activation in itself, which cannot be taken off.
    """
    last = discriminator.layers[-1]
    if isinstance(last, keras.layers.Activation) and last.activation is keras.activations.sigmoid:
        return keras.Model(discriminator.input, last.input)
    if getattr(last, "activation", keras.activations.linear) is not keras.activations.linear:
        raise ConfigError(
            "a discriminator ends in scores, or in a layer Activation('sigmoid') after them",
            value=f"{last.name} with {last.activation.__name__}",
        )
    return discriminator


def make_update(point: Point, networks: Networks, data: Data, ranks: Alone = ALONE) -> Update:
    """Make the function that carries out update `step`; see `petgan.methods.Method`.

    Its metrics: ``d_loss``, ``g_loss``; ``d_real`` and ``d_fake``, mean scores before any sigmoid;
    ``d_gradient`` and ``g_gradient``, norms; ``variation`` of the generated images as a share of the real
    ones' (see `cell_moments`); with a penalty its value before its weight, with adaptive augmentation its
    ``augment_probability``. Those of the discriminator are its last turn's.

    Raises
    ------
    ConfigError
        If the ranks cannot share the batch evenly.
    """
    return _Adversarial(point, networks, data, ranks)


METHOD = Method(make_networks, lambda point: networks_of(point)[0], make_update)


class _Adversarial:
    def __init__(self, point: Point, networks: Networks, data: Data, ranks: Alone) -> None:
        self._point, self._networks, self._ranks = point, networks, ranks
        self._share = share_of(point.batch_size, ranks.rank, ranks.ranks)
        self._feed = make_feed(data.images, point, self._share, point.n_critic)
        self._scores = raw_scores(networks.discriminator)
        self._policy = policy_of(point.augment, data.modality)
        self._ada_target = point.ada_target if self._policy else None
        assert point.loss is not None and point.latent_size is not None  # noqa: S101, PT018
        self._discriminator_loss, self._generator_loss = LOSSES[point.loss]
        self._latent_size = point.latent_size

    def __call__(self, step: tf.Tensor) -> Metrics:
        with contextlib.ExitStack() as together:
            if self._ranks.ranks > 1:
                together.enter_context(statistics_over_ranks(self._ranks.gather))
            metrics: Metrics = {}
            for turn in range(self._point.n_critic):
                with one_after_another(metrics):
                    metrics = self._discriminator_turn(step, turn)
            with one_after_another(metrics):
                metrics |= self._generator_turn(step)
            networks = self._networks
            update_average(networks.ema_generator, networks.generator, step, self._point.ema_decay)
        return metrics

    # --- turns ----------------------------------------------------------------------------------

    def _discriminator_turn(self, step: tf.Tensor, turn: int) -> Metrics:
        point, discriminator = self._point, self._networks.discriminator
        optimizer = self._networks.discriminator_optimizer
        pixels = self._feed.batch(step, turn)
        real_images = to_network(pixels, unit_range="unit-range" in point.quirks)
        fake_images = self._generate(step, turn)
        real = self._augmented(real_images, step, Draw.AUGMENT_REAL, turn)
        fake = self._augmented(fake_images, step, Draw.AUGMENT_FAKE, turn)
        metrics: Metrics = {"moments": tf.stack([cell_moments(real_images), cell_moments(fake_images)])}
        with tf.GradientTape() as tape:
            real_scores, fake_scores = self._judge_both(real, fake, step, turn)
            loss = self._discriminator_loss(real_scores, fake_scores)
            metrics |= {"d_real": tf.reduce_mean(real_scores), "d_fake": tf.reduce_mean(fake_scores)}
            if point.lecam_weight is not None:
                state = self._networks.state
                metrics["lecam_penalty"] = lecam_penalty(
                    real_scores, fake_scores, state.mean_real, state.mean_fake
                )
                loss += point.lecam_weight * metrics["lecam_penalty"]
            if self._ada_target is not None:
                metrics["d_sign"] = overfitting(real_scores, UNDECIDED[str(point.loss)])
            scaled = optimizer.scale_loss(loss)
        variables = discriminator.trainable_variables
        gradients = tape.gradient(scaled, variables)
        for name, weight, penalty in self._penalties(real, fake, step, turn):
            gradients, metrics[name] = with_penalty(optimizer, variables, gradients, weight, penalty)
            loss += weight * metrics[name]
        metrics["d_loss"] = loss
        metrics = update_part(self._networks, "discriminator", variables, gradients, metrics, self._ranks)
        if point.weight_clip is not None:
            for variable in variables:
                variable.assign(tf.clip_by_value(variable, -point.weight_clip, point.weight_clip))
        find_vectors(discriminator)
        self._update_state(step, metrics)
        real_moments, fake_moments = tf.unstack(metrics.pop("moments"))
        metrics["variation"] = relative_variation(fake_moments, real_moments)
        return metrics

    def _penalties(
        self, real: tf.Tensor, fake: tf.Tensor, step: tf.Tensor, turn: int
    ) -> Iterator[tuple[str, float, Callable[[], tf.Tensor]]]:
        """Name, weight and value of each penalty on the discriminator's slopes."""
        point = self._point
        if point.gp_weight is not None:
            yield "gradient_penalty", point.gp_weight, lambda: self._gradient_penalty(real, fake, step, turn)
        if point.r1_weight is not None:
            judge = functools.partial(self._judge, step=step, draw=Draw.REAL_DROPOUT, turn=turn)
            yield "r1_penalty", point.r1_weight, lambda: r1_penalty(judge, real)

    def _generator_turn(self, step: tf.Tensor) -> Metrics:
        turn = self._point.n_critic
        with tf.GradientTape() as tape:
            fake = self._augmented(self._generate(step, turn), step, Draw.AUGMENT_FAKE, turn)
            loss = self._generator_loss(self._judge(fake, step, Draw.FAKE_DROPOUT, turn))
            scaled = self._networks.generator_optimizer.scale_loss(loss)
        variables = self._networks.generator.trainable_variables
        gradients = tape.gradient(scaled, variables)
        return update_part(self._networks, "generator", variables, gradients, {"g_loss": loss}, self._ranks)

    def _update_state(self, step: tf.Tensor, metrics: Metrics) -> None:
        point, networks = self._point, self._networks
        if point.lecam_weight is not None:
            t = tf.cast(step, "float32")
            keep = tf.minimum(LECAM_DECAY, (1 + t) / (10 + t))
            for mean, score in ((networks.state.mean_real, "d_real"), (networks.state.mean_fake, "d_fake")):
                mean.assign(keep * mean + (1 - keep) * tf.cast(metrics[score], "float32"))
        if self._ada_target is not None:
            probability = networks.state.augment_probability
            metrics["augment_probability"] = tf.identity(probability)
            probability.assign(adjust(probability, metrics.pop("d_sign"), self._ada_target, point.batch_size))

    # --- passes ---------------------------------------------------------------------------------

    def _generate(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        point = self._point
        noise = draw_noise(
            seed_for(point.seed, step, Draw.NOISE, turn),
            point.batch_size,
            self._latent_size,
            is_uniform="uniform-noise" in point.quirks,
        )[self._share]
        with dropout_stream(self._segment(step, Draw.GENERATOR_DROPOUT, turn)):
            images = self._networks.generator(noise, training=True)
        return tf.cast(images, keras.backend.floatx())

    def _augmented(self, images: tf.Tensor, step: tf.Tensor, draw: Draw, turn: int) -> tf.Tensor:
        if not self._policy:
            return images
        point = self._point
        probability = None if self._ada_target is None else self._networks.state.augment_probability.value
        seed = seed_for(point.seed, step, draw, turn)
        return augment(images, self._policy, seed, self._share.start, point.batch_size, probability)

    def _judge(self, images: tf.Tensor, step: tf.Tensor, draw: Draw, turn: int) -> tf.Tensor:
        """Scores (n, 1) before any sigmoid."""
        with dropout_stream(self._segment(step, draw, turn)):
            return tf.cast(self._scores(images, training=True), keras.backend.floatx())

    def _judge_both(
        self, real: tf.Tensor, fake: tf.Tensor, step: tf.Tensor, turn: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores of real and of generated images, in one pass where they do not touch each other in it."""
        if not can_judge_in_one_pass(self._networks.discriminator):
            real_scores = self._judge(real, step, Draw.REAL_DROPOUT, turn)
            return real_scores, self._judge(fake, step, Draw.FAKE_DROPOUT, turn)
        segments = [self._segment(step, draw, turn) for draw in (Draw.REAL_DROPOUT, Draw.FAKE_DROPOUT)]
        with dropout_stream(*segments):
            scores = self._scores(tf.concat([real, fake], axis=0), training=True)
        real_scores, fake_scores = tf.split(tf.cast(scores, keras.backend.floatx()), 2)
        return real_scores, fake_scores

    def _segment(self, step: tf.Tensor, draw: Draw, turn: int) -> Segment:
        point = self._point
        return Segment(seed_for(point.seed, step, draw, turn), self._share.start)

    def _gradient_penalty(self, real: tf.Tensor, fake: tf.Tensor, step: tf.Tensor, turn: int) -> tf.Tensor:
        point = self._point
        mix = uniform((point.batch_size, 1, 1, 1), seed_for(point.seed, step, Draw.MIX, turn))[self._share]
        return gradient_penalty(lambda x: self._judge(x, step, Draw.MIX_DROPOUT, turn), real, fake, mix)


def can_judge_in_one_pass(discriminator: keras.Model) -> bool:
    """Whether real and generated images may share a pass: not where they would share batch statistics."""
    return not any(isinstance(layer, keras.layers.BatchNormalization) for layer in discriminator.layers)
