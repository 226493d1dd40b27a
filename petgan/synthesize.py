"""Make a dataset of synthetic images, unless they give patients away or are no images at all.

Nothing is written before the images have been checked, and then all or nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from petgan import __version__
from petgan.config import DatasetRef
from petgan.datasheet import datasheet, markdown
from petgan.errors import ConfigError, DatasetError, InputError, PetganError
from petgan.gates import COLLAPSE, GATES, PRIVACY, Findings, Gate, RealImages
from petgan.presets import PRESETS
from petgan.runs import RunFolder, atomic_path, disk_errors, file_digest, write_json, write_text
from petgan.secondary_capture import secondary_capture
from petgan.snapshot import code_digest
from petgan.store import HELD_OUT, Dataset, Row, write_dataset

SCHEMA_VERSION = 2
MOST_IMAGES = 50_000

#: See `petgan.evaluate.Draw`.
Draw = Callable[..., tuple[np.ndarray, Any]]

logger = logging.getLogger(__name__)


def synthesize(
    source: Path,
    count: int,
    output: Path,
    draw: Draw,
    *,
    dataset: Path | None = None,
    inputs: Path | None = None,
    png: Path | None = None,
    dicom: Path | None = None,
    seed: int = 0,
    allow_copies: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Draw images from a generator, check them, and write them with their lineage and datasheet.

    Parameters
    ----------
    source : path
        A run folder, a checkpoint, or a generator that the study published.
    count : int
    output : path
        The dataset to write, ``.h5``; beside it go ``.lineage.json``, ``.datasheet.json`` and
        ``.datasheet.md``.
    draw : callable
        Draws images from the generator of a checkpoint.
    dataset : path, optional
        What the generator was trained on; by default what the run's folder says.
    inputs : path, optional
        A dataset whose images a generator that is shown images is shown, in the file's order; by default
        the one that the run's folder says. Of those that were trained on only held-out images are shown.
    png, dicom : path, optional
        Folders to write the images to as well; new or empty.
    seed : int
        Of the noise.
    allow_copies : bool
        Write the images even if there are copies among them, if they tell who was trained on, or if
        that cannot be told.
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
        If there are copies among the images, they tell who was trained on, or they are black, constant,
        noise or one over and over; nothing is written.
    """
    _check_targets(output, [folder for folder in (png, dicom) if folder is not None])
    if not 1 <= count <= MOST_IMAGES:
        raise ConfigError("impossible number of images", value=count, allowed=f"1 to {MOST_IMAGES}")
    if seed < 0:
        raise ConfigError("impossible seed", value=seed, allowed="0 or more")
    origin = _find_origin(source, dataset, allow_copies)
    sources = [origin.checkpoint, origin.dataset, inputs, Path(origin.shown.path) if origin.shown else None]
    if output.resolve() in [path.resolve() for path in sources if path is not None]:
        raise ConfigError("the output would replace what it is made from", value=str(output))
    training = _read_training(origin)
    shown = _read_shown(origin, inputs, count)
    ancestors = _find_ancestors(origin, allow_copies)
    inherited = [_read_training(ancestor) for ancestor in ancestors]
    logger.info("drawing %d images from step %s", count, "unknown" if origin.step is None else origin.step)
    pictures = shown.real.train if shown else None
    images, _ = draw(origin.checkpoint, count, seed, inputs=pictures)
    findings = [
        _check(images, training, allow_copies),
        *(_check(images, theirs, allow_copies, PRIVACY) for theirs in inherited),
    ]
    of_shown = _check(images, shown, allow_copies, ("copied",)) if shown and not shown.synthetic else None
    lineage = {
        "schema_version": SCHEMA_VERSION,
        "synthetic": True,
        "count": count,
        "noise_seed": seed,
        "run_id": origin.run_id,
        "checkpoint_step": origin.step,
        "checkpoint_digest": origin.digest,
        "dataset_digest": origin.dataset_digest,
        "source_digest": origin.source_digest,
        "inputs": shown
        and {
            "dataset_digest": shown.digest,
            "synthetic": shown.synthetic,
            "copy_check": _record(of_shown, shown),
        },
        "code_version": __version__,
        "code_digest": code_digest(),
        "copies_allowed": allow_copies,
        "gates": [asdict(gate) for found in findings if found for gate in found.gates] if training else None,
        "copy_check": _record(findings[0], training),
        "started_from": [
            {
                "checkpoint_digest": ancestor.digest,
                "dataset_digest": ancestor.dataset_digest,
                "copy_check": _record(found, theirs),
            }
            for ancestor, found, theirs in zip(ancestors, findings[1:], inherited, strict=True)
        ],
    }
    if not dry_run:
        _write(images, lineage, training, origin.evaluation, output, png, dicom)
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
    """A generator's file, what it says of itself, and where its training images and those it is shown are.

    What a published generator cannot say is None.
    """

    checkpoint: Path
    digest: str
    run_id: str | None
    step: int | None
    dataset_digest: str | None
    dataset: Path | None
    preset: str | None
    source_digest: str | None
    shown: DatasetRef | None
    init_from: Path | None
    evaluation: dict[str, Any] | None


