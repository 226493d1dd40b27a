"""From the slices of a series to its pictures: some of the slices, or maximum-intensity projections.

==============================  ==========================================================================
``all``                         every slice
``slices:every=K``              every K-th by position, so that about as many are left out at either end
``central:N``                   the N in the middle; all of a volume that has fewer
``mip:coronal,sagittal,axial``  the maximum along one or more of the patient's directions, of all slices
==============================  ==========================================================================

Slices are ordered by where they lie along the normal of their plane (the cross product of
ImageOrientationPatient's two vectors, PS3.3 C.7.6.2), never by name or number. A series is taken whole or
not at all: a slice too many or too few would be somebody else's anatomy in a projection, and a wrong one
among "every K-th".

What is no slice (a mammogram, a picture, a projection that the scanner made) becomes one picture each. A
scanner's projection is never counted among slices, and is left out where there are any: it shows the same
volume another way.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from petgan.errors import ConfigError
from petgan.ingest.frame import Frame, Picture, Plane, Refused

GRAMMAR = "all, slices:every=K, central:N, or mip: with one or more of coronal,sagittal,axial"
NEAREST_MM = 0.01  # slices nearer than this lie at one position
UNEVEN = 0.1  # by how much of the usual spacing a spacing may differ, as positions are rounded
ALIKE = 1e-3  # by how much direction cosines, and pixel spacings as a share, may differ in one series
TOLD = 5  # positions that a reason names
PROJECTED = "projections by ImageType (0008,0008), where slices are taken"

#: What a projection looks along, and what points down and to the right on it: left, posterior, superior.
#: Head up; the patient's left on the right, as if she faced the reader; from the side, she looks left.
AXES = {
    "coronal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
    "sagittal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "axial": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
}


@dataclass(frozen=True)
class Take:
    """Which pictures a volume becomes: `kind` is ``all``, ``slices``, ``central`` or ``mip``."""

    kind: str = "all"
    number: int = 1
    axes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return {
            "all": "all",
            "slices": f"slices:every={self.number}",
            "central": f"central:{self.number}",
            "mip": f"mip:{','.join(self.axes)}",
        }[self.kind]

    def ranks(self, count: int) -> range:
        """Which slices of so many are taken, by rank; none if they are projected."""
        if self.kind == "slices":
            return range((count - 1) % self.number // 2, count, self.number)
        if self.kind == "central":
            number = min(self.number, count)
            first = (count - number) // 2
            return range(first, first + number)
        return range(count if self.kind == "all" else 0)


def parse_take(text: str) -> Take:
    """Read a rule for taking pictures from volumes.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if text == "all":
        return Take()
    if found := re.fullmatch(r"(?:(slices):every=|(central):)([1-9][0-9]{0,5})", text, re.ASCII):
        return Take(found[1] or found[2], int(found[3]))
    kind, _, names = text.partition(":")
    axes = names.split(",")
    if kind == "mip" and len(set(axes)) == len(axes) and set(axes) <= set(AXES):
        return Take("mip", axes=tuple(axis for axis in AXES if axis in axes))
    raise ConfigError("there is no such rule for taking slices", value=text, allowed=GRAMMAR)


def without_projections(frames: list[Frame], skipped: Counter[str], slices: bool = False) -> list[Frame]:
    """Leave out the scanner's own projections, unless they are all there is of PET.

    `skipped` is told of their number; `slices` says that there are some that cannot be taken.
    """
    if not slices and not any(frame.header.plane for frame in frames):
        return frames
    kept = [frame for frame in frames if frame.header.view != "projection"]
    if len(kept) < len(frames):
        skipped[PROJECTED] += len(frames) - len(kept)
    return kept


def pictures(frames: Iterable[Frame], take: Take) -> tuple[list[Picture], dict[str, str]]:
    """What one or many series become.

    Parameters
    ----------
    frames : iterable of Frame
        In any order; patient and series say which belong together.
    take : Take

    Returns
    -------
    list of Picture
        Series by series. A slice has its rank in the whole volume, whichever are taken; a projection has
        that of its direction in `AXES`. What is no slice has its header's view, empty if it has none.
    dict of str to str
        Why files are refused, by id: all of a series in which slices share a position, are missing (between
        others, or by NumberOfSlices), lie unevenly, or differ in orientation, pixel spacing or size; for
        projections also one that has a single slice or no PixelSpacing, whose slices are shifted against one
        another, or that lies askew so that two of its axes are equally near a direction of the patient's.
        Positions are in mm along the normal.
    """
    series: defaultdict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        series[frame.patient, frame.series].append(frame)
    made: list[Picture] = []
    refused: dict[str, str] = {}
    for members in series.values():
        for part in (_single_pictures, _volume_pictures):
            placed = part is _volume_pictures
            some = [frame for frame in members if (frame.header.plane is not None) == placed]
            try:
                made += part(some, take) if some else []
            except Refused as error:
                refused.update((frame.id, error.reason) for frame in some)
    return [one for one in made if not any(frame.id in refused for frame in one.frames)], refused


