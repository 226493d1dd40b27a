import errno
import json
import os
import subprocess
import sys
import time

import pytest

from petgan.errors import DiskError, InputError
from petgan.runs import (
    LOST_AFTER_SECONDS,
    ExperimentFolder,
    RunFolder,
    Status,
    atomic_path,
    file_digest,
    read_json,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "x.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(target) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), OSError("Can't write (errno = 28, error message = ...)")]
)
def test_a_full_disk_is_said_in_one_sentence(tmp_path, error):
    with (
        pytest.raises(DiskError, match="No space left on device.*make room"),
        atomic_path(tmp_path / "x") as t,
    ):
        t.write_text("half")
        raise error
    assert os.listdir(tmp_path) == []


def test_an_unwritable_value_does_not_touch_the_file(tmp_path):
    write_json(tmp_path / "x.json", 1)
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", float("nan"))
    assert read_json(tmp_path / "x.json") == 1


def test_reading_json_names_the_file(tmp_path):
    with pytest.raises(InputError, match=r"no file .*x\.json"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read .*x\.json"):
        read_json(tmp_path / "x.json")


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_status_round_trips_and_forgets_unknown_fields(tmp_path):
    run = RunFolder(tmp_path)
    assert run.status() == Status()
    run.write_status(Status("done", step=3, steps=3))
    assert run.update_status(step=4).step == 4
    content = json.loads(run.status_file.read_text())
    run.status_file.write_text(json.dumps({**content, "of_tomorrow": 1}))
    assert run.status().step == 4
    del content["trouble"]  # as versions before it wrote it
    run.status_file.write_text(json.dumps(content))
    assert run.status() == Status("done", step=4, steps=3, updated=content["updated"])


def test_a_run_whose_process_has_gone_is_lost(tmp_path):
    run = RunFolder(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        run.write_status(Status("running", host=os.uname().nodename, pid=child.pid))
        assert run.status().state == "running"
        child.kill()
        child.wait()
        assert run.status().state == "lost"


def test_a_run_on_another_host_lives_as_long_as_its_heart_beats(tmp_path):
    run = RunFolder(tmp_path)
    run.write_status(Status("running", host="elsewhere", pid=1))
    assert run.status().state == "lost"
    run.beat()
    assert run.status().state == "running"
    before = time.time() - LOST_AFTER_SECONDS - 1
    os.utime(run.heartbeat_file, (before, before))
    assert run.status().state == "lost"


def test_a_torn_last_metrics_line_is_left_out(tmp_path):
    run = RunFolder(tmp_path)
    assert run.metrics() == []
    run.metrics_file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert run.metrics() == [{"step": 1}, {"step": 2}]


def test_folders_that_are_no_runs_or_experiments_are_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        RunFolder(tmp_path).config()
    with pytest.raises(InputError, match="is not an experiment.*petgan submit"):
        ExperimentFolder(tmp_path).record()


@pytest.mark.parametrize("state", ["failed", "interrupted", "cancelled"])
def test_how_a_run_ended_is_written_even_on_a_full_disk(tmp_path, monkeypatch, state):
    """Over the old content, which may be longer: where there is room for no new file."""
    run = RunFolder(tmp_path)
    run.write_status(Status("running", step=3, error="x" * 500, host="h", pid=1))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError):
        run.write_status(Status("running", step=4))
    assert run.status().step == 3
    run.write_status(Status(state, step=4, error="é" * 100))
    assert (run.status().state, run.status().step, run.status().error) == (state, 4, "é" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
