"""The HDF5 dataset: images of one modality with their provenance and split, and no identity.

Layout (schema 2)
-----------------
``images``          (n, size, size, 1) uint8 or uint16 or float32, chunked by image, compressed
``patient``         (n,) keyed hash of the patient, 16 hexadecimal digits
``source``          (n,) keyed hash of the file or series, and the slice's number in it (last 4 digits)
``split``           (n,) ``train``, ``validation`` or ``test``
``view``            (n,) e.g. ``slice``, ``mip-coronal``, ``left-cc``, ``synthetic``
``collection``      (n,) where such pictures come from, e.g. ``pet``, ``mini-mias``, ``other``
``pixel_digest``    (n,) SHA-256 of the image's bytes
attributes          ``schema_version``, ``modality``, ``units``, ``window``, ``projection``, ``key_id``,
                    ``tool_version``, ``configuration`` (JSON), ``digest``

Rows are sorted by (patient, source), so that the file does not depend on the order of work.

Schema 1, without ``collection``, is still read: there every collection is ``other``.

Only what lies in the file itself is read, and only through filters that HDF5 brings: links, external
storage, virtual datasets and unknown filters are refused. Bytes behind the end of the data are ignored.

Compression
-----------
Images are compressed by gzip at level 1, those of more than one byte a pixel after a byte shuffle. For
phantoms at 224 pixels, on one core with the file in memory (``benchmarks/store.py``), microseconds an
image to write and to read at random, and the size against no compression:

=================  ===============  ================  ================  ====================
compression        PET uint8        PET float32       mammogram uint8   mammogram float32
=================  ===============  ================  ================  ====================
none               210, 40          220, 60           100, 20           190, 50
shuffle, lzf       560, 230; 60 %   1590, 790; 62 %   560, 170; 83 %    1490, 590; 87 %
gzip 1             960, 260; 49 %   3140, 790; 52 %   860, 290; 70 %    5720, 1190; 91 %
shuffle, gzip 1    680, 280; 49 %   3190, 1010; 55 %  970, 300; 70 %    3730, 590; 81 %
shuffle, gzip 4    1030, 250; 46 %  4370, 990; 54 %   1190, 310; 70 %   4110, 620; 80 %
=================  ===============  ================  ================  ====================

Training keeps its images in memory: it reads each twice when it starts, once to verify it, which costs
10,000 images 5 s more than without compression, and its steps nothing. A loader that streamed single
images would get 3,600 a second from one core. lzf is hardly faster, and only h5py reads it; every HDF5
tool reads gzip. float32 takes longer, but is not trained on. The compressed bytes depend on the version
of zlib; the digest does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from petgan import __version__
from petgan.config import DatasetRef
from petgan.errors import DatasetError
from petgan.hdf5 import atomic_hdf5, own_dataset

SCHEMA_VERSION = 2
SPLITS = ("train", "validation", "test")
HELD_OUT = SPLITS[1:]
COLUMNS = ("patient", "source", "split", "view", "collection", "pixel_digest")
COLUMNS_OF_SCHEMA = {1: tuple(name for name in COLUMNS if name != "collection"), 2: COLUMNS}
DTYPES = ("uint8", "uint16", "float32")
ATTRIBUTES = (
    "schema_version", "modality", "units", "window", "projection", "key_id", "tool_version",
    "configuration", "digest",
)  # fmt: skip
_TEXT = h5py.string_dtype()
_GZIP_LEVEL = 1
_HINT = "ingest the files again"

#: Gives the splits of all rows, in their order; the function reads back the image of a row, (size, size).
Splits = Callable[[Sequence["Row"], Callable[[int], np.ndarray]], Sequence[str]]


@dataclass(frozen=True)
class Row:
    """What is kept of one image besides its pixels. Every field is free of identity."""

    patient: str
    source: str
    split: str
    view: str
    collection: str = "other"


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256 of an image's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def write_dataset(
    path: Path | str,
    items: Iterable[tuple[Row, np.ndarray]],
    *,
    splits: Splits | None = None,
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
    splits : callable, optional
        Is called once all items are written, with the rows and a function that reads back an image; the
        splits that it returns replace those of the rows. For what is known only then, such as copies.
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
    ValueError
        If `splits` returns other than one of `SPLITS` for each row.
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
            "images",
            (0, *shape),
            dtype,
            maxshape=(None, *shape),
            chunks=(1, *shape),
            compression="gzip",
            compression_opts=_GZIP_LEVEL,
            shuffle=np.dtype(dtype).itemsize > 1,
        )
        rows: list[Row] = []
        digests: list[str] = []
        for n, (row, image) in enumerate(items):
            if n == len(images):
                images.resize(max(64, 2 * n), axis=0)
            pixels = np.asarray(image, dtype).reshape(shape)
            images[n] = pixels
            file.check()
            rows.append(row)
            digests.append(pixel_digest(pixels))
        images.resize(len(rows), axis=0)
        if splits is not None:
            rows = _with_splits(rows, splits(tuple(rows), lambda index: images[index][..., 0]))
        columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS if name != "pixel_digest"}
        columns["pixel_digest"] = digests
        for name in COLUMNS:
            file.create_dataset(name, data=np.array(columns[name], dtype=object), dtype=_TEXT)
        digest = _content_digest(
            columns, {**meaning, "dtype": dtype, "image_size": image_size}, SCHEMA_VERSION
        )
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


def _with_splits(rows: list[Row], splits: Sequence[str]) -> list[Row]:
    unknown = set(splits) - set(SPLITS)
    if unknown or len(splits) != len(rows):
        raise ValueError(f"{len(splits)} splits for {len(rows)} rows, {sorted(unknown)} among them")
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _content_digest(columns: Mapping[str, Iterable[str]], meaning: Mapping[str, Any], schema: int) -> str:
    total = hashlib.sha256(json.dumps(dict(meaning), sort_keys=True).encode())
    for values in zip(*(columns[name] for name in COLUMNS_OF_SCHEMA[schema]), strict=True):
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
    image_size, schema_version : int
    dtype : numpy.dtype
    modality, units, window, projection, key_id, tool_version, digest : str
    configuration : dict
    columns : dict of str to ndarray (n,) of str
        `COLUMNS`, by name.

    Raises
    ------
    DatasetError
        If the file is missing, not HDF5, of another schema version, or damaged.
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
        with self._damaged("its header cannot be read"):
            version = self._file.attrs.get("schema_version")
            if version is None:
                raise DatasetError(f"{self.path} is HDF5, but not a petgan dataset")
            self.schema_version = int(version)
        if self.schema_version not in COLUMNS_OF_SCHEMA:
            with self._damaged("its header cannot be read"):
                writer = str(self._file.attrs.get("tool_version", "of unknown version"))
            raise DatasetError(
                f"{self.path} has another schema version",
                value=self.schema_version,
                allowed=COLUMNS_OF_SCHEMA,
                hint=f"it was written by petgan {writer}; ingest the files again with this version",
            )
        with self._damaged("its header cannot be read"):
            self._read_attributes()
        with self._damaged("its arrays cannot be read"):
            self._read_arrays()

    def _read_attributes(self) -> None:
        attributes = self._file.attrs
        missing = [name for name in ATTRIBUTES if name not in attributes]
        if missing:
            raise self._damage(f"it lacks {', '.join(missing)}")
        self.modality, self.units, self.window, self.projection, self.key_id = (
            str(attributes[name]) for name in ("modality", "units", "window", "projection", "key_id")
        )
        self.tool_version = str(attributes["tool_version"])
        self.digest = str(attributes["digest"])
        configuration = json.loads(attributes["configuration"])
        if not isinstance(configuration, dict):
            raise self._damage("its configuration is no mapping")
        self.configuration: dict[str, Any] = configuration

    def _read_arrays(self) -> None:
        names = COLUMNS_OF_SCHEMA[self.schema_version]
        arrays = {}
        for name in ("images", *names):
            array = own_dataset(self._file, name)
            if isinstance(array, str):
                raise self._damage(f"'{name}' {array}")
            arrays[name] = array
        self._images = images = arrays.pop("images")
        if images.ndim != 4 or images.shape[1:] != (images.shape[1], images.shape[1], 1):
            raise self._damage(f"'images' has the shape {images.shape}")
        if images.dtype not in [np.dtype(name) for name in DTYPES]:
            raise self._damage(f"'images' is of another type than {', '.join(DTYPES)}")
        if images.chunks != (1, *images.shape[1:]) or images.id.get_num_chunks() != len(images):
            raise self._damage("'images' is not stored image by image")
        for name, array in arrays.items():
            if array.shape != (len(images),):
                raise self._damage(f"'{name}' has the shape {array.shape} for {len(images)} images")
            text = h5py.check_string_dtype(array.dtype)
            if text is None or text.length is not None:
                raise self._damage(f"'{name}' is no text")
        self.image_size = int(images.shape[1])
        self.dtype = np.dtype(images.dtype)
        self.columns = {name: array.asstr()[:] for name, array in arrays.items()}
        if self.schema_version == 1:
            self.columns["collection"] = np.array(["other"] * len(images), dtype=object)

    def _damage(self, what: str) -> DatasetError:
        return DatasetError(f"{self.path} is damaged: {what}", hint=_HINT)

    @contextlib.contextmanager
    def _damaged(self, what: str) -> Iterator[None]:
        """Turn what h5py and NumPy raise over a damaged file into one sentence."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, TypeError, LookupError, MemoryError):
            raise self._damage(what) from None

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

    def indices(self, *splits: str) -> np.ndarray:
        """Positions of the images of these splits (or of all), in the file's order."""
        for split in splits:
            if split not in SPLITS:
                raise DatasetError("there is no such split", value=split, allowed=SPLITS)
        return np.flatnonzero(np.isin(self.columns["split"], splits or SPLITS))

    def images(self, *splits: str) -> np.ndarray:
        """Images of these splits (or all), in the file's order: (n, size, size, 1) in the file's dtype."""
        selected = self.indices(*splits)
        stored = self._images
        with self._damaged("its images cannot be read"):
            if len(selected) == len(self):
                return stored[:]
            out = np.empty((len(selected), *stored.shape[1:]), stored.dtype)
            for position, index in enumerate(selected):
                out[position] = stored[index]
            return out

    def stored(self, split: str) -> StoredImages:
        """Images of one split, to be read when they are asked for; the dataset stays open as long."""
        return StoredImages(self, self.indices(split))

    def image(self, index: int) -> np.ndarray:
        """One image: (size, size, 1)."""
        with self._damaged(f"image {index} cannot be read"):
            return self._images[index]

    def verify(self) -> None:
        """Compare every image with its digest, and all with the file's.

        Raises
        ------
        DatasetError
            At the first image that differs.
        """
        for index in range(len(self)):
            if pixel_digest(self.image(index)) != self.columns["pixel_digest"][index]:
                raise self._damage(f"image {index} does not match its digest")
        meaning = {
            "modality": self.modality,
            "units": self.units,
            "window": self.window,
            "projection": self.projection,
            "key_id": self.key_id,
            "dtype": self.dtype.name,
            "image_size": self.image_size,
        }
        if _content_digest(self.columns, meaning, self.schema_version) != self.digest:
            raise self._damage("its rows do not match its digest")


