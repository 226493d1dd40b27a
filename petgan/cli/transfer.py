"""Train on, from the best networks of another experiment.

For each preset of the grid it takes the best point of SOURCE, by the mean of a score over the seeds, and
that point's best run. Every point of the grid is trained twice, with the same seeds and steps: from scratch,
and from those networks. SOURCE may also be the folder of a run, or a file of weights.

Example:
  petgan transfer grids/demo-transfer.yaml --from experiments/demo --dataset data/pet.h5
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
from petgan.cli.output import print_table, progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid_arguments(parser)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="SOURCE",
        help="experiment, run folder or weights (.h5)",
    )
    parser.add_argument(
        "--score", metavar="NAME", help="what the best is chosen by: kid, fid or swd, default: the headline"
    )
    add_start_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be started, and write nothing")


def run(args: argparse.Namespace) -> None:
    from petgan import submit, transfer

    grid, points, dataset = open_grid(args, dataset_needed=not args.dry_run)
    experiment = experiment_of(args, grid)
    sources, score = transfer.find_sources(args.source, points, args.score)
    print_table(
        ("preset", "starts from", score or "score"),
        [(s.preset, s.checkpoint, None if s.value is None else f"{s.value:.4g}") for s in sources.values()],
    )
    both = transfer.pairs(points, sources, dataset)
    if dataset is None:
        print_points(both, ["new"] * len(both))
        print("The dataset does not exist yet, so there are no run ids.")
        return
    parent = transfer.parent_record(args.source, sources, score)
    if args.dry_run:
        plan = submit.make_plan(grid, both, dataset, experiment, command=command_line(), parent=parent)
        print_points(both, list(plan.states.values()))
        print(f"would start {len(plan.to_start)} runs in {experiment.path}")
        return
    with progress_bar("training", "steps") as progress:
        started = submit.submit(
            grid,
            both,
            dataset,
            experiment,
            cluster=args.cluster,
            command=command_line(),
            parallel=args.parallel,
            parent=parent,
            progress=progress,
        )
    print_started(started, experiment, args.cluster)
