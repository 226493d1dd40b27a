"""Say what this machine can and cannot do for petgan, and what to install.

Example:
  petgan doctor
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from petgan.cli.output import print_json, print_table

INCEPTION_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(args: argparse.Namespace) -> None:
    findings = [{"what": name, **check()} for name, check in CHECKS.items()]
    if args.json:
        print_json(findings)
        return
    rows = [
        ("yes" if f["ok"] else "no", f["what"], f["found"], "" if f["ok"] else f["advice"]) for f in findings
    ]
    print_table(("ok", "for", "found", "what to do"), rows)


def _finding(ok: object, found: str, advice: str = "") -> dict[str, Any]:
    return {"ok": bool(ok), "found": found, "advice": advice}


def _python() -> dict[str, Any]:
    version = sys.version_info
    return _finding(
        (3, 10) <= version < (3, 14), f"Python {version.major}.{version.minor}", "use Python 3.10 to 3.13"
    )


def _training() -> dict[str, Any]:
    packages = {name: _version(name) for name in ("tensorflow", "keras")}
    found = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return _finding(
        all(packages.values()), found or "no TensorFlow", "to train here: pip install 'petgan[train]'"
    )


def _gpu() -> dict[str, Any]:
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return _finding(names, ", ".join(names) or "none", "training runs on the CPU: small images only")


def _cores() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return _finding(
        memory >= 4, f"{cores} cores, {memory:.0f} GiB of memory", "a run wants 4 GiB of memory or more"
    )


def _disk() -> dict[str, Any]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return _finding(free >= 2, f"{free:.0f} GiB free in this folder", "make room: checkpoints need it")


def _weights() -> dict[str, Any]:
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    there = (home / "models" / INCEPTION_FILE).is_file()
    return _finding(
        there,
        "ImageNet's InceptionV3 in Keras' cache" if there else "no learned InceptionV3 in Keras' cache",
        f"bring {INCEPTION_FILE} into {home / 'models'}, or give 'petgan evaluate --weights FILE'; "
        "without, the score is the sliced Wasserstein distance",
    )


def _codecs() -> dict[str, Any]:
    present = [name for name in ("openjpeg", "jpeg_ls", "gdcm") if importlib.util.find_spec(name) is not None]
    return _finding(
        len(present) == 3,
        ", ".join(["RLE, deflate, JPEG of 8 bits", *present]),
        "for DICOM files in JPEG 2000, JPEG-LS, JPEG lossless or of 12 bits: pip install 'petgan[codecs]'",
    )


def _slurm() -> dict[str, Any]:
    version = _output("sinfo", "--version")
    return _finding(version, version or "none", "runs go to this machine: --cluster local or inline")


def _apptainer() -> dict[str, Any]:
    version = _output("apptainer", "--version")
    return _finding(version, version or "none", "needed on a cluster only: ask its administrators")


CHECKS: dict[str, Callable[[], dict[str, Any]]] = {
    "petgan": _python,
    "training": _training,
    "cores and memory": _cores,
    "room on the disk": _disk,
    "training at 224 pixels": _gpu,
    "FID and KID": _weights,
    "compressed DICOM": _codecs,
    "a Slurm cluster": _slurm,
    "containers": _apptainer,
}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else ""
