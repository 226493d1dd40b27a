"""How far the runs of an experiment are, with speed, time left, last losses and, once there, scores.

Example:
  petgan status experiments/demo --watch
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from petgan.cli.experiments import axes_text, counts_text
from petgan.cli.output import print_json, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from petgan.status import ExperimentStatus, RunStatus

WATCH_SECONDS = 2.0
MANY = 200  # rows that one still looks at; beyond, only runs under way or in trouble are listed
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "lost": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="folder")
    parser.add_argument("--watch", action="store_true", help="keep showing it until no run is under way")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.live import Live

    from petgan.runs import ExperimentFolder
    from petgan.status import experiment_status

    experiment = ExperimentFolder(Path(args.experiment))
    status = experiment_status(experiment)
    if args.json:
        print_json(asdict(status))
        return
    console = Console(width=None if sys.stdout.isatty() else 200)
    if not args.watch:
        console.print(_page(status))
        return
    with Live(_page(status), console=console, auto_refresh=False) as live:
        while not status.finished:
            time.sleep(WATCH_SECONDS)
            status = experiment_status(experiment)
            live.update(_page(status), refresh=True)


def _page(status: ExperimentStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    shown = status.runs
    if len(shown) > MANY:
        shown = [run for run in shown if run.state not in ("done", "queued", "new")][:MANY]
    runs = table(
        ("run", "preset", "axes", "seed", "state", "step", "steps/s", "left", "last losses", "score"),
        map(_row, shown),
    )
    total = f"{len(status.runs)} runs: {counts_text(status.counts)}"
    if status.seconds_left is not None:
        total += f"; about {_duration(status.seconds_left)} left"
    if len(shown) < len(status.runs):
        total += f"; shown: {len(shown)} under way or in trouble (--json gives all)"
    errors = [Text(f"{run.run_id}: {run.error}") for run in shown if run.state == "failed"]
    return Group(runs, Text(total), *errors)


def _row(run: RunStatus) -> tuple[object, ...]:
    axes = axes_text(run.axes, list(run.axes))
    if run.start == "transfer":
        axes = f"transfer {axes}".strip()
    colour = _COLOURS.get(run.state)
    losses = {key: value for key, value in run.last.items() if key.endswith("loss")}
    return (
        run.run_id,
        run.preset,
        axes,
        run.seed,
        f"[{colour}]{run.state}[/]" if colour else run.state,
        f"{run.step}/{run.steps}",
        None if run.steps_per_second is None else f"{run.steps_per_second:.2f}",
        None if run.seconds_left is None else _duration(run.seconds_left),
        " ".join(f"{key} {value:.3g}" for key, value in losses.items()),
        _score(run),
    )


def _score(run: RunStatus) -> str | None:
    if run.score is None:
        return None
    error = run.score["standard_error"]
    spread = "" if error is None else f" ± {error:.2g}"
    return f"{run.score['name']} {run.score['value']:.4g}{spread}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
