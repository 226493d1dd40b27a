"""One process at work on a run: its claim to the folder, heartbeat, status, log lines and stop signals.

It needs no TensorFlow, so that a run is claimed before the seconds that its import takes.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType

from petgan.errors import Interrupted, PetganError, RunBusyError
from petgan.place import Place
from petgan.runs import HEARTBEAT_SECONDS, RunFolder, Status, process_exists

STATUS_SECONDS = 2.0
LOG_SECONDS = 10.0
STILL_SECONDS = 1.5 * HEARTBEAT_SECONDS  # a heart that has not beaten for so long does not beat
YIELD_SECONDS = 6 * HEARTBEAT_SECONDS  # a process whose run has been taken over has noticed by then
POLL_SECONDS = 0.5
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

_NOT_BEGUN = "stopped by a signal before its first step"

logger = logging.getLogger(__name__)


class StopSignals:
    """What asks this process to checkpoint and to end: SIGTERM, Ctrl-C, Slurm's warning.

    Attributes
    ----------
    requested : bool
        A signal has come. More of them change nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    def listen(self) -> None:
        """Receive the stop signals from now on."""
        self._handlers = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}

    def unlisten(self) -> None:
        """Give the signals back to who had them before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def raise_at_once(self, at_once: bool = True) -> None:
        """Whether a signal, one that has come included, raises `Interrupted` where the process stands."""
        self._at_once = at_once
        if at_once and self.requested:
            self._raise("a signal")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._at_once:
            self._raise(signal.Signals(number).name)

    def _raise(self, what: str) -> None:
        self._at_once = False  # what tidies up is left alone
        raise Interrupted(f"stopped by {what} before its first step")


class Follower:
    """A context in which this process, a rank other than 0, takes part in training and writes nothing.

    Parameters
    ----------
    place : Place, optional
        Of this process.
    signals : StopSignals, optional
        Who listens already; by default this listens while it lasts.
    """

    def __init__(self, place: Place | None = None, signals: StopSignals | None = None) -> None:
        self._place = place or Place.from_environment({})
        self._signals = signals or StopSignals()
        self._listens = signals is None

    def __enter__(self) -> Follower:
        if self._listens:
            self._signals.listen()
        return self

    @property
    def stop_requested(self) -> bool:
        """Whether a signal has asked for a checkpoint and an end."""
        return self._signals.requested

    def begin(self, step: int, steps: int) -> None:
        """Say that training starts after update `step` of `steps`."""

    def progress(self, step: int) -> None:
        """Say that update `step` is done."""

    def logged(self, values: dict[str, float], trouble: str | None) -> None:
        """Keep the metrics of the last logged update, and what is wrong with them, for the status."""

    def keep_claim(self) -> None:
        """Refuse to write on if another process has taken the run over."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listens:
            self._signals.unlisten()


