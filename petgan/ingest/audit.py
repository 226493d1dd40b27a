"""Look for the identities of a source folder in what petgan wrote, or in anything else.

What identifies
---------------
DICOM       values of every attribute that the Basic Profile takes out, private ones and those of the file's
            meta information among them, at any depth; persons' names also by their parts
names       of files and of folders below the given one, whole paths, and names without suffix
texts       of .ics files, and those that PNG, GIF, JPEG and PGM files hold beside their pixels

Pixels are not read: what is burned into them is a matter of the quarantine. Of other files only the names
count. The given folder's own name does not: its user chose it.

In which forms
--------------
As UTF-8, Latin-1 and UTF-16, in upper and lower case; and as MD5, SHA-1 and SHA-256 without a key, in
hexadecimal (whole, or the first 16 digits or more) and as bytes.

What is too short
-----------------
Anywhere in a file are searched values of `TEXT` characters and more, numbers and dates of `NUMBER` and more;
values that could be part of a number or of a hexadecimal hash only where they stand by themselves. Among
pixels and base64, where anything short occurs by chance, `DENSE_TEXT` and `DENSE_NUMBER` are the least.
Values of `WHOLE` characters and more count where a whole string (of HDF5, JSON, CSV or a picture's texts)
equals them. What is shorter still is looked for by its hashes, and not at all if it is a word that stands in
everybody's files (`petgan.ingest.identities.VOCABULARY`).
"""

from __future__ import annotations

import base64
import contextlib
import csv
import errno
import gzip
import hashlib
import html
import io
import json
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import IO, Any

import h5py

from petgan.errors import InputError
from petgan.ingest import embedded
from petgan.ingest.frame import Refused
from petgan.ingest.identities import file_identities, name_identities
from petgan.ingest.needles import LONGEST, Needles, anchor
from petgan.ingest.parallel import OrderedMap
from petgan.ingest.scan import find_files

TEXT, NUMBER, WHOLE = 6, 8, 4  # characters
DENSE_TEXT, DENSE_NUMBER = 10, 14
HASH_BYTES = 8  # of a hash that are enough to know it, 16 hexadecimal digits
BLOCK = 2**20
STRUCTURED = 2**28  # bytes of a text file that is taken apart; a larger one is searched as it is

NAME = "its name"  # a place
_NO_PROOF = "without it there is no proof; leave it out or mend it"

Show = Callable[[int, int], None]

_NUMBER = re.compile(rb"[0-9.,:+\- ]+")
_HEXADECIMAL = re.compile(rb"[0-9a-f]{1,15}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{256,}={0,2}")
_UID = re.compile(rb"[0-9]+(\.[0-9]+)+")
# What h5py, zipfile, gzip and the system raise over files that are cut short.
_DAMAGED = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, EOFError, MemoryError, struct.error,
    zlib.error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip
#: Endings of names that a message may quote: any other might be a part of a patient's name.
_ENDINGS = (
    ".csv", ".gz", ".h5", ".hdf5", ".html", ".jpg", ".json", ".jsonl", ".keras", ".npy", ".npz", ".old",
    ".png", ".tar", ".txt", ".yaml", ".zip",
)  # fmt: skip
_MANY = 32  # forms of one identity, at most


@dataclass(frozen=True)
class Finding:
    """An identity in a file. It says what kind it is of, never which it is.

    Parameters
    ----------
    file : Path
    offset : int, optional
        Of the first place, in bytes; None inside of what is packed or escaped, and in the file's name.
    place : str
        What it stands in.
    kind : str
        What identifies: an attribute by keyword and tag, a file's name, and so on.
    form : str
        As what it stands there: text, or which hash.
    number : int
        Of the identity, among all in the order of their bytes.
    """

    file: Path
    offset: int | None
    place: str
    kind: str
    form: str
    number: int

    def __str__(self) -> str:
        where = self.place if self.offset is None else f"{self.place} at byte {self.offset}"
        return f"{where}: {self.kind} as {self.form} (identity {self.number})"


