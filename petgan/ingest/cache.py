"""What an ingest has made already, so that a second run reads only what is new, and a killed one goes on.

A cache is a folder of segments, files of records that are only ever appended to:

======  ==================================================================================================
bytes   of a record
======  ==================================================================================================
4       length of the payload, little-endian
32      key
16      BLAKE2b of the length, the key and the payload
4       CRC-32 of the three
n       payload
======  ==================================================================================================

A segment ends before the first record that is cut short or has another CRC; a payload that does not match
its digest counts as not there. Nothing is unpickled. Keys and offsets stay in memory, payloads do not.

Who writes
----------
Every run writes a segment of its own, with a name of its own, and changes no other: there are no locks,
and NFS needs none. Two runs at once do not see each other's records; nothing is damaged, some work is done
twice. A run that was killed leaves a segment that the next one reads, but for its torn end.

What goes
---------
When a run has ended well, records that it did not ask for are dropped: a segment with such records is
copied without them, then deleted; so are all when there are more than 16. One that another run has
appended to meanwhile stays.

The folder is for its owner alone (mode 0700, files 0600): payloads are images. When the disk is full or
cannot be written, the run goes on without the cache, after one warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from petgan.ingest.frame import Made

KEY_BYTES = 32
MOST_SEGMENTS = 16

_HEADER = struct.Struct("<I32s16sI")
_MADE = struct.Struct("<BBIIQH")  # version, dtype and text, height, width, fingerprint, quantiles
_LENGTH = struct.Struct("<I")
_MADE_VERSION = 1
_DTYPES = ("uint8", "uint16", "float32")

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Segment:
    path: Path
    file: io.FileIO
    end: int = 0  # of what was read at the opening, and of what was appended since
    size: int = 0  # of the file at the opening
    keys: set[bytes] = field(default_factory=set)


@dataclass(frozen=True)
class _Place:
    segment: _Segment
    offset: int
    length: int


class Cache:
    """Payloads by key; for one process.

    As a context, it drops what was not used if the work within ends well, and keeps all if it does not.

    Parameters
    ----------
    path : path
        The folder; made when something is put in.
    """

    def __init__(self, path: Path | str) -> None:
        self._folder = Path(path)
        self._segments: list[_Segment] = []
        self._own: _Segment | None = None
        self._places: dict[bytes, _Place] = {}
        self._used: set[bytes] = set()
        self._writes = True
        for name in sorted(self._folder.glob("*.records")):
            self._open(name)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(drop_unused=kind is None)

    def get(self, key: bytes) -> bytes | None:
        """The payload, or None if there is none that is whole."""
        place = self._places.get(key)
        payload = self._read(key, place) if place else None
        if payload is not None:
            self._used.add(key)
        return payload

    def put(self, key: bytes, payload: bytes) -> None:
        """Keep a payload; of several under one key the last counts."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._used.add(key)
        with self._without_cache_on_failure():
            self._append(key, payload)

    def close(self, *, drop_unused: bool = True) -> None:
        """Close the files, having dropped what was neither asked for nor put."""
        if drop_unused:
            with self._without_cache_on_failure():
                self._compact()
        for segment in self._segments:
            with contextlib.suppress(OSError):
                segment.file.close()
        self._segments, self._places, self._own, self._writes = [], {}, None, False

    def _open(self, path: Path) -> None:
        try:
            file = io.FileIO(path, "r")
        except OSError:
            return  # another run has dropped it, or it is another user's
        segment = _Segment(path, file)
        self._segments.append(segment)
        with contextlib.suppress(OSError):
            segment.size = os.fstat(file.fileno()).st_size
            while segment.end + _HEADER.size <= segment.size:
                header = os.pread(file.fileno(), _HEADER.size, segment.end)
                length, key, _, check = _HEADER.unpack(header)
                after = segment.end + _HEADER.size + length
                if check != zlib.crc32(header[:-4]) or after > segment.size:
                    break
                self._note(key, _Place(segment, segment.end, length))
                segment.end = after

    def _note(self, key: bytes, place: _Place) -> None:
        before = self._places.get(key)
        if before:
            before.segment.keys.discard(key)
        self._places[key] = place
        place.segment.keys.add(key)

    def _read(self, key: bytes, place: _Place) -> bytes | None:
        size = _HEADER.size + place.length
        try:
            record = os.pread(place.segment.file.fileno(), size, place.offset)
        except OSError:
            return None
        if len(record) != size:
            return None
        payload = record[_HEADER.size :]
        return payload if record[: _HEADER.size] == _header(key, payload) else None

    def _append(self, key: bytes, payload: bytes) -> None:
        if not self._writes:
            return
        if self._own is None:
            self._own = self._new_segment()
            self._segments.append(self._own)
        record = memoryview(_header(key, payload) + payload)
        offset = self._own.end
        while record:
            record = record[self._own.file.write(record) :]
        self._own.end = self._own.size = offset + _HEADER.size + len(payload)
        self._note(key, _Place(self._own, offset, len(payload)))

    def _new_segment(self) -> _Segment:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{secrets.token_hex(8)}.records"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        return _Segment(path, io.FileIO(handle, "r+"))

    def _compact(self) -> None:
        unused = self._places.keys() - self._used
        many = len(self._segments) > MOST_SEGMENTS
        going = [s for s in self._segments if s is not self._own and (many or s.keys & unused or not s.keys)]
        for segment in going:
            for key in sorted(segment.keys & self._used):
                payload = self._read(key, self._places[key])
                if payload is not None:
                    self._append(key, payload)
        if self._own:
            os.fsync(self._own.file.fileno())
        if self._writes:
            for segment in going:
                if os.fstat(segment.file.fileno()).st_size == segment.size:
                    segment.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _without_cache_on_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._writes:
                logger.warning(
                    "cannot write the cache %s: %s; going on without it", self._folder, error.strerror
                )
            self._writes = False


