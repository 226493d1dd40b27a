"""Checkpoints: everything that a run needs to go on, in one HDF5 file that any tool opens.

Layout (schema 1)
-----------------
``generator``, ``discriminator``, ``ema_generator``, ``generator_optimizer``, ...
    the parts of the run's `Networks`: one dataset a variable, named by its position and name, in Keras' order
attributes
    ``schema_version``, ``run_id``, ``preset``, ``step`` (updates done), ``seed`` (with the step, all of
    the random state), ``dataset_digest``, ``source_digest`` where images are translated, ``point`` (JSON),
    ``digest`` (SHA-256 over all of it)
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import keras
import numpy as np

from petgan.config import Point, RunConfig, validated
from petgan.errors import CheckpointError, ConfigError, DatasetError
from petgan.hdf5 import atomic_hdf5
from petgan.methods import method_of
from petgan.methods.networks import Networks, variables_of
from petgan.models import build
from petgan.models.dcgan import FIRST_CHANNELS
from petgan.models.layers import plain
from petgan.presets import PRESETS
from petgan.runs import atomic_path, file_digest

SCHEMA_VERSION = 1
# The order in which the digest takes the parts that every checkpoint of schema 1 once had; others follow.
FIRST_PARTS = (
    "generator", "discriminator", "ema_generator", "generator_optimizer", "discriminator_optimizer",
)  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself."""

    run_id: str
    step: int
    dataset_digest: str
    point: Point
    digest: str
    source_digest: str | None = None


def write_checkpoint(path: Path, networks: Networks, config: RunConfig, step: int) -> None:
    """Write a checkpoint atomically.

    Raises
    ------
    DiskError
        If the disk is full: nothing is left behind, and older checkpoints stay.
    """
    arrays = {name: _named_arrays(variables_of(part)) for name, part in networks.items()}
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "run_id": config.run_id,
        "preset": config.point.preset,
        "step": step,
        "seed": config.point.seed,
        "dataset_digest": config.dataset.digest,
        "point": config.point.model_dump_json(),
    }
    if config.source is not None:
        attributes["source_digest"] = config.source_digest
    with atomic_hdf5(path) as file:
        for group, members in arrays.items():
            for name, array in members.items():
                file.create_dataset(f"{group}/{name}", data=array)
        file.attrs.update({**attributes, "digest": _digest(arrays, attributes)})


def all_variables(networks: Networks) -> list[keras.Variable]:
    """All that a checkpoint holds, in its order."""
    return [variable for part in networks.values() for variable in variables_of(part)]


def read_newest(candidates: list[Path], networks: Networks, config: RunConfig) -> Header | None:
    """Load the first of a run's checkpoints that is whole into `networks`; None without candidates.

    Raises
    ------
    CheckpointError
        If none is whole, or the first whole one is of another run or network: nothing is loaded then.
    DatasetError
        If the run's dataset has changed.
    """
    for path, older in itertools.zip_longest(candidates, candidates[1:]):
        try:
            header, arrays = _read(path)
        except CheckpointError as error:
            if older is None:
                raise
            logger.warning("%s; going back to %s", error, older.name)
            continue
        _check_belongs(path, header, config)
        for name, part in networks.items():
            _check_shapes(path, name, variables_of(part), list(arrays.get(name, {}).values()))
        for name, part in networks.items():
            _assign(variables_of(part), arrays[name])
        return header
    return None


def _check_belongs(path: Path, header: Header, config: RunConfig) -> None:
    of_header = {"dataset": header.dataset_digest, "source": header.source_digest}
    of_run = {"dataset": config.dataset.digest, "source": config.source_digest}
    for kind, digest in of_header.items():
        if digest != of_run[kind]:
            raise DatasetError(
                f"the {kind} has changed since the run began",
                value=str(of_run[kind])[:12],
                allowed=str(digest)[:12],
                hint=f"bring the old {kind} back, or give the run a folder of its own",
            )
    theirs, ours = header.point.model_dump(), config.point.model_dump()
    for name, value in theirs.items():
        if ours[name] != value and name != "init_from":  # the file may have moved: its digest counts
            raise CheckpointError(
                f"{path} is the checkpoint of another run: its {name} is {value!r}",
                value=ours[name],
                hint="give this run a folder of its own, or the settings that the checkpoint was made with",
            )


def read_header(path: Path) -> Header:
    """Read and verify a checkpoint, and return what it says of itself."""
    return _read(path)[0]


