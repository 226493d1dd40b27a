"""Images to features, by networks with learned weights; without such weights there are no features.

A network that was never trained is blind on medical images, so none is offered. TensorFlow is imported
when a network is opened, not before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from petgan.errors import CheckpointError, InputError
from petgan.registry import Registry, load
from petgan.runs import atomic_path, file_digest

BATCH_SIZE = 32
MODEL_SUFFIX = ".keras"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that is known by name.

    Parameters
    ----------
    build : str
        ``"module:function"``; the function returns a Keras model without its learned weights,
        (n, size, size, 3) float32 in [-1, 1] to (n, d).
    cached_weights : str
        The file of its learned weights in Keras' cache.
    """

    build: str
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
        "petgan.features:inception_v3", "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
)

RESIZES: Registry[Resize] = Registry("resize")
# Parmar et al. 2022: the kernel alone moves FID by several points; Pillow's widens as the image shrinks.
RESIZES.add("antialias", Resize("antialias(pillow-bicubic)", Image.Resampling.BICUBIC))
RESIZES.add("nearest", Resize("nearest", Image.Resampling.NEAREST))  # as the published study did


@dataclass(frozen=True)
class NetworkFile:
    """A feature network that can be had here.

    Parameters
    ----------
    name : str
        What its scores are called after.
    file : path
        Its learned weights, or, of a network that is not in `FEATURE_NETWORKS`, a whole Keras model.
    """

    name: str
    file: Path


def find_networks(
    weights: Path | str | None = None, models: Sequence[Path | str] = ()
) -> tuple[NetworkFile, ...]:
    """The networks to take features of: InceptionV3, if it has weights here, and then `models`.

    Parameters
    ----------
    weights : path, optional
        Of InceptionV3; by default those in Keras' cache, where they are there.
    models : sequence of path
        Keras models (``.keras``), grey images (n, size, size, 1 or 3) in [-1, 1] to features (n, d), or to
        maps (n, h, w, d), which are averaged. Each is called after its file.

    Raises
    ------
    InputError
        If a file is not there, is of another kind, or two have the same name.
    """
    found = []
    if (inception := find_weights(weights)) is not None:
        found.append(NetworkFile("inception-v3", inception))
    for model in map(Path, models):
        if model.suffix != MODEL_SUFFIX or not model.is_file():
            raise InputError(
                "there is no such network",
                value=str(model),
                allowed=f"a Keras model, {MODEL_SUFFIX}",
                hint="weights of InceptionV3 alone are given with --weights",
            )
        if model.stem in [*(network.name for network in found), *FEATURE_NETWORKS]:
            raise InputError("two networks have the same name", value=model.stem, hint="rename its file")
        found.append(NetworkFile(model.stem, model))
    return tuple(found)


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


class Extractor:
    """A feature network with its weights loaded.

    Parameters
    ----------
    network : NetworkFile
    resize : str
        A name of `RESIZES`.

    Attributes
    ----------
    name : str
        The network's.
    size : int or None
        Pixels that it takes; None where it takes any, and images stay as they are.
    id : str
        What must be equal for two scores to compare: network, weights, size, resize, input range.

    Raises
    ------
    CheckpointError
        If the file holds no weights of this network, or ones that were never trained, or no model that
        turns grey images into features.
    """

    def __init__(self, network: NetworkFile, resize: str = "antialias") -> None:
        self.name, self._kernel = network.name, RESIZES[resize].kernel
        if network.name in FEATURE_NETWORKS:
            model = load(FEATURE_NETWORKS[network.name].build)()
            _load_weights(model, network)
        else:
            model = _load_model(network)
        _check_learned(model, network.file)
        self.size, self._channels = _image_shape(model, network.file)
        how = f"{self.size}/{RESIZES[resize].label}" if self.size else "any/none"
        self.id = f"{network.name}/{file_digest(network.file)[:8]}/{how}/-1..1"
        self._infer = _compiled(model)

    def features(self, images: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Features (n, d) float32 of images (n, s, s) or (n, s, s, 1) uint8.

        `progress` is called with (done, total) after each batch.
        """
        out = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            grey = resized(batch, self.size or batch.shape[1], self._kernel) / 127.5 - 1
            out.append(self._infer(np.repeat(grey[..., None], self._channels, axis=3)))
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
        except (OSError, ValueError, EOFError):
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
    """InceptionV3 up to its average pooling, 2048 features of 299 pixels (Szegedy et al. 2016)."""
    import keras

    return keras.applications.InceptionV3(
        include_top=False, pooling="avg", weights=None, input_shape=(299, 299, 3)
    )


def _load_weights(model: Any, network: NetworkFile) -> None:
    try:
        model.load_weights(network.file)
    except Exception as error:  # Keras raises whatever it meets
        raise CheckpointError(
            f"{network.file} does not hold the weights of {network.name}: {_first_line(error)}"
        ) from None


def _load_model(network: NetworkFile) -> Any:
    import keras

    try:
        # In safe mode a file cannot bring code of its own.
        return keras.saving.load_model(network.file, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever it meets
        raise CheckpointError(
            f"{network.file} cannot be loaded as a Keras model: {_first_line(error)}"
        ) from None


def _check_learned(model: Any, file: Path) -> None:
    import keras

    norms = [layer for layer in _all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if norms and not any(np.any(layer.moving_mean) for layer in norms):
        raise CheckpointError(
            f"{file} holds weights that were never trained, whose scores would mean nothing",
            hint="give the weights of a trained network, or leave them out and be scored without",
        )


def _all_layers(model: Any) -> Iterator[Any]:
    """The layers of a model, and those of the models within it."""
    for layer in model.layers:
        yield layer
        yield from _all_layers(layer) if hasattr(layer, "layers") else ()


def _image_shape(model: Any, file: Path) -> tuple[int | None, int]:
    """Pixels along a side, None for any, and channels that the model takes."""
    taken: Any = getattr(model, "input_shape", None)
    given: Any = getattr(model, "output_shape", None)
    square = isinstance(taken, tuple) and len(taken) == 4 and taken[1] == taken[2] and taken[3] in (1, 3)
    if not square or not isinstance(given, tuple) or len(given) not in (2, 4):
        raise CheckpointError(
            f"{file} is no model of grey images",
            value=f"{taken} to {given}",
            allowed="(n, size, size, 1 or 3) to (n, d) or (n, h, w, d)",
        )
    return taken[1], taken[3]


def _compiled(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    maps = len(model.output_shape) == 4

    def features(images: Any) -> Any:
        out = model(images, training=False)
        return tf.reduce_mean(out, axis=(1, 2)) if maps else out

    infer = tf.function(features, reduce_retracing=True)
    return lambda x: infer(tf.constant(x, tf.float32)).numpy()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
