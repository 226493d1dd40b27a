"""A process's claim to a run: refused while another lives, and what is left when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from petgan import session as sessions
from petgan.errors import DiskError, Interrupted, RunBusyError, TrainingError
from petgan.place import Place
from petgan.runs import RunFolder, Status
from petgan.session import STOP_SIGNALS, Follower, Session, StopSignals, describe


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
        session.logged({"d_loss": 0.5}, "collapsed since step 2")
        session.progress(9)
        if error:
            raise error
    status = json.loads(run.status_file.read_text())
    assert (status["state"], status["error"], status["step"], status["last"], status["trouble"]) == (
        state,
        words,
        9,
        {"d_loss": 0.5},
        "collapsed since step 2",
    )


def test_a_disk_that_is_full_at_the_end_does_not_hide_the_error(run, monkeypatch):
    def full(self, status):
        raise DiskError("full")

    with pytest.raises(TrainingError, match="the error"), Session(run):
        monkeypatch.setattr(RunFolder, "write_status", full)
        raise TrainingError("the error")


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_asks_for_a_stop_once_training_began(run, number):
    before = signal.getsignal(number)
    with Session(run) as session:
        session.begin(0, 9)
        os.kill(os.getpid(), number)
        assert session.stop_requested
    assert signal.getsignal(number) == before


def test_a_signal_before_the_first_step_stops_at_once(run):
    with pytest.raises(Interrupted, match="SIGTERM before its first step"), Session(run):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert run.status().state == "interrupted"


def test_a_signal_in_the_midst_of_an_import_is_a_stop_whatever_the_import_makes_of_it(run):
    with pytest.raises(Interrupted, match="before its first step"), Session(run):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Interrupted:
            raise TypeError("unsupported callable") from None  # seen in TensorFlow's import
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


# --- signals ------------------------------------------------------------------------------------


def test_signals_that_come_several_times_change_nothing(run):
    with pytest.raises(Interrupted), Session(run):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # while it tidies up
            os.kill(os.getpid(), signal.SIGUSR2)
    assert run.status().state == "interrupted"


def test_a_signal_that_came_before_the_claim_counts(run):
    signals = StopSignals()
    signals.listen()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted), Session(run, signals=signals):
            raise AssertionError
    finally:
        signals.unlisten()
    assert run.status().state == "interrupted"


def test_with_other_ranks_a_signal_waits_for_their_agreement(run):
    with Session(run, Place(ranks=2, node_name="n0")) as session:
        os.kill(os.getpid(), signal.SIGTERM)
        assert session.stop_requested
        session.begin(0, 9)
        session.progress(1)
    assert run.status().state == "done"


def test_a_follower_listens_and_writes_nothing(run):
    with Follower(Place(rank=1, ranks=2)) as session:
        os.kill(os.getpid(), signal.SIGTERM)
        assert session.stop_requested
        session.begin(0, 9)
        session.progress(1)
        session.logged({"d_loss": 1.0}, None)
    assert list(run.path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# --- a run that is taken over -------------------------------------------------------------------


@pytest.fixture
def fast(monkeypatch):
    for name, seconds in (("STILL", 0.6), ("YIELD", 3.0), ("POLL", 0.02), ("HEARTBEAT", 0.1)):
        monkeypatch.setattr(sessions, f"{name}_SECONDS", seconds)


class Other:
    """A process on another node, whose clock is `ahead` by so many seconds, that trains the run."""

    def __init__(self, run, job, heeds=True, ahead=0.0):
        run.write_status(Status("running", step=3, host="elsewhere", pid=1, job=job))
        self._run, self._heeds, self._ahead = run, heeds, ahead
        self._end = threading.Event()
        self.last_beat = 0.0
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()

    def _beat(self):
        while not self._end.wait(0.1):
            if self._heeds and self._run.status().host != "elsewhere":
                return
            self.last_beat = time.monotonic()
            now = time.time() + self._ahead
            self._run.heartbeat_file.touch()
            os.utime(self._run.heartbeat_file, (now, now))


def started(job):
    return Place(node_name="here", job=job)


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
def test_a_requeued_job_takes_its_run_over_once_the_old_heart_stands_still(run, fast, ahead):
    with Other(run, "7_1", ahead=ahead) as other:
        time.sleep(0.3)
        with Session(run, started("7_1+1")):
            waited = time.monotonic() - other.last_beat
            status = run.status()
    assert waited >= 0.6
    assert (status.host, status.pid, status.job, status.step) == ("here", os.getpid(), "7_1+1", 3)


def test_one_that_does_not_heed_the_claim_keeps_its_run(run, fast):
    with Other(run, "7_1", heeds=False), pytest.raises(RunBusyError, match="by process 1 on elsewhere"):
        Session(run, started("7_1+1")).__enter__()


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
@pytest.mark.parametrize("theirs", ["8_1", "7_2", "7_1+2", None])
def test_another_jobs_run_is_left_alone_while_it_lives(run, fast, theirs, ahead):
    with Other(run, theirs, ahead=ahead):
        time.sleep(0.3)
        before = run.status_file.read_bytes()
        with pytest.raises(RunBusyError), Session(run, started("7_1+1")):
            pass
        assert run.status_file.read_bytes() == before


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
def test_another_jobs_run_is_taken_when_its_heart_stands_still(run, fast, ahead):
    with Other(run, "8_1", ahead=ahead):
        time.sleep(0.3)
    with Session(run, started("7_1")):
        assert run.status().host == "here"


def test_the_same_start_of_a_job_is_not_two(run):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run.write_status(Status("running", host="here", pid=process.pid, job="7_1"))
    with pytest.raises(RunBusyError), Session(run, started("7_1")):
        pass
    process.communicate(b"\n")
    with Session(run, started("7_1")):
        assert run.status().pid == os.getpid()


def test_what_is_taken_over_writes_no_more(run, fast, monkeypatch):
    monkeypatch.setattr(sessions.os, "_exit", lambda code: None)
    with pytest.raises(RunBusyError, match="by process 5 on there"), Session(run, started("7")) as session:
        session.begin(3, 9)
        session.keep_claim()
        run.write_status(Status("running", host="there", pid=5, job="7+1"))
        claim = run.status_file.read_bytes()
        with pytest.raises(RunBusyError):
            session.keep_claim()
        with pytest.raises(RunBusyError):
            session.begin(4, 9)
        raise RunBusyError("by process 5 on there")
    assert run.status_file.read_bytes() == claim
    with pytest.raises(TrainingError), Session(run, started("7")) as session:
        run.write_status(Status("done", host="there", pid=5))
        raise TrainingError("x")  # whatever it ends with
    assert run.status().state == "done"


def test_one_that_hangs_ends_when_its_heart_is_to_beat(tmp_path):
    """Its main thread may be in a step that never ends: nothing of it must write, or beat, any more."""
    script = (
        "import sys, time; from pathlib import Path; from petgan import session\n"
        "from petgan.place import Place; from petgan.runs import RunFolder\n"
        "session.HEARTBEAT_SECONDS = 0.1\n"
        "with session.Session(RunFolder(Path(sys.argv[1])), Place(node_name='old', job='7')):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        run = RunFolder(tmp_path)
        run.write_status(Status("running", host="new", pid=1, job="7+1"))
        assert process.wait(timeout=10) == RunBusyError.exit_code
        assert "is being trained by process 1 on new" in process.stderr.read()
    assert run.status().host == "new"
