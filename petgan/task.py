"""``python -m petgan.task EXPERIMENT NAME FIRST``: what Slurm starts on a node, one process for each rank.

It stays on the host, where Slurm's commands are, and starts the worker in the container as a child. It
passes the stop signals on, tells the other ranks when its own has failed, and as rank 0 writes what became
of a worker that could not say so itself, and puts a job that was told to stop back into the queue.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # a signal that comes during the imports waits until `work` receives it
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2))

import contextlib
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from petgan import container, launch, slurm
from petgan.errors import EXIT_FAILURE, EXIT_INTERRUPTED, PetganError
from petgan.launch import Child, stop_requests
from petgan.runs import ExperimentFolder, RunFolder, Submission, read_json, write_json
from petgan.snapshot import code_digest

GRACE_SECONDS = 25.0  # Slurm's own patience (KillWait) is 30 s by default
_POLL_SECONDS = 0.5
_RANK_SECONDS = 5.0  # that rank 0 waits for another rank's word on why it failed
_PATIENCE_SECONDS = 60.0  # a job that was stopped earlier may have done no step, and is no failure
_STARTED = ("queued", "running", "interrupted", "lost", "new")

logger = logging.getLogger("petgan.task")


@dataclass(frozen=True)
class Place:
    """Where this process stands among those of its job, by Slurm's variables."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    node: int
    nodes: int
    node_name: str
    job: str  # such as 1234_5
    restarts: int
    index: int  # in its array

    @classmethod
    def from_slurm(cls) -> Place:
        """Read the variables that ``srun`` sets (man srun, OUTPUT ENVIRONMENT VARIABLES)."""
        given = os.environ
        array, index = given.get("SLURM_ARRAY_JOB_ID"), given.get("SLURM_ARRAY_TASK_ID", "0")
        return cls(
            rank=int(given["SLURM_PROCID"]),
            ranks=int(given["SLURM_NTASKS"]),
            local_rank=int(given["SLURM_LOCALID"]),
            local_ranks=_tasks_on_node(given["SLURM_STEP_TASKS_PER_NODE"], int(given["SLURM_NODEID"])),
            node=int(given["SLURM_NODEID"]),
            nodes=int(given["SLURM_STEP_NUM_NODES"]),
            node_name=given["SLURMD_NODENAME"],
            job=f"{array}_{index}" if array else given["SLURM_JOB_ID"],
            restarts=int(given.get("SLURM_RESTART_COUNT", "0")),
            index=int(index),
        )

    @property
    def start(self) -> str:
        """The job and, after a requeue, how often it was: such as ``1234_5+2``."""
        return f"{self.job}+{self.restarts}" if self.restarts else self.job

    def environment(self, run: RunFolder, submission: Submission) -> dict[str, str]:
        """What the worker of this rank is told."""
        values = {
            "RANK": self.rank,
            "RANKS": self.ranks,
            "LOCAL_RANK": self.local_rank,
            "LOCAL_RANKS": self.local_ranks,
            "NODE": self.node,
            "NODES": self.nodes,
            "NODE_NAME": self.node_name,
            "JOB": self.start,
            "RENDEZVOUS": run.rendezvous_file(self.start),
            "INTERFACE": (submission.profile or {}).get("interface"),
            "RENDEZVOUS_SECONDS": os.environ.get("PETGAN_RENDEZVOUS_SECONDS"),  # from the profile's setup
            "IMAGE_DIGEST": (submission.image or {}).get("digest"),
            "CODE_DIGEST": submission.code,
        }
        return {f"PETGAN_{name}": str(value) for name, value in values.items() if value is not None}


def main(argv: Sequence[str] | None = None) -> int:
    """Train the runs of this array task, and return the exit code that Slurm is to see."""
    experiment, name, first = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        return work(ExperimentFolder(Path(experiment)), name, int(first))
    except PetganError as error:
        _say(error)
        return error.exit_code


def _say(error: PetganError) -> None:
    """Where a run's own folder cannot be written, its job's log has the last word."""
    print(f"petgan: {error}", file=sys.stderr)


