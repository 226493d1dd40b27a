"""The networks of each preset."""

from __future__ import annotations

from typing import Any

import keras

from petgan.config import resolve_point
from petgan.presets import PRESETS
from petgan.registry import load


def build(preset: str, image_size: int = 224, **options: Any) -> tuple[keras.Model, keras.Model]:
    """Build the two networks of a preset, with fresh weights.

    Parameters
    ----------
    preset : str
        A name of `petgan.presets.PRESETS`.
    image_size : int
        Pixels; 7 or 8 times a power of two.
    **options
        ``latent_size``, ``dropout``, ``quirks``; the preset's own where absent.

    Returns
    -------
    generator : keras.Model
        (n, latent_size) float32 to (n, image_size, image_size, 1) float32 in [-1, 1].
    discriminator : keras.Model
        Images to (n, 1): a probability for ``gan`` and ``dcgan``, a score for ``wgan`` and ``wgan-gp``.

    Raises
    ------
    ConfigError
        If the preset, the size or an option is impossible.
    """
    point = resolve_point({"preset": preset, "image_size": image_size, **options})
    networks = load(PRESETS[preset].networks)
    generator, discriminator = networks(
        image_size=image_size, latent_size=point.latent_size, dropout=point.dropout, quirks=point.quirks
    )
    return generator, discriminator
