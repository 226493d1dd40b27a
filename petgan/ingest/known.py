"""What earlier runs of the same ingest learned of its files, so that a second one reads only what is new.

Of a file that has not changed the headers are kept, sealed and in the dataset's units. A series is known only
as a whole: its units follow from all of its slices, so with one that is new, changed or gone all are read
again. A copy is in no units: it is known as one, and read once it is none any more. Of what was skipped the
reason is kept. What else was refused is not kept, and tried again. Nothing of it tells whose the files are.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from petgan.ingest.cache import Cache
from petgan.ingest.deidentify import Key
from petgan.ingest.frame import Frame, Header, Plane

#: What pixels depend on; the codecs among them, of which two versions may decode differently.
LIBRARIES = (
    "numpy", "pillow", "pydicom", "scipy", "pyjpegls", "pylibjpeg", "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg", "python-gdcm",
)  # fmt: skip


@lru_cache(maxsize=1)
def code_version() -> str:
    """A digest of the ingest's own code and of the libraries that read: with another, nothing is known."""
    libraries = [f"{name} {_version(name)}" for name in LIBRARIES]
    digest = hashlib.sha256(" ".join(libraries).encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class File:
    """A file to be looked at; `name` is its path below the given folder, in clear."""

    path: Path
    name: str
    id: str
    stamp: str


class Known:
    """The headers of earlier runs.

    Parameters
    ----------
    cache : Cache or None
    key : Key
    asked : str
        The options that decide what a header becomes: its units, and whose it is.
    """

    def __init__(self, cache: Cache | None, key: Key, asked: str) -> None:
        self._cache, self._key, self._asked = cache, key, asked
        self.copies: set[str] = set()  # ids of known files that were refused as copies
        self.skipped: dict[str, str] = {}  # reasons by the id of known files that were skipped

    def of(self, files: Iterable[File]) -> dict[str, list[Frame]]:
        """The frames of all files that are known, by the file's id: none of one that was skipped."""
        found: dict[str, list[Frame]] = {}
        series: dict[str, str] = {}
        for file in files:
            content = self._cache and self._cache.get(self._place(file.stamp))
            if content:
                kept = json.loads(content)
                if "skipped" in kept:
                    self.skipped[file.id], found[file.id] = kept["skipped"], []
                    continue
                found[file.id] = [_frame(file, entry) for entry in kept["frames"]]
                series[file.id] = kept["series"]
                if kept["copy"]:
                    self.copies.add(file.id)
        whole = _digests(self._key, [frame for frames in found.values() for frame in frames])
        return {
            id: frames for id, frames in found.items() if all(whole[_series(f)] == series[id] for f in frames)
        }

    def keep(self, frames: Sequence[Frame], copies: Sequence[Frame] = ()) -> None:
        """Remember all frames of some series, and those that were refused as copies."""
        if self._cache is None:
            return
        files: defaultdict[str, list[Frame]] = defaultdict(list)
        for frame in (*frames, *copies):
            files[frame.stamp].append(frame)
        whole = _digests(self._key, (*frames, *copies))
        refused = {frame.stamp for frame in copies}
        for stamp, ours in files.items():
            content = {
                "copy": stamp in refused,
                "series": whole[_series(ours[0])],
                "frames": [
                    {
                        "format": f.format, "index": f.index, "scale": f.scale, "rule": f.rule,
                        "header": asdict(f.header),
                    }
                    for f in ours
                ],
            }  # fmt: skip
            self._cache.put(self._place(stamp), json.dumps(content).encode())

    def skip(self, file: File, reason: str) -> None:
        """Remember that a file was skipped for what is in it."""
        if self._cache is not None:
            self._cache.put(self._place(file.stamp), json.dumps({"skipped": reason}).encode())

    def _place(self, stamp: str) -> bytes:
        return self._key.place("known", f"{stamp} {self._asked} {code_version()}")


class Contents:
    """What files hold, as keyed hashes. Decisions hang on it, so each run reads the files itself, once."""

    def __init__(self, key: Key) -> None:
        self._key = key
        self._found: dict[str, str] = {}

    def of(self, frame: Frame) -> str:
        """16 hexadecimal digits for the bytes of a frame's file; nothing if it cannot be read."""
        if frame.id not in self._found:
            self._found[frame.id] = self._read(frame.path)
        return self._found[frame.id]

    def _read(self, path: Path) -> str:
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError:
            return ""
        return self._key.seal("content", digest.hexdigest())[:16]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # an extra's
        return "none"


def _series(frame: Frame) -> tuple[str | None, str]:
    return frame.header.patient, frame.series


def _digests(key: Key, frames: Iterable[Frame]) -> dict[tuple[str | None, str], str]:
    """Of each series, what its files are."""
    stamps: defaultdict[tuple[str | None, str], set[str]] = defaultdict(set)
    for frame in frames:
        stamps[_series(frame)].add(frame.stamp)
    return {series: key.seal("files", " ".join(sorted(those))) for series, those in stamps.items()}


def _frame(file: File, entry: dict[str, Any]) -> Frame:
    header = dict(entry["header"])
    for name in ("span", "spacing"):
        header[name] = header[name] and tuple(header[name])
    header["plane"] = header["plane"] and Plane(**{k: tuple(v) for k, v in header["plane"].items()})
    return Frame(
        file.path, file.id, file.stamp, entry["format"], entry["index"], Header(**header),
        scale=entry["scale"], rule=entry["rule"],
    )  # fmt: skip
