"""Loss and score curves, one figure a part of a table, as PNG files.

Each has a pair of panels (discriminator, generator) for each column of the table and a line for each row:
the mean over seeds, in a band from the lowest to the highest seed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from petgan.report.labels import axis_label, unique_slugs
from petgan.report.results import Run
from petgan.report.tables import Part, Table, excerpt

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its black and yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINE_STYLES = ("-", "--", ":", "-.")
ROWS, COLUMNS = 12, 6  # of a table, in one figure: more lines and panels cannot be told apart
CUT_SHARE = 250 / 4000  # of the steps; the study drew its curves again without them, for scale
WIDTH, PANEL_HEIGHT, DPI = 5.0, 1.6, 130  # inches, dots an inch
LEFT, RIGHT, BOTTOM, TITLE = 0.72, 0.2, 0.42, 0.3  # of a panel, for its labels
LEGEND_COLUMNS, LEGEND_LINE, LETTER = 4, 0.19, 0.08
STYLE: Any = {
    "font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "lines.linewidth": 1.3,
    "legend.frameon": False, "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """A figure of curves.

    Parameters
    ----------
    slug : str
        Name of its file.
    caption : str
    png : bytes
    """

    slug: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class _Quantity:
    name: str  # column of the metrics
    title: str
    unit: str
    marker: str | None = None  # where it is taken at a few steps only


_LOSSES = (
    _Quantity("d_running_mean", "discriminator", "mean loss"),
    _Quantity("g_loss", "generator", "loss"),
)
_SWD = (_Quantity("swd", "validation", "SWD", marker="o"),)


class Metrics:
    """The logged metrics of runs; each file is read once."""

    def __init__(self) -> None:
        self._read: dict[str, pd.DataFrame] = {}

    def of(self, run: Run) -> pd.DataFrame:
        """The columns ``d_running_mean``, ``g_loss`` and ``swd``, by step."""
        if run.run_id not in self._read:
            logged = pd.DataFrame(run.folder.metrics()).reindex(columns=["step", "d_loss", "g_loss", "swd"])
            logged["d_running_mean"] = logged["d_loss"].expanding().mean()
            self._read[run.run_id] = logged.set_index("step")
        return self._read[run.run_id]

    def over_seeds(self, runs: Iterable[Run], quantity: str) -> pd.DataFrame:
        """Mean, lowest and highest value over the seeds that have one, by step."""
        seeds = [self.of(run)[quantity].dropna() for run in runs]
        seeds = [seed for seed in seeds if len(seed)]
        if not seeds:
            return pd.DataFrame(columns=["mean", "min", "max"])
        index = seeds[0].index
        if all(seed.index.equals(index) for seed in seeds):
            values = np.stack([seed.to_numpy(float) for seed in seeds])
        else:
            together = pd.concat(seeds, axis=1)
            index, values = together.index, together.to_numpy(float).T
        return pd.DataFrame(
            {
                "mean": np.nanmean(values, axis=0),
                "min": np.nanmin(values, axis=0),
                "max": np.nanmax(values, axis=0),
            },
            index=index,
        )


def draw_curves(table: Table, metrics: Metrics) -> Iterator[Curves]:
    """The figures of a table: losses, losses without the first steps, validation scores.

    A figure for which nothing has been logged is left out, and of a large table all but the best rows and
    columns.
    """
    slugs = unique_slugs(" ".join((table.slug, part.name)) for part in table.parts)
    for whole, slug in zip(table.parts, slugs, strict=True):
        part = excerpt(whole, table.score, ROWS, COLUMNS)
        steps = max((run.point["steps"] for cell in part.cells.values() for run in cell.runs), default=0)
        cut = round(CUT_SHARE * steps)
        name = ", ".join(filter(None, (table.title, part.name)))
        band = "mean over seeds, in a band from the lowest to the highest seed"
        if len(part.cells) < len(whole.cells):
            band += f"; the best {len(part.rows)} of {len(whole.rows)} rows"
            band += f" and {len(part.columns)} of {len(whole.columns)} columns"
        swd = f"{name}: sliced Wasserstein distance to the validation images; {band}"
        yield from _draw(
            _panels(table, part, metrics, _LOSSES),
            table,
            [
                (0, f"{slug}-loss", f"{name}: losses; {band}"),
                (cut, f"{slug}-loss-later", f"{name}: the same without the first {cut} steps, for scale"),
            ],
        )
        yield from _draw(_panels(table, part, metrics, _SWD), table, [(0, f"{slug}-swd", swd)])


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    marker: str | None
    curves: dict[tuple[int, str], pd.DataFrame]  # by the number and name of the table's row

    def limits(self, first: int) -> tuple[float, float] | None:
        """What the curves cover from the step `first` on, with a margin; None if that is nothing."""
        later = [curve[curve.index >= first] for curve in self.curves.values()]
        later = [curve for curve in later if len(curve)]
        if not later:
            return None
        low, high = min(c["min"].min() for c in later), max(c["max"].max() for c in later)
        margin = (high - low) / 20 or abs(low) / 20 or 1.0
        return low - margin, high + margin


def _panels(
    table: Table, part: Part, metrics: Metrics, quantities: tuple[_Quantity, ...]
) -> list[list[_Panel]]:
    """A line of panels for each column of the table."""
    lines = []
    for column in part.columns:
        where = f", {axis_label(table.column_axis)} {column}" if table.column_axis else ""
        line = []
        for quantity in quantities:
            curves = {
                (number, row): metrics.over_seeds(part.cells[row, column].runs, quantity.name)
                for number, row in enumerate(part.rows)
            }
            there = {key: curve for key, curve in curves.items() if len(curve)}
            line.append(_Panel(f"{quantity.title}{where}", quantity.unit, quantity.marker, there))
        lines.append(line)
    return lines


def _draw(
    panels: list[list[_Panel]], table: Table, views: Sequence[tuple[int, str, str]]
) -> Iterator[Curves]:
    """One figure for each view of the panels: the step that it begins with, its slug and caption."""
    flat = [panel for line in panels for panel in line]
    steps = [curve.index.max() for panel in flat for curve in panel.curves.values()]
    if not steps:
        return
    with mpl.rc_context(STYLE):
        rows = sorted({key for panel in flat for key in panel.curves})
        longest = max(len(row) for _, row in rows)
        columns = max(1, min(LEGEND_COLUMNS, int((WIDTH - 0.1) / (0.5 + LETTER * longest))))
        figure, axes = _axes(len(panels), len(panels[0]), 1 + math.ceil(len(rows) / columns))
        handles = {}
        for panel, ax in zip(flat, axes.flat, strict=True):
            ax.set(title=panel.title, ylabel=panel.unit)
            ax.yaxis.set_major_formatter("{x:.4g}")
            for (number, row), curve in panel.curves.items():
                handles[number, row] = _line(ax, curve, number, panel.marker)
        for ax in axes[-1]:
            ax.set_xlabel("step")
        figure.legend(
            [handles[key] for key in rows],
            [row for _, row in rows],
            title=axis_label(table.row_axis),
            alignment="left",
            loc="upper left",
            ncols=columns,
            borderaxespad=0.2,
        )
        for first, slug, caption in views:
            limits = [panel.limits(first) for panel in flat]
            if not any(limits):
                continue
            for ax, between in zip(axes.flat, limits, strict=True):
                ax.set_xlim(first, max(steps) * 1.02)
                if between:
                    ax.set_ylim(between)
            buffer = io.BytesIO()
            FigureCanvasAgg(figure).print_png(buffer)
            yield Curves(slug, caption, buffer.getvalue())


def _axes(lines: int, columns: int, lines_of_legend: int) -> tuple[Figure, Any]:
    """Axes at places that are computed: to have them fitted to their labels takes as long as to draw them."""
    top = 0.25 + LEGEND_LINE * lines_of_legend
    height = PANEL_HEIGHT * lines + top + BOTTOM - TITLE
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False)
    wide = (WIDTH - LEFT * columns - RIGHT) / columns
    tall = PANEL_HEIGHT - TITLE
    figure.subplots_adjust(
        left=LEFT / WIDTH,
        right=1 - RIGHT / WIDTH,
        bottom=BOTTOM / height,
        top=1 - top / height,
        wspace=LEFT / wide,
        hspace=TITLE / tall,
    )
    return figure, axes


def _line(ax: Axes, curve: pd.DataFrame, number: int, marker: str | None) -> Any:
    """Draw a mean and its band; the line."""
    colour = COLOURS[number % len(COLOURS)]
    style = LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]
    steps, low, high = (np.asarray(values, float) for values in (curve.index, curve["min"], curve["max"]))
    if (low < high).any():
        outline = np.column_stack([np.r_[steps, steps[::-1]], np.r_[low, high[::-1]]])
        ax.add_collection(
            PolyCollection([outline], facecolors=colour, alpha=0.2, linewidths=0), autolim=False
        )
    (line,) = ax.plot(
        steps,
        curve["mean"].to_numpy(),
        style,
        color=colour,
        marker=marker,
        markersize=3,
        scalex=False,
        scaley=False,
    )
    return line
