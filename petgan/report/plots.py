"""Loss and score curves, one figure a part of a table, as PNG files.

Each has a pair of panels (discriminator, generator) for each column of the table and a line for each row:
the mean over seeds, in a band from the lowest to the highest seed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from petgan.report.results import Run
from petgan.report.tables import Part, Table, axis_label, unique_slugs

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its black and yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINE_STYLES = ("-", "--", ":", "-.")
CUT_SHARE = 250 / 4000  # of the steps; the study drew its curves again without them, for scale
WIDTH, PANEL_HEIGHT, DPI = 5.0, 1.75, 130
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
        together = pd.concat(seeds, axis=1)
        return pd.DataFrame({how: together.agg(how, axis=1) for how in ("mean", "min", "max")})


def draw_curves(table: Table, metrics: Metrics) -> Iterator[Curves]:
    """The figures of a table: losses, losses without the first steps, validation scores.

    A figure for which nothing has been logged is left out.
    """
    slugs = unique_slugs(" ".join((table.slug, part.name)) for part in table.parts)
    for part, slug in zip(table.parts, slugs, strict=True):
        steps = max((run.point["steps"] for cell in part.cells.values() for run in cell.runs), default=0)
        cut = round(CUT_SHARE * steps)
        name = ", ".join(filter(None, (table.title, part.name)))
        band = "mean over seeds, in a band from the lowest to the highest seed"
        kinds = (
            ("loss", _LOSSES, 0, f"{name}: losses; {band}"),
            ("loss-later", _LOSSES, cut, f"{name}: the same without the first {cut} steps, for scale"),
            ("swd", _SWD, 0, f"{name}: sliced Wasserstein distance to the validation images; {band}"),
        )
        for kind, quantities, first, caption in kinds:
            png = _draw(table, part, metrics, quantities, first)
            if png:
                yield Curves(f"{slug}-{kind}", caption, png)


def _draw(
    table: Table, part: Part, metrics: Metrics, quantities: tuple[_Quantity, ...], first: int
) -> bytes | None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * len(part.columns) + 0.5), dpi=DPI)
        panels = figure.subplots(len(part.columns), len(quantities), sharex=True, squeeze=False)
        drawn = False
        for line, column in zip(panels, part.columns, strict=True):
            for panel, quantity in zip(line, quantities, strict=True):
                where = f", {axis_label(table.column_axis)} {column}" if table.column_axis else ""
                panel.set(title=f"{quantity.title}{where}", ylabel=quantity.unit)
                for number, row in enumerate(part.rows):
                    curve = metrics.over_seeds(part.cells[row, column].runs, quantity.name)
                    drawn |= _line(panel, curve[curve.index >= first], number, row, quantity.marker)
        for panel in panels[-1]:
            panel.set_xlabel("step")
        if not drawn:
            return None
        _legend(figure, panels.flat, axis_label(table.row_axis))
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / figure.get_figheight()), pad=0.4)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        return buffer.getvalue()


def _line(panel: Axes, curve: pd.DataFrame, number: int, label: str, marker: str | None) -> bool:
    if curve.empty:
        return False
    colour = COLOURS[number % len(COLOURS)]
    style = LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]
    panel.plot(curve.index, curve["mean"], style, color=colour, label=label, marker=marker, markersize=3)
    panel.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.2, linewidth=0)
    return True


def _legend(figure: Figure, panels: Iterable[Axes], title: str) -> None:
    entries: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    labels = [f"{title} {label}" for label in entries]
    figure.legend(entries.values(), labels, loc="upper left", ncols=min(3, len(labels)), borderaxespad=0.2)
