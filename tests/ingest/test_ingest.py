"""From files to a dataset: what goes in, in which order, and what nobody may find in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from ingest.conftest import dicom_dataset
from petgan import cli
from petgan.cli import main
from petgan.errors import ConfigError, DiskError, InputError
from petgan.ingest import FORMATS, Format, Options, cache_folder, ingest, make_plan
from petgan.ingest.deidentify import load_key
from petgan.ingest.frame import Refused
from petgan.ingest.images import _widened, make_unit
from petgan.registry import Registry
from petgan.store import Dataset

SMALL = Options(size=16)


def run(source, output, *options):
    """Exit code of the command."""
    return cli.main(["ingest", str(source), "--output", str(output), "--workers=1", *options])


def pet_slice(k, size=16):
    return np.random.default_rng(k).integers(0, 1000, (size, size), np.uint16)


@pytest.fixture
def scan_of_pet(write_dicom):
    """A series of five slices, whose names and numbers run against their positions."""

    def write(folder="pet", count=5, **attributes):
        for k in range(count):
            write_dicom(
                f"{folder}/{'edcba'[k]}.dcm",
                pet_slice(k),
                RescaleSlope=str(k + 1),
                ImagePositionPatient=["0", "0", str(3 * k)],
                InstanceNumber=count - k,
                **attributes,
            )

    return write


def test_slices_are_ordered_by_position_and_windowed_together(tmp_path, scan_of_pet):
    scan_of_pet()
    ingest([tmp_path / "pet"], tmp_path / "out.h5", SMALL, workers=1)
    volume = np.stack([pet_slice(k) * np.float32(k + 1) for k in range(5)])
    low, high = np.percentile(volume, [0.5, 99.5])
    expected = np.clip((volume - low) * 255 / (high - low), 0, 255)
    with Dataset(tmp_path / "out.h5") as dataset:
        np.testing.assert_allclose(dataset.images()[..., 0], expected, atol=0.51)
        assert [source[-4:] for source in dataset.columns["source"]] == [f"{k:04x}" for k in range(5)]
        assert (dataset.modality, dataset.units, dataset.window) == ("pet", "suvbw", "percentile:0.5,99.5")
        assert set(dataset.columns["view"]) == {"slice"}
        assert len(set(dataset.columns["patient"])) == 1
        dataset.verify()


def test_a_fixed_window_is_in_the_units_of_the_dataset(tmp_path, scan_of_pet):
    scan_of_pet()
    options = Options(size=16, units="bqml", window="bqml:0,2500")
    ingest([tmp_path / "pet"], tmp_path / "out.h5", options, workers=1)
    with Dataset(tmp_path / "out.h5") as dataset:
        expected = np.clip(pet_slice(4) * 5.0 * 255 / 2500, 0, 255)
        np.testing.assert_allclose(dataset.image(4)[..., 0], expected, atol=0.51)
    with pytest.raises(ConfigError, match="bqml"):
        make_plan([tmp_path / "pet"], Options(units="bqml", window="suv:0,10"), workers=1)
    assert make_plan([tmp_path / "pet"], Options(window="suv:0,10"), workers=1).units == "suvbw"


def test_the_file_is_the_same_for_any_order_of_files_and_number_of_workers(tmp_path, scan_of_pet):
    scan_of_pet("one")
    (tmp_path / "two").mkdir()
    for k, file in enumerate(sorted((tmp_path / "one").iterdir())):
        shutil.copy(file, tmp_path / "two" / f"IM{k}")  # other names, no suffix
    for name, workers in (("one", 1), ("two", 2)):
        ingest([tmp_path / name], tmp_path / f"{name}.h5", SMALL, workers=workers)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    assert (tmp_path / "one.ingest.json").read_bytes() == (tmp_path / "two.ingest.json").read_bytes()


def test_pictures_give_the_same_file_wherever_they_lie(tmp_path, pictures):
    ingest([pictures], tmp_path / "a.h5", SMALL, workers=2)
    moved = pictures.rename(tmp_path / "moved")
    ingest(sorted(moved.iterdir(), reverse=True), tmp_path / "b.h5", SMALL, workers=1)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_another_key_gives_other_ids_and_the_same_pixels(tmp_path, pictures):
    (tmp_path / "other.key").write_bytes(b"o" * 32)
    (tmp_path / "other.key").chmod(0o600)
    ingest([pictures], tmp_path / "a.h5", SMALL, workers=1)
    ingest([pictures], tmp_path / "b.h5", SMALL, workers=1, key_file=tmp_path / "other.key")
    with Dataset(tmp_path / "a.h5") as a, Dataset(tmp_path / "b.h5") as b:
        assert a.key_id != b.key_id
        assert not set(a.columns["patient"]) & set(b.columns["patient"])
        assert not set(a.columns["source"]) & set(b.columns["source"])
        assert sorted(a.columns["pixel_digest"]) == sorted(b.columns["pixel_digest"])


def test_rows_are_sorted_and_patients_are_in_one_split(tmp_path, pictures):
    record = ingest([pictures], tmp_path / "a.h5", SMALL, workers=1)
    with Dataset(tmp_path / "a.h5") as dataset:
        rows = list(zip(dataset.columns["patient"], dataset.columns["source"], strict=True))
        assert rows == sorted(set(rows))
        pairs = set(zip(dataset.columns["patient"], dataset.columns["split"], strict=True))
        assert len(pairs) == 4
        assert {split for _, split in pairs} == {"train", "validation", "test"}
        assert record["dataset"]["digest"] == dataset.digest
    assert record["by_format"] == {"png": 8}
    assert record["configuration"]["patients"] == "folder"


def test_no_identity_is_in_the_dataset_nor_in_the_record(tmp_path, write_dicom):
    secret = {
        "PatientID": "HOSP-4711",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19480229",
        "StudyDate": "20240131",
        "SeriesDescription": "Breast of Jane",
        "SOPInstanceUID": "1.2.826.99.1",
        "SeriesInstanceUID": "1.2.826.99.2",
    }
    write_dicom("pet/Doe-Jane/IM1.dcm", pet_slice(0), **secret)
    broken = {"PatientID": "Doe^Broken", "SeriesInstanceUID": "1.2.826.99.3", "Rows": 0}
    write_dicom("pet/Doe-Jane/IM2.dcm", pet_slice(1), **secret | broken)
    (tmp_path / "pet/Doe-Jane/IM3.dcm").write_bytes(b"Doe^Broken")
    options = Options(size=16, patients="(Doe-Jane)")
    record = ingest([tmp_path / "pet"], tmp_path / "out.h5", options, workers=1)
    assert record["refused"]["files"] == 2
    for file in (tmp_path / "out.h5", tmp_path / "out.ingest.json"):
        content = file.read_bytes()
        for word in (*secret.values(), "Doe", "Jane", "IM1", "IM2", "IM3", ".dcm", str(tmp_path)):
            assert word.encode() not in content, word


def broken_files(folder):
    """One file of each format cut short, one empty, and some that lie about what they are."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    for suffix in ("gif", "png", "jpg", "pgm"):
        noise.save(folder / f"cut.{suffix}")
    np.save(folder / "cut.npy", np.zeros((64, 64)))
    data = dicom_dataset(pet_slice(0, 64), "MG")
    data.save_as(folder / "cut.dcm", enforce_file_format=True)
    for file in sorted(folder.iterdir()):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        (folder / f"empty{file.suffix}").touch()
        (folder / f"lie{file.suffix}").write_text("no image at all")
    np.save(folder / "nan.npy", np.array([[np.nan, 1.0]]))
    (folder / "nan.pgm").write_bytes(b"Pf\n2 1\n-1\n" + np.array([np.nan, 1.0], "<f4").tobytes())
    none = dicom_dataset(pet_slice(0), NumberOfFrames=-1)
    none.save_as(folder / "none.dcm", enforce_file_format=True)
    return {file.name for file in folder.iterdir()}


