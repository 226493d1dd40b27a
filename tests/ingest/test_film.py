"""Films drawn here, with a silhouette that is known, and those of the phantoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from petgan.ingest.film import _grown, _worn, chest_wall, has_text, is_page, mask_film, orient_left
from petgan.phantom.mammogram import mammograms, random_woman

SIZE = 256


@dataclass(frozen=True)
class Drawn:
    grey: np.ndarray
    breast: np.ndarray


def draw(
    seed=0, height=SIZE, width=SIZE, reach=0.6, label=None, border=0, bar=0, fog=0.03, padding=0, streak=False
):
    """A left breast as half an ellipse: thick inside, thin at the skin, on grainy film."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:height, :width] + 0.5) / np.array([height, width])[:, None, None]
    level = 1 - (x / reach) ** 2 - ((y - 0.55) / 0.4) ** 2
    breast = level > 0
    texture = ndimage.gaussian_filter(rng.standard_normal((height, width)), height / 40)
    bright = 0.12 + 0.6 * np.sqrt(np.clip(level, 0, 1)) + 0.08 * texture / texture.std()
    grey = np.where(breast, np.clip(bright, 0.12, 1), 0) + fog + 0.006 * rng.standard_normal((height, width))
    if border:
        grey[:border] = grey[:, -border:] = rng.uniform(0.4, 1)
    if bar:
        grey[:, -4 - bar : -4] = 0.9
    if streak:
        grey[: height // 20] += 0.15
    if label:
        picture = Image.new("L", (width, height))
        pen = ImageDraw.Draw(picture)
        font = ImageFont.load_default(size=height // 24)
        at = (int(0.78 * width), int(0.06 * height))
        if label == "plate":
            pen.rectangle([at[0] - 4, at[1] - 4, at[0] + width // 9, at[1] + height // 14], fill=230)
        pen.text(at, "R ML", fill=20 if label == "plate" else 200, font=font)
        marks = np.asarray(picture, float) / 255
        grey = np.where(marks > 0, np.maximum(marks, 0.05), grey)
    grey = np.pad(np.clip(grey, 0.01, 1), ((0, 0), (padding, padding)))
    return Drawn((255 * grey).astype(np.float32), np.pad(breast, ((0, 0), (padding, padding))))


FILMS = {
    "plain": {},
    "plate": {"label": "plate"},
    "letters": {"label": "letters"},
    "border": {"border": 5},
    "bar": {"bar": 6},
    "padded": {"padding": 60, "label": "plate"},
    "fog": {"fog": 0.1},
    "streak": {"streak": True, "label": "plate"},
    "wide": {"width": 150, "label": "plate"},
    "tall": {"height": 350, "width": 230, "label": "plate"},
    "large": {"height": 512, "width": 512},
    "slim": {"reach": 0.25},
}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_breast_is_kept_whole_and_what_lies_beside_it_is_black(name, seed):
    film = draw(seed, **FILMS[name])
    masked, found = mask_film(film.grey)
    assert found
    kept = masked == film.grey
    assert kept[film.breast].all()
    # A margin, what was smoothed, and where narrow things were opened away along the skin.
    near = ndimage.distance_transform_edt(~film.breast) <= 0.05 * max(film.grey.shape) + 2
    assert (masked[~near] == film.grey.min()).all()


@pytest.mark.parametrize("name", FILMS)
def test_text_is_noticed_where_there_is_some(name):
    for seed in range(3):
        assert has_text(draw(seed, **FILMS[name]).grey) == bool(FILMS[name].get("label"))


@pytest.mark.parametrize("name", FILMS)
def test_a_film_is_no_page_and_its_negative_is_one(name):
    for seed in range(3):
        grey = draw(seed, **FILMS[name]).grey
        assert not is_page(grey)
        assert not is_page(grey[:, ::-1])
        assert is_page(255 - grey) == (name not in ("border", "streak"))  # their ground is not even


@pytest.mark.parametrize("ground", [255, 200, 128])
@pytest.mark.parametrize("figure", [False, True])
def test_dark_writing_on_bright_ground_is_a_page(ground, figure):
    page = Image.new("L", (800, 600), ground)
    pen = ImageDraw.Draw(page)
    if figure:
        pen.ellipse((250, 250, 550, 550), fill=90)
    pen.text((100, 100), "DOE^JANE 1948-02-29", fill=0, font=ImageFont.load_default(40))
    assert is_page(np.asarray(page, np.float32))
    assert is_page(np.pad(np.asarray(page, np.float32), 40))
    assert not is_page(np.asarray(page.resize((100, 75)), np.float32))  # nobody reads it


@pytest.mark.parametrize("size", [40, 128, 300])
def test_a_patch_of_tissue_is_no_page(size):
    noise = np.random.default_rng(size).standard_normal((size, size))
    for smooth in (1, size / 30, size / 8):
        assert not is_page(ndimage.gaussian_filter(noise, smooth).astype(np.float32))


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("said", [None, "left", "right"])
def test_the_chest_wall_comes_to_the_left_whatever_is_said(name, said):
    left = draw(**FILMS[name]).grey
    assert chest_wall(left) == "left"
    assert chest_wall(left[:, ::-1]) == "right"
    np.testing.assert_array_equal(orient_left(left, said), left)
    np.testing.assert_array_equal(orient_left(left[:, ::-1], said), left)


def test_where_pixels_say_nothing_the_laterality_decides():
    even = np.tile(np.arange(64, dtype=np.float32)[:, None], 64)
    even[0, 0] = 70
    assert chest_wall(even) is None
    np.testing.assert_array_equal(orient_left(even, "right"), even[:, ::-1])
    for said in ("left", None):
        np.testing.assert_array_equal(orient_left(even, said), even)


def test_units_do_not_count():
    film = draw(label="plate").grey
    there, _ = mask_film(film)
    for scale, offset in ((16.0, 0.0), (0.01, -3.0), (257.0, 1000.0)):
        moved = (film * scale + offset).astype(np.float32)
        kept = mask_film(moved)[0] == moved
        assert (kept != (there == film)).mean() < 1e-3
        assert has_text(moved)


def test_a_second_time_changes_nothing_but_a_margin():
    once, _ = mask_film(draw(label="plate").grey)
    twice, found = mask_film(once)
    assert found
    assert (twice != once).mean() < 0.01
    assert not has_text(once)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 2), (2000, 3), (257, 511)])
@pytest.mark.parametrize("fill", ["zeros", "ramp", "noise"])
def test_what_is_no_film_comes_back_unharmed(shape, fill):
    values = {
        "zeros": np.zeros(shape),
        "ramp": np.arange(np.prod(shape)).reshape(shape),
        "noise": np.random.default_rng(0).standard_normal(shape),
    }[fill].astype(np.float32)
    before = values.copy()
    masked, found = mask_film(values)
    has_text(values)
    turned = orient_left(values, "right")
    assert masked.shape == turned.shape == shape
    assert found or masked is values
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("number", range(6))
def test_phantoms(number):
    seed = np.random.SeedSequence(number)
    woman = random_woman(np.random.default_rng(np.random.SeedSequence(number)))
    for picture, side in zip(mammograms(224, seed), ("left", "left", "right", "right"), strict=True):
        grey = picture.astype(np.float32)
        assert chest_wall(grey) == side
        masked, found = mask_film(grey)
        assert found
        bright = ndimage.binary_opening(grey > 0.25 * grey.max(), iterations=4)
        pieces, count = ndimage.label(bright)
        breast = pieces == 1 + np.argmax(ndimage.sum_labels(bright, pieces, range(1, count + 1)))
        assert (masked == grey)[breast].all()
        corner = (slice(0, 45), slice(-80, None) if side == "left" else slice(0, 80))
        if woman.tag:
            assert has_text(grey)
            assert (masked[corner] > 180).sum() <= (breast[corner]).sum()


@pytest.mark.parametrize("radius", [1, 2, 3, 6, 13])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.97, 1])
def test_growing_and_wearing_are_scipys_dilation_and_erosion(radius, share):
    mask = np.random.default_rng(radius).random((40, 31)) < share
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius + 1
    assert (_grown(mask, radius) == ndimage.binary_dilation(mask, disk)).all()
    assert (_worn(mask, radius) == ndimage.binary_erosion(mask, disk)).all()
