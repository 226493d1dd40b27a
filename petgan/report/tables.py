"""The tables that a grid asks for: means over seeds, and words where there is no number.

A table has one part for each value of its ``by`` axis, and holds values of one score and ruler only.
The FIDs that another study printed make tables of their own beside ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from petgan.report.results import Experiment, Run, Score

PUBLISHED_RULER = (
    "FID as the study printed it, by a ruler of its own: 150 (PET) or 1000 (mammograms) generated images, "
    "one run a cell, nearest-neighbour resize; not comparable in value with ours"
)
HOW_TO_READ = "Mean over seeds ± standard deviation (number of seeds); lower is better"
SAME_AS_BEST = "≈"
_MATCHED = ("optimizer", "dropout", "batch_size", "learning_rate", "gp_weight")
_NO_AXIS = "all"


@dataclass(frozen=True)
class Cell:
    """One configuration in a table.

    Parameters
    ----------
    words : str
        What is missing, such as "pending" or "2 of 3 seeds"; empty if all seeds are scored.
    runs : tuple of Run
        One a seed; none where the grid has no such point.
    mean, deviation : float or None
        Over the scored seeds; the sample standard deviation needs two.
    count : int
        Scored seeds.
    published : float or None
        The FID that the study printed.
    """

    words: str
    runs: tuple[Run, ...] = ()
    mean: float | None = None
    deviation: float | None = None
    count: int = 0
    published: float | None = None

    def ties_with(self, other: Cell) -> bool:
        """Whether the intervals of mean ± standard deviation meet; a single seed has none."""
        if self.mean is None or other.mean is None or self.deviation is None or other.deviation is None:
            return False
        return abs(self.mean - other.mean) <= self.deviation + other.deviation


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
        """The cell with the lowest mean."""
        scored = [cell for cell in self.cells.values() if cell.mean is not None]
        return min(scored, key=lambda cell: cell.mean or 0.0, default=None)

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


def all_tables(experiment: Experiment, headline: Score | None) -> list[list[Table]]:
    """For each table of the grid: of the headline score, then of its companions."""
    scores = [headline, *experiment.companions(headline)] if headline else [None]
    by_score = [make_tables(experiment, score, headline) for score in scores]
    return [list(same) for same in zip(*by_score, strict=True)]


def make_tables(experiment: Experiment, score: Score | None, headline: Score | None) -> list[Table]:
    """The tables of an experiment's grid, of one score, whose ruler `Experiment.scores` has checked.

    Files of the headline are called after the table, those of another score after both. Published FIDs go
    with the FID, or with the headline where there is none.
    """
    frame = _one_row_a_run(experiment, score)
    specs = experiment.record["tables"]
    slugs = unique_slugs(spec["title"] for spec in specs)
    suffix = f"-{score.name}" if score and score != headline else ""
    with_published = (
        score is None or score.name == "fid" or (score == headline and "fid" not in experiment.scores)
    )
    published = _published(experiment) if with_published else _nothing_published
    return [
        _table(experiment, frame, spec, slug + suffix, score, published)
        for spec, slug in zip(specs, slugs, strict=True)
    ]


def _one_row_a_run(experiment: Experiment, score: Score | None) -> pd.DataFrame:
    """The runs by their place in the experiment, with the values of the axes as text."""
    runs = experiment.runs
    frame = pd.DataFrame({"start": [run.start for run in runs]})
    for axis in dict.fromkeys(key for run in runs for key in run.point):
        frame[axis] = [value_label(run.point.get(axis)) for run in runs]
    frame["value"] = [run.value(score.name) if score else None for run in runs]
    frame["value"] = frame["value"].astype(float)
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
        cells = {
            (str(row), str(column)): _cell(
                tuple(experiment.runs[i] for i in group.index), group["value"], published
            )
            for (row, column), group in members.groupby(axes, sort=False)
        }
        rows, columns = (_in_order(members[axis]) for axis in axes)
        missing = Cell("not in the grid")
        cells = {(row, column): cells.get((row, column), missing) for row in rows for column in columns}
        parts.append(Part(str(name) if by_axis else "", rows, columns, cells))
    return Table(spec["title"], slug, row_axis, column_axis, by_axis, score, parts)


def _in_order(labels: Iterable[str]) -> list[str]:
    """Numbers by size, names as in the grid."""
    values = list(dict.fromkeys(labels))
    try:
        return sorted(values, key=float)
    except ValueError:
        return values


def _cell(runs: tuple[Run, ...], values: pd.Series, published: Callable[[Run], float | None]) -> Cell:
    count = int(values.count())
    missing = [run.state_in_words for run, value in zip(runs, values, strict=True) if pd.isna(value)]
    words = f"{count} of {len(runs)} seeds" if count and missing else _states(missing)
    return Cell(
        words=words,
        runs=runs,
        mean=float(values.mean()) if count else None,
        deviation=float(values.std(ddof=1)) if count > 1 else None,
        count=count,
        published=published(runs[0]),
    )


def configurations(experiment: Experiment, score: Score) -> list[Cell]:
    """All configurations of an experiment, each with its mean over seeds, in the grid's order."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in experiment.runs:
        groups.setdefault(run.configuration, []).append(run)
    return [
        _cell(
            tuple(runs), pd.Series([run.value(score.name) for run in runs], dtype=float), _nothing_published
        )
        for runs in groups.values()
    ]


def _states(words: list[str]) -> str:
    """Such as "pending" if all are, or "1 running; 2 pending"."""
    counts = Counter(words)
    return "; ".join(counts if len(counts) < 2 else (f"{number} {word}" for word, number in counts.items()))


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


# --- text ---------------------------------------------------------------------------------------


