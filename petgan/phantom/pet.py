"""A patient of a dedicated-breast PET: one hanging breast in three dimensions, and its scan.

The scanner is like MAMMI: prone patient, coronal slices, a field of view of 170 mm, a resolution of
1.6 mm. Coordinates in mm: x to the patient's left, y downwards in the image (to the feet), depth from the
chest wall towards the nipple. Uptake is in SUV, the kind that is normalized by body weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from scipy import ndimage

from petgan.phantom import tomography

FIELD_MM = 170.0
RESOLUTION_MM = 1.6  # full width at half maximum
MU_PER_MM = 0.0096  # soft tissue at 511 keV
HALF_LIFE_S = 6586.2  # 18F
RING_MM = 40.0  # depth that the detector ring sees at once; then it moves on
# Share of the decays inside the slice that are counted, without attenuation: more than a real ring's
# (some 0.02), for its rebinning lends every slice counts of its neighbours.
SENSITIVITY = 0.08
SLICE_MM = 2.0  # thickest slice
_VOXEL_MM = 3.0  # of the random fields
_SD_OF_FWHM = 1 / np.sqrt(8 * np.log(2))


@dataclass(frozen=True)
class Lesion:
    """A focus of high uptake.

    `contrast` is its uptake over that of fibroglandular tissue; `radii_mm` are those along the axes of
    `turn`, a rotation matrix; a `core` of low uptake fills that share of the radius.
    """

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    turn: np.ndarray
    contrast: float
    core: float


@dataclass(frozen=True)
class Breast:
    """Shape and uptake of a breast. `waves` are the (order, height, phase) of its outline's deformations."""

    radius_mm: float
    length_mm: float
    roundness: float
    waves: tuple[tuple[int, float, float], ...]
    centre_mm: tuple[float, float]
    lean_mm: tuple[float, float]
    skin_mm: float
    gland_extent: float
    fat_suv: float
    gland_suv: float
    skin_suv: float
    nipple_suv: float
    lesions: tuple[Lesion, ...]
    coarse: np.ndarray  # random fields over (depth, y, x), mean 0, deviation 1
    fine: np.ndarray


@dataclass(frozen=True)
class Patient:
    """Who is scanned, and how: all that turns SUV into Bq/mL and counts."""

    side: str
    weight_kg: float
    height_m: float
    age_years: int
    dose_bq: float
    injected: datetime
    scanned: datetime
    frame_s: float
    breast: Breast

    @property
    def bq_per_ml(self) -> float:
        """Activity of SUV 1 (in tissue of 1 g/mL) at the start of the scan, Bq/mL."""
        elapsed = (self.scanned - self.injected).total_seconds()
        return self.dose_bq * 2 ** (-elapsed / HALF_LIFE_S) / (1000 * self.weight_kg)


@dataclass(frozen=True)
class Scan:
    """The slices of a patient, nearest to the chest wall first.

    Parameters
    ----------
    images : ndarray (k, n, n) float32
        Bq/mL at the start of the scan, not negative.
    depths_mm : ndarray (k,)
        Evenly spaced.
    thickness_mm : float
    start_s, decay : ndarray (k,)
        Seconds from the start of the scan to that of the slice's frame, and the factor that has
        corrected its counts for the decay up to and during the frame.
    """

    images: np.ndarray
    depths_mm: np.ndarray
    thickness_mm: float
    start_s: np.ndarray
    decay: np.ndarray


