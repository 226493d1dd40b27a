from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from petgan.ingest.deidentify import Key
from petgan.ingest.split import assign_splits
from petgan.store import SPLITS

SHARES = (0.7, 0.15, 0.15)
fractions = st.dictionaries(st.text(max_size=5), st.floats(0, 1, exclude_max=True), min_size=3, max_size=30)


@given(fractions, st.sampled_from([SHARES, (0.5, 0.5, 0.0), (0.0, 0.0, 1.0), (0.98, 0.01, 0.01)]))
def test_every_wanted_split_has_a_patient_and_no_other(numbers, shares):
    counts = Counter(assign_splits(numbers, shares).values())
    assert set(counts) == {name for name, share in zip(SPLITS, shares, strict=True) if share > 0}


@given(fractions)
def test_the_order_of_patients_does_not_matter(numbers):
    assert assign_splits(numbers, SHARES) == assign_splits(dict(reversed(numbers.items())), SHARES)


def test_a_patient_keeps_her_split_when_others_come():
    key = Key(bytes(32))
    few = {f"p{n}": key.fraction(f"p{n}") for n in range(60)}
    many = {f"p{n}": key.fraction(f"p{n}") for n in range(600)}
    before, after = assign_splits(few, SHARES), assign_splits(many, SHARES)
    assert before == {patient: after[patient] for patient in few}


def test_the_shares_are_met_in_the_long_run():
    key = Key(bytes(32))
    splits = assign_splits({str(n): key.fraction(str(n)) for n in range(4000)}, SHARES)
    counts = Counter(splits.values())
    for name, share in zip(SPLITS, SHARES, strict=True):
        assert abs(counts[name] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_two_patients_stay_where_their_numbers_are():
    assert assign_splits({"a": 0.1, "b": 0.2}, SHARES) == {"a": "train", "b": "train"}