def test_the_good_go_in_and_the_bad_are_named(tmp_path, pictures, capsys):
    bad = broken_files(pictures / "woman-9")
    (pictures / "notes.txt").write_text("no image")
    (pictures / "case.ics").write_text("PATIENT_AGE 58")
    code = run(pictures, tmp_path / "o.h5", "--size=16")
    lines = capsys.readouterr().err.splitlines()
    named = [re.match(r"refused: (\w{16}) ", line)[1] for line in lines if line.startswith("refused:")]
    assert sorted(named) == sorted(load_key().name(f"woman-9/{name}") for name in bad)
    assert lines[-1].startswith(f"petgan ingest: {len(bad)} files were refused")
    assert "skipped: 2 (no image)" in lines
    assert code == 2
    record = json.loads((tmp_path / "o.ingest.json").read_text())
    assert record["refused"]["files"] == len(bad) == sum(record["refused"]["by_reason"].values())
    assert record["images"] == 8
    with Dataset(tmp_path / "o.h5") as dataset:
        assert len(dataset) == 8


def test_only_bad_files_write_nothing(tmp_path, capsys):
    broken_files(tmp_path / "files" / "a")
    assert run(tmp_path / "files", tmp_path / "out.h5") == 2
    assert "no dataset was written" in capsys.readouterr().err.splitlines()[-1]
    assert [file.name for file in tmp_path.glob("*out*")] == ["out.ingest.cache"]


