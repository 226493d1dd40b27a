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

from petgan.choice import ALIKE
from petgan.config import Point, Resources
from petgan.errors import ConfigError, InputError
from petgan.runs import EVALUATION_SCHEMA, ExperimentFolder, RunFolder, Status, read_json

SCORE_LABELS = {"kid": "KID", "fid": "FID", "swd": "SWD", "fid-thesis": "FID (thesis)"}
FIELDS = tuple(name for name in Point.model_fields if name not in ("init_from", "init_digest"))
RUN_COLUMNS = (
    "experiment", "run_id", "state", "reason", "start", "sweeps", "step", "busy_seconds", "gates", *FIELDS,
)  # fmt: skip
SCORE_COLUMNS = (
    "score", "value", "standard_error", "better", "headline", "protocol", "ruler", "n_real", "n_fake",
    "floor", "floor_standard_deviation", "floor_low", "floor_high", "floor_repeats", "blind_to",
)  # fmt: skip
_SHARED = tuple(name for name in FIELDS if name != "seed")


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
        ``busy_seconds``, ``gates`` that the run did not pass (separated by blanks), the fields of
        `petgan.config.Point` but for the path that a transfer began with, and of the score: ``score``,
        ``value``, ``standard_error``, ``better`` (lower or higher), ``headline`` (whether it is the run's
        headline), ``protocol``, ``ruler``, ``n_real``, ``n_fake``, the real-against-real ``floor`` with
        its standard deviation, its 2.5 % and 97.5 % quantiles (``floor_low``, ``floor_high``) and number
        of repeats, and ``blind_to``, the corruptions that the ruler does not see (separated by blanks;
        missing if it was not checked).

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
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, *SCORE_COLUMNS])


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
        The content of ``evaluation.json``, if it is of the schema that is read.
    is_outdated : bool
        Whether there is an evaluation of another schema.
    """

    folder: RunFolder
    run_id: str
    point: Mapping[str, Any]
    start: str
    sweeps: tuple[str, ...]
    status: Status
    evaluation: Mapping[str, Any] | None
    is_outdated: bool = False

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
        if self.is_outdated:
            return "scored by another version: evaluate again"
        return "not scored" if self.status.state == "done" else self.status.state

    @cached_property
    def configuration(self) -> tuple[str, ...]:
        """What its seeds have in common; hashable."""
        return (self.start, *(repr(self.point.get(name)) for name in _SHARED))

    @cached_property
    def scores(self) -> dict[str, Mapping[str, Any]]:
        """The scores that have a value, by name."""
        scores = self.evaluation["scores"] if self.evaluation else []
        return {score["name"]: score for score in scores if score["value"] is not None}

    def value(self, score: str) -> float | None:
        return self.scores[score]["value"] if score in self.scores else None

    @property
    def gates(self) -> list[Mapping[str, Any]]:
        """Those that the run did not pass: each keeps it from being the best."""
        return self.evaluation["gates"] if self.evaluation else []

    @property
    def shows_patients(self) -> bool:
        """Whether its images may be those of patients: a gate has found copies among them."""
        return bool({"copied", "memorised"} & {gate["name"] for gate in self.gates})

    @property
    def nearest(self) -> list[Mapping[str, Any]]:
        """The generated images that come closest to a training image."""
        return self.evaluation["nearest"] if self.evaluation else []

    @cached_property
    def device_seconds(self) -> tuple[str, float]:
        """GPU or, without any, process: and the time that all of them together spent on the run."""
        if not self.status.busy_seconds:
            return "process", 0.0
        asked = Resources(**read_json(self.folder.config_file).get("resources", {}))
        gpus = asked.nodes * asked.gpus
        return ("GPU" if gpus else "process", self.status.busy_seconds * (gpus or asked.ranks))


@dataclass(frozen=True)
class Score:
    """How a score was taken: the same for all runs of an experiment.

    Parameters
    ----------
    name : str
        Such as ``"kid"``, or ``"kid@NETWORK"`` of a further network.
    protocol : str
        ``"petgan"``, or ``"thesis"`` for the published procedure.
    ruler : str
        Metric, network, size and resize; values of different rulers do not compare.
    better : str
        ``"lower"`` or ``"higher"``.
    n_real, n_fake : int
        Numbers of images.
    floors : list of mapping
        The real-against-real scores that were found, each with ``value``, ``standard_deviation``,
        ``low``, ``high`` and ``repeats``.
    blind_to : list of str or None
        Corruptions that the ruler was shown not to see; None if it was not checked.
    decimals : int
        To print values with: four significant digits of their median.
    """

    name: str
    protocol: str
    ruler: str
    better: str
    n_real: int
    n_fake: int
    floors: list[Mapping[str, Any]]
    blind_to: list[str] | None
    decimals: int

    @property
    def label(self) -> str:
        return score_label(self.name)

    @property
    def sign(self) -> int:
        """1 if lower is better, -1 if higher is: what the best has least of is the value times this."""
        return 1 if self.better == "lower" else -1

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
            for name, score in run.scores.items():
                taken.setdefault(name, []).append((run, score))
        return {name: self._score(name, scores) for name, scores in taken.items()}

    def _score(self, name: str, taken: list[tuple[Run, Mapping[str, Any]]]) -> Score:
        rulers: dict[tuple[Any, ...], Run] = {}
        floors: list[Mapping[str, Any]] = []
        blind: set[str] | None = None
        for run, score in taken:
            rulers.setdefault(tuple(score[key] for key in ALIKE), run)
            if score["floor"] and score["floor"] not in floors:
                floors.append(score["floor"])
            if score["blind_to"] is not None:
                blind = (blind or set()) | set(score["blind_to"])
        if len(rulers) > 1:
            raise _mixed_rulers(self, name, rulers)
        return Score(
            name,
            **dict(zip(ALIKE, next(iter(rulers)), strict=True)),
            floors=floors,
            blind_to=None if blind is None else sorted(blind),
            decimals=_decimals(statistics.median(abs(score["value"]) for _, score in taken)),
        )

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
        headlines = sorted({run.evaluation["headline"] for run in self.runs if run.evaluation})
        if wanted is None and len(headlines) > 1:
            raise ConfigError(
                f"the evaluations of {self.name} go by different scores",
                allowed=headlines,
                hint="choose one: --score",
            )
        name = wanted or headlines[0]
        if name not in self.scores:
            raise InputError(
                "no run has this score",
                value=name,
                allowed=sorted(self.scores),
                hint=f"petgan evaluate {self.folder.path}",
            )
        return self.scores[name]

    @cached_property
    def configurations(self) -> list[tuple[Run, ...]]:
        """The runs that differ in nothing but their seed, in the grid's order."""
        groups: dict[tuple[str, ...], list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.configuration, []).append(run)
        return [tuple(runs) for runs in groups.values()]

    @cached_property
    def varied(self) -> dict[str, list[str]]:
        """For each preset, the fields in which its runs differ but for the seed; ``start`` is the first."""
        values: dict[str, dict[str, set[str]]] = {}
        for run in self.runs:
            of_preset = values.setdefault(run.preset, {"start": set()})
            for name, value in zip(("start", *_SHARED), run.configuration, strict=True):
                of_preset.setdefault(name, set()).add(value)
        return {preset: [n for n, v in by_name.items() if len(v) > 1] for preset, by_name in values.items()}


