from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from petgan.errors import ConfigError
from petgan.ingest.quarantine import (
    COLUMNS,
    PER_SHEET,
    Decision,
    Entry,
    quarantine_sheet,
    read_decisions,
    write_quarantine,
)
from petgan.runs import file_digest

CONTENT, KEY = "c" * 16, "0123abcd"


def accepted_in(path):
    """The contents that were accepted, by picture."""
    return {which: one.content for which, one in read_decisions(path).items() if one.word == "accept"}


def decided(word, content=CONTENT, key=KEY):
    return Decision(word, content, key)


def entry(number, shape=(8, 6), value=200):
    preview = np.full(shape, value, np.uint8)
    return Entry(f"{number:016x}", CONTENT, "has text burned into its pixels", "left-cc", "ddsm", preview)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_and_its_sheet_are_for_the_user_alone(tmp_path):
    written = write_quarantine(tmp_path / "data.v2", [entry(7), entry(3)], key=KEY)
    assert [path.name for path in written] == ["data.v2.quarantine.csv", "data.v2.quarantine.png"]
    assert sorted(path.name for path in tmp_path.glob("[!i]*")) == [path.name for path in written]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in written)
    first, second = rows(written[0])
    assert tuple(first) == COLUMNS
    assert first == {
        "number": "1", "id": f"{7:016x}", "image": "0", "content": CONTENT, "key": KEY,
        "reason": "has text burned into its pixels",
        "collection": "ddsm", "view": "left-cc", "decision": "",
    }  # fmt: skip
    assert second["number"] == "2"
    with Image.open(written[1]) as sheet:
        assert sheet.info == {}


def test_many_pictures_take_several_sheets_and_old_ones_go(tmp_path):
    made = []

    def one(number):
        def preview():
            made.append(number)
            return np.zeros((4, 4), np.uint8)

        return Entry(f"{number:016x}", CONTENT, "r", "v", "c", preview)

    written = write_quarantine(tmp_path / "d", [one(n) for n in range(2 * PER_SHEET + 1)], key=KEY)
    assert [path.name for path in written[1:]] == [
        "d.quarantine.png", "d.quarantine-2.png", "d.quarantine-3.png",
    ]  # fmt: skip
    assert made == list(range(2 * PER_SHEET + 1))
    write_quarantine(tmp_path / "d", [entry(1)], key=KEY)
    assert sorted(path.name for path in tmp_path.glob("d*")) == ["d.quarantine.csv", "d.quarantine.png"]
    assert write_quarantine(tmp_path / "d", [], key=KEY) == []
    assert not list(tmp_path.glob("d*"))


def test_no_sheet_shows_others_than_the_list_when_the_writing_is_cut_short(tmp_path):
    (path, sheet) = write_quarantine(tmp_path / "d", [entry(1)], key=KEY)
    first = sheet.read_bytes()

    def cut_short():
        raise KeyboardInterrupt

    others = [entry(n) for n in range(2, 2 + PER_SHEET)]
    with pytest.raises(KeyboardInterrupt):
        write_quarantine(tmp_path / "d", [*others, replace(entry(0), preview=cut_short)], key=KEY)
    assert (sheet.read_bytes() == first) == (rows(path)[0]["id"] == entry(1).id)


def test_a_sheet_stays_only_if_it_is_the_one_that_was_drawn(tmp_path):
    (_, sheet) = write_quarantine(tmp_path / "d", [entry(1)], key=KEY)
    drawn, first = [file_digest(sheet)], sheet.read_bytes()
    write_quarantine(tmp_path / "d", [replace(entry(1), preview=None)], key=KEY, drawn=drawn)
    sheet.write_bytes(b"another")
    write_quarantine(tmp_path / "d", [entry(1)], key=KEY, drawn=drawn)
    assert sheet.read_bytes() == first