@pytest.mark.parametrize("content", [None, "text"])
def test_a_folder_without_images_is_one_sentence(tmp_path, capsys, content):
    (tmp_path / "files").mkdir()
    if content:
        (tmp_path / "files" / "a.txt").write_text(content)
    output = tmp_path / "new" / "out.h5"
    assert run(tmp_path / "files", output) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "there are no images in" in last
    assert not output.exists()


def test_slices_at_one_position_are_refused_by_name(tmp_path, scan_of_pet, write_dicom):
    scan_of_pet()
    write_dicom("pet/twice.dcm", pet_slice(9), ImagePositionPatient=["0", "0", "6.001"])
    plan = make_plan([tmp_path / "pet"], SMALL, workers=1)
    assert {load_key().name(name) for name in ("c.dcm", "twice.dcm")} <= set(plan.refused)


def test_a_copy_goes_in_once(tmp_path, scan_of_pet):
    scan_of_pet()
    shutil.copy(tmp_path / "pet/a.dcm", tmp_path / "pet/z.dcm")
    plan = make_plan([tmp_path / "pet"], SMALL, workers=1)
    assert list(plan.refused) == [load_key().name("z.dcm")]
    assert len(plan.pictures) == 5


def test_dicom_without_patient_id_is_refused_unless_told_how(tmp_path, scan_of_pet):
    scan_of_pet("pet/anonymous", PatientID="")
    assert len(make_plan([tmp_path / "pet"], SMALL, workers=1).refused) == 5
    plan = make_plan([tmp_path / "pet"], Options(patients="folder"), workers=1)
    assert {p.frames[0].patient for p in plan.pictures} == {load_key().patient("anonymous")}


def test_modalities_and_units_are_not_mixed(tmp_path, scan_of_pet, write_dicom, write_picture):
    scan_of_pet()
    write_dicom("pet/m.dcm", pet_slice(0), "MG")
    with pytest.raises(InputError, match="5 pet, 1 mammogram"):
        make_plan([tmp_path / "pet"], workers=1)
    plan = make_plan([tmp_path / "pet"], Options(modality="pet"), workers=1)
    assert len(plan.pictures) == plan.skipped.total() * 5 == 5
    write_picture("pet/p.png", np.zeros((9, 9), np.uint8))  # a picture does not say what it is
    plan = make_plan([tmp_path / "pet"], Options(modality="pet"), workers=1)
    assert (len(plan.pictures), plan.skipped.total(), plan.units) == (5, 2, "suvbw")
    plan = make_plan([tmp_path / "pet/p.png"], Options(modality="pet"), workers=1)
    assert (len(plan.pictures), plan.units) == (1, "stored")


