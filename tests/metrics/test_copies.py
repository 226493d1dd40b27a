from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from petgan.errors import ConfigError
from petgan.metrics.copies import check_copies


def blobs(n, seed):
    """Smooth images of many degrees of freedom, each unlike the others."""
    draws = np.random.default_rng(seed).normal(size=(n, 32, 32))
    smooth = np.stack([gaussian_filter(d, 3) for d in draws])
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


TRAIN, OTHERS = blobs(40, 0), blobs(40, 1)
PATIENTS = np.repeat(np.arange(20), 2)


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
    found = check_copies(change(TRAIN[:6]), TRAIN, PATIENTS)
    assert list(found.copies) == [0, 1, 2, 3, 4, 5]
    assert list(found.nearest) == [0, 1, 2, 3, 4, 5]


def test_other_images_and_the_mean_image_pass():
    mean = TRAIN.mean(axis=0, keepdims=True).astype(np.uint8)
    assert not len(check_copies(np.concatenate([OTHERS, mean]), TRAIN, PATIENTS).copies)


def test_one_copy_among_honest_images_is_named():
    fake = OTHERS.copy()
    fake[17] = TRAIN[5]
    assert list(check_copies(fake, TRAIN, PATIENTS).copies) == [17]


def test_an_image_that_two_patients_share_is_still_protected():
    train = TRAIN.copy()
    train[10] = train[0]
    assert list(check_copies(train[:1], train, PATIENTS).copies) == [0]


def test_slices_of_one_patient_are_no_excuse():
    # Neighbouring slices of one patient are alike; a fake between the two is still a copy.
    train = TRAIN.astype(float)
    train[1::2] = 0.9 * train[::2] + 0.1 * train[1::2]
    train = train.astype(np.uint8)
    between = ((train[:1].astype(int) + train[1:2]) // 2).astype(np.uint8)
    assert len(check_copies(between, train, PATIENTS).copies) == 1


def test_a_generator_that_memorises_is_nearer_to_what_it_has_seen():
    held_out = blobs(40, 2)
    honest = check_copies(OTHERS, TRAIN, PATIENTS, held_out).nearer_train_share
    memorised = check_copies((TRAIN * 0.6 + OTHERS * 0.4).astype(np.uint8), TRAIN, PATIENTS, held_out)
    assert 0.2 < honest < 0.8
    assert memorised.nearer_train_share == 1
    assert check_copies(OTHERS, TRAIN, PATIENTS).nearer_train_share is None


def test_one_patient_or_equal_images_give_no_scale():
    with pytest.raises(ConfigError, match="two training patients"):
        check_copies(OTHERS, TRAIN, np.zeros(40))
    with pytest.raises(ConfigError, match="the same"):
        check_copies(OTHERS, np.repeat(TRAIN[:1], 40, axis=0), PATIENTS)
