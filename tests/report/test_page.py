"""The page and the files beside it."""

from __future__ import annotations

import base64
import io
import json

import pandas as pd
import pytest
from PIL import Image

from petgan.cli import main
from petgan.report.page import heat, write_report
from petgan.report.tables import Cell, Part
from tests.report.conftest import ERROR, HOSTILE
from tests.report.experiments import score, write_experiment
from tests.report.pages import Parsed, luminance


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page.read_text(encoding="utf-8"))


def _words(text):
    return " ".join(text.split())


def test_the_page_asks_the_network_for_nothing(page, parsed):
    for tag, attrs in parsed.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            if name in attrs:
                assert attrs[name].startswith(("data:", "#")), (tag, attrs[name])
    html = page.read_text(encoding="utf-8")
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_every_image_is_whole_and_has_words(parsed):
    images = parsed.all("img")
    assert len(images) == 3 + 5 + 3  # best of the presets, configurations begun, figures
    for image in images:
        assert image["alt"].strip()
        Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).load()


def test_sheets_are_bounded_and_small_ones_stay_sharp(parsed):
    sheets = [image for image in parsed.all("img") if "width" in image]
    sizes = {
        (image.get("class"), Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).width)
        for image in sheets
    }
    assert sizes == {("pixelated", 70), (None, 405), (None, 454)}
    for image in sheets:
        assert int(image["width"]) <= 360
        assert image.get("class") is None or int(image["width"]) % 70 == 0


def test_no_cell_is_empty_and_states_are_words(parsed):
    assert all(cell.strip() for cell in parsed.cells)
    cells = [_words(cell) for cell in parsed.cells]
    assert "pending" in cells
    assert any(cell.endswith("2 of 3 seeds") for cell in cells)
    assert "not published" in cells


def test_links_lead_somewhere(parsed):
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in parsed.all("a")} <= {f"#{name}" for name in ids}


def test_names_are_text_not_markup(parsed):
    assert HOSTILE in parsed.text
    assert len(parsed.all("script")) == 1


def test_the_summary_says_what_was_run_and_what_came_out(parsed):
    text = _words(parsed.text)
    assert "6 points (gan, dcgan and wgan-gp), 3 seeds (0, 1 and 2), 18 runs of 40 steps" in text
    assert "on the dataset pet.h5 (pet, 16 × 16 pixels)" in text
    assert "State of the runs: 13 scored, 2 failed and 3 pending" in text
    assert "Best gan by KID: optimizer rmsprop, 0.1010 ± 0.0010 (3)." in text
    assert "Best dcgan by KID: optimizer rmsprop, 0.1505 ± 0.0007 (2), 2 of 3 seeds scored." in text
    assert "Best of all: gan, optimizer rmsprop." in text
    assert "Differences within the seeds' spread are not shown to be differences." in text
    assert "floor, real against real: 0.0010 ± 0.0004 (20 repeats)" in text
    assert "301.3" in text
    assert "not comparable in value with ours" in text
    assert ERROR in text
    assert "petgan submit grid.yaml --dataset data/pet.h5" in text
    assert "d" * 64 in text


def test_without_learned_weights_the_page_says_so(tmp_path):
    runs = [{"values": {"preset": "gan"}, "scores": [score("swd", 80.0)]}]
    text = _words(Parsed(write_report([write_experiment(tmp_path, runs)]).read_text(encoding="utf-8")).text)
    assert "neither FID nor KID could be had" in text
    assert "SWD does not see repetition" in text
    assert "With one seed there is no spread" in text


def test_overlapping_seeds_are_not_called_better(tmp_path):
    runs = [
        {"values": {"preset": "gan", "dropout": dropout, "seed": seed}, "scores": [score("kid", value)]}
        for dropout, values in {0.4: (1.0, 3.0), 0.5: (2.0, 4.0), 0.6: (90.0, 91.0)}.items()
        for seed, value in enumerate(values)
    ]
    text = _words(Parsed(write_report([write_experiment(tmp_path, runs)]).read_text(encoding="utf-8")).text)
    assert "dropout 0.4, 2.000 ± 1.414 (2); not shown to be better than 1 other configuration." in text


