"""Stopped in every way that a cluster knows, a run ends as one that was left alone, bit for bit."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import logs, wait_until
from mishaps import STEPS, job_of, only_run, results, scancel, undisturbed, wait_for_step, workers

from petgan import slurm

pytestmark = pytest.mark.cluster


def requeued(run, job, step):
    wait_for_step(run, step)
    slurm.requeue(job)


def told_to_stop(run, job, step):
    wait_for_step(run, step)
    scancel(job, "--signal=TERM")


def preempted(run, job, step):
    wait_for_step(run, step)
    shape = ["--partition=high", "--nodes=2", "--mem=8000", "--time=1", "--output=/dev/null"]
    subprocess.run(["sbatch", *shape, "--wrap=sleep 1"], check=True, stdout=subprocess.DEVNULL)


def out_of_time(run, job, step):
    """It stands still until the warning has reached it, and goes on as soon as it gets more time."""
    wait_for_step(run, step)
    (worker,) = workers(run)
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: told(worker), seconds=150)
    os.kill(worker, signal.SIGCONT)
    wait_until(lambda: slurm.queue([job])[job].waits, seconds=150)
    subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=10"], check=True)


def told(process: int) -> bool:
    """Whether SIGTERM waits for a process that stands still."""
    status = Path(f"/proc/{process}/status").read_text()
    pending = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in pending)


WAYS = {
    requeued: {},
    told_to_stop: {},
    preempted: {"partition": "low", "mem_gb": 5},
    out_of_time: {"sbatch": ["--time=1"], "warning_s": 10},
}


@pytest.mark.timeout(300)
def test_stopped_in_four_ways_a_run_ends_as_an_undisturbed_one(cluster, make_dataset):
    dataset, chance = make_dataset(), random.Random(0)
    experiments, whole = {}, undisturbed(cluster, dataset)
    with ThreadPoolExecutor() as hands:
        for way, settings in WAYS.items():
            grid = cluster.grid(steps=STEPS, name=way.__name__)
            experiments[way] = cluster.submit(grid, dataset, profile=cluster.profile(**settings))
            run, job = only_run(experiments[way]), job_of(experiments[way])
            hands.submit(way, run, job, chance.randrange(5, STEPS // 4))
    for way, experiment in experiments.items():
        cluster.wait(experiment, "done")
        run = only_run(experiment)
        assert run.status().job.startswith(f"{job_of(experiment)}+"), f"{way.__name__}: {logs(experiment)}"
        assert results(run) == whole(), way.__name__
