"""Start workers: each run in a process of its own, several at once, stopped only at a checkpoint.

`Launch` is what a submission consists of. It can be called in the foreground, or be pickled and called
by submitit; it needs no TensorFlow, since what it starts does the work.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from petgan.errors import EXIT_INTERRUPTED
from petgan.runs import (
    LOST_AFTER_SECONDS,
    ExperimentFolder,
    RunFolder,
    Status,
    process_exists,
    read_json,
    write_json,
)

POLL_SECONDS = 0.2
BEAT_SECONDS = 10.0
GRACE_SECONDS = 300.0  # a step at 224 pixels on a slow machine, and its checkpoint
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1

Progress = Callable[[int, int], None]


def worker_command(task: str, **arguments: Any) -> list[str]:
    """The command that has a worker do `task`.

    Parameters
    ----------
    task : str
        ``train``, ``evaluate`` or ``synthesize``.
    **arguments
        The task's keyword arguments; paths become text, so give absolute ones.
    """
    return [sys.executable, "-m", "petgan.worker", task, json.dumps(arguments, default=str)]


@dataclass
class Submission:
    """Some runs of an experiment that were submitted together; saved as ``submissions/<name>.json``.

    Parameters
    ----------
    cluster : str
        ``local`` or ``inline``.
    runs : list of str
        Their ids, in the order in which they are started.
    parallel : int
        How many train at once.
    code : str
        Digest of the code that they run.
    created : float
        Seconds since the epoch.
    host, pid : optional
        The process that starts them, once it lives.
    ended : float, optional
        When it had nothing more to do.
    """

    cluster: str
    runs: list[str]
    parallel: int
    code: str
    created: float = field(default_factory=time.time)
    host: str | None = None
    pid: int | None = None
    ended: float | None = None

    def alive(self, file: Path) -> bool:
        """Whether its process lives, or was asked for so lately that it may still be starting."""
        if self.ended is not None:
            return False
        if self.pid is None:
            return time.time() - self.created < LOST_AFTER_SECONDS
        if self.host == socket.gethostname():
            return process_exists(self.pid)
        return time.time() - file.stat().st_mtime < LOST_AFTER_SECONDS


def live_submissions(experiment: ExperimentFolder) -> list[Submission]:
    """The submissions of `experiment` that are still at work."""
    live = []
    for file in sorted(experiment.submissions.glob("*.json")):
        submission = Submission(**read_json(file))
        if submission.alive(file):
            live.append(submission)
    return live


@dataclass
class Launch:
    """Train runs, several at once, and keep their status true whatever becomes of their processes.

    Runs that are done, cancelled, or trained by another process when their turn comes are passed over.
    SIGTERM and SIGINT are passed on to the workers, which checkpoint and stop; what had not started yet
    is cancelled. When this process is killed, the kernel sends its workers SIGTERM.

    Parameters
    ----------
    experiment : str
        The experiment's folder, absolute.
    submission : str
        Name of the file under ``submissions/`` that says who is at work.
    runs : list of str
        Run ids.
    parallel : int
        How many train at once.
    code : str
        The folder that holds the package ``petgan`` to be run.
    gpus : int
        GPUs of one run.
    devices : list of str
        The GPUs of this machine, as CUDA names them.
    """

    experiment: str
    submission: str
    runs: list[str]
    parallel: int
    code: str
    gpus: int = 0
    devices: list[str] = field(default_factory=list)

    def __call__(self, progress: Progress | None = None) -> None:
        """Work until no run is left, or until asked to stop; `progress` is told (steps done, steps)."""
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            _die_with(os.getppid())
        with _stop_requests() as stop, self._registered() as beat:
            waiting, slots = deque(self.runs), list(range(self.parallel))
            steps = {run_id: self._run(run_id).status() for run_id in self.runs} if progress else {}
            children: list[_Child] = []
            try:
                while children or (waiting and not stop):
                    while waiting and slots and not stop:
                        run = self._run(waiting.popleft())
                        if run.status().state not in ("done", "running", "cancelled"):
                            children.append(self._start(run, slots.pop()))
                    for child in list(children):
                        status = child.run.status()
                        if stop or status.state == "cancelled":
                            child.stop()
                        if child.ended():
                            status = child.settle()
                            slots.append(child.slot)
                            children.remove(child)
                        if progress:
                            steps[child.run.path.name] = status
                    beat()
                    if progress:
                        progress(sum(s.step for s in steps.values()), sum(s.steps for s in steps.values()))
                    time.sleep(POLL_SECONDS)
            finally:
                _stop_all(children)
            for run_id in waiting:
                self._run(run_id).update_status(state="cancelled")

    def _run(self, run_id: str) -> RunFolder:
        return ExperimentFolder(Path(self.experiment)).run(run_id)

    def _start(self, run: RunFolder, slot: int) -> _Child:
        environment = worker_environment(self.code)
        own = self.devices[slot * self.gpus : (slot + 1) * self.gpus]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
        return _Child(run, slot, worker_command("train", run=run.path), environment, self.code)

    @contextmanager
    def _registered(self) -> Iterator[Callable[[], None]]:
        """Say in the submission's file that this process is at work, and at the end that it is not."""
        file = ExperimentFolder(Path(self.experiment)).submission_file(self.submission)
        submission = Submission(**read_json(file))
        submission.host, submission.pid = socket.gethostname(), os.getpid()
        write_json(file, asdict(submission))
        last = time.monotonic()

        def beat() -> None:
            nonlocal last
            if time.monotonic() - last > BEAT_SECONDS:
                last = time.monotonic()
                file.touch()

        try:
            yield beat
        finally:
            submission.ended = time.time()
            write_json(file, asdict(submission))


