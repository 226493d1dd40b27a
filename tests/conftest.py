"""Fixtures that several test modules share."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings

from petgan.store import Row, write_dataset

# Tests run side by side: one thread each.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("petgan", deadline=None)
settings.load_profile("petgan")


@pytest.fixture
def make_dataset(tmp_path):
    """Write a dataset of smooth random images; three images a patient, split by patient."""

    def make(name="data.h5", patients=12, image_size=16, seed=0, modality="pet"):
        random = np.random.default_rng(seed)
        yy, xx = np.mgrid[:image_size, :image_size] / image_size

        def items():
            for p in range(patients):
                split = ("train", "train", "validation", "test")[p % 4]
                for s in range(3):
                    cy, cx, width = random.uniform((0.3, 0.3, 0.1), (0.7, 0.7, 0.3))
                    image = 255 * np.exp(-((yy - cy) ** 2 + (xx - cx) ** 2) / (2 * width**2))
                    row = Row(f"patient{p:04d}", f"source{p:04d}-{s}", split, "slice")
                    yield row, np.round(image).astype(np.uint8)

        path = tmp_path / name
        write_dataset(path, items(), image_size=image_size, modality=modality, units="bqml", window="full")
        return path

    return make


@pytest.fixture
def make_run(tmp_path):
    """Write the folder of a small run: all but the first keywords are those of a point."""
    from petgan.config import Every, Resources, RunConfig, fields_of, resolve_point, run_id
    from petgan.runs import RunFolder
    from petgan.store import Dataset

    def reference_of(path):
        with Dataset(path) as opened:
            return opened.reference

    def make(dataset, name="run", every=None, source=None, resources=None, **values):
        reference, second = reference_of(dataset), source and reference_of(source)
        small = {"preset": "dcgan", "image_size": 16, "batch_size": 4, "latent_size": 8, "steps": 12}
        taken = fields_of(values.get("preset", small["preset"]))
        point = resolve_point({**{k: v for k, v in small.items() if k in taken}, **values})
        run = RunFolder(tmp_path / name)
        run.write_config(
            RunConfig(
                run_id=run_id(point, reference.digest, second and second.digest),
                point=point,
                dataset=reference,
                source=second,
                every=Every(**(every or {"log": 5, "sample": 6, "score": 6, "checkpoint": 4})),
                resources=Resources(**(resources or {})),
            )
        )
        return run

    return make
