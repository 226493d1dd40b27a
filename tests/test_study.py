"""Study files: what is refused, and where; and the jobs that come of one, with stand-ins for Slurm."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from stand_ins import put

from petgan import cli, slurm, stages, submit
from petgan.config import DatasetRef
from petgan.errors import EXIT_INTERRUPTED, ConfigError
from petgan.profile import Profile, load_profile
from petgan.runs import ExperimentFolder, read_json
from petgan.study import is_study, load_study, submit_study
from petgan.submit import Target
from petgan.transfer import Source, pairs

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


def test_a_stage_names_its_source_or_its_grid_does(write, tmp_path):
    (tmp_path / "g.yaml").write_text("name: g\nsource: grid.h5\nsweeps: [{name: s, preset: cut}]\n")
    opened = []

    def open_dataset(name):
        opened.append(name)
        return DATASET.model_copy(update={"path": name})

    for given, expected in (("", "grid.h5"), (", source: stage.h5", "stage.h5")):
        text = f"name: s\nstages:\n  - {{grid: g.yaml, dataset: d.h5{given}}}\n"
        (stage,) = load_study(write(text), open_dataset).stages
        assert [point.source.path for point in stage.points] == [expected]
    assert opened == ["d.h5", "grid.h5", "d.h5", "stage.h5"]


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


# --- the jobs -------------------------------------------------------------------------------------------

#: Gives each script another id, and keeps it.
SBATCH = """#!/bin/sh
[ "$1" = --parsable ] || exit 0
number=$(ls "{folder}" | grep -c '^job-')
cat > "{folder}/job-$((101 + number)).sh"
echo $((101 + number))
"""
#: Says that all of them wait, or those that it is asked for; and what stands in the file others.
SQUEUE = """#!/bin/sh
asked=
for word; do case $word in --jobs=*) asked=,${{word#--jobs=}},; esac; done
[ -n "$asked" ] || cat "{folder}/others"
for job in "{folder}"/job-*.sh; do
    [ -e "$job" ] || exit 0
    number=${{job##*/job-}} index=
    number=${{number%.sh}}
    case $asked in '' | *,$number,*) ;; *) continue; esac
    grep -q '^#SBATCH --array' "$job" && index=_0
    echo "$number$index|PENDING||$(sed -n 's/^#SBATCH --job-name=//p' "$job")|Dependency"
done
"""
STUDY = """
name: s
stages:
  - {grid: g.yaml, dataset: d.h5, experiment: a/pet}
  - {grid: g.yaml, dataset: d.h5, experiment: a/transfer, from: a/pet}
synthesize: {from: a/pet, count: 3, output: made.h5}
"""
ORDER = ["train", "evaluate", "train", "choose", "transfer", "evaluate", "report", "synthesize"]


@pytest.fixture
def cluster(write, tmp_path, monkeypatch):
    """A study, where it is to go, and a Slurm whose queue holds all that was submitted, waiting."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    slurm.config.cache_clear()
    put(folder, "scontrol", "MaxArraySize = 1001\nAccountingStorageType = (null)\n")
    put(folder, "sinfo", "main*|up|infinite|2|8|12000|(null)|(null)\n")
    (folder / "others").touch()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    image = tmp_path / "image.sif"
    image.write_bytes(b"hsqs")
    yield load(write(STUDY)), Target("slurm", profile=Profile(image=str(image))), folder
    slurm.config.cache_clear()


def jobs(folder):
    """The scripts that sbatch was given, by the id that it answered."""
    return {int(file.stem[4:]): file.read_text() for file in sorted(folder.glob("job-*.sh"))}


def option(text, name):
    found = re.search(rf"^#SBATCH --{name}=(.*)$", text, flags=re.MULTILINE)
    return found and found[1]


def after(text):
    dependency = option(text, "dependency")
    return [] if dependency is None else sorted(map(int, dependency.removeprefix("afterany:").split(":")))


def test_each_job_of_a_study_waits_for_those_that_it_needs(cluster):
    study, target, folder = cluster
    queued = submit_study(study, target, command="c")
    scripts = jobs(folder)
    train, evaluate, train_2, choose, transfer, evaluate_2, report, _ = scripts
    assert [after(text) for text in scripts.values()] == [
        [], [train], [], [evaluate], [choose], [train_2, transfer], [evaluate, evaluate_2], [report],
    ]  # fmt: skip
    assert sorted({int(number) for numbers in queued.values() for number in numbers}) == list(scripts)


def test_a_dry_run_prints_every_script_and_writes_nothing(cluster, tmp_path, monkeypatch, capsys):
    study, target, folder = cluster
    monkeypatch.setattr("petgan.cli.submit.reference_of", lambda path: DATASET)
    (tmp_path / "p.yaml").write_text("image: image.sif\n")
    before = {path for path in tmp_path.rglob("*") if path.parent != folder}
    arguments = ["submit", str(tmp_path / "study.yaml"), "--profile", str(tmp_path / "p.yaml"), "--dry-run"]
    assert cli.main(arguments) == 0
    assert {path for path in tmp_path.rglob("*") if path.parent != folder} == before
    assert not jobs(folder)
    shown = ["#!/bin/bash" + text for text in capsys.readouterr().out.split("#!/bin/bash")[1:]]
    submit_study(study, target, command="c")
    queued = dict(zip(kinds_of(jobs(folder).values()), jobs(folder).values(), strict=True))
    assert sorted(kinds_of(shown)) == sorted(queued)
    for kind, text in zip(kinds_of(shown), shown, strict=True):
        assert without_names(text).startswith(without_names(queued[kind])), kind


def without_names(script):
    """A script without what another submission has otherwise: its name, and the ids of jobs before it."""
    script = re.sub(r"\d{8}T\d+-\d+|NAME", "SUBMISSION", script)
    return re.sub(r"afterany:(\S+)", lambda ids: f"afterany {ids[1].count(':') + 1} jobs", script)


def kinds_of(scripts):
    """What each does, by its command: an array has none, and is known by its dependency."""
    counts = {}
    for text in scripts:
        found = re.search(r"petgan\.stages (\w+) \S*?(\w+) ", text)
        kind = " ".join(found.groups()) if found else re.search(r"petgan\.task \S*?(\w+) ", text)[1]
        counts[kind] = counts.get(kind, 0) + 1
        yield f"{kind} {counts[kind]}"


def test_given_again_it_makes_room_among_its_own_jobs_and_no_others(cluster):
    """Other experiments are called as its own, or begin so: their evaluations go on waiting."""
    study, target, folder = cluster
    submit_study(study, target, command="c")
    own = [number for number, kind in zip(jobs(folder), ORDER, strict=True) if kind != "train"]
    stamp = "20260101T000000000000-7"
    for name in ("pet", "pet-2"):
        with open(folder / "others", "a") as file:
            file.write(f"7|PENDING||petgan-{name}-{stamp}-evaluate|Dependency\n")
    cancelled = put(folder, "scancel")
    submit_study(study, target, command="c")
    (call,) = cancelled()
    assert sorted(map(int, call.split())) == own
    assert [option(text, "job-name").rpartition("-")[2] for text in list(jobs(folder).values())[8:]] == [
        kind if kind != "transfer" else "0" for kind in ORDER if kind != "train"
    ]


def test_a_choice_that_is_broken_off_and_begins_again_gives_the_array_the_same_runs(cluster):
    study, target, _ = cluster
    submit_study(study, target, command="c")
    stage = study.stages[1]
    (name,) = [
        file.stem
        for file in stage.experiment.submissions.glob("*.json")
        if stage.experiment.submission(file.stem).transfer
    ]
    sources = {"gan": Source("gan", None, "/weights.h5", "0" * 64)}
    warm = [p for p in pairs(stage.points, sources, DATASET) if p.start == "transfer"]
    parent = {"experiment": "/x", "score": None, "runs": []}
    runs = submit.fill_transfer(stage.experiment, name, warm, parent)
    assert runs == [point.run_id for point in warm]
    assert stage.experiment.run(runs[0]).status().state == "queued"
    assert submit.fill_transfer(stage.experiment, name, warm, parent) == runs
    assert stage.experiment.submission(name).runs == runs
    stage.experiment.run(runs[0]).update_status(state="done")
    assert submit.fill_transfer(stage.experiment, name, warm, parent) == []


# --- a job that is stopped ------------------------------------------------------------------------------

SLEEPER = "import time; time.sleep(30)"
TIDY = """
import signal, time
def stop(*_):
    time.sleep(1.2)  # a second signal would break this off
    raise SystemExit(130)
signal.signal(signal.SIGTERM, stop)
time.sleep(30)
"""


@pytest.fixture
def requeued(monkeypatch):
    """A job that runs; what Slurm was asked to queue again."""
    values = {
        "PROCID": 0, "NTASKS": 1, "LOCALID": 0, "NODEID": 0, "STEP_TASKS_PER_NODE": 1, "STEP_NUM_NODES": 1,
        "JOB_ID": 9,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURMD_NODENAME", "n")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    asked = []
    monkeypatch.setattr(slurm, "goes_on", lambda job: True)
    monkeypatch.setattr(slurm, "requeue", asked.append)
    return asked


def run_and_signal(script, number, folder):
    threading.Timer(0.7, lambda: os.kill(os.getpid(), number)).start()
    return stages._run([sys.executable, "-c", script], os.environ, folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("script", [SLEEPER, TIDY])
def test_preempted_or_out_of_time_it_is_queued_again(requeued, tmp_path, number, script):
    began = time.monotonic()
    assert run_and_signal(script, number, tmp_path) == EXIT_INTERRUPTED
    assert requeued == ["9"]
    assert time.monotonic() - began < 20


def test_a_signal_that_reaches_the_worker_first_is_a_stop_too(requeued, tmp_path):
    script = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2)"
    assert run_and_signal(script, signal.SIGUSR2, tmp_path) == EXIT_INTERRUPTED
    assert requeued == ["9"]


def test_what_was_cancelled_or_has_ended_is_not_queued_again(requeued, tmp_path, monkeypatch):
    ends = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); time.sleep(30)"
    assert run_and_signal(ends, signal.SIGTERM, tmp_path) == 0
    assert stages._run([sys.executable, "-c", "exit(3)"], os.environ, tmp_path) == 3
    monkeypatch.setattr(slurm, "goes_on", lambda job: False)
    assert run_and_signal(SLEEPER, signal.SIGTERM, tmp_path) == EXIT_INTERRUPTED
    assert requeued == []


def test_a_choice_ends_before_it_stops(tmp_path, monkeypatch):
    """The array behind it starts when its job has ended, with or without runs."""

    def stopped(experiment, name):
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    monkeypatch.setattr(stages, "_choose", stopped)
    assert stages.choose(ExperimentFolder(tmp_path), Profile(), None, "x") == 0
