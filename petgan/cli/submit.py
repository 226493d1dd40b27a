"""Train the points of a grid: all that are neither done nor under way.

Each point becomes a run in the experiment's folder. Give the same command again after a failure, or after
the grid has grown: what is done stays, what was interrupted goes on from its last checkpoint.

GRID may also be a study: grids, evaluations, the choice of the best, transfers and the report as one chain of
Slurm's jobs.

Example:
  petgan submit grids/demo.yaml --dataset data/pet.h5 --dry-run
  petgan submit grids/demo.yaml --dataset data/pet.h5
  petgan submit grids/thesis-pet.yaml --dataset data/pet.h5 --profile site.yaml
  petgan submit study.yaml --profile site.yaml
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from petgan.cli.experiments import (
    add_grid_arguments,
    add_start_arguments,
    command_line,
    open_grid,
    print_check,
    reference_of,
    start,
    target_of,
)
from petgan.cli.output import print_table

if TYPE_CHECKING:
    from petgan.study import Study
    from petgan.submit import Target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_grid_arguments(parser)
    add_start_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from petgan.study import is_study

    if is_study(args.grid):
        _study(args)
    else:
        start(args, *open_grid(args, dataset_needed=not args.dry_run))


def _study(args: argparse.Namespace) -> None:
    from petgan.errors import ConfigError
    from petgan.study import load_study, submit_study

    target = target_of(args)
    if target.cluster != "slurm" or args.dataset or args.translated or args.experiment:
        raise ConfigError(
            "a study is a chain of Slurm's jobs, which names its own datasets and experiments",
            hint="petgan submit STUDY --cluster slurm --profile FILE",
        )
    study = load_study(args.grid, reference_of)
    if args.dry_run:
        _print_study(study, target)
        return
    queued = submit_study(study, target, command=command_line())
    print_table(
        ("what", "jobs"), [(what, " ".join(jobs) or "nothing to do") for what, jobs in queued.items()]
    )


def _print_study(study: Study, target: Target) -> None:
    from petgan.study import preview

    scripts = list(preview(study, target))
    for _, text in scripts:
        print(text)
    print("would queue, one behind the other:")
    print_table(("what", "script"), [(what, text.splitlines()[1]) for what, text in scripts])
    for stage in study.stages:
        print_check(stage.grid, target, stage.points)
