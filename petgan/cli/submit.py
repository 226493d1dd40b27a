"""Train the points of a grid: all that are neither done nor under way.

Each point becomes a run in the experiment's folder. Give the same command again after a failure, or after
the grid has grown: what is done stays, what was interrupted goes on from its last checkpoint.

Example:
  petgan submit grids/demo.yaml --dataset data/pet.h5 --dry-run
  petgan submit grids/demo.yaml --dataset data/pet.h5
"""

from __future__ import annotations

import argparse

from petgan.cli.experiments import add_grid_arguments, add_start_arguments, open_grid, start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid_arguments(parser)
    add_start_arguments(parser)


def run(args: argparse.Namespace) -> None:
    start(args, *open_grid(args, dataset_needed=not args.dry_run))
