"""The report's files: a page that holds everything, and beside it tables, figures, results and the choice."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from petgan import __version__, choice
from petgan.report import summary, tables
from petgan.report.html import data_uri, fill
from petgan.report.pairs import Pairs, pairs_csv, transfer_pairs
from petgan.report.plots import Curves, Metrics, draw_curves
from petgan.report.results import Experiment, Run, Score, read_experiment, results_frame
from petgan.report.tables import Cell, Part, Table
from petgan.runs import atomic_path, write_json, write_text

BEST_WIDTH, POINT_WIDTH = 360, 270  # of sheets, in CSS pixels
LIGHT, DARK = (234, 242, 251), (8, 64, 129)  # a single hue, so that only lightness tells

Progress = Callable[[int, int], None]


def write_report(
    experiments: Sequence[Path | str],
    output: Path | str | None = None,
    score: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Write the report of one or more experiments, and return its page.

    Parameters
    ----------
    experiments : sequence of path
    output : path, optional
        Folder to write to; by default the folder ``report`` of the first experiment. The choice goes to
        the folder ``report`` of each experiment.
    score : str, optional
        What to choose by; by default the headline of the evaluations.
    progress : callable
        Takes the number of tables drawn and of all tables.

    Raises
    ------
    InputError
        If a folder is no experiment, or no run has the score.
    ConfigError
        If the runs of an experiment were scored with different rulers.
    DiskError
        If the folder cannot be written.
    """
    read = [read_experiment(path) for path in experiments]
    labels = _labels(read)
    prefixes = [f"{slug}-" for slug in tables.unique_slugs(labels)] if len(read) > 1 else [""]
    sections = [
        Section(experiment, experiment.headline(score), label, prefix)
        for experiment, label, prefix in zip(read, labels, prefixes, strict=True)
    ]
    folder = Path(output) if output is not None else read[0].folder.report
    total, done = sum(len(section.tables) for section in sections), 0
    for section in sections:
        for group in section.tables:
            section.draw(group[0])
            done += 1
            progress(done, total)
    for section in sections:
        _write_section(section, folder)
    results = results_frame([(section.label, section.experiment.runs) for section in sections])
    write_text(folder / "results.csv", results.to_csv(index=False))
    page = folder / "index.html"
    write_text(page, render(sections))
    return page


