"""Score the finished runs of an experiment against real images that no run has seen.

Every score stands beside its floor, the same score of real images of other patients, and beside what its
ruler was shown not to see. A run whose images are not worth a score, or are copies, is marked by its gates.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from petgan.config import DatasetRef
from petgan.errors import ConfigError, DatasetError, DiskError, InputError, Interrupted, PetganError
from petgan.features import Extractor, NetworkFile
from petgan.gates import Findings, RealImages
from petgan.pictures import save_png, sheet
from petgan.presets import PRESETS
from petgan.protocols import FEWEST_IMAGES, PROTOCOLS
from petgan.reference import Reference, blind_to, in_parallel, spoken
from petgan.rulers import Ruler, Sample, make_rulers
from petgan.runs import EVALUATION_SCHEMA, ExperimentFolder, RunFolder, read_json, write_json
from petgan.store import held_out_images

NOISE_SEED = 2
UNBIASED_FROM = 2048  # samples that fill the covariance of InceptionV3's features

logger = logging.getLogger(__name__)


class Draw(Protocol):
    """Draws `count` images (count, size, size) uint8 from the generator of a checkpoint, with its header.

    A generator that is shown images makes one of each of the first `inputs` (n, size, size, 1) uint8.
    """

    def __call__(
        self,
        checkpoint: Path,
        count: int,
        seed: int,
        averaged: bool = True,
        inputs: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]: ...


NO_NETWORK = (
    "There is no network with learned weights, so neither KID nor FID, and the headline is the sliced "
    "Wasserstein distance (swd): a network that was never trained is blind on these images. "
    "'petgan doctor' says where the weights go; or give --weights FILE."
)

SHOWN_THEMSELVES = (
    "The generator was shown the very images that it is scored against, made small: its scores compare with "
    "those of its like only."
)


def evaluate_experiment(
    experiment: ExperimentFolder,
    draw: Draw,
    *,
    protocol: str = "petgan",
    networks: Sequence[NetworkFile] = (),
    images: int | None = None,
    force: bool = False,
) -> None:
    """Score every finished run that has no scores of the same settings, and write its ``evaluation.json``.

    Scores of another protocol that a run has already stay beside the new ones.

    Parameters
    ----------
    experiment : ExperimentFolder
    draw : callable
        See `Draw`.
    protocol : str
        A name of `petgan.protocols.PROTOCOLS`.
    networks : sequence of NetworkFile
        Whose features are scored; the first is the headline's. Without any there are scores of the images
        themselves only.
    images : int, optional
        Generated images to score; by default as many as there are test images, and at least half as many
        as there are training images up to 150. Where a generator of the experiment is shown images, all
        have at most as many, so that their scores compare.
    force : bool
        Score again what has been scored.

    Raises
    ------
    InputError, ConfigError, DatasetError, CheckpointError
        Before anything is scored, if the settings, dataset or networks cannot be.
    PetganError
        In the end, if a run could not be scored; it says which, and the others are scored.
    """
    settings = PROTOCOLS[protocol]
    runs = [run for run in experiment.run_folders() if run.status().state == "done"]
    if not runs:
        raise InputError(
            f"{experiment.path} has no finished run", hint="'petgan status' says how far they are"
        )
    scoring = _prepare(experiment, runs[0].config().dataset, protocol, networks, images)
    pending = [run for run in runs if force or not scoring.is_done(run)]
    logger.info("%d finished runs, %d to score", len(runs), len(pending))
    if pending and not settings.of_all_real:
        check_rulers(experiment, scoring)
    if pending:
        _score_all(pending, scoring, draw)


def check_experiment(
    experiment: ExperimentFolder, networks: Sequence[NetworkFile] = (), images: int | None = None
) -> None:
    """Find out what each ruler sees on the experiment's real images; it needs no run. See `check_rulers`."""
    dataset = DatasetRef(**experiment.record()["dataset"])
    check_rulers(experiment, _prepare(experiment, dataset, "petgan", networks, images))


@dataclass(frozen=True)
class Scoring:
    """All that is the same for every run.

    `shown` holds what generators are shown: held-out images of the dataset and of the source, by these names.
    """

    protocol: str
    reference: Reference
    gates: RealImages
    extractors: Sequence[Extractor]
    rulers: Sequence[Ruler]
    count: int
    shown: Mapping[str, np.ndarray]
    notes: Sequence[str]

    def is_done(self, run: RunFolder) -> bool:
        """Whether the run has these scores, of the weights that it has now."""
        try:
            evaluation = _evaluation(run)
            checkpoint = _checkpoint(run, self.protocol)
        except InputError:
            return False
        if evaluation is None or self.protocol not in evaluation["protocols"]:
            return False
        known = evaluation["protocols"][self.protocol]
        keys = ("name", "ruler", "n_real", "n_fake")
        scored = [
            tuple(score[key] for key in keys)
            for score in evaluation["scores"]
            if score["protocol"] == self.protocol
        ]
        sizes = len(self.reference.real), self.count
        wanted = [(ruler.name, ruler.id, *sizes) for ruler in self.rulers]
        same = known["checkpoint"]["digest"] == _digest(checkpoint) and known["noise_seed"] == NOISE_SEED
        return same and scored == wanted


