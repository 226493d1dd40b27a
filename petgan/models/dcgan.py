"""The study's DCGAN: convolutions with batch normalization."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from petgan.config import image_base
from petgan.models.layers import BatchNormalization, Dropout, filters

FIRST_CHANNELS = 64
GENERATOR_FILTERS = (32, 16, 8, 4)
DISCRIMINATOR_FILTERS = (64, 128, 256, 512)
KERNEL = 5
SLOPE = 0.2
MOMENTUM = 0.9


def build(
    image_size: int, latent_size: int, dropout: float, quirks: Sequence[str]
) -> tuple[keras.Model, keras.Model]:
    """Build generator and discriminator; see `petgan.models.build`.

    The quirk ``relu-before-leaky`` gives every convolution of the discriminator a ReLU of its own, as
    published: the LeakyReLU after it then does nothing.
    """
    return _generator(image_size, latent_size, dropout), _discriminator(image_size, dropout, quirks)


def _generator(image_size: int, latent_size: int, dropout: float) -> keras.Model:
    base, doublings = image_base(image_size)
    noise = keras.Input((latent_size,))
    x = layers.Dense(base * base * FIRST_CHANNELS)(noise)
    x = BatchNormalization(momentum=MOMENTUM)(x)
    x = layers.ReLU()(x)
    x = layers.Reshape((base, base, FIRST_CHANNELS))(x)
    x = Dropout(dropout)(x)
    for channels in filters(GENERATOR_FILTERS, doublings):
        x = layers.UpSampling2D()(x)
        x = layers.Conv2DTranspose(channels, KERNEL, padding="same")(x)
        x = BatchNormalization(momentum=MOMENTUM)(x)
        x = layers.ReLU()(x)
    x = layers.Conv2DTranspose(1, KERNEL, padding="same", activation="tanh")(x)
    return keras.Model(noise, x, name="generator")


def _discriminator(image_size: int, dropout: float, quirks: Sequence[str]) -> keras.Model:
    activation = "relu" if "relu-before-leaky" in quirks else None
    x = image = keras.Input((image_size, image_size, 1))
    for block, channels in enumerate(DISCRIMINATOR_FILTERS):
        x = layers.Conv2D(channels, KERNEL, strides=2, padding="same", activation=activation)(x)
        pair = [layers.LeakyReLU(SLOPE), BatchNormalization(momentum=MOMENTUM)]
        # As published: the first block normalizes before its LeakyReLU, the others after.
        for layer in reversed(pair) if block == 0 else pair:
            x = layer(x)
        x = Dropout(dropout)(x)
    x = layers.Dense(1)(layers.Flatten()(x))
    x = layers.Activation("sigmoid")(x)
    return keras.Model(image, x, name="discriminator")
