"""HDF5 files that are written whole or not at all, on a full disk too.

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
