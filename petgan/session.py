"""One process at work on a run: its claim to the folder, heartbeat, status, log lines and stop signals.

It needs no TensorFlow, so that a run is claimed before the seconds that its import takes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from types import FrameType, TracebackType

from petgan.errors import Interrupted, PetganError, RunBusyError
from petgan.runs import HEARTBEAT_SECONDS, RunFolder, Status

STATUS_SECONDS = 2.0
LOG_SECONDS = 10.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

logger = logging.getLogger(__name__)


class Session:
    """A context in which this process trains a run, and no other does.

    On leaving, the run's status becomes ``done``, ``interrupted`` or ``failed``, after the exception.

    Parameters
    ----------
    run : RunFolder

    Attributes
    ----------
    stop_requested : bool
        A signal has asked for a checkpoint and an end.

    Raises
    ------
    RunBusyError
        On entering, or at the first step, if another live process trains the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._me = (socket.gethostname(), os.getpid())
        self.stop_requested = False
        self._began: float | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Session:
        self._status = self._run.status()
        self._refuse_if_busy(self._status)
        self._busy_before = self._status.busy_seconds
        self._status.state, self._status.error = "running", None
        self._status.started = self._status.started or time.time()
        self._status.host, self._status.pid = self._me
        self._run.write_status(self._status)
        self._run.remove_halves()
        threading.Thread(target=self._beat, daemon=True).start()
        self._handlers = {number: signal.signal(number, self._stop) for number in STOP_SIGNALS}
        return self

    def begin(self, step: int, steps: int) -> None:
        """Say that training starts after update `step` of `steps`."""
        # Two processes that started together both saw a free run: the later claim has overwritten ours.
        self._refuse_if_busy(self._run.status())
        self._began = self._spoke = time.monotonic()
        self._last_report: tuple[int, float] | None = None
        self._status.step, self._status.steps = step, steps
        self._run.write_status(self._status)

    def progress(self, step: int) -> None:
        """Say that update `step` is done; writes the status every 2 s and a line to the log every 10 s."""
        assert self._began is not None  # noqa: S101
        now = time.monotonic()
        status = self._status
        status.step, status.busy_seconds = step, self._busy_before + now - self._began
        if self._last_report is None:  # the first update built the graph: it does not count as speed
            self._last_report = step, now
        elif now - self._last_report[1] >= STATUS_SECONDS:
            status.steps_per_second = (step - self._last_report[0]) / (now - self._last_report[1])
            self._last_report = step, now
            self._run.write_status(status)
        if now - self._spoke >= LOG_SECONDS:
            self._spoke = now
            logger.info("%s", describe(status))

    def logged(self, values: dict[str, float]) -> None:
        """Keep the metrics of the last logged update for the status."""
        self._status.last = values

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if isinstance(error, RunBusyError):
            return
        self._status.state = _state_after(error)
        self._status.error = None if error is None else _sentence(error)
        try:
            self._run.write_status(self._status)
        except PetganError as unwritten:
            logger.warning("%s", unwritten)
        if error is None:
            logger.info("done: %s", describe(self._status))

    def _refuse_if_busy(self, status: Status) -> None:
        if status.state == "running" and (status.host, status.pid) != self._me:
            raise RunBusyError(
                f"{self._run.path} is being trained by process {status.pid} on {status.host}",
                hint="wait for it, or end that process: it checkpoints first",
            )

    def _beat(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self._run.beat()
            if self._ended.wait(HEARTBEAT_SECONDS):
                return

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        if self._began is None:
            raise Interrupted(f"stopped by {signal.Signals(number).name} before its first step")


def describe(status: Status) -> str:
    """One line: step, speed, time left, losses."""
    parts = [f"step {status.step} of {status.steps}"]
    if status.steps_per_second:
        parts.append(f"{status.steps_per_second:.2f} steps/s")
        minutes, seconds = divmod(round((status.steps - status.step) / status.steps_per_second), 60)
        parts.append(f"{minutes} min {seconds} s left")
    parts += [f"{name} {value:.3g}" for name, value in status.last.items() if name.endswith("loss")]
    return ", ".join(parts)


def _state_after(error: BaseException | None) -> str:
    if error is None:
        return "done"
    return "interrupted" if isinstance(error, Interrupted) else "failed"


def _sentence(error: BaseException) -> str:
    if isinstance(error, PetganError):
        return str(error)
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}"
