"""Work over all cores, in order, with few results in memory."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from petgan.errors import PetganError

AHEAD = 4  # results that a worker may be ahead of their use

OrderedMap = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextmanager
def worker_pool(workers: int) -> Iterator[OrderedMap]:
    """Give a `map` over so many processes: lazy, its results in the order of the tasks.

    Raises
    ------
    PetganError
        If a process is killed.
    """
    if workers == 1:
        yield map
        return
    # Fresh processes: a forked one could inherit the locks of the caller's threads. Ctrl-C is for the caller.
    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:

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
        except BrokenProcessPool:
            raise PetganError(
                "a worker process was killed, perhaps for want of memory",
                hint="give the same command again, with fewer --workers",
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
