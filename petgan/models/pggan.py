"""Networks that grow with their images (Karras 2018, Progressive Growing of GANs), at a small scale.

An eighth of the published filters, and images that begin at 7 or 8 pixels and not at 4. Level 0 is that
first resolution; each further one doubles it.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from petgan.config import Point, image_base
from petgan.models.blocks import filters
from petgan.models.layers import MinibatchStd, leaky_relu

FILTERS = (64, 64, 64, 32, 16, 8)  # by level; published, from 8 to 256 pixels: 8 times as many
PIXEL_NORM_EPSILON = 1e-8
RECTIFIER = "leaky_relu"  # of the generator, whose export is plain Keras; slope 0.2, too


def build(point: Point) -> tuple[keras.Model, keras.Model]:
    """Build generator and critic; both can work at each level.

    Returns
    -------
    generator : keras.Model
        (n, latent_size) float32 to (n, image_size, image_size, 1) float32: what the levels make of it,
        enlarged and mixed as `set_depth` says, at first level 0 alone. Not bounded to [-1, 1].
    critic : Critic
    """
    return _generator(point), Critic(point.image_size)


def levels_of(image_size: int) -> int:
    """How many resolutions lead to this one, itself included."""
    return image_base(image_size)[1] + 1


# --- generator ----------------------------------------------------------------------------------


def _generator(point: Point) -> keras.Model:
    base, top = image_base(point.image_size)
    width, *others = filters(FILTERS, top + 1, width=1)
    noise = keras.Input((point.latent_size,))
    x = EqualizedDense(base * base * width, activation=RECTIFIER)(_pixel_norm(noise))
    x = _pixel_norm(layers.Reshape((base, base, width))(x))
    x = _convolution(x, width)
    shown = [_shown(x, 0, top)]
    for level, width in enumerate(others, 1):
        x = layers.UpSampling2D()(x)
        for _ in range(2):
            x = _convolution(x, width)
        shown.append(_shown(x, level, top))
    return keras.Model(noise, layers.Add(dtype=keras.config.floatx())(shown), name="generator")


def _convolution(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    return _pixel_norm(EqualizedConv2D(width, 3, padding="same", activation=RECTIFIER)(x))


def _pixel_norm(x: keras.KerasTensor) -> keras.KerasTensor:
    """Each pixel's channels over their root mean square (Karras 2018, section 4.2)."""
    return layers.RMSNormalization(epsilon=PIXEL_NORM_EPSILON, trainable=False)(x)


def _shown(x: keras.KerasTensor, level: int, top: int) -> keras.KerasTensor:
    image = EqualizedConv2D(1, 1, name=f"image_{level}", dtype=keras.config.floatx())(x)
    share = Share(float(level == 0), name=f"share_{level}", dtype=keras.config.floatx())(image)
    return layers.UpSampling2D(2 ** (top - level))(share)


def images_at(generator: keras.Model, level: int) -> keras.Model:
    """The part of `generator` that leads to the images of the level below, if there is one, and of `level`.

    Its outputs are both, in this order.
    """
    names = [f"image_{at}" for at in (level - 1, level) if at >= 0]
    return keras.Model(generator.input, [generator.get_layer(name).output for name in names])


def set_depth(generator: keras.Model, depth: tf.Tensor) -> None:
    """Have `generator` show images of level `depth`, with 1 - |depth - l| of each level l beside it."""
    shares = [layer for layer in generator.layers if isinstance(layer, Share)]
    for level, layer in enumerate(shares):
        layer.share.assign(tf.nn.relu(1.0 - tf.abs(depth - level)))


