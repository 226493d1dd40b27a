"""Which configuration of an experiment is the best, of each preset and of all, and how sure that is.

Configurations are compared by their means over seeds. One beats another where a difference is shown, at a
level of 5 % for all comparisons of a line together. The best is never one of a single seed beside others of
several, nor one with a run that a gate blocks, such as a run that copies training images.

Example:
  petgan best experiments/pet
  petgan best experiments/pet --score fid --json
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petgan.choice import Choice, Configuration
    from petgan.runs import ExperimentFolder
    from petgan.verdicts import Measured, Verdict

SCHEMA_VERSION = 1
_OF_BEST = ("name", "configuration", "run_ids", "seeds", "mean", "low", "high")
_NAMED = 5  # configurations that a sentence names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="its folder")
    parser.add_argument(
        "--score",
        metavar="NAME",
        help="compare by this score, such as fid; default: the evaluation's headline",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from petgan.choice import best_by_preset, best_overall, configurations, headline, read_scores
    from petgan.cli.output import print_json
    from petgan.runs import ExperimentFolder

    experiment = ExperimentFolder(args.experiment)
    records = read_scores(experiment)
    score = args.score or headline(records)
    overall, by_preset = best_overall(records, score), best_by_preset(records, score)
    every = sorted(configurations(records, score), key=lambda one: one.place)
    names = _names(every)
    first = every[0].scores[0]
    found = {
        "schema_version": SCHEMA_VERSION,
        "score": score,
        **{key: getattr(first, key) for key in ("better", "ruler", "protocol", "n_real", "n_fake")},
        "of_patients": bool(first.without),
        "overall": _standing(every, names, overall, experiment),
        "presets": {
            preset: _standing(
                [c for c in every if c.preset == preset], names, by_preset.get(preset), experiment
            )
            for preset in dict.fromkeys(record.preset for record in records if record.name == score)
        },
    }
    if args.json:
        print_json(found)
    else:
        _print(found)


# --- what is found, as JSON has it --------------------------------------------------------------


def _names(every: Sequence[Configuration]) -> dict[tuple[str, ...], str]:
    """What sets each configuration apart, such as "gan dropout=0.4", by its runs."""
    from petgan.cli.experiments import axes_text
    from petgan.status import differing_keys

    keys = differing_keys(one.values for one in every)
    starts = {(one.preset, one.start) for one in every}
    names = {}
    for one in every:
        both = {(one.preset, "scratch"), (one.preset, "transfer")} <= starts
        axes = axes_text(dict(one.values), keys[one.preset])
        names[one.run_ids] = " ".join(filter(None, (one.preset, one.start if both else "", axes)))
    return names


def _standing(
    configurations: Sequence[Configuration],
    names: Mapping[tuple[str, ...], str],
    choice: Choice | None,
    experiment: ExperimentFolder,
) -> dict[str, Any]:
    """The best of some configurations, which is `choice`, and where the others stand."""
    rows = [
        _row(names[one.run_ids], one, measured, verdict)
        for one, measured, verdict in _verdicts(configurations)
    ]
    best = None
    if choice:
        chosen = next(row for row in rows if row["run_ids"] == list(choice.run_ids))
        best = {
            **{key: chosen[key] for key in _OF_BEST},
            "reservation": choice.reservation,
            "run_id": choice.best_run,
            "value": choice.best_value,
            "path": str(experiment.run(choice.best_run).path),
        }
    return {"best": best, "configurations": rows}


def _verdicts(configurations: Sequence[Configuration]) -> Iterator[tuple[Configuration, Measured, Verdict]]:
    """Each with its verdict: those that gates block are not compared."""
    from petgan.verdicts import Measured, Verdict, against_best

    measured = {
        one.run_ids: Measured({s.seed: s.value for s in one.scores}, {s.seed: s.without for s in one.scores})
        for one in configurations
    }
    free = [one.run_ids for one in configurations if not one.gates]
    compared = against_best([measured[runs] for runs in free], configurations[0].scores[0].better)
    verdicts = dict(zip(free, compared.verdicts, strict=True))
    for one in configurations:
        yield one, measured[one.run_ids], verdicts.get(one.run_ids, Verdict("gated"))


def _row(name: str, one: Configuration, measured: Measured, verdict: Verdict) -> dict[str, Any]:
    from petgan.verdicts import interval

    within = interval(measured)
    return {
        "name": name,
        "configuration": dict(one.values),
        "start": one.start,
        "run_ids": list(one.run_ids),
        "seeds": [score.seed for score in one.scores],
        "mean": one.mean,
        "low": within.low if within else None,
        "high": within.high if within else None,
        "gates": list(one.gates),
        "verdict": verdict.word,
        "difference": asdict(verdict.difference) if verdict.difference else None,
        "adjusted_p": verdict.p,
    }


# --- in words -----------------------------------------------------------------------------------


def _print(found: dict[str, Any]) -> None:
    from petgan.cli.output import print_table

    standings = {"all": found["overall"], **found["presets"]}
    if len(found["presets"]) == 1:
        del standings["all"]
    print_table(
        ("of", "best configuration", f"mean {found['score']}", "95 % interval", "seeds", "run to take"),
        [_cells(of, standing["best"]) for of, standing in standings.items()],
    )
    for of, standing in standings.items():
        print(f"{of}: {_words(standing)}.")
    print(
        f"{found['better'].capitalize()} is better. {found['n_fake']} generated against {found['n_real']} "
        f"real images, protocol {found['protocol']}, by {found['ruler']}."
    )
    of = "seeds and test patients" if found["of_patients"] else "seeds alone"
    print(f"Intervals speak of {of}; the verdicts of a line hold together at 5 %.")


def _cells(of: str, best: dict[str, Any] | None) -> tuple[object, ...]:
    if best is None:
        return (of, "none")
    within = None if best["low"] is None else f"{best['low']:.4g} to {best['high']:.4g}"
    return (of, best["name"], f"{best['mean']:.4g}", within, len(best["seeds"]), best["path"])


def _words(standing: dict[str, Any]) -> str:
    """Such as "gan dropout=0.5 beats 5 of 7 other configurations; no difference is shown to ..."."""
    best = standing["best"]
    others: dict[str, list[str]] = defaultdict(list)
    for row in standing["configurations"]:
        if best is None or row["run_ids"] != best["run_ids"]:
            gates = f" ({', '.join(row['gates'])})" if row["gates"] else ""
            others[row["verdict"]].append(f"{row['name']}{gates}")
    worse, compared = len(others["worse"]), len(others["worse"]) + len(others["tie"])
    if best is None:
        said = ["there is no best"]
    elif best["reservation"]:
        said = [f"{best['name']} comes first, {best['reservation']}"]
    elif compared:
        noun = "other configuration" if compared == 1 else "other configurations"
        said = [f"{best['name']} beats {worse or 'none'} of {compared} {noun}"]
    else:
        said = [f"{best['name']} has nothing to be compared with"]
    for verdict, words in (
        ("tie", "no difference is shown to"),
        ("single seed", "not compared, as of a single seed:"),
        ("gated", "blocked by gates:"),
    ):
        if others[verdict]:
            said.append(f"{words} {_few(others[verdict])}")
    return "; ".join(said)


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more (--json names them)" if more > 0 else "")