def value_label(value: Any) -> str:
    """A value of an axis as a table shows it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "none"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def axis_label(axis: str | None) -> str:
    """The name of an axis as a table shows it."""
    return "penalty weight" if axis == "gp_weight" else (axis or "").replace("_", " ")


def cell_number(cell: Cell, score: Score) -> str:
    """Such as "12.3 ± 0.4 (3)"."""
    if cell.mean is None:
        return ""
    spread = f" ± {score.number(cell.deviation)}" if cell.deviation is not None else ""
    return f"{score.number(cell.mean)}{spread} ({cell.count})"


def floor_in_words(score: Score) -> str:
    """What the same score gives for real against real images."""
    if not score.floors:
        return "no floor was taken"
    if len(score.floors) > 1:
        values = [floor["value"] for floor in score.floors]
        return f"floor, real against real: {score.number(min(values))} to {score.number(max(values))}"
    floor = score.floors[0]
    return (
        f"floor, real against real: {score.number(floor['value'])} ± "
        f"{score.number(floor['standard_deviation'])} ({floor['repeats']} repeats)"
    )


def ruler_in_words(score: Score) -> str:
    return (
        f"{score.label}: {score.n_fake} generated against {score.n_real} real images; "
        f"{floor_in_words(score)}; ruler {score.ruler}"
    )


def unique_slugs(names: Iterable[str]) -> list[str]:
    """File names for `names`: lower-case ASCII letters, digits and hyphens, each given once."""
    slugs: list[str] = []
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "table"
        number = 2
        unique = slug
        while unique in slugs:
            unique, number = f"{slug}-{number}", number + 1
        slugs.append(unique)
    return slugs


# --- files --------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """One line a cell, with ten digits."""
    rows = [
        {
            **({table.by_axis: part.name} if table.by_axis else {}),
            table.row_axis: row,
            **({table.column_axis: column} if table.column_axis else {}),
            "score": table.score.name if table.score else None,
            "mean": cell.mean,
            "standard_deviation": cell.deviation,
            "scored_seeds": cell.count,
            "seeds": len(cell.runs),
            "state": cell.words or "complete",
            "published_fid": cell.published,
            "ruler": table.score.ruler if table.score else None,
        }
        for part in table.parts
        for (row, column), cell in part.cells.items()
    ]
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.10g")


def to_markdown(table: Table) -> str:
    blocks = []
    for part in table.parts:
        for grid in _grids(table, part, _markdown_cell):
            lines = [[_markdown(cell) for cell in line[:1]] + line[1:] for line in grid.lines]
            header = [_markdown(cell) for cell in grid.header]
            rule = ["---"] * len(header)
            body = "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])
            blocks.append(f"**{_markdown(grid.title)}**\n\n{body}\n\n{_markdown(grid.note)}.\n")
    return "\n".join(blocks)


def to_latex(table: Table) -> str:
    """One ``table`` environment a part; needs the package booktabs."""
    blocks = ["% \\usepackage{booktabs}\n"]
    for part in table.parts:
        for grid in _grids(table, part, _latex_cell):
            lines = [[_latex(line[0]), *line[1:]] for line in grid.lines]
            rows = [" & ".join(line) + r" \\" for line in lines]
            header = " & ".join(map(_latex, grid.header)) + r" \\"
            blocks.append(
                "\n".join(
                    [
                        r"\begin{table}",
                        r"\centering",
                        rf"\caption{{{_latex(grid.title)}. {_latex(grid.note)}.}}",
                        rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
                        r"\toprule",
                        header,
                        r"\midrule",
                        *rows,
                        r"\bottomrule",
                        r"\end{tabular}",
                        r"\end{table}",
                        "",
                    ]
                )
            )
    return "\n".join(blocks)


@dataclass(frozen=True)
class _Grid:
    title: str
    note: str
    header: list[str]
    lines: list[list[str]]


def _grids(table: Table, part: Part, show: Callable[[Part, Cell, Score | None], str]) -> Iterator[_Grid]:
    """Our values, then the study's where there are any; the cells are ready for their format."""
    note = f"{HOW_TO_READ}; {ruler_in_words(table.score)}" if table.score else "No run has been scored yet"
    yield _grid(table, part, table.part_title(part), note, lambda cell: show(part, cell, table.score))
    if part.has_published:
        yield _grid(table, part, published_title(table, part), PUBLISHED_RULER, published_text)


def _grid(table: Table, part: Part, title: str, note: str, show: Callable[[Cell], str]) -> _Grid:
    lines = [[row, *(show(part.cells[row, column]) for column in part.columns)] for row in part.rows]
    return _Grid(title, note, [table.corner, *map(table.column_label, part.columns)], lines)


def published_title(table: Table, part: Part) -> str:
    return ", ".join(filter(None, (table.title, part.name, "the study's FID")))


def published_text(cell: Cell) -> str:
    return "not published" if cell.published is None else f"{cell.published:.1f}"


def _markdown_cell(part: Part, cell: Cell, score: Score | None) -> str:
    return _marked(part, cell, score, _markdown, "**{}**".format)


def _latex_cell(part: Part, cell: Cell, score: Score | None) -> str:
    return _marked(part, cell, score, _latex, r"\textbf{{{}}}".format)


def _marked(
    part: Part, cell: Cell, score: Score | None, escape: Callable[[str], str], bold: Callable[[str], str]
) -> str:
    number = escape(cell_number(cell, score)) if score else ""
    if number and cell is part.best:
        number = bold(number)
    elif part.best and cell.ties_with(part.best):
        number += f" {escape(SAME_AS_BEST)}"
    return ", ".join(filter(None, (number, escape(cell.words))))


def _markdown(text: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "≈": r"$\approx$", "→": r"$\to$", "\n": " ",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
