"""Start a worker, stop it at a checkpoint, and say what became of it.

This is the host's side: it needs no TensorFlow, since what it starts does the work.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from petgan.errors import EXIT_INTERRUPTED, PetganError
from petgan.runs import RunFolder, Status, disk_errors

POLL_SECONDS = 0.2
GRACE_SECONDS = 300.0  # a step at 224 pixels on a slow machine, and its checkpoint
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

PYTHON_SETTINGS = {"PYTHONUNBUFFERED": "1"}
WATCH_STDIN = {"PETGAN_STOP_WITH_STDIN": "1"}  # for a worker that is a `Child`

Progress = Callable[[int, int], None]


def worker_command(task: str, *, python: str | None = None, **arguments: Any) -> list[str]:
    """The command that has a worker do `task`.

    Parameters
    ----------
    task : str
        ``train``, ``evaluate`` or ``synthesize``.
    python : str, optional
        The interpreter, where it is not ours.
    **arguments
        The task's keyword arguments; paths become text, so give absolute ones.
    """
    return [python or sys.executable, "-m", "petgan.worker", task, json.dumps(arguments, default=str)]


def worker_environment(code: Path) -> dict[str, str]:
    """The environment in which a worker imports ``petgan`` from the snapshot `code`, named by its digest."""
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        **PYTHON_SETTINGS,
        "PETGAN_CODE_DIGEST": code.name,
    }


def visible_devices() -> list[str]:
    """The GPUs of this machine that the user lets us see, as CUDA names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


class Child:
    """The worker of one run.

    It is started in `code`, because ``python -m`` looks into the current folder first, and in a session
    of its own, so that Ctrl-C reaches it only once, from us. When this process is killed, its standard input
    ends, and it stops as if it had been asked to: the kernel's own word on a parent's death would not reach
    into a container.

    Parameters
    ----------
    run : RunFolder
    command : sequence of str
    environment : mapping
    code : Path
    log : Path
        That its output is appended to.
    grace : float
        Seconds from `stop` until a worker that is still there is killed.
    job : str, optional
        The Slurm job that it works for, as the run's status names it.
    """

    def __init__(
        self,
        run: RunFolder,
        command: Sequence[str],
        environment: Mapping[str, str],
        code: Path,
        log: Path,
        grace: float = GRACE_SECONDS,
        job: str | None = None,
    ) -> None:
        self.run = run
        self._job = job
        self._log, self._grace = log, grace
        self._stop_asked: float | None = None
        with disk_errors(log):
            stream = open(log, "ab")  # noqa: SIM115
        with stream:
            self._log_start = stream.tell()
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=code,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise PetganError(
                    f"cannot start {command[0]}: {error.strerror}: {error.filename}",
                    hint="if it comes from a module, name that in the profile's modules",
                ) from None

    def ended(self) -> bool:
        if self._process.poll() is None:
            return False
        if self._process.stdin is not None:
            self._process.stdin.close()
        return True

    @property
    def exit_code(self) -> int:
        """As a shell has it: 128 and the signal's number for a process that was killed."""
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    def stop(self, grace: float | None = None) -> None:
        """Ask for a checkpoint and an end; insist when nothing came of it."""
        if grace is not None:
            self._grace = min(grace, self._grace)
        if self._stop_asked is None:
            self._stop_asked = time.monotonic()
            self._process.terminate()
        elif time.monotonic() - self._stop_asked > self._grace:
            self._process.kill()

    @property
    def was_stopped(self) -> bool:
        """Whether it ended because it was asked to."""
        return self.exit_code == EXIT_INTERRUPTED or self.exit_code - 128 in STOP_SIGNALS

    def settle(self) -> Status:
        """Make the run's status true, now that its process has ended, and return it."""
        status = self.run.status()
        # "running" means alive; but a heartbeat, where there is no other sign, outlives its process.
        trained_elsewhere = status.state == "running" and (self._job is None or status.job != self._job)
        said = (
            status.state in ("failed", "interrupted") and status.job == self._job
        )  # not by an earlier start
        if status.state == "done" or said or trained_elsewhere:
            return status
        if self.was_stopped:
            state = "cancelled" if status.state == "cancelled" else "interrupted"
            return self.run.update_status(state=state, job=self._job)
        return self.run.update_status(state="failed", error=self.sentence(), job=self._job)

    def sentence(self) -> str:
        """What became of a worker that did not end well."""
        code = self.exit_code
        if code - 128 == signal.SIGKILL:
            return "the worker was killed (SIGKILL), as happens when the machine runs out of memory"
        if 128 < code < 128 + signal.NSIG:
            what = f"the worker was ended by signal {code - 128} ({signal.strsignal(code - 128)})"
        elif code == 0:
            what = "the worker ended before the run was done"
        else:
            what = f"the worker ended with exit code {code}"
        words = self._last_words()
        return f"{what}; the last line of its log: {words}" if words else f"{what} and wrote no log"

    def _last_words(self) -> str:
        with open(self._log, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect the signals that ask this process to stop, those that were held back until now too."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when `parent` ends (Linux only)."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
