from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from petgan.errors import ConfigError
from petgan.metrics.copies import aligned, check_copies, copy_scale


def blobs(n, seed):
    """Smooth images of many degrees of freedom, each unlike the others."""
    draws = np.random.default_rng(seed).normal(size=(n, 32, 32))
    smooth = np.stack([gaussian_filter(d, 3) for d in draws])
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


TRAIN, OTHERS = blobs(40, 0), blobs(40, 1)
PATIENTS = np.repeat(np.arange(20), 2)
SCALE = copy_scale(TRAIN, PATIENTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x[:, :, ::-1],
        lambda x: np.roll(x, (2, -2), (1, 2)),
        lambda x: x // 2 + 60,
        lambda x: np.clip(x + np.random.default_rng(0).normal(0, 8, x.shape), 0, 255).astype(np.uint8),
    ],
    ids=["same", "mirrored", "shifted", "contrast", "noise"],
)
def test_changed_copies_are_found_and_traced(change):
    found = check_copies(change(TRAIN[:6]), TRAIN, SCALE)
    assert list(found.copies) == [0, 1, 2, 3, 4, 5]
    assert list(found.nearest) == [0, 1, 2, 3, 4, 5]


def test_other_images_and_the_mean_image_pass():
    mean = TRAIN.mean(axis=0, keepdims=True).astype(np.uint8)
    assert not len(check_copies(np.concatenate([OTHERS, mean]), TRAIN, SCALE).copies)


def test_one_copy_among_honest_images_is_named():
    fake = OTHERS.copy()
    fake[17] = TRAIN[5]
    assert list(check_copies(fake, TRAIN, SCALE).copies) == [17]


def test_an_image_that_two_patients_share_is_still_protected():
    train = TRAIN.copy()
    train[10] = train[0]
    assert list(check_copies(train[:1], train, copy_scale(train, PATIENTS)).copies) == [0]


def test_slices_of_one_patient_are_no_excuse():
    # Neighbouring slices of one patient are alike; a fake between the two is still a copy.
    train = TRAIN.astype(float)
    train[1::2] = 0.9 * train[::2] + 0.1 * train[1::2]
    train = train.astype(np.uint8)
    between = ((train[:1].astype(int) + train[1:2]) // 2).astype(np.uint8)
    assert len(check_copies(between, train, copy_scale(train, PATIENTS)).copies) == 1


def test_aligning_undoes_mirroring_and_shifts_and_leaves_others_as_near_as_they_can_be():
    moved = np.roll(TRAIN[:, :, ::-1], (2, -1), (1, 2))
    inner = (slice(None), slice(3, -3), slice(3, -3))
    np.testing.assert_array_equal(aligned(moved, TRAIN)[inner], TRAIN[inner])
    np.testing.assert_array_equal(aligned(TRAIN, TRAIN), TRAIN)


def test_one_patient_or_equal_images_give_no_scale():
    with pytest.raises(ConfigError, match="two training patients"):
        copy_scale(TRAIN, np.zeros(40))
    with pytest.raises(ConfigError, match="the same"):
        copy_scale(np.repeat(TRAIN[:1], 40, axis=0), PATIENTS)
