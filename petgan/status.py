"""How far the runs of an experiment are: read from their folders, without asking any process."""

from __future__ import annotations

import os
import signal
import socket
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from petgan.errors import ConfigError, UserError
from petgan.runs import UNFINISHED, ExperimentFolder, RunFolder, Status

_NO_AXES = ("seed", "init_from", "init_digest")


@dataclass(frozen=True)
class RunStatus:
    """One run of an experiment.

    Parameters
    ----------
    run_id, preset, start : str
    seed : int
    axes : dict
        What sets this point apart from the other points of its preset.
    state : str
        One of `petgan.runs.STATES`.
    step, steps : int
    steps_per_second, seconds_left : float or None
    last : dict
        The last logged metrics.
    error : str or None
        One sentence on why it failed.
    score : dict or None
        ``name``, ``value``, ``standard_error`` of the headline, once evaluated.
    """

    run_id: str
    preset: str
    start: str
    seed: int
    axes: dict[str, Any]
    state: str
    step: int
    steps: int
    steps_per_second: float | None
    seconds_left: float | None
    last: dict[str, float]
    error: str | None
    score: dict[str, Any] | None


@dataclass(frozen=True)
class ExperimentStatus:
    """All runs of an experiment, in the grid's order.

    Parameters
    ----------
    name : str
    runs : list of RunStatus
    counts : dict of str to int
        Runs by state.
    seconds_left : float or None
        Until the last run that is queued or running ends, as far as speeds are known.
    """

    name: str
    runs: list[RunStatus]
    counts: dict[str, int]
    seconds_left: float | None

    @property
    def finished(self) -> bool:
        """Whether nothing is under way any more."""
        return not any(state in self.counts for state in UNFINISHED)


def experiment_status(experiment: ExperimentFolder) -> ExperimentStatus:
    """Read the state of all runs.

    Raises
    ------
    InputError
        If the folder is no experiment.
    """
    record = experiment.record()
    statuses = experiment.statuses()
    axes = differing_keys(entry["point"] for entry in record["points"])
    runs = [
        _run_status(experiment, entry, statuses[entry["run_id"]], axes[entry["point"]["preset"]])
        for entry in record["points"]
    ]
    return ExperimentStatus(
        name=record["name"],
        runs=runs,
        counts=dict(Counter(run.state for run in runs)),
        seconds_left=_seconds_left(runs, sum(s.parallel for s in experiment.live_submissions())),
    )


def differing_keys(points: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The keys in which the points of a preset differ, besides the seed, by preset."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for point in points:
        for key, value in point.items():
            values[point["preset"]][key].add(str(value))
    return {
        preset: [key for key, seen in keys.items() if len(seen) > 1 and key not in _NO_AXES]
        for preset, keys in values.items()
    }


def find_run(experiment: ExperimentFolder, prefix: str) -> RunFolder:
    """The run whose id begins with `prefix`.

    Raises
    ------
    ConfigError
        If there is none, or more than one.
    """
    run_ids = [entry["run_id"] for entry in experiment.record()["points"]]
    found = [run_id for run_id in run_ids if run_id.startswith(prefix)]
    if len(found) != 1:
        raise ConfigError(
            f"{'several runs begin so' if found else 'there is no such run'} in {experiment.path}",
            value=prefix,
            allowed=[*(found or run_ids)[:8], *(["..."] if len(found or run_ids) > 8 else [])],
        )
    return experiment.run(found[0])


def cancel(experiment: ExperimentFolder, run: RunFolder | None = None) -> dict[str, int]:
    """Ask all runs, or one, to checkpoint and stop; those that have not started yet never will.

    Returns
    -------
    dict of str to int
        How many were ``running`` and have been asked, and how many were ``queued`` and are cancelled.

    Raises
    ------
    UserError
        If they run on another host.
    """
    statuses = experiment.statuses()
    if run is not None:
        statuses = {run.path.name: statuses[run.path.name]}
    else:
        for submission in experiment.live_submissions():
            if submission.pid is not None:
                _stop(submission.pid, submission.host)
    counts = {"running": 0, "queued": 0}
    for run_id, status in statuses.items():
        if status.state == "running":
            _stop(status.pid, status.host)
            counts["running"] += 1
        elif status.state == "queued" or (status.state == "lost" and status.pid is None):
            experiment.run(run_id).update_status(state="cancelled")
            counts["queued"] += 1
    return counts


def _stop(pid: int | None, host: str | None) -> None:
    if host != socket.gethostname() or pid is None:
        raise UserError("the runs are on another machine", value=host, hint="give this command there")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise UserError("the runs belong to another user", hint="ask for them to be stopped") from None


def _run_status(
    experiment: ExperimentFolder, entry: Mapping[str, Any], status: Status, axes: list[str]
) -> RunStatus:
    point = entry["point"]
    speed = status.steps_per_second
    steps = status.steps or point["steps"]
    running = status.state == "running" and speed
    return RunStatus(
        run_id=entry["run_id"],
        preset=point["preset"],
        start=entry["start"],
        seed=point["seed"],
        axes={key: point[key] for key in axes},
        state=status.state,
        step=status.step,
        steps=steps,
        steps_per_second=speed,
        seconds_left=(steps - status.step) / speed if running and speed else None,
        last=status.last,
        error=status.error,
        score=_headline(experiment.run(entry["run_id"])) if status.state == "done" else None,
    )


def _headline(run: RunFolder) -> dict[str, Any] | None:
    evaluation = run.evaluation()
    if evaluation is None:
        return None
    return next(
        (
            {key: score[key] for key in ("name", "value", "standard_error")}
            for score in evaluation["scores"]
            if score["name"] == evaluation["headline"]
        ),
        None,
    )


def _seconds_left(runs: Sequence[RunStatus], parallel: int) -> float | None:
    """Steps that remain over the mean speed of each preset, shared among `parallel` runs."""
    speeds: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.steps_per_second:
            speeds[run.preset].append(run.steps_per_second)
    open_runs = [run for run in runs if run.state in UNFINISHED]
    if not open_runs or any(run.preset not in speeds for run in open_runs):
        return None
    work = [(run.steps - run.step) / statistics.fmean(speeds[run.preset]) for run in open_runs]
    return max(max(work), sum(work) / max(1, parallel))
