"""Stopped in every way that a cluster knows, a run ends as one that was left alone, bit for bit."""

from __future__ import annotations

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import logs, wait_until
from mishaps import STEPS, job_of, only_run, results, scancel, undisturbed, wait_for_step

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
    """Its setup lasts until the warning has come and gone, so that Slurm stops it; then it gets more time."""
    wait_until(lambda: run.status().state != "queued", seconds=150)
    wait_until(lambda: slurm.queue([job])[job].waits, seconds=150)
    subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=10"], check=True)


WAYS = {
    requeued: {},
    told_to_stop: {},
    preempted: {"partition": "low", "mem_gb": 5},
    out_of_time: {
        "sbatch": ["--time=1"], "warning_s": 10, "setup": ["[ $SLURM_RESTART_COUNT ] || sleep 45"]
    },
}  # fmt: skip


@pytest.mark.timeout(300)
def test_stopped_in_four_ways_a_run_ends_as_an_undisturbed_one(cluster, make_dataset):
    dataset, chance = make_dataset(), random.Random(0)
    experiments, whole = {}, undisturbed(cluster, dataset)
    with ThreadPoolExecutor() as hands:
        for way, settings in WAYS.items():
            grid = cluster.grid(steps=STEPS, name=way.__name__)
            experiments[way] = cluster.submit(grid, dataset, profile=cluster.profile(**settings))
            run, job = only_run(experiments[way]), job_of(experiments[way])
            hands.submit(way, run, job, chance.randrange(5, STEPS // 2))
    for way, experiment in experiments.items():
        cluster.wait(experiment, "done")
        run = only_run(experiment)
        assert run.status().job.startswith(f"{job_of(experiment)}+"), f"{way.__name__}: {logs(experiment)}"
        assert results(run) == whole(), way.__name__
