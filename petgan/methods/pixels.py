"""Between the pixels of a dataset and the numbers of a network."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


def to_network(pixels: tf.Tensor, *, unit_range: bool = False) -> tf.Tensor:
    """Turn uint8 pixels into Keras' float in [-1, 1]; in [0, 1] as published with `unit_range`."""
    values = tf.cast(pixels, keras.backend.floatx())
    return values / 255 if unit_range else values / 127.5 - 1


def downscaled(images: tf.Tensor, factor: int) -> tf.Tensor:
    """Images (n, h / factor, w / factor, c): each pixel is the mean of factor x factor."""
    return tf.nn.avg_pool2d(images, factor, factor, "VALID")


def upscaled(images: tf.Tensor, factor: int) -> tf.Tensor:
    """Images (n, factor * h, factor * w, c): each pixel becomes factor x factor like it."""
    return tf.repeat(tf.repeat(images, factor, axis=1), factor, axis=2)


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Turn a generator's output, float in [-1, 1], into uint8.

    A generator trained with the quirk ``unit-range`` learned [0, 1]; the study read it by the same rule,
    which is where the grey veil of its images comes from.
    """
    return np.clip(np.round((np.asarray(images) + 1) * 127.5), 0, 255).astype(np.uint8)
