"""The page and the files beside it."""

from __future__ import annotations

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from petgan.cli import main
from petgan.config import DatasetRef
from petgan.report.cells import Cell
from petgan.report.heat import heat_of
from petgan.report.page import write_report
from petgan.runs import write_json
from petgan.store import Dataset
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
    assert "http" not in re.sub(r"data:image/[^\"]*", "", html).replace("http-equiv", "")


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
    low, high = stats.t.interval(0.95, 2, 0.101, stats.sem([0.1, 0.101, 0.102]))
    won = f"gan, optimizer rmsprop, 0.1010 (95 % interval {low:.4f} to {high:.4f}, 3 seeds)"
    assert f"Best by KID (lower is better): {won}." in text
    assert "Best dcgan: optimizer rmsprop, 0.1505 (95 % interval" in text
    assert "2 of 3 seeds" in text
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
    assert "Best by" not in text


def test_overlapping_seeds_are_not_called_better(tmp_path):
    runs = [
        {"values": {"preset": "gan", "dropout": dropout, "seed": seed}, "scores": [score("kid", value)]}
        for dropout, values in {0.4: (1.0, 3.0), 0.5: (2.0, 4.0), 0.6: (90.0, 91.0)}.items()
        for seed, value in enumerate(values)
    ]
    text = _words(Parsed(write_report([write_experiment(tmp_path, runs)]).read_text(encoding="utf-8")).text)
    assert "Best by KID (lower is better): gan, dropout 0.4, 2.000 (95 % interval" in text
    assert "It beats 1 of the 2 other configurations, and no difference is shown to 1" in text


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
    choice = json.loads((page.parent / "choice.json").read_text())
    assert (choice["overall"], choice["by_preset"]) == (None, {})


def test_a_single_seed_is_shown_and_never_the_best(tmp_path):
    runs = seeds((0.1,)) + seeds((0.5, 0.53), "dcgan")
    page = write_report([write_experiment(tmp_path, runs, tables=[TABLE])])
    assert "Best by KID (lower is better): dcgan" in text_of(page)
    assert "1 configuration with one seed is not compared" in text_of(page)
    table = pd.read_csv(page.parent / "tables" / "networks.csv").set_index("preset")
    assert table["verdict"].to_dict() == {"gan": "single seed", "dcgan": "best"}


def test_higher_is_better_where_the_score_says_so(tmp_path):
    runs = seeds((0.1, 0.11)) + seeds((0.5, 0.53), "dcgan")
    for run in runs:
        run["scores"] = [score("coverage", run["scores"][0]["value"])]
    page = write_report([write_experiment(tmp_path, runs, tables=[TABLE])])
    assert "Best by coverage (higher is better): dcgan" in text_of(page)


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


def test_the_published_procedure_stands_beside_the_published_values(tmp_path):
    runs = seeds((0.1, 0.2))
    for run in runs:
        run["scores"] += [score("fid", 90.0), score("fid-thesis", 310.0, n_real=404)]
    row = {"table": "7.5", "dataset": "i3m", "model": "gan", "fid": 301.263}
    blank = dict.fromkeys(("optimizer", "dropout", "batch_size", "learning_rate", "gp_weight"))
    published = {"where": {"dataset": "i3m"}, "rows": [blank | row]}
    page = write_report([write_experiment(tmp_path, runs, tables=[TABLE], published=published)])
    thesis = (page.parent / "tables" / "networks-fid-thesis.md").read_text()
    assert "301.3" in thesis
    assert "by the procedure of our FID (thesis)" in thesis
    assert "301.3" not in (page.parent / "tables" / "networks-fid.md").read_text()


# --- real images ------------------------------------------------------------------------------------


@pytest.fixture
def copying(tmp_path, make_dataset):
    """An experiment whose best run has two images near training images, and the training images."""
    data = make_dataset()
    with Dataset(data) as dataset:
        train = dataset.images("train")[..., 0]
        known = DatasetRef(path=str(data), digest=dataset.digest, image_size=16, modality="pet")
    fakes = np.random.default_rng(0).integers(0, 256, (2, 16, 16), np.uint8)
    told = [{"fake": 4, "train": 3, "ratio": 0.41}, {"fake": 9, "train": 5, "ratio": 0.83}]
    runs = seeds((0.1, 0.2))
    runs[0]["nearest"] = list(zip(fakes, told, strict=True))
    return write_experiment(tmp_path / "exp", runs, tables=[TABLE], dataset=known), train, fakes


def pictures_of(page):
    parsed = Parsed(page.read_text(encoding="utf-8"))
    sources = [image["src"] for image in parsed.all("img")]
    files = [io.BytesIO(base64.b64decode(source.partition(",")[2])) for source in sources]
    return [np.asarray(Image.open(file).convert("L")) for file in files]


def is_in(image, pictures):
    """Whether a picture has the image somewhere, pixel by pixel."""
    size = len(image)
    return any(
        (picture[top : top + size, left : left + size] == image).all()
        for picture in pictures
        for top in range(len(picture) - size + 1)
        for left in range(picture.shape[1] - size + 1)
        if picture[top, left] == image[0, 0] and picture[top + size - 1, left + size - 1] == image[-1, -1]
    )


def test_no_real_image_gets_onto_a_page_that_did_not_ask_for_it(copying):
    folder, train, fakes = copying
    page = write_report([folder])
    small = [picture for picture in pictures_of(page) if len(picture) < 100]
    assert all(is_in(fake, small) for fake in fakes)
    assert not any(is_in(image, small) for image in train)
    assert "real images of patients" not in text_of(page)


def test_with_real_each_generated_image_stands_beside_its_training_image(copying, capsys):
    folder, train, fakes = copying
    assert main(["report", str(folder), "--with-real"]) == 0
    page = folder / "report" / "index.html"
    single = [picture for picture in pictures_of(page) if picture.shape == (16, 16)]
    np.testing.assert_array_equal(single, [fakes[0], train[3], fakes[1], train[5]])
    assert "This page shows real images of patients. Do not share it." in text_of(page)


def test_a_dataset_that_has_changed_is_not_shown(copying, make_dataset):
    folder, *_ = copying
    make_dataset(seed=5)
    page = write_report([folder], with_real=True)
    assert "The training images are not shown: the dataset has changed" in text_of(page)
    assert "real images of patients" not in text_of(page)


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


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_heat_darkens_as_the_score_gets_better_and_its_text_stays_readable(better):
    cells = [Cell("", mean=float(i), count=1) for i in range(100)]
    colour = heat_of(cells, SimpleNamespace(sign=1 if better == "lower" else -1))
    backgrounds = []
    for cell in cells:
        colours = dict(pair.split(":") for pair in colour(cell).split(";"))
        text = 0.0 if colours["color"] == "#000" else 1.0
        back = luminance(colours["background"])
        assert (max(text, back) + 0.05) / (min(text, back) + 0.05) >= 4.5
        backgrounds.append(back)
    assert backgrounds == sorted(backgrounds, reverse=better == "higher")
    assert colour(Cell("pending")) == ""
    assert colour(Cell("", mean=1.0, gates="copied")) == ""


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
