"""Tables as files: CSV, Markdown, LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from petgan.report.cells import Cell, cell_number
from petgan.report.labels import SAME_AS_BEST, how_to_read, ruler_in_words
from petgan.report.results import Score
from petgan.report.tables import Part, Table, published_text, published_title


def to_csv(table: Table) -> str:
    """One line a cell, with ten digits; ``p`` is against the best of the table (`petgan.verdicts`)."""
    rows = [
        {
            **({table.by_axis: part.name} if table.by_axis else {}),
            table.row_axis: row,
            **({table.column_axis: column} if table.column_axis else {}),
            "score": table.score.name if table.score else None,
            "mean": cell.mean,
            "low": cell.interval and cell.interval.low,
            "high": cell.interval and cell.interval.high,
            "scored_seeds": cell.count,
            "seeds": len(cell.runs),
            "gates": cell.gates,
            "verdict": cell.verdict and cell.verdict.word,
            "p": cell.verdict and cell.verdict.p,
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


def _grids(table: Table, part: Part, show: Callable[[Cell, Score | None], str]) -> Iterator[_Grid]:
    """Our values, then the study's where there are any; the cells are ready for their format."""
    note = (
        f"{how_to_read(table.score)}; {ruler_in_words(table.score)}"
        if table.score
        else "No run has been scored yet"
    )
    yield _grid(table, part, table.part_title(part), note, lambda cell: show(cell, table.score))
    if part.has_published:
        yield _grid(table, part, published_title(table, part), table.published_ruler, published_text)


def _grid(table: Table, part: Part, title: str, note: str, show: Callable[[Cell], str]) -> _Grid:
    lines = [[row, *(show(part.cells[row, column]) for column in part.columns)] for row in part.rows]
    return _Grid(title, note, [table.corner, *map(table.column_label, part.columns)], lines)


def _markdown_cell(cell: Cell, score: Score | None) -> str:
    return _marked(cell, score, _markdown, "**{}**".format)


def _latex_cell(cell: Cell, score: Score | None) -> str:
    return _marked(cell, score, _latex, r"\textbf{{{}}}".format)


def _marked(cell: Cell, score: Score | None, escape: Callable[[str], str], bold: Callable[[str], str]) -> str:
    number = escape(cell_number(cell, score)) if score else ""
    if number and cell.is_best:
        number = bold(number)
    elif cell.ties:
        number += f" {escape(SAME_AS_BEST)}"
    return ", ".join(filter(None, (number, escape(cell.gates), escape(cell.words))))


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
