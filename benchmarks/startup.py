"""Seconds from `petgan submit` to the first step of a run on Slurm, and where they go.

    python benchmarks/startup.py --profile slurm/profiles/testbed.yaml --rounds 3

A run of the preset gan at 16 pixels is submitted to an idle cluster and watched from outside, ten times a
second. The medians of several rounds count.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from petgan import slurm, submit
from petgan.grid import expand, load_grid
from petgan.profile import load_profile
from petgan.runs import ExperimentFolder
from petgan.store import Dataset, Row, write_dataset

GRID = """
name: startup
base: {steps: 3, batch_size: 8}
resources: {cpus: 1, mem_gb: 2, time_min: 10}
every: {log: 1}
sweeps: [{name: s, preset: gan}]
"""
STAGES = (
    "petgan submit",
    "Slurm starts the job",
    "container, Python, claim",
    "TensorFlow, graph, first step",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rounds = [one_round(args.profile) for _ in range(args.rounds)]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    for stage, median in zip((*STAGES, "all"), (*medians, sum(medians)), strict=True):
        print(f"{median:6.1f} s  {median / sum(medians):4.0%}  {stage}")


def one_round(profile: str) -> list[float]:
    """Seconds of each of `STAGES`."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        dataset, grid = make_dataset(Path(folder)), Path(folder) / "grid.yaml"
        grid.write_text(GRID)
        with Dataset(dataset) as opened:
            reference = opened.reference
        experiment = ExperimentFolder(Path(folder) / "experiment")
        loaded, marks = load_grid(grid), [time.perf_counter()]
        target = submit.Target("slurm", profile=load_profile(profile))
        (run_id,) = submit.submit(
            loaded, expand(loaded, reference), reference, experiment, target, command="startup"
        )
        marks.append(time.perf_counter())
        run, jobs = experiment.run(run_id), [a["job"] for a in experiment.slurm_submissions()[0].arrays]
        marks.append(when(lambda: any(t.state == "RUNNING" for t in slurm.queue(jobs).values())))
        marks.append(when(lambda: run.status().state in ("running", "done")))
        marks.append(when(lambda: bool(run.metrics())))
        when(lambda: not slurm.queue(jobs))
        return [after - before for before, after in itertools.pairwise(marks)]


def when(condition: Callable[[], bool]) -> float:
    """The time at which a condition is met."""
    while not condition():
        time.sleep(0.1)
    return time.perf_counter()


def make_dataset(folder: Path) -> Path:
    """Noise of 8 patients, 16 pixels."""
    random = np.random.default_rng(0)
    rows = [
        (
            Row(f"p{p}", f"s{p}", ("train", "validation", "test")[p % 3], "slice"),
            random.integers(0, 256, (16, 16)),
        )
        for p in range(8)
    ]
    path = folder / "data.h5"
    items = ((row, image.astype(np.uint8)) for row, image in rows)
    write_dataset(path, items, image_size=16, modality="pet", units="bqml", window="full")
    return path


if __name__ == "__main__":
    main()
