"""What the score during training costs, as a share of the training between two scores.

    python benchmarks/scoring.py --sizes 32 64

A score is what a run does every tenth of its steps, by default: as many images as are scored against are
drawn, and set against the validation split. Training is blocks of steps, with the preset's own batch, in
the same process; after each block a score, and the medians count. Images are noise, which takes as long as
others. The share is of runs of 4000 steps, the default, and of short ones of 300; 5 % is the limit for the
former.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from petgan.config import Every, resolve_point
from petgan.distributed import ALONE
from petgan.presets import PRESETS
from petgan.worker import SCORED_IMAGES, _validation_score, import_quietly, use_cpus

RUNS = (4000, 300)  # steps
TRAINING_IMAGES = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 224], help="image sizes, pixels")
    parser.add_argument("--presets", nargs="+", default=["dcgan", "wgan-gp"], choices=sorted(PRESETS))
    parser.add_argument("--images", type=int, default=SCORED_IMAGES, help="images on either side of a score")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block-seconds", type=float, default=4.0, help="of training before each score")
    args = parser.parse_args()
    import_quietly()
    cores = len(os.sched_getaffinity(0))
    use_cpus(cores)
    print(f"{cores} cores, {args.images} images scored against {args.images}")
    print("| preset | pixels | a step | a score |" + "".join(f" of {steps} steps |" for steps in RUNS))
    print("|---" * (4 + len(RUNS)) + "|")
    for preset, size in itertools.product(args.presets, args.sizes):
        step, score = measure(preset, size, args.images, args.rounds, args.block_seconds)
        shares = [score / (Every().resolved(steps).score * step) for steps in RUNS]
        told = " | ".join(
            [preset, str(size), f"{step:.4f} s", f"{score:.3f} s", *(f"{s:.2%}" for s in shares)]
        )
        print(f"| {told} |", flush=True)


def measure(preset: str, size: int, scored: int, rounds: int, block_seconds: float) -> tuple[float, float]:
    """Median seconds of a step and of a score."""
    from petgan.methods import method_of
    from petgan.methods.feed import Data
    from petgan.trainer import in_one_call

    point = resolve_point({"preset": preset, "image_size": size})
    random = np.random.default_rng(0)
    images, validation = (
        random.integers(0, 256, (n, size, size, 1), dtype=np.uint8) for n in (TRAINING_IMAGES, scored)
    )
    method, count = method_of(preset), itertools.count()
    networks = method.make_networks(point)
    update = in_one_call(method.make_update(point, networks, Data(images), ALONE))
    score = _validation_score(validation, preset)

    def block(steps: int) -> None:
        for step in itertools.islice(count, steps):
            metrics = update(step, 1)
        float(metrics["g_loss"][0])

    block(1)  # builds the graph
    steps = max(1, round(block_seconds / seconds(block, 1)))
    seconds(score, networks.ema_generator)
    times = [(seconds(block, steps) / steps, seconds(score, networks.ema_generator)) for _ in range(rounds)]
    of_steps, of_scores = zip(*times, strict=True)
    return statistics.median(of_steps), statistics.median(of_scores)


def seconds(work: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
