from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from petgan import cli


def test_info_in_json(make_dataset, capsys):
    path = make_dataset(patients=12)
    assert cli.main(["dataset", "info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["patients"], facts["size"], facts["dtype"]) == (36, 12, 16, "uint8")
    assert {name: count["patients"] for name, count in facts["splits"].items()} == {
        "train": 6,
        "validation": 3,
        "test": 3,
    }
    assert facts["splits"]["test"]["views"] == {"slice": 9}
    with h5py.File(path) as file:
        assert facts["digest"] == file.attrs["digest"]


def test_info_for_people(make_dataset, capsys):
    assert cli.main(["dataset", "info", str(make_dataset())]) == 0
    out = capsys.readouterr().out
    for word in ("bqml", "full", "validation", "9 slice"):
        assert word in out


def test_verify(make_dataset, capsys):
    path = make_dataset()
    assert cli.main(["dataset", "verify", str(path)]) == 0
    with h5py.File(path, "r+") as file:
        file["images"][0, 0, 0, 0] ^= 1
    assert cli.main(["dataset", "verify", str(path)]) == 2
    assert "image 0 does not match" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 7, 64])
def test_preview_shows_every_split(make_dataset, tmp_path, count):
    path, output = make_dataset(), tmp_path / "sheets" / "a.png"
    assert cli.main(["dataset", "preview", str(path), "--output", str(output), f"--count={count}"]) == 0

    pixels = np.asarray(Image.open(output))
    headings = (pixels[:, :2] == 0).all(1) & (pixels.max(1) == 255)
    assert pixels.dtype == np.uint8
    assert headings.any()


@pytest.mark.parametrize("arguments", [["--count=0"], []])
def test_mistakes_are_one_sentence(make_dataset, tmp_path, capsys, arguments):
    path = make_dataset() if arguments else tmp_path / "nothing.h5"
    assert cli.main(["dataset", "preview", str(path), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
