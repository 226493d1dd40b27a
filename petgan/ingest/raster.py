"""Pictures as Pillow and NumPy read them, and PGM, whose values Pillow would stretch to 8 or 16 bits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from petgan.ingest.frame import Header, Refused

PILLOW_FORMATS = ("GIF", "PNG", "JPEG", "PPM")  # whatever a file's suffix says
MAX_PIXELS = 89_478_485  # Pillow's limit against decompression bombs
BYTE, WORD = (0.0, 255.0), (0.0, 65535.0)

_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
_PGM = re.compile(rb"(P[25])" + _GAP + rb"(\d{1,7})" + _GAP + rb"(\d{1,7})" + _GAP + rb"(\d{1,7})\s")
_PGM_HEADER = 4096  # bytes, comments among them
_PGM_DIGITS = 8  # bytes a value of a plain PGM may take with what is between them


def scan_picture(path: Path) -> list[Header]:
    with _opened(path) as image:
        span = None if image.mode == "F" else WORD if _is_deep(image) else BYTE
        return [Header(span=span, pixels=image.width * image.height)]


def read_picture(path: Path, index: int = 0) -> np.ndarray:
    """First frame of a GIF, PNG, JPEG or PGM file as grey values.

    Returns
    -------
    ndarray (h, w) float32
        0 to 255, or 0 to 65535 where the file has 16 bits. Colours become luma (Rec. 601).
    """
    with _opened(path) as image:
        if _is_deep(image):
            return np.asarray(image, np.float32)
        if image.mode == "L":
            return np.asarray(image, np.float32)
        colours = np.asarray(image.convert("RGB"))
        if (colours == colours[..., :1]).all():
            return colours[..., 0].astype(np.float32)
        return np.asarray(image.convert("RGB").convert("L"), np.float32)


def scan_pgm(path: Path) -> list[Header]:
    header = _pgm_header(path)
    if header is None:
        return scan_picture(path)
    return [Header(span=(0.0, float(header.top)), pixels=header.width * header.height)]


def read_pgm(path: Path, index: int = 0) -> np.ndarray:
    """A PGM file, plain (P2) or raw (P5), of 8 or 16 bits: (h, w) float32, values as stored."""
    header = _pgm_header(path)
    if header is None:
        return read_picture(path, index)
    pixels = header.width * header.height
    with open(path, "rb") as file:
        file.seek(header.start)
        if header.plain:
            values = _plain_numbers(file.read(_PGM_DIGITS * pixels))
        else:
            values = np.fromfile(file, ">u2" if header.top > 255 else np.uint8, pixels)
    if values.size < pixels:
        raise Refused("is cut short: it has fewer values than it says")
    values = values[:pixels].reshape(header.height, header.width).astype(np.float32)
    if not (values.min() >= 0 and values.max() <= header.top):
        raise Refused("has values beyond the largest that it says")
    return values


def scan_array(path: Path) -> list[Header]:
    dtype, (height, width) = _array_header(path)
    span = None
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        span = (float(limits.min), float(limits.max))
    return [Header(span=span, pixels=height * width)]


def read_array(path: Path, index: int = 0) -> np.ndarray:
    """A 2-D array of a .npy file: (h, w) float32."""
    _, shape = _array_header(path)
    values = np.load(path, allow_pickle=False).reshape(shape).astype(np.float32)
    return values


def check_size(width: int, height: int) -> None:
    """Refuse pictures without pixels, and such as would fill the memory."""
    if not width * height:
        raise Refused("has no pixels")
    if width * height > MAX_PIXELS:
        raise Refused(f"is too large: more than {MAX_PIXELS // 1_000_000} million pixels")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(path, formats=PILLOW_FORMATS)
    with image:
        check_size(image.width, image.height)
        if image.tile and "16B" in str(image.tile[0].args) and not _is_deep(image):
            raise Refused("has colours or transparency of 16 bits; save it as 16-bit grey")
        yield image


@dataclass(frozen=True)
class _PgmHeader:
    plain: bool
    width: int
    height: int
    top: int
    start: int


def _pgm_header(path: Path) -> _PgmHeader | None:
    """None if it is no PGM, whatever its name says."""
    with open(path, "rb") as file:
        match = _PGM.match(file.read(_PGM_HEADER))
    if match is None:
        return None
    width, height, top = (int(match[k]) for k in (2, 3, 4))
    check_size(width, height)
    if not 0 < top <= 65535:
        raise Refused("has a largest value that no PGM can have")
    return _PgmHeader(match[1] == b"P2", width, height, top, match.end())


def _plain_numbers(text: bytes) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older NumPy warns, and gives what it could read
            return np.fromstring(text.decode("ascii"), np.float32, sep=" ")
    except ValueError:
        raise Refused("holds something other than numbers") from None


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _array_header(path: Path) -> tuple[np.dtype, tuple[int, int]]:
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    if dtype.kind not in "buif":
        raise Refused("is no array of real numbers (objects are never unpickled)")
    if len(shape) == 3 and shape[2] == 1:
        shape = shape[:2]
    if len(shape) != 2:
        raise Refused(f"is an array of {len(shape)} dimensions; one picture (height, width) a file is read")
    check_size(shape[1], shape[0])
    return dtype, (shape[0], shape[1])
