from __future__ import annotations

import numpy as np
import pytest

from petgan.ingest import Refused
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


def disc_in_mm(spacing, extent=(120.0, 120.0), radius=40.0, centre=(0.0, 0.0)):
    """A disc of `radius` mm around a point off the middle, on a grid of such pixels, with soft edges."""
    shape = [round(length / step) for length, step in zip(extent, spacing, strict=True)]
    rows, columns = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True))
    far = np.hypot(rows[:, None] - centre[0], columns[None] - centre[1])
    return np.clip((radius - far) / 4 + 0.5, 0, 1).astype(np.float32)


def moments(image):
    """Middle and variances along rows and columns, as shares of the side."""
    rows, columns = ((np.arange(n) + 0.5) / n for n in image.shape)
    total = image.sum()
    middle = (image.sum(1) @ rows / total, image.sum(0) @ columns / total)
    return middle, (
        image.sum(1) @ (rows - middle[0]) ** 2 / total,
        image.sum(0) @ (columns - middle[1]) ** 2 / total,
    )


@pytest.mark.parametrize("spacing", [(3.0, 1.0), (1.0, 3.0), (3.27, 0.9), (0.5, 0.75), (2.0, 2.0)])
@pytest.mark.parametrize("size", [64, 224])
def test_a_disc_in_millimetres_stays_a_disc(spacing, size):
    grey = disc_in_mm(spacing, centre=(6.0, -12.0))
    height, width = (n * step for n, step in zip(grey.shape, spacing, strict=True))
    side = max(height, width)
    middle, variances = moments(square(grey, size, spacing))
    assert middle == pytest.approx((0.5 + 6 / side, 0.5 - 12 / side), abs=0.25 / size)
    assert variances[0] == pytest.approx(variances[1], rel=0.02)
    assert variances[0] == pytest.approx((40 / side) ** 2 / 4, rel=0.02)  # of a disc: radius^2 / 4


@pytest.mark.parametrize("along", [0, 1])
def test_a_plane_wave_keeps_its_wavelength(along):
    """A wave of 12 mm on pixels of 3 mm by 1 mm has 24 of the 240 square pixels of 0.5 mm: linear between."""
    spacing, shape = (3.0, 1.0), (40, 120)
    places = np.arange(shape[along]) * spacing[along]  # crests and troughs are pixels, so none is clipped
    wave = 128 + 100 * np.cos(2 * np.pi * places / 12)
    grey = np.broadcast_to(wave[:, None] if along == 0 else wave[None], shape).astype(np.float32)
    out = square(grey, 240, spacing)
    middle = (np.arange(240) + 0.5) * 0.5 - spacing[along] / 2
    profile = out[:, 120] if along == 0 else out[120]
    np.testing.assert_allclose(profile[24:-24], np.interp(middle, places, wave)[24:-24], atol=1e-3)


def test_enlarging_does_not_ring():
    """A hot lesion between slices that lie apart: no values but those between its own and its neighbours'."""
    grey = np.full((12, 40), 10.0, np.float32)
    grey[6] = 200.0
    out = square(grey, 160, (4.0, 1.2))
    inside = out[:, 60:100]
    assert inside[8:-8].min() >= 10 - 1e-3
    profile = inside[:, 20]
    top = int(profile.argmax())
    assert (np.diff(profile[20:top]) >= -1e-3).all()
    assert (np.diff(profile[top:-20]) <= 1e-3).all()


@pytest.mark.parametrize(
    ("shape", "spacing"), [((30, 60), (4.0, 2.0)), ((50, 20), (1.0, 2.5)), ((7, 9), (9, 7))]
)
def test_a_constant_that_is_square_in_millimetres_fills_the_square(shape, spacing):
    assert (square(np.full(shape, 201, np.float32), 32, spacing) == 201).all()


@pytest.mark.parametrize(
    ("shape", "spacing"), [((10, 64), (3.0, 1.0)), ((64, 10), (1.0, 3.0)), ((31, 64), (1.0, 2.0))]
)
def test_what_is_no_square_in_millimetres_is_padded_in_the_middle(shape, spacing):
    height, width = (n * step for n, step in zip(shape, spacing, strict=True))
    out = square(np.full(shape, 255, np.float32), 128, spacing)
    shares = out.mean(axis=0).max() / 255, out.mean(axis=1).max() / 255
    assert shares == pytest.approx((height / max(height, width), width / max(height, width)), abs=0.02)
    np.testing.assert_allclose(out, out[::-1], atol=0.5)
    np.testing.assert_allclose(out, out[:, ::-1], atol=0.5)


def test_shrinking_one_way_only_does_not_alias():
    stripes = np.zeros((32, 224), np.float32)
    stripes[:, ::2] = 255
    inner = square(stripes, 32, (7.0, 1.0))[4:-4, 4:-4]
    assert abs(inner - 127.5).max() <= 2


def test_only_the_ratio_of_the_spacings_counts():
    grey = np.random.default_rng(1).uniform(0, 255, (20, 33)).astype(np.float32)
    np.testing.assert_allclose(square(grey, 32, (2.0, 1.0)), square(grey, 32, (0.14, 0.07)), atol=1e-3)
    np.testing.assert_array_equal(square(grey, 32, (0.07, 0.07)), square(grey, 32))


@pytest.mark.parametrize(("shape", "spacing"), [((512, 512), (1.0, 1e4)), ((2, 60_000), (1.0, 1.0))])
def test_a_shape_that_would_fill_the_memory_is_refused(shape, spacing):
    with pytest.raises(Refused, match="too large"):
        square(np.zeros(shape, np.float32), 32, spacing)
