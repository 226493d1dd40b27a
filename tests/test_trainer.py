"""The training loop: what it writes and when, and that an interruption leaves no trace."""

from __future__ import annotations

import json
import math
import os
import signal

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from petgan import trainer
from petgan.checkpoint import read_generator, read_header
from petgan.errors import Interrupted, TrainingError
from petgan.session import Session
from petgan.steps import make_networks, make_update
from petgan.store import Dataset


def train(run, score=None):
    config = run.config()
    with Dataset(config.dataset.path) as dataset:
        images = dataset.images("train")
    with Session(run) as session:
        trainer.train(run, config, images, session, score)


def lines(run):
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def brightness(generator):
    """A score without sense, but one that depends on the weights."""
    return float(np.mean(generator(np.ones((2, 8), "float32"), training=False))) + 2


def results(run):
    """All that a run has come to, as bytes and digests."""
    files = {p.name: p.read_bytes() for p in [run.metrics_file, *sorted(run.samples.glob("*.png"))]}
    names = ["best.h5", *(path.name for path in run.last_checkpoints())]
    return files | {name: read_header(run.checkpoints / name).digest for name in names}


def test_an_interrupted_run_ends_as_an_undisturbed_one(make_dataset, make_run):
    dataset = make_dataset()
    whole = make_run(dataset, "whole")
    train(whole, brightness)
    assert [line["step"] for line in lines(whole)] == [5, 6, 10, 12]
    assert ["swd" in line for line in lines(whole)] == [False, True, False, True]
    names = {"step", "d_loss", "g_loss", "d_real", "d_fake"}
    assert all(set(line) - {"swd"} == names for line in lines(whole))
    assert [p.name for p in whole.last_checkpoints()] == ["step-00000012.h5", "step-00000008.h5"]
    assert sorted(p.name for p in whole.samples.iterdir()) == ["step-00000006.png", "step-00000012.png"]
    with Image.open(whole.sample_file(12)) as sheet:
        assert sheet.size == (4 * 16 + 3 * 2, 4 * 16 + 3 * 2)
    assert list(whole.tensorboard.glob("events.*"))
    scores = {line["step"]: line["swd"] for line in lines(whole) if "swd" in line}
    best, header = read_generator(whole.best_checkpoint)
    assert header.step == min(scores, key=scores.get)
    assert brightness(best) == scores[header.step]
    status = whole.status()
    assert (status.state, status.step, status.last) == (
        "done",
        12,
        {k: v for k, v in lines(whole)[-1].items() if k != "step"},
    )
    exported = keras.models.load_model(whole.generator_file)
    noise = np.ones((2, 8), "float32")
    final, _ = read_generator(whole.checkpoint_file(12))
    assert exported(noise).numpy() == pytest.approx(final(noise).numpy(), abs=1e-6)

    run = make_run(dataset, "interrupted")

    def stop_in_the_middle(generator):
        os.kill(os.getpid(), signal.SIGTERM)
        return brightness(generator)

    with pytest.raises(Interrupted, match="stopped at step 7 of 12"):
        train(run, stop_in_the_middle)
    assert run.status().state == "interrupted"
    assert [p.name for p in run.last_checkpoints()] == ["step-00000007.h5", "step-00000004.h5"]
    # As if it had gone on, and been killed while it wrote a line.
    with open(run.metrics_file, "a") as file:
        file.write('{"step": 10, "d_loss": 7.0}\n{"step": 1')
    run.sample_file(12).write_bytes(b"half a picture")
    train(run, brightness)
    assert results(run) == results(whole)


def test_a_loss_that_is_not_a_number_is_found_at_its_step_and_not_saved(make_dataset, make_run):
    run = make_run(
        make_dataset(),
        steps=30,
        optimizer="sgd",
        learning_rate=1e9,
        gradient_clip=1e9,
        every={"log": 30, "checkpoint": 30},
    )
    config = run.config()
    with Dataset(config.dataset.path) as dataset:
        update = make_update(config.point, make_networks(config.point), dataset.images("train"))
    for first_bad in range(1, 31):
        if not all(math.isfinite(float(v)) for v in update(tf.constant(first_bad - 1)).values()):
            break
    assert 1 < first_bad < 30

    with pytest.raises(TrainingError, match=f"is not a number at step {first_bad}: got"):
        train(run)
    assert run.status().state == "failed"
    assert f"at step {first_bad}:" in run.status().error
    assert run.last_checkpoints() == []
    assert lines(run) == []


def test_a_transfer_starts_where_the_other_run_ended(make_dataset, make_run):
    dataset = make_dataset()
    source = make_run(dataset, "source", steps=1)
    train(source)
    path = source.checkpoint_file(1)
    run = make_run(dataset, "transfer", steps=1, learning_rate=1e-30, init_from=str(path), ema_decay=0.0)
    train(run)
    with h5py.File(path) as before, h5py.File(run.checkpoint_file(1)) as after:
        trained = [name for name in before["ema_generator"] if name.endswith(("kernel", "bias"))]
        assert len(trained) > 4
        for name in trained:
            assert np.abs(before["ema_generator"][name][()] - after["generator"][name][()]).max() < 1e-25
        assert after["generator_optimizer/000_iteration"][()] == 1


def test_a_run_whose_last_checkpoint_is_there_only_ends(make_dataset, make_run):
    """Killed between its last checkpoint and its end."""
    run = make_run(make_dataset(), steps=2)
    train(run)
    before = results_without_best(run)
    run.generator_file.unlink()
    run.update_status(state="running", pid=None, host="elsewhere")
    run.heartbeat_file.unlink()
    train(run)
    assert run.generator_file.is_file()
    assert run.status().state == "done"
    assert results_without_best(run) == before


def results_without_best(run):
    files = {p.name: p.read_bytes() for p in [run.metrics_file, *run.samples.glob("*.png")]}
    return files | {p.name: read_header(p).digest for p in run.last_checkpoints()}
