from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from petgan.pictures import GAP, contact_sheet, save_png, sheet


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (4, (2, 2)), (5, (2, 3)), (64, (8, 8))])
def test_every_image_is_on_the_sheet_once(count, shape):
    images = np.arange(1, count + 1, dtype=np.uint8)[:, None, None] * np.ones((1, 10, 10), np.uint8)
    out = sheet(images)
    assert out.shape == tuple(n * (10 + GAP) - GAP for n in shape)
    values, pixels = np.unique(out[out > 0], return_counts=True)
    assert list(values) == list(range(1, count + 1))
    assert set(pixels) == {100}


def test_small_images_are_enlarged_by_whole_pixels():
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32), np.uint8)
    out = contact_sheet({"train": image})
    np.testing.assert_array_equal(out[-96::3, ::3], image[0])
    assert out[:-96].max() == 255  # the heading


def test_a_sheet_is_saved(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    save_png(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
