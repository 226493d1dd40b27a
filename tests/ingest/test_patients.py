from __future__ import annotations

import pytest

from petgan.errors import ConfigError
from petgan.ingest import Refused
from petgan.ingest.patients import SETTLED, check_rule, patient_of, resolve_rule


def test_mini_mias_pairs_left_and_right():
    patients = [patient_of(f"mdb{n:03d}.png", "mini-mias") for n in range(1, 323)]
    assert patients[0::2] == patients[1::2]
    assert len(set(patients)) == 161


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["a/mdb001.png", "a/x.png"], "folder"),
        (["a/1.png", "2.png"], "folder"),
        (["1.png", "2.png"], "file"),
        ([], "PatientID"),
    ],
)
def test_auto(names, rule):
    assert resolve_rule("auto", names) == rule
    assert resolve_rule("file", names) == "file"


def test_auto_comes_to_the_collection_where_its_names_say_it_all():
    assert resolve_rule("auto", [], by_collection=True) == "collection"
    assert resolve_rule("auto", ["a/1.png"], by_collection=True) == "folder"


def test_what_auto_comes_to_is_not_taken_for_an_expression():
    assert {resolve_rule("auto", names, found) for names in ([], ["a"], ["a/b"]) for found in (0, 1)} <= set(
        SETTLED
    )


def test_each_rule():
    assert patient_of("a/b/c.png", "folder") == "a"
    assert patient_of("a/b/c.png", "file") == "a/b/c"
    assert patient_of("Calc-Test_P_00038_LEFT_CC/1.dcm", r"P_(\d+)") == "00038"


@pytest.mark.parametrize(
    ("name", "rule"), [("a.png", "folder"), ("x1.png", "mini-mias"), ("a.png", r"P(\d+)")]
)
def test_a_picture_of_nobody_is_refused(name, rule):
    with pytest.raises(Refused):
        patient_of(name, rule)


@pytest.mark.parametrize("rule", ["folders", "(", r"(a)(b)", ""])
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(ConfigError, match="mini-mias"):
        check_rule(rule)
