"""Seconds that `petgan submit` takes for many points, on a real Slurm; the jobs are held and cancelled again.

    python benchmarks/submission.py --profile slurm/profiles/testbed.yaml --points 1000 10000

For comparison, in the same run: one `sbatch` of a single job, times the number of points, which is what a
loop over the points would take.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from startup import make_dataset

from petgan import slurm, submit
from petgan.grid import expand, load_grid
from petgan.profile import load_profile
from petgan.runs import ExperimentFolder
from petgan.store import Dataset

HELD = "#!/bin/sh\n#SBATCH --hold --time=1\ntrue\n"
SINGLE_JOBS = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--points", type=int, nargs="+", default=[1000, 10000])
    args = parser.parse_args()
    profile = load_profile(args.profile)
    profile = profile.model_copy(update={"sbatch": (*profile.sbatch, "--hold")})
    single = seconds_of_a_job()
    print("| points | arrays | petgan submit | one sbatch a point |\n|---|---|---|---|")
    for points in args.points:
        arrays, seconds = submitted(points, submit.Target("slurm", profile=profile))
        print(f"| {points} | {arrays} | {seconds:.1f} s | {single * points:.0f} s |", flush=True)


def seconds_of_a_job() -> float:
    """Median seconds of one sbatch."""
    times, jobs = [], []
    for _ in range(SINGLE_JOBS):
        start = time.perf_counter()
        jobs.append(slurm.submit(HELD))
        times.append(time.perf_counter() - start)
    slurm.cancel(jobs)
    return statistics.median(times)


def submitted(points: int, target: submit.Target) -> tuple[int, float]:
    """Number of arrays, and seconds from the grid file to the last array in the queue."""
    side = max(k for k in range(1, points + 1) if points % k == 0 and k * k <= points)
    dropouts = [round(0.3 + k * 1e-5, 7) for k in range(side)]
    rates = [round(1e-4 + k * 1e-6, 7) for k in range(points // side)]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        dataset, file = make_dataset(Path(folder)), Path(folder) / "grid.yaml"
        file.write_text(
            "name: many\nbase: {steps: 3, batch_size: 8}\nresources: {cpus: 1, mem_gb: 1, time_min: 10}\n"
            "sweeps: [{name: s, preset: gan, product: "
            f"{{dropout: {dropouts}, learning_rate: {rates}}}}}]\n"
        )
        with Dataset(dataset) as opened:
            reference = opened.reference
        experiment = ExperimentFolder(Path(folder) / "experiment")
        start = time.perf_counter()
        grid = load_grid(file)
        submit.submit(grid, expand(grid, reference), reference, experiment, target, command="submission")
        seconds = time.perf_counter() - start
        jobs = [array["job"] for one in experiment.slurm_submissions() for array in one.arrays]
        slurm.cancel(jobs)
    return len(jobs), seconds


if __name__ == "__main__":
    main()
