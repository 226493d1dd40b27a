from __future__ import annotations

import time

import numpy as np
import pytest

from petgan import reference as module
from petgan.errors import DatasetError, Interrupted
from petgan.protocols import PROTOCOLS
from petgan.reference import Reference, blind_to
from petgan.rulers import METRICS, Metric, Ruler, make_rulers
from petgan.runs import read_json
from petgan.store import Dataset, Row, write_dataset


class PixelNetwork:
    """A feature network that looks at single pixels."""

    name, id = "pixels", "pixels/1234/16/none/0..255"

    def cached_features(self, images, folder, name, progress=None):
        return images.reshape(len(images), -1)[:, ::16].astype(np.float32)


@pytest.fixture
def data(make_dataset):
    return make_dataset(patients=32)


def open_reference(data, tmp_path, protocol="petgan", extractors=()):
    with Dataset(data) as dataset:
        known = dataset.reference
    return Reference(known, PROTOCOLS[protocol], extractors, tmp_path / "cache")


@pytest.fixture
def noting(monkeypatch):
    """A ruler that notes what it is given and says the mean grey value of the fakes less the reals'."""
    given = []

    def score(real, fake):
        given.append((real, fake))
        return float(fake.mean()) - float(real.mean()), None

    monkeypatch.setattr(module, "CORES", 1)  # in their order
    monkeypatch.setitem(METRICS._entries, "noting", Metric("images", "lower", score))
    return Ruler("noting", "noting", None, "noting/16px"), given


def owners(images, all_images):
    """The position of each image in the dataset, found by its pixels."""
    flat = all_images.reshape(len(all_images), -1)
    return np.array([np.flatnonzero((flat == image.ravel()).all(axis=1))[0] for image in images])


def test_the_reference_is_the_test_split_and_for_the_published_procedure_all(data, tmp_path):
    with Dataset(data) as dataset:
        test, everything = dataset.images("test")[..., 0], dataset.images()[..., 0]
    ours, thesis = (open_reference(data, tmp_path, name) for name in ("petgan", "thesis"))
    np.testing.assert_array_equal(ours.sample(ours.real).images, test)
    np.testing.assert_array_equal(thesis.sample(thesis.real).images, everything)


def test_features_belong_to_their_images(data, tmp_path):
    reference = open_reference(data, tmp_path, extractors=[PixelNetwork()])
    sample = reference.sample(reference.train[:5])
    np.testing.assert_array_equal(sample.features["pixels"], sample.images.reshape(5, -1)[:, ::16])
    spoilt = reference.sample(reference.train[:5], "shifted")
    np.testing.assert_array_equal(spoilt.features["pixels"], spoilt.images.reshape(5, -1)[:, ::16])
    assert np.all(spoilt.images >= sample.images)


def test_a_floor_is_of_the_same_sizes_and_of_patients_apart_in_many_random_splits(data, tmp_path, noting):
    ruler, given = noting
    reference = open_reference(data, tmp_path)
    floor = reference.floor(ruler, 40)
    assert len(given) == floor["repeats"] == 50
    splits = []
    for real, fake in given:
        assert (len(real), len(fake)) == (len(reference.real), 40)
        one, other = (owners(images, reference.images) for images in (real, fake))
        assert not set(reference.patients[one]) & set(reference.patients[other])
        splits.append(tuple(sorted(one)))
    assert len(set(splits)) > 45
    values = [ruler(*(reference.sample(owners(x, reference.images)) for x in pair))[0] for pair in given[:50]]
    assert floor["value"] == pytest.approx(np.mean(values))
    assert floor["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert np.mean([floor["low"] <= value <= floor["high"] for value in values]) == pytest.approx(
        0.95, abs=0.03
    )


def test_without_enough_images_there_is_no_floor(data, tmp_path, noting):
    assert open_reference(data, tmp_path).floor(noting[0], 90) is None


def test_what_was_found_is_found_again_by_what_it_depends_on(data, tmp_path, noting):
    ruler, given = noting
    first = open_reference(data, tmp_path).floor(ruler, 40)
    count = len(given)
    assert open_reference(data, tmp_path).floor(ruler, 40) == first
    assert len(given) == count
    open_reference(data, tmp_path).floor(ruler, 41)
    assert len(given) == 2 * count
    for file in (tmp_path / "cache").iterdir():
        file.write_text("cut sho")
    assert open_reference(data, tmp_path).floor(ruler, 40) == first


