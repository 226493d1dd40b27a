"""Where everything of a run and of an experiment lies, and how it is written without halves.

Every file name of petgan's folders is given here and nowhere else. Files are written to a temporary
name beside their place, flushed to the disk and renamed, so that a reader sees the old content or the
new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import Any

from petgan.config import RunConfig, validated
from petgan.errors import DiskError, InputError

HEARTBEAT_SECONDS = 10.0
LOST_AFTER_SECONDS = 60.0

#: The states of a run. "new" is a run without a status file, "lost" one whose heartbeat stopped.
STATES = ("new", "queued", "running", "done", "failed", "interrupted", "cancelled", "lost")
UNFINISHED = ("queued", "running")
EVALUATION_SCHEMA = 2


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path to write to; on success it is flushed and renamed to `path`.

    Raises
    ------
    DiskError
        If the disk is full, over quota, or not writable. Nothing is left behind then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def tidied_up_on(*numbers: int) -> Iterator[None]:
    """Have signals, such as SIGTERM, end the work as Ctrl-C does: temporary files go with it.

    After the first one they are ignored to the end of the process: what tidies up is left alone.
    """
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items() if not stopped else ():
            signal.signal(number, handler)


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn a full or unwritable disk, met while writing `path`, into a `DiskError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # h5py raises RuntimeError when the file is closed
        if _disk_problem(error):
            raise DiskError(
                f"cannot write {path}: {_disk_problem(error)}",
                hint="what was there before is unchanged; make room or choose another folder, "
                "then give the same command again",
            ) from error
        raise


_DISK_PROBLEMS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
    errno.ENAMETOOLONG, errno.EIO, errno.ESTALE, errno.ENOENT,
)  # fmt: skip


def _disk_problem(error: Exception) -> str | None:
    # h5py raises without errno; HDF5 puts the number into the text.
    for number in _DISK_PROBLEMS:
        if getattr(error, "errno", None) == number or f"errno = {number}," in str(error):
            return os.strerror(number)
    return None


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file, UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _overwrite(path: Path, text: str) -> None:
    """Write over the content of a file that is there, by one call; it grows only if it must."""
    with disk_errors(path), open(path, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        file.write(text.encode().ljust(size))


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


@dataclass
class Status:
    """What is known of a run while it is under way; saved as ``status.json``.

    Parameters
    ----------
    state : str
        One of `STATES`.
    step, steps : int
        Generator updates done and asked for.
    steps_per_second : float, optional
        Over the last progress report.
    busy_seconds : float
        Time spent training, over all its processes.
    last : dict
        The last logged metrics, by name.
    error : str, optional
        One sentence on why it failed.
    trouble : str, optional
        What is wrong with the training as of the last logged step, see `petgan.watch`.
    started, updated : float, optional
        Seconds since the epoch.
    host, pid : optional
        The process that trains, and its machine or node.
    job : str, optional
        The Slurm job of that process, as `petgan.task` names it.
    """

    state: str = "new"
    step: int = 0
    steps: int = 0
    steps_per_second: float | None = None
    busy_seconds: float = 0.0
    last: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    trouble: str | None = None
    started: float | None = None
    updated: float | None = None
    host: str | None = None
    pid: int | None = None
    job: str | None = None


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def heartbeat_file(self) -> Path:
        return self.path / "heartbeat"

    @property
    def lineage_file(self) -> Path:
        return self.path / "lineage.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def evaluation_file(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def nearest_file(self) -> Path:
        """The scored images that come nearest to a training image, on one sheet."""
        return self.samples / "nearest.png"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    def rank_log_file(self, rank: int) -> Path:
        """The log of a rank other than the first."""
        return self.path / f"log.rank-{rank}.txt"

    def rendezvous_file(self, job: str) -> Path:
        """Where the ranks of a job find each other."""
        return self.path / f"rendezvous-{job}.json"

    @property
    def cancel_file(self) -> Path:
        return self.path / "cancel"

    @property
    def generator_file(self) -> Path:
        """The averaged generator as a plain Keras file, written when the run is done."""
        return self.path / "generator.keras"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoints / "best.h5"

    def checkpoint_file(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}.h5"

    def sample_file(self, step: int) -> Path:
        return self.samples / f"step-{step:08d}.png"

    def last_checkpoints(self) -> list[Path]:
        """Checkpoints by step, the newest first; the best one is not among them."""
        return sorted(self.checkpoints.glob("step-*.h5"), reverse=True)

    def chosen_checkpoint(self) -> Path:
        """The checkpoint that the run is judged by: the best by its validation score, or else the newest.

        Raises
        ------
        InputError
            If it has none.
        """
        checkpoints = [self.best_checkpoint] if self.best_checkpoint.is_file() else self.last_checkpoints()
        if not checkpoints:
            if not self.config_file.is_file():
                raise InputError(
                    f"{self.path} is not a run folder: it has no config.json",
                    hint="a run is in the folder runs/ of its experiment",
                )
            raise InputError(f"the run {self.path} has no checkpoint", hint="train it first")
        return checkpoints[0]

    def config(self) -> RunConfig:
        """Read ``config.json``.

        Raises
        ------
        InputError, ConfigError
            If there is none, or it is not of this version.
        """
        if not self.config_file.is_file():
            raise InputError(f"{self.path} is not a run folder: it has no config.json")
        config: RunConfig = validated(RunConfig, read_json(self.config_file))
        return config

    def write_config(self, config: RunConfig) -> None:
        write_json(self.config_file, config.model_dump(mode="json"))

    def status(self) -> Status:
        """Read ``status.json``; a run whose process has gone without a word is "lost"."""
        try:
            values = json.loads(self.status_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Status()
        known = {f.name for f in fields(Status)}
        status = Status(**{k: v for k, v in values.items() if k in known})
        if status.state == "running" and not self._alive(status):
            status.state = "lost"
        return status

    def write_status(self, status: Status) -> None:
        """Write ``status.json``; how a run ended even on a full disk: over the old one."""
        status.updated = time.time()
        try:
            write_json(self.status_file, asdict(status))
        except DiskError:
            if status.state in UNFINISHED or not self.status_file.exists():
                raise
            _overwrite(self.status_file, json.dumps(asdict(status)))

    def update_status(self, **changes: Any) -> Status:
        """Change some fields of the status on disk; a run that is queued anew is not cancelled any more."""
        if changes.get("state") == "queued":
            self.cancel_file.unlink(missing_ok=True)
        status = self.status()
        for key, value in changes.items():
            setattr(status, key, value)
        self.write_status(status)
        return status

    def ask_to_cancel(self) -> None:
        """Leave word that this run is to stop and to stay stopped, wherever it trains or waits."""
        with disk_errors(self.cancel_file):
            self.cancel_file.touch()

    @property
    def cancel_asked(self) -> bool:
        """Whether somebody has asked so since the run was last queued."""
        return self.cancel_file.exists()

    def remove_halves(self) -> None:
        """Remove what a killed process had begun to write; for the process that claims the run."""
        for folder in (self.path, self.checkpoints, self.samples):
            for half in folder.glob(".*.tmp"):
                shutil.rmtree(half) if half.is_dir() else half.unlink()

    def beat(self) -> None:
        """Say that the run's process is alive: the file's own time counts, so clocks agree."""
        self.heartbeat_file.touch()

    def _alive(self, status: Status) -> bool:
        if status.pid is not None and status.host == socket.gethostname():
            return process_exists(status.pid, status.updated)
        try:
            beat = self.heartbeat_file.stat().st_mtime
        except FileNotFoundError:
            return False
        return file_system_time(self.path.parent) - beat < LOST_AFTER_SECONDS

    def metrics(self) -> list[dict[str, Any]]:
        """The logged steps, in order; a torn last line is left out."""
        if not self.metrics_file.is_file():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1] if line]

    def evaluation(self) -> dict[str, Any] | None:
        """The content of ``evaluation.json``, or None while there is none."""
        return read_json(self.evaluation_file) if self.evaluation_file.is_file() else None


_clocks: dict[Path, tuple[float, float]] = {}


def file_system_time(folder: Path) -> float:
    """The time by the clock that stamps the files of `folder`, in seconds since the epoch.

    A file server's clock may differ from ours, and so may a node's. It is read off a file that is written
    for that, once a minute at most; where none can be written, our own clock has to do.
    """
    now = time.monotonic()
    read, then = _clocks.get(folder, (-math.inf, 0.0))
    if now - read > LOST_AFTER_SECONDS:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                os.utime(file.fileno())
                read, then = now, os.fstat(file.fileno()).st_mtime
        except OSError:
            read, then = now, time.time()
        _clocks[folder] = read, then
    return then + now - read


def process_exists(pid: int, seen: float | None = None) -> bool:
    """Whether a process of this machine lives (a zombie does not).

    Parameters
    ----------
    pid : int
    seen : float, optional
        When it was known to live, in seconds since the epoch: a younger process is another one, which got
        the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    if stat[0] == "Z":
        return False
    age = float(Path("/proc/uptime").read_text().split()[0]) - int(stat[19]) / os.sysconf("SC_CLK_TCK")
    return seen is None or time.time() - age < seen + LOST_AFTER_SECONDS


