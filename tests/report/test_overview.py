"""Rankings against SciPy, and against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from petgan.report.cells import Cell
from petgan.report.overview import overview, rank_correlation
from petgan.report.results import Score


def a_score(name, better="lower"):
    return Score(name, "petgan", name, better, 40, 150, [], None, 3)


def cells(values):
    return [Cell("", mean=value, count=3) for value in values]


def test_rank_correlation_is_spearmans():
    random = np.random.default_rng(0)
    for _ in range(20):
        a, b = random.integers(0, 5, (2, 9)).astype(float)
        if np.ptp(a) and np.ptp(b):
            assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_it_leaves_out_what_either_does_not_know_and_says_nothing_of_too_few():
    a, b = np.array([1.0, 2, 3, 4, np.nan]), np.array([10.0, 30, 20, np.nan, 1])
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a[:3], b[:3]).statistic)
    assert rank_correlation(a[:2], b[:2]) is None
    assert rank_correlation(np.ones(4), np.arange(4.0)) is None


def test_agreement_is_of_good_with_good():
    scores = [a_score("kid"), a_score("coverage", "higher"), a_score("swd")]
    values = {"kid": cells([3.0, 1, 2]), "coverage": cells([0.1, 0.9, 0.5]), "swd": cells([1.0, 3, 2])}
    found = overview(scores, values)
    assert found.correlations == pytest.approx([1, 1, -1])
    assert [row.ranks for row in found.rows] == [[1, 1, 3], [2, 2, 2], [3, 3, 1]]


def test_what_is_gated_has_no_rank_and_comes_last():
    gated = Cell("", mean=0.1, count=3, gates="copied")
    found = overview([a_score("kid")], {"kid": [gated, *cells([2.0, 1.0])]})
    assert [row.ranks for row in found.rows] == [[1], [2], [None]]
    assert found.rows[-1].cells[0] is gated
