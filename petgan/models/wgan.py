"""The study's WGAN-GP networks, which the preset with weight clipping shares.

As published they have no normalization; another one comes after each hidden convolution.
"""

from __future__ import annotations

import keras
from keras import layers

from petgan.config import Point, image_base
from petgan.models.blocks import activate, convolution_of, filters, normalize, score, wide
from petgan.models.layers import Dropout

FIRST_CHANNELS = 64
GENERATOR_FILTERS = (32, 16, 8, 4)
LAST_FILTERS = 64
GENERATOR_KERNEL = 4
CRITIC_LAYERS = ((64, 2), (128, 2), (256, 2), (512, 1))  # filters, stride
CRITIC_KERNEL = 3
MOMENTUM = 0.9


def build(point: Point) -> tuple[keras.Model, keras.Model]:
    """Build generator and critic; see `petgan.models.networks_of`."""
    return _generator(point), _critic(point)


def _generator(point: Point) -> keras.Model:
    def normalized_and_active(x: keras.KerasTensor) -> keras.KerasTensor:
        return activate(normalize(x, point.normalization, MOMENTUM), point.activation, "relu")

    base, doublings = image_base(point.image_size)
    width = point.generator_width
    first, last = wide(FIRST_CHANNELS, width), wide(LAST_FILTERS, width)
    noise = keras.Input((point.latent_size,))
    x = activate(layers.Dense(base * base * first)(noise), point.activation, "relu")
    x = layers.Reshape((base, base, first))(x)
    for channels in filters(GENERATOR_FILTERS, doublings, width):
        x = layers.UpSampling2D()(x)
        x = layers.Conv2DTranspose(channels, GENERATOR_KERNEL, padding="same")(x)
        x = normalized_and_active(x)
    x = normalized_and_active(layers.Conv2D(last, GENERATOR_KERNEL, padding="same")(x))
    full = keras.config.floatx()
    x = layers.Conv2D(1, GENERATOR_KERNEL, padding="same", activation="tanh", dtype=full)(x)
    return keras.Model(noise, x, name="generator")


def _critic(point: Point) -> keras.Model:
    normalization = "none" if point.spectral_norm else point.normalization
    x = image = keras.Input((point.image_size, point.image_size, 1))
    for published, stride in CRITIC_LAYERS:
        channels = wide(published, point.discriminator_width)
        x = convolution_of(point)(channels, CRITIC_KERNEL, strides=stride, padding="same")(x)
        x = normalize(x, normalization, MOMENTUM)
        x = activate(x, point.activation, "leaky_relu")
        x = Dropout(point.dropout)(x)
    return keras.Model(image, score(x, point), name="critic")
