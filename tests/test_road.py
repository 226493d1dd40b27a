"""The whole road, end to end, as a user goes it: from image files to a synthetic dataset and the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import h5py
import pytest

from petgan.runs import ExperimentFolder

GRID = """
name: small
base: {steps: 6, batch_size: 4}
seeds: [0, 1]
sweeps:
  - {name: networks, preset: [dcgan, wgan-gp]}
tables:
  - {title: Networks, sweep: networks, rows: preset}
"""
TRANSFER = """
name: moved
base: {steps: 4, batch_size: 4}
sweeps:
  - {name: pairs, preset: wgan-gp}
tables:
  - {title: Start, sweep: pairs, rows: start}
"""


@pytest.fixture
def petgan(tmp_path):
    """Run a petgan command in a folder of its own, as its user would."""
    environment = {**os.environ, "PETGAN_KEY_FILE": str(tmp_path / "identity.key")}

    def run(*words):
        command = [sys.executable, "-m", "petgan", *map(str, words)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.mark.slow
def test_from_image_files_to_a_synthetic_dataset(petgan, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "transfer.yaml").write_text(TRANSFER)
    petgan("phantom", "files", "--patients", 16, "--slices", 4, "--size", 64)
    for modality in ("mammogram", "pet"):
        petgan("ingest", f"files/{modality}", "--output", f"{modality}.h5", "--size", 16)
        petgan("dataset", "verify", f"{modality}.h5")

    petgan(
        "submit", "grid.yaml", "--dataset", "mammogram.h5", "--experiment", "mammogram", "--cluster", "inline"
    )
    petgan("evaluate", "mammogram")
    where = ("--dataset", "pet.h5", "--experiment", "moved", "--cluster", "inline")
    petgan("transfer", "transfer.yaml", "--from", "mammogram", *where)
    petgan("evaluate", "moved")
    petgan("report", "mammogram", "moved", "--output", "report")

    states = [run.status().state for run in ExperimentFolder(tmp_path / "moved").run_folders()]
    assert states == ["done", "done"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Networks" in page
    assert "Start" in page
    assert "PHANTOM" not in page  # the invented patients' names

    choice = json.loads((tmp_path / "mammogram" / "report" / "choice.json").read_text())
    best = f"mammogram/runs/{choice['overall']['best_run']}"
    # After six steps a generator makes smears, which are nobody's copy; "gan" would make noise.
    petgan("synthesize", best, "--count", 20, "--output", "synthetic.h5", "--png", "png", "--dicom", "dicom")
    with h5py.File(tmp_path / "synthetic.h5") as file:
        assert file["images"].shape == (20, 16, 16, 1)
    assert len(list((tmp_path / "png").iterdir())) == len(list((tmp_path / "dicom").iterdir())) == 20
    petgan("dataset", "verify", "synthetic.h5")
