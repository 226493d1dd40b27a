"""What is read from an experiment's folder, and what is refused."""

from __future__ import annotations

import pytest

import petgan
from petgan.errors import ConfigError, InputError
from petgan.report.results import read_experiment
from tests.report.experiments import KID_RULER, gate, score, write_experiment

GAN = {"preset": "gan"}


def test_one_row_a_run_and_score(tmp_path):
    runs = [
        {"values": GAN | {"seed": 0},
         "scores": [score("kid", 0.25, blind_to=["noisy", "repeated"]), score("fid", 120.5, floor=None)],
         "gates": [gate("copied"), gate("black")]},
        {"values": GAN | {"seed": 1}, "state": "failed", "error": "d_loss is not a number; try less"},
        {"values": GAN | {"seed": 2}, "state": "new"},
    ]  # fmt: skip
    frame = petgan.load_results(write_experiment(tmp_path, runs))
    assert frame["seed"].tolist() == [0, 0, 1, 2]
    assert frame["score"].fillna("").tolist() == ["kid", "fid", "", ""]
    assert frame["value"].tolist()[:2] == [0.25, 120.5]
    assert frame["headline"].tolist()[:2] == [True, False]
    assert frame["state"].tolist() == ["done", "done", "failed", "new"]
    assert frame["reason"].fillna("").tolist() == ["", "", "d_loss is not a number", ""]
    assert frame["floor"].tolist()[0] == 0.001
    assert frame["floor"].isna().tolist() == [False, True, True, True]
    assert frame["protocol"].tolist()[:2] == ["petgan", "petgan"]
    assert frame["better"].tolist()[:2] == ["lower", "lower"]
    assert (frame["floor_low"][0], frame["floor_high"][0]) == (-0.0005, 0.0025)
    assert frame["blind_to"].tolist()[0] == "noisy repeated"
    assert frame["gates"].tolist() == ["copied black"] * 2 + [""] * 2
    assert set(frame["run_id"]) == {path.name for path in (tmp_path / "runs").iterdir()}


def test_a_score_without_a_value_is_no_score(tmp_path):
    run = {"values": GAN, "scores": [score("kid", 0.25), score("fid", None)]}
    assert list(read_experiment(write_experiment(tmp_path, [run])).scores) == ["kid"]


@pytest.mark.parametrize(
    "change",
    [{"ruler": "kid other-network"}, {"n_fake": 151}, {"n_real": 41}, {"protocol": "thesis"}],
    ids=["ruler", "fake", "real", "protocol"],
)
def test_different_rulers_are_refused_and_named(tmp_path, change):
    runs = [
        {"values": GAN | {"seed": 0}, "scores": [score("kid", 0.2)]},
        {"values": GAN | {"seed": 1}, "scores": [score("kid", 0.3) | change]},
    ]
    experiment = read_experiment(write_experiment(tmp_path, runs))
    with pytest.raises(ConfigError) as error:
        _ = experiment.scores
    assert KID_RULER in str(error.value)
    assert str(next(iter(change.values()))) in str(error.value)
    assert all(run.run_id in str(error.value) for run in experiment.runs)


def test_scores_of_another_version_are_left_out_and_said(tmp_path):
    run = {"values": GAN, "scores": [score("kid", 0.25)], "schema_version": 1}
    experiment = read_experiment(write_experiment(tmp_path, [run]))
    assert experiment.scores == {}
    assert "evaluate again" in experiment.runs[0].state_in_words


@pytest.mark.parametrize(
    ("resources", "expected"),
    [({}, ("process", 40.0)), ({"tasks": 4}, ("process", 160.0)), ({"nodes": 2, "gpus": 4}, ("GPU", 320.0))],
)
def test_time_of_devices(tmp_path, resources, expected):
    path = write_experiment(tmp_path, [{"values": GAN, "resources": resources}])  # 40 s of training
    assert read_experiment(path).runs[0].device_seconds == expected


def test_different_headlines_ask_for_a_choice(tmp_path):
    runs = [
        {"values": GAN | {"seed": 0}, "scores": [score("kid", 0.2), score("swd", 80.0)]},
        {"values": GAN | {"seed": 1}, "scores": [score("swd", 90.0)]},
    ]
    experiment = read_experiment(write_experiment(tmp_path, runs))
    with pytest.raises(ConfigError, match="--score"):
        experiment.headline()
    assert experiment.headline("swd").name == "swd"


def test_a_score_that_no_run_has(tmp_path):
    experiment = read_experiment(
        write_experiment(tmp_path, [{"values": GAN, "scores": [score("swd", 80.0)]}])
    )
    with pytest.raises(InputError, match="allowed: swd"):
        experiment.headline("kid")


def test_without_scores_there_is_no_headline(tmp_path):
    assert read_experiment(write_experiment(tmp_path, [{"values": GAN}])).headline() is None


def test_a_damaged_status_is_one_sentence(tmp_path):
    path = write_experiment(tmp_path, [{"values": GAN}])
    next(path.glob("runs/*/status.json")).write_text("{")
    with pytest.raises(InputError, match=r"status\.json"):
        read_experiment(path)


@pytest.mark.parametrize(
    ("values", "printed"),
    [((373.394, 350.1), "373.4"), ((0.08679, 0.1), "0.08679"), ((15000.0,), "15000"), ((0.0,), "0.000")],
)
def test_numbers_have_four_digits(tmp_path, values, printed):
    runs = [{"values": GAN | {"seed": i}, "scores": [score("kid", v)]} for i, v in enumerate(values)]
    assert read_experiment(write_experiment(tmp_path, runs)).scores["kid"].number(values[0]) == printed
