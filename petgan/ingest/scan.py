"""Find the images below the given folders and whose they are, without reading pixels.

What a file says of its patient is sealed here: it becomes a keyed hash before anything else sees it.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from petgan.errors import InputError
from petgan.ingest.collections import NAMED, described
from petgan.ingest.ddsm import DECODED
from petgan.ingest.deidentify import Key
from petgan.ingest.dicom import NoSlice, slice_of
from petgan.ingest.formats import FORMATS, beside, format_of
from petgan.ingest.frame import Frame, Header, Refused, Skipped
from petgan.ingest.known import File, Known
from petgan.ingest.mute import mute
from petgan.ingest.parallel import TOO_LARGE, OrderedMap
from petgan.ingest.patients import patient_of, resolve_rule
from petgan.ingest.quarantine import is_sheet

SHEET = "sheet of an ingest's quarantine"


@dataclass
class Findings:
    """What was found: images to be taken, refusals by the file's id, and what was skipped and why."""

    frames: list[Frame] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    patients: str = "auto"  # the rule that was used
    files: int = 0
    known: set[str] = field(default_factory=set)  # ids of files that were not read, since an earlier run did
    copies: list[Frame] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)  # series and instances that cannot be taken
    incomplete: set[str] = field(default_factory=set)  # series of which a slice cannot be taken


def find_images(
    sources: Sequence[Path | str],
    patients: str,
    key: Key,
    known: Known,
    run_all: OrderedMap,
    show: Callable[[int, int], None],
    output: Path | None = None,
) -> Findings:
    """Read the headers of all files below some folders.

    Parameters
    ----------
    sources : sequence of path
        Folders or files. Names are taken below the folder that holds them all.
    patients : str
        The rule; see `petgan.ingest.patients`.
    key : Key
        For sealing.
    known : Known
        Headers that need not be read.
    run_all : callable
        The `map` to work with.
    show : callable
        Is told the files done and their total.
    output : path, optional
        The dataset that is to be written: what an earlier run left there is no source.

    Returns
    -------
    Findings
        Its frames are in the order of their files' names.

    Raises
    ------
    InputError
        If a source is missing or cannot be looked into.
    """
    files = [file for file in _files(sources, key) if output is None or not _is_of(output, file.path)]
    findings = Findings(files=len(files))
    frames = known.of(files)
    findings.known = set(frames)
    stale = {file.id for file in files} - set(frames)
    series: set[str] = set()  # of what has been read
    while True:
        findings.known -= stale
        frames.update({id: [] for id in stale})
        those = [file for file in files if file.id in stale]
        for file, frame in _read(those, findings, known, key, run_all, show, len(files)):
            frames[file.id].append(frame)
            series.add(frame.series)
        stale = {id for id in findings.known if any(frame.series in series for frame in frames[id])}
        stale |= findings.known & (_copies(files, frames) ^ known.copies)
        if not stale:
            break
    show(len(files), len(files))
    findings.skipped.update(known.skipped.values())
    found = [(file, frame) for file in files for frame in frames[file.id]]
    found = _without_copies(found, findings)
    intact = {frame.header.instance for _, frame in found}
    findings.incomplete = {series for series, instance in findings.lost if instance not in intact}
    nameless = [file.name for file, frame in found if frame.header.patient is None]
    by_collection = any(frame.header.collection in NAMED for _, frame in found)
    findings.patients = resolve_rule(patients, nameless, by_collection)
    findings.frames = _whole_ones(_with_patients(found, patients == "auto", findings, key), findings)
    return findings


def find_files(sources: Sequence[Path | str]) -> list[tuple[Path, str]]:
    """All files below the sources, each once, with their names below the common folder; sorted by name."""
    given = [Path(os.path.abspath(source)) for source in sources]  # noqa: PTH100 (links stay links)
    for source, path in zip(sources, given, strict=True):
        if not os.path.exists(path):  # noqa: PTH110
            raise InputError(f"there is no file or folder {source}")
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in given]))
    paths = {path for path in given if path.is_file()}
    paths.update(_walk([path for path in given if path not in paths]))
    return sorted(((path, path.relative_to(root).as_posix()) for path in paths), key=lambda file: file[1])


