"""The way from files to a dataset: plan, make, compare, split, write, record."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from petgan.errors import ConfigError, InputError
from petgan.ingest import quarantine
from petgan.ingest.cache import Cache, pack_all, unpack_all
from petgan.ingest.deidentify import Key, load_key, warn_of_key_beside
from petgan.ingest.duplicates import find_duplicates, groups
from petgan.ingest.frame import Frame, Made, Picture, Refused
from petgan.ingest.images import Unit, make_unit, preview
from petgan.ingest.known import Contents, code_version
from petgan.ingest.parallel import OrderedMap, worker_pool
from petgan.ingest.plan import Options, Plan, Progress, plan_with, silent
from petgan.ingest.record import Tally, make_record, record_file
from petgan.ingest.scan import is_own
from petgan.ingest.split import assign_splits
from petgan.runs import disk_errors, file_digest, process_exists, write_json
from petgan.store import Row, write_dataset

TEXT_ON_FILM = (
    "may have writing beside the breast, as a film's label (--mask-film blacks it out), or on a bright ground"
)
TEXT_LEFT = (
    "shows no breast that could be found, writing that the mask has left, or a bright ground, as of a page"
)
ACCEPTED = "has been accepted"
REJECTED = "has been rejected"

Refuse = Callable[[str, str], None]


def make_plan(
    sources: Sequence[Path | str],
    options: Options | None = None,
    *,
    key_file: Path | str | None = None,
    decisions: Mapping[quarantine.Which, quarantine.Decision] | None = None,
    workers: int | None = None,
    isolated: bool = False,
    progress: Progress = silent,
    output: Path | str | None = None,
) -> Plan:
    """Find out what would be taken, from file names and headers; writes nothing but a key that is missing.

    Parameters are those of `ingest`.

    Raises
    ------
    InputError
        If there are no images, or they cannot stand in one dataset.
    ConfigError
        If the window does not suit them, or `output` is no place for a dataset.
    """
    output = None if output is None else Path(output)
    if output:
        _check_place(output)
    key = load_key(key_file)
    decided = _Decided(decisions or {}, Contents(key))
    with worker_pool(workers or _cores(), isolated=isolated or workers is None) as run_all:
        return plan_with(sources, options or Options(), key, None, decided, run_all, progress, output)


def ingest(
    sources: Sequence[Path | str],
    output: Path | str,
    options: Options | None = None,
    *,
    key_file: Path | str | None = None,
    decisions: Mapping[quarantine.Which, quarantine.Decision] | None = None,
    workers: int | None = None,
    isolated: bool = False,
    progress: Progress = silent,
    refuse: Refuse = lambda source, reason: None,
) -> dict[str, Any]:
    """Write a dataset and, beside it, its record ``<stem>.ingest.json``.

    What a person has to look at first goes to ``<stem>.quarantine.csv`` and its sheets. What has been read
    is remembered in ``<stem>.ingest.cache``, so that another run reads only what is new.

    Parameters
    ----------
    sources : sequence of path
        Folders or files.
    output : path
        The ``.h5`` file; one that is there must be a dataset, and is replaced.
    options : Options, optional
    key_file : path, optional
        Of the key for hashing identities; see `petgan.ingest.deidentify.key_file`.
    decisions : mapping of (str, int) to Decision, optional
        What a person has decided on the quarantine, as `petgan.ingest.quarantine.read_decisions` gives it.
    workers : int, optional
        Processes; all cores if None. What is written does not depend on it. More than one import the
        calling script, which must guard its own call with ``if __name__ == "__main__":``. A single one is
        the calling process itself, without the bounds of `petgan.ingest.parallel`.
    isolated : bool
        Read in a process of its own even if `workers` is 1.
    progress : callable, optional
    refuse : callable, optional
        Is told the id and the reason of each file that is refused.

    Returns
    -------
    dict
        The record.

    Raises
    ------
    InputError
        If no image is left to be taken. No dataset is written then.
    ConfigError
        If an option does not suit the images, `output` is no place for a dataset, or the quarantine list
        that is there cannot be read.
    DiskError
        If the disk is full. Nothing is left behind then.
    """
    output = Path(output)
    _check_place(output)
    _check_writable(output)
    beside = quarantine.decisions_beside(output.with_suffix(""))  # a damaged list is told of before any work
    rejected = {which: one for which, one in beside.items() if one.word == quarantine.REJECT}
    given = {which: one for which, one in (decisions or {}).items() if one.word}
    _remove_leftovers(output)
    key = load_key(key_file)
    warn_of_key_beside(output, key_file)
    pool = worker_pool(workers or _cores(), isolated=isolated or workers is None)
    with pool as run_all, Cache(cache_folder(output)) as cache:
        decided = _Decided({**rejected, **given}, Contents(key))
        plan = plan_with(sources, options or Options(), key, cache, decided, run_all, progress, output)
        work = _Work(plan, key, cache, decided, run_all, progress, refuse)
        try:
            record = work.write(output)
        except InputError:
            work.write_quarantine(output)
            raise
        work.write_quarantine(output)
        return record


def cache_folder(output: Path | str) -> Path:
    """Where it is remembered what has been read for a dataset."""
    return Path(output).with_suffix(".ingest.cache")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _check_place(output: Path) -> None:
    """One slip, such as ``--output scans/*.dcm``, must not put a dataset in the place of something else."""
    if output.is_dir():
        raise ConfigError(f"{output} is a folder", hint=f"name a file to write, such as {output / 'data.h5'}")
    if output.suffix != ".h5":  # its name may be a patient's
        raise ConfigError("the output is no .h5 file", allowed="a name that ends in .h5, such as data/pet.h5")
    if output.exists() and not _may_be_dataset(output):
        raise ConfigError(
            f"{output} is there already, and no dataset",
            hint="choose another name, or remove it first",
        )


def _may_be_dataset(path: Path) -> bool:
    """A dataset that is cut short, or of another schema version, may be made again."""
    if not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return {"schema_version", "modality"} <= set(file.attrs)
    except OSError:
        return True


def _check_writable(output: Path) -> None:
    """Fail now rather than after an hour of reading."""
    folder = output.resolve().parent
    while not folder.exists():
        folder = folder.parent
    with disk_errors(output), tempfile.TemporaryFile(dir=folder):
        pass


def _remove_leftovers(output: Path) -> None:
    """What runs for this output were writing when they were killed: it holds images."""
    for path in output.parent.glob(".*.tmp"):
        name, _, process = path.name[1:].removesuffix(".tmp").rpartition(".")
        if not is_own(output, name) or not process.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if not process_exists(int(process), path.stat().st_mtime):
                path.unlink()


class _Decided:
    """What a person has decided on an image, if its file is still as it was looked at."""

    def __init__(self, decisions: Mapping[quarantine.Which, quarantine.Decision], reader: Contents) -> None:
        self.decisions, self.reader = decisions, reader

    def word(self, frame: Frame) -> str:
        decision = self.decisions.get((frame.id, frame.index))
        return decision.word if decision and decision.content == self.reader.of(frame) else ""

    def __call__(self, frame: Frame) -> bool:
        """Whether it was accepted."""
        return self.word(frame) == quarantine.ACCEPT


class _Work:
    """An ingest whose plan is made."""

    def __init__(
        self,
        plan: Plan,
        key: Key,
        cache: Cache,
        decided: _Decided,
        run_all: OrderedMap,
        progress: Progress,
        refuse: Refuse,
    ) -> None:
        self._plan, self._key, self._cache, self._decided = plan, key, cache, decided
        self._run_all, self._progress, self._refuse = run_all, progress, refuse
        self._tally = Tally()
        self._fingerprints: list[int] = []
        for source, reason in sorted(plan.refused.items()):
            self._refused(source, reason)
        for picture in plan.waiting:
            reasons = [frame.header.quarantine for frame in picture.frames if frame.header.quarantine]
            self._keep_out(picture, reasons[0])
        self._tally.accepted += plan.accepted

    def write(self, output: Path) -> dict[str, Any]:
        plan, options = self._plan, self._plan.options
        meaning = {
            "modality": options.modality,
            "units": plan.units,
            "window": str(plan.window),
            "key_id": self._key.id,
        }
        with contextlib.closing(self._items()) as items:
            digest = write_dataset(
                output,
                items,
                image_size=options.size,
                dtype=options.dtype,
                configuration=plan.configuration,
                splits=self._splits,
                projection=options.take if options.take.startswith("mip:") else "none",
                **meaning,
            )
        record = make_record(
            self._tally,
            configuration=plan.configuration,
            dataset={"digest": digest, **meaning},
            files=plan.files,
            skipped=plan.skipped,
        )
        write_json(record_file(output), record)
        return record

    def write_quarantine(self, output: Path) -> None:
        """The list of what a person has to look at, or has looked at, and its sheets."""
        kept_out = self._tally.waiting + self._tally.rejected
        doubtful = [picture for picture, _ in kept_out] + self._tally.accepted
        reasons = [reason for _, reason in kept_out] + [ACCEPTED] * len(self._tally.accepted)
        previews = iter(self._run_all(preview, doubtful))
        with self._progress("previews", "pictures") as show:

            def draw(done: int) -> np.ndarray:
                show(done, len(doubtful))
                image = next(previews)
                return np.zeros((8, 8), np.uint8) if isinstance(image, Refused) else image

            entries = [
                quarantine.Entry(
                    picture.frames[0].id, self._decided.reader.of(picture.frames[0]), reason, picture.view,
                    picture.frames[0].header.collection, functools.partial(draw, done),
                    picture.frames[0].index,
                )
                for done, (picture, reason) in enumerate(zip(doubtful, reasons, strict=True), 1)
            ]  # fmt: skip
            given = self._decided.decisions
            decisions = {
                entry.which: replace(given[entry.which], key=self._key.id)
                for entry in entries
                if entry.which in given and given[entry.which].content == entry.content
            }
            place = self._place_of_sheets(output, doubtful)
            drawn = (self._cache.get(place) or b"").decode().split()
            written = quarantine.write_quarantine(
                output.with_suffix(""), entries, decisions, key=self._key.id, drawn=drawn
            )
            sheets = [file_digest(path) for path in written[1:]]
            if sheets != drawn:
                self._cache.put(place, " ".join(sheets).encode())

    def _place_of_sheets(self, output: Path, pictures: Sequence[Picture]) -> bytes:
        """Where the cache remembers the sheets that have been drawn of these pictures, by their SHA-256."""
        content = self._decided.reader.of
        shown = [(p.view, p.frames[0].id, content(p.frames[0]), p.frames[0].index) for p in pictures]
        facts = (output.name, code_version(), shown)
        return self._key.place("sheets", json.dumps(facts))

    # --- the images, one after the other ------------------------------------------------------------------

    def _items(self) -> Generator[tuple[Row, np.ndarray], None, None]:
        units = self._units()
        total, done = sum(len(unit.pictures) for unit in units), 0
        with self._progress("ingest", "images") as show:
            for unit, made in self._made(units):
                for picture, outcome in zip(unit.pictures, made, strict=True):
                    done += 1
                    show(done, total)
                    row = self._row(picture)
                    if isinstance(outcome, Refused):
                        self._refused(picture.frames[0].id, outcome.reason)
                    elif outcome.text and not self._has_been_seen(picture):
                        reason = TEXT_LEFT if self._plan.options.mask_film else TEXT_ON_FILM
                        self._keep_out(picture, reason)
                    elif self._decided.word(picture.frames[0]) == quarantine.REJECT:
                        self._keep_out(picture, REJECTED)
                    else:
                        self._tally.taken.append((row, picture))
                        self._tally.quantiles[row.collection].append(outcome.quantiles)
                        self._fingerprints.append(outcome.fingerprint)
                        yield row, outcome.pixels
        if not self._tally.taken:
            tally = self._tally
            raise InputError(
                f"no image is left to be taken, so no dataset was written: {len(tally.refused)} files were "
                f"refused, {len(tally.rejected)} pictures rejected by a person, and {len(tally.waiting)} "
                "pictures wait for a person to look at them (see the quarantine's list and sheets beside the "
                "dataset's place, and --accept-quarantined)"
            )

    def _units(self) -> list[Unit]:
        """What is to be made, in the order of the dataset."""
        by_series: dict[tuple[str, str], list[Picture]] = {}
        for picture in self._plan.pictures:
            frame = picture.frames[0]
            by_series.setdefault((frame.patient, frame.series), []).append(picture)
        return [
            Unit(
                self._plan.volumes[series],
                tuple(sorted(pictures, key=lambda picture: (picture.rank, picture.view))),
                self._plan.how,
            )
            for series, pictures in sorted(by_series.items())
        ]

    def _made(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, Sequence[Made | Refused]]]:
        places = [unit.place(self._key) for unit in units]
        known = {place for place in places if place in self._cache}
        new = [unit for unit, place in zip(units, places, strict=True) if place not in known]
        fresh = iter(self._run_all(make_unit, new))
        for unit, place in zip(units, places, strict=True):
            kept = self._cache.get(place) if place in known else None
            if kept is not None:
                yield unit, unpack_all(kept)
                continue
            outcome = next(self._run_all(make_unit, [unit])) if place in known else next(fresh)
            made = [outcome] * len(unit.pictures) if isinstance(outcome, Refused) else outcome
            whole = [one for one in made if isinstance(one, Made)]
            if len(whole) == len(made):
                self._cache.put(place, pack_all(whole))
            yield unit, made

    def _row(self, picture: Picture) -> Row:
        frame = picture.frames[0]
        return Row(
            patient=frame.patient,
            source=f"{frame.series[:12]}{picture.rank:04x}",
            split="",
            view=picture.view,
            collection=frame.header.collection,
        )

    def _keep_out(self, picture: Picture, reason: str) -> None:
        is_rejected = self._decided.word(picture.frames[0]) == quarantine.REJECT
        (self._tally.rejected if is_rejected else self._tally.waiting).append((picture, reason))

    def _has_been_seen(self, picture: Picture) -> bool:
        seen = self._decided(picture.frames[0])
        if seen and not picture.frames[0].header.quarantine:  # those the plan has told of
            self._tally.accepted.append(picture)
        return seen

    def _refused(self, source: str, reason: str) -> None:
        if source not in self._tally.refused:
            self._tally.refused[source] = reason
            self._refuse(source, reason)

    # --- who goes where -----------------------------------------------------------------------------------

    def _splits(self, rows: Sequence[Row], image_of: Callable[[int], np.ndarray]) -> Sequence[str]:
        patients = [row.patient for row in rows]
        series = [f"{row.patient} {picture.frames[0].series}" for row, picture in self._tally.taken]
        with self._progress("duplicates", "images") as show:
            found = find_duplicates(self._fingerprints, patients, image_of, show, series)
        self._tally.duplicates = [
            (rows[d.index_a].source, rows[d.index_b].source, d.exact,
             patients[d.index_a] != patients[d.index_b])
            for d in found
        ]  # fmt: skip
        by_collection = sorted(rows, key=lambda row: row.collection)  # of several the first counts
        chosen = assign_splits(
            {patient: self._key.fraction(patient) for patient in patients},
            self._plan.options.split,
            collections={row.patient: row.collection for row in reversed(by_collection)},
            together=groups(patients, ((patients[d.index_a], patients[d.index_b]) for d in found)),
        )
        self._tally.splits = [chosen[patient] for patient in patients]
        return self._tally.splits
