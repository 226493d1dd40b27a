"""The text of a batch script: one that a person can read, and hand to sbatch.

It holds no variable of the environment but the names of those that the job may see.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from petgan.config import Resources
from petgan.errors import ConfigError
from petgan.profile import Profile

#: Variables of the submitting shell that a job gets; nothing else of it travels.
EXPORTED = ("PATH", "HOME", "USER", "LANG", "SLURM_CONF")


@dataclass(frozen=True)
class Job:
    """One job, or one array of jobs.

    Parameters
    ----------
    name : str
        Letters, digits, dots and dashes.
    comment : str
        What it is, in one line.
    command : sequence of str
        What each rank runs; its arguments may hold any character.
    folder : Path
        Where it runs: a snapshot of petgan's code.
    output : Path
        Its log; ``%a`` stands for the array's index.
    resources : Resources
    tasks : int, optional
        Of the array; None for a job that is no array.
    parallel : int, optional
        How many tasks of the array run at once; None for no limit.
    exclude : sequence of str
        Nodes to avoid.
    after : sequence of str
        Ids of jobs that must have ended, however they ended.
    """

    name: str
    comment: str
    command: Sequence[str]
    folder: Path
    output: Path
    resources: Resources
    tasks: int | None = None
    parallel: int | None = None
    exclude: Sequence[str] = ()
    after: Sequence[str] = field(default=())


def job_name(experiment: str, submission: str) -> str:
    """The name of a submission's jobs: unique, and made of letters that no shell minds."""
    return f"petgan-{re.sub(r'[^A-Za-z0-9.-]+', '-', experiment)[:40]}-{submission}"


def script(job: Job, profile: Profile) -> str:
    """The batch script of a job on this site."""
    environment = {
        "PYTHONPATH": str(job.folder),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }
    lines = [
        "#!/bin/bash",
        f"# petgan: {_one_line(job.comment)}",
        *(f"#SBATCH {option}" for option in _options(job, profile)),
        "",
        # A batch script is no login shell, which is where many sites define "module".
        *(["command -v module >/dev/null || . /etc/profile"] if profile.modules else []),
        *(f"module load {shlex.quote(module)} || exit" for module in profile.modules),
        *profile.setup,
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"cd {shlex.quote(str(job.folder))} || exit",
        # All of this script's environment, which has little of the user's; srun does not take the CPUs from
        # sbatch. A rank that fails tells the others itself: to kill them all is the last resort.
        f"srun --export=ALL --cpus-per-task={job.resources.cpus} --kill-on-bad-exit=0 --wait=300 "
        + shlex.join(job.command),
    ]
    return "\n".join(lines) + "\n"


def _options(job: Job, profile: Profile) -> list[str]:
    resources = job.resources
    options: dict[str, str | int | None] = {
        "job-name": job.name,
        "output": _quoted(str(job.output)),
        "open-mode": "append",
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "nodes": resources.nodes,
        "ntasks-per-node": resources.ranks_per_node,
        "cpus-per-task": resources.cpus,
        "mem": f"{round(resources.mem_gb * 1024)}M",
        "time": resources.time_min,
        "exclude": ",".join(job.exclude) or None,
        "dependency": f"afterany:{':'.join(job.after)}" if job.after else None,
        "export": ",".join(EXPORTED),
        "signal": f"USR2@{profile.warning_s}",
    }
    if resources.gpus:
        gpus = ":".join(filter(None, [profile.gpu_type, str(resources.gpus)]))
        options[profile.gpu_request] = f"gpu:{gpus}" if profile.gpu_request == "gres" else gpus
    if job.tasks is not None:
        throttle = f"%{job.parallel}" if job.parallel else ""
        options["array"] = f"0-{job.tasks - 1}{throttle}"
    return [
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        "--requeue",
        *profile.sbatch,
    ]


def _quoted(path: str) -> str:
    """A file name as sbatch reads it in a script; "%" would begin a pattern."""
    if "\n" in path:
        raise ConfigError("sbatch takes no folder with a line break in its name", value=path)
    name, _, last = path.rpartition("/")
    escaped = name.replace("%", "%%") + "/" + last
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _one_line(text: str) -> str:
    return " ".join(text.split())
