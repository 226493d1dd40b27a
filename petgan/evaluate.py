"""Score the finished runs of an experiment against the test images that no run has seen.

Every score stands beside its floor: the same score of as many real training images, whose patients are
not those of the test images. Below it nothing can be told from chance.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from petgan.errors import ConfigError, DatasetError, DiskError, InputError, Interrupted, PetganError
from petgan.features import RESIZES, Extractor, network_id
from petgan.metrics import frechet_distance, kernel_distance, sliced_wasserstein
from petgan.metrics.wasserstein import level_sizes
from petgan.registry import Registry
from petgan.runs import ExperimentFolder, RunFolder, write_json
from petgan.store import Dataset

SCHEMA_VERSION = 1
PROTOCOL = "petgan"
NOISE_SEED = 2
FLOOR_DRAWS = 10
FEWEST_IMAGES = 4  # of either side: two subsets of two for the kernel distance
MOST_IMAGES = 50_000
USUAL_IMAGES = 150
UNBIASED_FROM = 2048  # samples that fill the covariance of InceptionV3's features
SPEAK_SECONDS = 5.0

#: (checkpoint, count, noise seed) to images (count, size, size) uint8 and the checkpoint's header.
Draw = Callable[[Path, int, int], tuple[np.ndarray, Any]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Some images, and their features where there is a network."""

    images: np.ndarray
    features: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: np.ndarray) -> Sample:
        return Sample(self.images[chosen], None if self.features is None else self.features[chosen])


@dataclass(frozen=True)
class Metric:
    """A score; lower is better.

    Parameters
    ----------
    of : str
        ``"images"``, or ``"features"`` where it takes a network.
    score : callable
        (real, fake) arrays to value and standard error, None where there is none.
    """

    of: str
    score: Callable[[np.ndarray, np.ndarray], tuple[float, float | None]]

    def __call__(self, real: Sample, fake: Sample) -> tuple[float, float | None]:
        return self.score(getattr(real, self.of), getattr(fake, self.of))


#: In the order of their weight: the first that can be had is the headline.
METRICS: Registry[Metric] = Registry("score")
METRICS.add("kid", Metric("features", kernel_distance))
METRICS.add("fid", Metric("features", lambda real, fake: (frechet_distance(real, fake), None)))
METRICS.add("swd", Metric("images", lambda real, fake: (sliced_wasserstein(real, fake), None)))


def evaluate_experiment(
    experiment: ExperimentFolder,
    draw: Draw,
    *,
    weights: Path | None = None,
    images: int | None = None,
    resize: str = "antialias",
    force: bool = False,
) -> None:
    """Score every finished run that has no scores of the same settings, and write its ``evaluation.json``.

    Parameters
    ----------
    experiment : ExperimentFolder
    draw : callable
        Draws images from the generator of a checkpoint.
    weights : path, optional
        Learned weights of the feature network. Without any, the sliced Wasserstein distance is the only
        score.
    images : int, optional
        Generated images to score; by default as many as there are test images, and at least half as many
        as there are training images up to 150. With as many as there are training images, or more, the
        scores have no floor.
    resize : str
        A name of `petgan.features.RESIZES`.
    force : bool
        Score again what has been scored.

    Raises
    ------
    InputError, ConfigError, DatasetError, CheckpointError
        Before anything is scored, if the settings, dataset or weights cannot be.
    PetganError
        In the end, if a run could not be scored; it says which, and the others are scored.
    """
    RESIZES[resize]
    runs = [run for run in experiment.run_folders() if run.status().state == "done"]
    if not runs:
        raise InputError(
            f"{experiment.path} has no finished run", hint="'petgan status' says how far they are"
        )
    if weights is None:
        logger.info("%s", NO_NETWORK)
    train, test = _real_images(runs[0])
    count = _count(images, len(train), len(test))
    rulers = _rulers(test.shape[1], None if weights is None else network_id(weights, resize))
    sizes = {"n_real": len(test), "n_fake": count}
    pending = [run for run in runs if force or not _is_scored(run, rulers, sizes)]
    logger.info("%d finished runs, %d to score", len(runs), len(pending))
    if pending:
        extractor = None if weights is None else Extractor(weights, resize)
        reference = Reference(experiment, runs[0].config().dataset.digest, train, test, extractor)
        _score_all(pending, reference, draw, count, rulers)


