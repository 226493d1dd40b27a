"""What no score must hide: outputs that are black, constant, noise, one image over and over, or copies.

Each is a gate with a name. A run that fails one cannot be the best, and no dataset is made of its images.
Images are compared as thumbnails, on which noise and fine detail count for little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import betaincinv

from petgan.errors import ConfigError
from petgan.features import resized
from petgan.metrics import collapse
from petgan.metrics.copies import COPY_RATIO, CopyCheck, aligned, check_copies, copy_scale, standardised
from petgan.metrics.privacy import ALPHA, authenticity, memorisation_test, nearest_neighbours

COLLAPSE = ("black", "constant", "noise", "single-mode")
PRIVACY = ("copied", "memorised")
GATES = (*COLLAPSE, *PRIVACY)

THUMBNAIL = 32  # pixels
MOST_NEAREST = 8
MOST_COMPARED = 500  # fakes, in all but the search for copies: more tell no more of as many patients


@dataclass(frozen=True)
class Gate:
    """A gate that the images have failed.

    Parameters
    ----------
    name : str
        One of `GATES`.
    value, limit : float
        What was measured, and the least that it must be.
    words : str
        The same as a sentence without its full stop.
    """

    name: str
    value: float
    limit: float
    words: str


@dataclass(frozen=True)
class Nearest:
    """A generated image and the training image that it is nearest to, by their positions; see `CopyCheck`."""

    fake: int
    train: int
    ratio: float


@dataclass(frozen=True)
class Findings:
    """What `RealImages.check` has found.

    Parameters
    ----------
    gates : tuple of Gate
        Those that failed.
    copies : dict
        All that is known of copies, for the record; values that JSON can hold.
    nearest : tuple of Nearest
        The images nearest to training images, the nearest first.
    notes : tuple of str
        What could not be told, and why.
    """

    gates: tuple[Gate, ...]
    copies: dict[str, Any]
    nearest: tuple[Nearest, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RealImages:
    """Real images that generated ones are held against; what is known of them is found once.

    Parameters
    ----------
    train, held_out : ndarray (n, size, size) or (n, size, size, 1) uint8
        What the generator was trained on, and images of other patients, of which there may be none.
    train_patients, held_out_patients : ndarray (n,)
        Whose they are.
    called : str
        What the sentence on copies calls the images `train`.
    """

    train: np.ndarray
    train_patients: np.ndarray
    held_out: np.ndarray
    held_out_patients: np.ndarray
    called: str = "training images"

    def check(self, images: np.ndarray, seed: int = 0) -> Findings:
        """Hold images against these.

        Parameters
        ----------
        images : ndarray (n, size, size) or (n, size, size, 1) uint8
            One or more.
        seed : int
            Of the draws and permutations.

        Raises
        ------
        ConfigError
            If the arrays are of another kind.
        """
        gates, notes = list(self._collapse(images, seed)), []
        copies: dict[str, Any]
        nearest: tuple[Nearest, ...] = ()
        try:
            found = check_copies(thumbnails(images), self._thumbnails, self._scale)
        except ConfigError as error:
            copies = {"checked": False, "reason": str(error)}
            notes.append(str(error))
        else:
            copies = self._summary(found) | self._membership(images, seed)
            nearest = _nearest(found)
            gates += _privacy(copies, len(images), self.called)
            notes += _notes(copies)
        return Findings(tuple(gates), copies, nearest, tuple(notes))

    @cached_property
    def _thumbnails(self) -> np.ndarray:
        return thumbnails(self.train)

    @cached_property
    def _held_out_thumbnails(self) -> np.ndarray:
        return thumbnails(self.held_out)

    @cached_property
    def _scale(self) -> np.ndarray:
        return copy_scale(self._thumbnails, self.train_patients)

    def _collapse(self, images: np.ndarray, seed: int) -> Iterator[Gate]:
        fake, real = _some(images, seed), _some(self.train, seed)
        level = collapse.black(fake, real)
        if level.failed:
            words = f"the images are black: half of them have no grey level above {level.value:g} of 255"
            yield Gate("black", level.value, level.limit, words)
            return
        spread = collapse.constant(fake, real)
        if spread.failed:
            own = spread.limit / collapse.CONSTANT_SHARE
            words = (
                f"the images are constant: grey levels deviate by {spread.value:.2g} within one, and by "
                f"{own:.2g} within a real one"
            )
            yield Gate("constant", spread.value, spread.limit, words)
            return
        grain = collapse.noise(fake, real)
        if grain is not None and grain.failed:
            own = grain.limit / collapse.NOISE_SHARE
            words = (
                f"the images are noise: neighbouring pixels correlate by {grain.value:.2f}, those of real "
                f"images by {own:.2f}"
            )
            yield Gate("noise", grain.value, grain.limit, words)
        variety = collapse.single_mode(thumbnails(fake), self._thumbnails, seed)
        if variety is not None and variety.failed:
            share = variety.value / variety.limit * collapse.SINGLE_MODE_SHARE
            words = (
                "the images are one or a few over and over: half of them are no farther from another than "
                f"{share:.0%} of the distance between real images"
            )
            yield Gate("single-mode", variety.value, variety.limit, words)

    # --- copies -----------------------------------------------------------------------------------

    def _summary(self, found: CopyCheck) -> dict[str, Any]:
        return {
            "checked": True,
            "rule": "a copy is nearer to a training image than the threshold times that image's distance to "
            "the nearest image of another patient; thumbnails, up to brightness, contrast, mirroring, shift",
            "threshold": COPY_RATIO,
            "thumbnail_pixels": THUMBNAIL,
            "training_images": len(self.train),
            "training_patients": len(np.unique(self.train_patients)),
            "held_out_images": len(self.held_out),
            "held_out_patients": len(np.unique(self.held_out_patients)),
            "copies": len(found.copies),
            "smallest_ratio": float(found.ratios.min()),
            "median_ratio": float(np.median(found.ratios)),
            "false_alarms": self._false_alarms,
            "false_alarm_bound": _upper_bound(self._false_alarms, len(self.held_out)),
        }

    @cached_property
    def _false_alarms(self) -> int | None:
        """How many held-out images the rule takes for copies, which they cannot be."""
        if not len(self.held_out):
            return None
        return len(check_copies(self._held_out_thumbnails, self._thumbnails, self._scale).copies)

    @cached_property
    def _held_out_authenticity(self) -> float:
        """What real images of other patients come to."""
        fake = standardised(aligned(self._held_out_thumbnails, self._thumbnails))
        return authenticity(standardised(self._thumbnails), fake, self.train_patients)

    def _membership(self, images: np.ndarray, seed: int) -> dict[str, Any]:
        """Whether the images tell who was trained on.

        Images are aligned with whatever real one is nearest, trained on or not: that tells nothing of which.
        """
        train = standardised(self._thumbnails)
        pool = np.concatenate([self._thumbnails, self._held_out_thumbnails])
        fake = standardised(aligned(thumbnails(_some(images, seed)), pool))
        known: dict[str, Any] = {
            "compared_images": len(fake),
            "authenticity": authenticity(train, fake, self.train_patients),
        }
        if not len(self.held_out):
            return known | _NO_HELD_OUT
        held_out = standardised(self._held_out_thumbnails)
        sides = (fake, train, held_out, self.train_patients, self.held_out_patients)
        neighbours = nearest_neighbours(*sides)
        known |= {
            "held_out_authenticity": self._held_out_authenticity,
            "nearer_train_share": neighbours.nearer_train_share,
            "median_distance_ratio": float(np.median(neighbours.ratios)),
            "membership_auc": neighbours.membership_auc,
        }
        try:
            test = memorisation_test(*sides, seed)
        except ConfigError as error:
            return known | {"memorisation": _undecided(str(error))}
        return known | {"memorisation": asdict(test) | {"words": str(test)}}


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images (n, s, s) or (n, s, s, 1) uint8 as (n, 32, 32) uint8."""
    if not len(images):
        return np.empty((0, THUMBNAIL, THUMBNAIL), np.uint8)
    return np.clip(np.round(resized(images, THUMBNAIL)), 0, 255).astype(np.uint8)


