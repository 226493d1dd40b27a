"""What the page shows of one experiment, and how much of it where there is very much."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TypeVar

from petgan.report import summary
from petgan.report.cells import Cell, best_run, cell_of, in_order, judged
from petgan.report.heat import heat_of
from petgan.report.overview import Overview, overview
from petgan.report.pairs import Pairs, transfer_pairs
from petgan.report.plots import Curves, Metrics, draw_curves
from petgan.report.results import Experiment, Run, Score
from petgan.report.rulers import Ruler, rulers_of
from petgan.report.sheets import Neighbours, Sheet, TrainingImages, neighbours_of, sheet_of
from petgan.report.tables import Part, Table, all_tables, excerpt

Item = TypeVar("Item")

BEST_WIDTH, POINT_WIDTH = 360, 270  # of sheets, in CSS pixels

# At most so many are on the page; what is left out is in the files beside it.
TABLE_ROWS, TABLE_COLUMNS = 60, 24
FIGURES = 90
SHEETS = 72
RUNS = 300
COPIES = 8


class Section:
    """What the page shows of one experiment.

    Parameters
    ----------
    experiment : Experiment
    score : Score or None
        The headline.
    label : str
        What the page calls the experiment.
    prefix : str
        Of the names of its files.
    with_real : bool
        Whether real images may be shown.
    """

    LISTED = 40  # failures, and runs with a gate

    def __init__(
        self, experiment: Experiment, score: Score | None, label: str, prefix: str, with_real: bool = False
    ) -> None:
        self.experiment = experiment
        self.score = score
        self.label = label
        self.prefix = prefix
        self.tables = all_tables(experiment, score)
        self.training = TrainingImages(experiment.record["dataset"]) if with_real and score else None
        self.curves: dict[str, list[Curves]] = {}
        self._metrics = Metrics()

    def draw(self, table: Table) -> None:
        """Draw the curves of a table, as far as the page has room for them."""
        room = FIGURES - sum(map(len, self.curves.values()))
        self.curves[table.slug] = list(draw_curves(table, self._metrics))[: max(0, room)]

    @property
    def anchor(self) -> str:
        return self.prefix.rstrip("-") or "experiment"

    # --- numbers ---

    @cached_property
    def scores(self) -> list[Score]:
        """All scores, the headline first."""
        others = [score for score in self.experiment.scores.values() if score != self.score]
        return [self.score, *others] if self.score else others

    @cached_property
    def cells(self) -> dict[str, list[Cell]]:
        """All configurations under each score, in the grid's order; with verdicts under the headline."""
        cells = {
            score.name: [cell_of(runs, score) for runs in self.experiment.configurations]
            for score in self.scores
        }
        if self.score:
            cells[self.score.name] = judged(cells[self.score.name], self.score)
        return cells

    @cached_property
    def by_preset(self) -> dict[str, list[Cell]]:
        """The configurations of each preset under the headline, with verdicts among themselves."""
        presets: dict[str, list[Cell]] = {}
        for cell in self.cells[self.score.name] if self.score else ():
            presets.setdefault(cell.runs[0].preset, []).append(cell)
        return {preset: judged(cells, self.score) for preset, cells in presets.items() if self.score}

    @cached_property
    def overview(self) -> Overview | None:
        return overview(self.scores, self.cells) if self.score else None

    @cached_property
    def rulers(self) -> list[Ruler]:
        return rulers_of(self.experiment)

    @cached_property
    def pairs(self) -> list[Pairs]:
        return transfer_pairs(self.experiment, self.score) if self.score else []

    def excerpt(self, table: Table, part: Part) -> Part:
        return excerpt(part, table.score, TABLE_ROWS, TABLE_COLUMNS)

    def heat(self, cells: Iterable[Cell], score: Score | None) -> Callable[[Cell], str]:
        return heat_of(cells, score) if score else lambda cell: ""

    # --- words ---

    @property
    def what_was_run(self) -> str:
        return summary.what_was_run(self.experiment)

    @property
    def lead(self) -> list[str]:
        """What came out, for who has a minute."""
        told = [summary.NOTHING_SCORED]
        if self.score:
            told = summary.what_won(self.experiment, self.score, self.cells[self.score.name])
        return [*told, *summary.what_does_not_count(self.experiment)]

    @property
    def findings(self) -> list[str]:
        if not self.score:
            return []
        return [
            *summary.best_of_presets(self.experiment, self.score, self.by_preset),
            *(summary.what_transfer_gave(self.experiment, self.score, pairs) for pairs in self.pairs),
        ]

    @property
    def reservations(self) -> list[str]:
        return summary.how_sure(self.experiment, self.score) if self.score else []

    @property
    def progress(self) -> list[str]:
        return [summary.how_far(self.experiment), summary.how_long(self.experiment)]

    @property
    def notes(self) -> list[str]:
        return summary.notes(self.experiment)

    @property
    def provenance(self) -> list[tuple[str, str]]:
        return summary.provenance(self.experiment)

    # --- runs ---

    @cached_property
    def gated(self) -> list[Run]:
        return [run for run in self.experiment.runs if run.gates]

    @cached_property
    def withheld(self) -> int:
        """Runs whose images are not on the page because they may be those of patients."""
        return sum(not self.may_show(run) for run in self.experiment.runs)

    @cached_property
    def failures(self) -> list[Run]:
        return [run for run in self.experiment.runs if run.status.error or run.status.state == "lost"]

    @cached_property
    def shown_runs(self) -> list[Run]:
        """All runs or, of very many, those with the best scores; in the grid's order."""
        runs, score = self.experiment.runs, self.score
        if len(runs) <= RUNS or score is None:
            return runs[:RUNS]

        def rank(run: Run) -> tuple[bool, float]:
            value = run.value(score.name)
            return value is None or bool(run.gates), score.sign * (value or 0.0)

        best = {run.run_id for run in sorted(runs, key=rank)[:RUNS]}
        return [run for run in runs if run.run_id in best]

    @cached_property
    def best_runs(self) -> list[Run]:
        """Of each preset's best configuration the best run."""
        if not self.score:
            return []
        best = (
            next((cell for cell in cells if cell.is_best), None)
            or next(iter(in_order(cells, self.score)), None)
            for cells in self.by_preset.values()
        )
        return [best_run(cell, self.score) for cell in best if cell]

    # --- images ---

    @property
    def shows_real(self) -> bool:
        """Whether real images were asked for, and can be shown."""
        return self.training is not None and not self.training.problem

    def may_show(self, run: Run) -> bool:
        """Whether the images of a run may be on the page: copies are images of patients."""
        return self.shows_real or not run.shows_patients

    @cached_property
    def best_sheets(self) -> list[Sheet]:
        """The sheet of the best run of each preset."""
        return _there(sheet_of(run, f"Best {self.caption(run)}", BEST_WIDTH) for run in self.best_runs)

    @cached_property
    def neighbours(self) -> list[Neighbours]:
        """Of the best runs, the images that come closest to a training image."""
        return _there(
            neighbours_of(run, f"Best {self.caption(run)}", self.training) for run in self.best_runs
        )

    @cached_property
    def copies(self) -> list[Neighbours]:
        """Of runs that repeat training images, those that come closest."""
        copied = [run for run in self.experiment.runs if run.shows_patients and self.may_show(run)]
        return _there(
            neighbours_of(run, f"{', '.join(sorted(_names(run)))}: {self.caption(run)}", self.training)
            for run in copied[:COPIES]
        )

    @cached_property
    def point_sheets(self) -> list[Sheet]:
        """The sheet of the first seed of each configuration; of very many, of the best."""
        configurations = self.experiment.configurations
        if self.score and len(configurations) > SHEETS:
            best = in_order(self.cells[self.score.name], self.score)[:SHEETS]
            ids = {cell.runs[0].run_id for cell in best}
            configurations = [runs for runs in configurations if runs[0].run_id in ids]
        first = [min(runs, key=lambda run: run.seed) for runs in configurations[:SHEETS]]
        return _there(sheet_of(run, self.caption(run), POINT_WIDTH) for run in first if self.may_show(run))

    def caption(self, run: Run) -> str:
        score = f", {self.score.label} {self.number(self.value_of(run))}" if self.score else ""
        return f"{run.preset}: {self.describe(run)}, seed {run.seed}{score}"

    def pairs_title(self, pairs: Pairs) -> str:
        run = pairs.pairs[0].scratch
        return ", ".join(
            filter(None, (run.preset, summary.describe(self.experiment, run, leave_out=("start",))))
        )

    @property
    def sheets_left_out(self) -> int:
        return max(0, len(self.experiment.configurations) - SHEETS)

    def name(self, run: Run) -> str:
        return f"{run.preset}: {self.describe(run)}"

    def describe(self, run: Run) -> str:
        return summary.describe(self.experiment, run)

    def number(self, value: float | None) -> str:
        """A value of the headline."""
        return "none yet" if value is None or self.score is None else self.score.number(value)

    def value_of(self, run: Run) -> float | None:
        return run.value(self.score.name) if self.score else None


def _names(run: Run) -> set[str]:
    return {gate["name"] for gate in run.gates}


def _there(items: Iterable[Item | None]) -> list[Item]:
    return [item for item in items if item]
