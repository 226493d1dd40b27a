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
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from petgan.errors import EXIT_INTERRUPTED
from petgan.runs import HEARTBEAT_SECONDS, ExperimentFolder, RunFolder, Status, Submission, write_json

POLL_SECONDS = 0.2
GRACE_SECONDS = 300.0  # a step at 224 pixels on a slow machine, and its checkpoint
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

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


@dataclass(frozen=True)
class Launch:
    """Train the runs of a submission, and keep their status true whatever becomes of their processes.

    Runs that are done, cancelled, or trained by another process when their turn comes are passed over.
    SIGTERM and SIGINT are passed on to the workers, which checkpoint and stop; what had not started yet
    is cancelled. When this process is killed, the kernel sends its workers SIGTERM.

    Parameters
    ----------
    experiment : Path
        The experiment's folder, absolute.
    name : str
        Of the submission.
    """

    experiment: Path
    name: str

    def __call__(self, progress: Progress | None = None) -> None:
        """Work until no run is left, or until asked to stop; `progress` is told (steps done, steps)."""
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            _die_with(os.getppid())
        folder = ExperimentFolder(self.experiment)
        with _stop_requests() as stop, _registered(folder, self.name) as (submission, beat):
            waiting, slots = deque(map(folder.run, submission.runs)), list(range(submission.parallel))
            known = {run.path.name: run.status() for run in waiting} if progress else {}
            children: list[_Child] = []
            try:
                while children or (waiting and not stop):
                    while waiting and slots and not stop:
                        run = waiting.popleft()
                        if run.status().state not in ("done", "running", "cancelled"):
                            children.append(_Child(run, slots.pop(), submission, folder))
                    for child in list(children):
                        status = child.run.status()
                        if stop or status.state == "cancelled":
                            child.stop()
                        if child.ended():
                            status = child.settle()
                            slots.append(child.slot)
                            children.remove(child)
                        if progress:
                            known[child.run.path.name] = status
                    beat()
                    if progress:
                        progress(sum(s.step for s in known.values()), sum(s.steps for s in known.values()))
                    time.sleep(POLL_SECONDS)
            finally:
                _stop_all(children)
            for run in waiting:
                if run.status().state == "queued":
                    run.update_status(state="cancelled")


@contextmanager
def _registered(folder: ExperimentFolder, name: str) -> Iterator[tuple[Submission, Callable[[], None]]]:
    """Say in the submission's file that this process is at work, and at the end that it is not.

    Gives the submission, and a function to be called often, which shows other hosts that we live.
    """
    file = folder.submission_file(name)
    submission = folder.submission(name)
    submission.host, submission.pid, submission.started = socket.gethostname(), os.getpid(), time.time()
    write_json(file, asdict(submission))
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > HEARTBEAT_SECONDS:
            last = time.monotonic()
            file.touch()

    try:
        yield submission, beat
    finally:
        submission.ended = time.time()
        write_json(file, asdict(submission))


def worker_environment(code: Path) -> dict[str, str]:
    """The environment in which a worker imports ``petgan`` from the snapshot `code`, named by its digest."""
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PETGAN_CODE_DIGEST": code.name,
    }


class _Child:
    """The worker of one run.

    It is started in `code`, because ``python -m`` looks into the current folder first, and in a session
    of its own, so that Ctrl-C reaches it only once, from us.
    """

    def __init__(self, run: RunFolder, slot: int, submission: Submission, folder: ExperimentFolder) -> None:
        self.run, self.slot = run, slot
        self._stop_asked: float | None = None
        code, parent = folder.code_folder(submission.code), os.getpid()
        devices = submission.devices[slot * submission.gpus : (slot + 1) * submission.gpus]
        with open(run.log_file, "ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                worker_command("train", run=run.path),
                cwd=code,
                env={**worker_environment(code), "CUDA_VISIBLE_DEVICES": ",".join(devices)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _die_with(parent),
            )

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
            return "the worker was killed (SIGKILL), as happens when the machine runs out of memory"
        if code < 0:
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
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
