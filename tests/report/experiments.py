"""Experiments as a user's folder has them, written without training anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from petgan.config import DatasetRef, Resources, RunConfig, resolve_point, run_id
from petgan.pictures import save_png, sheet
from petgan.runs import ExperimentFolder, RunFolder, Status, write_json

DATASET = DatasetRef(path="data/pet.h5", digest="d" * 64, image_size=16, modality="pet")
KID_RULER = "kid/inception-v3/0123456789ab/299/antialias(pillow-bicubic)/-1..1"
FLOOR = {"value": 0.001, "standard_deviation": 0.0004, "low": -0.0005, "high": 0.0025, "repeats": 20}
HIGHER = ("precision", "recall", "density", "coverage")


def score(name, value, **changes):
    """A score as the evaluation's file has it."""
    return {
        "name": name, "protocol": "thesis" if name == "fid-thesis" else "petgan", "value": value,
        "standard_error": 0.001, "better": "higher" if name in HIGHER else "lower",
        "ruler": KID_RULER.replace("kid", name), "n_real": 40, "n_fake": 150, "floor": FLOOR,
        "without": [], "blind_to": None,
    } | changes  # fmt: skip


def gate(name, words="3 of 150 images are copies of training images"):
    return {"name": name, "value": 0.02, "limit": 0.01, "words": words}


def write_experiment(
    path, runs, *, tables=(), name="pet", published=None, parent=None, steps=40, dataset=DATASET
):
    """Write an experiment folder.

    `runs` is a list of dictionaries: ``values`` of the point, and optionally ``sweeps``, ``start``,
    ``state``, ``error``, ``scores``, ``gates``, ``notes``, ``samples`` (pixels of a sheet's image),
    ``nearest`` (pairs of an image (size, size) uint8 and its entry in the evaluation), ``resources``,
    ``schema_version`` of the evaluation.
    """
    folder = ExperimentFolder(Path(path))
    points = []
    for run in runs:
        values = {"image_size": 16, "steps": steps, **run["values"]}
        if run.get("start") == "transfer":
            values |= {"init_from": "elsewhere.h5", "init_digest": "e" * 64}
        point = resolve_point(values)
        identity = run_id(point, dataset.digest)
        entry = {
            "run_id": identity,
            "sweeps": run.get("sweeps", ["sweep"]),
            "start": run.get("start", "scratch"),
        }
        points.append(entry | {"point": point.model_dump(mode="json")})
        resources = Resources(**run.get("resources", {}))
        config = RunConfig(run_id=identity, point=point, dataset=dataset, resources=resources)
        _write_run(folder.run(identity), config, run)
    record = {
        "schema_version": 1, "name": name, "created": "2026-11-23T09:00:00+00:00", "petgan_version": "0.1.0",
        "dataset": dataset.model_dump(), "points": points, "tables": list(tables), "published": published,
        "parent": parent, "commands": ["petgan submit grid.yaml --dataset data/pet.h5"],
    }  # fmt: skip
    write_json(folder.record_file, record)
    return folder.path


def _write_run(folder: RunFolder, config: RunConfig, run):
    folder.write_config(config)
    steps, state = config.point.steps, run.get("state", "done")
    if state == "new":
        return
    done = steps if state == "done" else steps // 2
    status = Status(
        state, done, steps, 2.0, float(done), {}, run.get("error"), 1.7e9, 1.7e9 + 100, "node1", None
    )
    folder.write_status(status)
    # A state without surprises: the moment of writing would make every report another.
    write_json(folder.status_file, json.loads(folder.status_file.read_text()) | {"updated": 1.7e9 + 100})
    random = np.random.default_rng(int(config.run_id, 16))
    every = max(1, steps // 400)
    with open(folder.metrics_file, "w", encoding="utf-8") as file:
        for step in range(every, done + 1, every):
            line = {
                "step": step,
                "d_loss": 0.7 + 2 / step + random.normal(0, 0.1),
                "g_loss": 1 + random.normal(0, 0.3),
            }
            if step % (steps // 10) == 0:
                line["swd"] = 100 + 200 / (1 + 10 * step / steps) + random.normal(0, 5)
            file.write(json.dumps(line) + "\n")
    versions = {"python": "3.11.2", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.0"}
    lineage = {
        "run_id": config.run_id,
        "code_version": "0.1.0",
        "code_digest": "c" * 64,
        "image_digest": None,
    }
    write_json(folder.lineage_file, lineage | {"versions": versions, "hosts": ["node1"]})
    _write_sheet(folder.sample_file(done), run.get("samples", 16), random)
    nearest = run.get("nearest", [])
    if nearest:
        images = np.array([image for image, _ in nearest])
        save_png(folder.nearest_file, sheet(images, columns=len(images)))
    if scores := run.get("scores"):
        write_json(
            folder.evaluation_file,
            {
                "schema_version": run.get("schema_version", 2), "run_id": config.run_id,
                "checkpoint": {"file": "best.h5", "step": done, "digest": "f" * 64}, "noise_seed": 2,
                "headline": scores[0]["name"], "scores": scores, "gates": run.get("gates", []),
                "nearest": [told for _, told in nearest], "notes": run.get("notes", []),
            },
        )  # fmt: skip


def _write_sheet(path, size, random):
    path.parent.mkdir(parents=True, exist_ok=True)
    yy, xx = np.mgrid[:size, :size] / size
    sheet = np.zeros((4 * (size + 2) - 2,) * 2, np.uint8)
    for i in range(16):
        cy, cx, width = random.uniform((0.3, 0.3, 0.1), (0.7, 0.7, 0.3))
        blob = 230 * np.exp(-((yy - cy) ** 2 + (xx - cx) ** 2) / (2 * width**2)) + random.normal(
            0, 8, (size, size)
        )
        top, left = (i // 4) * (size + 2), (i % 4) * (size + 2)
        sheet[top : top + size, left : left + size] = np.clip(blob, 0, 255)
    Image.fromarray(sheet).save(path)
