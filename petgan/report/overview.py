"""All scores of all configurations, and how they are ranked under each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from petgan.report.cells import Cell
from petgan.report.results import Score

ROWS = 100
FEWEST = 3  # configurations that a rank correlation takes


@dataclass(frozen=True)
class Row:
    """A configuration: its cell and its rank under each score; None where it does not count."""

    cells: list[Cell]
    ranks: list[float | None]


@dataclass(frozen=True)
class Overview:
    """Configurations under all scores, the best by the first score at the top.

    Parameters
    ----------
    scores : list of Score
        The headline is the first.
    rows : list of Row
        `ROWS` of them at most.
    correlations : list of float or None
        Spearman's rank correlation of each score with the first, over the configurations ranked by both;
        of good against good, so that 1 is agreement whichever direction is better.
    left_out : int
        Configurations that are not among the rows.
    """

    scores: list[Score]
    rows: list[Row]
    correlations: list[float | None]
    left_out: int


def overview(scores: Sequence[Score], cells: Mapping[str, Sequence[Cell]]) -> Overview:
    """Configurations under all scores.

    Parameters
    ----------
    scores : sequence of Score
        The headline is the first.
    cells : mapping
        From each score's name to the cells of all configurations, in one order.
    """
    goodness = np.array(
        [
            [
                score.sign * (cell.mean or 0.0) if cell.is_ranked and cell.count > 1 else np.nan
                for cell in cells[score.name]
            ]
            for score in scores
        ],
        np.float64,
    )
    ranks = np.array([_ranks(line) for line in goodness])
    order = np.argsort(ranks[0], kind="stable")  # what is not ranked comes last
    rows = [
        Row(
            [cells[score.name][index] for score in scores],
            [None if np.isnan(rank) else float(rank) for rank in ranks[:, index]],
        )
        for index in order[:ROWS]
    ]
    correlations = [rank_correlation(goodness[0], line) for line in goodness]
    return Overview(list(scores), rows, correlations, max(0, len(order) - ROWS))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation over what is known of both; None for too few values, or equal ones."""
    both = ~(np.isnan(a) | np.isnan(b))
    if both.sum() < FEWEST:
        return None
    ranks = rankdata(a[both]), rankdata(b[both])
    if min(np.ptp(r) for r in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    ranks[known] = rankdata(values[known], method="min")
    return ranks
