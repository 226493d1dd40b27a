"""What is read from an experiment's folder, and what is refused."""

from __future__ import annotations

import pytest

import petgan
from petgan.errors import ConfigError, InputError
from petgan.report.frames import pivoted
from petgan.report.results import read_experiment
from tests.report.experiments import KID_RULER, gate, score, write_experiment

GAN = {"preset": "gan"}


def test_one_row_a_run_and_score(tmp_path):
    runs = [
        {"values": GAN | {"seed": 0}, "scores": [score("kid", 0.25), score("fid", 120.5, floor=None)]},
        {"values": GAN | {"seed": 1}, "state": "failed", "error": "d_loss is not a number; try less"},
        {"values": GAN | {"seed": 2}, "state": "new"},
    ]
    frame = petgan.load_results(write_experiment(tmp_path, runs))
    assert frame["seed"].tolist() == [0, 0, 1, 2]
    assert frame["score"].fillna("").tolist() == ["kid", "fid", "", ""]
    assert frame["value"].tolist()[:2] == [0.25, 120.5]
    assert frame["headline"].tolist()[:2] == [True, False]
    assert frame["state"].tolist() == ["done", "done", "failed", "new"]
    assert frame["reason"].fillna("").tolist() == ["", "", "d_loss is not a number", ""]
    assert frame["floor"].tolist()[0] == 0.001
    assert frame["floor"].isna().tolist() == [False, True, True, True]
    assert set(frame["run_id"]) == {path.name for path in (tmp_path / "runs").iterdir()}


def test_a_score_without_a_value_is_no_score(tmp_path):
    run = {"values": GAN, "scores": [score("kid", 0.25), score("fid", None)]}
    assert list(read_experiment(write_experiment(tmp_path, [run])).scores) == ["kid"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ruler": "kid/other-network"}, "differs in ruler"),
        ({"n_fake": 151}, "differs in number of generated images"),
        ({"n_real": 41}, "differs in number of real images"),
        ({"protocol": "thesis"}, "differs in protocol"),
    ],
    ids=["ruler", "fake", "real", "protocol"],
)
def test_different_rulers_are_refused_and_named(tmp_path, change, named):
    runs = [
        {"values": GAN | {"seed": 0}, "scores": [score("kid", 0.2)]},
        {"values": GAN | {"seed": 1}, "scores": [score("kid", 0.3) | change]},
    ]
    experiment = read_experiment(write_experiment(tmp_path, runs))
    with pytest.raises(ConfigError) as error:
        _ = experiment.scores
    assert KID_RULER in str(error.value)
    assert named in str(error.value)
    assert str(next(iter(change.values()))) in str(error.value)
    assert all(run.run_id in str(error.value) for run in experiment.runs)


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


def test_the_pivot_and_the_long_table_say_the_same(tmp_path):
    runs = [
        {"values": GAN | {"seed": seed}, "scores": [score("kid", 0.1 * seed), score("swd", 80.0 + seed)]}
        for seed in range(3)
    ]
    runs.append({"values": GAN | {"seed": 3}, "state": "new"})
    long = petgan.load_results(write_experiment(tmp_path, runs))
    wide = pivoted(long)
    assert len(wide) == 4
    for name in ("kid", "swd"):
        of_score = long[long["score"] == name].set_index("run_id")["value"]
        found = wide.set_index("run_id")[name].dropna()
        assert found.to_dict() == of_score.to_dict()


def test_gates_and_blindness_are_columns(tmp_path):
    run = {"values": GAN, "scores": [score("kid", 0.2, blind_to=["shifted", "repeated"])]}
    frame = petgan.load_results(
        write_experiment(tmp_path, [run | {"gates": [gate("noise"), gate("copied")]}])
    )
    (row,) = frame.to_dict("records")
    assert row["gates"] == "noise copied"
    assert row["blind_to"] == "shifted repeated"
    assert (row["better"], row["protocol"]) == ("lower", "petgan")
    assert (row["floor_low"], row["floor_high"]) == (-0.0005, 0.0025)
