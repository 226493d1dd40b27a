"""The report's files: a page that holds everything, and beside it tables, figures, results and the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from petgan import __version__, choice, corruptions
from petgan.errors import InputError
from petgan.report import cells, formats, frames, labels, rulers, summary, tables
from petgan.report.html import fill
from petgan.report.pairs import pairs_csv
from petgan.report.results import Experiment, read_experiment, results_frame
from petgan.report.section import Section
from petgan.runs import ExperimentFolder, atomic_path, write_json, write_text

Progress = Callable[[int, int], None]


def write_report(
    experiments: Sequence[Path | str],
    output: Path | str | None = None,
    score: str | None = None,
    progress: Progress = lambda done, total: None,
    *,
    with_real: bool = False,
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
    with_real : bool
        Show the training images that generated ones come closest to. Such a page is not for sharing.

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
    names = _labels(read)
    prefixes = [f"{slug}-" for slug in labels.unique_slugs(names)] if len(read) > 1 else [""]
    sections = [
        Section(experiment, experiment.headline(score), label, prefix, with_real)
        for experiment, label, prefix in zip(read, names, prefixes, strict=True)
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


def render(sections: Sequence[Section]) -> str:
    """The page: one HTML file that asks the network for nothing."""
    return fill(
        "template.html",
        sections=sections,
        title=" and ".join(section.label for section in sections),
        version=__version__,
        shows_real=any(section.shows_real for section in sections),
        cells=cells,
        labels=labels,
        tables=tables,
        rulers=rulers,
        corruptions=corruptions.NAMES,
        summary=summary,
    )


# --- files --------------------------------------------------------------------------------------


def _write_section(section: Section, folder: Path) -> None:
    # A column holds scores that compare, so each experiment has such files of its own.
    results = results_frame([(section.label, section.experiment.runs)])
    wide = frames.pivoted(results)
    write_text(folder / f"{section.prefix}results-wide.csv", wide.to_csv(index=False))
    if section.score:
        means = frames.by_configuration(section.label, section.cells)
        file = folder / f"{section.prefix}configurations.csv"
        write_text(file, means.to_csv(index=False, float_format="%.10g"))
    for table in (table for group in section.tables for table in group):
        path = folder / "tables" / f"{section.prefix}{table.slug}"
        write_text(path.with_name(f"{path.name}.csv"), formats.to_csv(table))
        write_text(path.with_name(f"{path.name}.md"), formats.to_markdown(table))
        write_text(path.with_name(f"{path.name}.tex"), formats.to_latex(table))
    if section.pairs and section.score:
        path = folder / "tables" / f"{section.prefix}scratch-and-transfer.csv"
        write_text(path, pairs_csv(section.pairs, section.score))
    for curves in (curves for drawn in section.curves.values() for curves in drawn):
        with atomic_path(folder / "figures" / f"{section.prefix}{curves.slug}.png") as temporary:
            temporary.write_bytes(curves.png)
    if section.score:
        _write_choice(section.experiment.folder, section.score.name)


def _write_choice(experiment: ExperimentFolder, score: str) -> None:
    """Write what is the best; nothing is where gates block all, or runs have to be scored again."""
    file = experiment.report / "choice.json"
    try:
        records = choice.read_scores(experiment)
        overall, by_preset = choice.best_overall(records, score), choice.best_by_preset(records, score)
    except InputError:
        file.unlink(missing_ok=True)
        return
    write_json(
        file,
        {
            "schema_version": 1,
            "experiment": experiment.record()["name"],
            "score": score,
            "ruler": overall.ruler,
            "overall": asdict(overall),
            "by_preset": {preset: asdict(chosen) for preset, chosen in by_preset.items()},
        },
    )
