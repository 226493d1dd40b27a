"""Submitting: from the points of a grid to an experiment folder, and from there to runs that train.

`make_plan` looks and writes nothing, so that a dry run is free; `submit` acts. Whatever moment it is
killed at, what is on the disk is whole, and the same command completes it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from petgan import __version__, arrays, container, local, slurm
from petgan.batch import job_name
from petgan.config import DatasetRef, Resources, RunConfig, validated
from petgan.errors import ConfigError, DatasetError, InputError, Interrupted, PetganError, UserError
from petgan.grid import Grid, GridPoint
from petgan.launch import Progress, visible_devices
from petgan.profile import Profile, check
from petgan.runs import (
    ExperimentFolder,
    RunFolder,
    Status,
    Submission,
    file_system_time,
    process_exists,
    read_json,
    write_json,
    write_text,
)
from petgan.snapshot import code_digest, take_snapshot
from petgan.status import look

CLUSTERS = ("local", "inline", "slurm")
RECORD_SCHEMA = 1
RETRIED = ("failed", "lost", "interrupted", "cancelled")
_NOT_STARTED_AGAIN = ("done", "running", "queued")
_FORGOTTEN_SECONDS = 600.0
_CLAIM_POLL_SECONDS = 0.5
_MANY = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Where runs are to train.

    Parameters
    ----------
    cluster : str
        ``local`` starts a process that survives this one, ``inline`` trains here, ``slurm`` queues job
        arrays; the first and the last return at once.
    parallel : int, optional
        How many runs train at once; by default as many as the machine's cores and GPUs carry, and on Slurm
        as many as it starts.
    profile : Profile
        Of the site, for Slurm.
    exclude : tuple of str
        Nodes that Slurm is to avoid.
    after : tuple of str
        Ids of Slurm's jobs that must have ended before.

    Raises
    ------
    ConfigError
        If there is no such cluster, or a number cannot be meant.
    """

    cluster: str
    parallel: int | None = None
    profile: Profile = field(default_factory=Profile)
    exclude: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.cluster not in CLUSTERS:
            raise ConfigError("there is no such cluster", value=self.cluster, allowed=CLUSTERS)
        if self.parallel is not None and self.parallel < 1:
            raise ConfigError("so many runs cannot train at once", value=self.parallel, allowed="1 or more")


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
    source = next((point.source for point in points if point.source), None)
    for kind, given in (("dataset", dataset), ("source", source)):
        before = known.get(kind)
        if before and given and before["digest"] != given.digest:
            raise DatasetError(
                f"{experiment.path} was made with another {kind}",
                value=f"{given.path} ({given.digest[:12]})",
                allowed=f"{before['path']} ({before['digest'][:12]})",
                hint="give the experiment another folder with --experiment",
            )
    started = known.get("parent")
    if parent and started and parent["runs"] != started["runs"]:
        raise ConfigError(
            f"{experiment.path} was started from other networks",
            hint="give this transfer a folder of its own with --experiment",
        )
    configs = {
        str(point.run_id): RunConfig(
            run_id=str(point.run_id),
            point=point.point,
            dataset=dataset,
            source=point.source,
            every=grid.every,
            on_trouble=grid.on_trouble,
            resources=grid.resources,
        )
        for point in points
    }
    statuses = _states(experiment) if known else {}
    return Plan(
        experiment=experiment,
        record={
            "schema_version": RECORD_SCHEMA,
            "name": grid.name,
            "created": known.get("created") or datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "petgan_version": __version__,
            "dataset": dataset.model_dump(),
            "source": source.model_dump() if source else known.get("source"),
            "points": _merged_points(points, known.get("points", [])),
            "tables": _merged_tables(grid, known.get("tables", [])),
            "published": _published(grid) or known.get("published"),
            "parent": parent or started,
            "commands": [*known.get("commands", []), command],
        },
        configs=configs,
        states={run_id: statuses[run_id].state if run_id in statuses else "new" for run_id in configs},
    )


