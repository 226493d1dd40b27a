"""How far the runs of an experiment are: read from their folders and, where Slurm runs them, from its queue.

A folder says what its run has done, and Slurm whether the run's job waits, runs or has gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import socket
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from petgan import slurm
from petgan.batch import job_name
from petgan.errors import ConfigError, PetganError, UserError
from petgan.runs import (
    UNFINISHED,
    ExperimentFolder,
    RunFolder,
    Status,
    Submission,
    file_system_time,
    process_exists,
    read_json,
)

logger = logging.getLogger(__name__)

#: The states that stay, whatever Slurm says of the job.
FINAL = ("done", "failed", "cancelled")
_NO_AXES = ("seed", "init_from", "init_digest")
_SUBMITTING_SECONDS = 600.0  # without a sign of life from a submission on another host
_WELL_USED = 0.5


@dataclass(frozen=True)
class Job:
    """The Slurm job that a run belongs to: one in the queue if there is one, else the newest.

    Parameters
    ----------
    job : str or None
        Such as ``1234_5``; None if Slurm never gave one that anybody has heard of.
    task : petgan.slurm.Task or None
        What Slurm's queue says of it; None if it is not there.
    runs : list of str
        All runs that this job trains, one after the other.
    log : Path
        What the job itself wrote.
    """

    job: str | None
    task: slurm.Task | None
    runs: list[str]
    log: Path


@dataclass(frozen=True)
class Known:
    """What is known of a run from its folder and from Slurm together.

    Parameters
    ----------
    status : Status
        With the state that follows from both.
    reason : str or None
        Why it waits or was lost, in words.
    job : Job or None
        Of a run that Slurm trains.
    """

    status: Status
    reason: str | None = None
    job: Job | None = None


@dataclass(frozen=True)
class RunStatus:
    """One run of an experiment.

    Parameters
    ----------
    run_id, preset, start : str
    seed : int
    axes : dict
        What sets this point apart from the other points of its preset.
    state : str
        One of `petgan.runs.STATES`.
    step, steps : int
    steps_per_second, seconds_left : float or None
    last : dict
        The last logged metrics.
    error : str or None
        One sentence on why it failed.
    trouble : str or None
        What is wrong with its training, see `petgan.watch`.
    reason : str or None
        In words, why it waits, or what became of it when it was lost.
    job : str or None
        Its Slurm job, such as ``1234_5``.
    node : str or None
        Where it trains, or did last.
    score : dict or None
        ``name``, ``value``, ``standard_error`` of the headline, once evaluated.
    """

    run_id: str
    preset: str
    start: str
    seed: int
    axes: dict[str, Any]
    state: str
    step: int
    steps: int
    steps_per_second: float | None
    seconds_left: float | None
    last: dict[str, float]
    error: str | None
    trouble: str | None
    reason: str | None
    job: str | None
    node: str | None
    score: dict[str, Any] | None


@dataclass(frozen=True)
class StageStatus:
    """A single job of a study, between its arrays: the newest of its kind.

    Parameters
    ----------
    action : str
        ``choose``, ``evaluate``, ``report`` or ``synthesize``.
    state : str
        ``queued``, ``running``, ``done``, ``failed``, ``interrupted``, or ``lost`` if its job has gone
        without a word.
    reason : str or None
        Why it waits, or why it failed, in words.
    log : str
        The file with all that it has said.
    """

    action: str
    state: str
    reason: str | None
    log: str


@dataclass(frozen=True)
class ExperimentStatus:
    """All runs of an experiment, in the grid's order.

    Parameters
    ----------
    name : str
    runs : list of RunStatus
    counts : dict of str to int
        Runs by state.
    seconds_left : float or None
        Until the last run that is queued or running ends, as far as speeds are known.
    warning : str or None
        Why Slurm could not be asked: the states are then those of the folders alone.
    stages : list of StageStatus
        A study's jobs between the arrays.
    """

    name: str
    runs: list[RunStatus]
    counts: dict[str, int]
    seconds_left: float | None
    warning: str | None
    stages: list[StageStatus] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Whether nothing is under way any more."""
        states = {*self.counts, *(stage.state for stage in self.stages)}
        return not any(state in states for state in UNFINISHED)


