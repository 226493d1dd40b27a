"""What is kept of an ingest, beside its dataset: how, how many, and what was refused and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petgan import __version__
from petgan.ingest.deidentify import Key
from petgan.ingest.frame import Frame

SCHEMA_VERSION = 1


def record_file(output: Path | str) -> Path:
    """Where the record of a dataset is."""
    return Path(output).with_suffix(".ingest.json")


def make_record(
    *,
    configuration: Mapping[str, Any],
    dataset: Mapping[str, str],
    taken: Sequence[Frame],
    splits: Mapping[str, str],
    refused: Mapping[str, str],
    skipped: Mapping[str, int],
    suv: Mapping[str, int],
    key: Key,
) -> dict[str, Any]:
    """The record as a JSON object. File names stand in it as keyed hashes only."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": __version__,
        "configuration": dict(configuration),
        "dataset": dict(dataset),
        "images": len(taken),
        "patients": len({frame.patient for frame in taken}),
        "by_format": _counts(frame.format for frame in taken),
        "by_split": _counts(splits[frame.patient] for frame in taken),
        "patients_by_split": _counts(splits[patient] for patient in {frame.patient for frame in taken}),
        "suv": dict(sorted(suv.items())),  # images by the way that led to their SUV
        "skipped": dict(sorted(skipped.items())),
        "refused": {
            "files": len(refused),
            "by_reason": _counts(refused.values()),
            "sources": sorted(
                ({"source": key.name(name), "reason": reason} for name, reason in refused.items()),
                key=lambda entry: entry["source"],
            ),
        },
    }


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
