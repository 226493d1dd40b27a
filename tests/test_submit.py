"""From a grid to trained runs: folders, processes, and what becomes of them when something is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from petgan import cli, launch, local, runs, submit
from petgan.errors import DatasetError, Interrupted, PetganError, UserError
from petgan.grid import expand, load_grid
from petgan.runs import ExperimentFolder, Status, process_exists
from petgan.status import cancel, experiment_status, find_run
from petgan.store import Dataset

# A worker that trains nothing: what it does depends on the run's dropout.
FAKE_WORKER = """
import json, os, signal, sys, threading, time
from pathlib import Path
from petgan.runs import RunFolder
run = RunFolder(Path(sys.argv[1]))
point = run.config().point
print("worker of", run.path.name, "on", os.environ["CUDA_VISIBLE_DEVICES"] or "CPU", flush=True)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
assert os.environ["PETGAN_STOP_WITH_STDIN"]
threading.Thread(target=lambda: (os.read(0, 1), stop.append(1)), daemon=True).start()
status = dict(host=os.uname().nodename, pid=os.getpid(), steps=point.steps)
with open(run.path / "begun", "a") as file:
    file.write("x")
if point.dropout == 0.1:
    print("no such luck", file=sys.stderr)
    sys.exit(1)
if point.dropout == 0.2:
    os.kill(os.getpid(), signal.SIGKILL)
for step in range(run.status().step, point.steps):
    run.update_status(state="running", step=step, **status)
    time.sleep(0.05)
    if stop:
        run.update_status(state="interrupted")
        sys.exit(75)
