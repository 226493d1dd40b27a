"""The HDF5 dataset: images of one modality with their provenance and split, and no identity.

Layout (schema 1)
-----------------
``images``          (n, size, size, 1) uint8 or uint16 or float32, chunked by image
``patient``         (n,) keyed hash of the patient, 16 hexadecimal digits
``source``          (n,) keyed hash of the file or series, and the slice's number in it (last 4 digits)
``split``           (n,) ``train``, ``validation`` or ``test``
``view``            (n,) e.g. ``slice``, ``mip-coronal``, ``mammogram``, ``thumbnail``, ``synthetic``
``pixel_digest``    (n,) SHA-256 of the image's bytes
attributes          ``schema_version``, ``modality``, ``units``, ``window``, ``projection``, ``key_id``,
                    ``tool_version``, ``configuration`` (JSON), ``digest``

Rows are sorted by (patient, source), so that the file does not depend on the order of work.

Images are not compressed: training reads all of them once, compressed bytes would depend on the version
of zlib, and a window may be read without a filter by any tool.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from petgan import __version__
from petgan.config import DatasetRef
from petgan.errors import DatasetError
from petgan.hdf5 import atomic_hdf5

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
COLUMNS = ("patient", "source", "split", "view", "pixel_digest")
ATTRIBUTES = (
    "schema_version", "modality", "units", "window", "projection", "key_id", "tool_version",
    "configuration", "digest",
)  # fmt: skip
_TEXT = h5py.string_dtype()


@dataclass(frozen=True)
class Row:
    """What is kept of one image besides its pixels. Every field is free of identity."""

    patient: str
    source: str
    split: str
    view: str


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256 of an image's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def write_dataset(
    path: Path | str,
    items: Iterable[tuple[Row, np.ndarray]],
    *,
    image_size: int,
    modality: str,
    units: str,
    window: str,
    projection: str = "none",
    key_id: str = "",
    configuration: Mapping[str, Any] | None = None,
    dtype: str = "uint8",
) -> str:
    """Write a dataset atomically and return its content digest.

    Parameters
    ----------
    path : path
        The ``.h5`` file to write; an existing one is replaced only when all went well.
    items : iterable of (Row, ndarray (image_size, image_size))
        In any order that is stable; it is the order in the file. Consumed one by one.
    image_size : int
        Pixels.
    modality, units, window, projection, key_id : str
        What the pixel values mean; see the module's page.
    configuration : mapping, optional
        The resolved configuration of the ingest.
    dtype : str
        ``uint8``, ``uint16`` or ``float32``.

    Returns
    -------
    str
        SHA-256 over all pixel digests, rows and what the pixels mean; also kept in the file.

    Raises
    ------
    DiskError
        If the disk is full; nothing is left behind.
    """
    shape = (image_size, image_size, 1)
    meaning = {
        "modality": modality,
        "units": units,
        "window": window,
        "projection": projection,
        "key_id": key_id,
    }
    with atomic_hdf5(path) as file:
        images = file.create_dataset(
            "images", (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape)
        )
        columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
        for n, (row, image) in enumerate(items):
            if n == len(images):
                images.resize(max(64, 2 * n), axis=0)
            pixels = np.asarray(image, dtype).reshape(shape)
            images[n] = pixels
            file.check()
            for name in ("patient", "source", "split", "view"):
                columns[name].append(getattr(row, name))
            columns["pixel_digest"].append(pixel_digest(pixels))
        images.resize(len(columns["patient"]), axis=0)
        for name, values in columns.items():
            file.create_dataset(name, data=np.array(values, dtype=object), dtype=_TEXT)
        digest = _content_digest(columns, {**meaning, "dtype": dtype, "image_size": image_size})
        file.attrs.update(
            {
                **meaning,
                "schema_version": SCHEMA_VERSION,
                "tool_version": __version__,
                "configuration": json.dumps(configuration or {}, sort_keys=True),
                "digest": digest,
            }
        )
    return digest


def _content_digest(columns: Mapping[str, Iterable[str]], meaning: Mapping[str, Any]) -> str:
    total = hashlib.sha256(json.dumps(dict(meaning), sort_keys=True).encode())
    for values in zip(*(columns[name] for name in COLUMNS), strict=True):
        total.update("\x1f".join(values).encode() + b"\n")
    return total.hexdigest()


class Dataset:
    """A dataset opened for reading.

    Parameters
    ----------
    path : path
        The HDF5 file.

    Attributes
    ----------
    image_size : int
    modality, units, window, projection, key_id, tool_version, digest : str
    columns : dict of str to ndarray (n,) of str
        `COLUMNS`, by name.

    Raises
    ------
    DatasetError
        If the file is missing, not HDF5, of another schema version, or lacks a part.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetError(f"there is no dataset {self.path}", hint="make one with 'petgan ingest'")
        try:
            self._file = h5py.File(self.path, "r", locking=False)
        except OSError:
            raise DatasetError(
                f"{self.path} is not an HDF5 file, or is cut short",
                hint="make it again with 'petgan ingest'",
            ) from None
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        attributes = self._file.attrs
        version = attributes.get("schema_version")
        if version is None:
            raise DatasetError(f"{self.path} is HDF5, but not a petgan dataset")
        if int(version) != SCHEMA_VERSION:
            raise DatasetError(
                f"{self.path} has another schema version",
                value=int(version),
                allowed=str(SCHEMA_VERSION),
                hint=f"it was written by petgan {attributes.get('tool_version', 'of unknown version')}; "
                "ingest the files again with this version",
            )
        # get(getlink=True): a link out of the file could show another user's data as this one's.
        missing = [
            name
            for name in ("images", *COLUMNS)
            if not isinstance(self._file.get(name, getlink=True), h5py.HardLink)
        ] + [name for name in ATTRIBUTES if name not in attributes]
        if missing:
            raise DatasetError(f"{self.path} is damaged: it lacks {', '.join(missing)}")
        self.modality, self.units, self.window, self.projection, self.key_id = (
            str(attributes[name]) for name in ("modality", "units", "window", "projection", "key_id")
        )
        self.tool_version = str(attributes["tool_version"])
        self.digest = str(attributes["digest"])
        self.configuration: dict[str, Any] = json.loads(attributes["configuration"])
        self.image_size = int(self._file["images"].shape[1])
        self.dtype = np.dtype(self._file["images"].dtype)
        self.columns = {name: self._file[name].asstr()[:] for name in COLUMNS}

    def __len__(self) -> int:
        return len(self.columns["patient"])

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def reference(self) -> DatasetRef:
        """What a run keeps of the dataset."""
        return DatasetRef(
            path=str(self.path.resolve()),
            digest=self.digest,
            image_size=self.image_size,
            modality=self.modality,
        )

    def indices(self, split: str | None = None) -> np.ndarray:
        """Positions of the images of one split (or of all), in the file's order."""
        if split is None:
            return np.arange(len(self))
        if split not in SPLITS:
            raise DatasetError("there is no such split", value=split, allowed=SPLITS)
        return np.flatnonzero(self.columns["split"] == split)

    def images(self, split: str | None = None) -> np.ndarray:
        """Images of one split (or all): (n, size, size, 1) in the file's dtype."""
        selected = self.indices(split)
        stored = self._file["images"]
        if len(selected) == len(self):
            return stored[:]
        out = np.empty((len(selected), *stored.shape[1:]), stored.dtype)
        for position, index in enumerate(selected):
            out[position] = stored[index]
        return out

    def image(self, index: int) -> np.ndarray:
        """One image: (size, size, 1)."""
        return self._file["images"][index]

    def verify(self) -> None:
        """Compare every image with its digest, and all with the file's.

        Raises
        ------
        DatasetError
            At the first image that differs.
        """
        for index in range(len(self)):
            if pixel_digest(self.image(index)) != self.columns["pixel_digest"][index]:
                raise DatasetError(
                    f"{self.path} is damaged: image {index} does not match its digest",
                    hint="ingest the files again",
                )
        meaning = {
            "modality": self.modality,
            "units": self.units,
            "window": self.window,
            "projection": self.projection,
            "key_id": self.key_id,
            "dtype": self.dtype.name,
            "image_size": self.image_size,
        }
        if _content_digest(self.columns, meaning) != self.digest:
            raise DatasetError(
                f"{self.path} is damaged: its rows do not match its digest",
                hint="ingest the files again",
            )
