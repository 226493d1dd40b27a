"""Make a dataset of synthetic images, unless there are copies of training images among them.

Nothing is written before the images have been checked, and then all or nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from petgan import __version__
from petgan.errors import ConfigError, DatasetError, InputError, PetganError
from petgan.features import resized
from petgan.metrics.copies import COPY_RATIO, CopyCheck, check_copies
from petgan.runs import RunFolder, disk_errors, file_digest, write_json
from petgan.secondary_capture import secondary_capture
from petgan.snapshot import code_digest
from petgan.store import Dataset, Row, write_dataset

SCHEMA_VERSION = 1
THUMBNAIL = 32  # pixels at which images are compared with training images
MOST_IMAGES = 50_000
HELD_OUT = ("validation", "test")

#: (checkpoint, count, noise seed) to images (count, size, size) uint8, and more that is not needed here.
Draw = Callable[[Path, int, int], tuple[np.ndarray, Any]]

logger = logging.getLogger(__name__)


def synthesize(
    source: Path,
    count: int,
    output: Path,
    draw: Draw,
    *,
    dataset: Path | None = None,
    png: Path | None = None,
    dicom: Path | None = None,
    seed: int = 0,
    allow_copies: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Draw images from a generator, check them for copies, and write them with their lineage.

    Parameters
    ----------
    source : path
        A run folder, a checkpoint, or a generator that the study published.
    count : int
    output : path
        The dataset to write, ``.h5``; its lineage goes beside it, as ``.lineage.json``.
    draw : callable
        Draws images from the generator of a checkpoint.
    dataset : path, optional
        What the generator was trained on; by default what the run's folder says.
    png, dicom : path, optional
        Folders to write the images to as well; new or empty.
    seed : int
        Of the noise.
    allow_copies : bool
        Write the images even if there are copies among them, or if that cannot be told.
    dry_run : bool
        Draw and check, and write nothing.

    Returns
    -------
    dict
        The lineage.

    Raises
    ------
    ConfigError, InputError, DatasetError, CheckpointError
        If the arguments, the source or the dataset cannot be.
    PetganError
        If there are copies among the images; nothing is written.
    """
    _check_targets(output, [folder for folder in (png, dicom) if folder is not None])
    if not 1 <= count <= MOST_IMAGES:
        raise ConfigError("impossible number of images", value=count, allowed=f"1 to {MOST_IMAGES}")
    if seed < 0:
        raise ConfigError("impossible seed", value=seed, allowed="0 or more")
    origin = _find_origin(source, dataset, allow_copies)
    if output.resolve() in (origin.checkpoint.resolve(), origin.dataset and origin.dataset.resolve()):
        raise ConfigError("the output would replace what it is made from", value=str(output))
    training = _read_training(origin)
    ancestors = _find_ancestors(origin, allow_copies)
    inherited = [_read_training(ancestor) for ancestor in ancestors]
    logger.info("drawing %d images from step %s", count, "unknown" if origin.step is None else origin.step)
    images, _ = draw(origin.checkpoint, count, seed)
    lineage = {
        "schema_version": SCHEMA_VERSION,
        "synthetic": True,
        "count": count,
        "noise_seed": seed,
        "run_id": origin.run_id,
        "checkpoint_step": origin.step,
        "checkpoint_digest": origin.digest,
        "dataset_digest": origin.dataset_digest,
        "code_version": __version__,
        "code_digest": code_digest(),
        "copies_allowed": allow_copies,
        "copy_check": _copy_check(images, training, allow_copies),
        "started_from": [
            {
                "checkpoint_digest": ancestor.digest,
                "dataset_digest": ancestor.dataset_digest,
                "copy_check": _copy_check(images, theirs, allow_copies),
            }
            for ancestor, theirs in zip(ancestors, inherited, strict=True)
        ],
    }
    if not dry_run:
        _write(images, lineage, training, output, png, dicom)
    return lineage


