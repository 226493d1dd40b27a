"""The study's first network: fully connected layers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
from keras import layers

from petgan.models.layers import BatchNormalization, Dropout

GENERATOR_UNITS = (256, 512, 1024)
DISCRIMINATOR_UNITS = (512, 256)
SLOPE = 0.2


def build(
    image_size: int, latent_size: int, dropout: float, quirks: Sequence[str]
) -> tuple[keras.Model, keras.Model]:
    """Build generator and discriminator; see `petgan.models.build`."""
    shape = (image_size, image_size, 1)

    x = noise = keras.Input((latent_size,))
    for units in GENERATOR_UNITS:
        x = layers.Dense(units)(x)
        x = layers.LeakyReLU(SLOPE)(x)
        x = Dropout(dropout)(x)
        x = BatchNormalization(momentum=0.8)(x)
    x = layers.Dense(math.prod(shape), activation="tanh")(x)
    generator = keras.Model(noise, layers.Reshape(shape)(x), name="generator")

    image = keras.Input(shape)
    x = layers.Flatten()(image)
    for units in DISCRIMINATOR_UNITS:
        x = layers.Dense(units)(x)
        x = layers.LeakyReLU(SLOPE)(x)
        x = Dropout(dropout)(x)
    x = layers.Activation("sigmoid")(layers.Dense(1)(x))
    return generator, keras.Model(image, x, name="discriminator")
