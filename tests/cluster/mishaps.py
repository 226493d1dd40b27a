"""What happens to runs on a cluster, done on purpose; and what a run has left, to be compared."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
from conftest import TESTBED, Cluster, logs, wait_until

from petgan import slurm
from petgan.runs import ExperimentFolder, RunFolder, read_json


def results(run: RunFolder) -> dict[str, object]:
    """All of a run that must not depend on what happened to it: weights, metrics, sheets."""
    files = {p.name: p.read_bytes() for p in [run.metrics_file, *sorted(run.samples.glob("*.png"))]}
    for path in sorted(run.checkpoints.glob("*.h5")):
        with h5py.File(path) as checkpoint:
            files[path.name] = checkpoint.attrs["digest"]  # of weights, optimizers and random state
    return files


STEPS = 900
_undisturbed: dict[str, object] = {}


def undisturbed(cluster: Cluster, dataset: Path) -> Callable[[], dict[str, object]]:
    """Train the run that nothing happens to, once a session; returned is what waits for its results."""
    whole = None if _undisturbed else cluster.submit(cluster.grid(steps=STEPS, name="whole"), dataset)

    def wait() -> dict[str, object]:
        if whole is not None:
            cluster.wait(whole, "done")
            assert len(starts(only_run(whole))) == 1
            assert last_step(only_run(whole)) == STEPS
            _undisturbed.update(results(only_run(whole)))
        return _undisturbed

    return wait


def only_run(experiment: ExperimentFolder) -> RunFolder:
    (run,) = experiment.run_folders()
    return run


def last_step(run: RunFolder) -> int:
    lines = run.metrics()
    return lines[-1]["step"] if lines else 0


def wait_for_step(run: RunFolder, step: int, seconds: float = 120) -> None:
    """Wait until a run has logged update `step`, or more."""
    experiment = ExperimentFolder(run.path.parents[1])
    wait_until(lambda: last_step(run) >= step, seconds, lambda: logs(experiment), every=0.1)


def starts(run: RunFolder) -> list[str]:
    """The jobs that have trained a run, each start of them: such as 12_0, 12_0+1."""
    return read_json(run.lineage_file)["jobs"]


def job_of(experiment: ExperimentFolder) -> str:
    """The id of the only job of an experiment's newest submission."""
    (array,) = experiment.slurm_submissions()[-1].arrays
    return f"{array['job']}_0"


# --- processes ------------------------------------------------------------------------------------------


def processes(*words: str) -> list[int]:
    """The processes of this machine in whose command line all `words` stand, the oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            began = int((entry / "stat").read_text().rpartition(")")[2].split()[19])
        except OSError:
            continue
        if line and all(word in line for word in words):
            found.append((began, int(entry.name)))
    return [pid for _, pid in sorted(found)]


def host_tasks(experiment: ExperimentFolder) -> list[int]:
    """What srun started: one process a rank."""
    return [pid for pid in processes("-m petgan.task", str(experiment.path)) if not _runs(pid, "srun")]


def containers(run: RunFolder) -> list[int]:
    """The processes of Apptainer that hold a run's workers."""
    return _children(host_tasks(ExperimentFolder(run.path.parents[1])))


def workers(run: RunFolder) -> list[int]:
    """The workers of a run, within their containers."""
    return [pid for pid in processes("-m petgan.worker", _name(run)) if _runs(pid, "python")]


def _name(run: RunFolder) -> str:
    """The end of its path: the rest is written otherwise in JSON."""
    return "/".join(run.path.parts[-3:])


def _children(parents: list[int]) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", ",".join(map(str, parents)) or "0"], capture_output=True, text=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def _runs(pid: int, program: str) -> bool:
    return Path(_line(pid).partition(" ")[0]).name.startswith(program)


def _line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    assert pids, "there is nobody to kill"
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


# --- Slurm ----------------------------------------------------------------------------------------------


def on_testbed(*words: str) -> None:
    subprocess.run([TESTBED, *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def scancel(job: str, *options: str) -> None:
    subprocess.run(["scancel", *options, job], check=True)


def queued(experiment: ExperimentFolder) -> dict[str, slurm.Task]:
    """What Slurm has of an experiment in its queue, by whatever name it is known."""
    names = {a["name"] for s in experiment.slurm_submissions() for a in s.arrays}
    return {job: task for job, task in slurm.queue().items() if task.name in names}
