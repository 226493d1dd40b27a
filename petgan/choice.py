"""Which configuration is the best: by a named score, averaged over the seeds, and never across rulers."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from petgan.errors import ConfigError, InputError
from petgan.runs import ExperimentFolder, read_json


@dataclass(frozen=True)
class Score:
    """One score of one run.

    Parameters
    ----------
    run_id, preset : str
    configuration : mapping
        The point without its seed, and without the place of the file it started from.
    seed : int
    start : str
        ``scratch`` or ``transfer``.
    name : str
        Such as ``kid``; the lower, the better.
    value : float
    ruler : str
        What it was taken with: only scores of one ruler compare.
    headline : bool
        Whether the evaluation names it as the score to go by.
    """

    run_id: str
    preset: str
    configuration: Mapping[str, Any]
    seed: int
    start: str
    name: str
    value: float
    ruler: str
    headline: bool


@dataclass(frozen=True)
class Choice:
    """The configuration with the lowest mean over its seeds.

    Parameters
    ----------
    preset : str
    configuration : mapping
        See `Score`.
    score, ruler : str
        What it was chosen by.
    mean : float
    standard_deviation : float or None
        Over the seeds (n - 1); None for a single one.
    n : int
        Seeds.
    run_ids : tuple of str
        By seed.
    best_run : str
        The run with the lowest value.
    best_value : float
    """

    preset: str
    configuration: Mapping[str, Any]
    score: str
    ruler: str
    mean: float
    standard_deviation: float | None
    n: int
    run_ids: tuple[str, ...]
    best_run: str
    best_value: float


def best_by_preset(records: Iterable[Score], score: str) -> dict[str, Choice]:
    """The best configuration of each preset, in the order in which the presets appear.

    Raises
    ------
    InputError
        If no run has this score.
    ConfigError
        If its values were taken with different rulers.
    """
    by_preset: dict[str, list[Score]] = defaultdict(list)
    for record in _comparable(records, score):
        by_preset[record.preset].append(record)
    return {preset: _best(scores) for preset, scores in by_preset.items()}


def best_overall(records: Iterable[Score], score: str) -> Choice:
    """The best configuration of all; see `best_by_preset`."""
    return _best(_comparable(records, score))


def headline(records: Iterable[Score]) -> str:
    """The score that the evaluations name as the one to go by.

    Raises
    ------
    InputError
        If there is none.
    ConfigError
        If they name several.
    """
    names = sorted({record.name for record in records if record.headline})
    if not names:
        raise InputError("no run has been scored yet", hint="run 'petgan evaluate' first")
    if len(names) > 1:
        raise ConfigError("the evaluations go by different scores", allowed=names, hint="choose one: --score")
    return names[0]


def read_scores(experiment: ExperimentFolder) -> list[Score]:
    """All scores of an experiment's evaluated runs."""
    scores = []
    for entry in experiment.record()["points"]:
        file = experiment.run(entry["run_id"]).evaluation_file
        if file.is_file():
            scores += _scores_of(entry, read_json(file))
    return scores


def _scores_of(entry: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[Score]:
    point = entry["point"]
    configuration = {key: value for key, value in point.items() if key not in ("seed", "init_from")}
    return [
        Score(
            run_id=entry["run_id"],
            preset=point["preset"],
            configuration=configuration,
            seed=point["seed"],
            start=entry["start"],
            name=score["name"],
            value=score["value"],
            ruler=score["ruler"],
            headline=score["name"] == evaluation["headline"],
        )
        for score in evaluation["scores"]
        if score["value"] is not None
    ]


def _comparable(records: Iterable[Score], name: str) -> list[Score]:
    records = list(records)
    chosen = [record for record in records if record.name == name]
    if not chosen:
        names = sorted({record.name for record in records})
        raise InputError(
            "no run has this score", value=name, allowed=names or None, hint="run 'petgan evaluate' first"
        )
    rulers = sorted({record.ruler for record in chosen})
    if len(rulers) > 1:
        raise ConfigError(
            f"these values of {name} are of different rulers and do not compare: {', '.join(rulers)}",
            hint="evaluate all runs with the same network: 'petgan evaluate'",
        )
    return chosen


def _best(scores: list[Score]) -> Choice:
    by_configuration: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_configuration[json.dumps(score.configuration, sort_keys=True)].append(score)
    choices = [_choice(scores) for scores in by_configuration.values()]
    # A configuration that lost seeds on the way must not win by the luck of those that are left.
    complete = max(choice.n for choice in choices)
    return min(
        (choice for choice in choices if choice.n == complete),
        key=lambda choice: (choice.mean, choice.run_ids),
    )


def _choice(scores: list[Score]) -> Choice:
    scores = sorted(scores, key=lambda score: score.seed)
    values = [score.value for score in scores]
    best = min(scores, key=lambda score: score.value)
    return Choice(
        preset=best.preset,
        configuration=best.configuration,
        score=best.name,
        ruler=best.ruler,
        mean=statistics.fmean(values),
        standard_deviation=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        run_ids=tuple(score.run_id for score in scores),
        best_run=best.run_id,
        best_value=best.value,
    )
