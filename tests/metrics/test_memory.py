"""No metric of features makes a float64 copy of a set, or a matrix of all pairs."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from petgan.metrics import (
    blocks,
    density_coverage,
    frechet_distance,
    frechet_infinity,
    kernel_distance,
    nearest_distances,
    precision_recall,
)

MANY, WIDE = (20_000, 64), (3000, 256)


def kernel_of_all(real, fake):
    kernel_distance(real, fake, subsets=10, subset_size=1500)


def kernel_of_each_subset(real, fake):
    kernel_distance(real, fake, subsets=4, subset_size=1000)


@pytest.mark.parametrize(
    ("metric", "shape", "float32_copies"),
    [
        (frechet_distance, MANY, 0),
        (frechet_infinity, MANY, 1),  # of the largest subset
        (kernel_of_all, WIDE, 0),
        (kernel_of_each_subset, WIDE, 2 / 3),  # of a third of either set
        (precision_recall, WIDE, 0),
        (density_coverage, WIDE, 0),
        (nearest_distances, WIDE, 0),
    ],
)
def test_memory_is_that_of_blocks(monkeypatch, metric, shape, float32_copies):
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", 64)
    real, fake = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    tracemalloc.start()
    try:
        metric(real, fake)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (float32_copies + 0.5) * real.nbytes


def test_memory_of_the_process_counts_what_lapack_takes():
    script = """
import numpy as np
from petgan.metrics import frechet_distance
def peak():
    status = open("/proc/self/status").read().split()  # getrusage's peak begins with that of the parent
    return 1024 * int(status[status.index("VmHWM:") + 1])
random = np.random.default_rng(0)
frechet_distance(*random.standard_normal((2, 300, 64)))  # whatever is loaded and kept
real, fake = random.standard_normal((2, 200_000, 64), np.float32)
before = peak()
frechet_distance(real, fake)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert int(done.stdout) < 200_000 * 64 * 8 / 4  # a quarter of a set in float64
