"""The curves' numbers by hand; their figures as files."""

from __future__ import annotations

import io
import json
import statistics

import numpy as np
import pytest
from PIL import Image

from petgan.report.plots import Metrics, draw_curves
from petgan.report.results import read_experiment
from petgan.report.tables import make_tables
from tests.report.experiments import write_experiment

TABLE = {"title": "Dropout", "sweep": "sweep", "rows": "dropout", "columns": "optimizer", "by": "preset"}


@pytest.fixture
def experiment(tmp_path):
    runs = [
        {"values": {"preset": "gan", "dropout": dropout, "optimizer": optimizer, "seed": seed}}
        for dropout in (0.4, 0.5)
        for optimizer in ("adam", "rmsprop")
        for seed in (0, 1)
    ]
    return read_experiment(write_experiment(tmp_path, runs, tables=[TABLE]))


def _log(run, lines):
    run.folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_mean_and_band_over_seeds(experiment):
    first, second = experiment.runs[:2]
    _log(first, [{"step": step, "d_loss": step, "g_loss": 1.0} for step in (1, 2, 3)])
    _log(second, [{"step": step, "d_loss": 3.0, "g_loss": 5.0, "swd": 80.0} for step in (1, 2)])
    metrics = Metrics()
    generator = metrics.over_seeds([first, second], "g_loss")
    assert generator.to_dict("index") == {
        1: {"mean": 3.0, "min": 1.0, "max": 5.0},
        2: {"mean": 3.0, "min": 1.0, "max": 5.0},
        3: {"mean": 1.0, "min": 1.0, "max": 1.0},
    }
    assert metrics.over_seeds([first, second], "swd").index.tolist() == [1, 2]
    running = metrics.of(first)["d_running_mean"].tolist()
    assert running == [statistics.fmean([1, 2, 3][:n]) for n in (1, 2, 3)]


def test_figures_of_a_table(experiment):
    (table,) = make_tables(experiment, None, None)
    curves = list(draw_curves(table, Metrics()))
    assert [c.slug for c in curves] == ["dropout-gan-loss", "dropout-gan-loss-later", "dropout-gan-swd"]
    assert "without the first 2 steps" in curves[1].caption  # 250 of 4000, of 40
    for c in curves:
        image = np.asarray(Image.open(io.BytesIO(c.png)).convert("RGB"))
        colours = {tuple(colour) for colour in image.reshape(-1, 3)}
        assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours  # both rows have their line


def test_nothing_logged_is_no_figure(tmp_path):
    runs = [{"values": {"preset": "gan"}, "state": "new"}]
    (table,) = make_tables(read_experiment(write_experiment(tmp_path, runs, tables=[TABLE])), None, None)
    assert list(draw_curves(table, Metrics())) == []


def test_without_validation_scores_there_is_no_such_figure(tmp_path):
    path = write_experiment(tmp_path, [{"values": {"preset": "gan"}}], tables=[TABLE])
    experiment = read_experiment(path)
    _log(experiment.runs[0], [{"step": 1, "d_loss": 1.0, "g_loss": 1.0}])
    (table,) = make_tables(experiment, None, None)
    assert [curves.slug for curves in draw_curves(table, Metrics())] == ["dropout-gan-loss"]


def test_a_run_without_a_discriminator_has_the_curve_of_its_generator(experiment):
    for run in experiment.runs:
        _log(run, [{"step": step, "g_loss": 1 / step} for step in range(1, 41)])
    (table,) = make_tables(experiment, None, None)
    metrics = Metrics()
    assert metrics.over_seeds(experiment.runs, "d_running_mean").empty
    assert [c.slug for c in draw_curves(table, metrics)] == ["dropout-gan-loss", "dropout-gan-loss-later"]
