"""Networks that make images four times as large (Ledig 2017, SRGAN), at a small scale.

Half the published filters and half the blocks of the generator, a quarter of the discriminator's filters.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from petgan.config import Point
from petgan.errors import ConfigError
from petgan.models.layers import BatchNormalization, LeakyReLU

FACTOR = 4
GENERATOR_FILTERS = 32  # published: 64
BLOCKS = 8  # published: 16
DISCRIMINATOR_LAYERS = (  # filters, stride; published: four times the filters
    (16, 1), (16, 2), (32, 1), (32, 2), (64, 1), (64, 2), (128, 1), (128, 2),
)  # fmt: skip
DISCRIMINATOR_UNITS = 256  # published: 1024
KERNEL = 3
OUTER_KERNEL = 9
MOMENTUM = 0.9


def build(point: Point) -> tuple[keras.Model, keras.Model]:
    """Build generator and discriminator.

    Returns
    -------
    generator : keras.Model
        Images (n, h, w, 1) in [-1, 1], of any size, to images (n, 4 h, 4 w, 1) float32. They are not bounded
        to [-1, 1].
    discriminator : keras.Model
        Images (n, image_size, image_size, 1) to scores (n, 1) float32, before any sigmoid.

    Raises
    ------
    ConfigError
        If there is no image of a quarter of the size.
    """
    if point.image_size % FACTOR:
        raise ConfigError(
            f"preset {point.preset} learns from images at a quarter of their size",
            value=f"{point.image_size} pixels",
            allowed=f"multiples of {FACTOR}",
        )
    return _generator(), _discriminator(point.image_size)


def _generator() -> keras.Model:
    """SRResNet (Ledig 2017, figure 4)."""
    image = keras.Input((None, None, 1))
    x = first = _active(layers.Conv2D(GENERATOR_FILTERS, OUTER_KERNEL, padding="same")(image))
    for _ in range(BLOCKS):
        x = layers.Add()([x, _normalized(_active(_normalized(x)))])
    x = layers.Add()([first, _normalized(x)])
    for _ in range(FACTOR.bit_length() - 1):
        x = layers.Conv2D(4 * GENERATOR_FILTERS, KERNEL, padding="same")(x)
        x = _active(PixelShuffle()(x))
    full = keras.config.floatx()
    x = layers.Conv2D(1, OUTER_KERNEL, padding="same", dtype=full)(x)
    return keras.Model(image, x, name="generator")


def _normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Conv2D(GENERATOR_FILTERS, KERNEL, padding="same")(x)
    return BatchNormalization(momentum=MOMENTUM)(x)


def _active(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.PReLU(shared_axes=(1, 2))(x)


def _discriminator(image_size: int) -> keras.Model:
    x = image = keras.Input((image_size, image_size, 1))
    for block, (channels, stride) in enumerate(DISCRIMINATOR_LAYERS):
        x = layers.Conv2D(channels, KERNEL, strides=stride, padding="same")(x)
        if block > 0:
            x = BatchNormalization(momentum=MOMENTUM)(x)
        x = LeakyReLU()(x)
    x = LeakyReLU()(layers.Dense(DISCRIMINATOR_UNITS)(layers.Flatten()(x)))
    return keras.Model(image, layers.Dense(1, dtype=keras.config.floatx())(x), name="discriminator")


@keras.saving.register_keras_serializable("petgan")
class PixelShuffle(keras.layers.Layer):
    """Turn (n, h, w, 4 c) into (n, 2 h, 2 w, c) (Shi 2016, eq. 4).

    Of each pixel, channels [0, c), [c, 2 c), ... are its upper left, upper right, lower left, lower right.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        assert input_shape[-1] is not None  # noqa: S101
        self._channels = input_shape[-1] // 4

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.depth_to_space(inputs, 2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, height, width, channels = input_shape
        return (
            n,
            None if height is None else 2 * height,
            None if width is None else 2 * width,
            None if channels is None else channels // 4,
        )

    def plain(self) -> keras.Layer:
        """As a transposed convolution, for Keras has no such layer."""
        return keras.layers.Conv2DTranspose(self._channels, 2, strides=2, use_bias=False, name=self.name)

    def plain_weights(self) -> list[np.ndarray]:
        return [np.eye(4 * self._channels, dtype=np.float32).reshape(2, 2, self._channels, -1)]