def projected_axis(view: str) -> str | None:
    """The direction that a picture of this view is to be projected along, None if it is a slice."""
    axis = view.removeprefix("mip-")
    return axis if axis in AXES and axis != view else None


@dataclass(frozen=True)
class Geometry:
    """How a volume lies in the patient.

    Parameters
    ----------
    directions : (3, 3) tuples of float
        Unit vectors from slice to slice, from row to row and from column to column: left, posterior,
        superior.
    spacing : (float, float, float)
        Along each of them, in mm.
    slices : int
        Their number.
    """

    directions: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    spacing: tuple[float, float, float]
    slices: int


def geometry(frames: Sequence[Frame]) -> Geometry:
    """Of the slices of a volume, which are in the order of their positions.

    Raises
    ------
    Refused
        If there is a single one, or PixelSpacing is missing.
    """
    planes, normal, depths = _along_normal(frames)
    spacing = frames[0].header.spacing
    if len(frames) < 2:
        raise Refused("lies in a series of a single slice, of which there is no projection")
    if spacing is None:
        raise Refused("lacks PixelSpacing (0028,0030), without which a projection has no shape")
    plane = min(planes, key=_key)
    between = abs(float(depths[-1] - depths[0])) / (len(frames) - 1)
    return Geometry((tuple(normal.tolist()), plane.down, plane.across), (between, *spacing), len(frames))


def project(
    images: Iterable[np.ndarray], volume: Geometry, axis: str
) -> tuple[np.ndarray, tuple[float, float]]:
    """Maximum along one of the patient's directions.

    It is taken along the volume's axis that is nearest to the direction, so that an oblique volume is seen
    along its own axis and no value is interpolated.

    Parameters
    ----------
    images : iterable of ndarray (h, w) float32
        All slices in the order of their positions; an array (n, h, w) is one. Taken one by one: the memory
        is that of one slice and of the projection.
    volume : Geometry
    axis : {'coronal', 'sagittal', 'axial'}
        Coronal looks from the front, sagittal from the side, axial along the body.

    Returns
    -------
    ndarray float32
        Coronal and sagittal with the head up; coronal and axial with the patient's left on the right;
        sagittal with her front on the left; axial with her front up. So it is whatever the order and the
        orientation of the slices.
    (float, float)
        Between its rows and between its columns, in mm.

    Raises
    ------
    Refused
        If the slices differ in size, if their number is not the volume's, or if two axes are equally near.
    """
    along, transposed, flips = _layout(volume, axis)
    projected = _maximum(images, along, volume.slices)
    left = [number for number in range(3) if number != along]
    if transposed:
        projected, left = projected.T, left[::-1]
    spacing = volume.spacing[left[0]], volume.spacing[left[1]]
    return np.ascontiguousarray(np.flip(projected, tuple(flips))), spacing


def _maximum(images: Iterable[np.ndarray], along: int, slices: int) -> np.ndarray:
    """Along one axis of the volume; the other two keep their order."""
    shapes = set()
    running = np.empty(0, np.float32)
    rows: list[np.ndarray] = []
    count = 0
    for count, image in enumerate(images, 1):
        shapes.add(image.shape)
        if len(shapes) > 1:
            raise Refused(f"lies in a series whose slices differ in {_SIZE}")
        if along > 0:
            rows.append(image.max(axis=along - 1))
        else:
            running = image.copy() if count == 1 else np.maximum(running, image, out=running)
    if count != slices:
        raise Refused("lies in a series of which slices could not be read")
    return np.stack(rows) if along > 0 else running


_SIZE = "size: Rows (0028,0010), Columns (0028,0011)"


def _layout(volume: Geometry, axis: str) -> tuple[int, bool, list[int]]:
    """The volume's axis to project along, whether the others change places, and which are turned around."""
    directions = np.array(volume.directions)
    looking, down, right = np.array(AXES[axis])
    nearness = np.abs(directions @ looking)
    along = int(nearness.argmax())
    left = np.delete(directions, along, axis=0)
    upright = np.abs(left @ down) + np.abs(left[::-1] @ right)  # first axis down; second axis down
    if np.diff(np.sort(nearness))[-1] < ALIKE or abs(upright[0] - upright[1]) < ALIKE:
        raise Refused(
            f"lies askew: two axes of its volume are equally near to those of the {axis} projection"
        )
    transposed = bool(upright[1] > upright[0])
    rows, columns = left[::-1] if transposed else left
    flips = [number for number, turned in enumerate((rows @ down < 0, columns @ right < 0)) if turned]
    return along, transposed, flips


# --- series ----------------------------------------------------------------------------------------------


def _single_pictures(frames: Sequence[Frame], take: Take) -> list[Picture]:
    if take.kind == "mip" and any(frame.header.view in ("projection", "capture") for frame in frames):
        raise Refused(
            "shows a volume by ImageType (0008,0008) or SOPClassUID (0008,0016) and is none of its slices: "
            "--take mip makes its own projections of these"
        )
    ordered = sorted(frames, key=lambda frame: (frame.id, frame.index))
    return [Picture((frame,), frame.header.view or "", rank) for rank, frame in enumerate(ordered)]


