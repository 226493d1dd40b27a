"""Make synthetic patients: breast PET as DICOM files, mammograms as GIF and PNG files.

Nobody is in them. The same options and seed give the same bytes, whatever the number of workers.

Example:
  petgan phantom data/phantom --modality pet --patients 24 --slices 8 --seed 1
  petgan phantom data/phantom --recon mlem --workers 4 --dry-run
"""

from __future__ import annotations

import argparse

from petgan.cli.output import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "out", metavar="OUT", help="folder to write to: OUT/pet, OUT/mammogram, OUT/phantom.json"
    )
    parser.add_argument(
        "--modality", choices=("pet", "mammogram", "both"), default="both", help="default: both"
    )
    parser.add_argument("--patients", type=int, default=24, metavar="N", help="default: 24")
    parser.add_argument(
        "--slices", type=int, default=8, metavar="K", help="PET slices of a patient, default: 8"
    )
    parser.add_argument(
        "--size", type=int, metavar="PIXELS", help="along a side, default: 128 for PET, 256 for mammograms"
    )
    parser.add_argument(
        "--recon",
        choices=("fbp", "mlem"),
        default="fbp",
        help="reconstruction of PET: filtered back projection (default), or the slower maximum likelihood",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes, default: 1")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")


def run(args: argparse.Namespace) -> None:
    from petgan import phantom

    options = {key: value for key, value in vars(args).items() if key != "dry_run"}
    parameters = phantom.check_phantom(**options)
    if args.dry_run:
        for modality, files in phantom.count_files(parameters).items():
            size = parameters.size_of(modality)
            print(f"would write {files} {modality} files of {size} x {size} pixels to {args.out}/{modality}")
        return
    with progress_bar("phantom", "files") as progress:
        files = phantom.make_phantom(**options, progress=progress)
    folders = " and ".join(f"{args.out}/{modality}" for modality in phantom.count_files(parameters))
    print(f"wrote {files} files to {args.out}; for 'petgan ingest': {folders}")
