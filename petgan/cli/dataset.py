"""Look at a dataset, or check it.

audit looks in files and folders for everything that identifies in the source: attributes of the Basic
Profile (DICOM PS3.15), names of files and folders, texts of .ics files and pictures, and unkeyed hashes of
all these. It does not read pixels, and does not say what it finds, but of which kind it is and where.

find says which files an id stands for, out of a message, a record, a quarantine list or a dataset. It needs
the source and the key, and prints names: mind who reads them.

Example:
  petgan dataset info data/pet.h5
  petgan dataset verify data/pet.h5
  petgan dataset preview data/pet.h5 --output data/pet.png --count 64
  petgan dataset audit data/pet.h5 data/pet.ingest.json --source /data/clinic
  petgan dataset find 3f0c9a51d2b8e764 --source /data/clinic
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petgan.cli.output import print_json, print_table, progress_bar
from petgan.errors import EXIT_FAILURE, ConfigError

if TYPE_CHECKING:
    import numpy as np

    from petgan.store import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="info | verify | preview | audit | find"
    )
    info = actions.add_parser("info", help="what is in it and where it comes from")
    info.add_argument("--json", action="store_true", help="machine-readable output")
    actions.add_parser("verify", help="compare every image with its digest")
    preview = actions.add_parser("preview", help="images of every split on one sheet")
    preview.add_argument("--output", type=Path, metavar="PNG", help="default: NAME.preview.png beside it")
    preview.add_argument("--count", type=int, default=64, metavar="N", help="images in all (default: 64)")
    for action in (info, *(actions.choices[name] for name in ("verify", "preview"))):
        action.add_argument("file", type=Path, metavar="FILE", help="the dataset")
    audit = actions.add_parser("audit", help="look for what identifies in the source")
    audit.add_argument("paths", nargs="+", type=Path, metavar="FILE", help="files and folders to look in")
    find = actions.add_parser("find", help="the files that an id stands for")
    find.add_argument("ids", nargs="+", metavar="ID", help="16 hexadecimal digits")
    find.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="of the ingest; default: PETGAN_KEY_FILE, or else ~/.config/petgan/identity.key",
    )
    for action in (audit, find):
        action.add_argument(
            "--source",
            nargs="+",
            type=Path,
            required=True,
            metavar="FOLDER",
            help="as given to petgan ingest",
        )


def run(args: argparse.Namespace) -> int | None:
    if args.action == "audit":
        return _audit(args.paths, args.source)
    if args.action == "find":
        return _find(args.ids, args.source, args.key_file)
    from petgan.store import Dataset

    with Dataset(args.file) as dataset:
        if args.action == "info":
            _info(dataset, args.json)
        elif args.action == "verify":
            dataset.verify()
            print(f"{args.file}: {len(dataset)} images, all as they were written")
        else:
            _preview(dataset, args.output or args.file.with_suffix(".preview.png"), args.count)
    return None


def _audit(paths: list[Path], sources: list[Path]) -> int:
    from petgan.ingest.audit import NAME, files_below, identities, search, size_of
    from petgan.ingest.parallel import worker_pool

    files = files_below(paths, sources)
    pool = worker_pool(len(os.sched_getaffinity(0)), isolated=True)
    with pool as run_all, progress_bar("identities", "files") as show:
        known = identities(sources, run_all, show)
    with progress_bar("search", "bytes") as show:
        findings = list(search(files, known, show))
    named = {finding.file for finding in findings if finding.place == NAME}
    labels = {
        file: f"file {number} (its name identifies)" if file in named else str(file)
        for number, (file, _) in enumerate(files, 1)
    }
    for finding in findings:
        print(f"{labels[finding.file]}: {finding}")
    size = sum(size_of(path) or 0 for path, _ in files)
    if known.damaged:
        print(
            f"petgan dataset: {known.damaged} files of the source could not be read to their end; their "
            "names were looked for, and what could be read. Without them there is no proof: leave them out "
            "or mend them",
            file=sys.stderr,
        )
    found = f"{len(findings):,} findings" if findings else "none is there"
    if known.damaged and not findings:
        found = "none was found, which proves nothing"
    print(
        f"looked for {len(known):,} identities of {known.files:,} files in {size:,} bytes of {len(files):,} "
        f"files: {found}"
    )
    return EXIT_FAILURE if findings or known.damaged else 0


def _find(ids: list[str], sources: list[Path], key_file: Path | None) -> int:
    from petgan.ingest.deidentify import load_key
    from petgan.ingest.lookup import find

    key = load_key(key_file, make=False)
    with progress_bar("headers", "files") as show:
        found = find(ids, sources, key, show)
    for name, matches in found.items():
        for match in matches:
            print(f"{name}: {match.what} {match.name if match.name.isprintable() else ascii(match.name)}")
        if not matches:
            print(
                f"petgan dataset: {name} stands for nothing in the source, by key {key.id}", file=sys.stderr
            )
    return 0 if all(found.values()) else EXIT_FAILURE


def _info(dataset: Dataset, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "images": len(dataset),
        "patients": len(set(dataset.columns["patient"])),
        "size": dataset.image_size,
        "dtype": dataset.dtype.name,
        "modality": dataset.modality,
        "units": dataset.units,
        "window": dataset.window,
        "projection": dataset.projection,
        "key_id": dataset.key_id,
        "tool_version": dataset.tool_version,
        "digest": dataset.digest,
        "configuration": dataset.configuration,
        "splits": _counts(dataset),
    }
    if as_json:
        print_json(facts)
        return
    splits, configuration = facts.pop("splits"), facts.pop("configuration")
    settings = "; ".join(f"{name} {value}" for name, value in configuration.items())
    print_table(("", str(dataset.path)), [*facts.items(), ("configuration", settings)])
    rows = [
        (split, count["images"], count["patients"], _listed(count["collections"]), _listed(count["views"]))
        for split, count in splits.items()
    ]
    print_table(("split", "images", "patients", "collections", "views"), rows)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items())


def _counts(dataset: Dataset) -> dict[str, dict[str, Any]]:
    from collections import Counter

    from petgan.store import SPLITS

    counts = {}
    for split in SPLITS:
        indices = dataset.indices(split)
        counts[split] = {
            "images": len(indices),
            "patients": len(set(dataset.columns["patient"][indices])),
            "collections": dict(sorted(Counter(dataset.columns["collection"][indices]).items())),
            "views": dict(sorted(Counter(dataset.columns["view"][indices]).items())),
        }
    return counts


def _preview(dataset: Dataset, output: Path, count: int) -> None:
    from petgan.pictures import contact_sheet, save_png
    from petgan.store import SPLITS

    if count < 1:
        raise ConfigError("a preview needs at least one image", value=count)
    groups = {}
    for split in SPLITS:
        indices = dataset.indices(split)
        shown = _evenly(indices, round(count * len(indices) / max(1, len(dataset))))
        if len(shown):
            heading = f"{split}: {len(shown)} of {len(indices)} images"
            groups[heading] = _grey(dataset, shown)
    if not groups:
        raise ConfigError(f"{dataset.path} has no images to show")
    save_png(output, contact_sheet(groups))
    print(f"wrote {output}")


def _evenly(indices: np.ndarray, count: int) -> np.ndarray:
    """So many of them, spread over all patients; at least one if there is one."""
    import numpy as np

    wanted = min(len(indices), max(1, count))
    return indices[np.arange(wanted) * len(indices) // max(1, wanted)]


def _grey(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    import numpy as np

    from petgan.ingest.window import apply

    images = np.stack([dataset.image(index)[..., 0] for index in indices])
    if images.dtype != np.uint8:
        images = apply(images.astype(np.float32), (float(images.min()), float(images.max())))
    return images.astype(np.uint8)
