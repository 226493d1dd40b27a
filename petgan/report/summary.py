"""The report in words: what was run, what came out best and how sure that is, how long it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from petgan.choice import Choice
from petgan.report.pairs import Pairs
from petgan.report.results import FIELDS, Experiment, Run, Score
from petgan.report.tables import (
    Cell,
    axis_label,
    cell_number,
    configurations,
    floor_in_words,
    value_label,
)
from petgan.runs import read_json

SEEDS_DECIDE = "Differences within the seeds' spread are not shown to be differences."
ONE_SEED = "With one seed there is no spread: no difference here is shown to be one."
NO_WEIGHTS = (
    "The score is the sliced Wasserstein distance (SWD), because neither FID nor KID could be had: both need "
    "the features of a network with learned weights, and there was none when these runs were scored. "
    "SWD does not see repetition: a generator that makes the same few images over and over can score well."
)
LEARNED_WEIGHTS = "A feature network with learned weights was there."


def what_was_run(experiment: Experiment) -> str:
    """Points, seeds, dataset, modality, image size and steps, in one sentence."""
    runs, dataset = experiment.runs, experiment.record["dataset"]
    points = len({run.configuration for run in runs})
    seeds = sorted({run.seed for run in runs})
    sizes = _either(run.point["image_size"] for run in runs)
    presets = _list(dict.fromkeys(run.preset for run in runs))
    return (
        f"{_count(points, 'point')} ({presets}), {_count(len(seeds), 'seed')} ({_list(map(str, seeds))}), "
        f"{_count(len(runs), 'run')} of {_either(run.point['steps'] for run in runs)} steps, on the dataset "
        f"{Path(dataset['path']).name} ({dataset['modality']}, {sizes} × {sizes} pixels)."
    )


def how_far(experiment: Experiment) -> str:
    """How many runs are in which state, in one sentence."""
    counts = Counter(_stage(run) for run in experiment.runs)
    if list(counts) == ["scored"]:
        return "All runs are done and scored."
    return f"State of the runs: {_list(f'{number} {stage}' for stage, number in counts.items())}."


def what_came_out(experiment: Experiment, score: Score, choices: Mapping[str, Choice]) -> list[str]:
    """The best configuration of each preset, then of all, and how sure that is; a sentence each."""
    cells = configurations(experiment, score)
    best = {preset: _cell_of(cells, choice) for preset, choice in choices.items()}
    sentences = []
    for preset, cell in best.items():
        others = [c for c in cells if c is not cell and c.runs[0].preset == preset]
        sentences.append(
            f"Best {preset} by {score.label}: {describe(experiment, cell.runs[0])}, "
            f"{cell_number(cell, score)}{_incomplete(cell)}{_not_shown(cell, others, 'other configuration')}."
        )
    if len(best) > 1:
        winner = min(best, key=lambda preset: best[preset].mean or 0.0)
        others = [cell for preset, cell in best.items() if preset != winner]
        not_shown = _not_shown(best[winner], others, "other preset")
        sentences.append(f"Best of all: {winner}, {describe(experiment, best[winner].runs[0])}{not_shown}.")
    return sentences


def how_sure(experiment: Experiment, score: Score) -> list[str]:
    """What the scores rest on: seeds, floor, learned weights; a sentence each."""
    seeds = len({run.seed for run in experiment.runs if run.value(score.name) is not None})
    floor = floor_in_words(score)
    return [
        f"Scores are the mean over seeds ± standard deviation (number of seeds); lower is better; {floor}.",
        SEEDS_DECIDE if seeds > 1 else ONE_SEED,
        LEARNED_WEIGHTS if {"kid", "fid"} & set(experiment.scores) else NO_WEIGHTS,
    ]


def notes(experiment: Experiment) -> list[str]:
    """What the evaluations say of themselves, each sentence once."""
    said = [note for run in experiment.runs if run.evaluation for note in run.evaluation.get("notes", [])]
    return list(dict.fromkeys(said))


def what_transfer_gave(experiment: Experiment, score: Score, pairs: Pairs) -> str:
    """The paired difference of one configuration, in one sentence."""
    run = pairs.pairs[0].scratch
    name = ", ".join(filter(None, (run.preset, describe(experiment, run, leave_out=("start",)))))
    if pairs.mean is None:
        return f"{name}: no pair has both scores yet."
    sign = "+" if pairs.mean > 0 else ""
    spread = f" ± {score.number(pairs.deviation)}" if pairs.deviation is not None else ""
    return (
        f"{name}: the transferred run has the lower {score.label} in {pairs.lower} of "
        f"{_count(pairs.count, 'pair')}; mean difference (transferred minus from scratch) "
        f"{sign}{score.number(pairs.mean)}{spread}{_verdict(pairs)}."
    )


def how_long(experiment: Experiment) -> str:
    """Wall and busy time, in one sentence."""
    started = [run.status.started for run in experiment.runs if run.status.started]
    updated = [run.status.updated for run in experiment.runs if run.status.updated]
    busy = sum(run.status.busy_seconds for run in experiment.runs)
    if not started or not updated:
        return "No run has been started."
    wall = max(updated) - min(started)
    return (
        f"{duration(wall)} from the first start to the last sign of life ({when(max(updated))}); "
        f"{duration(busy)} of training over all runs."
    )


def provenance(experiment: Experiment) -> list[tuple[str, str]]:
    """Names and values of what made the results: commands, digests, versions, networks."""
    record = experiment.record
    lineages = [
        read_json(run.folder.lineage_file) for run in experiment.runs if run.folder.lineage_file.is_file()
    ]
    facts = [("command", command) for command in record.get("commands", [])]
    facts += [("made", record["created"]), ("dataset digest", record["dataset"]["digest"])]
    facts += [("petgan", record["petgan_version"])]
    for key, name in (
        ("code_version", "code version"),
        ("code_digest", "code digest"),
        ("image_digest", "container"),
    ):
        facts += [(name, value) for value in dict.fromkeys(line.get(key) for line in lineages) if value]
    versions = (", ".join(f"{k} {v}" for k, v in line.get("versions", {}).items()) for line in lineages)
    facts += [("versions", text) for text in dict.fromkeys(versions) if text]
    facts += [(f"ruler of {score.label}", score.ruler) for score in experiment.scores.values()]
    return facts + _parents(record)


def _parents(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    parent = record.get("parent") or {"runs": []}
    return [("transferred from", _parent(parent, run)) for run in parent["runs"]]


def _parent(parent: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    source = f"run {run['run_id']} of " if run["run_id"] else ""
    value = f", {parent['score']} {run['value']:.4g}" if run.get("value") is not None else ""
    return (
        f"{run['preset']}: {source}{Path(parent['experiment']).name}{value}, checkpoint {run['digest'][:12]}"
    )


def describe(experiment: Experiment, run: Run, leave_out: Iterable[str] = ()) -> str:
    """What sets a run's configuration apart from the others of its preset, such as "dropout 0.5"."""
    others = [other for other in experiment.runs if other.preset == run.preset]
    parts = [
        f"{axis_label(name)} {value_label(run.point.get(name))}"
        for name in FIELDS
        if name not in ("preset", "seed") and len({repr(other.point.get(name)) for other in others}) > 1
    ]
    if "start" not in leave_out and len({other.start for other in others}) > 1:
        parts.insert(0, "transferred" if run.start == "transfer" else "from scratch")
    return ", ".join(parts) or ("" if leave_out else "its only configuration")


