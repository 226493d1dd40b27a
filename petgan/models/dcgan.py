"""The study's DCGAN: convolutions with batch normalization."""

from __future__ import annotations

import keras
from keras import layers

from petgan.config import Point, image_base
from petgan.models.blocks import activate, convolution_of, filters, normalize, score, wide
from petgan.models.layers import Dropout

FIRST_CHANNELS = 64
GENERATOR_FILTERS = (32, 16, 8, 4)
DISCRIMINATOR_FILTERS = (64, 128, 256, 512)
KERNEL = 5
MOMENTUM = 0.9


def build(point: Point) -> tuple[keras.Model, keras.Model]:
    """Build generator and discriminator; see `petgan.models.networks_of`.

    The quirk ``relu-before-leaky`` gives every convolution of the discriminator a ReLU of its own, as
    published: the LeakyReLU after it then does nothing.
    """
    return _generator(point), _discriminator(point)


def _generator(point: Point) -> keras.Model:
    def normalized_and_active(x: keras.KerasTensor) -> keras.KerasTensor:
        return activate(normalize(x, point.normalization, MOMENTUM), point.activation, "relu")

    base, doublings = image_base(point.image_size)
    first = wide(FIRST_CHANNELS, point.generator_width)
    as_image = layers.Reshape((base, base, first))
    noise = keras.Input((point.latent_size,))
    x = layers.Dense(base * base * first)(noise)
    # As published, each unit is normalized over the batch; other statistics need places and channels.
    if point.normalization == "batch":
        x = as_image(normalized_and_active(x))
    else:
        x = normalized_and_active(as_image(x))
    x = Dropout(point.dropout)(x)
    for channels in filters(GENERATOR_FILTERS, doublings, point.generator_width):
        x = layers.UpSampling2D()(x)
        x = layers.Conv2DTranspose(channels, KERNEL, padding="same")(x)
        x = normalized_and_active(x)
    full = keras.config.floatx()
    x = layers.Conv2DTranspose(1, KERNEL, padding="same", activation="tanh", dtype=full)(x)
    return keras.Model(noise, x, name="generator")


def _discriminator(point: Point) -> keras.Model:
    def active(x: keras.KerasTensor) -> keras.KerasTensor:
        return activate(x, point.activation, "leaky_relu")

    def normalized(x: keras.KerasTensor) -> keras.KerasTensor:
        return normalize(x, "none" if point.spectral_norm else point.normalization, MOMENTUM)

    convolution = convolution_of(point)
    own_activation = "relu" if "relu-before-leaky" in point.quirks else None
    x = image = keras.Input((point.image_size, point.image_size, 1))
    for block, published in enumerate(DISCRIMINATOR_FILTERS):
        channels = wide(published, point.discriminator_width)
        x = convolution(channels, KERNEL, strides=2, padding="same", activation=own_activation)(x)
        # As published: the first block normalizes before its LeakyReLU, the others after.
        x = active(normalized(x)) if block == 0 else normalized(active(x))
        x = Dropout(point.dropout)(x)
    x = layers.Activation("sigmoid", dtype=keras.config.floatx())(score(x, point))
    return keras.Model(image, x, name="discriminator")
