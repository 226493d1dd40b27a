"""Training as it is really started: processes of their own, killed, stopped, and refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from petgan import cli
from petgan.checkpoint import read_header
from petgan.errors import EXIT_INTERRUPTED
from petgan.launch import worker_command
from petgan.runs import RunFolder, Status

ROOT = Path(__file__).parents[1]
KILLS = 10


@contextlib.contextmanager
def worker(run, log_file=None, **environment):
    """A worker's process; its output goes to the run's log, which starts anew."""
    with open(log_file or run.log_file, "wb") as log:
        process = subprocess.Popen(
            worker_command("train", run=run.path),
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def trained(run):
    with worker(run) as process:
        assert process.wait(timeout=200) == 0, run.log_file.read_text()


def wait_for(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.002)


def results(run):
    files = {p.name: p.read_bytes() for p in [run.metrics_file, *sorted(run.samples.glob("*.png"))]}
    return files | {p.name: read_header(p).digest for p in sorted(run.checkpoints.glob("*.h5"))}


def last_step(run):
    lines = run.metrics() if run.metrics_file.exists() else []
    return lines[-1]["step"] if lines else 0


def wait_until_it_has_done(steps, run, process):
    wait_for(lambda: run.log_file.stat().st_size > 0, process)  # "starting from ..." or "going on from ..."
    time.sleep(0.2)  # it cuts the lines beyond its checkpoint; its first step takes longer than that
    goal = last_step(run) + steps
    wait_for(lambda: last_step(run) >= goal, process)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [{}, {"recipe": "stable"}, {"preset": "wgan-gp"}, {"preset": "ddpm"}], ids=str
)
def test_several_threads_come_to_the_same_bits_however_busy_the_machine_is(make_dataset, make_run, way):
    dataset = make_dataset(image_size=32)
    several = {"image_size": 32, "batch_size": 16, "steps": 4, "resources": {"cpus": 2}, **way}
    runs = [make_run(dataset, f"run{n}", **several) for n in range(3)]
    with contextlib.ExitStack() as together:
        processes = [together.enter_context(worker(run)) for run in runs[1:]]
        assert [process.wait(timeout=280) for process in processes] == [0, 0]
    trained(runs[0])
    assert all(results(run) == results(runs[0]) for run in runs[1:])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_ten_moments_a_run_ends_as_an_undisturbed_one(make_dataset, make_run):
    """SIGKILL while it starts, between steps, in the midst of a step or of a checkpoint."""
    dataset, every = make_dataset(), {"log": 1, "sample": 10, "score": 10, "checkpoint": 5}
    cpus = {"cpus": 2}
    whole, run = (make_run(dataset, name, every, resources=cpus, steps=60) for name in ("whole", "killed"))
    trained(whole)

    random = np.random.default_rng(0)
    # So few steps beyond the last checkpoint that the run cannot end before the last kill.
    for steps in [0, *random.integers(1, 10, KILLS - 1)]:
        with worker(run) as process:
            if steps:
                wait_until_it_has_done(steps, run, process)
            time.sleep(random.uniform(0, 0.02 if steps else 2))
            assert process.poll() is None
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert run.status().state in ("lost", "new")
    assert 10 <= read_header(run.last_checkpoints()[0]).step < 60
    trained(run)
    assert [line["step"] for line in run.metrics()] == list(range(1, 61))
    assert results(run) == results(whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("asleep", [False, True])
def test_a_requeued_job_ends_as_an_undisturbed_one_though_its_old_process_lives(
    make_dataset, make_run, tmp_path, asleep
):
    dataset, every = make_dataset(), {"log": 1, "sample": 10, "score": 10, "checkpoint": 5}
    whole, run = (make_run(dataset, name, every, steps=40) for name in ("whole", "requeued"))
    trained(whole)
    old_log = tmp_path / "old.txt"
    with worker(run, old_log, PETGAN_JOB="7_1", PETGAN_NODE_NAME="n1") as old:
        wait_for(lambda: last_step(run) >= 7, old)
        old.send_signal(signal.SIGSTOP)
        assert last_step(run) < 40
        with worker(run, PETGAN_JOB="7_1+1", PETGAN_NODE_NAME="n2") as new:
            wait_for(lambda: run.status().host == "n2", new)
            if not asleep:
                old.send_signal(signal.SIGCONT)
                assert old.wait(timeout=60) == 2
            assert new.wait(timeout=200) == 0, run.log_file.read_text()
        if asleep:
            old.send_signal(signal.SIGCONT)
            assert old.wait(timeout=60) == 2
    assert f"is being trained by process {run.status().pid} on n2" in old_log.read_text()
    assert run.status().state == "done"
    assert [line["step"] for line in run.metrics()] == list(range(1, 41))
    assert results(run) == results(whole)


def test_a_signal_is_a_checkpoint_and_exit_code_75(make_dataset, make_run):
    run = make_run(make_dataset(), every={"log": 1}, steps=100_000)
    with worker(run) as process:
        wait_for(lambda: last_step(run) >= 2, process)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(timeout=60) == EXIT_INTERRUPTED
    status, header = run.status(), read_header(run.last_checkpoints()[0])
    assert (status.state, status.step) == ("interrupted", header.step)
    assert header.step >= last_step(run) > 1
    assert f"stopped at step {header.step} of 100000, after a checkpoint" in run.log_file.read_text()


def test_a_changed_dataset_is_one_sentence_and_exit_code_2(make_dataset, make_run):
    run = make_run(make_dataset())
    make_dataset(seed=1)
    with worker(run) as process:
        assert process.wait(timeout=60) == 2
    said = run.log_file.read_text()
    assert said == f"petgan: {run.status().error}\n"
    assert "the dataset has changed since the run began" in said
    assert run.status().state == "failed"


def test_a_run_that_is_alive_is_refused_and_left_alone(make_dataset, make_run):
    run = make_run(make_dataset())
    run.write_status(Status("running", host=socket.gethostname(), pid=os.getpid()))
    before = run.status_file.read_bytes()
    with worker(run) as process:
        assert process.wait(timeout=60) == 2
    assert f"is being trained by process {os.getpid()}" in run.log_file.read_text()
    assert run.status_file.read_bytes() == before


def test_a_run_that_is_done_returns_at_once(make_dataset, make_run):
    run = make_run(make_dataset())
    run.write_status(Status("done"))
    started = time.monotonic()
    with worker(run) as process:
        assert process.wait(timeout=60) == 0
    assert time.monotonic() - started < 10
    assert not run.checkpoints.exists()


# --- petgan run ---------------------------------------------------------------------------------


def test_run_makes_a_folder_trains_and_goes_on(make_dataset, tmp_path, capfd):
    dataset, into = str(make_dataset()), str(tmp_path / "run")
    command = ["run", "--dataset", dataset, "--into", into, "--preset", "dcgan", "--steps", "2"]
    command += ["--set", "batch_size=4", "latent_size=8", "learning_rate=1e-3"]
    assert cli.main(command) == 0
    run = RunFolder(tmp_path / "run")
    point = run.config().point
    assert (point.steps, point.batch_size, point.learning_rate, point.image_size) == (2, 4, 1e-3, 16)
    assert run.status().state == "done"
    lineage = json.loads(run.lineage_file.read_text())
    assert lineage["run_id"] == run.config().run_id
    assert lineage["dataset_digest"] == run.config().dataset.digest
    assert set(lineage["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    assert "training: 2 of 2 steps" in capfd.readouterr().err
    assert cli.main(["run", into]) == 0
    assert "is done already" in capfd.readouterr().err
    assert cli.main([*command, "--seed", "1"]) == 2
    assert "holds a run with other settings" in capfd.readouterr().err


def test_run_passes_signals_on_and_says_how_to_go_on(make_dataset, make_run):
    run = make_run(make_dataset(), every={"log": 1}, steps=100_000)
    command = [sys.executable, "-m", "petgan", "run", str(run.path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: last_step(run) >= 1, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == EXIT_INTERRUPTED
        assert f"'petgan run {run.path}' goes on from there" in process.stderr.read()
    assert run.status().state == "interrupted"


@pytest.mark.parametrize("state", ["done", "failed"])
def test_run_warns_of_trouble_once(make_dataset, make_run, monkeypatch, capfd, state):
    """As soon as it is known; a run that was stopped for it says so itself."""
    run = make_run(make_dataset())
    stand_in = f"""
