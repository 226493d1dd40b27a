"""The scanner: projections of slices, noise, and the two ways back to an image.

Lines of response are rebinned to parallel beams: one sinogram of (angles, bins) a slice, the bins as
wide as the pixels. Images have shape (k, n, n), sinograms (k, angles, n); lengths are in mm.
Only true coincidences are simulated: scatter and randoms count as subtracted without a trace.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft, sparse

MLEM_ITERATIONS = 16


class Projector:
    """The system matrix of a parallel-beam scanner, sparse and built once.

    An element is the area that a pixel and a strip share, over the strip's width: the exact line
    integral, averaged over the bin, of an image that is constant in each pixel. The field of view is
    the disk inscribed in the square; pixels whose centre lies outside do not count.

    Parameters
    ----------
    size : int
        Pixels along a side, and bins of a projection.
    field_mm : float
        Side of the square and diameter of the field of view.
    angles : int
        Projections over half a turn.
    """

    def __init__(self, size: int, field_mm: float, angles: int) -> None:
        self.size = size
        self.pixel_mm = field_mm / size
        self.angles = np.arange(angles) * np.pi / angles
        x, y = pixel_centres(size, field_mm)
        self.inside = np.hypot(x, y) < field_mm / 2
        # One row a pixel, so that back projection is a product and projection that of the transpose.
        self._transpose = _strip_areas(x, y, self.inside, self.angles, self.pixel_mm)

    def project(self, images: np.ndarray) -> np.ndarray:
        """Line integrals of images (k, n, n): (k, angles, n) float32, in the images' unit times mm."""
        flat = np.ascontiguousarray(images.reshape(len(images), -1).T, np.float32)
        return (self._transpose.T @ flat).T.reshape(len(images), len(self.angles), self.size)

    def back_project(self, sinograms: np.ndarray) -> np.ndarray:
        """The adjoint of `project`: (k, angles, n) to (k, n, n) float32."""
        flat = np.ascontiguousarray(sinograms.reshape(len(sinograms), -1).T, np.float32)
        return (self._transpose @ flat).T.reshape(len(sinograms), self.size, self.size)