def test_a_series_that_cannot_be_in_the_units_is_refused_by_name(tmp_path, scan_of_pet):
    scan_of_pet("pet/a")
    scan_of_pet("pet/b", Units="CNTS", SeriesInstanceUID="1.2.3")
    plan = make_plan([tmp_path / "pet"], workers=1)
    assert (len(plan.pictures), plan.units) == (5, "suvbw")
    (reason,) = set(plan.refused.values())
    assert "(7053,1000)" in reason
    assert "--units stored" in reason
    assert len(make_plan([tmp_path / "pet"], Options(units="stored"), workers=1).pictures) == 10


def test_activity_is_corrected_for_decay_in_one_way(tmp_path, scan_of_pet):
    options = Options(size=16, units="bqml")
    scan_of_pet("pet/a")
    record = ingest([tmp_path / "pet"], tmp_path / "o.h5", options, workers=1)
    assert (record["images"], record["suv"]) == (5, {})
    scan_of_pet("pet/b", SeriesInstanceUID="1.2.3", DecayCorrection="NONE", CorrectedImage=["ATTN"])
    with pytest.raises(InputError, match=r"one DecayCorrection \(0054,1102\), .* 5 START, 5 NONE"):
        ingest([tmp_path / "pet"], tmp_path / "o.h5", options, workers=1)
    with pytest.raises(InputError, match="5 START, 5 NONE"):
        make_plan([tmp_path / "pet"], options, workers=1)
    assert len(make_plan([tmp_path / "pet/b"], options, workers=1).pictures) == 5
    assert len(make_plan([tmp_path / "pet"], Options(size=16), workers=1).pictures) == 10


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"CorrectedImage": ["DECY"]}, "attenuation"),
        ({"DecayCorrection": "NONE"}, "CorrectedImage (0028,0051)"),
        ({"DecayCorrection": None}, "DecayCorrection (0054,1102)"),
    ],
)
def test_activity_is_corrected_as_for_suv(tmp_path, scan_of_pet, attributes, words):
    scan_of_pet("pet/a")
    scan_of_pet("pet/b", SeriesInstanceUID="1.2.3", **attributes)
    plan = make_plan([tmp_path / "pet"], Options(size=16, units="bqml"), workers=1)
    (reason,) = set(plan.refused.values())
    assert (len(plan.pictures), words in reason, "--units stored" in reason) == (5, True, True)


def test_values_keep_their_units_in_floating_point(tmp_path, scan_of_pet):
    scan_of_pet()
    options = Options(size=16, dtype="float32")
    record = ingest([tmp_path / "pet"], tmp_path / "out.h5", options, workers=1)
    per_bqml = 70_000 / (370e6 * 2 ** (-3600 / 6586.2))
    with Dataset(tmp_path / "out.h5") as dataset:
        assert (dataset.units, dataset.window, dataset.dtype) == ("suvbw", "none", np.float32)
        for k in range(5):
            expected = pet_slice(k) * (k + 1.0) * per_bqml
            np.testing.assert_allclose(dataset.image(k)[..., 0], expected, rtol=1e-6)
    assert record["suv"] == {"BQML, START: the dose decayed to SeriesTime": 5}
    with pytest.raises(ConfigError, match="float32 keeps the units"):
        Options(dtype="float32", window="suv:0,10")
    with pytest.raises(ConfigError, match="floating point"):
        Options(window="none")


def test_sixteen_bits_have_finer_steps(tmp_path, scan_of_pet):
    scan_of_pet()
    options = Options(size=16, units="bqml", window="bqml:0,2500", dtype="uint16")
    ingest([tmp_path / "pet"], tmp_path / "out.h5", options, workers=1)
    with Dataset(tmp_path / "out.h5") as dataset:
        expected = np.clip(pet_slice(4) * 5.0 * 65535 / 2500, 0, 65535)
        np.testing.assert_allclose(dataset.image(4)[..., 0], expected, atol=0.51)


