"""The networks of each preset."""

from __future__ import annotations

from typing import Any

import keras

from petgan.config import Point, resolve_point
from petgan.presets import PRESETS
from petgan.registry import load


def build(preset: str, image_size: int = 224, **options: Any) -> tuple[keras.Model, ...]:
    """Build the networks of a preset, with fresh weights; for a GAN these two, for others see its module.

    Parameters
    ----------
    preset : str
        A name of `petgan.presets.PRESETS`.
    image_size : int
        Pixels; 7 or 8 times a power of two.
    **options
        Other keys of `petgan.config.Point`, such as ``latent_size``, ``dropout``, ``quirks``,
        ``normalization``; the preset's own where absent.

    Raises
    ------
    ConfigError
        If the preset, the size or an option is impossible.
    """
    return networks_of(resolve_point({"preset": preset, "image_size": image_size, **options}))


def networks_of(point: Point) -> tuple[keras.Model, ...]:
    """Build the networks of a point, with fresh weights: of ``gan``, ``dcgan``, ``wgan`` and ``wgan-gp`` two.

    The other presets' are told by their modules.

    Returns
    -------
    generator : keras.Model
        (n, latent_size) float32 to (n, image_size, image_size, 1) float32 in [-1, 1].
    discriminator : keras.Model
        Images to (n, 1) float32: a probability for ``gan`` and ``dcgan``, a score for ``wgan`` and
        ``wgan-gp``.

    Raises
    ------
    ConfigError
        If the preset's networks cannot be what the point says.
    """
    networks: tuple[keras.Model, ...] = load(PRESETS[point.preset].networks)(point)
    return networks
