"""What is known of an image before its pixels are read, and why one is not taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from petgan.ingest.suv import Attributes


class Refused(Exception):
    """An image that ought to go in and cannot.

    Its first argument is the reason, half a sentence in petgan's own words: it goes into the record, so it
    must not quote the file. The second, of a file of PET, names the slice that is lost with it, by
    SeriesInstanceUID and SOPInstanceUID.
    """

    @property
    def reason(self) -> str:
        return str(self.args[0])

    @property
    def lost_slice(self) -> tuple[str, str] | None:
        return self.args[1] if len(self.args) > 1 else None


class Skipped(Refused):
    """A file that is no image for a dataset, such as a text."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a slice lies in the patient: DICOM's coordinates (left, posterior, superior), mm.

    Parameters
    ----------
    position : (float, float, float)
        Centre of the first pixel (ImagePositionPatient).
    across, down : (float, float, float)
        Unit vectors along a row, to the next column, and along a column, to the next row
        (ImageOrientationPatient).
    """

    position: tuple[float, float, float]
    across: tuple[float, float, float]
    down: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of one of its images. Identity in it stays in memory.

    Parameters
    ----------
    span : (float, float), optional
        Smallest and largest value that the stored type can hold, in `units`; None where the type says
        nothing about the picture, as for floats and PET.
    pixels : int
        Their number.
    modality : str, optional
        ``pet`` or ``mammogram``; None if the file does not say.
    units : str
        Of the values; ``stored`` if the file does not say.
    view : str, optional
        For the dataset's column; None means the modality's usual one.
    patient : str, optional
        As the file names her; empty if it ought to and does not, None if files of its kind do not.
    series : str, optional
        What the image is a slice of; None means nothing but the file itself.
    instance : str, optional
        A unique name of the image.
    plane : Plane, optional
        Of a slice of a volume; None of anything else, a projection among it.
    slices : int
        How many the volume has, by the file; 0 if it does not say.
    spacing : (float, float), optional
        Between rows and between columns, in mm; None if the file does not say.
    collection : str
        Where pictures of this kind come from, out of a closed list; see `petgan.ingest.collections`.
    kind : str, optional
        Of a mammogram: ``presentation`` or ``processing``; None if the file does not say.
    quarantine : str, optional
        Why a person has to look before it goes in; None if nothing speaks against it.
    suv : petgan.ingest.suv.Attributes or str, optional
        Of PET by DICOM: what turns its values into SUV, or why that cannot be read.
    """

    span: tuple[float, float] | None = None
    pixels: int = 0
    modality: str | None = None
    units: str = "stored"
    view: str | None = None
    patient: str | None = None
    series: str | None = None
    instance: str | None = None
    plane: Plane | None = None
    slices: int = 0
    spacing: tuple[float, float] | None = None
    collection: str = "other"
    kind: str | None = None
    quarantine: str | None = None
    suv: Attributes | str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One image to be taken. But for the path, which leads to it, nothing in it tells whose it is.

    Parameters
    ----------
    path : Path
    id : str
        Keyed hash of the file's name below the given folder, 16 hexadecimal digits: how messages and
        records call the file.
    stamp : str
        Keyed hash of name, size and times of change: another stamp, another content.
    format : str
        A name in `FORMATS`.
    index : int
        Of the image in its file.
    header : Header
        With keyed hashes in the place of patient, series and instance.
    patient : str
        Keyed hash, 16 hexadecimal digits.
    scale : float
        What the values are multiplied by to be in the dataset's units.
    rule : str
        The way that led to SUV, or DecayCorrection of what is in Bq/ml; empty where there is none.
    """

    path: Path
    id: str
    stamp: str
    format: str
    index: int
    header: Header = field(default_factory=Header)
    patient: str = ""
    scale: float = 1.0
    rule: str = ""

    @property
    def series(self) -> str:
        return self.header.series or self.id


@dataclass(frozen=True)
class Picture:
    """What becomes one image of the dataset: a frame, or a projection of all frames of a volume.

    Parameters
    ----------
    frames : tuple of Frame
        In the order of their positions.
    view : str
        For the dataset's column.
    rank : int
        Among the pictures of its series.
    """

    frames: tuple[Frame, ...]
    view: str
    rank: int = 0


#: Dense at the upper end: a lesion is a few pixels.
QUANTILES = (*(k / 64 for k in range(64)), 0.995, 0.999, 0.9999, 1.0)


@dataclass(frozen=True)
class Made:
    """An image that has been made, and what is worth knowing of it.

    Parameters
    ----------
    pixels : ndarray (size, size)
        In the dataset's dtype.
    quantiles : ndarray (68,) float32
        Of the values before the window, in the dataset's units, at the shares of `QUANTILES`.
    fingerprint : int
        Perceptual hash, 64 bits; see `petgan.ingest.duplicates`.
    text : bool
        Whether a person ought to look for writing on it.
    """

    pixels: np.ndarray
    quantiles: np.ndarray
    fingerprint: int
    text: bool = False
