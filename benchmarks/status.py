"""Seconds that `petgan status` takes for many runs on Slurm, beside a bare read of the same files.

    python benchmarks/status.py --runs 10000

The runs are made in a temporary folder: a third done and evaluated, a third training, a third queued.
``squeue`` is a stand-in that prints a queue of as many tasks; a test asks the real one. The command is timed
as a user meets it, with the start of Python; the reading alone is compared with opening and reading the same
files without a look into them. The median of several rounds counts.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from petgan.config import resolve_point, run_id
from petgan.runs import ExperimentFolder, Status, Submission, write_json, write_text
from petgan.status import experiment_status

ROUNDS = 5
SCORES = ("kid", "fid", "sliced_wasserstein", "precision", "recall", "density", "coverage")
ARRAY_SIZE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(Path(folder) / "experiment", args.runs)
        put_stand_in(Path(folder) / "bin", args.runs)
        queue = seconds(lambda: run("squeue", "--me", "-h", "-r"))
        bare = seconds(lambda: read_all(experiment))
        read = seconds(lambda: experiment_status(experiment))
        whole = seconds(lambda: run(sys.executable, "-m", "petgan", "status", str(experiment.path)))
        as_json = seconds(
            lambda: run(sys.executable, "-m", "petgan", "status", str(experiment.path), "--json")
        )
        assert experiment_status(experiment).warning is None  # noqa: S101
    print(f"{args.runs} runs, seconds")
    print(f"bare read of their files   {bare:.2f}")
    print(f"squeue                     {queue:.2f}")
    print(f"experiment_status          {read:.2f}   {(read - queue) / bare:.1f} bare reads, and squeue")
    print(f"petgan status              {whole:.2f}")
    print(f"petgan status --json       {as_json:.2f}")


def seconds(work: Callable[[], object]) -> float:
    """The median of several rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def read_all(experiment: ExperimentFolder) -> None:
    """Read every file that a status needs, as bytes."""
    files = [experiment.record_file, *experiment.submissions.glob("*.json")]
    for entry in os.scandir(experiment.runs):
        files += [Path(entry.path) / name for name in ("status.json", "evaluation.json")]
    for file in files:
        with contextlib.suppress(FileNotFoundError), open(file, "rb") as stream:
            stream.read()


def make_experiment(path: Path, runs: int) -> ExperimentFolder:
    folder = ExperimentFolder(path)
    rates = itertools.count(1)
    values = [
        {"preset": "dcgan", "learning_rate": next(rates) * 1e-7, "steps": 4000, "image_size": 64}
        for _ in range(runs)
    ]
    points = [resolve_point(value) for value in values]
    ids = [run_id(point, "x") for point in points]
    write_json(
        folder.record_file,
        {
            "name": "benchmark",
            "points": [
                {"run_id": i, "sweeps": ["s"], "start": "scratch", "point": point.model_dump(mode="json")}
                for i, point in zip(ids, points, strict=True)
            ],
            "tables": [],
            "dataset": {},
        },
    )
    arrays = [
        {
            "name": f"petgan-benchmark-{n}",
            "first": first,
            "tasks": min(ARRAY_SIZE, runs - first),
            "job": str(n + 1),
        }
        for n, first in enumerate(range(0, runs, ARRAY_SIZE))
    ]
    write_json(folder.submission_file("1"), vars(Submission("slurm", ids, 0, "c", arrays=arrays)))
    evaluation = {"headline": "kid", "scores": [score(name) for name in SCORES], "images": 404}
    for number, i in enumerate(ids):
        run = folder.run(i)
        run.path.mkdir(parents=True)
        state = ("done", "running", "queued")[number % 3]
        last = {"d_loss": 0.69, "g_loss": 0.71}
        status = Status(state, 400, 4000, 3.2, 120.0, last, host="vm1", pid=7, started=1.0, updated=2.0)
        run.status_file.write_text(
            json.dumps(asdict(status), indent=1)
        )  # unflushed: as many are soon written
        if state == "running":
            run.beat()
        if state == "done":
            run.evaluation_file.write_text(json.dumps(evaluation, indent=1))
    return folder


def score(name: str) -> dict[str, object]:
    """One score as long as those of `petgan evaluate`."""
    numbers = {"value": 0.25, "standard_error": 0.01, "floor": {"value": 0.02, "standard_error": 0.004}}
    counts = {"n_real": 404, "n_fake": 404, "n_features": 2048, "seed": 1}
    return {
        "name": name,
        **numbers,
        **counts,
        "ruler": "inception_v3/kid/299/antialias/1e40fb",
        "notes": ["x" * 80],
    }


def put_stand_in(folder: Path, runs: int) -> None:
    """Put a ``squeue`` on the path that knows all runs that are not done."""
    tasks = [n for n in range(runs) if n % 3]
    lines = [
        f"{n // ARRAY_SIZE + 1}_{n % ARRAY_SIZE}|{'RUNNING|vm1' if n % 3 == 1 else 'PENDING|'}"
        f"|petgan-benchmark-{n // ARRAY_SIZE}|{'None' if n % 3 == 1 else 'Resources'}"
        for n in tasks
    ]
    write_text(folder / "queue", "\n".join(lines) + "\n")
    write_text(folder / "squeue", f"#!/bin/sh\nexec cat {shlex.quote(str(folder / 'queue'))}\n")
    (folder / "squeue").chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


if __name__ == "__main__":
    main()