def _some(images: np.ndarray, seed: int) -> np.ndarray:
    """All images, or as many as are compared."""
    if len(images) <= MOST_COMPARED:
        return images
    chosen = np.random.default_rng(seed).choice(len(images), MOST_COMPARED, replace=False)
    return images[np.sort(chosen)]


def _undecided(why: str) -> dict[str, Any]:
    words = f"whether the generator knows who was trained on cannot be decided: {why}"
    return {"rejects": None, "error_rate": ALPHA, "words": words}


_NO_HELD_OUT: dict[str, Any] = {
    "held_out_authenticity": None,
    "nearer_train_share": None,
    "median_distance_ratio": None,
    "membership_auc": None,
    "memorisation": _undecided("no images were held out of the training"),
}


def _nearest(found: CopyCheck) -> tuple[Nearest, ...]:
    order = np.argsort(found.ratios, kind="stable")[:MOST_NEAREST]
    return tuple(Nearest(int(i), int(found.nearest[i]), float(found.ratios[i])) for i in order)


def _privacy(copies: dict[str, Any], count: int, of: str) -> Iterator[Gate]:
    if copies["copies"]:
        words = f"{copies['copies']} of {count} images are copies of {of}"
        yield Gate("copied", copies["smallest_ratio"], COPY_RATIO, words)
    test = copies["memorisation"]
    if test["rejects"]:
        yield Gate("memorised", min(test["p_nearer"], test["p_inauthentic"]), ALPHA / 2, test["words"])


def _upper_bound(count: int | None, of: int) -> float | None:
    """Of a rate, with 95 % confidence: Clopper and Pearson 1934, one-sided."""
    if count is None:
        return None
    return 1.0 if count == of else float(betaincinv(count + 1, of - count, 0.95))


def _notes(copies: dict[str, Any]) -> Iterator[str]:
    if copies["memorisation"]["rejects"] is None:
        yield copies["memorisation"]["words"]
    if copies["false_alarms"]:
        yield (
            f"the rule for copies also takes {copies['false_alarms']} of {copies['held_out_images']} "
            "held-out images for copies, so that patients of this dataset are hardly told apart by it"
        )
