from __future__ import annotations

from collections import Counter

import numpy as np
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


numbers_in = st.tuples(st.sampled_from(["pet", "mini-mias", "ddsm"]), st.floats(0, 1, exclude_max=True))
patients_in = st.dictionaries(st.text(max_size=5), numbers_in, min_size=1, max_size=40)


def assign(patients, together=None, shares=SHARES):
    return assign_splits(
        {patient: number for patient, (_, number) in patients.items()},
        shares,
        collections={patient: collection for patient, (collection, _) in patients.items()},
        together=together,
    )


@given(patients_in)
def test_every_collection_is_split_as_if_it_were_alone(patients):
    splits = assign(patients)
    for name in {collection for collection, _ in patients.values()}:
        own = {patient: number for patient, (collection, number) in patients.items() if collection == name}
        assert {patient: splits[patient] for patient in own} == assign_splits(own, SHARES)


def has_all_splits(numbers):
    """Whether no patient is lent."""
    return min(numbers) < 0.7 and any(0.7 <= x < 0.85 for x in numbers) and max(numbers) >= 0.85


@given(patients_in, patients_in)
def test_who_comes_moves_others_by_a_loan_of_their_collection_only(patients, more):
    """At most those move that were lent, or are lent now; none where there was no need of a loan."""
    more = {f"new {name}": value for name, value in more.items()}
    before, after = assign(patients), assign({**patients, **more})
    moved = {patient for patient in patients if before[patient] != after[patient]}
    for name in {collection for collection, _ in patients.values()}:
        own = {patient: number for patient, (collection, number) in patients.items() if collection == name}
        unlent = {name: SPLITS[np.searchsorted((0.7, 0.85), number, "right")] for name, number in own.items()}
        for patient in moved & set(own):
            assert before[patient] != unlent[patient] or after[patient] != unlent[patient]
        if has_all_splits(own.values()) or all(collection != name for collection, _ in more.values()):
            assert not moved & set(own)


@given(patients_in, st.data())
def test_patients_that_share_a_picture_share_a_split(patients, data):
    together = {patient: data.draw(st.sampled_from("ABCDEFG")) for patient in patients}
    splits = assign(patients, together)
    leaders = {}
    for patient in sorted(patients):
        leaders.setdefault(together[patient], patient)
    assert set(splits) == set(patients)
    assert splits == {patient: splits[leaders[together[patient]]] for patient in patients}
    alone = assign({patient: patients[patient] for patient in leaders.values()})
    assert {patient: splits[patient] for patient in leaders.values()} == alone


def test_a_group_that_a_later_name_joins_stays():
    key = Key(bytes(32))
    patients = {f"p{n:03d}": ("pet", key.fraction(str(n))) for n in range(300)}
    before = assign(patients, {patient: patient for patient in patients})
    joined = {patient: f"p{int(patient[1:]) % 150:03d}" for patient in patients}
    after = assign(patients, joined)
    assert all(after[f"p{n:03d}"] == before[f"p{n:03d}"] == after[f"p{n + 150:03d}"] for n in range(150))


def test_shares_are_met_as_by_lot_and_no_better():
    """The counts of many collections have the variance of a binomial distribution."""
    random = np.random.default_rng(0)
    counts = []
    for _ in range(500):
        splits = assign_splits(dict(zip(map(str, range(100)), random.random(100), strict=True)), SHARES)
        counts.append(sum(split == "test" for split in splits.values()))
    assert abs(np.mean(counts) - 15) < 4 * (12.75 / 500) ** 0.5
    assert 0.75 < np.var(counts) / 12.75 < 1.3
    assert 0.92 < np.mean([8 <= count <= 22 for count in counts]) < 0.98
