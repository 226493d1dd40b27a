"""Fréchet distance over a stated set of texture features, which need no network.

Of each image 16 numbers: the mean, standard deviation, skewness and excess kurtosis of its grey values;
and of its co-occurring grey levels at distances of 1, 2 and 4 pixels the contrast, homogeneity (inverse
difference moment), energy (angular second moment) and correlation of Haralick, Shanmugam, Dinstein:
Textural Features for Image Classification (1973), appendix 1, formulae 2, 5, 1 and 3.
"""

from __future__ import annotations

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.checks import check_same_width, checked_images
from petgan.metrics.frechet import frechet_distance

LEVELS = 16  # of grey, each 16 of the 256; their pairs fit into a byte
DISTANCES = (1, 2, 4)  # pixels along the rows, the columns and either diagonal
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
_ROUNDING = 1e-9  # the deviation that a feature of equal images may have
_PIXELS_AT_ONCE = 1 << 21


def texture_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance of `texture_features`, each divided by its deviation over the real images.

    A feature that is the same in all real images is left as it is. As any Fréchet distance it is biased
    upwards for few images, so compare equal numbers only.

    Parameters
    ----------
    real, fake : ndarray (n, size, size) or (n, size, size, 1) uint8
        At least 2 images each; sets may differ in length.

    Returns
    -------
    float
        0 or more, up to rounding; lower is better.

    Raises
    ------
    ConfigError
        If the arrays are of another kind, or the images smaller than 5 pixels.
    """
    real, fake = checked_images("real", real, at_least=2), checked_images("fake", fake, at_least=2)
    check_same_width(real, fake)
    features, others = texture_features(real), texture_features(fake)
    deviation = features.std(axis=0, ddof=1)
    scale = np.where(deviation > _ROUNDING, deviation, 1)
    return frechet_distance(features / scale, others / scale)


def texture_features(images: np.ndarray) -> np.ndarray:
    """The 16 features of each image, in the order of this module's description.

    Pairs of pixels count both ways round; a feature is the mean over the four directions. An image of one
    grey value has skewness and kurtosis 0; where all pairs are of one grey level, the correlation is 1.

    Parameters
    ----------
    images : ndarray (n, size, size) or (n, size, size, 1) uint8

    Returns
    -------
    ndarray (n, 16) float64

    Raises
    ------
    ConfigError
        If the array is of another kind, or the images smaller than 5 pixels.
    """
    images = checked_images("given", images)
    if images.shape[1] <= max(DISTANCES):
        raise ConfigError(
            "the images are too small for their texture",
            value=images.shape[1],
            allowed=f"{max(DISTANCES) + 1} or more",
        )
    step = max(1, _PIXELS_AT_ONCE // images[0].size)
    blocks = (images[start : start + step] for start in range(0, len(images), step))
    return np.concatenate([np.hstack([_first_order(block), *_second_order(block)]) for block in blocks])


def _first_order(images: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, skewness and excess kurtosis (n, 4)."""
    values = images.reshape(len(images), -1).astype(np.float64)
    mean = values.mean(axis=1)
    values -= mean[:, None]
    squares = values**2
    variance = squares.mean(axis=1)
    divisor = np.where(variance > 0, variance, 1)
    skewness = (squares * values).mean(axis=1) / divisor**1.5
    kurtosis = np.where(variance > 0, (squares**2).mean(axis=1) / divisor**2 - 3, 0)
    return np.stack([mean, np.sqrt(variance), skewness, kurtosis], axis=1)


def _second_order(images: np.ndarray) -> list[np.ndarray]:
    """Haralick's features (n, 4) at each distance."""
    levels = images // (256 // LEVELS)
    return [
        np.mean(
            [_haralick(_cooccurrence(levels, distance * y, distance * x)) for y, x in _DIRECTIONS], axis=0
        )
        for distance in DISTANCES
    ]


def _cooccurrence(levels: np.ndarray, down: int, right: int) -> np.ndarray:
    """Share of the pairs of pixels with each pair of grey levels (n, 16, 16); it is symmetric."""
    height, width = levels.shape[1:]
    first = levels[:, : height - down, max(0, -right) : width - max(0, right)]
    second = levels[:, down:, max(0, right) : width + min(0, right)]
    counts = np.array([np.bincount(pairs.ravel(), minlength=LEVELS**2) for pairs in LEVELS * first + second])
    table = counts.reshape(-1, LEVELS, LEVELS) / (2 * first[0].size)
    return table + table.transpose(0, 2, 1)


def _haralick(table: np.ndarray) -> np.ndarray:
    """Contrast, homogeneity, energy and correlation (n, 4) of symmetric tables (n, 16, 16)."""
    level = np.arange(LEVELS)
    square = np.subtract.outer(level, level) ** 2
    contrast, homogeneity = (np.tensordot(table, weight, 2) for weight in (square, 1 / (1 + square)))
    mean, mean_square = (table.sum(axis=2) @ weight for weight in (level, level**2))
    variance = mean_square - mean**2
    covariance = np.tensordot(table, np.outer(level, level), 2) - mean**2
    correlation = np.where(variance > 0, covariance / np.where(variance > 0, variance, 1), 1)
    return np.stack([contrast, homogeneity, (table**2).sum(axis=(1, 2)), correlation], axis=1)