def read_generator(path: Path | str, averaged: bool = True) -> tuple[keras.Model, Header | None]:
    """Read a generator of a checkpoint, its averaged one or the plain, or one that the study published.

    Returns
    -------
    keras.Model
        Ready for inference.
    Header or None
        None for a published file, which does not say where it comes from.

    Raises
    ------
    CheckpointError
        If the file is neither.
    """
    path = Path(path)
    if not _is_checkpoint(path):
        return read_published_generator(path)[0], None
    header, arrays = _read(path)
    generator = method_of(header.point.preset).make_generator(header.point)
    name = "ema_generator" if averaged else "generator"
    _check_shapes(path, name, generator.weights, list(arrays[name].values()))
    _assign(generator.weights, arrays[name])
    return generator, header


def start_from(path: Path | str, digest: str | None, networks: Networks, parts: str = "both") -> None:
    """Start `networks` from another run's weights; optimizers stay fresh.

    The generator and its average start from the other's average, all other networks from their namesakes.
    A generator that the study published starts the generator alone.

    Parameters
    ----------
    path : path
    digest : str or None
        SHA-256 that the file must have.
    networks : Networks
    parts : {"both", "generator", "discriminator"}
        Which of them start so; the others keep their fresh weights.

    Raises
    ------
    CheckpointError
        If the file is missing, has changed since the run was made, or is of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path} to start from")
    if digest is not None and file_digest(path) != digest:
        raise CheckpointError(
            f"{path} has changed since this run was made", hint="make the transfer again, from what it is now"
        )
    if _is_checkpoint(path):
        arrays = {name: list(members.values()) for name, members in _read(path)[1].items()}
        arrays["generator"] = arrays["ema_generator"]
    else:
        arrays = {"generator": read_published_generator(path)[0].get_weights()}
    sources = {
        name: arrays[name]
        for name, part in networks.items()
        if name in arrays and isinstance(part, keras.Model) and name != "ema_generator"
    }
    if parts != "both":
        if parts not in sources:
            raise CheckpointError(f"{path} has no {parts} to start from", allowed=sources)
        sources = {parts: sources[parts]}
    for name in networks.keys() - sources.keys() - {"ema_generator"}:
        part = networks[name]
        if isinstance(part, keras.Model) and not all(layer.trainable for layer in part.layers):
            raise CheckpointError(
                f"{path} has no {name}, whose first layers are to stay as they came",
                hint="leave freeze_layers out",
            )
    for name, values in sources.items():
        _check_shapes(path, name, networks[name].weights, values)
    for name, values in sources.items():
        networks[name].set_weights(values)
    networks.ema_generator.set_weights(networks.generator.get_weights())


def export_generator(path: Path, generator: keras.Model) -> None:
    """Write a generator as a Keras file that loads without petgan, atomically."""
    with (
        atomic_path(path) as temporary,
        TemporaryDirectory(prefix=".", suffix=".tmp", dir=path.parent) as folder,
    ):
        file = Path(folder) / "generator.keras"  # Keras insists on the ending
        plain(generator).save(file)
        file.replace(temporary)


# --- the study's files --------------------------------------------------------------------------


def read_published_generator(path: Path | str) -> tuple[keras.Model, str]:
    """Read a generator that Keras 2 saved as HDF5, by its weights, into petgan's own network.

    Which network it is, and for which image size, follows from the weights' shapes.

    Returns
    -------
    keras.Model, str
        The generator, and the name of its preset.

    Raises
    ------
    CheckpointError
        If the weights fit no generator of petgan.
    """
    layers = _keras2_layers(Path(path))
    try:
        preset, image_size, latent_size = _network_of(layers)
        generator, _ = build(preset, image_size, latent_size=latent_size)
        values = _fitted(layers, generator)
    except (ConfigError, IndexError, ValueError):
        values = None
    if values is None:
        count = sum(value.size for _, values in layers for value in values)
        raise CheckpointError(
            f"{path} is no generator that petgan knows: it holds {count} weights in {len(layers)} layers",
            allowed=f"generators of {', '.join(PRESETS)}",
        )
    generator.set_weights(values)
    return generator, preset


def _network_of(layers: list[tuple[str, list[np.ndarray]]]) -> tuple[str, int, int]:
    """Preset, image size and latent size of the generator whose layers may have these weights."""
    kernels = [values[0].shape for _, values in layers if values[0].ndim > 1]
    latent_size, units = kernels[0]
    if all(len(kernel) == 2 for kernel in kernels):
        return "gan", math.isqrt(kernels[-1][1]), latent_size
    normalized = len(kernels) < len(layers)
    preset, ends = ("dcgan", 2) if normalized else ("wgan-gp", 3)  # layers that double nothing
    base = math.isqrt(units // FIRST_CHANNELS)
    return preset, base << (len(kernels) - ends), latent_size


def _keras2_layers(path: Path) -> list[tuple[str, list[np.ndarray]]]:
    """The layers that have weights, in order: name and weights."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            root = file.get("model_weights", file)
            weights = [
                (name.split("/")[-2], np.asarray(root[layer][name]))
                for layer in _names(root.attrs["layer_names"])
                for name in _names(root[layer].attrs["weight_names"])
            ]
    except (OSError, KeyError) as error:
        raise CheckpointError(
            f"{path} is neither a checkpoint nor a generator saved by Keras 2: {error}"
        ) from None
    # A weight's own name, "dense/kernel:0", tells its layer where a whole model is saved as one layer.
    grouped = itertools.groupby(weights, key=lambda weight: weight[0])
    return [(layer, [value for _, value in members]) for layer, members in grouped]


