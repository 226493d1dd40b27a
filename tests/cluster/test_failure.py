"""Killed in every place: what is said of the run, that nothing is left over, and that retry completes it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import logs, wait_until
from mishaps import (
    STEPS,
    containers,
    host_tasks,
    job_of,
    kill,
    last_step,
    on_testbed,
    only_run,
    processes,
    queued,
    results,
    scancel,
    starts,
    undisturbed,
    wait_for_step,
    workers,
)

from petgan import slurm
from petgan.errors import RankCountError

pytestmark = pytest.mark.cluster


def shown(cluster, experiment):
    """What `petgan status` says of the only run: its state, and the sentence beside it."""
    (run,) = json.loads(cluster.petgan("status", experiment.path, "--json"))["runs"]
    return run["state"], f"{run['error']} {run['reason']}"


def the_worker(experiment):
    return workers(only_run(experiment))


def the_container(experiment):
    return containers(only_run(experiment))


KILLED = "the worker was killed (SIGKILL), as happens when the machine runs out of memory"
PLACES = {
    the_worker: {"failed": KILLED},
    the_container: {"failed": KILLED},
    host_tasks: {"interrupted": "the job failed", "lost": "the job failed"},
}


@pytest.mark.timeout(300)
def test_killed_in_three_places_a_run_says_so_and_retry_completes_it(cluster, make_dataset):
    dataset, chance = make_dataset(), random.Random(1)
    whole, begun = undisturbed(cluster, dataset), []
    with ThreadPoolExecutor() as hands:
        for place in PLACES:
            experiment = cluster.submit(cluster.grid(steps=STEPS, name=place.__name__), dataset)
            step = chance.randrange(20, STEPS // 2)
            begun.append(hands.submit(kill_and_retry, cluster, experiment, place, step))
    for experiment, node in (future.result() for future in begun):
        cluster.wait(experiment, "done")
        run = only_run(experiment)
        assert len(starts(run)) == 2
        assert run.status().host != node
        assert "going on from step" in run.log_file.read_text()
        assert results(run) == whole()


def kill_and_retry(cluster, experiment, place, step):
    wait_for_step(only_run(experiment), step)
    node, killed = only_run(experiment).status().host, time.monotonic()
    kill(place(experiment))
    wait_until(lambda: not queued(experiment) and not processes(experiment.path.name), 60)
    state, sentence = shown(cluster, experiment)
    assert PLACES[place][state] in sentence, logs(experiment)
    print(f"{place.__name__}: {state} after {time.monotonic() - killed:.0f} s: {sentence}")
    cluster.petgan("retry", experiment.path, "--other-nodes")
    return experiment, node


RANKS = {"nodes": 2, "tasks": 2}


@pytest.mark.timeout(300)
def test_of_four_ranks_one_is_killed_and_the_others_end_within_a_minute(cluster, make_dataset):
    dataset = make_dataset()
    experiment = cluster.submit(cluster.grid(steps=20000, name="ranks", resources=RANKS), dataset)
    run = only_run(experiment)
    wait_for_step(run, 20)
    victim = next(pid for pid in workers(run) if rank_of(pid) == 3)
    kill([victim])
    wait_until(lambda: not queued(experiment) and not processes(experiment.path.name), 60)
    state, sentence = shown(cluster, experiment)
    assert (state, KILLED in sentence) == ("failed", True), sentence
    assert "rank 3 on vm2" in sentence
    cluster.petgan("retry", experiment.path)
    wait_for_step(run, last_step(run) + 10)
    assert "going on from step" in run.log_file.read_text()
    # All four stop at one step, and the next start of the job goes on from there.
    job = job_of(experiment)
    cluster.requeue(job)
    wait_until(lambda: starts(run)[-1] == f"{job}+1", 90, lambda: logs(experiment))
    wait_for_step(run, last_step(run) + 10)
    steps = [line["step"] for line in run.metrics()]
    assert steps == sorted(set(steps))
    cluster.petgan("cancel", experiment.path)
    cluster.wait(experiment, "cancelled")


def test_a_job_with_too_few_ranks_ends_with_their_sentence_and_their_exit_code(cluster, make_dataset):
    fewer = 'srun() { command srun --ntasks=2 --ntasks-per-node=1 "$@"; }'
    profile = cluster.profile(setup=[fewer])
    grid = cluster.grid(steps=40, name="fewer", resources=RANKS)
    experiment = cluster.submit(grid, make_dataset(), profile=profile)
    cluster.wait(experiment, "failed")
    _, sentence = shown(cluster, experiment)
    assert "the run asks for 4 ranks, 2 nodes with 2 each: got 2" in sentence
    command = ["sacct", "-nXP", "-j", job_of(experiment), "-o", "ExitCode"]
    wait_until(
        lambda: (
            subprocess.run(command, capture_output=True, text=True).stdout.strip()
            == f"{RankCountError.exit_code}:0"
        ),
        60,
        lambda: logs(experiment),
    )
    assert not only_run(experiment).checkpoints.exists()


def rank_of(pid):
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return int(next(v for v in variables if v.startswith("PETGAN_RANK=")).partition("=")[2])


@pytest.mark.timeout(300)
def test_a_node_that_seems_dead_and_trains_on_is_overtaken(cluster, make_dataset):
    """Its slurmd is killed: Slurm starts the run on the other node, while the old worker is still at it."""
    dataset = make_dataset()
    whole = undisturbed(cluster, dataset)
    with occupied("vm1"):
        experiment = cluster.submit(cluster.grid(steps=STEPS, name="node"), dataset)
        run, job = only_run(experiment), job_of(experiment)
        wait_until(lambda: slurm.queue([job])[job].nodes == "vm2")
    wait_for_step(run, 20)
    pids = workers(run)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # it does not end before it is overtaken
    try:
        on_testbed("node", "vm2", "kill")
        wait_until(lambda: run.status().host == "vm1", 90)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        cluster.wait(experiment, "done")
    finally:
        on_testbed("node", "vm2", "start")
    assert starts(run) == [job, f"{job}+1"]
    assert results(run) == whole()
    wait_until(lambda: not processes(experiment.path.name), 60)


@contextlib.contextmanager
def occupied(node):
    """A time in which a job leaves nothing of a node to others."""
    shape = [f"--nodelist={node}", "--cpus-per-task=8", "--mem=1000", "--output=/dev/null"]
    job = subprocess.run(
        ["sbatch", "--parsable", *shape, "--wrap=sleep 300"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        wait_until(lambda: slurm.queue([job])[job].state == "RUNNING", 30)
        yield
    finally:
        scancel(job)


# --- memory, disks and clocks ---------------------------------------------------------------------------


@pytest.fixture
def mounted():
    """Mount something at a folder; unmounted in the end."""
    folders = []

    def mount(*options, at):
        subprocess.run(["mount", *options, at], check=True)
        folders.append(at)

    yield mount
    for folder in reversed(folders):
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.timeout(300)
def test_memory_and_disks_that_do_not_suffice_are_said_and_retried(cluster, make_dataset, mounted):
    """One run takes too much memory; one disk fills up in the midst of a training, one folder is locked then,
    one was never writable."""
    dataset = make_dataset()
    whole, experiments = undisturbed(cluster, dataset), {}
    grid = cluster.grid(steps=2000, name="memory", resources={"mem_gb": 0.2})
    greedy = cluster.submit(grid, dataset)
    profile = cluster.profile(sbatch=["--hold"])
    for name in ("full", "locked", "read-only"):
        folder = cluster.folder / f"experiment {name}"
        folder.mkdir()
        if name == "full":
            mounted("-t", "tmpfs", "-o", "size=100m", "tmpfs", at=folder)
        experiments[name] = cluster.submit(cluster.grid(steps=STEPS, name=name), dataset, profile=profile)
    full, locked, read_only = (only_run(experiment) for experiment in experiments.values())
    mounted("--bind", read_only.path, at=read_only.path)
    subprocess.run(["mount", "-o", "remount,ro,bind", read_only.path], check=True)

    ballast = experiments["full"].path / "ballast"
    locked_folders = [locked.path, locked.checkpoints]
    try:
        release(experiments["full"])
        wait_for_step(full, 20)
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 12)):
                pass
        release(experiments["locked"])
        wait_for_step(locked, 20)
        subprocess.run(["chattr", "+i", *locked_folders], check=True)
        release(experiments["read-only"])
        expected = {
            "full": ("failed", "No space left on device; what was there before is unchanged; make room"),
            "locked": ("failed", "Operation not permitted; what was there before is unchanged"),
            "read-only": (
                "lost",
                "the job failed (job {job}): cannot write {run}/status.json: Read-only file system",
            ),
        }
        for name, experiment in experiments.items():
            wait_until(lambda experiment=experiment: not queued(experiment), 60)
            state, sentence = shown(cluster, experiment)
            print(name, state, sentence)
            words = expected[name][1].format(job=job_of(experiment), run=only_run(experiment).path)
            assert (state, words in sentence) == (expected[name][0], True), (name, state, sentence)
    finally:
        subprocess.run(["chattr", "-i", *locked_folders], capture_output=True)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,rw,bind", read_only.path], check=True)
    for experiment in experiments.values():
        cluster.petgan("retry", experiment.path)
    for experiment in experiments.values():
        release(experiment)
    for name, experiment in experiments.items():
        cluster.wait(experiment, "done")
        assert results(only_run(experiment)) == whole(), name

    # Of this one Slurm killed all of the job, so that nobody was left to say so: for a minute the heartbeat
    # counts.
    cluster.wait(greedy, "failed", "lost", "interrupted")
    state, sentence = shown(cluster, greedy)
    assert "raise mem_gb" in sentence, f"{state}: {sentence} {logs(greedy)}"
    wait_until(lambda: not processes(greedy.path.name), 60)


CLOCKS = """
import os, time
true, offset = time.time, {"vm1": 7200, "vm2": -7200}.get(os.environ.get("SLURMD_NODENAME"), 0)
time.time = lambda: true() + offset
"""


@pytest.mark.timeout(300)
def test_clocks_that_differ_by_hours_confuse_nobody(cluster, make_dataset):
    """On the host, where Python's clock can be set: alive is what is alive, and the run changes nodes."""
    folder = cluster.folder / "clocks"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(CLOCKS)
    shifted = f'srun() {{ PYTHONPATH=$PYTHONPATH:{shlex.quote(str(folder))} command srun "$@"; }}'
    profile = cluster.profile(image=None, setup=[shifted])
    with occupied("vm1"):
        experiment = cluster.submit(cluster.grid(steps=2000, name="clocks"), make_dataset(), profile=profile)
        run, job = only_run(experiment), job_of(experiment)
        wait_for_step(run, 20)
    status = run.status()
    assert (status.host, status.state) == ("vm2", "running")
    assert -7300 < status.updated - time.time() < -7100
    assert shown(cluster, experiment) == ("running", "None None")
    slurm.requeue(job)
    wait_until(lambda: slurm.queue([job])[job].waits)
    subprocess.run(["scontrol", "update", f"jobid={job}", "excnodelist=vm2"], check=True)
    wait_until(lambda: run.status().host == "vm1", 90, lambda: logs(experiment))
    wait_for_step(run, last_step(run) + 10)
    assert 7100 < run.status().updated - time.time() < 7300
    assert shown(cluster, experiment) == ("running", "None None")
    assert "going on from step" in run.log_file.read_text()
    steps = [line["step"] for line in run.metrics()]
    assert steps == sorted(set(steps))
    cluster.petgan("cancel", experiment.path)
    cluster.wait(experiment, "cancelled")


def release(experiment):
    subprocess.run(["scontrol", "release", job_of(experiment)], check=True)
