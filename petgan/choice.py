"""Which configuration is the best: by a named score, averaged over the seeds, among scores that compare.

What cannot be the best: a configuration with a run that a gate blocks, and one of a single seed beside one
of several. How sure the best is, `petgan.verdicts` says.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from petgan.errors import ConfigError, InputError
from petgan.runs import EVALUATION_SCHEMA, ExperimentFolder, read_json

ONE_SEED = "from a single seed, so not shown to be better than any other"
_NAMED = 3  # runs that a message names
ALIKE = ("protocol", "ruler", "better", "n_real", "n_fake")  # in scores that compare


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
        Such as ``kid``.
    value : float
    ruler, protocol : str
        What it was taken with, and by which procedure.
    n_real, n_fake : int
        Images. Only scores of one ruler, protocol and number of images compare.
    headline : bool
        Whether the evaluation names it as the score to go by.
    better : str
        ``lower`` or ``higher``.
    without : tuple of float
        The score without each group of test patients; may be empty.
    gates : tuple of str
        Those that block the run, such as ``copied``.
    """

    run_id: str
    preset: str
    configuration: Mapping[str, Any]
    seed: int
    start: str
    name: str
    value: float
    ruler: str
    protocol: str
    n_real: int
    n_fake: int
    headline: bool
    better: str = "lower"
    without: tuple[float, ...] = ()
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """The scores of one configuration, by seed."""

    scores: tuple[Score, ...]

    @property
    def preset(self) -> str:
        return self.scores[0].preset

    @property
    def values(self) -> Mapping[str, Any]:
        """See `Score.configuration`."""
        return self.scores[0].configuration

    @property
    def start(self) -> str:
        return self.scores[0].start

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(score.run_id for score in self.scores)

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(score.value for score in self.scores)

    @property
    def place(self) -> tuple[float, tuple[str, ...]]:
        """Sorts the best mean first, and equal ones always alike."""
        return _sign(self.scores[0]) * self.mean, self.run_ids

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates that block any of its runs.

        One is enough to keep it from being the best: a mean over the seeds that happened to pass is no mean
        over seeds, and who trains the configuration again may get what was blocked.
        """
        return tuple(sorted({gate for score in self.scores for gate in score.gates}))


@dataclass(frozen=True)
class Choice:
    """The configuration with the best mean over its seeds.

    Parameters
    ----------
    preset : str
    configuration : mapping
        See `Score`.
    score, better, ruler : str
        What it was chosen by.
    mean : float
    standard_deviation : float or None
        Over the seeds (n - 1); None for a single one.
    n : int
        Seeds.
    run_ids : tuple of str
        By seed.
    best_run : str
        The run with the best value.
    best_value : float
    reservation : str or None
        Why it is taken without having been shown to be better: every configuration has a single seed.
    """

    preset: str
    configuration: Mapping[str, Any]
    score: str
    better: str
    ruler: str
    mean: float
    standard_deviation: float | None
    n: int
    run_ids: tuple[str, ...]
    best_run: str
    best_value: float
    reservation: str | None


def best_by_preset(records: Iterable[Score], score: str) -> dict[str, Choice]:
    """The best configuration of each preset, in the order in which the presets appear.

    A preset has none, and is left out, where gates block all its configurations.

    Raises
    ------
    InputError
        If no run has this score, or gates block all configurations of all presets.
    ConfigError
        If its values do not compare: another ruler, protocol or number of images.
    """
    by_preset: dict[str, list[Configuration]] = defaultdict(list)
    for configuration in _free(configurations(records, score)):
        by_preset[configuration.preset].append(configuration)
    return {preset: _best(those) for preset, those in by_preset.items()}


def best_overall(records: Iterable[Score], score: str) -> Choice:
    """The best configuration of all; see `best_by_preset`."""
    return _best(_free(configurations(records, score)))


def configurations(records: Iterable[Score], score: str) -> list[Configuration]:
    """All configurations that have this score, gated ones too, in the order in which they appear.

    Raises
    ------
    InputError
        If no run has it.
    ConfigError
        If its values do not compare.
    """
    by_configuration: dict[str, list[Score]] = defaultdict(list)
    for record in _comparable(records, score):
        by_configuration[json.dumps(record.configuration, sort_keys=True)].append(record)
    return [
        Configuration(tuple(sorted(scores, key=lambda score: score.seed)))
        for scores in by_configuration.values()
    ]


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
    """All scores of an experiment's evaluated runs.

    Raises
    ------
    InputError
        If a run was evaluated by another version of petgan, whose scores lack what a choice needs.
    """
    files = [
        (entry, read_json(file))
        for entry in experiment.record()["points"]
        if (file := experiment.run(entry["run_id"]).evaluation_file).is_file()
    ]
    versions = {entry["run_id"]: evaluation.get("schema_version") for entry, evaluation in files}
    others = {run_id: version for run_id, version in versions.items() if version != EVALUATION_SCHEMA}
    if others:
        raise InputError(
            f"scores of {_runs(others)} in {experiment.path} are of another version",
            value=next(iter(others.values())),
            allowed=str(EVALUATION_SCHEMA),
            hint=f"score the runs again: petgan evaluate {experiment.path}",
        )
    return [score for entry, evaluation in files for score in _scores_of(entry, evaluation)]


def _scores_of(entry: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[Score]:
    point = entry["point"]
    configuration = {key: value for key, value in point.items() if key not in ("seed", "init_from")}
    gates = tuple(gate["name"] for gate in evaluation["gates"])
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
            protocol=score["protocol"],
            n_real=score["n_real"],
            n_fake=score["n_fake"],
            headline=score["name"] == evaluation["headline"],
            better=score["better"],
            without=tuple(score["without"]),
            gates=gates,
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
    differences = []
    for key in ALIKE:
        by_value: dict[str, list[str]] = defaultdict(list)
        for record in chosen:
            by_value[str(getattr(record, key))].append(record.run_id)
        if len(by_value) > 1:
            shares = " and ".join(f"{value} in {_runs(runs)}" for value, runs in sorted(by_value.items()))
            differences.append(f"{key} is {shares}")
    if differences:
        raise ConfigError(
            f"these values of {name} do not compare: {', '.join(differences)}",
            hint="evaluate all runs alike: 'petgan evaluate'",
        )
    return chosen


def _runs(run_ids: Iterable[str]) -> str:
    """Such as "2 runs (a, b)"; not more than a few are named."""
    run_ids = list(run_ids)
    named = ", ".join(run_ids[:_NAMED]) + (", ..." if len(run_ids) > _NAMED else "")
    return f"{len(run_ids)} run{'s' if len(run_ids) > 1 else ''} ({named})"


def _free(candidates: list[Configuration]) -> list[Configuration]:
    """Those that no gate blocks; at least one."""
    free = [candidate for candidate in candidates if not candidate.gates]
    if free:
        return free
    by_gate: dict[str, list[str]] = defaultdict(list)
    for score in (score for candidate in candidates for score in candidate.scores):
        for gate in score.gates:
            by_gate[gate].append(score.run_id)
    raise InputError(
        f"gates block every configuration: {', '.join(f'{g} {_runs(r)}' for g, r in by_gate.items())}",
        hint="see their images with 'petgan report', and train otherwise or for longer",
    )


def _best(candidates: list[Configuration]) -> Choice:
    """The best mean of those with two seeds or more; of all, where every one has a single seed."""
    several = [candidate for candidate in candidates if len(candidate.scores) > 1]
    best = min(several or candidates, key=lambda candidate: candidate.place)
    return _choice(best, None if several else ONE_SEED)


def _choice(configuration: Configuration, reservation: str | None) -> Choice:
    scores = configuration.scores
    best = min(scores, key=lambda score: _sign(score) * score.value)
    return Choice(
        preset=best.preset,
        configuration=best.configuration,
        score=best.name,
        better=best.better,
        ruler=best.ruler,
        mean=configuration.mean,
        standard_deviation=statistics.stdev(score.value for score in scores) if len(scores) > 1 else None,
        n=len(scores),
        run_ids=configuration.run_ids,
        best_run=best.run_id,
        best_value=best.value,
        reservation=reservation,
    )


def _sign(score: Score) -> int:
    return 1 if score.better == "lower" else -1