def _read_run(folder: ExperimentFolder, point: Mapping[str, Any]) -> Run:
    run = folder.run(point["run_id"])
    evaluation = run.evaluation()
    is_read = evaluation is not None and evaluation.get("schema_version") == EVALUATION_SCHEMA
    return Run(
        folder=run,
        run_id=point["run_id"],
        point=point["point"],
        start=point["start"],
        sweeps=tuple(point["sweeps"]),
        status=_status(run),
        evaluation=evaluation if is_read else None,
        is_outdated=evaluation is not None and not is_read,
    )


def score_label(name: str) -> str:
    """What the page calls a score, such as "KID" or, under a further network, "KID, rad"."""
    metric, _, network = name.partition("@")
    return ", ".join(filter(None, (SCORE_LABELS.get(metric, metric), network)))


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
        "gates": " ".join(gate["name"] for gate in run.gates),
        **{name: plain(run.point.get(name)) for name in FIELDS},
    }
    rows = []
    for score in run.scores.values():
        floor = score["floor"] or {}
        rows.append(
            common
            | {name: score[name] for name in SCORE_COLUMNS if name in score}
            | {
                "score": score["name"],
                "headline": score["name"] == (run.evaluation or {}).get("headline"),
                "floor": floor.get("value"),
                "floor_standard_deviation": floor.get("standard_deviation"),
                "floor_low": floor.get("low"),
                "floor_high": floor.get("high"),
                "floor_repeats": floor.get("repeats"),
                "blind_to": plain(score["blind_to"]),
            }
        )
    return rows or [common]


def _decimals(value: float) -> int:
    return max(0, 3 - math.floor(math.log10(value))) if value else 3


def plain(value: Any) -> Any:
    """A value as a table's cell holds it: a list as words."""
    return " ".join(value) if isinstance(value, list | tuple) else value


def _mixed_rulers(experiment: Experiment, score: str, rulers: Mapping[tuple[Any, ...], Run]) -> ConfigError:
    differ = [
        words
        for words, *values in zip(
            ("protocol", "ruler", "direction", "number of real images", "number of generated images"),
            *rulers,
            strict=True,
        )
        if len(set(values)) > 1
    ]
    told = " and ".join(
        f"{ruler}, protocol {protocol}, with {n_real} real and {n_fake} generated images (run {run.run_id})"
        for (protocol, ruler, _, n_real, n_fake), run in rulers.items()
    )
    return ConfigError(
        f"the runs of {experiment.name} were scored differently, and such scores share no table: "
        f"{score} differs in {' and '.join(differ)}: {told}",
        hint=f"score all alike, with the same --images, --weights and --network: "
        f"petgan evaluate {experiment.folder.path}",
    )
