"""List the points of a grid file, and what has become of each in an experiment. Starts and writes nothing.

Example:
  petgan grid grids/demo.yaml --dataset data/pet.h5
"""

from __future__ import annotations

import argparse

from petgan.cli.experiments import add_grid_arguments, experiment_of, open_grid, print_points
from petgan.cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from petgan.runs import Status
    from petgan.status import known_statuses

    grid, points, dataset = open_grid(args, dataset_needed=False)
    experiment = experiment_of(args, grid)
    statuses = known_statuses(experiment) if experiment.record_file.exists() else {}
    states = [statuses.get(str(point.run_id), Status()).state for point in points]
    if args.json:
        print_json(
            [
                {
                    "run_id": point.run_id,
                    "state": state,
                    "sweeps": point.sweeps,
                    "source": point.source and point.source.model_dump(),
                    "point": point.point.model_dump(mode="json"),
                }
                for point, state in zip(points, states, strict=True)
            ]
        )
        return
    print_points(points, states)
    if dataset is None:
        print("The dataset does not exist yet, so there are no run ids.")
