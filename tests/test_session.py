"""A process's claim to a run: refused while another lives, and what is left when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from petgan.errors import DiskError, Interrupted, RunBusyError, TrainingError
from petgan.runs import RunFolder, Status
from petgan.session import STOP_SIGNALS, Session, describe


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def running(run, pid, host=None):
    run.write_status(
        Status("running", step=3, steps=9, busy_seconds=5, host=host or socket.gethostname(), pid=pid)
    )


def test_a_run_of_a_live_process_is_refused_and_its_status_stays(run):
    running(run, os.getppid())
    before = run.status_file.read_bytes()
    with pytest.raises(RunBusyError, match=f"by process {os.getppid()} on"), Session(run):
        pass
    assert run.status_file.read_bytes() == before


@pytest.mark.parametrize("whose", ["a dead process", "our own number, from before"])
def test_a_run_whose_process_has_gone_is_taken_over(run, whose):
    running(run, ended_process() if whose == "a dead process" else os.getpid())
    with Session(run):
        status = run.status()
        assert (status.state, status.pid, status.busy_seconds) == ("running", os.getpid(), 5)


def test_a_run_of_another_host_is_busy_as_long_as_its_heart_beats(run):
    running(run, 1, host="elsewhere")
    run.beat()
    with pytest.raises(RunBusyError), Session(run):
        pass
    os.utime(run.heartbeat_file, (0, 0))
    with Session(run):
        pass


def test_of_two_that_start_together_the_first_gives_way(run):
    with pytest.raises(RunBusyError), Session(run) as session:
        running(run, os.getppid())  # the other's claim, a moment after ours
        session.begin(0, 9)
    assert run.status().pid == os.getppid()


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (None, "done", None),
        (Interrupted("stopped at step 3"), "interrupted", "stopped at step 3"),
        (TrainingError("d_loss is not a number"), "failed", "d_loss is not a number"),
        (ValueError("two\nlines"), "failed", "ValueError: two"),
    ],
)
def test_what_is_left_when_it_ends(run, error, state, words):
    with contextlib.suppress(Interrupted, TrainingError, ValueError), Session(run) as session:
        session.begin(0, 9)
        session.logged({"d_loss": 0.5})
        session.progress(9)
        if error:
            raise error
    status = json.loads(run.status_file.read_text())
    assert (status["state"], status["error"], status["step"], status["last"]) == (
        state,
        words,
        9,
        {"d_loss": 0.5},
    )


def test_a_disk_that_is_full_at_the_end_does_not_hide_the_error(run, monkeypatch):
    def full(self, status):
        raise DiskError("full")

    with pytest.raises(TrainingError, match="the error"), Session(run):
        monkeypatch.setattr(RunFolder, "write_status", full)
        raise TrainingError("the error")


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_asks_for_a_stop_once_training_began(run, number):
    with Session(run) as session:
        session.begin(0, 9)
        os.kill(os.getpid(), number)
        assert session.stop_requested
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_signal_before_the_first_step_stops_at_once(run):
    with pytest.raises(Interrupted, match="SIGTERM before its first step"), Session(run):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert run.status().state == "interrupted"


def test_the_heart_beats_from_the_start(run):
    with Session(run):
        deadline = time.monotonic() + 5
        while not run.heartbeat_file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert time.time() - run.heartbeat_file.stat().st_mtime < 10


def test_status_is_written_every_two_seconds_with_the_speed_of_the_last_ones(run, monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Session(run) as session:
        session.begin(10, 100)
        seen = []
        for step in range(11, 41):  # the first step takes a while: it is no measure of speed
            now += 30 if step == 11 else 0.25 if step < 20 else 0.5
            session.progress(step)
            if not seen or run.status().step != seen[-1].step:
                seen.append(run.status())
    assert [s.step for s in seen] == [10, 19, 23, 27, 31, 35, 39]
    assert [s.steps_per_second for s in seen] == [None, 4, 2, 2, 2, 2, 2]
    assert seen[1].busy_seconds == 32


def test_the_line_of_the_log():
    status = Status(step=40, steps=100, steps_per_second=0.5, last={"d_loss": 0.12345, "d_real": 1.0})
    assert describe(status) == "step 40 of 100, 0.50 steps/s, 2 min 0 s left, d_loss 0.123"


def test_what_a_killed_process_had_begun_to_write_is_removed(run):
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / ".step-00000005.h5.123.tmp").write_text("half")
    (run.path / ".abc.tmp").mkdir()
    (run.path / ".abc.tmp" / "generator.keras").write_text("half")
    (run.checkpoints / "step-00000004.h5").write_text("whole")
    with Session(run):
        pass
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000004.h5"]
    assert not (run.path / ".abc.tmp").exists()