def worker_environment(code: Path | str) -> dict[str, str]:
    """The environment in which a worker imports ``petgan`` from the folder `code`."""
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


class _Child:
    """The worker of one run.

    It is started in `code`, because ``python -m`` looks into the current folder first, and in a session
    of its own, so that Ctrl-C reaches it only once, from us.
    """

    def __init__(
        self, run: RunFolder, slot: int, command: list[str], environment: dict[str, str], code: str
    ) -> None:
        self.run, self.slot = run, slot
        parent = os.getpid()
        with open(run.log_file, "ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=code,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _die_with(parent),  # this process has one thread
            )
        self._stop_asked: float | None = None

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask for a checkpoint and an end; insist when nothing came of it."""
        if self._stop_asked is None:
            self._stop_asked = time.monotonic()
            self._process.terminate()
        elif time.monotonic() - self._stop_asked > GRACE_SECONDS:
            self._process.kill()

    def settle(self) -> Status:
        """Make the run's status true, now that its process has ended, and return it."""
        status, code = self.run.status(), self._process.returncode
        trained_elsewhere = status.state == "running"  # and alive: a dead one would be "lost"
        if status.state in ("done", "failed", "interrupted") or trained_elsewhere:
            return status
        if code == EXIT_INTERRUPTED or -code in STOP_SIGNALS:
            state = "cancelled" if status.state == "cancelled" else "interrupted"
            return self.run.update_status(state=state)
        return self.run.update_status(state="failed", error=self._sentence(code))

    def _sentence(self, code: int) -> str:
        if code == -signal.SIGKILL:
            what = "the worker was killed (SIGKILL), as happens when the machine runs out of memory"
        elif code < 0:
            what = f"the worker was ended by signal {-code} ({signal.strsignal(-code)})"
        elif code == 0:
            what = "the worker ended before the run was done"
        else:
            what = f"the worker ended with exit code {code}"
        words = self._last_words()
        return f"{what}; the last line of its log: {words}" if words else f"{what} and wrote no log"

    def _last_words(self) -> str:
        with open(self.run.log_file, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _stop_all(children: list[_Child]) -> None:
    while children:
        for child in list(children):
            child.stop()
            if child.ended():
                child.settle()
                children.remove(child)
        time.sleep(POLL_SECONDS)


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect the signals that ask this process to stop."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when `parent` ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
