"""Pictures that are copies of each other, so that no copy of a training image is validated or tested on.

Fingerprint
-----------
A perceptual hash after Zauner's pHash (2010): the picture is reduced to 32x32 pixels with antialiasing,
and of its discrete cosine transform the signs of the 64 coefficients next above frequency 4 are kept.
Lower ones tell the outline of a breast, which many women share. Signs do not change with brightness and
contrast; a flipped picture has the fingerprint of the original with the bits of odd frequencies inverted,
so that flipped copies are found from the same 64 bits.

Confirmation
------------
Pictures whose fingerprints differ in 10 bits or fewer are compared at 32x32 pixels, then, once scaled and
moved onto each other by up to 5 %, at 64x64, by `structure`: the correlation within windows of a few
pixels. Edges and large dark areas are shared by most mammograms; the texture within is not.

What counts
-----------
- A flipped copy is a copy. The two breasts of a woman, one mirrored, are not (and are hers anyway).
- Of one patient's pictures only exact copies count: neighbouring slices are alike and stay together.
- A picture with next to nothing on it, such as a slice beyond the breast, is a copy of none: see `is_empty`.

Measured
--------
160 mini-MIAS films of 80 women at 256 pixels (12,640 pairs across women, four flips each), 80 phantom
mammograms and 160 slices of 20 phantom PET volumes; none of these pairs was taken for a copy, nor were the
two breasts of a woman when they were given out as two women's. Of copies made of each were found:

=====================================  =========  =========  ==========
copy                                   mini-MIAS  phantoms   PET slices
=====================================  =========  =========  ==========
flipped; 5 % brighter; 5 % darker      100 %      100 %      100 %
half the size and back                 100 %      100 %      100 %
JPEG of quality 50                     100 %      100 %      70 %
noise of 1 % of white                  100 %      100 %      87 %
1 % cropped at each edge               98 %       100 %      100 %
2 % cropped at each edge               98 %       98 %       98 %
2 % cropped at two edges               98 %       93 %       51 %
=====================================  =========  =========  ==========

The slices that JPEG and noise hide are faint ones. Two women's films came to a structure of 0.84 at 32x32
pixels and 0.82 at 64x64 at most; copies without a crop to 0.997 and 0.995 at least. The crops that are
missed are those whose fingerprints or places could not be matched. All pairs of 50,000 fingerprints take
12 s on one core; those near each other (of mini-MIAS 1 pair in 100) go on at 17,000 a second, and those
alike at 32x32 pixels (2 pairs of the 12,640) at 5 ms each. Turned copies and parts of pictures are not
looked for. Real breast PET was not at hand.

Series
------
Of each series up to `PROBES` slices, spread over it, are compared with all slices of the others, and with the
nearest of each. Two patients share a series if one in `SHARE` of those slices has a copy, counted from either
side: so it is found whichever slices one of the two lacks, and ends that look alike in everybody join nobody.
Exact copies are found among all slices, and one is enough. What two series have in common may be overlooked
if it is less than a third of both.

72 phantoms of 24 slices at 64 pixels, each with a copy under another name whose window was taken from what is
left of it; of 10,224 pairs of different patients none was joined in any of these:

=============================================================  =======
copy                                                           found
=============================================================  =======
without the first 8 slices; without the last 16; every second  100 %
without the last 8, noise of 1 % of white                      100 %
window of all values rather than of the percentiles 0.5, 99.5  100 %
window of the percentiles 5, 95                                78 %
=============================================================  =======

Phantoms have much noise. Of 60 that were blurred by 3.5 or 7 pixels of 128 (full width at half maximum)
copies without the first 8 slices were found in all, and of 7,080 pairs none was joined; were one copy
enough, 200 and 962 would have been, nearly all by the slices at one end. At 64 pixels copies compressed as
JPEG (quality 50) or halved in size and back are nearly all overlooked (1 and 3 of 72 found even if one copy
were enough): they lack the noise by which such slices are known.

For 400 series of 300 slices, a third of them alike in all, fingerprints take 14 s on one core and 80 MB of
memory; 800,000 pairs go on, at 17,000 a second and a kilobyte for each picture.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import fft, ndimage

EMPTY = 0  # the fingerprint of a picture with next to nothing on it
FLIPS = ("none", "left-right", "up-down", "both")
NEAR_BITS = 10  # fingerprints that differ in more are of different pictures
COARSE_SIDE, COARSE_STRUCTURE = 32, 0.82  # pixels; copies have a larger structure
FINE_SIDE, FINE_STRUCTURE = 64, 0.90
PROBES, SHARE = 16, 3  # slices of a series, spread over it; of how many one must have a copy

_HASHED_SIDE, _LOWEST = 32, 4  # the hash: pixels, and its lowest frequency
_STANDS_OUT, _SMALLEST_SHARE = 0.02, 0.002  # of the largest value; of the pixels
_FAINT = 0.05  # of the grey levels' range: texture below it counts little
_LARGEST_MOVE = 0.05  # of the side
_BLOCK = (256, 2048)  # fingerprints compared at a time: what a core's cache holds
_BATCH = 4096  # pairs of pictures compared at a time


@dataclass(frozen=True)
class Duplicate:
    """Two pictures that are one.

    Parameters
    ----------
    index_a, index_b : int
        Of the pictures, the smaller first.
    exact : bool
        Whether all pixels are equal, after the flip if there is one.
    distance : int
        Bits in which the fingerprints differ, after the flip if there is one.
    flip : str
        What turns the one into the other; one of `FLIPS`.
    """

    index_a: int
    index_b: int
    exact: bool
    distance: int
    flip: str = "none"


def fingerprint(grey: np.ndarray) -> int:
    """Perceptual hash of a picture: 64 bits, `EMPTY` if there is next to nothing on it.

    Parameters
    ----------
    grey : ndarray (h, w) uint8, uint16 or float32
        Any units. Finite.
    """
    if is_empty(grey):
        return EMPTY
    spectrum = fft.dctn(_reduced(grey, _HASHED_SIDE), norm="ortho")
    bits = np.packbits(spectrum[_HASHED] > 0)
    return int.from_bytes(bits.tobytes(), "big") or 1


def is_empty(grey: np.ndarray) -> bool:
    """Whether fewer than 0.2 % of the pixels differ from their median by 2 % of the largest value.

    That value is the type's largest for whole numbers, the picture's own for floats.
    """
    whole = grey.dtype.kind in "ui"
    largest = float(np.iinfo(grey.dtype).max if whole else np.abs(grey).max(initial=0))
    values = grey.astype(np.float32)
    stands_out = np.abs(values - np.median(values)) > _STANDS_OUT * largest
    return float(stands_out.mean()) < _SMALLEST_SHARE


def find_duplicates(
    fingerprints: Sequence[int],
    patients: Sequence[str],
    image_of: Callable[[int], np.ndarray],
    show: Callable[[int, int], None] = lambda done, total: None,
    series: Sequence[str] | None = None,
) -> list[Duplicate]:
    """Copies among pictures: those across patients, and exact ones of one patient.

    Parameters
    ----------
    fingerprints : sequence of int
        Of `fingerprint`, one for each picture.
    patients : sequence of str
        Whose each is.
    image_of : callable
        Gives the picture of an index: (h, w). Is asked only for those that look like copies; each stays
        in memory at 32x32 bytes.
    show : callable
        Is told the pictures done and their total.
    series : sequence of str, optional
        Which each is a slice of, in the order of the slices; None if each is one by itself.

    Returns
    -------
    list of Duplicate
        Sorted. Of several exact copies each is paired with the first one only, and only the first one
        with near copies: so groups are connected, and not every pair is listed.
    """
    codes = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    hashes = np.asarray(fingerprints, dtype=np.uint64)
    exact = _exact_copies(hashes, image_of)
    first = np.arange(len(hashes))
    first[[d.index_b for d in exact]] = [d.index_a for d in exact]
    names = first if series is None else np.asarray(series, dtype=str)
    volumes = np.unique(names, return_inverse=True)[1]
    left = np.flatnonzero((first == np.arange(len(hashes))) & (hashes != EMPTY))
    left = left[np.argsort(volumes[left], kind="stable")]
    probes = _probes(volumes, hashes) if series is not None else left
    found = {(d.index_a, d.index_b): d for d in exact}
    coarse = _CoarsePictures(image_of)
    looked_at: dict[tuple[int, int, str], Duplicate | None] = {}
    hits: defaultdict[tuple[int, int], list[tuple[int, Duplicate]]] = defaultdict(list)
    near = _near_pairs(hashes, codes, volumes, first, probes, left, show)
    for probe, other, flip in coarse.alike(near, first):
        a, b = sorted((int(first[probe]), other))
        if (a, b, flip) not in looked_at:
            looked_at[a, b, flip] = _confirmed(a, b, flip, hashes, image_of)
        duplicate = looked_at[a, b, flip]
        if duplicate is not None:
            hits[int(volumes[probe]), int(codes[other])].append((probe, duplicate))
    wanted = -(-np.bincount(volumes[probes], minlength=1) // SHARE)
    for (volume, _), copies in hits.items():
        if len({probe for probe, _ in copies}) >= wanted[volume]:
            for _, duplicate in copies:
                found.setdefault((duplicate.index_a, duplicate.index_b), duplicate)
    show(len(hashes), len(hashes))
    return sorted(found.values(), key=lambda d: (d.index_a, d.index_b))


def groups(patients: Iterable[str], duplicates: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Who belongs together because of shared pictures.

    Parameters
    ----------
    patients : iterable of str
    duplicates : iterable of (str, str)
        The patients of each pair of copies.

    Returns
    -------
    dict of str to str
        For each patient the smallest name of her group; her own if she shares nothing.
    """
    leader = {patient: patient for patient in patients}

    def find(patient: str) -> str:
        while leader[patient] != patient:
            leader[patient] = leader[leader[patient]]
            patient = leader[patient]
        return patient

    for a, b in duplicates:
        first, second = sorted((find(a), find(b)))
        leader[second] = first
    return {patient: find(patient) for patient in leader}