@dataclass
class Submission:
    """Some runs of an experiment that were submitted together; saved as ``submissions/<name>.json``.

    Parameters
    ----------
    cluster : str
        ``local``, ``inline`` or ``slurm``.
    runs : list of str
        Their ids, in the order in which they are started.
    parallel : int
        How many train at once.
    code : str
        Digest of the code that they run.
    gpus : int
        GPUs of one run.
    devices : list of str
        The GPUs of the machine, as CUDA names them; on Slurm, a job finds out.
    runs_per_job : int
        On Slurm, how many runs a task of the array trains, one after the other.
    arrays : list of dict
        On Slurm, the job arrays: ``name`` of the job, ``first`` (the number of its first task among all
        tasks of the submission), ``tasks``, and ``job``, its id, None until Slurm has given one.
    image : dict, optional
        The container's image: ``path``, ``digest``, ``size``, ``modified``.
    profile : dict, optional
        The site's settings, see `petgan.profile.Profile`.
    transfer : dict, optional
        Of an array that waits for a choice: ``source`` (an experiment), ``score``, and ``points``, the runs
        whose points are to be trained from what is chosen; `runs` is empty until then.
    created : float
        Seconds since the epoch.
    started : float, optional
        When the process that starts the runs began to.
    ended : float, optional
        When it had nothing more to do.
    host, pid : optional
        That process.
    """

    cluster: str
    runs: list[str]
    parallel: int
    code: str
    gpus: int = 0
    devices: list[str] = field(default_factory=list)
    runs_per_job: int = 1
    arrays: list[dict[str, Any]] = field(default_factory=list)
    image: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None
    transfer: dict[str, Any] | None = None
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    host: str | None = None
    pid: int | None = None

    def tasks(self) -> Iterator[tuple[str, dict[str, Any], int]]:
        """For each run of a submission to Slurm: its id, its array, and its index in that array."""
        for position, run_id in enumerate(self.runs):
            task = position // self.runs_per_job
            array = next(a for a in self.arrays if a["first"] <= task < a["first"] + a["tasks"])
            yield run_id, array, task - array["first"]


