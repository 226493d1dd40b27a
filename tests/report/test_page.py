"""The page and the files beside it."""

from __future__ import annotations

import base64
import io
import json
import re

import pandas as pd
import pytest
from PIL import Image

from petgan.cli import main
from petgan.report.cells import Cell
from petgan.report.heat import heat_of
from petgan.report.page import write_report
from petgan.report.results import read_experiment
from petgan.runs import write_json
from tests.report.conftest import ERROR, HOSTILE
from tests.report.experiments import gate, score, write_experiment
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
    written = re.sub(r"data:image/[^\"]*", "", html)  # random letters of an image may spell anything
    assert "http" not in written.replace("http-equiv", "")


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
    assert "6 configurations (gan, dcgan and wgan-gp), 3 seeds (0, 1 and 2), 18 runs of 40 steps" in text
    assert "on the dataset pet.h5 (pet, 16 × 16 pixels)" in text
    assert "State of the runs: 13 scored, 2 failed and 3 pending" in text
    assert (
        "Best by KID (lower is better): gan, optimizer rmsprop, 0.1010 (95 % interval 0.0985 to 0.1035"
        in text
    )
    assert "Best dcgan: optimizer rmsprop, 0.1505 (95 % interval 0.1441 to 0.1569, 2 of 3 seeds)." in text
    assert "2 runs failed." in text
    assert "Floor, real against real: 0.0010 [-0.0005, 0.0025] (20 splits)" in text
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
    assert "No configuration has two seeds" in text


def test_overlapping_seeds_are_not_called_better(tmp_path):
    runs = [
        {"values": {"preset": "gan", "dropout": dropout, "seed": seed}, "scores": [score("kid", value)]}
        for dropout, values in {0.4: (1.0, 3.0, 2.0), 0.5: (2.0, 3.5, 1.5), 0.6: (90, 92, 91.1)}.items()
        for seed, value in enumerate(values)
    ]
    text = _words(Parsed(write_report([write_experiment(tmp_path, runs)]).read_text(encoding="utf-8")).text)
    assert (
        "It beats 1 of 2 other configurations; to 1 no difference is shown; the next is gan, dropout 0.5"
        in text
    )


def text_of(page):
    return _words(Parsed(page.read_text(encoding="utf-8")).text)


def seeds(values, preset="gan", **more):
    return [
        {"values": {"preset": preset, "seed": seed}, "scores": [score("kid", value)]} | more
        for seed, value in enumerate(values)
    ]


TABLE = {"title": "Networks", "sweep": "sweep", "rows": "preset", "columns": None, "by": None}


def test_a_gated_configuration_is_shown_by_name_and_is_never_the_best(tmp_path):
    runs = seeds((0.1, 0.11)) + seeds((0.5, 0.53), "dcgan")
    runs[1]["gates"] = [gate("copied")]
    folder = write_experiment(tmp_path / "gated", runs, tables=[TABLE])
    page = write_report([folder])
    parsed = Parsed(page.read_text(encoding="utf-8"))
    text = _words(parsed.text)
    assert "Best by KID (lower is better): dcgan" in text
    assert "1 run cannot be the best, by the gates: 1 copied." in text
    assert any("copied (1 of 2 seeds)" in cell for cell in parsed.cells)
    assert "3 of 150 images are copies of training images" in text
    choice = json.loads((page.parent / "choice.json").read_text())
    assert choice["overall"]["preset"] == "dcgan"
    assert list(choice["by_preset"]) == ["dcgan"]
    assert "copied (1 of 2 seeds)" in (page.parent / "tables" / "networks.md").read_text()


def test_where_gates_block_everything_nothing_is_chosen(tmp_path):
    runs = seeds((0.1, 0.11), gates=[gate("noise", "the images are noise")])
    page = write_report([write_experiment(tmp_path, runs, tables=[TABLE])])
    assert "No run that passes the gates has a score." in text_of(page)
    assert not (page.parent / "choice.json").exists()


def test_a_single_seed_is_shown_and_never_the_best(tmp_path):
    runs = seeds((0.1,)) + seeds((0.5, 0.53), "dcgan")
    page = write_report([write_experiment(tmp_path, runs, tables=[TABLE])])
    assert "Best by KID (lower is better): dcgan" in text_of(page)
    assert "1 configuration with one seed is not compared" in text_of(page)
    table = pd.read_csv(page.parent / "tables" / "networks.csv").set_index("preset")
    assert table["verdict"].to_dict() == {"gan": "single seed", "dcgan": "best"}


def test_scores_of_another_version_are_left_out_and_said(tmp_path):
    runs = seeds((0.1, 0.2))
    for run in runs:
        run["schema_version"] = 1
    page = write_report([write_experiment(tmp_path, runs, tables=[TABLE])])
    assert "2 runs were scored by another version of petgan" in text_of(page)


def test_rulers_stand_with_what_they_see_and_what_not(tmp_path):
    runs = seeds((0.1, 0.2))
    for run in runs:
        run["scores"][0]["blind_to"] = ["repeated"]
    folder = write_experiment(tmp_path, runs, tables=[TABLE])
    seen = {name: {"value": 0.4, "spread": 0.02, "seen": True} for name in ("blurred", "noisy", "checkered")}
    corrupted = seen | {"repeated": {"value": 0.1, "spread": 0.05, "seen": False}}
    check = {"ruler": score("kid", 0)["ruler"], "better": "lower", "n_real": 40, "n_fake": 150,
             "real": {"value": 0.1, "spread": 0.01}, "corrupted": corrupted}  # fmt: skip
    write_json(folder / "rulers.json", {"schema_version": 1, "rulers": {"kid": check}})
    page = write_report([folder])
    parsed = Parsed(page.read_text(encoding="utf-8"))
    assert "0.1 ± 0.05, NOT seen" in parsed.cells
    assert parsed.cells.count("0.4 ± 0.02, seen") == 3
    assert "does not see images that are repeated" in _words(parsed.text)
    assert "does not see images that are repeated" in (page.parent / "tables" / "networks.tex").read_text()


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


@pytest.mark.parametrize(("name", "sign"), [("kid", 1), ("coverage", -1)])
def test_heat_darkens_with_the_score_and_its_text_stays_readable(tmp_path, name, sign):
    run = {"values": {"preset": "gan"}, "scores": [score(name, 0.5)]}
    direction = read_experiment(write_experiment(tmp_path, [run])).scores[name]
    cells = [Cell("", mean=float(sign * i), count=1) for i in range(100)]
    colour = heat_of(cells, direction)
    backgrounds = []
    for cell in cells:
        colours = dict(pair.split(":") for pair in colour(cell).split(";"))
        text = 0.0 if colours["color"] == "#000" else 1.0
        back = luminance(colours["background"])
        assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5
        backgrounds.append(back)
    assert backgrounds == sorted(backgrounds)
    assert colour(Cell("pending")) == ""
    assert colour(Cell("", mean=-1.0, count=1, gates="copied")) == ""


def test_the_command(experiment, tmp_path, capsys):
    assert main(["report", str(experiment), "--output", str(tmp_path), "--score", "fid"]) == 0
    assert f"wrote {tmp_path / 'index.html'}" in capsys.readouterr().out
    assert "Best by FID (lower is better): gan" in (tmp_path / "index.html").read_text()
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
