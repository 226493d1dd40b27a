"""Go the whole road on synthetic patients: files, datasets, grids, scores, transfer, a synthetic dataset
and the report. Every command is shown as you would type it; given again, the demo goes on where it stopped.

With a site's Slurm profile, everything from training on is one chain of the cluster's jobs.
With --all, networks beyond the study's are trained too: diffusion, progressive growing, super-resolution,
and translation of mammograms into PET; and the recipes for stable training and for few images.

Example:
  petgan demo
  petgan demo --all
  petgan demo --profile slurm/profiles/testbed.yaml
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from petgan.errors import PetganError
from petgan.grid import grid_file
from petgan.runs import ExperimentFolder, read_json, write_text
from petgan.status import tasks_queued

PATIENTS = 40
SLICES = 10
PHANTOM_SIZE = 64
IMAGE_SIZE = 32
SYNTHETIC_IMAGES = 200

# A key that everybody knows protects nobody: right for patients that nobody is, and the same splits for all.
KEY = hashlib.sha256(b"petgan demo").digest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--into", type=Path, default=Path("demo"), help="folder to work in (default: demo)")
    parser.add_argument(
        "--profile", metavar="FILE", help="go the road through Slurm, with this site's settings"
    )
    parser.add_argument("--all", action="store_true", help="the long form, with every preset")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")


def run(args: argparse.Namespace) -> None:
    started = time.monotonic()
    if not args.dry_run:
        _write_key(args.into / "identity.key")
    road = (
        _cluster_commands(args.into, args.profile, args.all, args.dry_run)
        if args.profile
        else _commands(args.into, args.all, args.dry_run)
    )
    for command in road:
        print(f"\n$ petgan {shlex.join(command)}", flush=True)
        if not args.dry_run:
            _petgan(command, args.into)
    if not args.dry_run:
        minutes, seconds = divmod(round(time.monotonic() - started), 60)
        print(f"\nDone in {minutes} min {seconds} s. Open {args.into / 'report' / 'index.html'}")


def _datasets(into: Path) -> Iterator[list[str]]:
    files = into / "files"
    counts = ["--patients", str(PATIENTS), "--slices", str(SLICES), "--size", str(PHANTOM_SIZE)]
    yield ["phantom", str(files), "--modality", "both", *counts]
    for modality in ("mammogram", "pet"):
        dataset = str(into / f"{modality}.h5")
        yield ["ingest", str(files / modality), "--output", dataset, "--size", str(IMAGE_SIZE)]


def _cluster_commands(into: Path, profile: str, long: bool, dry_run: bool) -> Iterator[list[str]]:
    """The same road; training, scores, choice, transfer, report and synthesis are one chain of jobs."""
    yield from _datasets(into)
    study, names = into / "study.yaml", ["mammogram", "pet", "transfer", *(["beyond"] if long else [])]
    if not dry_run:
        write_text(study, yaml.safe_dump(_study(into, long), sort_keys=False))
    yield ["submit", str(study), "--profile", profile, "--max-parallel", "2"]
    if not dry_run:
        _wait_for_queue([ExperimentFolder(into / name) for name in names])
        for made in (into / "report" / "index.html", into / "synthetic.h5"):
            if not made.exists():
                raise PetganError(
                    f"the jobs have ended without {made}", hint=f"their logs: {into}/*/submissions"
                )
    for name in names:
        yield ["status", str(into / name)]


def _study(into: Path, long: bool) -> dict[str, Any]:
    stages: list[dict[str, str]] = [
        {"grid": str(grid_file("demo.yaml")), "dataset": str(into / f"{m}.h5"), "experiment": str(into / m)}
        for m in ("mammogram", "pet")
    ]
    transfer = {
        **stages[1],
        "grid": str(grid_file("demo-transfer.yaml")),
        "experiment": str(into / "transfer"),
    }
    stages.append({**transfer, "from": str(into / "mammogram")})
    if long:
        names = {"grid": str(grid_file("demo-beyond.yaml")), "experiment": str(into / "beyond")}
        stages.append({**stages[1], **names, "source": str(into / "mammogram.h5")})
    output = {"from": str(into / "pet"), "count": SYNTHETIC_IMAGES, "output": str(into / "synthetic.h5")}
    return {"name": "demo", "stages": stages, "report": str(into / "report"), "synthesize": output}


def _wait_for_queue(experiments: Sequence[ExperimentFolder]) -> None:
    """Wait until Slurm has none of the demo's jobs any more, and say how many there are when that changes."""
    said = ""
    while tasks := [task for experiment in experiments for task in tasks_queued(experiment)]:
        waiting = sum(task.waits for task in tasks)
        if said != (said := f"{len(tasks) - waiting} jobs run, {waiting} wait"):
            print(said, flush=True)
        time.sleep(2)


def _commands(into: Path, long: bool, dry_run: bool) -> Iterator[list[str]]:
    yield from _datasets(into)
    experiments = {name: into / name for name in ("mammogram", "pet", "transfer")}
    for modality in ("mammogram", "pet"):
        experiment = str(experiments[modality])
        dataset = str(into / f"{modality}.h5")
        grid = _grid("demo.yaml")
        where = ["--dataset", dataset, "--experiment", experiment, "--cluster", "inline"]
        yield ["submit", grid, *where]
        yield ["evaluate", experiment]

    source, target = str(experiments["mammogram"]), str(experiments["transfer"])
    where = ["--dataset", str(into / "pet.h5"), "--experiment", target, "--cluster", "inline"]
    yield ["transfer", _grid("demo-transfer.yaml"), "--from", source, *where]
    yield ["evaluate", target]

    if long:
        experiments["beyond"] = into / "beyond"
        where = ["--dataset", str(into / "pet.h5"), "--source", str(into / "mammogram.h5")]
        where += ["--experiment", str(experiments["beyond"]), "--cluster", "inline"]
        yield ["submit", _grid("demo-beyond.yaml"), *where]
        yield ["evaluate", str(experiments["beyond"])]

    yield ["report", *map(str, experiments.values()), "--output", str(into / "report")]
    best = "BEST_RUN" if dry_run else _best_run(ExperimentFolder(experiments["pet"]))
    output = str(into / "synthetic.h5")
    yield ["synthesize", best, "--count", str(SYNTHETIC_IMAGES), "--output", output]


def _grid(name: str) -> str:
    return os.path.relpath(grid_file(name))


def _write_key(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(KEY)


def _best_run(experiment: ExperimentFolder) -> str:
    file = experiment.report / "choice.json"
    if not file.is_file():
        raise PetganError(
            f"no run of {experiment.path} can be taken: its report names none as the best",
            hint=f"'petgan best {experiment.path}' says why",
        )
    return str(experiment.run(read_json(file)["overall"]["best_run"]).path)


def _petgan(command: list[str], into: Path) -> None:
    environment = {**os.environ, "PETGAN_KEY_FILE": str(into / "identity.key")}
    done = subprocess.run([sys.executable, "-m", "petgan", *command], env=environment, check=False)
    if done.returncode:
        raise PetganError(
            f"'petgan {command[0]}' ended with exit code {done.returncode}",
            hint="its message above says why; when that is mended, 'petgan demo' goes on where it stopped",
        )
