"""What an ingest would do: the options, settled by the files that were found."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from petgan.config import Frozen, Positive, image_base
from petgan.errors import ConfigError, InputError
from petgan.ingest.cache import Cache
from petgan.ingest.deidentify import Key
from petgan.ingest.field import parse_field
from petgan.ingest.formats import FORMATS
from petgan.ingest.frame import Frame, Picture
from petgan.ingest.images import How
from petgan.ingest.known import Known
from petgan.ingest.parallel import OrderedMap
from petgan.ingest.patients import SETTLED, check_rule
from petgan.ingest.scan import Findings, find_images
from petgan.ingest.units import in_units
from petgan.ingest.volume import parse_take, pictures, without_projections
from petgan.ingest.window import Window, parse_window

#: Shows ``done / total`` of what, in which unit: `petgan.cli.output.progress_bar` is one.
Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


def silent(what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress that shows nothing."""
    return nullcontext(lambda done, total: None)


VIEWS = {"pet": "slice", "mammogram": "mammogram"}  # where the file does not say


class Options(Frozen):
    """How files become images; what ``auto`` comes to is settled by the files."""

    size: Positive = 224  # pixels; 7 or 8 times a power of two
    modality: Literal["auto", "pet", "mammogram"] = "auto"
    units: Literal["auto", "suvbw", "bqml", "stored"] = "auto"  # see petgan.ingest.units
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    window: str = "auto"  # see petgan.ingest.window
    take: str = "all"  # see petgan.ingest.volume
    field: str = "full"  # see petgan.ingest.field
    kind: Literal["auto", "presentation", "processing"] = "auto"  # of mammograms by DICOM
    orient: Literal["as-is", "left"] = "as-is"  # where the chest wall of a mammogram is
    mask_film: bool = False  # black out what lies beside the breast on a film
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

    @field_validator("take")
    @classmethod
    def _take(cls, value: str) -> str:
        return str(parse_take(value))

    @field_validator("field")
    @classmethod
    def _field(cls, value: str) -> str:
        return str(parse_field(value))

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
    """What is taken, what is refused (reasons by the file's id) and what is skipped (numbers by reason).

    `waiting` are images that a person has to look at first, `accepted` those among the pictures whom a
    person has looked at; `volumes` all frames of each series.
    """

    options: Options
    units: str
    pictures: list[Picture]
    waiting: list[Picture] = field(default_factory=list)
    accepted: list[Picture] = field(default_factory=list)
    volumes: dict[tuple[str, str], tuple[Frame, ...]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    files: int = 0

    @property
    def how(self) -> How:
        options = self.options
        return How(
            self.window, options.size, options.dtype, parse_field(options.field), options.orient,
            options.mask_film,
        )  # fmt: skip

    @property
    def window(self) -> Window:
        return parse_window(self.options.window)

    @property
    def configuration(self) -> dict[str, Any]:
        """The options for dataset and record; an expression for patients may hold names, and stays out."""
        values = self.options.model_dump(mode="json")
        if values["patients"] not in SETTLED:
            values["patients"] = "expression"
        return {**values, "resize": "lanczos", "padding": "square"}


def plan_with(
    sources: Sequence[Path | str],
    options: Options,
    key: Key,
    cache: Cache | None,
    is_accepted: Callable[[Frame], bool],
    run_all: OrderedMap,
    progress: Progress,
    output: Path | None = None,
) -> Plan:
    """Make a plan with a `map` that is there already; see `petgan.ingest.make_plan`.

    `is_accepted` tells of a doubtful image whether a person has looked at it and let it in; what lies beside
    `output`, the dataset to be written, under its name is no source.
    """
    known = Known(cache, key, f"{options.units} {options.patients} {' '.join(sorted(FORMATS))}")
    with progress("headers", "files") as show:
        found = find_images(sources, options.patients, key, known, run_all, show, output)
    frames = _of_modality(found.frames, options.modality)
    if len(frames) < len(found.frames):
        found.skipped["of the other modality"] += len(found.frames) - len(frames)
    if not frames and not found.refused:
        others = f"; {len(found.frames)} are of the other modality" if found.frames else ""
        raise InputError(
            f"there are no images in what was given{others}", allowed=f"{', '.join(FORMATS)} files"
        )
    modality = options.modality
    if modality == "auto":
        modalities = (frame.header.modality or "mammogram" for frame in frames)
        modality = _only_one("modality", modalities, hint="choose with --modality")
    if modality == "pet" and (options.mask_film or options.orient != "as-is"):
        raise ConfigError(
            "PET has no film to be masked and no chest wall to be turned to",
            hint="leave out --orient and --mask-film",
        )
    frames = _of_kind(frames, options.kind, found.skipped)
    every = frames
    frames = without_projections(every, found.skipped, slices=bool(found.incomplete))
    left = {(frame.id, frame.index) for frame in frames}
    # Known is what is whole: not a file of which a frame was left out.
    in_part = {frame.id for frame in every if (frame.id, frame.index) not in left}
    fresh = in_units([frame for frame in frames if frame.id not in found.known], options.units, found.refused)
    copies = [frame for frame in found.copies if frame.id not in found.known]
    known.keep([frame for frame in fresh if frame.id not in in_part], copies)
    read = {(frame.id, frame.index): frame for frame in fresh}
    frames = [read.get((f.id, f.index), f) for f in frames if f.id not in found.refused]
    hint = "give them to ingests of their own: DDSM's films are in optical density, other mammograms are not"
    units = _only_one("unit", (frame.header.units for frame in frames), hint=hint)
    if units == "bqml":
        rules = (frame.rule for frame in frames)
        _only_one("DecayCorrection (0054,1102)", rules, hint="--units suvbw allows for it")
    window = _settled(options, frames, modality)
    if window.is_fixed and frames and window.units != units:
        raise ConfigError(
            f"the images are in {units}, and the window is not", value=str(window), hint="see --units"
        )
    update = {"modality": modality, "window": str(window), "patients": found.patients, "units": units}
    return _planned(options.model_copy(update=update), frames, found, is_accepted)


def _planned(
    options: Options, frames: list[Frame], found: Findings, is_accepted: Callable[[Frame], bool]
) -> Plan:
    found_pictures, refused = pictures(frames, parse_take(options.take))
    all_pictures = [p if p.view else replace(p, view=VIEWS[options.modality]) for p in found_pictures]
    found.refused.update(refused)
    volumes: defaultdict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.id not in found.refused:
            volumes[frame.patient, frame.series].append(frame)
    doubtful = [p for p in all_pictures if any(f.header.quarantine for f in p.frames)]
    held = [p for p in doubtful if any(f.header.quarantine and not is_accepted(f) for f in p.frames)]
    held_back = set(map(id, held))
    waiting = _one_by_one(held)
    seen = [picture for picture in doubtful if id(picture) not in held_back]
    return Plan(
        options=options,
        units=options.units,
        pictures=[picture for picture in all_pictures if id(picture) not in held_back],
        waiting=[picture for picture in waiting if not is_accepted(picture.frames[0])],
        accepted=_one_by_one([*seen, *(picture for picture in waiting if is_accepted(picture.frames[0]))]),
        volumes={series: tuple(those) for series, those in volumes.items()},
        refused=found.refused,
        skipped=found.skipped,
        files=found.files,
    )


def _one_by_one(pictures: Iterable[Picture]) -> list[Picture]:
    """What a person looks at: each doubtful image once, those of a projection one after the other."""
    found: dict[tuple[str, int], Picture] = {}
    for picture in pictures:
        for frame in picture.frames:
            if frame.header.quarantine:
                alone = Picture((frame,), frame.header.view or "slice", picture.rank)
                found[frame.id, frame.index] = picture if len(picture.frames) == 1 else alone
    return [found[where] for where in sorted(found)]


def _of_modality(frames: list[Frame], wanted: str) -> list[Frame]:
    """All that says it is of the modality; a picture does not say, and counts where nothing does."""
    if wanted == "auto":
        return frames
    named = [frame for frame in frames if frame.header.modality == wanted]
    return named or [frame for frame in frames if frame.header.modality is None]


def _of_kind(frames: list[Frame], wanted: str, skipped: Counter[str]) -> list[Frame]:
    """Mammograms for presentation or for processing: their grey levels mean different things."""
    if wanted == "auto":
        kinds = (frame.header.kind for frame in frames)
        _only_one("kind of mammogram", filter(None, kinds), hint="choose with --kind")
        return frames
    kept = [frame for frame in frames if frame.header.kind in (None, wanted)]
    if len(kept) < len(frames):
        skipped["mammograms of the other kind"] += len(frames) - len(kept)
    return kept


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
