"""Recipes against each other on held-out images, along their training.

    petgan submit grids/few-images.yaml --dataset data/mammograms.h5 --cluster local
    python benchmarks/recipes.py experiments/few-images/runs/* --weights WEIGHTS.h5 --plot recipes.png

The runs are of one dataset and one preset, several seeds a recipe. Every checkpoint that they have kept
(`every: {checkpoint: 500, keep: 8}`) is scored against the images of the test split: by KID in InceptionV3
with the learned weights that are given, or in another network, and by the sliced Wasserstein distance. Then
the last checkpoints are compared with those of the recipe `thesis`, seed by seed: mean difference with its
95 % interval, below 0 where it is better.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from petgan.features import Extractor, find_networks
from petgan.metrics import kernel_distance, sliced_wasserstein
from petgan.runs import RunFolder
from petgan.store import Dataset
from petgan.verdicts import Measured, difference
from petgan.worker import draw, import_quietly

NOISE_SEED = 1
SCORES = ("KID", "SWD")

Scores = dict[int, dict[int, dict[str, float]]]  # by step, by seed, by score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run that is done")
    parser.add_argument("--weights", help="learned weights of InceptionV3, without its top")
    parser.add_argument("--network", nargs=1, default=[], help="Keras model instead, as for petgan evaluate")
    parser.add_argument("--images", type=int, default=512, help="generated, for each score")
    parser.add_argument("--plot", type=Path, help="PNG file for the curves")
    args = parser.parse_args()
    import_quietly()
    if not (networks := find_networks(args.weights, args.network)):
        parser.error("no learned weights of InceptionV3 found: give --weights, or --network")
    extractor = Extractor(networks[-1])
    recipes: dict[str, list[RunFolder]] = {}
    for run in map(RunFolder, args.runs):
        recipes.setdefault(str(run.config().point.recipe), []).append(run)
    configs = [run.config() for runs in recipes.values() for run in runs]
    if len({(config.dataset.digest, config.point.preset) for config in configs}) > 1:
        parser.error("the runs are of several datasets or presets: give those of one")
    for name, runs in recipes.items():
        if len({run.config().point.model_copy(update={"seed": 0}) for run in runs}) > 1:
            parser.error(f"the runs of recipe {name} differ in more than their seeds")
        if len({run.config().point.seed for run in runs}) < len(runs):
            parser.error(f"there are several runs of recipe {name} with one seed")
    held_out = _held_out(RunFolder(args.runs[0]))
    real = extractor.features(held_out)
    print(f"{len(held_out)} held-out images, {args.images} generated; KID in {networks[-1].name}\n")
    print("| recipe | step | seeds | KID x 1e6 | SWD |\n|---|---|---|---|---|")
    found: dict[str, Scores] = {}
    for name, runs in recipes.items():
        found[name] = scores = {}
        for run in runs:
            for checkpoint in run.last_checkpoints():
                images, header = draw(checkpoint, args.images, NOISE_SEED)
                assert header is not None  # noqa: S101
                kid, _ = kernel_distance(real, extractor.features(images))
                swd = sliced_wasserstein(held_out, images)
                scores.setdefault(header.step, {})[header.point.seed] = {"KID": kid, "SWD": swd}
        for step, by_seed in sorted(scores.items()):
            kid, swd = (statistics.fmean(s[score] for s in by_seed.values()) for score in SCORES)
            print(f"| {name} | {step} | {len(by_seed)} | {1e6 * kid:.1f} | {swd:.1f} |", flush=True)
    print()
    base = "thesis" if "thesis" in found else next(iter(found))
    for name, scores in found.items():
        if name != base:
            print(f"{name} minus {base}: {compared(scores, found[base])}")
    if args.plot:
        plot(found, args.plot)


def compared(ours: Scores, theirs: Scores) -> str:
    """The differences of the last checkpoints, in words."""
    told = []
    for score, scale in (("KID", 1e6), ("SWD", 1.0)):
        a, b = (_last(scores, score, scale) for scores in (ours, theirs))
        between = difference(a, b)
        told.append(
            f"{score} {statistics.fmean(a.values.values()) - statistics.fmean(b.values.values()):.1f}"
            if between is None
            else f"{score} {between.mean:.1f} [{between.low:.1f}, {between.high:.1f}], {between.n} seeds"
        )
    return "; ".join(told)


def _last(scores: Scores, score: str, scale: float) -> Measured:
    by_seed = scores[max(scores)]
    return Measured({seed: scale * values[score] for seed, values in by_seed.items()})


def _held_out(run: RunFolder) -> np.ndarray:
    with Dataset(run.config().dataset.path) as dataset:
        return dataset.images("test")[..., 0]


def plot(found: Mapping[str, Scores], path: Path) -> None:
    """Draw each score along the training: each recipe's mean over its seeds, and the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(SCORES), figsize=(9, 3.6), layout="constrained")
    for axes, score, scale in zip(panels, SCORES, (1e6, 1.0), strict=True):
        for name, scores in found.items():
            points = {
                step: [scale * each[score] for each in scores[step].values()] for step in sorted(scores)
            }
            (line,) = axes.plot(list(points), list(map(statistics.fmean, points.values())), label=name)
            for step, values in points.items():
                axes.plot([step] * len(values), values, ".", color=line.get_color(), alpha=0.5)
        axes.set(xlabel="step", ylabel="KID x 1e6" if score == "KID" else score)
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
