"""Generators that are shown images: from a grid with two datasets to scores and a synthetic dataset."""

from __future__ import annotations

import os
import signal

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from petgan import cli, trainer, worker
from petgan.checkpoint import read_generator, read_header
from petgan.config import DatasetRef, RunConfig, resolve_point
from petgan.distributed import ALONE
from petgan.errors import ConfigError, DatasetError, InputError, Interrupted, PetganError
from petgan.evaluate import evaluate_experiment
from petgan.methods.feed import Data
from petgan.methods.pixels import to_network, to_pixels
from petgan.models import cut
from petgan.runs import ExperimentFolder, read_json, write_json
from petgan.samples import generate
from petgan.session import Session
from petgan.store import Dataset, Row, held_out_images, write_dataset
from petgan.submit import make_plan
from petgan.synthesize import synthesize

GRID = """
name: translation
base: {steps: 2, batch_size: 2}
every: {log: 1, sample: 2, score: 2, checkpoint: 2}
sweeps: [{name: s, preset: cut}]
"""


@pytest.fixture
def pet(make_dataset):
    return make_dataset("pet.h5", patients=32)


@pytest.fixture
def mammograms(tmp_path):
    """Clouds, which have nothing of the other dataset's spots."""
    splits = ("train", "train", "validation", "test")
    clouds = gaussian_filter(np.random.default_rng(1).normal(size=(24, 16, 16)), (0, 1.5, 1.5))
    pixels = np.clip(128 + 40 * clouds / clouds.std(), 0, 255).astype(np.uint8)
    rows = [(Row(f"p{i // 3}", f"s{i}", splits[i // 3 % 4], "mlo"), image) for i, image in enumerate(pixels)]
    path = tmp_path / "mammograms.h5"
    write_dataset(path, rows, image_size=16, modality="mammogram", units="none", window="full")
    return path


def images_of(path, *splits):
    with Dataset(path) as dataset:
        return dataset.images(*splits)


def reference_of(path):
    with Dataset(path) as dataset:
        return dataset.reference


# --- training -----------------------------------------------------------------------------------


def train(run, score=None):
    config = run.config()
    source = images_of(config.source.path, "train")
    data = Data(
        images_of(config.dataset.path, "train"),
        source=source,
        shown=images_of(config.source.path, "validation"),
    )
    with Session(run) as session:
        trainer.train(run, config, data, session, score, ALONE)


def results(run):
    files = {p.name: p.read_bytes() for p in [run.metrics_file, *sorted(run.samples.glob("*.png"))]}
    return files | {p.name: read_header(p).digest for p in run.last_checkpoints()}


def test_an_interrupted_run_ends_as_an_undisturbed_one(pet, mammograms, make_run, monkeypatch):
    monkeypatch.setattr(cut, "GENERATOR_FILTERS", (2, 3, 4))
    monkeypatch.setattr(cut, "BLOCKS", 2)
    monkeypatch.setattr(cut, "DISCRIMINATOR_LAYERS", ((2, 2), (3, 1)))
    small = {"preset": "cut", "batch_size": 2, "steps": 4, "source": mammograms}
    every = {"log": 1, "sample": 2, "score": 2, "checkpoint": 1}
    whole, run = (make_run(pet, name, every, **small) for name in ("whole", "interrupted"))
    train(whole, lambda generator: 1.0)

    def stop(generator):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    with pytest.raises(Interrupted):
        train(run, stop)
    assert read_header(run.last_checkpoints()[0]).step < 4
    train(run, lambda generator: 1.0)
    assert results(run) == results(whole)
    assert read_header(run.last_checkpoints()[0]).source_digest == reference_of(mammograms).digest


# --- the road -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_a_grid_with_a_source_to_scores(pet, mammograms, tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    experiment = ExperimentFolder(tmp_path / "experiment")
    words = ["--dataset", pet, "--source", mammograms, "--experiment", experiment.path, "--cluster", "inline"]
    assert cli.main(["submit", str(tmp_path / "grid.yaml"), *map(str, words)]) == 0
    (run,) = experiment.run_folders()
    assert run.status().state == "done", run.log_file.read_text()
    digest = reference_of(mammograms).digest
    assert experiment.record()["source"]["digest"] == run.config().source.digest == digest
    assert read_json(run.lineage_file)["source_digest"] == digest
    assert experiment.datasets() == [pet, mammograms]
    assert [line["step"] for line in run.metrics() if "swd" in line] == [2]
    assert run.sample_file(2).is_file()

    # What a generator makes is the translation of each image by itself.
    shown = held_out_images(run.config().source)
    drawn, _ = worker.draw(run.chosen_checkpoint(), 5, 0, inputs=shown)
    generator, _ = read_generator(run.chosen_checkpoint())
    for image, made in zip(shown, drawn, strict=False):
        alone = to_pixels(generator(to_network(image[None]), training=False))[0, ..., 0]
        assert np.abs(alone.astype(int) - made).max() <= 1
    with pytest.raises(DatasetError, match="another size: got 8; allowed: 16"):
        worker.draw(run.chosen_checkpoint(), 5, 0, inputs=shown[:, :8, :8])

    evaluate_experiment(experiment, worker.draw)
    found = run.evaluation()
    assert {(s["n_real"], s["n_fake"]) for s in found["scores"]} == {(24, len(shown))}
    assert any("there are 12: no more are scored" in note for note in found["notes"])


def test_a_grid_without_its_source_is_refused(pet, tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(GRID)
    where = ["--dataset", str(pet), "--experiment", str(tmp_path / "e")]
    assert cli.main(["submit", str(tmp_path / "grid.yaml"), *where, "--cluster", "inline"]) == 2
    assert "cut translates images of a second dataset" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("preset", "with_source", "words"),
    [("cut", False, "none is given"), ("gan", True, "with cut only")],
)
def test_a_run_with_and_without_a_source(pet, mammograms, tmp_path, capsys, preset, with_source, words):
    command = ["run", "--dataset", pet, "--preset", preset, "--into", tmp_path / "r"]
    command += ["--source", mammograms] if with_source else []
    assert cli.main(list(map(str, command))) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_an_experiment_keeps_to_its_source(pet, mammograms, make_dataset, tmp_path):
    from petgan.grid import expand, load_grid

    (tmp_path / "grid.yaml").write_text(GRID)
    grid, dataset = load_grid(tmp_path / "grid.yaml"), reference_of(pet)
    experiment = ExperimentFolder(tmp_path / "experiment")
    points = expand(grid, dataset, reference_of(mammograms))
    plan = make_plan(grid, points, dataset, experiment, command="")
    assert [config.source for config in plan.configs.values()] == [reference_of(mammograms)]
    write_json(experiment.record_file, {**plan.record, "points": []})
    others = expand(grid, dataset, reference_of(make_dataset("other.h5", patients=8, seed=2)))
    with pytest.raises(DatasetError, match="was made with another source"):
        make_plan(grid, others, dataset, experiment, command="")


# --- what is shown ------------------------------------------------------------------------------


def test_held_out_images_come_in_the_order_of_the_file_and_none_was_trained_on(mammograms):
    with Dataset(mammograms) as dataset:
        expected = dataset.images()[dataset.columns["split"] != "train"]
        reference = dataset.reference
    np.testing.assert_array_equal(held_out_images(reference), expected)
    with pytest.raises(DatasetError, match="has changed"):
        held_out_images(reference.model_copy(update={"digest": "0" * 64}))


def test_the_worker_trains_on_one_split_and_shows_another(pet, mammograms, make_run, make_dataset):
    run = make_run(pet, preset="cut", source=mammograms)
    _, validation = worker._read_images(run.config())
    source, shown = worker._read_shown(run.config(), validation)
    np.testing.assert_array_equal(source, images_of(mammograms, "train"))
    np.testing.assert_array_equal(shown, images_of(mammograms, "validation"))
    assert worker._read_shown(make_run(pet, "gan").config(), validation) == (None, None)
    small = make_run(pet, "small", preset="cut", source=make_dataset("s.h5", patients=2))
    with pytest.raises(DatasetError, match="no validation images to show to a generator of cut"):
        worker._read_shown(small.config(), validation)


def test_a_generator_makes_no_more_images_than_it_is_shown():
    class Doubling:
        """Makes the negative of what it is shown."""

        inputs = (np.zeros((1, 16, 16, 1)),)

        def __call__(self, images, training):
            return -images

    shown = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 1), dtype=np.uint8)
    np.testing.assert_array_equal(generate(Doubling(), 99, 0, "cut", shown), 255 - shown[..., 0])
    np.testing.assert_array_equal(generate(Doubling(), 3, 0, "cut", shown), 255 - shown[:3, ..., 0])
    with pytest.raises(ConfigError, match="must be shown images, and there are none"):
        generate(Doubling(), 3, 0, "cut")


def test_a_generator_that_enlarges_is_shown_small_images_or_what_is_left_of_large_ones():
    point = resolve_point({"preset": "srgan", "image_size": 32})
    levels = np.array([0, 255, 128], np.uint8).reshape(3, 1, 1, 1)
    large, small = (np.tile(levels, (1, size, size, 1)) for size in (32, 8))

    class Enlarging:
        inputs = (np.zeros((1, 8, 8, 1)),)

        def __call__(self, images, training):
            return np.repeat(np.repeat(images, 4, axis=1), 4, axis=2)

    for pixels in (large, small):
        shown = worker._as_shown(pixels, point, "best.h5")
        np.testing.assert_array_equal(generate(Enlarging(), 3, 0, "srgan", shown), large[..., 0])
    with pytest.raises(DatasetError, match="best.h5 is shown images of another size: got 16; allowed: 8, 32"):
        worker._as_shown(large[:, :16, :16], point, "best.h5")


# --- a synthetic dataset ------------------------------------------------------------------------


@pytest.fixture
def finished(pet, mammograms, make_run):
    """A run whose checkpoint says no more than where it is from."""
    run = make_run(pet, preset="cut", source=mammograms)
    run.checkpoints.mkdir()
    config = run.config()
    with h5py.File(run.best_checkpoint, "w") as file:
        file.attrs.update(
            digest="abc", step=7, run_id=config.run_id, preset="cut",
            dataset_digest=config.dataset.digest, source_digest=config.source.digest,
        )  # fmt: skip
    return run


class Draw:
    """Draws what it is told to, and notes what it is shown."""

    def __init__(self, images):
        self.images, self.shown = images, None

    def __call__(self, checkpoint, count, seed, averaged=True, inputs=None):
        self.shown = inputs
        return self.images[:count], None


@pytest.fixture
def honest(make_dataset):
    return images_of(make_dataset("honest.h5", patients=8, seed=9))[..., 0]


def test_held_out_sources_are_shown_and_the_record_says_so(finished, mammograms, honest, tmp_path):
    draw = Draw(honest)
    lineage = synthesize(finished.path, 5, tmp_path / "o.h5", draw, allow_copies=True)
    np.testing.assert_array_equal(draw.shown, images_of(mammograms, "validation", "test")[:5])
    assert lineage["source_digest"] == lineage["inputs"]["dataset_digest"] == reference_of(mammograms).digest
    assert lineage["inputs"]["synthetic"] is False
    assert lineage["inputs"]["copy_check"]["copies"] == 0
    page = (tmp_path / "o.datasheet.md").read_text()
    assert "one of each image that it was shown" in page
    assert "It was shown images of patients" in page
    assert "may tell whose" in page
    assert "0 copies of the images that were shown" in page


def test_images_that_copy_what_was_shown_are_refused(finished, mammograms, tmp_path):
    shown = images_of(mammograms, "validation", "test")[..., 0]
    with pytest.raises(PetganError, match=r"copies of the images that were shown; nothing was written"):
        synthesize(finished.path, 12, tmp_path / "o.h5", Draw(shown))
    assert not (tmp_path / "o.h5").exists()


def test_synthetic_images_may_be_shown(finished, honest, tmp_path):
    other = tmp_path / "synthetic-mammograms.h5"
    rows = [(Row(f"synthetic-{i}", f"synthetic-{i}", "train", "synthetic"), x) for i, x in enumerate(honest)]
    write_dataset(
        other, rows, image_size=16, modality="mammogram", units="none", window="full",
        configuration={"synthetic": True},
    )  # fmt: skip
    draw = Draw(honest)
    lineage = synthesize(finished.path, 20, tmp_path / "o.h5", draw, inputs=other, allow_copies=True)
    np.testing.assert_array_equal(draw.shown[..., 0], honest[:20])
    assert lineage["inputs"]["synthetic"] is True
    assert lineage["inputs"]["copy_check"] == {"checked": False, "reason": "they are synthetic"}
    page = (tmp_path / "o.datasheet.md").read_text()
    assert "It was shown synthetic images" in page
    assert "may tell whose" not in page


def test_what_cannot_be_shown_is_refused(finished, pet, mammograms, make_run, tmp_path):
    output, draw = tmp_path / "o.h5", Draw(np.zeros((9, 16, 16), np.uint8))
    with pytest.raises(ConfigError, match=r"one of each that it is shown: got 13; allowed: 1 to 12"):
        synthesize(finished.path, 13, output, draw)
    alone = tmp_path / "alone.h5"
    alone.write_bytes(finished.best_checkpoint.read_bytes())
    with pytest.raises(InputError, match=r"not known which images .* is shown; give a dataset with --inputs"):
        synthesize(alone, 3, output, draw, dataset=pet)
    noise = make_run(pet, "noise")
    noise.checkpoints.mkdir()
    with h5py.File(noise.best_checkpoint, "w") as file:
        file.attrs.update(digest="abc", preset="dcgan", dataset_digest=noise.config().dataset.digest)
    with pytest.raises(ConfigError, match="makes its images of noise, and is shown none"):
        synthesize(noise.path, 3, output, draw, inputs=mammograms)


def test_a_config_of_before_has_no_source(pet, make_run):
    run = make_run(pet)
    values = read_json(run.config_file)
    del values["source"]
    write_json(run.config_file, values)
    assert run.config().source is None
    assert isinstance(run.config(), RunConfig)
    assert run.config().datasets == [DatasetRef(**values["dataset"])]
