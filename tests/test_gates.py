from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from petgan import gates
from petgan.gates import GATES, RealImages, thumbnails
from petgan.metrics import privacy

SLICES = 3


def slices(patients, seed, size=32):
    """Smooth random images, `SLICES` of each patient, which are more alike than those of two patients."""
    random = np.random.default_rng(seed)
    person = np.repeat(random.normal(size=(patients, size, size)), SLICES, axis=0)
    fields = gaussian_filter(person + 0.7 * random.normal(size=person.shape), (0, 3, 3))
    return to_grey(128 + 40 * fields / fields.std())


def to_grey(images):
    return np.clip(np.round(images), 0, 255).astype(np.uint8)


def of(patients, first=0):
    return np.repeat(np.arange(first, first + patients), SLICES)


def dataset(seed):
    return RealImages(slices(20, 3 * seed), of(20), slices(6, 3 * seed + 1), of(6, 20))


REAL, HONEST = dataset(0), slices(10, 2)


def failed(findings):
    return [gate.name for gate in findings.gates]


# --- rates --------------------------------------------------------------------------------------


def changed(images, random):
    """Copies with noise, mirrored or not, shifted, and of another contrast."""
    out = images.astype(float) + random.normal(0, 8, images.shape)
    mirrored = random.random(len(out)) < 0.5
    out[mirrored] = out[mirrored, :, ::-1]
    out *= random.uniform(0.7, 1.2, (len(out), 1, 1))
    return to_grey([np.roll(image, random.integers(-2, 3, 2), (0, 1)) for image in out])


@pytest.mark.slow
def test_copies_are_blocked_always_and_honest_images_pass(monkeypatch):
    monkeypatch.setattr(privacy, "PERMUTATIONS", 999)
    passed, blocked = 0, {"exact": 0, "changed": 0, "one": 0}
    for seed in range(100):
        real, honest, random = dataset(seed), slices(7, 3 * seed + 2), np.random.default_rng(seed)
        passed += not failed(real.check(honest))
        taken = real.train[random.choice(len(real.train), len(honest))]
        one = honest.copy()
        one[random.integers(len(one))] = changed(taken[:1], random)[0]
        for name, fake in (("exact", taken), ("changed", changed(taken, random)), ("one", one)):
            blocked[name] += "copied" in failed(real.check(fake))
    assert blocked == dict.fromkeys(blocked, 100)
    assert passed >= 95


# --- each gate ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (np.zeros((30, 32, 32), np.uint8), "black"),
        (np.full((30, 32, 32), 128, np.uint8), "constant"),
        (np.random.default_rng(0).integers(0, 256, (30, 32, 32), np.uint8), "noise"),
        (np.repeat(HONEST[:1], 30, axis=0), "single-mode"),
        (np.concatenate([HONEST, REAL.train[7:8]]), "copied"),
    ],
)
def test_each_failure_has_its_name_and_only_that(images, name):
    (gate,) = REAL.check(images).gates
    assert gate.name == name
    assert gate.name in GATES
    assert gate.value < gate.limit
    assert len(gate.words) > 20


def test_memory_without_copies_has_its_name():
    """Training images that are blended with honest ones, enough to be copies no longer."""
    found = REAL.check(to_grey(0.5 * REAL.train + 0.5 * slices(20, 51)))
    assert failed(found) == ["memorised"]
    assert found.copies["memorisation"]["rejects"] is True
    assert found.copies["membership_auc"] > 0.8


def test_nothing_is_said_against_honest_or_blurred_images():
    blurred = to_grey(gaussian_filter(HONEST.astype(float), (0, 2, 2)))
    for images in (HONEST, HONEST[:4], blurred, HONEST[..., None]):
        assert not failed(REAL.check(images))


def test_the_nearest_images_are_those_of_smallest_ratio_and_traced():
    fake = np.concatenate([HONEST, REAL.train[[7, 40]]])
    nearest = REAL.check(fake).nearest
    assert {(pair.fake, pair.train) for pair in nearest[:2]} == {(30, 7), (31, 40)}
    ratios = [pair.ratio for pair in nearest]
    assert len(ratios) == 8
    assert ratios == sorted(ratios)
    assert ratios[0] == 0
    assert len(REAL.check(HONEST[:3]).nearest) == 3


