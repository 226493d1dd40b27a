"""Study files: what is refused, and where."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from petgan import cli, stages
from petgan.config import DatasetRef
from petgan.errors import ConfigError
from petgan.profile import Profile, load_profile
from petgan.runs import ExperimentFolder, read_json
from petgan.study import is_study, load_study

ROOT = Path(__file__).parents[1]
GRID = "name: g\nbase: {steps: 3}\nsweeps: [{name: s, preset: gan}]\n"
DATASET = DatasetRef(path="/d.h5", digest="0" * 64, image_size=16, modality="pet")


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text(GRID)

    def write(text):
        (tmp_path / "study.yaml").write_text(text)
        return tmp_path / "study.yaml"

    return write


def load(path):
    return load_study(path, lambda name: DATASET)


def test_a_study_and_a_grid_are_told_apart(write, tmp_path):
    assert is_study(write("name: s\nstages: []\n"))
    assert not is_study(tmp_path / "g.yaml")
    assert not is_study(tmp_path / "nothing.yaml")


def test_paths_are_found_from_the_current_folder_and_grids_beside_the_study(write, tmp_path):
    study = load(write("name: s\nstages:\n  - {grid: g.yaml, dataset: d.h5}\n"))
    (stage,) = study.stages
    assert stage.experiment.path == tmp_path / "experiments" / "g"
    assert (len(stage.points), stage.source, stage.dataset) == (1, None, DATASET)
    assert study.report == tmp_path / "report"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stages:\n  - {grid: g.yaml, dataset: d.h5}\n", "name"),
        ("name: s\nstages: []\n", "line 2"),
        ("name: s\nstages:\n  - {grid: g.yaml, dataset: d.h5, form: e}\n", "did you mean 'from'"),
        ("name: s\nstages:\n  - {grid: g.yaml, dataset: d.h5, from: e}\n", "none of a stage before"),
        ("name: s\nstages:\n  - &a {grid: g.yaml, dataset: d.h5}\n  - *a\n", "two stages have the folder"),
        ("name: s\nstages:\n  - {grid: g.yaml, dataset: d.h5}\nweights: w.h5\n", "line 4"),
        ("name: s\nstages:\n  - {grid: g.yaml, dataset: d}\nsynthesize: {from: e, count: 0, output: o}", "0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(write, text, words):
    with pytest.raises(ConfigError) as caught:
        load(write(text))
    assert words in str(caught.value)
    assert "study.yaml" in str(caught.value)


def test_a_study_is_for_slurm(write, capsys):
    study = write("name: s\nstages:\n  - {grid: g.yaml, dataset: d.h5}\n")
    assert cli.main(["submit", str(study)]) == 2
    assert "--cluster slurm" in capsys.readouterr().err


def test_the_study_of_the_documentation_is_a_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "grids", tmp_path, dirs_exist_ok=True)
    page = (ROOT / "docs" / "cluster.md").read_text()
    (tmp_path / "study.yaml").write_text(re.search(r"```yaml\n(name: study.*?)```", page, flags=re.DOTALL)[1])
    study = load(tmp_path / "study.yaml")
    assert [stage.experiment.path.name for stage in study.stages] == ["mammogram", "pet", "transfer"]
    assert study.stages[2].source.path == study.stages[0].experiment.path
    assert study.synthesize.count == 400


@pytest.mark.parametrize("name", ["example", "testbed"])
def test_the_profiles_that_come_with_petgan_are_profiles(name, tmp_path):
    text = (ROOT / "slurm" / "profiles" / f"{name}.yaml").read_text()
    content = yaml.safe_load(text)
    image = tmp_path / "site" / "profiles" / content["image"]
    image.parent.mkdir(parents=True)
    image.touch()
    file = tmp_path / "site" / "profiles" / "profile.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert load_profile(file).image == str(image.resolve())
    if name == "example":
        assert set(content) == set(Profile.model_fields), "the example shows every key"


def test_a_job_between_the_arrays_leaves_a_word_of_its_end(tmp_path, monkeypatch, capsys):
    def fails(experiment, profile, image):
        raise ConfigError("there are no scores")

    experiment = ExperimentFolder(tmp_path)
    experiment.batch_folder("1").mkdir(parents=True)
    told = json.dumps({"profile": {}, "image": None, "submission": "1"})
    ends = {"done": lambda *_, **__: 0, "failed": fails, "interrupted": lambda *_, **__: 75}
    for state, action in ends.items():
        monkeypatch.setitem(
            stages.ACTIONS, "evaluate", lambda *given, action=action, image: action(*given, image)
        )
        code = stages.main(["evaluate", str(tmp_path), told])
        said = read_json(experiment.stage_file("1", "evaluate"))
        assert (said["state"], code) == (state, {"done": 0, "failed": 2, "interrupted": 75}[state])
        assert (said["error"] or "") == ("there are no scores" if state == "failed" else "")
    assert "petgan: there are no scores" in capsys.readouterr().err
