"""Is an image a copy of a training image? Distances to nearest neighbours, and the test made of them.

A generator trained on few images may hand them out again (Feng et al. 2021). A fake counts as a copy when
it is less than 0.45 times as far from its nearest training image as that image is from the nearest image
of another patient. The scale is thus the data's own: a fake as unlike any training image as patients are
unlike each other is at ratio 1, the mean of many independent images at about 0.71, a copy near 0.

At 32 pixels no image of 400 splits by patient of real mammograms (mini-MIAS, 160 films) came nearer to
those of other women than 0.47, nor did a slice of 40 splits of phantom PET; at a limit of 0.5, 2 of the
400 would be called copied. Of copies with noise of 8 grey levels none was farther than 0.29, but for faint
PET slices, which such noise hides. A copy that is turned, or shifted by a fraction of a pixel where edges
are sharp, may pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.checks import checked_images
from petgan.metrics.neighbours import nearest_distances

COPY_RATIO = 0.45
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
    """

    ratios: np.ndarray
    nearest: np.ndarray

    @property
    def copies(self) -> np.ndarray:
        """Positions of the fakes that are copies."""
        return np.flatnonzero(self.ratios < COPY_RATIO)


def copy_scale(train: np.ndarray, train_patients: np.ndarray) -> np.ndarray:
    """How far each training image is from the nearest one of another patient.

    Parameters
    ----------
    train : ndarray (n, size, size) uint8
    train_patients : ndarray (n,)
        Whose image each is; two patients or more.

    Returns
    -------
    ndarray (n,) float64
        At least half the median: were an image there twice, under two patients, its scale would be 0 and
        its copies would pass.

    Raises
    ------
    ConfigError
        If there is only one patient, or the images are of another kind or nearly all the same.
    """
    train = checked_images("training", train)
    if len(np.unique(train_patients)) < 2:
        raise ConfigError("copies can only be told by the images of two training patients or more")
    between_patients, _ = _nearest_variant(train, train, train_patients, train_patients)
    scale = np.maximum(between_patients, np.median(between_patients) / 2)
    if not scale.all():
        raise ConfigError("copies cannot be told: most training images are the same")
    return scale


def check_copies(fake: np.ndarray, train: np.ndarray, scale: np.ndarray) -> CopyCheck:
    """Compare fakes with training images, up to brightness, contrast, mirroring and small shifts.

    Parameters
    ----------
    fake, train : ndarray (n, size, size), (m, size, size) uint8
        Thumbnails, such as 32 x 32: the comparison is one of pixels, and noise is to count for little.
    scale : ndarray (m,)
        The training images' `copy_scale`.

    Raises
    ------
    ConfigError
        If the arrays are of another kind.
    """
    fake, train = checked_images("fake", fake), checked_images("training", train)
    distance, nearest = _nearest_variant(fake, train)
    return CopyCheck(distance / scale[nearest], nearest)


def aligned(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Each image mirrored and shifted so that it comes nearest to any of the reference images.

    Parameters
    ----------
    images, reference : ndarray (n, size, size), (m, size, size) uint8

    Returns
    -------
    ndarray (n, size, size) uint8
    """
    out, best = images.copy(), np.full(len(images), np.inf)
    flat = standardised(reference)
    for variant in _variants(images):
        distance, _ = nearest_distances(standardised(variant), flat)
        better = distance < best
        out[better], best[better] = variant[better], distance[better]
    return out


def standardised(images: np.ndarray) -> np.ndarray:
    """Images (n, size, size) as rows (n, size * size) float64 of mean 0 and deviation 1; a flat one is 0."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    deviation = rows.std(axis=1, keepdims=True)
    return rows / np.where(deviation > 0, deviation, 1)


def _nearest_variant(
    images: np.ndarray,
    reference: np.ndarray,
    groups: np.ndarray | None = None,
    reference_groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_distances` of the nearest of each image's variants."""
    flat = standardised(reference)
    found = [nearest_distances(standardised(v), flat, groups, reference_groups) for v in _variants(images)]
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
