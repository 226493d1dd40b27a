from __future__ import annotations

import json
import re
import socket
import subprocess
import sys

import h5py
import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from petgan.cli import main
from petgan.errors import ConfigError, DatasetError, DiskError, InputError, PetganError
from petgan.runs import write_json
from petgan.store import Dataset, Row, write_dataset
from petgan.synthesize import synthesize


def blobs(n, seed):
    draws = np.random.default_rng(seed).normal(size=(n, 16, 16))
    smooth = np.stack([gaussian_filter(d, 1.5) for d in draws])
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


TRAIN, HONEST = blobs(20, 0), blobs(30, 1)


@pytest.fixture
def data(tmp_path):
    splits = ["train"] * 20 + ["validation"] * 10
    rows = [
        (Row(f"p{i // 2:02d}", f"s{i:02d}", split, "slice"), image)
        for i, (split, image) in enumerate(zip(splits, [*TRAIN, *blobs(10, 2)], strict=True))
    ]
    write_dataset(tmp_path / "data.h5", rows, image_size=16, modality="pet", units="bqml", window="full")
    return tmp_path / "data.h5"


@pytest.fixture
def run(data, make_run):
    folder = make_run(data)
    folder.checkpoints.mkdir()
    config = folder.config()
    with h5py.File(folder.best_checkpoint, "w") as file:
        values = {
            "digest": "abc",
            "step": 7,
            "run_id": config.run_id,
            "dataset_digest": config.dataset.digest,
        }
        file.attrs.update(values)
    return folder


def draws(images):
    return lambda checkpoint, count, seed, inputs: (images[:count], None)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_honest_images_become_a_dataset_with_its_lineage(run, data, tmp_path):
    output = tmp_path / "out" / "synthetic.h5"
    lineage = synthesize(run.path, 30, output, draws(HONEST), seed=5)
    with Dataset(output) as made, Dataset(data) as real:
        made.verify()
        np.testing.assert_array_equal(made.images()[..., 0], HONEST)
        assert list(made.columns["patient"][:2]) == ["synthetic-000001", "synthetic-000002"]
        assert set(made.columns["view"]) == {"synthetic"}
        assert set(made.columns["split"]) == {"train"}
        assert (made.modality, made.units, made.window) == (real.modality, real.units, real.window)
        written = json.loads((tmp_path / "out" / "synthetic.lineage.json").read_text())
        assert written == {**lineage, "output_digest": made.digest}
        assert lineage["dataset_digest"] == real.digest
    with h5py.File(output) as file:
        assert json.loads(file.attrs["configuration"]) == lineage
    assert (lineage["run_id"], lineage["checkpoint_digest"], lineage["checkpoint_step"]) == (
        run.config().run_id,
        "abc",
        7,
    )
    assert lineage["noise_seed"] == 5
    check = lineage["copy_check"]
    assert (check["checked"], check["copies"], check["training_images"], check["training_patients"]) == (
        True,
        0,
        20,
        10,
    )
    assert check["smallest_ratio"] > check["threshold"]
    assert 0 < check["nearer_train_share"] < 1


def test_nothing_of_the_machine_gets_into_the_output(run, tmp_path):
    output = tmp_path / "synthetic.h5"
    write_json(run.evaluation_file, evaluation("abc"))
    synthesize(run.path, 5, output, draws(HONEST), png=tmp_path / "png", dicom=tmp_path / "dicom")
    beside = [output.with_suffix(s) for s in (".lineage.json", ".datasheet.json", ".datasheet.md")]
    for file in [output, *beside, *(tmp_path / "png").iterdir(), *(tmp_path / "dicom").iterdir()]:
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content
        assert socket.gethostname().encode() not in content
        assert not re.search(rb"\bp\d\d\b", content)  # the patients of the training