@dataclass(frozen=True)
class ExperimentFolder:
    """The folder of one submitted grid.

    ``experiment.json`` holds the resolved grid: ``name``, ``dataset`` (path, digest, ...), ``source`` (the
    same of the dataset whose images are translated, or null), ``points`` (run id, the sweeps that each
    belongs to and its configuration), ``tables``, ``published``.
    """

    path: Path

    @property
    def grid_file(self) -> Path:
        return self.path / "grid.yaml"

    @property
    def record_file(self) -> Path:
        return self.path / "experiment.json"

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def cache(self) -> Path:
        """What can be deleted and made again, such as the features of the real images."""
        return self.path / "cache"

    @property
    def rulers_file(self) -> Path:
        """What each ruler sees of what is wrong with spoilt real images."""
        return self.path / "rulers.json"

    @property
    def submissions(self) -> Path:
        return self.path / "submissions"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def submission_file(self, name: str) -> Path:
        return self.submissions / f"{name}.json"

    def batch_folder(self, name: str) -> Path:
        """The batch scripts of a submission to Slurm, and what Slurm wrote of its jobs."""
        return self.submissions / name

    def stage_file(self, name: str, action: str) -> Path:
        """What became of a study's single job between the arrays; its script and its log are beside it."""
        return self.batch_folder(name) / f"{action}.json"

    def code_folder(self, digest: str) -> Path:
        """The folder that holds the package ``petgan`` with this digest."""
        return self.code / digest

    def record(self) -> Mapping[str, Any]:
        """Read ``experiment.json``.

        Raises
        ------
        InputError
            If the folder is not an experiment.
        """
        if not self.record_file.is_file():
            raise InputError(
                f"{self.path} is not an experiment: it has no experiment.json",
                hint="make one with 'petgan submit GRID'",
            )
        record: Mapping[str, Any] = read_json(self.record_file)
        return record

    def datasets(self) -> list[Path]:
        """The files of the datasets that its runs read."""
        record = self.record()
        return [Path(record[kind]["path"]) for kind in ("dataset", "source") if record.get(kind)]

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs / run_id)

    def run_folders(self) -> list[RunFolder]:
        """The folders of the experiment's points, in the grid's order."""
        return [self.run(point["run_id"]) for point in self.record()["points"]]

    def submission(self, name: str) -> Submission:
        return Submission(**read_json(self.submission_file(name)))

    def live_submissions(self) -> list[Submission]:
        """Those on this machine whose process lives, or was asked for so lately that it may be starting."""
        live = []
        for file in sorted(self.submissions.glob("*.json")):
            submission = Submission(**read_json(file))
            if submission.ended is not None or submission.cluster == "slurm":
                continue
            if submission.pid is not None and submission.host == socket.gethostname():
                alive = process_exists(submission.pid, submission.started)
            else:
                age = file_system_time(self.submissions) - file.stat().st_mtime
                alive = age < LOST_AFTER_SECONDS
            if alive:
                live.append(submission)
        return live

    def slurm_submissions(self) -> list[Submission]:
        """All submissions to Slurm, the oldest first."""
        files = sorted(self.submissions.glob("*.json"))
        return [s for s in (Submission(**read_json(file)) for file in files) if s.cluster == "slurm"]

    def statuses(self) -> dict[str, Status]:
        """The status of each point, by run id, in the grid's order, as far as the folders know it.

        A run that is queued, but in no submission of this machine that still lives, is "lost" too. Whether
        Slurm has it in its queue, `petgan.status` knows.
        """
        under_way = [*self.live_submissions(), *self.slurm_submissions()]
        queued = {run_id for submission in under_way for run_id in submission.runs}
        statuses = {run.path.name: run.status() for run in self.run_folders()}
        for run_id, status in statuses.items():
            if status.state == "queued" and run_id not in queued:
                status.state = "lost"
        return statuses
