"""Mammograms: two breasts in two views (CC and MLO), as 8-bit pictures like scanned film.

A picture is built from a silhouette on one edge, its compressed thickness, fibroglandular tissue whose
texture is power-law noise (spectral exponent 3, as Burgess 1999 measured), the pectoral muscle in
MLO, sometimes a mass and microcalcifications, and what film brings: grain, scratches, a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import fft, ndimage

from petgan.runs import atomic_path

VIEWS = (("L", "CC"), ("L", "MLO"), ("R", "CC"), ("R", "MLO"))
SPECTRAL_EXPONENT = 3.0
# Share of fibroglandular tissue in the four densities of BI-RADS: fatty, scattered, heterogeneous, extreme.
DENSITY = {"A": (0.05, 0.2), "B": (0.2, 0.4), "C": (0.4, 0.6), "D": (0.6, 0.8)}


@dataclass(frozen=True)
class Woman:
    """What the four pictures of a patient have in common; lengths in sides of the picture."""

    density: str
    glandular_share: float
    depth: float
    height: float
    taper: float
    tag: bool
    grain: float


@dataclass(frozen=True)
class _Finding:
    """A mass or a cluster, at a share of the breast's depth and height."""

    kind: str
    reach: float
    level: float
    size: float


def file_names(number: int) -> list[str]:
    """Names of a patient's pictures in the order of `VIEWS`: GIF and PNG by turns."""
    endings = ("gif", "png") if number % 2 else ("png", "gif")
    return [f"{side}_{view}.{endings[k % 2]}" for k, (side, view) in enumerate(VIEWS)]


def write_mammograms(folder: Path, number: int, size: int, seed: np.random.SeedSequence) -> None:
    """Write the four pictures of a patient.

    Raises
    ------
    DiskError
        If the disk is full or not writable.
    """
    for name, picture in zip(file_names(number), mammograms(size, seed), strict=True):
        kind = name.rpartition(".")[2]
        with atomic_path(folder / name) as temporary:
            Image.fromarray(picture).save(temporary, format=kind.upper())


def mammograms(size: int, seed: np.random.SeedSequence) -> list[np.ndarray]:
    """The four pictures of a patient in the order of `VIEWS`, each (size, size) uint8.

    Left breasts lie on the left edge, right ones on the right.
    """
    rng = np.random.default_rng(seed)
    woman = random_woman(rng)
    findings = {side: _random_findings(rng) for side in ("L", "R")}
    pictures = []
    for side, view in VIEWS:
        picture = _picture(woman, view, findings[side], size, rng)
        picture = picture if side == "L" else picture[:, ::-1]
        picture = _on_film(picture, f"{side} {view}", woman, rng)
        pictures.append(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8))
    return pictures


def random_woman(rng: np.random.Generator) -> Woman:
    """Draw breast size, density and film of a patient."""
    density = str(rng.choice(list(DENSITY), p=(0.15, 0.4, 0.35, 0.1)))
    return Woman(
        density=density,
        glandular_share=float(rng.uniform(*DENSITY[density])),
        depth=float(rng.uniform(0.38, 0.72)),
        height=float(rng.uniform(0.34, 0.46)),
        taper=float(rng.uniform(1.7, 2.4)),
        tag=bool(rng.uniform() < 0.5),
        grain=float(rng.uniform(0.005, 0.02)),
    )