def work(experiment: ExperimentFolder, name: str, first: int) -> int:
    """Train this array task's share of a submission, one run after the other.

    Parameters
    ----------
    experiment : ExperimentFolder
    name : str
        Of the submission.
    first : int
        The number of the array's first task among all tasks of the submission.

    Returns
    -------
    int
        0; 75 if the job was asked to stop; the worker's exit code if a run failed.
    """
    place = Place.from_slurm()
    submission = experiment.submission(name)
    task = first + place.index
    runs = [
        experiment.run(run_id)
        for run_id in submission.runs[task * submission.runs_per_job : (task + 1) * submission.runs_per_job]
    ]
    if submission.transfer is not None and not submission.transfer.get("filled"):
        raise PetganError(
            "this array waited for a choice, and none was made", hint="see choose.log beside this"
        )
    if code_digest() != submission.code:
        raise PetganError("the experiment's snapshot of the code has been changed", hint="submit again")
    steps, began, worst = _steps(runs), time.monotonic(), 0
    with stop_requests() as signals:
        for run in runs:
            if not signals and _is_to_train(run):
                logger.info(
                    "rank %d of %d on %s: %s", place.rank, place.ranks, place.node_name, run.path.name
                )
                code = _train(run, experiment, submission, place, signals)
                worst = max(worst, code if code != EXIT_INTERRUPTED else 0)
                if code == EXIT_INTERRUPTED and not run.cancel_asked:
                    _wait_for_signal(signals)
        unfinished = [run for run in runs if _is_to_train(run)]
        if not signals or not unfinished:
            return worst
        if place.rank == 0:
            waited = time.monotonic() - began > _PATIENCE_SECONDS
            if signal.SIGUSR2 in signals and waited and _steps(runs) == steps:
                for run in unfinished:
                    run.update_status(state="failed", error=_TOO_SHORT)
                return EXIT_FAILURE
            _go_on_later(place, unfinished)
        return EXIT_INTERRUPTED


_TOO_SHORT = "no step was done within the job's time limit: raise time_min"


def _wait_for_signal(signals: list[int]) -> None:
    """What stopped the workers may reach this process later, or only another rank's."""
    end = time.monotonic() + _RANK_SECONDS
    while not signals and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    if not signals:
        signals.append(signal.SIGTERM)


def _is_to_train(run: RunFolder) -> bool:
    return run.status().state in _STARTED and not run.cancel_asked


def _steps(runs: Sequence[RunFolder]) -> int:
    return sum(run.status().step for run in runs)


def _go_on_later(place: Place, unfinished: Sequence[RunFolder]) -> None:
    """Put the job back into the queue, unless it was cancelled or Slurm has done so."""
    try:
        if slurm.goes_on(place.job):
            logger.info("told to stop before the end: the job goes back into the queue")
            slurm.requeue(place.job)
    except PetganError as error:
        for run in unfinished:
            with contextlib.suppress(PetganError):
                run.update_status(error=f"the job was told to stop, and could not be queued again: {error}")


# --- one run --------------------------------------------------------------------------------------------


def _train(
    run: RunFolder,
    experiment: ExperimentFolder,
    submission: Submission,
    place: Place,
    signals: list[int],
) -> int:
    """Train one run with the other ranks, and return the worker's exit code."""
    if place.rank == 0:
        for old in run.path.glob("rank-*.json"):
            if read_json(old).get("job") != place.start:
                old.unlink()
    with tempfile.TemporaryDirectory(prefix="petgan-", ignore_cleanup_errors=True) as scratch:
        return _train_with(Path(scratch), run, experiment, submission, place, signals)