def test_files_beside_the_page(page, experiment):
    folder = page.parent
    slug = "script-alert-x-script-50-of-x-bruste"
    tables = {f"{slug}{score}.{kind}" for score in ("", "-fid") for kind in ("csv", "md", "tex")}
    assert {path.name for path in (folder / "tables").iterdir()} == tables
    figures = {f"{slug}-{kind}.png" for kind in ("loss", "loss-later", "swd")}
    assert {path.name for path in (folder / "figures").iterdir()} == figures
    results = pd.read_csv(folder / "results.csv")
    assert len(results) == 13 * 2 + 5
    assert results["run_id"].nunique() == 18
    choice = json.loads((experiment / "report" / "choice.json").read_text())
    assert choice["score"] == "kid"
    assert choice["overall"]["configuration"]["preset"] == "gan"
    assert choice["overall"]["mean"] == pytest.approx(0.101)
    assert set(choice["by_preset"]) == {"gan", "dcgan", "wgan-gp"}


def test_the_same_runs_give_the_same_page(page, experiment, tmp_path):
    again = write_report([experiment], tmp_path)
    assert again.read_bytes() == page.read_bytes()


def test_several_experiments_share_a_page_and_keep_their_files_apart(experiment, tmp_path):
    runs = [
        {"values": {"preset": "dcgan", "seed": seed}, "start": start, "scores": [score("swd", 80.0 - i)]}
        for seed in (0, 1)
        for i, start in enumerate(("scratch", "transfer"))
    ]
    table = {"title": "Start", "sweep": "sweep", "rows": "start", "columns": None, "by": None}
    other = write_experiment(tmp_path / "other", runs, tables=[table], name="other")
    page = write_report([experiment, other], tmp_path / "out")
    parsed = Parsed(page.read_text(encoding="utf-8"))
    assert "From scratch and transferred" in parsed.text
    assert (page.parent / "tables" / "other-start.csv").is_file()
    assert (page.parent / "tables" / "other-scratch-and-transfer.csv").is_file()
    assert pd.read_csv(page.parent / "results.csv")["experiment"].unique().tolist() == [HOSTILE, "other"]
    assert (other / "report" / "choice.json").is_file()
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_experiments_of_one_name_are_told_apart_by_their_folders(tmp_path):
    runs = [{"values": {"preset": "gan"}, "scores": [score("swd", 80.0)]}]
    folders = [write_experiment(tmp_path / name, runs, name="demo") for name in ("mammogram", "pet")]
    page = write_report(folders, tmp_path / "out")
    assert "demo (mammogram)" in page.read_text()
    results = pd.read_csv(page.parent / "results.csv")
    assert results["experiment"].tolist() == ["demo (mammogram)", "demo (pet)"]


def test_an_experiment_that_has_just_been_submitted(tmp_path):
    runs = [{"values": {"preset": "gan"}, "state": "new"}]
    table = {"title": "Start", "sweep": "sweep", "rows": "preset", "columns": None, "by": None}
    page = write_report([write_experiment(tmp_path, runs, tables=[table])])
    parsed = Parsed(page.read_text(encoding="utf-8"))
    assert "No run has been scored yet" in parsed.text
    assert all(cell.strip() for cell in parsed.cells)
    assert not (page.parent / "choice.json").exists()


def test_heat_darkens_with_the_score_and_its_text_stays_readable():
    cells = {(str(i), "all"): Cell("", mean=float(i), count=1) for i in range(100)}
    part = Part("", [str(i) for i in range(100)], ["all"], cells)
    backgrounds = []
    for cell in cells.values():
        colours = dict(pair.split(":") for pair in heat(part, cell).split(";"))
        text = 0.0 if colours["color"] == "#000" else 1.0
        back = luminance(colours["background"])
        assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5
        backgrounds.append(back)
    assert backgrounds == sorted(backgrounds)
    assert heat(part, Cell("pending")) == ""


def test_the_command(experiment, tmp_path, capsys):
    assert main(["report", str(experiment), "--output", str(tmp_path), "--score", "fid"]) == 0
    assert f"wrote {tmp_path / 'index.html'}" in capsys.readouterr().out
    assert "Best gan by FID" in (tmp_path / "index.html").read_text()
    assert json.loads((experiment / "report" / "choice.json").read_text())["score"] == "fid"


def test_the_command_refuses_what_it_cannot_report(experiment, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is not an experiment" in capsys.readouterr().err
    assert main(["report", str(experiment), "--score", "is"]) == 2
    assert "allowed: fid, kid" in capsys.readouterr().err
    runs = [
        {"values": {"preset": "gan", "seed": seed}, "scores": [score("kid", 0.1, ruler=f"ruler-{seed}")]}
        for seed in (0, 1)
    ]
    assert main(["report", str(write_experiment(tmp_path / "mixed", runs))]) == 2
    error = capsys.readouterr().err
    assert "ruler-0" in error
    assert "ruler-1" in error
    assert not (tmp_path / "mixed" / "report").exists()
