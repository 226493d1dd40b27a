"""The study's WGAN-GP networks, which the preset with weight clipping shares: no normalization."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from petgan.config import image_base
from petgan.models.layers import Dropout, filters

FIRST_CHANNELS = 64
GENERATOR_FILTERS = (32, 16, 8, 4)
LAST_FILTERS = 64
GENERATOR_KERNEL = 4
CRITIC_LAYERS = ((64, 2), (128, 2), (256, 2), (512, 1))  # filters, stride
CRITIC_KERNEL = 3
SLOPE = 0.2


def build(
    image_size: int, latent_size: int, dropout: float, quirks: Sequence[str]
) -> tuple[keras.Model, keras.Model]:
    """Build generator and critic; see `petgan.models.build`."""
    base, doublings = image_base(image_size)
    noise = keras.Input((latent_size,))
    x = layers.Dense(base * base * FIRST_CHANNELS, activation="relu")(noise)
    x = layers.Reshape((base, base, FIRST_CHANNELS))(x)
    for channels in filters(GENERATOR_FILTERS, doublings):
        x = layers.UpSampling2D()(x)
        x = layers.Conv2DTranspose(channels, GENERATOR_KERNEL, padding="same", activation="relu")(x)
    x = layers.Conv2D(LAST_FILTERS, GENERATOR_KERNEL, padding="same", activation="relu")(x)
    x = layers.Conv2D(1, GENERATOR_KERNEL, padding="same", activation="tanh")(x)
    generator = keras.Model(noise, x, name="generator")

    x = image = keras.Input((image_size, image_size, 1))
    for channels, stride in CRITIC_LAYERS:
        x = layers.Conv2D(channels, CRITIC_KERNEL, strides=stride, padding="same")(x)
        x = layers.LeakyReLU(SLOPE)(x)
        x = Dropout(dropout)(x)
    x = layers.Dense(1)(layers.Flatten()(x))
    return generator, keras.Model(image, x, name="critic")
