"""Stop the runs of an experiment: those that train write a checkpoint first, the others never start.

'petgan retry' goes on with them. Runs on Slurm are stopped from any of the cluster's login nodes.

Example:
  petgan cancel experiments/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="folder")
    parser.add_argument(
        "--run", dest="run_id", metavar="ID", help="this run only; the start of its id is enough"
    )


def run(args: argparse.Namespace) -> None:
    from petgan import status
    from petgan.runs import ExperimentFolder

    experiment = ExperimentFolder(Path(args.experiment))
    one = status.find_run(experiment, args.run_id) if args.run_id else None
    jobs = [] if one else status.jobs_queued(experiment)
    counts = status.cancel(experiment, one)
    if jobs and not any(counts.values()):
        print(f"cancelled {len(jobs)} jobs that were to evaluate, choose or report")
    elif not any(counts.values()):
        print("nothing to stop: no run is under way")
    if counts["running"]:
        print(f"asked {counts['running']} running to write a checkpoint and stop")
    if counts["queued"]:
        print(f"cancelled {counts['queued']} that had not started")
