r"""Turn folders of DICOM, DDSM, GIF, PNG, JPEG, PGM and .npy files into one dataset: grey, square, windowed,
split by patient and without identity. Beside it data/pet.ingest.json and a page, data/pet.ingest.html, say
what was done; data/pet.ingest.cache lets another run read only what is new (delete it whenever you like).

Patients and files become keyed hashes. The key is made once and stays yours: keep it, and keep it secret.
The same files and key give the same dataset, byte for byte. Messages call a file by its hash, since names of
files are often patients' names; 'petgan dataset find HASH --source SOURCE' tells the name.

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

take, of a PET series:
  all                  every slice
  slices:every=K       every K-th by position
  central:N            the N in the middle
  mip:VIEW,...         maximum-intensity projections: coronal, sagittal, axial

field:
  full                 the whole picture
  breast               what the breast takes; of a PET series the same for all slices
  NUMBERmm             a square of this size around the breast, such as 170mm

patients:
  folder      the first folder below SOURCE (below what holds all of them, if there are several)
  file        every file is a patient of her own
  mini-mias   mdb001 and mdb002 are the two breasts of one woman
  EXPRESSION  a regular expression with one group, searched in the path: 'P_(\d+)'
  auto        DICOM: PatientID; known collections: their own rule; pictures: folder or file

Files that are no images are skipped. Images that cannot be taken are refused, one line each; the good ones
go in all the same, and the exit code is 2. Images with text in their pixels wait for a person: look at
data/pet.quarantine.png, write "accept" beside those in data/pet.quarantine.csv that may go in, and give the
command again with --accept-quarantined data/pet.quarantine.csv.

Example:
  petgan ingest scans --output data/pet.h5 --dry-run
  petgan ingest scans --output data/pet.h5 --size 64 --window suv:0,10 --split 0.8,0.1,0.1
  petgan ingest films --output data/films.h5 --orient left --mask-film --field breast
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petgan.cli.output import progress_bar
from petgan.errors import EXIT_USER_MISTAKE, ConfigError

if TYPE_CHECKING:
    from petgan.ingest import Options, Plan


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
        "--take", default="all", metavar="RULE", help="what of a PET series becomes images (default: all)"
    )
    parser.add_argument(
        "--field", default="full", metavar="FIELD", help="what of a picture is shown (default: full)"
    )
    parser.add_argument(
        "--kind",
        choices=("auto", "presentation", "processing"),
        default="auto",
        help="of mammograms by DICOM, where there are both (default: auto)",
    )
    parser.add_argument(
        "--orient",
        choices=("as-is", "left"),
        default="as-is",
        help="left: mirror mammograms whose chest wall is at the right edge (default: as-is)",
    )
    parser.add_argument(
        "--mask-film", action="store_true", help="black out what lies beside the breast: labels, borders"
    )
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
    parser.add_argument(
        "--accept-quarantined",
        type=Path,
        metavar="FILE",
        help="a quarantine list in which a person has decided",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be taken; write no dataset")


def run(args: argparse.Namespace) -> int:
    from petgan.ingest import ingest, make_plan
    from petgan.ingest.quarantine import read_decisions
    from petgan.report.ingest import write_page
    from petgan.runs import tidied_up_on

    if args.workers is not None and args.workers < 1:
        raise ConfigError("an ingest needs at least one worker", value=args.workers)
    options = _options(args)
    common: dict[str, Any] = {
        "key_file": args.key_file,
        "decisions": read_decisions(args.accept_quarantined) if args.accept_quarantined else None,
        "workers": args.workers,
        "isolated": True,
        "progress": progress_bar,
    }
    if args.dry_run:
        return _say_plan(make_plan(args.sources, options, output=args.output, **common))
    begun = time.monotonic()
    with tidied_up_on(signal.SIGTERM):
        record = ingest(args.sources, args.output, options, refuse=_print_refused, **common)
        seconds = time.monotonic() - begun
        _say_record(record, args.output, options)
        page = write_page(record, args.output)
    print(f"{record['files']} files in {seconds:.1f} s ({record['files'] / seconds:.0f} files/s); see {page}")
    return EXIT_USER_MISTAKE if record["refused"]["files"] else 0


def _say_plan(plan: Plan) -> int:
    from petgan.ingest.images import FILMS

    for source, reason in sorted(plan.refused.items()):
        _print_refused(source, reason)
    _print_skipped(plan.skipped)
    formats = Counter(picture.frames[0].format for picture in plan.pictures)
    patients = len({picture.frames[0].patient for picture in plan.pictures})
    print(f"would take {len(plan.pictures)} images ({_listed(formats)}) of {patients} patients")
    if plan.waiting:
        print(
            f"{len(plan.waiting)} images may have text in their pixels, and wait till a person accepts them"
        )
    films = plan.options.modality == "mammogram" and any(
        picture.frames[0].header.collection in FILMS for picture in plan.pictures
    )
    if films:
        print("films are searched for writing when they are read: some may wait for a person then")
    print(f"modality {plan.options.modality}, units {plan.units}, window {plan.window}")
    return EXIT_USER_MISTAKE if plan.refused else 0


def _say_record(record: Mapping[str, Any], output: Path, options: Options) -> None:
    from petgan.store import SPLITS

    _print_skipped(record["skipped"])
    print(f"wrote {record['images']} images of {record['patients']} patients to {output}")
    print(f"images: {_listed(record['by_split'])}; patients: {_listed(record['patients_by_split'])}")
    shares = zip(SPLITS, options.split, strict=True)
    empty = [split for split, share in shares if share and not record["by_split"].get(split)]
    if empty:
        print(
            f"warning: no image is in {' and '.join(empty)}, so nothing can be scored: are there "
            f"{record['patients']} patients? If not, give the folder right above theirs, or --patients",
            file=sys.stderr,
        )
    across = record["duplicates"]["across_patients"]
    if across:
        pairs = "1 pair" if across == 1 else f"{across} pairs"
        print(
            f"warning: {pairs} of images of different patients are the same or nearly so; those patients are "
            "in one split. Is it one patient with two names?",
            file=sys.stderr,
        )
    waiting = record["quarantine"]["pictures"]
    if waiting:
        lists = output.with_suffix(".quarantine.csv")
        print(
            f"warning: {waiting} images are kept out, in quarantine: look at {lists.with_suffix('.png')}, "
            f"write 'accept' or 'reject' into {lists} beside each, and add --accept-quarantined {lists}",
            file=sys.stderr,
        )
    rejected = record["quarantine"]["rejected"]
    if rejected:
        images = "1 image that was" if rejected == 1 else f"{rejected} images that were"
        print(f"left out {images} rejected out of quarantine")
    refused = record["refused"]["files"]
    if refused:
        files = "1 file was" if refused == 1 else f"{refused} files were"
        print(
            f"petgan ingest: {files} refused (see above; 'petgan dataset find' tells their names); {output} "
            "holds the rest",
            file=sys.stderr,
        )


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
        name: getattr(args, name)
        for name in (
            "size", "modality", "units", "dtype", "window", "take", "field", "kind", "orient", "mask_film",
            "patients",
        )
    }  # fmt: skip
    options: Options = validated(Options, {**values, "split": split})
    return options


def _print_refused(source: str, reason: str) -> None:
    print(f"refused: {source} {reason}", file=sys.stderr)


def _print_skipped(skipped: Mapping[str, int]) -> None:
    for reason, number in sorted(skipped.items()):
        print(f"skipped: {number} ({reason})", file=sys.stderr)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))
