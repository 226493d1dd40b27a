"""A small U-Net that tells the noise in an image (Ho 2020, appendix B, with one residual block a level)."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from petgan.config import Point, image_base
from petgan.models.blocks import filters
from petgan.models.layers import Dropout

TIMES = 1000  # of the diffusion; 0 is the image, TIMES is noise
WIDTHS = (128, 64, 32, 16)  # filters by level, the coarsest (7 or 8 pixels) first
TIME_WIDTH = 64
GROUPS = 8
KERNEL = 3


def build(point: Point) -> tuple[keras.Model]:
    """Build the network, the only one of its preset.

    Returns
    -------
    tuple of keras.Model
        One: [noisy images (n, image_size, image_size, 1), times (n, 1) int in 0..TIMES] to the noise in
        them, (n, image_size, image_size, 1), float32 whatever it computes in.
    """
    full, image_size, dropout = keras.config.floatx(), point.image_size, point.dropout
    widths = filters(WIDTHS, image_base(image_size)[1] + 1, width=1)[::-1]
    image = keras.Input((image_size, image_size, 1), name="image")
    time = keras.Input((1,), name="time", dtype="int32")
    moment = _embedded(time)

    x = layers.Conv2D(widths[0], KERNEL, padding="same")(image)
    skipped = []
    for level, width in enumerate(widths):
        if level:
            x = layers.Conv2D(width, KERNEL, strides=2, padding="same")(x)
        x = _residual(x, moment, width, dropout)
        skipped.append(x)
    x = _residual(x, moment, widths[-1], dropout)
    x = _attended(x)
    x = _residual(x, moment, widths[-1], dropout)
    for level, width in reversed(list(enumerate(widths))):
        x = layers.Concatenate()([x, skipped.pop()])
        x = _residual(x, moment, width, dropout)
        if level:
            x = layers.UpSampling2D()(x)
            x = layers.Conv2D(widths[level - 1], KERNEL, padding="same")(x)
    x = _active(x)
    x = layers.Conv2D(1, KERNEL, padding="same", kernel_initializer="zeros", dtype=full)(x)
    return (keras.Model([image, time], x, name="denoiser"),)


def sinusoids(times: int, width: int) -> np.ndarray:
    """The embedding of Vaswani 2017, section 3.5: row t is sin(w t), cos(w t) at w from 1 to about 1/10000.

    Returns
    -------
    ndarray (times, width) float32
    """
    half = width // 2
    phases = np.arange(times)[:, None] * 10_000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.sin(phases), np.cos(phases)], axis=1).astype(np.float32)


def _embedded(time: keras.KerasTensor) -> keras.KerasTensor:
    # A table that is not trained: Keras has no layer for a sine, and a file must load without petgan.
    table = layers.Embedding(TIMES + 1, TIME_WIDTH, trainable=False)
    x = layers.Flatten()(table(time))
    table.set_weights([sinusoids(TIMES + 1, TIME_WIDTH)])
    for _ in range(2):
        x = layers.Dense(4 * TIME_WIDTH, activation="silu")(x)
    return x


def _active(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Activation("silu")(layers.GroupNormalization(GROUPS)(x))


def _residual(
    x: keras.KerasTensor, moment: keras.KerasTensor, width: int, dropout: float
) -> keras.KerasTensor:
    """Two convolutions, the time added between them; the last begins as 0, so that the block begins as x."""
    y = layers.Conv2D(width, KERNEL, padding="same")(_active(x))
    y = layers.Add()([y, layers.Reshape((1, 1, width))(layers.Dense(width)(moment))])
    y = Dropout(dropout)(_active(y))
    y = layers.Conv2D(width, KERNEL, padding="same", kernel_initializer="zeros")(y)
    if x.shape[-1] != width:
        x = layers.Conv2D(width, 1)(x)
    return layers.Add()([x, y])


def _attended(x: keras.KerasTensor) -> keras.KerasTensor:
    """Attention of one head between all places."""
    height, across, width = x.shape[1:]
    places = layers.Reshape((height * across, width))(layers.GroupNormalization(GROUPS)(x))
    y = layers.MultiHeadAttention(1, width)(places, places)
    return layers.Add()([x, layers.Reshape((height, across, width))(y)])