@lru_cache(maxsize=2)
def projector(size: int, field_mm: float) -> Projector:
    """The projector of a scanner, kept for the next call; 5 angles to 4 pixels."""
    return Projector(size, field_mm, angles=max(48, 5 * size // 4))


def pixel_centres(size: int, field_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (x to the right, y downwards) of the pixels' centres, each (n, n), in mm."""
    axis = (np.arange(size) - (size - 1) / 2) * field_mm / size
    x, y = np.meshgrid(axis, axis)
    return x, y


def attenuation_factors(scanner: Projector, mu_per_mm: np.ndarray) -> np.ndarray:
    """Share of the photon pairs that leave the body, for maps (k, n, n) of mu: (k, angles, n) in 0..1."""
    return np.exp(-scanner.project(mu_per_mm))


def acquire(
    scanner: Projector, activity: np.ndarray, factors: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Poisson counts of a scan.

    Parameters
    ----------
    scanner : Projector
    activity : ndarray (k, n, n)
        Bq/mL.
    factors : ndarray (k, angles, n)
        Counts expected in a bin for a line integral of 1 Bq/mL mm: sensitivity, time and attenuation.
    rng : Generator

    Returns
    -------
    ndarray (k, angles, n) float32
        Whole numbers.
    """
    return rng.poisson(factors * scanner.project(activity)).astype(np.float32)


def filtered_back_projection(scanner: Projector, sinograms: np.ndarray) -> np.ndarray:
    """Reconstruct line integrals (k, angles, n) by a ramp filter under a Hann window.

    Returns
    -------
    ndarray (k, n, n) float32
        Negative where noise has it so; 0 outside the field of view.
    """
    length = fft.next_fast_len(2 * scanner.size, real=True)
    response = _ramp(length, scanner.pixel_mm)
    filtered = fft.irfft(fft.rfft(sinograms, length) * response, length)[..., : scanner.size]
    # Each column of an angle's matrix sums up to the pixel's side: back projection wants 1.
    return scanner.back_project(filtered) * np.float32(np.pi / len(scanner.angles) / scanner.pixel_mm)


def mlem(
    scanner: Projector, counts: np.ndarray, factors: np.ndarray, iterations: int = MLEM_ITERATIONS
) -> np.ndarray:
    """Maximum likelihood by expectation maximization (Shepp and Vardi 1982), attenuation in the model.

    Parameters
    ----------
    scanner : Projector
    counts : ndarray (k, angles, n)
        Measured.
    factors : ndarray (k, angles, n)
        As for `acquire`.
    iterations : int

    Returns
    -------
    ndarray (k, n, n) float32
        Bq/mL, not negative. Every iteration raises the likelihood and expects as many counts as measured.
    """
    sensitivity = scanner.back_project(factors)
    weight = np.divide(1, sensitivity, out=np.zeros_like(sensitivity), where=sensitivity > 0)
    image = np.broadcast_to(scanner.inside.astype(np.float32), sensitivity.shape)
    for _ in range(iterations):
        # The factors of counts / (factors * projection) and of the back projection cancel out.
        projection = scanner.project(image)
        ratio = np.divide(counts, projection, out=np.zeros_like(projection), where=projection > 0)
        image = image * weight * scanner.back_project(ratio)
    return image


def _strip_areas(
    x: np.ndarray, y: np.ndarray, inside: np.ndarray, angles: np.ndarray, pixel: float
) -> sparse.csr_array:
    """The transposed system matrix, (n * n, angles * n), three neighbouring bins a pixel and angle."""
    n = len(x)
    x, y = x[inside], y[inside]
    shape = (len(x), len(angles), 3)
    areas, bins = np.empty(shape, np.float32), np.empty(shape, np.int32)
    for k, angle in enumerate(angles):
        centre = (x * np.cos(angle) + y * np.sin(angle)) / pixel + n / 2  # in bins
        # A square's shadow is no wider than sqrt(2): it lies in three bins.
        first = np.floor(centre - np.sqrt(0.5)).astype(np.int32)
        edges = first[:, None] + np.arange(4) - centre[:, None]
        areas[:, k] = np.diff(_shadow_integral(edges, angle), axis=1) * pixel
        bins[:, k] = first[:, None] + np.arange(3)
    areas[(bins < 0) | (bins >= n)] = 0
    bins = np.clip(bins, 0, n - 1) + (np.arange(len(angles), dtype=np.int32) * n)[:, None]
    rows = np.zeros(n * n + 1, np.int32)
    rows[1:] = np.cumsum(inside.ravel() * 3 * len(angles))
    return sparse.csr_array((areas.ravel(), bins.ravel(), rows), shape=(n * n, len(angles) * n))


def _shadow_integral(s: np.ndarray, angle: float) -> np.ndarray:
    """Area of a unit square on the near side of a line at distance `s` from its centre."""
    wide, narrow = sorted((abs(np.cos(angle)), abs(np.sin(angle))), reverse=True)
    # The shadow is the convolution of two boxes of these widths: a trapezoid of area 1.
    if narrow < 1e-9:
        return np.clip(s / wide + 0.5, 0, 1)
    outer, inner = (wide + narrow) / 2, (wide - narrow) / 2
    t = np.clip(s, -outer, outer)
    ramp = np.maximum(np.abs(t) - inner, 0)
    half = np.abs(t) / wide - ramp**2 / (2 * wide * narrow)
    return 0.5 + np.sign(t) * half


def _ramp(length: int, bin_mm: float) -> np.ndarray:
    """Frequency response (for rfft) of the band-limited ramp (Kak and Slaney 1988, eq. 3.61) with Hann."""
    offset = np.arange(length)
    offset = np.minimum(offset, length - offset)
    kernel = np.zeros(length)
    kernel[0] = 1 / (4 * bin_mm**2)
    odd = offset % 2 == 1
    kernel[odd] = -1 / (np.pi * offset[odd] * bin_mm) ** 2
    frequency = fft.rfftfreq(length)
    return (fft.rfft(kernel).real * bin_mm * (0.5 + 0.5 * np.cos(2 * np.pi * frequency))).astype(np.float32)
