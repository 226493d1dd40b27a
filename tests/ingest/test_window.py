from __future__ import annotations

import numpy as np
import pytest

from petgan.errors import ConfigError
from petgan.ingest.window import Window, apply, parse_window


@pytest.mark.parametrize("text", ["full", "percentile:0.5,99.5", "bqml:0,50000", "stored:-100,4095"])
def test_a_window_reads_back(text):
    assert str(parse_window(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "fill", "bqml", "bqml:", "bqml:5", "bqml:5,5", "bqml:9,1", "percentile:-1,99", "percentile:1,101",
     "full:0,1,2", "bqml:0,nan", "bqml:0,inf", ":0,1"],
)  # fmt: skip
def test_other_texts_are_refused(text):
    with pytest.raises(ConfigError, match="window"):
        parse_window(text)


def test_percentiles_are_those_of_all_slices_together():
    slices = list(np.random.default_rng(0).gamma(2, 100, (7, 20, 30)).astype(np.float32))
    limits = parse_window("percentile:5,90").limits(slices, 7 * 600, None)
    assert limits == pytest.approx(np.percentile(np.stack(slices), [5, 90]), rel=1e-6)


def test_percentiles_of_a_large_series_are_close(monkeypatch):
    monkeypatch.setattr("petgan.ingest.window.SAMPLE", 5000)
    slices = list(np.random.default_rng(0).normal(size=(10, 100, 101)).astype(np.float32))
    low, high = parse_window("percentile:10,90").limits(slices, 10 * 10100, None)
    assert (low, high) == pytest.approx((-1.2816, 1.2816), abs=0.08)  # of the normal distribution
    extremes = parse_window("percentile:0,100").limits(slices, 10 * 10100, None)
    assert extremes == (np.min(slices), np.max(slices))


def test_percentiles_are_of_all_columns(monkeypatch):
    monkeypatch.setattr("petgan.ingest.window.SAMPLE", 2**10)
    image = np.random.default_rng(0).normal(0, 1, (128, 128)).astype(np.float32)
    image[:, ::16] += 100  # of 16 columns one is bright, and every 16th value is taken
    low, high = Window("percentile", 10, 90).limits([image], image.size, None)
    assert (low, high) == pytest.approx(np.percentile(image, [10, 90]), abs=0.3)


def test_full_is_the_stored_range_or_else_that_of_the_values():
    image = np.array([[3.0, 7.0]], np.float32)
    assert Window("full").limits([image], 2, (0, 4095)) == (0, 4095)
    assert Window("full").limits([image], 2, None) == (3, 7)


def test_eight_bits_in_full_are_unchanged():
    values = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(apply(values, (0, 255)), values)


def test_values_outside_are_clipped_and_those_inside_are_linear():
    values = np.array([-50, 100, 150, 200, 900], np.float32)
    np.testing.assert_allclose(apply(values, (100, 200)), [0, 0, 127.5, 255, 255])


def test_a_picture_of_one_value_is_black():
    assert not apply(np.full((2, 2), 5, np.float32), (5, 5)).any()
