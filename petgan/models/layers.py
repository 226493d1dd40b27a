"""Layers that see the global batch: dropout drawn by (seed, step, position), statistics over all ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf


@dataclass
class DropoutStream:
    """Seeds for the dropout layers of one pass through a network.

    Parameters
    ----------
    seed : tf.Tensor (2,) int64
        Of the pass; its layers count up from it.
    offset, batch_size : int
        The position of this process' first image in the global batch, and the size of that batch.
    """

    seed: tf.Tensor
    offset: int
    batch_size: int
    drawn: int = field(default=0)


_stream: ContextVar[DropoutStream] = ContextVar("dropout_stream")


@contextlib.contextmanager
def dropout_stream(seed: tf.Tensor, offset: int, batch_size: int) -> Iterator[None]:
    """Within this block, `Dropout` draws its masks from `seed`."""
    before = _stream.set(DropoutStream(seed, offset, batch_size))
    try:
        yield
    finally:
        _stream.reset(before)


@keras.saving.register_keras_serializable("petgan")
class Dropout(keras.layers.Dropout):
    """Dropout whose mask is a slice of the global batch's mask, drawn without state.

    A rank that holds images 8 to 15 of 32 leaves out what one process with all 32 would.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return inputs
        stream = _stream.get()
        seed = stream.seed + tf.constant([0, stream.drawn], tf.int64)
        stream.drawn += 1
        shape = (stream.batch_size, *inputs.shape[1:])
        uniform = tf.random.stateless_uniform(shape, seed, dtype=inputs.dtype)
        uniform = uniform[stream.offset : stream.offset + tf.shape(inputs)[0]]
        kept = tf.cast(uniform >= self.rate, inputs.dtype)
        return inputs * kept / (1 - self.rate)


Gather = Callable[[tf.Tensor], tf.Tensor]
_gather: ContextVar[Gather | None] = ContextVar("gather", default=None)


@contextlib.contextmanager
def statistics_over_ranks(gather: Gather) -> Iterator[None]:
    """Within this block, `BatchNormalization` normalizes by the statistics of all ranks' images.

    Parameters
    ----------
    gather : callable
        Every rank's tensor (...) to all of them (ranks, ...), differentiable on each rank.
    """
    before = _gather.set(gather)
    try:
        yield
    finally:
        _gather.reset(before)


@keras.saving.register_keras_serializable("petgan")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' own batch normalization, but within `statistics_over_ranks` over the global batch.

    The ranks' shares are equally large, so that the global mean is the mean of their means m_r, and the
    global variance the mean of their variances plus the variance of the m_r. (The mean square minus the
    squared mean would lose digits, and one collective for the mean and one for the squares takes longer.)
    """

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        mean, variance = super()._moments(inputs, mask)
        gather = _gather.get()
        if gather is None:
            return mean, variance
        means, variances = tf.unstack(gather(tf.stack([mean, variance])), axis=1)
        mean = tf.reduce_mean(means, axis=0)
        return mean, tf.reduce_mean(variances + tf.square(means - mean), axis=0)


PLAIN = {Dropout: keras.layers.Dropout, BatchNormalization: keras.layers.BatchNormalization}


def plain(model: keras.Model) -> keras.Model:
    """A copy in which every layer is Keras' own, for use without petgan."""

    def layer_of(layer: keras.Layer) -> Any:
        return PLAIN.get(type(layer), type(layer)).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=layer_of)
    copy.set_weights(model.get_weights())
    return copy


def filters(published: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` of the published filter counts, the last one repeated beyond them."""
    return (*published, *[published[-1]] * count)[:count]