def evaluation(checkpoint_digest):
    score = {
        "name": "swd", "protocol": "petgan", "value": 41.5, "standard_error": None, "better": "lower",
        "ruler": "swd/16px", "n_real": 12, "n_fake": 20, "blind_to": ["repeated"], "without": [41, 42],
        "floor": {"value": 31.25, "standard_deviation": 1.5, "low": 28, "high": 35, "repeats": 20},
    }  # fmt: skip
    return {
        "schema_version": 2,
        "run_id": "r",
        "checkpoint": {"file": "/secret/best.h5", "step": 7, "digest": checkpoint_digest},
        "headline": "swd",
        "scores": [score],
        "gates": [],
        "notes": ["seen on host /secret"],
    }


def test_a_datasheet_goes_with_the_dataset(run, tmp_path):
    output = tmp_path / "o.h5"
    write_json(run.evaluation_file, evaluation("abc"))
    lineage = synthesize(run.path, 5, output, draws(HONEST))
    sheet = json.loads(output.with_suffix(".datasheet.json").read_text())
    with Dataset(output) as made:
        assert sheet["composition"]["digest"] == made.digest
    assert sheet["privacy"]["copy_check"] == lineage["copy_check"]
    assert sheet["collection_process"]["dataset_digest"] == lineage["dataset_digest"]
    (score,) = sheet["quality"]["scores"]
    assert (score["name"], score["floor"]["value"], score["blind_to"]) == ("swd", 31.25, ["repeated"])
    page = output.with_suffix(".datasheet.md").read_text()
    for words in ("swd | 41.5 | 31.25 | lower | 12 | 20 | repeated", "recital 26", "at most 1% of honest"):
        assert words in page
    assert "/secret" not in page + output.with_suffix(".datasheet.json").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {3, 4, 10}


def test_the_datasheet_claims_no_scores_of_another_checkpoint(run, tmp_path):
    output = tmp_path / "o.h5"
    synthesize(run.path, 5, output, draws(HONEST))
    assert "was not evaluated" in output.with_suffix(".datasheet.md").read_text()
    write_json(run.evaluation_file, evaluation("other"))
    synthesize(run.path, 5, output, draws(HONEST))
    page = output.with_suffix(".datasheet.md").read_text()
    assert "Another checkpoint" in page
    assert "41.5" not in page


def test_the_datasheet_says_that_copies_were_allowed(run, tmp_path):
    synthesize(run.path, 4, tmp_path / "o.h5", draws(TRAIN), allow_copies=True)
    page = (tmp_path / "o.datasheet.md").read_text()
    assert "must be kept as the patient data" in page
    assert "4 of 4 images are copies" in page


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x[:, :, ::-1], lambda x: x // 2 + 50])
def test_copies_are_refused_and_nothing_is_written(run, tmp_path, change):
    images = HONEST.copy()
    images[[3, 8]] = change(TRAIN[[1, 15]])
    before = names(tmp_path)
    with pytest.raises(PetganError, match="2 of 30 images are copies.*--allow-copies") as caught:
        synthesize(run.path, 30, tmp_path / "o.h5", draws(images), png=tmp_path / "p", dicom=tmp_path / "d")
    assert caught.value.exit_code == 1
    assert names(tmp_path) == before


def test_copies_that_are_allowed_are_on_record(run, tmp_path):
    lineage = synthesize(run.path, 4, tmp_path / "o.h5", draws(TRAIN), allow_copies=True)
    assert (lineage["copies_allowed"], lineage["copy_check"]["copies"]) == (True, 4)
    assert (tmp_path / "o.h5").is_file()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (HONEST // 40, "black: half of them have no grey level above"),
        (128 + HONEST // 100, "constant"),
        (np.random.default_rng(0).integers(0, 256, (30, 16, 16), np.uint8), "noise"),
        (np.repeat(HONEST[:1], 30, axis=0), "one or a few over and over"),
    ],
    ids=["black", "constant", "noise", "single-mode"],
)
def test_images_that_are_none_are_refused_even_where_copies_are_allowed(run, tmp_path, images, words):
    before = names(tmp_path)
    with pytest.raises(PetganError, match=f"{words}.*take another run") as caught:
        synthesize(run.path, 30, tmp_path / "o.h5", draws(images), allow_copies=True)
    assert caught.value.exit_code == 1
    assert names(tmp_path) == before