def _prepare(
    experiment: ExperimentFolder,
    dataset: DatasetRef,
    protocol: str,
    networks: Sequence[NetworkFile],
    images: int | None,
) -> Scoring:
    settings = PROTOCOLS[protocol]
    if protocol == "thesis":
        networks = [network for network in networks if network.name == "inception-v3"]
        if not networks:
            raise ConfigError(
                "the published procedure takes InceptionV3 with learned weights, and there are none here",
                hint=NO_NETWORK,
            )
    if not networks:
        logger.info("%s", NO_NETWORK)
    extractors = [Extractor(network, settings.resize) for network in networks]
    reference = Reference(dataset, settings, extractors, experiment.cache)
    count = settings.count(images, reference.modality, len(reference.train), len(reference.test))
    shown, notes = _shown(experiment), []
    if (there := min(map(len, shown.values()), default=count)) < count:
        notes.append(
            f"A generator is shown images here, and there are {there}: no more are scored of any run."
        )
        logger.info("%s", notes[0])
        count = there
    if count < FEWEST_IMAGES:
        raise DatasetError(
            "there are too few held-out images to show to a generator",
            value=count,
            allowed=f"{FEWEST_IMAGES} or more",
            hint="ingest with another --split",
        )
    fewest = min(count, len(reference.real))
    rulers = make_rulers(
        reference.images.shape[1], extractors, settings.metrics, settings.suffix, fewest=fewest
    )
    train, held_out = reference.train, reference.held_out
    pixels, patients = reference.images, reference.patients
    gates = RealImages(pixels[train], patients[train], pixels[held_out], patients[held_out])
    return Scoring(protocol, reference, gates, extractors, rulers, count, shown, notes)


def _shown(experiment: ExperimentFolder) -> dict[str, np.ndarray]:
    """Held-out images of each dataset whose images generators of the experiment are shown."""
    record = experiment.record()
    kinds = {PRESETS[entry["point"]["preset"]].shown for entry in record["points"]} - {"nothing"}
    return {kind: held_out_images(DatasetRef(**record[kind])) for kind in sorted(kinds)}


def check_rulers(experiment: ExperimentFolder, scoring: Scoring) -> None:
    """Write to ``rulers.json`` what each ruler sees of what is wrong with spoilt real images.

    Real training images are scored as they are and blurred, noisy, checkered, shifted in grey, or a few of
    them repeated: see `petgan.reference.Reference.check`.
    """
    found = {ruler.name: scoring.reference.check(ruler, scoring.count) for ruler in scoring.rulers}
    checks = {name: check for name, check in found.items() if check is not None}
    if not checks:
        logger.info("the rulers are not checked: there are too few training images")
    for name, check in checks.items():
        if blind := blind_to(check):
            logger.info("%s does not see that images are %s", name, " or ".join(blind))
    before = read_json(experiment.rulers_file)["rulers"] if experiment.rulers_file.is_file() else {}
    write_json(experiment.rulers_file, {"schema_version": 1, "rulers": {**before, **checks}})


# --- the generated side -------------------------------------------------------------------------


def _score_all(runs: list[RunFolder], scoring: Scoring, draw: Draw) -> None:
    failures = []
    for position, run in enumerate(runs, 1):
        try:
            evaluation = _score(run, scoring, draw)
            write_json(run.evaluation_file, evaluation)
            values = ", ".join(f"{score['name']} {score['value']:.4g}" for score in evaluation["scores"])
            failed = "".join(f"; {gate['name']}: {gate['words']}" for gate in evaluation["gates"])
            logger.info("%d of %d: %s: %s%s", position, len(runs), run.path.name, values, failed)
        except (DiskError, Interrupted):
            raise
        except Exception as error:
            logger.info("%d of %d: %s could not be scored: %s", position, len(runs), run.path.name, error)
            failures.append(f"{run.path.name} ({error})")
    if failures:
        raise PetganError(f"{len(failures)} of {len(runs)} runs could not be scored: {'; '.join(failures)}")


