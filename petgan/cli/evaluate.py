"""Score the finished runs of an experiment against the test images, each score beside its floor.

The floor is the score of as many real images of other patients: nothing within it can be told from chance.
KID and FID need a feature network with learned weights: ImageNet's InceptionV3 from Keras' cache (nothing is
downloaded) or --weights FILE, and any Keras model beside it. Without, the headline is the sliced Wasserstein
distance. Every ruler is first shown spoilt real images: what it does not see stands beside its scores. What
has been scored with the same settings is left as it is.

Example:
  petgan evaluate experiments/mias
  petgan evaluate experiments/mias --weights inception.weights.h5 --network radiology.keras --images 500
  petgan evaluate experiments/mias --check-ruler
  petgan evaluate experiments/thesis-pet --protocol thesis
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

COLUMNS = 4  # scores that a terminal has room for; all of them are in the report and in --json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT", help="its folder")
    parser.add_argument(
        "--protocol",
        choices=("petgan", "thesis"),
        default="petgan",
        help="thesis: the published procedure, quirks included, to set its FID beside published ones",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="learned weights of InceptionV3, no top")
    parser.add_argument(
        "--network",
        type=Path,
        action="append",
        default=[],
        dest="models",
        metavar="FILE",
        help="score under this Keras model, too: grey images in [-1, 1] to features; may be repeated",
    )
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="generated images to score; default: as many as there are test images, "
        "and at least half as many as there are training images, up to 150",
    )
    parser.add_argument(
        "--check-ruler",
        action="store_true",
        help="only find out what each ruler sees on this dataset; needs no finished run",
    )
    parser.add_argument("--force", action="store_true", help="score again what has been scored")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    from petgan.cli.output import print_json
    from petgan.cli.worker import run_worker
    from petgan.errors import EXIT_FAILURE
    from petgan.runs import EVALUATION_SCHEMA, ExperimentFolder, read_json

    experiment = ExperimentFolder(args.experiment)
    experiment.record()  # refused here, not after a worker's start
    names = ("protocol", "weights", "images", "check_ruler", "force")
    options = {name: getattr(args, name) for name in names}
    models = [str(model.resolve()) for model in args.models]
    code = run_worker("evaluate", experiment=args.experiment, models=models, **options)
    if code not in (0, EXIT_FAILURE):
        return code
    if args.check_ruler:
        checks = read_json(experiment.rulers_file)["rulers"] if code == 0 else {}
        print_json(checks) if args.json else _print_checks(checks)
        return code
    evaluations = [
        evaluation
        for run in experiment.run_folders()
        if (evaluation := run.evaluation()) and evaluation.get("schema_version") == EVALUATION_SCHEMA
    ]
    if args.json:
        print_json(evaluations)
    elif evaluations:
        presets = {point["run_id"]: point["point"]["preset"] for point in experiment.record()["points"]}
        _print(evaluations, presets)
    return code


def _print_checks(checks: dict[str, Any]) -> None:
    from petgan.cli.output import print_table

    if not checks:
        return
    names = list(next(iter(checks.values()))["corrupted"])
    rows = [
        [
            name,
            _with_error(check["real"]["value"], check["real"]["spread"]),
            *(
                f"{found['value']:.4g}{'' if found['seen'] else ' not seen'}"
                for found in map(check["corrupted"].get, names)
            ),
        ]
        for name, check in checks.items()
    ]
    print_table(("ruler", "real images", *names), rows)
    print("Scores of real training images, as they are (± their spread over draws) and spoilt.")


def _print(evaluations: list[dict[str, Any]], presets: dict[str, str]) -> None:
    from petgan.cli.output import print_table

    names = list(dict.fromkeys(score["name"] for e in evaluations for score in e["scores"]))
    shown = names[:COLUMNS]
    rows: list[list[str]] = []
    floors: dict[str, list[str]] = {name: [] for name in shown}
    for evaluation in evaluations:
        scores = {score["name"]: score for score in evaluation["scores"]}
        cells = [
            _with_error(scores[n]["value"], scores[n]["standard_error"]) if n in scores else "" for n in shown
        ]
        gates = ", ".join(gate["name"] for gate in evaluation["gates"])
        rows.append([evaluation["run_id"], presets[evaluation["run_id"]], *cells, gates])
        for name in shown:
            floor = scores[name]["floor"] if name in scores else None
            text = "none" if floor is None else _with_error(floor["value"], floor["standard_deviation"])
            floors[name].append(text)
    distinct = ["; ".join(dict.fromkeys(floors[name])) for name in shown]
    print_table(("run", "preset", *shown, "gates"), [*rows, ["floor", "real images", *distinct, ""]])
    for n_real, n_fake in sorted({(s["n_real"], s["n_fake"]) for e in evaluations for s in e["scores"]}):
        print(f"{n_fake} generated against {n_real} real images.")
    print("± is the standard error; for the floor, the deviation over random splits of the real images.")
    better = {score["name"]: score["better"] for e in evaluations for score in e["scores"]}
    higher = [name for name in shown if better[name] == "higher"]
    print("Lower is better" + (f", but for {', '.join(higher)}." if higher else "."))
    if len(names) > len(shown):
        print(f"Also scored: {', '.join(names[COLUMNS:])}: see the report, or --json.")
    for note in dict.fromkeys(note for e in evaluations for note in e["notes"]):
        print(f"note: {note}")


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
