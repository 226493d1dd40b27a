"""Steps per second of each preset, beside the machine's matrix rate in the same run.

    python benchmarks/training.py --sizes 32 64

A step is one update of the generator and ``n_critic`` updates of the discriminator, batch 32, all cores.
Medians of several blocks of steps; the first step, which builds the graph, does not count.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from petgan.config import resolve_point
from petgan.presets import PRESETS
from petgan.steps import make_networks, make_update
from petgan.worker import use_cpus

BLOCKS = 5
BLOCK_SECONDS = 2.0


def steps_per_second(preset: str, image_size: int, batch_size: int) -> float:
    point = resolve_point({"preset": preset, "image_size": image_size, "batch_size": batch_size})
    shape = (256, image_size, image_size, 1)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    update = make_update(point, make_networks(point), images)
    count = itertools.count()

    def block(steps: int) -> float:
        start = time.perf_counter()
        for step in itertools.islice(count, steps):
            metrics = update(tf.constant(step))
        float(metrics["g_loss"])
        return time.perf_counter() - start

    block(1)
    steps = max(1, round(BLOCK_SECONDS / block(1)))
    return steps / statistics.median(block(steps) for _ in range(BLOCKS))


def matrix_gflops(n: int = 2048) -> float:
    """float32 matrix products of NumPy, all cores: the rate that everything else is measured by."""
    a = np.random.default_rng(0).standard_normal((n, n), np.float32)
    seconds = []
    for _ in range(BLOCKS):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2e-9 * n**3 / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64], help="image sizes, pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    use_cpus(cores)
    print(f"{cores} cores, {matrix_gflops():.0f} GFLOP/s float32, batch {args.batch_size}")
    print(f"{'preset':8}" + "".join(f"{size:>6} px" for size in args.sizes) + "   (steps/s)")
    for preset in PRESETS:
        speeds = [steps_per_second(preset, size, args.batch_size) for size in args.sizes]
        print(f"{preset:8}" + "".join(f"{speed:9.2f}" for speed in speeds), flush=True)


if __name__ == "__main__":
    main()
