"""What an ingest would do: the options, settled by the files that were found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from petgan.config import Frozen, Positive, image_base
from petgan.errors import ConfigError, InputError
from petgan.ingest.formats import FORMATS
from petgan.ingest.frame import Frame
from petgan.ingest.parallel import OrderedMap
from petgan.ingest.patients import PATIENT_ID, RULES, check_rule
from petgan.ingest.scan import find_images
from petgan.ingest.units import in_units
from petgan.ingest.window import Window, parse_window

#: Shows ``done / total`` of what, in which unit: `petgan.cli.output.progress_bar` is one.
Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


def silent(what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress that shows nothing."""
    return nullcontext(lambda done, total: None)


class Options(Frozen):
    """How files become images; what ``auto`` comes to is settled by the files."""

    size: Positive = 224  # pixels; 7 or 8 times a power of two
    modality: Literal["auto", "pet", "mammogram"] = "auto"
    units: Literal["auto", "suvbw", "bqml", "stored"] = "auto"  # see petgan.ingest.units
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    window: str = "auto"  # see petgan.ingest.window
    patients: str = "auto"  # see petgan.ingest.patients
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)

    @field_validator("size")
    @classmethod
    def _divisible(cls, value: int) -> int:
        image_base(value)
        return value

    @field_validator("window")
    @classmethod
    def _window(cls, value: str) -> str:
        return value if value == "auto" else str(parse_window(value))

    @model_validator(mode="after")
    def _window_of_dtype(self) -> Options:
        if self.window not in ("auto", "none") and self.dtype == "float32":
            raise ConfigError(
                "float32 keeps the units, and takes no window",
                value=self.window,
                allowed=("auto", "none"),
                hint="a window scales to uint8 or uint16",
            )
        if self.window == "none" and self.dtype != "float32":
            raise ConfigError(
                "without a window the values keep their units, and these need floating point",
                value=self.dtype,
                allowed="float32",
            )
        return self

    @field_validator("patients")
    @classmethod
    def _rule(cls, value: str) -> str:
        check_rule(value)
        return value

    @field_validator("split")
    @classmethod
    def _shares(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or abs(sum(value) - 1) > 1e-6:
            raise ConfigError(
                "these are no shares of train, validation and test",
                value=value,
                allowed="three numbers, none negative, whose sum is 1",
            )
        return value


@dataclass(frozen=True)
class Plan:
    """What is taken, what is refused (reasons by file name) and what is skipped (numbers by reason)."""

    options: Options
    units: str
    frames: list[Frame]
    refused: dict[str, str]
    skipped: Counter[str]
    suv: Counter[str] = field(default_factory=Counter)  # ways that led to SUV, by their images

    @property
    def window(self) -> Window:
        return parse_window(self.options.window)

    @property
    def configuration(self) -> dict[str, Any]:
        """The options for dataset and record; an expression for patients may hold names, and stays out."""
        values = self.options.model_dump(mode="json")
        if values["patients"] not in (PATIENT_ID, *RULES):
            values["patients"] = "expression"
        return {**values, "resize": "lanczos", "padding": "square"}


def plan_with(
    sources: Sequence[Path | str], options: Options, run_all: OrderedMap, progress: Progress
) -> Plan:
    """Make a plan with a `map` that is there already; see `petgan.ingest.make_plan`."""
    with progress("headers", "files") as show:
        found = find_images(sources, options.patients, run_all, show)
    wanted = options.modality
    frames = _of_modality(found.frames, wanted)
    if len(frames) < len(found.frames):
        found.skipped["of the other modality"] += len(found.frames) - len(frames)
    if not frames and not found.refused:
        where = ", ".join(map(str, sources))
        raise InputError(f"there are no images in {where}", allowed=f"{', '.join(FORMATS)} files")
    if wanted == "auto":
        modalities = (frame.header.modality or "mammogram" for frame in frames)
        wanted = _only_one("modality", modalities, hint="choose with --modality")
    frames, suv = in_units(frames, options.units, found.refused)
    units = _only_one("unit", (frame.header.units for frame in frames), hint="choose with --units")
    window = _settled(options, frames, wanted)
    if window.is_fixed and frames and window.units != units:
        raise ConfigError(
            f"the images are in {units}, and the window is not", value=str(window), hint="see --units"
        )
    update = {"modality": wanted, "window": str(window), "patients": found.patients, "units": units}
    return Plan(options.model_copy(update=update), units, frames, found.refused, found.skipped, suv)


def _of_modality(frames: list[Frame], wanted: str) -> list[Frame]:
    """All that says it is of the modality; a picture does not say, and counts where nothing does."""
    if wanted == "auto":
        return frames
    named = [frame for frame in frames if frame.header.modality == wanted]
    return named or [frame for frame in frames if frame.header.modality is None]


def _only_one(what: str, values: Iterable[str], hint: str) -> Any:
    counts = Counter(values)
    if len(counts) > 1:
        kinds = ", ".join(f"{number} {value}" for value, number in counts.most_common())
        raise InputError(f"a dataset has one {what}, and these images have several: {kinds}", hint=hint)
    return next(iter(counts), "auto")


def _settled(options: Options, frames: Sequence[Frame], modality: str) -> Window:
    """What ``auto`` is: of a mammogram nothing is cut off, since its brightest specks may matter most."""
    if options.window != "auto":
        return parse_window(options.window)
    if options.dtype == "float32":
        return Window("none")
    if all(frame.header.span == (0, 255) for frame in frames):
        return Window("full")
    return Window("percentile", 0.5, 99.5) if modality == "pet" else Window("percentile", 0, 100)
