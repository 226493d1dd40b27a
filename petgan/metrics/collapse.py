"""Outputs of a generator that has failed: black, constant, noise, or one image over and over.

Each is one number that is compared with a limit, most of them with the same number of real images. It is
the median image that counts, so a failed generator is recognised by half of its images, and a few odd
ones are no failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petgan.metrics.checks import checked_images
from petgan.metrics.copies import standardised
from petgan.metrics.neighbours import nearest_distances

#: Of 255 grey levels: screens and eyes tell them from black only in the dark.
BLACK = 8
#: Of the real images' deviation: seen at the real images' window, such an image is one grey.
CONSTANT_SHARE = 0.05
#: Of the real images' correlation of neighbouring pixels. White noise of the same variance as an image
#: halves it, so below there is more noise than image.
NOISE_SHARE = 0.5
#: Of the real images' distance to each other. Mammograms blurred until nothing but their outline is left
#: come to 0.5, and variation of a few grey levels about one image to 0.1 and less.
SINGLE_MODE_SHARE = 0.25
_FAINTEST_CORRELATION = 0.2


@dataclass(frozen=True)
class Measure:
    """A number of a set of images, and the least that it must be.

    Parameters
    ----------
    value, limit : float
    """

    value: float
    limit: float

    @property
    def failed(self) -> bool:
        """Whether the images have failed."""
        return self.value < self.limit


def black(fake: np.ndarray, real: np.ndarray) -> Measure:
    """Brightest grey level of the median image; fails below `BLACK`, or half of the real images' own.

    Parameters
    ----------
    fake, real : ndarray (n, size, size) uint8
    """
    value, own = (float(np.median(x.max(axis=(1, 2)))) for x in _checked(fake, real))
    return Measure(value, min(BLACK, own / 2))


def constant(fake: np.ndarray, real: np.ndarray) -> Measure:
    """Deviation of the median image's grey levels; fails below `CONSTANT_SHARE` of the real images' own.

    Parameters
    ----------
    fake, real : ndarray (n, size, size) uint8
    """
    value, own = (float(np.median([image.std() for image in x])) for x in _checked(fake, real))
    return Measure(value, CONSTANT_SHARE * own)


def noise(fake: np.ndarray, real: np.ndarray) -> Measure | None:
    """Correlation of neighbouring pixels of the median image; fails below `NOISE_SHARE` of the real images'.

    Parameters
    ----------
    fake, real : ndarray (n, size, size) uint8
        Not reduced, which would average the noise away.

    Returns
    -------
    Measure or None
        None where the real images are hardly correlated themselves, or all flat.
    """
    value, own = (float(np.median([_neighbours(image) for image in x])) for x in _checked(fake, real))
    return Measure(value, NOISE_SHARE * own) if own >= _FAINTEST_CORRELATION else None


def single_mode(fake: np.ndarray, real: np.ndarray, seed: int = 0) -> Measure | None:
    """Median distance of images to their nearest other; fails below `SINGLE_MODE_SHARE` of the real ones'.

    No more fakes are drawn than there are real images, as the nearest of many is nearer. The nearest real
    one may be of the same patient, so that slices which resemble each other are no collapse.

    Parameters
    ----------
    fake, real : ndarray (n, size, size) uint8
        Thumbnails; brightness and contrast do not count.
    seed : int
        Of the draw.

    Returns
    -------
    Measure or None
        None where there are fewer than two images, or the real ones are all the same.
    """
    fake, real = _checked(fake, real)
    count = min(len(fake), len(real))
    if count < 2:
        return None
    drawn = fake[np.random.default_rng(seed).choice(len(fake), count, replace=False)]
    own = _median_nearest(standardised(real))
    return Measure(_median_nearest(standardised(drawn)), SINGLE_MODE_SHARE * own) if own > 0 else None


def _checked(fake: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return checked_images("fake", fake), checked_images("real", real)


def _neighbours(image: np.ndarray) -> float:
    """Correlation of each pixel with those right of and below it; 0 for a flat image."""
    centred = image.astype(np.float64) - image.mean()
    variance = np.mean(centred**2)
    products = np.mean(centred[:, 1:] * centred[:, :-1]) + np.mean(centred[1:] * centred[:-1])
    return float(products / 2 / variance) if variance > 0 else 0.0


def _median_nearest(rows: np.ndarray) -> float:
    each = np.arange(len(rows))
    return float(np.median(nearest_distances(rows, rows, each, each)[0]))