def _check_targets(output: Path, folders: list[Path]) -> None:
    if output.suffix != ".h5" or output.is_dir():
        raise ConfigError("the output must be a file", value=str(output), allowed="a name that ends in .h5")
    for folder in folders:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ConfigError(
                f"{folder} is there already and is no empty folder", hint="choose another, or empty it first"
            )


# --- where the images come from -----------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """A generator's file, what it says of itself, and where its training images are.

    What a published generator cannot say is None.
    """

    checkpoint: Path
    digest: str
    run_id: str | None
    step: int | None
    dataset_digest: str | None
    dataset: Path | None
    init_from: Path | None


def _find_origin(source: Path, dataset: Path | None, allow_copies: bool) -> Origin:
    run = RunFolder(source if source.is_dir() else source.parent.parent)
    checkpoint = run.chosen_checkpoint() if source.is_dir() else source
    if source.is_dir() or run.config_file.is_file():
        known = Path(run.config().dataset.path)
        if dataset is None and (known.is_file() or not allow_copies):
            dataset = known
    said = _attributes(checkpoint)
    if dataset is None and not allow_copies:
        raise InputError(
            f"it is not known what {source} was trained on, so copies cannot be told",
            hint="give the dataset with --dataset; or --allow-copies, to write the images unchecked",
        )
    return Origin(
        checkpoint,
        said.get("digest") or file_digest(checkpoint),
        said.get("run_id"),
        said.get("step"),
        said.get("dataset_digest"),
        dataset,
        Path(start) if (start := json.loads(said.get("point", "{}")).get("init_from")) else None,
    )


def _find_ancestors(origin: Origin, allow_copies: bool) -> list[Origin]:
    """The generators that a transferred one descends from: it may know their images by heart, too."""
    ancestors: list[Origin] = []
    while origin.init_from is not None:
        try:
            origin = _find_origin(origin.init_from, None, allow_copies)
        except InputError:
            if not allow_copies:
                raise
            break
        ancestors.append(origin)
    return ancestors


def _attributes(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise InputError(f"there is no run folder and no file {checkpoint}")
    try:
        with h5py.File(checkpoint, "r", locking=False) as file:
            names = ("digest", "run_id", "step", "dataset_digest", "point")
            return {n: np.asarray(file.attrs[n]).item() for n in names if n in file.attrs}
    except OSError:
        raise InputError(
            f"{checkpoint} is no HDF5 file", hint="give a run folder or a checkpoint, such as best.h5"
        ) from None


@dataclass(frozen=True)
class Training:
    """What is needed of the dataset that a generator was trained on."""

    images: np.ndarray
    patients: np.ndarray
    held_out: np.ndarray
    digest: str
    meaning: dict[str, Any]


def _read_training(origin: Origin) -> Training | None:
    if origin.dataset is None:
        return None
    with Dataset(origin.dataset) as dataset:
        if origin.dataset_digest not in (None, dataset.digest):
            raise DatasetError(
                f"{dataset.path} is not what the generator was trained on",
                value=dataset.digest[:12],
                allowed=str(origin.dataset_digest)[:12],
                hint="give the dataset of the training with --dataset",
            )
        if dataset.dtype != np.uint8:
            raise DatasetError(
                f"the pixels of {dataset.path} have another type", value=dataset.dtype.name, allowed="uint8"
            )
        dataset.verify()
        return Training(
            dataset.images("train"),
            dataset.columns["patient"][dataset.indices("train")],
            np.concatenate([dataset.images(split) for split in HELD_OUT]),
            dataset.digest,
            {"modality": dataset.modality, "units": dataset.units, "window": dataset.window},
        )


# --- the copy check -----------------------------------------------------------------------------


def _copy_check(images: np.ndarray, training: Training | None, allow_copies: bool) -> dict[str, Any]:
    """What the lineage says of copies.

    Raises
    ------
    PetganError
        If there are any, or if it cannot be told, unless `allow_copies`.
    """
    if training is None:
        logger.info("not checked for copies: the training images are not at hand")
        return {"checked": False, "reason": "the training images were not at hand"}
    try:
        found = check_copies(
            thumbnails(images), thumbnails(training.images), training.patients, thumbnails(training.held_out)
        )
    except ConfigError as error:
        if not allow_copies:
            raise
        logger.info("not checked for copies: %s", error)
        return {"checked": False, "reason": str(error)}
    summary = _summary(found, training)
    logger.info("%s", _sentence(summary, len(images)))
    if summary["copies"] and not allow_copies:
        raise PetganError(
            f"{summary['copies']} of {len(images)} images are copies of training images; nothing was written",
            hint="take another run, or train on more images; with --allow-copies they are written as they "
            "are, and must then be kept as the patient data that they hold",
        )
    return summary


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images (n, s, s) or (n, s, s, 1) uint8 as (n, 32, 32) uint8."""
    if not len(images):
        return np.empty((0, THUMBNAIL, THUMBNAIL), np.uint8)
    return np.clip(np.round(resized(images, THUMBNAIL)), 0, 255).astype(np.uint8)