def _labels(experiments: Sequence[Experiment]) -> list[str]:
    """Their names; where several have the same, with their folders."""
    names = [experiment.name for experiment in experiments]
    return [
        f"{e.name} ({e.folder.path.resolve().name})" if names.count(e.name) > 1 else e.name
        for e in experiments
    ]


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
    """

    def __init__(self, experiment: Experiment, score: Score | None, label: str, prefix: str) -> None:
        self.experiment = experiment
        self.score = score
        self.label = label
        self.prefix = prefix
        self.tables = tables.all_tables(experiment, score)
        self.curves: dict[str, list[Curves]] = {}
        self._metrics = Metrics()

    def draw(self, table: Table) -> None:
        self.curves[table.slug] = list(draw_curves(table, self._metrics))

    @property
    def anchor(self) -> str:
        return self.prefix.rstrip("-") or "experiment"

    @cached_property
    def choices(self) -> dict[str, choice.Choice]:
        """The best configuration of each preset."""
        return choice.best_by_preset(self.experiment.records, self.score.name) if self.score else {}

    @cached_property
    def pairs(self) -> list[Pairs]:
        return transfer_pairs(self.experiment, self.score) if self.score else []

    @property
    def sentences(self) -> list[str]:
        return [
            summary.what_was_run(self.experiment),
            summary.how_far(self.experiment),
            summary.how_long(self.experiment),
        ]

    @property
    def findings(self) -> list[str]:
        if not self.score:
            return ["No run has been scored yet: petgan evaluate does it."]
        return [
            *summary.what_came_out(self.experiment, self.score, self.choices),
            *(summary.what_transfer_gave(self.experiment, self.score, pairs) for pairs in self.pairs),
        ]

    @property
    def reservations(self) -> list[str]:
        return summary.how_sure(self.experiment, self.score) if self.score else []

    @property
    def notes(self) -> list[str]:
        return summary.notes(self.experiment)

    @property
    def provenance(self) -> list[tuple[str, str]]:
        return summary.provenance(self.experiment)

    @property
    def failures(self) -> list[Run]:
        return [run for run in self.experiment.runs if run.status.error or run.status.state == "lost"]

    @cached_property
    def best_sheets(self) -> list[Sheet]:
        """The sheet of the best run of each preset."""
        runs = {run.run_id: run for run in self.experiment.runs}
        best = [runs[chosen.best_run] for chosen in self.choices.values()]
        sheets = (_sheet(run, f"Best {self.caption(run)}", BEST_WIDTH) for run in best)
        return [sheet for sheet in sheets if sheet]

    @cached_property
    def point_sheets(self) -> list[Sheet]:
        """The sheet of the first seed of each configuration."""
        first: dict[tuple[str, ...], Run] = {}
        for run in sorted(self.experiment.runs, key=lambda run: run.seed):
            first.setdefault(run.configuration, run)
        sheets = (_sheet(run, self.caption(run), POINT_WIDTH) for run in first.values())
        return [sheet for sheet in sheets if sheet]

    def caption(self, run: Run) -> str:
        score = f", {self.score.label} {self.number(self.value_of(run))}" if self.score else ""
        return f"{run.preset}: {self.describe(run)}, seed {run.seed}{score}"

    def pairs_title(self, pairs: Pairs) -> str:
        run = pairs.pairs[0].scratch
        return ", ".join(
            filter(None, (run.preset, summary.describe(self.experiment, run, leave_out=("start",))))
        )

    def describe(self, run: Run) -> str:
        return summary.describe(self.experiment, run)

    def number(self, value: float | None) -> str:
        """A value of the headline."""
        return "none yet" if value is None or self.score is None else self.score.number(value)

    def value_of(self, run: Run) -> float | None:
        return run.value(self.score.name) if self.score else None


@dataclass(frozen=True)
class Sheet:
    """A sheet of samples as the page shows it."""

    caption: str
    image: str  # data URI
    width: int  # CSS pixels
    pixelated: bool


def render(sections: Sequence[Section]) -> str:
    """The page: one HTML file that asks the network for nothing."""
    return fill(
        "template.html",
        sections=sections,
        title=" and ".join(section.label for section in sections),
        version=__version__,
        heat=heat,
        tables=tables,
        duration=summary.duration,
    )


def heat(part: Part, cell: Cell) -> str:
    """The CSS of a cell's colours: the lower its mean among those of its part, the darker.

    The text is black or white, whichever has the higher contrast: at least 4.5 to 1.
    """
    means = [c.mean for c in part.cells.values() if c.mean is not None]
    if cell.mean is None or len(means) < 2:
        return ""
    span = max(means) - min(means)
    share = (max(means) - cell.mean) / span if span else 0.0
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(LIGHT, DARK, strict=True))
    luminance = _luminance((red, green, blue))
    text = "#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff"
    return f"background:#{red:02x}{green:02x}{blue:02x};color:{text}"


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --- files --------------------------------------------------------------------------------------


def _write_section(section: Section, folder: Path) -> None:
    for table in (table for group in section.tables for table in group):
        path = folder / "tables" / f"{section.prefix}{table.slug}"
        write_text(path.with_name(f"{path.name}.csv"), tables.to_csv(table))
        write_text(path.with_name(f"{path.name}.md"), tables.to_markdown(table))
        write_text(path.with_name(f"{path.name}.tex"), tables.to_latex(table))
    if section.pairs and section.score:
        path = folder / "tables" / f"{section.prefix}scratch-and-transfer.csv"
        write_text(path, pairs_csv(section.experiment, section.score))
    for curves in (curves for drawn in section.curves.values() for curves in drawn):
        with atomic_path(folder / "figures" / f"{section.prefix}{curves.slug}.png") as temporary:
            temporary.write_bytes(curves.png)
    if section.score:
        write_json(section.experiment.folder.report / "choice.json", _choice(section))


def _choice(section: Section) -> dict[str, Any]:
    assert section.score is not None  # noqa: S101 - for mypy: the caller has looked
    overall = choice.best_overall(section.experiment.records, section.score.name)
    return {
        "schema_version": 1,
        "experiment": section.experiment.name,
        "score": section.score.name,
        "ruler": section.score.ruler,
        "overall": asdict(overall),
        "by_preset": {preset: asdict(chosen) for preset, chosen in section.choices.items()},
    }


# --- images -------------------------------------------------------------------------------------


def _sheet(run: Run, caption: str, width: int) -> Sheet | None:
    """The sheet of the step that was scored, else the last, at most `width` wide; None without one.

    A small sheet is enlarged by a whole number, a large one reduced and compressed.
    """
    files = sorted(run.folder.samples.glob("step-*.png"))
    if not files:
        return None
    scored = run.folder.sample_file(run.evaluation["checkpoint"]["step"]) if run.evaluation else files[-1]
    file = scored if scored in files else files[-1]
    caption = f"{caption}, step {int(file.stem.removeprefix('step-'))}"
    if file != scored:
        caption += ", not the step that was scored"
    with Image.open(file) as image:
        if image.width <= width:
            uri = data_uri(file.read_bytes())
            return Sheet(caption, uri, width // image.width * image.width, pixelated=True)
        image.thumbnail((width * 3 // 2, width * 3 // 2), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
    return Sheet(caption, data_uri(buffer.getvalue(), "jpeg"), width, pixelated=False)
