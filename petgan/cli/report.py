"""Write the report of one or more experiments: a page, tables, figures, and the choice of the best.

The page is one file that needs no network: REPORT/index.html. Beside it lie results.csv, tables/ (CSV,
Markdown, LaTeX) and figures/ (PNG). The choice of the best is written to EXPERIMENT/report/choice.json.
A report can be made at any time: what is not finished is said in words.

Example:
  petgan report experiments/pet
  petgan report experiments/pet experiments/transfer --output paper --score kid
"""

from __future__ import annotations

import argparse
from pathlib import Path

from petgan.cli.output import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiments", nargs="+", type=Path, metavar="EXPERIMENT", help="its folder")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: the folder 'report' of the first experiment"
    )
    parser.add_argument(
        "--score",
        metavar="NAME",
        help="choose by this score, such as kid; default: the evaluation's headline",
    )


def run(args: argparse.Namespace) -> None:
    from petgan.report.page import write_report

    with progress_bar("report", "tables") as progress:
        page = write_report(args.experiments, args.output, args.score, progress)
    print(f"wrote {page}")
