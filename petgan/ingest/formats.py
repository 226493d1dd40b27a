"""The input formats. A new one is a function that reads a file, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from petgan.ingest import ddsm, dicom, raster
from petgan.ingest.frame import Header
from petgan.registry import Registry


def one_picture(path: Path) -> list[Header]:
    """Headers of a file that holds one picture and says nothing about it."""
    return [Header()]


@dataclass(frozen=True)
class Format:
    """How files of one kind are read.

    Parameters
    ----------
    suffixes : tuple of str
        Endings of file names, in lower case, with the dot.
    read : callable (Path, int) -> ndarray (h, w) float32
        Pixels of the image with this index in the file. May raise anything: the file is refused.
    scan : callable (Path) -> list of Header
        What the images of the file are, without reading pixels.
    magic : (int, bytes), optional
        What stands where in files of this kind, to know them without a suffix.
    beside : callable (Path) -> list of Path
        Other files that say what the file holds: when one of them changes, it is read again.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path, int], np.ndarray]
    scan: Callable[[Path], list[Header]] = one_picture
    magic: tuple[int, bytes] | None = None
    beside: Callable[[Path], list[Path]] = lambda path: []


FORMATS: Registry[Format] = Registry("input format")
FORMATS.add("dicom", Format((".dcm", ".dicom", ".ima"), dicom.read, dicom.scan, (128, b"DICM")))
FORMATS.add("gif", Format((".gif",), raster.read_picture, raster.scan_picture))
FORMATS.add("png", Format((".png",), raster.read_picture, raster.scan_picture))
FORMATS.add("jpeg", Format((".jpg", ".jpeg"), raster.read_picture, raster.scan_picture))
FORMATS.add("pgm", Format((".pgm",), raster.read_pgm, raster.scan_pgm))
FORMATS.add("ddsm", Format((".ljpeg.1", ".ljpeg", ".raw"), ddsm.read, ddsm.scan, beside=ddsm.beside))
FORMATS.add("npy", Format((".npy",), raster.read_array, raster.scan_array))


def format_of(path: Path) -> str | None:
    """Name of a file's format, by the ending of its name or else by its content; None if it is no image.

    Raises
    ------
    OSError
        If its name does not say, and it cannot be opened.
    """
    by_name = _by_suffix(path)
    if by_name is not None:
        return by_name
    for name in FORMATS:
        magic = FORMATS[name].magic
        if magic is not None and _holds(path, *magic):
            return name
    return None


def beside(path: Path) -> list[Path]:
    """Other files that say what a file holds, by the ending of its name."""
    name = _by_suffix(path)
    return [] if name is None else FORMATS[name].beside(path)


def _by_suffix(path: Path) -> str | None:
    file_name = path.name.lower()
    return next((name for name in FORMATS if file_name.endswith(FORMATS[name].suffixes)), None)


def _holds(path: Path, offset: int, magic: bytes) -> bool:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(len(magic)) == magic