def _train_with(
    scratch: Path,
    run: RunFolder,
    experiment: ExperimentFolder,
    submission: Submission,
    place: Place,
    signals: Sequence[int],
) -> int:
    try:
        child = _start_worker(run, experiment, submission, place, scratch)
    except PetganError as error:
        _say(error)
        _tell_others(run, place, str(error))
        if place.rank == 0:
            run.update_status(state="failed", error=str(error))
        return error.exit_code
    failure = None
    while not child.ended():
        failure = failure or _failure_elsewhere(run, place)
        if failure:
            child.stop(grace=GRACE_SECONDS)
        elif signals or run.cancel_asked:
            child.stop()
        time.sleep(_POLL_SECONDS)
    if child.exit_code and not child.was_stopped:
        _tell_others(run, place, child.sentence(), killed=child.exit_code == 128 + signal.SIGKILL)
    if place.rank == 0:
        _settle(run, child, place, failure)
    if child.was_stopped:
        return EXIT_FAILURE if failure else EXIT_INTERRUPTED
    return child.exit_code


def _start_worker(
    run: RunFolder, experiment: ExperimentFolder, submission: Submission, place: Place, scratch: Path
) -> Child:
    code = experiment.code_folder(submission.code)
    environment = {**place.environment(run, submission), **launch.WATCH_STDIN}
    log = run.log_file if place.rank == 0 else run.rank_log_file(place.rank)
    if submission.image is None:
        command = launch.worker_command("train", run=run.path)
        return Child(
            run, command, {**launch.worker_environment(code), **environment}, code, log, job=place.start
        )
    container.refuse_if_changed(submission.image)
    config = run.config()
    datasets = [Path(dataset.path) for dataset in config.datasets]
    needed = [*datasets, code, *map(Path, (submission.profile or {}).get("binds", []))]
    if config.point.init_from is not None:
        needed.append(Path(config.point.init_from))
    devices = {k: v for k in ("CUDA_VISIBLE_DEVICES",) if (v := os.environ.get(k)) is not None}
    argv, outside = container.exec_command(
        submission.image["path"],
        launch.worker_command("train", python=container.PYTHON, run=run.path),
        environment={**launch.PYTHON_SETTINGS, "PYTHONPATH": str(code), **devices, **environment},
        read_only=needed,
        writable=[run.path],
        scratch=scratch,
        gpus=submission.gpus > 0,
    )
    return Child(run, argv, outside, code, log, job=place.start)


def _settle(run: RunFolder, child: Child, place: Place, failure: str | None) -> None:
    """Write what became of the run, with the word of the rank that failed first."""
    if failure is None and (child.exit_code == 0 or child.was_stopped):
        status = child.settle()
        if status.state == "interrupted" and run.cancel_asked:
            run.update_status(state="cancelled")
        return
    end = time.monotonic() + _RANK_SECONDS
    while failure is None and place.ranks > 1 and time.monotonic() < end:
        failure = _failure_elsewhere(run, place)
        time.sleep(_POLL_SECONDS)
    status = child.settle()
    if failure is not None and status.state != "done":
        run.update_status(state="failed", error=failure)


def _tell_others(run: RunFolder, place: Place, sentence: str, *, killed: bool = False) -> None:
    said = {
        "job": place.start,
        "node": place.node_name,
        "killed": killed,
        "time": time.time(),
        "sentence": f"rank {place.rank} on {place.node_name}: {sentence}",
    }
    with contextlib.suppress(PetganError, OSError):  # a full disk: srun ends the others
        write_json(run.path / f"rank-{place.rank}.json", said)


def _failure_elsewhere(run: RunFolder, place: Place) -> str | None:
    """What another rank has said of its failure; one that was killed before those that only miss it."""
    if place.ranks == 1:
        return None
    said = []
    for file in run.path.glob("rank-*.json"):
        with contextlib.suppress(PetganError):
            words = read_json(file)
            if words["job"] == place.start and file.name != f"rank-{place.rank}.json":
                said.append((not words["killed"], words["time"], words["sentence"]))
    return min(said)[2] if said else None


def _tasks_on_node(text: str, node: int) -> int:
    """Read ``2(x3),1``: how many tasks the nodes of a step have, one after the other."""
    counts = [
        int(count)
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(times or 1))
    ]
    return counts[node]


if __name__ == "__main__":
    raise SystemExit(main())
