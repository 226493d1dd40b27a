"""Pairs from scratch and transferred: paired differences by hand."""

from __future__ import annotations

import pytest

from petgan.report.pairs import pairs_csv, transfer_pairs
from petgan.report.results import read_experiment
from petgan.report.summary import what_transfer_gave
from tests.report.experiments import score, write_experiment


def _experiment(path, values):
    """`values`: (scratch, transfer) of each seed; None for a run without a score."""
    runs = [
        {"values": {"preset": "wgan-gp", "seed": seed}, "start": start}
        | ({"scores": [score("kid", value)]} if value is not None else {"state": "new"})
        for seed, pair in enumerate(values)
        for start, value in zip(("scratch", "transfer"), pair, strict=True)
    ]
    experiment = read_experiment(write_experiment(path, runs))
    return experiment, experiment.headline()


def test_differences_are_taken_seed_by_seed(tmp_path):
    # The means of both sides are 2 apart whatever the order; the spread of the differences is not.
    experiment, kid = _experiment(tmp_path, [(10.0, 7.0), (20.0, 18.0), (30.0, 29.0)])
    (pairs,) = transfer_pairs(experiment, kid)
    assert [pair.difference for pair in pairs.pairs] == [-3.0, -2.0, -1.0]
    assert (pairs.mean, pairs.deviation, pairs.count, pairs.lower) == (-2.0, 1.0, 3, 3)
    sentence = what_transfer_gave(experiment, kid, pairs)
    assert (
        "lower KID in 3 of 3 pairs; mean difference (transferred minus from scratch) -2.00 ± 1.00" in sentence
    )
    assert "no difference is shown" not in sentence


def test_a_difference_within_the_spread_is_called_none(tmp_path):
    experiment, kid = _experiment(tmp_path, [(10.0, 7.0), (10.0, 12.0)])
    (pairs,) = transfer_pairs(experiment, kid)
    assert "no difference is shown" in what_transfer_gave(experiment, kid, pairs)


def test_half_a_pair_counts_for_nothing(tmp_path):
    experiment, kid = _experiment(tmp_path, [(10.0, None), (20.0, 18.0)])
    (pairs,) = transfer_pairs(experiment, kid)
    assert (pairs.mean, pairs.deviation, pairs.count) == (-2.0, None, 1)
    assert "no spread is known" in what_transfer_gave(experiment, kid, pairs)
    lines = pairs_csv(experiment, kid).splitlines()
    assert [line.split(",")[1] for line in lines] == ["seed", "0", "1"]
    assert [line.split(",")[-1] for line in lines] == ["difference", "", "-2"]


def test_without_partners_there_are_no_pairs(tmp_path):
    runs = [
        {"values": {"preset": "wgan-gp", "gp_weight": weight}, "start": start, "scores": [score("kid", 0.1)]}
        for start, weight in (("scratch", 1), ("transfer", 10))
    ]
    experiment = read_experiment(write_experiment(tmp_path, runs))
    assert transfer_pairs(experiment, experiment.headline()) == []


@pytest.mark.parametrize("missing", [(None, None)])
def test_before_any_pair_is_scored(tmp_path, missing):
    experiment, kid = _experiment(tmp_path, [missing, (1.0, None)])
    (pairs,) = transfer_pairs(experiment, kid)
    assert "no pair has both scores yet" in what_transfer_gave(experiment, kid, pairs)
