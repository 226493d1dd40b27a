"""The training loop: from wherever the run stands to its last step.

Nothing here depends on when or how often the run was interrupted: after a resume, metrics, sheets and
weights are those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import keras
import numpy as np
import tensorflow as tf

from petgan.checkpoint import Header, read_newest, start_from, write_checkpoint
from petgan.config import RunConfig
from petgan.errors import CheckpointError, DatasetError, Interrupted, RunBusyError, TrainingError
from petgan.runs import HEARTBEAT_SECONDS, RunFolder, Status, write_text
from petgan.samples import generate, save_png, sheet
from petgan.steps import Metrics, Networks, make_networks, make_update

SHEET_IMAGES = 16
SHEET_SEED = 0  # the same noise for every run, so that sheets compare
SCORE = "swd"  # the metrics' key of the validation score; the lowest is the best
STATUS_SECONDS = 2.0
LOG_SECONDS = 10.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)

logger = logging.getLogger(__name__)


def train(run: RunFolder, images: np.ndarray, score: Callable[[keras.Model], float] | None = None) -> None:
    """Train a run to its last step.

    Parameters
    ----------
    run : RunFolder
        With its ``config.json``.
    images : ndarray (n, size, size, 1) uint8
        The training split.
    score : callable, optional
        Scores a generator on the validation split; lower is better.

    Raises
    ------
    Interrupted
        After a signal: the run has a checkpoint and can go on.
    TrainingError
        If a loss is not a number.
    CheckpointError, DatasetError
        If the folder holds checkpoints of another network or dataset.
    DiskError
        If a checkpoint cannot be written; the last one stays.
    RunBusyError
        If another process trains this run.
    """
    config = run.config()
    point, every = config.point, config.every.resolved(config.point.steps)
    _refuse_if_busy(run)
    with _reporting(run, point.steps) as report, _stop_requested() as stop:
        networks = make_networks(point)
        start = _restore(run, config, networks)
        _cut_metrics(run, start)
        best = min((line[SCORE] for line in run.metrics() if SCORE in line), default=math.inf)
        update = make_update(point, networks, images)
        report.begin(start)
        unread: list[tuple[int, Metrics]] = []

        def checkpoint(path: Path) -> None:
            digest = config.dataset.digest
            write_checkpoint(
                path, networks, run_id=config.run_id, step=step, dataset_digest=digest, point=point
            )

        for step in range(start + 1, point.steps + 1):
            unread.append((step, update(tf.constant(step - 1))))

            last = step == point.steps
            scored = score is not None and (last or step % every.score == 0)
            logged = last or scored or step % every.log == 0
            saved = last or stop.is_set() or step % every.checkpoint == 0

            if logged or saved or report.is_due():
                values = _read(unread)
                report.progress(step, values)
            if scored and score is not None:
                values[SCORE] = score(networks.ema_generator)
            if logged:
                report.log(step, values)
            if last or step % every.sample == 0:
                save_png(run.sample_file(step), sheet(_samples(networks)))
            if scored and values[SCORE] < best:
                best = values[SCORE]
                checkpoint(run.best_checkpoint)
            if saved:
                report.flush()
                checkpoint(run.checkpoint_file(step))
                for old in run.last_checkpoints()[every.keep :]:
                    old.unlink()
            if stop.is_set() and not last:
                raise Interrupted(f"stopped at step {step} of {point.steps}, after a checkpoint")


def _samples(networks: Networks) -> np.ndarray:
    return generate(networks.ema_generator, SHEET_IMAGES, SHEET_SEED)


def _read(unread: list[tuple[int, Metrics]]) -> dict[str, float]:
    """Fetch the metrics of all steps since the last call and return the last step's."""
    values: dict[str, float] = {}
    for step, metrics in unread:
        values = {name: float(metrics[name]) for name in sorted(metrics)}
        if not all(map(math.isfinite, values.values())):
            bad = next(name for name, value in values.items() if not math.isfinite(value))
            raise TrainingError(
                f"{bad} is not a number at step {step}",
                value=values[bad],
                hint="the training has diverged: try a lower learning_rate or another optimizer",
            )
    unread.clear()
    return values


# --- where to start -----------------------------------------------------------------------------


def _restore(run: RunFolder, config: RunConfig, networks: Networks) -> int:
    """Bring the networks to where the run stands, and return the number of updates done.

    In this order: the run's own newest whole checkpoint; another run's weights, for a transfer; the
    fresh weights that the networks came with.
    """
    header = read_newest(run.last_checkpoints(), networks)
    if header is not None:
        _check_header(header, config)
        logger.info("going on from step %d of %d", header.step, config.point.steps)
        return header.step
    if config.point.init_from is not None:
        start_from(config.point.init_from, config.point.init_digest, networks)
        logger.info("starting from the weights of %s", config.point.init_from)
    return 0


