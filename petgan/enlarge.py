"""More training images made of the stored ones, before training: the ways that the study lists.

What is made is trained on as if it were real, so that the generator learns to make it too: turned films, and
the seams of patches. (What `petgan.methods.augment` does to real and generated images leaves no traces.)
What comes in from outside is black, like a film's frame: repeated borders would smear tissue over it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from petgan.policies import ENLARGEMENTS
from petgan.registry import load

ROTATION_DEGREES = 15.0
SHIFT_SHARE = 1 / 8  # of a side
RICAP_BETA = 0.3  # Takahashi 2018


def enlarge(images: np.ndarray, how: str, factor: int, seed: int) -> np.ndarray:
    """The images, and `factor` - 1 made ones of each.

    Parameters
    ----------
    images : ndarray (n, h, w, 1) uint8
    how : str
        A name of `petgan.policies.ENLARGEMENTS`; any, if `factor` is 1.
    factor : int
        By which the number of images grows.
    seed : int
        Made image i depends on `images`, it and i alone.

    Returns
    -------
    ndarray (n * factor, h, w, 1) uint8
        The originals first, in their order.
    """
    count = len(images)
    larger = np.empty((count * factor, *images.shape[1:]), np.uint8)
    larger[:count] = images
    if factor > 1:
        make = load(ENLARGEMENTS[how])
        for i in range(count * (factor - 1)):
            larger[count + i, ..., 0] = make(images[..., 0], i % count, np.random.default_rng((seed, i)))
    return larger


# --- ways: images (n, h, w) uint8, the position of one of them, and a generator, to an image (h, w) --------


def rotation(images: np.ndarray, position: int, random: np.random.Generator) -> np.ndarray:
    """The image turned about its centre by up to 15 degrees, bilinear."""
    return turned(images[position], random.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))


def translation(images: np.ndarray, position: int, random: np.random.Generator) -> np.ndarray:
    """The image moved by whole pixels, at most an eighth of each side."""
    height, width = images.shape[1:]
    most = np.round([height * SHIFT_SHARE, width * SHIFT_SHARE]).astype(int)
    return moved(images[position], *random.integers(-most, most + 1))


def ricap(images: np.ndarray, position: int, random: np.random.Generator) -> np.ndarray:
    """Four patches of the image and of three others, which meet in one point (Takahashi 2018).

    In the paper's form "corner": a patch stays in the corner that it is cut from, so that the chest wall
    and the pectoral muscle stay where they are.
    """
    height, width = images.shape[1:]
    share_y, share_x = random.beta(RICAP_BETA, RICAP_BETA, size=2)
    return patched(
        images[[position, *random.integers(len(images), size=3)]],
        round(height * share_y),
        round(width * share_x),
    )


def combination(images: np.ndarray, position: int, random: np.random.Generator) -> np.ndarray:
    """Patches, then turned, then moved."""
    image = ricap(images, position, random)
    for further in (rotation, translation):
        image = further(image[None], 0, random)
    return image


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """The image (h, w) turned counterclockwise."""
    values = ndimage.rotate(image.astype(np.float32), degrees, reshape=False, order=1)
    return np.rint(values).astype(np.uint8)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image (h, w) moved by whole pixels."""
    return ndimage.shift(image, (down, right), order=0)


def patched(four: np.ndarray, row: int, column: int) -> np.ndarray:
    """Four images (4, h, w), each in one quarter: above and left of (row, column), right, below, both."""
    image = four[3].copy()
    image[:row, :column] = four[0][:row, :column]
    image[:row, column:] = four[1][:row, column:]
    image[row:, :column] = four[2][row:, :column]
    return image
