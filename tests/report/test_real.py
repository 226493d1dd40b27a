"""Real images are on the page only where somebody asked for them, and then it says so."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from petgan.report.page import write_report
from petgan.store import Dataset, Row, write_dataset
from tests.report.experiments import gate, score, write_experiment
from tests.report.pages import Parsed

SIZE = 16
REAL = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE), np.uint8)
FAKE = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE), np.uint8)
SPLIT = ("test", "train", "train", "validation", "train", "test")
TRAIN = [index for index, split in enumerate(SPLIT) if split == "train"]


@pytest.fixture
def dataset(tmp_path):
    rows = [Row(f"p{index}", f"s{index}", split, "slice") for index, split in enumerate(SPLIT)]
    items = [(row, image[..., None]) for row, image in zip(rows, REAL, strict=True)]
    write_dataset(tmp_path / "pet.h5", items, image_size=SIZE, modality="pet", units="suvbw", window="0:1")
    with Dataset(tmp_path / "pet.h5") as opened:
        return opened.reference


def _write(path, dataset):
    nearest = [(image, {"fake": n, "train": n + 1, "ratio": 0.25 + n}) for n, image in enumerate(FAKE)]
    runs = [
        {"values": {"preset": "gan", "seed": seed}, "scores": [score("kid", 0.1 + seed)], "nearest": nearest}
        for seed in (0, 1)
    ]
    copied = [(REAL[TRAIN[n]], {"fake": n, "train": n, "ratio": 0.0}) for n in range(2)]
    runs += [
        {"values": {"preset": "dcgan", "seed": 0}, "scores": [score("kid", 0.01)], "nearest": copied,
         "gates": [gate("copied")]}
    ]  # fmt: skip
    return write_experiment(path, runs, dataset=dataset)


def _images(page):
    for image in Parsed(page.read_text(encoding="utf-8")).all("img"):
        yield np.asarray(
            Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).convert("L")
        )


def _holds(image, real):
    """Whether an image has the real one in it, at any place."""
    if image.shape[0] < SIZE or image.shape[1] < SIZE:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(image, (SIZE, SIZE))
    return bool((windows == real).all(axis=(2, 3)).any())


def test_without_being_asked_no_real_image_is_in_any_file(tmp_path, dataset):
    page = write_report([_write(tmp_path / "pet", dataset)])
    images = list(_images(page))
    images += [np.asarray(Image.open(file).convert("L")) for file in page.parent.rglob("*.png")]
    assert any(_holds(image, FAKE[0]) for image in images)
    assert not any(_holds(image, real) for image in images for real in REAL)
    text = Parsed(page.read_text(encoding="utf-8")).text
    assert "ratio 0.25, training image 1" in text
    assert "real images of patients" not in text
    assert "The images of 1 of these runs are not on this page" in text
    assert "dcgan: its only configuration, seed 0, KID" not in text  # the caption of its sheet


def test_asked_for_each_stands_beside_the_image_that_is_near_it(tmp_path, dataset):
    page = write_report([_write(tmp_path / "pet", dataset)], with_real=True)
    images = [image for image in _images(page) if image.shape == (SIZE, SIZE)]
    of_the_best = [FAKE[0], REAL[TRAIN[1]], FAKE[1], REAL[TRAIN[2]]]
    of_the_one_that_copies = [REAL[TRAIN[0]]] * 2 + [REAL[TRAIN[1]]] * 2
    for image, known in zip(images, of_the_best + of_the_one_that_copies, strict=True):
        np.testing.assert_array_equal(image, known)
    assert "This page shows real images of patients. Do not share it." in page.read_text()


def test_another_dataset_s_images_are_not_shown(tmp_path, dataset):
    other = dataset.model_copy(update={"digest": "0" * 64})
    page = write_report([_write(tmp_path / "pet", other)], with_real=True)
    assert not any(_holds(image, real) for image in _images(page) for real in REAL)
    text = page.read_text()
    assert "The training images are not shown: the dataset has changed since the runs were made" in text
    assert "real images of patients" not in text
