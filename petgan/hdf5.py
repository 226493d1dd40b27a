"""HDF5 files that are written whole or not at all, on a full disk too, and arrays read from them alone.

HDF5 cannot close a file that it cannot write: what is left in its caches crashes the interpreter at its
end. So HDF5 writes to a file that never fails; the first error is kept, and raised once HDF5 is done.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from petgan.runs import atomic_path

# Filters that every HDF5 brings. For another one it would look for a library to load.
_FILTERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


class _PatientFile(io.FileIO):
    """A file that swallows what it cannot write, and remembers why."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


class NewFile(h5py.File):
    """An HDF5 file being written; see `atomic_hdf5`."""

    def __init__(self, raw: _PatientFile) -> None:
        super().__init__(raw, "w")
        self._raw = raw

    def check(self) -> None:
        """Raise the first error of writing, if there was one: worth a call now and then in a long work."""
        if self._raw.error is not None:
            raise self._raw.error


@contextlib.contextmanager
def atomic_hdf5(path: Path | str) -> Iterator[NewFile]:
    """Give an HDF5 file to write to; on success it is flushed and renamed to `path`.

    The same content gives the same bytes: nothing in it tells the time.

    Raises
    ------
    DiskError
        If the disk is full, over quota, or not writable. Nothing is left behind then.
    """
    with atomic_path(path) as temporary, _PatientFile(temporary, "w+b") as raw:
        try:
            with NewFile(raw) as file:
                yield file
        finally:
            if raw.error is not None:
                raise raw.error


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset | str:
    """An array of the file, or a predicate that says why it cannot be read from the file alone.

    Links and storage that lead out of the file could show another user's data as this one's. They are
    found out before HDF5 follows them: no other file is opened.
    """
    link = file.get(name, getlink=True)
    if link is None:
        return "is missing"
    if not isinstance(link, h5py.HardLink):
        return "is a link"
    array = h5py.h5o.open(file.id, name.encode())
    if not isinstance(array, h5py.h5d.DatasetID):
        return "is no array"
    layout = array.get_create_plist()
    if layout.get_layout() == h5py.h5d.VIRTUAL or layout.get_external_count():
        return "is stored in another file"
    if any(layout.get_filter(n)[0] not in _FILTERS for n in range(layout.get_nfilters())):
        return "is compressed in a way that petgan does not know"
    size = array.get_space().get_select_npoints() * array.get_type().get_size()
    if layout.get_layout() != h5py.h5d.CHUNKED and array.get_storage_size() < size:
        return "has no data"
    return h5py.Dataset(array)
