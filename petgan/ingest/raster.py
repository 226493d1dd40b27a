"""Pictures as Pillow and NumPy read them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from petgan.ingest.frame import Header, Refused

PILLOW_FORMATS = ("GIF", "PNG", "JPEG", "PPM")  # whatever a file's suffix says
MAX_PIXELS = 89_478_485  # Pillow's limit against decompression bombs
BYTE, WORD = (0.0, 255.0), (0.0, 65535.0)


def scan_picture(path: Path) -> list[Header]:
    with _opened(path) as image:
        return [Header(span=WORD if _is_deep(image) else BYTE, pixels=image.width * image.height)]


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
        colours = np.asarray(image.convert("RGB"))
        if (colours == colours[..., :1]).all():
            return colours[..., 0].astype(np.float32)
        return np.asarray(image.convert("RGB").convert("L"), np.float32)


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
    if not np.isfinite(values).all():
        raise Refused("holds values that are not finite numbers")
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