def _check_header(header: Header, config: RunConfig) -> None:
    if header.dataset_digest != config.dataset.digest:
        raise DatasetError(
            "the dataset has changed since the run began",
            value=config.dataset.digest[:12],
            allowed=header.dataset_digest[:12],
            hint="bring the old dataset back, or give the run a folder of its own",
        )
    if header.run_id != config.run_id:
        raise CheckpointError(
            "the folder's checkpoints are of another run",
            value=header.run_id,
            allowed=config.run_id,
            hint="give this run a folder of its own",
        )


def _cut_metrics(run: RunFolder, step: int) -> None:
    """Drop the lines beyond `step`: they will be written again."""
    kept = [line for line in run.metrics() if line["step"] <= step]
    if run.metrics_file.exists():
        write_text(run.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))


def _refuse_if_busy(run: RunFolder) -> None:
    status = run.status()
    if status.state == "running" and status.pid != os.getpid():
        raise RunBusyError(
            f"run {run.path.name} is being trained by process {status.pid} on {status.host}",
            hint="wait for it, or stop it with 'petgan cancel'",
        )


# --- what others see ----------------------------------------------------------------------------


class _Report:
    """Writes metrics, status and TensorBoard's log, and speaks in the worker's log."""

    def __init__(self, run: RunFolder, steps: int) -> None:
        self._run = run
        self._status = Status(
            "running",
            steps=steps,
            busy_seconds=run.status().busy_seconds,
            started=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
        self._busy_before = self._status.busy_seconds
        self._began = self._spoke = self._wrote = time.monotonic()
        self._first = (0, self._began)
        self._open = contextlib.ExitStack()

    def begin(self, step: int) -> None:
        self._status.step = step
        self._run.write_status(self._status)
        lines = open(self._run.metrics_file, "a", encoding="utf-8")  # noqa: SIM115
        self._file = self._open.enter_context(lines)
        self._board = tf.summary.create_file_writer(str(self._run.tensorboard))
        self._open.callback(self._board.close)

    def is_due(self) -> bool:
        return time.monotonic() - self._wrote >= STATUS_SECONDS

    def progress(self, step: int, values: dict[str, float]) -> None:
        now = time.monotonic()
        if self._first[0] == 0:
            self._first = (step, now)  # the first step built the graph: it does not count
        status = self._status
        status.step, status.last = step, values
        status.busy_seconds = self._busy_before + now - self._began
        if step > self._first[0]:
            status.steps_per_second = (step - self._first[0]) / (now - self._first[1])
        if self.is_due():
            self._wrote = now
            self._run.write_status(status)
        if now - self._spoke >= LOG_SECONDS:
            self._spoke = now
            logger.info("%s", describe_progress(status))

    def log(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        with self._board.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step)

    def flush(self) -> None:
        """Bring the metrics to the disk: a checkpoint must not know more than they do."""
        os.fsync(self._file.fileno())

    def close(self, state: str, error: str | None) -> None:
        self._open.close()
        self._status.state, self._status.error = state, error
        self._run.write_status(self._status)
        logger.info("%s: %s", state, error or describe_progress(self._status))


def describe_progress(status: Status) -> str:
    """One line: step, speed, time left, losses."""
    parts = [f"step {status.step} of {status.steps}"]
    if status.steps_per_second:
        minutes, seconds = divmod(round((status.steps - status.step) / status.steps_per_second), 60)
        parts.append(f"{status.steps_per_second:.2f} steps/s, {minutes} min {seconds} s left")
    parts += [f"{name} {value:.3g}" for name, value in status.last.items() if name.endswith("loss")]
    return ", ".join(parts)


@contextlib.contextmanager
def _reporting(run: RunFolder, steps: int) -> Iterator[_Report]:
    """Keep status and heartbeat, and end with the state that the block's end means."""
    report = _Report(run, steps)
    run.write_status(report._status)
    ended = threading.Event()

    def beat() -> None:
        while True:
            run.beat()
            if ended.wait(HEARTBEAT_SECONDS):
                return

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield report
    except Interrupted as interruption:
        report.close("interrupted", str(interruption))
        raise
    except Exception as error:
        report.close("failed", str(error) or type(error).__name__)
        raise
    else:
        report.close("done", None)
    finally:
        ended.set()


@contextlib.contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """An event that is set by the signals that ask for a checkpoint and a stop."""
    event = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        event.set()

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
