"""Pairs from scratch and transferred: SciPy's paired test, and steps by hand."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from petgan.report.pairs import pairs_csv, transfer_pairs
from petgan.report.results import read_experiment
from petgan.runs import Status
from tests.report.experiments import gate, score, write_experiment

WORSE = [10.0, 20.0, 30.0, 41.0]
BETTER = [7.0, 18.0, 29.0, 37.0]


def _runs(pairs, *, name="kid", **values):
    """`pairs`: (scratch, transfer) of each seed; None for a run without a score."""
    return [
        {"values": {"preset": "wgan-gp", "seed": seed, **values}, "start": start}
        | ({"scores": [score(name, value)]} if value is not None else {"state": "new"})
        for seed, pair in enumerate(pairs)
        for start, value in zip(("scratch", "transfer"), pair, strict=True)
    ]


def _pairs(path, runs):
    experiment = read_experiment(write_experiment(path, runs))
    return transfer_pairs(experiment, experiment.headline()), experiment.headline()


def test_differences_are_taken_seed_by_seed(tmp_path):
    (pairs,), _ = _pairs(tmp_path, _runs(zip(WORSE, BETTER, strict=True)))
    differences = np.subtract(BETTER, WORSE)
    assert [pair.difference for pair in pairs.pairs] == list(differences)
    assert (pairs.count, pairs.better, pairs.mean) == (4, 4, differences.mean())
    # The deviation of either side is some 13: unpaired, nothing would be shown.
    expected = ttest_rel(BETTER, WORSE)
    reach = t.ppf(0.975, 3) * differences.std(ddof=1) / math.sqrt(4)
    assert pairs.difference.paired
    assert (pairs.difference.low, pairs.difference.high) == pytest.approx(
        (differences.mean() - reach, differences.mean() + reach)
    )
    assert pairs.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert pairs.verdict == "better"


@pytest.mark.parametrize(
    ("name", "scratch", "transfer", "verdict", "better"),
    [
        ("kid", BETTER, WORSE, "worse", 0),
        ("coverage", BETTER, WORSE, "better", 4),
        ("coverage", WORSE, BETTER, "worse", 0),
        ("kid", [10.0, 10.0], [7.0, 12.0], "no difference shown", 1),
    ],
)
def test_verdicts_go_by_the_scores_direction(tmp_path, name, scratch, transfer, verdict, better):
    (pairs,), found = _pairs(tmp_path, _runs(zip(scratch, transfer, strict=True), name=name))
    assert found.better == ("lower" if name == "kid" else "higher")
    assert (pairs.verdict, pairs.better) == (verdict, better)


def test_the_jackknife_over_patients_widens_the_interval(tmp_path):
    runs = _runs(zip(WORSE, BETTER, strict=True))
    for run in runs:
        value = run["scores"][0]["value"]
        factors = (0.8, 1.2) if run["start"] == "transfer" else (1.0, 1.0)
        run["scores"] = [score("kid", value, without=[value * factor for factor in factors])]
    (pairs,), _ = _pairs(tmp_path / "patients", runs)
    (seeds_alone,), _ = _pairs(tmp_path / "seeds", _runs(zip(WORSE, BETTER, strict=True)))
    assert pairs.mean == seeds_alone.mean
    assert pairs.difference.high > seeds_alone.difference.high
    assert (seeds_alone.verdict, pairs.verdict) == ("better", "no difference shown")


def test_a_table_of_configurations_is_corrected_after_holm(tmp_path):
    first = _runs(zip(WORSE, BETTER, strict=True), gp_weight=1.0)
    second = _runs([(10.0, 7.0), (10.0, 12.0)], gp_weight=10.0)
    alone = [_pairs(tmp_path / name, runs)[0][0].p for name, runs in (("a", first), ("b", second))]
    both, _ = _pairs(tmp_path / "both", first + second)
    assert [pairs.p for pairs in both] == pytest.approx([2 * alone[0], max(2 * alone[0], alone[1])])


def test_half_a_pair_counts_for_nothing_and_a_single_pair_is_not_judged(tmp_path):
    (pairs,), kid = _pairs(tmp_path, _runs([(10.0, None), (20.0, 18.0)]))
    assert (pairs.mean, pairs.count, pairs.better) == (-2.0, 1, 1)
    assert (pairs.difference, pairs.p, pairs.verdict) == (None, None, None)
    lines = list(csv.DictReader(pairs_csv([pairs], kid).splitlines()))
    assert [(line["seed"], line["difference"]) for line in lines] == [("0", ""), ("1", "-2")]
    assert all((line["pairs"], line["low"], line["verdict"]) == ("1", "", "") for line in lines)


def test_before_any_pair_is_scored_there_is_nothing_to_say(tmp_path):
    (pairs,), _ = _pairs(tmp_path, _runs([(None, None), (1.0, None)]))
    assert (pairs.mean, pairs.difference, pairs.verdict, pairs.count) == (None, None, None, 0)
    assert (pairs.scratch_steps, pairs.transfer_steps) == (None, None)


def test_a_run_that_did_not_pass_a_gate_is_not_judged(tmp_path):
    runs = _runs(zip(WORSE, BETTER, strict=True))
    runs[1]["gates"] = [gate("copied")]
    (pairs,), _ = _pairs(tmp_path, runs)
    assert pairs.difference is not None
    assert (pairs.gates, pairs.p, pairs.verdict) == (["copied"], None, None)


def test_without_partners_there_are_no_pairs(tmp_path):
    runs = [
        {"values": {"preset": "wgan-gp", "gp_weight": weight}, "start": start, "scores": [score("kid", 0.1)]}
        for start, weight in (("scratch", 1), ("transfer", 10))
    ]
    assert _pairs(tmp_path, runs)[0] == []


def _raced(path, curves):
    """Runs with these validation scores at steps 10, 20, ...: (scratch, transfer) of each seed."""
    experiment = read_experiment(write_experiment(path, _runs([(2.0, 1.0)] * len(curves))))
    for pair in transfer_pairs(experiment, experiment.headline())[0].pairs:
        for run, scores in zip((pair.scratch, pair.transfer), curves[pair.scratch.seed], strict=True):
            lines = [{"step": 5, "d_loss": 0.7}]
            lines += [{"step": 10 * k, "d_loss": 0.7, "swd": value} for k, value in enumerate(scores, 1)]
            run.folder.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return experiment, experiment.headline()


def test_steps_to_the_best_score_from_scratch(tmp_path):
    curves = [
        (
            [90, 70, 60, 60],
            [80, 60, 55, 70],
        ),  # at 30 against 20: as good is enough, and later ones do not count
        ([90, 80, 70, 65], [60, 70, 80, 90]),  # at 40 against 10
        ([50, 60, 70, 80], [90, 80, 70, 60]),  # at 10 against never
    ]
    experiment, kid = _raced(tmp_path, curves)
    (pairs,) = transfer_pairs(experiment, kid)
    assert [(p.target, p.scratch_step, p.transfer_step) for p in pairs.pairs] == [
        (60, 30, 20),
        (65, 40, 10),
        (50, 10, None),
    ]
    assert (pairs.scratch_steps, pairs.transfer_steps, pairs.steps) == (30, 20, 40)
    lines = list(csv.DictReader(pairs_csv([pairs], kid).splitlines()))
    assert [(line["scratch_step"], line["transfer_step"]) for line in lines] == [
        ("30", "20"),
        ("40", "10"),
        ("10", ""),
    ]


def test_what_half_of_the_seeds_never_reached_was_not_reached(tmp_path):
    experiment, kid = _raced(tmp_path, [([9, 5], [9, 9]), ([9, 5], [5, 9])])
    (pairs,) = transfer_pairs(experiment, kid)
    assert (pairs.scratch_steps, pairs.transfer_steps) == (20, None)


@pytest.mark.parametrize("what", ["not done", "never scored"])
def test_a_race_without_an_end_is_none(tmp_path, what):
    experiment, kid = _raced(tmp_path, [([9, 5], [9, 4]), ([9, 5], [9, 4] if what == "not done" else [])])
    if what == "not done":
        run = transfer_pairs(experiment, kid)[0].pairs[1].transfer
        run.folder.write_status(Status("interrupted", 20, 40))
        experiment = read_experiment(tmp_path)
    (pairs,) = transfer_pairs(experiment, kid)
    assert [(p.target, p.scratch_step, p.transfer_step) for p in pairs.pairs] == [
        (5, 20, 20),
        (None, None, None),
    ]
    assert (pairs.scratch_steps, pairs.transfer_steps) == (20, 20)
