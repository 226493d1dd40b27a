"""Seconds that `petgan report` takes, and the size of its page, beside a bare read of the same files.

    python benchmarks/report.py                              # 65 points x 3 seeds
    python benchmarks/report.py --points 3334                # 10,002 runs

The runs are made in a temporary folder, all done and scored, with nine scores each, 400 logged steps and a
sheet of 16 samples; files that may be equal are links to one. The command is timed once, as a user meets it,
with the start of Python.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from petgan.config import Point, resolve_point, run_id
from petgan.runs import ExperimentFolder, Status, write_json

PRESETS = ("gan", "dcgan", "wgan-gp")
DROPOUTS = (0.2, 0.3, 0.4, 0.5, 0.6)
SCORES = {
    "kid": 0.05, "fid": 150.0, "fid-thesis": 200.0, "precision": 0.6, "recall": 0.5, "density": 0.9,
    "coverage": 0.7, "swd": 80.0, "spectrum": 0.3,
}  # fmt: skip
DIGEST = "d" * 64
STEPS, LOGGED = 4000, 400
GROUPS = 10  # of test patients


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=65, help="configurations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="pixels of an image")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(Path(folder) / "experiment", args.points, args.seeds, args.size)
        bare = seconds(lambda: read_all(experiment))
        command = [sys.executable, "-m", "petgan", "report", str(experiment.path)]
        whole = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        page = (experiment.report / "index.html").stat().st_size
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{args.points} points x {args.seeds} seeds, images of {args.size} pixels")
    print(f"bare read of their files   {bare:.2f} s")
    print(f"petgan report              {whole:.2f} s, {memory / 1024:.0f} MB of memory")
    print(f"the page                   {page / 1e6:.2f} MB")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_all(experiment: ExperimentFolder) -> None:
    """Read status, configuration and scores of all runs, as bytes."""
    for entry in os.scandir(experiment.runs):
        for name in ("status.json", "config.json", "evaluation.json"):
            Path(entry.path, name).read_bytes()


def make_experiment(path: Path, points: int, seeds: int, size: int) -> ExperimentFolder:
    folder = ExperimentFolder(path)
    rates = [round((100 + number) * 1e-6, 6) for number in range(points)]
    grid = itertools.islice(itertools.product(rates, DROPOUTS, PRESETS), points)
    resolved = [
        resolve_point(
            {"preset": preset, "learning_rate": rate, "dropout": dropout, "seed": seed, "steps": STEPS,
             "image_size": size}
        )
        for rate, dropout, preset in grid
        for seed in range(seeds)
    ]  # fmt: skip
    ids = [run_id(point, DIGEST) for point in resolved]
    axes = ("learning_rate", "dropout")
    write_json(
        folder.record_file,
        {
            "schema_version": 1, "name": "benchmark", "created": "2026-11-23T09:00:00+00:00",
            "petgan_version": "0", "parent": None, "published": None, "commands": ["petgan submit"],
            "dataset": {"path": "pet.h5", "digest": DIGEST, "image_size": size, "modality": "pet"},
            "points": [
                {"run_id": i, "sweeps": ["s"], "start": "scratch", "point": point.model_dump(mode="json")}
                for i, point in zip(ids, resolved, strict=True)
            ],
            "tables": [
                {"title": f"By {rows}", "sweep": "s", "rows": rows, "columns": columns, "by": "preset"}
                for rows, columns in (axes, axes[::-1])
            ],
        },
    )  # fmt: skip
    random = np.random.default_rng(0)
    metrics, sheet = path / "metrics", path / "sheet"
    metrics.write_text(logged(random))
    sheet.write_bytes(samples(random, size))
    for identity, point in zip(ids, resolved, strict=True):
        run = folder.run(identity)
        run.samples.mkdir(parents=True)
        files = {
            run.status_file: status(),
            run.config_file: {"resources": {"gpus": 1}},
            run.lineage_file: {"code_version": "0", "code_digest": "c", "versions": {"numpy": "2"}},
            run.evaluation_file: evaluation(identity, point, random),
        }
        for file, content in files.items():
            file.write_text(json.dumps(content))  # unflushed: as many are soon written
        os.link(metrics, run.metrics_file)
        os.link(sheet, run.sample_file(STEPS))
    return folder


def status() -> dict[str, object]:
    return asdict(
        Status("done", STEPS, STEPS, 3.2, 1200.0, host="vm1", pid=7, started=1.7e9, updated=1.7e9 + 1300)
    )


def logged(random: np.random.Generator) -> str:
    steps = range(STEPS // LOGGED, STEPS + 1, STEPS // LOGGED)
    d_losses, g_losses = random.normal(0.7, 0.1, LOGGED), random.normal(1, 0.3, LOGGED)
    lines = [
        {"step": step, "d_loss": d_loss, "g_loss": g_loss} | ({"swd": 90.0} if step % 400 == 0 else {})
        for step, d_loss, g_loss in zip(steps, d_losses, g_losses, strict=True)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def samples(random: np.random.Generator, size: int) -> bytes:
    side = 4 * (size + 2) - 2
    smooth = Image.fromarray(random.integers(0, 255, (32, 32), np.uint8)).resize((side, side))
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(smooth) // 2 + random.integers(0, 9, (side, side), np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def evaluation(identity: str, point: Point, random: np.random.Generator) -> dict[str, object]:
    quality = 1 + point.dropout + random.normal(0, 0.05)
    scores = []
    for name, usual in SCORES.items():
        value = usual * quality
        higher = name in ("precision", "recall", "density", "coverage")
        floor = {"value": usual / 9, "standard_deviation": usual / 90, "repeats": 20}
        scores.append(
            {
                "name": name, "protocol": "thesis" if name == "fid-thesis" else "petgan", "value": value,
                "standard_error": value / 50, "better": "higher" if higher else "lower",
                "ruler": f"{name}/inception-v3/1a2b3c4d/299/antialias(pillow-bicubic)/-1..1",
                "n_real": 60, "n_fake": 150, "floor": floor | {"low": usual / 10, "high": usual / 8},
                "without": (value * (1 + random.normal(0, 0.01, GROUPS))).tolist(), "blind_to": ["repeated"],
            }
        )  # fmt: skip
    copied = [{"name": "copied", "value": 0.02, "limit": 0.01, "words": "3 of 150 images are copies"}]
    return {
        "schema_version": 2, "run_id": identity, "noise_seed": 2, "headline": "kid", "scores": scores,
        "checkpoint": {"file": "checkpoints/best.h5", "step": STEPS, "digest": "f" * 64},
        "gates": copied if random.random() < 0.02 else [], "nearest": [], "notes": [],
    }  # fmt: skip


if __name__ == "__main__":
    main()