def power_law_noise(size: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise (size, size) with a power spectrum of frequency**-exponent, mean 0, deviation 1."""
    # Twice the size, then a quarter of it: the noise must not wrap around.
    n = 2 * size
    frequency = np.hypot(fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None])
    frequency[0, 0] = 1
    amplitude = frequency ** (-exponent / 2)
    amplitude[0, 0] = 0
    noise = fft.irfft2(fft.rfft2(rng.standard_normal((n, n))) * amplitude, (n, n))[:size, :size]
    return (noise - noise.mean()) / noise.std()


def _random_findings(rng: np.random.Generator) -> list[_Finding]:
    """Of one breast, so that both of its views show them at the same depth."""
    findings = []
    for kind, chance in (("mass", 0.2), ("spiculated mass", 0.1), ("calcifications", 0.2)):
        if rng.uniform() < chance:
            reach, level, size = rng.uniform((0.3, -0.5, 0.02), (0.75, 0.5, 0.055))
            findings.append(_Finding(kind, float(reach), float(level), float(size)))
    return findings


def _picture(
    woman: Woman, view: str, findings: list[_Finding], size: int, rng: np.random.Generator
) -> np.ndarray:
    """A left breast as brightness 0..1, without the film."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    middle = 0.5 + rng.uniform(-0.03, 0.03) + (0.06 if view == "MLO" else 0)
    inside, level = _silhouette(woman, view, x, y, middle, rng)
    depth = ndimage.distance_transform_edt(np.pad(inside, ((0, 0), (size, 0)), mode="edge"))[:, size:] / size
    reach = x / max(float((x * inside).max()), 1 / size)

    texture = power_law_noise(size, SPECTRAL_EXPONENT, rng)
    gland = _gland(woman, texture, inside, depth, reach, level, rng)
    strands = _strands(size, rng) * np.clip(depth / 0.08, 0, 1)
    thickness = np.sqrt(np.clip(depth / 0.10, 0, 1))
    detail = power_law_noise(size, 2, rng)
    bright = 0.14 + 0.17 * thickness + 0.025 * texture + 0.02 * detail + 0.10 * strands
    bright += gland * (0.28 + 0.08 * texture + 0.03 * detail) * thickness
    bright += 0.12 * np.exp(-(((depth - 1.2 / size) / (1.2 / size)) ** 2))  # the skin, seen edge on
    if view == "MLO":
        bright = _with_pectoral(bright, x, y, texture, rng)
    for finding in findings:
        place = _place(finding, view, inside, middle, woman, size)
        bright += _finding(finding, place, x, y, size, rng)
    cover = ndimage.gaussian_filter(inside.astype(float), 0.6)
    return np.where(cover > 0.02, np.clip(bright, 0.05, 0.97) * cover, 0)


def _silhouette(
    woman: Woman, view: str, x: np.ndarray, y: np.ndarray, middle: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where the breast is, and the height over its axis in half heights (-1 at the top, 1 at the bottom)."""
    level = (y - middle) / woman.height
    if view == "MLO":
        # The upper part runs on into the armpit, and the breast hangs over its lower half.
        level = np.where(level < 0, level * 0.62, level * 1.02)
        level = level - 0.12 * x / woman.depth
    shape = np.clip(1 - np.abs(level) ** woman.taper, 0, None) ** 0.6
    wave = 0.012 * np.sin(2 * np.pi * (y * rng.uniform(0.8, 1.8) + rng.uniform()))
    border = woman.depth * shape + wave
    nipple = 0.022 * np.exp(-(((level - rng.uniform(-0.06, 0.06)) / 0.05) ** 2))
    return (x < border + nipple) & (np.abs(level) < 1), level


def _gland(
    woman: Woman,
    texture: np.ndarray,
    inside: np.ndarray,
    depth: np.ndarray,
    reach: np.ndarray,
    level: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Fibroglandular tissue, 0..1: a cone behind the nipple, broken up by the texture."""
    centre = rng.uniform(0.5, 0.65)
    prior = -(((reach - centre) / 0.34) ** 2) - (level / rng.uniform(0.5, 0.65)) ** 2
    score = 0.9 * prior + 0.75 * texture - 3 * np.clip(0.04 - depth, 0, None) / 0.04
    edge = np.quantile(score[inside], 1 - woman.glandular_share) if inside.any() else 0.0
    return 0.5 + 0.5 * np.tanh(1.6 * (score - edge))


def _strands(size: int, rng: np.random.Generator) -> np.ndarray:
    """Thin bright lines (ligaments, vessels, ducts), 0..1: the zero crossings of smooth noise."""
    lines = np.zeros((size, size))
    for exponent in (3.6, 3.2):
        noise = power_law_noise(size, exponent, rng)
        slope = np.hypot(*np.gradient(noise)) + 1e-9
        lines = np.maximum(lines, np.exp(-((noise / slope / 1.1) ** 2)) * np.clip(slope / slope.mean(), 0, 1))
    patches = power_law_noise(size, 3, rng)
    return ndimage.gaussian_filter(lines, 0.5) * np.clip(0.5 + 0.5 * patches, 0, 1)


def _with_pectoral(
    bright: np.ndarray, x: np.ndarray, y: np.ndarray, texture: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Lay the muscle's triangle over the upper corner at the chest wall."""
    width, length = rng.uniform(0.2, 0.36), rng.uniform(0.5, 0.75)
    border = width * np.clip(1 - y / length, 0, None) ** rng.uniform(0.85, 1.15)
    muscle = np.clip((border - x) / 0.02 + 0.5, 0, 1)
    level = rng.uniform(0.6, 0.72) + 0.04 * texture - 0.12 * y
    return bright + muscle * np.maximum(level - bright, 0.04)


def _place(
    finding: _Finding, view: str, inside: np.ndarray, middle: float, woman: Woman, size: int
) -> tuple[float, float]:
    """(x, y) of a finding: its height differs between the views, its depth does not."""
    level = finding.level if view == "CC" else -0.6 * finding.level
    y = float(np.clip(middle + 0.8 * level * woman.height, 0.02, 0.98))
    width = float(inside[int(y * size)].mean())
    return finding.reach * width, y


def _finding(
    finding: _Finding,
    place: tuple[float, float],
    x: np.ndarray,
    y: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> np.ndarray:
    dx, dy = x - place[0], y - place[1]
    if finding.kind == "calcifications":
        spots = np.zeros_like(x)
        for _ in range(int(rng.integers(5, 20))):
            column, row = rng.normal(place, finding.size / 2)
            radius = max(rng.uniform(0.3, 0.7) / size, 0.0008)
            near = (x - column) ** 2 + (y - row) ** 2
            spots = np.maximum(spots, rng.uniform(0.3, 0.6) * np.exp(-near / (2 * radius**2)))
        return spots
    angle, distance = np.arctan2(dy, dx), np.hypot(dx, dy)
    orders = np.arange(2, 7)
    heights, phases = rng.normal(0, 0.25 / orders), rng.uniform(0, 2 * np.pi, len(orders))
    outline = np.full_like(x, finding.size)
    for order, height, phase in zip(orders, heights, phases, strict=True):
        outline += finding.size * height * np.cos(order * angle + phase)
    mass = 0.5 - 0.5 * np.tanh((distance - outline) / (0.25 * finding.size))
    if finding.kind == "spiculated mass":
        rays = np.cos(rng.integers(9, 15) * angle + 2 * np.sin(2 * angle + phases[0])) ** 8
        mass = np.maximum(mass, 0.6 * rays * np.exp(-((distance / (2.2 * finding.size)) ** 2)))
    return 0.28 * mass


def _on_film(picture: np.ndarray, text: str, woman: Woman, rng: np.random.Generator) -> np.ndarray:
    """Add grain and fog to a picture, to some also scratches, a bright border and the label."""
    size = len(picture)
    fog = rng.uniform(0.0, 0.03)
    film = fog + picture * (1 - fog) + woman.grain * rng.standard_normal(picture.shape)
    if rng.uniform() < 0.3:
        border = max(1, round(size * rng.uniform(0.005, 0.015)))
        edge = np.zeros_like(film)
        edge[:border] = edge[-border:] = rng.uniform(0.3, 0.9)
        film = np.maximum(film, edge * rng.uniform(0.6, 1, film.shape))
    canvas = Image.new("L", (size, size))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.poisson(0.4))):
        ends = rng.uniform(0, size, 2)
        draw.line([*ends, *(ends + rng.normal(0, 0.12 * size, 2))], fill=int(rng.integers(60, 140)))
    if woman.tag:
        _draw_label(draw, text, size, rng)
    return np.maximum(film, np.asarray(canvas, float) / 255)


def _draw_label(draw: ImageDraw.ImageDraw, text: str, size: int, rng: np.random.Generator) -> None:
    """A bright tag with dark letters, in the upper corner away from the breast."""
    font = ImageFont.load_default(size=max(6, size // 18))
    _, _, width, height = draw.textbbox((0, 0), text, font=font)
    pad = max(1, size // 64)
    left = size * rng.uniform(0.02, 0.05)
    x = left if text.startswith("R") else size - left - width - 2 * pad
    y = size * rng.uniform(0.03, 0.08)
    draw.rectangle([x, y, x + width + 2 * pad, y + height + 2 * pad], fill=int(rng.integers(190, 245)))
    draw.text((x + pad, y + pad), text, fill=20, font=font)
