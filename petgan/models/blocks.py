"""What a point chooses in every network: normalization, activation, widths, how a discriminator ends."""

from __future__ import annotations

import keras
from keras import layers

from petgan.config import Point
from petgan.errors import ConfigError
from petgan.models.layers import BatchNormalization, GroupNormalization, LeakyReLU, MinibatchStd
from petgan.models.spectral import SpectralConv2D, SpectralDense

GROUPS = 8


def normalize(x: keras.KerasTensor, kind: str, momentum: float) -> keras.KerasTensor:
    """Put a normalization behind `x`.

    Parameters
    ----------
    x : KerasTensor (n, ..., channels)
    kind : str
        ``batch``; ``instance`` (Ulyanov 2016), ``group`` (Wu 2018; 8 groups, or the most up to 8 that divide
        the channels) and ``layer`` (Ba 2016), which are groups of one channel, of some and of all channels
        of one image; ``none``.
    momentum : float
        Of the moving statistics of ``batch``.

    Raises
    ------
    ConfigError
        If an instance has no places to take statistics over.
    """
    if kind == "none":
        return x
    if kind == "batch":
        return BatchNormalization(momentum=momentum)(x)
    channels = x.shape[-1]
    if kind == "instance" and len(x.shape) == 2:
        raise ConfigError(
            "instance normalization is of images, and a fully connected layer makes none",
            value="normalization: instance",
            allowed="batch, group, layer, none",
        )
    some = next(groups for groups in range(GROUPS, 0, -1) if channels % groups == 0)
    groups = {"instance": channels, "group": some, "layer": 1}[kind]
    return GroupNormalization(groups)(x)


def activate(x: keras.KerasTensor, chosen: str | None, published: str) -> keras.KerasTensor:
    """Put a hidden activation behind `x`: the chosen one, or the published one where none is."""
    name = chosen or published
    if name == "relu":
        return layers.ReLU()(x)
    return LeakyReLU()(x) if name == "leaky_relu" else layers.Activation(name)(x)


def wide(filters: int, width: float) -> int:
    """A published number of filters or units, times a factor; at least 1."""
    return max(1, round(filters * width))


def filters(published: tuple[int, ...], count: int, width: float) -> list[int]:
    """The first `count` of the published filter counts, the last one repeated beyond them, times `width`."""
    return [wide(number, width) for number in (*published, *[published[-1]] * count)[:count]]


def convolution_of(point: Point) -> type[keras.layers.Conv2D]:
    """The convolutions of a point's discriminator."""
    return SpectralConv2D if point.spectral_norm else layers.Conv2D


def dense_of(point: Point) -> type[keras.layers.Dense]:
    """The fully connected layers of a point's discriminator."""
    return SpectralDense if point.spectral_norm else layers.Dense


def score(x: keras.KerasTensor, point: Point) -> keras.KerasTensor:
    """How a discriminator ends: one number (n, 1) for each image, not in half precision."""
    if point.minibatch_std:
        x = MinibatchStd()(x)
    return dense_of(point)(1, dtype=keras.config.floatx())(layers.Flatten()(x))
