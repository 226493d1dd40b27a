"""What the commands on grids and experiments share."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petgan.cli.output import print_table, progress_bar

if TYPE_CHECKING:
    from petgan.config import DatasetRef
    from petgan.grid import Grid, GridPoint
    from petgan.runs import ExperimentFolder
    from petgan.submit import Target


def add_grid_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID", help="grid file (YAML)")
    parser.add_argument("--dataset", metavar="FILE", help="dataset, instead of the one that the grid names")
    parser.add_argument(
        "--source",
        dest="translated",
        metavar="FILE",
        help="dataset whose images are translated, instead of the grid's; for presets that do that",
    )
    parser.add_argument("--experiment", metavar="DIR", help="default: experiments/<the grid's name>")


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        choices=("local", "inline", "slurm"),
        help="local: in processes that outlive this command; inline: in the foreground; slurm: as job "
        "arrays. Default: slurm with a profile, otherwise local; retry: as they were submitted",
    )
    parser.add_argument(
        "--profile", metavar="FILE", help="the site's Slurm settings (YAML), see docs/cluster.md"
    )
    parser.add_argument(
        "--max-parallel",
        "--parallel",
        dest="parallel",
        type=int,
        metavar="N",
        help="runs that train at once, default: as many as there is room for",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be started, and write nothing")


def open_grid(
    args: argparse.Namespace, *, dataset_needed: bool
) -> tuple[Grid, list[GridPoint], DatasetRef | None]:
    """The grid, its points, and its dataset, or None where that or the source does not exist yet."""
    from petgan.errors import ConfigError
    from petgan.grid import expand, load_grid

    grid = load_grid(args.grid)
    path = args.dataset or grid.dataset
    if path is None and dataset_needed:
        raise ConfigError(f"{args.grid} names no dataset", hint="give one with --dataset")
    files = [path, *filter(None, [args.translated or grid.source])]
    if not dataset_needed and not all(file is not None and Path(file).exists() for file in files):
        return grid, expand(grid), None
    dataset, *source = (reference_of(file) for file in files)
    return grid, expand(grid, dataset, *source), dataset


def reference_of(path: Path | str) -> DatasetRef:
    """What a run keeps of the dataset in the file `path`."""
    from petgan.store import Dataset

    with Dataset(path) as opened:
        return opened.reference


def target_of(args: argparse.Namespace) -> Target:
    """Where the options say that runs are to train."""
    from petgan.errors import ConfigError
    from petgan.profile import Profile, load_profile
    from petgan.submit import Target

    cluster = args.cluster or ("slurm" if args.profile else "local")
    if args.profile and cluster != "slurm":
        raise ConfigError("a profile is for Slurm", value=f"--cluster {cluster}", allowed="--cluster slurm")
    profile = load_profile(args.profile) if args.profile else Profile()
    return Target(cluster, args.parallel, profile)


def start(
    args: argparse.Namespace,
    grid: Grid,
    points: Sequence[GridPoint],
    dataset: DatasetRef | None,
    parent: dict[str, Any] | None = None,
) -> None:
    """Submit the points, or with ``--dry-run`` say what would be started."""
    from petgan import local, submit

    target = target_of(args)
    experiment, command = experiment_of(args, grid), command_line()
    if dataset is None:
        print_points(points, ["new"] * len(points))
        print("The dataset does not exist yet, so there are no run ids.")
        return
    if args.dry_run:
        plan = submit.make_plan(grid, points, dataset, experiment, command=command, parent=parent)
        print_points(points, list(plan.states.values()))
        if target.cluster == "slurm":
            print_scripts(experiment, grid, target, points, len(plan.to_start))
            return
        parallel = args.parallel or local.default_parallel(grid.resources)
        print(f"would start {len(plan.to_start)} runs in {experiment.path}, {parallel} at a time")
        return
    with progress_bar("training", "steps") as progress:
        started = submit.submit(
            grid,
            points,
            dataset,
            experiment,
            target,
            command=command,
            parent=parent,
            progress=progress,
        )
    print_started(started, experiment, target.cluster)


def print_scripts(
    experiment: ExperimentFolder, grid: Grid, target: Target, points: Sequence[GridPoint], runs: int
) -> None:
    """What would be handed to sbatch; checked where there is a Slurm to ask."""
    from petgan import submit
    from petgan.runs import ExperimentFolder

    absolute = ExperimentFolder(experiment.path.resolve())
    for text in submit.preview(absolute, grid.resources, target, runs) if runs else []:
        print(text)
    print(f"would start {runs} runs in {experiment.path}")
    print_check(grid, target, points)


def print_check(grid: Grid, target: Target, points: Sequence[GridPoint]) -> None:
    """Say whether Slurm would take the jobs of a grid.

    Raises
    ------
    UserError
        If it would not.
    """
    from petgan import slurm, submit

    if slurm.available():
        submit.check_target(target, grid.resources, [point.point.batch_size for point in points])
        print("Slurm would take these jobs.")
    else:
        print("There is no Slurm here: nothing has been checked against a cluster.")


def experiment_of(args: argparse.Namespace, grid: Grid) -> ExperimentFolder:
    from petgan.runs import ExperimentFolder

    return ExperimentFolder(Path(args.experiment or f"experiments/{grid.name}"))


def command_line() -> str:
    """The command as it was given, for the record."""
    return shlex.join(["petgan", *sys.argv[1:]])


def print_points(points: Sequence[GridPoint], states: Sequence[str]) -> None:
    """A table of points and their states, and how many there are of each."""
    from petgan.status import differing_keys

    values = [point.point.model_dump() for point in points]
    keys = differing_keys(values)
    print_table(
        ("run", "preset", "axes", "seed", "start", "state"),
        [
            (point.run_id, v["preset"], axes_text(v, keys[v["preset"]]), v["seed"], point.start, state)
            for point, v, state in zip(points, values, states, strict=True)
        ],
    )
    print(f"{len(points)} points: {counts_text(Counter(states))}")


def axes_text(values: dict[str, Any], keys: Sequence[str]) -> str:
    return " ".join(f"{key}={values[key]}" for key in keys)


def counts_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def print_started(runs: Sequence[str], experiment: ExperimentFolder, cluster: str) -> None:
    if not runs:
        print(f"nothing to start in {experiment.path}: every run is done or under way")
    elif cluster == "inline":
        print(f"trained {len(runs)} runs in {experiment.path}")
    else:
        word = "queued" if cluster == "slurm" else "started"
        print(f"{word} {len(runs)} runs in {experiment.path}; watch them: ", end="")
        print(shlex.join(["petgan", "status", str(experiment.path), "--watch"]))