def structure(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """How far the texture of pictures agrees: 1 if it is the same, about 0 if it has nothing in common.

    The covariances within Gaussian windows over their variances, summed over windows; windows with
    little texture for the picture's range of grey levels count little.

    Parameters
    ----------
    a, b : ndarray (..., n, n) float32
        Their ranges of grey levels are about 1.
    width : float
        Standard deviation of the windows, in pixels.

    Returns
    -------
    ndarray (...)
    """
    along = _blurring(a.shape[-1], width)

    def blur(values: np.ndarray) -> np.ndarray:
        return along @ values @ along.T

    mean_a, mean_b = blur(a), blur(b)
    covariance = blur(a * b) - mean_a * mean_b
    variance = (blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2) / 2
    edge = a.shape[-1] // 16  # moved pictures lack it
    inner = (..., slice(edge, -edge), slice(edge, -edge))
    weight = 1 / (variance[inner] + _FAINT**2)
    textured = (variance[inner] * weight).sum((-2, -1))
    return (covariance[inner] * weight).sum((-2, -1)) / np.maximum(textured, 1e-12)


@functools.lru_cache
def _blurring(side: int, width: float) -> np.ndarray:
    """The matrix of a Gaussian filter: for many small pictures faster than filtering them."""
    return ndimage.gaussian_filter1d(np.eye(side, dtype=np.float32), width, axis=0)


def _hashed_frequencies() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:_HASHED_SIDE, :_HASHED_SIDE].reshape(2, -1)
    square = rows**2 + columns**2
    order = np.argsort(square, kind="stable")
    order = order[square[order] >= _LOWEST**2][:64]
    return rows[order], columns[order]