run.update_status(state="done", step=point.steps, **status)
"""


@pytest.fixture
def experiment(tmp_path):
    return ExperimentFolder(tmp_path / "experiment")


@pytest.fixture
def dataset(make_dataset):
    with Dataset(make_dataset()) as opened:
        return opened.reference


@pytest.fixture
def make_grid(tmp_path):
    def make(dropouts=(0.3, 0.4), steps=3, rest=""):
        file = tmp_path / "g.yaml"
        file.write_text(
            f"name: g\nbase: {{steps: {steps}, batch_size: 4}}\n"
            f"sweeps:\n  - {{name: s, preset: gan, product: {{dropout: {list(dropouts)}}}}}\n"
            f"tables:\n  - {{title: T, sweep: s, rows: dropout}}\n{rest}"
        )
        return load_grid(file)

    return make


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    script = tmp_path / "fake_worker.py"
    script.write_text(FAKE_WORKER)
    monkeypatch.setattr(
        launch,
        "worker_command",
        lambda task, **arguments: [sys.executable, str(script), str(arguments["run"])],
    )


def start(grid, dataset, experiment, cluster="inline", parallel=None, **options):
    points = expand(grid, dataset)
    target = submit.Target(cluster, parallel)
    return submit.submit(grid, points, dataset, experiment, target, command="petgan test", **options)


def states(experiment):
    return [status.state for status in experiment.statuses().values()]


def begun(experiment):
    files = [run.path / "begun" for run in experiment.run_folders()]
    return [len(file.read_text()) if file.exists() else 0 for file in files]


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


# --- the experiment folder ---------------------------------------------------------------------------------


def test_a_plan_writes_nothing(make_grid, dataset, experiment):
    grid = make_grid()
    plan = submit.make_plan(grid, expand(grid, dataset), dataset, experiment, command="c")
    assert list(plan.states.values()) == ["new", "new"]
    assert not experiment.path.exists()


def test_the_record_and_the_configurations(make_grid, dataset, experiment, fake_worker):
    grid = make_grid(rest="resources: {time_min: 7}\nevery: {log: 3}\non_trouble: stop\n")
    started = start(grid, dataset, experiment)
    record = experiment.record()
    assert [entry["run_id"] for entry in record["points"]] == started
    assert [entry["point"]["dropout"] for entry in record["points"]] == [0.3, 0.4]
    assert {key: record["points"][0][key] for key in ("sweeps", "start")} == {
        "sweeps": ["s"],
        "start": "scratch",
    }
    assert record["tables"] == [{"title": "T", "sweep": "s", "rows": "dropout", "columns": None, "by": None}]
    assert record["dataset"] == dataset.model_dump()
    assert (record["schema_version"], record["name"], record["parent"]) == (1, "g", None)
    assert record["commands"] == ["petgan test"]
    assert experiment.grid_file.read_text() == grid.text
    config = experiment.run(started[0]).config()
    assert (config.resources.time_min, config.every.log, config.dataset) == (7, 3, dataset)
    assert config.on_trouble == "stop"
    experiment.run(started[0]).update_status(state="failed")
    start(make_grid(), dataset, experiment)
    assert experiment.run(started[0]).config().on_trouble == "continue"  # as the grid has it now


def test_the_code_that_runs_is_kept(make_grid, dataset, experiment, fake_worker):
    start(make_grid(), dataset, experiment)
    (snapshot,) = experiment.code.iterdir()
    assert snapshot.name == submit.code_digest()
    source = Path(submit.__file__).parent
    names = {path.relative_to(source) for path in source.rglob("*.py")}
    assert {path.relative_to(snapshot / "petgan") for path in (snapshot / "petgan").rglob("*.py")} == names
    assert all((snapshot / "petgan" / name).read_bytes() == (source / name).read_bytes() for name in names)


def test_a_grown_grid_adds_points_and_trains_only_those(make_grid, dataset, experiment, fake_worker):
    first = start(make_grid((0.3, 0.4)), dataset, experiment)
    second = start(make_grid((0.4, 0.5)), dataset, experiment)
    assert begun(experiment) == [1, 1, 1]
    assert not set(first) & set(second)
    by_dropout = {entry["point"]["dropout"]: entry["sweeps"] for entry in experiment.record()["points"]}
    assert by_dropout == {0.3: [], 0.4: ["s"], 0.5: ["s"]}  # the sweep is what the grid says now
    assert len(experiment.record()["tables"]) == 1
    assert start(make_grid((0.3, 0.4, 0.5)), dataset, experiment) == []


def test_another_dataset_is_refused(make_grid, make_dataset, dataset, experiment, fake_worker):
    start(make_grid(), dataset, experiment)
    before = experiment.record_file.read_bytes()
    with (
        Dataset(make_dataset("other.h5", seed=5)) as other,
        pytest.raises(DatasetError, match="another dataset"),
    ):
        start(make_grid((0.5,)), other.reference, experiment)
    assert experiment.record_file.read_bytes() == before


def test_two_submissions_at_once_are_refused_but_a_dead_one_is_forgotten(
    make_grid, dataset, experiment, fake_worker
):
    claim = experiment.submissions / ".submitting"
    experiment.submissions.mkdir(parents=True)
    holder = {"host": os.uname().nodename, "pid": os.getpid(), "time": time.time()}
    claim.write_text(json.dumps(holder))
    with pytest.raises(UserError, match="submitting to .* right now"):
        start(make_grid(), dataset, experiment)
    child = subprocess.Popen(["true"])
    child.wait()
    claim.write_text(json.dumps(holder | {"pid": child.pid}))
    start(make_grid(), dataset, experiment)
    assert states(experiment) == ["done", "done"]
    assert not list(experiment.submissions.glob(".*"))


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_submission_on_another_host_is_forgotten_by_the_file_servers_clock(
    make_grid, dataset, experiment, fake_worker, monkeypatch, hours
):
    real = time.time
    monkeypatch.setattr(runs, "_clocks", {})
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    claim = experiment.submissions / ".submitting"
    experiment.submissions.mkdir(parents=True)
    claim.write_text(json.dumps({"host": "elsewhere", "pid": 1, "time": 1.0}))
    with pytest.raises(UserError, match="submitting to .* right now"):
        start(make_grid(), dataset, experiment)
    os.utime(claim, (real() - 700,) * 2)
    start(make_grid(), dataset, experiment)
    assert states(experiment) == ["done", "done"]


@pytest.mark.parametrize(
    ("cpus", "gpus", "cores", "devices", "expected"),
    [
        (1, 0, 4, "", 4),
        (3, 0, 8, "", 2),
        (8, 0, 2, "", 1),
        (1, 1, 8, "0,1", 2),
        (1, 4, 8, "0,1", 1),
        (2, 1, 8, "", 4),
    ],
)
def test_as_many_at_once_as_cores_and_gpus_carry(monkeypatch, cpus, gpus, cores, devices, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(cores))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert local.default_parallel(submit.Resources(cpus=cpus, gpus=gpus)) == expected


# --- processes ---------------------------------------------------------------------------------------------


def test_inline_reports_progress_and_failures(make_grid, dataset, experiment, fake_worker):
    told = []
    with pytest.raises(PetganError, match="2 of 3 runs failed; 'petgan status .*' says why") as caught:
        start(make_grid((0.1, 0.2, 0.3)), dataset, experiment, progress=lambda *done: told.append(done))
    assert caught.value.exit_code == 1
    assert told[-1][1] == 9
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    shown = experiment_status(experiment)
    assert [run.state for run in shown.runs] == ["failed", "failed", "done"]
    assert [run.error for run in shown.runs] == [
        "the worker ended with exit code 1; the last line of its log: no such luck",
        "the worker was killed (SIGKILL), as happens when the machine runs out of memory",
        None,
    ]
    assert shown.counts == {"failed": 2, "done": 1}
    assert shown.finished


def test_never_more_at_once_than_asked_for_and_each_has_its_own_gpu(
    make_grid, dataset, experiment, fake_worker, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    most = []

    def count(done, total):
        most.append(states(experiment).count("running"))

    grid = make_grid((0.3, 0.4, 0.5, 0.6), steps=10, rest="resources: {gpus: 1}\n")
    start(grid, dataset, experiment, parallel=2, progress=count)
    assert max(most) == 2
    logs = [run.log_file.read_text().split()[-1] for run in experiment.run_folders()]
    assert sorted(logs[:2]) == ["3", "5"]
    assert set(logs) == {"3", "5"}


def test_retry_goes_on_with_what_did_not_end_well(make_grid, dataset, experiment, fake_worker):
    start(make_grid((0.3, 0.4, 0.5, 0.6, 0.7)), dataset, experiment)
    ids = [run.path.name for run in experiment.run_folders()]
    for run_id, state in zip(ids, ("failed", "interrupted", "cancelled", "queued"), strict=False):
        experiment.run(run_id).update_status(state=state, step=1)
    assert states(experiment)[:4] == ["failed", "interrupted", "cancelled", "lost"]  # queued by nobody
    assert submit.retry(experiment, submit.Target("inline")) == ids[:4]
    assert begun(experiment) == [2, 2, 2, 2, 1]
    assert states(experiment) == ["done"] * 5


def run_in_background(tmp_path, experiment, name):
    """A process that trains, with the fake worker."""
    code = (
        "import sys; from pathlib import Path; from petgan import launch, local, runs\n"
        f"script = {str(tmp_path / 'fake_worker.py')!r}\n"
        "launch.worker_command = lambda task, run: [sys.executable, script, str(run)]\n"
        f"local.train(runs.ExperimentFolder(Path({str(experiment.path)!r})), {name!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.fixture
def background(make_grid, dataset, experiment, fake_worker, tmp_path, monkeypatch):
    """Three runs, one at a time, in a process of their own; the first is running."""
    names = []
    monkeypatch.setattr(submit, "_start", lambda folder, new, target, progress: names.extend(new))
    start(make_grid((0.3, 0.4, 0.5), steps=200), dataset, experiment, parallel=1)
    process = run_in_background(tmp_path, experiment, names[0])
    wait_until(lambda: states(experiment)[0] == "running")
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def test_what_is_under_way_is_not_started_again(background, make_grid, dataset, experiment):
    assert states(experiment) == ["running", "queued", "queued"]
    assert start(make_grid((0.3, 0.4, 0.5), steps=200), dataset, experiment) == []


def test_cancel_stops_the_running_and_drops_the_queued(background, experiment):
    assert cancel(experiment) == {"running": 1, "queued": 2}
    assert background.wait(timeout=20) == 0
    assert states(experiment) == ["interrupted", "cancelled", "cancelled"]
    assert begun(experiment) == [1, 0, 0]
    assert cancel(experiment) == {"running": 0, "queued": 0}


def test_cancel_of_one_run_leaves_the_others(background, experiment):
    first, second, third = experiment.run_folders()
    assert cancel(experiment, second) == {"running": 0, "queued": 1}
    assert cancel(experiment, find_run(experiment, first.path.name[:6])) == {"running": 1, "queued": 0}
    wait_until(lambda: third.status().state == "running")
    assert states(experiment) == ["interrupted", "cancelled", "running"]
    assert begun(experiment) == [1, 0, 1]


def test_a_killed_launch_leaves_no_orphan(background, experiment, make_grid, dataset):
    worker = experiment.run_folders()[0].status().pid
    assert worker is not None
    background.kill()
    background.wait()
    wait_until(lambda: not process_exists(worker))
    assert states(experiment) == ["interrupted", "lost", "lost"]
    plan = submit.make_plan(
        (grid := make_grid((0.3, 0.4, 0.5), steps=200)),
        expand(grid, dataset),
        dataset,
        experiment,
        command="",
    )
    assert len(plan.to_start) == 3


def test_a_run_that_somebody_else_trains_is_left_to_them(
    make_grid, dataset, experiment, fake_worker, monkeypatch
):
    monkeypatch.setattr(submit, "_start", lambda folder, names, target, progress: None)
    first, _ = start(make_grid(), dataset, experiment)
    experiment.run(first).write_status(Status("running", host=os.uname().nodename, pid=os.getpid()))
    (submission,) = experiment.submissions.glob("*.json")
    local.train(experiment, submission.stem)
    assert states(experiment) == ["running", "done"]
    assert begun(experiment) == [0, 1]


def test_interrupted_inline_has_its_own_exit_code(make_grid, dataset, experiment, fake_worker):
    def stop(done, total):
        if "running" in states(experiment):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="'petgan retry .*' goes on"):
        start(make_grid(steps=200), dataset, experiment, parallel=1, progress=stop)
    assert states(experiment) == ["interrupted", "cancelled"]


# --- with the real worker ----------------------------------------------------------------------------------


def test_real_runs_local_and_inline(make_grid, make_dataset, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_grid(steps=4)
    data = str(make_dataset())
    began = time.monotonic()
    # A pipe that reaches its end shows that the job holds none of our streams.
    done = subprocess.run(
        [sys.executable, "-m", "petgan", "submit", "g.yaml", "--dataset", data],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert time.monotonic() - began < 10
    assert "started 2 runs" in done.stdout
    local = ExperimentFolder(tmp_path / "experiments" / "g")
    (submission,) = local.live_submissions()
    assert submission.pid is None or os.getsid(submission.pid) != os.getsid(0)
    wait_until(lambda: not local.live_submissions(), seconds=90)
    assert states(local) == ["done", "done"]

    assert (
        cli.main(["submit", "g.yaml", "--dataset", data, "--cluster", "inline", "--experiment", "here"]) == 0
    )
    here = ExperimentFolder(tmp_path / "here")
    assert states(here) == ["done", "done"]
    for ours, theirs in zip(here.run_folders(), local.run_folders(), strict=True):
        assert ours.metrics_file.read_bytes() == theirs.metrics_file.read_bytes()
        assert here.code_folder(json.loads(ours.lineage_file.read_text())["code_digest"]).is_dir()

    assert cli.main(["status", "here"]) == 0
    assert "2 runs: 2 done" in capfd.readouterr().out
    assert cli.main(["logs", "here", "--follow"]) == 0
    assert "step 4 of 4" in capfd.readouterr().out
    assert cli.main(["cancel", "here"]) == 0
    assert cli.main(["retry", "here"]) == 0
    assert "nothing to start" in capfd.readouterr().out


# --- the commands ------------------------------------------------------------------------------------------

BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("tensorflow", "keras", "horovod", "submitit"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Block())
from petgan import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_dry_run_writes_nothing_and_needs_no_tensorflow(make_grid, make_dataset, tmp_path):
    make_grid()
    data = make_dataset()
    before = sorted(tmp_path.rglob("*"))
    for arguments in (["submit", "g.yaml", "--dry-run"], ["grid", "g.yaml"]):
        for options, words in ([f"--dataset={data}"], "2 new"), (["--dataset=no.h5"], "does not exist yet"):
            done = subprocess.run(
                [sys.executable, "-c", BLOCKED, *arguments, *options],
                capture_output=True, text=True, cwd=tmp_path,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")
            assert words in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_grid_in_json(make_grid, make_dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_grid()
    assert cli.main(["grid", "g.yaml", "--dataset", str(make_dataset()), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(e["state"], e["sweeps"], e["point"]["dropout"]) for e in entries] == [
        ("new", ["s"], 0.3),
        ("new", ["s"], 0.4),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "g.yaml"], "g.yaml names no dataset; give one with --dataset"),
        (["submit", "g.yaml", "--dataset", "no.h5"], "there is no dataset no.h5"),
        (["submit", "no.yaml"], "there is no grid no.yaml"),
        (["status", "nowhere"], "is not an experiment"),
        (["logs", "nowhere"], "is not an experiment"),
        (["retry", "nowhere"], "is not an experiment"),
        (["cancel", "nowhere"], "is not an experiment"),
    ],
)
def test_a_users_mistake_is_one_sentence(make_grid, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    make_grid()
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_too_few_at_once_is_refused(make_grid, dataset, experiment):
    with pytest.raises(UserError, match="cannot train at once: got 0"):
        start(make_grid(), dataset, experiment, parallel=0)
    with pytest.raises(UserError, match="no such cluster: got 'moon'"):
        start(make_grid(), dataset, experiment, cluster="moon")
    assert not experiment.path.exists()


def test_retry_says_what_it_would_start(make_grid, dataset, experiment, fake_worker, capsys):
    start(make_grid((0.3, 0.4)), dataset, experiment)
    _, second = (run.path.name for run in experiment.run_folders())
    experiment.run(second).update_status(state="failed")
    capsys.readouterr()
    assert cli.main(["retry", str(experiment.path), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would start {second}\n"
    assert begun(experiment) == [1, 1]
    assert states(experiment) == ["done", "failed"]
