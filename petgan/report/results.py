"""What an experiment has given so far, read from its folder: every run, with its state and its scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from petgan import choice
from petgan.config import Point
from petgan.errors import ConfigError, InputError
from petgan.runs import ExperimentFolder, RunFolder, Status

SCORE_LABELS = {"kid": "KID", "fid": "FID", "swd": "SWD"}
FIELDS = tuple(name for name in Point.model_fields if name not in ("init_from", "init_digest"))
_RUN_COLUMNS = ("experiment", "run_id", "state", "reason", "start", "sweeps", "step", "busy_seconds")
_SCORE_COLUMNS = (
    "score", "value", "standard_error", "better", "headline", "ruler", "n_real", "n_fake",
    "floor", "floor_standard_deviation", "floor_repeats",
)  # fmt: skip


def load_results(experiment: Path | str) -> pd.DataFrame:
    """All runs of an experiment as a table: one row a run and score.

    A run without a score has one row, in which ``score`` and what follows it are missing.

    Parameters
    ----------
    experiment : path
        The experiment's folder.

    Returns
    -------
    DataFrame
        ``experiment``, ``run_id``, ``state`` (of `petgan.runs.STATES`), ``reason`` of a failure,
        ``start`` (scratch or transfer), ``sweeps`` (separated by blanks), ``step`` reached,
        ``busy_seconds``, the fields of `petgan.config.Point` but for the path that a transfer began
        with, and of the score: ``score``, ``value``, ``standard_error``, ``better``, ``headline``
        (whether it is the run's headline), ``ruler``, ``n_real``, ``n_fake``, and the real-against-real
        ``floor`` with its standard deviation and number of repeats.

    Raises
    ------
    InputError
        If the folder is no experiment, or a file in it cannot be read.
    """
    read = read_experiment(experiment)
    return results_frame([(read.name, read.runs)])


def results_frame(experiments: Iterable[tuple[str, list[Run]]]) -> pd.DataFrame:
    """The table of `load_results` for several experiments, each given by its name and runs."""
    rows = [row for name, runs in experiments for run in runs for row in _rows(name, run)]
    return pd.DataFrame(rows, columns=[*_RUN_COLUMNS, *FIELDS, *_SCORE_COLUMNS])


def read_experiment(path: Path | str) -> Experiment:
    """Read the record of an experiment, and the state and scores of all its runs."""
    folder = ExperimentFolder(Path(path))
    record = folder.record()
    runs = [_read_run(folder, point) for point in record["points"]]
    return Experiment(folder, record, runs)


@dataclass(frozen=True)
class Run:
    """One run as its folder has it.

    Parameters
    ----------
    folder : RunFolder
    run_id : str
    point : mapping
        The fields of `petgan.config.Point`.
    start : str
        ``"scratch"`` or ``"transfer"``.
    sweeps : tuple of str
    status : Status
    evaluation : mapping or None
        The content of ``evaluation.json``.
    """

    folder: RunFolder
    run_id: str
    point: Mapping[str, Any]
    start: str
    sweeps: tuple[str, ...]
    status: Status
    evaluation: Mapping[str, Any] | None

    @property
    def preset(self) -> str:
        return str(self.point["preset"])

    @property
    def seed(self) -> int:
        return int(self.point["seed"])

    @property
    def reason(self) -> str | None:
        """What failed, without the advice that follows it."""
        return self.status.error.split("; ")[0] if self.status.error else None

    @property
    def state_in_words(self) -> str:
        """The state as a table says it of a run without a score."""
        if self.status.state in ("new", "queued"):
            return "pending"
        if self.status.state == "failed":
            return f"failed: {self.reason or 'no reason given'}"
        return "not scored" if self.status.state == "done" else self.status.state

    @property
    def configuration(self) -> tuple[str, ...]:
        """What its seeds have in common; hashable."""
        return (self.start, *(repr(self.point.get(name)) for name in FIELDS if name != "seed"))

    @property
    def scores(self) -> list[Mapping[str, Any]]:
        """The scores that have a value."""
        scores = self.evaluation["scores"] if self.evaluation else []
        return [score for score in scores if score["value"] is not None]

    def value(self, score: str) -> float | None:
        return next((s["value"] for s in self.scores if s["name"] == score), None)


@dataclass(frozen=True)
class Score:
    """How a score was taken: the same for all runs of an experiment. The lower, the better.

    Parameters
    ----------
    name : str
        ``"kid"``, ``"fid"`` or ``"swd"``.
    ruler : str
        Metric, network, size and resize; values of different rulers do not compare.
    n_real, n_fake : int
        Numbers of images.
    floors : list of mapping
        The real-against-real scores that were found, each with ``value``, ``standard_deviation``
        and ``repeats``.
    decimals : int
        To print values with: four significant digits of their median.
    """

    name: str
    ruler: str
    n_real: int
    n_fake: int
    floors: list[Mapping[str, Any]]
    decimals: int

    @property
    def label(self) -> str:
        return SCORE_LABELS.get(self.name, self.name)

    def number(self, value: float) -> str:
        return f"{value:.{self.decimals}f}"


@dataclass(frozen=True)
class Experiment:
    """An experiment with all its runs, in the grid's order."""

    folder: ExperimentFolder
    record: Mapping[str, Any]
    runs: list[Run]

    @property
    def name(self) -> str:
        return str(self.record["name"])

    @cached_property
    def scores(self) -> dict[str, Score]:
        """The scores that runs have, by name.

        Raises
        ------
        ConfigError
            If runs were scored with different rulers or numbers of images.
        """
        taken: dict[str, list[tuple[Run, Mapping[str, Any]]]] = {}
        for run in self.runs:
            for score in run.scores:
                taken.setdefault(score["name"], []).append((run, score))
        return {name: self._score(name, scores) for name, scores in taken.items()}

    def _score(self, name: str, taken: list[tuple[Run, Mapping[str, Any]]]) -> Score:
        rulers: dict[tuple[str, int, int], Run] = {}
        floors: list[Mapping[str, Any]] = []
        for run, score in taken:
            rulers.setdefault((score["ruler"], score["n_real"], score["n_fake"]), run)
            if score["floor"] and score["floor"] not in floors:
                floors.append(score["floor"])
        if len(rulers) > 1:
            raise _mixed_rulers(self, name, rulers)
        median = statistics.median(abs(score["value"]) for _, score in taken)
        return Score(name, *next(iter(rulers)), floors, _decimals(median))

    def headline(self, wanted: str | None = None) -> Score | None:
        """The score that the report is about: `wanted`, or the runs' own headline.

        None while no run is scored.

        Raises
        ------
        ConfigError, InputError
            If no run has the wanted score, or the runs have different headlines.
        """
        if not self.scores:
            return None
        return self.scores[choice.best_overall(self.records, wanted or choice.headline(self.records)).score]

    @cached_property
    def records(self) -> list[choice.Score]:
        """The scores as `petgan.choice` takes them."""
        return choice.read_scores(self.folder)

    def companions(self, headline: Score) -> list[Score]:
        return [score for score in self.scores.values() if score.name != headline.name]


def _read_run(folder: ExperimentFolder, point: Mapping[str, Any]) -> Run:
    run = folder.run(point["run_id"])
    return Run(
        folder=run,
        run_id=point["run_id"],
        point=point["point"],
        start=point["start"],
        sweeps=tuple(point["sweeps"]),
        status=_status(run),
        evaluation=run.evaluation(),
    )


def _status(run: RunFolder) -> Status:
    try:
        return run.status()
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot read {run.status_file}: {error}") from None


def _rows(experiment: str, run: Run) -> list[dict[str, Any]]:
    common = {
        "experiment": experiment,
        "run_id": run.run_id,
        "state": run.status.state,
        "reason": run.reason,
        "start": run.start,
        "sweeps": " ".join(run.sweeps),
        "step": run.status.step,
        "busy_seconds": run.status.busy_seconds,
        **{name: _plain(run.point.get(name)) for name in FIELDS},
    }
    rows = []
    for score in run.scores:
        floor = score["floor"] or {}
        rows.append(
            common
            | {name: score[name] for name in _SCORE_COLUMNS if name in score}
            | {
                "score": score["name"],
                "headline": score["name"] == (run.evaluation or {}).get("headline"),
                "floor": floor.get("value"),
                "floor_standard_deviation": floor.get("standard_deviation"),
                "floor_repeats": floor.get("repeats"),
            }
        )
    return rows or [common]


def _decimals(value: float) -> int:
    return max(0, 3 - math.floor(math.log10(value))) if value else 3


def _plain(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list | tuple) else value


def _mixed_rulers(
    experiment: Experiment, score: str, rulers: Mapping[tuple[str, int, int], Run]
) -> ConfigError:
    told = " and ".join(
        f"{ruler} with {n_real} real and {n_fake} generated images (run {run.run_id})"
        for (ruler, n_real, n_fake), run in rulers.items()
    )
    return ConfigError(
        f"the runs of {experiment.name} were scored with different rulers, which share no table: "
        f"{score} by {told}",
        hint=f"score all alike: petgan evaluate {experiment.folder.path}",
    )
