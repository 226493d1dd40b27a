"""Print the end of a run's log: of the run that wrote last, if none is named.

Example:
  petgan logs experiments/demo --follow
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from petgan.runs import ExperimentFolder, RunFolder
    from petgan.status import Known

POLL_SECONDS = 0.5
SLURM_SECONDS = 10.0  # everybody on the cluster asks the same scheduler


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="folder")
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="the start of its id is enough")
    parser.add_argument("--lines", type=int, default=40, metavar="N", help="default: 40")
    parser.add_argument(
        "--follow", action="store_true", help="go on printing until the run ends, in however many jobs"
    )
    parser.add_argument(
        "--rank",
        type=int,
        default=0,
        metavar="R",
        help="of a run on several ranks; default: 0, which says most",
    )


def run(args: argparse.Namespace) -> None:
    from petgan.errors import InputError
    from petgan.runs import ExperimentFolder
    from petgan.status import find_run

    experiment = ExperimentFolder(Path(args.experiment))
    if args.run_id:
        chosen = find_run(experiment, args.run_id)
    else:
        logged = [run for run in experiment.run_folders() if _log(run, args.rank).is_file()]
        if not logged:
            raise InputError(f"no run of {args.experiment} has a log yet")
        chosen = max(logged, key=lambda run: _log(run, args.rank).stat().st_mtime)
    log = _log(chosen, args.rank)
    known = _look(experiment, chosen)
    print(f"== {chosen.path.name} ({_state(known)})", file=sys.stderr)
    if args.follow:
        _follow(experiment, chosen, log, max(0, args.lines))
    elif _has_text(log):
        _print_end(log, args.lines)
    elif known.job and _has_text(known.job.log):
        print(f"== the run has written no log; Slurm's job {known.job.job} has:", file=sys.stderr)
        _print_end(known.job.log, args.lines)
    elif args.rank and _has_text(chosen.log_file):
        raise InputError(
            f"run {chosen.path.name} has no log of this rank", value=args.rank, allowed=_ranks(chosen)
        )
    else:
        hint = known.reason and f"it is {known.status.state}: {known.reason}"
        raise InputError(f"run {chosen.path.name} has no log yet", hint=hint or "it has not been started")


def _follow(experiment: ExperimentFolder, run: RunFolder, log: Path, lines: int) -> None:
    """Print what is written to a log, and on standard error what the run waits for, until it has ended."""
    from petgan.runs import UNFINISHED
    from petgan.status import FINAL

    new_lines = _lines_of(log, lines)
    known = _look(experiment, run)
    said, asked = _state(known), time.monotonic()
    while True:
        state = run.status().state
        # Slurm has its say on a run that its folder calls lost or interrupted: it may go on.
        due = state != "running" and time.monotonic() - asked >= (
            SLURM_SECONDS if known.job else POLL_SECONDS
        )
        if due or state in FINAL:
            known, asked = _look(experiment, run), time.monotonic()
            state = known.status.state
        elif state != "running":
            state = known.status.state
        for line in next(new_lines):
            print(line, end="", flush=True)
        words = _state(known) if state == known.status.state else state
        if words != said:
            said = words
            print(f"== {said}", file=sys.stderr, flush=True)
        if state not in UNFINISHED:
            return
        time.sleep(POLL_SECONDS)


def _lines_of(log: Path, lines: int) -> Iterator[list[str]]:
    """The last lines of a file that may not be there yet, and then each time those that were added."""
    while not log.is_file():
        yield []
    with open(log, encoding="utf-8", errors="replace") as file:
        yield list(deque(file, maxlen=lines))
        while True:
            yield list(file)


def _look(experiment: ExperimentFolder, run: RunFolder) -> Known:
    from petgan.status import look

    known, warning = look(experiment, [run.path.name])
    if warning:
        print(f"petgan: {warning}", file=sys.stderr)
    return known[run.path.name]


def _state(known: Known) -> str:
    return f"{known.status.state}: {known.reason}" if known.reason else known.status.state


def _log(run: RunFolder, rank: int) -> Path:
    return run.rank_log_file(rank) if rank else run.log_file


def _ranks(run: RunFolder) -> list[int]:
    """The ranks that have a log."""
    ranks = range(run.config().resources.ranks)
    return [rank for rank in ranks if _has_text(_log(run, rank))]


def _has_text(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _print_end(file: Path, lines: int) -> None:
    with open(file, encoding="utf-8", errors="replace") as log:
        for line in deque(log, maxlen=max(0, lines)):
            print(line, end="")