@pytest.mark.parametrize(
    ("pixels", "modality", "window"),
    [
        (np.uint8, "auto", "full"),
        (np.uint8, "pet", "full"),
        (np.uint16, "auto", "percentile:0,100"),
        (np.uint16, "pet", "percentile:0.5,99.5"),
    ],
)
def test_the_window_follows_from_the_files(write_picture, tmp_path, pixels, modality, window):
    write_picture("files/a.png", np.zeros((9, 9), pixels))
    plan = make_plan([tmp_path / "files"], Options(modality=modality), workers=1)
    assert str(plan.window) == window


def test_a_dry_run_writes_nothing(tmp_path, pictures, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert run(pictures, tmp_path / "new" / "o.h5", "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "would take 8 images (8 png) of 4 patients" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option",
    ["--size=100", "--window=bright", "--patients=folders", "--workers=0",
     "--split=1,2,3", "--split=0.5,0.5", "--split=a,b,c"],
)  # fmt: skip
def test_impossible_options_are_one_sentence(tmp_path, pictures, capsys, option):
    assert run(pictures, tmp_path / "o.h5", option) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("petgan ingest: ")
    assert not (tmp_path / "o.h5").exists()


@pytest.mark.parametrize("source", ["nowhere", "out"])
def test_impossible_paths_are_one_sentence(tmp_path, pictures, capsys, source):
    (tmp_path / "out").mkdir()
    sources = pictures if source == "out" else tmp_path / source
    assert run(sources, tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_leaves_the_old_dataset(tmp_path, pictures, monkeypatch):
    ingest([pictures], tmp_path / "a.h5", SMALL, workers=1)
    before = {file: file.read_bytes() for file in tmp_path.glob("a.*") if file.is_file()}

    def full(path, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("petgan.hdf5.NewFile.check", full)
    with pytest.raises(DiskError, match="No space left"):
        ingest([pictures], tmp_path / "a.h5", Options(size=32), workers=1)
    after = {file: file.read_bytes() for file in tmp_path.glob("*a.*") if file.is_file()}
    assert after == before


def test_a_new_format_is_a_function_and_a_line(tmp_path, monkeypatch):
    registry = Registry("input format")
    monkeypatch.setattr(registry, "_entries", dict(FORMATS._entries))
    for module in ("formats", "scan", "images", "plan"):
        monkeypatch.setattr(f"petgan.ingest.{module}.FORMATS", registry)

    def read_table(path, index):
        return np.loadtxt(path, delimiter=",", ndmin=2).astype(np.float32)

    registry.add("csv", Format((".csv",), read_table))
    (tmp_path / "files").mkdir()
    np.savetxt(tmp_path / "files/good.csv", np.arange(256).reshape(16, 16), delimiter=",")
    (tmp_path / "files/bad.csv").write_text("1,2\n3\n")
    record = ingest([tmp_path / "files"], tmp_path / "o.h5", SMALL, workers=1)
    assert record["by_format"] == {"csv": 1}
    assert record["refused"]["files"] == 1
    with Dataset(tmp_path / "o.h5") as dataset:
        np.testing.assert_array_equal(dataset.image(0).ravel(), np.arange(256))


MEASURE = """
import resource, sys
from petgan.ingest import Options, ingest
if __name__ == "__main__":
    record = ingest([sys.argv[1]], sys.argv[2], Options(size=224, patients="file"), workers=2)
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    own, child = (resource.getrusage(each).ru_maxrss for each in who)
    print(record["images"], (own + 2 * child) // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """5,000 images of 224 pixels are 250 MB; at most 500 MB more than for 50 were promised."""
    (tmp_path / "measure.py").write_text(MEASURE)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)).save(tmp_path / "a.png")
    used = []
    for number in (50, 5000):
        folder = tmp_path / f"files-{number}"
        folder.mkdir()
        for n in range(number):
            os.link(tmp_path / "a.png", folder / f"{n}.png")
        command = [sys.executable, tmp_path / "measure.py", folder, tmp_path / "out.h5"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        images, megabytes = map(int, done.stdout.split())
        assert images == number
        used.append(megabytes)
    (tmp_path / "out.h5").unlink()
    assert used[1] - used[0] < 100


def test_a_folder_too_far_up_makes_one_patient_of_all_and_a_warning(pictures, tmp_path, capsys):
    (tmp_path / "up").mkdir()
    pictures.rename(tmp_path / "up" / "files")
    assert main(["ingest", str(tmp_path / "up"), "--output", str(tmp_path / "d.h5"), "--size", "16"]) == 0
    assert "warning: no image is in validation and test" in capsys.readouterr().err


# --- a second run -----------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """The names of the files whose readers were called, headers or pixels."""
    names = set()
    registry = Registry("input format")
    monkeypatch.setattr(registry, "_entries", {})
    for module in ("formats", "scan", "images"):
        monkeypatch.setattr(f"petgan.ingest.{module}.FORMATS", registry)

    def noting(function):
        def call(path, *index):
            names.add(path.name)
            return function(path, *index)

        return call

    for name in FORMATS:
        kind = FORMATS[name]
        registry.add(name, replace(kind, read=noting(kind.read), scan=noting(kind.scan)))
    return names


def test_a_second_run_reads_only_what_is_new(tmp_path, pictures, scan_of_pet, write_picture, opened):
    options = Options(size=16, patients="folder")
    ingest([pictures], tmp_path / "a.h5", options, workers=1)
    assert len(opened) == 2
    first = (tmp_path / "a.h5").read_bytes()
    opened.clear()
    ingest([pictures], tmp_path / "a.h5", options, workers=1)
    assert not opened
    assert (tmp_path / "a.h5").read_bytes() == first
    write_picture("files/woman-8/new.png", np.full((24, 24), 9, np.uint8))
    write_picture("files/woman-1/L.png", np.eye(24, dtype=np.uint8))  # another content
    ingest([pictures], tmp_path / "a.h5", options, workers=1)
    assert opened == {"new.png", "L.png"}
    shutil.rmtree(cache_folder(tmp_path / "a.h5"))
    again = (tmp_path / "a.h5").read_bytes()
    ingest([pictures], tmp_path / "a.h5", options, workers=1)
    assert (tmp_path / "a.h5").read_bytes() == again != first


def test_a_series_with_a_new_slice_is_read_again_as_a_whole(tmp_path, scan_of_pet, write_dicom, opened):
    scan_of_pet("pet/one")
    scan_of_pet("pet/two", SeriesInstanceUID="1.2.3", PatientID="other")
    ingest([tmp_path / "pet"], tmp_path / "a.h5", SMALL, workers=1)
    opened.clear()
    write_dicom("pet/one/f.dcm", pet_slice(9), RescaleSlope="6", ImagePositionPatient=["0", "0", "15"])
    record = ingest([tmp_path / "pet"], tmp_path / "a.h5", SMALL, workers=1)
    assert opened == {f"{letter}.dcm" for letter in "abcdef"}
    assert record["images"] == 11
    (tmp_path / "pet/one/f.dcm").unlink()
    record = ingest([tmp_path / "pet"], tmp_path / "a.h5", SMALL, workers=1)
    ingest([tmp_path / "pet"], tmp_path / "b.h5", SMALL, workers=1)
    assert record["images"] == 10
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_run_with_other_options_makes_its_own_images(tmp_path, pictures):
    ingest([pictures], tmp_path / "a.h5", SMALL, workers=1)
    ingest([pictures], tmp_path / "a.h5", Options(size=16, window="percentile:10,90"), workers=1)
    ingest([pictures], tmp_path / "b.h5", Options(size=16, window="percentile:10,90"), workers=1)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_run_that_was_stopped_goes_on(tmp_path, pictures, monkeypatch):
    whole = ingest([pictures], tmp_path / "b.h5", SMALL, workers=1)
    made = []

    def stop_after_five(unit):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(unit)
        return make_unit(unit)

    monkeypatch.setattr("petgan.ingest.pipeline.make_unit", stop_after_five)
    with pytest.raises(KeyboardInterrupt):
        ingest([pictures], tmp_path / "a.h5", SMALL, workers=1)
    assert not (tmp_path / "a.h5").exists()
    made.clear()
    monkeypatch.setattr("petgan.ingest.pipeline.make_unit", lambda unit: made.append(unit) or make_unit(unit))
    assert ingest([pictures], tmp_path / "a.h5", SMALL, workers=1) == whole
    assert len(made) == 3


@pytest.mark.parametrize("mirrored", [False, True])
def test_oriented_to_the_left_the_chest_wall_is_at_the_left_edge(tmp_path, write_picture, mirrored):
    """Half an ellipse on a narrow film; its mirror image becomes the same image."""
    y, x = np.mgrid[:256, :160]
    breast = np.where(((y - 128) / 100.0) ** 2 + (x / 120.0) ** 2 < 1, 180, 5).astype(np.uint8)
    write_picture("files/w/a.png", breast[:, ::-1] if mirrored else breast)
    options = Options(size=64, orient="left", patients="folder")
    ingest([tmp_path / "files"], tmp_path / "o.h5", options, workers=1)
    with Dataset(tmp_path / "o.h5") as dataset:
        image = dataset.image(0)[..., 0]
    assert (image[16:48, 0] > 100).all()
    assert image[:, 32:].max() < 20


def test_a_series_of_which_a_slice_cannot_be_read_is_refused_whole(tmp_path, scan_of_pet):
    scan_of_pet("pet/one")
    scan_of_pet("pet/two", SeriesInstanceUID="1.2.3", PatientID="other")
    bad = dcmread(tmp_path / "pet/one/c.dcm")
    bad.compress(RLELossless)
    bad.PixelData = encapsulate([b"no RLE at all"])  # its header is whole
    bad.save_as(tmp_path / "pet/one/c.dcm")
    record = ingest([tmp_path / "pet"], tmp_path / "o.h5", SMALL, workers=1)
    assert record["images"] == 5
    assert record["refused"]["files"] == 5
    assert record["refused"]["by_reason"]["lies in a series of which another slice cannot be read"] == 4


def test_slices_that_are_projected_twice_count_once_for_suv(tmp_path, scan_of_pet):
    scan_of_pet()
    options = Options(size=16, take="mip:coronal,axial")
    path = tmp_path / "o.h5"
    with pytest.raises(InputError):  # without PixelSpacing there is no projection
        ingest([tmp_path / "pet"], path, options, workers=1)
    scan_of_pet("two", PixelSpacing=["2", "2"])
    record = ingest([tmp_path / "two"], path, options, workers=1)
    assert record["suv"] == {"BQML, START: the dose decayed to SeriesTime": 5}
    assert record["by_collection"] == {"pet": {"mip-axial": 1, "mip-coronal": 1}}
    with Dataset(path) as dataset:
        assert dataset.projection == "mip:coronal,axial"


@pytest.mark.parametrize("option", ["--orient=left", "--mask-film"])
def test_pet_is_neither_masked_nor_turned(tmp_path, scan_of_pet, capsys, option):
    scan_of_pet()
    assert run(tmp_path / "pet", tmp_path / "o.h5", option, "--size=16") == 2
    assert "--mask-film" in capsys.readouterr().err


def test_histograms_are_those_of_the_values(tmp_path, scan_of_pet):
    """Brute force over the values before the window; a hundredth of the pixels is hot."""
    scan_of_pet()
    options = Options(size=16, units="bqml", dtype="float32")
    record = ingest([tmp_path / "pet"], tmp_path / "o.h5", options, workers=1)
    values = np.stack([pet_slice(k) * np.float64(k + 1) for k in range(5)])
    edges = np.array(record["histograms"]["pet"]["edges"])
    found = np.cumsum(record["histograms"]["pet"]["counts"])
    expected = np.array([(values <= edge).mean() for edge in edges[1:]])
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert found[-1] == pytest.approx(1, abs=1e-3)


def test_a_picture_that_would_be_too_large_as_a_square_is_refused_before_it_is_made():
    with pytest.raises(Refused, match="too large"):
        _widened(np.zeros((30_000, 2), np.float32), (1.0, 1.0))
