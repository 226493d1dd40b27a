"""Runs from scratch and transferred runs that differ in nothing else: the same configuration and seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from petgan.report.results import Experiment, Run, Score


@dataclass(frozen=True)
class Pair:
    """Two runs of one seed."""

    scratch: Run
    transfer: Run
    scratch_value: float | None
    transfer_value: float | None

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
    mean, deviation : float or None
        Of the paired differences; the sample standard deviation needs two.
    count, lower : int
        Pairs with both scores, and those in which the transferred run has the lower one.
    """

    pairs: list[Pair]
    mean: float | None
    deviation: float | None
    count: int
    lower: int


def transfer_pairs(experiment: Experiment, score: Score) -> list[Pairs]:
    """The pairs of each configuration that was trained both ways, in the grid's order."""
    by_configuration: dict[tuple[str, ...], list[Pair]] = {}
    for pair in _pairs(experiment, score):
        by_configuration.setdefault(pair.scratch.configuration[1:], []).append(pair)
    return [_together(pairs) for pairs in by_configuration.values()]


def pairs_csv(experiment: Experiment, score: Score) -> str:
    """One line a pair, with ten digits."""
    rows = [
        {
            "preset": pair.scratch.preset,
            "seed": pair.scratch.seed,
            "score": score.name,
            "scratch_run": pair.scratch.run_id,
            "scratch": pair.scratch_value,
            "transfer_run": pair.transfer.run_id,
            "transfer": pair.transfer_value,
            "difference": pair.difference,
        }
        for pair in _pairs(experiment, score)
    ]
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.10g")


def _pairs(experiment: Experiment, score: Score) -> Iterator[Pair]:
    partners = {(run.configuration[1:], run.seed): run for run in experiment.runs if run.start == "transfer"}
    for run in experiment.runs:
        partner = partners.get((run.configuration[1:], run.seed))
        if run.start == "scratch" and partner:
            yield Pair(run, partner, run.value(score.name), partner.value(score.name))


def _together(pairs: list[Pair]) -> Pairs:
    differences = pd.Series([pair.difference for pair in pairs], dtype=float).dropna()
    return Pairs(
        pairs=pairs,
        mean=float(differences.mean()) if len(differences) else None,
        deviation=float(differences.std(ddof=1)) if len(differences) > 1 else None,
        count=len(differences),
        lower=int((differences < 0).sum()),
    )
