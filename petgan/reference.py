"""The real side of the scores: the images to score against, floors, patients to leave out, the rulers' check.

What is dear to find is kept in the experiment's cache, and found again there by what it depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from petgan.config import DatasetRef
from petgan.corruptions import CORRUPTIONS, repeated
from petgan.errors import DatasetError, InputError
from petgan.features import Extractor
from petgan.protocols import FEWEST_IMAGES, Protocol
from petgan.rulers import Ruler, Sample
from petgan.runs import read_json, write_json
from petgan.store import Dataset

SCHEMA_VERSION = 1  # of what is kept
FLOOR_SPLITS = 50
CHECK_DRAWS = 10
CHECK_IMAGES = 300  # of the training split, at most: each is looked at under every corruption
GROUPS = 10  # of test patients to leave out in turn
SPEAK_SECONDS = 5.0
CORES = len(os.sched_getaffinity(0))

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Reference:
    """The real images of a dataset, as a protocol takes them.

    Parameters
    ----------
    dataset : DatasetRef
    protocol : Protocol
    extractors : sequence of Extractor
        Of the protocol's resize.
    cache : path
        A folder.

    Attributes
    ----------
    real : ndarray (n_real,) int
        Positions of the images that are scored against.
    train : ndarray (n,) int
        Positions of the training images.
    images : ndarray (n, size, size) uint8
        All images, in the dataset's order.
    patients : ndarray (n,) str
        Whose each is.
    modality : str

    Raises
    ------
    DatasetError
        If the dataset is not there, damaged or another, or has too few test images.
    """

    def __init__(
        self, dataset: DatasetRef, protocol: Protocol, extractors: Sequence[Extractor], cache: Path
    ) -> None:
        with Dataset(dataset.path) as opened:
            if opened.digest != dataset.digest:
                raise DatasetError(
                    f"{opened.path} has changed since the runs were made",
                    value=opened.digest[:12],
                    allowed=dataset.digest[:12],
                    hint="bring the old dataset back, or train anew",
                )
            opened.verify()
            self.modality = opened.modality
            self.images = opened.images()[..., 0]
            self.patients = opened.columns["patient"].astype(str)
            self.train, self.test = opened.indices("train"), opened.indices("test")
            self.held_out = np.sort(np.concatenate([self.test, opened.indices("validation")]))
        if len(self.test) < FEWEST_IMAGES:
            raise DatasetError(
                f"{dataset.path} has too few test images to score against",
                value=len(self.test),
                allowed=f"{FEWEST_IMAGES} or more",
                hint="ingest with another --split, and see that it counts the patients right (--patients)",
            )
        self.real = np.arange(len(self.images)) if protocol.of_all_real else self.test
        self._as_scored = protocol.real_images(self.images, self.modality)
        self._how = "jpeg" if self._as_scored is not self.images else "plain"
        self._digest, self._extractors, self._cache = dataset.digest, extractors, cache
        self._samples: dict[str, Sample] = {}

    def sample(self, chosen: np.ndarray, corruption: str | None = None) -> Sample:
        """Images at the positions `chosen`, with their features; spoilt by a name of `CORRUPTIONS`."""
        what = corruption or self._how
        if what not in self._samples:
            positions = self._checked if corruption else np.arange(len(self.images))
            images = self._as_scored[positions]
            if corruption:
                images = CORRUPTIONS[corruption](images)
            features = {
                extractor.name: extractor.cached_features(
                    images,
                    self._cache,
                    f"{self._digest}/{what}/{len(images)}",
                    spoken(f"features of {len(images)} real images ({what}) by {extractor.name}"),
                )
                for extractor in self._extractors
            }
            self._samples[what] = Sample(images, features)
        if corruption:
            chosen = np.searchsorted(self._checked, chosen)
        return self._samples[what][chosen]

    @property
    def _checked(self) -> np.ndarray:
        """Positions of the training images that the rulers are checked with."""
        random = np.random.default_rng(0)
        count = min(len(self.train), CHECK_IMAGES)
        return np.sort(random.choice(self.train, count, replace=False))

    def groups(self) -> list[np.ndarray]:
        """Positions of the real images that are left without each group of patients: the same for all runs.

        Empty where there are too few.
        """
        patients = self.patients[self.real]
        number = {patient: i % GROUPS for i, patient in enumerate(np.unique(patients))}
        group = np.array([number[patient] for patient in patients])
        kept = [self.real[group != i] for i in np.unique(group)]
        return kept if len(kept) > 1 and min(map(len, kept)) >= FEWEST_IMAGES else []

    def floor(self, ruler: Ruler, n_fake: int) -> dict[str, Any] | None:
        """Scores of real against other patients' real images, in the same numbers, over random splits.

        None where there are not enough images for that.
        """
        return self._kept(f"floor/{FLOOR_SPLITS}", ruler, n_fake, lambda: self._floor(ruler, n_fake))

    def _floor(self, ruler: Ruler, n_fake: int) -> dict[str, Any] | None:
        self.sample(self.real)  # features are found once, before the work is shared out
        splits = [self._split(np.random.default_rng(number), n_fake) for number in range(FLOOR_SPLITS)]
        pairs = [split for split in splits if split is not None]
        if len(pairs) < len(splits):
            return None
        values = in_parallel(lambda pair: ruler(*map(self.sample, pair))[0], pairs, f"floor of {ruler.name}")
        low, high = np.quantile(values, (0.025, 0.975))
        return {
            "value": float(np.mean(values)),
            "standard_deviation": float(np.std(values, ddof=1)),
            "low": float(low),
            "high": float(high),
            "repeats": FLOOR_SPLITS,
        }

    def _split(self, random: np.random.Generator, n_fake: int) -> tuple[np.ndarray, np.ndarray] | None:
        """As many images as are scored against, and `n_fake` of other patients."""
        patients = random.permutation(np.unique(self.patients))
        order = np.concatenate([np.flatnonzero(self.patients == patient) for patient in patients])
        ends = np.cumsum([np.sum(self.patients == patient) for patient in patients])
        end = ends[np.searchsorted(ends, len(self.real))] if ends[-1] >= len(self.real) else ends[-1]
        one, other = order[:end], order[end:]
        if len(one) < len(self.real) or len(other) < n_fake:
            return None
        return random.choice(one, len(self.real), False), random.choice(other, n_fake, False)

    def check(self, ruler: Ruler, n_fake: int) -> dict[str, Any] | None:
        """Whether the ruler sees that training images are spoilt: they must score worse than as they are.

        Training images are drawn ten times, and scored against the real images as they are, and spoilt. A
        corruption is seen if the mean is worse by more than both deviations over the draws together.

        Returns
        -------
        dict or None
            ``real`` (value, spread) and ``corrupted``, for each its value, spread, and whether it is seen.
            None where there are fewer than 8 training images.
        """
        return self._kept(f"check/{CHECK_DRAWS}", ruler, n_fake, lambda: self._check(ruler, n_fake))

    def _check(self, ruler: Ruler, n_fake: int) -> dict[str, Any] | None:
        checked = self._checked
        count = min(n_fake, len(checked) // 2)
        if count < max(FEWEST_IMAGES, ruler.fewest):
            return None
        real = self.sample(self.real)
        draws = [
            np.random.default_rng(number).choice(checked, count, replace=False)
            for number in range(CHECK_DRAWS)
        ]
        fakes = {"real": [self.sample(chosen) for chosen in draws]}
        fakes |= {name: [self.sample(chosen, name) for chosen in draws] for name in CORRUPTIONS}
        fakes["repeated"] = [self.sample(repeated(chosen)) for chosen in draws]
        found = {}
        for name, samples in fakes.items():
            what = f"checking the ruler {ruler.name}, {name} images"
            values = in_parallel(lambda fake: ruler(real, fake)[0], samples, what)
            found[name] = {"value": float(np.mean(values)), "spread": float(np.std(values, ddof=1))}
        clean = found.pop("real")
        sign = 1 if ruler.better == "lower" else -1
        corrupted = {
            name: {
                **spoilt,
                "seen": sign * (spoilt["value"] - clean["value"]) > spoilt["spread"] + clean["spread"],
            }
            for name, spoilt in found.items()
        }
        return {
            "ruler": ruler.id,
            "better": ruler.better,
            "n_real": len(self.real),
            "n_fake": count,
            "real": clean,
            "corrupted": corrupted,
        }

    def _kept(self, what: str, ruler: Ruler, n_fake: int, find: Callable[[], Any]) -> Any:
        """What `find` finds, or found earlier for the same images, ruler and numbers."""
        known = (SCHEMA_VERSION, what, self._digest, self._how, ruler.id, len(self.real), n_fake)
        key = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]
        file = self._cache / f"{what.partition('/')[0]}-{key}.json"
        if file.is_file():
            with contextlib.suppress(InputError, KeyError):  # damaged: found anew
                return read_json(file)["found"]
        found = find()
        write_json(file, {"found": found})
        return found


def blind_to(check: Mapping[str, Any] | None) -> list[str] | None:
    """Names of the corruptions that a ruler's check showed it not to see; None without a check."""
    if check is None:
        return None
    return [name for name, found in check["corrupted"].items() if not found["seen"]]


def in_parallel(work: Callable[[T], float], items: Sequence[T], what: str) -> list[float]:
    """What `work` makes of each item, in their order, on all cores, with progress as `spoken` of `what`.

    Threads are enough: NumPy's sorts and products let go of Python's lock.
    """
    out, speak = [], spoken(what)
    with ThreadPoolExecutor(CORES) as pool:
        try:
            for value in pool.map(work, items):
                out.append(value)
                speak(len(out), len(items))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what has not begun is not waited for
            raise
    return out


def spoken(what: str) -> Callable[[int, int], None]:
    """Progress as a line in the log now and then, when it takes long."""
    last = time.monotonic()

    def speak(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SPEAK_SECONDS:
            last = time.monotonic()
            logger.info("%s: %d of %d", what, done, total)

    return speak