class StoredImages:
    """Images of a dataset that are read when they are asked for.

    Parameters
    ----------
    dataset : Dataset
    indices : ndarray (n,) int
        Their positions in it.

    Attributes
    ----------
    shape : tuple
        (n, size, size, 1).
    problem : DatasetError or None
        Why they could not be read.
    """

    def __init__(self, dataset: Dataset, indices: np.ndarray) -> None:
        self._dataset, self._indices = dataset, indices
        self.problem: DatasetError | None = None
        self.shape = (len(indices), dataset.image_size, dataset.image_size, 1)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Those at `positions` (m,), in this order, repeated ones too: (m, size, size, 1)."""
        try:
            return np.stack([self._dataset.image(index) for index in self._indices[positions]])
        except DatasetError as problem:
            self.problem = problem
            raise


def held_out_images(reference: DatasetRef) -> np.ndarray:
    """Images of the validation and test splits, in the file's order: (n, size, size, 1) uint8.

    Raises
    ------
    DatasetError
        If the dataset is not what `reference` says, is damaged, or has other pixels.
    """
    with Dataset(reference.path) as dataset:
        if dataset.digest != reference.digest:
            raise DatasetError(
                f"{dataset.path} has changed since the runs were made",
                value=dataset.digest[:12],
                allowed=reference.digest[:12],
                hint="bring the old dataset back, or train anew",
            )
        dataset.verify()
        return dataset.images(*HELD_OUT)
