"""Which file an id stands for: the way back, for who has the key and the source folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from petgan.errors import ConfigError
from petgan.ingest.collections import described
from petgan.ingest.deidentify import Key
from petgan.ingest.formats import FORMATS, format_of
from petgan.ingest.frame import Header, Refused
from petgan.ingest.mute import mute
from petgan.ingest.patients import RULES
from petgan.ingest.scan import find_files

RANK_DIGITS = 4  # the last digits of a source: the slice's number in its series


@dataclass(frozen=True)
class Match:
    """What an id stands for.

    Parameters
    ----------
    what : str
        ``file``, or that the file is one of a ``series`` or of a ``patient``.
    name : str
        Of the file, below the given folder.
    """

    what: str
    name: str


def find(
    ids: Sequence[str],
    sources: Sequence[Path | str],
    key: Key,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Match]]:
    """Look ids up: of files, and of a dataset's columns ``source`` and ``patient``.

    Parameters
    ----------
    ids : sequence of str
        16 hexadecimal digits each.
    sources : sequence of path
        As they were given to the ingest: names are below the folder that holds them all.
    key : Key
    show : callable
        Is told the files done and their total.

    Returns
    -------
    dict of str to list of Match
        By id; empty where nothing has it. Patients whom a regular expression named are not found.

    Raises
    ------
    ConfigError
        If an id is none.
    InputError
        If a source is missing.
    """
    found: dict[str, list[Match]] = {}
    for given in ids:
        name = given.strip().lower()
        if len(name) != 16 or not set(name) <= set("0123456789abcdef"):
            raise ConfigError("this is no id", value=given, allowed="16 hexadecimal digits")
        found[name] = []
    files = find_files(sources)
    by_name = {key.name(name): name for _, name in files}
    for wanted in found:
        if wanted in by_name:
            found[wanted].append(Match("file", by_name[wanted]))
    left = [wanted for wanted in found if not found[wanted]]
    if left:
        for done, (path, name) in enumerate(files, 1):
            _match(path, name, key, left, found)
            show(done, len(files))
    return found


def _match(path: Path, name: str, key: Key, wanted: Sequence[str], found: dict[str, list[Match]]) -> None:
    headers = _headers(path, name)
    if not headers:
        return
    series = {key.series(header.series or name)[:-RANK_DIGITS] for header in headers}
    patients = {key.patient(patient) for header in headers for patient in _patients(header, name)}
    for one in wanted:
        if one[:-RANK_DIGITS] in series:
            slices = any(header.plane for header in headers)
            what = f"slice {int(one[-RANK_DIGITS:], 16)} of the series of" if slices else "picture of"
            found[one].append(Match(what, name))
        if one in patients:
            found[one].append(Match("patient of", name))


def _headers(path: Path, name: str) -> list[Header]:
    try:
        kind = format_of(path)
        if kind is None:
            return []
        with mute():
            return [described(name, header) for header in FORMATS[kind].scan(path)]
    except Exception:  # a file that cannot be read is in no dataset
        return []


def _patients(header: Header, name: str) -> Iterator[str]:
    if header.patient:
        yield header.patient
    for rule in RULES.values():
        try:
            yield rule(name)
        except Refused:
            continue
