"""Start a worker in the foreground and wait for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import petgan
from petgan.launch import worker_command


def run_worker(task: str, **arguments: Any) -> int:
    """Have a worker do `task` and return its exit code; all that it says goes to standard error.

    Parameters
    ----------
    task : str
    **arguments
        Of the task; paths are made absolute.
    """
    given: dict[str, Any] = {
        key: value.resolve() if isinstance(value, Path) else value for key, value in arguments.items()
    }
    worker = subprocess.Popen(
        worker_command(task, **given),
        cwd=Path(petgan.__file__).resolve().parents[1],  # `python -m` looks there first
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
    )
    try:
        code = worker.wait()
    except KeyboardInterrupt:  # which the worker has received as well: it tidies up
        worker.wait()
        raise
    return code if code >= 0 else 128 - code