def _walk(given: Iterable[Path]) -> Iterator[Path]:
    """Files below folders, of which links are looked into last, and none twice."""

    def refuse(error: OSError) -> None:
        # Not its name, which may be a patient's.
        raise InputError(f"a folder of the source cannot be looked into: {error.strerror}")

    seen: set[str] = set()
    waiting = sorted(given, key=lambda path: (path.is_symlink(), path))
    while waiting:
        links: list[Path] = []
        for top in waiting:
            for where, folders, names in os.walk(top, onerror=refuse):
                real = os.path.realpath(where)  # not its inode, which some file systems give to several
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = [name for name in folders if not name.startswith(".")]
                links += [path for path in (Path(where, name) for name in folders) if path.is_symlink()]
                found = (Path(where, name) for name in names if not name.startswith("."))
                # No pipe and no device, whose reading might never end; a link that leads nowhere is told of
                # later, as is what the system lets nobody look at: pathlib would raise, with the name.
                yield from (path for path in found if os.path.isfile(path) or not os.path.exists(path))  # noqa: PTH110, PTH113
        waiting = sorted(links)


def _is_of(output: Path, path: Path) -> bool:
    """Whether a file is the dataset, or lies beside it as what petgan writes there, or in its cache."""
    folder, below = (Path(os.path.realpath(where)).parts for where in (output.parent, path))
    own = len(folder)
    return below[:own] == folder and len(below) > own and is_own(output, below[own])


# Record, page and cache; the quarantine's list and sheets; the sheet of 'petgan dataset preview'.
_OWN = re.compile(
    r"h5|ingest\.(json|html|cache)|quarantine\.csv(\.old(-[0-9]+)?)?|quarantine(-[0-9]+)?\.png|preview\.png"
)


def is_own(output: Path, name: str) -> bool:
    """Whether petgan gives this name to something that it writes beside a dataset."""
    stem = f"{output.stem}."
    return name.startswith(stem) and _OWN.fullmatch(name.removeprefix(stem)) is not None


def _files(sources: Sequence[Path | str], key: Key) -> list[File]:
    return [File(path, name, key.name(name), _stamp(path, name, key)) for path, name in find_files(sources)]


def _stamp(path: Path, name: str, key: Key) -> str:
    facts = [name]
    for file in (path, *beside(path)):
        try:
            stat = file.stat()
            # Of the two times the second cannot be set, as cp -p and rsync -t set the first.
            facts.append(f"{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}")
        except OSError:  # it has gone: its reader will say so
            facts.append("gone")
    return key.seal("stamp", "\0".join(facts))


def _read(
    files: Sequence[File],
    findings: Findings,
    known: Known,
    key: Key,
    run_all: OrderedMap,
    show: Callable[[int, int], None],
    total: int,
) -> Iterator[tuple[File, Frame]]:
    outcomes = run_all(scan_file, [file.path for file in files])
    for done, (file, outcome) in enumerate(zip(files, outcomes, strict=True), total - len(files) + 1):
        show(done, total)
        if isinstance(outcome, Skipped):
            findings.skipped[outcome.reason] += 1
            if outcome.reason not in (SHEET, DECODED):  # what lies beside these may change; nothing is opened
                known.skip(file, outcome.reason)
        elif isinstance(outcome, Refused):
            findings.refused[file.id] = outcome.reason
            if outcome.lost_slice:
                series, instance = outcome.lost_slice
                findings.lost.append((key.series(series), key.seal("instance", f"{instance}/0")))
        else:
            name, headers = outcome
            try:
                for index, header in enumerate(headers):
                    sealed = _sealed(described(file.name, header), file, key)
                    yield file, Frame(file.path, file.id, file.stamp, name, index, sealed)
            except Skipped as skipped:  # by the first header or by none
                findings.skipped[skipped.reason] += 1
                known.skip(file, skipped.reason)


