"""Print the end of a run's log: of the run that wrote last, if none is named.

Example:
  petgan logs experiments/demo --follow
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", metavar="EXPERIMENT", help="folder")
    parser.add_argument("run_id", nargs="?", metavar="RUN", help="the start of its id is enough")
    parser.add_argument("--lines", type=int, default=40, metavar="N", help="default: 40")
    parser.add_argument("--follow", action="store_true", help="go on printing until the run ends")


def run(args: argparse.Namespace) -> None:
    from petgan.errors import InputError
    from petgan.runs import UNFINISHED, ExperimentFolder
    from petgan.status import find_run

    experiment = ExperimentFolder(Path(args.experiment))
    if args.run_id:
        chosen = find_run(experiment, args.run_id)
    else:
        logged = [run for run in experiment.run_folders() if run.log_file.is_file()]
        if not logged:
            raise InputError(f"no run of {args.experiment} has a log yet")
        chosen = max(logged, key=lambda run: run.log_file.stat().st_mtime)
    if not chosen.log_file.is_file():
        raise InputError(f"run {chosen.path.name} has no log yet", hint="it has not been started")
    print(f"== {chosen.path.name} ({chosen.status().state})", file=sys.stderr)
    with open(chosen.log_file, encoding="utf-8", errors="replace") as log:
        for line in deque(log, maxlen=max(0, args.lines)):
            print(line, end="")
        while args.follow:
            under_way = chosen.status().state in UNFINISHED
            for line in log:
                print(line, end="", flush=True)
            if not under_way:
                return
            time.sleep(0.5)
