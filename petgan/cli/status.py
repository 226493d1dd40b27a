"""How far the runs of an experiment are, with speed, time left, last losses and, once there, scores.

On Slurm also why a run waits, where it trains, and how well the finished ones used what they had asked for.

Example:
  petgan status experiments/demo --watch
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from petgan.cli.experiments import axes_text, counts_text
from petgan.cli.output import print_json, table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from petgan.status import Efficiency, ExperimentStatus, RunStatus, StageStatus

WATCH_SECONDS = 2.0
WATCH_SLURM_SECONDS = 10.0  # everybody on the cluster asks the same scheduler
MANY = 200  # rows that one still looks at; beyond, only runs under way or in trouble are listed
_COLOURS = {"done": "green", "running": "cyan", "failed": "red", "lost": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="folder")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="keep showing it until no run is under way")
    what.add_argument(
        "--efficiency",
        action="store_true",
        help="what the jobs of runs that have ended used of what they had asked for, by Slurm's accounting",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.live import Live

    from petgan.runs import ExperimentFolder
    from petgan.status import efficiency, experiment_status

    experiment = ExperimentFolder(Path(args.experiment))
    console = Console(width=None if sys.stdout.isatty() else 200)
    if args.efficiency:
        jobs = efficiency(experiment)
        if args.json:
            print_json([asdict(job) for job in jobs])
        else:
            console.print(_efficiency_page(jobs))
        return
    status = experiment_status(experiment)
    if args.json:
        print_json(asdict(status))
        return
    if not args.watch:
        console.print(_page(status))
        return
    on_slurm = bool(experiment.slurm_submissions())
    with Live(_page(status), console=console, auto_refresh=False) as live:
        while not status.finished:
            time.sleep(WATCH_SLURM_SECONDS if on_slurm else WATCH_SECONDS)
            status = experiment_status(experiment)
            live.update(_page(status), refresh=True)


def _page(status: ExperimentStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    shown = status.runs
    if len(shown) > MANY:
        shown = [run for run in shown if run.trouble or run.state not in ("done", "queued", "new")][:MANY]
    columns = ["run", "preset", "axes", "seed", "state", "step", "steps/s", "left", "last losses", "score"]
    rows = [_row(run) for run in shown]
    if any(run.job for run in status.runs):
        columns[5:5] = ["job", "node"]
        rows = [(*row[:5], run.job, run.node, *row[5:]) for row, run in zip(rows, shown, strict=True)]
    if any(run.trouble for run in status.runs):
        at = columns.index("step")
        columns[at:at] = ["trouble"]
        rows = [(*row[:at], _trouble(run), *row[at:]) for row, run in zip(rows, shown, strict=True)]
    total = f"{len(status.runs)} runs: {counts_text(status.counts)}"
    if status.seconds_left is not None:
        total += f"; about {_duration(status.seconds_left)} left"
    if len(shown) < len(status.runs):
        total += f"; shown: {len(shown)} under way or in trouble (--json gives all)"
    errors = [f"{run.run_id}: {run.error}" for run in shown if run.state == "failed"]
    errors += [f"{run.run_id}: {run.trouble}" for run in shown if run.trouble and run.state != "failed"]
    warnings = [status.warning] if status.warning else []
    lines = [total, *_reasons(status), *errors, *map(_stage, status.stages), *warnings]
    return Group(table(columns, rows), *map(Text, lines))


def _stage(stage: StageStatus) -> str:
    line = f"{stage.action}: {stage.state}" + (f": {stage.reason}" if stage.reason else "")
    return line if stage.state in ("queued", "done") else f"{line} (see {stage.log})"


def _reasons(status: ExperimentStatus) -> Iterator[str]:
    """Why runs wait and were lost, in groups, the largest first."""
    groups = Counter((run.state, run.reason) for run in status.runs if run.reason)
    for (state, reason), count in groups.most_common():
        yield f"{count} {state}: {reason}"


def _row(run: RunStatus) -> tuple[object, ...]:
    from rich.text import Text

    axes = axes_text(run.axes, list(run.axes))
    if run.start == "transfer":
        axes = f"transfer {axes}".strip()
    losses = {key: value for key, value in run.last.items() if key.endswith("loss")}
    return (
        run.run_id,
        run.preset,
        axes,
        run.seed,
        Text(run.state, style=_COLOURS.get(run.state, "")),
        f"{run.step}/{run.steps}",
        None if run.steps_per_second is None else f"{run.steps_per_second:.2f}",
        None if run.seconds_left is None else _duration(run.seconds_left),
        " ".join(f"{key} {value:.3g}" for key, value in losses.items()),
        _score(run),
    )


def _trouble(run: RunStatus) -> Text:
    """Without what was seen, which stands below the table."""
    from rich.text import Text

    return Text((run.trouble or "").partition(":")[0], style="red")


def _score(run: RunStatus) -> str | None:
    if run.score is None:
        return None
    error = run.score["standard_error"]
    spread = "" if error is None else f" ± {error:.2g}"
    return f"{run.score['name']} {run.score['value']:.4g}{spread}"


def _efficiency_page(jobs: list[Efficiency]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from petgan.status import advice

    if not jobs:
        return Text("no job of this experiment has ended yet")
    rows = [
        (
            job.job,
            job.runs[0] if len(job.runs) == 1 else f"{len(job.runs)} runs",
            job.state,
            job.nodes,
            _duration(job.elapsed_seconds),
            _percent(job.cpu_efficiency),
            _percent(None if job.gpu_percent is None else job.gpu_percent / 100) if job.gpus else None,
            f"{_gigabytes(job.peak_mem_gb)} of {_gigabytes(job.asked_mem_gb)}",
        )
        for job in jobs
    ]
    columns = ("job", "run", "ended", "nodes", "time", "CPU busy", "GPU busy", "peak memory")
    return Group(table(columns, rows), *map(Text, advice(jobs)))


def _percent(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.0%}"


def _gigabytes(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g} GB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
