"""The state of an experiment, read from its folders."""

from __future__ import annotations

import json
import os
import socket

import pytest

from petgan import cli
from petgan.config import resolve_point, run_id
from petgan.errors import ConfigError, UserError
from petgan.runs import ExperimentFolder, Status, Submission, write_json
from petgan.status import cancel, differing_keys, experiment_status, find_run


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
    assert set(told) == {"name", "runs", "counts", "seconds_left"}
    assert set(told["runs"][0]) == {
        "run_id", "preset", "start", "seed", "axes", "state", "step", "steps", "steps_per_second",
        "seconds_left", "last", "error", "score",
    }  # fmt: skip
