"""Submitting: from the points of a grid to an experiment folder, and from there to processes that train.

`make_plan` looks and writes nothing, so that a dry run is free; `submit` acts. Whatever moment it is
killed at, what is on the disk is whole, and the same command completes it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from petgan import __version__
from petgan.config import DatasetRef, Resources, RunConfig
from petgan.errors import ConfigError, DatasetError, Interrupted, PetganError, UserError
from petgan.grid import Grid, GridPoint
from petgan.launch import Launch, Progress, worker_environment
from petgan.runs import (
    ExperimentFolder,
    RunFolder,
    Status,
    Submission,
    process_exists,
    read_json,
    write_json,
    write_text,
)
from petgan.snapshot import code_digest, take_snapshot

CLUSTERS = ("local", "inline")
RECORD_SCHEMA = 1
RETRIED = ("failed", "lost", "interrupted", "cancelled")
_NOT_STARTED_AGAIN = ("done", "running", "queued")
_LONGEST_MIN = 60 * 24 * 365  # submitit's local executor wants a limit; a laptop has none
_FORGOTTEN_SECONDS = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a submission would do.

    Parameters
    ----------
    experiment : ExperimentFolder
    record : dict
        ``experiment.json`` as it is going to be.
    configs : dict of str to RunConfig
        Of the grid's points, by run id.
    states : dict of str to str
        Of the grid's points; ``new`` where there is no such run yet.
    """

    experiment: ExperimentFolder
    record: dict[str, Any]
    configs: dict[str, RunConfig]
    states: dict[str, str]

    @property
    def to_start(self) -> list[str]:
        """Run ids of all points that are neither done nor under way."""
        return [run_id for run_id, state in self.states.items() if state not in _NOT_STARTED_AGAIN]


def make_plan(
    grid: Grid,
    points: Sequence[GridPoint],
    dataset: DatasetRef,
    experiment: ExperimentFolder,
    *,
    command: str,
    parent: Mapping[str, Any] | None = None,
) -> Plan:
    """Compare the points of a grid with what an experiment folder holds already.

    Points that only the folder knows stay in its record. Its sweeps and tables become those of the grid,
    where both have one of the same name or title.

    Raises
    ------
    DatasetError
        If the folder's runs were trained on a dataset with other content.
    """
    known: Mapping[str, Any] = experiment.record() if experiment.record_file.exists() else {}
    if known and known["dataset"]["digest"] != dataset.digest:
        raise DatasetError(
            f"{experiment.path} was made with another dataset",
            value=f"{dataset.path} ({dataset.digest[:12]})",
            allowed=f"{known['dataset']['path']} ({known['dataset']['digest'][:12]})",
            hint="give the experiment another folder with --experiment",
        )
    before = known.get("parent")
    if parent and before and parent["runs"] != before["runs"]:
        raise ConfigError(
            f"{experiment.path} was started from other networks",
            hint="give this transfer a folder of its own with --experiment",
        )
    configs = {
        str(point.run_id): RunConfig(
            run_id=str(point.run_id),
            point=point.point,
            dataset=dataset,
            every=grid.every,
            resources=grid.resources,
        )
        for point in points
    }
    statuses = experiment.statuses() if known else {}
    return Plan(
        experiment=experiment,
        record={
            "schema_version": RECORD_SCHEMA,
            "name": grid.name,
            "created": known.get("created") or datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "petgan_version": __version__,
            "dataset": dataset.model_dump(),
            "points": _merged_points(points, known.get("points", [])),
            "tables": _merged_tables(grid, known.get("tables", [])),
            "published": _published(grid) or known.get("published"),
            "parent": parent or before,
            "commands": [*known.get("commands", []), command],
        },
        configs=configs,
        states={run_id: statuses.get(run_id, Status()).state for run_id in configs},
    )


