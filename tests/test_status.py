"""The state of an experiment, read from its folders."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.live import Live
from stand_ins import put

from petgan import cli, runs, slurm
from petgan.config import resolve_point, run_id
from petgan.errors import ConfigError, PetganError, UserError
from petgan.runs import STATES, ExperimentFolder, Status, Submission, write_json
from petgan.status import FINAL, cancel, differing_keys, experiment_status, find_run, known_statuses


@pytest.fixture
def experiment(tmp_path):
    """Four runs of two presets, each in another state."""
    folder = ExperimentFolder(tmp_path / "e")
    values = [("gan", 0.3), ("gan", 0.4), ("wgan-gp", 0.3), ("wgan-gp", 0.4)]
    points = [resolve_point({"preset": p, "dropout": d, "image_size": 16, "steps": 100}) for p, d in values]
    ids = [run_id(point, "x") for point in points]
    entries = [
        {"run_id": i, "sweeps": ["s"], "start": "scratch", "point": point.model_dump(mode="json")}
        for i, point in zip(ids, points, strict=True)
    ]
    write_json(folder.record_file, {"name": "e", "points": entries, "tables": [], "dataset": {}})
    write_json(
        folder.submission_file("1"),
        vars(Submission("local", ids, 2, "c", started=1e12, host=socket.gethostname(), pid=os.getpid())),
    )
    here = {"host": socket.gethostname(), "pid": os.getpid(), "steps": 100}
    done, running, failed, queued = map(folder.run, ids)
    done.write_status(Status("done", step=100, steps_per_second=2.0, **here))
    running.write_status(Status("running", step=40, steps_per_second=4.0, last={"d_loss": 0.5}, **here))
    failed.write_status(Status("failed", step=7, error="d_loss is not a number at step 7", **here))
    queued.write_status(Status("queued", steps=100))
    score = {"name": "kid", "value": 0.25, "standard_error": 0.01, "ruler": "k"}
    write_json(done.evaluation_file, {"headline": "kid", "scores": [score]})
    return folder


def test_each_run_and_the_total(experiment):
    status = experiment_status(experiment)
    assert [(r.preset, r.axes, r.state, r.step, r.steps) for r in status.runs] == [
        ("gan", {"dropout": 0.3}, "done", 100, 100),
        ("gan", {"dropout": 0.4}, "running", 40, 100),
        ("wgan-gp", {"dropout": 0.3}, "failed", 7, 100),
        ("wgan-gp", {"dropout": 0.4}, "queued", 0, 100),
    ]
    assert [r.seconds_left for r in status.runs] == [None, 60 / 4, None, None]
    assert status.runs[0].score == {"name": "kid", "value": 0.25, "standard_error": 0.01}
    assert status.counts == {"done": 1, "running": 1, "failed": 1, "queued": 1}
    assert not status.finished
    assert status.seconds_left is None  # nobody knows how fast wgan-gp is


def test_the_time_left_is_the_work_left_shared_among_those_at_once(experiment):
    runs = experiment.run_folders()
    runs[2].update_status(steps_per_second=1.0)
    # 60 steps of gan at 3 a second, 100 of wgan-gp at 1 a second; two at once: the longer one counts
    assert experiment_status(experiment).seconds_left == pytest.approx(100)
    runs[2].update_status(state="queued", step=0)
    assert experiment_status(experiment).seconds_left == pytest.approx((20 + 100 + 100) / 2)


def test_a_queued_run_whose_submission_is_gone_is_lost(experiment):
    submission = experiment.submission("1")
    submission.ended = 1.0
    write_json(experiment.submission_file("1"), vars(submission))
    assert experiment_status(experiment).runs[3].state == "lost"


def test_a_submission_whose_process_number_went_to_another_process_is_gone(experiment):
    assert len(experiment.live_submissions()) == 1
    submission = experiment.submission("1")
    submission.started = 1000.0  # in 1970: this process is younger
    write_json(experiment.submission_file("1"), vars(submission))
    assert experiment.live_submissions() == []


def test_only_axes_that_differ_are_named():
    points = [
        {"preset": p, "a": a, "b": 1, "seed": s} for p, a in (("x", 1), ("x", 2), ("y", 3)) for s in (0, 1)
    ]
    assert differing_keys(points) == {"x": ["a"], "y": []}


def test_a_run_is_found_by_the_start_of_its_id(experiment):
    runs = experiment.run_folders()
    assert find_run(experiment, runs[1].path.name[:8]) == runs[1]
    with pytest.raises(ConfigError, match="there is no such run"):
        find_run(experiment, "zzz")
    with pytest.raises(ConfigError, match="several runs begin so"):
        find_run(experiment, "")


def test_runs_of_another_machine_are_cancelled_there(experiment):
    run = experiment.run_folders()[1]
    run.beat()
    run.update_status(host="elsewhere")
    with pytest.raises(UserError, match="another machine: got 'elsewhere'; give this command there"):
        cancel(experiment, run)


def test_the_command_says_it_all(experiment, capsys):
    assert cli.main(["status", str(experiment.path)]) == 0
    out = capsys.readouterr().out
    for words in ("40/100", "4.00", "15 s", "d_loss 0.5", "kid 0.25 ± 0.01", "4 runs: 1 done, 1 running"):
        assert words in out
    assert f"{experiment.run_folders()[2].path.name}: d_loss is not a number at step 7" in out
    assert cli.main(["status", str(experiment.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"name", "runs", "counts", "seconds_left", "warning", "stages"}
    assert set(told["runs"][0]) == {
        "run_id", "preset", "start", "seed", "axes", "state", "step", "steps", "steps_per_second",
        "seconds_left", "last", "error", "trouble", "reason", "job", "node", "score",
    }  # fmt: skip


def test_the_command_says_which_trainings_are_in_trouble(experiment, capsys):
    assert cli.main(["status", str(experiment.path)]) == 0
    assert "trouble" not in capsys.readouterr().out
    words = "collapsed since step 30: generated images vary by 0.01 of what real ones do"
    _, running, failed, _ = experiment.run_folders()
    for run in (running, failed):
        run.update_status(trouble=words)
    assert cli.main(["status", str(experiment.path)]) == 0
    rows, _, below = capsys.readouterr().out.partition("4 runs: ")
    assert " trouble " in rows
    assert rows.count("collapsed since step 30 ") == 2
    assert f"{running.path.name}: {words}" in below
    assert f"{failed.path.name}: d_loss" in below  # how it ended says it all
    assert below.count(words) == 1
    assert cli.main(["status", str(experiment.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["trouble"] for run in told["runs"]] == [None, words, words, None]


# --- on Slurm -------------------------------------------------------------------------------------------

ARRAY = "petgan-e-1-0"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The folder of the commands that stand in for Slurm's; there is none to begin with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    slurm.config.cache_clear()
    put(folder, "scontrol", "AccountingStorageType = (null)\n")
    yield folder
    slurm.config.cache_clear()


@pytest.fixture
def on_slurm(experiment, commands):
    """The experiment, its four runs submitted to Slurm as array 7, and all that it prints of them."""

    def make(queue="", job="7", runs_per_job=1, states=()):
        ids = [run.path.name for run in experiment.run_folders()]
        array = {"name": ARRAY, "first": 0, "tasks": 4 // runs_per_job, "job": job}
        submission = Submission("slurm", ids, 0, "c", arrays=[array], runs_per_job=runs_per_job)
        experiment.submission_file("1").unlink(missing_ok=True)
        write_json(experiment.submission_file("s"), vars(submission))
        for run, state in zip(experiment.run_folders(), states, strict=False):
            run.write_status(Status(state, steps=100, host="vm9", pid=1))
        put(commands, "squeue", queue)
        put(commands, "scancel")
        return experiment

    return make


def line(index, state, reason="None", nodes="", name=ARRAY, job="7"):
    return f"{job}_{index}|{state}|{nodes}|{name}|{reason}\n"


def states(experiment):
    return [status.state for status in known_statuses(experiment).values()]


def reasons(experiment):
    return [run.reason for run in experiment_status(experiment).runs]


def test_without_a_submission_to_slurm_it_is_not_asked(experiment, commands):
    asked = put(commands, "squeue")
    assert states(experiment) == ["done", "running", "failed", "queued"]
    assert asked() == []


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("task", ["PENDING", "RUNNING", "CONFIGURING", "COMPLETING"])
def test_a_job_in_the_queue_means_that_its_run_goes_on(on_slurm, state, task):
    experiment = on_slurm(line(0, task, "Resources", "vm1"), states=[state])
    experiment.run_folders()[0].beat()
    told = states(experiment)[0]
    if state in FINAL:
        assert told == state
    elif state == "running" and task != "PENDING":
        assert told == "running"
    else:
        assert told == "queued"


def test_why_a_run_waits(on_slurm):
    queue = (
        line(0, "PENDING", "Resources") + line(1, "RUNNING", nodes="vm1") + line(2, "COMPLETING", nodes="vm2")
    )
    experiment = on_slurm(queue + line(3, "PENDING", "Dependency"), states=["queued"] * 4)
    status = experiment_status(experiment)
    assert [run.reason for run in status.runs] == [
        "waits for free nodes, CPUs, GPUs or memory",
        "is starting on vm1",
        "its job is ending on vm2",
        "waits for other jobs to end",
    ]
    assert [run.job for run in status.runs] == ["7_0", "7_1", "7_2", "7_3"]
    assert [run.node for run in status.runs][1:3] == ["vm1", "vm2"]


def test_the_second_run_of_a_job_waits_for_its_turn(on_slurm):
    experiment = on_slurm(line(0, "RUNNING", nodes="vm1"), runs_per_job=2, states=["running", "queued"])
    experiment.run_folders()[0].beat()
    assert states(experiment)[:2] == ["running", "queued"]
    assert reasons(experiment)[:2] == [None, "waits for its turn in a job on vm1"]


@pytest.mark.parametrize("state", STATES)
def test_a_run_whose_job_has_gone(on_slurm, state):
    experiment = on_slurm(states=[state])
    expected = "lost" if state in ("queued", "running") else state  # no heartbeat: it does not run
    assert states(experiment)[0] == expected
    assert reasons(experiment)[0] == ("Slurm has forgotten its job 7_0" if expected == "lost" else None)


def test_a_heart_that_beats_counts_for_a_minute_after_the_job_has_gone(on_slurm):
    experiment = on_slurm(states=["running"])
    run = experiment.run_folders()[0]
    run.beat()
    assert states(experiment)[0] == "running"
    os.utime(run.heartbeat_file, (time.time() - 61,) * 2)
    assert states(experiment)[0] == "lost"


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_file_servers_clock_counts_and_not_ours(on_slurm, monkeypatch, hours):
    experiment = on_slurm(states=["running"])
    experiment.run_folders()[0].beat()
    real = time.time
    monkeypatch.setattr(runs, "_clocks", {})
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    assert states(experiment)[0] == "running"


@pytest.mark.parametrize("hours", [-5, 5])
def test_by_the_file_servers_clock_another_host_lives(on_slurm, monkeypatch, hours):
    """One that submits to Slurm, and one that trains runs itself."""
    experiment = on_slurm(job=None, states=["queued"])
    claim = experiment.submissions / ".submitting"
    write_json(claim, {"host": "elsewhere", "pid": 1, "time": 1.0})
    ids = [run.path.name for run in experiment.run_folders()]
    here = Submission("local", ids, 1, "c", started=1.0, created=1.0, host="elsewhere", pid=1)
    write_json(experiment.submission_file("t"), vars(here))
    real = time.time
    monkeypatch.setattr(runs, "_clocks", {})
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    assert reasons(experiment)[0] == "is being submitted"
    assert len(experiment.live_submissions()) == 1
    for file in (claim, experiment.submission_file("t")):
        os.utime(file, (real() - 700,) * 2)
    assert states(experiment)[0] == "lost"
    assert experiment.live_submissions() == []


def test_how_a_lost_runs_job_ended(on_slurm, commands):
    experiment = on_slurm(states=["queued", "running", "lost", "queued"])
    put(commands, "scontrol", "AccountingStorageType = accounting_storage/slurmdbd\n")
    rest = "|vm1|1|9|00:01.000|1|mem=1G||"
    put(commands, "sacct", f"7_0|NODE_FAIL{rest}\n7_1|OUT_OF_MEMORY{rest}\n7_[2]|CANCELLED by 0{rest}\n")
    slurm.config.cache_clear()
    assert states(experiment) == ["lost"] * 4
    assert reasons(experiment) == [
        "the node failed (job 7_0)",
        "Slurm killed the job, for it took more memory than it had asked for: raise mem_gb (job 7_1)",
        "the job was cancelled (job 7_2)",
        "Slurm has forgotten its job 7_3",
    ]


def test_a_lost_run_says_what_its_job_wrote_last(on_slurm):
    experiment = on_slurm(states=["queued"] * 4)
    started = "2026-01-01 rank 0 of 1 on vm1: abc\n"
    logs = [
        started + "petgan: cannot write x: Read-only file system\nsrun: error: Exited with exit code 2\n",
        started + "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.\nsrun: error: Killed\n",
        started + "petgan: said by an earlier start\n" + started,
    ]
    for index, text in enumerate(logs):
        file = experiment.batch_folder("s") / f"0-{index}.log"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert states(experiment) == ["lost"] * 4
    assert reasons(experiment) == [
        "Slurm has forgotten its job 7_0: cannot write x: Read-only file system",
        "Slurm killed the job, for it took more memory than it had asked for: raise mem_gb (job 7_1)",
        "Slurm has forgotten its job 7_2",
        "Slurm has forgotten its job 7_3",
    ]


def test_an_interrupted_run_says_what_ended_its_job_if_that_is_known(on_slurm, commands):
    experiment = on_slurm(states=["interrupted", "interrupted"])
    assert reasons(experiment)[:2] == [None, None]
    put(commands, "scontrol", "AccountingStorageType = accounting_storage/slurmdbd\n")
    put(
        commands,
        "sacct",
        "7_0|PREEMPTED|vm1|1|9|00:01.000|1|mem=1G||\n7_1|COMPLETED|vm1|1|9|00:01.000|1|mem=1G||\n",
    )
    slurm.config.cache_clear()
    assert states(experiment)[:2] == ["interrupted", "interrupted"]
    assert reasons(experiment)[:2] == ["the job was preempted (job 7_0)", None]


def test_accounting_is_asked_once_and_only_for_lost_runs(on_slurm, commands):
    put(commands, "scontrol", "AccountingStorageType = accounting_storage/slurmdbd\n")
    asked = put(commands, "sacct")
    slurm.config.cache_clear()
    known_statuses(on_slurm(line(3, "PENDING"), states=["done", "failed", "cancelled", "interrupted"]))
    assert asked() == []
    known_statuses(on_slurm(states=["queued"] * 4))
    assert len(asked()) == 1


def test_an_array_whose_submitter_was_killed_is_found_by_its_name(on_slurm):
    queue = line(0, "PENDING", "Priority", job="99") + line(1, "PENDING", job="98", name="another")
    experiment = on_slurm(queue, job=None, states=["queued"] * 2)
    assert states(experiment)[:2] == ["queued", "lost"]
    status = experiment_status(experiment)
    assert [run.job for run in status.runs][:2] == ["99_0", None]
    assert status.runs[1].reason == "it never reached Slurm"


def test_runs_that_are_being_submitted_right_now_are_queued(on_slurm):
    experiment = on_slurm(job=None, states=["queued"])
    claim = experiment.submissions / ".submitting"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        holder = {"host": socket.gethostname(), "pid": other.pid, "time": time.time()}
        write_json(claim, holder)
        assert states(experiment)[0] == "queued"
        assert reasons(experiment)[0] == "is being submitted"
        other.communicate(b"\n")
    assert states(experiment)[0] == "lost"
    write_json(claim, {**holder, "pid": os.getpid()})  # what we submit ourselves is not there yet
    assert states(experiment)[0] == "lost"


def test_the_newest_submission_counts_unless_an_older_one_is_in_the_queue(on_slurm):
    experiment = on_slurm(line(0, "PENDING", "Priority"), states=["queued", "queued"])
    ids = [run.path.name for run in experiment.run_folders()][:2]
    array = {"name": "newer", "first": 0, "tasks": 2, "job": "8"}
    write_json(experiment.submission_file("t"), vars(Submission("slurm", ids, 0, "c", arrays=[array])))
    status = experiment_status(experiment)
    assert [(run.state, run.job) for run in status.runs][:2] == [("queued", "7_0"), ("lost", "8_1")]


def test_a_run_that_went_on_here_is_no_business_of_slurms(on_slurm):
    experiment = on_slurm(states=["queued"] * 4)
    ids = [run.path.name for run in experiment.run_folders()]
    here = {"started": 1e12, "host": socket.gethostname(), "pid": os.getpid()}
    write_json(experiment.submission_file("t"), vars(Submission("local", ids[:1], 1, "c", **here)))
    assert states(experiment) == ["queued", "lost", "lost", "lost"]
    assert experiment_status(experiment).runs[0].job is None


@pytest.mark.parametrize("error", ["Unable to contact slurm controller", None])
def test_without_an_answer_of_slurms_the_folders_count_and_that_is_said(
    on_slurm, commands, error, caplog, monkeypatch
):
    experiment = on_slurm(states=["done", "running", "interrupted", "queued"])
    if error:
        put(commands, "squeue", error=f"slurm_load_jobs error: {error}\n", code=1)
    else:
        (commands / "squeue").unlink()
        monkeypatch.setenv("PATH", str(commands))
    status = experiment_status(experiment)
    assert [run.state for run in status.runs] == ["done", "lost", "interrupted", "queued"]
    assert (error or "there is no command squeue here") in status.warning
    known_statuses(experiment)
    assert "Slurm could not be asked" in caplog.text
    with pytest.raises(PetganError, match="Slurm could not be asked"):
        cancel(experiment)


def test_the_page_groups_the_reasons(on_slurm, capsys):
    queue = (
        line(0, "PENDING", "Resources") + line(1, "PENDING", "Resources") + line(2, "RUNNING", nodes="vm1")
    )
    experiment = on_slurm(queue, states=["queued"] * 4)
    assert cli.main(["status", str(experiment.path)]) == 0
    out = capsys.readouterr().out
    for words in (
        "2 queued: waits for free nodes, CPUs, GPUs or memory",
        "1 queued: is starting on vm1",
        "1 lost: Slurm has forgotten its job 7_3",
        "7_2",
    ):
        assert words in out


# --- cancel ---------------------------------------------------------------------------------------------


def test_watching_ends_when_nothing_is_under_way_any_more(on_slurm, commands, monkeypatch, capsys):
    experiment = on_slurm(line(0, "PENDING", "Resources"), states=["queued", "done", "done", "failed"])
    run = experiment.run_folders()[0]
    moments = iter(
        [
            (line(0, "RUNNING", nodes="vm1"), {"state": "running", "step": 40}),
            (line(0, "PENDING", "BeginTime"), {"state": "interrupted", "step": 60}),
            ("", {"state": "done", "step": 100}),
        ]
    )
    waited, shown = [], []

    real = time.sleep

    def sleep(seconds):
        if seconds < 1:  # of somebody who waits for a command
            return real(seconds)
        waited.append(seconds)
        queue, status = next(moments)  # no more than these
        put(commands, "squeue", queue)
        run.update_status(**status)
        return run.beat()

    def update(live, page, *, refresh):
        shown.append((page, refresh))

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(Live, "update", update)
    assert cli.main(["status", str(experiment.path), "--watch"]) == 0
    assert waited == [10.0] * 3, "everybody on the cluster asks the same scheduler"
    pages = [_text(page) for page, refresh in shown if refresh]
    assert [words in page for words, page in zip(("40/100", "60/100", "3 done"), pages, strict=True)] == [
        True
    ] * 3
    assert slurm.REASONS["BeginTime"] in pages[1]
    assert "│ done " in pages[2], "and no signs that give it a colour"


def _text(page):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(page)
    return console.export_text()


def test_the_jobs_of_a_study_between_its_arrays(on_slurm, capsys):
    """Of each kind the newest: one waits, one runs, one failed, one ended without a word, one is done."""
    job = "petgan-e-{}-{}".format
    queue = line(0, "PENDING", "Dependency", name=job("2", "evaluate"), job="8")
    queue += line(0, "RUNNING", nodes="vm1", name=job("2", "choose"), job="9")
    experiment = on_slurm(queue)
    for name, action, said in (
        ("1", "choose", ("failed", "an old story")),
        ("1", "train-more", ("running", None)),
        ("2", "choose", ("interrupted", None)),
        ("2", "evaluate", None),
        ("2", "report", ("failed", "there are no scores")),
        ("2", "synthesize", ("done", None)),
    ):
        folder = experiment.batch_folder(name)
        folder.mkdir(exist_ok=True)
        (folder / f"{action}.sh").touch()
        (folder / "0.sh").touch()  # an array's
        if said:
            write_json(experiment.stage_file(name, action), dict(zip(("state", "error"), said, strict=True)))
    found = {s.action: (s.state, s.reason) for s in experiment_status(experiment).stages}
    assert found == {
        "choose": ("running", None),
        "train-more": ("lost", "its job has gone without a word"),
        "evaluate": ("queued", slurm.REASONS["Dependency"]),
        "report": ("failed", "there are no scores"),
        "synthesize": ("done", None),
    }
    assert cli.main(["status", str(experiment.path)]) == 0
    said = capsys.readouterr().out
    assert f"evaluate: queued: {slurm.REASONS['Dependency']}\n" in said
    log = experiment.batch_folder("2") / "report.log"
    assert f"report: failed: there are no scores (see {log})" in said.replace("\n", " ").replace("  ", " ")


def test_cancel_marks_the_runs_and_has_slurm_cancel_the_array(on_slurm, commands):
    queue = line(0, "RUNNING", nodes="vm1") + line(1, "PENDING")
    experiment = on_slurm(queue, states=["running", "queued", "done", "failed"])
    first, second, *others = experiment.run_folders()
    first.beat()
    asked = put(commands, "scancel")
    assert cancel(experiment) == {"running": 1, "queued": 1}
    assert asked() == ["7"]
    assert first.cancel_asked
    assert second.status().state == "cancelled"
    assert not any(run.cancel_asked for run in others)
    put(commands, "squeue")
    first.update_status(state="interrupted")  # as the worker says when it was stopped
    assert states(experiment) == ["cancelled", "cancelled", "done", "failed"]
    first.update_status(state="queued")
    assert not first.cancel_asked


def test_one_run_is_cancelled_by_its_task(on_slurm, commands):
    experiment = on_slurm(line(0, "PENDING") + line(1, "PENDING"), states=["queued"] * 2)
    asked = put(commands, "scancel")
    assert cancel(experiment, experiment.run_folders()[1]) == {"running": 0, "queued": 1}
    assert asked() == ["7_1"]
    assert states(experiment)[:2] == ["queued", "cancelled"]


def test_a_job_with_other_runs_to_train_goes_on(on_slurm, commands):
    experiment = on_slurm(line(0, "RUNNING", nodes="vm1"), runs_per_job=2, states=["running", "queued"])
    first, second = experiment.run_folders()[:2]
    first.beat()
    asked = put(commands, "scancel")
    assert cancel(experiment, first) == {"running": 1, "queued": 0}
    assert asked() == []
    assert first.cancel_asked
    assert cancel(experiment, second) == {"running": 0, "queued": 1}
    assert asked() == ["7_0"]


def test_cancel_finds_arrays_whose_runs_are_yet_to_be_chosen(on_slurm, commands):
    experiment = on_slurm(line(0, "PENDING", job="30", name="transfer"), states=["done"] * 4)
    array = {"name": "transfer", "first": 0, "tasks": 2, "job": "30"}
    write_json(experiment.submission_file("t"), vars(Submission("slurm", [], 0, "c", arrays=[array])))
    asked = put(commands, "scancel")
    cancel(experiment)
    assert asked() == ["30"]


# --- efficiency -----------------------------------------------------------------------------------------


def test_what_the_jobs_used_and_what_to_ask_for(on_slurm, commands, capsys):
    experiment = on_slurm(states=["done"] * 4)
    put(commands, "scontrol", "AccountingStorageType = accounting_storage/slurmdbd\n")
    slurm.config.cache_clear()
    job = "7_{}|COMPLETED|vm1|1|100|{}|8|cpu=8,gres/gpu=1,mem=32G,node=1||\n7_{}.0|COMPLETED|vm1|1|100|||"
    job += "|mem={}G|gres/gpuutil=30\n"
    put(commands, "sacct", job.format(0, "01:00.000", 0, 2) + job.format(1, "03:00.000", 1, 3))
    assert cli.main(["status", str(experiment.path), "--efficiency"]) == 0
    out = capsys.readouterr().out
    for words in ("8%", "22%", "30%", "2 GB of 32 GB", "1 min 40 s", "COMPLETED"):  # 60 of 800 s, 180 of 800
        assert words in out
    assert "memory: asked 32 GB, used 3 at most: mem_gb: 5 would do, and start sooner" in out
    assert "CPUs: 8 a job, 1.2 of them busy: fewer cpus would start sooner" in out
    assert "GPUs: busy 30 % of the time" in out
    assert cli.main(["status", str(experiment.path), "--efficiency", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(row["job"], row["runs"]) for row in told] == [
        (f"7_{index}", [run.path.name]) for index, run in enumerate(experiment.run_folders()[:2])
    ]


def test_efficiency_without_accounting_or_without_slurm(on_slurm, experiment, capsys):
    assert cli.main(["status", str(experiment.path), "--efficiency"]) == 2
    assert "no run of" in capsys.readouterr().err
    assert cli.main(["status", str(on_slurm(states=["done"]).path), "--efficiency"]) == 1
    assert "this cluster keeps no accounts" in capsys.readouterr().err


def test_efficiency_where_slurm_gives_no_answer(on_slurm, commands, capsys):
    experiment = on_slurm(states=["done"])
    put(commands, "squeue", error="no such host", code=1)
    assert cli.main(["status", str(experiment.path), "--efficiency"]) == 1
    assert "Slurm could not be asked" in capsys.readouterr().err


def test_efficiency_of_a_job_that_ended_at_once(on_slurm, commands, capsys):
    """It had no time to use anything, and it is there."""
    experiment = on_slurm(states=["failed"])
    put(commands, "scontrol", "AccountingStorageType = accounting_storage/slurmdbd\n")
    slurm.config.cache_clear()
    put(commands, "sacct", "7_0|FAILED|vm1|1|0|00:00.000|8|cpu=8,mem=32G,node=1||\n")
    assert cli.main(["status", str(experiment.path), "--efficiency"]) == 0
    assert "FAILED" in capsys.readouterr().out


# --- logs -----------------------------------------------------------------------------------------------


def test_a_run_without_a_log_says_what_it_waits_for(on_slurm, capsys):
    experiment = on_slurm(line(0, "PENDING", "Resources"), states=["queued"])
    run = experiment.run_folders()[0].path.name
    assert cli.main(["logs", str(experiment.path), run]) == 2
    assert "has no log yet; it is queued: waits for free nodes" in capsys.readouterr().err
    log = experiment.batch_folder("s") / "0-0.log"
    log.parent.mkdir()
    log.write_text("slurmstepd: error: no such file\n")
    assert cli.main(["logs", str(experiment.path), run]) == 0
    told = capsys.readouterr()
    assert told.out == "slurmstepd: error: no such file\n"
    assert "Slurm's job 7_0 has" in told.err


def test_the_log_of_another_rank(on_slurm, capsys):
    experiment = on_slurm(states=["done"])
    run = experiment.run_folders()[0]
    run.log_file.write_text("zero\n")
    run.rank_log_file(2).write_text("two\n")
    assert cli.main(["logs", str(experiment.path), run.path.name, "--rank", "2"]) == 0
    assert capsys.readouterr().out == "two\n"


def test_a_log_is_followed_over_requeues_until_the_run_has_ended(on_slurm, commands, monkeypatch, capsys):
    from petgan.cli import logs

    experiment = on_slurm(line(0, "PENDING", "Resources"), states=["queued"])
    run = experiment.run_folders()[0]

    def write(text):
        with open(run.log_file, "a") as log:
            log.write(text)

    def to(state, queue=""):
        run.update_status(state=state)
        put(commands, "squeue", queue)

    running = line(0, "RUNNING", nodes="vm1")
    story = iter([
        lambda: None,
        lambda: (to("running", running), write("step 1\n")),
        lambda: (to("interrupted", line(0, "PENDING", "BeginTime")), write("stopped\n")),
        lambda: None,
        lambda: (to("running", running), write("step 2\n")),
        lambda: (to("done"), write("done\n")),
    ])  # fmt: skip
    run.beat()
    monkeypatch.setattr(logs, "SLURM_SECONDS", 0.0)
    clock = SimpleNamespace(sleep=lambda seconds: next(story)(), monotonic=time.monotonic)
    monkeypatch.setattr(logs, "time", clock)
    assert cli.main(["logs", str(experiment.path), run.path.name, "--follow"]) == 0
    told = capsys.readouterr()
    assert told.out == "step 1\nstopped\nstep 2\ndone\n"
    assert [text.partition(": ")[0] for text in told.err.splitlines()][1:] == [
        "== running", "== queued", "== running", "== done",
    ]  # fmt: skip
    assert next(story, None) is None
