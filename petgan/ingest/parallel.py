"""Work over all cores, in order, with few results in memory, whatever a file does to its reader.

Readers are native code and files are anybody's. So each process has bounds, and what breaks a process costs
the one task that it had; the others go on, in a fresh process:

=============  =========================================================================================
memory         `MEMORY_BYTES` of address space beyond what the process has after its imports (RLIMIT_AS;
               the libraries of numerics reserve much that they never touch, so their start is not counted)
time           `CPU_SECONDS` of processor time a task (RLIMIT_CPU), so that a slow disk counts for nothing
crash          any signal; of SIGKILL, which may be the system's for want of memory and no fault of the
               file, only the second one counts
output         nothing that a reader prints reaches a terminal or a log: it might quote the file
core dumps     none: they would hold identities
=============  =========================================================================================
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from petgan.errors import PetganError
from petgan.ingest.frame import Refused

AHEAD = 2  # results that a worker may be ahead of their use: one may be a whole series, tens of MB
MEMORY_BYTES = 4 * 2**30  # the largest picture that is taken needs less than half of it
CPU_SECONDS = 300

CRASHED = "made the reader crash"
TOO_LARGE = "needs too much memory"
TOO_SLOW = f"takes its reader more than {CPU_SECONDS // 60} minutes"

OrderedMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextmanager
def worker_pool(workers: int, *, isolated: bool = False) -> Iterator[OrderedMap]:
    """Give a `map` over so many processes: lazy, its results in the order of the tasks.

    The result of a task that broke its process is a `Refused` with the reason, as is that of a task that
    raised MemoryError; whoever maps must expect one in the place of any result. What else a task raises, the
    map raises.

    Parameters
    ----------
    workers : int
        Processes. A single one is no process at all: the tasks run in the caller, which needs no guard and
        has no bounds, and a file that makes its reader crash ends the caller.
    isolated : bool
        Use a process even if there is only one.

    Raises
    ------
    PetganError
        If a process cannot start.
    """
    if workers == 1 and not isolated:
        yield _map_here
        return
    pool = _Pool(workers)

    def ordered_map(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield ordered_map
    finally:
        pool.close()


def _map_here(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
    for task in tasks:
        try:
            result = function(task)
        except MemoryError:
            result = Refused(TOO_LARGE)
        yield result


class _Pool:
    """Processes, and for each a thread that hands it tasks one at a time."""

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="petgan-ingest")
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        for _ in range(workers):
            self._idle.put(self._new())

    def submit(self, function: Callable[[Any], Any], task: Any) -> Future[Any]:
        return self._threads.submit(self._run, function, task)

    def close(self) -> None:
        """Whatever is still running is not waited for."""
        with self._lock:
            self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.kill()
        self._threads.shutdown()
        for worker in self._all:
            worker.end()

    def _new(self) -> _Worker:
        worker = _Worker()
        self._all.add(worker)
        return worker

    def _run(self, function: Callable[[Any], Any], task: Any) -> Any:
        message = pickle.dumps((function, task))
        worker = self._idle.get()
        try:
            for attempt in (1, 2):
                self._start(worker)
                try:
                    worker.pipe.send_bytes(message)
                    failed, result = worker.pipe.recv()
                    break
                except (EOFError, OSError):
                    code = worker.end()
                    failed, result = False, Refused(_reason(code))
                    if code != -signal.SIGKILL or attempt == 2:
                        break
        finally:
            self._idle.put(worker)
        if failed:
            raise result
        return result

    def _start(self, worker: _Worker) -> None:
        with self._lock:
            if self._closed:
                raise PetganError("the ingest was stopped")
            if not worker.running:
                worker.start()
        worker.wait_until_ready()


class _Worker:
    """One process after another. It is started by its first task, and again after each that broke it."""

    def __init__(self) -> None:
        self.running = False
        self._ready = False

    def start(self) -> None:
        # Fresh processes: a forked one could inherit the locks of the caller's threads. Ctrl-C is for the
        # caller, from the first instruction of the process on.
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.running = True

    def wait_until_ready(self) -> None:
        if self._ready:
            return
        try:
            self._ready = self.pipe.recv()
        except (EOFError, OSError):
            self.end()
            raise PetganError(
                "a worker process could not start",
                hint='see what it printed above; a script must guard its call by if __name__ == "__main__":, '
                "or use workers=1",
            ) from None

    def kill(self) -> None:
        if self.running:
            self._process.kill()

    def end(self) -> int | None:
        """Wait for the end of a process that has broken off, or has been killed; its exit code."""
        if not self.running:
            return None
        self.pipe.close()
        self._process.join(10)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        self.running = self._ready = False
        return code


def _reason(exit_code: int | None) -> str:
    if exit_code == -signal.SIGXCPU:
        return TOO_SLOW
    return TOO_LARGE if exit_code == -signal.SIGKILL else CRASHED


# --- in the process ----------------------------------------------------------------------------------------


def _work(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    bind_memory(MEMORY_BYTES)
    _lower(resource.RLIMIT_CORE, 0)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        pipe.send(True)
        while True:
            function, task = pickle.loads(pipe.recv_bytes())  # noqa: S301 (the caller's own)
            _lower(resource.RLIMIT_CPU, int(time.process_time()) + 1 + CPU_SECONDS)
            pipe.send_bytes(_outcome(function, task))
    except (EOFError, OSError):  # the caller has gone
        return


def _outcome(function: Callable[[Any], Any], task: Any) -> bytes:
    """Whether the task failed, and its result or what it raised."""
    try:
        return pickle.dumps((False, function(task)))
    except MemoryError:
        return pickle.dumps((False, Refused(TOO_LARGE)))
    except Exception as error:
        try:
            return pickle.dumps((True, error))
        except Exception:
            return pickle.dumps((True, PetganError(f"a worker failed with {type(error).__name__}")))


def bind_memory(more: int) -> None:
    """Let this process have so many bytes more than it has now; where the system tells what it has."""
    sizes = Path("/proc/self/statm")
    if sizes.exists():
        _lower(resource.RLIMIT_AS, int(sizes.read_text().split()[0]) * resource.getpagesize() + more)


def _lower(which: int, wanted: int) -> None:
    """Set a soft limit, as far as the hard one lets."""
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