NO_NETWORK = (
    "There is no network with learned weights, so neither KID nor FID, and the headline is the sliced "
    "Wasserstein distance (swd): a network that was never trained is blind on these images. "
    "'petgan doctor' says where the weights go; or give --weights FILE."
)


def _real_images(run: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images of the run's dataset."""
    known = run.config().dataset
    with Dataset(known.path) as dataset:
        if dataset.digest != known.digest:
            raise DatasetError(
                f"{dataset.path} has changed since the runs were made",
                value=dataset.digest[:12],
                allowed=known.digest[:12],
                hint="bring the old dataset back, or train anew",
            )
        dataset.verify()
        train, test = dataset.images("train"), dataset.images("test")
    if len(test) < FEWEST_IMAGES:
        raise DatasetError(
            f"{known.path} has too few test images to score against",
            value=len(test),
            allowed=f"{FEWEST_IMAGES} or more",
            hint="ingest with another --split, and see that it counts the patients right (--patients)",
        )
    return train, test


def _count(images: int | None, n_train: int, n_test: int) -> int:
    if images is None:
        return max(n_test, min(USUAL_IMAGES, n_train // 2))
    if not FEWEST_IMAGES <= images <= MOST_IMAGES:
        raise ConfigError(
            "impossible number of images", value=images, allowed=f"{FEWEST_IMAGES} to {MOST_IMAGES}"
        )
    return images


def _rulers(image_size: int, network: str | None) -> dict[str, str]:
    """What each score that can be had is measured with, by name: scores compare only if it is equal."""
    means = {"images": f"{image_size}px/{len(level_sizes(image_size))}-levels"}
    if network is not None:
        means["features"] = network
    return {name: f"{name}/{means[METRICS[name].of]}" for name in METRICS if METRICS[name].of in means}


def _is_scored(run: RunFolder, rulers: Mapping[str, str], sizes: Mapping[str, int]) -> bool:
    evaluation = run.evaluation()
    if evaluation is None or evaluation.get("schema_version") != SCHEMA_VERSION:
        return False
    scored = {score["name"]: {key: score[key] for key in ("ruler", *sizes)} for score in evaluation["scores"]}
    wanted = {name: {"ruler": ruler, **sizes} for name, ruler in rulers.items()}
    same_weights = evaluation["checkpoint"]["digest"] == _digest(run)
    return same_weights and scored == wanted and evaluation["noise_seed"] == NOISE_SEED


def _digest(run: RunFolder) -> str | None:
    """What the run's checkpoint says its digest is; None if it cannot be read."""
    try:
        with h5py.File(run.chosen_checkpoint(), "r", locking=False) as file:
            return str(file.attrs["digest"])
    except (InputError, OSError, KeyError):
        return None


# --- the real side ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """The real images of an experiment, with their features kept in its folder."""

    experiment: ExperimentFolder
    dataset_digest: str
    train_images: np.ndarray
    test_images: np.ndarray
    extractor: Extractor | None

    @cached_property
    def test(self) -> Sample:
        return self._sample(self.test_images, "test")

    @cached_property
    def train(self) -> Sample:
        return self._sample(self.train_images, "train")

    def _sample(self, images: np.ndarray, split: str) -> Sample:
        if self.extractor is None:
            return Sample(images, None)
        name = f"{self.dataset_digest}/{split}"
        progress = _spoken(f"features of the {split} images")
        return Sample(images, self.extractor.cached_features(images, self.experiment.cache, name, progress))

    def fake(self, images: np.ndarray) -> Sample:
        """Generated images as a sample of the same kind."""
        if self.extractor is None:
            return Sample(images, None)
        return Sample(images, self.extractor.features(images, _spoken("features of the generated images")))

    def floor(self, name: str, count: int) -> dict[str, Any] | None:
        """A score of `count` real training images against the test images, over random draws.

        None where there are not more training images than that. The draws overlap, so their deviation is
        smaller than that of fresh images the closer `count` comes to all of them.
        """
        if len(self.train) <= count:
            return None
        random = np.random.default_rng(0)
        draws = (random.choice(len(self.train), count, replace=False) for _ in range(FLOOR_DRAWS))
        values = [METRICS[name](self.test, self.train[chosen])[0] for chosen in draws]
        return {
            "value": float(np.mean(values)),
            "standard_deviation": float(np.std(values, ddof=1)),
            "repeats": FLOOR_DRAWS,
        }


# --- the generated side -------------------------------------------------------------------------


def _score_all(
    runs: list[RunFolder], reference: Reference, draw: Draw, count: int, rulers: Mapping[str, str]
) -> None:
    floors = {name: reference.floor(name, count) for name in rulers}
    failures = []
    for position, run in enumerate(runs, 1):
        try:
            evaluation = _score(run, reference, draw, count, rulers, floors)
            write_json(run.evaluation_file, evaluation)
            values = ", ".join(f"{score['name']} {score['value']:.4g}" for score in evaluation["scores"])
            logger.info("%d of %d: %s: %s", position, len(runs), run.path.name, values)
        except (DiskError, Interrupted):
            raise
        except Exception as error:
            logger.info("%d of %d: %s could not be scored: %s", position, len(runs), run.path.name, error)
            failures.append(f"{run.path.name} ({error})")
    if failures:
        raise PetganError(f"{len(failures)} of {len(runs)} runs could not be scored: {'; '.join(failures)}")


def _score(
    run: RunFolder,
    reference: Reference,
    draw: Draw,
    count: int,
    rulers: Mapping[str, str],
    floors: Mapping[str, Any],
) -> dict[str, Any]:
    checkpoint = run.chosen_checkpoint()
    images, header = draw(checkpoint, count, NOISE_SEED)
    fake = reference.fake(images)
    scores = []
    for name, ruler in rulers.items():
        value, error = METRICS[name](reference.test, fake)
        if not math.isfinite(value):
            raise PetganError(f"the score {name} is not a number", value=value)
        scores.append(
            {
                "name": name,
                "value": value,
                "standard_error": error,
                "better": "lower",
                "ruler": ruler,
                "n_real": len(reference.test),
                "n_fake": count,
                "floor": floors[name],
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.path.name,
        "protocol": PROTOCOL,
        "checkpoint": {
            "file": str(checkpoint.relative_to(run.path)),
            "step": header.step,
            "digest": header.digest,
        },
        "noise_seed": NOISE_SEED,
        "split": "test",
        "headline": next(iter(rulers)),
        "scores": scores,
        "notes": _notes(reference, count, floors),
    }


def _notes(reference: Reference, count: int, floors: Mapping[str, Any]) -> list[str]:
    notes = []
    few = min(len(reference.test), count)
    if "fid" not in floors:
        notes.append(NO_NETWORK)
    elif few < UNBIASED_FROM:
        notes.append(
            f"FID is biased upwards with as few as {few} images: compare it with its floor, "
            "and with scores of the same sizes only."
        )
    if None in floors.values():
        notes.append(
            f"There is no floor: it takes more than {count} training images, "
            f"and there are {len(reference.train)}."
        )
    return notes


def _spoken(what: str) -> Callable[[int, int], None]:
    """Progress as a line in the log now and then, when it takes long."""
    last = time.monotonic()

    def speak(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SPEAK_SECONDS:
            last = time.monotonic()
            logger.info("%s: %d of %d", what, done, total)

    return speak
