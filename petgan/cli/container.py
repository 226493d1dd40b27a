"""Build the image that runs are trained in: needs Apptainer, and no root.

An image that was built from the same content is not built again. Its path is the last line that is printed.

Example:
  petgan container build cpu
  petgan container build gpu --output petgan-gpu.sif --weights inception_v3_notop.weights.h5
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from petgan.errors import PetganError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="build")
    build = actions.add_parser("build", help="build an image, unless it is there")
    build.add_argument("kind", choices=("cpu", "gpu"), help="for nodes without or with NVIDIA GPUs")
    build.add_argument(
        "--output", type=Path, metavar="FILE", help="default: a name of its content in ~/.cache/petgan/images"
    )
    build.add_argument(
        "--weights", type=Path, metavar="FILE", help="learned weights of InceptionV3 to put into the image"
    )


def run(args: argparse.Namespace) -> int:
    words = [args.kind]
    for name in ("output", "weights"):
        if (file := getattr(args, name)) is not None:
            words += [f"--{name}", str(file)]
    environment = {**os.environ, "PYTHON": sys.executable}  # whose pip knows the mirrors
    return subprocess.run(["bash", _script(), *words], env=environment, check=False).returncode


def _script() -> Path:
    package = Path(__file__).parents[1]
    for folder in (package / "_containers", package.parent / "containers"):
        if (folder / "build.sh").is_file():
            return folder / "build.sh"
    raise PetganError(
        "this installation of petgan lacks the files that images are built from",
        hint="install petgan again, or run containers/build.sh of a source checkout",
    )
