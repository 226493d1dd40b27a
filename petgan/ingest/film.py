"""Film: what stands beside the breast, and at which edge its chest wall lies.

Everything is found on a reduced copy of `WORK` pixels and applied at full size. The film is what is not
padding; its background is the commonest dark value; the breast is the largest piece above it, at a lateral
edge of the film, after what is narrow has been opened away.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, prod

import numpy as np
from scipy import ndimage

WORK = 256  # long side of the copy that things are found on
DARK = 0.25  # the background's level lies below this share of the range
BRIGHT, EVEN = 0.75, 0.05  # the same, of a page: above and within these shares of the range
LEGIBLE = 128  # pixels: on a film that is shown smaller nobody reads a label
SMALLEST = 0.03  # share of the film that a breast takes at least


def mask_film(grey: np.ndarray, seen: Look | None = None) -> tuple[np.ndarray, bool]:
    """Black out everything but the breast: labels, writing, borders, fog.

    Parameters
    ----------
    grey : ndarray (h, w) float32
        Bright on dark, in any units.
    seen : Look, optional
        Of this picture, where there is one already; so in the other functions.

    Returns
    -------
    ndarray (h, w) float32
        The same values in the breast and a margin of a hundredth of the long side around it; outside, the
        smallest value of the picture.
    bool
        Whether a breast was found; without one the picture comes back as it is.
    """
    found = (seen or look(grey)).found
    if found is None:
        return grey, False
    return np.where(_full_size(found.breast, found.step, grey.shape), grey, grey.min()), True


def orient_left(grey: np.ndarray, side: str | None = None, seen: Look | None = None) -> np.ndarray:
    """Put the chest wall at the left edge, mirroring the picture if need be.

    Parameters
    ----------
    grey : ndarray (h, w) float32
        Bright on dark.
    side : str, optional
        ``left`` or ``right``: where the chest wall ought to be by the breast's laterality in the usual
        hanging, left breast at the left edge. The pixels have the last word, since films are scanned from
        either face; it decides only where they say nothing.

    Returns
    -------
    ndarray (h, w) float32
    """
    wall = chest_wall(grey, seen) or side
    return np.ascontiguousarray(grey[:, ::-1]) if wall == "right" else grey


def chest_wall(grey: np.ndarray, seen: Look | None = None) -> str | None:
    """``left`` or ``right``: the edge at which the tissue lies; None if both look alike."""
    found = (seen or look(grey)).found
    weight = (found.breast[found.film] if found else _reduced(grey)[0]).astype(np.float64)
    weight = weight - weight.min()
    columns = weight.sum(axis=0)
    half = len(columns) // 2
    left, right = float(columns[:half].sum()), float(columns[len(columns) - half :].sum())
    if abs(left - right) <= 0.01 * (left + right):
        return None
    return "left" if left > right else "right"


def has_text(grey: np.ndarray, seen: Look | None = None) -> bool:
    """Whether something like a film's label or its writing lies beside the breast.

    One mark is enough, a plate (compact, bright, on dark film) or a letter (small and crisp), since a missed
    name is worse than a second look; so scratches and dust may count too. Blind to writing upon the breast,
    to what reaches the film's very edge, to letters of less than two hundredths of the long side, to dark
    ones on a bright ground (see `is_page`), and where no breast is found; pictures whose
    shorter side is below `LEGIBLE` pixels count as having none that can be read.
    """
    if min(grey.shape) < LEGIBLE:
        return False
    found = (seen or look(grey)).found
    return found is not None and _has_marks(found)


def is_page(grey: np.ndarray, seen: Look | None = None) -> bool:
    """Whether the ground is bright and even: a page, a screenshot, or a picture that is dark on bright.

    A film's is dark, and tissue that reaches the edges is not even. Of the 160 films of mini-MIAS, 480
    patches out of them, 160 phantoms of films and 48 of PET none counts, mirrored or not; of their negatives
    156 films, 126 phantoms of films and all of PET do. Writing itself is not looked for: `has_text` gives 21
    false alarms on the negatives of the 160 films.
    """
    return max(grey.shape) >= LEGIBLE and (seen or look(grey)).is_page


@dataclass(frozen=True)
class Look:
    """What was found on a picture; None where no breast is."""

    found: _Found | None
    is_page: bool


def look(grey: np.ndarray) -> Look:
    """Find film and breast once for all that is asked of a picture (h, w) float32."""
    small, step = _reduced(grey)
    low, high = float(small.min()), float(np.percentile(small, 99))
    if not high > low:
        return Look(None, False)
    values = np.clip((small - low) / (high - low), 0, 1)
    film = _film(values)
    return Look(_find(values, step, film), _has_bright_ground(values[film]))


# --- finding ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """On the reduced copy: values 0..1, the film's rectangle in them, and the mask of the breast."""

    step: int
    values: np.ndarray
    film: tuple[slice, slice]
    breast: np.ndarray
    plates: np.ndarray  # their mask, of the rectangle alone
    level: float