def submit(
    grid: Grid,
    points: Sequence[GridPoint],
    dataset: DatasetRef,
    experiment: ExperimentFolder,
    target: Target,
    *,
    command: str,
    parent: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write the experiment folder and start every point that is neither done nor under way.

    Parameters
    ----------
    grid, points, dataset, experiment, command, parent
        See `make_plan`.
    target : Target
    progress : callable, optional
        Told (steps done, steps) by ``inline``.

    Returns
    -------
    list of str
        Ids of the runs that were started.

    Raises
    ------
    UserError
        If something else is submitting into this folder right now, for what `make_plan` refuses, or for
        what the machine or the cluster cannot give. Nothing has been written then.
    PetganError, Interrupted
        By ``inline``, if a run failed or was stopped.
    """
    check_target(target, grid.resources, [point.point.batch_size for point in points])
    with _claimed(experiment):
        plan = make_plan(grid, points, dataset, experiment, command=command, parent=parent)
        to_start = len(plan.to_start)
        logger.info("%s: %d of %d runs to start", experiment.path, to_start, len(plan.states))
        if to_start > _MANY:
            logger.info("writing %d run folders: a few milliseconds each", to_start)
        for run_id, config in plan.configs.items():
            if plan.states[run_id] not in _NOT_STARTED_AGAIN:
                _write_config(experiment.run(run_id), config, target)
        write_text(experiment.grid_file, grid.text)
        write_json(experiment.record_file, plan.record)
        names = _queue(experiment, plan.to_start, target)
    _start(experiment, names, target, progress)
    return plan.to_start


def retry(experiment: ExperimentFolder, target: Target, *, progress: Progress | None = None) -> list[str]:
    """Start the runs that failed, were lost, interrupted or cancelled; each goes on from its checkpoint.

    The parameters and the return value are those of `submit`.
    """
    experiment.record()  # refuses a folder that is none
    configs = [experiment.run(run_id).config() for run_id in to_retry(experiment)]
    for resources in {config.resources.model_dump_json(): config.resources for config in configs}.values():
        sizes = [config.point.batch_size for config in configs if config.resources == resources]
        check_target(target, resources, sizes)
    with _claimed(experiment):
        runs = to_retry(experiment)
        for run_id in runs:
            run = experiment.run(run_id)
            _write_config(run, run.config(), target)
        names = _queue(experiment, runs, target)
    _start(experiment, names, target, progress)
    return runs


def to_retry(experiment: ExperimentFolder) -> list[str]:
    """Ids of the runs that `retry` would start."""
    return [run_id for run_id, status in _states(experiment).items() if status.state in RETRIED]


def _states(experiment: ExperimentFolder) -> dict[str, Status]:
    """The status of each run; unlike `petgan.status`, not without Slurm's word where runs are with Slurm.

    Raises
    ------
    PetganError
        If Slurm cannot be asked: what it has in its queue would be started twice.
    """
    known, warning = look(experiment, [entry["run_id"] for entry in experiment.record()["points"]])
    if warning:
        raise PetganError(warning, hint="give this command again where and when Slurm answers")
    return {run_id: found.status for run_id, found in known.items()}


def nodes_of(experiment: ExperimentFolder, runs: Sequence[str]) -> tuple[str, ...]:
    """Slurm's nodes on which runs stopped last: of the rank that failed, where one has said so."""
    nodes = set()
    for run in map(experiment.run, runs):
        status = run.status()
        failed = [read_json(file) for file in run.path.glob("rank-*.json")]
        here = [rank["node"] for rank in failed if rank["job"] == status.job] or [status.host]
        nodes |= set(here) if status.job else set()
    return tuple(sorted(filter(None, nodes)))


def last_target(experiment: ExperimentFolder) -> Target:
    """Where the experiment's runs were sent last: Slurm with its profile, or this machine."""
    last = max(experiment.slurm_submissions(), key=lambda s: s.created, default=None)
    if last is None:
        return Target("local")
    return Target("slurm", last.parallel or None, validated(Profile, last.profile or {}))


def check_target(target: Target, resources: Resources, batch_sizes: Sequence[int]) -> None:
    """Refuse what the machine or the cluster could never give to runs of these sizes; writes nothing.

    Raises
    ------
    ConfigError, UserError
        With the limits.
    """
    if target.cluster != "slurm":
        local.check_parallel(target.parallel or local.default_parallel(resources), resources)
        return
    for size in batch_sizes:
        if size % resources.ranks:
            raise ConfigError(
                f"a batch is shared equally by the {resources.ranks} ranks of a run",
                value=f"batch_size {size}",
                allowed=f"multiples of {resources.ranks}",
            )
    check(target.profile, resources)
    for text in preview(ExperimentFolder(Path("/")), resources, target, runs=len(batch_sizes))[:1]:
        slurm.submit(text, test_only=True)


def preview(experiment: ExperimentFolder, resources: Resources, target: Target, runs: int) -> list[str]:
    """The batch scripts that `submit` would hand to Slurm for so many runs; writes nothing."""
    largest = slurm.max_array_size() if slurm.available() else arrays.USUAL_ARRAY_SIZE
    name = new_name()
    submission = Submission(
        "slurm", [], target.parallel or 0, code_digest(), resources.gpus, runs_per_job=resources.runs_per_job
    )
    submission.arrays = arrays.split(
        runs, resources.runs_per_job, job_name(experiment.path.name, name), largest
    )
    return [
        text
        for _, text in arrays.scripts(
            experiment,
            name,
            submission,
            resources,
            target.profile,
            exclude=target.exclude,
            after=target.after,
        )
    ]


def new_name() -> str:
    """A name for a submission: unique, and it sorts by time."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}-{os.getpid()}"


def queue_script(experiment: ExperimentFolder, name: str, action: str, text: str) -> str:
    """Keep the script of a single job in the experiment's folder, and hand it to Slurm; return its id."""
    take_snapshot(experiment.code_folder(code_digest()))
    write_text(experiment.batch_folder(name) / f"{action}.sh", text)
    return slurm.submit(text)


# --- arrays whose runs are not known yet ------------------------------------------------------------------


def prepare_transfer(
    experiment: ExperimentFolder,
    points: Sequence[GridPoint],
    resources: Resources,
    source: ExperimentFolder,
    score: str | None,
    target: Target,
) -> str:
    """Write down a submission that `fill_transfer` gives its runs later, and return its name."""
    name, code = new_name(), code_digest()
    take_snapshot(experiment.code_folder(code))
    submission = _slurm_submission(
        experiment, name, [], len(points), resources, target, code, image_of(target)
    )
    submission.transfer = {
        "source": str(source.path),
        "score": score,
        "points": [point.run_id for point in points],
    }
    write_json(experiment.submission_file(name), asdict(submission))
    return name


def queue_prepared(
    experiment: ExperimentFolder, name: str, resources: Resources, choice: str, target: Target
) -> list[str]:
    """Queue the arrays of a prepared submission behind the job that makes the choice; return their ids."""
    after = replace(target, after=(choice,))
    return _queue_arrays(experiment, name, experiment.submission(name), resources, after)


def fill_transfer(
    experiment: ExperimentFolder, name: str, points: Sequence[GridPoint], parent: Mapping[str, Any]
) -> list[str]:
    """Give a prepared submission the runs of `points`, but for those done or under way; return their ids.

    Those that an earlier start of the choice gave it, before it was broken off, stay its own.
    """
    with _claimed(experiment, patience=_FORGOTTEN_SECONDS):
        record, submission = experiment.record(), experiment.submission(name)
        write_json(
            experiment.record_file,
            {**record, "points": _merged_points(points, record["points"]), "parent": parent},
        )
        states = {run_id: status.state for run_id, status in _states(experiment).items()}
        alike = experiment.run((submission.transfer or {})["points"][0]).config()
        configs, ours = {}, set(submission.runs)
        for point in points:
            state = states[str(point.run_id)]
            if state not in _NOT_STARTED_AGAIN or (state == "queued" and point.run_id in ours):
                config = alike.model_copy(
                    update={"run_id": point.run_id, "point": point.point, "source": point.source}
                )
                experiment.run(config.run_id).write_config(config)
                configs[config.run_id] = config
        submission.runs = list(configs)
        submission.transfer = {**(submission.transfer or {}), "filled": True}
        _write_down(experiment, submission, configs, name)
    return submission.runs


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
def _claimed(experiment: ExperimentFolder, patience: float = 0) -> Iterator[None]:
    """Keep a second submission out of the folder: a hard link is made once, on NFS too.

    Waits for `patience` seconds for another one to end. Where there are no hard links, the workers' own check
    remains that nobody else trains their run.
    """
    mine = experiment.submissions / f".{socket.gethostname()}-{os.getpid()}"
    claim = experiment.submissions / ".submitting"
    write_json(mine, {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()})
    ended, end = threading.Event(), time.monotonic() + patience
    threading.Thread(target=_keep_fresh, args=(mine, ended), daemon=True).start()
    try:
        while not _take(claim, mine):
            if time.monotonic() > end:
                raise UserError(
                    f"another command is submitting to {experiment.path} right now",
                    hint="wait for it, then give this command again",
                )
            time.sleep(_CLAIM_POLL_SECONDS)
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                if claim.samefile(mine):
                    claim.unlink()
    finally:
        ended.set()
        mine.unlink(missing_ok=True)


def _keep_fresh(mine: Path, ended: threading.Event) -> None:
    """Show other machines that we live; the claim is the same file."""
    while not ended.wait(_FORGOTTEN_SECONDS / 10):
        with contextlib.suppress(OSError):
            os.utime(mine)


def _take(claim: Path, mine: Path) -> bool:
    """Make the claim ours, unless somebody holds it who lives."""
    try:
        claim.hardlink_to(mine)
    except FileExistsError:
        return _forgotten(claim) and _set_aside(claim, mine) and _take(claim, mine)
    except OSError:
        logger.debug("no hard links in %s", claim.parent)
    return True


def _set_aside(claim: Path, mine: Path) -> bool:
    """Remove a forgotten claim, but not one that somebody has put into its place meanwhile."""
    aside = mine.with_name(f"{mine.name}-aside")
    try:
        claim.rename(aside)  # of several who try, one succeeds
    except FileNotFoundError:
        return True
    try:
        if _forgotten(aside):
            return True
        with contextlib.suppress(FileExistsError):
            claim.hardlink_to(aside)
        return False
    finally:
        aside.unlink(missing_ok=True)


def _forgotten(claim: Path) -> bool:
    try:
        holder, seen = read_json(claim), claim.stat().st_mtime
    except (InputError, FileNotFoundError):
        return False  # it has gone this moment: try again
    if holder["host"] == socket.gethostname():
        return not process_exists(holder["pid"], holder["time"])
    return file_system_time(claim.parent) - seen > _FORGOTTEN_SECONDS


# --- starting -------------------------------------------------------------------------------------------


def _write_config(run: RunFolder, config: RunConfig, target: Target) -> None:
    """A run keeps the steps at which it is scored: "best" means the best of those."""
    if run.config_file.is_file():
        config = config.model_copy(update={"every": run.config().every})
    if target.cluster != "slurm":  # one process trains a run, with all of its GPUs
        alone = config.resources.model_copy(update={"nodes": 1, "tasks": 1})
        config = config.model_copy(update={"resources": alone})
    run.write_config(config)


def _queue(experiment: ExperimentFolder, runs: list[str], target: Target) -> list[str]:
    """Write down what is to be started, and with which code; return the names of the submissions.

    On Slurm there is one for each kind of resources, and its jobs are queued: nobody else may look before.
    """
    if not runs:
        return []
    code = code_digest()
    take_snapshot(experiment.code_folder(code))
    configs = {run_id: experiment.run(run_id).config() for run_id in runs}
    if target.cluster != "slurm":
        return [_queue_here(experiment, configs, target, code)]
    image = image_of(target)
    absolute = ExperimentFolder(experiment.path.resolve())
    by_resources = sorted(runs, key=lambda run_id: configs[run_id].resources.model_dump_json())
    names = []
    for _, group in itertools.groupby(by_resources, lambda run_id: configs[run_id].resources):
        alike = set(group)
        members = {run_id: configs[run_id] for run_id in runs if run_id in alike}
        names.append(_queue_slurm(absolute, members, target, code, image))
    return names


def _queue_here(
    experiment: ExperimentFolder, configs: Mapping[str, RunConfig], target: Target, code: str
) -> str:
    resources = next(iter(configs.values())).resources
    parallel = target.parallel or local.default_parallel(resources)
    submission = Submission(
        target.cluster,
        list(configs),
        min(parallel, len(configs)),
        code,
        gpus=resources.gpus,
        devices=visible_devices(),
    )
    return _write_down(experiment, submission, configs)


def _queue_slurm(
    experiment: ExperimentFolder,
    configs: Mapping[str, RunConfig],
    target: Target,
    code: str,
    image: container.Image | None,
) -> str:
    resources = next(iter(configs.values())).resources
    name = new_name()
    submission = _slurm_submission(
        experiment, name, list(configs), len(configs), resources, target, code, image
    )
    _write_down(experiment, submission, configs, name)
    _queue_arrays(experiment, name, submission, resources, target)
    return name


@functools.cache
def _image_at(path: str) -> container.Image:
    logger.info("reading the digest of %s", path)
    return container.identify(path)


def image_of(target: Target) -> container.Image | None:
    """The image that runs train in, with its digest."""
    return None if target.profile.image is None else _image_at(target.profile.image)


def _slurm_submission(
    experiment: ExperimentFolder,
    name: str,
    runs: list[str],
    count: int,
    resources: Resources,
    target: Target,
    code: str,
    image: container.Image | None,
) -> Submission:
    jobs = job_name(experiment.path.name, name)
    return Submission(
        "slurm",
        runs,
        target.parallel or 0,
        code,
        gpus=resources.gpus,
        runs_per_job=resources.runs_per_job,
        arrays=arrays.split(count, resources.runs_per_job, jobs, slurm.max_array_size()),
        image=image.as_record() if image else None,
        profile=target.profile.model_dump(),
    )


def _queue_arrays(
    experiment: ExperimentFolder, name: str, submission: Submission, resources: Resources, target: Target
) -> list[str]:
    scripts = arrays.scripts(
        experiment, name, submission, resources, target.profile, exclude=target.exclude, after=target.after
    )
    return arrays.submit(experiment, name, submission, scripts)


def _write_down(
    experiment: ExperimentFolder,
    submission: Submission,
    configs: Mapping[str, RunConfig],
    name: str | None = None,
) -> str:
    name = name or new_name()
    write_json(experiment.submission_file(name), asdict(submission))
    for run_id, config in configs.items():
        experiment.run(run_id).update_status(
            state="queued", steps=config.point.steps, error=None, host=None, pid=None, job=None
        )
    return name


def _start(
    experiment: ExperimentFolder, names: Sequence[str], target: Target, progress: Progress | None
) -> None:
    absolute = ExperimentFolder(experiment.path.resolve())  # for processes with another current folder
    for name in names:
        if target.cluster == "inline":
            local.train(absolute, name, progress)
            _raise_what_went_wrong(experiment, experiment.submission(name).runs)
        elif target.cluster == "local":
            local.start_detached(absolute, name)


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