def test_images_that_tell_who_was_trained_on_are_refused(run, tmp_path, monkeypatch):
    """Halfway between a training image and an honest one: a copy of neither."""
    monkeypatch.setattr("petgan.metrics.copies.COPY_RATIO", 0)
    images = (0.7 * TRAIN + 0.3 * HONEST[:20]).astype(np.uint8)
    with pytest.raises(PetganError, match="knows who was trained on.*at most 1% of honest.*--allow-copies"):
        synthesize(run.path, 20, tmp_path / "o.h5", draws(images))
    lineage = synthesize(run.path, 20, tmp_path / "o.h5", draws(images), allow_copies=True)
    assert [gate["name"] for gate in lineage["gates"]] == ["memorised"]
    assert lineage["copy_check"]["memorisation"]["rejects"]


def test_a_dry_run_checks_and_writes_nothing(run, tmp_path):
    before = names(tmp_path)
    synthesize(run.path, 4, tmp_path / "o.h5", draws(HONEST), png=tmp_path / "p", dry_run=True)
    assert names(tmp_path) == before
    with pytest.raises(PetganError, match="copies"):
        synthesize(run.path, 4, tmp_path / "o.h5", draws(TRAIN), dry_run=True)


def test_png_and_dicom_hold_the_pixels_and_say_that_they_are_synthetic(run, tmp_path):
    synthesize(run.path, 3, tmp_path / "o.h5", draws(HONEST), png=tmp_path / "p", dicom=tmp_path / "d")
    labels = ["synthetic-000001", "synthetic-000002", "synthetic-000003"]
    assert names(tmp_path / "p") == [f"{label}.png" for label in labels]
    assert names(tmp_path / "d") == [f"{label}.dcm" for label in labels]
    uids = set()
    for number, label in enumerate(labels):
        with Image.open(tmp_path / "p" / f"{label}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), HONEST[number])
            assert "Synthetic" in image.info["Comment"]
        ds = pydicom.dcmread(tmp_path / "d" / f"{label}.dcm")
        np.testing.assert_array_equal(ds.pixel_array, HONEST[number])
        assert ds.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
        assert ds.PatientID == label
        assert str(ds.PatientName).startswith("SYNTHETIC^")
        assert (ds.SyntheticData, ds.QualityControlImage, ds.BurnedInAnnotation) == ("YES", "YES", "NO")
        assert ds.Manufacturer == "petgan"
        assert "ynthetic" in ds.SeriesDescription
        assert "ynthetic" in ds.ImageComments
        uids |= {ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID}
    assert len(uids) == 9
    assert all(uid.is_valid for uid in uids)


def test_the_same_request_gives_the_same_bytes(run, tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        synthesize(run.path, 3, folder / "o.h5", draws(HONEST), png=folder / "p", dicom=folder / "d")
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 10
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_failure_while_writing_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise DiskError("cannot write: the disk is full")

    monkeypatch.setattr("petgan.synthesize.write_dataset", full)
    before = names(tmp_path)
    with pytest.raises(DiskError):
        synthesize(run.path, 3, tmp_path / "o.h5", draws(HONEST), png=tmp_path / "p", dicom=tmp_path / "d")
    assert names(tmp_path) == before


def test_a_folder_that_holds_something_is_refused_and_an_empty_one_taken(run, tmp_path):
    (tmp_path / "p").mkdir()
    synthesize(run.path, 3, tmp_path / "o.h5", draws(HONEST), png=tmp_path / "p")
    assert len(names(tmp_path / "p")) == 3
    with pytest.raises(ConfigError, match="no empty folder"):
        synthesize(run.path, 3, tmp_path / "new.h5", draws(HONEST), png=tmp_path / "p")
    assert not (tmp_path / "new.h5").exists()


def test_a_checkpoint_knows_its_run_folder(run, tmp_path):
    lineage = synthesize(run.best_checkpoint, 3, tmp_path / "o.h5", draws(HONEST))
    assert lineage["copy_check"]["checked"]


def test_a_generator_of_unknown_origin_needs_its_dataset_or_the_word(tmp_path, data):
    published = tmp_path / "elsewhere" / "generator.h5"
    published.parent.mkdir()
    with h5py.File(published, "w") as file:
        file["weights"] = np.zeros(3)
    output = tmp_path / "o.h5"
    with pytest.raises(InputError, match="--dataset.*--allow-copies"):
        synthesize(published, 3, output, draws(HONEST))
    lineage = synthesize(published, 3, output, draws(HONEST), dataset=data)
    assert (lineage["run_id"], lineage["dataset_digest"]) == (None, None)
    with Dataset(data) as dataset:
        assert lineage["copy_check"]["dataset_digest"] == dataset.digest
    lineage = synthesize(published, 3, output, draws(HONEST), allow_copies=True)
    assert (lineage["copy_check"]["checked"], lineage["gates"]) == (False, None)
    assert "The images were not checked" in output.with_suffix(".datasheet.md").read_text()


def test_another_dataset_than_the_trainings_is_refused(run, make_dataset, tmp_path):
    other = make_dataset("other.h5")
    with pytest.raises(DatasetError, match="not what the generator was trained on"):
        synthesize(run.path, 3, tmp_path / "o.h5", draws(HONEST), dataset=other)


def test_a_lost_dataset_is_an_error_unless_copies_are_allowed(run, data, tmp_path):
    data.unlink()
    with pytest.raises(DatasetError, match="no dataset"):
        synthesize(run.path, 3, tmp_path / "o.h5", draws(HONEST))
    lineage = synthesize(run.path, 3, tmp_path / "o.h5", draws(HONEST), allow_copies=True)
    assert lineage["copy_check"] == {"checked": False, "reason": "the training images were not at hand"}


def test_one_training_patient_gives_no_scale_for_copies(tmp_path, make_run):
    rows = [(Row("p", f"s{i:02d}", "train", "slice"), image) for i, image in enumerate(TRAIN)]
    data = tmp_path / "one.h5"
    write_dataset(data, rows, image_size=16, modality="pet", units="bqml", window="full")
    folder = make_run(data)
    folder.checkpoints.mkdir()
    with h5py.File(folder.best_checkpoint, "w") as file:
        file.attrs["digest"] = "abc"
    with pytest.raises(ConfigError, match="two training patients"):
        synthesize(folder.path, 3, tmp_path / "o.h5", draws(HONEST))
    lineage = synthesize(folder.path, 3, tmp_path / "o.h5", draws(HONEST), allow_copies=True)
    assert lineage["copy_check"]["checked"] is False


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"count": 0}, "1 to 50000"),
        ({"seed": -1}, "seed"),
        ({"output": "o.png"}, "ends in .h5"),
        ({"output": "data.h5"}, "would replace"),
        ({"source": "nowhere"}, "no run folder and no file"),
        ({"source": "notes.txt"}, "no HDF5 file"),
    ],
)
def test_what_cannot_be_is_refused_by_name(run, data, tmp_path, change, word):
    (tmp_path / "notes.txt").write_text("words")
    given = {"count": 3, "output": "o.h5", "seed": 0, **change}
    source = tmp_path / given["source"] if "source" in given else run.path
    before = data.read_bytes()
    with pytest.raises((ConfigError, InputError), match=word):
        synthesize(source, given["count"], tmp_path / given["output"], draws(HONEST), seed=given["seed"])
    assert data.read_bytes() == before


