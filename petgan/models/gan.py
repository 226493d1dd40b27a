"""The study's first network: fully connected layers only."""

from __future__ import annotations

import math

import keras
from keras import layers

from petgan.config import Point
from petgan.models.blocks import activate, dense_of, normalize, score, wide
from petgan.models.layers import Dropout

GENERATOR_UNITS = (256, 512, 1024)
DISCRIMINATOR_UNITS = (512, 256)
ACTIVATION = "leaky_relu"
MOMENTUM = 0.8


def build(point: Point) -> tuple[keras.Model, keras.Model]:
    """Build generator and discriminator; see `petgan.models.networks_of`."""
    shape = (point.image_size, point.image_size, 1)
    full = keras.config.floatx()

    x = noise = keras.Input((point.latent_size,))
    for units in GENERATOR_UNITS:
        x = layers.Dense(wide(units, point.generator_width))(x)
        x = activate(x, point.activation, ACTIVATION)
        x = Dropout(point.dropout)(x)
        x = normalize(x, point.normalization, MOMENTUM)
    x = layers.Dense(math.prod(shape), activation="tanh", dtype=full)(x)
    generator = keras.Model(noise, layers.Reshape(shape, dtype=full)(x), name="generator")

    image = keras.Input(shape)
    x = layers.Flatten()(image)
    for units in DISCRIMINATOR_UNITS:
        x = dense_of(point)(wide(units, point.discriminator_width))(x)
        x = activate(x, point.activation, ACTIVATION)
        x = Dropout(point.dropout)(x)
    x = layers.Activation("sigmoid", dtype=full)(score(x, point))
    return generator, keras.Model(image, x, name="discriminator")
