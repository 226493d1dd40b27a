from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from petgan.errors import ConfigError
from petgan.protocols import PROTOCOLS
from petgan.rulers import METRICS

OURS, THESIS = PROTOCOLS["petgan"], PROTOCOLS["thesis"]


def test_ours_takes_as_many_as_are_asked_for():
    assert OURS.count(None, "pet", n_train=404, n_test=60) == 150
    assert OURS.count(None, "pet", n_train=100, n_test=20) == 50
    assert OURS.count(None, "pet", n_train=100, n_test=80) == 80
    assert OURS.count(7, "pet", n_train=100, n_test=80) == 7
    for impossible in (3, 50_001):
        with pytest.raises(ConfigError, match="4 to 50000"):
            OURS.count(impossible, "pet", 100, 80)


def test_the_published_procedure_has_its_own_numbers():
    assert THESIS.count(None, "pet", 404, 60) == 150
    assert THESIS.count(None, "mammogram", 2615, 300) == 1000
    with pytest.raises(ConfigError, match="got 200; allowed: 150"):
        THESIS.count(200, "pet", 404, 60)


def test_the_published_procedure_is_an_fid_of_nearest_neighbours_against_all_images():
    assert (THESIS.metrics, THESIS.resize, THESIS.of_all_real, THESIS.averaged) == (
        ("fid",),
        "nearest",
        True,
        False,
    )
    assert OURS.metrics == tuple(METRICS)
    assert (OURS.resize, OURS.of_all_real, OURS.averaged) == ("antialias", False, True)


def test_its_mammograms_went_through_jpeg_and_its_pet_did_not():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16), np.uint8)
    assert THESIS.real_images(images, "pet") is images
    assert OURS.real_images(images, "mammogram") is images
    buffer = io.BytesIO()
    Image.fromarray(images[1]).save(buffer, format="JPEG", quality=75)
    found = THESIS.real_images(images, "mammogram")
    np.testing.assert_array_equal(found[1], np.asarray(Image.open(buffer)))
    assert not np.array_equal(found, images)
