from __future__ import annotations

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from petgan import evaluate
from petgan.cli import main
from petgan.config import RunConfig, resolve_point, run_id
from petgan.errors import ConfigError, DatasetError, InputError, Interrupted, PetganError
from petgan.evaluate import evaluate_experiment
from petgan.metrics import sliced_wasserstein, wasserstein
from petgan.runs import ExperimentFolder, write_json
from petgan.store import Dataset, Row, write_dataset


@pytest.fixture(autouse=True)
def few_patches(monkeypatch):
    monkeypatch.setattr(wasserstein, "PATCHES_PER_IMAGE", 16)
    monkeypatch.setattr(wasserstein, "DIRECTIONS", 128)


@pytest.fixture
def experiment(tmp_path, make_dataset):
    return make_experiment(tmp_path, make_dataset(patients=32))


def make_experiment(tmp_path, data, seeds=(0, 1)):
    """An experiment of finished runs whose checkpoints hold nothing but their digest."""
    with Dataset(data) as dataset:
        reference = dataset.reference
    folder = ExperimentFolder(tmp_path / "experiment")
    points = []
    for seed in seeds:
        point = resolve_point(
            {"preset": "dcgan", "image_size": 16, "seed": seed, "batch_size": 4, "steps": 2}
        )
        config = RunConfig(run_id=run_id(point, reference.digest), point=point, dataset=reference)
        run = folder.run(config.run_id)
        run.write_config(config)
        run.update_status(state="done")
        write_checkpoint(run.checkpoint_file(2), "first")
        points.append({"run_id": config.run_id, "point": point.model_dump(mode="json")})
    write_json(folder.record_file, {"points": points})
    return folder


def write_checkpoint(path, digest):
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["digest"] = digest