class Session(Follower):
    """A context in which this process trains a run, and no other does.

    On leaving, the run's status becomes ``done``, ``interrupted`` or ``failed``, after the exception.

    A run may still be claimed by a process that this one cannot see: a job that was requeued after its
    node had failed, or had seemed to. A later start of the same job takes the run over: it writes its own
    claim, and waits until the other's heart has stopped, by the heartbeat file changing or not, for the
    clocks of two nodes may differ. The other one looks for such a claim whenever its heart is to beat and
    before all that it writes, and ends without another word.

    Parameters
    ----------
    run : RunFolder
    place : Place, optional
    signals : StopSignals, optional

    Raises
    ------
    RunBusyError
        On entering, or later, if another live process trains the run.
    """

    def __init__(
        self, run: RunFolder, place: Place | None = None, signals: StopSignals | None = None
    ) -> None:
        super().__init__(place, signals)
        self._run = run
        self._me = (self._place.node_name, os.getpid())
        self._began: float | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Session:
        super().__enter__()
        try:
            self._status = self._run.status()
            self._busy_before = self._status.busy_seconds
            self._claim()
        except Interrupted as error:
            self.__exit__(type(error), error, None)
            raise
        except BaseException:
            super().__exit__(None, None, None)
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        if self._place.ranks == 1:
            try:
                self._signals.raise_at_once()
            except Interrupted as error:
                self.__exit__(type(error), error, None)
                raise
        return self

    def begin(self, step: int, steps: int) -> None:
        self._signals.raise_at_once(False)
        self._began = self._spoke = time.monotonic()
        self._last_report: tuple[int, float] | None = None
        self._status.step, self._status.steps = step, steps
        # Two processes that started together both saw a free run: the later claim has overwritten ours.
        self._write_status()

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
            self._write_status()
        if now - self._spoke >= LOG_SECONDS:
            self._spoke = now
            logger.info("%s", describe(status))

    def logged(self, values: dict[str, float], trouble: str | None) -> None:
        self._status.last, self._status.trouble = values, trouble

    def keep_claim(self) -> None:
        """Refuse to write on if another process has taken the run over.

        Raises
        ------
        RunBusyError
        """
        if other := self._other_claim():
            raise self._busy(other)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._signals.raise_at_once(False)
        super().__exit__(kind, error, traceback)
        if isinstance(error, RunBusyError):
            return
        if error is not None and self._began is None and self._signals.requested:
            # An import can make any error of the one that a signal raised in its midst.
            stopped = error if isinstance(error, Interrupted) else Interrupted(_NOT_BEGUN)
            self._write_end(stopped)
            if stopped is not error:
                raise stopped from error
            return
        self._write_end(error)

    def _write_end(self, error: BaseException | None) -> None:
        self._status.state = _state_after(error)
        self._status.error = None if error is None else _sentence(error)
        try:
            self._write_status()
        except PetganError as unwritten:
            logger.warning("%s", unwritten)
            return
        if error is None:
            logger.info("done: %s", describe(self._status))

    # --- the claim ------------------------------------------------------------------------------

    def _claim(self) -> None:
        before = self._status
        claimed = before.state in ("running", "lost") and (before.host, before.pid) != self._me
        if claimed and self._place.job is None and before.state == "running":
            raise self._busy(before)
        if claimed and self._place.job is not None and not self._has_ended_here(before):
            self._take_over(before)
        else:
            self._write_claim()
        self._run.remove_halves()

    def _write_claim(self) -> None:
        status = self._status
        status.state, status.error = "running", None
        status.started = status.started or time.time()
        status.host, status.pid = self._me
        status.job = self._place.job
        self._run.write_status(status)

    def _has_ended_here(self, before: Status) -> bool:
        """Whether the process that claims the run was one of this node, and has ended."""
        if before.host != self._place.node_name or before.pid is None:
            return False
        return not process_exists(before.pid, before.updated)

    def _take_over(self, before: Status) -> None:
        """Make the run ours as soon as the other's heart stands still.

        Raises
        ------
        RunBusyError
            If it beats on and the other is no earlier start of this job; or if it does not heed our claim.
        """
        other = Status(host=before.host, pid=before.pid, job=before.job)
        ours = self._is_earlier_start(before)
        if not ours and before.host == self._place.node_name:
            raise self._busy(other)
        logger.info("waiting for process %s on %s to have ended", other.pid, other.host)
        if ours:
            self._write_claim()
        last, began = self._heartbeat(), time.monotonic()
        still_since = began
        while time.monotonic() - still_since < STILL_SECONDS:
            if self._signals.requested:
                raise Interrupted(_NOT_BEGUN)
            time.sleep(POLL_SECONDS)
            now = self._heartbeat()
            if now != last:
                if not ours or time.monotonic() - began > YIELD_SECONDS:
                    raise self._busy(other)
                last, still_since = now, time.monotonic()
            if ours and self._other_claim():  # it wrote its status at the very moment of our claim
                self._write_claim()
        self._write_claim()

    def _is_earlier_start(self, before: Status) -> bool:
        if before.job is None or self._place.job is None:
            return False
        (theirs, their_start), (ours, our_start) = _job_and_start(before.job), _job_and_start(self._place.job)
        elsewhere = before.host != self._place.node_name
        return theirs == ours and (their_start < our_start or (their_start == our_start and elsewhere))

    def _heartbeat(self) -> int | None:
        try:
            with open(self._run.heartbeat_file, "rb") as file:  # opening makes NFS look at the server
                return os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return None

    def _other_claim(self) -> Status | None:
        """The status as another process has written it over ours."""
        try:
            status = self._run.status()
        except (OSError, ValueError):  # a file system that hiccups is no claim
            return None
        return status if status.pid is not None and (status.host, status.pid) != self._me else None

    def _busy(self, other: Status) -> RunBusyError:
        return RunBusyError(
            f"{self._run.path} is being trained by process {other.pid} on {other.host}",
            hint="wait for it, or end that process: it checkpoints first",
        )

    def _write_status(self) -> None:
        self.keep_claim()
        self._run.write_status(self._status)

    def _beat(self) -> None:
        while True:
            if other := self._other_claim():
                # The main thread may hang in a step or a dead file system: this must not write any more.
                print(f"petgan: {self._busy(other)}", file=sys.stderr, flush=True)
                os._exit(RunBusyError.exit_code)
            try:
                self._run.beat()
            except OSError as error:
                logger.debug("%s", error)
            if self._ended.wait(HEARTBEAT_SECONDS):
                return


def _job_and_start(job: str) -> tuple[str, int]:
    """Split ``123_4+2`` into the job and how often it was started again."""
    name, _, start = job.partition("+")
    return name, int(start) if start.isdigit() else 0


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