def experiment_status(experiment: ExperimentFolder) -> ExperimentStatus:
    """Read the state of all runs.

    Raises
    ------
    InputError
        If the folder is no experiment.
    """
    record = experiment.record()
    known, queue, warning = _look(experiment, [entry["run_id"] for entry in record["points"]])
    axes = differing_keys(entry["point"] for entry in record["points"])
    runs = [
        _run_status(experiment, entry, known[entry["run_id"]], axes[entry["point"]["preset"]])
        for entry in record["points"]
    ]
    at_once = sum(s.parallel for s in experiment.live_submissions())
    at_once += len({k.job.job for k in known.values() if k.job and k.status.state == "running"})
    return ExperimentStatus(
        name=record["name"],
        runs=runs,
        counts=dict(Counter(run.state for run in runs)),
        seconds_left=_seconds_left(runs, at_once),
        warning=warning,
        stages=_stages(experiment, queue),
    )


def known_statuses(experiment: ExperimentFolder) -> dict[str, Status]:
    """The status of each point by run id, in the grid's order, from the folders and from Slurm.

    Where Slurm cannot be asked, the folders alone count, and a warning is logged.
    """
    known, warning = look(experiment, [entry["run_id"] for entry in experiment.record()["points"]])
    if warning:
        logger.warning("%s", warning)
    return {run_id: found.status for run_id, found in known.items()}


def look(experiment: ExperimentFolder, run_ids: Sequence[str]) -> tuple[dict[str, Known], str | None]:
    """What is known of these runs, and why Slurm could not be asked, if it could not.

    Slurm is asked before the folders are read: a job that has left its queue by then has written its last
    word. Without a submission to Slurm, none of its commands is called.
    """
    known, _, warning = _look(experiment, run_ids)
    return known, warning


def _look(
    experiment: ExperimentFolder, run_ids: Sequence[str]
) -> tuple[dict[str, Known], dict[str, slurm.Task] | None, str | None]:
    """As `look`, and Slurm's queue; None if it was not asked or gave no answer."""
    submissions = _submissions(experiment)
    jobs: dict[str, Job] = {}
    warning = queue = None
    if any(submission.cluster == "slurm" for submission in submissions.values()):
        try:
            queue = _queue(experiment, submissions)
            jobs = _jobs(experiment, submissions, queue)
        except PetganError as error:
            warning = f"Slurm could not be asked, so this is what the folders say: {error}"
    elsewhere = _queued_elsewhere(experiment, submissions, jobs, asked=warning is None)
    known = {run_id: _merged(experiment.run(run_id), jobs.get(run_id), elsewhere) for run_id in run_ids}
    return _with_endings(known), queue, warning


def _stages(experiment: ExperimentFolder, queue: Mapping[str, slurm.Task] | None) -> list[StageStatus]:
    """A study's single jobs: the newest of each kind, in the order in which they were queued."""
    tasks = {task.name: task for task in (queue or {}).values()}
    newest: dict[str, Path] = {}
    for script in sorted(experiment.submissions.glob("*/*.sh")):
        if not script.stem.isdecimal():  # an array's, named by its first task
            newest.pop(script.stem, None)
            newest[script.stem] = script
    stages = []
    for action, script in newest.items():
        name, state, reason = script.parent.name, "queued", None
        task = tasks.get(job_name(experiment.path.name, f"{name}-{action}"))
        try:
            said = read_json(experiment.stage_file(name, action))
        except PetganError:
            said = None
        if task is not None:
            state, reason = ("queued", task.why) if task.waits else ("running", None)
        elif said is not None and said["state"] != "running":
            state, reason = said["state"], said["error"]
        elif queue is not None:
            state = "lost"
            reason = "its job has gone without a word" if said else "its job was cancelled before it began"
        stages.append(StageStatus(action, state, reason, str(script.with_suffix(".log"))))
    return stages


