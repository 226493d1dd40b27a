"""Layers whose randomness depends on (seed, step, position) alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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


_streams: list[DropoutStream] = []


@contextlib.contextmanager
def dropout_stream(seed: tf.Tensor, offset: int, batch_size: int) -> Iterator[None]:
    """Within this block, `Dropout` draws its masks from `seed`."""
    _streams.append(DropoutStream(seed, offset, batch_size))
    try:
        yield
    finally:
        _streams.pop()


@keras.saving.register_keras_serializable("petgan")
class Dropout(keras.layers.Dropout):
    """Dropout whose mask is a slice of the global batch's mask, drawn without state.

    A rank that holds images 8 to 15 of 32 leaves out what one process with all 32 would.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return inputs
        stream = _streams[-1]
        seed = stream.seed + tf.constant([0, stream.drawn], tf.int64)
        stream.drawn += 1
        shape = (stream.batch_size, *inputs.shape[1:])
        uniform = tf.random.stateless_uniform(shape, seed, dtype=inputs.dtype)
        uniform = uniform[stream.offset : stream.offset + tf.shape(inputs)[0]]
        kept = tf.cast(uniform >= self.rate, inputs.dtype)
        return inputs * kept / (1 - self.rate)


def plain(model: keras.Model) -> keras.Model:
    """A copy in which every layer is Keras' own, for use without petgan."""

    def layer_of(layer: keras.Layer) -> Any:
        kind = keras.layers.Dropout if isinstance(layer, Dropout) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=layer_of)
    copy.set_weights(model.get_weights())
    return copy


def filters(published: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` of the published filter counts, the last one repeated beyond them."""
    return (*published, *[published[-1]] * count)[:count]
