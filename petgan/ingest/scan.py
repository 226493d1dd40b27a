"""Find the images below the given folders, whose they are and in which order, without reading pixels."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from petgan.errors import InputError
from petgan.ingest.formats import FORMATS, format_of
from petgan.ingest.frame import Frame, Refused, Skipped
from petgan.ingest.parallel import OrderedMap
from petgan.ingest.patients import patient_of, resolve_rule

NEAREST_MM = 0.01  # slices nearer than this lie at one position


@dataclass
class Findings:
    """What was found: images to be taken, refusals by file name, and how many files were skipped and why."""

    frames: list[Frame] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    patients: str = "auto"  # the rule that was used


def find_images(
    sources: Sequence[Path | str], patients: str, run_all: OrderedMap, show: Callable[[int, int], None]
) -> Findings:
    """Read the headers of all files below some folders.

    Parameters
    ----------
    sources : sequence of path
        Folders or files. Names are taken below the folder that holds them all.
    patients : str
        The rule; see `petgan.ingest.patients`.
    run_all : callable
        The `map` to work with.
    show : callable
        Is told the files done and their total.

    Raises
    ------
    InputError
        If a source is missing or cannot be looked into.
    """
    files = find_files(sources)
    findings = Findings()
    frames: list[Frame] = []
    for done, ((_, name), outcome) in enumerate(zip(files, run_all(_scan_file, files), strict=True), 1):
        show(done, len(files))
        if isinstance(outcome, Skipped):
            findings.skipped[outcome.reason] += 1
        elif isinstance(outcome, Refused):
            findings.refused[name] = outcome.reason
        else:
            frames += outcome
    frames = _without_copies(frames, findings.refused)
    nameless = (frame.name for frame in frames if frame.header.patient is None)
    findings.patients = resolve_rule(patients, nameless)
    frames = _with_patients(frames, patients == "auto", findings)
    findings.frames = _ranked(frames, findings.refused)
    return findings


def find_files(sources: Sequence[Path | str]) -> list[tuple[Path, str]]:
    """All files below the sources, each once, with their names below the common folder; sorted by name."""
    given = [Path(os.path.abspath(source)) for source in sources]  # noqa: PTH100 (links stay links)
    for source, path in zip(sources, given, strict=True):
        if not path.exists():
            raise InputError(f"there is no file or folder {source}")
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    paths = {file for path in given for file in ([path] if path.is_file() else _walk(path))}
    return sorted(((path, path.relative_to(root).as_posix()) for path in paths), key=lambda file: file[1])


def _walk(folder: Path) -> Iterable[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot look into {error.filename}: {error.strerror}")

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(where, name) for name in names if not name.startswith("."))


def _scan_file(file: tuple[Path, str]) -> list[Frame] | Refused:
    path, name = file
    format_name = format_of(path)
    if format_name is None:
        return Skipped("no image")
    try:
        if path.stat().st_size == 0:
            return Refused("is empty")
        headers = FORMATS[format_name].scan(path)
    except Exception as error:
        return refusal(error)
    return [Frame(path, name, format_name, index, header) for index, header in enumerate(headers)]


def refusal(error: Exception) -> Refused:
    """What to say of a file whose reader failed: never the reader's words, which may quote the file."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, FileNotFoundError | PermissionError):
        return Refused("cannot be opened: it has gone, or may not be read")
    return Refused("is cut short or damaged")


def _without_copies(frames: list[Frame], refused: dict[str, str]) -> list[Frame]:
    seen: set[str] = set()
    kept = []
    for frame in frames:
        instance = frame.header.instance
        if instance in seen:
            refused[frame.name] = "is a copy: another file has its SOPInstanceUID"
            continue
        if instance is not None:
            seen.add(instance)
        kept.append(frame)
    return kept


def _with_patients(frames: list[Frame], headers_count: bool, findings: Findings) -> list[Frame]:
    kept = []
    for frame in frames:
        patient = frame.header.patient if headers_count else None
        try:
            if patient is None:
                patient = patient_of(frame.name, findings.patients)
            if not patient:
                raise Refused("has no PatientID; --patients says how to know the patient otherwise")
            kept.append(replace(frame, patient=patient))
        except Refused as error:
            findings.refused[frame.name] = error.reason
    return kept


def _ranked(frames: list[Frame], refused: dict[str, str]) -> list[Frame]:
    """Number the slices of each series by position; of those at one position none can be trusted."""
    series: defaultdict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        series[frame.patient, frame.series].append(frame)
    out = []
    for slices in series.values():
        places = Counter(_place(frame) for frame in slices)
        for frame in slices:
            if frame.header.position is not None and places[_place(frame)] > 1:
                refused[frame.name] = "lies where another slice of its series lies (several times or gates?)"
        slices = [frame for frame in slices if frame.name not in refused]
        slices.sort(key=lambda frame: (frame.header.position or 0.0, frame.index))
        out += [replace(frame, rank=rank) for rank, frame in enumerate(slices)]
    return out


def _place(frame: Frame) -> int:
    return round((frame.header.position or 0.0) / NEAREST_MM)
