from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from petgan.ingest import Refused, raster

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("suffix", ["png", "gif", "pgm"])
def test_eight_bit_grey_is_read_exactly(write_picture, suffix):
    path = write_picture(f"a.{suffix}", GREY)
    np.testing.assert_array_equal(raster.read_picture(path), GREY)
    assert raster.scan_picture(path)[0].span == (0, 255)


@pytest.mark.parametrize("suffix", ["png", "pgm"])
def test_sixteen_bit_grey_is_read_exactly(write_picture, suffix):
    deep = (GREY.astype(np.uint16) * 257)[::-1]
    path = write_picture(f"a.{suffix}", deep)
    np.testing.assert_array_equal(raster.read_picture(path), deep)
    assert raster.scan_picture(path)[0].span == (0, 65535)


def test_grey_stored_as_colours_is_read_exactly(write_picture):
    path = write_picture("a.png", np.repeat(GREY[..., None], 3, axis=2))
    np.testing.assert_array_equal(raster.read_picture(path), GREY)


def test_colours_become_luma(write_picture):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    path = write_picture("a.png", colours)
    luma = colours @ np.array([0.299, 0.587, 0.114])  # Rec. 601
    np.testing.assert_allclose(raster.read_picture(path), luma, atol=1)


def test_a_gif_with_a_shuffled_palette(tmp_path):
    order = np.random.default_rng(1).permutation(256).astype(np.uint8)
    image = Image.fromarray(order[GREY]).convert("P")
    palette = np.empty((256, 3), np.uint8)
    palette[order] = np.arange(256, dtype=np.uint8)[:, None]
    image.putpalette(palette.tobytes())
    image.save(tmp_path / "a.gif")
    np.testing.assert_array_equal(raster.read_picture(tmp_path / "a.gif"), GREY)


def test_the_first_frame_of_a_gif_counts(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(raster.read_picture(tmp_path / "a.gif"), GREY)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1)])
def test_arrays(tmp_path, dtype, shape):
    values = GREY.reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(raster.read_array(tmp_path / "a.npy"), values.reshape(16, 16))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[1.0, np.nan]]), "finite"),
        (np.array([[{}, 1]], dtype=object), "unpickled"),
        (np.zeros((2, 3, 4)), "3 dimensions"),
        (np.zeros((0, 5)), "no pixels"),
        (np.zeros((2, 2), complex), "real numbers"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(Refused, match=words):
        raster.read_array(tmp_path / "a.npy")


def test_a_decompression_bomb_is_refused_before_it_opens(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    with pytest.raises(Refused, match="too large"):
        raster.scan_picture(tmp_path / "a.png")


def test_colours_of_sixteen_bits_are_refused_rather_than_cut(tmp_path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(13))), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    with pytest.raises(Refused, match="16 bits"):
        raster.scan_picture(tmp_path / "a.png")
