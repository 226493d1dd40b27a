"""The report in words: what was run, what came out best, by how much and how sure, how long it took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from petgan.report.cells import NO_DIFFERENCE, Cell, in_order, p_text
from petgan.report.labels import axis_label, blind_in_words, floor_in_words, value_label
from petgan.report.pairs import Pairs
from petgan.report.results import Experiment, Run, Score
from petgan.runs import read_json
from petgan.verdicts import Verdict

OF_IMAGES = {"swd", "texture", "spectrum", "histogram"}  # scores that take no network
NOTHING_SCORED = "No run has been scored yet: petgan evaluate does it."
ONE_SEED = "No configuration has two seeds, so there is no spread, and which one is best is not shown."
NO_WEIGHTS = (
    "The score is the sliced Wasserstein distance (SWD), because neither FID nor KID could be had: both need "
    "the features of a network with learned weights, and there was none when these runs were scored. "
    "SWD does not see repetition: a generator that makes the same few images over and over can score well."
)


def what_was_run(experiment: Experiment) -> str:
    """Configurations, seeds, dataset, modality, image size and steps, in one sentence."""
    runs, dataset = experiment.runs, experiment.record["dataset"]
    points = len(experiment.configurations)
    seeds = sorted({run.seed for run in runs})
    sizes = _either(run.point["image_size"] for run in runs)
    presets = _list(dict.fromkeys(run.preset for run in runs))
    steps = _either(run.point["steps"] for run in runs)
    source = experiment.record.get("source")
    of = f", from images of {Path(source['path']).name} ({source['modality']})" if source else ""
    return (
        f"{_count(points, 'configuration')} ({presets}), {_count(len(seeds), 'seed')} "
        f"({_list(map(str, seeds))}), {_count(len(runs), 'run')} of {steps} steps, on the dataset "
        f"{Path(dataset['path']).name} ({dataset['modality']}, {sizes} × {sizes} pixels){of}."
    )


def how_far(experiment: Experiment) -> str:
    """How many runs are in which state, in one sentence."""
    counts = Counter(_stage(run) for run in experiment.runs)
    if list(counts) == ["scored"]:
        return "All runs are done and scored."
    return f"State of the runs: {_list(f'{number} {stage}' for stage, number in counts.items())}."


def what_won(experiment: Experiment, score: Score, cells: Sequence[Cell]) -> list[str]:
    """The best of all configurations, by how much and how sure; a sentence each."""
    ranked = in_order(cells, score)
    if not ranked:
        return ["No run that passes the gates has a score."]
    best = next((cell for cell in ranked if cell.is_best), None)
    if best is None:
        first = ranked[0]
        value = score.number(first.mean or 0.0)
        return [ONE_SEED, f"The {_first(score)} so far: {_named(experiment, first)}, {value}."]
    told = f"{_named(experiment, best)}, {_measure(best, score)}"
    return [
        f"Best by {score.label} ({score.better} is better): {told}.",
        *_against_the_rest(experiment, score, ranked, "configuration"),
    ]


def best_of_presets(experiment: Experiment, score: Score, presets: Mapping[str, Sequence[Cell]]) -> list[str]:
    """The best of each preset among its own configurations, a sentence each; none for a single preset."""
    if len(presets) < 2:
        return []
    sentences = []
    for preset, cells in presets.items():
        ranked = in_order(cells, score)
        best = next((cell for cell in ranked if cell.is_best), None)
        if best:
            rest = _against_the_rest(experiment, score, ranked, f"{preset} configuration")
            told = f"{describe(experiment, best.runs[0])}, {_measure(best, score)}"
            sentences.append(" ".join([f"Best {preset}: {told}.", *rest]))
        elif ranked:
            value = score.number(ranked[0].mean or 0.0)
            told = f"{describe(experiment, ranked[0].runs[0])}, {value}"
            sentences.append(f"{_capital(_first(score))} {preset} so far: {told} (1 seed).")
    return sentences


def what_does_not_count(experiment: Experiment) -> list[str]:
    """Gated, failed and outdated runs, a sentence each."""
    gated = [run for run in experiment.runs if run.gates]
    failed = sum(run.status.state in ("failed", "lost") for run in experiment.runs)
    outdated = sum(run.is_outdated for run in experiment.runs)
    sentences = []
    if gated:
        names = Counter(gate["name"] for run in gated for gate in run.gates)
        told = _list(f"{number} {name}" for name, number in names.items())
        sentences.append(f"{_count(len(gated), 'run')} cannot be the best, by the gates: {told}.")
    if failed:
        sentences.append(f"{_count(failed, 'run')} failed.")
    if outdated:
        verb = "was" if outdated == 1 else "were"
        sentences.append(
            f"{_count(outdated, 'run')} {verb} scored by another version of petgan and left out: "
            "petgan evaluate scores them again."
        )
    return sentences


def how_sure(experiment: Experiment, score: Score) -> list[str]:
    """What the headline rests on: its floor, what it sees, learned weights; a sentence each."""
    return [
        f"{_capital(floor_in_words(score))}.",
        f"{_capital(blind_in_words(score))}.",
        *([NO_WEIGHTS] if score.name == "swd" and set(experiment.scores) <= OF_IMAGES else []),
    ]


def notes(experiment: Experiment) -> list[str]:
    """What the evaluations say of themselves, each sentence once."""
    said = [note for run in experiment.runs if run.evaluation for note in run.evaluation.get("notes", [])]
    return list(dict.fromkeys(said))


def what_transfer_gave(experiment: Experiment, score: Score, pairs: Pairs) -> str:
    """The paired difference of one configuration, and how much sooner the transferred runs are there."""
    run = pairs.pairs[0].scratch
    name = ", ".join(filter(None, (run.preset, describe(experiment, run, leave_out=("start",)))))
    if pairs.mean is None:
        return f"Transfer of {name}: no pair has both scores yet."
    told = (
        f"Transfer of {name}: the transferred run has the better {score.label} in {pairs.better} of "
        f"{_count(pairs.count, 'pair')}; {pairs_verdict(pairs)}; mean difference (transferred minus from "
        f"scratch) {score.number(pairs.mean)}"
    )
    if pairs.difference:
        low, high = score.number(pairs.difference.low), score.number(pairs.difference.high)
        told += f" (95 % interval {low} to {high}, p {p_text(pairs.p)} by Holm)"
    return f"{told}. {steps_in_words(pairs)}".strip()


def pairs_verdict(pairs: Pairs) -> str:
    """What the differences show."""
    if pairs.gates:
        return f"not judged, by the gates: {', '.join(pairs.gates)}"
    if pairs.verdict is None:
        return "not judged, from a single pair" if pairs.count == 1 else NO_DIFFERENCE
    return pairs.verdict


def steps_in_words(pairs: Pairs) -> str:
    """How soon both reach the best validation score from scratch, in a sentence; empty if it is not known."""
    if pairs.scratch_steps is None:
        return ""
    reached = (
        f"{pairs.transfer_steps:g} steps"
        if pairs.transfer_steps is not None
        else f"not in {pairs.steps} steps"
    )
    return (
        f"The best validation score from scratch came after {pairs.scratch_steps:g} steps (median), "
        f"transferred: {reached}."
    )


def how_long(experiment: Experiment) -> str:
    """Wall and busy time, and that of the devices, in one sentence."""
    started = [run.status.started for run in experiment.runs if run.status.started]
    updated = [run.status.updated for run in experiment.runs if run.status.updated]
    busy = sum(run.status.busy_seconds for run in experiment.runs)
    if not started or not updated:
        return "No run has been started."
    wall = max(updated) - min(started)
    devices: dict[str, float] = defaultdict(float)
    for run in experiment.runs:
        kind, seconds = run.device_seconds
        devices[kind] += seconds
    hours = _list(f"{seconds / 3600:.3g} {kind} hours" for kind, seconds in devices.items() if seconds)
    return (
        f"{duration(wall)} from the first start to the last sign of life ({when(max(updated))}); "
        f"{duration(busy)} of training over all runs, {hours or 'no hours'}."
    )


def provenance(experiment: Experiment) -> list[tuple[str, str]]:
    """Names and values of what made the results: commands, digests, versions, networks."""
    record = experiment.record
    lineages = [
        read_json(run.folder.lineage_file) for run in experiment.runs if run.folder.lineage_file.is_file()
    ]
    facts = [("command", command) for command in record.get("commands", [])]
    facts.append(("made", record["created"]))
    facts += [
        (f"{kind} digest", record[kind]["digest"]) for kind in ("dataset", "source") if record.get(kind)
    ]
    facts.append(("petgan", record["petgan_version"]))
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
    parts = []
    for name in experiment.varied[run.preset]:
        if name == "start" and name not in leave_out:
            parts.append("transferred" if run.start == "transfer" else "from scratch")
        elif name not in ("start", "preset"):
            parts.append(f"{axis_label(name)} {value_label(run.point.get(name))}")
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


def _named(experiment: Experiment, cell: Cell) -> str:
    return f"{cell.runs[0].preset}, {describe(experiment, cell.runs[0])}"


def _measure(cell: Cell, score: Score) -> str:
    """Such as "0.0123 (95 % interval 0.0110 to 0.0136, 2 of 3 seeds)"."""
    seeds = cell.words or _count(cell.count, "seed")
    between = cell.interval
    told = f"95 % interval {score.number(between.low)} to {score.number(between.high)}, " if between else ""
    return f"{score.number(cell.mean or 0.0)} ({told}{seeds})"


def _against_the_rest(experiment: Experiment, score: Score, ranked: Sequence[Cell], noun: str) -> list[str]:
    """How the best stands to the others of its table: by how much it is better, or that this is not shown."""
    others = [cell for cell in ranked if cell.verdict and cell.verdict.word in ("worse", "tie")]
    single = sum(cell.interval is None for cell in ranked)
    sentences = []
    if others:
        next_one = others[0]
        nearest = f"the next is {_named(experiment, next_one)}, {_behind(next_one.verdict, score)}"
        beaten = sum(cell.verdict is not None and cell.verdict.word == "worse" for cell in others)
        if beaten == len(others):
            all_of_them = "the only other" if beaten == 1 else f"all {beaten} other"
            told = f"It beats {all_of_them} {_plural(noun, beaten)}"
        elif beaten:
            ties = len(others) - beaten
            told = f"It beats {beaten} of {len(others)} other {noun}s; to {ties} no difference is shown"
        else:
            told = f"No difference is shown to {_any_of(len(others), noun)}"
        sentences.append(f"{told}; {nearest}.")
    if single:
        sentences.append(
            f"{_count(single, noun)} with one seed {'is' if single == 1 else 'are'} not compared."
        )
    return sentences


def _any_of(number: int, noun: str) -> str:
    return f"the only other {noun}" if number == 1 else f"any of the {number} other {_plural(noun, number)}"


def _behind(verdict: Verdict | None, score: Score) -> str:
    """How far a configuration is behind the best, such as "0.0020 behind (95 % interval ..., p 0.012)"."""
    if verdict is None or verdict.difference is None:
        return NO_DIFFERENCE
    found = verdict.difference
    low, high = sorted((score.sign * found.low, score.sign * found.high))
    pairs = f", {found.n} paired seeds" if found.paired else f", {found.n} seeds"
    return (
        f"{score.number(score.sign * found.mean)} behind (95 % interval {score.number(low)} to "
        f"{score.number(high)}, p {p_text(verdict.p)} by Holm{pairs})"
    )


def _first(score: Score) -> str:
    return f"{'lowest' if score.better == 'lower' else 'highest'} {score.label}"


def _count(number: int, noun: str) -> str:
    return f"{number} {_plural(noun, number)}"


def _plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}s"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _either(values: Iterable[object]) -> str:
    return " or ".join(map(str, dict.fromkeys(values)))


def _list(parts: Iterable[str]) -> str:
    *most, last = [*parts] or [""]
    return f"{', '.join(most)} and {last}" if most else last