def _volume_pictures(frames: Sequence[Frame], take: Take) -> list[Picture]:
    _check_alike(frames)
    _, _, depths = _along_normal(frames)
    order = np.argsort(depths, kind="stable")
    _check_positions(depths[order].tolist())
    _check_number(frames, depths)
    ordered = tuple(frames[place] for place in order.tolist())
    if take.kind == "mip":
        _check_upright(ordered)
        volume = geometry(ordered)
        for axis in take.axes:
            _layout(volume, axis)
        return [Picture(ordered, f"mip-{axis}", list(AXES).index(axis)) for axis in take.axes]
    return [Picture((ordered[rank],), "slice", rank) for rank in take.ranks(len(ordered))]


def _check_alike(frames: Sequence[Frame]) -> None:
    planes = [frame.header.plane for frame in frames]
    cosines = np.array([(*plane.across, *plane.down) for plane in planes if plane is not None])
    if np.ptp(cosines, axis=0).max() > ALIKE:
        raise Refused("lies in a series whose slices differ in ImageOrientationPatient (0020,0037)")
    spacings = {frame.header.spacing for frame in frames}
    known = np.array([spacing for spacing in spacings if spacing is not None])
    if len(spacings) > 1 and (None in spacings or (np.ptp(known, axis=0) > ALIKE * known.min(axis=0)).any()):
        raise Refused("lies in a series whose slices differ in PixelSpacing (0028,0030)")
    if len({frame.header.pixels for frame in frames}) > 1:
        raise Refused(f"lies in a series whose slices differ in {_SIZE}")


def _check_positions(depths: Sequence[float]) -> None:
    """Of positions in their order, no two may be the same, and all gaps must be."""
    gaps = [after - before for before, after in pairwise(depths)]
    if not gaps:
        return
    if min(gaps) < NEAREST_MM:
        places = [f"{depths[number]:.2f}" for number, gap in enumerate(gaps) if gap < NEAREST_MM]
        distinct = list(dict.fromkeys(places))
        raise Refused(
            "lies in a series with several slices at one position (several times or gates?): at "
            f"{_some(distinct)} mm along the normal"
        )
    usual = sorted(gaps)[(len(gaps) - 1) // 2]
    missing, uneven = [], []
    for gap, (before, after) in zip(gaps, pairwise(depths), strict=True):
        steps = round(gap / usual)
        words = f"{before:.2f} and {after:.2f}"
        if steps > 1 and abs(gap - steps * usual) <= UNEVEN * usual:
            missing.append(words)
        elif abs(gap - usual) > UNEVEN * usual:
            uneven.append(words)
    if missing:
        raise Refused(
            f"lies in a series that lacks slices between {_some(missing)} mm along the normal, where the "
            f"others are {usual:.2f} mm apart"
        )
    if uneven:
        raise Refused(
            f"lies in a series whose slices lie unevenly: between {_some(uneven)} mm along the normal, where "
            f"the others are {usual:.2f} mm apart"
        )


def _check_number(frames: Sequence[Frame], depths: np.ndarray) -> None:
    """No slice may be missing at either end.

    NumberOfSlices is that of one volume, however many times or gates a series has (PS3.3 C.8.9.1): of these
    one at most is here, since no two slices lie at one position. Less than there is was said of something
    else, such as one bed of several.
    """
    whole = max(frame.header.slices for frame in frames)
    if len(frames) < whole:
        raise Refused(
            f"lies in a series that lacks slices: there are {len(frames)}, from {depths.min():.2f} to "
            f"{depths.max():.2f} mm along the normal, and NumberOfSlices (0054,0081) is {whole}"
        )


def _check_upright(frames: Sequence[Frame]) -> None:
    """Each slice must lie straight above the one before it: a sheared volume has no projection."""
    planes, _, _ = _along_normal(frames)
    plane, spacing = min(planes, key=_key), frames[0].header.spacing
    positions = np.array([plane.position for plane in planes])
    for direction, step in zip((plane.down, plane.across), spacing or (), strict=False):
        if np.ptp(positions @ np.array(direction)) > step:
            raise Refused(
                "lies in a series whose slices are shifted against one another by ImagePositionPatient "
                "(0020,0032): it has no projection"
            )


def _along_normal(frames: Sequence[Frame]) -> tuple[list[Plane], np.ndarray, np.ndarray]:
    """Planes, the unit vector that they are stacked along, and their positions along it in mm."""
    planes = [frame.header.plane for frame in frames]
    known = [plane for plane in planes if plane is not None]
    first = min(known, key=_key)  # whichever file was found first
    normal = np.cross(first.across, first.down)
    normal = normal / math.hypot(*normal)
    return known, normal, np.array([plane.position for plane in known]) @ normal


def _key(plane: Plane) -> tuple[tuple[float, ...], ...]:
    return plane.across, plane.down


def _some(words: Sequence[str]) -> str:
    text = ", ".join(words[:TOLD])
    return text if len(words) <= TOLD else f"{text} and {len(words) - TOLD} more"