def _find_origin(source: Path, dataset: Path | None, allow_copies: bool) -> Origin:
    run = RunFolder(source if source.is_dir() else source.parent.parent)
    checkpoint = run.chosen_checkpoint() if source.is_dir() else source
    evaluation = shown = None
    if source.is_dir() or run.config_file.is_file():
        evaluation = run.evaluation()
        known, shown = Path(run.config().dataset.path), run.config().shown
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
        said.get("preset"),
        said.get("source_digest"),
        shown,
        Path(start) if (start := json.loads(said.get("point", "{}")).get("init_from")) else None,
        evaluation,
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
            names = ("digest", "run_id", "step", "dataset_digest", "source_digest", "preset", "point")
            return {n: np.asarray(file.attrs[n]).item() for n in names if n in file.attrs}
    except OSError:
        raise InputError(
            f"{checkpoint} is no HDF5 file", hint="give a run folder or a checkpoint, such as best.h5"
        ) from None


@dataclass(frozen=True)
class Training:
    """What is needed of the dataset that a generator was trained on."""

    real: RealImages
    digest: str
    meaning: dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """The images that a generator is shown; as its training images would be, they must not be copied."""

    real: RealImages
    digest: str
    synthetic: bool


def _read_shown(origin: Origin, inputs: Path | None, count: int) -> Shown | None:
    """The first `count` images to show; None to a generator that makes its images of noise."""
    if origin.preset is None or PRESETS[origin.preset].shown == "nothing":
        if inputs is not None:
            raise ConfigError("the generator makes its images of noise, and is shown none", value=str(inputs))
        return None
    path = inputs or (Path(origin.shown.path) if origin.shown else None)
    if path is None:
        raise InputError(
            f"it is not known which images {origin.checkpoint} is shown", hint="give a dataset with --inputs"
        )
    with Dataset(path) as dataset:
        trained_on = dataset.digest in (origin.dataset_digest, origin.source_digest)
        if inputs is None and not trained_on:
            raise DatasetError(
                f"{dataset.path} has changed since the run was made",
                hint="bring the old dataset back, or give another one with --inputs",
            )
        _refuse_other_pixels(dataset)
        dataset.verify()
        splits = HELD_OUT if trained_on else ()
        images, patients = dataset.images(*splits), dataset.columns["patient"][dataset.indices(*splits)]
        if count > len(images):
            raise ConfigError(
                "impossible number of images: the generator makes one of each that it is shown",
                value=count,
                allowed=f"1 to {len(images)}" if len(images) else "none: no image was held out",
                hint="show it others with --inputs",
            )
        real = RealImages(
            images[:count], patients[:count], images[:0], patients[:0], "the images that were shown"
        )
        return Shown(real, dataset.digest, bool(dataset.configuration.get("synthetic")))


def _refuse_other_pixels(dataset: Dataset) -> None:
    if dataset.dtype != np.uint8:
        raise DatasetError(
            f"the pixels of {dataset.path} have another type", value=dataset.dtype.name, allowed="uint8"
        )


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
        _refuse_other_pixels(dataset)
        dataset.verify()
        patients = dataset.columns["patient"]
        return Training(
            RealImages(
                dataset.images("train"),
                patients[dataset.indices("train")],
                dataset.images(*HELD_OUT),
                patients[dataset.indices(*HELD_OUT)],
            ),
            dataset.digest,
            {"modality": dataset.modality, "units": dataset.units, "window": dataset.window},
        )


