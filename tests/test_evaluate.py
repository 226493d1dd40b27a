from __future__ import annotations

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from petgan import evaluate, reference
from petgan.cli import main
from petgan.config import RunConfig, resolve_point, run_id
from petgan.errors import ConfigError, DatasetError, InputError, Interrupted, PetganError
from petgan.evaluate import check_experiment, evaluate_experiment
from petgan.features import NetworkFile
from petgan.metrics import frechet_distance, sliced_wasserstein, wasserstein
from petgan.runs import ExperimentFolder, read_json, write_json
from petgan.store import Dataset


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(reference, "FLOOR_SPLITS", 8)
    monkeypatch.setattr(reference, "CHECK_DRAWS", 3)
    monkeypatch.setattr(wasserstein, "PATCHES_PER_IMAGE", 16)
    monkeypatch.setattr(wasserstein, "DIRECTIONS", 128)


@pytest.fixture
def experiment(tmp_path, make_dataset):
    return make_experiment(tmp_path, make_dataset(patients=32))


def make_experiment(tmp_path, data, seeds=(0, 1), preset="dcgan"):
    """An experiment of finished runs whose checkpoints hold nothing but their digest."""
    with Dataset(data) as dataset:
        known = dataset.reference
    folder = ExperimentFolder(tmp_path / "experiment")
    points = []
    for seed in seeds:
        point = resolve_point({"preset": preset, "image_size": 16, "seed": seed, "batch_size": 4, "steps": 2})
        config = RunConfig(run_id=run_id(point, known.digest), point=point, dataset=known)
        run = folder.run(config.run_id)
        run.write_config(config)
        run.update_status(state="done")
        write_checkpoint(run.checkpoint_file(2), "first")
        points.append({"run_id": config.run_id, "point": point.model_dump(mode="json")})
    write_json(folder.record_file, {"points": points, "dataset": known.model_dump()})
    return folder


def write_checkpoint(path, digest):
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["digest"] = digest


