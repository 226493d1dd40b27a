"""Train the runs of a submission on this machine, several at once: in the foreground, or in a process
that outlives the command that started it.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from petgan import launch
from petgan.config import Resources
from petgan.errors import ConfigError, PetganError
from petgan.launch import (
    POLL_SECONDS,
    Child,
    Progress,
    stop_requests,
    visible_devices,
    worker_environment,
)
from petgan.runs import HEARTBEAT_SECONDS, ExperimentFolder, RunFolder, Submission, write_json

_START_SECONDS = 60.0  # that Python may take on a busy machine

logger = logging.getLogger(__name__)


def default_parallel(resources: Resources) -> int:
    """How many runs of these resources this machine carries at once, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bounds = [cores // resources.cpus]
    devices = visible_devices()
    if resources.gpus and devices:
        bounds.append(len(devices) // resources.gpus)
    return max(1, min(bounds))


def check_parallel(parallel: int, resources: Resources) -> None:
    """Refuse more runs at once than there are GPUs for.

    Raises
    ------
    ConfigError
        With how many there may be.
    """
    devices = visible_devices()
    if resources.gpus and not devices:
        logger.warning("there is no GPU here: the runs train on the CPU")
    elif parallel * resources.gpus > len(devices):
        raise ConfigError(
            f"there are {len(devices)} GPUs, and each run wants {resources.gpus}",
            value=f"{parallel} runs at once",
            allowed=f"at most {len(devices) // resources.gpus}",
        )


def start_detached(experiment: ExperimentFolder, name: str) -> None:
    """Start a process that trains the runs of a submission, in a session and with streams of its own.

    It neither holds the terminal's streams open (``petgan submit | cat`` ends) nor dies with the terminal.
    """
    code = experiment.code_folder(experiment.submission(name).code)
    log = experiment.submissions / f"{name}.log"
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "petgan.local", str(experiment.path), name],
            cwd=code,
            env=worker_environment(code),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    end = time.monotonic() + _START_SECONDS
    while experiment.submission(name).started is None:
        if process.poll() is not None or time.monotonic() > end:
            raise PetganError("cannot start the runs", hint=f"see {log}")
        time.sleep(POLL_SECONDS / 10)


def train(experiment: ExperimentFolder, name: str, progress: Progress | None = None) -> None:
    """Train the runs of a submission, and keep their status true whatever becomes of their processes.

    Runs that are done, cancelled, or trained by another process when their turn comes are passed over.
    SIGTERM and SIGINT are passed on to the workers, which checkpoint and stop; what had not started yet
    is cancelled.

    Parameters
    ----------
    experiment : ExperimentFolder
        Its path is absolute.
    name : str
        Of the submission.
    progress : callable, optional
        Told (steps done, steps).
    """
    with stop_requests() as stop, _registered(experiment, name) as (submission, beat):
        waiting, slots = deque(map(experiment.run, submission.runs)), list(range(submission.parallel))
        known = {run.path.name: run.status() for run in waiting} if progress else {}
        children: dict[Child, int] = {}
        try:
            while children or (waiting and not stop):
                while waiting and slots and not stop:
                    run = waiting.popleft()
                    if run.status().state not in ("done", "running", "cancelled"):
                        slot = slots.pop()
                        children[_start_worker(run, slot, submission, experiment)] = slot
                for child in list(children):
                    status = child.run.status()
                    if stop or status.state == "cancelled":
                        child.stop()
                    if child.ended():
                        status = child.settle()
                        slots.append(children.pop(child))
                    if progress:
                        known[child.run.path.name] = status
                beat()
                if progress:
                    progress(sum(s.step for s in known.values()), sum(s.steps for s in known.values()))
                time.sleep(POLL_SECONDS)
        finally:
            _stop_all(list(children))
        for run in waiting:
            if run.status().state == "queued":
                run.update_status(state="cancelled")


def _start_worker(run: RunFolder, slot: int, submission: Submission, experiment: ExperimentFolder) -> Child:
    code = experiment.code_folder(submission.code)
    devices = submission.devices[slot * submission.gpus : (slot + 1) * submission.gpus]
    environment = {
        **worker_environment(code),
        **launch.WATCH_STDIN,
        "CUDA_VISIBLE_DEVICES": ",".join(devices),
    }
    return Child(run, launch.worker_command("train", run=run.path), environment, code, run.log_file)


@contextmanager
def _registered(folder: ExperimentFolder, name: str) -> Iterator[tuple[Submission, Callable[[], None]]]:
    """Say in the submission's file that this process is at work, and at the end that it is not.

    Gives the submission, and a function to be called often, which shows other hosts that we live.
    """
    file = folder.submission_file(name)
    submission = folder.submission(name)
    submission.host, submission.pid, submission.started = socket.gethostname(), os.getpid(), time.time()
    write_json(file, asdict(submission))
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last > HEARTBEAT_SECONDS:
            last = time.monotonic()
            file.touch()

    try:
        yield submission, beat
    finally:
        submission.ended = time.time()
        write_json(file, asdict(submission))


def _stop_all(children: list[Child]) -> None:
    while children:
        for child in list(children):
            child.stop()
            if child.ended():
                child.settle()
                children.remove(child)
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    train(ExperimentFolder(Path(sys.argv[1])), sys.argv[2])