_HASHED = _hashed_frequencies()


def _inverted_bits() -> dict[str, np.uint64]:
    """The bits of a fingerprint that each flip inverts."""
    odd_row, odd_column = (int.from_bytes(np.packbits(k % 2 == 1).tobytes(), "big") for k in _HASHED)
    masks = (0, odd_column, odd_row, odd_row ^ odd_column)
    return {flip: np.uint64(mask) for flip, mask in zip(FLIPS, masks, strict=True)}


_INVERTED = _inverted_bits()


def _flipped(pictures: np.ndarray, flip: str) -> np.ndarray:
    if flip in ("left-right", "both"):
        pictures = pictures[..., ::-1]
    if flip in ("up-down", "both"):
        pictures = pictures[..., ::-1, :]
    return pictures


def _reduced(grey: np.ndarray, side: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(grey, np.float32))
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))


def _exact_copies(hashes: np.ndarray, image_of: Callable[[int], np.ndarray]) -> list[Duplicate]:
    """Pictures of one fingerprint whose pixels are equal, each with the first of them."""
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.diff(hashes[order])) + 1
    copies = []
    for same in np.split(order, starts):
        if len(same) < 2 or hashes[same[0]] == EMPTY:
            continue
        first: dict[bytes, int] = {}
        for index in map(int, same):
            image = np.ascontiguousarray(image_of(index))
            digest = hashlib.sha256(image.tobytes() + repr(image.shape).encode()).digest()
            if first.setdefault(digest, index) != index:
                copies.append(Duplicate(first[digest], index, exact=True, distance=0))
    return copies


