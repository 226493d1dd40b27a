from __future__ import annotations

import numpy as np
import pytest

from petgan.ingest.resize import square, to_integers


def test_the_same_size_is_only_rounded():
    grey = np.random.default_rng(0).uniform(0, 255, (32, 32)).astype(np.float32)
    np.testing.assert_array_equal(to_integers(square(grey, 32), "uint8"), np.rint(grey))


@pytest.mark.parametrize("size", [16, 64])
def test_a_constant_stays_constant(size):
    assert (square(np.full((40, 40), 201, np.float32), size) == 201).all()


def test_shrinking_does_not_alias():
    stripes = np.zeros((224, 224), np.float32)
    stripes[:, ::2] = 255
    inner = square(stripes, 32)[4:-4, 4:-4].astype(int)
    assert abs(inner - 127.5).max() <= 2  # taking every 7th pixel would give stripes of 0 and 255


@pytest.mark.parametrize(("height", "width"), [(64, 32), (32, 64), (64, 31)])
def test_aspect_is_kept_on_black(height, width):
    out = square(np.full((height, width), 255, np.float32), 32)
    white = out > 127
    assert white.sum() == pytest.approx(32 * 32 * min(height, width) / max(height, width), rel=0.05)
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    for found in (rows, columns):  # in the middle
        assert abs((found[0] + found[-1]) / 2 - 15.5) <= 1


def test_overshoots_are_clipped():
    edge = np.zeros((64, 64), np.float32)
    edge[:, 32:] = 255
    out = square(edge, 32)
    assert out[:, :12].max() == 0
    assert out[:, 20:].min() == 255
