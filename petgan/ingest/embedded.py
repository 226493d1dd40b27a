"""Texts that stand in picture files beside the pixels: comments, EXIF, XMP, and the .ics files of DDSM."""

from __future__ import annotations

import contextlib
import mmap
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from PIL.ExifTags import IFD

from petgan.ingest.mute import mute

LONGEST = 2**20  # bytes of a compressed text, unpacked

Text = tuple[str, bytes]  # what it is, in petgan's words; the text
Buffer = bytes | mmap.mmap

# Keys of an .ics file that describe films and digitizer, and no person.
_TECHNICAL = re.compile(
    r"ICS_VERSION|FILM|FILM_TYPE|DENSITY|DIGITIZER|SELECTED|SEQUENCE|(LEFT|RIGHT)_(CC|MLO)", re.IGNORECASE
)
_PERSONAL = ("FILENAME", "DATE_OF_STUDY", "DATE_DIGITIZED", "PATIENT_AGE")  # its other keys
_WIDE_TAGS = range(0x9C9B, 0x9CA0)  # XPTitle to XPSubject
_LETTER = rb"(?:[\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2})"
_RUN = re.compile(_LETTER + rb"{4,}")
_WIDE_RUN = re.compile(rb"(?:[\x20-\x7e]\0){4,}")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Buffer]:
    """The bytes of a file, without reading them all."""
    with open(path, "rb") as file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def texts(data: Buffer) -> list[Text]:
    """Texts of a PNG, GIF, JPEG or PGM file; none of any other. Damaged files give what can be read."""
    head = data[:8]
    found: list[Text] = []
    for magic, walk in (
        (b"\x89PNG\r\n\x1a\n", _png), (b"GIF8", _gif), (b"\xff\xd8", _jpeg), (b"P2", _pgm), (b"P5", _pgm),
    ):  # fmt: skip
        if head.startswith(magic):
            with contextlib.suppress(IndexError, ValueError, zlib.error):
                for text in walk(data):
                    found.append(text)
    return [(kind, piece) for kind, text in found for piece in _pieces(text)]


def ics_texts(data: bytes) -> list[Text]:
    """Values of an .ics file that may say whom it is of: all but those of films and digitizer.

    A line without a key of DDSM's is a value itself, and so is what follows its first word.
    """
    found = []
    for line in data.decode("latin-1").splitlines():
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if _TECHNICAL.fullmatch(key):
            continue
        kind = key.upper() if key.upper() in _PERSONAL else "line"
        if kind == "line":
            found.append((".ics line", line.strip().encode()))
        found.append((f".ics {kind}", value.encode()))
        if date := re.fullmatch(r"(\d{1,2})[ /.-](\d{1,2})[ /.-](\d{4})", value):
            day, month, year = map(int, date.groups())
            for form in (f"{year:04}{month:02}{day:02}", f"{year:04}-{month:02}-{day:02}"):
                found.append((f".ics {kind}", form.encode()))
    return found


def pixel_ranges(data: Buffer) -> list[tuple[int, int]]:
    """Where the compressed pixels of a PNG file stand."""
    return [(start, stop) for kind, start, stop in _chunks(data) if kind == b"IDAT"]


def runs(data: bytes) -> list[bytes]:
    """Runs of printable characters, UTF-8 or UTF-16."""
    wide = (run.decode("utf-16-le").encode() for run in _WIDE_RUN.findall(data))
    return [*_RUN.findall(data), *wide]


def _pieces(text: bytes) -> list[bytes]:
    """A text, its lines, and what stands between the tags of XML."""
    parts = [text, *text.splitlines()]
    if b"<" in text:
        parts += [a or b for a, b in re.findall(rb">([^<>]+)<|=[\"']([^\"'<>]+)[\"']", text)]
    return [part for part in dict.fromkeys(part.strip(b"\0 \r\n\t") for part in parts) if part]


def _chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    at = 8
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return
    while at + 8 <= len(data):
        start = at + 8
        stop = start + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : start], start, min(stop, len(data))
        at = stop + 4


def _png(data: Buffer) -> Iterator[Text]:
    for kind, start, stop in _chunks(data):
        if kind == b"eXIf":
            yield from _exif(data[start:stop])
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        name = f"PNG {kind.decode()}"
        keyword, _, rest = data[start:stop].partition(b"\0")
        yield name, keyword
        if kind == b"tEXt":
            yield name, rest.decode("latin-1").encode()
        elif kind == b"zTXt":
            yield name, _unpacked(rest[1:]).decode("latin-1").encode()
        else:
            language, _, rest_of_it = rest[2:].partition(b"\0")
            translated, _, text = rest_of_it.partition(b"\0")
            yield name, language
            yield name, translated
            yield name, _unpacked(text) if rest[:1] == b"\1" else text


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, LONGEST)
    except zlib.error:
        return b""


def _gif(data: Buffer) -> Iterator[Text]:
    at = 13 + _colours(data[10])
    while at < len(data) and data[at] != 0x3B:
        if data[at] == 0x2C:
            at += 11 + _colours(data[at + 9])  # descriptor, its colours and the size of a code
            at, _ = _blocks(data, at)
            continue
        label = data[at + 1]
        at, content = _blocks(data, at + 2)
        if label == 0xFE:
            yield "GIF comment", content
        elif label in (0x01, 0xFF):
            for run in runs(content):
                yield "GIF extension", run


def _colours(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks(data: Buffer, at: int) -> tuple[int, bytes]:
    parts = []
    while length := data[at]:
        parts.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    return at + 1, b"".join(parts)


def _jpeg(data: Buffer) -> Iterator[Text]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # up to the start of the scan
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        if marker == 0xFE:
            yield "JPEG comment", content
        elif 0xE1 <= marker <= 0xEF and marker not in (0xE2, 0xEE):  # without colour profiles
            yield from _exif(content)
        at += 2 + length


def _exif(data: bytes) -> Iterator[Text]:
    for run in runs(data):
        yield "EXIF", run
    exif = Image.Exif()
    with contextlib.suppress(Exception), mute():  # whatever it is that is damaged
        exif.load(data)
        for part in (exif, *(exif.get_ifd(kind) for kind in (IFD.Exif, IFD.GPSInfo, IFD.Interop))):
            for tag, value in part.items():
                if isinstance(value, bytes) and tag in _WIDE_TAGS:
                    yield "EXIF", value.decode("utf-16-le", "replace").encode()
                elif isinstance(value, str):
                    yield "EXIF", value.encode("utf-8", "surrogateescape")


def _pgm(data: Buffer) -> Iterator[Text]:
    for line in re.findall(rb"(?m)^#([^\r\n]*)", data[:4096]):
        yield "PGM comment", line