def _summary(found: CopyCheck, training: Training) -> dict[str, Any]:
    return {
        "checked": True,
        "rule": "a copy is nearer to a training image than the threshold times that image's distance to "
        "the nearest image of another patient; thumbnails, up to brightness, contrast, mirroring, shift",
        "threshold": COPY_RATIO,
        "thumbnail_pixels": THUMBNAIL,
        "dataset_digest": training.digest,
        "training_images": len(training.images),
        "training_patients": len(np.unique(training.patients)),
        "held_out_images": len(training.held_out),
        "copies": len(found.copies),
        "smallest_ratio": float(found.ratios.min()),
        "median_ratio": float(np.median(found.ratios)),
        "nearer_train_share": found.nearer_train_share,
    }


def _sentence(summary: dict[str, Any], count: int) -> str:
    share = summary["nearer_train_share"]
    nearer = "" if share is None else f"; {share:.0%} are nearer to training than to held-out images"
    return (
        f"copy check: {summary['copies']} copies among {count} images; the nearest is at "
        f"{summary['smallest_ratio']:.2f} of the distance between patients, half of them beyond "
        f"{summary['median_ratio']:.2f}{nearer}"
    )


# --- writing ------------------------------------------------------------------------------------


def _write(
    images: np.ndarray,
    lineage: dict[str, Any],
    training: Training | None,
    output: Path,
    png: Path | None,
    dicom: Path | None,
) -> None:
    """Write all targets; the folders appear when everything else is written."""
    labels = [f"synthetic-{number:06d}" for number in range(1, len(images) + 1)]
    unknown = dict.fromkeys(("modality", "units", "window"), "unknown")
    meaning: dict[str, Any] = training.meaning if training else unknown
    with contextlib.ExitStack() as folders:
        if png is not None:
            folder = folders.enter_context(_new_folder(png))
            for label, image in zip(labels, images, strict=True):
                _save_png(folder / f"{label}.png", image)
        if dicom is not None:
            folder = folders.enter_context(_new_folder(dicom))
            origin = f"{lineage['checkpoint_digest']}/{lineage['noise_seed']}"
            for number, (label, image) in enumerate(zip(labels, images, strict=True), 1):
                file = folder / f"{label}.dcm"
                secondary_capture(image, number, origin).save_as(file, enforce_file_format=True)
        digest = write_dataset(
            output,
            (
                (Row(label, label, "train", "synthetic"), image)
                for label, image in zip(labels, images, strict=True)
            ),
            image_size=images.shape[1],
            configuration=lineage,
            **meaning,
        )
        write_json(output.with_suffix(".lineage.json"), {**lineage, "output_digest": digest})
    for target in filter(None, (output, png, dicom)):
        logger.info("wrote %d images to %s", len(images), target)


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path`, which is empty or not there, on success."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_png(path: Path, image: np.ndarray) -> None:
    words = PngInfo()
    words.add_text("Comment", "Synthetic image made by petgan, not of a patient; not for diagnosis")
    Image.fromarray(image).save(path, format="PNG", pnginfo=words)
