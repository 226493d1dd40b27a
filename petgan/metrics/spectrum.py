"""Distance between the power spectra of two sets.

Durall, Keuper, Keuper: Watch your Up-Convolution (CVPR 2020): what a generator enlarges it with shows in
the high frequencies, as too little power or as a checkerboard's peak. Nothing else is seen: neither the
phases nor how far images of a set differ from each other.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import fft2, fftfreq

from petgan.errors import ConfigError
from petgan.metrics.checks import check_same_width, checked_images

SMALLEST = 8  # pixels along a side
FLOOR = 1 / 12  # grey levels squared: what rounding to whole grey levels adds to every coefficient
_PIXELS_AT_ONCE = 1 << 20  # 16 bytes each as complex numbers


def spectral_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Mean over the rings of frequencies of the absolute difference of `radial_spectrum`, in dB.

    Parameters
    ----------
    real, fake : ndarray (n, size, size) or (n, size, size, 1) uint8
        Sets may differ in length.

    Returns
    -------
    float
        0 or more, in dB; lower is better.

    Raises
    ------
    ConfigError
        If the arrays are of another kind, or smaller than 8 pixels.
    """
    real, fake = checked_images("real", real), checked_images("fake", fake)
    check_same_width(real, fake)
    return float(np.abs(radial_spectrum(real) - radial_spectrum(fake)).mean())


def radial_spectrum(images: np.ndarray) -> np.ndarray:
    """Power of a set in rings of frequencies one cycle per image wide, in dB.

    The power spectrum is averaged over the images, then over the ring, then its logarithm taken. Ring k
    holds the frequencies that round to k cycles; the last ones are the corners beyond the axes' highest
    frequency, where a checkerboard lies. Frequency 0 is left out.

    Each image is multiplied with a Hann window after its windowed mean was taken off. Without one, the step
    from an image's edge to the opposite one, such as from the chest wall to the background, has power at all
    frequencies, which falls more slowly than that of tissue and hides it. White noise of variance s has
    10 log10 s in every ring; in the first, of which the mean was part, 1.5 dB less. No ring is taken to hold
    less than `FLOOR`, -10.8 dB, so images without any contrast have a spectrum too.

    Parameters
    ----------
    images : ndarray (n, size, size) or (n, size, size, 1) uint8

    Returns
    -------
    ndarray (rings,) float64
        dB relative to one grey level squared, from 1 cycle per image upwards.

    Raises
    ------
    ConfigError
        If the array is of another kind, or smaller than 8 pixels.
    """
    images = checked_images("given", images)
    size = images.shape[1]
    if size < SMALLEST:
        raise ConfigError(
            "the images are too small for a spectrum", value=size, allowed=f"{SMALLEST} or more"
        )
    cycles = fftfreq(size, 1 / size)
    rings = np.rint(np.hypot(*np.meshgrid(cycles, cycles))).astype(int).ravel()
    power = np.bincount(rings, _mean_power(images).ravel()) / np.bincount(rings)
    return 10 * np.log10(np.maximum(power[1:], FLOOR))


def _mean_power(images: np.ndarray) -> np.ndarray:
    """Mean over the images of the windowed periodogram (size, size)."""
    size = images.shape[1]
    hann = np.sin(np.pi * np.arange(size) / size) ** 2
    window = np.outer(hann, hann)
    total = np.zeros((size, size))
    step = max(1, _PIXELS_AT_ONCE // window.size)
    for start in range(0, len(images), step):
        block = images[start : start + step].astype(np.float64)
        block -= np.tensordot(block, window / window.sum(), 2)[:, None, None]
        total += (np.abs(fft2(block * window)) ** 2).sum(axis=0)
    return total / (len(images) * np.sum(window**2))
