"""What is known of an image before its pixels are read, and why one is not taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from petgan.ingest.suv import Attributes


class Refused(Exception):
    """An image that ought to go in and cannot.

    Its one argument is the reason, half a sentence in petgan's own words: it goes into the record, so it
    must not quote the file.
    """

    @property
    def reason(self) -> str:
        return str(self.args[0])


class Skipped(Refused):
    """A file that is no image for a dataset, such as a text."""


@dataclass(frozen=True)
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
    position : float, optional
        Along the normal of the slice, in mm.
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
    position: float | None = None
    suv: Attributes | str | None = None


@dataclass(frozen=True)
class Frame:
    """One image to be taken.

    Parameters
    ----------
    path : Path
    name : str
        Path below the given folder, with ``/``: for the user's terminal and for hashing, nothing else.
    format : str
        A name in `FORMATS`.
    index : int
        Of the image in its file.
    header : Header
    patient : str
        Identity, in clear.
    rank : int
        Of the slice in its series, by position.
    scale : float
        What the values are multiplied by to be in the dataset's units.
    """

    path: Path
    name: str
    format: str
    index: int
    header: Header = field(default_factory=Header)
    patient: str = ""
    rank: int = 0
    scale: float = 1.0

    @property
    def series(self) -> str:
        return self.header.series or self.name
