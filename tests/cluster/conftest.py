"""A Slurm of two nodes, an image, and petgan's command line on it. `make test-cluster` brings both up."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from petgan import container, slurm
from petgan.runs import ExperimentFolder
from petgan.snapshot import PACKAGE
from petgan.status import known_statuses

ROOT = Path(__file__).parents[2]
TESTBED = ROOT / "slurm" / "testbed" / "testbed"

#: Variables of the host task, given to a script by each rank's place in Slurm; see petgan.task.
_RANK = """
import os, sys, tempfile
from petgan import container
from petgan.task import Place
from petgan.runs import RunFolder, Submission
from pathlib import Path
image, work, digest, *command = sys.argv[1:]
place = Place.from_slurm()
told = place.environment(RunFolder(Path(work)), Submission("slurm", [], 0, digest))
extra = {k.removeprefix("GIVEN_"): v for k, v in os.environ.items() if k.startswith("GIVEN_")}
left_out = extra.pop("LEAVE_OUT", "").split()
told = {k: v for k, v in {**told, **extra}.items() if k not in left_out}
argv, outside = container.exec_command(
    image, command, environment={"PYTHONPATH": os.environ["PYTHONPATH"], "PYTHONUNBUFFERED": "1", **told},
    read_only=[Path(p) for p in os.environ["PYTHONPATH"].split(":")], writable=[Path(work)],
    scratch=Path(tempfile.mkdtemp(dir=work)), gpus=False,
)
os.execvpe(argv[0], argv, outside)
"""


_CAPTURED = {
    "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True,
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def testbed(worker_id):
    """The test cluster, started if it is not up, and stopped again if it was not.

    Each of several processes that share the tests (`pytest -n`) has a cluster of its own, since tests kill
    nodes: the first one that of `make cluster`, the others one beside it.
    """
    number = int(worker_id.removeprefix("gw")) if worker_id != "master" else 0
    if number:
        folder = os.environ.get("PETGAN_TESTBED", "/var/tmp/petgan-testbed")
        port = int(os.environ.get("PETGAN_TESTBED_PORT", 17000))
        os.environ["PETGAN_TESTBED"] = f"{folder}-{number}"
        os.environ["PETGAN_TESTBED_PORT"] = str(port + 10 * number)
    said = subprocess.run([TESTBED, "start"], check=True, **_CAPTURED).stdout
    ours = "already running" not in said
    settings = subprocess.run([TESTBED, "env"], check=True, capture_output=True, text=True).stdout
    for line in settings.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        os.environ[name] = os.path.expandvars(shlex.split(value)[0])
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    slurm.config.cache_clear()
    yield
    if ours:
        subprocess.run([TESTBED, "stop"], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def image() -> Path:
    """The CPU image that `make cluster` has built."""
    image = ROOT / "containers" / "petgan-cpu.sif"
    assert image.is_file(), "there is no image yet: make cluster"
    return image.resolve()


class Cluster:
    """petgan on the test cluster, in a folder whose name no shell script likes."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder, self.image = folder, image

    def profile(self, **values) -> Path:
        """A profile: the test image, a warning that comes late, and `values`."""
        file = self.folder / "profile.yaml"
        settings = {"image": str(self.image), "warning_s": 20, **values}
        file.write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
        return file

    def grid(
        self, *, preset="gan", steps=40, time_min=10, product=None, name="g", resources=None, **base
    ) -> Path:
        """A grid file; `product` spans it, one point by default."""
        content = {
            "name": name,
            "base": {"steps": steps, "batch_size": 8, "latent_size": 8, **base},
            "resources": {"cpus": 1, "mem_gb": 2, "time_min": time_min, **(resources or {})},
            "every": {"log": 5, "checkpoint": 10},
            "sweeps": [{"name": "s", "preset": preset, "product": product or {"dropout": [0.3]}}],
            "tables": [{"title": "T", "sweep": "s", "rows": next(iter(product or {"dropout": 0}))}],
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def petgan(self, *arguments, code=0, env=None, timeout=120) -> str:
        """Run a command of petgan in the cluster's folder; what it printed, both streams."""
        done = subprocess.run(
            [sys.executable, "-m", "petgan", *map(str, arguments)],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}, timeout=timeout,
            **_CAPTURED,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def submit(self, grid: Path, dataset: Path, *options, profile: Path | None = None) -> ExperimentFolder:
        """`petgan submit` of a grid to Slurm."""
        folder = self.folder / f"experiment {grid.stem}"
        self.petgan(
            "submit", grid, "--dataset", dataset, "--experiment", folder,
            "--cluster", "slurm", "--profile", profile or self.profile(), *options, timeout=300,
        )  # fmt: skip
        return ExperimentFolder(folder)

    def srun(self, arguments, *, nodes=2, tasks_per_node=2, env=None, work=None, timeout=300):
        """Run Python with `arguments` in the image, as so many ranks.

        `env` overrides what each of them is told; LEAVE_OUT="PETGAN_X ..." in it tells them nothing of X.
        """
        work = work or self.folder / "ranks"
        work.mkdir(exist_ok=True)
        given = {f"GIVEN_{name}": value for name, value in (env or {}).items()}
        given["PYTHONPATH"] = f"{PACKAGE.parent}:{Path(__file__).parent}"
        shape = [f"--nodes={nodes}", f"--ntasks-per-node={tasks_per_node}"]
        command = [container.PYTHON, *map(str, arguments)]
        return subprocess.run(
            ["srun", *shape, "--kill-on-bad-exit=0",
             "--wait=120",  # the others may need LOST_SECONDS to notice that one is gone
             sys.executable, "-c", _RANK, str(self.image), str(work), "test", *command],
            env={**slurm.clean_environment(), **given}, timeout=timeout, **_CAPTURED,
        )  # fmt: skip

    def requeue(self, job: str) -> None:
        """``scontrol requeue``, as an administrator or a preempting job would have it."""
        slurm.requeue(job)

    def wait(self, experiment: ExperimentFolder, *states: str, seconds=180.0) -> list[str]:
        """Wait until every run is in one of `states`."""
        return wait_until(
            lambda: (now := current(experiment)) and all(state in states for state in now) and now,
            seconds=seconds,
            describe=lambda: f"{current(experiment)}\n{logs(experiment)}",
        )


def current(experiment: ExperimentFolder) -> list[str]:
    """The states of all runs, by folder and queue."""
    return [status.state for status in known_statuses(experiment).values()]


def logs(experiment: ExperimentFolder) -> str:
    """The end of everything that jobs and runs have written."""
    files = [*experiment.submissions.glob("*/*.log"), *experiment.runs.glob("*/log*.txt")]
    return "\n".join(f"== {file}\n{file.read_text(errors='replace')[-1500:]}" for file in files)


def wait_until(condition, seconds=120.0, describe=lambda: "", *, every=0.5):
    """The first true value of `condition`, which is asked every so many seconds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"it did not happen in {seconds} s: {describe()}"
        time.sleep(every)
    return value


@pytest.fixture
def cluster(testbed, image, tmp_path):
    """petgan on the test cluster; whatever is left of its jobs is cancelled at the end."""
    folder = tmp_path / 'Füße, "quoted" & 100%'
    folder.mkdir()
    yield Cluster(folder, image)
    ours = [str(array["job"]) for array in _arrays(folder) if array["job"]]
    if ours:
        subprocess.run(["scancel", "--signal=KILL", *ours], capture_output=True)
        subprocess.run(["scancel", *ours], capture_output=True)
        wait_until(lambda: not slurm.queue(ours), seconds=90)


def _arrays(folder: Path):
    for record in folder.rglob("experiment.json"):
        for submission in ExperimentFolder(record.parent).slurm_submissions():
            yield from submission.arrays
