"""The map over processes: order, laziness, and what a task does that breaks its process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from petgan.errors import ConfigError, PetganError
from petgan.ingest import parallel
from petgan.ingest.frame import Refused
from petgan.ingest.parallel import AHEAD, CRASHED, MEMORY_BYTES, TOO_LARGE, TOO_SLOW, worker_pool

POOLS = pytest.mark.parametrize(
    "pool", [{"workers": 1}, {"workers": 1, "isolated": True}, {"workers": 2}], ids=["here", "one", "two"]
)


def square(task):
    return task * task


def act(task):
    """What a reader may do, by the name of the task."""
    what, *details = task
    if what == "segfault":
        ctypes.string_at(0)
    if what == "abort":
        os.abort()
    if what == "exit":
        os._exit(0)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "kill once":
        marker = Path(details[0])
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if what == "grow":
        return np.ones(MEMORY_BYTES // 8, np.float64).nbytes
    if what == "large":
        return np.empty(MEMORY_BYTES // 2, np.uint8).nbytes
    if what == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if what == "print":
        os.write(1, b"Doe^Jane\n")
        os.write(2, b"Doe^Jane\n")
    if what == "limits":
        return resource.getrlimit(resource.RLIMIT_CORE)[0]
    if what == "spin":
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1, hard))
        while True:
            pass
    if what == "raise":
        raise ConfigError("no")
    if what == "raise strangely":
        raise type("Local", (Exception,), {})
    if what == "wait":
        time.sleep(details[0])
    return what


def run(tasks, **pool):
    with worker_pool(**(pool or {"workers": 2})) as run_all:
        return [result.reason if isinstance(result, Refused) else result for result in run_all(act, tasks)]


@POOLS
def test_results_are_in_order(pool):
    with worker_pool(**pool) as run_all:
        assert list(run_all(square, range(50))) == [n * n for n in range(50)]
        assert list(run_all(square, [])) == []


def test_a_slow_task_does_not_change_the_order():
    assert run([("wait", 0.3), ("a",), ("b",)]) == ["wait", "a", "b"]


@POOLS
def test_the_map_is_lazy(pool):
    taken = 0

    def tasks():
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield taken

    with worker_pool(**pool) as run_all:
        assert next(run_all(square, tasks())) == 1
        assert taken <= AHEAD * pool["workers"]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_breaks_a_process_costs_its_own_task(workers):
    broken = {
        "segfault": CRASHED,
        "abort": CRASHED,
        "exit": CRASHED,
        "kill": TOO_LARGE,
        "grow": TOO_LARGE,
        "spin": TOO_SLOW,
    }
    tasks = [(what,) for name in broken for what in ("good", name, "better")]
    expected = [broken.get(what, what) for (what,) in tasks]
    assert run(tasks, workers=workers, isolated=True) == expected


def test_every_task_may_break_its_process():
    assert run([("abort",)] * 4) == [CRASHED] * 4


def test_a_process_that_was_killed_once_gets_its_task_again(tmp_path):
    assert run([("kill once", tmp_path / "marker"), ("good",)]) == ["kill once", "good"]


def test_half_the_memory_may_be_used():
    assert run([("large",)]) == [MEMORY_BYTES // 2]


@POOLS
def test_what_a_task_raises_is_raised(pool):
    with pytest.raises(ConfigError, match="no"):
        run([("good",), ("raise",)], **pool)


def test_what_cannot_be_sent_is_named():
    with pytest.raises(PetganError, match="Local"):
        run([("raise strangely",)])


def test_memory_that_runs_out_in_the_caller_costs_one_task(monkeypatch):
    def fail(task):
        raise MemoryError

    with worker_pool(1) as run_all:
        assert [result.reason for result in run_all(fail, [1])] == [TOO_LARGE]


def test_readers_print_nothing_and_leave_no_core(capfd):
    assert run([("print",), ("limits",)]) == ["print", 0]
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_is_for_the_caller():
    assert run([("interrupt",)]) == ["interrupt"]


def test_leaving_early_does_not_wait_for_the_tasks():
    start = time.monotonic()
    with pytest.raises(KeyError), worker_pool(2) as run_all:
        results = run_all(act, [("good",), *[("wait", 60)] * 6])
        next(results)
        raise KeyError
    assert time.monotonic() - start < 30


# A shell's background jobs, and so the tests in one, begin with Ctrl-C ignored.
INTERRUPTED = """
import signal
from petgan.ingest.parallel import worker_pool
from ingest.test_parallel import act
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with worker_pool(2) as run_all:
        for result in run_all(act, [("good",), *[("wait", 60)] * 6]):
            print(result, flush=True)
"""


def environment():
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}


def test_ctrl_c_ends_the_caller_and_its_processes_and_no_process_speaks(tmp_path):
    (tmp_path / "script.py").write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as script:
        try:
            assert script.stdout.readline() == "good\n"
            os.killpg(script.pid, signal.SIGINT)  # as a terminal does: all of them at once
            _, errors = script.communicate(timeout=120)
            assert errors.count("Traceback") == 1
            assert errors.splitlines()[-1] == "KeyboardInterrupt"
            until = time.monotonic() + 30  # the system's own time to end the last of them
            while left := members(script.pid):
                assert time.monotonic() < until, f"processes are left: {left}"
                time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)


def members(group):
    """Processes of a group that still live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append(stat.parent.name)
    return found


def test_a_script_without_a_guard_is_told_so(tmp_path):
    text = INTERRUPTED.replace('if __name__ == "__main__":', "if True:")
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "a worker process could not start" in done.stderr.splitlines()[-1]


def test_the_bound_counts_from_what_the_process_has():
    code = (
        f"from petgan.ingest import parallel; import numpy; parallel.bind_memory({2**28}); numpy.ones(2**27)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert "MemoryError" in done.stderr
    assert parallel.MEMORY_BYTES > 2**28
