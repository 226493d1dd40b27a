"""The long forms: many interruptions and kills at random moments and places. ``make test-cluster-long``"""

from __future__ import annotations

import contextlib
import csv
import os
import random
import subprocess
import sys
import time

import pytest
from conftest import ROOT, Cluster, current, logs, wait_until
from mishaps import (
    containers,
    host_tasks,
    job_of,
    kill,
    on_testbed,
    only_run,
    processes,
    queued,
    results,
    scancel,
    starts,
    workers,
)

from petgan import slurm
from petgan.errors import PetganError
from petgan.runs import ExperimentFolder, file_digest, read_json

pytestmark = [pytest.mark.cluster, pytest.mark.long]

REQUEUES = 10
KILLS = 100
STEPS = 4500
ENDED = ("failed", "lost", "interrupted", "cancelled")


@pytest.mark.timeout(3600)
def test_requeued_ten_times_at_random_moments(cluster, make_dataset):
    """By scontrol, SIGTERM and the warning; all the while a job has a minute, and the run needs more."""
    dataset, chance = make_dataset(), random.Random(1)
    whole = cluster.submit(cluster.grid(steps=STEPS, name="whole"), dataset)
    minute = cluster.profile(sbatch=["--time=1"], warning_s=10)
    experiment = cluster.submit(cluster.grid(steps=STEPS, name="requeued"), dataset, profile=minute)
    run, job = only_run(experiment), job_of(experiment)
    ways = [slurm.requeue, lambda j: scancel(j, "--signal=TERM"), lambda j: scancel(j, "--signal=USR2")]
    for number in range(REQUEUES):
        wait_until(lambda: slurm.queue([job])[job].state == "RUNNING", 300, lambda: logs(experiment))
        time.sleep(chance.uniform(0, 20))
        with contextlib.suppress(PetganError, subprocess.CalledProcessError):  # Slurm was quicker
            ways[number % len(ways)](job)
        time.sleep(1)
    cluster.wait(experiment, "done", seconds=1800)
    cluster.wait(whole, "done", seconds=900)
    print(f"starts: {starts(run)}", file=sys.stderr)
    assert int(run.status().job.partition("+")[2]) >= REQUEUES
    assert results(run) == results(only_run(whole))


@pytest.mark.timeout(7200)
def test_a_study_under_a_hundred_kills_ends_with_the_tables_of_the_undisturbed_one(cluster, make_dataset):
    dataset, chance = make_dataset(), random.Random(2)
    dropouts = {"dropout": [0.2, 0.3, 0.4, 0.5]}
    whole = cluster.submit(cluster.grid(steps=STEPS, product=dropouts, name="whole"), dataset)
    cluster.wait(whole, "done", seconds=1800)

    grid = cluster.grid(steps=STEPS, product=dropouts, name="disturbed")
    experiment = cluster.submit(grid, dataset, "--max-parallel", "3")
    kills = 0
    while kills < KILLS:
        states = current(experiment)
        assert set(states) != {"done"}, f"too short a study: done after {kills} kills"
        if any(state in ENDED for state in states):
            kills += _retry(cluster, experiment, chance)
        time.sleep(chance.uniform(0, 5))
        kills += _harm(experiment, chance)
        print(f"{kills} kills: {states}", file=sys.stderr, flush=True)
    while set(current(experiment)) != {"done"}:
        wait_until(lambda: set(current(experiment)) <= {"done", *ENDED}, 1800, lambda: logs(experiment))
        _retry(cluster, experiment, None)

    for one, other in zip(experiment.run_folders(), whole.run_folders(), strict=True):
        assert results(one) == results(other), logs(experiment)
    assert _tables(cluster, experiment) == _tables(cluster, whole)


