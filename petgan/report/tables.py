"""The tables that a grid asks for: means over seeds, and words where there is no number.

A table has one part for each value of its ``by`` axis, and holds values of one score and ruler only.
The FIDs that another study printed make tables of their own beside ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from petgan.report.cells import Cell, cell_of, judged
from petgan.report.labels import axis_label, unique_slugs, value_label
from petgan.report.results import Experiment, Run, Score

PUBLISHED_RULER = (
    "FID as the study printed it, by a ruler of its own: 150 (PET) or 1000 (mammograms) generated images, "
    "one run a cell, nearest-neighbour resize; not comparable in value with ours"
)
SAME_PROCEDURE = (
    "FID as the study printed it, by the procedure of our FID (thesis): one run a cell, against the study's "
    "own images, training images among them"
)
COMPANIONS = ("fid", "swd", "fid-thesis")  # have tables of the grid, as the headline has
_MATCHED = ("optimizer", "dropout", "batch_size", "learning_rate", "gp_weight")
_NO_AXIS = "all"


@dataclass(frozen=True)
class Part:
    """The part of a table for one value of its ``by`` axis.

    Parameters
    ----------
    name : str
        That value; empty if the table has no such axis.
    rows, columns : list of str
        The values of the axes: numbers by size, names in the grid's order.
    cells : mapping
        From (row, column).
    """

    name: str
    rows: list[str]
    columns: list[str]
    cells: Mapping[tuple[str, str], Cell]

    @property
    def best(self) -> Cell | None:
        """The cell with the best mean of those with several seeds."""
        return next((cell for cell in self.cells.values() if cell.is_best), None)

    @property
    def has_published(self) -> bool:
        return any(cell.published is not None for cell in self.cells.values())


@dataclass(frozen=True)
class Table:
    """A table of the grid, of one score; without a score it says how far the runs are.

    Parameters
    ----------
    title, slug : str
        The slug is the name of its files.
    row_axis : str
    column_axis, by_axis : str or None
    score : Score or None
    parts : list of Part
    """

    title: str
    slug: str
    row_axis: str
    column_axis: str | None
    by_axis: str | None
    score: Score | None
    parts: list[Part]

    @property
    def corner(self) -> str:
        """What stands over the rows and before the columns."""
        axes = [self.row_axis] + ([self.column_axis] if self.column_axis else [])
        return " / ".join(map(axis_label, axes))

    @property
    def score_label(self) -> str:
        return self.score.label if self.score else "state"

    def part_title(self, part: Part) -> str:
        by = f"{axis_label(self.by_axis)} {part.name}" if self.by_axis else ""
        return ", ".join(filter(None, (self.title, by, self.score_label)))

    def column_label(self, column: str) -> str:
        return column if self.column_axis else self.score_label

    @property
    def published_ruler(self) -> str:
        return SAME_PROCEDURE if self.score and self.score.protocol == "thesis" else PUBLISHED_RULER


def all_tables(experiment: Experiment, headline: Score | None) -> list[list[Table]]:
    """For each table of the grid: of the headline score, then of its `COMPANIONS`."""
    companions = [score for name, score in experiment.scores.items() if name in COMPANIONS]
    scores = [headline, *(score for score in companions if score != headline)] if headline else [None]
    by_score = [make_tables(experiment, score, headline) for score in scores]
    return [list(same) for same in zip(*by_score, strict=True)]


def make_tables(experiment: Experiment, score: Score | None, headline: Score | None) -> list[Table]:
    """The tables of an experiment's grid, of one score, whose ruler `Experiment.scores` has checked.

    Files of the headline are called after the table, those of another score after both. Published FIDs go
    with the FID by the study's procedure, else with the FID, else with the headline.
    """
    frame = _one_row_a_run(experiment)
    specs = experiment.record["tables"]
    slugs = unique_slugs(spec["title"] for spec in specs)
    suffix = f"-{score.name}" if score and score != headline else ""
    beside = next(
        (name for name in ("fid-thesis", "fid") if name in experiment.scores), headline and headline.name
    )
    published = _published(experiment) if score is None or score.name == beside else _nothing_published
    return [
        _table(experiment, frame, spec, slug + suffix, score, published)
        for spec, slug in zip(specs, slugs, strict=True)
    ]


def excerpt(part: Part, score: Score | None, rows: int, columns: int) -> Part:
    """At most so many rows and columns of a part: those with the best cells, in their order."""

    def kept(labels: list[str], of: Callable[[str], list[Cell]], count: int) -> list[str]:
        if len(labels) <= count:
            return labels
        best = sorted(labels, key=lambda label: min(map(rank, of(label))))[:count]
        return [label for label in labels if label in best]

    def rank(cell: Cell) -> float:
        return score.sign * cell.mean if score and cell.mean is not None and cell.is_ranked else math.inf

    some_rows = kept(part.rows, lambda row: [part.cells[row, column] for column in part.columns], rows)
    some_columns = kept(part.columns, lambda column: [part.cells[row, column] for row in part.rows], columns)
    cells = {(row, column): part.cells[row, column] for row in some_rows for column in some_columns}
    return Part(part.name, some_rows, some_columns, cells)


def _one_row_a_run(experiment: Experiment) -> pd.DataFrame:
    """The runs by their place in the experiment, with the values of the axes as text."""
    runs = experiment.runs
    frame = pd.DataFrame({"start": [run.start for run in runs]})
    for axis in dict.fromkeys(key for run in runs for key in run.point):
        frame[axis] = [value_label(run.point.get(axis)) for run in runs]
    return frame


def _table(
    experiment: Experiment,
    frame: pd.DataFrame,
    spec: Mapping[str, Any],
    slug: str,
    score: Score | None,
    published: Callable[[Run], float | None],
) -> Table:
    row_axis, column_axis, by_axis = spec["rows"], spec.get("columns"), spec.get("by")
    in_sweep = [spec["sweep"] in run.sweeps for run in experiment.runs]
    frame = frame[in_sweep].assign(**{_NO_AXIS: _NO_AXIS})
    axes = [row_axis, column_axis or _NO_AXIS]
    parts = []
    for name, members in frame.groupby(by_axis or _NO_AXIS, sort=False):
        found = {}
        for (row, column), group in members.groupby(axes, sort=False):
            runs = [experiment.runs[index] for index in group.index]
            found[str(row), str(column)] = cell_of(runs, score, published(runs[0]))
        if score:
            found = dict(zip(found, judged(found.values(), score), strict=True))
        rows, columns = (_in_order(members[axis]) for axis in axes)
        missing = Cell("not in the grid")
        cells = {(row, column): found.get((row, column), missing) for row in rows for column in columns}
        parts.append(Part(str(name) if by_axis else "", rows, columns, cells))
    return Table(spec["title"], slug, row_axis, column_axis, by_axis, score, parts)


def _in_order(labels: Iterable[str]) -> list[str]:
    """Numbers by size, names as in the grid."""
    values = list(dict.fromkeys(labels))
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


# --- the published study ------------------------------------------------------------------------


def _nothing_published(run: Run) -> float | None:
    return None


def _published(experiment: Experiment) -> Callable[[Run], float | None]:
    """The FID that the study printed for a run's configuration; what its row leaves blank is not compared."""
    rows = (experiment.record.get("published") or {}).get("rows", [])

    def find(run: Run) -> float | None:
        for row in rows:
            same_start = ("->" in row["dataset"]) == (run.start == "transfer")
            same = all(row[key] is None or row[key] == run.point.get(key) for key in _MATCHED)
            if same_start and row["model"] == run.preset and same:
                return float(row["fid"])
        return None

    return find


def published_title(table: Table, part: Part) -> str:
    return ", ".join(filter(None, (table.title, part.name, "the study's FID")))


def published_text(cell: Cell) -> str:
    return "not published" if cell.published is None else f"{cell.published:.1f}"
