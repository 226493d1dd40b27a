"""The page of an ingest: what it shows is what the record and the dataset hold."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from petgan.errors import DatasetError
from petgan.ingest.quarantine import Entry, write_quarantine
from petgan.report import histogram
from petgan.report.ingest import page_file, picked, write_page
from petgan.store import SPLITS, Dataset, Row, write_dataset
from tests.report.pages import Parsed, browse, contrast, needs_browser

SIZE = 16
HOSTILE = "has <script>alert('x')</script> & \"Brüste\""
VIEWS = {"cbis-ddsm": ("left-cc", "right-mlo"), "mini-mias": ("left", "right-mlo"), "other": ("mammogram",)}


class Tables(Parsed):
    """A page whose tables are kept: the words of the cells of their rows."""

    def __init__(self, text):
        self.tables = []
        super().__init__(text)
        self.tables = [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables]

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        super().handle_starttag(tag, attrs)

    def handle_data(self, data):
        super().handle_data(data)
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data

    def table(self, *head):
        """The rows of the tables with this head."""
        return [row for table in self.tables if table[0] == list(head) for row in table[1:]]


def _items(dtype="uint8", collections=tuple(VIEWS)):
    """Images with the collection of each: 12 patients, 4 images of each."""
    random = np.random.default_rng(7)
    for patient in range(12):
        collection = collections[patient % len(collections)]
        for n in range(4):
            image = random.gamma(2.0, 30.0, (SIZE, SIZE))
            image = (
                image if dtype == "float32" else np.clip(image, 0, 255) * (257 if dtype == "uint16" else 1)
            )
            view = VIEWS[collection][n % len(VIEWS[collection])]
            split = SPLITS[(patient // 3) % 3]
            row = Row(f"{patient:016x}", f"{patient:012x}{n:04x}", split, view, collection=collection)
            yield row, image.astype(dtype)


def _make(folder, dtype="uint8", window="stored:10,200", collections=tuple(VIEWS)):
    """A dataset and its record."""
    items = list(_items(dtype, collections))
    path = folder / "doe-jane.h5"
    digest = write_dataset(
        path, items, image_size=SIZE, modality="mammogram", units="stored",
        window=window, key_id="89abcdef", dtype=dtype,
    )  # fmt: skip
    by_collection, splits, values = {}, {}, {}
    for row, image in items:
        views = by_collection.setdefault(row.collection, {})
        views[row.view] = views.get(row.view, 0) + 1
        splits.setdefault(row.collection, {}).setdefault(row.split, []).append(row.patient)
        values.setdefault(row.collection, []).append(image.ravel() * 1.5 - 20)
    histograms = {name: np.histogram(np.concatenate(found), 37) for name, found in values.items()}
    rows = [row for row, _ in items]
    record = {
        "schema_version": 2,
        "tool_version": "0.1.0",
        "configuration": {"size": SIZE, "split": [0.7, 0.15, 0.15], "take": "slices:every=4"},
        "dataset": {"digest": digest, "modality": "mammogram", "units": "stored", "window": window,
                    "key_id": "89abcdef"},
        "images": len(rows),
        "patients": len({row.patient for row in rows}),
        "files": 1009,
        "by_format": {"dicom": 401, "png": 409},
        "by_split": {split: sum(row.split == split for row in rows) for split in SPLITS},
        "patients_by_split": {
            split: len({row.patient for row in rows if row.split == split}) for split in SPLITS
        },
        "by_collection": by_collection,
        "splits_by_collection": {
            collection: {s: {"images": len(p), "patients": len(set(p))} for s, p in found.items()}
            for collection, found in splits.items()
        },
        "suv": {"a rule": 419, "another rule": 421},
        "skipped": {"no image": 431, "DICOM without an image": 433},
        "refused": {"files": 1023, "by_reason": {"is empty": 439, HOSTILE: 443, "is in colours": 141},
                    "sources": [{"source": "0" * 16, "reason": "is empty"}]},
        "quarantine": {"pictures": 449, "by_reason": {"is a secondary capture": 449}, "accepted": 457,
                       "rejected": 461},
        "duplicates": {"pairs": 24, "exact": 11, "across_patients": 13, "groups": 17,
                       "sources": [[f"{n:016x}", f"{n + 100:016x}"] for n in range(24)]},
        "histograms": {
            name: {"edges": edges.tolist(), "counts": counts.tolist()}
            for name, (counts, edges) in histograms.items()
        },
    }  # fmt: skip
    return path, record


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return _make(tmp_path_factory.mktemp("ingest"))


@pytest.fixture(scope="module")
def page(made):
    path, record = made
    return write_page(record, path)


@pytest.fixture(scope="module")
def parsed(page):
    return Tables(page.read_text(encoding="utf-8"))


def _words(text):
    return " ".join(text.split())


def test_it_stands_beside_the_dataset_and_is_the_same_every_time(made, page, tmp_path):
    path, record = made
    assert page == path.with_name("doe-jane.ingest.html") == page_file(path)
    again = write_page(record, path, tmp_path / "again.html")
    assert again == tmp_path / "again.html"
    assert again.read_bytes() == page.read_bytes()


def test_it_fetches_nothing_and_runs_nothing(page, parsed):
    for tag, attrs in parsed.elements:
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "data"):
                assert value.startswith(("data:", "#")), (tag, value)
    text = page.read_text(encoding="utf-8")
    assert not parsed.all("script")
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text.replace("http-equiv", "")
    policy = next(meta["content"] for meta in parsed.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_no_other_file_is_named_and_what_the_record_says_is_text(page, parsed):
    named = re.findall(r"[\w.-]*doe-jane[\w.-]*", page.read_text(encoding="utf-8"))
    suffixes = ("h5", "ingest.json", "ingest.cache", "quarantine.csv", "quarantine.png", "quarantine-14.png")
    assert {name.rstrip(".") for name in named} == {f"doe-jane.{suffix}" for suffix in suffixes}
    assert str(page.parent) not in page.read_text(encoding="utf-8")
    assert HOSTILE in parsed.text


def test_its_head_says_that_patients_are_in_it(parsed):
    head, rest = _words(parsed.text).split("Summary", 1)
    assert "shows images of patients: handle it like the dataset" in head
    assert "pseudonymised" in head
    assert "id 89abcdef" in head
    assert "48 images of 12 patients" in rest


def test_the_summary(parsed):
    text = _words(parsed.text)
    assert "48 images of 12 patients, from 1009 files looked at." in text
    assert "Mammograms in values as stored, 16 × 16 pixels, uint8." in text
    assert "The window is fixed: black is 10, white 200, in values as stored." in text
    assert "1023 files were refused, for 3 reasons." in text
    assert "petgan dataset find ID --source SOURCE" in text
    assert "449 pictures were kept out of the dataset, in quarantine" in text
    assert "petgan ingest SOURCE --output doe-jane.h5 --accept-quarantined doe-jane.quarantine.csv" in text
    assert "petgan dataset audit doe-jane.h5 FOLDER --source SOURCE" in text
    assert "457 pictures were accepted out of quarantine" in text
    assert "461 pictures were rejected by a person" in text
    assert "864 files were skipped" in text
    assert "24 pairs of images that are the same, or nearly: 11 in every pixel, 13 across patients." in text
    assert "is it one patient with two names?" in text
    assert "nothing can be scored" not in text


def test_images_and_patients_by_split_and_collection(made, parsed):
    record = made[1]
    names = {"cbis-ddsm": "CBIS-DDSM", "mini-mias": "mini-MIAS", "other": "other pictures"}
    rows = {row[0]: row[1:] for row in parsed.table("collection", "train", "validation", "test", "all")}
    assert list(rows) == [*names.values(), "all"]
    for collection, name in names.items():
        cells = [record["splits_by_collection"][collection][split] for split in SPLITS]
        assert rows[name][:3] == [f"{cell['images']}({cell['patients']})" for cell in cells]
        assert rows[name][3] == f"{sum(record['by_collection'][collection].values())}(4)"
    assert rows["all"] == [
        *(f"{record['by_split'][split]}({record['patients_by_split'][split]})" for split in SPLITS),
        "48(12)",
    ]
    views = {(row[0], row[1]): int(row[2]) for row in parsed.table("collection", "view", "images")}
    assert views == {
        (names[collection], view): number
        for collection, told in record["by_collection"].items()
        for view, number in told.items()
    }


def test_reasons_stand_with_their_counts_the_commonest_first(parsed):
    files = [(int(number), why) for number, why in parsed.table("files", "why")]
    refused = [(443, HOSTILE), (439, "is empty"), (141, "is in colours")]
    assert files == [*refused, (433, "DICOM without an image"), (431, "no image")]
    assert parsed.table("pictures", "why") == [["449", "is a secondary capture"]]
    assert parsed.table("images", "format") == [["409", "png"], ["401", "dicom"]]
    assert parsed.table("slices", "by which way") == [["421", "another rule"], ["419", "a rule"]]


def test_duplicates_are_counted_and_the_first_pairs_named(parsed):
    assert [int(row[0]) for row in parsed.table("number", "of what")] == [24, 11, 13, 17]
    assert f"{19:016x} and {119:016x}" in _words(parsed.text)
    assert f"{20:016x}" not in parsed.text
    assert "4 more in the record" in parsed.text


def test_how_it_was_made(made, parsed):
    text = _words(parsed.text.split("How it was made", 2)[-1])
    for word in (
        made[1]["dataset"]["digest"],
        "89abcdef",
        "slices:every=4",
        "0.7, 0.15, 0.15",
        "stored:10,200",
    ):
        assert word in text


def test_links_lead_somewhere(parsed):
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {link["href"] for link in parsed.all("a")}
    assert len(links) == 7
    assert links <= {f"#{name}" for name in ids}


def test_every_cell_and_picture_has_words(parsed):
    assert all(cell.strip() for cell in parsed.cells)
    assert all(image["alt"].strip() for image in parsed.all("img"))
    drawings = parsed.all("svg")
    assert len(drawings) == 6
    assert all(svg["role"] == "img" and svg["aria-label"].strip() for svg in drawings)


def test_the_contact_sheet_shows_the_dataset_s_images(made, parsed):
    with Dataset(made[0]) as dataset:
        images = {dataset.image(index).tobytes() for index in range(len(dataset))}
    shown = [Image.open(io.BytesIO(base64.b64decode(i["src"].partition(",")[2]))) for i in parsed.all("img")]
    assert len(shown) == 8 + 8 + 8 + 8 + 12
    assert len({picture.tobytes() for picture in shown}) == len(shown)
    assert {picture.tobytes() for picture in shown} <= images
    assert "other pictures, mammogram: 12 of 16 images" in parsed.text


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_images_of_other_types_keep_their_greys(tmp_path, dtype):
    path, record = _make(tmp_path, dtype, "none" if dtype == "float32" else "full")
    parsed = Tables(write_page(record, path).read_text(encoding="utf-8"))
    last = parsed.all("img")[-12:]
    shown = [Image.open(io.BytesIO(base64.b64decode(i["src"].partition(",")[2]))) for i in last]
    greys = np.stack([np.asarray(picture) for picture in shown]).astype(float)
    with Dataset(path) as dataset:
        indices = [i for i, view in enumerate(dataset.columns["view"]) if view == "mammogram"]
        picks = picked(indices, dataset.columns["patient"], 12)
        wanted = np.stack([dataset.image(index)[..., 0] for index in picks]).astype(float)
    if dtype == "uint16":
        np.testing.assert_array_equal(greys, wanted // 256)
    else:
        low, high = wanted.min(), wanted.max()
        assert np.abs(greys - 255 * (wanted - low) / (high - low)).max() <= 0.5 + 1e-4
        assert f"black is {low:.4g}, white {high:.4g}, in values as stored" in parsed.text


def test_one_of_each_patient_is_shown_before_a_second_of_any():
    patients = ["a"] * 50 + ["b"] * 3 + ["c"] * 7
    for number in range(1, 20):
        picks = picked(range(60), patients, number)
        assert len(picks) == len(set(picks)) <= number
        assert len({patients[index] for index in picks}) == min(3, number)
    assert picked(range(2), patients, 5) == [0, 1]


# --- histograms ---------------------------------------------------------------------------------


def _decoded(svg):
    """What a reader gets out of a drawing by its ticks alone: bars (low, high, share), limits, unit."""
    ticks = re.findall(r'<path class="grid" d="M\S+ (\S+?)H\S+?"/><text[^>]*>(\S+) %</text>', svg)
    (y0, y1), (s0, s1) = ([float(t[i]) for t in (ticks[0], ticks[-1])] for i in (0, 1))
    marks = re.findall(r'<path class="axis" d="M(\S+) \S+?v4"/><text[^>]*>(\S+)</text>', svg)
    (x0, x1), (v0, v1) = ([float(m[i]) for m in (marks[0], marks[-1])] for i in (0, 1))

    def value(x):
        return v0 + (float(x) - x0) / (x1 - x0) * (v1 - v0)

    def share(y):
        logarithm = math.log(s0) + (float(y) - y0) / (y1 - y0) * (math.log(s1) - math.log(s0))
        return math.exp(logarithm) / 100

    path = re.search(r'class="bars" d="(.*?)"', svg)[1]
    bars = [
        (value(a), value(b), share(y)) for a, y, b in re.findall(r"M(\S+) \S+?V(\S+?)H(\S+?)V\S+?Z", path)
    ]
    limits = [value(x) for x in re.findall(r'class="limit" d="M(\S+) ', svg)]
    return bars, limits


def _drawings(page):
    """By label."""
    text = page.read_text(encoding="utf-8")
    return {re.search('aria-label="(.*?)"', svg)[1]: svg for svg in re.findall("<svg.*?</svg>", text, re.S)}


def test_before_the_window_the_record_s_histogram_is_drawn_and_the_limits_marked(made, page):
    drawn = {label: svg for label, svg in _drawings(page).items() if "before" in label}
    assert len(drawn) == 3
    for svg, told in zip(drawn.values(), made[1]["histograms"].values(), strict=True):
        bars, limits = _decoded(svg)
        counts, edges = np.array(told["counts"]), np.array(told["edges"])
        reach = edges[-1] - edges[0]
        kept = counts > 0
        np.testing.assert_allclose([bar[2] for bar in bars], (counts / counts.sum())[kept], rtol=0.01)
        np.testing.assert_allclose([bar[0] for bar in bars], edges[:-1][kept], atol=2e-4 * reach)
        np.testing.assert_allclose([bar[1] for bar in bars], edges[1:][kept], atol=2e-4 * reach)
        np.testing.assert_allclose(limits, [10, 200], atol=2e-4 * reach)
        assert ">values as stored</text>" in svg


def test_after_the_window_the_dataset_s_values_are_drawn(made, page):
    drawn = [(label, svg) for label, svg in _drawings(page).items() if "after" in label]
    with Dataset(made[0]) as dataset:
        images, collections = dataset.images(), dataset.columns["collection"]
    for (label, svg), collection in zip(drawn, VIEWS, strict=True):
        values = images[collections == collection].ravel()
        counts, edges = np.histogram(values, np.arange(0, 257, 4))
        bars, limits = _decoded(svg)
        np.testing.assert_allclose([bar[2] for bar in bars], (counts / counts.sum())[counts > 0], rtol=0.01)
        np.testing.assert_allclose([bar[0] for bar in bars], edges[:-1][counts > 0], atol=0.05)
        assert limits == []
        assert f"{100 * (values == 255).mean():.1f} % are white (255)" in label


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_histograms_of_images_equal_numpy_s_without_reading_them_at_once(tmp_path, dtype, monkeypatch):
    path, _ = _make(tmp_path, dtype, "none" if dtype == "float32" else "full")
    with Dataset(path) as dataset:
        values = dataset.images()[3:40].astype(np.float64)
        monkeypatch.setattr(Dataset, "images", None)
        found = histogram.of_images(dataset, range(3, 40))
    if dtype == "float32":
        assert (found.edges[0], found.edges[-1]) == (values.min(), values.max())
        assert found.ends is None
    else:
        top = np.iinfo(dtype).max
        assert (found.edges[0], found.edges[-1]) == (0, top + 1)
        assert found.ends == ((values == 0).mean(), (values == top).mean())
    np.testing.assert_array_equal(found.counts, np.histogram(values, found.edges)[0])
    assert found.counts.sum() == values.size


def test_bins_of_unlike_width_are_drawn_by_their_density():
    found = histogram.Histogram(np.array([0.0, 1, 3, 10]), np.array([10.0, 20, 70]))
    svg = histogram.draw(found, "SUVbw (g/ml)", {}, "words")
    bars, _ = _decoded(svg)
    np.testing.assert_allclose([bar[2] for bar in bars], [0.1, 0.1, 0.1], rtol=0.01)
    assert "share of the pixels, per SUVbw (g/ml)" in svg


@pytest.mark.parametrize(
    ("edges", "counts"),
    [([-3.0, 2e-7, 1.0], [1e12, 1]), ([5e5, 5.1e5], [3]), ([-1e-3, 0, 1e-3], [0, 2]), ([0, 1, 2], [7, 7])],
)
def test_histograms_of_any_scale_stay_on_the_drawing(edges, counts):
    svg = histogram.draw(
        histogram.from_record({"edges": edges, "counts": counts}), "unit", {"x": 3.0}, "words"
    )
    path = re.search(r'class="bars" d="(.*?)"', svg)[1]
    for x, y in re.findall(r"M(\S+) \S+?V(\S+?)H", path):
        assert histogram.LEFT <= float(x) <= histogram.RIGHT
        assert histogram.TOP <= float(y) < histogram.BOTTOM
    assert len(re.findall("<text", svg)) <= 20
    assert "nan" not in svg
    assert "inf" not in svg


@pytest.mark.parametrize("told", [{"edges": [], "counts": []}, {"edges": [0, 1], "counts": [0]}])
def test_an_empty_histogram_is_none(told):
    assert histogram.from_record(told) is None


# --- records that say less ----------------------------------------------------------------------


def test_a_record_that_says_little_gives_a_page(tmp_path):
    path, record = _make(tmp_path)
    little = {key: record[key] for key in ("dataset", "images", "patients", "by_split")}
    parsed = Tables(write_page(little, path).read_text(encoding="utf-8"))
    text = _words(parsed.text)
    assert "48 images of 12 patients." in text
    for word in ("None", "refused", "quarantine", "skipped", "Duplicates", "SUV"):
        assert word not in text
    assert len(parsed.all("svg")) == 3
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert {link["href"] for link in parsed.all("a")} <= {f"#{name}" for name in ids}


def test_what_was_looked_for_and_not_found_is_said(tmp_path):
    path, record = _make(tmp_path)
    nothing = {"files": 0, "pictures": 0, "accepted": 0, "by_reason": {}, "sources": [], "pairs": 0}
    record |= {"refused": nothing, "quarantine": nothing, "duplicates": nothing, "skipped": {}, "suv": {}}
    record["by_split"] = {"train": 48}
    text = _words(Tables(write_page(record, path).read_text(encoding="utf-8")).text)
    assert (
        "No file was refused. Nothing waits in quarantine. No two images were found to be the same." in text
    )
    assert "No image is in validation or test, so nothing can be scored." in text
    assert "Left out" not in text


def _pet(folder, views, window, name="pet.h5"):
    """The page of a small PET dataset, in words."""
    image = np.zeros((SIZE, SIZE), np.uint8)
    items = [
        (Row("0" * 16, f"{n:016x}", "train", view, collection="pet"), image) for n, view in enumerate(views)
    ]
    path = folder / name
    digest = write_dataset(path, items, image_size=SIZE, modality="pet", units="suvbw", window=window)
    record = {
        "dataset": {"digest": digest},
        "images": len(items),
        "patients": 1,
        "by_split": {"train": len(items)},
        "quarantine": {"pictures": 1, "by_reason": {"is a secondary capture": 1}, "accepted": 0},
    }
    return _words(Tables(write_page(record, path).read_text(encoding="utf-8")).text)


@pytest.mark.parametrize(
    ("views", "window", "said"),
    [
        (["slice"], "percentile:0.5,99.5", "of each series. The hottest voxels are clipped. Equal greys are"),
        (["mip-axial"], "percentile:1,100", "white the largest, of each projection. Equal greys are"),
        (["slice", "projection"], "percentile:1,99", "of each projection or series."),
        (["slice"], "suv:0,10", "The window is fixed: black is 0, white 10, in SUVbw (g/ml). "),
    ],
)
def test_what_a_window_means_for_uptake_is_said(tmp_path, views, window, said):
    text = _pet(tmp_path, views, window)
    assert said in text
    assert ("Equal greys are equal uptake only within" in text) == window.startswith("percentile")


def test_projections_are_shown_with_the_way_they_hang(tmp_path):
    text = _pet(tmp_path, ["mip-coronal", "mip-sagittal", "slice"], "suv:0,10")
    assert "PET, mip-coronal: 1 of 1 image; head up, the patient's left on the right" in text
    assert "PET, mip-sagittal: 1 of 1 image; head up, the front on the left" in text
    assert "PET, slice: 1 of 1 image " in text


def test_commands_hold_for_names_that_a_shell_would_break(tmp_path):
    text = _pet(tmp_path, ["slice"], "suv:0,10", "my <b> $(pet).h5")
    commands = re.findall(r"petgan ingest .*?csv'|petgan dataset audit .*? --source SOURCE", text)
    assert [shlex.split(command) for command in commands] == [
        ["petgan", "ingest", "SOURCE", "--output", "my <b> $(pet).h5", "--accept-quarantined",
         "my <b> $(pet).quarantine.csv"],
        ["petgan", "dataset", "audit", "my <b> $(pet).h5", "FOLDER", "--source", "SOURCE"],
    ]  # fmt: skip


def test_files_are_named_as_the_quarantine_names_them(tmp_path):
    preview = np.zeros((8, 8), np.uint8)
    entry = Entry("0" * 16, "1" * 16, "is a secondary capture", "slice", "pet", preview)
    written = write_quarantine(tmp_path / "pet", [entry], key="0123abcd")
    text = _pet(tmp_path, ["slice"], "suv:0,10")
    assert all(path.name in text for path in written)
    assert len(written) == 2


def test_one_view_of_two_collections_stays_apart(tmp_path):
    path, record = _make(tmp_path)
    parsed = Tables(write_page(record, path).read_text(encoding="utf-8"))
    assert "CBIS-DDSM, right-mlo: 8 of 8 images" in parsed.text
    assert "mini-MIAS, right-mlo: 8 of 8 images" in parsed.text


def test_the_record_of_another_dataset_is_refused(made, tmp_path):
    path, record = made
    other = {**record, "dataset": {**record["dataset"], "digest": "0" * 64}}
    with pytest.raises(DatasetError, match="another dataset"):
        write_page(other, path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# --- looks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_bars_stand_out_in_both_colour_schemes(page, scheme):
    roots = re.findall(r":root \{(.*?)\}", page.read_text(encoding="utf-8"))
    assert len(roots) == 2
    colours = dict(re.findall(r"--(\w+): (#\w+)", roots[scheme]))
    colours = {
        name: value if len(value) == 7 else "#" + "".join(2 * c for c in value[1:])
        for name, value in colours.items()
    }
    for ground in ("page", "wash"):
        for text in ("ink", "soft", "accent", "warn"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


# What a phone of 390 pixels shows; its frame is written to the document. See test_browser.
PHONE = """<!DOCTYPE html><iframe srcdoc="{page}" style="width: 390px; height: 800px; border: 0"></iframe>
<script>
onload = () => {{
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const wide = [...page.querySelectorAll("body *")].filter(
    element => element.getBoundingClientRect().right > page.documentElement.clientWidth + 0.5);
  const found = {{
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    wide: wide.map(element => element.tagName),
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    images: [...page.images].map(image => image.naturalWidth),
    smallest: Math.min(...[...page.querySelectorAll("svg")].map(
      svg => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)),
  }};
  frame.remove();
  document.body.textContent = JSON.stringify(found);
}};
</script>"""


@needs_browser
def test_on_a_phone_nothing_is_cut_off_fetched_or_missing(page, tmp_path):
    phone = tmp_path / "phone.html"
    phone.write_text(PHONE.format(page=html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    browsed = browse(phone, tmp_path, "--window-size=800,900", "--dump-dom")
    assert "CONSOLE" not in browsed.stderr
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", browsed.stdout, re.S)[1]))
    assert found["overflow"] == 0
    assert found["wide"] == []
    assert found["requests"] == []
    assert len(found["images"]) == 44
    assert all(found["images"])
    assert found["smallest"] >= 11  # pixels of a drawing's text


@needs_browser
@pytest.mark.parametrize(("number", "is_dark"), [("0", True), ("1", False)], ids=["dark", "light"])
def test_it_follows_the_reader_s_colour_scheme(page, tmp_path, number, is_dark):
    shot = tmp_path / "shot.png"
    scheme = f"--blink-settings=preferredColorScheme={number}"
    browse(page, tmp_path, scheme, f"--screenshot={shot}", "--window-size=400,800")
    corner = Image.open(shot).convert("L").getpixel((2, 2))
    assert corner < 64 if is_dark else corner > 192
