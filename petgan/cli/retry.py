"""Start the runs of an experiment again that failed, were lost, interrupted or cancelled.

Each goes on from its last checkpoint, on the cluster that it was last sent to, unless --cluster says
otherwise. Runs that are done or under way are left alone.

Example:
  petgan retry experiments/demo
  petgan retry experiments/pet --other-nodes
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from petgan.cli.experiments import add_start_arguments, print_started, target_of
from petgan.cli.output import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="folder")
    add_start_arguments(parser)
    parser.add_argument(
        "--other-nodes", action="store_true", help="on Slurm: keep away from the nodes on which they stopped"
    )


def run(args: argparse.Namespace) -> None:
    from petgan import submit
    from petgan.runs import ExperimentFolder

    experiment = ExperimentFolder(Path(args.experiment))
    if args.dry_run:
        experiment.record()  # refuses a folder that is none
        for run_id in submit.to_retry(experiment):
            print(f"would start {run_id}")
        return
    target = target_of(args) if args.cluster or args.profile else submit.last_target(experiment)
    if target.cluster == "slurm" and not args.profile:
        print("with the profile of the last submission; --profile FILE takes another")
    if args.parallel is not None:
        target = replace(target, parallel=args.parallel)
    if args.other_nodes:
        target = replace(target, exclude=submit.nodes_of(experiment, submit.to_retry(experiment)))
    with progress_bar("training", "steps") as progress:
        started = submit.retry(experiment, target, progress=progress)
    print_started(started, experiment, target.cluster)