def _sealed(header: Header, file: File, key: Key) -> Header:
    """Keyed hashes in the place of what tells a patient, a series or an image."""
    return replace(
        header,
        patient=header.patient and key.patient(header.patient),
        series=key.series(header.series or file.name),
        instance=header.instance and key.seal("instance", header.instance),
    )


def scan_file(path: Path) -> tuple[str, list[Header]] | Refused:
    """A file's format and the headers of its images, or why there are none."""
    format_name = None
    try:
        format_name = format_of(path)
        if format_name is None:
            return Skipped("no image")
        if is_sheet(path):
            return Skipped(SHEET)
        if path.stat().st_size == 0:
            return Refused("is empty")
        with mute():
            headers = FORMATS[format_name].scan(path)
        return (format_name, headers) if headers else Refused("holds no image")
    except Exception as error:
        refused = refusal(error)
        if format_name == "dicom" and not isinstance(refused, Skipped | NoSlice):
            return Refused(refused.reason, slice_of(path))
        return refused


_NOT_THERE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE)


def refusal(error: Exception) -> Refused:
    """What to say of a file whose reader failed: never the reader's words, which may quote the file."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MemoryError):
        return Refused(TOO_LARGE)
    if isinstance(error, OSError) and error.errno in _NOT_THERE:
        return Refused("cannot be opened: it has gone, or may not be read")
    return Refused("is cut short or damaged")


Found = tuple[File, Frame]


def _copies(files: Sequence[File], frames: Mapping[str, Sequence[Frame]]) -> set[str]:
    """Ids of the files of which an image is in a file before them, too."""
    seen: set[str] = set()
    found = set()
    for file in files:
        instances = {frame.header.instance for frame in frames[file.id] if frame.header.instance}
        if not seen.isdisjoint(instances):
            found.add(file.id)
        seen |= instances
    return found


def _without_copies(found: Sequence[Found], findings: Findings) -> list[Found]:
    """Of each image the first file; what is doubtful of one of its copies is so of it."""
    headers = [frame.header for _, frame in found]
    doubts = {header.instance: header.quarantine for header in headers if header.quarantine}
    seen: set[str] = set()
    kept = []
    for file, frame in found:
        instance = frame.header.instance
        if instance in seen:
            findings.refused[frame.id] = "is a copy: another file has its SOPInstanceUID"
            findings.copies.append(replace(frame, header=replace(frame.header, suv=None)))
            continue
        if instance is not None:
            seen.add(instance)
            if instance in doubts and not frame.header.quarantine:
                frame = replace(frame, header=replace(frame.header, quarantine=doubts[instance]))
        kept.append((file, frame))
    return kept


def _with_patients(found: Sequence[Found], headers_count: bool, findings: Findings, key: Key) -> list[Frame]:
    kept = []
    for file, frame in found:
        patient = frame.header.patient if headers_count else None
        try:
            if patient is None:
                named = patient_of(file.name, findings.patients)
                patient = named and key.patient(named)
            if not patient:
                raise Refused("has no PatientID; --patients says how to know the patient otherwise")
            kept.append(replace(frame, patient=patient))
        except Refused as error:
            findings.refused[frame.id] = error.reason
            if frame.header.plane:
                findings.incomplete.add(frame.series)
    return kept


def _whole_ones(frames: Sequence[Frame], findings: Findings) -> list[Frame]:
    """A series is taken whole or not at all."""
    kept = []
    for frame in frames:
        if frame.header.plane and frame.series in findings.incomplete:
            findings.refused[frame.id] = "lies in a series of which another file cannot be taken"
        else:
            kept.append(frame)
    return kept
