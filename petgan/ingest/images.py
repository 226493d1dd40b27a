"""From a file to the pixels of the dataset: what the worker processes do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from petgan.ingest.formats import FORMATS
from petgan.ingest.frame import Frame, Refused
from petgan.ingest.parallel import OrderedMap
from petgan.ingest.resize import square, to_integers
from petgan.ingest.scan import refusal
from petgan.ingest.window import Limits, Window, apply
from petgan.store import Row


@dataclass(frozen=True)
class Task:
    """An image to be made. `limits` is None where it is windowed by its own values."""

    row: Row
    frame: Frame
    window: Window
    limits: Limits | None
    size: int
    dtype: str


def make_image(task: Task) -> np.ndarray | Refused:
    """The image (size, size) in the dataset's dtype, or why there is none."""
    frame = task.frame
    try:
        values = read(frame)
        if task.dtype == "float32":
            return square(values, task.size)
        limits = task.limits or task.window.limits([values], values.size, frame.header.span)
        top = np.iinfo(task.dtype).max
        return to_integers(square(apply(values, limits, top), task.size), task.dtype)
    except Exception as error:
        return refusal(error)


def read(frame: Frame) -> np.ndarray:
    """An image's values in the dataset's units: (h, w) float32."""
    values = FORMATS[frame.format].read(frame.path, frame.index)
    return values if frame.scale == 1 else (values * np.float64(frame.scale)).astype(np.float32)


def series_limits(
    frames: Sequence[Frame],
    window: Window,
    run_all: OrderedMap,
    show: Callable[[int, int], None],
    refuse: Callable[[Frame, str], None],
) -> dict[str, Limits]:
    """What becomes black and white in each series of several slices.

    Every slice is read for it, one at a time; `refuse` is told of those that cannot be.
    """
    by_series: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_series[frame.series].append(frame)
    several = {name: (slices, window) for name, slices in by_series.items() if len(slices) > 1}
    limits: dict[str, Limits] = {}
    outcomes = run_all(_find_limits, several.values())
    for done, (name, (found, bad)) in enumerate(zip(several, outcomes, strict=True), 1):
        show(done, len(several))
        for frame, reason in bad:
            refuse(frame, reason)
        if found is not None:
            limits[name] = found
    return limits


def _find_limits(task: tuple[list[Frame], Window]) -> tuple[Limits | None, list[tuple[Frame, str]]]:
    slices, window = task
    bad: list[tuple[Frame, str]] = []

    def images() -> Iterator[np.ndarray]:
        for frame in slices:
            try:
                yield read(frame)
            except Exception as error:
                bad.append((frame, refusal(error).reason))

    pixels = sum(frame.header.pixels for frame in slices)
    limits = window.limits(images(), pixels, slices[0].header.span)
    return (None if len(bad) == len(slices) else limits), bad