@dataclass(frozen=True)
class Identities:
    """What identifies, out of some folders.

    Parameters
    ----------
    kinds : dict of bytes to str
        What each identity is, by its value (UTF-8, or as the file has it).
    files : int
        Read.
    damaged : int
        Of them, those of which not everything could be read: what else identifies in them is not known, so
        that no search proves anything.
    """

    kinds: Mapping[bytes, str]
    files: int = 0
    damaged: int = 0

    def __len__(self) -> int:
        return len(self.kinds)

    @cached_property
    def values(self) -> list[bytes]:
        """All of them, in the order of their numbers."""
        return sorted(self.kinds)

    @cached_property
    def anywhere(self) -> Needles:
        return Needles(self._needles(TEXT, NUMBER), self.form)

    @cached_property
    def dense(self) -> Needles:
        return Needles(self._needles(DENSE_TEXT, DENSE_NUMBER), self.form)

    @cached_property
    def whole(self) -> dict[bytes, int]:
        """Numbers of the values that count as whole strings only."""
        return {
            value: number
            for number, value in enumerate(self.values)
            if len(value) >= WHOLE and len(set(value)) > 1 and not _is_long(value, TEXT, NUMBER)
        }

    def form(self, number: int) -> bytes:
        """One form of one identity."""
        return _forms(self.values[number // _MANY])[number % _MANY][1]

    def form_name(self, number: int) -> str:
        return _forms(self.values[number // _MANY])[number % _MANY][0]

    def _needles(self, text: int, number: int) -> Iterator[tuple[int, bytes]]:
        for index, value in enumerate(self.values):
            is_long = _is_long(value, text, number)
            for form, (name, needle) in enumerate(_forms(value)):
                if is_long or name not in _TEXTS:
                    yield index * _MANY + form, needle


def identities(
    sources: Sequence[Path | str],
    run_all: OrderedMap = map,
    show: Show = lambda done, total: None,
) -> Identities:
    """Collect everything that identifies, out of all files below some folders.

    Parameters
    ----------
    sources : sequence of path
    run_all : callable
        The `map` to work with; see `petgan.ingest.parallel`.
    show : callable
        Is told the files done and their total.

    Raises
    ------
    InputError
        If a folder is missing, or nothing in it identifies.
    """
    files = find_files(sources)
    kinds: dict[bytes, str] = {}
    damaged = 0
    outcomes = zip(files, run_all(file_identities, files), strict=True)
    for done, ((_, name), outcome) in enumerate(outcomes, 1):
        show(done, len(files))
        # A file that broke its reader has a name all the same.
        found, complete = (name_identities(name), False) if isinstance(outcome, Refused) else outcome
        damaged += not complete
        for kind, value in found:
            kinds.setdefault(value, kind)
    if not kinds:
        raise InputError(f"there is nothing that identifies in {', '.join(map(str, sources))}")
    return Identities(kinds, len(files), damaged)


def files_below(paths: Sequence[Path | str], sources: Sequence[Path | str] = ()) -> list[tuple[Path, str]]:
    """All that lies in some folders, hidden or not, with its name below these; nothing that lies in a source.

    That is files, links wherever they lead, folders with nothing in them, and whatever else has a name. Links
    to folders are not followed.

    Raises
    ------
    InputError
        If a path is missing, a folder cannot be looked into, or there is nothing.
    """
    not_there = {Path(os.path.realpath(source)) for source in sources}
    found: dict[Path, str] = {}

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot look into a folder below {path}: {error.strerror}", hint=_NO_PROOF)

    for path in map(Path, paths):
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"there is no file or folder {path}") from None
        except OSError as error:
            raise InputError(f"cannot look at {path}: {error.strerror}", hint=_NO_PROOF) from None
        if not is_folder:
            found[path] = path.name
            continue
        for where, folders, names in os.walk(path, onerror=refuse):
            folder = Path(os.path.realpath(where))
            if not not_there.isdisjoint((folder, *folder.parents)):
                folders.clear()
                continue
            links = [name for name in folders if os.path.islink(os.path.join(where, name))]  # noqa: PTH114, PTH118
            folders[:] = sorted(set(folders) - set(links))
            for entry in sorted(Path(where, name) for name in (*names, *links)):
                if folder / entry.name not in not_there:
                    found[entry] = entry.relative_to(path).as_posix()
            if not (folders or names or links) and Path(where) != path:
                found[Path(where)] = Path(where).relative_to(path).as_posix()
    if not found:
        raise InputError(f"there are no files to search in {', '.join(map(str, paths))}")
    return list(found.items())


def size_of(path: Path) -> int | None:
    """Bytes of a file; None of what has a name only: a folder, a pipe, a link that leads to no file.

    Raises
    ------
    OSError
        If that cannot be known.
    """
    nowhere = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
    try:
        state = path.stat()
    except OSError as error:
        if error.errno in nowhere and path.is_symlink():
            return None
        raise
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def search(
    files: Iterable[tuple[Path, str]], known: Identities, show: Show = lambda done, total: None
) -> Iterator[Finding]:
    """Look for identities in files: their bytes, their names, and what is packed or escaped in them.

    Parameters
    ----------
    files : iterable of (Path, str)
        Each with its name below the folder that was given; see `files_below`.
    known : Identities
    show : callable
        Is told the bytes done and their total.

    Yields
    ------
    Finding
        One for each file, identity and form; the first place counts.

    Raises
    ------
    InputError
        If a file cannot be read: nothing is known of it then.
    """
    files = list(files)
    total = sum(_size_or_0(path) for path, _ in files)
    done = 0
    for number, (path, name) in enumerate(files, 1):

        def show_file(at: int, before: int = done) -> None:
            show(before + at, total)

        try:
            yield from _Search(path, known).run(name, show_file)
        except _DAMAGED:
            kind = f", of kind {path.suffix}" if path.suffix in _ENDINGS else ""
            raise InputError(
                f"cannot search file {number} of {len(files)}{kind}: it is damaged, or may not be read",
                hint=_NO_PROOF,
            ) from None
        done += _size_or_0(path)
        show(done, total)


def _size_or_0(path: Path) -> int:
    try:
        return size_of(path) or 0
    except OSError:
        return 0


class _Search:
    """Through one file; every identity is told of once."""

    def __init__(self, path: Path, known: Identities) -> None:
        self.path, self.known = path, known
        self.told: set[int] = set()
        self.dense: list[tuple[int, int]] = []

    def run(self, name: str, show: Callable[[int], None]) -> Iterator[Finding]:
        yield from self._name(name, NAME)
        if self.path.is_symlink():
            yield from self._name(str(self.path.readlink()), "where it leads as a link")
        if size_of(self.path) is None:
            return
        with open(self.path, "rb") as file:
            head = file.read(8)
        if h5py.is_hdf5(self.path):
            yield from self._hdf5()
        elif head[:2] == b"\x1f\x8b":
            yield from self._gzip()
        elif head[:4] == b"PK\3\4":
            yield from self._zip()
        elif self.path.stat().st_size <= STRUCTURED:
            with embedded.opened(self.path) as data:
                yield from self._picture(data, "a text of the picture")
                self.dense = embedded.pixel_ranges(data)
                if not self.dense and b"\0" not in data[:4096]:
                    yield from self._text(bytes(data))
        yield from self._raw(show)

    def _name(self, name: str, place: str) -> Iterator[Finding]:
        parts = PurePath(name).parts
        yield from self._block(_bytes(name), place)
        yield from self._whole(
            [_bytes(part) for part in (name, *parts, *(PurePath(p).stem for p in parts))], place
        )

    def _raw(self, show: Callable[[int], None]) -> Iterator[Finding]:
        size = self.path.stat().st_size
        with open(self.path, "rb") as file:
            for start, stop, is_dense in _segments(self.dense, size):
                for at in range(start, stop, BLOCK):
                    begin, end = max(0, at - LONGEST), min(at + BLOCK, stop)
                    file.seek(begin)
                    block = file.read(end + LONGEST - begin)
                    yield from self._hits(block, at - begin, end - begin, is_dense, "the file", begin)
                    show(end)

    def _hits(
        self, block: bytes, start: int, stop: int, is_dense: bool, place: str, base: int | None
    ) -> Iterator[Finding]:
        needles = self.known.dense if is_dense else self.known.anywhere
        for at, number in needles.find(block, start, stop):
            if number in self.told:
                continue
            form, needle = self.known.form_name(number), self.known.form(number)
            there = block[at : at + len(needle)]
            if form.endswith("bytes"):
                counts = there == needle
            else:
                counts = form not in _TEXTS or _stands_alone(block, at, needle)
            if counts:
                yield self._found(number, place, None if base is None else base + at)

    def _found(self, number: int, place: str, offset: int | None = None) -> Finding:
        self.told.add(number)
        index = number // _MANY
        kind = self.known.kinds[self.known.values[index]]
        return Finding(self.path, offset, place, kind, self.known.form_name(number), index + 1)

    def _block(self, data: bytes, place: str) -> Iterator[Finding]:
        """Search something that is in memory."""
        for at in range(0, len(data), BLOCK):
            begin, end = max(0, at - LONGEST), min(at + BLOCK, len(data))
            yield from self._hits(data[begin : end + LONGEST], at - begin, end - begin, False, place, None)

    def _whole(self, strings: Iterable[bytes], place: str) -> Iterator[Finding]:
        for string in strings:
            number = self.known.whole.get(string.strip(b"\0 \t\r\n"))
            if number is not None and number * _MANY not in self.told:
                yield self._found(number * _MANY, place)

    def _strings(self, strings: Sequence[bytes], place: str) -> Iterator[Finding]:
        yield from self._block(b"\0".join(strings), place)
        yield from self._whole(strings, place)

    def _picture(self, data: embedded.Buffer, place: str) -> Iterator[Finding]:
        yield from self._strings([text for _, text in embedded.texts(data)], place)

    def _text(self, data: bytes) -> Iterator[Finding]:
        self.dense = [match.span() for match in _BASE64.finditer(data)]
        for start, stop in self.dense:
            packed = data[start:stop]
            inner = base64.b64decode(packed[: len(packed) // 4 * 4])
            yield from self._picture(inner, "a picture in the page")
        text = data.decode("utf-8", "surrogateescape")
        if "&" in text:
            unescaped = _BASE64.sub(b"", html.unescape(text).encode("utf-8", "surrogateescape"))
            yield from self._block(unescaped, "a text of the page")
        yield from self._strings(list(_json_strings(text)), "a JSON string")
        if self.path.suffix == ".csv":
            with contextlib.suppress(csv.Error):
                cells = [_bytes(cell) for row in csv.reader(io.StringIO(text)) for cell in row]
                yield from self._whole(cells, "a cell of the table")

    def _gzip(self) -> Iterator[Finding]:
        with gzip.open(self.path, "rb") as file:
            yield from self._stream(file, "the unpacked file")

    def _zip(self) -> Iterator[Finding]:
        with zipfile.ZipFile(self.path) as archive:
            yield from self._strings([_bytes(name) for name in archive.namelist()], "a name in the archive")
            for name in archive.namelist():
                with archive.open(name) as file:
                    yield from self._stream(file, "an unpacked file")

    def _stream(self, file: IO[bytes] | gzip.GzipFile, place: str) -> Iterator[Finding]:
        before = b""
        while new := file.read(BLOCK):
            block = before + new
            yield from self._hits(block, 0, len(block), False, place, None)
            before = block[-LONGEST:]

    def _hdf5(self) -> Iterator[Finding]:
        found: list[Finding] = []
        names: list[bytes] = []

        def visit(name: str, item: Any) -> None:
            names.extend(_bytes(part) for part in name.split("/"))
            found.extend(self._hdf5_attributes(item))
            if isinstance(item, h5py.Dataset):
                found.extend(self._hdf5_dataset(item))

        with h5py.File(self.path, "r", locking=False) as file:
            found.extend(self._hdf5_attributes(file))
            file.visititems(visit)
            found.extend(self._strings(names, "an HDF5 name"))
        yield from found
        self.dense = _merged(self.dense)

    def _hdf5_attributes(self, item: Any) -> Iterator[Finding]:
        for name in item.attrs:
            try:
                value = item.attrs[name]
            except OSError:
                continue
            strings = [_bytes(name), *_texts_of(value)]
            strings += [inner for text in strings for inner in _json_strings(text.decode("utf-8", "replace"))]
            yield from self._strings(strings, "an HDF5 attribute")

    def _hdf5_dataset(self, data: h5py.Dataset) -> Iterator[Finding]:
        if data.dtype.kind in "OSU":
            step = 4096
            if data.shape == ():
                yield from self._strings(_texts_of(data[()]), "an HDF5 string")
            elif data.shape:
                for start in range(0, data.shape[0], step):
                    yield from self._strings(_texts_of(data[start : start + step]), "an HDF5 string")
            return
        if not data.shape or data.dtype.kind not in "biuf":
            return
        self.dense += _stored_ranges(data)
        if data.chunks and data.id.get_create_plist().get_nfilters():
            for part in data.iter_chunks():
                block = data[part].tobytes()
                yield from self._hits(block, 0, len(block), True, "unpacked HDF5 numbers", None)


#: Names of the forms that are no hashes.
_TEXTS = ("text", "text in Latin-1", "text in UTF-16")


def _forms(value: bytes) -> list[tuple[str, bytes]]:
    """Names and bytes of the forms of an identity; the first is the value itself."""
    forms: list[tuple[str, bytes]] = [("text", value)]
    hashed = [value, value.upper(), value.lower()]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    if text:
        forms += [("text in UTF-16", text.encode("utf-16-le")), ("text in UTF-16", text.encode("utf-16-be"))]
    if not text.isascii():
        others = [_bytes(text.upper()), _bytes(text.lower())]
        forms += [("text", other) for other in others]
        hashed = [value, *others]
        with contextlib.suppress(UnicodeEncodeError):
            latin = text.encode("latin-1")
            forms.append(("text in Latin-1", latin))
            hashed.append(latin)
    elif len(value) % 2:  # as DICOM pads it
        hashed.append(value + (b"\0" if _UID.fullmatch(value) else b" "))
    for one in dict.fromkeys(hashed):
        for name, algorithm in (("MD5", hashlib.md5), ("SHA-1", hashlib.sha1), ("SHA-256", hashlib.sha256)):
            digest = algorithm(one, usedforsecurity=False).digest()
            forms.append((f"{name} without a key", digest[:HASH_BYTES].hex().encode()))
            forms.append((f"{name} without a key, in bytes", digest[: 2 * HASH_BYTES]))
    return forms


def _is_long(value: bytes, text: int, number: int) -> bool:
    """Whether a value is searched for anywhere."""
    least = number if _NUMBER.fullmatch(value) else text
    return len(value.decode("utf-8", "replace")) >= least and anchor(value.lower()) is not None


def _stands_alone(block: bytes, at: int, needle: bytes) -> bool:
    """Of what could be part of a number or of a hash: whether neither goes on before or after it."""
    folded = needle.lower()
    if not (_NUMBER.fullmatch(folded) or _HEXADECIMAL.fullmatch(folded)):
        return True
    before, after = block[max(0, at - 2) : at].lower(), block[at + len(needle) : at + len(needle) + 2].lower()
    goes_on = re.search(rb"([0-9a-f]|[0-9]\.)$", before) or re.match(rb"[0-9a-f]|\.[0-9]", after)
    return not goes_on


def _segments(dense: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int, bool]]:
    at = 0
    for start, stop in dense:
        start, stop = max(at, start), min(stop, size)
        if start < stop:
            if at < start:
                yield at, start, False
            yield start, stop, True
            at = stop
    if at < size:
        yield at, size, False


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _stored_ranges(data: h5py.Dataset) -> list[tuple[int, int]]:
    """Where the numbers of an HDF5 dataset stand in its file."""
    if data.chunks is None:
        offset = data.id.get_offset()
        return [] if offset is None else [(offset, offset + data.id.get_storage_size())]
    ranges: list[tuple[int, int]] = []
    data.id.chunk_iter(lambda chunk: ranges.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
    return ranges


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _texts_of(value: Any) -> list[bytes]:
    """All strings of an HDF5 value."""
    if isinstance(value, str):
        return [_bytes(value)]
    if isinstance(value, bytes):
        return [value]
    if hasattr(value, "dtype") and value.dtype.kind in "OSU":
        return [text for item in value.ravel().tolist() for text in _texts_of(item)]
    return []


def _json_strings(text: str) -> Iterator[bytes]:
    """Strings and keys of a JSON document, or of each line that is one."""
    for part in (text, *(text.splitlines() if text.lstrip()[:1] in ("{", "[") else ())):
        if part.lstrip()[:1] not in ("{", "[", '"'):
            continue
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        yield from _strings_in(value)
        if part is text:
            return


def _strings_in(value: Any) -> Iterator[bytes]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item.encode("utf-8", "surrogatepass")
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
