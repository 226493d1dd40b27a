"""The host's side of a job, with a worker that trains nothing; the real ones are in tests/cluster."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from petgan import launch, slurm, task
from petgan.config import Every, Resources, RunConfig, resolve_point, run_id
from petgan.errors import EXIT_INTERRUPTED, DiskError, PetganError
from petgan.launch import Child
from petgan.runs import ExperimentFolder, Submission, write_json
from petgan.snapshot import code_digest, take_snapshot
from petgan.store import Dataset
from petgan.task import Place

WORKER = """
import json, os, signal, sys, time
from pathlib import Path
from petgan.runs import RunFolder
run, how = RunFolder(Path(sys.argv[1])), sys.argv[2]
job = os.environ["PETGAN_JOB"]
if how == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
stop = []
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, lambda *_: stop.append(1))
run.update_status(state="running", host="n", pid=os.getpid(), job=job)
while how == "waits" and not stop:
    time.sleep(0.05)
run.update_status(state="done" if how == "trains" else "interrupted")
sys.exit(0 if how == "trains" else 75)
"""


@pytest.fixture
def place(monkeypatch):
    """Set Slurm's variables for a rank."""

    def place(rank=0, ranks=1, restarts=0):
        values = {
            "SLURM_PROCID": rank, "SLURM_NTASKS": ranks, "SLURM_LOCALID": rank, "SLURM_NODEID": 0,
            "SLURM_STEP_TASKS_PER_NODE": ranks, "SLURM_STEP_NUM_NODES": 1, "SLURMD_NODENAME": "n",
            "SLURM_JOB_ID": 13, "SLURM_ARRAY_JOB_ID": 12, "SLURM_ARRAY_TASK_ID": 0,
            "SLURM_RESTART_COUNT": restarts,
        }  # fmt: skip
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return place


@pytest.fixture
def run(make_dataset, tmp_path, place):
    """The only run of a submission."""
    with Dataset(make_dataset()) as opened:
        dataset = opened.reference
    point = resolve_point({"preset": "gan", "image_size": 16, "steps": 5})
    identity = run_id(point, dataset.digest)
    experiment = ExperimentFolder(tmp_path / "e")
    folder = experiment.run(identity)
    folder.write_config(
        RunConfig(run_id=identity, point=point, dataset=dataset, every=Every(), resources=Resources())
    )
    folder.update_status(state="queued", steps=5)
    code = code_digest()
    take_snapshot(experiment.code_folder(code))
    arrays = [{"name": "a", "first": 0, "tasks": 1, "job": "12"}]
    write_json(experiment.submission_file("s"), vars(Submission("slurm", [identity], 0, code, arrays=arrays)))
    place()
    return folder


