"""The best configuration: by a mean over seeds, among scores of one ruler."""

from __future__ import annotations

import statistics

import pytest

from petgan.choice import Score, best_by_preset, best_overall, headline, read_scores
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
    assert (best["dcgan"].mean, best["dcgan"].standard_deviation, best["dcgan"].n) == (3.5, None, 1)
    assert best_overall(RECORDS, "kid") == gan
    assert best_overall(RECORDS, "fid").preset == "dcgan"


def test_the_order_of_the_records_does_not_matter():
    assert best_overall(RECORDS[::-1], "kid") == best_overall(RECORDS, "kid")


def test_rulers_are_not_mixed():
    mixed = [*RECORDS, score("gan", 0.6, 0, 0.1, ruler="kid|another")]
    for choose in (best_by_preset, best_overall):
        with pytest.raises(ConfigError, match=r"different rulers.*kid\|another, kid\|inception"):
            choose(mixed, "kid")


def test_a_score_that_nobody_has():
    with pytest.raises(InputError, match="no run has this score: got 'swd'; allowed: fid, kid"):
        best_overall(RECORDS, "swd")


def test_the_headline():
    assert headline(RECORDS) == "kid"
    with pytest.raises(ConfigError, match="different scores; allowed: kid, swd"):
        headline([*RECORDS, score("gan", 0.4, 0, 1.0, name="swd")])
    with pytest.raises(InputError, match="no run has been scored yet"):
        headline([])


def test_scores_are_read_from_the_evaluated_runs(tmp_path):
    experiment = ExperimentFolder(tmp_path)
    points = [
        {"run_id": f"r{n}", "start": "scratch", "sweeps": ["s"],
         "point": {"preset": "gan", "seed": n, "dropout": 0.4, "init_from": f"/{n}", "init_digest": None}}
        for n in range(3)
    ]  # fmt: skip
    write_json(experiment.record_file, {"points": points})
    for n in (0, 2):
        scores = [
            {"name": "kid", "value": n + 0.5, "ruler": "k"},
            {"name": "fid", "value": None, "ruler": "f"},
        ]
        write_json(experiment.run(f"r{n}").evaluation_file, {"headline": "kid", "scores": scores})
    found = read_scores(experiment)
    assert [(s.run_id, s.seed, s.name, s.value, s.ruler, s.headline) for s in found] == [
        ("r0", 0, "kid", 0.5, "k", True),
        ("r2", 2, "kid", 2.5, "k", True),
    ]
    assert best_overall(found, "kid").run_ids == ("r0", "r2")


def test_a_configuration_that_lost_seeds_does_not_win():
    complete = [score("dcgan", 0.4, seed, 50.0) for seed in (0, 1)]
    lucky = score("dcgan", 0.5, 0, 10.0)
    assert best_by_preset([*complete, lucky], "kid")["dcgan"].configuration["dropout"] == 0.4
