"""The worker's frame; what its tasks do is tested with their modules."""

from __future__ import annotations

import json
import sys

import pytest

from petgan import worker
from petgan.config import Resources
from petgan.errors import RankMismatchError


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
