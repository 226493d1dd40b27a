"""Networks that translate images (Park 2020, Contrastive Unpaired Translation), at a small scale.

Half the published filters, 4 residual blocks and not 9; edges are padded with grey (0) and not by reflection,
a plain stride halves an image, and there is no bias that a normalization would take away again.
"""

from __future__ import annotations

import keras
from keras import layers

from petgan.config import Point
from petgan.errors import ConfigError
from petgan.models.layers import LeakyReLU

GENERATOR_FILTERS = (32, 64, 128)  # published: 64, 128, 256
BLOCKS = 4  # published: 9
DISCRIMINATOR_LAYERS = ((32, 2), (64, 2), (128, 2), (256, 1))  # filters, stride; published: twice the filters
DISCRIMINATOR_KERNEL = 4
HEAD_UNITS = 64  # published: 256
OUTER_KERNEL = 7
EPSILON = 1e-5


def build(point: Point) -> tuple[keras.Model, keras.Model, keras.Model]:
    """Build the networks of a translation.

    Returns
    -------
    generator : keras.Model
        Images (n, size, size, 1) in [-1, 1] to images of the same shape.
    discriminator : keras.Model
        Images to scores of their patches, (n, size / 8, size / 8, 1).
    heads : keras.Model
        Features of patches, a list of (n, patches, channels), one for each of `encoder`'s, to a list of
        (n, patches, `HEAD_UNITS`).

    Raises
    ------
    ConfigError
        If the images cannot be halved twice.
    """
    size = point.image_size
    halvings = len(GENERATOR_FILTERS) - 1
    if size % 2**halvings:
        raise ConfigError(
            f"preset {point.preset} halves its images {halvings} times",
            value=f"{size} pixels",
            allowed=f"multiples of {2**halvings}",
        )
    generator = _generator(size)
    return generator, _discriminator(size), _heads(encoder(generator))


def encoder(generator: keras.Model) -> keras.Model:
    """The generator's first half: images to their features, as `build`'s heads take them.

    They are the image itself, each halved one, the first residual block and the middle one (Park 2020,
    section 4.1).
    """
    names = [_tap(number) for number in range(1, len(GENERATOR_FILTERS))] + [
        "block_0",
        f"block_{BLOCKS // 2}",
    ]
    return keras.Model(generator.input, [generator.get_layer(name).output for name in names])


def _tap(halving: int) -> str:
    return f"halved_{halving}"


def _generator(size: int) -> keras.Model:
    first, *deeper = GENERATOR_FILTERS
    image = keras.Input((size, size, 1))
    x = layers.Conv2D(first, OUTER_KERNEL, padding="same", use_bias=False)(image)
    x = _normalized_and_active(x)
    for number, channels in enumerate(deeper, 1):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", use_bias=False, name=_tap(number))(x)
        x = _normalized_and_active(x)
    for number in range(BLOCKS):
        inner = _normalized_and_active(_convolution(x.shape[-1])(x))
        inner = _normalization()(_convolution(x.shape[-1])(inner))
        x = layers.Add(name=f"block_{number}")([x, inner])
    for channels in reversed(GENERATOR_FILTERS[:-1]):
        x = layers.UpSampling2D()(x)
        x = _normalized_and_active(_convolution(channels)(x))
    x = layers.Conv2D(1, OUTER_KERNEL, padding="same", activation="tanh")(x)
    return keras.Model(image, x, name="generator")


def _discriminator(size: int) -> keras.Model:
    """Scores of patches (Isola 2017, section 6.1.2); as published, the first layer is not normalized."""
    x = image = keras.Input((size, size, 1))
    for number, (channels, stride) in enumerate(DISCRIMINATOR_LAYERS):
        options = {"strides": stride, "padding": "same", "use_bias": number == 0}
        x = layers.Conv2D(channels, DISCRIMINATOR_KERNEL, **options)(x)
        if number:
            x = _normalization()(x)
        x = LeakyReLU()(x)
    x = layers.Conv2D(1, DISCRIMINATOR_KERNEL, padding="same")(x)
    return keras.Model(image, x, name="discriminator")


def _heads(features: keras.Model) -> keras.Model:
    """For each kind of feature two layers with a ReLU between them (Park 2020, section 3)."""
    patches = [keras.Input((None, x.shape[-1])) for x in [features.input, *features.outputs]]
    embedded = [
        layers.Dense(HEAD_UNITS)(layers.Dense(HEAD_UNITS, activation="relu")(patch)) for patch in patches
    ]
    return keras.Model(patches, embedded, name="heads")


def _convolution(channels: int) -> keras.Layer:
    return layers.Conv2D(channels, 3, padding="same", use_bias=False)


def _normalization() -> keras.Layer:
    """Instance normalization without scale and offset, as published."""
    return layers.GroupNormalization(groups=-1, epsilon=EPSILON, center=False, scale=False)


def _normalized_and_active(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(_normalization()(x))
