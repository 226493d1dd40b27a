"""A dataset that is not what its digest says is neither trained on, nor scored against, nor imitated."""

from __future__ import annotations

import json
import os
import subprocess

import h5py
import numpy as np
import pytest

from petgan import worker
from petgan.config import RunConfig, resolve_point, run_id
from petgan.enlarge import enlarge
from petgan.launch import worker_command
from petgan.runs import ExperimentFolder, write_json
from petgan.store import Dataset, pixel_digest


def one_pixel(file):
    file["images"][3, 0, 0, 0] ^= 1


def one_pixel_and_its_digest(file):
    one_pixel(file)
    file["pixel_digest"][3] = pixel_digest(file["images"][3])


def one_row(file):
    """A patient's image goes over from training to the test."""
    assert file["split"][0] == b"train"
    file["split"][0] = "test"


def another_patient(file):
    file["patient"][0] = file["patient"][-1]


def two_rows_in_another_order(file):
    for name in file:
        file[name][0], file[name][1] = file[name][1], file[name][0]


def the_digest(file):
    file.attrs["digest"] = "0" * 64


DAMAGE = [one_pixel, one_pixel_and_its_digest, one_row, another_patient, two_rows_in_another_order]


@pytest.fixture
def finished(tmp_path, make_dataset):
    """An experiment of one run that is done, with a checkpoint that says no more than where it is from."""
    with Dataset(make_dataset(patients=32)) as dataset:
        reference = dataset.reference
    experiment = ExperimentFolder(tmp_path / "experiment")
    point = resolve_point(
        {"preset": "dcgan", "image_size": 16, "batch_size": 4, "latent_size": 8, "steps": 2}
    )
    config = RunConfig(run_id=run_id(point, reference.digest), point=point, dataset=reference)
    run = experiment.run(config.run_id)
    run.write_config(config)
    run.checkpoints.mkdir()
    for file in (run.best_checkpoint, run.checkpoint_file(2)):
        with h5py.File(file, "w") as checkpoint:
            checkpoint.attrs.update(
                {"digest": "abc", "step": 2, "run_id": config.run_id, "dataset_digest": reference.digest}
            )
    write_json(
        experiment.record_file,
        {"points": [{"run_id": config.run_id, "point": point.model_dump(mode="json")}]},
    )
    return experiment


def task_of(name, experiment, tmp_path):
    """The arguments of a task, and a function that gives what it has left behind."""
    (run,) = experiment.run_folders()
    run.update_status(state="new" if name == "train" else "done")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def left_behind():
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        return {path.name for path in after if before.get(path) != after[path]}

    if name == "evaluate":
        return {"experiment": str(experiment.path)}, left_behind
    if name == "synthesize":
        output, pictures = str(tmp_path / "o.h5"), str(tmp_path / "pictures")
        return {"source": str(run.path), "count": 4, "output": output, "png": pictures}, left_behind
    return {"run": str(run.path)}, left_behind


def change(experiment, work):
    (run,) = experiment.run_folders()
    with h5py.File(run.config().dataset.path, "r+") as file:
        work(file)


@pytest.fixture
def in_this_process(monkeypatch):
    """Without TensorFlow, which is not needed to refuse."""
    monkeypatch.setattr(worker, "import_quietly", lambda: None)
    monkeypatch.setattr(
        worker, "draw", lambda *arguments, **options: pytest.fail("a generator was asked to draw")
    )


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("task", ["train", "evaluate", "synthesize"])
def test_a_changed_pixel_or_row_is_one_sentence(task, damage, finished, tmp_path, in_this_process, capfd):
    change(finished, damage)
    arguments, left_behind = task_of(task, finished, tmp_path)
    assert worker.main([task, json.dumps(arguments)]) == 2
    said = capfd.readouterr().err
    assert said.startswith("petgan: ")
    assert said.count("\n") == 1
    assert "damaged" in said
    assert "data.h5" in said
    assert left_behind() <= ({"status.json", "heartbeat"} if task == "train" else set())
    (run,) = finished.run_folders()
    assert run.status().state == ("failed" if task == "train" else "done")


@pytest.mark.parametrize("task", ["train", "evaluate", "synthesize"])
def test_another_digest_is_another_dataset(task, finished, tmp_path, in_this_process, capfd):
    """A digest that was changed, and a dataset that is whole but not the one that is known."""
    change(finished, the_digest)
    arguments, left_behind = task_of(task, finished, tmp_path)
    assert worker.main([task, json.dumps(arguments)]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "000000000000" in said
    assert "changed" in said or "not what the generator was trained on" in said
    assert left_behind() <= ({"status.json", "heartbeat"} if task == "train" else set())


@pytest.mark.parametrize("task", ["train", "evaluate", "synthesize"])
def test_a_process_of_its_own_ends_with_code_2(task, finished, tmp_path):
    change(finished, one_pixel)
    arguments, left_behind = task_of(task, finished, tmp_path)
    done = subprocess.run(
        worker_command(task, **arguments), capture_output=True, text=True, timeout=120,
        env={**os.environ, "KERAS_HOME": str(tmp_path / "keras")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("petgan: ")
    assert done.stderr.count("\n") == 1
    assert "damaged" in done.stderr
    assert left_behind() - {"keras.json"} <= ({"status.json", "heartbeat"} if task == "train" else set())


def test_training_images_are_enlarged_and_validation_images_are_not(make_dataset, make_run, caplog):
    dataset = make_dataset()
    plain = worker._read_images(make_run(dataset).config())
    config = make_run(dataset, "larger", enlarge="rotation", enlarge_factor=3).config()
    images, validation = worker._read_images(config)
    np.testing.assert_array_equal(images, enlarge(plain[0], "rotation", 3, config.point.seed))
    assert len(images) == 3 * len(plain[0])
    np.testing.assert_array_equal(validation, plain[1])
    with caplog.at_level("INFO"):
        worker._tell_enlargement(config, len(images))
    assert caplog.messages == ["training on 18 stored images and 36 made by rotation"]


def test_what_is_whole_is_read(finished, tmp_path, in_this_process):
    """That the refusals are of the damage: without it, the same tasks go on to draw."""
    for task in ("evaluate", "synthesize"):
        arguments, _ = task_of(task, finished, tmp_path)
        with pytest.raises(pytest.fail.Exception, match="asked to draw"):
            worker.main([task, json.dumps(arguments)])
    (run,) = finished.run_folders()
    images, validation = worker._read_images(run.config())
    assert len(images) == 48
    assert len(validation) == 24
    assert images.dtype == np.uint8