def submit(
    grid: Grid,
    points: Sequence[GridPoint],
    dataset: DatasetRef,
    experiment: ExperimentFolder,
    *,
    cluster: str,
    command: str,
    parallel: int | None = None,
    parent: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write the experiment folder and start every point that is neither done nor under way.

    Parameters
    ----------
    grid, points, dataset, experiment, command, parent
        See `make_plan`.
    cluster : str
        ``local`` starts a process that survives this one and returns at once; ``inline`` trains here.
    parallel : int, optional
        How many runs train at once; by default as many as the machine's cores and GPUs carry.
    progress : callable, optional
        Told (steps done, steps) by ``inline``.

    Returns
    -------
    list of str
        Ids of the runs that were started.

    Raises
    ------
    UserError
        If something else is submitting into this folder right now, or for what `make_plan` refuses.
    PetganError, Interrupted
        By ``inline``, if a run failed or was stopped.
    """
    _check_options(cluster, parallel)
    with _claimed(experiment):
        plan = make_plan(grid, points, dataset, experiment, command=command, parent=parent)
        logger.info("%s: %d of %d runs to start", experiment.path, len(plan.to_start), len(plan.states))
        for run_id, config in plan.configs.items():
            if plan.states[run_id] not in _NOT_STARTED_AGAIN:
                _write_config(experiment.run(run_id), config)
        write_text(experiment.grid_file, grid.text)
        write_json(experiment.record_file, plan.record)
        name = _queue(experiment, plan.to_start, cluster, parallel) if plan.to_start else None
    if name:
        _start(experiment, name, progress)
    return plan.to_start


def retry(
    experiment: ExperimentFolder,
    *,
    cluster: str,
    parallel: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Start the runs that failed, were lost, interrupted or cancelled; each goes on from its checkpoint.

    The parameters and the return value are those of `submit`.
    """
    _check_options(cluster, parallel)
    experiment.record()  # refuses a folder that is none
    with _claimed(experiment):
        runs = to_retry(experiment)
        name = _queue(experiment, runs, cluster, parallel) if runs else None
    if name:
        _start(experiment, name, progress)
    return runs


def to_retry(experiment: ExperimentFolder) -> list[str]:
    """Ids of the runs that `retry` would start."""
    return [run_id for run_id, status in experiment.statuses().items() if status.state in RETRIED]


def default_parallel(resources: Resources) -> int:
    """How many runs of these resources this machine carries at once, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bounds = [cores // resources.cpus]
    devices = _devices()
    if resources.gpus and devices:
        bounds.append(len(devices) // resources.gpus)
    return max(1, min(bounds))


def _devices() -> list[str]:
    """The GPUs of this machine that the user lets us see, as CUDA names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


# --- the record -----------------------------------------------------------------------------------------


def _merged_points(
    points: Sequence[GridPoint], known: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    named_now = {name for point in points for name in point.sweeps}
    ours = {point.run_id for point in points}
    stay = {
        entry["run_id"]: {**entry, "sweeps": [name for name in entry["sweeps"] if name not in named_now]}
        for entry in known
    }
    new: list[Mapping[str, Any]] = [
        {
            "run_id": point.run_id,
            "sweeps": [*point.sweeps, *stay.get(point.run_id, {}).get("sweeps", [])],
            "start": point.start,
            "point": point.point.model_dump(mode="json"),
        }
        for point in points
    ]
    return [*(entry for run_id, entry in stay.items() if run_id not in ours), *new]


def _merged_tables(grid: Grid, known: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    titles = {table.title for table in grid.tables}
    return [
        *(table for table in known if table["title"] not in titles),
        *(table.model_dump() for table in grid.tables),
    ]


def _published(grid: Grid) -> dict[str, Any] | None:
    if grid.published is None:
        return None
    return {"where": {"dataset": grid.published_datasets}, "rows": grid.published}


@contextlib.contextmanager
def _claimed(experiment: ExperimentFolder) -> Iterator[None]:
    """Keep a second submission out of the folder: a hard link is made once, on NFS too.

    Where there are no hard links, the workers' own check remains that nobody else trains their run.
    """
    mine = experiment.submissions / f".{socket.gethostname()}-{os.getpid()}"
    claim = experiment.submissions / ".submitting"
    write_json(mine, {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()})
    try:
        if claim.exists() and _forgotten(claim):
            claim.unlink(missing_ok=True)
        try:
            claim.hardlink_to(mine)
        except FileExistsError:
            raise UserError(
                f"another command is submitting to {experiment.path} right now",
                hint="wait for it, then give this command again",
            ) from None
        except OSError:
            logger.debug("no hard links in %s", experiment.submissions)
        try:
            yield
        finally:
            claim.unlink(missing_ok=True)
    finally:
        mine.unlink(missing_ok=True)


def _forgotten(claim: Path) -> bool:
    holder = read_json(claim)
    if holder["host"] == socket.gethostname():
        return not process_exists(holder["pid"], holder["time"])
    return time.time() - holder["time"] > _FORGOTTEN_SECONDS


# --- starting -------------------------------------------------------------------------------------------


def _check_options(cluster: str, parallel: int | None) -> None:
    if cluster not in CLUSTERS:
        raise ConfigError("there is no such cluster", value=cluster, allowed=CLUSTERS)
    if parallel is not None and parallel < 1:
        raise ConfigError("so many runs cannot train at once", value=parallel, allowed="1 or more")


def _write_config(run: RunFolder, config: RunConfig) -> None:
    """A run keeps the steps at which it is scored: "best" means the best of those."""
    if run.config_file.is_file():
        config = config.model_copy(update={"every": run.config().every})
    run.write_config(config)


def _queue(experiment: ExperimentFolder, runs: list[str], cluster: str, parallel: int | None) -> str:
    """Write down what is to be started, and with which code; return the submission's name."""
    configs = [experiment.run(run_id).config() for run_id in runs]
    resources = configs[0].resources
    devices = _devices()
    if parallel is None:
        parallel = default_parallel(resources)
    if resources.gpus and not devices:
        logger.warning("there is no GPU here: the runs train on the CPU")
    elif parallel * resources.gpus > len(devices):
        raise ConfigError(
            f"there are {len(devices)} GPUs, and each run wants {resources.gpus}",
            value=f"{parallel} runs at once",
            allowed=f"at most {len(devices) // resources.gpus}",
        )
    code = code_digest()
    take_snapshot(experiment.code_folder(code))
    submission = Submission(
        cluster, runs, min(parallel, len(runs)), code, gpus=resources.gpus, devices=devices
    )
    name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.getpid()}"
    write_json(experiment.submission_file(name), asdict(submission))
    for run_id, config in zip(runs, configs, strict=True):
        experiment.run(run_id).update_status(
            state="queued", steps=config.point.steps, error=None, host=None, pid=None
        )
    return name


def _start(experiment: ExperimentFolder, name: str, progress: Progress | None) -> None:
    submission = experiment.submission(name)
    absolute = ExperimentFolder(experiment.path.resolve())  # for processes with another current folder
    if submission.cluster == "inline":
        Launch(absolute.path, name)(progress)
        _raise_what_went_wrong(experiment, submission.runs)
    else:
        _start_detached(absolute, name, submission)


def _start_detached(experiment: ExperimentFolder, name: str, submission: Submission) -> None:
    """Have submitit start its job in a session and with streams of its own.

    Left to itself, submitit's local job would hold the terminal's streams open (``petgan submit | cat``
    would not end) and die with the terminal.
    """
    code = experiment.code_folder(submission.code)
    log = experiment.submissions / f"{name}.log"
    with open(log, "ab") as stream:
        started = subprocess.run(
            [sys.executable, "-m", "petgan.submit", str(experiment.path), name],
            cwd=code,
            env=worker_environment(code),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    if started.returncode:
        raise PetganError("cannot start the runs", hint=f"see {log}")


def _submit_to_submitit(experiment: Path, name: str) -> None:
    import submitit

    executor = submitit.AutoExecutor(folder=ExperimentFolder(experiment).submissions, cluster="local")
    executor.update_parameters(name="petgan", timeout_min=_LONGEST_MIN)
    executor.submit(Launch(experiment, name))


def _raise_what_went_wrong(experiment: ExperimentFolder, runs: list[str]) -> None:
    states = [experiment.run(run_id).status().state for run_id in runs]
    if "failed" in states:
        raise PetganError(
            f"{states.count('failed')} of {len(runs)} runs failed",
            hint=f"'petgan status {experiment.path}' says why",
        )
    stopped = states.count("interrupted") + states.count("cancelled")
    if stopped:
        raise Interrupted(
            f"{stopped} of {len(runs)} runs were stopped",
            hint=f"'petgan retry {experiment.path}' goes on with them",
        )


if __name__ == "__main__":
    _submit_to_submitit(Path(sys.argv[1]), sys.argv[2])
