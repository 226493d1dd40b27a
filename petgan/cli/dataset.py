"""Look at a dataset, or check it.

Example:
  petgan dataset info data/pet.h5
  petgan dataset verify data/pet.h5
  petgan dataset preview data/pet.h5 --output data/pet.png --count 64
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petgan.cli.output import print_json, print_table
from petgan.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from petgan.store import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="info | verify | preview")
    info = actions.add_parser("info", help="what is in it and where it comes from")
    info.add_argument("--json", action="store_true", help="machine-readable output")
    actions.add_parser("verify", help="compare every image with its digest")
    preview = actions.add_parser("preview", help="images of every split on one sheet")
    preview.add_argument("--output", type=Path, metavar="PNG", help="default: beside the dataset")
    preview.add_argument("--count", type=int, default=64, metavar="N", help="images in all (default: 64)")
    for action in (info, *(actions.choices[name] for name in ("verify", "preview"))):
        action.add_argument("file", type=Path, metavar="FILE", help="the dataset")


def run(args: argparse.Namespace) -> None:
    from petgan.store import Dataset

    with Dataset(args.file) as dataset:
        if args.action == "info":
            _info(dataset, args.json)
        elif args.action == "verify":
            dataset.verify()
            print(f"{args.file}: {len(dataset)} images, all as they were written")
        else:
            _preview(dataset, args.output or args.file.with_suffix(".png"), args.count)


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
        (split, count["images"], count["patients"], ", ".join(f"{n} {v}" for v, n in count["views"].items()))
        for split, count in splits.items()
    ]
    print_table(("split", "images", "patients", "views"), rows)


def _counts(dataset: Dataset) -> dict[str, dict[str, Any]]:
    from collections import Counter

    from petgan.store import SPLITS

    counts = {}
    for split in SPLITS:
        indices = dataset.indices(split)
        counts[split] = {
            "images": len(indices),
            "patients": len(set(dataset.columns["patient"][indices])),
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
