"""Train one point in the foreground, or go on with a run that stopped.

Give RUN_DIR alone for a run that exists; or a dataset and a preset, and the folder is made first.
Ctrl-C checkpoints and stops; the same command then goes on from there.

Example:
  petgan run --dataset data/pet.h5 --into runs/first --preset dcgan --steps 400 --set batch_size=16
  petgan run --dataset data/pet.h5 --source data/mammograms.h5 --preset cut --into runs/translation
  petgan run runs/first
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

import petgan
from petgan.cli.experiments import reference_of
from petgan.cli.output import progress_bar
from petgan.config import Resources, RunConfig, check_datasets, resolve_point, run_id
from petgan.errors import EXIT_INTERRUPTED, ConfigError, InputError, PetganError, RunBusyError
from petgan.launch import worker_command
from petgan.presets import PRESETS
from petgan.runs import RunFolder, file_digest
from petgan.snapshot import code_digest

POLL_SECONDS = 0.2
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN_DIR", help="a run folder, to go on with it")
    new = parser.add_argument_group("a new run")
    new.add_argument("--dataset", type=Path, metavar="FILE", help="HDF5 file of 'petgan ingest'")
    new.add_argument(
        "--source", type=Path, metavar="FILE", help="the same, whose images are translated; for preset cut"
    )
    new.add_argument("--into", type=Path, metavar="DIR", help="the run folder to make")
    new.add_argument("--preset", help=", ".join(PRESETS))
    new.add_argument(
        "--recipe", help="thesis (default), stable, few-shot, few-shot-pet: sets several settings together"
    )
    new.add_argument("--steps", type=int, help="generator updates (default: 4000)")
    new.add_argument("--seed", type=int, help="default: 0")
    new.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting of a point, such as learning_rate=0.0004",
    )


def run(args: argparse.Namespace) -> int:
    folder = RunFolder(_folder_of(args).resolve())
    status = folder.status()
    if status.state == "done":
        print(f"{folder.path} is done already", file=sys.stderr)
        return 0
    if status.state == "running":
        raise RunBusyError(
            f"{folder.path} is being trained by process {status.pid} on {status.host}",
            hint="wait for it, or end that process: it checkpoints first",
        )
    code = _train(folder)
    status = folder.status()
    if code == EXIT_INTERRUPTED:
        print(f"stopped at a checkpoint; 'petgan run {folder.path}' goes on from there", file=sys.stderr)
    elif code:
        reason = status.error or f"the worker ended with exit code {code}"
        print(f"petgan run: {reason}; its log: {folder.log_file}", file=sys.stderr)
    return code if code >= 0 else PetganError.exit_code


def _folder_of(args: argparse.Namespace) -> Path:
    new = {name: getattr(args, name) for name in ("dataset", "into", "preset")}
    given = [f"--{name}" for name, value in new.items() if value is not None]
    if args.run is not None:
        others = (args.source, args.recipe, args.steps, args.seed)
        if given or args.set or any(value is not None for value in others):
            raise ConfigError(
                "a run that exists has its settings already",
                value=str(args.run),
                allowed="RUN_DIR alone, or --dataset, --into and --preset for a new run",
            )
        RunFolder(args.run).config()
        return Path(args.run)
    if len(given) < len(new):
        raise ConfigError(
            "it is not said what to train",
            value=given,
            allowed="RUN_DIR alone, or all of --dataset, --into and --preset",
        )
    return _make_folder(args)


def _make_folder(args: argparse.Namespace) -> Path:
    """Write the folder of a new run; one with the same settings is taken as it is."""
    dataset = reference_of(args.dataset)
    source = reference_of(args.source) if args.source else None
    values = {"preset": args.preset, "image_size": dataset.image_size, **_settings(args.set)}
    if args.recipe is not None:
        values["recipe"] = args.recipe
    values |= {k: v for k in ("steps", "seed") if (v := getattr(args, k)) is not None}
    if values.get("init_from") is not None:
        start = Path(values["init_from"])
        if not start.is_file():
            raise InputError(f"there is no checkpoint {start} to start from")
        values["init_from"] = str(start.resolve())
        values["init_digest"] = file_digest(values["init_from"])
    point = resolve_point(values)
    check_datasets([point], dataset, source)
    resources = Resources(cpus=len(os.sched_getaffinity(0)))
    config = RunConfig(
        run_id=run_id(point, dataset.digest, source.digest if source else None),
        point=point,
        dataset=dataset,
        source=source,
        resources=resources,
    )
    folder = RunFolder(args.into)
    if folder.config_file.exists() and folder.config().run_id != config.run_id:
        raise ConfigError(
            f"{args.into} holds a run with other settings or another dataset",
            hint="choose another folder with --into, or give the folder alone to go on with it",
        )
    if not folder.config_file.exists():
        folder.write_config(config)
    return folder.path


def _settings(texts: list[str]) -> dict[str, Any]:
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError("--set takes KEY=VALUE", value=text, allowed="such as batch_size=16")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {key} has a value that is not YAML", value=value) from None
    return values


def _train(folder: RunFolder) -> int:
    """Start the worker, show its progress, pass on signals, and return its exit code."""
    package = Path(petgan.__file__).resolve().parents[1]
    with open(folder.log_file, "ab") as log, progress_bar("training", "steps") as show:
        worker = subprocess.Popen(
            worker_command("train", run=folder.path),
            cwd=package,  # `python -m` looks there first
            env={**os.environ, "PETGAN_CODE_DIGEST": code_digest()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches it once, through us
        )
        with _signals_passed_to(worker):
            warned = ended = False
            while not ended:
                time.sleep(POLL_SECONDS)
                ended = worker.poll() is not None
                status = folder.status()
                if status.state == "running" and status.steps:
                    show(status.step, status.steps)
                if status.trouble and not status.error and not warned:
                    print(f"petgan run: warning: {status.trouble}", file=sys.stderr)
                    warned = True
        if worker.returncode == 0:
            show(status.steps, status.steps)
    return worker.returncode


@contextmanager
def _signals_passed_to(worker: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        if worker.poll() is None:
            worker.send_signal(number)

    before = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
