"""`petgan status`, `logs` and `cancel` of runs that a real Slurm trains."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT, TESTBED, Cluster, current, wait_until

from petgan import slurm
from petgan.runs import ExperimentFolder, write_json
from petgan.status import look

pytestmark = pytest.mark.cluster

PORTS_OF_A_CLUSTER = 4


def told(cluster: Cluster, experiment: ExperimentFolder) -> list[dict]:
    """The runs as `petgan status --json` gives them."""
    return json.loads(cluster.petgan("status", experiment.path, "--json"))["runs"]


def test_a_run_from_the_queue_over_a_requeue_to_its_end(cluster, make_dataset):
    """One after the other: the second waits; its log is followed from before it begins, over a requeue."""
    grid = cluster.grid(steps=1000, product={"dropout": [0.3, 0.4]})
    experiment = cluster.submit(grid, make_dataset(), "--max-parallel", "1")
    waiting = wait_until(
        lambda: [r for r in told(cluster, experiment) if r["reason"] == slurm.REASONS["JobArrayTaskLimit"]]
    )
    assert [run["state"] for run in waiting] == ["queued"]
    assert "1 queued: as many runs train at once as --max-parallel allows" in cluster.petgan(
        "status", experiment.path
    )
    second = experiment.run(waiting[0]["run_id"])
    refused = cluster.petgan("logs", experiment.path, second.path.name, code=2)
    assert "no log yet; it is queued: as many runs train at once" in refused
    with subprocess.Popen(
        [sys.executable, "-m", "petgan", "logs", experiment.path, second.path.name, "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as follower:
        wait_until(lambda: second.status().step >= 10, seconds=180)
        (training,) = (run for run in told(cluster, experiment) if run["run_id"] == second.path.name)
        assert (training["state"], training["job"]) == ("running", waiting[0]["job"])
        assert training["node"] in ("vm1", "vm2")
        cluster.requeue(training["job"])
        wait_until(
            lambda: (
                (now := look(experiment, [second.path.name])[0][second.path.name]).status.state == "queued"
                and now.reason == slurm.REASONS["BeginTime"]
            ),
            seconds=60,
        )
        cluster.wait(experiment, "done")
        out, err = follower.communicate(timeout=60)
    assert follower.returncode == 0, err
    assert out == second.log_file.read_text()
    assert len(re.findall(r"^done: step 1000 of 1000", out, re.M)) == 1
    states = [re.match(r"== (\w+)", line)[1] for line in err.splitlines()[1:]]
    assert [state for state, _ in itertools.groupby(states)][-4:] == ["running", "queued", "running", "done"]
    efficiency(cluster, experiment)


def efficiency(cluster: Cluster, experiment: ExperimentFolder) -> None:
    """Of runs that have ended: plausible by what the kernel says of the machine."""
    jobs = wait_until(  # accounting hears of a job's end a little later
        lambda: (
            (jobs := json.loads(cluster.petgan("status", experiment.path, "--efficiency", "--json")))
            and [job["state"] for job in jobs if job["peak_mem_gb"]] == ["COMPLETED"] * 2
            and jobs
        ),
        seconds=60,
    )
    assert sorted(job["runs"][0] for job in jobs) == sorted(r["run_id"] for r in told(cluster, experiment))
    for job in jobs:
        assert job["asked_mem_gb"] == 2
        assert 0.2 < job["peak_mem_gb"] < 4  # TensorFlow takes so much
        assert 2 < job["cpu_seconds"] < os.cpu_count() * job["elapsed_seconds"]
    page = cluster.petgan("status", experiment.path, "--efficiency")
    assert all(job["job"] in page for job in jobs)


def test_cancel_stops_what_trains_at_a_checkpoint_and_what_waits(cluster, make_dataset):
    grid = cluster.grid(steps=100000, product={"dropout": [0.3, 0.4]})
    experiment = cluster.submit(grid, make_dataset(), "--max-parallel", "1")
    running = wait_until(lambda: [r for r in experiment.run_folders() if r.status().step > 10], seconds=180)
    assert "asked 1 running" in (said := cluster.petgan("cancel", experiment.path))
    assert "cancelled 1 that had not started" in said
    cluster.wait(experiment, "cancelled", seconds=60)
    wait_until(lambda: not slurm.queue(), seconds=60)
    status = running[0].status()
    assert running[0].last_checkpoints()[0] == running[0].checkpoint_file(status.step)
    assert current(experiment) == ["cancelled", "cancelled"]
    again = cluster.petgan("retry", experiment.path, "--cluster", "slurm", "--dry-run")
    assert again.splitlines() == [f"would start {run.path.name}" for run in experiment.run_folders()]


def test_one_of_the_runs_of_a_job_is_cancelled_and_the_job_goes_on_with_the_next(cluster, make_dataset):
    grid = cluster.grid(steps=100000, product={"dropout": [0.3, 0.4]}, resources={"runs_per_job": 2})
    experiment = cluster.submit(grid, make_dataset())
    first, second = experiment.run_folders()
    wait_until(lambda: first.status().step > 10, seconds=180)
    assert [(r["state"], r["reason"]) for r in told(cluster, experiment)][1] == (
        "queued", f"waits for its turn in a job on {first.status().host}",
    )  # fmt: skip
    assert "asked 1 running" in cluster.petgan("cancel", experiment.path, "--run", first.path.name)
    wait_until(lambda: second.status().step > 10, seconds=180)
    assert [r["state"] for r in told(cluster, experiment)] == ["cancelled", "running"]
    assert first.status().state == "cancelled"
    assert len({r["job"] for r in told(cluster, experiment)}) == 1
    cluster.petgan("cancel", experiment.path, "--run", second.path.name)
    cluster.wait(experiment, "cancelled", seconds=60)
    wait_until(lambda: not slurm.queue(), seconds=60)


def free_ports(count: int) -> int:
    """The first of so many TCP ports in a row that nobody listens at."""
    for first in range(17100, 30000, 20):
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            for port in range(first, first + count):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("there are no free ports")


@pytest.fixture
def without_accounting(monkeypatch):
    """Another cluster beside the first, one that keeps no accounts."""
    # Not below pytest's own folder: munge insists on one that everybody may enter.
    folder = Path(tempfile.mkdtemp(prefix="petgan-testbed-", dir="/var/tmp"))
    folder.chmod(0o755)
    monkeypatch.setenv("PETGAN_TESTBED", str(folder))
    monkeypatch.setenv("PETGAN_TESTBED_PORT", str(free_ports(PORTS_OF_A_CLUSTER)))
    monkeypatch.setenv("SLURM_CONF", str(folder / "etc" / "slurm.conf"))
    slurm.config.cache_clear()
    try:
        subprocess.run([TESTBED, "start", "--no-accounting"], check=True, stdin=subprocess.DEVNULL)
        yield
    finally:
        subprocess.run([TESTBED, "stop"], check=True, stdin=subprocess.DEVNULL)
        slurm.config.cache_clear()
        shutil.rmtree(folder)


def test_a_run_of_which_nobody_had_the_last_word_with_accounting(cluster, make_dataset):
    experiment = cluster.submit(cluster.grid(steps=100000), make_dataset())
    (lost,) = lost_run(cluster, experiment)
    assert lost["reason"] == f"the job failed (job {lost['job']})"


def test_a_run_of_which_nobody_had_the_last_word_without_accounting(
    without_accounting, cluster, make_dataset
):
    experiment = cluster.submit(cluster.grid(steps=100000), make_dataset())
    (lost,) = lost_run(cluster, experiment)
    assert lost["reason"] == f"Slurm has forgotten its job {lost['job']}"
    said = cluster.petgan("status", experiment.path, "--efficiency", code=1)
    assert "this cluster keeps no accounts" in said


def lost_run(cluster: Cluster, experiment: ExperimentFolder) -> list[dict]:
    """Kill a worker and the task on its host in one blow, so that nobody can say a word of it."""
    run = experiment.run_folders()[0]
    wait_until(lambda: run.status().step > 0, seconds=180)
    job, worker = told(cluster, experiment)[0]["job"], run.status().pid
    os.kill(worker, signal.SIGSTOP)  # it would write a checkpoint as soon as its parent has gone
    os.kill(task_of(worker), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not slurm.queue([job]), seconds=60)
    assert current(experiment) == ["running"]  # its heart has beaten lately
    beat = run.heartbeat_file.stat().st_mtime - 60
    os.utime(run.heartbeat_file, (beat, beat))
    assert current(experiment) == ["lost"]
    return told(cluster, experiment)


def task_of(pid: int) -> int:
    """The process of `petgan.task` that a worker descends from."""
    while b"petgan.task" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


def test_the_status_of_ten_thousand_runs(testbed, tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "status.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    experiment = benchmark.make_experiment(tmp_path / "e", 10_000)
    submission = experiment.submission("1")
    arrays = []
    try:
        for array in submission.arrays:
            script = (
                f"#!/bin/sh\n#SBATCH --hold --job-name={array['name']} --array=0-{array['tasks'] - 1}\ntrue\n"
            )
            array["job"] = slurm.submit(script)
            arrays.append(array["job"])
        write_json(experiment.submission_file("1"), vars(submission))
        out = subprocess.run(
            [sys.executable, "-m", "petgan", "status", experiment.path],
            check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).stdout  # fmt: skip
        assert "10000 runs: 3334 done, 6666 queued" in out
        assert "6666 queued: is held: release it with scontrol release" in out
    finally:
        slurm.cancel(arrays)