def random_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient; the same state of `rng` gives the same one at every image size."""
    injected = datetime(2021, 1, 1) + timedelta(seconds=int(rng.integers(365 * 86400)))
    return Patient(
        side=str(rng.choice(["L", "R"])),
        weight_kg=round(float(np.clip(rng.normal(68, 12), 45, 110)), 1),
        height_m=round(float(np.clip(rng.normal(1.63, 0.06), 1.45, 1.85)), 2),
        age_years=int(rng.integers(30, 80)),
        dose_bq=float(round(rng.uniform(180, 330), 1) * 1e6),
        injected=injected,
        scanned=injected + timedelta(seconds=int(rng.integers(50 * 60, 95 * 60))),
        frame_s=float(rng.choice([300, 400, 500, 600])),
        breast=_random_breast(rng),
    )


def scan(patient: Patient, slices: int, size: int, recon: str, rng: np.random.Generator) -> Scan:
    """Scan a patient: projection with attenuation, Poisson noise, reconstruction.

    Parameters
    ----------
    patient : Patient
    slices, size : int
        Slices from chest wall to nipple, and pixels along a side.
    recon : str
        ``fbp`` or ``mlem``.
    rng : Generator
        Of the noise.
    """
    breast = patient.breast
    spacing = round(breast.length_mm / slices, 3)
    depths = (np.arange(slices) + 0.5) * spacing
    thickness = min(spacing, SLICE_MM)
    suv, tissue = uptake(breast, depths, size)
    scanner = tomography.projector(size, FIELD_MM)
    blur = RESOLUTION_MM * _SD_OF_FWHM / scanner.pixel_mm
    activity = ndimage.gaussian_filter(suv * np.float32(patient.bq_per_ml), (0, blur, blur))
    start = np.floor(depths / RING_MM) * patient.frame_s
    decay = decay_factor(start, patient.frame_s)
    # 1 Bq/mL mm2 is 1e-3 Bq a mm of thickness; its pairs are spread over the angles.
    counts_per_integral = (
        1e-3 * thickness * SENSITIVITY * patient.frame_s * scanner.pixel_mm / len(scanner.angles) / decay
    )
    factors = tomography.attenuation_factors(scanner, MU_PER_MM * tissue)
    factors = factors * counts_per_integral[:, None, None].astype(np.float32)
    counts = tomography.acquire(scanner, activity, factors, rng)
    if recon == "mlem":
        images = tomography.mlem(scanner, counts, factors)
    else:
        # Corrected for attenuation; what is below 0 is cut off, as scanners do.
        images = np.maximum(tomography.filtered_back_projection(scanner, counts / factors), 0)
    return Scan(images, depths, thickness, start, decay)


def decay_factor(start_s: np.ndarray, frame_s: float) -> np.ndarray:
    """What brings the mean activity of frames back to time 0: (x / (1 - exp(-x))) exp(start), in decays."""
    rate = np.log(2) / HALF_LIFE_S
    decays = rate * frame_s
    return np.exp(rate * start_s) * decays / -np.expm1(-decays)


def uptake(breast: Breast, depths_mm: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample a breast in planes parallel to the chest wall.

    Returns
    -------
    suv, tissue : ndarray (k, n, n) float32
        The uptake, and the share of each pixel that is tissue (0..1). Borders are one pixel wide.
    """
    x, y = tomography.pixel_centres(size, FIELD_MM)
    pixel = FIELD_MM / size
    planes = [_plane(breast, x, y, float(depth), pixel) for depth in depths_mm]
    suv, tissue = (np.array(values, np.float32) for values in zip(*planes, strict=True))
    return suv, tissue


def _plane(
    breast: Breast, x: np.ndarray, y: np.ndarray, depth: float, pixel: float
) -> tuple[np.ndarray, np.ndarray]:
    reach = min(depth / breast.length_mm, 1.0)
    dx = x - breast.centre_mm[0] - breast.lean_mm[0] * reach**2
    dy = y - breast.centre_mm[1] - breast.lean_mm[1] * reach**2
    radius, slope = _profile(breast, reach)
    angle = np.arctan2(dy, dx)
    outline = np.full_like(angle, radius)
    for order, height, phase in breast.waves:
        outline += radius * height * np.cos(order * angle + phase + reach)
    distance = np.hypot(dx, dy)
    # Distance to the skin's surface, negative inside: the plane cuts the surface at a slant.
    outside = (distance - outline) / np.hypot(1, slope)
    tissue = _cover(outside, pixel)
    inner = _cover(outside + breast.skin_mm, pixel)

    coarse, fine = (_sample(field, depth, x, y) for field in (breast.coarse, breast.fine))
    centrality = breast.gland_extent * (0.75 + 0.25 * reach) - distance / max(outline.max(), 1)
    gland = _sigmoid(9 * (1.8 * centrality + 0.3 * coarse + 0.2 * fine))
    suv = breast.fat_suv * (1 + 0.06 * fine) + gland * (breast.gland_suv - breast.fat_suv) * (
        1 + 0.12 * coarse + 0.12 * fine
    )
    tip = np.sqrt(dx**2 + dy**2 + (depth - 0.97 * breast.length_mm) ** 2)
    suv += (breast.nipple_suv - suv) * np.exp(-((tip / 6) ** 2))
    suv = breast.skin_suv * (tissue - inner) + np.maximum(suv, 0.1) * inner
    for lesion in breast.lesions:
        share, level = _lesion(lesion, x, y, depth, pixel, fine)
        suv += share * inner * (level * lesion.contrast * breast.gland_suv - suv)
    return suv, tissue


def _profile(breast: Breast, reach: float) -> tuple[float, float]:
    """Radius at a share of the length, and its slope (mm a mm)."""
    power = breast.roundness
    height = max(1 - reach**power, 1e-4)
    slope = breast.radius_mm / breast.length_mm * power / 2 * reach ** (power - 1) / np.sqrt(height)
    return breast.radius_mm * np.sqrt(height), slope


