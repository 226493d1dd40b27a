"""Sliced Wasserstein distance between small patches of a Laplacian pyramid.

Karras, Aila, Laine, Lehtinen: Progressive Growing of GANs (2018), section 5. It needs no network and
sees blur, noise and wrong texture at each scale; it does not see that the same images come again and
again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import correlate1d

from petgan.errors import ConfigError
from petgan.metrics.checks import check_same_width, checked_images

PATCH = 7  # pixels along a side
SMALLEST_LEVEL = 16  # pixels
PATCHES_PER_IMAGE = 128
MOST_PATCHES = 1 << 16  # of one set and level: 26 MB, however many images there are
DIRECTIONS = 512
_DIRECTIONS_AT_ONCE = 128
_IMAGES_AT_ONCE = 64
_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16  # Burt and Adelson 1983


def sliced_wasserstein(real: np.ndarray, fake: np.ndarray, seed: int = 0) -> float:
    """1000 times the sliced Wasserstein-1 distance of 7x7 patches, averaged over the pyramid's levels.

    Patches are centred and scaled by the mean and deviation of all patches of their set and level, as in
    the paper, so brightness and contrast of a whole set do not count. Both sets are cut at the same
    random places and into the same number of patches; a set against itself is exactly 0.

    Parameters
    ----------
    real, fake : ndarray (n, size, size) or (n, size, size, 1) uint8
        Sets may differ in length; fewer images give a larger distance, so compare equal sizes only.
    seed : int
        Of the places and the directions.

    Returns
    -------
    float
        0 or more; lower is better.

    Raises
    ------
    ConfigError
        If the arrays are of another kind, or the images smaller than a patch.
    """
    real, fake = checked_images("real", real), checked_images("fake", fake)
    check_same_width(real, fake)
    size = real.shape[1]
    if size < PATCH:
        raise ConfigError("the images are smaller than a patch", value=size, allowed=f"{PATCH} or more")
    random = np.random.default_rng(seed)
    count = min(PATCHES_PER_IMAGE * max(len(real), len(fake)), MOST_PATCHES)
    places = [random.integers(0, s - PATCH + 1, (2, count)) for s in level_sizes(size)]
    distances = [
        _distance(_normalised(a), _normalised(b), random)
        for a, b in zip(_patches(real, places), _patches(fake, places), strict=True)
    ]
    return 1000 * float(np.mean(distances))


def level_sizes(size: int) -> list[int]:
    """Sizes of the pyramid's levels, from the image's own down to 16 pixels."""
    sizes = [size]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= SMALLEST_LEVEL:
        sizes.append(sizes[-1] // 2)
    return sizes


def laplacian_pyramid(images: np.ndarray, levels: int) -> Iterator[np.ndarray]:
    """Split images (n, size, size) into bands, finest first; the last band is what is left."""
    for _ in range(levels - 1):
        smaller = _blur(images)[:, ::2, ::2]
        yield images - _enlarged(smaller)
        images = smaller
    yield images


def _enlarged(images: np.ndarray) -> np.ndarray:
    n, height, width = images.shape
    out = np.zeros((n, 2 * height, 2 * width))
    out[:, ::2, ::2] = 4 * images
    return _blur(out)


def _blur(images: np.ndarray) -> np.ndarray:
    rows = correlate1d(images, _BINOMIAL, axis=1, mode="mirror")
    return correlate1d(rows, _BINOMIAL, axis=2, mode="mirror")


def _patches(images: np.ndarray, places: list[np.ndarray]) -> list[np.ndarray]:
    """The patches (count, 49) of each level; every image gives as many as the next, to one."""
    count = places[0].shape[1]
    owners = np.arange(count) * len(images) // count
    out = [np.empty((count, PATCH * PATCH)) for _ in places]
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        block = images[start : start + _IMAGES_AT_ONCE].astype(np.float64)
        first, last = np.searchsorted(owners, (start, start + len(block)))
        bands = laplacian_pyramid(block, len(places))
        for patches, (y, x), band in zip(out, places, bands, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(band, (PATCH, PATCH), axis=(1, 2))
            chosen = windows[owners[first:last] - start, y[first:last], x[first:last]]
            patches[first:last] = chosen.reshape(last - first, -1)
    return out


def _normalised(patches: np.ndarray) -> np.ndarray:
    centred = patches - patches.mean()
    deviation = centred.std()
    return centred / deviation if deviation > 0 else centred


def _distance(a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> float:
    """Mean Wasserstein-1 distance over random directions, with as many samples on either side."""
    distances = []
    for _ in range(DIRECTIONS // _DIRECTIONS_AT_ONCE):
        directions = random.standard_normal((_DIRECTIONS_AT_ONCE, a.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        projections = (np.sort(directions @ patches.T, axis=1) for patches in (a, b))
        distances.append(np.abs(np.subtract(*projections)).mean())
    return float(np.mean(distances))