def _score(run: RunFolder, scoring: Scoring, draw: Draw) -> dict[str, Any]:
    protocol = scoring.protocol
    checkpoint = _checkpoint(run, protocol)
    kind = PRESETS[run.config().point.preset].shown
    averaged = PROTOCOLS[protocol].averaged
    images, header = draw(checkpoint, scoring.count, NOISE_SEED, averaged, scoring.shown.get(kind))
    fake = Sample(
        images,
        {
            extractor.name: extractor.features(images, spoken("features of the generated images"))
            for extractor in scoring.extractors
        },
    )
    made = {
        "checkpoint": {
            "file": str(checkpoint.relative_to(run.path)),
            "step": header.step,
            "digest": header.digest,
        },
        "noise_seed": NOISE_SEED,
    }
    scores = [_one_score(ruler, fake, scoring) for ruler in scoring.rulers]
    before = _of_other_protocols(run, protocol)
    others = before["scores"]
    if protocol == "petgan" or "petgan" not in before["protocols"]:
        found = scoring.gates.check(images)
        _leave_nearest(run, images, found)
        looked = {
            "gates": [asdict(gate) for gate in found.gates],
            "nearest": [asdict(near) for near in found.nearest],
            "copies": found.copies,
            "notes": [
                *([SHOWN_THEMSELVES] if kind == "dataset" else []),
                *_notes(scoring, scores),
                *found.notes,
            ],
        }
        scores = [*scores, *others] if protocol == "petgan" else [*others, *scores]
    else:
        scores = [*others, *scores]
        looked = {key: before.get(key, []) for key in ("gates", "nearest", "copies", "notes")}
    protocols = {**before["protocols"], protocol: made}
    return {
        "schema_version": EVALUATION_SCHEMA,
        "run_id": run.path.name,
        "checkpoint": protocols.get("petgan", made)["checkpoint"],
        "protocols": protocols,
        "headline": scores[0]["name"],
        "scores": scores,
        **looked,
    }


def _one_score(ruler: Ruler, fake: Sample, scoring: Scoring) -> dict[str, Any]:
    reference = scoring.reference
    value, error = ruler(reference.sample(reference.real), fake)
    if not math.isfinite(value):
        raise PetganError(f"the score {ruler.name} is not a number", value=value)
    floor, without, check = None, [], None
    if scoring.protocol == "petgan":
        floor = reference.floor(ruler, scoring.count)
        check = reference.check(ruler, scoring.count)
        groups = reference.groups()
        if groups and min(map(len, groups)) >= ruler.fewest:
            without = in_parallel(
                lambda kept: ruler(reference.sample(kept), fake)[0],
                groups,
                f"{ruler.name} without each group of test patients",
            )
    return {
        "name": ruler.name,
        "protocol": scoring.protocol,
        "value": value,
        "standard_error": error if error is None or math.isfinite(error) else None,
        "better": ruler.better,
        "ruler": ruler.id,
        "n_real": len(reference.real),
        "n_fake": scoring.count,
        "floor": floor,
        "without": without,
        "blind_to": blind_to(check),
    }


def _leave_nearest(run: RunFolder, images: np.ndarray, found: Findings) -> None:
    """Leave a sheet of the images that come nearest to training images."""
    if found.nearest:
        save_png(run.nearest_file, sheet(images[[near.fake for near in found.nearest]], len(found.nearest)))


def _notes(scoring: Scoring, scores: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = list(scoring.notes)
    few = min(len(scoring.reference.real), scoring.count)
    if not scoring.extractors:
        notes.append(NO_NETWORK)
    elif few < UNBIASED_FROM:
        notes.append(
            f"FID is biased upwards with as few as {few} images: compare it with its floor, "
            "and with scores of the same sizes only."
        )
    if not any(score["without"] for score in scores):
        notes.append(
            "Intervals speak of the seeds alone: there are too few test patients to leave some out in turn."
        )
    if any(score["floor"] is None for score in scores):
        notes.append(
            f"There is no floor: it takes {len(scoring.reference.real)} real images and {scoring.count} of "
            f"other patients, and there are {len(scoring.reference.images)} in all."
        )
    return notes


def _of_other_protocols(run: RunFolder, protocol: str) -> dict[str, Any]:
    """What the run's evaluation has of other protocols, of the weights that the run has now."""
    evaluation = _evaluation(run) or {"protocols": {}, "scores": []}
    others = {
        name: made
        for name, made in evaluation["protocols"].items()
        if name != protocol and made["checkpoint"]["digest"] == _digest(_checkpoint(run, name))
    }
    scores = [score for score in evaluation["scores"] if score["protocol"] in others]
    return {**evaluation, "protocols": others, "scores": scores}


def _evaluation(run: RunFolder) -> dict[str, Any] | None:
    """The run's evaluation, if it is of this schema."""
    evaluation = run.evaluation()
    return evaluation if evaluation and evaluation.get("schema_version") == EVALUATION_SCHEMA else None


def _checkpoint(run: RunFolder, protocol: str) -> Path:
    """The chosen one; under a protocol that knows no choice the last."""
    if PROTOCOLS[protocol].averaged or not (last := run.last_checkpoints()):
        return run.chosen_checkpoint()
    return last[0]


def _digest(checkpoint: Path) -> str | None:
    """What a checkpoint says its digest is; None if it cannot be read."""
    try:
        with h5py.File(checkpoint, "r", locking=False) as file:
            return str(file.attrs["digest"])
    except (OSError, KeyError):
        return None