@pytest.mark.parametrize(
    ("shape", "tile"),
    [((64, 64), 256), ((100, 20), 256), ((512, 380), 512), ((300, 512), 512), ((2000, 900), 512)],
)
def test_a_picture_is_shown_whole_and_large(shape, tile):
    sheet = quarantine_sheet([entry(1, shape)], 1, "list.csv")
    inside = np.argwhere(sheet[90:] == 200)  # below the texts; they are 255, the ground is 32
    height, width = inside.max(0) - inside.min(0) + 1
    assert max(height, width) == pytest.approx(tile, abs=3)
    assert height / width == pytest.approx(shape[0] / shape[1], rel=0.05)


def test_pictures_stand_in_the_order_of_their_numbers():
    levels = [60 + 10 * n for n in range(9)]
    sheet = quarantine_sheet([entry(n, (9, 9), level) for n, level in enumerate(levels)], 1, "list.csv")
    places = [np.argwhere(sheet == level).mean(0) for level in levels]
    rows = [round(place[0] / 288) for place in places]
    assert rows == sorted(rows)
    for row in set(rows):
        across = [place[1] for place, where in zip(places, rows, strict=True) if where == row]
        assert across == sorted(across)


def test_decisions_are_read_back_and_kept(tmp_path):
    entries = [entry(n) for n in range(4)]
    (path, _) = write_quarantine(tmp_path / "d", entries, key=KEY)
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], text[1] + "accept", text[2] + " Reject ", text[3], text[4]]) + "\n")
    assert accepted_in(path) == {entries[0].which: CONTENT}
    assert read_decisions(path)[entries[1].which] == decided("reject")
    write_quarantine(tmp_path / "d", [entry(9), *entries], key=KEY)  # one more, and other numbers
    assert [row["decision"] for row in rows(path)] == ["", "accept", "reject", "", ""]
    write_quarantine(tmp_path / "d", entries, {entries[0].which: decided("reject")}, key=KEY)
    assert [row["decision"] for row in rows(path)] == ["reject", "reject", "", ""]


@pytest.mark.parametrize("entries", [[], [entry(2)]])
def test_decisions_outlive_an_ingest_without_their_pictures(tmp_path, entries):
    decisions = {entry(1).which: decided("accept"), entry(7).which: decided("reject")}
    write_quarantine(tmp_path / "d", [entry(1), entry(7)], decisions, key=KEY)
    (path, *_) = write_quarantine(tmp_path / "d", entries, key=KEY)
    assert decisions.items() <= read_decisions(path).items()
    write_quarantine(tmp_path / "d", [entry(1)], key=KEY)
    assert accepted_in(path) == {entry(1).which: CONTENT}


def test_a_decision_is_on_what_the_file_held(tmp_path):
    (path, _) = write_quarantine(tmp_path / "d", [entry(1)], {entry(1).which: decided("accept")}, key=KEY)
    assert accepted_in(path) == {entry(1).which: CONTENT}
    write_quarantine(tmp_path / "d", [replace(entry(1), content="d" * 16)], key=KEY)
    assert accepted_in(path) == {}


def test_a_list_that_cannot_be_read_is_kept_beside_older_ones(tmp_path, caplog):
    (path, _) = write_quarantine(tmp_path / "d", [entry(1)], key=KEY)
    spoilt = [path.read_text().replace(",\n", f",{word}\n") for word in ("acept", "rejekt", "oui")]
    for number, suffix in enumerate((".old", ".old-2", ".old-3")):
        path.write_text(spoilt[number])
        caplog.clear()
        write_quarantine(tmp_path / "d", [entry(1)], key=KEY)
        assert f"{path.name}{suffix}" in caplog.text
        assert "line 2" in caplog.text
    kept = [path.with_name(f"{path.name}{suffix}").read_text() for suffix in (".old", ".old-2", ".old-3")]
    assert kept == spoilt
    assert read_decisions(path) == {entry(1).which: decided("")}


def test_each_picture_of_a_file_is_decided_on_by_itself(tmp_path):
    several = [replace(entry(5), image=number) for number in range(3)]
    words = {one.which: decided(word) for one, word in zip(several, ("accept", "", "reject"), strict=True)}
    (path, _) = write_quarantine(tmp_path / "d", several, words, key=KEY)
    for _ in range(2):
        assert read_decisions(path) == words
        assert [row["decision"] for row in rows(path)] == ["accept", "", "reject"]
        write_quarantine(tmp_path / "d", several, key=KEY)