def test_each_group_of_patients_is_left_out_once_whole(data, tmp_path):
    reference = open_reference(data, tmp_path)
    left = [np.setdiff1d(reference.real, kept) for kept in reference.groups()]
    assert sorted(np.concatenate(left)) == sorted(reference.real)
    patients = [set(reference.patients[group]) for group in left]
    assert sum(map(len, patients)) == len(set(reference.patients[reference.real]))
    assert len(left) == min(module.GROUPS, 8)


def test_a_check_shows_the_same_training_images_as_they_are_and_spoilt(data, tmp_path, noting):
    ruler, given = noting
    reference = open_reference(data, tmp_path)
    check = reference.check(ruler, 20)
    assert (check["n_real"], check["n_fake"], check["ruler"]) == (24, 20, "noting/16px")
    assert len(given) == 60
    by_name = dict(
        zip(["real", *check["corrupted"]], (given[i : i + 10] for i in range(0, 60, 10)), strict=True)
    )
    draws = [owners(fake, reference.images) for _, fake in by_name["real"]]
    assert len({tuple(chosen) for chosen in draws}) == 10
    assert set(np.concatenate(draws)) <= set(reference.train)
    for name, scored in by_name.items():
        for (real, fake), clean in zip(scored, draws, strict=True):
            np.testing.assert_array_equal(real, reference.images[reference.real])
            if name == "repeated":
                assert set(owners(fake, reference.images)) < set(clean)
            elif name != "real":
                spoilt = module.CORRUPTIONS[name](reference.images[reference.train])
                np.testing.assert_array_equal(fake, spoilt[np.searchsorted(reference.train, clean)])


def test_work_is_shared_out_and_comes_back_in_order(monkeypatch):
    monkeypatch.setattr(module, "CORES", 4)
    assert module.in_parallel(lambda x: x**2, list(range(50)), "squares") == [x**2 for x in range(50)]


def test_a_stop_is_not_kept_waiting_by_work_that_has_not_begun(monkeypatch):
    monkeypatch.setattr(module, "CORES", 2)
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise Interrupted("stopped")
        time.sleep(0.02)

    with pytest.raises(Interrupted):
        module.in_parallel(work, list(range(1000)), "work")
    assert len(begun) < 500


def test_a_ruler_of_the_mean_sees_a_shift_and_is_blind_to_checkers(data, tmp_path, noting):
    check = open_reference(data, tmp_path).check(noting[0], 40)
    blind = blind_to(check)
    assert "shifted" not in blind
    assert "checkered" in blind
    assert blind_to(None) is None


def test_higher_is_better_turns_the_check_round(data, tmp_path, noting, monkeypatch):
    score = METRICS["noting"].score
    upside_down = Metric("images", "higher", lambda real, fake: (-score(real, fake)[0], None))
    seen = blind_to(open_reference(data, tmp_path).check(noting[0], 40))
    monkeypatch.setitem(METRICS._entries, "noting", upside_down)
    turned = Ruler("noting", "noting", None, "other")
    assert blind_to(open_reference(data, tmp_path).check(turned, 40)) == seen


def test_a_spectrum_sees_noise_and_normalised_patches_do_not_see_a_shift(data, tmp_path):
    reference = open_reference(data, tmp_path)
    patches, spectrum = make_rulers(16, [], ["swd", "spectrum"])
    assert "noisy" not in blind_to(reference.check(spectrum, 40))
    assert "shifted" in blind_to(reference.check(patches, 40))


def test_too_few_test_images_are_refused(tmp_path):
    splits = ["train"] * 8 + ["test"] * 3
    rows = [
        (Row(f"p{i:02d}", f"s{i:02d}", split, "slice"), np.zeros((16, 16))) for i, split in enumerate(splits)
    ]
    data = tmp_path / "few.h5"
    write_dataset(data, rows, image_size=16, modality="pet", units="bqml", window="full")
    with pytest.raises(DatasetError, match="too few test images.*got 3"):
        open_reference(data, tmp_path)


def test_kept_files_hold_no_patient(data, tmp_path, noting):
    reference = open_reference(data, tmp_path)
    reference.floor(noting[0], 40)
    for file in (tmp_path / "cache").iterdir():
        assert set(read_json(file)) == {"found"}
        assert not any(patient in file.read_text() for patient in reference.patients)
