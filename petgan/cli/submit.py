"""Train the points of a grid: all that are neither done nor under way.

Each point becomes a run in the experiment's folder. Give the same command again after a failure, or after
the grid has grown: what is done stays, what was interrupted goes on from its last checkpoint.

Example:
  petgan submit grids/demo.yaml --dataset data/pet.h5 --dry-run
  petgan submit grids/demo.yaml --dataset data/pet.h5
"""

from __future__ import annotations

import argparse

from petgan.cli.experiments import (
    add_grid_arguments,
    add_start_arguments,
    command_line,
    experiment_of,
    open_grid,
    print_points,
    print_started,
)
from petgan.cli.output import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid_arguments(parser)
    add_start_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be started, and write nothing")


def run(args: argparse.Namespace) -> None:
    from petgan import submit

    grid, points, dataset = open_grid(args, dataset_needed=not args.dry_run)
    experiment = experiment_of(args, grid)
    if dataset is None:
        print_points(points, ["new"] * len(points))
        print("The dataset does not exist yet, so there are no run ids.")
        return
    if args.dry_run:
        plan = submit.make_plan(grid, points, dataset, experiment, command=command_line())
        print_points(points, list(plan.states.values()))
        parallel = args.parallel or submit.default_parallel(grid.resources)
        print(f"would start {len(plan.to_start)} runs in {experiment.path}, {parallel} at a time")
        return
    with progress_bar("training", "steps") as progress:
        started = submit.submit(
            grid,
            points,
            dataset,
            experiment,
            cluster=args.cluster,
            command=command_line(),
            parallel=args.parallel,
            progress=progress,
        )
    print_started(started, experiment, args.cluster)
