"""The training loop: from wherever the run stands to its last step.

Nothing here depends on when or how often the run was interrupted: after a resume, metrics, sheets and
weights are those of an undisturbed run. Of several ranks all carry out every update, and only rank 0 writes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from petgan.checkpoint import all_variables, export_generator, read_newest, start_from, write_checkpoint
from petgan.config import RunConfig
from petgan.distributed import ALONE, Alone, check_equal_weights, contact
from petgan.errors import Interrupted, TrainingError
from petgan.methods import Metrics, Update, method_of
from petgan.methods.feed import Data, reading
from petgan.methods.networks import Networks, averaged_copy, copied
from petgan.pictures import save_png, sheet
from petgan.runs import RunFolder, disk_errors, write_text
from petgan.samples import generate
from petgan.session import Follower
from petgan.watch import Trouble, Watch

SHEET_IMAGES = 16
SHEET_SEED = 0  # the same noise for every run, so that sheets compare
SCORE = "swd"  # the metrics' key of the validation score; the lowest is the best

logger = logging.getLogger(__name__)


def train(
    run: RunFolder,
    config: RunConfig,
    data: Data,
    session: Follower,
    score: Callable[[keras.Model], float] | None = None,
    ranks: Alone = ALONE,
) -> None:
    """Train a run to its last step, and export its averaged generator.

    Parameters
    ----------
    run : RunFolder
    config : RunConfig
        Of the run.
    data : Data
        What it trains on.
    session : Session or Follower
        This process's claim to the run; on ranks other than 0 its part in it.
    score : callable, optional
        Scores a generator on the validation split; lower is better.
    ranks : Alone or Ranks
        Those that train it together.

    Raises
    ------
    Interrupted
        After a signal to any rank: the run has a checkpoint, or not begun, and can go on.
    TrainingError
        If a loss is not a number, or another rank has gone; or, where the run is to stop on trouble, if there
        is some that was not there when it was last started. It has a checkpoint then, and can go on.
    CheckpointError, DatasetError
        If the folder holds checkpoints of another network or dataset.
    RankMismatchError
        If the ranks do not start from the same weights.
    RunBusyError
        If another process has taken the run over: nothing is written any more.
    DiskError
        If something cannot be written; the last checkpoint stays.
    """
    point, every = config.point, config.every.resolved(config.point.steps)
    with contact(ranks), reading(data), contextlib.ExitStack() as ending:
        method = method_of(point.preset)
        networks = method.make_networks(point)
        step = _start(run, config, networks, ranks)
        if ranks.any(session.stop_requested):
            raise Interrupted("stopped by a signal before its first step")
        updates = in_one_call(method.make_update(point, networks, data, ranks), compiles(data, ranks))
        kind = _OutputBeside if on_gpu() else _Output
        output = kind(run, config, networks, data, session, score, step) if ranks.rank == 0 else None
        if output is not None:
            ending.callback(output.end)

        periods = (every.log, every.sample, every.score, every.checkpoint)
        unread: list[tuple[int, Metrics]] = []
        session.begin(step, point.steps)
        while step < point.steps:
            # As many as may be done unseen: up to whatever is due next.
            ends = (step - step % period + period for period in periods)
            count = min(step + config.resources.steps_per_call, point.steps, *ends) - step
            unread.append((step + 1, updates(step, count)))
            step += count

            stopping, last = ranks.any(session.stop_requested), step == point.steps
            scored = score is not None and (last or step % every.score == 0)
            logged = last or scored or step % every.log == 0
            sampled = last or step % every.sample == 0
            saved = last or stopping or step % every.checkpoint == 0

            if logged or sampled or saved:
                values = _read(unread)
                _check_weights(networks, step)
                if output is not None:
                    output.write(step, values, scored=scored, logged=logged, sampled=sampled, saved=saved)
            session.progress(step)
            if logged and config.on_trouble == "stop" and not last:
                _stop_on_trouble(output.new_trouble if output else None, step, ranks)
            if stopping and not last:
                if output is not None:
                    output.finish()
                raise Interrupted(f"stopped at step {step} of {point.steps}, after a checkpoint")
    if output is not None:
        output.close()


def _start(run: RunFolder, config: RunConfig, networks: Networks, ranks: Alone) -> int:
    """Bring the networks of all ranks to where the run stands, and return the number of updates done.

    Rank 0 alone reads: another node may still see the folder as it was a minute ago.
    """
    step: int = ranks.first_does(lambda: _restart(run, config, networks))
    ranks.broadcast(all_variables(networks))
    check_equal_weights(ranks, (np.asarray(v) for v in all_variables(networks)))
    return step


def _restart(run: RunFolder, config: RunConfig, networks: Networks) -> int:
    """Bring the networks to where the run stands, and return the number of updates done."""
    # 1. The run's own newest whole checkpoint: it was interrupted, and goes on.
    header = read_newest(run.last_checkpoints(), networks, config)
    if header is not None:
        logger.info("going on from step %d of %d", header.step, config.point.steps)
        return header.step
    # 2. Another run's weights, with fresh optimizers: a transfer.
    point = config.point
    if point.init_from is not None:
        start_from(point.init_from, point.init_digest, networks, point.init_parts)
        logger.info("starting from the weights of %s", point.init_from)
        return 0
    # 3. The fresh weights that the networks came with.
    logger.info("starting from seed %d", point.seed)
    return 0


def on_gpu() -> bool:
    """Whether there is a GPU to train on."""
    return bool(tf.config.list_physical_devices("GPU"))


def compiles(data: Data, ranks: Alone) -> bool:
    """Whether XLA may have the update: on a CPU it is slower, and it knows no collectives and no streams."""
    streams = any(not isinstance(images, np.ndarray | None) for images in (data.images, data.source))
    return on_gpu() and ranks.ranks == 1 and not streams


def in_one_call(update: Update, compiled: bool = False) -> Callable[[int, int], Metrics]:
    """Make the function that carries out updates first, ..., first + count - 1 in one call of the device.

    It returns each metric of all of them, (count,). XLA compiles the update if it is to be `compiled`.
    """
    one = tf.function(update, autograph=False, jit_compile=compiled or None)

    @tf.function
    def several(first: tf.Tensor, count: tf.Tensor) -> Metrics:
        shapes = one.get_concrete_function(first).structured_outputs
        rows = {name: tf.TensorArray(value.dtype, count) for name, value in shapes.items()}
        for i in tf.range(count):
            rows = {name: rows[name].write(i, value) for name, value in one(first + i).items()}
        return {name: row.stack() for name, row in rows.items()}

    def updates(first: int, count: int) -> Metrics:
        step = tf.constant(first)
        if count == 1:
            return {name: value[None] for name, value in one(step).items()}
        metrics: Metrics = several(step, tf.constant(count))
        return metrics

    return updates


def _read(unread: list[tuple[int, Metrics]]) -> dict[str, float]:
    """Fetch the metrics of all updates since the last call and return the last one's.

    So the device never waits for a look at its losses, and the first bad one is still found.
    """
    values: dict[str, float] = {}
    for first, metrics in unread:
        rows = {name: metrics[name].numpy() for name in sorted(metrics)}
        for i in range(len(next(iter(rows.values())))):
            values = {name: float(row[i]) for name, row in rows.items()}
            for name, value in values.items():
                if not math.isfinite(value):
                    raise TrainingError(
                        f"{name} is not a number at step {first + i}",
                        value=value,
                        hint="the training has diverged: try a lower learning_rate or another optimizer",
                    )
    unread.clear()
    return values


def _check_weights(networks: Networks, step: int) -> None:
    """Refuse what the last update made, which no loss has seen yet."""
    if not all(tf.reduce_all(tf.math.is_finite(weight)) for weight in networks.generator.weights):
        raise TrainingError(
            f"the generator's weights are not numbers at step {step}",
            hint="the training has diverged: try a lower learning_rate or another optimizer",
        )


def _stop_on_trouble(trouble: Trouble | None, step: int, ranks: Alone) -> None:
    """Stop all ranks if rank 0, which alone has the lines of all logged steps, has found `trouble`."""
    if ranks.any(trouble is not None):
        what, hint = ranks.first_does(lambda: trouble and (str(trouble), trouble.hint))
        raise TrainingError(
            f"{what}; stopped at step {step}, after a checkpoint",
            hint=f"{hint}; 'petgan retry' goes on from the checkpoint all the same",
        )


class _Output:
    """What rank 0 leaves in the run folder: metrics, sheets, checkpoints, the exported generator."""

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        networks: Networks,
        data: Data,
        session: Follower,
        score: Callable[[keras.Model], float] | None,
        step: int,
    ) -> None:
        session.keep_claim()
        self._run, self._config, self._networks, self._session = run, config, networks, session
        self._shown, self._score = data.shown, score
        self._record = _Record(run, step)
        self._watch = Watch(self._record.kept)
        self.new_trouble: Trouble | None = None
        self._best = min((line[SCORE] for line in self._record.kept if SCORE in line), default=math.inf)

    def write(self, step: int, values: dict[str, float], **due: bool) -> None:
        """Write what is `due` after update `step` (scored, logged, sampled, saved), and its metrics."""
        self._write(self._networks, step, values, **due)

    def finish(self) -> None:
        """Wait until all is written, and raise what went wrong in it."""

    def end(self) -> None:
        """Wait until nothing is written any more, whatever has happened."""

    def _write(
        self,
        networks: Networks,
        step: int,
        values: dict[str, float],
        *,
        scored: bool,
        logged: bool,
        sampled: bool,
        saved: bool,
    ) -> None:
        run, config = self._run, self._config
        if scored and self._score is not None:
            values[SCORE] = self._score(networks.ema_generator)
        self._session.keep_claim()
        if logged:
            self._record.write(step, values)
            self._look({"step": step, **values})
            self._session.logged(values, str(trouble) if (trouble := self._watch.trouble) else None)
        if sampled:
            preset = config.point.preset
            sample = generate(networks.ema_generator, SHEET_IMAGES, SHEET_SEED, preset, self._shown)
            save_png(run.sample_file(step), sheet(sample))
        if scored and values[SCORE] < self._best:
            self._best = values[SCORE]
            write_checkpoint(run.best_checkpoint, networks, config, step)
        if saved or (self.new_trouble and config.on_trouble == "stop"):
            self._record.flush()
            self._session.keep_claim()
            write_checkpoint(run.checkpoint_file(step), networks, config, step)
            for old in run.last_checkpoints()[config.every.keep :]:
                old.unlink()

    def _look(self, line: Mapping[str, float]) -> None:
        before = self._watch.trouble
        self._watch.look(line)
        now = self._watch.trouble
        known = before is not None and now is not None and before.kind == now.kind
        self.new_trouble = None if known else now
        if self.new_trouble:
            logger.warning("%s", self.new_trouble)

    def close(self) -> None:
        self.finish()
        self._record.close()
        self._session.keep_claim()
        export_generator(self._run.generator_file, self._networks.ema_generator)


class _OutputBeside(_Output):
    """The same, written by a thread while a GPU trains on: of a copy of the networks, in the same order.

    An error comes out at the next look, which every logged update is.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._copy = averaged_copy(self._networks.ema_generator)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="petgan-output")
        self._unwritten: deque[Future[None]] = deque()
        self._broken = False

    def write(self, step: int, values: dict[str, float], **due: bool) -> None:
        while self._unwritten and self._unwritten[0].done():
            self._unwritten.popleft().result()
        networks = self._networks
        if due["scored"] or due["sampled"] or due["saved"]:
            self.finish()  # one copy at a time
            networks = copied(networks, self._copy)
        write = functools.partial(self._write, networks, step, values, **due)
        self._unwritten.append(self._thread.submit(self._unless_broken, write))
        if self._config.on_trouble == "stop":
            self.finish()

    def finish(self) -> None:
        while self._unwritten:
            self._unwritten.popleft().result()

    def end(self) -> None:
        self._thread.shutdown()

    def _unless_broken(self, write: Callable[[], None]) -> None:
        """Nothing comes behind what is half-written."""
        if not self._broken:
            self._broken = True
            write()
            self._broken = False


class _Record:
    """The metrics of the logged updates: ``metrics.jsonl``, and TensorBoard's log.

    Lines beyond `step` are cut, for they will be written again; `kept` holds the others.
    """

    def __init__(self, run: RunFolder, step: int) -> None:
        self.kept: list[dict[str, Any]] = [line for line in run.metrics() if line["step"] <= step]
        write_text(run.metrics_file, "".join(map(_line, self.kept)))
        self._path: Path = run.metrics_file
        self._board = tf.summary.create_file_writer(str(run.tensorboard))

    def write(self, step: int, values: dict[str, float]) -> None:
        with disk_errors(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(_line({"step": step, **values}))
        with self._board.as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step)

    def flush(self) -> None:
        """Bring the lines to the disk: a checkpoint must not know more than they do."""
        with disk_errors(self._path), open(self._path, "rb") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        self._board.close()


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"
