"""Make a dataset of synthetic images from a finished run, and refuse if it gives patients away.

SOURCE is a run folder, a checkpoint (.h5), or a generator that the study published. Before anything is
written every image is compared with the training images; a copy is an image less than 0.45 times as far
from a training image as that image is from the nearest image of another patient. Then all are tested for
whether they tell which patients were trained on and which were held out; at most 1 of 100 generators that
know nothing of that is refused by this test. Black, constant, noisy or repeated images are refused too.
A generator that is shown images (preset cut) makes one of each; those must not be copied either.
Lineage and a datasheet are written beside the dataset, as .lineage.json, .datasheet.md and .datasheet.json.

Example:
  petgan synthesize experiments/mias/runs/0b6088462c57 --count 500 --output synthetic.h5
  petgan synthesize runs/translation --inputs data/other-mammograms.h5 --count 40 --output pet-like.h5
  petgan synthesize generator.h5 --dataset data/usf.h5 --count 500 --output synthetic.h5 --png synthetic/
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="run folder, checkpoint or generator")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="images to make")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="dataset to write, .h5")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write them as PNG files too")
    parser.add_argument(
        "--dicom", type=Path, metavar="DIR", help="write them as DICOM secondary captures too"
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="FILE", help="what it was trained on, if SOURCE does not say"
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="dataset of the images to show to a generator that is shown images; default: held-out ones of "
        "what it was trained on",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the noise, default: 0")
    parser.add_argument(
        "--allow-copies",
        action="store_true",
        help="write them even if there are copies among them, they tell who was trained on, or it cannot be "
        "told; it is recorded",
    )
    parser.add_argument("--dry-run", action="store_true", help="draw and check, and write nothing")


def run(args: argparse.Namespace) -> int:
    from petgan.cli.worker import run_worker

    return run_worker("synthesize", **vars(args))