class Generator:
    """Draws noisy images, and notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, checkpoint, count, seed):
        self.asked.append((checkpoint, count, seed))
        images = np.random.default_rng(seed).integers(0, 256, (count, 16, 16), np.uint8)
        with h5py.File(checkpoint) as file:
            return images, SimpleNamespace(step=2, digest=file.attrs["digest"])


class PixelNetwork:
    """A feature network that looks at single pixels."""

    def __init__(self, weights, resize="antialias"):
        pass

    def features(self, images, progress=None):
        return images.reshape(len(images), -1)[:, ::16].astype(np.float32)

    def cached_features(self, images, folder, name, progress=None):
        return self.features(images)


@pytest.fixture
def weights(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "Extractor", PixelNetwork)
    file = tmp_path / "weights.h5"
    file.write_bytes(b"learned")
    return file


def test_without_a_network_the_headline_is_swd_and_a_note_says_why(experiment):
    evaluate_experiment(experiment, Generator())
    for run in experiment.run_folders():
        found = run.evaluation()
        assert [score["name"] for score in found["scores"]] == ["swd"]
        assert found["headline"] == "swd"
        assert "neither KID nor FID" in " ".join(found["notes"])


def test_the_score_is_that_of_the_generated_against_the_test_images(experiment):
    generator = Generator()
    evaluate_experiment(experiment, generator)
    run = experiment.run_folders()[0]
    with Dataset(run.config().dataset.path) as dataset:
        test, train = dataset.images("test"), dataset.images("train")
    found = run.evaluation()
    (score,) = found["scores"]
    assert (score["n_real"], score["n_fake"]) == (24, 24) == (len(test), len(train) // 2)
    assert score["value"] == sliced_wasserstein(
        test, generator(run.checkpoint_file(2), 24, found["noise_seed"])[0]
    )
    assert score["ruler"] == "swd/16px/1-levels"
    assert score["better"] == "lower"
    assert found["run_id"] == run.path.name
    assert found["checkpoint"] == {"file": "checkpoints/step-00000002.h5", "step": 2, "digest": "first"}
    assert (found["schema_version"], found["protocol"], found["split"]) == (1, "petgan", "test")


def test_with_a_network_kid_leads_and_every_score_stands_beside_its_floor(experiment, weights):
    evaluate_experiment(experiment, Generator(), weights=weights)
    found = experiment.run_folders()[0].evaluation()
    scores = {score["name"]: score for score in found["scores"]}
    assert list(scores) == ["kid", "fid", "swd"]
    assert found["headline"] == "kid"
    assert scores["kid"]["standard_error"] > 0
    assert scores["fid"]["standard_error"] is None
    for score in scores.values():
        assert score["floor"]["repeats"] == 10
        assert score["floor"]["standard_deviation"] > 0
        assert score["floor"]["value"] + 3 * score["floor"]["standard_deviation"] < score["value"]
    assert scores["kid"]["ruler"].startswith("kid/inception-v3/")
    assert any("biased" in note for note in found["notes"])


def test_floors_are_taken_once_for_all_runs(experiment, weights, monkeypatch):
    taken = []
    floor = evaluate.Reference.floor
    monkeypatch.setattr(
        evaluate.Reference, "floor", lambda self, name, n: taken.append(name) or floor(self, name, n)
    )
    evaluate_experiment(experiment, Generator(), weights=weights)
    assert taken == ["kid", "fid", "swd"]


def test_where_training_images_are_too_few_there_is_no_floor_and_a_note(experiment):
    evaluate_experiment(experiment, Generator(), images=48)
    found = experiment.run_folders()[0].evaluation()
    assert found["scores"][0]["floor"] is None
    assert "no floor" in " ".join(found["notes"])


def test_what_was_scored_with_the_same_settings_is_left(experiment):
    evaluate_experiment(experiment, Generator())
    again = Generator()
    evaluate_experiment(experiment, again)
    assert again.asked == []
    evaluate_experiment(experiment, again, force=True)
    assert len(again.asked) == 2


@pytest.mark.parametrize("change", ["images", "weights", "checkpoint"])
def test_other_settings_score_again(experiment, weights, change):
    evaluate_experiment(experiment, Generator())
    options = {"images": {"images": 20}, "weights": {"weights": weights}, "checkpoint": {}}[change]
    if change == "checkpoint":
        write_checkpoint(experiment.run_folders()[1].best_checkpoint, "better")
    again = Generator()
    evaluate_experiment(experiment, again, **options)
    assert len(again.asked) == (1 if change == "checkpoint" else 2)


def test_the_best_checkpoint_goes_before_the_newest(experiment):
    run = experiment.run_folders()[0]
    write_checkpoint(run.checkpoint_file(4), "newer")
    write_checkpoint(run.best_checkpoint, "better")
    evaluate_experiment(experiment, Generator())
    assert run.evaluation()["checkpoint"]["digest"] == "better"


def test_a_run_that_fails_is_named_and_the_others_are_scored(experiment):
    first, second = experiment.run_folders()
    generator = Generator()

    def draw(checkpoint, count, seed):
        if checkpoint.is_relative_to(first.path):
            raise ValueError("the file is damaged")
        return generator(checkpoint, count, seed)

    with pytest.raises(PetganError, match=f"1 of 2 runs.*{first.path.name} .the file is damaged") as caught:
        evaluate_experiment(experiment, draw)
    assert caught.value.exit_code == 1
    assert first.evaluation() is None
    assert second.evaluation() is not None


def test_a_run_without_a_checkpoint_does_not_stop_the_others(experiment):
    first, second = experiment.run_folders()
    evaluate_experiment(experiment, Generator())
    first.checkpoint_file(2).unlink()
    second.evaluation_file.unlink()
    with pytest.raises(PetganError, match=f"{first.path.name} .*no checkpoint"):
        evaluate_experiment(experiment, Generator())
    assert second.evaluation() is not None


def test_a_stop_is_no_failure_of_a_run(experiment):
    def draw(checkpoint, count, seed):
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        evaluate_experiment(experiment, draw)


def test_only_finished_runs_are_scored(experiment):
    first, second = experiment.run_folders()
    first.update_status(state="failed")
    evaluate_experiment(experiment, Generator())
    assert first.evaluation() is None
    second.update_status(state="queued")
    with pytest.raises(InputError, match="no finished run"):
        evaluate_experiment(experiment, Generator())


@pytest.mark.parametrize("images", [3, 50_001])
def test_an_impossible_number_of_images_is_refused(experiment, images):
    with pytest.raises(ConfigError, match="4 to 50000"):
        evaluate_experiment(experiment, Generator(), images=images)


def test_a_dataset_that_has_changed_is_refused(experiment, make_dataset):
    make_dataset(patients=32, seed=9)
    with pytest.raises(DatasetError, match="has changed"):
        evaluate_experiment(experiment, Generator())


def test_too_few_test_images_are_refused(tmp_path):
    splits = ["train"] * 8 + ["test"] * 3
    rows = [
        (Row(f"p{i:02d}", f"s{i:02d}", split, "slice"), np.zeros((16, 16))) for i, split in enumerate(splits)
    ]
    data = tmp_path / "few.h5"
    write_dataset(data, rows, image_size=16, modality="pet", units="bqml", window="full")
    with pytest.raises(DatasetError, match="too few test images.*got 3"):
        evaluate_experiment(make_experiment(tmp_path, data), Generator())


def test_the_command_scores_a_real_checkpoint_and_says_what_it_found(
    tmp_path, make_dataset, capfd, monkeypatch
):
    from petgan.checkpoint import write_checkpoint
    from petgan.steps import make_networks

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    experiment = make_experiment(tmp_path, make_dataset(patients=32), seeds=(0,))
    (run,) = experiment.run_folders()
    config = run.config()
    write_checkpoint(run.best_checkpoint, make_networks(config.point), config, step=2)
    assert main(["evaluate", str(experiment.path), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == [run.evaluation()]
    assert "neither KID nor FID" in err
    assert main(["evaluate", str(experiment.path)]) == 0
    assert config.run_id in capfd.readouterr().out


def test_a_missing_weights_file_is_the_users_mistake(experiment, capfd):
    assert main(["evaluate", str(experiment.path), "--weights", "nowhere.h5"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "nowhere.h5" in err
