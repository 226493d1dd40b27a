"""What a table shows of one configuration: mean over seeds, interval, gates, and the verdict on it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from petgan.report.results import Run, Score
from petgan.verdicts import Difference, Interval, Measured, Verdict, against_best, interval

NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Cell:
    """One configuration under one score.

    Parameters
    ----------
    words : str
        What is missing, such as "pending" or "2 of 3 seeds"; empty if all seeds are scored.
    runs : tuple of Run
        One a seed; none where the grid has no such point.
    mean : float or None
        Over the scored seeds.
    interval : Interval or None
        Of 95 % confidence; None for a single seed.
    count : int
        Scored seeds.
    gates : str
        What keeps it from being the best, such as "copied" or "copied (1 of 3 seeds)"; empty if nothing does.
    verdict : Verdict or None
        Against the best of its table; None where it is not judged.
    published : float or None
        The FID that the study printed.
    """

    words: str
    runs: tuple[Run, ...] = ()
    mean: float | None = None
    interval: Interval | None = None
    count: int = 0
    gates: str = ""
    verdict: Verdict | None = None
    published: float | None = None

    @property
    def is_best(self) -> bool:
        return self.verdict is not None and self.verdict.word == "best"

    @property
    def ties(self) -> bool:
        """Whether no difference to the best is shown."""
        return self.verdict is not None and self.verdict.word == "tie"

    @property
    def is_ranked(self) -> bool:
        """Whether it has a score that counts."""
        return self.mean is not None and not self.gates


def cell_of(runs: Sequence[Run], score: Score | None, published: float | None = None) -> Cell:
    """The cell of a configuration's runs, not yet judged; without a score it says how far they are."""
    scored = [run for run in runs if score and run.value(score.name) is not None]
    missing = [run.state_in_words for run in runs if not score or run.value(score.name) is None]
    values = measured(scored, score) if score else Measured({})
    return Cell(
        words=f"{len(scored)} of {len(runs)} seeds" if scored and missing else _counted(missing),
        runs=tuple(runs),
        mean=statistics.fmean(values.values.values()) if scored else None,
        interval=interval(values),
        count=len(scored),
        gates=_gates(runs),
        published=published,
    )


def judged(cells: Iterable[Cell], score: Score) -> list[Cell]:
    """The same cells with their verdicts: those of one table, with Holm's correction over it.

    A cell with a gate, or without a score, is not judged.
    """
    cells = list(cells)
    ranked = [index for index, cell in enumerate(cells) if cell.is_ranked]
    comparison = against_best([measured(cells[index].runs, score) for index in ranked], score.better)
    for index, verdict in zip(ranked, comparison.verdicts, strict=True):
        cells[index] = replace(cells[index], verdict=verdict)
    return cells


def in_order(cells: Iterable[Cell], score: Score) -> list[Cell]:
    """Those that are ranked, the best mean first."""
    return sorted(
        (cell for cell in cells if cell.is_ranked), key=lambda cell: score.sign * (cell.mean or 0.0)
    )


def measured(runs: Iterable[Run], score: Score) -> Measured:
    """The scores of a configuration's runs, as verdicts take them."""
    scored = [run for run in runs if score.name in run.scores]
    return Measured(
        {run.seed: run.scores[score.name]["value"] for run in scored},
        {run.seed: run.scores[score.name]["without"] for run in scored},
    )


def best_run(cell: Cell, score: Score) -> Run:
    """The run of a cell with the best score."""
    scored = [run for run in cell.runs if score.name in run.scores]
    return min(scored, key=lambda run: score.sign * run.scores[score.name]["value"])


def cell_number(cell: Cell, score: Score) -> str:
    """Such as "12.31 [11.90, 12.72] (3)", or "12.31 (1 seed)"."""
    if cell.mean is None:
        return ""
    if cell.interval is None:
        return f"{score.number(cell.mean)} (1 seed)"
    return f"{score.number(cell.mean)} {interval_text(cell.interval, score)} ({cell.count})"


def interval_text(between: Interval | Difference, score: Score) -> str:
    """Such as "[11.90, 12.72]"."""
    return f"[{score.number(between.low)}, {score.number(between.high)}]"


def verdict_text(verdict: Verdict) -> str:
    """Such as "worse, p 0.012"."""
    if verdict.word == "tie":
        return NO_DIFFERENCE
    return f"worse, p {p_text(verdict.p)}" if verdict.word == "worse" else verdict.word


def p_text(p: float | None) -> str:
    if p is None:
        return "not known"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _gates(runs: Sequence[Run]) -> str:
    counts = Counter(gate["name"] for run in runs for gate in run.gates)
    return ", ".join(
        name if count == len(runs) else f"{name} ({count} of {len(runs)} seeds)"
        for name, count in counts.items()
    )


def _counted(words: list[str]) -> str:
    """Such as "pending" if all are, or "1 running; 2 pending"."""
    counts = Counter(words)
    return "; ".join(counts if len(counts) < 2 else (f"{number} {word}" for word, number in counts.items()))