@pytest.fixture
def work(run, tmp_path, monkeypatch):
    """Do the job with a worker of this kind, and say what Slurm was asked to queue again."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    requeued = []
    monkeypatch.setattr(slurm, "goes_on", lambda job: True)
    monkeypatch.setattr(slurm, "requeue", requeued.append)

    def work(how):
        monkeypatch.setattr(
            launch, "worker_command", lambda *_, run, **__: [sys.executable, str(script), str(run), how]
        )
        return task.work(ExperimentFolder(run.path.parents[1]), "s", 0), requeued

    return work


def later(seconds, action):
    threading.Timer(seconds, action).start()


@pytest.mark.parametrize(
    ("text", "counts"), [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("1,3(x2),2", [1, 3, 3, 2])]
)
def test_how_many_tasks_a_node_has(text, counts):
    assert [task._tasks_on_node(text, node) for node in range(len(counts))] == counts


def test_what_a_worker_is_told(run, place, monkeypatch):
    place(restarts=2)
    told = Place.from_slurm().environment(run, Submission("slurm", [], 0, "c", profile={"interface": "ib0"}))
    assert told["PETGAN_JOB"] == "12_0+2"
    assert told["PETGAN_RENDEZVOUS"].endswith("rendezvous-12_0+2.json")
    assert (told["PETGAN_INTERFACE"], told["PETGAN_CODE_DIGEST"]) == ("ib0", "c")
    assert "PETGAN_IMAGE_DIGEST" not in told


def test_a_run_that_is_done(work, run):
    assert work("trains") == (0, [])
    assert run.status().state == "done"
    assert work("dies") == (0, []), "it is not trained again"


def test_a_worker_that_is_killed(work, run):
    code, requeued = work("dies")
    assert (code, requeued) == (128 + 9, [])
    status = run.status()
    assert (status.state, status.job) == ("failed", "12_0")
    assert "out of memory" in status.error


def test_a_start_that_dies_does_not_keep_the_word_of_an_earlier_one(work, run, place):
    assert work("stops")[0] == EXIT_INTERRUPTED
    place(restarts=1)
    work("dies")
    assert run.status().state == "failed"
    assert run.status().job == "12_0+1"


def test_a_stop_that_reached_the_worker_alone_is_a_stop(work, run):
    assert work("stops") == (EXIT_INTERRUPTED, ["12_0"])
    assert run.status().state == "interrupted"


def test_a_cancelled_run_is_not_queued_again(work, run):
    later(0.8, run.ask_to_cancel)
    assert work("waits") == (0, [])
    assert run.status().state == "cancelled"


def test_the_failure_of_another_rank_is_the_failure_of_the_run(work, run, place):
    place(ranks=2)
    said = {
        "job": "12_0",
        "node": "n2",
        "killed": True,
        "time": time.time(),
        "sentence": "rank 1 on n2: killed",
    }
    later(0.8, lambda: write_json(run.path / "rank-1.json", said))
    code, requeued = work("waits")
    assert code not in (0, EXIT_INTERRUPTED)
    assert requeued == []
    assert (run.status().state, run.status().error) == ("failed", "rank 1 on n2: killed")


def test_what_another_start_said_does_not_count(work, run, place):
    place(ranks=2)
    said = {"job": "12_0+7", "node": "n2", "killed": True, "time": 0, "sentence": "old"}
    write_json(run.path / "rank-1.json", said)
    assert work("trains") == (0, [])


def test_a_choice_that_was_not_made(work, run):
    file = ExperimentFolder(run.path.parents[1]).submission_file("s")
    record = json.loads(file.read_text())
    write_json(file, {**record, "runs": [], "transfer": {"source": "x", "score": None, "points": []}})
    with pytest.raises(PetganError, match="none was made"):
        work("trains")


def test_a_snapshot_that_was_changed(work, run):
    file = ExperimentFolder(run.path.parents[1]).submission_file("s")
    write_json(file, {**json.loads(file.read_text()), "code": "0" * 16})
    with pytest.raises(PetganError, match="snapshot"):
        work("trains")


def test_a_job_that_was_stopped_early_and_often_before_its_first_step_goes_on(work, run, place):
    place(restarts=9)
    later(0.8, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert work("waits") == (EXIT_INTERRUPTED, ["12_0"])
    assert run.status().state == "interrupted"


def test_a_stop_that_comes_during_the_imports_is_heeded(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Slurm to be asked
    command = [sys.executable, "-m", "petgan.task", str(run.path.parents[1]), "s", "0"]
    with subprocess.Popen(command) as process:
        end = time.monotonic() + 30
        while not blocked(process.pid, signal.SIGTERM) and time.monotonic() < end:
            time.sleep(0.001)
        process.terminate()
        assert process.wait(timeout=60) == EXIT_INTERRUPTED
    assert run.status().state == "queued"
    assert "could not be queued again: there is no command squeue here" in run.status().error
    assert not run.log_file.exists()


def blocked(pid, number):
    (line,) = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigBlk")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["no-such-program"], None, "cannot start no-such-program: No such file or directory"),
        (["sh", "-c", "exit 255"], 255, "ended with exit code 255 and wrote no log"),
        (["sh", "-c", "echo a; echo FATAL: image; exit 255"], 255, "the last line of its log: FATAL: image"),
        (["sh", "-c", "kill -SEGV $$"], 139, "ended by signal 11 (Segmentation fault)"),
        (["sh", "-c", "kill -KILL $$"], 137, "was killed (SIGKILL)"),
    ],
)
def test_what_became_of_a_worker_that_could_not_say_so(run, tmp_path, command, code, words):
    if code is None:
        with pytest.raises(PetganError, match=words):
            Child(run, command, os.environ, tmp_path, run.log_file)
        return
    child = Child(run, command, os.environ, tmp_path, run.log_file)
    while not child.ended():
        time.sleep(0.01)
    assert child.exit_code == code
    assert words in child.sentence()


def test_a_run_folder_that_cannot_be_written_is_a_sentence(run, tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(launch, "open", read_only, raising=False)
    with pytest.raises(DiskError, match="cannot write .*log.txt: Read-only file system"):
        Child(run, ["true"], os.environ, tmp_path, run.log_file)