# --- critic -------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("petgan")
class Critic(keras.Model):
    """Scores (n, 1) float32 of images at any level.

    Parameters
    ----------
    image_size : int
        Pixels, at the last level.
    """

    def __init__(self, image_size: int, **options: Any) -> None:
        super().__init__(name="critic", **options)
        self._base, self._top = image_base(image_size)
        widths = filters(FILTERS, self._top + 1, width=1)
        self.entries = [EqualizedConv2D(width, 1, activation=leaky_relu) for width in widths]
        self.blocks = [_halving(width, narrow) for width, narrow in zip(widths[1:], widths, strict=False)]
        self.halve = layers.AveragePooling2D(2)
        self.end = _ending(widths[0])
        self.build((None, image_size, image_size, 1))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for level in range(self._top + 1):
            size = self._base << level
            self.call(tf.zeros((1, size, size, 1)))

    def call(self, images: tf.Tensor, alpha: tf.Tensor | float = 1.0) -> tf.Tensor:
        """Score images (n, size, size, 1), whose size tells the level.

        The way through their own level counts alpha, and that through the level below, which is shown the
        images at half their size, 1 - alpha.
        """
        level = (images.shape[1] // self._base).bit_length() - 1
        x = self.entries[level](images)
        for at in range(level, 0, -1):
            x = self.blocks[at - 1](x)
            if at == level:
                halved = self.entries[at - 1](self.halve(images))
                x = halved + tf.cast(alpha, x.dtype) * (x - halved)
        return self.end(x)


def _halving(width: int, next_width: int) -> keras.Model:
    convolutions = [EqualizedConv2D(w, 3, padding="same", activation=leaky_relu) for w in (width, next_width)]
    return keras.Sequential([*convolutions, layers.AveragePooling2D(2)])


def _ending(width: int) -> keras.Model:
    return keras.Sequential(
        [
            MinibatchStd(),
            EqualizedConv2D(width, 3, padding="same", activation=leaky_relu),
            layers.Flatten(),
            EqualizedDense(width, activation=leaky_relu),
            EqualizedDense(1, dtype=keras.config.floatx()),
        ]
    )


# --- layers -------------------------------------------------------------------------------------


class _Equalized:
    """A kernel ~ N(0, 1) that is used times He's constant, so that all weights learn equally fast.

    The constant is sqrt(2 / inputs of a unit), without a rectifier sqrt(1 / inputs) (Karras 2018, section
    4.1; He 2015, eq. 10 and 14).
    """

    def __init__(self, *sizes: Any, **options: Any) -> None:
        normal = keras.initializers.RandomNormal(stddev=1.0)
        super().__init__(*sizes, **{"kernel_initializer": normal, **options})

    @property
    def constant(self: Any) -> float:
        gain = 1 if self.activation is keras.activations.linear else 2
        return math.sqrt(gain / math.prod(self.kernel.shape[:-1]))

    def plain_weights(self: Any) -> list[np.ndarray]:
        kernel, bias = self.get_weights()
        return [kernel * np.float32(self.constant), bias]


@keras.saving.register_keras_serializable("petgan")
class EqualizedConv2D(_Equalized, keras.layers.Conv2D):
    """A convolution with an equalized learning rate."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return super().convolution_op(inputs, kernel * self.constant)

    def plain(self) -> keras.Layer:
        return keras.layers.Conv2D.from_config(self.get_config())


@keras.saving.register_keras_serializable("petgan")
class EqualizedDense(_Equalized, keras.layers.Dense):
    """A fully connected layer with an equalized learning rate."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return super().call(inputs * self.constant)

    def plain(self) -> keras.Layer:
        return keras.layers.Dense.from_config(self.get_config())


@keras.saving.register_keras_serializable("petgan")
class Share(keras.layers.Layer):
    """Images times a number that is not learned, but set.

    Parameters
    ----------
    share : float
        At first.
    """

    def __init__(self, share: float, **options: Any) -> None:
        super().__init__(**options)
        self._first = share

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.share = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(self._first), trainable=False, name="share"
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * self.share

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "share": self._first}

    def plain(self) -> keras.Layer:
        return keras.layers.Rescaling(float(np.asarray(self.share)), name=self.name)

    def plain_weights(self) -> list[np.ndarray]:
        return []