def test_the_command_refuses_a_generator_that_has_learned_one_image_by_heart(data, make_run, tmp_path, capfd):
    from petgan.checkpoint import write_checkpoint
    from petgan.methods.adversarial import make_networks

    run = make_run(data, preset="gan")
    networks = make_networks(run.config().point)
    write_checkpoint(run.checkpoint_file(1), networks, run.config(), step=1)
    arguments = ["synthesize", str(run.path), "--count", "6", "--output", str(tmp_path / "o.h5")]
    assert main(arguments) == 1
    assert "the images are noise" in capfd.readouterr().err

    layer = [layer for layer in networks.ema_generator.layers if layer.weights][-1]
    kernel, bias = layer.get_weights()
    fields = np.random.default_rng(0).normal(size=(len(kernel), 16, 16))
    layer.set_weights([gaussian_filter(fields, (0, 1.5, 1.5)).reshape(kernel.shape) / 8, bias])
    write_checkpoint(run.checkpoint_file(1), networks, run.config(), step=1)
    assert main([*arguments, "--png", str(tmp_path / "p")]) == 0
    assert len(names(tmp_path / "p")) == 6

    inner = np.clip(TRAIN[4].ravel() / 127.5 - 1, -0.999, 0.999)
    layer.set_weights([kernel * 0, np.arctanh(inner)])
    write_checkpoint(run.best_checkpoint, networks, run.config(), step=2)
    (tmp_path / "o.h5").unlink()
    capfd.readouterr()
    assert main(arguments) == 1
    assert "6 of 6 images are copies" in capfd.readouterr().err
    assert not (tmp_path / "o.h5").exists()


