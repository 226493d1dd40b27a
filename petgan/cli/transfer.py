"""Train on, from the best networks of another experiment.

For each preset of the grid it takes the best point of SOURCE, by the mean of a score over the seeds, and
that point's best run. Every point of the grid is trained twice, with the same seeds and steps: from scratch,
and from those networks. SOURCE may also be the folder of a run, or a file of weights.

Example:
  petgan transfer grids/demo-transfer.yaml --from experiments/demo --dataset data/pet.h5
"""

from __future__ import annotations

import argparse

from petgan.cli.experiments import add_grid_arguments, add_start_arguments, open_grid, start
from petgan.cli.output import print_table


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


def run(args: argparse.Namespace) -> None:
    from petgan import transfer

    grid, points, dataset = open_grid(args, dataset_needed=not args.dry_run)
    sources, score = transfer.find_sources(args.source, points, args.score)
    print_table(
        ("preset", "starts from", score or "score"),
        [(s.preset, s.checkpoint, None if s.value is None else f"{s.value:.4g}") for s in sources.values()],
    )
    both = transfer.pairs(points, sources, dataset)
    start(args, grid, both, dataset, transfer.parent_record(args.source, sources, score))
