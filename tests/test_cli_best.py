"""petgan best: what it prints of an experiment, and what it gives as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from petgan import cli
from petgan.runs import ExperimentFolder, write_json
from petgan.verdicts import Measured, difference, interval

# preset, dropout: value of each seed
SCORES = {
    ("gan", 0.3): [1.0, 1.1, 0.9],
    ("gan", 0.4): [1.05, 1.0, 1.1],
    ("gan", 0.5): [9.0, 9.1, 9.0],
    ("gan", 0.6): [0.1],
    ("dcgan", 0.3): [5.0, 5.1, 5.2],
    ("dcgan", 0.4): [0.2, 0.1, 0.15],
}
GATED = {("dcgan", 0.4): "copied"}  # in its first run


def write(folder, scores=SCORES, gated=GATED, better="lower"):
    experiment = ExperimentFolder(folder)
    points = []
    for (preset, dropout), values in scores.items():
        for seed, value in enumerate(values):
            run_id = f"{preset}-{dropout}-{seed}"
            point = {"preset": preset, "dropout": dropout, "seed": seed, "init_from": None}
            points.append({"run_id": run_id, "start": "scratch", "sweeps": ["s"], "point": point})
            score = {
                "name": "kid", "value": value, "ruler": "kid|net", "protocol": "petgan", "better": better,
                "n_real": 60, "n_fake": 150, "without": [],
            }  # fmt: skip
            gates = [{"name": gated[preset, dropout]}] if (preset, dropout) in gated and not seed else []
            evaluation = {"schema_version": 2, "headline": "kid", "scores": [score], "gates": gates}
            write_json(experiment.run(run_id).evaluation_file, evaluation)
    write_json(experiment.record_file, {"points": points})
    return str(experiment.path)


def printed(capsys, *arguments):
    assert cli.main(["best", *arguments]) == 0
    return capsys.readouterr().out


def test_the_best_of_each_preset_and_of_all_in_words(tmp_path, capsys):
    out = printed(capsys, write(tmp_path))
    lines = out.splitlines()
    common = "no difference is shown to gan dropout=0.4; not compared, as of a single seed: gan dropout=0.6"
    assert (
        "all: gan dropout=0.3 beats 2 of 3 other configurations; "
        f"{common}; blocked by gates: dcgan dropout=0.4 (copied)." in lines
    )
    assert f"gan: gan dropout=0.3 beats 1 of 2 other configurations; {common}." in lines
    assert (
        "dcgan: dcgan dropout=0.3 has nothing to be compared with; "
        "blocked by gates: dcgan dropout=0.4 (copied)." in lines
    )
    (row,) = [line for line in lines if line.startswith("│ all ")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    of_best = interval(Measured(dict(enumerate(SCORES["gan", 0.3]))))
    assert cells == [
        "all", "gan dropout=0.3", "1", f"{of_best.low:.4g} to {of_best.high:.4g}", "3",
        str(ExperimentFolder(tmp_path).run("gan-0.3-2").path),
    ]  # fmt: skip
    assert "Lower is better. 150 generated against 60 real images, protocol petgan, by kid|net." in lines


def test_the_json_has_every_configuration_with_its_verdict(tmp_path, capsys):
    found = json.loads(printed(capsys, write(tmp_path), "--json"))
    assert list(found) == [
        "schema_version", "score", "better", "ruler", "protocol", "n_real", "n_fake", "of_patients",
            "overall", "presets",
    ]  # fmt: skip
    assert list(found["presets"]) == ["gan", "dcgan"]
    best = found["overall"]["best"]
    assert list(best) == [
        "name", "configuration", "run_ids", "seeds", "mean", "low", "high", "reservation", "run_id", "value",
        "path",
    ]  # fmt: skip
    assert (best["run_id"], best["value"], best["reservation"]) == ("gan-0.3-2", 0.9, None)
    rows = found["overall"]["configurations"]
    assert all(
        list(row) == [
            "name", "configuration", "start", "run_ids", "seeds", "mean", "low", "high", "gates", "verdict",
            "difference", "adjusted_p",
        ]
        for row in rows
    )  # fmt: skip
    assert [(row["name"], row["verdict"]) for row in rows] == [
        ("gan dropout=0.6", "single seed"), ("dcgan dropout=0.4", "gated"), ("gan dropout=0.3", "best"),
        ("gan dropout=0.4", "tie"), ("dcgan dropout=0.3", "worse"), ("gan dropout=0.5", "worse"),
    ]  # fmt: skip
    last, first = (Measured(dict(enumerate(SCORES["gan", dropout]))) for dropout in (0.5, 0.3))
    assert rows[-1]["difference"] == asdict(difference(last, first))
    assert rows[0]["low"] is None


def test_of_a_single_preset_there_is_one_line(tmp_path, capsys):
    only = {key: values for key, values in SCORES.items() if key[0] == "gan"}
    assert "all:" not in printed(capsys, write(tmp_path, only))


def test_one_seed_of_each_is_taken_and_not_called_better(tmp_path, capsys):
    single = {("gan", 0.3): [2.0], ("gan", 0.4): [1.0]}
    out = printed(capsys, write(tmp_path, single))
    assert (
        "gan: gan dropout=0.4 comes first, from a single seed, so not shown to be better than any other; "
        "not compared, as of a single seed: gan dropout=0.3." in out
    )


def test_many_are_counted_rather_than_named(tmp_path, capsys):
    many = {("gan", n): [1.0 + n / 1000, 1.1, 0.8 - n / 1000] for n in range(8)}
    out = printed(capsys, write(tmp_path, many))
    assert "beats none of 7 other configurations; no difference is shown to gan dropout=" in out
    assert "and 2 more (--json names them)." in out


def test_higher_may_be_better(tmp_path, capsys):
    out = printed(capsys, write(tmp_path, gated={}, better="higher"))
    assert "all: gan dropout=0.5 beats 4 of 4 other configurations;" in out
    assert "Higher is better." in out


@pytest.mark.parametrize(
    ("scores", "gated", "options", "message"),
    [
        ({}, {}, [], "no run has been scored yet; run 'petgan evaluate' first"),
        (SCORES, {}, ["--score", "swd"], "no run has this score: got 'swd'; allowed: kid"),
        ({("gan", 0.3): [1.0]}, {("gan", 0.3): "black"}, [], "gates block every configuration: black 1 run"),
    ],
)
def test_without_a_best_it_says_why(tmp_path, capsys, scores, gated, options, message):
    assert cli.main(["best", write(tmp_path, scores, gated), *options]) == 2
    assert message in capsys.readouterr().err