def test_a_worker_that_is_stopped_leaves_nothing_behind(run, tmp_path):
    script = (
        "import os, signal, sys; from petgan import synthesize, worker\n"
        "def stop(*a, **k): os.kill(os.getpid(), signal.SIGTERM)\n"
        "synthesize.write_dataset = stop\n"
        "import numpy as np; from scipy.ndimage import gaussian_filter\n"
        "smooth = gaussian_filter(np.random.default_rng(9).normal(size=(3, 16, 16)), (0, 1.5, 1.5))\n"
        "images = np.clip(128 + 200 * smooth, 0, 255).astype(np.uint8)\n"
        "worker.draw = lambda *a, **k: (images, None); worker.import_quietly = lambda: None\n"
        "sys.exit(worker.main(sys.argv[1:]))"
    )
    arguments = {
        "source": str(run.path),
        "count": 3,
        "output": str(tmp_path / "o.h5"),
        "png": str(tmp_path / "p"),
    }
    before = names(tmp_path)
    command = [sys.executable, "-c", script, "synthesize", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")
    assert names(tmp_path) == before


@pytest.fixture
def transferred(run, make_dataset, make_run):
    """A run on other images that started from `run`, whose own images it may know by heart."""
    other = make_run(
        make_dataset("other.h5"), "transferred", init_from=str(run.best_checkpoint), init_digest="abc"
    )
    other.checkpoints.mkdir()
    config = other.config()
    with h5py.File(other.best_checkpoint, "w") as file:
        values = {
            "digest": "def",
            "step": 7,
            "run_id": config.run_id,
            "dataset_digest": config.dataset.digest,
            "point": config.point.model_dump_json(),
        }
        file.attrs.update(values)
    return other


def test_a_transferred_generator_is_checked_against_what_it_started_from(transferred, data, tmp_path):
    output = tmp_path / "out.h5"
    with pytest.raises(PetganError, match="copies of training images"):
        synthesize(transferred.path, 20, output, draws(TRAIN))
    assert not output.exists()
    lineage = synthesize(transferred.path, 20, output, draws(HONEST))
    (parent,) = lineage["started_from"]
    with Dataset(data) as dataset:
        assert parent["dataset_digest"] == dataset.digest
    assert parent["copy_check"]["copies"] == 0


def test_where_the_images_of_the_start_are_lost_the_word_is_needed(transferred, data, tmp_path):
    data.unlink()
    with pytest.raises(DatasetError):
        synthesize(transferred.path, 20, tmp_path / "out.h5", draws(HONEST))
    lineage = synthesize(transferred.path, 20, tmp_path / "out.h5", draws(HONEST), allow_copies=True)
    assert lineage["started_from"][0]["copy_check"]["checked"] is False
