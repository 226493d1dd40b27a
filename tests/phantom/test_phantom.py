import json
from pathlib import Path

import pytest

from petgan import cli
from petgan.errors import ConfigError
from petgan.phantom import make_phantom

SMALL = {"modality": "both", "patients": 3, "slices": 2, "size": 64, "seed": 4}


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "a"
    make_phantom(folder, **SMALL)
    return folder


def test_same_parameters_same_bytes_with_any_number_of_workers(phantom, tmp_path):
    calls = []
    assert make_phantom(tmp_path / "b", **SMALL, workers=2, progress=lambda *now: calls.append(now)) == 18
    assert content(tmp_path / "b") == content(phantom)
    assert calls == [(0, 18), (6, 18), (12, 18), (18, 18)]


def test_another_seed_gives_other_patients(phantom, tmp_path):
    make_phantom(tmp_path, **SMALL | {"seed": 5, "patients": 1})
    ours, theirs = content(phantom), content(tmp_path)
    assert not set(ours.values()) & set(theirs.values())


def test_a_patient_does_not_depend_on_how_many_follow_or_on_the_other_modality(phantom, tmp_path):
    make_phantom(tmp_path, **SMALL | {"patients": 1, "modality": "pet"})
    fewer = content(tmp_path)
    del fewer["phantom.json"]
    assert len(fewer) == 2
    assert fewer.items() <= content(phantom).items()


def test_the_record_tells_how_it_was_made(phantom):
    record = json.loads((phantom / "phantom.json").read_text())
    assert record.items() >= (SMALL | {"recon": "fbp", "schema_version": 1}).items()
    again = {key: record[key] for key in (*SMALL, "recon")}
    before = content(phantom)
    make_phantom(phantom, **again)
    assert content(phantom) == before


def test_an_interrupted_phantom_is_completed(phantom, tmp_path):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_phantom(tmp_path, **SMALL, progress=stop)
    assert not (tmp_path / "phantom.json").exists()
    assert content(tmp_path).items() <= content(phantom).items()
    make_phantom(tmp_path, **SMALL)
    assert content(tmp_path) == content(phantom)


@pytest.mark.parametrize("change", [{"seed": 5}, {"patients": 2}, {"size": 128}, {"modality": "pet"}])
def test_a_folder_of_another_phantom_is_refused(phantom, change):
    before = content(phantom)
    with pytest.raises(ConfigError, match="choose another folder, or delete"):
        make_phantom(phantom, **SMALL | change)
    assert content(phantom) == before


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "pet" / "someone").mkdir(parents=True)
    (tmp_path / "pet" / "someone" / "scan.dcm").write_bytes(b"")
    with pytest.raises(ConfigError, match="files of something else"):
        make_phantom(tmp_path, **SMALL)
    assert list(content(tmp_path)) == ["pet/someone/scan.dcm"]
    with pytest.raises(ConfigError, match="is a file"):
        make_phantom(tmp_path / "pet" / "someone" / "scan.dcm" / "below", **SMALL)


@pytest.mark.parametrize(
    "change",
    [
        {"patients": 0}, {"slices": 0}, {"size": 8}, {"size": 300}, {"seed": -1}, {"workers": 0},
        {"modality": "ct"}, {"recon": "osem"}, {"modality": "mammogram", "size": 4000},
    ],
)  # fmt: skip
def test_impossible_values_are_refused_before_anything_is_written(tmp_path, change):
    with pytest.raises(ConfigError):
        make_phantom(tmp_path / "x", **SMALL | change)
    assert not (tmp_path / "x").exists()


def arguments(folder, *more):
    return ["phantom", str(folder), "--patients", "1", "--slices", "2", "--size", "64", *more]


def test_the_command_writes_what_the_function_writes(tmp_path, capsys):
    assert cli.main(arguments(tmp_path / "a", "--recon", "mlem", "--modality", "pet")) == 0
    assert "wrote 2 files to" in capsys.readouterr().out
    make_phantom(tmp_path / "b", "pet", patients=1, slices=2, size=64, recon="mlem")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert cli.main(arguments(tmp_path / "a", "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "would write 2 pet files of 64 x 64 pixels" in out
    assert "would write 4 mammogram files" in out
    assert not (tmp_path / "a").exists()


def test_a_mistake_is_one_sentence_and_exit_code_2(phantom, capsys):
    assert cli.main(arguments(phantom)) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "choose another folder" in error
    assert cli.main(arguments(phantom, "--dry-run")) == 2
