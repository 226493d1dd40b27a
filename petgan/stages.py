"""``python -m petgan.stages ACTION EXPERIMENT JSON``: what a study does between its arrays, job by job.

It stays on the host and starts the worker, where one is needed, in the container. A job whose time is nearly
over goes back into the queue and begins its action again: evaluation goes on with what has no scores yet.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from petgan import container, launch, slurm, submit, transfer
from petgan.config import DatasetRef, Point, source_of, validated
from petgan.errors import EXIT_INTERRUPTED, PetganError
from petgan.grid import GridPoint
from petgan.profile import Profile
from petgan.runs import ExperimentFolder, read_json, write_json
from petgan.snapshot import PACKAGE
from petgan.task import Place

_POLL_SECONDS = 0.5
_SIGNAL_SECONDS = 5.0
_QUEUE_SECONDS = 300.0  # that the command which queues the study may take for the arrays behind us


def choose(experiment: ExperimentFolder, profile: Profile, image: Any, name: str) -> int:
    """Find the best networks of another experiment, and give the waiting array `name` its runs.

    That takes seconds: a job that is told to stop ends it first, for the array would start without its runs.
    """
    with launch.stop_requests():
        return _choose(experiment, name)


def _choose(experiment: ExperimentFolder, name: str) -> int:
    end = time.monotonic() + _QUEUE_SECONDS
    while not all(array["job"] for array in experiment.submission(name).arrays) and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    wanted = experiment.submission(name).transfer or {}
    record = experiment.record()
    known = [entry for entry in record["points"] if entry["run_id"] in wanted["points"]]
    second = DatasetRef(**record["source"]) if record.get("source") else None
    points = []
    for entry in known:
        point = validated(Point, entry["point"])
        sweeps = tuple(entry["sweeps"])
        points.append(GridPoint(entry["run_id"], point, sweeps, source=source_of(point, second)))
    sources, score = transfer.find_sources(wanted["source"], points, wanted["score"])
    both = transfer.pairs(points, sources, DatasetRef(**record["dataset"]))
    warm = [point for point in both if point.start == "transfer"]
    parent = transfer.parent_record(wanted["source"], sources, score)
    started = submit.fill_transfer(experiment, name, warm, parent)
    print(f"{len(started)} runs start from {', '.join(s.checkpoint for s in sources.values())}")
    return 0


def evaluate(experiment: ExperimentFolder, profile: Profile, image: Any, weights: str | None = None) -> int:
    """Score the finished runs."""
    return _in_container(
        profile,
        image,
        "evaluate",
        read_only=[*experiment.datasets(), *([Path(weights)] if weights else [])],
        writable=experiment.path,
        experiment=experiment.path,
        weights=weights,
    )


def report(
    experiment: ExperimentFolder, profile: Profile, image: Any, experiments: list[str], output: str
) -> int:
    """Write tables, plots and page of all experiments."""
    command = [sys.executable, "-m", "petgan", "report", *experiments, "--output", output]
    return _run(command, os.environ, Path.cwd())


def synthesize(
    experiment: ExperimentFolder, profile: Profile, image: Any, source: str, count: int, output: str
) -> int:
    """Make a synthetic dataset with the best run of the experiment `source`."""
    chosen, target = ExperimentFolder(Path(source)), Path(output)
    choice = chosen.report / "choice.json"
    if not choice.is_file():
        raise PetganError(
            f"no run of {chosen.path} can be taken: its report names none as the best",
            hint=f"'petgan best {chosen.path}' says why",
        )
    needed = [*chosen.datasets(), chosen.path, *_ancestors(chosen)]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".synthesize-", dir=target.parent) as folder:
        code = _in_container(
            profile,
            image,
            "synthesize",
            read_only=needed,
            writable=Path(folder),
            source=chosen.run(read_json(choice)["overall"]["best_run"]).path,
            count=count,
            output=Path(folder) / target.name,
        )
        for file in Path(folder).iterdir() if code == 0 else ():
            file.replace(target.parent / file.name)
            print(f"moved to {target.parent / file.name}")
    return code


def _ancestors(experiment: ExperimentFolder) -> list[Path]:
    """What an experiment's transferred runs came from, and that in turn, with the datasets."""
    found: list[Path] = []
    while (parent := experiment.record()["parent"]) is not None:
        experiment = ExperimentFolder(Path(parent["experiment"]))
        if not experiment.record_file.is_file():
            return [*found, experiment.path] if experiment.path.exists() else found
        found += [experiment.path, *experiment.datasets()]
    return found


def _in_container(
    profile: Profile,
    image: Mapping[str, Any] | None,
    task: str,
    *,
    read_only: Sequence[Path],
    writable: Path,
    **arguments: Any,
) -> int:
    code = PACKAGE.parent
    if image is None:
        return _run(launch.worker_command(task, **arguments), launch.worker_environment(code), code)
    container.refuse_if_changed(image)
    with tempfile.TemporaryDirectory(prefix="petgan-", ignore_cleanup_errors=True) as scratch:
        argv, outside = container.exec_command(
            image["path"],
            launch.worker_command(task, python=container.PYTHON, **arguments),
            environment={
                **launch.PYTHON_SETTINGS,
                "PYTHONPATH": str(code),
                "PETGAN_IMAGE_DIGEST": image["digest"],
            },
            read_only=[code, *map(Path, profile.binds), *read_only],
            writable=[writable],
            scratch=Path(scratch),
            gpus=bool(launch.visible_devices()),
        )
        return _run(argv, outside, code)


def _run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run a worker; told that the job's time is nearly over, or preempted, end it and queue the job again."""
    with launch.stop_requests() as signals:
        worker, told = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL), False
        while worker.poll() is None:
            if signals and not told:
                told = True  # once: it tidies up, and a second signal would break that off
                worker.terminate()
            time.sleep(_POLL_SECONDS)
        code = worker.returncode if worker.returncode >= 0 else 128 - worker.returncode
        end = time.monotonic() + _SIGNAL_SECONDS
        while not signals and code - 128 in launch.STOP_SIGNALS and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)  # what ended the worker reaches this process too
        if not signals or code == 0:
            return code
        job = Place.from_slurm().job
        if slurm.goes_on(job):
            slurm.requeue(job)
        return EXIT_INTERRUPTED


ACTIONS: dict[str, Callable[..., int]] = {
    "choose": choose,
    "evaluate": evaluate,
    "report": report,
    "synthesize": synthesize,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one action and return its exit code."""
    action, path, text = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    arguments: dict[str, Any] = json.loads(text)
    profile: Profile = validated(Profile, arguments.pop("profile"))
    experiment = ExperimentFolder(Path(path))
    record = experiment.stage_file(arguments.pop("submission"), action)
    write_json(record, {"state": "running", "error": None})
    try:
        code, error = ACTIONS[action](experiment, profile, **arguments), None
    except PetganError as problem:
        print(f"petgan: {problem}", file=sys.stderr)
        code, error = problem.exit_code, str(problem)
    state = {0: "done", EXIT_INTERRUPTED: "interrupted"}.get(code, "failed")
    if state == "failed":
        error = error or f"exit code {code}"
    write_json(record, {"state": state, "error": error})
    return code


if __name__ == "__main__":
    raise SystemExit(main())