def pack_made(made: Made) -> bytes:
    """A made image as bytes, for a cache of the same version of petgan."""
    pixels, quantiles = np.ascontiguousarray(made.pixels), np.asarray(made.quantiles, "<f4")
    kind = 2 * _DTYPES.index(pixels.dtype.name) + made.text
    header = _MADE.pack(_MADE_VERSION, kind, *pixels.shape, made.fingerprint, len(quantiles))
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return header + quantiles.tobytes() + little.tobytes()


def unpack_made(payload: bytes) -> Made:
    """The reverse of `pack_made`.

    Raises
    ------
    ValueError
        If the bytes are not those of a made image, or of another version.
    """
    if len(payload) < _MADE.size or payload[0] != _MADE_VERSION or payload[1] >= 2 * len(_DTYPES):
        raise ValueError("no made image of this version")
    _, kind, height, width, mark, count = _MADE.unpack_from(payload)
    dtype = np.dtype(_DTYPES[kind // 2]).newbyteorder("<")
    start = _MADE.size + 4 * count
    if len(payload) != start + height * width * dtype.itemsize:
        raise ValueError("no made image: its length is another")
    quantiles = np.frombuffer(payload, "<f4", count, _MADE.size).astype(np.float32)
    pixels = np.frombuffer(payload, dtype, height * width, start).reshape(height, width)
    return Made(pixels.astype(dtype.newbyteorder("=")), quantiles, mark, bool(kind % 2))


def pack_all(made: Sequence[Made]) -> bytes:
    """Several images as bytes."""
    packed = [pack_made(one) for one in made]
    return b"".join(part for one in packed for part in (_LENGTH.pack(len(one)), one))


def unpack_all(payload: bytes) -> list[Made]:
    """What `pack_all` made bytes of; raises as `unpack_made`."""
    made, at = [], 0
    while at < len(payload):
        (length,) = _LENGTH.unpack_from(payload, at)
        at += _LENGTH.size
        made.append(unpack_made(payload[at : at + length]))
        at += length
    return made


def _header(key: bytes, payload: bytes) -> bytes:
    length = struct.pack("<I", len(payload))
    digest = hashlib.blake2b(length + key + payload, digest_size=16).digest()
    begin = length + key + digest
    return begin + struct.pack("<I", zlib.crc32(begin))
