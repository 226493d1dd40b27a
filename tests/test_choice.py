"""The best configuration: by a mean over seeds, among scores that compare, past the gates."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from petgan.choice import (
    ONE_SEED,
    Score,
    best_by_preset,
    best_overall,
    configurations,
    headline,
    read_scores,
)
from petgan.errors import ConfigError, InputError
from petgan.runs import ExperimentFolder, write_json


def score(preset, dropout, seed, value, **changes):
    fields = {
        "run_id": f"{preset}-{dropout}-{seed}",
        "preset": preset,
        "configuration": {"preset": preset, "dropout": dropout},
        "seed": seed,
        "start": "scratch",
        "name": "kid",
        "value": value,
        "ruler": "kid|inception",
        "protocol": "petgan",
        "n_real": 60,
        "n_fake": 150,
        "headline": True,
    }
    return Score(**(fields | changes))


RECORDS = [
    score("gan", 0.4, 1, 9.0),
    score("gan", 0.4, 0, 1.0),  # the luckiest run, of the worse configuration
    score("gan", 0.5, 0, 3.0),
    score("gan", 0.5, 1, 4.0),
    score("gan", 0.5, 2, 2.0),
    score("dcgan", 0.4, 0, 3.5),
    score("dcgan", 0.4, 0, -1.0, name="fid", ruler="fid|inception", headline=False),
]


def test_the_best_is_the_lowest_mean_and_its_best_run_the_lowest_value():
    best = best_by_preset(RECORDS, "kid")
    assert list(best) == ["gan", "dcgan"]
    gan = best["gan"]
    assert gan.configuration == {"preset": "gan", "dropout": 0.5}
    assert (gan.mean, gan.n, gan.best_run, gan.best_value) == (3.0, 3, "gan-0.5-2", 2.0)
    assert gan.standard_deviation == pytest.approx(statistics.stdev([3, 4, 2]))
    assert gan.run_ids == ("gan-0.5-0", "gan-0.5-1", "gan-0.5-2")
    assert gan.reservation is None
    assert (best["dcgan"].mean, best["dcgan"].standard_deviation, best["dcgan"].n) == (3.5, None, 1)
    assert best_overall(RECORDS, "kid") == gan
    assert best_overall(RECORDS, "fid").preset == "dcgan"


def test_where_higher_is_better_the_choice_is_that_of_the_mirrored_scores():
    mirrored = [replace(record, value=-record.value, better="higher") for record in RECORDS]
    best = best_overall(mirrored, "kid")
    assert (best.mean, best.best_run, best.best_value) == (-3.0, "gan-0.5-2", -2.0)


def test_the_order_of_the_records_does_not_matter():
    assert best_overall(RECORDS[::-1], "kid") == best_overall(RECORDS, "kid")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ruler": "kid|other"}, "ruler is kid|inception in 6 runs (gan-0.4-1, gan-0.4-0, gan-0.5-0, ...)"),
        ({"protocol": "thesis"}, "protocol is petgan in 6 runs"),
        ({"n_real": 61}, "n_real is 60 in 6 runs (gan-0.4-1, gan-0.4-0, gan-0.5-0, ...) and 61 in 1 run (x)"),
        ({"n_fake": 404}, "and 404 in 1 run (x)"),
        ({"better": "higher"}, "better is higher in 1 run (x)"),
    ],
)
def test_scores_that_do_not_compare_are_not_mixed(changes, told):
    for choose in (best_by_preset, best_overall, configurations):
        with pytest.raises(ConfigError, match="these values of kid do not compare") as caught:
            choose([*RECORDS, score("gan", 0.6, 0, 0.1, run_id="x", **changes)], "kid")
        assert told in str(caught.value)


def test_a_score_that_nobody_has():
    with pytest.raises(InputError, match="no run has this score: got 'swd'; allowed: fid, kid"):
        best_overall(RECORDS, "swd")


def test_one_blocked_run_keeps_its_configuration_from_being_the_best():
    copied = score("gan", 0.5, 3, 0.0, gates=("copied",))
    best = best_overall([*RECORDS, copied], "kid")
    assert best.configuration["dropout"] == 0.4
    gates = {c.values["dropout"]: c.gates for c in configurations([*RECORDS, copied], "kid")[:2]}
    assert gates == {0.4: (), 0.5: ("copied",)}


def test_a_preset_that_gates_block_is_left_out_and_if_all_are_the_gates_are_named():
    blocked = [replace(r, gates=("black",)) if r.preset == "dcgan" else r for r in RECORDS]
    assert list(best_by_preset(blocked, "kid")) == ["gan"]
    blocked = [
        score("gan", 0.4, 0, 1.0, gates=("black", "copied")),
        score("gan", 0.4, 1, 1.0),
        score("gan", 0.5, 0, 1.0, gates=("copied",)),
    ]
    for choose in (best_by_preset, best_overall):
        with pytest.raises(
            InputError,
            match=r"every configuration: black 1 run \(gan-0.4-0\), copied 2 runs \(gan-0.4-0, gan-0.5-0\);",
        ):
            choose(blocked, "kid")


def test_a_single_seed_never_wins_against_several():
    several = [score("dcgan", 0.4, seed, 50.0) for seed in (0, 1)]
    lucky = score("dcgan", 0.5, 0, 10.0)
    assert best_by_preset([*several, lucky], "kid")["dcgan"].configuration["dropout"] == 0.4


def test_where_all_have_a_single_seed_the_best_is_taken_with_a_reservation():
    best = best_overall([score("gan", 0.4, 0, 2.0), score("gan", 0.5, 0, 1.0)], "kid")
    assert (best.best_run, best.reservation) == ("gan-0.5-0", ONE_SEED)


def test_the_headline():
    assert headline(RECORDS) == "kid"
    with pytest.raises(ConfigError, match="different scores; allowed: kid, swd"):
        headline([*RECORDS, score("gan", 0.4, 0, 1.0, name="swd")])
    with pytest.raises(InputError, match="no run has been scored yet"):
        headline([])


@pytest.fixture
def experiment(tmp_path):
    """Three points, the second of which has no scores."""
    experiment = ExperimentFolder(tmp_path)
    points = [
        {"run_id": f"r{n}", "start": "scratch", "sweeps": ["s"],
         "point": {"preset": "gan", "seed": n, "dropout": 0.4, "init_from": f"/{n}", "init_digest": None}}
        for n in range(3)
    ]  # fmt: skip
    write_json(experiment.record_file, {"points": points})
    common = {"protocol": "petgan", "better": "higher", "n_real": 3, "n_fake": 4, "without": [0.1, 0.2]}
    for n in (0, 2):
        scores = [
            {"name": "kid", "value": n + 0.5, "ruler": "k", **common},
            {"name": "fid", "value": None, "ruler": "f", **common},
        ]
        gates = [{"name": "noise"}] if n == 2 else []
        evaluation = {"schema_version": 2, "headline": "kid", "scores": scores, "gates": gates}
        write_json(experiment.run(f"r{n}").evaluation_file, evaluation)
    return experiment


def test_scores_are_read_from_the_evaluated_runs(experiment):
    alike = {
        "preset": "gan", "configuration": {"preset": "gan", "dropout": 0.4, "init_digest": None},
        "start": "scratch", "name": "kid", "ruler": "k", "protocol": "petgan", "n_real": 3, "n_fake": 4,
        "headline": True, "better": "higher", "without": (0.1, 0.2),
    }  # fmt: skip
    assert read_scores(experiment) == [
        Score(run_id="r0", seed=0, value=0.5, gates=(), **alike),
        Score(run_id="r2", seed=2, value=2.5, gates=("noise",), **alike),
    ]


def test_scores_of_another_version_ask_for_another_evaluation(experiment):
    write_json(experiment.run("r1").evaluation_file, {"schema_version": 1, "headline": "kid", "scores": []})
    with pytest.raises(InputError, match=r"scores of 1 run \(r1\) .*got 1; allowed: 2; .*petgan evaluate /"):
        read_scores(experiment)