def duration(seconds: float) -> str:
    """Such as "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _stage(run: Run) -> str:
    if run.evaluation:
        return "scored"
    state = run.status.state
    return {"new": "pending", "queued": "pending", "done": "done but not scored"}.get(state, state)


def _cell_of(cells: list[Cell], choice: Choice) -> Cell:
    return next(cell for cell in cells if choice.best_run in [run.run_id for run in cell.runs])


def _incomplete(cell: Cell) -> str:
    return f", {cell.words} scored" if cell.words else ""


def _not_shown(best: Cell, others: Iterable[Cell], noun: str) -> str:
    others = [cell for cell in others if cell.mean is not None]
    if best.deviation is None and others:
        return "; from one seed, so not shown to be better"
    ties = sum(cell.deviation is None or cell.ties_with(best) for cell in others)
    return f"; not shown to be better than {_count(ties, noun)}" if ties else ""


def _verdict(pairs: Pairs) -> str:
    if pairs.deviation is None:
        return ", from a single pair: no spread is known"
    within = pairs.mean is not None and abs(pairs.mean) <= pairs.deviation
    return ", which is within the seeds' spread: no difference is shown" if within else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _either(values: Iterable[object]) -> str:
    return " or ".join(map(str, dict.fromkeys(values)))


def _list(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