def _lesion(
    lesion: Lesion, x: np.ndarray, y: np.ndarray, depth: float, pixel: float, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each pixel that is lesion, and the uptake there (1 but for the core)."""
    offset = np.stack([x, y, np.full_like(x, depth)]) - np.reshape(lesion.centre_mm, (3, 1, 1))
    along = np.einsum("ij,jyx->iyx", lesion.turn, offset)
    mean = float(np.mean(lesion.radii_mm))
    distance = np.sqrt(np.sum((along / np.reshape(lesion.radii_mm, (3, 1, 1))) ** 2, axis=0))
    distance *= 1 + 0.08 * noise
    core = _cover((distance - lesion.core) * mean, 2 * pixel) if lesion.core else 0.0
    return _cover((distance - 1) * mean, pixel), 1 - 0.6 * np.asarray(core)


def _random_breast(rng: np.random.Generator) -> Breast:
    radius, length = rng.uniform(38, 66), rng.uniform(60, 125)
    waves = tuple(
        (m, float(rng.normal(0, s)), float(rng.uniform(0, 2 * np.pi)))
        for m, s in ((2, 0.05), (3, 0.025), (4, 0.012))
    )
    widest = 1 + sum(abs(height) for _, height, _ in waves)
    radius = min(radius, 74 / widest)
    roundness = rng.uniform(1.7, 3.2)
    centre = rng.uniform(-4, 4, 2)
    lean = rng.uniform((-4, 0), (4, 8))
    number = int(rng.choice(4, p=(0.25, 0.45, 0.2, 0.1)))
    lesions = [_random_lesion(rng, radius, length, roundness, centre) for _ in range(number)]
    gland_suv = rng.uniform(0.9, 1.7)
    return Breast(
        radius_mm=float(radius),
        length_mm=float(length),
        roundness=float(roundness),
        waves=waves,
        centre_mm=(float(centre[0]), float(centre[1])),
        lean_mm=(float(lean[0]), float(lean[1])),
        skin_mm=float(rng.uniform(1.5, 2.5)),
        gland_extent=float(rng.uniform(0.35, 1.05)),
        fat_suv=float(rng.uniform(0.3, 0.5)),
        gland_suv=float(gland_suv),
        skin_suv=float(rng.uniform(0.5, 0.9)),
        nipple_suv=float(gland_suv * rng.uniform(1.1, 2)),
        lesions=tuple(lesions),
        coarse=_random_field(rng, 9),
        fine=_random_field(rng, 4),
    )


def _random_lesion(
    rng: np.random.Generator, radius: float, length: float, roundness: float, centre: np.ndarray
) -> Lesion:
    reach = rng.uniform(0.1, 0.8)
    room = radius * np.sqrt(1 - reach**roundness)
    mean = min(np.exp(rng.uniform(np.log(4), np.log(25))) / 2, 0.4 * room)
    stretch = np.exp(rng.normal(0, 0.15, 3))
    stretch /= np.cbrt(stretch.prod())
    away, angle = (0.8 * room - mean) * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    place = (centre[0] + away * np.cos(angle), centre[1] + away * np.sin(angle), reach * length)
    hollow = mean > 8 and rng.uniform() < 0.4
    return Lesion(
        centre_mm=(float(place[0]), float(place[1]), float(place[2])),
        radii_mm=(float(mean * stretch[0]), float(mean * stretch[1]), float(mean * stretch[2])),
        turn=turn,
        contrast=float(np.exp(rng.uniform(np.log(2), np.log(10)))),
        core=float(rng.uniform(0.4, 0.6)) if hollow else 0.0,
    )


def _random_field(rng: np.random.Generator, width_mm: float) -> np.ndarray:
    """A smooth Gaussian field over the whole field of view, mean 0 and deviation 1."""
    n = int(np.ceil(FIELD_MM / _VOXEL_MM)) + 2
    field = ndimage.gaussian_filter(rng.standard_normal((n, n, n), np.float32), width_mm / _VOXEL_MM)
    return (field - field.mean()) / field.std()


def _sample(field: np.ndarray, depth: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    low = depth / _VOXEL_MM
    below = int(low)
    plane = field[below] + np.float32(low - below) * (field[below + 1] - field[below])
    places = np.stack([y + FIELD_MM / 2, x + FIELD_MM / 2]) / _VOXEL_MM
    return ndimage.map_coordinates(plane, places, order=1)


def _cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Share of a pixel behind a border at this distance: 1 inside (negative), 0 outside."""
    return np.clip(0.5 - distance / width, 0, 1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(x / 2)
