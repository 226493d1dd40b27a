"""Image files in, one dataset out: grey, square, windowed, split by patient and without identity.

`scan` finds the images and `plan` settles the options; `formats` lists what can be read (`dicom`,
`raster`); `images` makes them alike with `window` and `resize`; `patients`, `deidentify` and `split` say
whose they are without saying it; `record` keeps what was done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from petgan.errors import ConfigError, InputError
from petgan.ingest.deidentify import Key, load_key
from petgan.ingest.formats import FORMATS, Format
from petgan.ingest.frame import Frame, Header, Refused
from petgan.ingest.images import Task, make_image, series_limits
from petgan.ingest.parallel import OrderedMap, worker_pool
from petgan.ingest.plan import Options, Plan, Progress, plan_with, silent
from petgan.ingest.record import make_record, record_file
from petgan.ingest.split import assign_splits
from petgan.runs import write_json
from petgan.store import Row, write_dataset

__all__ = ["FORMATS", "Format", "Header", "Options", "Plan", "Refused", "ingest", "make_plan"]

VIEWS = {"pet": "slice", "mammogram": "mammogram"}  # where the file does not say

Refuse = Callable[[str, str], None]


def make_plan(
    sources: Sequence[Path | str],
    options: Options | None = None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> Plan:
    """Find out what would be taken, from file names and headers; writes nothing.

    Raises
    ------
    InputError
        If there are no images, or they cannot stand in one dataset.
    ConfigError
        If the window does not suit them.
    """
    with worker_pool(workers or _cores()) as run_all:
        return plan_with(sources, options or Options(), run_all, progress)


def ingest(
    sources: Sequence[Path | str],
    output: Path | str,
    options: Options | None = None,
    *,
    key_file: Path | str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    refuse: Refuse = lambda name, reason: None,
) -> dict[str, Any]:
    """Write a dataset and, beside it, its record ``<stem>.ingest.json``.

    Parameters
    ----------
    sources : sequence of path
        Folders or files.
    output : path
        The ``.h5`` file.
    options : Options, optional
    key_file : path, optional
        Of the key for hashing identities; see `petgan.ingest.deidentify.key_file`.
    workers : int, optional
        Processes; all cores if None. What is written does not depend on it. More than one import the
        calling script, which must guard its own call with ``if __name__ == "__main__":``.
    progress : callable, optional
    refuse : callable, optional
        Is told the name and the reason of each file that is refused.

    Returns
    -------
    dict
        The record.

    Raises
    ------
    InputError
        If no image is left to be taken. Nothing is written then.
    ConfigError
        If an option does not suit the images.
    DiskError
        If the disk is full. Nothing is left behind then.
    """
    output = Path(output)
    if output.is_dir():
        raise ConfigError(f"{output} is a folder", hint=f"name a file to write, such as {output / 'data.h5'}")
    with worker_pool(workers or _cores()) as run_all:
        plan = plan_with(sources, options or Options(), run_all, progress)
        refusals = _Refusals(refuse)
        for name, reason in sorted(plan.refused.items()):
            refusals.add(name, reason)
        key = load_key(key_file)
        splits = _splits(plan, key)
        tasks = _tasks(plan, key, splits, run_all, progress, refusals)
        return _write(plan, output, key, splits, tasks, run_all, progress, refusals)


class _Refusals(dict[str, str]):
    """Reasons by file name; the user is told of each file once."""

    def __init__(self, tell: Refuse) -> None:
        super().__init__()
        self._tell = tell

    def add(self, name: str, reason: str) -> None:
        if name not in self:
            self[name] = reason
            self._tell(name, reason)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _splits(plan: Plan, key: Key) -> dict[str, str]:
    fractions = {frame.patient: key.fraction(frame.patient) for frame in plan.frames}
    return assign_splits(fractions, plan.options.split)


def _tasks(
    plan: Plan,
    key: Key,
    splits: Mapping[str, str],
    run_all: OrderedMap,
    progress: Progress,
    refusals: _Refusals,
) -> list[Task]:
    """What is left to be made, in the order of the dataset."""
    limits = {}
    if plan.options.modality == "pet" and not plan.window.is_fixed and plan.options.dtype != "float32":
        with progress("windows", "series") as show:
            limits = series_limits(
                plan.frames,
                plan.window,
                run_all,
                show,
                lambda frame, reason: refusals.add(frame.name, reason),
            )
    tasks = []
    for frame in plan.frames:
        if frame.name not in refusals:
            row = Row(
                patient=key.patient(frame.patient),
                source=key.source(frame.series, frame.rank),
                split=splits[frame.patient],
                view=frame.header.view or VIEWS[plan.options.modality],
            )
            tasks.append(
                Task(row, frame, plan.window, limits.get(frame.series), plan.options.size, plan.options.dtype)
            )
    return sorted(tasks, key=lambda task: (task.row.patient, task.row.source))


def _write(
    plan: Plan,
    output: Path,
    key: Key,
    splits: Mapping[str, str],
    tasks: Sequence[Task],
    run_all: OrderedMap,
    progress: Progress,
    refusals: _Refusals,
) -> dict[str, Any]:
    taken: list[Frame] = []

    def items() -> Generator[tuple[Row, np.ndarray], None, None]:
        with progress("ingest", "images") as show:
            for done, (task, image) in enumerate(zip(tasks, run_all(make_image, tasks), strict=True), 1):
                show(done, len(tasks))
                if isinstance(image, Refused):
                    refusals.add(task.frame.name, image.reason)
                else:
                    taken.append(task.frame)
                    yield task.row, image
        if not taken:
            raise InputError(f"none of the {len(refusals)} image files can be taken, so nothing was written")

    meaning = {
        "modality": plan.options.modality,
        "units": plan.units,
        "window": str(plan.window),
        "key_id": key.id,
    }
    with closing(items()) as images:
        digest = write_dataset(
            output,
            images,
            image_size=plan.options.size,
            dtype=plan.options.dtype,
            configuration=plan.configuration,
            **meaning,
        )
    record = make_record(
        configuration=plan.configuration,
        dataset={"digest": digest, **meaning},
        taken=taken,
        splits=splits,
        refused=refusals,
        skipped=plan.skipped,
        suv=plan.suv,
        key=key,
    )
    write_json(record_file(output), record)
    return record
