from __future__ import annotations

import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from petgan.errors import DatasetError
from petgan.store import COLUMNS, Dataset, Row, pixel_digest, write_dataset

MEANING = {"modality": "pet", "units": "bqml", "window": "full"}


def rows(count=6, size=16, first=0):
    for n in range(first, first + count):
        image = np.random.default_rng(n).integers(0, 256, (size, size), np.uint8)
        yield Row(f"{n // 2:016x}", f"{n:016x}", ("train", "validation", "test")[n % 3], "slice"), image


def test_what_is_written_is_read(tmp_path):
    digest = write_dataset(
        tmp_path / "a.h5", rows(), image_size=16, key_id="0123", configuration={"x": 1}, **MEANING
    )
    with Dataset(tmp_path / "a.h5") as dataset:
        assert (len(dataset), dataset.image_size, dataset.dtype) == (6, 16, np.uint8)
        assert dataset.digest == dataset.reference.digest == digest
        assert dataset.configuration == {"x": 1}
        for n, (row, image) in enumerate(rows()):
            np.testing.assert_array_equal(dataset.image(n)[..., 0], image)
            assert [dataset.columns[name][n] for name in COLUMNS[:4]] == list(vars(row).values())
        np.testing.assert_array_equal(dataset.indices("validation"), [1, 4])
        np.testing.assert_array_equal(dataset.images("validation"), dataset.images()[[1, 4]])
        dataset.verify()
        with pytest.raises(DatasetError, match="split"):
            dataset.images("dev")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_dtypes(tmp_path, dtype):
    image = np.arange(256).reshape(16, 16).astype(dtype)
    write_dataset(
        tmp_path / "a.h5", [(Row("p", "s", "train", "v"), image)], image_size=16, dtype=dtype, **MEANING
    )
    with Dataset(tmp_path / "a.h5") as dataset:
        assert dataset.dtype == dtype
        np.testing.assert_array_equal(dataset.image(0)[..., 0], image)
        dataset.verify()


def test_any_tool_can_read_it(tmp_path):
    write_dataset(tmp_path / "a.h5", rows(), image_size=16, **MEANING)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["images"].shape == (6, 16, 16, 1)
        assert file["images"].chunks == (1, 16, 16, 1)
        assert file["images"].compression is None
        assert file["pixel_digest"][0].decode() == pixel_digest(file["images"][0])


def test_the_same_content_gives_the_same_bytes_at_another_time(tmp_path):
    write_dataset(tmp_path / "a.h5", rows(100), image_size=16, **MEANING)
    time.sleep(1.1)  # HDF5 counts seconds
    write_dataset(tmp_path / "b.h5", rows(100), image_size=16, **MEANING)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_digest_follows_pixels_rows_and_meaning(tmp_path):
    def digest(items=None, **change):
        return write_dataset(tmp_path / "a.h5", items or rows(), image_size=16, **{**MEANING, **change})

    def other_view():
        for row, image in rows():
            yield Row(row.patient, row.source, row.split, "mip"), image

    digests = [
        digest(),
        digest(rows(first=1)),
        digest(other_view()),
        digest(units="suvbw"),
        digest(window="w"),
    ]
    assert len(set(digests)) == 5
    assert digest() == digests[0]


@pytest.mark.parametrize("change", ["pixel", "row", "meaning"])
def test_verify_finds_changes(make_dataset, change):
    path = make_dataset()
    with h5py.File(path, "r+") as file:
        if change == "pixel":
            file["images"][3, 0, 0, 0] ^= 1
        elif change == "row":
            file["split"][0] = "test"
        else:
            file.attrs["units"] = "suvbw"
    with Dataset(path) as dataset, pytest.raises(DatasetError, match="damaged"):
        dataset.verify()


def break_version(path):
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99


def break_column(path):
    with h5py.File(path, "r+") as file:
        del file["split"]


def break_attribute(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["digest"]


def break_link(path):
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["images"] = np.zeros((36, 16, 16, 1), np.uint8)
    with h5py.File(path, "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink("other.h5", "/images")


def break_length(path):
    path.write_bytes(path.read_bytes()[:-100])


def break_kind(path):
    path.write_text("no HDF5")


def break_away(path):
    path.unlink()


def break_schema(path):
    path.unlink()
    h5py.File(path, "w").close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_version, "another schema version: got 99; allowed: 1"),
        (break_column, "lacks split"),
        (break_attribute, "lacks digest"),
        (break_link, "lacks images"),
        (break_length, "cut short"),
        (break_kind, "not an HDF5 file"),
        (break_away, "there is no dataset"),
        (break_schema, "not a petgan dataset"),
    ],
)
def test_what_is_no_whole_dataset_is_refused(make_dataset, damage, words):
    path = make_dataset()
    damage(path)
    with pytest.raises(DatasetError, match=words):
        Dataset(path)


def test_a_failing_source_leaves_nothing(tmp_path):
    def failing():
        yield from rows(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_dataset(tmp_path / "new" / "a.h5", failing(), image_size=16, **MEANING)
    assert not list(tmp_path.rglob("*a.h5*"))


FULL_DISK = """
import resource, sys
import numpy as np
from petgan.errors import DiskError
from petgan.store import Row, write_dataset

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
items = ((Row(str(n), str(n), "train", "slice"), np.full((32, 32), n, np.uint8)) for n in range(200))
try:
    write_dataset(sys.argv[1], items, image_size=32, modality="pet", units="bqml", window="full")
except DiskError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 1000, 100_000, 240_000])
def test_a_full_disk_leaves_nothing_and_no_crash(tmp_path, limit):
    """HDF5 left to itself ends such a process with a segmentation fault."""
    command = [sys.executable, "-c", FULL_DISK, tmp_path / "a.h5", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"cannot write {tmp_path / 'a.h5'}")
    assert not list(tmp_path.iterdir())
