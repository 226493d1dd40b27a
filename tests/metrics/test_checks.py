from __future__ import annotations

import numpy as np
import pytest

from petgan.errors import ConfigError
from petgan.metrics import blocks
from petgan.metrics.checks import checked_features


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_stay_where_they_are(dtype):
    features = np.ones((4, 3), dtype)
    assert checked_features("real", features) is features


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, bool])
def test_other_numbers_become_float64(dtype):
    features = np.array([[0, 1], [1, 1]], dtype)
    checked = checked_features("real", features)
    assert checked.dtype == np.float64
    np.testing.assert_array_equal(checked, features)
    np.testing.assert_array_equal(checked_features("real", [[0, 1], [1, 1]]), checked)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_every_block_is_searched_for_what_is_not_finite(monkeypatch, bad):
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", 3)
    features = np.zeros((8, 2), np.float32)
    checked_features("real", features)
    features[7, 1] = bad
    with pytest.raises(ConfigError, match="the real features hold values that are not finite"):
        checked_features("real", features)
