from __future__ import annotations

import json
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from petgan import cli


def test_info_in_json(make_dataset, capsys):
    path = make_dataset(patients=12)
    assert cli.main(["dataset", "info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["patients"], facts["size"], facts["dtype"]) == (36, 12, 16, "uint8")
    assert {name: count["patients"] for name, count in facts["splits"].items()} == {
        "train": 6,
        "validation": 3,
        "test": 3,
    }
    assert facts["splits"]["test"]["views"] == {"slice": 9}
    with h5py.File(path) as file:
        assert facts["digest"] == file.attrs["digest"]


def test_info_for_people(make_dataset, capsys):
    assert cli.main(["dataset", "info", str(make_dataset())]) == 0
    out = capsys.readouterr().out
    for word in ("bqml", "full", "validation", "9 slice"):
        assert word in out


def test_verify(make_dataset, capsys):
    path = make_dataset()
    assert cli.main(["dataset", "verify", str(path)]) == 0
    with h5py.File(path, "r+") as file:
        file["images"][0, 0, 0, 0] ^= 1
    assert cli.main(["dataset", "verify", str(path)]) == 2
    assert "image 0 does not match" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 7, 64])
def test_preview_shows_every_split(make_dataset, tmp_path, count):
    path, output = make_dataset(), tmp_path / "sheets" / "a.png"
    assert cli.main(["dataset", "preview", str(path), "--output", str(output), f"--count={count}"]) == 0

    pixels = np.asarray(Image.open(output))
    headings = (pixels[:, :2] == 0).all(1) & (pixels.max(1) == 255)
    assert pixels.dtype == np.uint8
    assert headings.any()


@pytest.mark.parametrize("arguments", [["--count=0"], []])
def test_mistakes_are_one_sentence(make_dataset, tmp_path, capsys, arguments):
    path = make_dataset() if arguments else tmp_path / "nothing.h5"
    assert cli.main(["dataset", "preview", str(path), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """A source of two pictures and a DICOM file, with a key."""
    from ingest.conftest import dicom_dataset

    (tmp_path / "identity.key").write_bytes(b"k" * 32)
    (tmp_path / "identity.key").chmod(0o600)
    monkeypatch.setenv("PETGAN_KEY_FILE", str(tmp_path / "identity.key"))
    source = tmp_path / "clinic"
    for name in ("Doe-Jane", "Roe-Mary"):
        (source / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(source / name / f"{name[:3]}-left.png")
    dicom_dataset(np.zeros((4, 4))).save_as(source / "Doe-Jane" / "IMG-1.dcm", enforce_file_format=True)
    return source


def test_audit_says_what_kind_and_where_but_not_who(clinic, make_dataset, capsys):
    path = make_dataset()
    assert cli.main(["dataset", "audit", str(path), "--source", str(clinic)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "identities of 3 files in" in last
    assert last.endswith("of 1 files: none is there")
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "of HOSP-4711"
    (path.parent / "out").mkdir()
    (path.parent / "out" / "Doe-Jane.txt").write_text("nothing")
    arguments = [str(path), str(path.parent / "out")]
    assert cli.main(["dataset", "audit", *arguments, "--source", str(clinic)]) == 1
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].startswith(f"{path}: an HDF5 attribute: PatientID (0010,0020) as text (identity ")
    assert lines[1].startswith("file 2 (its name identifies): its name: name of a folder as text")
    assert lines[-1].endswith("of 2 files: 2 findings")
    for word in ("HOSP", "Doe", "Jane"):
        assert word not in told.out + told.err


def test_an_audit_against_what_cannot_be_read_proves_nothing(clinic, make_dataset, capsys, monkeypatch):
    from petgan.ingest import parallel
    from petgan.ingest.frame import Refused

    isolation = []

    @contextmanager
    def pool(workers, *, isolated=False):
        isolation.append(isolated)
        yield lambda function, tasks: (
            Refused(parallel.CRASHED) if number == 1 else function(task) for number, task in enumerate(tasks)
        )

    monkeypatch.setattr(parallel, "worker_pool", pool)
    assert cli.main(["dataset", "audit", str(make_dataset()), "--source", str(clinic)]) == 1
    assert isolation == [True]  # what breaks a reader does not break the command, on one core neither
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].endswith("none was found, which proves nothing")
    assert "1 files of the source could not be read to their end" in told.err
    for word in ("Doe", "IMG"):
        assert word not in told.out + told.err


def test_audit_of_nothing_is_one_sentence(clinic, tmp_path, capsys):
    assert cli.main(["dataset", "audit", str(tmp_path / "nothing.h5"), "--source", str(clinic)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_find_gives_the_names_back(clinic, capsys):
    from petgan.ingest.deidentify import load_key

    key = load_key()
    series = dcmread(clinic / "Doe-Jane/IMG-1.dcm").SeriesInstanceUID
    wanted = {
        key.name("Roe-Mary/Roe-left.png"): "file Roe-Mary/Roe-left.png",
        key.patient("HOSP-4711"): "patient of Doe-Jane/IMG-1.dcm",
        key.patient("Roe-Mary"): "patient of Roe-Mary/Roe-left.png",
        f"{key.series(series)[:12]}0012": "slice 18 of the series of Doe-Jane/IMG-1.dcm",
        key.series("Doe-Jane/Doe-left.png")[:12] + "0000": "picture of Doe-Jane/Doe-left.png",
    }
    assert cli.main(["dataset", "find", *wanted, "--source", str(clinic)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: {what}" for name, what in wanted.items()]
    assert cli.main(["dataset", "find", "0" * 16, "--source", str(clinic)]) == 1
    assert "stands for nothing" in capsys.readouterr().err
    assert cli.main(["dataset", "find", "Doe", "--source", str(clinic)]) == 2


def test_find_makes_no_key(clinic, tmp_path, capsys):
    arguments = ["--source", str(clinic), "--key-file", str(tmp_path / "other.key")]
    assert cli.main(["dataset", "find", "0" * 16, *arguments]) == 2
    assert not (tmp_path / "other.key").exists()
    assert "--key-file" in capsys.readouterr().err
