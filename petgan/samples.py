"""Images from a generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from petgan.errors import ConfigError

BATCH_SIZE = 64


def generate(
    generator: Any, count: int, seed: int, preset: str, inputs: np.ndarray | None = None
) -> np.ndarray:
    """Draw images from a generator in inference mode.

    Parameters
    ----------
    generator : keras.Model
    count : int
    seed : int
        Of the noise, which is standard normal; image i depends on (seed, i) alone.
    preset : str
        Whose generator it is: it says how images are made with it.
    inputs : ndarray (n, size, size, 1) uint8, optional
        Images of the run's size, which a generator that is shown images is shown in this order: it makes one
        of each, and so no more than `n`. As float32 they are what takes the place of noise already.

    Returns
    -------
    ndarray (count, size, size) uint8

    Raises
    ------
    ConfigError
        If the preset's generator must be shown images and there are none.
    """
    from petgan.methods import method_of
    from petgan.methods.pixels import to_pixels

    method = method_of(preset)
    shape = generator.inputs[0].shape[1:]
    if method.inputs is not None:
        if inputs is None or not len(inputs):
            raise ConfigError(f"a generator of preset {preset} must be shown images, and there are none")
        count = min(count, len(inputs))
    batches = []
    for first in range(0, count, BATCH_SIZE):
        if method.inputs is not None and inputs is not None:
            pixels = inputs[first : min(first + BATCH_SIZE, count)]
            noise = method.inputs(pixels) if pixels.dtype == np.uint8 else pixels
        else:
            # A whole batch always, so that an image does not depend on how many were asked for.
            stream = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, first]))
            noise = stream.standard_normal((BATCH_SIZE, *shape), np.float32)
        batches.append(to_pixels(method.images(generator, noise))[..., 0])
    return np.concatenate(batches)[:count]
