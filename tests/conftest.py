"""Fixtures that several test modules share."""

from __future__ import annotations

import numpy as np
import pytest

from petgan.store import Row, write_dataset


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
