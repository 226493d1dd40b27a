"""What petgan asks of Slurm, by Slurm's own commands: submit, look, cancel, requeue.

Only this module calls them. Every answer is parsed from a format that was asked for, never from a
table that is meant for the eye.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from petgan.errors import PetganError, UserError
from petgan.launch import die_with

_TIMEOUT_SECONDS = 120.0
_IDS_A_CALL = 2000  # a command line has its limits

#: In words, why a job waits. Slurm's own name stands where there is none here (man squeue, JOB REASON CODES).
REASONS = {
    "None": "waits for the scheduler",
    "Priority": "jobs of higher priority are before it",
    "Resources": "waits for free nodes, CPUs, GPUs or memory",
    "Dependency": "waits for other jobs to end",
    "DependencyNeverSatisfied": "waits for a job that failed: cancel it",
    "JobArrayTaskLimit": "as many runs train at once as --max-parallel allows",
    "BeginTime": "was requeued and begins again in about two minutes",
    "JobHeldUser": "is held: release it with scontrol release",
    "JobHeldAdmin": "is held by an administrator",
    "JobHoldMaxRequeue": "was requeued too often, and is held: release it with scontrol release",
    "Nodes required for job are DOWN": "the nodes are down, drained or kept for jobs of higher priority",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs now",
    "PartitionTimeLimit": "asks for more time than its partition gives",
    "PartitionNodeLimit": "asks for more nodes than its partition has",
    "PartitionConfig": "asks for what its partition does not have",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "BadConstraints": "no node is as it asks",
    "Reservation": "waits for its reservation",
    "QOSMaxJobsPerUserLimit": "you have as many jobs as your QOS allows",
    "QOSGrpGRES": "your group has all the GPUs that its QOS allows",
    "AssocMaxJobsLimit": "you have as many jobs as your account allows",
    "AssocGrpGRES": "your group has all the GPUs that its account allows",
    "Licenses": "waits for a licence",
    "Cleaning": "its last start is being cleaned up",
    "launch failed requeued held": "could not be started on its node, and is held",
}

#: In words, how a job ended that did not end well.
ENDINGS = {
    "OUT_OF_MEMORY": "Slurm killed the job, for it took more memory than it had asked for: raise mem_gb",
    "NODE_FAIL": "the node failed",
    "TIMEOUT": "the job came to its time limit before it could write a checkpoint",
    "CANCELLED": "the job was cancelled",
    "PREEMPTED": "the job was preempted",
    "BOOT_FAIL": "the node did not boot",
    "DEADLINE": "the job came to its deadline",
    "FAILED": "the job failed",
}


@dataclass(frozen=True)
class Task:
    """One job, or one task of a job array, that Slurm has not forgotten yet.

    Parameters
    ----------
    job : str
        Such as ``1234_5``, or ``1234`` where it is no array.
    state : str
        Slurm's, such as ``PENDING`` or ``RUNNING``.
    reason : str
        Slurm's reason for waiting; ``None`` where it does not wait.
    nodes : str
        Where it runs.
    name : str
        Of the job.
    """

    job: str
    state: str
    reason: str
    nodes: str
    name: str

    @property
    def waits(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD")

    @property
    def why(self) -> str:
        """Why it waits, in words."""
        name = self.reason.split(",")[0].strip("()")
        for whose in ("QOS", "Assoc"):  # some fifty limits each
            if name.startswith(whose) and name not in REASONS:
                return f"your {'QOS' if whose == 'QOS' else 'account'} is at its limit ({name})"
        return REASONS.get(name, f"Slurm says {name}")


@dataclass(frozen=True)
class Usage:
    """What a job took, from Slurm's accounting.

    Parameters
    ----------
    job, state, nodes : str
    elapsed_seconds : float
        Of the clock.
    cpu_seconds : float
        Of all its processes.
    cpus, gpus : int
        That it had.
    asked_mem_gb, peak_mem_gb : float or None
        Memory a node: what it had, and the most that its processes took, as far as Slurm sampled it.
    gpu_percent : float or None
        Mean utilization of its GPUs, where the cluster measures it.
    """

    job: str
    state: str
    nodes: str
    elapsed_seconds: float
    cpu_seconds: float
    cpus: int
    gpus: int
    asked_mem_gb: float | None
    peak_mem_gb: float | None = None
    gpu_percent: float | None = None

    @property
    def cpu_efficiency(self) -> float | None:
        """Share of the CPU time that it had and used, 0 to 1."""
        had = self.elapsed_seconds * self.cpus
        return self.cpu_seconds / had if had else None


@dataclass(frozen=True)
class Partition:
    """What the cluster says of a partition: the largest node counts.

    Parameters
    ----------
    name : str
    time_min : int or None
        Longest job; None for no limit.
    nodes, cpus, mem_gb, gpus
        How many nodes, and what the largest of them has.
    features, gpu_types : frozenset of str
        That some node has: what ``--constraint`` may name, and the types of GPUs.
    """

    name: str
    time_min: int | None
    nodes: int
    cpus: int
    mem_gb: float
    gpus: int
    features: frozenset[str] = frozenset()
    gpu_types: frozenset[str] = frozenset()


# --- looking --------------------------------------------------------------------------------------------


def available() -> bool:
    """Whether there is a Slurm here to speak with."""
    return shutil.which("sbatch") is not None


@functools.cache
def config() -> dict[str, str]:
    """Slurm's configuration, such as ``MaxArraySize``."""
    lines = _ask("scontrol", "show", "config").splitlines()
    pairs = (line.partition("=")[::2] for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def max_array_size() -> int:
    """The largest index of a job array, plus one.

    Raises
    ------
    UserError
        If the cluster takes no job arrays.
    """
    size = int(config().get("MaxArraySize", "1001"))
    if size < 2:
        raise UserError("this cluster takes no job arrays: its MaxArraySize is 0")
    return size


def has_accounting() -> bool:
    return config().get("AccountingStorageType", "").endswith("slurmdbd")


def partitions() -> dict[str, Partition]:
    """The partitions that take jobs, by name; the default one first."""
    found: dict[str, Partition] = {}
    default = None
    for line in _ask("sinfo", "-h", "-e", "-o", "%P|%a|%l|%D|%c|%m|%G|%f").splitlines():
        name, up, time, nodes, cpus, memory, gres, features = line.split("|")
        default = name[:-1] if name.endswith("*") else default
        name = name.rstrip("*")
        if up != "up":
            continue
        row = Partition(
            name,
            minutes(time),
            int(nodes),
            _most(cpus),
            _most(memory) / 1024,
            _gpus(gres),
            frozenset(features.split(",")) - {"", "(null)"},
            frozenset(re.findall(r"\bgpu:([^,:(]+):\d+", gres)),
        )
        before = found.get(name)
        found[name] = row if before is None else _larger(before, row)
    return dict(sorted(found.items(), key=lambda item: item[0] != default))


def accounts() -> dict[str, list[str]]:
    """The accounts that we may charge, and the QOS of each; none where Slurm does not insist on one."""
    if not has_accounting() or "associations" not in config().get("AccountingStorageEnforce", ""):
        return {}
    user = f"user={pwd.getpwuid(os.getuid()).pw_name}"
    found: dict[str, list[str]] = {}
    for line in _ask("sacctmgr", "-nP", "show", "assoc", user, "format=account,qos").splitlines():
        account, qos = line.split("|")
        found[account] = sorted({*found.get(account, []), *filter(None, qos.split(","))})
    return found


def queue(
    jobs: Iterable[str] | None = None, name: str | None = None, users: Iterable[int] = ()
) -> dict[str, Task]:
    """The tasks that wait or run, by id, array tasks one by one.

    Parameters
    ----------
    jobs : iterable of str, optional
        Ids of jobs and arrays; those that Slurm has forgotten are passed over.
    name : str, optional
        Of the jobs.
    users : iterable of int, optional
        User ids of those whose jobs they are; by default ours.
    """
    chosen = [f"--user={','.join(map(str, sorted(users)))}" if users else "--me"]
    if name is not None:
        chosen.append(f"--name={name}")
    tasks: dict[str, Task] = {}
    for group in _groups(jobs):
        # squeue knows no job by the id of one that has gone, and says so only if it was asked for one.
        out = _ask(
            "squeue", "-h", "-r", "-o", "%i|%T|%N|%j|%r", *chosen, *_jobs(group),
            forgiven="Invalid job id",
        )  # fmt: skip
        for line in out.splitlines():
            job, state, nodes, job_name, reason = line.split("|", 4)
            tasks[job] = Task(job, state, reason, nodes, job_name)
    return tasks


def usage(jobs: Iterable[str]) -> dict[str, Usage]:
    """What accounting knows of jobs, by id, array tasks one by one; a requeued job's last start."""
    fields = (
        "JobID,State,NodeList,NNodes,ElapsedRaw,TotalCPU,AllocCPUS,AllocTRES,TRESUsageInTot,TRESUsageInAve"
    )
    found: dict[str, Usage] = {}
    for group in _groups(jobs):
        for line in _ask("sacct", "-n", "-P", "-o", fields, *_jobs(group)).splitlines():
            job, state, names, nodes, elapsed, cpu, cpus, had, total, mean = line.split("|")
            job, _, step = job.partition(".")
            count = int(nodes or 1) or 1
            if not step:
                for task in _expanded(job):
                    found[task] = Usage(
                        job=task,
                        state=(state.split() or [""])[0],  # "CANCELLED by 0"
                        nodes=names.replace("None assigned", ""),
                        elapsed_seconds=float(elapsed or 0),
                        cpu_seconds=seconds(cpu),
                        cpus=int(cpus or 0),
                        gpus=int(_tres(had, "gres/gpu") or 0),
                        asked_mem_gb=_gibibytes(_tres(had, "mem"), count),
                    )
            elif job in found:
                found[job] = _with_step(
                    found[job], _gibibytes(_tres(total, "mem"), count), _tres(mean, "gres/gpuutil")
                )
    return found


# --- acting ---------------------------------------------------------------------------------------------


def submit(script: str, *, test_only: bool = False) -> str:
    """Hand a batch script to sbatch and return the job's id.

    Parameters
    ----------
    script : str
        The script's text.
    test_only : bool
        Have Slurm check it, and queue nothing; returns an empty text.

    Raises
    ------
    UserError
        In Slurm's own words, if it refuses the script.
    """
    options = ["--test-only"] if test_only else ["--parsable"]
    parent = os.getpid()
    done = subprocess.run(
        ["sbatch", *options],
        input=script,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=clean_environment(),
        preexec_fn=lambda: die_with(parent),  # killed with us, it queues nothing that nobody has heard of
    )
    if done.returncode:
        words = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
        raise UserError(
            f"Slurm refuses the job: {'; '.join(words or done.stderr.strip().splitlines())}",
            hint="'petgan submit --dry-run' shows the script, 'sinfo' what the cluster has",
        )
    return "" if test_only else done.stdout.strip().partition(";")[0]


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs, arrays or single tasks: what runs gets SIGTERM and time for its checkpoint."""
    for group in _groups(jobs):
        _ask("scancel", *group, forgiven="Invalid job id")


def goes_on(job: str) -> bool:
    """Whether a job that has been told to stop is one to queue again: warned, preempted, or out of time.

    One that was cancelled, or is in the queue again already, is not. Slurm itself queues a preempted job
    again only if it holds out until its grace is over.
    """
    task = queue([job]).get(job)
    return task is not None and (
        task.state == "RUNNING" or (task.state == "COMPLETING" and task.reason == "TimeLimit")
    )


def requeue(job: str) -> None:
    """Put a job of ours that runs back into the queue, under its own id."""
    _ask("scontrol", "requeue", job)


def clean_environment() -> dict[str, str]:
    """Our environment without ``SBATCH_*`` and ``SLURM_*``, which would override what a script says."""
    kept = ("SLURM_CONF",)
    return {k: v for k, v in os.environ.items() if k in kept or not k.startswith(("SBATCH_", "SLURM_"))}


# --- parsing --------------------------------------------------------------------------------------------


def minutes(text: str) -> int | None:
    """Read one of Slurm's time limits, ``[days-][hours:]minutes:seconds``; None if it is none."""
    if text in ("infinite", "UNLIMITED", "n/a", "NOT_SET"):
        return None
    return int(seconds(text) // 60)


def seconds(text: str) -> float:
    """Read one of Slurm's durations, ``[days-][hours:]minutes:seconds[.fraction]``."""
    days, _, clock = text.rpartition("-")
    total = 0.0
    for part in clock.split(":") if clock else []:
        total = total * 60 + float(part)
    return total + 86400 * int(days or 0)


def _most(text: str) -> int:
    return int(text.rstrip("+"))  # "64+": some nodes have more


def _gpus(gres: str) -> int:
    """GPUs a node in ``gpu:a100:4(S:0-1),gpu:2``."""
    return sum(int(n) for n in re.findall(r"\bgpu(?::[^,:(]+)??:(\d+)", gres))


def _larger(a: Partition, b: Partition) -> Partition:
    return Partition(
        a.name,
        a.time_min,
        a.nodes + b.nodes,
        max(a.cpus, b.cpus),
        max(a.mem_gb, b.mem_gb),
        max(a.gpus, b.gpus),
        a.features | b.features,
        a.gpu_types | b.gpu_types,
    )


def _expanded(job: str) -> list[str]:
    """The tasks in ``12_[0-2,7%4]``, as those of an array that never started are written."""
    array, bracket, indices = job.partition("_[")
    if not bracket:
        return [job]
    tasks = []
    for part in indices.partition("%")[0].rstrip("]").split(","):
        first, _, last = part.partition("-")
        tasks += [f"{array}_{index}" for index in range(int(first), int(last or first) + 1)]
    return tasks


def _with_step(job: Usage, mem_gb: float | None, gpu_percent: str | None) -> Usage:
    return replace(
        job,
        peak_mem_gb=max(filter(None, [job.peak_mem_gb, mem_gb]), default=None),
        gpu_percent=job.gpu_percent if gpu_percent is None else float(gpu_percent),
    )


def _tres(text: str, name: str) -> str | None:
    """One value of ``billing=4,cpu=4,mem=1000M,node=1``, Slurm's trackable resources."""
    return dict(pair.partition("=")[::2] for pair in text.split(",")).get(name)


def _gibibytes(text: str | None, nodes: int) -> float | None:
    match = re.fullmatch(r"([\d.]+)([KMGTP]?)", text or "")
    return float(match[1]) * 1024 ** " KMGTP".index(match[2] or " ") / 1024**3 / nodes if match else None


def _groups(jobs: Iterable[str] | None) -> Iterable[list[str]]:
    if jobs is None:
        return [[]]
    ids = sorted(set(jobs))
    return [ids[i : i + _IDS_A_CALL] for i in range(0, len(ids), _IDS_A_CALL)]


def _jobs(ids: Sequence[str]) -> list[str]:
    return [f"--jobs={','.join(ids)}"] if ids else []


def _ask(*command: str, forgiven: str | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            env={**clean_environment(), "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"},
        )
    except FileNotFoundError:
        raise UserError(
            f"there is no command {command[0]} here",
            hint="give this command on a login node of the cluster, or take --cluster local",
        ) from None
    except subprocess.TimeoutExpired:
        raise PetganError(
            f"{command[0]} has not answered for {_TIMEOUT_SECONDS:.0f} s", hint="ask Slurm's state with sdiag"
        ) from None
    if done.returncode and not (forgiven and forgiven in done.stderr):
        raise PetganError(f"{' '.join(command[:2])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