class Generator:
    """Draws noisy images, and notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, checkpoint, count, seed, averaged=True, inputs=None):
        self.asked.append((checkpoint, count, seed, averaged))
        self.shown = inputs
        images = np.random.default_rng(seed).integers(0, 256, (count, 16, 16), np.uint8)
        with h5py.File(checkpoint) as file:
            return images, SimpleNamespace(step=2, digest=file.attrs["digest"])


class PixelNetwork:
    """A feature network that looks at single pixels."""

    def __init__(self, network, resize="antialias"):
        self.name, self.id = network.name, f"{network.name}/12345678/16/{resize}/0..255"

    def features(self, images, progress=None):
        return images.reshape(len(images), -1)[:, ::16].astype(np.float32)

    def cached_features(self, images, folder, name, progress=None):
        return self.features(images)


@pytest.fixture
def networks(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "Extractor", PixelNetwork)
    return [NetworkFile("inception-v3", tmp_path / "weights.h5")]


def test_without_a_network_the_headline_is_swd_and_a_note_says_why(experiment):
    evaluate_experiment(experiment, Generator())
    for run in experiment.run_folders():
        found = run.evaluation()
        assert [score["name"] for score in found["scores"]] == ["swd", "texture", "spectrum", "histogram"]
        assert found["headline"] == "swd"
        assert "neither KID nor FID" in " ".join(found["notes"])


def test_a_generator_that_is_shown_images_sees_held_out_ones(tmp_path, make_dataset):
    experiment = make_experiment(tmp_path, make_dataset(patients=16), preset="srgan")
    generator = Generator()
    evaluate_experiment(experiment, generator)
    run = experiment.run_folders()[0]
    with Dataset(run.config().dataset.path) as dataset:
        np.testing.assert_array_equal(generator.shown, dataset.images("validation", "test"))
    notes = run.evaluation()["notes"]
    assert any("shown the very images that it is scored against" in note for note in notes)
    generator.asked.clear()
    evaluate_experiment(experiment, generator, images=99)
    assert {count for _, count, *_ in generator.asked} == {24}
    assert {score["n_fake"] for score in run.evaluation()["scores"]} == {24}
    assert any("there are 24: no more are scored" in note for note in run.evaluation()["notes"])


def test_the_score_is_that_of_the_generated_against_the_test_images(experiment):
    generator = Generator()
    evaluate_experiment(experiment, generator)
    run = experiment.run_folders()[0]
    with Dataset(run.config().dataset.path) as dataset:
        test, train = dataset.images("test"), dataset.images("train")
    found = run.evaluation()
    score = found["scores"][0]
    assert (score["n_real"], score["n_fake"]) == (24, 24) == (len(test), len(train) // 2)
    seed = found["protocols"]["petgan"]["noise_seed"]
    fakes = generator(run.checkpoint_file(2), 24, seed)[0]
    assert score["value"] == sliced_wasserstein(test, fakes)
    assert score["ruler"] == "swd/16px/1-levels"
    assert score["better"] == "lower"
    assert found["run_id"] == run.path.name
    assert found["checkpoint"] == {"file": "checkpoints/step-00000002.h5", "step": 2, "digest": "first"}
    assert found["schema_version"] == 2
    assert {score["protocol"] for score in found["scores"]} == {"petgan"}


def test_with_a_network_kid_leads_and_every_score_stands_beside_its_floor(experiment, networks):
    evaluate_experiment(experiment, Generator(), networks=networks)
    found = experiment.run_folders()[0].evaluation()
    scores = {score["name"]: score for score in found["scores"]}
    of_features = ["kid", "fid", "precision", "recall", "density", "coverage"]
    assert list(scores) == [*of_features, "swd", "texture", "spectrum", "histogram"]
    assert found["headline"] == "kid"
    assert scores["kid"]["standard_error"] > 0
    assert scores["fid"]["standard_error"] is None
    for name, score in scores.items():
        assert score["better"] == ("higher" if name in of_features[2:] else "lower")
        assert score["floor"]["low"] <= score["floor"]["value"] <= score["floor"]["high"]
    for name in ("kid", "fid", "swd"):
        floor = scores[name]["floor"]
        assert floor["high"] < scores[name]["value"]
    assert scores["kid"]["ruler"].startswith("kid/inception-v3/")
    assert any("biased" in note for note in found["notes"])


def test_a_score_comes_with_those_without_each_group_of_patients(experiment):
    evaluate_experiment(experiment, Generator())
    run = experiment.run_folders()[0]
    with Dataset(run.config().dataset.path) as dataset:
        test, patients = dataset.images("test"), dataset.columns["patient"][dataset.indices("test")]
    fakes = Generator()(run.checkpoint_file(2), 24, evaluate.NOISE_SEED)[0]
    expected = [sliced_wasserstein(test[patients != patient], fakes) for patient in np.unique(patients)]
    assert run.evaluation()["scores"][0]["without"] == pytest.approx(expected)


def test_each_further_network_has_scores_of_its_own(experiment, networks, tmp_path):
    evaluate_experiment(
        experiment, Generator(), networks=[*networks, NetworkFile("mine", tmp_path / "mine.keras")]
    )
    scores = {s["name"]: s["ruler"] for s in experiment.run_folders()[0].evaluation()["scores"]}
    assert scores["kid@mine"].startswith("kid/mine/")
    assert scores["kid"].startswith("kid/inception-v3/")
    assert [name for name in scores if "@" not in name][-4:] == ["swd", "texture", "spectrum", "histogram"]


def test_what_rulers_do_not_see_stands_beside_their_scores_and_in_the_experiment(experiment):
    evaluate_experiment(experiment, Generator())
    checks = read_json(experiment.rulers_file)["rulers"]
    for score in experiment.run_folders()[0].evaluation()["scores"]:
        check = checks[score["name"]]
        assert check["ruler"] == score["ruler"]
        assert score["blind_to"] == [n for n, found in check["corrupted"].items() if not found["seen"]]


def test_rulers_are_checked_without_a_finished_run(experiment):
    for run in experiment.run_folders():
        run.update_status(state="failed")
    check_experiment(experiment)
    assert list(read_json(experiment.rulers_file)["rulers"]) == ["swd", "texture", "spectrum", "histogram"]


def test_where_images_are_too_few_there_is_no_floor_and_a_note(experiment):
    evaluate_experiment(experiment, Generator(), images=80)
    found = experiment.run_folders()[0].evaluation()
    assert found["scores"][0]["floor"] is None
    assert "no floor" in " ".join(found["notes"])


def test_noise_is_marked_as_such(experiment):
    evaluate_experiment(experiment, Generator())
    assert "noise" in [gate["name"] for gate in experiment.run_folders()[0].evaluation()["gates"]]


def test_copies_are_marked_and_shown_by_their_place_among_the_training_images(experiment):
    run = experiment.run_folders()[0]
    with Dataset(run.config().dataset.path) as dataset:
        train = dataset.images("train")[..., 0]

    def draw(checkpoint, count, seed, averaged=True, inputs=None):
        return train[:count], SimpleNamespace(step=2, digest="first")

    evaluate_experiment(experiment, draw)
    found = run.evaluation()
    assert "copied" in [gate["name"] for gate in found["gates"]]
    assert all(near["fake"] == near["train"] for near in found["nearest"])
    with Image.open(run.nearest_file) as picture:
        first = np.asarray(picture)[:, :16]
    np.testing.assert_array_equal(first, train[found["nearest"][0]["train"]])


# --- the published procedure ------------------------------------------------------------------------


def test_the_published_procedure_stands_beside_ours_under_its_own_name(experiment, networks):
    evaluate_experiment(experiment, Generator(), networks=networks)
    ours = experiment.run_folders()[0].evaluation()
    generator = Generator()
    evaluate_experiment(experiment, generator, networks=networks, protocol="thesis")
    run = experiment.run_folders()[0]
    found = run.evaluation()
    *same, thesis = found["scores"]
    assert same == ours["scores"]
    assert (thesis["name"], thesis["protocol"], thesis["n_fake"]) == ("fid-thesis", "thesis", 150)
    assert "/nearest/" in thesis["ruler"]
    assert {key: found[key] for key in ("headline", "gates", "nearest", "notes", "checkpoint")} == {
        key: ours[key] for key in ("headline", "gates", "nearest", "notes", "checkpoint")
    }
    assert {averaged for *_, averaged in generator.asked} == {False}
    with Dataset(run.config().dataset.path) as dataset:
        everything = dataset.images()[..., 0]
    network = PixelNetwork(networks[0])
    fakes = generator(run.checkpoint_file(2), 150, evaluate.NOISE_SEED)[0]
    expected = frechet_distance(network.features(everything), network.features(fakes))
    assert thesis["value"] == pytest.approx(expected)
    again = Generator()
    evaluate_experiment(experiment, again, networks=networks)
    evaluate_experiment(experiment, again, networks=networks, protocol="thesis")
    assert again.asked == []


def test_what_only_the_published_procedure_has_seen_is_held_against_the_gates_too(experiment, networks):
    evaluate_experiment(experiment, Generator(), networks=networks, protocol="thesis")
    found = experiment.run_folders()[0].evaluation()
    assert found["headline"] == "fid-thesis"
    assert "noise" in [gate["name"] for gate in found["gates"]]


def test_gates_do_not_outlive_the_weights_that_they_judged(experiment, networks):
    run = experiment.run_folders()[0]
    evaluate_experiment(experiment, Generator(), networks=networks)
    file = run.evaluation_file
    write_json(
        file, {**read_json(file), "gates": [{"name": "copied", "value": 0, "limit": 1, "words": "old"}]}
    )
    write_checkpoint(run.checkpoint_file(4), "newer")
    evaluate_experiment(experiment, Generator(), networks=networks, protocol="thesis")
    assert [gate["name"] for gate in run.evaluation()["gates"]] == ["noise"]


def test_the_published_procedure_takes_no_other_network(experiment, networks, tmp_path):
    with pytest.raises(ConfigError, match="takes InceptionV3"):
        mine = [NetworkFile("mine", tmp_path / "mine.keras")]
        evaluate_experiment(experiment, Generator(), networks=mine, protocol="thesis")


def test_a_check_of_some_rulers_leaves_those_of_others(experiment, networks):
    check_experiment(experiment, networks)
    check_experiment(experiment)
    assert "kid" in read_json(experiment.rulers_file)["rulers"]


def test_it_scores_the_last_generator_and_not_the_chosen_one(experiment, networks):
    run = experiment.run_folders()[0]
    write_checkpoint(run.checkpoint_file(4), "newer")
    write_checkpoint(run.best_checkpoint, "better")
    evaluate_experiment(experiment, Generator(), networks=networks, protocol="thesis")
    assert run.evaluation()["protocols"]["thesis"]["checkpoint"]["digest"] == "newer"


def test_it_needs_a_network(experiment):
    with pytest.raises(ConfigError, match="takes InceptionV3"):
        evaluate_experiment(experiment, Generator(), protocol="thesis")


def test_scores_of_another_protocol_are_dropped_when_the_weights_have_changed(experiment, networks):
    evaluate_experiment(experiment, Generator(), networks=networks)
    evaluate_experiment(experiment, Generator(), networks=networks, protocol="thesis")
    run = experiment.run_folders()[0]
    write_checkpoint(run.checkpoint_file(4), "newer")
    evaluate_experiment(experiment, Generator(), networks=networks)
    assert set(run.evaluation()["protocols"]) == {"petgan"}


# --- what is scored and what is left ----------------------------------------------------------------


def test_what_was_scored_with_the_same_settings_is_left(experiment):
    evaluate_experiment(experiment, Generator())
    again = Generator()
    evaluate_experiment(experiment, again)
    assert again.asked == []
    evaluate_experiment(experiment, again, force=True)
    assert len(again.asked) == 2


@pytest.mark.parametrize("change", ["images", "networks", "checkpoint", "schema"])
def test_other_settings_score_again(experiment, networks, change):
    evaluate_experiment(experiment, Generator())
    options = {"images": {"images": 20}, "networks": {"networks": networks}}.get(change, {})
    if change == "schema":
        file = experiment.run_folders()[0].evaluation_file
        write_json(file, {**read_json(file), "schema_version": 1})
    if change == "checkpoint":
        write_checkpoint(experiment.run_folders()[1].best_checkpoint, "better")
    again = Generator()
    evaluate_experiment(experiment, again, **options)
    assert len(again.asked) == (1 if change in ("checkpoint", "schema") else 2)


def test_the_best_checkpoint_goes_before_the_newest(experiment):
    run = experiment.run_folders()[0]
    write_checkpoint(run.checkpoint_file(4), "newer")
    write_checkpoint(run.best_checkpoint, "better")
    evaluate_experiment(experiment, Generator())
    assert run.evaluation()["checkpoint"]["digest"] == "better"


def test_a_run_that_fails_is_named_and_the_others_are_scored(experiment):
    first, second = experiment.run_folders()
    generator = Generator()

    def draw(checkpoint, count, seed, averaged=True, inputs=None):
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
    def draw(checkpoint, count, seed, averaged=True, inputs=None):
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


def test_the_command_scores_a_real_checkpoint_and_says_what_it_found(
    tmp_path, make_dataset, capfd, monkeypatch
):
    from petgan.checkpoint import write_checkpoint
    from petgan.methods.adversarial import make_networks

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