@dataclass(frozen=True)
class Efficiency(slurm.Usage):
    """What a job used of what it had, and for which runs.

    Parameters
    ----------
    runs : list of str
        That it trained; their ids.
    """

    runs: list[str] = field(default_factory=list)


def efficiency(experiment: ExperimentFolder) -> list[Efficiency]:
    """What the jobs that have ended used of what they had; of one that was requeued, its last start counts.

    Raises
    ------
    PetganError
        If the experiment was never on Slurm, or Slurm keeps no accounts.
    """
    run_ids = [entry["run_id"] for entry in experiment.record()["points"]]
    known, warning = look(experiment, run_ids)
    if warning:
        raise PetganError(warning, hint="give this command where Slurm's are")
    jobs = {found.job.job: found.job for found in known.values() if found.job and not found.job.task}
    if not any(found.job for found in known.values()):
        raise UserError(
            f"no run of {experiment.path} was trained by Slurm", hint="only its jobs are accounted for"
        )
    if not slurm.has_accounting():
        raise PetganError(
            "this cluster keeps no accounts (AccountingStorageType), so nobody knows what a job used",
            hint="'petgan status' shows steps a second all the same",
        )
    usage = _usage(job_id for job_id in jobs if job_id)
    return [
        Efficiency(**vars(usage[job_id]), runs=job.runs) for job_id, job in jobs.items() if job_id in usage
    ]


def advice(jobs: Sequence[Efficiency]) -> list[str]:
    """What to ask for less of, one sentence each, as far as the jobs agree."""
    return [*_memory_advice(jobs), *_cpu_advice(jobs), *_gpu_advice(jobs)]


def _memory_advice(jobs: Sequence[Efficiency]) -> Iterator[str]:
    measured = [(job.asked_mem_gb, job.peak_mem_gb) for job in jobs if job.asked_mem_gb and job.peak_mem_gb]
    if not measured:
        return
    asked, peak = max(a for a, _ in measured), max(p for _, p in measured)
    if peak < _WELL_USED * asked and math.ceil(1.5 * peak) < asked:
        yield (
            f"memory: asked {asked:.3g} GB, used {peak:.2g} at most: "
            f"mem_gb: {math.ceil(1.5 * peak)} would do, and start sooner"
        )


def _cpu_advice(jobs: Sequence[Efficiency]) -> Iterator[str]:
    had = sum(job.elapsed_seconds * job.cpus for job in jobs)
    used = sum(job.cpu_seconds for job in jobs)
    each = max((job.cpus for job in jobs), default=0)
    if had and each > 1 and used < _WELL_USED * had:
        yield f"CPUs: {each} a job, {each * used / had:.2g} of them busy: fewer cpus would start sooner"


def _gpu_advice(jobs: Sequence[Efficiency]) -> Iterator[str]:
    shares = [job.gpu_percent for job in jobs if job.gpu_percent is not None]
    if shares and statistics.fmean(shares) < 100 * _WELL_USED:
        busy = f"{statistics.fmean(shares):.0f} %"
        yield f"GPUs: busy {busy} of the time: a larger batch_size uses them better"


