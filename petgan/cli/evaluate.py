"""Score the finished runs of an experiment against the test images, each score beside its floor.

The floor is the score of as many real training images: nothing below it can be told from chance. KID and
FID need a feature network with learned weights: ImageNet's InceptionV3 from Keras' cache (nothing is
downloaded) or --weights FILE. Without, the score is the sliced Wasserstein distance. What has been scored
with the same settings is left as it is.

Example:
  petgan evaluate experiments/mias
  petgan evaluate experiments/mias --weights inception.weights.h5 --images 500
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", type=Path, metavar="EXPERIMENT", help="its folder")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="learned weights of InceptionV3, no top")
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="generated images to score; default: as many as there are test images, "
        "and at least half as many as there are training images, up to 150",
    )
    parser.add_argument(
        "--resize",
        choices=("antialias", "nearest"),
        default="antialias",
        help="to the network's 299 pixels; nearest is what the published study did",
    )
    parser.add_argument("--force", action="store_true", help="score again what has been scored")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> int:
    from petgan.cli.output import print_json
    from petgan.cli.worker import run_worker
    from petgan.errors import EXIT_FAILURE
    from petgan.runs import ExperimentFolder

    experiment = ExperimentFolder(args.experiment)
    experiment.record()  # refused here, not after a worker's start
    options = {name: getattr(args, name) for name in ("weights", "images", "resize", "force")}
    code = run_worker("evaluate", experiment=args.experiment, **options)
    if code not in (0, EXIT_FAILURE):
        return code
    evaluations = [e for run in experiment.run_folders() if (e := run.evaluation()) is not None]
    if args.json:
        print_json(evaluations)
    elif evaluations:
        presets = {point["run_id"]: point["point"]["preset"] for point in experiment.record()["points"]}
        _print(evaluations, presets)
    return code


def _print(evaluations: list[dict[str, Any]], presets: dict[str, str]) -> None:
    from petgan.cli.output import print_table

    names = list(dict.fromkeys(score["name"] for e in evaluations for score in e["scores"]))
    rows: list[list[str]] = []
    floors: dict[str, list[str]] = {name: [] for name in names}
    for evaluation in evaluations:
        scores = {score["name"]: score for score in evaluation["scores"]}
        cells = [
            _with_error(scores[n]["value"], scores[n]["standard_error"]) if n in scores else "" for n in names
        ]
        rows.append([evaluation["run_id"], presets[evaluation["run_id"]], *cells])
        for name, score in scores.items():
            floor = score["floor"]
            text = "none" if floor is None else _with_error(floor["value"], floor["standard_deviation"])
            floors[name].append(text)
    distinct = ["; ".join(dict.fromkeys(floors[name])) for name in names]
    print_table(("run", "preset", *names), [*rows, ["floor", "real images", *distinct]])
    for n_real, n_fake in sorted({(s["n_real"], s["n_fake"]) for e in evaluations for s in e["scores"]}):
        print(f"{n_fake} generated against {n_real} test images.")
    print("Lower is better. ± is the standard error; for the floor, the deviation over draws of real images.")
    for note in dict.fromkeys(note for e in evaluations for note in e["notes"]):
        print(f"note: {note}")


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
