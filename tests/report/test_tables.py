"""Tables against means taken by hand and by the statistics module; files compared whole."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pandas as pd
import pytest
from scipy.stats import t

from petgan.report.formats import to_csv, to_latex, to_markdown
from petgan.report.labels import unique_slugs, value_label
from petgan.report.results import read_experiment
from petgan.report.tables import all_tables, excerpt, make_tables
from tests.report.experiments import KID_RULER, gate, score, write_experiment

TITLE = "Rate & dropout_100% <ü>"
TABLE = {"title": TITLE, "sweep": "sweep", "rows": "optimizer", "columns": "dropout", "by": None}


def _runs(values_of):
    """A run for each (optimizer, dropout, seed) from what `values_of` gives for it."""
    for optimizer, dropout, seed in itertools.product(("rmsprop", "adam"), (0.5, 0.4), (0, 1, 2)):
        values = {"preset": "gan", "optimizer": optimizer, "dropout": dropout, "seed": seed}
        given = values_of(optimizer, dropout, seed)
        if given is not None:
            yield {"values": values} | given


def _tables(path, runs, specs=(TABLE,), **more):
    experiment = read_experiment(write_experiment(path, list(runs), tables=specs, **more))
    return all_tables(experiment, experiment.headline())


@pytest.fixture
def table(tmp_path):
    """All sorts of cells: whole, partly failed, wholly failed, pending."""
    kid = {("rmsprop", 0.5): (0.10, 0.20, 0.30), ("rmsprop", 0.4): (0.20, 0.40)}

    def values_of(optimizer, dropout, seed):
        values = kid.get((optimizer, dropout), ())
        if seed < len(values):
            return {"scores": [score("kid", values[seed])]}
        if optimizer == "adam" and dropout == 0.4:
            return {"state": "new"}
        return {"state": "failed", "error": "d_loss is not a number; try a lower rate"}

    return _tables(tmp_path, _runs(values_of))[0][0]


NOTE = (
    "Mean over seeds [its 95 % interval] (number of seeds); lower is better; ≈ no difference to the best is "
    "shown; KID: 150 generated against 40 real images; floor, real against real: 0.0010 [-0.0005, 0.0025] "
    "(20 splits); this ruler was not checked; ruler "
)
# Of 0.1, 0.2, 0.3 and of 0.2, 0.4; and of the differences 0.1, 0.1 - 0.2 of the seeds that both have.
REACH = t.ppf(0.975, 2) * 0.1 / math.sqrt(3), t.ppf(0.975, 1) * 0.1
P = 2 * t.sf(0.15 / 0.05, 1)


def test_csv(table):
    low, high = f"{0.3 - REACH[1]:.10g}", f"{0.3 + REACH[1]:.10g}"
    lowest, highest = f"{0.2 - REACH[0]:.10g}", f"{0.2 + REACH[0]:.10g}"
    assert to_csv(table).splitlines() == [
        "optimizer,dropout,score,mean,low,high,scored_seeds,seeds,gates,verdict,p,state,published_fid,ruler",
        f"rmsprop,0.4,kid,0.3,{low},{high},2,3,,tie,{P:.10g},2 of 3 seeds,,{KID_RULER}",
        f"rmsprop,0.5,kid,0.2,{lowest},{highest},3,3,,best,,complete,,{KID_RULER}",
        f"adam,0.4,kid,,,,0,3,,,,pending,,{KID_RULER}",
        f"adam,0.5,kid,,,,0,3,,,,failed: d_loss is not a number,,{KID_RULER}",
    ]


def test_markdown(table):
    note = f"{NOTE}{KID_RULER}".replace("[", r"\[").replace("]", r"\]")
    assert to_markdown(table) == (
        "**Rate &amp; dropout\\_100% &lt;ü&gt;, KID**\n\n"
        "| optimizer / dropout | 0.4 | 0.5 |\n"
        "| --- | --- | --- |\n"
        "| rmsprop | 0.3000 \\[-0.9706, 1.5706\\] (2) ≈, 2 of 3 seeds "
        "| **0.2000 \\[-0.0484, 0.4484\\] (3)** |\n"
        "| adam | pending | failed: d\\_loss is not a number |\n\n"
        f"{note}.\n"
    )


def test_latex(table):
    note = NOTE.replace("%", r"\%").replace("≈", r"$\approx$")
    assert to_latex(table) == (
        "% \\usepackage{booktabs}\n\n"
        "\\begin{table}\n\\centering\n"
        "\\caption{Rate \\& dropout\\_100\\% \\textless{}ü\\textgreater{}, KID. "
        f"{note}{KID_RULER}.}}\n"
        "\\begin{tabular}{lrr}\n\\toprule\n"
        "optimizer / dropout & 0.4 & 0.5 \\\\\n\\midrule\n"
        "rmsprop & 0.3000 [-0.9706, 1.5706] (2) $\\approx$, 2 of 3 seeds"
        " & \\textbf{0.2000 [-0.0484, 0.4484] (3)} \\\\\n"
        "adam & pending & failed: d\\_loss is not a number \\\\\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def test_means_are_those_of_the_statistics_module(tmp_path):
    numbers = random.Random(0)
    taken: dict[tuple[str, str], list[float]] = {}

    def values_of(optimizer, dropout, seed):
        value = numbers.gauss(0, 1)
        taken.setdefault((optimizer, str(dropout)), []).append(value)
        return {"scores": [score("kid", value)]}

    part = _tables(tmp_path, _runs(values_of))[0][0].parts[0]
    assert set(part.cells) == set(taken)
    for key, values in taken.items():
        assert part.cells[key].mean == pytest.approx(statistics.fmean(values), rel=1e-12)
        between = part.cells[key].interval
        reach = t.ppf(0.975, 2) * statistics.stdev(values) / math.sqrt(3)
        assert (between.low, between.high) == pytest.approx((between.mean - reach, between.mean + reach))
    lowest = min(taken, key=lambda key: statistics.fmean(taken[key]))
    assert part.best is part.cells[lowest]


def test_a_point_that_the_grid_leaves_out(tmp_path):
    runs = _runs(lambda o, d, s: None if (o, d) == ("adam", 0.5) else {"scores": [score("kid", 0.1)]})
    part = _tables(tmp_path, runs)[0][0].parts[0]
    assert part.cells["adam", "0.5"].words == "not in the grid"


def test_one_part_for_each_value_of_by_with_its_own_axes(tmp_path):
    runs = [
        {"values": {"preset": preset, "batch_size": size}, "scores": [score("kid", 0.1)]}
        for preset, sizes in {"gan": (32, 8), "dcgan": (16,)}.items()
        for size in sizes
    ]
    spec = {"title": "Batch", "sweep": "sweep", "rows": "batch_size", "columns": None, "by": "preset"}
    (table,) = _tables(tmp_path, runs, [spec])[0]
    assert [(part.name, part.rows) for part in table.parts] == [("gan", ["8", "32"]), ("dcgan", ["16"])]
    assert "| batch size | KID |" in to_markdown(table)
    assert to_csv(table).startswith("preset,batch_size,score,")


def test_runs_of_other_sweeps_stay_out(tmp_path):
    runs = [
        {"values": {"preset": "gan", "dropout": 0.4}, "scores": [score("kid", 0.1)]},
        {"values": {"preset": "gan", "dropout": 0.5}, "scores": [score("kid", 0.1)], "sweeps": ["other"]},
    ]
    assert list(_tables(tmp_path, runs)[0][0].parts[0].cells) == [("rmsprop", "0.4")]


def test_what_a_gate_blocks_or_one_seed_gives_is_never_the_best(tmp_path):
    def values_of(optimizer, dropout, seed):
        if (optimizer, dropout) == ("adam", 0.4):
            return {
                "scores": [score("kid", 0.001 + seed / 1e4)],
                "gates": [gate("copied")] if seed == 1 else [],
            }
        if (optimizer, dropout) == ("adam", 0.5):
            return {"scores": [score("kid", 0.002)]} if seed == 0 else {"state": "new"}
        return {"scores": [score("kid", 0.1 + seed / 1e4 if dropout == 0.4 else 0.9 + seed / 1e3)]}

    table = _tables(tmp_path, _runs(values_of))[0][0]
    cells = table.parts[0].cells
    assert table.parts[0].best is cells["rmsprop", "0.4"]
    assert cells["adam", "0.4"].gates == "copied (1 of 3 seeds)"
    words = {key: cell.verdict and cell.verdict.word for key, cell in cells.items()}
    assert words == {
        ("rmsprop", "0.4"): "best", ("rmsprop", "0.5"): "worse", ("adam", "0.4"): None,
        ("adam", "0.5"): "single seed",
    }  # fmt: skip
    assert to_markdown(table).count("**0.") == 1


def test_higher_is_better_where_the_score_says_so(tmp_path):
    runs = _runs(lambda o, d, s: {"scores": [score("coverage", (0.2 if o == "adam" else 0.8) + s / 100 + d)]})
    table = _tables(tmp_path, runs)[0][0]
    assert table.parts[0].best is table.parts[0].cells["rmsprop", "0.5"]
    assert "higher is better" in to_latex(table)


def test_an_excerpt_keeps_the_best_in_their_order(tmp_path):
    runs = [
        {"values": {"preset": "gan", "learning_rate": rate}, "scores": [score("kid", abs(rate - 0.0052))]}
        for rate in (0.001, 0.003, 0.005, 0.006, 0.008)
    ]
    spec = {"title": "Rate", "sweep": "sweep", "rows": "learning_rate", "columns": None, "by": None}
    (table,) = _tables(tmp_path, runs, [spec])[0]
    assert excerpt(table.parts[0], table.score, 2, 9).rows == ["0.005", "0.006"]
    assert excerpt(table.parts[0], table.score, 5, 9).rows == table.parts[0].rows


def test_companions_are_tables_of_their_own(tmp_path):
    runs = _runs(lambda o, d, s: {"scores": [score("kid", 0.1 + s), score("fid", 200.0 + s)]})
    (tables,) = _tables(tmp_path, runs)
    assert [(table.score.name, table.slug) for table in tables] == [
        ("kid", "rate-dropout-100-u"),
        ("fid", "rate-dropout-100-u-fid"),
    ]
    assert [table.parts[0].cells["adam", "0.4"].mean for table in tables] == pytest.approx([1.1, 201.0])
    assert [len(set(pd.read_csv(_saved(tmp_path, t))["ruler"])) for t in tables] == [1, 1]


def _saved(folder, table):
    path = folder / "table.csv"
    path.write_text(to_csv(table))
    return path


def _published(**row):
    blank = dict.fromkeys(("optimizer", "dropout", "batch_size", "learning_rate", "gp_weight"))
    return blank | {"table": "7.5", "dataset": "i3m", "model": "gan", "fid": 301.263} | row


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({}, {("rmsprop", "0.4"), ("rmsprop", "0.5"), ("adam", "0.4"), ("adam", "0.5")}),
        ({"optimizer": "adam"}, {("adam", "0.4"), ("adam", "0.5")}),
        ({"optimizer": "adam", "dropout": 0.5, "learning_rate": 0.0008}, {("adam", "0.5")}),
        ({"learning_rate": 0.001}, set()),
        ({"model": "dcgan"}, set()),
        ({"dataset": "usf->i3m"}, set()),
    ],
)
def test_published_values_stand_where_the_configuration_is_the_same(tmp_path, row, found):
    published = {"where": {"dataset": "i3m"}, "rows": [_published(**row)]}
    runs = _runs(lambda o, d, s: {"scores": [score("kid", 0.1)]})
    (table,) = _tables(tmp_path, runs, published=published)[0]
    cells = table.parts[0].cells
    assert {key for key, cell in cells.items() if cell.published is not None} == found
    assert ("study's FID" in to_markdown(table)) == bool(found)
    assert ("not comparable in value" in to_latex(table)) == bool(found)


def test_a_published_transfer_is_compared_with_the_transferred_run_only(tmp_path):
    runs = [
        {"values": {"preset": "wgan-gp"}, "start": start, "scores": [score("fid", 200.0)]}
        for start in ("scratch", "transfer")
    ]
    spec = {"title": "Start", "sweep": "sweep", "rows": "start", "columns": None, "by": None}
    published = {"where": {"dataset": "usf->i3m"}, "rows": [_published(model="wgan-gp", dataset="usf->i3m")]}
    (table,) = _tables(tmp_path, runs, [spec], published=published)[0]
    assert {row: cell.published for (row, _), cell in table.parts[0].cells.items()} == {
        "scratch": None,
        "transfer": 301.263,
    }


def test_published_fids_go_with_the_fid_of_the_study_s_procedure(tmp_path):
    published = {"where": {"dataset": "i3m"}, "rows": [_published()]}
    scores = [score("kid", 0.1), score("fid", 200.0), score("fid-thesis", 250.0)]
    (tables,) = _tables(tmp_path, _runs(lambda o, d, s: {"scores": scores}), published=published)
    assert [table.parts[0].has_published for table in tables] == [False, False, True]
    assert "by the procedure of our FID (thesis)" in to_markdown(tables[2])


def test_published_fids_go_with_our_fid_not_with_another_score(tmp_path):
    published = {"where": {"dataset": "i3m"}, "rows": [_published()]}
    runs = _runs(lambda o, d, s: {"scores": [score("kid", 0.1), score("fid", 200.0)]})
    (tables,) = _tables(tmp_path, runs, published=published)
    assert [table.parts[0].has_published for table in tables] == [False, True]


def test_before_any_score_the_table_says_how_far_the_runs_are(tmp_path):
    experiment = read_experiment(
        write_experiment(tmp_path, _runs(lambda o, d, s: {"state": "new"}), tables=[TABLE])
    )
    (table,) = make_tables(experiment, None, None)
    assert {cell.words for cell in table.parts[0].cells.values()} == {"pending"}
    assert "No run has been scored yet" in to_markdown(table)


def test_a_finished_run_without_a_score_says_so(tmp_path):
    runs = _runs(lambda o, d, s: {"scores": [score("kid", 0.1)]} if o == "adam" else {})
    assert _tables(tmp_path, runs)[0][0].parts[0].cells["rmsprop", "0.4"].words == "not scored"


def test_seeds_in_different_states_are_counted(tmp_path):
    states = ({"state": "new"}, {"state": "interrupted"}, {"state": "new"})
    part = _tables(tmp_path, _runs(lambda o, d, s: states[s]))[0][0].parts[0]
    assert part.cells["adam", "0.4"].words == "2 pending; 1 interrupted"


def test_slugs_are_plain_and_each_given_once():
    assert unique_slugs(["Größe & <x>", "Grosse/x", "größe x", "Σ", "../.."]) == [
        "groe-x", "grosse-x", "groe-x-2", "table", "table-2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "label"),
    [(0.0008, "0.0008"), (1.0, "1"), (1.23456789, "1.23456789"), (None, "none"), ([], "none"), (8, "8"),
     (["a", "b"], "a, b")],
)  # fmt: skip
def test_labels_keep_different_values_apart(value, label):
    assert value_label(value) == label
