r"""Turn folders of DICOM, GIF, PNG, JPEG, PGM and .npy files into one dataset: grey, square, windowed, split
by patient and without identity. Beside it a record says what was done: data/pet.ingest.json.

Patients and files become keyed hashes. The key is made once and stays yours: keep it, and keep it secret.
The same files and key give the same dataset, byte for byte.

units, of PET by DICOM:
  suvbw                SUV by body weight (g/ml); what it needs and cannot find is said by name
  bqml                 activity concentration (Bq/ml)
  stored               as the files have it after their own rescaling
  auto                 suvbw; stored for pictures and mammograms

windows:
  full                 the range of the stored type, such as 0 to 255
  percentile:LOW,HIGH  of each PET series, or of each picture
  UNITS:LOW,HIGH       fixed, in the images' units: suv:0,10, bqml:0,50000, stored:0,4095
  none                 values in their units; only with --dtype float32
  auto                 PET: percentile:0.5,99.5; 8-bit pictures: full; others: percentile:0,100

patients:
  folder      the first folder below SOURCE (below what holds all of them, if there are several)
  file        every file is a patient of her own
  mini-mias   mdb001 and mdb002 are the two breasts of one woman
  EXPRESSION  a regular expression with one group, searched in the path: 'P_(\d+)'
  auto        DICOM: PatientID; pictures: mini-mias, folder or file, as the names suggest

Files that are no images are skipped. Images that cannot be taken are refused, one line each; the good ones
go in all the same, and the exit code is 2.

Example:
  petgan ingest scans --output data/pet.h5 --dry-run
  petgan ingest scans --output data/pet.h5 --size 64 --window suv:0,10 --split 0.8,0.1,0.1
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from petgan.cli.output import progress_bar
from petgan.errors import EXIT_USER_MISTAKE, ConfigError

if TYPE_CHECKING:
    from petgan.ingest import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="folder or file")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the dataset, such as data/pet.h5"
    )
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="along a side (default: 224)")
    parser.add_argument(
        "--modality", choices=("auto", "pet", "mammogram"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--units", choices=("auto", "suvbw", "bqml", "stored"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--dtype",
        choices=("uint8", "uint16", "float32"),
        default="uint8",
        help="of the dataset's pixels; petgan trains on uint8 (default: uint8)",
    )
    parser.add_argument("--window", default="auto", help="what becomes black and white (default: auto)")
    parser.add_argument(
        "--patients", default="auto", metavar="RULE", help="whose a picture is (default: auto)"
    )
    parser.add_argument(
        "--split",
        default="0.7,0.15,0.15",
        metavar="SHARES",
        help="of patients for train, validation and test (default: 0.7,0.15,0.15)",
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="default: PETGAN_KEY_FILE, or else ~/.config/petgan/identity.key",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be taken, and write nothing")


def run(args: argparse.Namespace) -> int:
    from petgan.ingest import ingest, make_plan

    if args.workers is not None and args.workers < 1:
        raise ConfigError("an ingest needs at least one worker", value=args.workers)
    options = _options(args)
    if args.dry_run:
        plan = make_plan(args.sources, options, workers=args.workers, progress=progress_bar)
        for name, reason in sorted(plan.refused.items()):
            _print_refused(name, reason)
        _print_skipped(plan.skipped)
        formats = Counter(frame.format for frame in plan.frames)
        patients = len({frame.patient for frame in plan.frames})
        print(f"would take {len(plan.frames)} images ({_listed(formats)}) of {patients} patients")
        print(f"modality {plan.options.modality}, units {plan.units}, window {plan.window}")
        return EXIT_USER_MISTAKE if plan.refused else 0

    from petgan.store import SPLITS

    record = ingest(
        args.sources,
        args.output,
        options,
        key_file=args.key_file,
        workers=args.workers,
        progress=progress_bar,
        refuse=_print_refused,
    )
    _print_skipped(record["skipped"])
    print(f"wrote {record['images']} images of {record['patients']} patients to {args.output}")
    print(f"images: {_listed(record['by_split'])}; patients: {_listed(record['patients_by_split'])}")
    shares = zip(SPLITS, options.split, strict=True)
    empty = [split for split, share in shares if share and not record["by_split"].get(split)]
    if empty:
        print(
            f"warning: no image is in {' and '.join(empty)}, so nothing can be scored: are there "
            f"{record['patients']} patients? If not, give the folder right above theirs, or --patients",
            file=sys.stderr,
        )
    refused = record["refused"]["files"]
    if refused:
        files = "1 file was" if refused == 1 else f"{refused} files were"
        print(f"petgan ingest: {files} refused (see above); {args.output} holds the rest", file=sys.stderr)
    return EXIT_USER_MISTAKE if refused else 0


def _options(args: argparse.Namespace) -> Options:
    from petgan.config import validated
    from petgan.ingest import Options

    try:
        split = tuple(map(float, args.split.split(",")))
    except ValueError:
        split = ()
    if len(split) != 3:
        raise ConfigError("--split takes three shares", value=args.split, allowed="such as 0.7,0.15,0.15")
    values = {
        name: getattr(args, name) for name in ("size", "modality", "units", "dtype", "window", "patients")
    }
    options: Options = validated(Options, {**values, "split": split})
    return options


def _print_refused(name: str, reason: str) -> None:
    printable = name if name.isprintable() else ascii(name)
    print(f"refused: {printable} {reason}", file=sys.stderr)


def _print_skipped(skipped: Mapping[str, int]) -> None:
    for reason, number in sorted(skipped.items()):
        print(f"skipped: {number} ({reason})", file=sys.stderr)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