import os, socket, sys, time
from pathlib import Path
from petgan.runs import RunFolder, Status
run = RunFolder(Path({str(run.path)!r}))
here = {{"host": socket.gethostname(), "pid": os.getpid()}}
run.write_status(Status("running", trouble="collapsed since step 1", **here))
time.sleep(1)
failed = {state == "failed"}
run.update_status(state="failed" if failed else "done", error="collapsed; stopped" if failed else None)
sys.exit(failed)
"""
    monkeypatch.setattr("petgan.cli.run.worker_command", lambda *_, **__: [sys.executable, "-c", stand_in])
    assert cli.main(["run", str(run.path)]) == (state == "failed")
    said = capfd.readouterr().err
    assert said.count("petgan run: warning: collapsed since step 1\n") == 1
    assert said.count("petgan run: collapsed; stopped; its log: ") == (state == "failed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "it is not said what to train"),
        (["--preset", "dcgan"], "all of --dataset, --into and --preset"),
        (["nowhere"], "is not a run folder"),
        (["RUN", "--seed", "1"], "has its settings already"),
        (["NEW", "--set", "batch_size"], "--set takes KEY=VALUE"),
        (["NEW", "--set", "batch_siz=3"], "unknown key 'batch_siz'"),
        (["NEW", "--set", "batch_size=[3"], "is not YAML"),
        (["NEW", "--set", "batch_size=none"], "batch_size"),
        (["NEW", "--set", "init_from=nowhere.h5"], "there is no checkpoint nowhere.h5"),
        (["NEW", "--preset", "dcgam"], "there is no such preset"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_made(
    arguments, words, make_dataset, make_run, tmp_path, capsys
):
    dataset = make_dataset()
    if arguments[:1] == ["RUN"]:
        arguments = [str(make_run(dataset).path), *arguments[1:]]
    if arguments[:1] == ["NEW"]:
        into = str(tmp_path / "new")
        arguments = ["--dataset", str(dataset), "--into", into, "--preset", "dcgan", *arguments[1:]]
    assert cli.main(["run", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()