def _probes(volumes: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Up to `PROBES` pictures of each series, spread over those with something on them."""
    shown = np.flatnonzero(hashes != EMPTY)
    shown = shown[np.argsort(volumes[shown], kind="stable")]
    parts = np.split(shown, np.flatnonzero(np.diff(volumes[shown])) + 1)
    spread = [
        part[(2 * np.arange(n := min(PROBES, len(part))) + 1) * len(part) // (2 * max(n, 1))]
        for part in parts
    ]
    return np.concatenate(spread)


def _near_pairs(
    hashes: np.ndarray,
    codes: np.ndarray,
    volumes: np.ndarray,
    first: np.ndarray,
    probes: np.ndarray,
    left: np.ndarray,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[np.ndarray]:
    """Probes with the pictures of other patients that have few bits between them, under any flip.

    Of each series a probe is paired with the nearest picture. A part of the probes at a time with some whole
    series, so that memory stays small.

    Yields
    ------
    ndarray (m, 3)
        Probe, picture, number of the flip.
    """
    high, wide = _BLOCK
    size = np.bincount(volumes, minlength=1)
    for top in range(0, len(probes), high):
        show(top * len(hashes) // len(probes), len(hashes))
        above = probes[top : top + high]
        for start, stop in _stretches(volumes[left], wide):
            beside = left[start:stop]
            found = []
            for flip, inverted in enumerate(_INVERTED.values()):
                distances = _count_bits((hashes[above, None] ^ inverted) ^ hashes[None, beside])
                near = distances <= NEAR_BITS
                if not near.any():  # the rule; and much faster than to look where
                    continue
                at = np.flatnonzero(near)
                rows, columns = above[at // len(beside)], beside[at % len(beside)]
                kept = (codes[rows] != codes[columns]) & (codes[first[rows]] != codes[columns])
                # Single pictures are all probes: each pair of them comes twice.
                kept &= (rows < columns) | (size[volumes[rows]] > 1) | (size[volumes[columns]] > 1)
                bits = distances.ravel()[at[kept]].astype(np.int64)
                found.append(np.stack([rows[kept], columns[kept], np.full(len(bits), flip), bits]))
            if not found:
                continue
            rows, columns, flips, bits = np.concatenate(found, axis=1)
            order = np.lexsort((columns, flips, bits, volumes[columns], rows))
            rows, columns, flips = rows[order], columns[order], flips[order]
            nearest = np.ones(len(rows), bool)
            nearest[1:] = (np.diff(rows) != 0) | (np.diff(volumes[columns]) != 0)
            yield np.column_stack([rows, columns, flips])[nearest]


def _stretches(series: np.ndarray, least: int) -> Iterator[tuple[int, int]]:
    """From where to where so many pictures stand or more, no series of them cut; the last are fewer."""
    starts = np.flatnonzero(np.diff(series, prepend=-1))
    top = 0
    while top < len(series):
        later = starts[np.searchsorted(starts, top + least) :]
        bottom = int(later[0]) if len(later) else len(series)
        yield top, bottom
        top = bottom


def _count_bits(words: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return _count_bits_in_steps(words)  # NumPy 1


def _count_bits_in_steps(words: np.ndarray) -> np.ndarray:
    """Sums of neighbouring bits, then of pairs, of fours and of bytes; from Hacker's Delight, 5-1."""
    pairs, fours, bytes_, one, two, four, all_ = (
        np.uint64(value)
        for value in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 1, 2, 4, 0x0101010101010101)
    )
    words = words - ((words >> one) & pairs)
    words = (words & fours) + ((words >> two) & fours)
    words = (words + (words >> four)) & bytes_
    return ((words * all_) >> np.uint64(56)).astype(np.uint8)