# --- the checks ---------------------------------------------------------------------------------


def _check(
    images: np.ndarray, training: Training | Shown | None, allow_copies: bool, names: Sequence[str] = GATES
) -> Findings | None:
    """Hold the images against the real ones, by the gates of these names; None where they are not at hand.

    Raises
    ------
    PetganError
        If they fail, or if it cannot be told whether there are copies, unless `allow_copies`. That
        does not allow images that are no images: they would mislead whoever uses them.
    """
    if training is None:
        logger.info("not checked: the training images were not at hand")
        return None
    found = training.real.check(images)
    found = replace(found, gates=tuple(gate for gate in found.gates if gate.name in names))
    logger.info("%s", _sentence(found.copies, len(images)))
    for note in found.notes if isinstance(training, Training) else ():
        logger.info("%s", note)
    if any(gate.name in COLLAPSE for gate in found.gates):
        raise PetganError(
            f"{_words(found.gates)}; nothing was written",
            hint="take another run, or train this one for longer",
        )
    if found.gates and not allow_copies:
        raise PetganError(
            f"{_words(found.gates)}; nothing was written",
            hint="take another run, or train on more images; with --allow-copies they are written as they "
            "are, and must then be kept as the patient data that they hold",
        )
    if not found.copies["checked"] and not allow_copies:
        raise ConfigError(
            found.copies["reason"], hint="with --allow-copies they are written without having been compared"
        )
    return found


def _words(gates: Iterable[Gate]) -> str:
    return "; ".join(gate.words for gate in gates)


def _sentence(copies: dict[str, Any], count: int) -> str:
    if not copies["checked"]:
        return f"not checked for copies: {copies['reason']}"
    share = copies["nearer_train_share"]
    test = copies["memorisation"]
    nearer = "" if share is None else f"; {share:.0%} are nearer to training than to held-out images"
    return (
        f"copy check: {copies['copies']} copies among {count} images; the nearest is at "
        f"{copies['smallest_ratio']:.2f} of the distance between patients, half of them beyond "
        f"{copies['median_ratio']:.2f}{nearer}" + ("" if test["rejects"] is None else f"; {test['words']}")
    )


def _record(found: Findings | None, training: Training | Shown | None) -> dict[str, Any]:
    """What the lineage says of copies."""
    if found is None or training is None:
        reason = (
            "they are synthetic" if isinstance(training, Shown) else "the training images were not at hand"
        )
        return {"checked": False, "reason": reason}
    if not found.copies["checked"]:
        return found.copies
    if isinstance(training, Shown):  # nothing was held out of them, so all else has no meaning
        return {name: found.copies[name] for name in _OF_SHOWN}
    return found.copies | {"dataset_digest": training.digest}


_OF_SHOWN = ("checked", "rule", "threshold", "copies", "smallest_ratio", "median_ratio")


# --- writing ------------------------------------------------------------------------------------


def _write(
    images: np.ndarray,
    lineage: dict[str, Any],
    training: Training | None,
    evaluation: dict[str, Any] | None,
    output: Path,
    png: Path | None,
    dicom: Path | None,
) -> None:
    """Write all targets to temporary names, and rename them when everything is written."""
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
        lineage_file, sheet_file, page, temporary = (
            folders.enter_context(atomic_path(output.with_suffix(suffix)))
            for suffix in (".lineage.json", ".datasheet.json", ".datasheet.md", ".h5")
        )
        digest = write_dataset(
            temporary,
            (
                (Row(label, label, "train", "synthetic"), image)
                for label, image in zip(labels, images, strict=True)
            ),
            image_size=images.shape[1],
            configuration=lineage,
            **meaning,
        )
        full = {**lineage, "output_digest": digest}
        sheet = datasheet(full, images.shape[1], meaning, evaluation)
        write_json(lineage_file, full)
        write_json(sheet_file, sheet)
        write_text(page, markdown(sheet))
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
