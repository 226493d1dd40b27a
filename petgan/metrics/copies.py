"""Is an image a copy of a training image? Distances to nearest neighbours, and the test made of them.

A generator trained on few images may hand them out again (Feng et al. 2021). A fake counts as a copy when
it is less than half as far from its nearest training image as that image is from the nearest image of
another patient. The scale is thus the data's own: a fake as unlike any training image as patients are
unlike each other is at ratio 1, the mean of many independent images at about 0.71, a copy near 0.

Of 800 comparisons of real mammograms with those of other women (mini-MIAS, 160 films, 20 splits by
patient) none was called a copy at 32 to 224 pixels, and 2 at 16 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.checks import checked_images
from petgan.metrics.neighbours import nearest_distances

COPY_RATIO = 0.5
SHIFTS = (-2, -1, 0, 1, 2)  # pixels, along either axis


@dataclass(frozen=True)
class CopyCheck:
    """What was found of a set of fakes.

    Parameters
    ----------
    ratios : ndarray (n,) float64
        Distance of each fake to its nearest training image, over that image's distance to the nearest
        image of another patient.
    nearest : ndarray (n,) int
        Which training image that is.
    nearer_train_share : float or None
        Share of the fakes that are nearer to training images than to as many held-out ones: about 0.5
        unless the generator has memorised. None without held-out images.
    """

    ratios: np.ndarray
    nearest: np.ndarray
    nearer_train_share: float | None

    @property
    def copies(self) -> np.ndarray:
        """Positions of the fakes that are copies."""
        return np.flatnonzero(self.ratios < COPY_RATIO)


def check_copies(
    fake: np.ndarray,
    train: np.ndarray,
    train_patients: np.ndarray,
    held_out: np.ndarray | None = None,
    seed: int = 0,
) -> CopyCheck:
    """Compare fakes with training images, up to brightness, contrast, mirroring and small shifts.

    Parameters
    ----------
    fake, train, held_out : ndarray (n, size, size) uint8
        Thumbnails, such as 32 x 32: the comparison is one of pixels, and noise is to count for little.
    train_patients : ndarray (n,)
        Whose image each training image is; two patients or more.
    held_out : ndarray, optional
        Images of the same kind that were not trained on.
    seed : int
        Of the draw that makes the training and held-out images equally many.

    Raises
    ------
    ConfigError
        If there is only one patient, or the arrays are of another kind.
    """
    fake, train = checked_images("fake", fake), checked_images("training", train)
    if len(np.unique(train_patients)) < 2:
        raise ConfigError("copies can only be told by the images of two training patients or more")
    fake_variants = list(_variants(fake))
    to_train, nearest = _nearest_variant(fake_variants, train)
    between_patients, _ = _nearest_variant(list(_variants(train)), train, train_patients, train_patients)
    # Were an image there twice, under two patients, its scale would be 0 and its copies would pass.
    scale = np.maximum(between_patients, np.median(between_patients) / 2)
    if not scale.all():
        raise ConfigError("copies cannot be told: most training images are the same")
    share = None
    if held_out is not None and len(held_out):
        random = np.random.default_rng(seed)
        count = min(len(train), len(held_out))
        seen, unseen = (x[random.choice(len(x), count, replace=False)] for x in (train, held_out))
        distances = [
            _nearest_variant(fake_variants, checked_images("held-out", x))[0] for x in (seen, unseen)
        ]
        share = float(np.mean(distances[0] < distances[1]))
    return CopyCheck(to_train / scale[nearest], nearest, share)


def _nearest_variant(
    variants: list[np.ndarray],
    reference: np.ndarray,
    groups: np.ndarray | None = None,
    reference_groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_distances` of the nearest of each image's variants."""
    flat = _standardised(reference)
    found = [nearest_distances(_standardised(v), flat, groups, reference_groups) for v in variants]
    distances, indices = (np.array(part) for part in zip(*found, strict=True))
    best = distances.argmin(axis=0), np.arange(distances.shape[1])
    return distances[best], indices[best]


def _variants(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images, mirrored or not, and shifted by a few pixels with their edges repeated."""
    size, reach = images.shape[1], max(SHIFTS)
    for mirrored in (images, images[:, :, ::-1]):
        padded = np.pad(mirrored, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        for dy in SHIFTS:
            for dx in SHIFTS:
                yield padded[:, reach + dy : reach + dy + size, reach + dx : reach + dx + size]


def _standardised(images: np.ndarray) -> np.ndarray:
    """Images as rows of mean 0 and deviation 1; a flat image is 0."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    deviation = rows.std(axis=1, keepdims=True)
    return rows / np.where(deviation > 0, deviation, 1)
