"""Which decoder reads which DICOM transfer syntax, and what to install where there is none.

Several packages read most of the compressed syntaxes, and differ in what they do with a signed, a 12-bit or
a damaged picture. So the choice is made here, not by what happens to be installed first:

==============================  =============================  ===========================================
transfer syntax                 decoder                        brought by
==============================  =============================  ===========================================
uncompressed, deflated, RLE     pydicom                        petgan
JPEG, 8 bits                    Pillow                         petgan
JPEG, 12 bits; JPEG lossless    GDCM, or else libjpeg          petgan[codecs]; petgan[codecs-gpl]
JPEG-LS                         CharLS, GDCM, or else libjpeg  petgan[codecs]; petgan[codecs-gpl]
JPEG 2000                       OpenJPEG, or else GDCM         petgan[codecs]
JPEG 2000, high throughput      OpenJPEG                       petgan[codecs]
==============================  =============================  ===========================================

Pillow is not asked for JPEG 2000, which versions of it have scaled wrongly. libjpeg (pylibjpeg-libjpeg) is
under the GPL, fills what is missing of a picture with grey, and is never needed.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, BinaryIO, cast

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner

from petgan.ingest.frame import Refused

_LIBJPEG = "pylibjpeg"  # pydicom's name of it where the syntax is JPEG or JPEG-LS
_PILLOW, _DEEP_JPEG = ("pillow",), ("gdcm", _LIBJPEG)
_DECODERS: dict[str, Sequence[str]] = {
    uid.JPEGBaseline8Bit: _PILLOW,
    uid.JPEGExtended12Bit: _DEEP_JPEG,  # Pillow, if it has 8 bits
    uid.JPEGLossless: _DEEP_JPEG,
    uid.JPEGLosslessSV1: _DEEP_JPEG,
    uid.JPEGLSLossless: ("pyjpegls", "gdcm", _LIBJPEG),
    uid.JPEGLSNearLossless: ("pyjpegls", "gdcm", _LIBJPEG),
    uid.JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    uid.JPEG2000: ("pylibjpeg", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
    uid.RLELossless: ("pydicom",),
}
_PACKAGES = {"gdcm": "python-gdcm", "pyjpegls": "pyjpegls", "pylibjpeg": "pylibjpeg-openjpeg"}
_LOSSY_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_JPEG_2000 = (*uid.JPEG2000TransferSyntaxes, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_DAMAGED = "is cut short or damaged"


def check_codec(data: Dataset) -> None:
    """Refuse a file whose pixels cannot be decoded here.

    Parameters
    ----------
    data : Dataset
        With its `file_meta`, BitsStored and PixelRepresentation; no pixels are needed.

    Raises
    ------
    Refused
        With what to install, if that helps.
    """
    syntax = uid.UID(data.file_meta.get("TransferSyntaxUID", ""))
    try:
        get_decoder(syntax)
    except NotImplementedError:
        raise Refused("has a transfer syntax that pydicom does not know") from None
    if syntax in _LOSSY_JPEG and data.get("PixelRepresentation"):
        raise Refused("has signed values in lossy JPEG, which DICOM excludes: they would jump at its ends")
    bits = int(data.get("BitsStored") or 0)
    if syntax in _DECODERS and decoding_plugin(syntax, bits) is None:
        package = _PACKAGES[_ways(syntax, bits)[0]]
        raise Refused(
            f"is compressed with {syntax.name}, which needs {package}: pip install 'petgan[codecs]'"
        )


def decoding_plugin(syntax: str, bits: int) -> str | None:
    """The decoder that reads pictures of so many bits in this compressed syntax, by pydicom's name for it.

    None if no decoder is installed.
    """
    there = get_decoder(syntax).available_plugins
    return next((name for name in _ways(syntax, bits) if name in there), None)


def decode(file: BinaryIO, index: int, options: Mapping[str, Any]) -> np.ndarray:
    """One frame's stored values, by the decoder of choice.

    Parameters
    ----------
    file : binary file
        Standing at the value of the pixels.
    index : int
        Of the frame.
    options : mapping
        As `pydicom.pixels.utils.as_pixel_options` gives them, ``transfer_syntax_uid`` among them.

    Returns
    -------
    ndarray (h, w) of integers, or (h, w, 3)

    Raises
    ------
    Refused
        If the compressed picture is cut short, or not the one that the header tells of.
    MemoryError
        If the decoder gets too little; what else it finds wrong is an Exception of any other kind.
    """
    decoder = get_decoder(options["transfer_syntax_uid"])
    if options["transfer_syntax_uid"] in _JPEG_2000:
        _check_boxes(file, index, options)
    try:
        return decoder.as_array(file, index=index, validate=True, decoding_plugin=_PLUGIN, **options)[0]
    except _Stop as stop:
        raise stop.error from None


def _ways(syntax: str, bits: int) -> Sequence[str]:
    return _PILLOW if syntax == uid.JPEGExtended12Bit and bits == 8 else _DECODERS[syntax]


def _check_boxes(file: BinaryIO, index: int, options: Mapping[str, Any]) -> None:
    """Look for what pydicom 3.0 seeks the codestream behind for ever: a box of a JP2 file without length."""
    start = file.tell()
    offsets, frames = options.get("extended_offsets"), options.get("number_of_frames", 1)
    src = get_frame(file, index, extended_offsets=offsets, number_of_frames=frames)
    file.seek(start)
    at = 0 if src.startswith(b"\x00\x00\x00\x0cjP  ") else len(src)
    while at < len(src) and src[at + 4 : at + 8] != b"jp2c":
        length = int.from_bytes(src[at : at + 4], "big")
        if length < 8:
            raise Refused(_DAMAGED)
        at += length


# --- a decoder for pydicom -------------------------------------------------------------------------------

_PLUGIN = "petgan"
DECODER_DEPENDENCIES = dict.fromkeys(_DECODERS, ("petgan[codecs]",))


def is_available(syntax: str) -> bool:
    """Tell pydicom, which asks this of its plugins, that `_decode_frame` is there."""
    return syntax in _DECODERS


class _Stop(BaseException):
    """Gets an error through pydicom, which makes one RuntimeError of every Exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytes | bytearray:
    try:
        return _decoded(src, runner)
    except (Refused, MemoryError) as error:
        raise _Stop(error) from None


