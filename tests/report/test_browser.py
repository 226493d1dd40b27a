"""The page in a real browser."""

from __future__ import annotations

import html
import json
import re

import pytest
from PIL import Image

from tests.report.pages import browse, needs_browser

pytestmark = needs_browser

# A phone is a frame: a headless window has a least width. What is found in it is read from the document.
PHONE = """<!DOCTYPE html><iframe srcdoc="{page}" style="width: 400px; height: 800px; border: 0"></iframe>
<script>
onload = () => {{
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const buttons = page.querySelectorAll("table.runs th button");
  const scores = () => [...page.querySelectorAll("table.runs tbody tr")].map(row => row.cells[5].textContent);
  const sorted = () => {{ buttons[5].click(); return scores(); }};
  const found = {{
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    images: [...page.images].map(image => image.naturalWidth),
    up: sorted(),
    down: sorted(),
    tables: [...page.querySelectorAll("table")].map(table => ({{
      rows: table.tBodies[0].rows.length,
      columns: [...table.tHead.rows[0].cells].map((head, column) => {{
        const cells = () => [...table.tBodies[0].rows].map(row => row.cells[column]);
        const key = cell => cell.dataset.sort ?? cell.textContent.trim();
        head.querySelector("button")?.click();
        return {{ sorts: !!head.querySelector("button"), keys: cells().map(key) }};
      }}),
    }})),
  }};
  frame.remove();
  document.body.textContent = JSON.stringify(found);
}};
</script>"""


@pytest.fixture(scope="module")
def browsed(page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    phone = folder / "phone.html"
    phone.write_text(PHONE.format(page=html.escape(page.read_text(encoding="utf-8"))), encoding="utf-8")
    return browse(phone, folder, "--window-size=800,900", "--dump-dom")


@pytest.fixture(scope="module")
def found(browsed):
    return json.loads(html.unescape(re.search(r"<body>(.*)</body>", browsed.stdout, re.S)[1]))


def test_nothing_is_wrong_in_the_console(browsed):
    assert "CONSOLE" not in browsed.stderr


def test_nothing_is_fetched_and_every_image_is_drawn(found):
    assert found["requests"] == []
    assert found["images"]
    assert all(found["images"])


def test_nothing_is_wider_than_a_phone(found):
    assert found["overflow"] == 0


def test_runs_are_sorted_by_a_click_and_missing_scores_stay_last(found):
    missing = ["none yet"] * 5
    for order, descending in (("up", False), ("down", True)):
        values = [float(value) for value in found[order][:-5]]
        assert len(values) == 13
        assert values == sorted(values, reverse=descending)
        assert found[order][-5:] == missing


def test_every_table_of_several_rows_sorts_by_every_column(found):
    tables = found["tables"]
    assert len(tables) >= 4
    for table in tables:
        for column in table["columns"]:
            assert column["sorts"] == (table["rows"] > 1)
            known = [key for key in column["keys"] if key != ""]
            assert column["keys"][: len(known)] == known  # what is missing comes last
            try:
                numbers = [float(key) for key in known]
            except ValueError:
                continue
            if column["sorts"]:
                assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


@pytest.mark.parametrize(("number", "name"), [("0", "dark"), ("1", "light")], ids=["dark", "light"])
def test_it_follows_the_reader_s_colour_scheme(page, tmp_path, number, name):
    shot = tmp_path / "shot.png"
    scheme = f"--blink-settings=preferredColorScheme={number}"
    browse(page, tmp_path, scheme, f"--screenshot={shot}", "--window-size=400,800")
    corner = Image.open(shot).convert("L").getpixel((2, 2))
    assert corner < 64 if name == "dark" else corner > 192
