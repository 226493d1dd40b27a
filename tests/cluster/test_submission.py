"""A submitter that is killed, and what a submission leaves: which runs, whose code, nobody's secrets."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, current, wait_until
from mishaps import processes, queued, starts

from petgan import slurm
from petgan.runs import ExperimentFolder, file_digest, read_json
from petgan.snapshot import code_digest

pytestmark = pytest.mark.cluster

SECRET = "correct-horse-battery-staple"  # noqa: S105

#: An sbatch that kills who called it, before or after it has handed the script to Slurm, the first time.
MURDEROUS = """#!/bin/bash
[[ $* == *--test-only* ]] && exec {sbatch} "$@"
[[ -e {done} ]] && exec {sbatch} "$@"
touch {done}
[[ $WHEN == before ]] && {{ kill -KILL $PPID; sleep 1; exit 1; }}
answer=$({sbatch} "$@")
kill -KILL $PPID
echo "$answer"
"""


def submit_command(cluster, grid, dataset, profile):
    words = ["submit", grid, "--dataset", dataset, "--experiment", cluster.folder / "e"]
    return [sys.executable, "-m", "petgan", *map(str, words), "--cluster", "slurm", "--profile", str(profile)]


def killed_submitter(cluster, command, environment, after=None):
    """Start a command, and have it be killed; its exit code."""
    process = subprocess.Popen(
        command, cwd=cluster.folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if after is not None:
        time.sleep(after)
        process.kill()
    code = process.wait(timeout=60)
    wait_until(lambda: not processes("sbatch", str(cluster.folder)), 30)
    return code


@pytest.fixture
def experiment(cluster):
    return ExperimentFolder(cluster.folder / "e")


def runs_in_the_queue(experiment):
    """How many; no orphan and no run twice: every task of Slurm's is the one task of some submitted run."""
    found = [
        run_id
        for submission in experiment.slurm_submissions()
        for run_id, array, index in submission.tasks()
        for task in queued(experiment).values()
        if task.name == array["name"] and int(task.job.partition("_")[2]) == index
    ]
    everything = [task for task in slurm.queue().values() if task.name.startswith("petgan-e-")]
    assert len(found) == len(set(found)) == len(everything)
    return len(found)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_submitter_killed_beside_sbatch_leaves_no_orphan(cluster, experiment, make_dataset, when):
    """Slurm has the array, or has not; the same command again queues what is missing, and only that."""
    bin_folder = cluster.folder.parent / "bin"
    bin_folder.mkdir()
    wrapper = bin_folder / "sbatch"
    wrapper.write_text(MURDEROUS.format(sbatch=shutil.which("sbatch"), done=bin_folder / "done"))
    wrapper.chmod(0o755)
    path = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "WHEN": when}
    command = submit_command(
        cluster, cluster.grid(product={"dropout": [0.1, 0.2, 0.3]}), make_dataset(),
        cluster.profile(sbatch=["--hold"]),
    )  # fmt: skip
    assert killed_submitter(cluster, command, path) == -9
    assert current(experiment) == (["lost"] * 3 if when == "before" else ["queued"] * 3)
    assert runs_in_the_queue(experiment) == (0 if when == "before" else 3)
    for _ in range(2):
        assert killed_submitter(cluster, command, path) == 0
        assert current(experiment) == ["queued"] * 3
        assert runs_in_the_queue(experiment) == 3
    cluster.petgan("cancel", experiment.path)
    assert not queued(experiment)


def test_a_submitter_killed_at_random_moments_completes_when_given_again(cluster, experiment, make_dataset):
    chance, began = random.Random(2), time.monotonic()
    grid = cluster.grid(steps=20, product={"dropout": [0.1, 0.2, 0.3]})
    command = submit_command(cluster, grid, make_dataset(), cluster.profile(sbatch=["--hold"]))
    while killed_submitter(cluster, command, {}, after=chance.uniform(0.5, 3.5)) != 0:
        runs_in_the_queue(experiment)
        assert time.monotonic() - began < 120
    assert runs_in_the_queue(experiment) == 3
    for job in {task.job for task in queued(experiment).values()}:
        subprocess.run(["scontrol", "release", job], check=True)
    cluster.wait(experiment, "done")
    assert [len(starts(run)) for run in experiment.run_folders()] == [1, 1, 1]


STUDY_KINDS = {("one", "evaluate"): 1, ("two", "choose"): 1, ("two", "evaluate"): 1, ("two", "report"): 1}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_submitter_of_a_study_killed_at_random_moments_leaves_one_chain(cluster, make_dataset):
    """Given again until it is through: each job of the chain waits once, and each run is in one task."""
    chance, began = random.Random(3), time.monotonic()
    grid, dataset = cluster.grid(steps=20, product={"dropout": [0.1, 0.2]}), make_dataset()
    stages = [{"grid": grid.name, "dataset": str(dataset), "experiment": name} for name in ("one", "two")]
    stages[1]["from"] = "one"
    study = cluster.folder / "study.yaml"
    study.write_text(yaml.safe_dump({"name": "study", "stages": stages}))
    profile = cluster.profile(sbatch=["--hold"])
    command = [sys.executable, "-m", "petgan", "submit", str(study), "--profile", str(profile)]
    try:
        most = itertools.count(4, 2)  # seconds, for it has to come through on a busy machine too
        while killed_submitter(cluster, command, {}, after=chance.uniform(0.5, next(most))) != 0:
            assert time.monotonic() - began < 200
        assert _kinds() == {**STUDY_KINDS, ("one", "0"): 2, ("two", "0"): 2 + 2}
        for name in ("one", "two"):
            assert current(ExperimentFolder(cluster.folder / name)) == ["queued"] * 2
            cluster.petgan("cancel", cluster.folder / name)
        assert not _kinds()
    finally:
        slurm.cancel([task.job for task in _study_tasks()])


