"""The worker's frame; what its tasks do is tested with their modules."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest

from petgan import worker
from petgan.checkpoint import read_header
from petgan.config import Resources
from petgan.errors import DatasetError, RankMismatchError
from petgan.store import Dataset


def test_without_tensorflow_it_says_what_to_install(make_dataset, make_run, monkeypatch, capfd):
    run = make_run(make_dataset())
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it raises ModuleNotFoundError
    assert worker.main(["train", json.dumps({"run": str(run.path)})]) == 2
    assert "needs TensorFlow" in capfd.readouterr().err
    status = run.status()
    assert status.state == "failed"
    assert "pip install 'petgan[train]'" in status.error


@pytest.fixture
def gpu_run(make_dataset, make_run):
    run = make_run(make_dataset(), steps=1)
    run.write_config(run.config().model_copy(update={"resources": Resources(gpus=1)}))
    return run


def test_a_job_that_got_no_gpu_does_not_train_on_the_cpu(gpu_run, monkeypatch, capfd):
    for name in ("RANK", "LOCAL_RANK", "NODE"):
        monkeypatch.setenv(f"PETGAN_{name}", "0")
        monkeypatch.setenv(f"PETGAN_{name}S", "1")
    monkeypatch.setenv("PETGAN_NODE_NAME", "n1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # Slurm has given it one, whose driver does not answer
    monkeypatch.setattr(worker, "_sees_gpu", lambda: False)
    monkeypatch.setattr(worker, "use_cpus", lambda cpus: None)  # TensorFlow takes it once a process
    assert worker.main(["train", json.dumps({"run": str(gpu_run.path)})]) == RankMismatchError.exit_code
    assert "no GPU is visible on rank 0 (node n1)" in capfd.readouterr().err
    assert gpu_run.status().state == "failed"
    assert not gpu_run.checkpoints.exists()


def test_the_same_run_on_a_laptop_is_trained_on_its_cpu(gpu_run, monkeypatch):
    monkeypatch.setattr(worker, "_sees_gpu", lambda: False)
    monkeypatch.setattr(worker, "use_cpus", lambda cpus: None)  # TensorFlow takes it once a process
    assert worker.main(["train", json.dumps({"run": str(gpu_run.path)})]) == 0
    assert gpu_run.status().state == "done"


@pytest.fixture
def tiny_memory(monkeypatch):
    """Resources in which 24 images of 16 pixels are too many to hold."""
    monkeypatch.setattr(worker, "use_cpus", lambda cpus: None)  # TensorFlow takes it once a process
    return {"mem_gb": 2e-5}


def test_a_run_whose_images_are_streamed_ends_as_one_that_holds_them(make_dataset, make_run, tiny_memory):
    digests, held = [], []
    for name, resources in (("held", {}), ("streamed", tiny_memory)):
        run = make_run(make_dataset(patients=16), name, resources=resources)
        held.append(isinstance(worker._read_images(run.config())[0], np.ndarray))
        assert worker.main(["train", json.dumps({"run": str(run.path)})]) == 0
        digests.append([read_header(path).digest for path in run.last_checkpoints()])
    assert held == [True, False]
    assert digests[0] == digests[1]


def test_ranks_of_one_node_share_its_memory():
    shares = [worker._resident_bytes(Resources(mem_gb=8, nodes=2, tasks=tasks)) for tasks in (1, 4)]
    assert shares == [2 * 2**30, 2**29]


def test_a_dataset_that_cannot_be_read_any_more_is_named(
    make_dataset, make_run, tiny_memory, monkeypatch, capfd
):
    def image(dataset, index):
        raise DatasetError(f"{dataset.path} is damaged: image {index} cannot be read")

    monkeypatch.setattr(Dataset, "image", image)
    run = make_run(make_dataset(patients=16), resources=tiny_memory)
    assert worker.main(["train", json.dumps({"run": str(run.path)})]) == DatasetError.exit_code
    assert re.fullmatch(r"petgan: .*data.h5 is damaged: image \d+ cannot be read\n", capfd.readouterr().err)
    assert run.status().error.endswith("cannot be read")
