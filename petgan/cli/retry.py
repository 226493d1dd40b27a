"""Start the runs of an experiment again that failed, were lost, interrupted or cancelled.

Each goes on from its last checkpoint. Runs that are done or under way are left alone.

Example:
  petgan retry experiments/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

from petgan.cli.experiments import add_start_arguments, print_started
from petgan.cli.output import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="folder")
    add_start_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from petgan import submit
    from petgan.runs import ExperimentFolder

    experiment = ExperimentFolder(Path(args.experiment))
    if args.dry_run:
        experiment.record()  # refuses a folder that is none
        for run_id in submit.to_retry(experiment):
            print(f"would start {run_id}")
        return
    with progress_bar("training", "steps") as progress:
        started = submit.retry(experiment, cluster=args.cluster, parallel=args.parallel, progress=progress)
    print_started(started, experiment, args.cluster)