def _study_tasks():
    return [task for task in slurm.queue().values() if task.name.startswith(("petgan-one-", "petgan-two-"))]


def _kinds():
    """How many tasks of each kind wait: by experiment, and the end of the job's name."""
    parts = (task.name.split("-") for task in _study_tasks())
    return dict(Counter((words[1], words[-1]) for words in parts))


POISON = "raise SystemExit('a package of the user has leaked into the container')\n"


def test_nothing_of_the_user_s_environment_gets_into_job_or_container(cluster, experiment, make_dataset):
    """A home and a PYTHONPATH with broken packages, and a secret: none of it is seen or written anywhere."""
    home, paths = cluster.folder / "Zuhause, à moi", cluster.folder / "python path"
    for folder in (home / ".local/lib/python3.11/site-packages", paths):
        folder.mkdir(parents=True)
        for module in ("numpy", "h5py", "keras", "tensorflow", "sitecustomize", "usercustomize"):
            (folder / f"{module}.py").write_text(POISON)
    for module in ("numpy", "h5py", "sitecustomize", "usercustomize"):  # the login node's Python reads these
        (paths / f"{module}.py").unlink()
    environment = {
        "HOME": str(home), "PYTHONPATH": f"{ROOT}:{paths}", "PETGAN_SECRET_TOKEN": SECRET,
        "APPTAINERENV_TOKEN": SECRET, "SLURM_TOKEN": SECRET, "SBATCH_COMMENT": SECRET, "SBATCH_EXPORT": "ALL",
        "TF_ENABLE_ONEDNN_OPTS": "0", "PETGAN_RANKS": "7",
    }  # fmt: skip
    grid, dataset = cluster.grid(steps=2000), make_dataset()
    cluster.petgan(*submit_command(cluster, grid, dataset, cluster.profile())[3:], env=environment)
    (run,), (job,) = experiment.run_folders(), queued(experiment)
    wait_until(lambda: run.metrics(), 120)

    ours = processes(str(experiment.path)) + processes("petgan.worker", run.path.name)
    assert len(ours) >= 3  # srun, the task, the worker in its container
    for pid in ours:
        with contextlib.suppress(FileNotFoundError):
            assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    shown = subprocess.run(
        ["scontrol", "show", "job", "--details", job], capture_output=True, text=True
    ).stdout
    kept = subprocess.run(
        ["scontrol", "write", "batch_script", job, "-"], capture_output=True, text=True
    ).stdout
    assert "petgan.task" in kept
    assert SECRET not in shown + kept
    spool = Path(os.environ["PETGAN_TESTBED"])
    written = [*experiment.path.rglob("*"), *(spool / "slurmctld").rglob("*"), *spool.glob("slurmd-*/**/*")]
    assert run.log_file in written
    assert not [path for path in written if path.is_file() and SECRET.encode() in path.read_bytes()]

    cluster.petgan("cancel", experiment.path)
    cluster.wait(experiment, "cancelled")
    record = read_json(run.lineage_file)
    assert (record["jobs"], record["ranks"]) == ([job], 1)
    assert record["hosts"] == [run.status().host]
    assert run.status().host in ("vm1", "vm2")
    assert run.status().job == job
    assert record["image_digest"] == file_digest(cluster.image)
    assert record["code_digest"] == code_digest()


def test_what_was_submitted_is_trained_once_with_the_code_of_then(cluster, experiment, make_dataset):
    """Two runs a job, one job at a time; the source that is broken after the submission does not count."""
    source = cluster.folder / "source"
    shutil.copytree(ROOT / "petgan", source / "petgan", ignore=shutil.ignore_patterns("__pycache__"))
    environment, dataset = {"PYTHONPATH": str(source)}, make_dataset()
    dropouts = [0.1, 0.2, 0.3]

    def submit(product):
        grid = cluster.grid(steps=20, product={"dropout": product}, resources={"runs_per_job": 2})
        command = submit_command(cluster, grid, dataset, cluster.profile())
        return cluster.petgan(*command[3:], "--max-parallel", "1", env=environment)

    submit(dropouts)
    (source / "petgan" / "task.py").write_text("raise SystemExit('edited')")
    (source / "petgan" / "worker.py").write_text("raise SystemExit('edited')")
    assert "0 of 3 runs to start" in submit(dropouts)
    assert len(queued(experiment)) == 2
    at_once = set()
    while left := queued(experiment):
        at_once.add(sum(task.state == "RUNNING" for task in left.values()))
        time.sleep(0.2)
    assert max(at_once) == 1
    assert current(experiment) == ["done"] * 3
    jobs = [starts(run) for run in experiment.run_folders()]
    assert jobs[0] == jobs[1] != jobs[2]
    assert [len(started) for started in jobs] == [1, 1, 1]
    assert len({read_json(run.lineage_file)["code_digest"] for run in experiment.run_folders()}) == 1

    assert "1 of 4 runs to start" in submit([*dropouts, 0.4])
    assert len(queued(experiment)) == 1
