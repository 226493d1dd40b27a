"""Runs from scratch and transferred runs that differ in nothing else: configuration, budget and seed alike.

A configuration's runs are compared in pairs, a pair a seed. How much sooner a transferred run is there is
read from the validation scores taken during training: the step at which either run of a pair first had the
best score of the one from scratch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from petgan.report.cells import NO_DIFFERENCE, measured
from petgan.report.results import Experiment, Run, Score
from petgan.verdicts import LEVEL, Difference, difference, holm

_VALIDATION = "swd"  # the metrics' key of the score during training; lower is better


@dataclass(frozen=True)
class Pair:
    """Two runs of one seed.

    Parameters
    ----------
    scratch, transfer : Run
    scratch_value, transfer_value : float or None
        Their scores.
    target : float or None
        The best validation score of the run from scratch; None until both runs are done and have some.
    scratch_step, transfer_step : int or None
        The first step with a validation score as good as the target; None if the run never had one.
    """

    scratch: Run
    transfer: Run
    scratch_value: float | None
    transfer_value: float | None
    target: float | None
    scratch_step: int | None
    transfer_step: int | None

    @property
    def difference(self) -> float | None:
        """Transferred minus from scratch."""
        if self.scratch_value is None or self.transfer_value is None:
            return None
        return self.transfer_value - self.scratch_value


@dataclass(frozen=True)
class Pairs:
    """The pairs of one configuration.

    Parameters
    ----------
    pairs : list of Pair
        One a seed.
    count, better : int
        Pairs with both scores, and those in which the transferred run has the better one.
    mean : float or None
        Of the paired differences, transferred minus from scratch.
    difference : Difference or None
        The same with its 95 % interval; None for a single pair, or where it cannot be told.
    gates : list of str
        Names of the gates that runs with a score did not pass; such pairs are not judged.
    p : float or None
        Of the difference, after Holm's correction over the experiment's configurations.
    verdict : str or None
        On the transferred runs: ``better``, ``worse``, ``no difference shown``; None where there is no p.
    scratch_steps, transfer_steps : float or None
        Medians over the pairs with a target of the steps to reach it. With `scratch_steps`, None for
        `transfer_steps` says that it was not reached in `steps` steps.
    """

    pairs: list[Pair]
    count: int
    better: int
    mean: float | None
    difference: Difference | None
    gates: list[str]
    scratch_steps: float | None
    transfer_steps: float | None
    p: float | None = None
    verdict: str | None = None

    @property
    def steps(self) -> int:
        """The budget of each run."""
        return int(self.pairs[0].scratch.point["steps"])


def transfer_pairs(experiment: Experiment, score: Score) -> list[Pairs]:
    """The pairs of each configuration that was trained both ways, in the grid's order."""
    by_configuration: dict[tuple[str, ...], list[Pair]] = {}
    for pair in _pairs(experiment, score):
        by_configuration.setdefault(pair.scratch.configuration[1:], []).append(pair)
    return _judged([_together(pairs, score) for pairs in by_configuration.values()], score)


def pairs_csv(pairs: Iterable[Pairs], score: Score) -> str:
    """One line a pair, with ten digits; the last columns are of all pairs of its configuration."""
    rows = [_row(pair, of_all, score) for of_all in pairs for pair in of_all.pairs]
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.10g")


def _pairs(experiment: Experiment, score: Score) -> Iterator[Pair]:
    partners = {(run.configuration[1:], run.seed): run for run in experiment.runs if run.start == "transfer"}
    for run in experiment.runs:
        partner = partners.get((run.configuration[1:], run.seed))
        if run.start == "scratch" and partner:
            yield Pair(run, partner, run.value(score.name), partner.value(score.name), *_race(run, partner))


def _race(scratch: Run, transfer: Run) -> tuple[float | None, int | None, int | None]:
    """The best validation score from scratch, and the steps at which both runs first had it."""
    if scratch.status.state != "done" or transfer.status.state != "done":
        return None, None, None
    before, after = _validation_scores(scratch), _validation_scores(transfer)
    if not before or not after:
        return None, None, None
    target = min(before.values())
    return target, _first_step(before, target), _first_step(after, target)


def _validation_scores(run: Run) -> dict[int, float]:
    """The scores during training, by step."""
    return {line["step"]: line[_VALIDATION] for line in run.folder.metrics() if _VALIDATION in line}


def _first_step(scores: dict[int, float], target: float) -> int | None:
    return next((step for step, value in scores.items() if value <= target), None)


def _together(pairs: list[Pair], score: Score) -> Pairs:
    whole = [pair for pair in pairs if pair.difference is not None]
    differences = [pair.difference for pair in whole if pair.difference is not None]
    runs = [run for pair in whole for run in (pair.scratch, pair.transfer)]
    raced = [pair for pair in pairs if pair.target is not None]
    return Pairs(
        pairs=pairs,
        count=len(whole),
        better=sum(score.sign * one < 0 for one in differences),
        mean=statistics.fmean(differences) if differences else None,
        difference=difference(
            measured((pair.transfer for pair in whole), score),
            measured((pair.scratch for pair in whole), score),
        ),
        gates=sorted({gate["name"] for run in runs for gate in run.gates}),
        scratch_steps=_median([pair.scratch_step for pair in raced]),
        transfer_steps=_median([pair.transfer_step for pair in raced]),
    )


def _median(steps: Sequence[int | None]) -> float | None:
    """Of the steps, where None is later than any; None if that is the median too."""
    median = statistics.median([math.inf if step is None else step for step in steps] or [math.inf])
    return median if math.isfinite(median) else None


def _judged(pairs: list[Pairs], score: Score) -> list[Pairs]:
    """The same with p-values and verdicts, where they can be had."""
    judged = {
        index: one.difference
        for index, one in enumerate(pairs)
        if one.difference is not None and not one.gates
    }
    adjusted = holm([found.p for found in judged.values()])
    for (index, found), p in zip(judged.items(), adjusted, strict=True):
        shown = "better" if score.sign * found.mean < 0 else "worse"
        pairs[index] = replace(pairs[index], p=p, verdict=shown if p <= LEVEL else NO_DIFFERENCE)
    return pairs


def _row(pair: Pair, of_all: Pairs, score: Score) -> dict[str, Any]:
    found = of_all.difference
    return {
        "preset": pair.scratch.preset,
        "seed": pair.scratch.seed,
        "score": score.name,
        "better": score.better,
        "scratch_run": pair.scratch.run_id,
        "scratch": pair.scratch_value,
        "transfer_run": pair.transfer.run_id,
        "transfer": pair.transfer_value,
        "difference": pair.difference,
        "validation_target": pair.target,
        "scratch_step": pair.scratch_step,
        "transfer_step": pair.transfer_step,
        "pairs": of_all.count,
        "mean_difference": of_all.mean,
        "low": found.low if found else None,
        "high": found.high if found else None,
        "p": of_all.p,
        "verdict": of_all.verdict,
        "gates": " ".join(of_all.gates),
    }
