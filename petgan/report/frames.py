"""All results as tables of numbers, for other programs: pivoted, and by configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from petgan.report.cells import Cell
from petgan.report.results import FIELDS, RUN_COLUMNS, plain


def pivoted(results: pd.DataFrame) -> pd.DataFrame:
    """The table of `petgan.load_results` with one row a run and a column for each score's values."""
    key = ["experiment", "run_id"]
    runs = results.drop_duplicates(key)[list(RUN_COLUMNS)]
    scored = results[results["score"].notna()]
    if scored.empty:
        return runs.reset_index(drop=True)
    values = scored.pivot(index=key, columns="score", values="value")[list(scored["score"].unique())]
    return runs.join(values, on=key).reset_index(drop=True)


def by_configuration(name: str, cells: Mapping[str, Sequence[Cell]]) -> pd.DataFrame:
    """One row a configuration of an experiment.

    Parameters
    ----------
    name : str
        The experiment's.
    cells : mapping
        From each score's name to the cells of all configurations, in one order.

    Returns
    -------
    DataFrame
        ``experiment``, ``start``, the fields of `petgan.config.Point` but for the seed, ``seeds``, ``gates``,
        and of each score its mean, 95 % interval and number of scored seeds: ``kid_mean``, ``kid_low``,
        ``kid_high``, ``kid_n``.
    """
    rows = []
    for of_scores in zip(*cells.values(), strict=True):
        runs, point = of_scores[0].runs, of_scores[0].runs[0].point
        row = {"experiment": name, "start": runs[0].start}
        row |= {field: plain(point.get(field)) for field in FIELDS if field != "seed"}
        row |= {"seeds": len(runs), "gates": of_scores[0].gates}
        for score, cell in zip(cells, of_scores, strict=True):
            between = cell.interval
            row |= {
                f"{score}_mean": cell.mean,
                f"{score}_low": between and between.low,
                f"{score}_high": between and between.high,
                f"{score}_n": cell.count,
            }
        rows.append(row)
    return pd.DataFrame(rows)
