from __future__ import annotations

import itertools
import json

import pytest

from petgan.datasheet import datasheet, markdown

CHECK = {
    "checked": True,
    "threshold": 0.45,
    "training_images": 60,
    "training_patients": 20,
    "held_out_images": 0,
    "held_out_patients": 0,
    "copies": 0,
    "smallest_ratio": 0.7,
    "median_ratio": 1.0,
    "false_alarms": None,
    "false_alarm_bound": None,
    "authenticity": 0.4,
    "held_out_authenticity": None,
    "nearer_train_share": None,
    "membership_auc": None,
    "memorisation": {"rejects": None, "error_rate": 0.01, "words": "it cannot be decided"},
}
LINEAGE = {
    "count": 30,
    "noise_seed": 0,
    "run_id": None,
    "checkpoint_step": 400,
    "checkpoint_digest": "abc",
    "dataset_digest": "def",
    "code_version": "0.1",
    "code_digest": "123",
    "copies_allowed": False,
    "gates": [],
    "copy_check": CHECK,
    "started_from": [],
}
MEANING = {"modality": "pet", "units": "bqml", "window": "full"}
SCORE = {
    "name": "kid", "protocol": "petgan", "value": 0.01234, "standard_error": 0.001, "better": "lower",
    "ruler": "kid/a|b", "n_real": 60, "n_fake": 150, "floor": None, "blind_to": None,
}  # fmt: skip


def page_of(evaluation=None, **values):
    sheet = datasheet({**LINEAGE, **values}, 32, MEANING, evaluation)
    json.dumps(sheet, allow_nan=False)
    return markdown(sheet)


def evaluated(**values):
    return {"schema_version": 2, "checkpoint": {"digest": "abc"}, "scores": [{**SCORE, **values}]}


def test_each_section_is_there_once_and_each_table_is_whole():
    lines = page_of(evaluated()).splitlines()
    titles = [line[3:] for line in lines if line.startswith("## ")]
    assert titles == [
        "Motivation", "Composition", "Collection process", "Preprocessing", "Quality", "Privacy", "Uses",
        "Distribution", "Maintenance",
    ]  # fmt: skip
    for before, line in itertools.pairwise(lines):
        if line.startswith("|") and before.startswith("|"):
            assert line.replace("\\|", "").count("|") == before.replace("\\|", "").count("|")


@pytest.mark.parametrize(
    ("blind_to", "words"),
    [(None, "not checked"), ([], "nothing it was tried on"), (["noisy", "repeated"], "noisy, repeated")],
)
def test_a_score_stands_beside_what_its_ruler_does_not_see(blind_to, words):
    expected = f"| kid | 0.01234 ± 0.001 | none | lower | 60 | 150 | {words} | petgan | kid/a\\|b |"
    assert expected in page_of(evaluated(blind_to=blind_to))


def test_what_is_not_known_is_called_unknown_and_what_was_not_decided_is_said():
    page = page_of()
    assert "| membership AUC | unknown |" in page
    assert "| run id | unknown |" in page
    assert "it cannot be decided" in page


def test_failed_gates_are_named_and_unchecked_images_called_so():
    assert "Failed: 3 of 30 are copies." in page_of(gates=[{"words": "3 of 30 are copies"}])
    page = page_of(gates=None, copy_check={"checked": False, "reason": "they were not at hand"})
    assert "The images were not checked" in page
    assert "No check failed" not in page


def test_scores_of_an_older_schema_are_no_scores():
    assert "was not evaluated" in page_of({**evaluated(), "schema_version": 1})


def test_each_start_has_its_own_check():
    start = {"checkpoint_digest": "p", "dataset_digest": "q", "copy_check": {**CHECK, "training_images": 61}}
    page = page_of(started_from=[start])
    assert "from checkpoint p, which was trained on dataset q" in page
    assert "Compared with 61 training images of the start, of 20 patients" in page


def test_scores_of_another_protocol_are_no_scores_of_these_images():
    both = evaluated()
    both["scores"] += [{**SCORE, "name": "fid-thesis", "protocol": "thesis"}]
    assert "fid-thesis" not in page_of(both)
    assert "kid" in page_of(both)
    assert "by another protocol only" in page_of(evaluated(protocol="thesis"))


def test_false_alarms_come_with_their_bound():
    check = {**CHECK, "held_out_images": 60, "false_alarms": 0, "false_alarm_bound": 1 - 0.05 ** (1 / 60)}
    assert "with 95 % confidence fewer than 4.9% of such images" in page_of(copy_check=check)
