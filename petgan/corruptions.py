"""Ways to spoil real images, each of which a ruler that is to be believed must see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

STRENGTH = 25.5  # grey levels: a tenth of the range
BLUR_SHARE = 1 / 64  # deviation of the blur, of the image's side
REPEATED_IMAGES = 10


def blurred(images: np.ndarray) -> np.ndarray:
    """Images (n, size, size) uint8, each under a Gaussian of a 64th of its side, a pixel at least."""
    sigma = max(1.0, BLUR_SHARE * images.shape[1])
    return _pixels(gaussian_filter(images.astype(np.float32), (0, sigma, sigma), mode="nearest"))


def noisy(images: np.ndarray) -> np.ndarray:
    """The images with normal noise of a tenth of the range."""
    noise = np.random.default_rng(0).normal(0, STRENGTH, images.shape)
    return _pixels(images + noise)


def checkered(images: np.ndarray) -> np.ndarray:
    """The images with every second pixel brighter, and the others darker, by a twentieth of the range."""
    rows, columns = np.indices(images.shape[1:])
    return _pixels(images + STRENGTH / 2 * (1 - 2 * ((rows + columns) % 2)))


def shifted(images: np.ndarray) -> np.ndarray:
    """The images brighter by a tenth of the range."""
    return _pixels(images + STRENGTH)


#: By name. What repeats a few of its images is made of whole samples, see `repeated`.
CORRUPTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blurred": blurred,
    "noisy": noisy,
    "checkered": checkered,
    "shifted": shifted,
}

NAMES = (*CORRUPTIONS, "repeated")


def repeated(chosen: np.ndarray) -> np.ndarray:
    """As many positions as `chosen` has, but of its first ten alone, or of a quarter if that is less."""
    few = max(1, min(REPEATED_IMAGES, len(chosen) // 4))
    return np.resize(chosen[:few], len(chosen))


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