def test_what_is_found_is_for_json_and_the_same_each_time():
    found = REAL.check(HONEST)
    json.dumps(found.copies, allow_nan=False)
    again = RealImages(REAL.train, REAL.train_patients, REAL.held_out, REAL.held_out_patients).check(HONEST)
    assert asdict(found) == asdict(again)
    assert found.copies["false_alarms"] == 0
    assert found.copies["held_out_images"] == 18
    assert 0.2 < found.copies["membership_auc"] < 0.8


def test_more_fakes_than_are_compared_are_all_searched_for_copies():
    many = np.concatenate([slices(180, 60), REAL.train[3:4]])
    found = REAL.check(many)
    assert (found.copies["compared_images"], found.copies["copies"]) == (500, 1)


def test_an_honest_rule_tells_of_its_false_alarms():
    """Held-out images that are nearly those of training patients."""
    held_out = to_grey(REAL.train[:6] + np.random.default_rng(0).normal(0, 2, (6, 32, 32)))
    found = RealImages(REAL.train, REAL.train_patients, held_out, of(2, 20)).check(HONEST)
    assert found.copies["false_alarms"] == 6
    assert any("6 of 6 held-out images" in note for note in found.notes)


# --- what cannot be told ------------------------------------------------------------------------


def test_without_held_out_images_memory_is_undecided_and_copies_are_found():
    nobody = np.empty((0, 32, 32), np.uint8), np.empty(0, int)
    found = RealImages(REAL.train, REAL.train_patients, *nobody).check(REAL.train[:4])
    assert failed(found) == ["copied"]
    assert found.copies["memorisation"]["rejects"] is None
    assert any("no images were held out" in note for note in found.notes)


def test_with_few_patients_memory_is_undecided():
    found = RealImages(REAL.train[:15], of(5), REAL.held_out[:3], of(1, 5)).check(HONEST)
    assert found.copies["memorisation"]["labelings"] == 6
    assert any("6 ways to hold some out, and it takes 200" in note for note in found.notes)


@pytest.mark.parametrize(
    ("train", "patients", "word"),
    [
        (REAL.train[:3], np.zeros(3), "two training patients"),
        (np.repeat(REAL.train[:1], 60, axis=0), of(20), "the same"),
    ],
)
def test_a_training_set_without_a_scale_is_said(train, patients, word):
    found = RealImages(train, patients, REAL.held_out, REAL.held_out_patients).check(HONEST)
    assert found.copies["checked"] is False
    assert word in found.copies["reason"]
    assert found.notes == (found.copies["reason"],)
    assert found.nearest == ()


def test_a_patient_on_both_sides_is_said():
    found = RealImages(REAL.train, REAL.train_patients, REAL.held_out, REAL.held_out_patients - 1).check(
        HONEST
    )
    assert found.copies["memorisation"]["rejects"] is None
    assert "at once" in found.notes[0]


def test_one_image_can_be_checked():
    assert failed(REAL.check(HONEST[:1])) == []
    assert failed(REAL.check(REAL.train[:1])) == ["copied"]


def test_thumbnails_average():
    checkered = np.indices((64, 64)).sum(axis=0) % 2 * 200
    (thumbnail,) = thumbnails(checkered.astype(np.uint8)[None])
    assert thumbnail.shape == (32, 32)
    assert np.abs(thumbnail.astype(int) - 100).max() <= 5
    assert thumbnails(np.empty((0, 64, 64), np.uint8)).shape == (0, 32, 32)


@pytest.mark.parametrize(("count", "of"), [(0, 60), (2, 40), (5, 5)])
def test_the_bound_of_false_alarms_is_that_of_the_binomial(count, of):
    bound = gates._upper_bound(count, of)
    if count == of:
        assert bound == 1
    else:
        assert stats.binom.cdf(count, of, bound) == pytest.approx(0.05)
