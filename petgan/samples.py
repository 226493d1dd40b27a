"""Images from a generator, and sheets of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from petgan.runs import atomic_path

BATCH_SIZE = 64
GAP = 2  # pixels between the images of a sheet


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


def sheet(images: np.ndarray) -> np.ndarray:
    """Lay images (n, size, size) uint8 out as one nearly square sheet on black."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    pitch = images.shape[1] + GAP
    out = np.zeros((rows * pitch - GAP, columns * pitch - GAP), np.uint8)
    for i, image in enumerate(images):
        top, left = pitch * (i // columns), pitch * (i % columns)
        out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def save_png(path: Path, image: np.ndarray) -> None:
    """Write a grey image (h, w) uint8 as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
