from __future__ import annotations

import io
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from petgan.ingest import duplicates
from petgan.ingest.duplicates import (
    EMPTY,
    FLIPS,
    NEAR_BITS,
    Duplicate,
    find_duplicates,
    fingerprint,
    groups,
    is_empty,
    structure,
)
from petgan.phantom.mammogram import mammograms

SIZE = 128
WOMEN = 6


@pytest.fixture(scope="module")
def pictures():
    """Four mammograms of each of some phantoms."""
    return [view for n in range(WOMEN) for view in mammograms(SIZE, np.random.SeedSequence(n))]


WHOSE = [f"p{n // 4}" for n in range(4 * WOMEN)]


def jpeg(grey):
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def resized(grey, side=SIZE):
    return np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.LANCZOS))


def brighter(factor):
    return lambda grey: np.clip(np.rint(grey * factor), 0, 255).astype(np.uint8)


def noisy(grey):
    noise = np.random.default_rng(0).normal(0, 2.55, grey.shape)
    return np.clip(np.rint(grey + noise), 0, 255).astype(np.uint8)


COPIES = {
    "JPEG of quality 50": jpeg,
    "half the size and back": lambda grey: resized(resized(grey, SIZE // 2)),
    "5 % brighter": brighter(1.05),
    "5 % darker": brighter(0.95),
    "noise of 1 %": noisy,
    "2 % cropped": lambda grey: resized(grey[1:-1, 1:-1]),
    "itself": lambda grey: grey,
}


def search(images, patients):
    asked = set()

    def image_of(index):
        asked.add(index)
        return images[index]

    found = find_duplicates([fingerprint(image) for image in images], patients, image_of)
    return found, asked


def test_no_two_women_share_a_picture(pictures):
    assert search(pictures, WHOSE)[0] == []


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_found_and_nothing_else(pictures, copy, flip):
    copies = [np.ascontiguousarray(duplicates._flipped(COPIES[copy](image), flip)) for image in pictures]
    found, _ = search(pictures + copies, WHOSE + [f"copy {n}" for n in range(len(copies))])
    assert [(d.index_a, d.index_b, d.flip) for d in found] == [
        (n, n + len(pictures), flip) for n in range(len(pictures))
    ]
    assert all(d.exact == (copy == "itself") for d in found)
    assert all(d.distance <= NEAR_BITS for d in found)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_types_and_units(pictures, dtype):
    images = [image.astype(dtype) * np.asarray(200, dtype) for image in pictures[:8]]
    copies = [brighter(0.95)(image).astype(dtype) * np.asarray(200, dtype) for image in pictures[:8]]
    found, _ = search(images + copies, ["a"] * 8 + ["b"] * 8)
    assert [(d.index_a, d.index_b) for d in found] == [(n, n + 8) for n in range(8)]


def test_pictures_smaller_than_the_hash(pictures):
    small = [resized(image, 14) for image in pictures[:4]]
    found, _ = search([*small, small[2]], list("abcde"))
    assert found == [Duplicate(2, 4, exact=True, distance=0)]


def test_of_one_patient_only_exact_copies_count(pictures):
    images = [pictures[0], brighter(0.95)(pictures[0]), pictures[0]]
    assert search(images, ["a"] * 3)[0] == [Duplicate(0, 2, exact=True, distance=0)]


def test_copies_of_copies_are_connected_without_all_pairs(pictures):
    images = [pictures[0]] * 50 + [brighter(0.95)(pictures[0])] * 2
    patients = [str(n) for n in range(52)]
    found, _ = search(images, patients)
    assert len(found) == 51
    together = groups(patients, [(patients[d.index_a], patients[d.index_b]) for d in found])
    assert set(together.values()) == {"0"}


def test_next_to_nothing_is_no_copy():
    random = np.random.default_rng(0)
    black = [np.zeros((SIZE, SIZE), np.uint8)] * 2
    dark = [random.integers(0, 3, (SIZE, SIZE), np.uint8) for _ in range(2)]
    dot = np.zeros((SIZE, SIZE), np.uint8)
    dot[60:64, 60:64] = 255
    grey = np.full((SIZE, SIZE), 7.5, np.float32)
    images = [*black, *dark, dot, dot, grey, grey]
    assert [fingerprint(image) for image in images] == [EMPTY] * len(images)
    assert search(images, [str(n) for n in range(len(images))]) == ([], set())
    dot[50:70, 50:70] = 255
    assert not is_empty(dot)


def test_faint_noise_in_the_same_circle_is_no_copy():
    """Slices beyond the breast: what they share is the field of view."""
    yy, xx = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    inside = np.hypot(yy, xx) < 0.45 * SIZE
    random = np.random.default_rng(0)
    images = [(inside * random.uniform(0, 1, (SIZE, SIZE))).astype(np.float32) for _ in range(10)]
    assert search(images, [str(n) for n in range(10)])[0] == []


@pytest.mark.parametrize(
    ("flip", "image"), [("left-right", np.fliplr), ("up-down", np.flipud), ("both", lambda a: a[::-1, ::-1])]
)
def test_the_fingerprint_of_a_flip_is_that_of_the_picture_with_bits_inverted(pictures, flip, image):
    for picture in pictures:
        differing = fingerprint(picture) ^ fingerprint(np.ascontiguousarray(image(picture)))
        assert (differing ^ int(duplicates._INVERTED[flip])).bit_count() <= 1  # of a coefficient that is 0


def test_progress_is_told_on_the_way():
    count, told = 3000, []
    random = np.random.default_rng(0).integers(1, 2**63, count).tolist()
    find_duplicates(random, list(map(str, range(count))), None, lambda *numbers: told.append(numbers))
    done = [numbers[0] for numbers in told]
    assert done == sorted(done)
    assert len(set(done)) >= 8
    assert told[-1] == (count, count)
    assert {total for _, total in told} == {count}


@pytest.mark.parametrize("volumes", [640, 60, 5])
def test_pairs_are_those_of_brute_force(volumes, monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", (64, 200))
    random = np.random.default_rng(0)
    base = random.integers(0, 2**64, 40, np.uint64)
    hashes = np.repeat(base, 16)
    for n in range(len(hashes)):
        for bit in random.integers(0, 64, n % 14):
            hashes[n] ^= np.uint64(1) << np.uint64(bit)
        hashes[n] ^= duplicates._INVERTED[FLIPS[n % 4]]
    codes = random.integers(0, 100, len(hashes))
    series = np.arange(640) if volumes == 640 else random.integers(0, volumes, len(hashes))
    everything = np.arange(len(hashes))
    probes = duplicates._probes(series, hashes)
    left = np.argsort(series, kind="stable")
    pairs = duplicates._near_pairs(hashes, codes, series, everything, probes, left)
    found = [tuple(pair) for part in pairs for pair in part.tolist()]
    numbers = [int(value) for value in hashes]
    masks = [int(duplicates._INVERTED[flip]) for flip in FLIPS]
    expected = {}
    for a, b, (flip, mask) in itertools.product(probes.tolist(), range(640), enumerate(masks)):
        distance = (numbers[a] ^ numbers[b] ^ mask).bit_count()
        if codes[a] != codes[b] and distance <= NEAR_BITS and (volumes < 640 or a < b):
            key = a, int(series[b])
            expected[key] = min(expected.get(key, (99,)), (distance, flip, b))
    assert len(found) > 100
    assert len(probes) == sum(min(16, n) for n in np.bincount(series))
    assert sorted(found) == sorted((a, b, flip) for (a, _), (_, flip, b) in expected.items())


def test_probes_are_spread_over_what_is_shown_of_a_series():
    hashes = np.ones(100, np.uint64)
    hashes[:36] = EMPTY
    series = np.array([3] * 100 + [1] * 5 + [2])
    probes = duplicates._probes(series, np.append(hashes, np.array([9] * 5 + [EMPTY], np.uint64)))
    assert probes.tolist() == [*range(100, 105), *range(38, 100, 4)]


def test_a_copy_of_any_slice_joins_two_patients(pictures):
    """A's second series has the third slice of her first one, of which B has a copy: neither is a middle."""
    a, b, c = pictures[0], pictures[4], pictures[8]
    near = brighter(0.95)(c)
    images = [a, b, c, pictures[1], pictures[5], c, pictures[9], pictures[2]]
    images += [pictures[6], pictures[10], near, pictures[3], pictures[7]]
    patients, series = ["A"] * 8 + ["B"] * 5, ["1"] * 3 + ["2"] * 5 + ["3"] * 5
    found = find_duplicates(
        [fingerprint(image) for image in images], patients, images.__getitem__, series=series
    )
    assert (2, 5, True) in [(d.index_a, d.index_b, d.exact) for d in found]
    assert (2, 10, False) in [(d.index_a, d.index_b, d.exact) for d in found]


def test_memory_does_not_grow_with_the_slices():
    random, peaks = np.random.default_rng(0), []
    for volumes in (30, 90):
        hashes = np.full(volumes * 100, 0x123456789ABCDEF0, np.uint64)  # all are alike
        hashes ^= np.uint64(1) << random.integers(0, 64, len(hashes)).astype(np.uint64)
        series, everything = np.repeat(np.arange(volumes), 100), np.arange(len(hashes))
        probes = duplicates._probes(series, hashes)
        tracemalloc.start()
        parts = duplicates._near_pairs(hashes, series, series, everything, probes, everything)
        pairs = sum(len(part) for part in parts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert pairs == duplicates.PROBES * volumes * (volumes - 1)
    assert peaks[1] < 1.5 * peaks[0]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_bits_are_counted_without_numpy_2(words):
    counts = duplicates._count_bits_in_steps(np.array(words, np.uint64))
    assert counts.tolist() == [word.bit_count() for word in words]


def test_structure_is_blurred_as_by_scipy():
    grey = np.random.default_rng(0).uniform(0, 1, (32, 32)).astype(np.float32)
    along = duplicates._blurring(32, 1.5)
    np.testing.assert_allclose(along @ grey @ along.T, ndimage.gaussian_filter(grey, 1.5), rtol=1e-4)


def test_structure_of_a_picture_and_its_copies():
    random = np.random.default_rng(0)
    a, b = random.uniform(0, 1, (2, 5, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(structure(a, a, 1.0), 1, rtol=1e-5)
    np.testing.assert_allclose(structure(a, 1 - a, 1.0), -1, rtol=1e-5)
    assert np.abs(structure(a, b, 1.0)).max() < 0.2
    one_by_one = [structure(a[n], b[n], 1.0) for n in range(5)]
    np.testing.assert_allclose(structure(a, b, 1.0), one_by_one, rtol=1e-4, atol=1e-6)
    assert structure(np.ones((32, 32), np.float32), a[0], 1.0) < 0.01


edges = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12)


@given(edges)
def test_groups_are_the_connected_components(pairs):
    names = [f"{n:02d}" for n in range(12)]
    together = groups(reversed(names), [(names[a], names[b]) for a, b in pairs])
    reach = np.eye(12, dtype=int)
    for a, b in pairs:
        reach[a, b] = reach[b, a] = 1
    connected = np.linalg.matrix_power(reach, 12) > 0
    assert together == {names[n]: names[np.flatnonzero(connected[n])[0]] for n in range(12)}
