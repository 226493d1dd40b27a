"""Sliced Wasserstein distance between small patches of a Laplacian pyramid.

Karras, Aila, Laine, Lehtinen: Progressive Growing of GANs (2018), section 5. It needs no network and
sees blur, noise and wrong texture at each scale; it does not see that the same images come again and
again.

It is the score during training, so patches and projections are float32; their sums are float64. The same
arrays and seed give the same value, to the last bit, on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.checks import check_same_width, checked_images

PATCH = 7  # pixels along a side
SMALLEST_LEVEL = 16  # pixels
PATCHES_PER_IMAGE = 128
MOST_PATCHES = 1 << 16  # of one set and level: 13 MB, however many images there are
DIRECTIONS = 512
_DIRECTIONS_AT_ONCE = 32
_IMAGES_AT_ONCE = 64


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
    """Split images (n, size, size) into bands, finest first; the last band is what is left.

    The filter is the binomial 1 4 6 4 1 along either axis, mirrored at the edges (Burt and Adelson 1983);
    bands have the images' type.
    """
    for _ in range(levels - 1):
        smaller = _halved(_halved(images, 1), 2)
        yield images - _doubled(_doubled(smaller, 1), 2)
        images = smaller
    yield images


def _halved(images: np.ndarray, axis: int) -> np.ndarray:
    """Filter along an axis, and take every second sample."""
    x = np.pad(np.moveaxis(images, axis, 1), ((0, 0), (2, 2), (0, 0)), "reflect")
    out = (x[:, :-4:2] + x[:, 4::2] + 4 * (x[:, 1:-3:2] + x[:, 3:-1:2]) + 6 * x[:, 2:-2:2]) / 16
    return np.moveaxis(out, 1, axis)


def _doubled(images: np.ndarray, axis: int) -> np.ndarray:
    """Put zeros between the samples of an axis, filter, and multiply by 2."""
    x = np.moveaxis(images, axis, 1)
    before, after = (np.concatenate(ends, axis=1) for ends in ((x[:, 1:2], x[:, :-1]), (x[:, 1:], x[:, -1:])))
    out = np.empty((len(x), 2 * x.shape[1], x.shape[2]), x.dtype)
    out[:, ::2] = (before + 6 * x + after) / 8
    out[:, 1::2] = (x + after) / 2
    return np.moveaxis(out, 1, axis)


def _patches(images: np.ndarray, places: list[np.ndarray]) -> list[np.ndarray]:
    """The patches (49, count) of each level; every image gives as many as the next, to one."""
    count = places[0].shape[1]
    owners = np.arange(count) * len(images) // count
    out = [np.empty((PATCH * PATCH, count), np.float32) for _ in places]
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        block = images[start : start + _IMAGES_AT_ONCE].astype(np.float32)
        first, last = np.searchsorted(owners, (start, start + len(block)))
        bands = laplacian_pyramid(block, len(places))
        for patches, (y, x), band in zip(out, places, bands, strict=True):
            size = band.shape[1]
            corners = ((owners[first:last] - start) * size + y[first:last]) * size + x[first:last]
            within = np.add.outer(size * np.arange(PATCH), np.arange(PATCH)).reshape(-1, 1)
            patches[:, first:last] = band.ravel()[within + corners]
    return out


def _normalised(patches: np.ndarray) -> np.ndarray:
    patches -= patches.mean(dtype=np.float64).astype(np.float32)
    deviation = patches.std(dtype=np.float64)
    if deviation > 0:
        patches /= deviation.astype(np.float32)
    return patches


def _distance(a: np.ndarray, b: np.ndarray, random: np.random.Generator) -> float:
    """Mean Wasserstein-1 distance over random directions, with as many samples on either side."""
    total = 0.0
    for _ in range(DIRECTIONS // _DIRECTIONS_AT_ONCE):
        directions = random.standard_normal((_DIRECTIONS_AT_ONCE, len(a)))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        projected, others = (directions.astype(np.float32) @ patches for patches in (a, b))
        projected.sort(axis=1)
        others.sort(axis=1)
        projected -= others
        total += np.abs(projected, out=projected).sum(dtype=np.float64)
    return float(total / (DIRECTIONS * a.shape[1]))