class _CoarsePictures:
    """Pictures of 32x32 bytes, made when they are asked for."""

    def __init__(self, image_of: Callable[[int], np.ndarray]) -> None:
        self._image_of = image_of
        self._made: dict[int, np.ndarray] = {}

    def alike(self, near: Iterable[np.ndarray], first: np.ndarray) -> Iterator[tuple[int, int, str]]:
        """Those of `_near_pairs` whose structure at this size is that of copies; the flip by its name."""
        for part in near:
            for number, flip in enumerate(FLIPS):
                pairs = part[part[:, 2] == number, :2]
                for start in range(0, len(pairs), _BATCH):
                    batch = pairs[start : start + _BATCH]
                    a, b = (
                        np.stack([self._picture(int(n)) for n in column]) / np.float32(255)
                        for column in (first[batch[:, 0]], batch[:, 1])
                    )
                    kept = structure(a, _flipped(b, flip), width=1.0) >= COARSE_STRUCTURE
                    yield from ((int(probe), int(other), flip) for probe, other in batch[kept])

    def _picture(self, index: int) -> np.ndarray:
        if index not in self._made:
            grey = _ranged(_reduced(self._image_of(index), COARSE_SIDE))
            self._made[index] = np.clip(np.rint(255 * grey), 0, 255).astype(np.uint8)
        return self._made[index]


def _ranged(grey: np.ndarray) -> np.ndarray:
    """From 0 to 1 but for the darkest and the brightest 0.5 % of the pixels."""
    low, high = np.quantile(grey, (0.005, 0.995))
    return ((grey - low) / max(float(high - low), 1e-30)).astype(np.float32)


def _confirmed(
    a: int, b: int, flip: str, hashes: np.ndarray, image_of: Callable[[int], np.ndarray]
) -> Duplicate | None:
    first, second = image_of(a), _flipped(image_of(b), flip)
    exact = np.array_equal(first, second)
    if not exact:
        move = _alignment(first, second)
        fine = [_ranged(_reduced(image, FINE_SIDE)) for image in (first, second)]
        if structure(fine[0], _moved(fine[1], move), width=1.5) < FINE_STRUCTURE:
            return None
    distance = int(_count_bits(hashes[a : a + 1] ^ hashes[b : b + 1] ^ _INVERTED[flip])[0])
    return Duplicate(a, b, exact, distance, flip)


def _alignment(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What brings the second picture onto the first: shifts in y and x, and scales, in sides.

    Least squares over the grey levels by Gauss and Newton, coarse to fine (Lucas and Kanade 1981).
    """
    move = np.zeros(4)
    for side in (COARSE_SIDE, FINE_SIDE):
        target, source = (_edges(_reduced(image, side)) for image in (first, second))
        place = (np.arange(side) - (side - 1) / 2) / side
        for _ in range(4):
            moved = _moved(source, move)
            down, across = (side * slope for slope in np.gradient(moved))
            slopes = np.stack([down, across, down * place[:, None], across * place], -1).reshape(-1, 4)
            normal = slopes.T @ slopes
            normal += np.diag(1e-3 * np.diag(normal) + 1e-9)
            step = np.linalg.solve(normal, slopes.T @ (target - moved).ravel())
            move = np.clip(move + step, -_LARGEST_MOVE, _LARGEST_MOVE)
    return move


def _edges(grey: np.ndarray) -> np.ndarray:
    """Without what changes slowly, and without what a pixel or two show."""
    smooth = ndimage.gaussian_filter(grey, 1.0)
    detail = smooth - ndimage.gaussian_filter(smooth, len(grey) / 10)
    return detail / max(float(detail.std()), 1e-30)


def _moved(grey: np.ndarray, move: np.ndarray) -> np.ndarray:
    side = len(grey)
    scale, centre = 1 + move[2:], (side - 1) / 2
    offset = centre + move[:2] * side - scale * centre
    return ndimage.affine_transform(grey, scale, offset, order=1, mode="nearest")