def differing_keys(points: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The keys in which the points of a preset differ, besides the seed, by preset."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for point in points:
        for key, value in point.items():
            values[point["preset"]][key].add(str(value))
    return {
        preset: [key for key, seen in keys.items() if len(seen) > 1 and key not in _NO_AXES]
        for preset, keys in values.items()
    }


def find_run(experiment: ExperimentFolder, prefix: str) -> RunFolder:
    """The run whose id begins with `prefix`.

    Raises
    ------
    ConfigError
        If there is none, or more than one.
    """
    run_ids = [entry["run_id"] for entry in experiment.record()["points"]]
    found = [run_id for run_id in run_ids if run_id.startswith(prefix)]
    if len(found) != 1:
        raise ConfigError(
            f"{'several runs begin so' if found else 'there is no such run'} in {experiment.path}",
            value=prefix,
            allowed=[*(found or run_ids)[:8], *(["..."] if len(found or run_ids) > 8 else [])],
        )
    return experiment.run(found[0])


def cancel(experiment: ExperimentFolder, run: RunFolder | None = None) -> dict[str, int]:
    """Ask all runs, or one, to checkpoint and stop; those that have not started yet never will.

    On Slurm each run is marked first, so that its job does not queue itself again. Then Slurm cancels the
    jobs all of whose runs are to be stopped; a job that has others to train sees the mark and goes on with
    those.

    Returns
    -------
    dict of str to int
        How many were ``running`` and have been asked, and how many were ``queued`` and are cancelled.

    Raises
    ------
    UserError
        If they run on another host, without Slurm.
    PetganError
        If Slurm could not be asked.
    """
    run_ids = [run.path.name] if run else [entry["run_id"] for entry in experiment.record()["points"]]
    known, warning = look(experiment, run_ids)
    if warning:
        raise PetganError(warning, hint="cancel the runs where Slurm's commands are")
    if run is None:
        for submission in experiment.live_submissions():
            if submission.pid is not None:
                _stop(submission.pid, submission.host)
    counts = {"running": 0, "queued": 0}
    for run_id, found in known.items():
        folder, state = experiment.run(run_id), found.status.state
        waits = state == "queued" or (state == "lost" and found.status.pid is None)
        if found.job and (waits or state == "running"):
            folder.ask_to_cancel()
        elif state == "running":
            _stop(found.status.pid, found.status.host)
        if waits:
            folder.update_status(state="cancelled")
        counts["running"] += state == "running"
        counts["queued"] += waits
    jobs = _jobs_to_cancel(experiment, known[run.path.name].job) if run else jobs_queued(experiment)
    slurm.cancel(jobs)
    return counts


def _jobs_to_cancel(experiment: ExperimentFolder, job: Job | None) -> list[str]:
    """The job, if it has nothing left to train."""
    if job is None or job.task is None:
        return []
    left = (r for r in map(experiment.run, job.runs) if not r.cancel_asked and r.status().state not in FINAL)
    return [] if any(left) else [job.task.job]


def jobs_queued(experiment: ExperimentFolder) -> list[str]:
    """Ids of all jobs and arrays of the experiment in Slurm's queue, see `tasks_queued`."""
    return sorted({task.job.partition("_")[0] for task in tasks_queued(experiment)})


def tasks_queued(experiment: ExperimentFolder) -> list[slurm.Task]:
    """All that Slurm's queue has of the experiment, a study's evaluations and choices too.

    They are known by their whole names: another experiment's folder may be called the same, or begin so.
    """
    submissions = _submissions(experiment)
    names = {array["name"] for submission in submissions.values() for array in submission.arrays}
    names |= {
        job_name(experiment.path.name, f"{script.parent.name}-{script.stem}")
        for script in experiment.submissions.glob("*/*.sh")
    }
    if not names:
        return []
    return [task for task in _queue(experiment, submissions).values() if task.name in names]


def _stop(pid: int | None, host: str | None) -> None:
    if host != socket.gethostname() or pid is None:
        raise UserError("the runs are on another machine", value=host, hint="give this command there")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise UserError("the runs belong to another user", hint="ask for them to be stopped") from None


# --- folders and queue ----------------------------------------------------------------------------------


def _submissions(experiment: ExperimentFolder) -> dict[str, Submission]:
    """All submissions by name, the oldest first."""
    names = [file.stem for file in experiment.submissions.glob("*.json")]
    submissions = {name: experiment.submission(name) for name in names}
    return dict(sorted(submissions.items(), key=lambda item: item[1].created))


def _queue(experiment: ExperimentFolder, submissions: Mapping[str, Submission]) -> dict[str, slurm.Task]:
    """Slurm's queue, in one call: of whoever submitted, who need not be who looks."""
    names = (name for name, submission in submissions.items() if submission.cluster == "slurm")
    return slurm.queue(users={experiment.submission_file(name).stat().st_uid for name in names})


def _jobs(
    experiment: ExperimentFolder, submissions: Mapping[str, Submission], queue: Mapping[str, slurm.Task]
) -> dict[str, Job]:
    """The job of each run, by run id; a run whose newest submission is to this machine has none."""
    # By its name an array is found whose submitter was killed before it could write the id down.
    tasks = {(task.name, _index(job)): task for job, task in queue.items()}
    jobs: dict[str, Job] = {}
    for name, submission in submissions.items():
        if submission.cluster != "slurm":
            for run_id in submission.runs:
                if run_id in jobs and jobs[run_id].task is None:
                    del jobs[run_id]
            continue
        here: dict[tuple[str, int], Job] = {}
        for run_id, array, index in submission.tasks():
            job = here.get((array["name"], index))
            if job is None:
                job_id = array["job"] and f"{array['job']}_{index}"
                task = queue.get(job_id) if job_id else tasks.get((array["name"], index))
                log = experiment.batch_folder(name) / f"{array['first']}-{index}.log"
                job = here[array["name"], index] = Job(task.job if task else job_id, task, [], log)
            job.runs.append(run_id)
            if job.task or run_id not in jobs or jobs[run_id].task is None:
                jobs[run_id] = job
    return jobs


def _index(job: str) -> int:
    index = job.partition("_")[2]
    return int(index) if index.isdecimal() else 0


def _queued_elsewhere(
    experiment: ExperimentFolder,
    submissions: Mapping[str, Submission],
    jobs: Mapping[str, Job],
    *,
    asked: bool,
) -> dict[str, str | None]:
    """Runs that wait though they are not in Slurm's queue, by id, and why."""
    found: dict[str, str | None] = {
        run_id: None for submission in experiment.live_submissions() for run_id in submission.runs
    }
    if not asked:
        slurms = [s for s in submissions.values() if s.cluster == "slurm"]
        found |= {run_id: None for submission in slurms for run_id in submission.runs}
    unnumbered = [run_id for run_id, job in jobs.items() if job.job is None]
    if unnumbered and _being_submitted(experiment):
        found |= dict.fromkeys(unnumbered, "is being submitted")
    return found


def _being_submitted(experiment: ExperimentFolder) -> bool:
    """Whether another process is handing this experiment to Slurm right now."""
    claim = experiment.submissions / ".submitting"
    try:
        holder, seen = json.loads(claim.read_text(encoding="utf-8")), claim.stat().st_mtime
    except (OSError, ValueError):
        return False
    if holder["host"] != socket.gethostname():
        return file_system_time(experiment.submissions) - seen < _SUBMITTING_SECONDS
    return holder["pid"] != os.getpid() and process_exists(holder["pid"], holder["time"])


def _merged(run: RunFolder, job: Job | None, elsewhere: Mapping[str, str | None]) -> Known:
    status = run.status()
    if status.state in FINAL:
        return Known(status, None, job)
    task = job.task if job else None
    if job and task:
        if task.waits:
            return Known(replace(status, state="queued"), task.why, job)
        if status.state == "running":
            return Known(status, None, job)
        return Known(replace(status, state="queued"), _about_to_start(job, task), job)
    if job and status.state != "running" and run.cancel_asked:
        return Known(replace(status, state="cancelled"), None, job)
    if status.state == "queued" and run.path.name in elsewhere:
        return Known(status, elsewhere[run.path.name], job)
    return Known(replace(status, state="lost") if status.state == "queued" else status, None, job)


def _about_to_start(job: Job, task: slurm.Task) -> str:
    if task.state == "COMPLETING":
        return f"its job is ending on {task.nodes}"
    if len(job.runs) > 1:
        return f"waits for its turn in a job on {task.nodes}"
    return f"is starting on {task.nodes}"


def _with_endings(known: dict[str, Known]) -> dict[str, Known]:
    """Say of each run that Slurm trains no more how its job ended, from accounting where there is any."""
    gone = {
        run_id: (found, found.job.job)
        for run_id, found in known.items()
        if found.job and not found.job.task and found.status.state in ("lost", "interrupted")
    }
    usage: dict[str, slurm.Usage] = {}
    with contextlib.suppress(PetganError):  # then nobody knows how they ended
        if gone and slurm.has_accounting():
            usage = _usage(job for _, job in gone.values() if job)
    endings = {
        run_id: replace(found, reason=_with_last_words(found, _ending(found.status.state, job, usage)))
        for run_id, (found, job) in gone.items()
    }
    return {**known, **endings}


def _ending(state: str, job: str | None, usage: Mapping[str, slurm.Usage]) -> str | None:
    if job is None:
        return "it never reached Slurm"
    ended = usage[job].state if job in usage else None
    if ended in slurm.ENDINGS:
        return f"{slurm.ENDINGS[ended]} (job {job})"
    if state == "interrupted":  # by its own word
        return None
    if ended in (None, "PENDING", "RUNNING"):
        return f"Slurm has forgotten its job {job}"
    return f"its job ended ({ended}) without a word (job {job})"


def _with_last_words(known: Known, reason: str | None) -> str | None:
    """Add what the task of a lost run said in its job's log, for want of a run folder that it could write."""
    if known.job is None or known.status.state != "lost":
        return reason
    try:
        with open(known.job.log, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return reason
    for line in reversed(lines):
        if line.startswith("petgan: "):
            return f"{reason}: {line.removeprefix('petgan: ')}"
        if line.startswith("slurmstepd") and ("exceeded memory limit" in line or "oom" in line):
            return f"{slurm.ENDINGS['OUT_OF_MEMORY']} (job {known.job.job})"
        if " rank 0 of " in line:  # what comes before was said by an earlier start
            break
    return reason


def _usage(jobs: Iterable[str]) -> dict[str, slurm.Usage]:
    """What accounting knows of these jobs, in one call."""
    # Tasks that never started are known by their array alone.
    arrays = {job.partition("_")[0] for job in jobs}
    return slurm.usage(arrays) if arrays else {}


# --- what is shown --------------------------------------------------------------------------------------


def _run_status(
    experiment: ExperimentFolder, entry: Mapping[str, Any], known: Known, axes: list[str]
) -> RunStatus:
    point, status, job = entry["point"], known.status, known.job
    speed = status.steps_per_second
    steps = status.steps or point["steps"]
    running = status.state == "running" and speed
    return RunStatus(
        run_id=entry["run_id"],
        preset=point["preset"],
        start=entry["start"],
        seed=point["seed"],
        axes={key: point[key] for key in axes},
        state=status.state,
        step=status.step,
        steps=steps,
        steps_per_second=speed,
        seconds_left=(steps - status.step) / speed if running and speed else None,
        last=status.last,
        error=status.error,
        trouble=status.trouble,
        reason=known.reason,
        job=(job.job if job else None) or (status.job and status.job.partition("+")[0]),
        node=(job.task.nodes if job and job.task else None) or status.host,
        score=_headline(experiment.run(entry["run_id"])) if status.state == "done" else None,
    )


def _headline(run: RunFolder) -> dict[str, Any] | None:
    evaluation = run.evaluation()
    if evaluation is None:
        return None
    return next(
        (
            {key: score[key] for key in ("name", "value", "standard_error")}
            for score in evaluation["scores"]
            if score["name"] == evaluation["headline"]
        ),
        None,
    )


def _seconds_left(runs: Sequence[RunStatus], parallel: int) -> float | None:
    """Steps that remain over the mean speed of each preset, shared among `parallel` runs."""
    speeds: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.steps_per_second:
            speeds[run.preset].append(run.steps_per_second)
    open_runs = [run for run in runs if run.state in UNFINISHED]
    if not open_runs or any(run.preset not in speeds for run in open_runs):
        return None
    mean = {preset: statistics.fmean(values) for preset, values in speeds.items()}
    work = [(run.steps - run.step) / mean[run.preset] for run in open_runs]
    return max(max(work), sum(work) / max(1, parallel))
