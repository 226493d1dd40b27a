"""Tables of numbers: the pivoted against the long one, means against the long one's."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petgan.report.cells import cell_of
from petgan.report.frames import by_configuration, pivoted
from petgan.report.overview import overview, rank_correlation
from petgan.report.results import RUN_COLUMNS, SCORE_COLUMNS, read_experiment
from tests.report.experiments import gate, score, write_experiment

VALUES = st.floats(-1e6, 1e6, allow_subnormal=False)
RUNS = st.lists(st.dictionaries(st.sampled_from(["kid", "fid", "coverage"]), VALUES), min_size=1, max_size=8)


def _long(runs):
    """A long table with the scores of each run; a run without any has one row."""
    rows = []
    for number, scores in enumerate(runs):
        common = dict.fromkeys(RUN_COLUMNS) | {"experiment": "pet", "run_id": f"r{number}", "seed": number}
        rows += [common | {"score": name, "value": value} for name, value in scores.items()] or [common]
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, *SCORE_COLUMNS])


@given(RUNS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_the_pivoted_table_says_what_the_long_one_says(runs):
    wide = pivoted(_long(runs))
    assert wide["run_id"].tolist() == [f"r{number}" for number in range(len(runs))]
    for scores, (_, row) in zip(runs, wide.iterrows(), strict=True):
        found = {
            name: row[name] for name in ("kid", "fid", "coverage") if name in row and pd.notna(row[name])
        }
        assert found == scores


def test_means_by_configuration(tmp_path):
    runs = [
        {"values": {"preset": "gan", "dropout": dropout, "seed": seed},
         "scores": [score("kid", dropout + seed)],
         "gates": [gate("black")] if seed == 1 and dropout == 0.5 else []}
        for dropout in (0.4, 0.5) for seed in (0, 1, 2)
    ]  # fmt: skip
    experiment = read_experiment(write_experiment(tmp_path, runs))
    kid = experiment.headline()
    frame = by_configuration("pet", {"kid": [cell_of(c, kid) for c in experiment.configurations]})
    assert frame["dropout"].tolist() == [0.4, 0.5]
    assert frame["kid_mean"].tolist() == pytest.approx([1.4, 1.5])
    assert (frame["kid_high"] - frame["kid_mean"]).tolist() == pytest.approx(
        [4.302652729911275 / math.sqrt(3)] * 2
    )
    assert frame["kid_n"].tolist() == [3, 3]
    assert frame["gates"].tolist() == ["", "black (1 of 3 seeds)"]


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 5))), max_size=12))
@settings(max_examples=100, deadline=None)
def test_rank_correlations_are_those_of_pandas(pairs):
    frame = pd.DataFrame(pairs, columns=["a", "b"]).astype(float)
    both = frame.dropna()
    found = rank_correlation(frame["a"].to_numpy(), frame["b"].to_numpy())
    if len(both) < 3 or both["a"].nunique() < 2 or both["b"].nunique() < 2:
        assert found is None
    else:
        assert found == pytest.approx(both["a"].corr(both["b"], method="spearman"), abs=1e-9)


def test_rankings_go_by_each_score_s_direction_and_leave_out_what_gates_block(tmp_path):
    values = {0.3: (0.1, 0.9), 0.4: (0.2, 0.8), 0.5: (0.3, 0.7), 0.6: (0.01, 0.1), 0.7: (0.02, 0.95)}
    runs = [
        {"values": {"preset": "gan", "dropout": dropout, "seed": seed},
         "scores": [score("kid", kid), score("recall", recall)],
         "gates": [gate("copied")] if dropout == 0.6 else []}
        for dropout, (kid, recall) in values.items()
        for seed in ((0, 1) if dropout < 0.7 else (0,))
    ]  # fmt: skip
    experiment = read_experiment(write_experiment(tmp_path, runs))
    scores = list(experiment.scores.values())
    cells = {s.name: [cell_of(c, s) for c in experiment.configurations] for s in scores}
    table = overview(scores, cells)
    assert [row.ranks for row in table.rows] == [[1, 1], [2, 2], [3, 3], [None, None], [None, None]]
    assert table.correlations == pytest.approx([1, 1])
    assert [row.cells[0].gates for row in table.rows[-2:]] == ["copied", ""]  # and a single seed
