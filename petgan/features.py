"""Images to features, by a network with learned weights; without such weights there are no features.

A network that was never trained is blind on medical images, so none is offered. TensorFlow is imported
when a network is opened, not before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from petgan.errors import CheckpointError, InputError
from petgan.registry import Registry, load
from petgan.runs import atomic_path, file_digest

BATCH_SIZE = 32
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that can be asked for by name.

    Parameters
    ----------
    build : str
        ``"module:function"``; the function returns a Keras model without its learned weights,
        (n, size, size, 3) float32 in [-1, 1] to (n, d).
    size : int
        Pixels that the network takes.
    cached_weights : str
        The file of its learned weights in Keras' cache.
    """

    build: str
    size: int
    cached_weights: str


@dataclass(frozen=True)
class Resize:
    """A way to bring images to the network's size; `label` says how, for the record."""

    label: str
    kernel: Image.Resampling


FEATURE_NETWORKS: Registry[FeatureNetwork] = Registry("feature network")
FEATURE_NETWORKS.add(
    "inception-v3",
    FeatureNetwork(
        "petgan.features:inception_v3", 299, "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
)

RESIZES: Registry[Resize] = Registry("resize")
# Parmar et al. 2022: the kernel alone moves FID by several points; Pillow's widens as the image shrinks.
RESIZES.add("antialias", Resize("antialias(pillow-bicubic)", Image.Resampling.BICUBIC))
RESIZES.add("nearest", Resize("nearest", Image.Resampling.NEAREST))  # as the published study did


def find_weights(weights: Path | str | None = None, network: str = "inception-v3") -> Path | None:
    """The file of learned weights to use: `weights`, or the one in Keras' cache, or None.

    Raises
    ------
    InputError
        If `weights` is given and is no file.
    """
    if weights is not None:
        if not Path(weights).is_file():
            raise InputError(
                f"there is no weights file {weights}",
                hint="give the file of a trained network, or leave it out and be scored without",
            )
        return Path(weights)
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    cached = home / "models" / FEATURE_NETWORKS[network].cached_weights
    return cached if cached.is_file() else None


def network_id(weights: Path, resize: str = "antialias", network: str = "inception-v3") -> str:
    """What must be equal for two scores to compare: network, weights, size, resize, input range."""
    size, label = FEATURE_NETWORKS[network].size, RESIZES[resize].label
    return f"{network}/{file_digest(weights)[:8]}/{size}/{label}/-1..1"


class Extractor:
    """A feature network with its weights loaded.

    Parameters
    ----------
    weights : path
        Learned weights, as Keras saves them.
    resize : str
        A name of `RESIZES`.
    network : str
        A name of `FEATURE_NETWORKS`.

    Attributes
    ----------
    id : str
        See `network_id`.

    Raises
    ------
    CheckpointError
        If the file holds no weights of this network, or ones that were never trained.
    """

    def __init__(self, weights: Path, resize: str = "antialias", network: str = "inception-v3") -> None:
        kind = FEATURE_NETWORKS[network]
        self.size, self.kernel = kind.size, RESIZES[resize].kernel
        self.id = network_id(weights, resize, network)
        self._infer = _load(load(kind.build)(), weights, network)

    def features(self, images: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Features (n, d) float32 of images (n, s, s) or (n, s, s, 1) uint8.

        `progress` is called with (done, total) after each batch.
        """
        out = []
        for start in range(0, len(images), BATCH_SIZE):
            grey = resized(images[start : start + BATCH_SIZE], self.size, self.kernel) / 127.5 - 1
            out.append(self._infer(np.repeat(grey[..., None], 3, axis=3)))
            if progress is not None:
                progress(min(start + BATCH_SIZE, len(images)), len(images))
        return np.concatenate(out)

    def cached_features(
        self, images: np.ndarray, folder: Path, name: str, progress: Progress | None = None
    ) -> np.ndarray:
        """`features`, kept in `folder` for the next time.

        Parameters
        ----------
        images : ndarray (n, s, s) or (n, s, s, 1) uint8
        folder : path
        name : str
            What tells these images from all others, such as dataset digest and split.
        """
        key = hashlib.sha256(f"{name}\n{self.id}".encode()).hexdigest()[:16]
        file = folder / f"features-{key}.npy"
        try:
            kept = np.load(file, allow_pickle=False)
            if kept.ndim == 2 and len(kept) == len(images):
                return kept
        except (OSError, ValueError):
            pass  # not there, or damaged: made anew
        features = self.features(images, progress)
        with atomic_path(file) as temporary, open(temporary, "wb") as out:
            np.save(out, features, allow_pickle=False)
        return features


def resized(images: np.ndarray, size: int, kernel: Image.Resampling = Image.Resampling.BICUBIC) -> np.ndarray:
    """Grey images (n, s, s) or (n, s, s, 1) as float32 (n, size, size), not rounded.

    The default kernel averages where it shrinks.
    """
    grey = images.reshape(images.shape[:3]).astype(np.float32)
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), kernel)) for image in grey])


def inception_v3() -> Any:
    """InceptionV3 up to its average pooling, 2048 features (Szegedy et al. 2016)."""
    import keras

    return keras.applications.InceptionV3(include_top=False, pooling="avg", weights=None)


def _load(model: Any, weights: Path, network: str) -> Callable[[np.ndarray], np.ndarray]:
    import keras
    import tensorflow as tf

    try:
        model.load_weights(weights)
    except Exception as error:  # Keras raises whatever it meets
        sentence = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{weights} does not hold the weights of {network}: {sentence}") from None
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if norms and not any(np.any(layer.moving_mean) for layer in norms):
        raise CheckpointError(
            f"{weights} holds weights that were never trained, whose scores would mean nothing",
            hint="give the weights of a trained network, or leave them out and be scored without",
        )
    infer = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    return lambda x: infer(tf.constant(x, tf.float32)).numpy()