@pytest.mark.timeout(3600)
def test_the_demo_goes_its_road_through_the_queue(cluster):
    """`make demo-cluster`: tables from jobs that ran as arrays; each record names job, node and image."""
    cluster.petgan("demo", "--into", "démo", "--profile", cluster.profile(), timeout=3000)
    for name in ("mammogram", "pet", "transfer"):
        experiment = ExperimentFolder(cluster.folder / "démo" / name)
        arrays = {str(array["job"]) for s in experiment.slurm_submissions() for array in s.arrays}
        assert set(current(experiment)) == {"done"}
        for run in experiment.run_folders():
            record = read_json(run.lineage_file)
            assert {job.partition("_")[0] for job in record["jobs"]} <= arrays
            assert record["jobs"]
            assert set(record["hosts"]) in ({"vm1"}, {"vm2"}, {"vm1", "vm2"})
            assert record["image_digest"] == file_digest(cluster.image)
    tables = [
        list(csv.DictReader(file.read_text().splitlines()))
        for file in (cluster.folder / "démo" / "report").rglob("*.csv")
    ]
    assert len(tables) > 1
    assert all(tables), "a table without rows"


@pytest.mark.timeout(7200)
def test_the_gpu_image_is_built_and_works_where_there_is_no_gpu(testbed):
    """Unless it lies there already, this takes a quarter of an hour and 16 GB."""
    done = subprocess.run(
        [ROOT / "containers" / "build.sh", "gpu"], check=True, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    image = done.stdout.splitlines()[-1]
    said = subprocess.run(["apptainer", "test", image], check=True, capture_output=True, text=True).stdout
    assert "the gpu image works" in said


def _harm(experiment: ExperimentFolder, chance: random.Random) -> bool:
    """Kill something of a run that trains, or have Slurm stop it; whether something was killed."""
    running = [job for job, task in queued(experiment).items() if task.state == "RUNNING"]
    folders = [folder for folder in experiment.run_folders() if workers(folder)]
    if not running or not folders:
        return False
    run = chance.choice(folders)
    ways = {
        "worker": lambda: kill(workers(run)),
        "container": lambda: kill(containers(run)[:1]),
        "task": lambda: kill(host_tasks(experiment)[:1]),
        "srun": lambda: kill(processes("srun", str(experiment.path))[:1]),
        "requeue": lambda: slurm.requeue(chance.choice(running)),
        "cancel": lambda: scancel(chance.choice(running)),
        "stop": lambda: scancel(chance.choice(running), "--signal=TERM"),
        "node": lambda: _crash(chance.choice(["vm1", "vm2"])),
    }
    weights = [4, 3, 3, 2, 2, 1, 2, 0.5]
    way = chance.choices(list(ways), weights)[0]
    try:
        ways[way]()
    except (AssertionError, PetganError, subprocess.CalledProcessError):
        return False  # it had just ended by itself
    return way not in ("requeue", "cancel", "stop")  # they come on top of the kills


def _crash(node: str) -> None:
    on_testbed("node", node, "crash")
    on_testbed("node", node, "start")


def _retry(cluster: Cluster, experiment: ExperimentFolder, chance: random.Random | None) -> bool:
    """`petgan retry`, now and then killed before it is through; whether it was."""
    command = [sys.executable, "-m", "petgan", "retry", str(experiment.path), "--max-parallel", "3"]
    process = subprocess.Popen(
        command, cwd=cluster.folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    if chance is not None and chance.random() < 0.2:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=chance.uniform(0.1, 1.5))
        process.kill()
        return process.wait() < 0
    process.wait(timeout=120)
    return False


def _tables(cluster: Cluster, experiment: ExperimentFolder) -> dict[str, list[dict[str, str]]]:
    """The report's tables by name, without what tells of the road: the experiment's name, and seconds."""
    output = cluster.folder / f"report {experiment.path.name}"
    cluster.petgan("evaluate", experiment.path, timeout=600)
    cluster.petgan("report", experiment.path, "--output", output, timeout=300)
    tables = {}
    for file in output.rglob("*.csv"):
        rows = list(csv.DictReader(file.read_text().splitlines()))
        tables[str(file.relative_to(output))] = [
            {key: value for key, value in row.items() if key not in ("experiment", "busy_seconds")}
            for row in rows
        ]
    assert len(tables) > 1
    return tables
