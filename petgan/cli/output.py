"""What the commands share to speak with the user: tables, progress and JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def print_json(value: Any) -> None:
    """Print `value` as JSON on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """A rich table of text cells, which mean themselves; a `Text` brings its colour along."""
    out = Table(*columns, title=title, title_justify="left")
    for row in rows:
        out.add_row(*(cell if isinstance(cell, Text) else escape(_cell(cell)) for cell in row))
    return out


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output; never cut into a pipe."""
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table(columns, rows))


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show ``done / total`` with speed and time left, on standard error.

    Yields a function of (done, total). Where standard error is no terminal, it prints a line now and
    then instead, so that a log file stays readable.
    """
    if not sys.stderr.isatty():
        yield _log_lines(what, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None, speed="")

        def show(done: int, total: int) -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=done, total=total, speed=f"{speed:.1f} {unit}/s" if speed else "")

        yield show


def _log_lines(what: str, unit: str) -> Callable[[int, int], None]:
    shown, begun = -1, time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal shown
        tenth = 10 * done // total if total else 10
        if tenth > shown:
            shown = tenth
            speed = done / max(time.monotonic() - begun, 1e-3)
            print(f"{what}: {done} of {total} {unit} ({speed:.3g} {unit}/s)", file=sys.stderr, flush=True)

    return show
