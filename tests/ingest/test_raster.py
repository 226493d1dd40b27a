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


@pytest.mark.parametrize("top", [1, 100, 255, 256, 4095, 65535])
@pytest.mark.parametrize("plain", [True, False])
def test_pgm_keeps_its_values_whatever_its_largest(tmp_path, top, plain):
    values = np.random.default_rng(top).integers(0, top + 1, (5, 7))
    header = f"{'P2' if plain else 'P5'}\n# made by hand\n7 5 # wide, high\n{top}\n".encode()
    body = (
        " ".join(map(str, values.ravel())).encode()
        if plain
        else values.astype(">u2" if top > 255 else "u1").tobytes()
    )
    (tmp_path / "a.pgm").write_bytes(header + body)
    np.testing.assert_array_equal(raster.read_pgm(tmp_path / "a.pgm"), values)
    header = raster.scan_pgm(tmp_path / "a.pgm")[0]
    assert (header.span, header.pixels) == ((0, top), 35)


@pytest.mark.parametrize("pixels", [GREY, GREY.astype(np.uint16) * 257])
def test_pgm_as_pillow_writes_it(write_picture, pixels):
    np.testing.assert_array_equal(raster.read_pgm(write_picture("a.pgm", pixels)), pixels)


def test_another_picture_called_pgm_is_read_as_what_it_is(write_picture):
    path = write_picture("a.png", GREY).rename(write_picture("b.png", GREY).with_suffix(".pgm"))
    np.testing.assert_array_equal(raster.read_pgm(path), GREY)
    assert raster.scan_pgm(path)[0].span == (0, 255)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"P5 2 2 255\n\0\0\0", "cut short"),
        (b"P2 2 2 255\n1 2 3", "cut short"),
        (b"P2 2 2 255\n1 2 x 3", "cut short|numbers"),
        (b"P2 2 1 9\n1 10", "beyond"),
        (b"P2 2 1 9\n1 -1", "beyond"),
        (b"P2 2 1 9\n1 nan", "beyond"),
        (b"P5 2 1 9\n\1\12", "beyond"),
        (b"P5 2 1 65536\n\1\12", "largest"),
        (b"P5 2 1 0\n\1\12", "largest"),
        (b"P5 99999 99999 255\n", "too large"),
        (b"P5 0 2 255\n", "no pixels"),
    ],
)
def test_pgm_that_is_none_is_refused(tmp_path, content, words):
    (tmp_path / "a.pgm").write_bytes(content)
    with pytest.raises(Refused, match=words):
        raster.read_pgm(tmp_path / "a.pgm")
