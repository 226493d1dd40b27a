"""Images from a generator."""

from __future__ import annotations

from typing import Any

import numpy as np

BATCH_SIZE = 64


def generate(generator: Any, count: int, seed: int) -> np.ndarray:
    """Draw images from a generator in inference mode.

    Parameters
    ----------
    generator : keras.Model
        (n, latent_size) to (n, size, size, 1) in [-1, 1].
    count : int
    seed : int
        Of the noise, which is standard normal; image i depends on (seed, i) alone.

    Returns
    -------
    ndarray (count, size, size) uint8
    """
    from petgan.steps import to_pixels

    latent_size = generator.input_shape[1]
    batches = []
    for first in range(0, count, BATCH_SIZE):
        # A whole batch always, so that an image does not depend on how many were asked for.
        stream = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, first]))
        noise = stream.standard_normal((BATCH_SIZE, latent_size), np.float32)
        batches.append(to_pixels(generator(noise, training=False).numpy()[..., 0]))
    return np.concatenate(batches)[:count]
