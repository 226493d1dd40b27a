"""Random numbers without state: drawn from (seed, step, position in the global batch) alone.

An update does not know what came before it, and a resumed run draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import math
from enum import IntEnum

import keras
import tensorflow as tf


class Draw(IntEnum):
    """What a random number is for: each use has a stream of its own."""

    IMAGES = 0
    NOISE = 1
    MIX = 2
    GENERATOR_DROPOUT = 3
    REAL_DROPOUT = 4
    FAKE_DROPOUT = 5
    MIX_DROPOUT = 6
    AUGMENT_REAL = 7
    AUGMENT_FAKE = 8
    SOURCE_IMAGES = 9
    TIMES = 10
    PATCHES = 11


WORDS_IN_A_BLOCK = 4  # that Philox makes of one count

assert len(Draw) <= 2**4  # noqa: S101 - the bits that `seed_for` has for them


def seed_for(seed: int, step: tf.Tensor | int, draw: Draw, turn: int) -> tf.Tensor:
    """The seed (2,) int64 of one draw in turn `turn` of update `step`.

    Its second number is the use's own place in step, turn, draw and layer (the last 8 bits, which
    `dropout_stream` counts up), so that no two uses share a seed. It takes 59 bits.
    """
    place = ((tf.cast(step, tf.int64) * 2**16 + turn) * 2**4 + int(draw)) * 2**8
    return tf.stack([tf.constant(seed, tf.int64), place])


def bits(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Random int32 over their whole range.

    Floats are made of these, for XLA draws other floats than TensorFlow from the same seed.
    """
    return tf.reshape(_words(math.prod(shape), seed, 0), shape)


def halves(shape: tuple[int, ...], seed: tf.Tensor, start: int = 0) -> tf.Tensor:
    """Random uint16 over their whole range: the halves of `bits`, without the first `start` halves."""
    count = math.prod(shape)
    block, before = divmod(start, 2 * WORDS_IN_A_BLOCK)
    numbers = _words((before + count + 1) // 2, seed, block)
    return tf.reshape(tf.reshape(tf.bitcast(numbers, tf.uint16), (-1,))[before : before + count], shape)


def _words(count: int, seed: tf.Tensor, block: int) -> tf.Tensor:
    """Philox' int32 from a block on (Salmon 2011): the seed is its key and the upper half of its counter.

    TensorFlow's own way from a seed to these two (StatelessRandomGetKeyCounter) takes, where XLA compiles it,
    no more than the lower 32 bits of each number.
    """
    key, place = tf.unstack(tf.cast(seed, tf.uint64))
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=(count,),
        key=key[None],
        counter=tf.stack([tf.constant(block, tf.uint64), place]),
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.int32,
    )


def uniform(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Keras' floats in [0, 1), multiples of 2^-24."""
    upper = tf.bitwise.right_shift(tf.bitcast(bits(shape, seed), tf.uint32), tf.constant(8, tf.uint32))
    return tf.cast(tf.bitcast(upper, tf.int32), keras.backend.floatx()) * 2.0**-24


def normal(shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers: each of two uniform ones (Box and Muller 1958), of at most 5.8."""
    radius, angle = tf.unstack(uniform((2, *shape), seed))
    return tf.sqrt(-2 * tf.math.log(1 - radius)) * tf.cos(2 * math.pi * angle)


def draw_indices(seed: tf.Tensor, batch_size: int, images: int) -> tf.Tensor:
    """Positions (batch_size,) of training images, drawn with replacement as the study did."""
    return tf.random.stateless_uniform((batch_size,), seed, maxval=images, dtype=tf.int32, alg="philox")


def draw_noise(seed: tf.Tensor, batch_size: int, latent_size: int, *, is_uniform: bool = False) -> tf.Tensor:
    """Noise (batch_size, latent_size): standard normal, or uniform in [-1, 1)."""
    shape = (batch_size, latent_size)
    return 2 * uniform(shape, seed) - 1 if is_uniform else normal(shape, seed)
