"""What a person looks at, what goes together, and what a cache may not hide."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
from contextlib import nullcontext, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import h5py
import numpy as np
import pydicom
import pytest
from pydicom import dcmread
from pydicom.uid import DigitalMammographyXRayImageStorageForProcessing, SecondaryCaptureImageStorage
from scipy import ndimage

from ingest.conftest import multi_frame_pet
from petgan import cli
from petgan.errors import ConfigError, DiskError, InputError
from petgan.ingest import Options, ingest, make_plan
from petgan.ingest.deidentify import load_key
from petgan.ingest.field import breast_box, cut, square_box
from petgan.ingest.frame import QUANTILES
from petgan.ingest.images import _quantiles, make_unit, preview
from petgan.ingest.known import code_version
from petgan.ingest.quarantine import read_decisions
from petgan.ingest.resize import square
from petgan.ingest.scan import find_files, refusal, scan_file
from petgan.ingest.volume import PROJECTED
from petgan.phantom.mammogram import write_mammograms
from petgan.store import Dataset

SMALL = Options(size=16)


def pet_slice(k):
    return np.random.default_rng(k).integers(0, 1000, (16, 16), np.uint16)


@pytest.fixture
def write_series(write_dicom, tmp_path):
    def write(folder="pet", doubtful=(), **attributes):
        for k in range(5):
            burned = {"BurnedInAnnotation": "YES"} if k in doubtful else {}
            write_dicom(
                f"{folder}/{'cbeda'[k]}.dcm",
                pet_slice(k),
                ImagePositionPatient=["0", "0", str(2 * k)],
                PixelSpacing=["2", "2"],
                **attributes,
                **burned,
            )
        return tmp_path / folder

    return write


def decide(path, decision="accept"):
    """Write a decision beside every picture of a list; the list."""
    with open(path, newline="") as file:
        lines = list(csv.reader(file))
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([lines[0], *([*line[:-1], decision] for line in lines[1:])])
    return lines[1:]


@pytest.mark.parametrize("doubtful", [range(5), [3]])
def test_a_projection_goes_in_once_all_its_doubtful_slices_are_accepted(tmp_path, write_series, doubtful):
    source, output = write_series(doubtful=doubtful), tmp_path / "out.h5"
    write_series("fine", PatientID="another", SeriesInstanceUID="1.2.3")
    sources = [source, tmp_path / "fine"]
    options = Options(size=16, take="mip:coronal,sagittal")
    record = ingest(sources, output, options, workers=1)
    assert (record["images"], record["quarantine"]["pictures"]) == (2, len(doubtful))
    lines = decide(tmp_path / "out.quarantine.csv")
    assert len({line[1] for line in lines}) == len(lines) == len(doubtful)
    accepted = read_decisions(tmp_path / "out.quarantine.csv")
    assert (
        ingest(sources, output, options, workers=1, decisions=dict(sorted(accepted.items())[1:]))["images"]
        == 2
    )
    record = ingest(sources, output, options, workers=1, decisions=accepted)
    assert (record["images"], record["quarantine"]["pictures"]) == (4, 0)


def test_the_quarantine_list_is_the_same_with_a_cache_of_half_of_it(tmp_path, write_series):
    options = Options(size=16, patients="folder")
    write_series("scans/one", doubtful=range(5))
    write_series("scans/three", PatientID="c", SeriesInstanceUID="1.2.5")
    ingest([tmp_path / "scans"], tmp_path / "cached/o.h5", options, workers=1)
    write_series("scans/two", doubtful=range(5), PatientID="b", SeriesInstanceUID="1.2.4")
    for output in ("cached", "fresh"):
        ingest([tmp_path / "scans"], tmp_path / output / "o.h5", options, workers=1)
    for name in ("o.h5", "o.ingest.json", "o.quarantine.csv", "o.quarantine.png"):
        assert (tmp_path / "cached" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes(), name


@pytest.mark.parametrize("options", [{"orient": "left"}, {"mask_film": True}])
def test_pet_is_neither_mirrored_nor_masked(write_series, options):
    with pytest.raises(ConfigError, match="PET"):
        make_plan([write_series()], Options(size=16, **options), workers=1)


def test_a_film_is_read_again_when_its_case_has_changed(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    stored = np.tile(np.arange(64) * 60, (64, 1)).astype(">u2")
    (folder / "A_1141_1.LEFT_CC.LJPEG.1").write_bytes(stored.tobytes())
    said = "LEFT_CC LINES 64 PIXELS_PER_LINE 64 BITS_PER_PIXEL 12 RESOLUTION 50 OVERLAY"
    made = []
    for digitizer in ("HOWTEK", "DBA 21"):
        (folder / "A-1141-1.ics").write_text(f"DIGITIZER {digitizer}\n{said}\n")
        options = Options(size=16, window="full")
        ingest([folder], tmp_path / "o.h5", options, workers=1)
        with Dataset(tmp_path / "o.h5") as dataset:
            made.append(dataset.images())
    (tmp_path / "fresh").mkdir()
    ingest([folder], tmp_path / "fresh/o.h5", options, workers=1)
    assert (tmp_path / "o.h5").read_bytes() == (tmp_path / "fresh/o.h5").read_bytes()
    assert not np.array_equal(*made)


def test_a_film_that_cannot_be_masked_stays_out(tmp_path, write_picture):
    line = 255 * np.eye(200, dtype=np.uint8)
    write_picture("films/one/a.png", line)
    write_picture("films/two/a.png", line[:, ::-1])
    assert ingest([tmp_path / "films"], tmp_path / "o.h5", SMALL, workers=1)["images"] == 2
    options = Options(size=16, mask_film=True)
    with pytest.raises(InputError, match="2 pictures wait"):
        ingest([tmp_path / "films"], tmp_path / "o.h5", options, workers=1)


@pytest.mark.parametrize("options", [{}, {"mask_film": True}, {"orient": "left"}])
def test_a_page_waits_for_a_person(tmp_path, write_picture, options):
    y, x = np.mgrid[:300, :200]
    film = np.where(((y - 150) / 110) ** 2 + (x / 100) ** 2 < 1, 120, 0).astype(np.uint8)
    write_picture("files/one/film.png", film)
    write_picture("files/two/page.png", 255 - np.roll(film, 50, axis=1))
    record = ingest([tmp_path / "files"], tmp_path / "o.h5", Options(size=16, **options), workers=1)
    assert (record["images"], record["quarantine"]["pictures"]) == (1, 1)


def test_the_sheets_of_a_quarantine_are_no_pictures(tmp_path, write_series, write_picture):
    source = write_series("scans/pet", doubtful=range(5))
    write_series("scans/fine", PatientID="another", SeriesInstanceUID="1.2.3")
    output = tmp_path / "scans" / "o.h5"
    first = ingest([tmp_path / "scans"], output, SMALL, workers=1)
    assert output.with_name("o.quarantine.png").exists()
    plan = make_plan([tmp_path / "scans"], SMALL, workers=1)
    assert "sheet of an ingest's quarantine" in plan.skipped
    assert (len(plan.pictures), plan.refused) == (first["images"], {})
    write_picture("scans/pet/x.quarantine.png", np.zeros((9, 9), np.uint8))  # somebody's, without a list
    assert make_plan([source], Options(modality="mammogram"), workers=1).files == 6


def test_pet_of_nobody_is_not_all_of_one_patient(tmp_path, write_series):
    source = write_series(PatientID="ANONYMIZED")
    plan = make_plan([source], SMALL, workers=1)
    assert len(plan.refused) == 5
    assert "no PatientID" in plan.refused.popitem()[1]


def test_memory_that_is_lacking_is_no_damage():
    assert "memory" in refusal(MemoryError()).reason


@pytest.mark.parametrize("shape", [(16, 16), (700, 500), (1024, 4096), (300, 4096)])
def test_quantiles_of_large_pictures_are_close(shape):
    values = np.random.default_rng(0).gamma(2, 100, shape).astype(np.float32)
    values[:, ::64] += 1000  # of 64 columns one differs
    found = _quantiles(values)
    assert (found[0], found[-1]) == (values.min(), values.max())
    shares = np.searchsorted(np.sort(values.ravel()), found, side="right") / values.size
    np.testing.assert_allclose(shares, QUANTILES, atol=0.01)


@pytest.mark.parametrize("library", ["numpy", "python-gdcm", "pylibjpeg-libjpeg"])
def test_another_version_of_a_library_is_another_code(monkeypatch, library):
    def missing(name):
        raise PackageNotFoundError

    found = []
    for other in (lambda name: "1", lambda name: "2", missing):
        monkeypatch.setattr(
            "petgan.ingest.known.version", lambda name, other=other: other(name) if name == library else "1"
        )
        found.append(code_version.__wrapped__())
    assert len(set(found)) == 3


def test_what_another_version_made_is_made_again(tmp_path, write_picture, monkeypatch):
    write_picture("files/a.png", np.eye(16, dtype=np.uint8))
    made = []
    monkeypatch.setattr("petgan.ingest.pipeline.make_unit", lambda unit: made.append(unit) or make_unit(unit))
    for version in ("1", "1", "2"):
        monkeypatch.setattr("petgan.ingest.images.code_version", lambda version=version: version)
        ingest([tmp_path / "files"], tmp_path / "o.h5", SMALL, workers=1)
    assert len(made) == 2


@pytest.mark.parametrize("take", ["all", "mip:coronal,sagittal,axial"])
def test_single_slices_give_the_dataset_of_one_multi_frame_file(tmp_path, write_dicom, take):
    """20 oblique slices with 20 slopes, their names and numbers shuffled."""
    random = np.random.default_rng(4)
    stored = random.integers(0, 65536, (20, 16, 16), np.uint16)
    slopes = [f"{slope:.6f}" for slope in random.uniform(0.01, 7, 20)]
    across, down, normal = (0.8, 0.6, 0.0), (0.0, 0.0, -1.0), np.array([-0.6, 0.8, 0.0])
    places = [tuple((np.array([5.0, -40.0, 7.5]) + 3 * k * normal).round(6).tolist()) for k in range(20)]
    for k, name, number in zip(range(20), random.permutation(20), random.permutation(20), strict=True):
        write_dicom(
            f"single/{name % 3}/{name}.dcm",
            stored[k],
            RescaleSlope=slopes[k],
            ImagePositionPatient=list(map(str, places[k])),
            ImageOrientationPatient=list(map(str, (*across, *down))),
            PixelSpacing=["3", "3"],
            InstanceNumber=str(number),
        )
    order = random.permutation(20)
    planes = [(places[k], across, down) for k in order]
    data = multi_frame_pet(stored[order], [slopes[k] for k in order], planes, (3.0, 3.0))
    (tmp_path / "multi").mkdir()
    data.save_as(tmp_path / "multi" / "all.dcm", enforce_file_format=True)
    options = Options(size=16, dtype="float32", take=take)
    for name in ("single", "multi"):
        ingest([tmp_path / name], tmp_path / f"{name}.h5", options, workers=1)
    with Dataset(tmp_path / "single.h5") as single, Dataset(tmp_path / "multi.h5") as multi:
        assert single.units == multi.units == "suvbw"
        np.testing.assert_array_equal(single.images(), multi.images())
        assert single.digest == multi.digest
        if take == "all":
            ratio = single.images()[..., 0] / (stored * np.array(slopes, float)[:, None, None])
            assert np.ptp(ratio) < 1e-6 * ratio.max()


def test_sheets_are_drawn_again_only_for_other_pictures(tmp_path, write_series, monkeypatch):
    write_series("scans/doubtful", doubtful=range(5), SeriesInstanceUID="1.2.3")
    write_series("scans/fine", PatientID="another")
    shown = []
    monkeypatch.setattr("petgan.ingest.pipeline.preview", lambda one: shown.append(one) or preview(one))
    sheet = tmp_path / "o.quarantine.png"

    def again(**options):
        shown.clear()
        ingest([tmp_path / "scans"], tmp_path / "o.h5", SMALL, workers=1, **options)
        return len(shown), sheet.read_bytes()

    number, first = again()
    assert number == 5
    decide(tmp_path / "o.quarantine.csv")
    assert again() == (0, first)
    assert len(read_decisions(tmp_path / "o.quarantine.csv")) == 5
    sheet.unlink()
    assert again() == (5, first)
    write_series("scans/doubtful", doubtful=range(5), SeriesInstanceUID="1.2.3", ImageComments="other")
    assert again()[0] == 5


def test_sheets_show_what_the_list_names_whatever_was_there(tmp_path, write_series):
    """Also after a run that failed, and drew others over them."""
    write_series("one", doubtful=[0], SeriesInstanceUID="1.2.3")
    write_series("two", doubtful=range(5), SeriesInstanceUID="1.2.4")
    lists, sheets = [], []
    for source in ("one", "two", "one"):
        try:
            ingest([tmp_path / source], tmp_path / "o.h5", SMALL, workers=1)
        except InputError:
            assert source == "two"
        lists.append((tmp_path / "o.quarantine.csv").read_bytes())
        sheets.append((tmp_path / "o.quarantine.png").read_bytes())
    assert (lists[0], sheets[0]) == (lists[2], sheets[2])
    assert sheets[0] != sheets[1]


def test_a_damaged_quarantine_list_is_told_of_before_any_work(tmp_path, write_series, monkeypatch):
    source = write_series("one", doubtful=[0])
    ingest([source], tmp_path / "o.h5", SMALL, workers=1)
    path = tmp_path / "o.quarantine.csv"
    path.write_text(path.read_text().rstrip("\n") + "acept\n")
    before = {file: file.read_bytes() for file in tmp_path.glob("o.*") if file.is_file()}
    monkeypatch.setattr("petgan.ingest.pipeline.plan_with", None)
    with pytest.raises(ConfigError, match="line 2 .* unknown decision"):
        ingest([source], tmp_path / "o.h5", SMALL, workers=1)
    assert {file: file.read_bytes() for file in tmp_path.glob("o.*") if file.is_file()} == before


def test_of_a_file_with_several_images_those_go_in_that_are_accepted(tmp_path, write_series):
    planes = [((0.0, 0.0, 2.0 * k), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)) for k in range(3)]
    stored = np.stack([pet_slice(k) for k in range(3)])
    data = multi_frame_pet(stored, ["1"] * 3, planes, BurnedInAnnotation="YES", PatientID="c")
    (tmp_path / "multi").mkdir()
    data.save_as(tmp_path / "multi/all.dcm", enforce_file_format=True)
    sources = [tmp_path / "multi", write_series("fine", PatientID="another", SeriesInstanceUID="1.2.3")]
    path = tmp_path / "o.quarantine.csv"
    ingest(sources, tmp_path / "o.h5", SMALL, workers=1)
    words = ["accept", "reject", ""]
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *map("".join, zip(lines, words, strict=True))]))
    for _ in range(2):
        record = ingest(sources, tmp_path / "o.h5", SMALL, workers=1, decisions=read_decisions(path))
        assert (record["images"], record["quarantine"]["accepted"]) == (6, 1)
        assert (record["quarantine"]["pictures"], record["quarantine"]["rejected"]) == (1, 1)
        assert sorted(one.word for one in read_decisions(path).values()) == sorted(words)


def test_what_was_rejected_waits_no_more(tmp_path, write_series):
    """With the list given, or only there."""
    write_series("scans/doubtful", doubtful=[0, 1], SeriesInstanceUID="1.2.3")
    write_series("scans/fine", PatientID="another")
    path = tmp_path / "o.quarantine.csv"

    def again(**options):
        record = ingest([tmp_path / "scans"], tmp_path / "o.h5", SMALL, workers=1, **options)
        return record["quarantine"]["pictures"], record["quarantine"]["rejected"]

    assert again() == (2, 0)
    decide(path, "reject")
    decisions = read_decisions(path)
    assert again() == again(decisions=decisions) == (0, 2)
    decide(path, "")
    assert again(decisions=read_decisions(path)) == (2, 0)
    path.unlink()
    assert again(decisions=dict(sorted(decisions.items())[:1])) == (1, 1)
    assert sorted(one.word for one in read_decisions(path).values()) == ["", "reject"]


def test_a_film_that_was_rejected_waits_no_more(tmp_path, write_picture):
    y, x = np.mgrid[:600, :400]
    film = np.where(((y - 300) / 220) ** 2 + (x / 200) ** 2 < 1, 120, 0).astype(np.uint8)
    write_picture("films/one/a.png", film)
    film[40:90, 280:350] = 230  # a label
    write_picture("films/two/a.png", film)
    for expected in ((1, 0), (0, 1)):
        record = ingest([tmp_path / "films"], tmp_path / "o.h5", SMALL, workers=1)
        assert (record["quarantine"]["pictures"], record["quarantine"]["rejected"]) == expected
        decide(tmp_path / "o.quarantine.csv", "reject")


def test_a_picture_with_two_reasons_to_look_is_accepted_once(tmp_path, write_dicom):
    y, x = np.mgrid[:600, :400]
    film = np.where(((y - 300) / 220) ** 2 + (x / 200) ** 2 < 1, 1200, 0).astype(np.uint16)
    film[40:90, 280:350] = 2300  # a label
    write_dicom("films/a.dcm", film, "MG", SOPClassUID=SecondaryCaptureImageStorage, Modality="OT")
    with pytest.raises(InputError, match="1 pictures wait"):
        ingest([tmp_path / "films"], tmp_path / "o.h5", SMALL, workers=1)
    decide(tmp_path / "o.quarantine.csv")
    for _ in range(2):
        accepted = read_decisions(tmp_path / "o.quarantine.csv")
        record = ingest([tmp_path / "films"], tmp_path / "o.h5", SMALL, workers=1, decisions=accepted)
        assert (record["images"], record["quarantine"]["accepted"]) == (1, 1)
    assert len(decide(tmp_path / "o.quarantine.csv")) == 1


@pytest.mark.parametrize("times_tell", [True, False])
def test_another_file_under_the_name_of_an_accepted_one_waits(
    tmp_path, write_series, monkeypatch, times_tell
):
    """Even with a file system that tells the same times of two contents."""
    if not times_tell:
        monkeypatch.setattr("petgan.ingest.scan._stamp", lambda path, name, key: key.seal("stamp", name))
    source, output = write_series("scans", doubtful=[1]), tmp_path / "o.h5"
    write_series("scans/fine", PatientID="another", SeriesInstanceUID="1.2.3")
    ingest([source], output, SMALL, workers=1)
    decide(tmp_path / "o.quarantine.csv")
    accepted = read_decisions(tmp_path / "o.quarantine.csv")
    whole = ingest([source], output, SMALL, workers=1, decisions=accepted)
    assert whole["quarantine"] == {"accepted": 1, "by_reason": {}, "pictures": 0, "rejected": 0}
    ((name, _),) = accepted
    (changed,) = [
        p for p in source.rglob("*.dcm") if load_key().name(p.relative_to(source).as_posix()) == name
    ]
    sheet = (tmp_path / "o.quarantine.png").read_bytes()
    data = dcmread(changed)
    data.PixelData = bytes(len(data.PixelData))
    data.save_as(changed)
    record = ingest([source], output, SMALL, workers=1, decisions=accepted)
    assert (record["images"], record["quarantine"]["pictures"]) == (whole["images"] - 1, 1)
    (decision,) = read_decisions(tmp_path / "o.quarantine.csv").values()
    assert decision.word == ""
    assert (tmp_path / "o.quarantine.png").read_bytes() != sheet


def test_what_petgan_wrote_beside_its_sources_is_no_source(tmp_path, pictures):
    options = Options(size=16, patients="folder")
    first = ingest([pictures], pictures / "o.h5", options, workers=1)
    (pictures / "o.quarantine.png").write_bytes((pictures / "woman-0/L.png").read_bytes())
    assert ingest([pictures], pictures / "o.h5", options, workers=1) == first


@pytest.mark.parametrize("name", ["woman-0.1.png", "woman-0.png", "woman-0.quarantine-of-1948.png"])
def test_a_picture_that_is_only_named_like_the_dataset_is_a_source(tmp_path, write_picture, name):
    write_picture(f"files/{name}", np.eye(16, dtype=np.uint8))
    record = ingest([tmp_path / "files"], tmp_path / "files/woman-0.h5", SMALL, workers=1)
    assert (record["files"], record["images"]) == (1, 1)
    assert ingest([tmp_path / "files"], tmp_path / "files/woman-0.h5", SMALL, workers=1) == record


def test_the_preview_of_a_dataset_is_no_source(tmp_path, pictures):
    options = Options(size=16, patients="folder")
    first = ingest([pictures], pictures / "o.h5", options, workers=1)
    assert cli.main(["dataset", "preview", str(pictures / "o.h5")]) == 0
    assert (pictures / "o.preview.png").exists()
    assert ingest([pictures], pictures / "o.h5", options, workers=1) == first


def test_a_folder_that_cannot_be_written_is_told_of_before_anything_is_read(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("petgan.ingest.pipeline.plan_with", None)
    with pytest.raises(DiskError, match="cannot write"):
        ingest([pictures], "/proc/o.h5", SMALL, workers=1)


def test_a_copy_is_remembered_as_one(tmp_path, write_series, monkeypatch):
    source = write_series("scans")
    shutil.copy(next(source.rglob("*.dcm")), source / "copy.dcm")
    first = ingest([source], tmp_path / "o.h5", SMALL, workers=1)
    scanned = []
    monkeypatch.setattr("petgan.ingest.scan.scan_file", lambda path: scanned.append(path) or scan_file(path))
    assert ingest([source], tmp_path / "o.h5", SMALL, workers=1) == first
    assert not scanned


def test_what_was_skipped_is_not_opened_again(tmp_path, write_series, write_dicom, monkeypatch):
    source = write_series("scans")
    write_dicom("scans/ct.dcm", pet_slice(9), Modality="CT")
    write_dicom("scans/mask.dcm", pet_slice(9), "MG", PatientID="Mass-Training_P_00001_LEFT_CC_1")
    (source / "notes.txt").write_text("Jane Doe")
    first = ingest([source], tmp_path / "o.h5", SMALL, workers=1)
    assert (first["images"], list(first["skipped"].values())) == (5, [1, 1, 1])
    scanned = []
    monkeypatch.setattr("petgan.ingest.scan.scan_file", lambda path: scanned.append(path) or scan_file(path))
    assert ingest([source], tmp_path / "o.h5", SMALL, workers=1) == first
    assert not scanned
    write_dicom("scans/ct.dcm", pet_slice(9), SeriesInstanceUID="1.2.3")
    assert ingest([source], tmp_path / "o.h5", SMALL, workers=1)["images"] == first["images"] + 1
    assert [path.name for path in scanned] == ["ct.dcm"]


def test_what_was_skipped_for_its_neighbour_is_looked_at_again(tmp_path, pictures):
    film, list_file = pictures / "A_1141_1.LEFT_CC.LJPEG", pictures / "a.quarantine.csv"
    for path in (film, film.with_name(f"{film.name}.1"), list_file):
        path.write_bytes(b"x")
    shutil.copy(pictures / "woman-0/L.png", pictures / "a.quarantine.png")
    first = ingest([pictures], tmp_path / "o.h5", SMALL, workers=1)
    film.with_name(f"{film.name}.1").unlink()
    list_file.unlink()
    told = {}
    record = ingest([pictures], tmp_path / "o.h5", SMALL, workers=1, refuse=told.__setitem__)
    assert load_key().name(film.name) in told
    assert sum(record["skipped"].values()) == sum(first["skipped"].values()) - 3


def test_pipes_and_links_that_lead_nowhere_hold_nothing_up(tmp_path, pictures):
    first = ingest([pictures], tmp_path / "o.h5", SMALL, workers=1)
    os.mkfifo(pictures / "woman-0/pipe.png")
    (pictures / "woman-0/loop.png").symlink_to("loop.png")
    (pictures / "woman-0/gone.png").symlink_to("nowhere.png")
    told = {}
    record = ingest([pictures], tmp_path / "o.h5", SMALL, workers=1, refuse=told.__setitem__)
    assert record["images"] == first["images"]
    assert set(told) == {load_key().name(f"woman-0/{name}.png") for name in ("loop", "gone")}
    assert set(told.values()) == {"cannot be opened: it has gone, or may not be read"}


def test_links_to_folders_are_followed_and_none_twice(tmp_path, pictures):
    first = ingest([pictures], tmp_path / "o.h5", SMALL, workers=1)
    (pictures / "woman-1").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/.hidden").mkdir()
    (pictures / "woman-1").symlink_to(tmp_path / "elsewhere")
    (pictures / "again").symlink_to("woman-0")  # of which the folder itself counts
    (tmp_path / "elsewhere/up").symlink_to(pictures)
    (pictures / "woman-2/self").symlink_to(".")
    (pictures / "woman-9").symlink_to(tmp_path / "elsewhere")  # of two links the first
    assert ingest([pictures], tmp_path / "o.h5", SMALL, workers=1) == first
    names = [name for _, name in find_files([pictures])]
    assert names == sorted(f"woman-{number}/{side}.png" for number in range(4) for side in "LR")
    given = [pictures / "again", pictures / "woman-0", pictures]
    assert [name for _, name in find_files(given)] == names


def test_images_of_the_other_modality_only_are_told_of(tmp_path, write_series):
    with pytest.raises(InputError, match="5 are of the other modality"):
        ingest([write_series()], tmp_path / "o.h5", Options(modality="mammogram"), workers=1)


def test_what_the_system_lets_nobody_look_at_is_refused_without_its_name(tmp_path, pictures, capfd):
    """Links too long to be followed: pathlib raises of them, as of files in a folder of mode r--."""
    first = ingest([pictures], tmp_path / "o.h5", SMALL, workers=1)
    film = np.zeros((64, 64), ">u2").tobytes()
    (pictures / "woman-0/A_1141_1.LEFT_CC.LJPEG.1").write_bytes(film)  # refused, too: it has no case
    shutil.copy(pictures / "woman-0/L.png", pictures / "woman-0/a.quarantine.png")
    for name in ("DOE_JANE.png", "A-1141-1.ics", "a.quarantine.csv"):
        (pictures / "woman-0" / name).symlink_to("x" * 300)
    arguments = ["ingest", str(pictures), "--output", str(tmp_path / "o.h5"), "--size=16", "--workers=1"]
    assert cli.main(arguments) == 2
    with Dataset(tmp_path / "o.h5") as dataset:
        assert len(dataset) == first["images"]
    err = capfd.readouterr().err
    refused = dict(line.split(" ", 2)[1:] for line in err.splitlines() if line.startswith("refused: "))
    names = ["DOE_JANE.png", "A_1141_1.LEFT_CC.LJPEG.1", "a.quarantine.png"]
    names += ["A-1141-1.ics", "a.quarantine.csv"]  # nobody knows what they are
    assert set(refused) == {load_key().name(f"woman-0/{name}") for name in names}
    assert refused[load_key().name("woman-0/DOE_JANE.png")].startswith("cannot be opened")
    assert not any(word in err for word in ("DOE", "1141", "Traceback", "xxx"))


@pytest.mark.parametrize("command", ["ingest", "dataset"])
def test_an_error_of_the_system_is_one_sentence_without_a_name(
    tmp_path, pictures, monkeypatch, capfd, command
):
    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied", "/clinic/DOE_JANE")

    monkeypatch.setattr("petgan.ingest.scan.os.walk", fail)
    source = ["--source", str(pictures)]
    arguments = {
        "ingest": ["ingest", str(pictures), "--output", str(tmp_path / "o.h5"), "--workers=1"],
        "dataset": ["dataset", "find", "0" * 16, *source],
    }
    load_key()
    assert cli.main(arguments[command]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"petgan {command}: a file or folder cannot be used: Permission denied"
    )


def uid(k, series):
    return {"SOPInstanceUID": f"1.2.{k}", "SeriesInstanceUID": series}


@pytest.mark.parametrize("series", ["1.2.3", "1.2.4"])
def test_copies_whose_originals_have_gone_are_read_again(tmp_path, write_dicom, series):
    """Copies under another patient, in the same series and in one of their own, read in SUV."""

    def write(folder, patient, series):
        for k in range(4):
            place = {"ImagePositionPatient": ["0", "0", str(2 * k)], "PixelSpacing": ["2", "2"]}
            write_dicom(f"s/{folder}/{k}.dcm", pet_slice(k), PatientID=patient, **uid(k, series), **place)

    def agree():
        records = [ingest([tmp_path / "s"], tmp_path / f"{name}.h5", options, workers=1) for name in "of"]
        shutil.rmtree(tmp_path / "f.ingest.cache")
        assert (tmp_path / "o.h5").read_bytes() == (tmp_path / "f.h5").read_bytes()
        assert records[0] == records[1]
        return records[0]["images"], records[0]["refused"]["files"], records[0]["dataset"]["units"]

    options = Options(size=16, dtype="float32")
    write("anon", "B", "1.2.3")
    write("orig", "A", series)
    assert agree() == agree() == (4, 4, "suvbw")
    (tmp_path / "s/anon/3.dcm").unlink()  # its copy goes in
    assert agree() == (4, 3, "suvbw")
    shutil.rmtree(tmp_path / "s/anon")
    assert agree() == (4, 0, "suvbw")
    write("anon", "B", "1.2.3")
    assert agree() == (4, 4, "suvbw")


@pytest.mark.parametrize(
    ("units", "known"), [("DOE JANE", "unknown"), ("BQML", "bqml"), ("STDDEV", "stddev")]
)
def test_units_come_from_dicom_s_list(tmp_path, write_series, units, known):
    source = write_series("scans", Units=units)
    shutil.copytree(source, source / "copies")
    record = ingest([source], tmp_path / "o.h5", Options(size=16, units="stored"), workers=1)
    assert record["dataset"]["units"] == "stored"
    (_, headers) = scan_file(source / "a.dcm")
    assert headers[0].units == known
    assert not any(b"DOE JANE" in path.read_bytes().upper() for path in tmp_path.glob("o.*/*"))


def test_another_content_with_the_times_of_the_old_one_is_read(tmp_path, write_picture):
    """As after cp -p or rsync -t over a file: name, size and mtime agree."""
    source, images = tmp_path / "files", []
    for level in (40, 200):
        write_picture("files/a.pgm", np.random.default_rng(0).integers(0, level, (16, 16), np.uint8))
        os.utime(source / "a.pgm", (1.6e9, 1.6e9))
        ingest([source], tmp_path / "o.h5", SMALL, workers=1)
        with Dataset(tmp_path / "o.h5") as dataset:
            images.append(dataset.images())
    assert images[0].max() < 40 < images[1].max()


def test_nothing_but_a_dataset_is_replaced(tmp_path, pictures, capsys):
    source = pictures / "woman-1/L.png"
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["schema_version"] = 1  # such as a checkpoint's
    (tmp_path / "scan.h5").write_bytes(source.read_bytes())
    for output in (source, tmp_path / "weights.h5", tmp_path / "scan.h5", tmp_path / "new", tmp_path / ".h5"):
        before = output.read_bytes() if output.exists() else None
        for dry in ([], ["--dry-run"]):
            given = ["ingest", str(pictures), "--output", str(output), "--size=16", "--workers=1", *dry]
            assert cli.main(given) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert "woman" not in err
        assert (output.read_bytes() if output.exists() else None) == before
    assert not list(tmp_path.rglob("*.ingest.*"))


@pytest.mark.parametrize("bytes_left", [None, 2000])
def test_a_dataset_is_replaced_even_if_it_is_cut_short(tmp_path, pictures, bytes_left):
    output = tmp_path / "o.h5"
    record = ingest([pictures], output, SMALL, workers=1)
    output.write_bytes(output.read_bytes()[:bytes_left])
    assert ingest([pictures], output, SMALL, workers=1) == record
    Dataset(output).close()


def test_datasets_whose_names_have_dots_share_nothing(tmp_path, pictures):
    ingest([pictures], tmp_path / "set.64.h5", SMALL, workers=1)
    files = {path: path.read_bytes() for path in tmp_path.glob("set.64.*") if path.is_file()}
    ingest([pictures / "woman-0"], tmp_path / "set.128.h5", Options(size=32), workers=1)
    assert all(path.read_bytes() == content for path, content in files.items())
    names = {path.name.removeprefix("set.128.") for path in tmp_path.glob("set.128*")}
    assert names == {path.name.removeprefix("set.64.") for path in tmp_path.glob("set.64*")}


def test_what_asks_an_ingest_to_end_leaves_nothing_half_written(tmp_path, pictures, monkeypatch, capfd):
    found = []

    def stop(*arguments, **options):
        found.extend(tmp_path.glob(".*.tmp"))
        os.kill(os.getpid(), signal.SIGTERM)

    def uncaught(number, frame):
        raise AssertionError("SIGTERM would have ended the process")

    monkeypatch.setattr("petgan.ingest.pipeline.find_duplicates", stop)
    before = signal.signal(signal.SIGTERM, uncaught)
    try:
        given = ["ingest", str(pictures), "--output", str(tmp_path / "o.h5"), "--size=16", "--workers=1"]
        assert cli.main(given) == 130
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # a second one breaks nothing off
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(found) == 1
    assert {path.name for path in tmp_path.glob("*o.*")} == {"o.ingest.cache"}
    assert capfd.readouterr().err.splitlines()[-1] == "petgan ingest: stopped"


def test_what_killed_runs_were_writing_goes_with_the_next_one(tmp_path, pictures):
    process = subprocess.Popen(["true"])
    process.wait()
    own = ("o.h5", "o.ingest.json", "o.quarantine.png", "o.quarantine-2.png", "o.quarantine.csv")
    for name in own:
        (tmp_path / f".{name}.{process.pid}.tmp").write_text("images")
    others = [f".{name}.{process.pid}.tmp" for name in ("p.h5", "o.2.h5", "o.txt")]
    kept = {*others, f".o.h5.{os.getppid()}.tmp", ".o.h5.tmp", ".o.h5.x.tmp"}
    for name in kept:
        (tmp_path / name).write_text("somebody's")
    ingest([pictures], tmp_path / "o.h5", SMALL, workers=1)
    assert {path.name for path in tmp_path.glob(".*.tmp")} == kept


@pytest.mark.parametrize("take", ["all", "central:2", "mip:coronal"])
def test_projections_of_the_scanner_stand_beside_no_slices(tmp_path, write_series, write_dicom, take):
    source = write_series()
    for k in range(3):
        write_dicom(
            f"pet/m{k}.dcm", pet_slice(9 + k), ImageType=["DERIVED", "SECONDARY", "MAX PIXEL"],
            ImagePositionPatient=None, ImageOrientationPatient=None,
        )  # fmt: skip
    record = ingest([source], tmp_path / "pet.h5", SMALL.model_copy(update={"take": take}), workers=1)
    with Dataset(tmp_path / "pet.h5") as dataset:
        assert "projection" not in set(dataset.columns["view"])
    assert record["skipped"] == {PROJECTED: 3}
    assert not record["refused"]["files"]
    for path in source.glob("[a-e].dcm"):
        path.unlink()
    if take != "mip:coronal":
        assert [one.view for one in make_plan([source], SMALL, workers=1).pictures] == ["projection"] * 3


def test_a_capture_beside_slices_still_waits_for_a_person(write_series, write_dicom):
    source = write_series()
    write_dicom(
        "pet/x.dcm", pet_slice(9), SOPClassUID=SecondaryCaptureImageStorage, ImagePositionPatient=None
    )
    plan = make_plan([source], SMALL, workers=1)
    assert (len(plan.pictures), [one.view for one in plan.waiting]) == (5, ["capture"])


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:900])


def spoil_position(path):
    data = dcmread(path)
    del data.ImagePositionPatient
    data.save_as(path)


def spoil_patient(path):
    data = dcmread(path)
    data.PatientID = ""
    data.save_as(path)


@pytest.mark.parametrize("spoil", [spoil_cut, spoil_position, spoil_patient])
def test_a_series_with_a_file_that_cannot_be_taken_is_refused_whole(
    tmp_path, write_series, write_dicom, spoil
):
    source = write_series()
    write_series("other", SeriesInstanceUID="1.2.3")
    spoil(source / "a.dcm")  # the last by position
    plan = make_plan([tmp_path], SMALL, workers=1)
    assert len(plan.pictures) == 5
    assert len(plan.refused) == 5
    assert sum("another file" in reason for reason in plan.refused.values()) == 4


def test_a_series_is_not_refused_for_a_projection_beside_it(write_series, write_dicom):
    source = write_series()
    path = write_dicom("pet/m.dcm", pet_slice(9), ImageType=["DERIVED", "SECONDARY", "MAX PIXEL"])
    spoil_patient(path)
    plan = make_plan([source], SMALL, workers=1)
    assert (len(plan.pictures), len(plan.refused)) == (5, 1)


def test_the_number_of_slices_is_read(write_series):
    reasons = make_plan([write_series(NumberOfSlices=6)], SMALL, workers=1).refused
    assert len(reasons) == 5
    assert all("NumberOfSlices" in reason for reason in reasons.values())


@pytest.mark.parametrize("field", ["full", "breast", "10mm", "40mm"])
@pytest.mark.parametrize("side", ["L", "R"])
def test_the_chest_wall_is_at_the_left_edge_of_every_field(tmp_path, write_dicom, field, side):
    rows, columns = np.mgrid[:128, :80]
    breast = np.where(((rows - 64) / 50) ** 2 + (columns / 60) ** 2 < 1, 1800, 5)
    write_dicom(
        "mg/a.dcm", breast if side == "L" else breast[:, ::-1], "MG", ImageLaterality=side,
        ImagerPixelSpacing=["0.2", "0.2"],
    )  # fmt: skip
    options = Options(size=64, orient="left", field=field)
    ingest([tmp_path / "mg"], tmp_path / "mg.h5", options, workers=1)
    with Dataset(tmp_path / "mg.h5") as dataset:
        assert dataset.image(0)[32, 0, 0] > 200


def test_mammograms_of_both_kinds_never_stand_in_one_dataset(tmp_path, write_dicom):
    write_dicom("mg/a.dcm", pet_slice(0), "MG")
    write_dicom("mg/b.dcm", pet_slice(1), "MG", SOPClassUID=DigitalMammographyXRayImageStorageForProcessing)
    write_dicom("mg/c.dcm", pet_slice(2), "MG")
    with pytest.raises(InputError, match="2 presentation, 1 processing") as caught:
        make_plan([tmp_path / "mg"], SMALL, workers=1)
    assert "--kind" in str(caught.value)
    for kind, count in (("presentation", 2), ("processing", 1)):
        plan = make_plan([tmp_path / "mg"], SMALL.model_copy(update={"kind": kind}), workers=1)
        assert {picture.frames[0].header.kind for picture in plan.pictures} == {kind}
        assert (len(plan.pictures), sum(plan.skipped.values())) == (count, 3 - count)


def test_films_in_optical_density_need_a_dataset_of_their_own(tmp_path, write_dicom):
    write_dicom("mg/a.dcm", pet_slice(0), "MG")
    (tmp_path / "mg/A_1141_1.LEFT_CC.LJPEG.1").write_bytes(bytes(64 * 64 * 2))
    said = "LEFT_CC LINES 64 PIXELS_PER_LINE 64 BITS_PER_PIXEL 12 RESOLUTION 50 OVERLAY"
    (tmp_path / "mg/A-1141-1.ics").write_text(f"DIGITIZER HOWTEK\n{said}\n")
    with pytest.raises(InputError, match="several") as caught:
        make_plan([tmp_path / "mg"], SMALL, workers=1)
    assert "ingests of their own" in str(caught.value)
    assert "--units" not in str(caught.value)


@pytest.mark.parametrize("field", ["breast", "30mm"])
def test_a_field_shows_the_same_part_of_every_slice(tmp_path, write_dicom, field):
    """Of slices in which the body lies elsewhere, what is found on all of them together."""
    stored = []
    for k in range(4):
        image = np.random.default_rng(k).integers(0, 9, (32, 32), np.uint16)
        image[8 + k : 16 + k, 6 + 2 * k : 14 + 2 * k] += 900
        stored.append(image)
        write_dicom(
            f"pet/{k}.dcm", image, ImagePositionPatient=["0", "0", str(2 * k)], PixelSpacing=["2", "2"]
        )
    options = Options(size=16, field=field, units="bqml", dtype="float32")
    ingest([tmp_path / "pet"], tmp_path / "pet.h5", options, workers=1)
    box = breast_box(np.max(stored, axis=0))
    if field == "30mm":
        box = square_box(box, 30.0, (2.0, 2.0))
    expected = [square(cut(image.astype(np.float32), box), 16) for image in stored]
    with Dataset(tmp_path / "pet.h5") as dataset:
        np.testing.assert_allclose(dataset.images()[..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("modality", "keyword"), [("PT", "PixelSpacing"), ("MG", "ImagerPixelSpacing")])
def test_pixels_that_are_no_squares_become_squares(tmp_path, write_dicom, modality, keyword):
    """16 rows of 4 mm and 32 columns of 2 mm are as high as they are wide: nothing is filled up."""
    write_dicom("a/a.dcm", np.full((16, 32), 700), modality, **{keyword: ["4", "2"]})
    units = {"units": "bqml"} if modality == "PT" else {}
    ingest([tmp_path / "a"], tmp_path / "a.h5", Options(size=16, dtype="float32", **units), workers=1)
    with Dataset(tmp_path / "a.h5") as dataset:
        np.testing.assert_allclose(dataset.images(), 700)


@pytest.mark.parametrize("window", ["auto", "suv:0,8"])
@pytest.mark.parametrize("kept", [range(16), range(12, 24), range(1, 24, 2), range(24)])
def test_a_volume_under_two_names_is_in_one_split_whichever_slices_are_missing(
    tmp_path, write_dicom, kept, window
):
    """With a percentile window even slices that are the same have other grey levels."""

    def write(patient, seed, slices):
        noise = np.random.default_rng(seed).random((24, 64, 64))
        volume = ndimage.gaussian_filter(noise, 2.5)
        volume = (volume - volume.min()) / np.ptp(volume) * np.linspace(1, 3, 24)[:, None, None]
        for k in slices:
            write_dicom(
                f"scans/{patient}/{k}.dcm",
                np.rint(8000 * volume[k]),
                PatientID=patient,
                SeriesInstanceUID=f"1.2.{ord(patient)}",
                SOPInstanceUID=f"1.2.{ord(patient)}.{k}",
                ImagePositionPatient=["0", "0", str(2 * k)],
                PixelSpacing=["2", "2"],
            )

    write("A", 3, range(24))
    write("B", 3, kept)
    for patient in "CDEFGH":
        write(patient, ord(patient), range(6))
    options = Options(size=32, window=window, split=(0.4, 0.3, 0.3))
    record = ingest([tmp_path / "scans"], tmp_path / "o.h5", options, workers=1)
    assert record["duplicates"]["across_patients"] >= 4
    key = load_key()
    splits = splits_of(tmp_path / "o.h5")
    assert splits[key.patient("A")] == splits[key.patient("B")]
    with Dataset(tmp_path / "o.h5") as dataset:
        of = dict(zip(dataset.columns["source"], dataset.columns["patient"], strict=True))
    joined = {frozenset((of[a], of[b])) for a, b in record["duplicates"]["sources"]}
    assert joined == {frozenset((key.patient("A"), key.patient("B")))}


def splits_of(path):
    """The split of each patient, who has one only."""
    with Dataset(path) as dataset:
        pairs = set(zip(dataset.columns["patient"], dataset.columns["split"], strict=True))
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_patients_keep_their_splits_when_files_are_added(tmp_path, write_picture):
    random = np.random.default_rng(0)
    options = Options(size=16, patients="folder")

    def add(patients, name):
        for patient in patients:
            write_picture(f"films/{patient:02d}/{name}.png", random.integers(0, 256, (16, 16), np.uint8))
        ingest([tmp_path / "films"], tmp_path / "o.h5", options, workers=1)
        return splits_of(tmp_path / "o.h5")

    first = add(range(1, 60, 2), "a")
    assert set(first.values()) == {"train", "validation", "test"}
    more = add(range(1, 30, 2), "b")
    assert more == first
    most = add(range(0, 60, 2), "a")
    assert len(most) == 60
    assert {patient: most[patient] for patient in first} == first


def test_a_part_of_a_slice_that_is_there_refuses_nothing_else(write_series):
    """As a download that was broken off and begun again leaves it, wherever that was."""
    source = write_series()
    whole = (source / "a.dcm").read_bytes()
    refused = set()
    for length in range(len(whole) // 2, len(whole), 37):
        (source / "a (1).dcm.part").write_bytes(whole[:length])
        plan = make_plan([source], SMALL, workers=1)
        assert (len(plan.pictures), len(plan.refused)) == (5, 1), length
        refused |= plan.refused.keys()
    assert len(refused) == 1  # always the part, never the whole one


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImagePositionPatient": None},
        {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
    ],
)
def test_what_is_no_slice_refuses_no_series(write_series, write_dicom, attributes):
    source = write_series()
    write_dicom("pet/x.dcm", pet_slice(9), **attributes)
    plan = make_plan([source], SMALL, workers=1)
    assert (len(plan.pictures), len(plan.refused)) == (5, 1)


def test_no_projection_of_the_scanner_stands_in_for_slices_that_are_refused(write_series, write_dicom):
    source = write_series()
    write_dicom("pet/m.dcm", pet_slice(9), ImageType=["DERIVED", "SECONDARY", "MAX PIXEL"])
    spoil_cut(source / "a.dcm")
    plan = make_plan([source], SMALL, workers=1)
    assert not plan.pictures
    assert plan.skipped == {PROJECTED: 1}


def test_what_is_doubtful_of_a_copy_is_so_of_its_image(tmp_path, write_series):
    source, output = write_series(doubtful=[3]), tmp_path / "o.h5"
    ingest([source], output, SMALL, workers=1)
    decide(tmp_path / "o.quarantine.csv", "reject")
    data = dcmread(source / "d.dcm")
    data.BurnedInAnnotation = "NO"
    data.save_as(source / "_.dcm")  # the first by name
    for _ in range(2):
        record = ingest([source], output, SMALL, workers=1)
        assert (record["images"], record["quarantine"]["pictures"], record["refused"]["files"]) == (4, 1, 1)
    (source / "_.dcm").unlink()
    assert ingest([source], output, SMALL, workers=1)["images"] == 4


def test_a_rejected_film_stays_out_when_its_label_is_masked(tmp_path):
    source, output = tmp_path / "films", tmp_path / "o.h5"
    source.mkdir()
    write_mammograms(source, 4, 256, np.random.SeedSequence(3))
    masked = Options(size=16, mask_film=True)
    images = ingest([source], output, masked, workers=1)["images"]
    with suppress(InputError):  # maybe all have labels
        ingest([source], output, SMALL, workers=1)
    labelled = len(decide(tmp_path / "o.quarantine.csv", "reject"))
    assert labelled
    with (
        pytest.raises(InputError, match=f"{labelled} pictures rejected")
        if labelled == images
        else nullcontext()
    ):
        assert ingest([source], output, masked, workers=1)["images"] == images - labelled


def test_slices_of_a_projection_that_were_decided_on_wait_no_more(tmp_path, write_series):
    source, output = write_series(doubtful=[1, 2]), tmp_path / "o.h5"
    write_series("pet/fine", SeriesInstanceUID="1.2.3")
    options = SMALL.model_copy(update={"take": "mip:coronal"})
    ingest([source], output, options, workers=1)
    decide(tmp_path / "o.quarantine.csv")
    decisions = read_decisions(tmp_path / "o.quarantine.csv")
    which = min(decisions)
    decisions[which] = replace(decisions[which], word="reject")
    for _ in range(2):
        record = ingest([source], output, options, workers=1, decisions=decisions)
        assert (record["quarantine"]["pictures"], record["quarantine"]["rejected"]) == (0, 1)
        decisions = read_decisions(tmp_path / "o.quarantine.csv")


def test_a_file_of_slices_and_projections_is_told_of_in_the_same_way_again(tmp_path):
    planes = [([0, 0, 2 * k], [1, 0, 0], [0, 1, 0]) for k in range(5)]
    data = multi_frame_pet(np.stack([pet_slice(k) for k in range(5)]), [1] * 5, planes)
    kind = pydicom.Dataset()
    kind.FrameType = ["DERIVED", "SECONDARY", "PET", "MAX_PIXEL"]
    data.PerFrameFunctionalGroupsSequence[4].PETFrameTypeSequence = pydicom.Sequence([kind])
    (tmp_path / "s").mkdir()
    data.save_as(tmp_path / "s" / "a.dcm", enforce_file_format=True)
    records = [ingest([tmp_path / "s"], tmp_path / "o.h5", SMALL, workers=1) for _ in range(2)]
    assert records[0]["skipped"] == records[1]["skipped"] == {PROJECTED: 1}
