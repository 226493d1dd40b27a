"""What is kept of an ingest, beside its dataset: how, how many, and what was refused and why.

The same files, options and key give the same record, byte for byte; no file is called by its name in it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from petgan import __version__
from petgan.ingest.frame import QUANTILES, Frame, Picture
from petgan.store import Row

SCHEMA_VERSION = 2
BINS = 64


@dataclass
class Tally:
    """What is learned while the images are made, one after the other.

    Parameters
    ----------
    taken : list of (Row, Picture)
        In the order of the dataset.
    refused : dict of str to str
        Reasons by the file's id.
    waiting : list of (Picture, str)
        What a person has to look at, and why.
    rejected : list of (Picture, str)
        What a person has looked at, and left out; and why it was to be looked at.
    accepted : list of Picture
        What a person has looked at, and let in.
    quantiles : dict of str to list of ndarray (68,)
        By collection, of each image.
    duplicates : list of (str, str, bool, bool)
        Two sources, whether they are equal to the last bit, and whether they are of different patients.
    splits : list of str
        Of the images taken.
    """

    taken: list[tuple[Row, Picture]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    waiting: list[tuple[Picture, str]] = field(default_factory=list)
    rejected: list[tuple[Picture, str]] = field(default_factory=list)
    accepted: list[Picture] = field(default_factory=list)
    quantiles: defaultdict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    duplicates: list[tuple[str, str, bool, bool]] = field(default_factory=list)
    splits: Sequence[str] = ()


def record_file(output: Path | str) -> Path:
    """Where the record of a dataset is."""
    return Path(output).with_suffix(".ingest.json")


def make_record(
    tally: Tally,
    *,
    configuration: Mapping[str, Any],
    dataset: Mapping[str, str],
    files: int,
    skipped: Mapping[str, int],
) -> dict[str, Any]:
    """The record as a JSON object. File names stand in it as keyed hashes only."""
    rows = [row for row, _ in tally.taken]
    frames: set[Frame] = {frame for _, picture in tally.taken for frame in picture.frames}
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": __version__,
        "configuration": dict(configuration),
        "dataset": dict(dataset),
        "images": len(rows),
        "patients": len({row.patient for row in rows}),
        "files": files,
        "by_format": _counts(picture.frames[0].format for _, picture in tally.taken),
        "by_split": _counts(tally.splits),
        "patients_by_split": _patients_by_split(rows, tally.splits),
        "by_collection": {
            name: _counts(row.view for row in rows if row.collection == name)
            for name in sorted({row.collection for row in rows})
        },
        "splits_by_collection": _splits_by_collection(rows, tally.splits),
        # Slices by the way that led to SUV.
        "suv": _counts(f.rule for f in frames if f.rule and f.header.units == "suvbw"),
        "skipped": dict(sorted(skipped.items())),
        "refused": {
            "files": len(tally.refused),
            "by_reason": _counts(tally.refused.values()),
            "sources": [
                {"source": source, "reason": reason} for source, reason in sorted(tally.refused.items())
            ],
        },
        "quarantine": {
            "pictures": len(tally.waiting),
            "by_reason": _counts(reason for _, reason in tally.waiting),
            "accepted": len(tally.accepted),
            "rejected": len(tally.rejected),
        },
        "duplicates": {
            "pairs": len(tally.duplicates),
            "exact": sum(exact for _, _, exact, _ in tally.duplicates),
            "across_patients": sum(across for _, _, _, across in tally.duplicates),
            "sources": [[one, other] for one, other, _, _ in tally.duplicates],
        },
        "histograms": {name: _histogram(those) for name, those in sorted(tally.quantiles.items())},
    }


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _patients_by_split(rows: Sequence[Row], splits: Sequence[str]) -> dict[str, int]:
    pairs = {(row.patient, split) for row, split in zip(rows, splits, strict=True)}
    return _counts(split for _, split in pairs)


def _splits_by_collection(rows: Sequence[Row], splits: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in sorted({row.collection for row in rows}):
        mine = [(row, split) for row, split in zip(rows, splits, strict=True) if row.collection == name]
        images = _counts(split for _, split in mine)
        patients = _patients_by_split([row for row, _ in mine], [split for _, split in mine])
        out[name] = {split: {"images": images[split], "patients": patients[split]} for split in images}
    return out


def _histogram(quantiles: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Of the values of several images before the window, out of their `QUANTILES`.

    Between two neighbouring quantiles of an image lies the same share of its pixels, evenly spread.
    """
    low = min(float(q[0]) for q in quantiles)
    high = max(float(q[-1]) for q in quantiles)
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    shares = np.array(QUANTILES)
    below = np.zeros(BINS + 1)
    for q in quantiles:
        # Of equal quantiles the last counts: everything up to there has been seen.
        values, first = np.unique(q[::-1], return_index=True)
        below += np.interp(edges, values, shares[::-1][first], left=0.0, right=1.0)
    counts = np.diff(below / len(quantiles))
    counts[0] += below[0] / len(quantiles)
    return {"edges": [float(f"{e:.6g}") for e in edges], "counts": [float(f"{c:.6g}") for c in counts]}