def _fitted(layers: list[tuple[str, list[np.ndarray]]], generator: keras.Model) -> list[np.ndarray] | None:
    """The file's weights in the shapes of `generator`, or None if it is another network."""
    ours = [layer for layer in generator.layers if layer.weights]
    if len(ours) != len(layers):
        return None
    fitted = []
    for (name, values), layer in zip(layers, ours, strict=True):
        if isinstance(layer, keras.layers.Conv2DTranspose) and not name.startswith("conv2d_transpose"):
            # The study's last layer is a Conv2D: with stride 1 and an odd kernel that is the transposed
            # convolution with the kernel turned by 180 degrees and its channels swapped.
            values = [values[0][::-1, ::-1].transpose(0, 1, 3, 2), *values[1:]]
        if [v.shape for v in values] != [tuple(w.shape) for w in layer.weights]:
            return None
        fitted.extend(values)
    return fitted


def _names(values: Any) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


# --- reading and writing variables --------------------------------------------------------------


def _named_arrays(variables: list[keras.Variable]) -> dict[str, np.ndarray]:
    # The position comes first: h5py lists members by name, Keras numbers layers by session.
    return {f"{i:03d}_{v.name}": np.asarray(v) for i, v in enumerate(variables)}


def _assign(variables: list[keras.Variable], arrays: dict[str, np.ndarray]) -> None:
    for variable, array in zip(variables, arrays.values(), strict=True):
        variable.assign(array)


def _check_shapes(path: Path, part: str, variables: list[keras.Variable], found: list[np.ndarray]) -> None:
    wanted = [tuple(v.shape) for v in variables]
    shapes = [a.shape for a in found]
    if shapes == wanted:
        return
    if len(shapes) != len(wanted):
        difference = f"it has {len(shapes)} variables, this network has {len(wanted)}"
    else:
        at = next(i for i, (a, b) in enumerate(zip(shapes, wanted, strict=True)) if a != b)
        difference = f"its variable {at} is {shapes[at]}, this network's is {wanted[at]}"
    raise CheckpointError(
        f"{path} is the checkpoint of another network: in the {part.replace('_', ' ')}, {difference}",
        hint="give this run a folder of its own, or the settings that the checkpoint was made with",
    )


def _read(path: Path) -> tuple[Header, dict[str, dict[str, np.ndarray]]]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            attributes = {k: v.item() if isinstance(v, np.generic) else v for k, v in file.attrs.items()}
            version = attributes.get("schema_version")
            if version != SCHEMA_VERSION:
                raise CheckpointError(
                    f"{path} has another schema version", value=version, allowed=str(SCHEMA_VERSION)
                )
            arrays = {name: {k: v[()] for k, v in file[name].items()} for name in file}
        digest = attributes.pop("digest")
        if _digest(arrays, attributes) != digest:
            raise CheckpointError(f"{path} is damaged: it does not match its digest")
        header = Header(
            attributes["run_id"],
            attributes["step"],
            attributes["dataset_digest"],
            validated(Point, json.loads(attributes["point"])),
            digest,
            attributes.get("source_digest"),
        )
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (OSError, KeyError, RuntimeError, ConfigError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint of petgan: {error}") from None
    return header, arrays


def _digest(arrays: dict[str, dict[str, np.ndarray]], attributes: dict[str, Any]) -> str:
    total = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
    for group in sorted(arrays, key=_place):
        members = arrays[group]
        for position, array in enumerate(members.values()):  # Keras' names depend on the session
            total.update(f"{group}/{position} {array.dtype} {array.shape}".encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _place(part: str) -> tuple[int, str]:
    return (FIRST_PARTS.index(part) if part in FIRST_PARTS else len(FIRST_PARTS)), part


def _is_checkpoint(path: Path) -> bool:
    try:
        with h5py.File(path, "r", locking=False) as file:
            return "schema_version" in file.attrs
    except OSError:
        raise CheckpointError(
            f"{path} is not an HDF5 file that can be read",
            hint="give a checkpoint, such as checkpoints/best.h5",
        ) from None