def _find(values: np.ndarray, step: int, film: tuple[slice, slice]) -> _Found | None:
    inside = values[film]
    smooth = ndimage.gaussian_filter(inside, 1)
    level, noise = _background(smooth)
    plates = _plates(inside, level)
    breast = _breast(smooth > level + max(3 * noise, 0.02), plates)
    if breast is None:
        return None
    mask = np.zeros(values.shape, bool)
    mask[film] = breast
    return _Found(step, values, film, mask, plates, level)


def _reduced(grey: np.ndarray) -> tuple[np.ndarray, int]:
    """Means over squares of `step` pixels; those that the edge cuts are left out."""
    step = max(1, round(max(grey.shape) / WORK))
    height, width = (max(1, length // step) for length in grey.shape)
    step_y, step_x = min(step, grey.shape[0]), min(step, grey.shape[1])
    whole = grey[: height * step_y, : width * step_x]
    rows = whole.reshape(height, step_y, -1).mean(axis=1, dtype=np.float32)  # along memory first: faster
    return rows.reshape(height, width, step_x).mean(axis=2), step


def _full_size(mask: np.ndarray, step: int, shape: tuple[int, ...]) -> np.ndarray:
    rows = np.minimum(np.arange(shape[0]) // step, mask.shape[0] - 1)
    columns = np.minimum(np.arange(shape[1]) // step, mask.shape[1] - 1)
    return mask[rows[:, None], columns]


def _film(values: np.ndarray) -> tuple[slice, slice]:
    """The rectangle inside black padding."""
    light = values > 0.004
    out = []
    for axis in (1, 0):
        share = light.mean(axis=axis)
        where = np.flatnonzero(share > 0.05)
        out.append(
            slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, values.shape[1 - axis])
        )
    return out[0], out[1]


def _has_bright_ground(inside: np.ndarray) -> bool:
    """Whether the rim is bright, and most of it alike."""
    width = max(1, round(0.02 * max(inside.shape)))
    edges = (inside[:width], inside[-width:], inside[:, :width], inside[:, -width:])
    rim = np.concatenate([edge.ravel() for edge in edges])
    level = float(np.median(rim))
    return level > BRIGHT and float((np.abs(rim - level) < EVEN).mean()) > 0.6


def _background(smooth: np.ndarray) -> tuple[float, float]:
    """Level and spread of the commonest dark value."""
    counts, edges = np.histogram(smooth, bins=256, range=(0, 1))
    dark = ndimage.uniform_filter1d(counts[: int(DARK * 256)].astype(float), 3)
    level = float(edges[int(dark.argmax())] + edges[1] / 2)
    below = smooth[smooth <= level]
    noise = float(np.sqrt(np.mean((level - below) ** 2))) if below.size else 0.0
    return level, noise


def _breast(bright: np.ndarray, plates: np.ndarray) -> np.ndarray | None:
    side = max(bright.shape)
    bright = bright & ~ndimage.binary_dilation(plates, iterations=max(2, round(0.012 * side)))
    radius = max(1, round(0.025 * side))
    opened = _grown(_worn(np.pad(bright, ((0, 0), (radius, radius)), mode="edge"), radius), radius)
    core = _largest_lateral(opened[:, radius:-radius])
    if core.sum() < SMALLEST * bright.size:
        return None
    whole = _grown(core, radius) & bright
    margin = max(1, round(0.01 * side))
    return _grown(ndimage.binary_fill_holes(whole), margin) & ~plates


def _largest_lateral(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask that reaches the left or the right edge; nothing if none does."""
    pieces, number = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=number + 1)
    lateral = np.union1d(pieces[:, :3], pieces[:, -3:])
    sizes[np.setdiff1d(np.arange(number + 1), lateral)] = 0
    sizes[0] = 0
    if not sizes.any():
        return np.zeros_like(mask)
    return pieces == sizes.argmax()


def _plates(film: np.ndarray, level: float) -> np.ndarray:
    """Labels and borders: bright, compact and, unlike anything in a breast, with the dark film beside."""
    high = level + 0.35 * (1 - level)
    pieces, _ = ndimage.label(film > high)
    areas = np.bincount(pieces.ravel())
    half = film.shape[1] // 2
    wall_is_left = film[:, :half].sum() > film[:, film.shape[1] - half :].sum()
    out = np.zeros(film.shape, bool)
    for index, (box, area) in enumerate(zip(ndimage.find_objects(pieces), areas[1:], strict=True), 1):
        at_wall = box[1].start < 4 if wall_is_left else box[1].stop > film.shape[1] - 4
        compact = area >= 0.4 * prod(_shape(box))
        if at_wall or not compact or not 0.0008 * film.size <= area <= 0.05 * film.size:
            continue
        near = tuple(slice(max(0, part.start - 4), part.stop + 4) for part in box)
        body = ndimage.binary_fill_holes(pieces[near] == index)
        ring = ndimage.binary_dilation(body, iterations=3) & ~ndimage.binary_dilation(body, iterations=2)
        if ring.any() and np.median(film[near][ring]) < level + 0.3 * (high - level):
            out[near] |= body
    return out


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilation by the disk x² + y² <= radius² + 1, each row of which is a run that running sums count."""
    height, width = mask.shape
    sums = np.cumsum(np.pad(mask, ((radius, radius), (radius + 1, radius))), axis=1, dtype=np.int32)
    out = np.zeros(mask.shape, bool)
    for y in range(-radius, radius + 1):
        reach = isqrt(radius * radius + 1 - y * y)
        rows = sums[radius + y : radius + y + height]
        first, last = radius - reach, radius + reach + 1
        out |= rows[:, last : last + width] > rows[:, first : first + width]
    return out


def _worn(mask: np.ndarray, radius: int) -> np.ndarray:
    """Erosion by the same disk; beyond the edge there is nothing."""
    return ~_grown(np.pad(~mask, radius, constant_values=True), radius)[radius:-radius, radius:-radius]


def _has_marks(found: _Found) -> bool:
    film, breast = found.values[found.film], found.breast[found.film]
    longest = 0.3 * max(film.shape)  # what is longer is the film's border
    if any(max(_shape(box)) <= longest for box in ndimage.find_objects(ndimage.label(found.plates)[0])):
        return True
    beside = ~ndimage.binary_dilation(breast)
    dark = film[beside & (film < found.level + 0.2)]
    grain = 1.4826 * float(np.median(np.abs(dark - np.median(dark)))) if dark.size else 0.0
    strokes = (ndimage.white_tophat(film, size=7) > max(0.06, 8 * grain)) & beside
    rim = 3
    strokes[:rim], strokes[-rim:], strokes[:, :rim], strokes[:, -rim:] = False, False, False, False
    pieces, _ = ndimage.label(strokes, np.ones((3, 3)))
    areas = np.bincount(pieces.ravel())
    return any(
        min(_shape(box)) >= 2 and max(_shape(box)) <= 0.08 * max(film.shape) and area >= 4
        for box, area in zip(ndimage.find_objects(pieces), areas[1:], strict=True)
    )


def _shape(box: tuple[slice, slice]) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start
