"""The training loop: what it writes and when, and that an interruption leaves no trace."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from petgan import trainer, watch, worker
from petgan.checkpoint import read_generator, read_header
from petgan.distributed import ALONE, Alone
from petgan.errors import DiskError, Interrupted, TrainingError
from petgan.methods import method_of
from petgan.methods.feed import Data
from petgan.session import Follower, Session
from petgan.store import Dataset


def train(run, score=None, session=None):
    config = run.config()
    with Dataset(config.dataset.path) as dataset:
        images = dataset.images("train")
    with session or Session(run) as claimed:
        trainer.train(run, config, Data(images), claimed, score)


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
    names = {"step", "d_loss", "g_loss", "d_real", "d_fake", "d_gradient", "g_gradient", "variation"}
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


def test_several_updates_in_one_call_do_what_they_do_one_by_one(make_dataset, make_run):
    dataset = make_dataset()
    one = make_run(dataset, "one")
    train(one, brightness)
    several = make_run(dataset, "several", resources={"steps_per_call": 5})
    train(several, brightness)
    assert results(one) == results(several)


def test_what_a_thread_writes_beside_a_gpu_is_the_same(make_dataset, make_run, monkeypatch):
    dataset = make_dataset()
    run = make_run(dataset, "plain")
    train(run, brightness)
    monkeypatch.setattr(trainer, "on_gpu", lambda: True)
    monkeypatch.setattr(trainer, "compiles", lambda data, ranks: False)
    beside = make_run(dataset, "beside")
    train(beside, brightness)
    assert results(run) == results(beside)
    assert run.status().last == beside.status().last


def test_beside_a_gpu_a_generator_is_shown_what_it_is_shown_elsewhere(make_dataset, make_run, monkeypatch):
    source = make_dataset("source.h5", seed=1)
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 1), dtype=np.uint8)
    sheets = []
    for gpu in (False, True):
        monkeypatch.setattr(trainer, "on_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setattr(trainer, "compiles", lambda data, ranks: False)
        few = {"preset": "cut", "batch_size": 2, "steps": 2}
        run = make_run(make_dataset(), f"run-{gpu}", {"sample": 1}, source, **few)
        with Session(run) as session:
            data = Data(images, source=images, shown=images[:3])
            trainer.train(run, run.config(), data, session, None)
        sheets.append([path.read_bytes() for path in sorted(run.samples.glob("*.png"))])
    assert len(sheets[0]) == 2
    assert sheets[0] == sheets[1]


def test_xla_gets_no_update_that_streams_its_images(monkeypatch):
    monkeypatch.setattr(trainer, "on_gpu", lambda: True)
    resident, streamed = np.zeros((4, 16, 16, 1), "uint8"), object()
    for images, source, compiles in (
        (resident, None, True),
        (resident, resident, True),
        (streamed, None, False),
        (resident, streamed, False),
    ):
        assert trainer.compiles(Data(images, source=source), ALONE) == compiles


@pytest.fixture
def beside_a_gpu(monkeypatch):
    """Output by a thread, as where there is a GPU."""
    monkeypatch.setattr(trainer, "on_gpu", lambda: True)
    monkeypatch.setattr(trainer, "compiles", lambda data, ranks: False)


def test_an_error_of_that_thread_ends_the_run(make_dataset, make_run, beside_a_gpu):
    run = make_run(make_dataset(), "broken")

    def broken(generator):
        raise DiskError("the disk is full")

    with pytest.raises(DiskError):
        train(run, broken)
    assert run.status().state == "failed"


def test_what_waits_is_written_before_an_error_of_the_training_ends_the_run(
    make_dataset, make_run, beside_a_gpu, monkeypatch
):
    run, scored = make_run(make_dataset(), every={"log": 1, "score": 3, "sample": 12, "checkpoint": 12}), []

    def slow(generator):
        time.sleep(0.5)
        scored.append(True)
        return 1.0

    def diverged(unread):
        if unread[-1][0] == 4:
            raise TrainingError("diverged")
        return read(unread)

    read = trainer._read
    monkeypatch.setattr(trainer, "_read", diverged)
    with pytest.raises(TrainingError, match="diverged"):
        train(run, slow)
    assert scored == [True]
    assert [line["step"] for line in lines(run)] == [1, 2, 3]


def test_nothing_is_written_behind_what_could_not_be_written(make_dataset, make_run, beside_a_gpu):
    run = make_run(make_dataset(), every={"log": 1, "score": 3, "sample": 12, "checkpoint": 12})

    def broken(generator):
        time.sleep(0.5)
        raise DiskError("the disk is full")

    with pytest.raises(DiskError):
        train(run, broken)
    assert [line["step"] for line in lines(run)] == [1, 2]


@pytest.mark.parametrize(("recipe", "rate", "first"), [("thesis", 1e9, 2), ("stable", 1e30, 1)])
def test_a_loss_that_is_not_a_number_is_found_at_its_step_and_not_saved(
    make_dataset, make_run, recipe, rate, first
):
    run = make_run(
        make_dataset(),
        steps=30,
        recipe=recipe,
        optimizer="sgd",
        learning_rate=rate,
        gradient_clip=1e9,
        every={"log": 30, "checkpoint": 30},
    )
    config = run.config()
    with Dataset(config.dataset.path) as dataset:
        method = method_of(config.point.preset)
        networks = method.make_networks(config.point)
        update = tf.function(
            method.make_update(config.point, networks, Data(dataset.images("train")), ALONE), autograph=False
        )
    for first_bad in range(1, 31):
        if not all(math.isfinite(float(v)) for v in update(tf.constant(first_bad - 1)).values()):
            break
    assert first <= first_bad < 30

    with pytest.raises(TrainingError, match=f"is not a number at step {first_bad}: got"):
        train(run)
    assert run.status().state == "failed"
    assert f"at step {first_bad}:" in run.status().error
    assert run.last_checkpoints() == []
    assert lines(run) == []


def test_weights_that_are_not_numbers_are_not_saved_though_no_loss_has_seen_them(
    make_dataset, make_run, monkeypatch
):
    def spoiling(point, networks, data, ranks):
        def update(step):
            networks.generator.trainable_weights[-1].assign([math.nan])
            return {"g_loss": tf.constant(1.0)}

        return update

    spoils = replace(method_of("dcgan"), make_update=spoiling)
    monkeypatch.setattr(trainer, "method_of", lambda preset: spoils)
    run = make_run(make_dataset(), every={"log": 5, "sample": 12, "score": 12, "checkpoint": 4})
    with pytest.raises(TrainingError, match="generator's weights are not numbers at step 4"):
        train(run)
    assert run.last_checkpoints() == []


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


# --- trouble ------------------------------------------------------------------------------------

COLLAPSED = "collapsed since step 5: generated images vary by 0.01 of what real ones do"


@pytest.fixture
def troubled(make_dataset, make_run, monkeypatch):
    """Make runs whose generated images vary no more at steps 5 to 8 and from 11 on; two lines are enough."""
    for name, value in {"WINDOW": 1, "GRACE": 2, "LINES": 2}.items():
        monkeypatch.setattr(watch, name, value)
    dataset = make_dataset()

    def make_update(point, networks, data, ranks):
        update = method_of(point.preset).make_update(point, networks, data)

        def planted(step):
            fails = ((step >= 4) & (step < 8)) | (step >= 10)
            return update(step) | {"variation": tf.where(fails, 0.01, 1.0)}

        return planted

    monkeypatch.setattr(trainer, "method_of", lambda name: replace(method_of(name), make_update=make_update))

    def make(name="run", on_trouble="continue", steps=14):
        run = make_run(dataset, name, {"log": 1, "sample": 7, "checkpoint": 7}, preset="gan", steps=steps)
        run.write_config(run.config().model_copy(update={"on_trouble": on_trouble}))
        return run

    return make


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_trouble_is_named_once_in_the_log_and_in_the_status_and_goes_when_it_has_gone(troubled, caplog):
    run = troubled()
    session, told = Session(run), []
    logged, session.logged = session.logged, lambda *args: (told.append(args[1]), logged(*args))
    train(run, session=session)
    again = COLLAPSED.replace("5", "11")
    assert told == [None] * 5 + [COLLAPSED] * 3 + [None] * 3 + [again] * 3
    assert warnings(caplog) == [COLLAPSED, again]
    assert (run.status().state, run.status().trouble) == ("done", again)


class Stopped(Session):
    """A session that is asked to stop when `after` steps are done: it ends one later."""

    def __init__(self, run, after):
        super().__init__(run)
        self._after = after

    @property
    def stop_requested(self):
        return self._status.step >= self._after


def test_an_interrupted_training_comes_to_the_same_trouble(troubled, caplog):
    whole, run = troubled("whole"), troubled("interrupted")
    train(whole)
    caplog.clear()
    for after in (4, 6):  # at the first line of trouble, and amid it
        with pytest.raises(Interrupted, match=f"stopped at step {after + 1} of 14"):
            train(run, session=Stopped(run, after))
        assert run.status().trouble == (COLLAPSED if after == 6 else None)
    train(run)
    assert run.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert run.status().trouble == whole.status().trouble is not None
    assert warnings(caplog) == [COLLAPSED, COLLAPSED.replace("5", "11")]


def test_a_run_that_is_to_stop_on_trouble_does_and_goes_on_when_it_is_started_again(troubled):
    whole, run = troubled("whole"), troubled(on_trouble="stop")
    train(whole)
    words = (
        f"{COLLAPSED}; stopped at step 6, after a checkpoint; try .* learning_rate.*; 'petgan retry' goes on"
    )
    with pytest.raises(TrainingError, match=words):
        train(run, session=Stopped(run, 5))  # a signal at that very step does not hide it
    assert (run.status().state, run.status().trouble) == ("failed", COLLAPSED)
    assert run.status().error.startswith(COLLAPSED)
    assert run.last_checkpoints()[0] == run.checkpoint_file(6)
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(TrainingError, match="since step 11: .* stopped at step 12"):
        train(run)
    train(run)
    assert run.status().state == "done"
    assert run.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert read_header(run.checkpoint_file(14)).digest == read_header(whole.checkpoint_file(14)).digest


def test_trouble_that_is_found_when_the_run_is_done_stops_nothing(troubled):
    run = troubled(on_trouble="stop", steps=6)
    train(run)
    assert (run.status().state, run.status().trouble) == ("done", COLLAPSED)
    assert run.generator_file.is_file()


def test_a_worker_that_stops_on_trouble_has_failed(troubled, monkeypatch, capfd):
    run = troubled(on_trouble="stop")
    monkeypatch.setattr(worker, "use_cpus", lambda cpus: None)  # TensorFlow takes it once a process
    assert worker.main(["train", json.dumps({"run": str(run.path)})]) == TrainingError.exit_code == 1
    assert f"petgan: {COLLAPSED}; stopped at step 6" in capfd.readouterr().err


def test_the_other_ranks_stop_with_the_first(troubled):
    class Second(Alone):
        """What a rank hears of the first, which has found trouble at step 6 and stops for nothing else."""

        rank = 1

        def any(self, flag):
            assert not flag
            return len(done) == 6

        def first_does(self, work):
            return ["collapsed", "try another"] if done else work()

    run, done = troubled(on_trouble="stop"), []
    config = run.config()
    with Dataset(config.dataset.path) as dataset:
        images = dataset.images("train")
    with (
        Follower() as session,
        pytest.raises(TrainingError, match="^collapsed; stopped at step 6.*try another"),
    ):
        session.progress = done.append
        trainer.train(run, config, Data(images), session, None, Second())
    assert not run.metrics_file.exists()
