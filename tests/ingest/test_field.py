from __future__ import annotations

import numpy as np
import pytest

from petgan.errors import ConfigError
from petgan.ingest import Refused
from petgan.ingest.field import breast_box, cut, field_box, maximum, parse_field, square_box


def ellipse(shape, centre, radii):
    rows, columns = np.indices(shape)
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1


def close(box, truth, pixels):
    return np.abs(np.subtract(box, truth)).max() <= pixels


@pytest.mark.parametrize("text", ["full", "breast", "170mm", "12.5mm"])
def test_a_field_is_its_own_name(text):
    assert str(parse_field(text)) == text


def test_a_space_before_the_unit_does_not_count():
    assert parse_field("170 mm") == parse_field("170mm")


@pytest.mark.parametrize(
    "text", ["", "all", "170", "mm", "0mm", "-5mm", "1e3mm", "17 cm", "99999mm", "breast "]
)
def test_another_field_is_refused_with_the_grammar(text):
    with pytest.raises(ConfigError, match="a square such as 170mm"):
        parse_field(text)


@pytest.mark.parametrize("tissue", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("lesion", [2.0, 10.0, 30.0])
def test_a_breast_is_found_beside_a_lesion_of_any_heat(tissue, lesion):
    """PET: noisy air, breast tissue in SUV, and a lesion that outshines all of it."""
    random = np.random.default_rng(3)
    image = np.abs(random.normal(0, 0.02, (120, 160)))
    breast = ellipse(image.shape, (70, 60), (30, 40))
    image[breast] = tissue * random.uniform(0.7, 1.3, breast.sum())
    image[ellipse(image.shape, (70, 50), (3, 3))] = lesion
    box = breast_box(image.astype(np.float32))
    assert close(box, (40, 101, 20, 101), 5)
    assert box[0] <= 40
    assert box[1] >= 101
    assert box[2] <= 20
    assert box[3] >= 101


@pytest.mark.parametrize("dark", [0, 3, 12])
def test_a_breast_is_found_on_a_film(dark):
    """A half ellipse at the left edge, brighter to the middle, on a film that is not quite black."""
    random = np.random.default_rng(4)
    image = random.uniform(0, max(dark, 1), (200, 160))
    rows, columns = np.indices(image.shape)
    depth = 1 - ((rows - 100) / 80) ** 2 - (columns / 110) ** 2
    image += np.where(depth > 0, 60 + 160 * np.sqrt(np.maximum(depth, 0)), 0)
    assert close(breast_box(np.clip(image, 0, 255)), (20, 181, 0, 111), 6)


def test_specks_outside_do_not_count():
    image = np.zeros((200, 200), np.float32)
    image[50:150, 60:140] = 1
    expected = breast_box(image)
    assert close(expected, (50, 150, 60, 140), 3)
    image[3, 190] = image[196, 5] = 40
    assert close(breast_box(image), expected, 1)


@pytest.mark.parametrize("value", [0, -3, 7])
def test_a_picture_without_a_breast_is_kept_whole(value):
    assert breast_box(np.full((20, 30), value, np.float32)) == (0, 20, 0, 30)


def test_a_scale_does_not_move_the_box():
    image = np.random.default_rng(1).uniform(0, 0.05, (64, 64)).astype(np.float32)
    image[20:50, 10:40] = 1
    assert breast_box(image) == breast_box(image * 4096)


def test_the_box_turns_with_the_picture():
    image = np.zeros((80, 100), np.float32)
    image[ellipse(image.shape, (30, 60), (20, 25))] = 1
    top, bottom, left, right = breast_box(image)
    assert breast_box(image[::-1]) == (80 - bottom, 80 - top, left, right)
    assert breast_box(image[:, ::-1]) == (top, bottom, 100 - right, 100 - left)
    assert breast_box(image.T) == (left, right, top, bottom)


def test_the_box_of_a_series_holds_that_of_every_slice():
    slices = []
    for radius in (5, 20, 12):
        image = np.zeros((60, 60), np.float32)
        image[ellipse(image.shape, (30, 30 + radius // 4), (radius, radius))] = 1
        slices.append(image)
    top, bottom, left, right = breast_box(maximum(iter(slices)))
    for image in slices:
        inside = image[top:bottom, left:right].sum()
        assert inside == image.sum()


def test_the_maximum_of_slices_is_taken_one_by_one():
    volume = np.random.default_rng(2).normal(size=(5, 7, 8)).astype(np.float32)
    before = volume.copy()
    np.testing.assert_array_equal(maximum(iter(volume)), volume.max(axis=0))
    np.testing.assert_array_equal(volume, before)
    with pytest.raises(Refused, match="size"):
        maximum([volume[0], volume[0][:1]])


@pytest.mark.parametrize(
    "box", [(2, 5, 1, 4), (-3, 4, 2, 12), (-2, 9, -1, 10), (20, 24, 3, 5), (-9, -2, 0, 3)]
)
def test_cutting_pads_with_black(box):
    image = np.arange(1, 49, dtype=np.float32).reshape(6, 8)
    top, bottom, left, right = box
    far = np.full((200, 200), -7, np.float32)
    far[100:106, 100:108] = image
    expected = far[100 + top : 100 + bottom, 100 + left : 100 + right]
    np.testing.assert_array_equal(cut(image, box, -7), expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 4.0), (3.27, 0.7)])
def test_a_square_has_its_side_in_millimetres_and_the_middle_of_the_box(spacing):
    top, bottom, left, right = square_box((20, 60, 30, 90), 170, spacing)
    assert abs((bottom - top) * spacing[0] - 170) <= spacing[0] / 2
    assert abs((right - left) * spacing[1] - 170) <= spacing[1] / 2
    assert abs((top + bottom) / 2 - 40) <= 0.5
    assert abs((left + right) / 2 - 60) <= 0.5


@pytest.mark.parametrize("scale", [1, 2])
def test_a_square_shows_the_same_size_whatever_the_pixels(scale):
    """A disc of 40 mm in a field of 80 mm fills as much of it at any spacing."""
    image = ellipse((100 * scale, 100 * scale), (50 * scale, 50 * scale), (20 * scale, 20 * scale))
    spacing = (1 / scale, 1 / scale)
    box = field_box(parse_field("80mm"), image.astype(np.float32), spacing)
    assert cut(image, box).mean() == pytest.approx(np.pi / 16, rel=0.02)


@pytest.mark.parametrize(
    ("spacing", "words"), [(None, "PixelSpacing"), ((400.0, 1.0), "larger"), ((1e-3, 1e-3), "too large")]
)
def test_a_square_that_cannot_be_is_refused(spacing, words):
    with pytest.raises(Refused, match=words):
        square_box((0, 10, 0, 10), 170, spacing)


def test_the_full_field_needs_no_spacing_and_no_breast():
    image = np.zeros((4, 4), np.float32)
    assert field_box(parse_field("full"), image, None) is None
    assert field_box(parse_field("breast"), image, None) == (0, 4, 0, 4)


@pytest.mark.parametrize("side_mm", [20, 60, 300])
def test_a_square_at_the_left_begins_where_the_box_does(side_mm):
    top, bottom, left, right = square_box((10, 50, 5, 65), side_mm, (0.5, 1.0), at_left=True)
    assert (left, right - left) == (5, side_mm)
    assert (top + bottom, bottom - top) == (60, 2 * side_mm)