def test_a_file_that_could_not_be_read_costs_no_decision(tmp_path):
    entries = [entry(1), replace(entry(2), content="")]
    decisions = {entry(1).which: decided("accept")}
    (path, _) = write_quarantine(tmp_path / "d", entries, decisions, key=KEY)
    write_quarantine(tmp_path / "d", entries, key=KEY)
    assert accepted_in(path) == {entry(1).which: CONTENT}
    path.write_text(path.read_text().rstrip("\n") + "accept\n")
    with pytest.raises(ConfigError, match="line 3 .* could not be read"):
        read_decisions(path)


@pytest.mark.parametrize("number", [1, 299, 20000])
def test_a_stray_quotation_mark_is_told_by_its_line(tmp_path, number):
    lines = [f"{k},{k:016x},0,{CONTENT},{KEY},r,c,v,accept" for k in range(number)]
    lines[number // 2] = lines[number // 2].replace("r,c", '"r,c')
    path = tmp_path / "l.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]))
    with pytest.raises(ConfigError, match=f"line {number // 2 + 2} .* quotation mark"):
        read_decisions(path)


def test_spreadsheets_may_leave_out_a_last_cell_that_is_empty(tmp_path):
    (path, _) = write_quarantine(tmp_path / "d", [entry(1)], key=KEY)
    path.write_text(path.read_text().replace(",\n", "\n"))
    assert read_decisions(path) == {entry(1).which: decided("")}


def test_decisions_by_another_key_go(tmp_path):
    """Their ids would tie two sets of pseudonyms to each other."""
    (path, _) = write_quarantine(tmp_path / "d", [entry(1)], {entry(1).which: decided("accept")}, key=KEY)
    write_quarantine(tmp_path / "d", [entry(2)], key="ffffffff")
    assert read_decisions(path) == {entry(2).which: decided("", key="ffffffff")}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_lists_out_of_spreadsheets(tmp_path, separator):
    lines = [COLUMNS, ("1", "0" * 15 + "A", "3", CONTENT, KEY, "r", "ddsm", "left-cc", "ACCEPT"), ("",) * 9]
    text = "\r\n".join(separator.join(line) for line in lines)
    (tmp_path / "l.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert accepted_in(tmp_path / "l.csv") == {("0" * 15 + "a", 3): CONTENT}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([f"1,0000000000000001,0,{CONTENT},{KEY},r,c,v,yes"], "line 2 .* unknown decision"),
        (
            [f"1,0000000000000001,0,{CONTENT},{KEY},r,c,v,accept", f"2,1.2E+15,0,{CONTENT},{KEY},r,c,v,"],
            "line 3 .* no id",
        ),
        ([f"1,0000000000000001,0,{CONTENT},123456,r,c,v,accept"], "line 2 .* no id"),
        ([f"1,0000000000000001,0,{CONTENT},{KEY},r,v,accept"], "line 2 .* cells: got 8; allowed: 9"),
        ([f"1,0000000000000001,0,{CONTENT},{KEY},r,c,v,accept,no"], "line 2 .* cells: got 10; allowed: 9"),
        (
            [
                f"1,0000000000000001,0,{CONTENT},{KEY},r,c,v,accept",
                f"2,0000000000000001,0,{CONTENT},{KEY},r,c,v,reject",
            ],
            "line 3 .* otherwise",
        ),
    ],
)
def test_lines_that_say_nothing_clear_are_told_by_number(tmp_path, lines, words):
    path = tmp_path / "l.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]))
    with pytest.raises(ConfigError, match=words) as caught:
        accepted_in(path)
    assert "1.2E+15" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2\n", b"\xff\xfe\0"])
def test_what_is_no_list_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(ConfigError, match="quarantine list"):
        accepted_in(tmp_path / "l.csv")
