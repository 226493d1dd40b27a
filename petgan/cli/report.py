"""Write the report of one or more experiments: a page, tables, figures, and the choice of the best.

The page is one file that needs no network: REPORT/index.html. Beside it lie results.csv (long),
results-wide.csv (a row a run), configurations.csv (means and intervals), tables/ (CSV, Markdown, LaTeX) and
figures/ (PNG). The choice of the best is written to EXPERIMENT/report/choice.json. No real image is on the
page unless --with-real asks for it.
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
    parser.add_argument(
        "--with-real",
        action="store_true",
        help="show training images beside the generated ones that come closest; not for sharing",
    )


def run(args: argparse.Namespace) -> None:
    from petgan.report.page import write_report

    with progress_bar("report", "tables") as progress:
        page = write_report(args.experiments, args.output, args.score, progress, with_real=args.with_real)
    print(f"wrote {page}")
