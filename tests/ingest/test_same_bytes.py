"""The same files give the same bytes: in any order, with any number of workers, with any part of a cache.

The files hold what could tell the ways apart: refusals, copies of files, copies of pictures across patients,
pictures that wait for a person, and such as have been accepted.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from ingest.test_pipeline import decide
from petgan.ingest import Options, cache_folder, ingest
from petgan.ingest.quarantine import read_decisions

pytestmark = pytest.mark.slow

SUFFIXES = (".h5", ".ingest.json", ".quarantine.csv", ".quarantine.png")
WORKERS = (1, 2, 3)
PERSON = r"(\d)[.]\w+$"  # the number that a file is called by


def breast(seed):
    """A volume of smooth patches, (6, 16, 16), unlike that of another seed."""
    coarse = np.random.default_rng(seed).integers(50, 3000, (6, 8, 8))
    return np.kron(coarse, np.ones((1, 2, 2))).astype(np.uint16)


@pytest.fixture
def pet(tmp_path, write_dicom):
    """Six patients; two of them are one, two are doubtful, one is refused, one has a slice twice."""
    for number, (seed, change) in enumerate(
        [
            (0, {}),
            (1, {}),
            (0, {}),  # of another name
            (3, {"BurnedInAnnotation": "YES"}),
            (4, {"PatientWeight": None}),
            (5, {}),
        ]
    ):
        for k, stored in enumerate(breast(seed)):
            doubtful = {"BurnedInAnnotation": "YES"} if (number, k) == (5, 2) else {}
            write_dicom(
                f"pet/{'ab'[number % 2]}/{number}-{(5 * k + 2) % 6}.dcm",
                stored,
                PatientID=f"P{number}",
                SeriesInstanceUID=f"1.2.{number + 1}",
                SOPInstanceUID=f"1.2.{number + 1}.{k + 1}",
                RescaleSlope=str(k + 1),
                ImagePositionPatient=["0", "0", str(2 * k)],
                PixelSpacing=["2", "2"],
                **change,
                **doubtful,
            )
    shutil.copy(tmp_path / "pet/a/0-1.dcm", tmp_path / "pet/b/z.dcm")
    (tmp_path / "pet/b/broken.dcm").write_bytes(b"DICM")
    (tmp_path / "pet/a/notes.txt").write_text("no image")
    return tmp_path / "pet"


@pytest.fixture
def films(tmp_path, write_dicom, write_picture):
    """Of women and of nobody knows whom: two pairs of copies, three with a label, two captures."""
    y, x = np.mgrid[:300, :200]
    inside = ((y - 150) / 110) ** 2 + (x / 100) ** 2 < 1
    for number, seed in enumerate((0, 1, 0, 3, 4, 1, 6)):
        coarse = np.random.default_rng(seed).integers(100, 200, (30, 20))
        film = np.where(inside, np.kron(coarse, np.ones((10, 10))), 0).astype(np.uint8)
        if number in (1, 4, 5):
            film[20:45, 140:175] = 250
        folder = f"films/{'ab'[number % 2]}"
        if number not in (3, 6):
            write_picture(f"{folder}/{number}.png", film)
        else:
            doubtful = {"BurnedInAnnotation": "YES"} if number == 3 else {}
            capture = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT", **doubtful}
            write_dicom(
                f"{folder}/{number}.dcm", film.astype(np.uint16), "MG",
                PatientID=f"P{number}", SOPInstanceUID=f"1.2.{number + 1}", **capture,
            )  # fmt: skip
    return tmp_path / "films"


def written(output):
    """What a run has written, but for its cache."""
    return {suffix: output.with_name(output.stem + suffix).read_bytes() for suffix in SUFFIXES}


def assert_same(found, expected):
    for suffix in SUFFIXES:
        assert found[suffix] == expected[suffix], suffix


def in_another_order(source, target):
    """The same files, made in another order and at another time."""
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    for number in np.random.default_rng(1).permutation(len(files)):
        (target / files[number]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / files[number], target / files[number])
    return target


CASES = [
    ("pet", Options(size=16)),
    ("pet", Options(size=16, take="mip:coronal,sagittal")),
    ("pet", Options(size=16, take="slices:every=2", units="stored", dtype="float32")),
    ("films", Options(size=16, patients=PERSON)),
    ("films", Options(size=16, patients=PERSON, mask_film=True, orient="left")),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_any_order_any_number_of_workers_and_any_part_of_a_cache(tmp_path, request, kind, options):
    source = request.getfixturevalue(kind)
    record = ingest([source], tmp_path / "first/o.h5", options, workers=1)
    expected = written(tmp_path / "first/o.h5")
    told = {name: record[name] for name in ("duplicates", "quarantine", "refused")}
    assert told["quarantine"]["pictures"] > 0
    assert told["duplicates"]["across_patients"] > 0
    if kind == "pet":
        assert told["refused"]["files"] >= 2
    other = in_another_order(source, tmp_path / "other")
    for workers in WORKERS:
        output = tmp_path / str(workers) / "o.h5"
        ingest([other], output, options, workers=workers)
        assert_same(written(output), expected)
        for path in sorted(path for path in (other / "b").rglob("*") if path.is_file()):
            path.touch()  # half of the files are to be read again
        ingest([other], output, options, workers=workers)
        assert_same(written(output), expected)
    ingest([other], output, options, workers=1)  # all is known, from runs of several workers
    assert_same(written(output), expected)
    for path in cache_folder(output).iterdir():
        with open(path, "r+b") as torn:
            torn.truncate(path.stat().st_size // 2)
    ingest([other], output, options, workers=1)
    assert_same(written(output), expected)


@pytest.mark.parametrize(("kind", "options"), CASES[:2] + CASES[3:4])
def test_with_pictures_that_were_accepted(tmp_path, request, kind, options):
    """Whoever runs it: from the beginning, or over the cache of a run in which they waited."""
    source = request.getfixturevalue(kind)
    first = tmp_path / "first" / "o.h5"
    waiting = ingest([source], first, options, workers=1)
    decide(tmp_path / "first" / "o.quarantine.csv")
    accepted = read_decisions(tmp_path / "first" / "o.quarantine.csv")
    assert accepted
    record = ingest([source], first, options, workers=1, decisions=accepted)
    assert record["images"] > waiting["images"]
    assert record["quarantine"]["accepted"] > 0
    for workers in WORKERS:
        output = tmp_path / str(workers) / "o.h5"
        for _ in range(2):
            ingest(
                [source],
                output,
                options,
                workers=workers,
                decisions=dict(sorted(accepted.items(), reverse=True)),
            )
            assert_same(written(output), written(first))


@pytest.mark.parametrize("kind", ["pet", "films"])
def test_sources_in_any_order(tmp_path, request, kind):
    """Two folders instead of the one above them."""
    source = request.getfixturevalue(kind)
    options = Options(size=16, patients={"pet": "auto", "films": PERSON}[kind])
    both = [source / "a", source / "b"]
    for workers, sources in ((1, both), (2, both[::-1]), (3, both)):
        ingest(sources, tmp_path / str(workers) / "o.h5", options, workers=workers)
    for workers in WORKERS[1:]:
        assert_same(written(tmp_path / str(workers) / "o.h5"), written(tmp_path / "1/o.h5"))