def _decoded(src: bytes, runner: DecodeRunner) -> bytes | bytearray:
    syntax = runner.transfer_syntax
    name = decoding_plugin(syntax, runner.bits_stored)
    if syntax != uid.RLELossless:
        _check_picture(src, runner, size=_size_of_jpeg_2000 if syntax in _JPEG_2000 else _size_of_jpeg)
    if name == _LIBJPEG and syntax not in _JPEG_2000 and not src.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise Refused(_DAMAGED)
    if name == "gdcm" and syntax == uid.JPEGExtended12Bit:
        return _jpeg_of_12_bits(src, runner)
    decoder = import_module(f"pydicom.pixels.decoders.{'rle' if name == 'pydicom' else name}")
    with _stderr_closed():
        return cast(bytes, decoder._decode_frame(src, runner))


def _check_picture(src: bytes, runner: DecodeRunner, size: Callable[[bytes], tuple[int, int, int]]) -> None:
    """Compare what a decoder would make room for with what the header has been found good for."""
    try:
        found = size(src)
    except (IndexError, struct.error):
        raise Refused(_DAMAGED) from None
    if found != (runner.rows, runner.columns, runner.samples_per_pixel):
        raise Refused("contradicts itself: its compressed picture has another size than its header says")


def _size_of_jpeg(src: bytes) -> tuple[int, int, int]:
    """Height, width and components by the frame header (ISO/IEC 10918-1 B.2.2, 14495-1 C.2.2)."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", src, at)
        if (0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC)) or marker == 0xFFF7:
            height, width, components = struct.unpack_from(">HHB", src, at + 5)
            return height, width, components
        if marker == 0xFFFF:  # fill bytes
            at += 1
        elif marker < 0xFFC0 or length < 2:
            raise IndexError
        else:
            at += 2 + length


def _size_of_jpeg_2000(src: bytes) -> tuple[int, int, int]:
    """Height, width and components by the SIZ marker (ISO/IEC 15444-1 A.5.1)."""
    at = src.find(b"\xff\x4f\xff\x51")  # behind the boxes of a JP2 file, if it is one
    if at < 0:
        raise IndexError
    right, bottom, left, top = struct.unpack_from(">IIII", src, at + 8)
    (components,) = struct.unpack_from(">H", src, at + 40)
    return bottom - top, right - left, components


def _jpeg_of_12_bits(src: bytes, runner: DecodeRunner) -> bytes:
    """By GDCM, of which pydicom does not know that it can."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(src)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(uid.JPEGExtended12Bit))))
    bits = runner.bits_stored
    image.SetPixelFormat(gdcm.PixelFormat(1, runner.bits_allocated, bits, bits - 1, 0))
    with _stderr_closed():
        pixels = image.GetBuffer()
    if pixels is None:
        raise Refused(_DAMAGED)
    return cast(bytes, pixels.encode("utf-8", "surrogateescape"))


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Native decoders print what they think; it is nobody's business, and would stand in a progress bar."""
    sys.stderr.flush()
    kept, silence = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(silence, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silence)


for _syntax in _DECODERS:
    if _PLUGIN not in get_decoder(_syntax).available_plugins:
        get_decoder(_syntax).add_plugin(_PLUGIN, (__name__, "_decode_frame"))
