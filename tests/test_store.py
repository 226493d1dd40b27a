from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from petgan import worker
from petgan.errors import DatasetError
from petgan.store import COLUMNS, Dataset, Row, pixel_digest, write_dataset

SCHEMA_1 = Path(__file__).parent / "data" / "schema-1.h5"  # written by petgan 0.1.0 before schema 2
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
            assert [dataset.columns[name][n] for name in COLUMNS[:5]] == list(vars(row).values())
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
        assert file["images"].compression == "gzip"
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


def swap_rows(file):
    for name in COLUMNS:
        file[name][0], file[name][5] = file[name][5], file[name][0]


def swap_images(file):
    first, last = file["images"][0], file["images"][5]
    file["images"][0], file["images"][5] = last, first


CHANGES = {
    "pixel": lambda file: file["images"].__setitem__((3, 0, 0, 0), file["images"][3, 0, 0, 0] ^ 1),
    "images swapped": swap_images,
    "row": lambda file: file["split"].__setitem__(0, "test"),
    "collection": lambda file: file["collection"].__setitem__(0, "mini-mias"),
    "rows swapped": swap_rows,
    "image and its digest": lambda file: (
        file["images"].__setitem__(0, np.zeros((16, 16, 1))),
        file["pixel_digest"].__setitem__(0, pixel_digest(np.zeros((16, 16, 1), np.uint8))),
    ),
    "meaning": lambda file: file.attrs.__setitem__("units", "suvbw"),
    "digest": lambda file: file.attrs.__setitem__("digest", "0" * 64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_finds_changes(make_dataset, change):
    path = make_dataset()
    with h5py.File(path, "r+") as file:
        CHANGES[change](file)
    with Dataset(path) as dataset, pytest.raises(DatasetError, match="damaged"):
        dataset.verify()


def test_bytes_that_cannot_be_decompressed_are_damage(make_dataset):
    path = make_dataset()
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(3)
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with Dataset(path) as dataset:
        for read in (dataset.verify, dataset.images, lambda: dataset.image(3)):
            with pytest.raises(DatasetError, match="damaged: .* cannot be read"):
                read()


def test_bytes_behind_the_end_are_ignored(make_dataset):
    path = make_dataset()
    with open(path, "ab") as raw:
        raw.write(b"more" * 100)
    with Dataset(path) as dataset:
        dataset.verify()


def change(path, work):
    with h5py.File(path, "r+") as file:
        work(file)


def attribute(name, value):
    return lambda path: change(path, lambda file: file.attrs.__setitem__(name, value))


def without_attribute(path):
    change(path, lambda file: file.attrs.__delitem__("digest"))


def array(name, data, **options):
    """Put another array in the place of one."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_dataset(name, data=data, **options)

    return damage


def without_array(name):
    return lambda path: change(path, lambda file: file.__delitem__(name))


def link(name, to):
    def damage(path):
        with h5py.File(path, "r+") as file:
            file.move(name, "elsewhere")
            file[name] = to

    return damage


def hard_link_to_a_group(path):
    with h5py.File(path, "r+") as file:
        del file["view"]
        file.create_group("view")


def fifo(path):
    """A file that blocks for ever whoever opens it for reading."""
    other = path.with_name("other")
    os.mkfifo(other)
    return other


def external_link(path):
    link("images", h5py.ExternalLink(str(fifo(path)), "/images"))(path)


def external_storage(path):
    raw = [(str(fifo(path)), 0, 36 * 256)]
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset("images", (36, 16, 16, 1), np.uint8, external=raw)


def virtual(name, dtype):
    def damage(path):
        with h5py.File(path, "r+") as file:
            shape = file[name].shape
            del file[name]
            layout = h5py.VirtualLayout((*shape[:1], *shape[1:]), dtype, maxshape=(None, *shape[1:]))
            source = h5py.VirtualSource(str(fifo(path)), name, shape, dtype, maxshape=(None, *shape[1:]))
            every = h5py.h5s.UNLIMITED
            layout[(slice(0, every), *[slice(None)] * (len(shape) - 1))] = source[
                (slice(0, every), *[slice(None)] * (len(shape) - 1))
            ]
            file.create_virtual_dataset(name, layout)

    return damage


def unknown_filter(path):
    with h5py.File(path, "r+") as file:
        del file["images"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 16, 16, 1))
        plist.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL, (4, 261, 256))
        space = h5py.h5s.create_simple((36, 16, 16, 1))
        h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, plist)


def without_data(path):
    with h5py.File(path, "r+") as file:
        del file["view"]
        file.create_dataset("view", (36,), h5py.string_dtype())


def one_image_without_data(path):
    with h5py.File(path, "r+") as file:
        images = file["images"][:]
        del file["images"]
        stored = file.create_dataset("images", images.shape, images.dtype, chunks=(1, 16, 16, 1))
        stored[:35] = images[:35]


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def no_hdf5(path):
    path.write_text("no HDF5")


def another_hdf5(path):
    path.unlink()
    h5py.File(path, "w").close()


def not_utf8(path):
    with h5py.File(path, "r+") as file:
        file["view"][0] = b"\xff\xfe"


IMAGES = np.zeros((36, 16, 16, 1), np.uint8)
TEXTS = np.array(["x"] * 36, object)
PER_IMAGE = {"chunks": (1, 16, 16, 1)}
DAMAGES = [
    (Path.unlink, "there is no dataset"),
    (no_hdf5, "not an HDF5 file"),
    (cut_short, "cut short"),
    (another_hdf5, "not a petgan dataset"),
    (attribute("schema_version", 99), "another schema version: got 99; allowed: 1, 2"),
    (attribute("schema_version", "two"), "its header cannot be read"),
    (without_attribute, "it lacks digest"),
    (attribute("configuration", "{"), "its header cannot be read"),
    (attribute("configuration", "[" * 50_000), "its header cannot be read"),
    (attribute("configuration", 7), "its header cannot be read"),
    (attribute("configuration", "[]"), "its configuration is no mapping"),
    (attribute("configuration", "null"), "its configuration is no mapping"),
    *[(without_array(name), f"'{name}' is missing") for name in ("images", *COLUMNS)],
    (array("images", IMAGES[..., 0], chunks=(1, 16, 16)), r"'images' has the shape \(36, 16, 16\)"),
    (array("images", IMAGES[:, :8], chunks=(1, 8, 16, 1)), r"'images' has the shape \(36, 8, 16, 1\)"),
    (array("images", IMAGES[:35], **PER_IMAGE), r"'patient' has the shape \(36,\) for 35 images"),
    (array("images", IMAGES.astype("int16"), **PER_IMAGE), "'images' is of another type"),
    (array("images", IMAGES.astype(">f4"), **PER_IMAGE), "'images' is of another type"),
    (array("images", IMAGES, chunks=IMAGES.shape), "'images' is not stored image by image"),
    (array("images", IMAGES), "'images' is not stored image by image"),
    (one_image_without_data, "'images' is not stored image by image"),
    (array("split", TEXTS[:35]), r"'split' has the shape \(35,\)"),
    (array("split", TEXTS[:, None]), r"'split' has the shape \(36, 1\)"),
    (array("split", np.arange(36)), "'split' is no text"),
    (array("split", TEXTS.astype("S1")), "'split' is no text"),
    (not_utf8, "its arrays cannot be read"),
    (without_data, "'view' has no data"),
    (external_link, "'images' is a link"),
    (link("images", h5py.SoftLink("/elsewhere")), "'images' is a link"),
    (link("split", h5py.SoftLink("/elsewhere")), "'split' is a link"),
    (hard_link_to_a_group, "'view' is no array"),
    (external_storage, "'images' is stored in another file"),
    (virtual("images", np.uint8), "'images' is stored in another file"),
    (virtual("view", h5py.string_dtype()), "'view' is stored in another file"),
    (unknown_filter, "'images' is compressed in a way"),
]


@pytest.mark.timeout(30)  # what follows a way out of the file waits for ever: see fifo
@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[words for _, words in DAMAGES])
def test_what_is_no_whole_dataset_is_refused(make_dataset, damage, words):
    path = make_dataset()
    damage(path)
    with pytest.raises(DatasetError, match=words) as refusal:
        Dataset(path)
    assert "\n" not in str(refusal.value)


def test_a_dataset_of_schema_1_opens():
    with Dataset(SCHEMA_1) as dataset:
        assert (len(dataset), dataset.image_size, dataset.dtype, dataset.schema_version) == (
            8,
            16,
            np.uint8,
            1,
        )
        dataset.verify()
        assert set(dataset.columns["collection"]) == {"other"}
        np.testing.assert_array_equal(dataset.indices("train"), [0, 1, 2, 3])
        yy, xx = np.mgrid[:16, :16]
        for index in range(8):
            image = yy * (index // 2 + 1) * 3 + xx * (index % 2 + 1) * 2
            np.testing.assert_array_equal(dataset.image(index)[..., 0], image)
        assert dataset.images("train").shape == (4, 16, 16, 1)
        assert dataset.reference.modality == "pet"


def test_a_run_reads_a_dataset_of_schema_1(make_run):
    run = make_run(SCHEMA_1)
    images, validation = worker._read_images(run.config())
    assert (len(images), len(validation)) == (4, 2)


@pytest.mark.parametrize("change", ["pixel", "row"])
def test_verify_finds_changes_in_schema_1(tmp_path, change):
    path = tmp_path / "a.h5"
    path.write_bytes(SCHEMA_1.read_bytes())
    with h5py.File(path, "r+") as file:
        CHANGES[change](file)
    with Dataset(path) as dataset, pytest.raises(DatasetError, match="damaged"):
        dataset.verify()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_splits_are_decided_when_all_images_are_written(tmp_path, dtype):
    """By what is seen in the images: dark ones train, others test."""
    written = [(row, image.astype(dtype)) for row, image in rows(100)]

    def splits(given, image_of):
        assert list(given) == [row for row, _ in written]
        assert all(np.array_equal(image_of(n), image) for n, (_, image) in enumerate(written))
        return ["train" if image_of(n)[0, 0] < 128 else "test" for n in range(len(given))]

    decided = ["train" if image[0, 0] < 128 else "test" for _, image in written]
    digest = write_dataset(tmp_path / "a.h5", written, splits=splits, image_size=16, dtype=dtype, **MEANING)
    with Dataset(tmp_path / "a.h5") as dataset:
        assert list(dataset.columns["split"]) == decided
        dataset.verify()
    known = [(replace(row, split=split), image) for (row, image), split in zip(written, decided, strict=True)]
    assert write_dataset(tmp_path / "b.h5", known, image_size=16, dtype=dtype, **MEANING) == digest
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("answer", [["train"] * 5, ["dev"] * 6])
def test_splits_that_do_not_fit_are_a_mistake_of_the_program(tmp_path, answer):
    with pytest.raises(ValueError, match="for 6 rows"):
        write_dataset(
            tmp_path / "a.h5", rows(), splits=lambda rows, image_of: answer, image_size=16, **MEANING
        )
    assert not list(tmp_path.iterdir())


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
random = np.random.default_rng(0)  # noise cannot be compressed
noise = random.integers(0, 256, (200, 32, 32), np.uint8)
items = ((Row(str(n), str(n), "train", "slice"), image) for n, image in enumerate(noise))
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
