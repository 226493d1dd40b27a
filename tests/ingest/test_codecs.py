"""Every transfer syntax: against the pixels that went in, against a second decoder, and without a decoder.

The pictures are made by encoders that are not petgan's decoders: imagecodecs (libjpeg-turbo, liblj92, CharLS,
OpenJPEG, OpenJPH) and pydicom's. What is lost is bounded by the coding itself: exactly for JPEG-LS (NEAR),
by the steps of the quantisation table for JPEG, and by another decoder to one grey level.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder

from ingest.conftest import dicom_dataset, enhanced_pet
from petgan.ingest import codecs, dicom
from petgan.ingest.frame import Refused

imagecodecs = pytest.importorskip("imagecodecs")
for package in ("gdcm", "jpeg_ls", "openjpeg"):
    pytest.importorskip(package)

DEPTHS = [(8, 8), (8, 16), (10, 16), (12, 16), (16, 16)]  # bits stored, allocated
KINDS = pytest.mark.parametrize("modality", ["PT", "MG"])
ALL_DEPTHS = pytest.mark.parametrize(("bits", "allocated"), DEPTHS)
SIGNED = pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
UNCOMPRESSED = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]


def picture(bits, signed=False, shape=(41, 30), noise=3.0):
    """Waves and noise over the whole range, the extremes and an odd number of pixels in it."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    top = 2**bits - 1
    waves = (np.sin(x / 7) + np.cos(y / 9) + 2) / 4 * top
    values = np.rint(waves + np.random.default_rng(bits).normal(0, noise, shape)).astype(np.int64)
    values[0, :9], values[1, :9] = top, 0
    return np.clip(values, 0, top) - (2 ** (bits - 1) if signed else 0)


def integers(values, bits, signed):
    """As the type of the pixel cells."""
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def dataset(values, modality, bits, allocated, signed=False):
    data = dicom_dataset(values, modality, BitsAllocated=allocated, BitsStored=bits, HighBit=bits - 1)
    data.PixelRepresentation = int(signed)
    cells = values.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    data.PixelData = cells + bytes(len(cells) % 2)
    data["PixelData"].VR = "OB" if allocated == 8 else "OW"
    return data


def encoded(data, syntax, *frames):
    data.PixelData = encapsulate(list(frames))
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax
    return data


@pytest.fixture
def read(tmp_path):
    """What petgan makes of a dataset: its values, as a file gives them."""

    def read_back(data, index=0):
        path = tmp_path / "a.dcm"
        data.save_as(path, enforce_file_format=True)
        dicom.scan(path)
        return dicom.read(path, index)

    return read_back


def refusal(read, data):
    with pytest.raises(Refused) as caught:
        read(data)
    return caught.value.reason


# --- lossless: every value comes back --------------------------------------------------------------------


@KINDS
@SIGNED
@ALL_DEPTHS
@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda syntax: syntax.keyword)
def test_uncompressed(read, tmp_path, syntax, bits, allocated, signed, modality):
    values = picture(bits, signed)
    data = dataset(values, modality, bits, allocated, signed)
    if syntax == uid.ExplicitVRBigEndian and allocated == 16:
        data.PixelData = values.astype(">i2" if signed else ">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read(data), values)


@KINDS
@SIGNED
@ALL_DEPTHS
def test_run_lengths(read, bits, allocated, signed, modality):
    values = picture(bits, signed)
    data = dataset(values, modality, bits, allocated, signed)
    frame = run_lengths(values, allocated // 8)
    np.testing.assert_array_equal(read(encoded(data, uid.RLELossless, frame)), values)
    if bits > 8 or allocated == 8:
        data = dataset(values, modality, bits, allocated, signed)
        data.compress(uid.RLELossless, encoding_plugin="pydicom")
        np.testing.assert_array_equal(read(data), values)


def run_lengths(values, width):
    """PS3.5 annex G: a segment for each byte, the most significant first; runs of the last two columns."""
    cells = values.astype(f">i{width}") if width > 1 else values.astype("u1").view("i1")
    segments = []
    for plane in np.frombuffer(cells.tobytes(), np.uint8).reshape(*values.shape, width).transpose(2, 0, 1):
        rows = [bytes([len(row) - 3]) + row[:-2].tobytes() + run(row[-2:].tobytes()) for row in plane]
        segment = b"".join(rows)
        segments.append(segment + bytes(len(segment) % 2))
    offsets = np.cumsum([64, *map(len, segments[:-1])])
    header = struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def run(pair):
    return bytes([255, pair[0]]) if pair[0] == pair[1] else bytes([1]) + pair


@KINDS
@SIGNED
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (10, 16), (12, 16), (16, 16)])
@pytest.mark.parametrize("predictor", [1, 4, 7])
def test_lossless_jpeg(read, bits, allocated, signed, modality, predictor):
    """By libjpeg-turbo, and the first predictor by liblj92 as well; of signed values the bits are coded."""
    values = picture(bits, signed)
    cells = integers(values & 2**bits - 1, bits, signed=False)
    syntax = uid.JPEGLosslessSV1 if predictor == 1 else uid.JPEGLossless
    frames = [imagecodecs.jpeg8_encode(cells, lossless=True, predictor=predictor, bitspersample=bits)]
    if predictor == 1:
        frames.append(imagecodecs.ljpeg_encode(cells, bitspersample=bits))
    for frame in frames:
        data = encoded(dataset(values, modality, bits, allocated, signed), syntax, frame)
        np.testing.assert_array_equal(read(data), values)


@KINDS
@SIGNED
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (10, 16), (12, 16), (16, 16)])
def test_lossless_jpeg_ls(read, bits, allocated, signed, modality):
    values = picture(bits, signed)
    data = dataset(values, modality, bits, allocated, signed)
    data.compress(uid.JPEGLSLossless, encoding_plugin="pyjpegls")
    np.testing.assert_array_equal(read(data), values)
    if not signed:
        frame = imagecodecs.jpegls_encode(integers(values, bits, signed))
        data = encoded(dataset(values, modality, bits, allocated, signed), uid.JPEGLSLossless, frame)
        np.testing.assert_array_equal(read(data), values)


@KINDS
@SIGNED
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (10, 16), (12, 16), (16, 16)])
@pytest.mark.parametrize("container", ["j2k", "jp2"])
def test_lossless_jpeg_2000(read, bits, allocated, signed, modality, container):
    values = picture(bits, signed)
    cells = integers(values, bits, signed)
    frame = imagecodecs.jpeg2k_encode(cells, level=0, codecformat=container, bitspersample=bits)
    data = encoded(dataset(values, modality, bits, allocated, signed), uid.JPEG2000Lossless, frame)
    np.testing.assert_array_equal(read(data), values)


@KINDS
@SIGNED
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (12, 16), (16, 16)])
@pytest.mark.parametrize(
    "syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K], ids=lambda syntax: syntax.keyword
)
def test_lossless_high_throughput_jpeg_2000(read, bits, allocated, signed, modality, syntax):
    values = picture(bits, signed)
    frame = imagecodecs.htj2k_encode(integers(values, bits, signed))
    data = encoded(dataset(values, modality, bits, allocated, signed), syntax, frame)
    np.testing.assert_array_equal(read(data), values)


def test_unused_bits_are_not_read(read):
    """Overlays lay in them once (PS3.5 8.1.1)."""
    values = picture(12)
    data = dataset(values, "MG", 12, 16)
    data.PixelData = (values | 0xA000).astype("<u2").tobytes()
    np.testing.assert_array_equal(read(data), values)


def test_compressed_frames_are_told_apart(read):
    """Two slices of a volume: each by its own codestream."""
    values = [picture(12), picture(12)[::-1]]
    frames = [imagecodecs.jpeg2k_encode(v.astype(np.uint16), level=0, codecformat="j2k") for v in values]
    data = encoded(enhanced_pet(np.stack(values), (1, 1), (0, 3)), uid.JPEG2000Lossless, *frames)
    for index in (0, 1):
        np.testing.assert_array_equal(read(data, index), values[index])


# --- lossy: within the coding's own error ----------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("near", [1, 3, 10])
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (12, 16), (16, 16)])
@SIGNED
def test_near_lossless_jpeg_ls_is_within_its_bound(read, near, bits, allocated, signed, modality):
    values = picture(bits, signed)
    if signed:  # two's complement jumps at the ends of its range, and JPEG-LS does not know of it
        values = np.clip(values, values.min() + near, values.max() - near)
    data = dataset(values, modality, bits, allocated, signed)
    data.compress(uid.JPEGLSNearLossless, encoding_plugin="pyjpegls", jls_error=near)
    error = np.abs(read(data) - values)
    assert error.max() == near


@KINDS
@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
@pytest.mark.parametrize("level", [50, 90, 100])
def test_jpeg_of_8_bits(read, syntax, level, modality):
    values = picture(8, shape=(48, 32))
    frame = imagecodecs.jpeg8_encode(values.astype(np.uint8), level=level)
    assert_jpeg(read(encoded(dataset(values, modality, 8, 8), syntax, frame)), values, frame)


@KINDS
@pytest.mark.parametrize("level", [50, 90, 100])
def test_jpeg_of_12_bits(read, level, modality):
    values = picture(12, shape=(48, 32))
    frame = imagecodecs.jpeg8_encode(values.astype(np.uint16), level=level, bitspersample=12)
    data = encoded(dataset(values, modality, 12, 16), uid.JPEGExtended12Bit, frame)
    assert_jpeg(read(data), values, frame)


def assert_jpeg(found, values, frame):
    """Within a level of another decoder; and each block's error within the quantisation (Parseval).

    Each coefficient of the orthonormal transform is off by at most half a step, and each value by at most
    half a level for its rounding.
    """
    other = imagecodecs.jpeg8_decode(frame).astype(float)
    assert np.abs(found - other).max() <= 1
    steps = quantisation(frame)
    bound = np.sqrt((steps**2).sum()) / 2 + 8 * 0.5
    blocks = (found - values).reshape(6, 8, 4, 8).swapaxes(1, 2)
    assert np.sqrt((blocks**2).sum((2, 3))).max() <= bound


def quantisation(frame):
    """The 64 steps of a JPEG's first table (ISO/IEC 10918-1 B.2.4.1)."""
    at = frame.index(b"\xff\xdb")
    wide = frame[at + 4] >> 4
    return np.frombuffer(frame, ">u2" if wide else "u1", 64, at + 5).astype(float)


@KINDS
@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (12, 16), (16, 16)])
@SIGNED
@pytest.mark.parametrize("high_throughput", [False, True], ids=["plain", "ht"])
def test_lossy_jpeg_2000_is_as_near_as_asked(read, bits, allocated, signed, high_throughput, modality):
    """Against the peak signal-to-noise ratio, or the step, that the encoder was given."""
    values = picture(bits, signed)
    cells = integers(values, bits, signed)
    top = 2**bits - 1
    if high_throughput:
        frame = imagecodecs.htj2k_encode(cells, level=0.01, reversible=False)
        other = imagecodecs.htj2k_decode(frame).astype(float)
        syntax, bound = uid.HTJ2K, 0.01 * 2 ** (8 * cells.itemsize)
    else:
        frame = imagecodecs.jpeg2k_encode(
            cells, level=50, codecformat="j2k", bitspersample=bits, reversible=False
        )
        other = imagecodecs.jpeg2k_decode(frame).astype(float)
        syntax, bound = uid.JPEG2000, 10 ** (-48 / 20) * top
    found = read(encoded(dataset(values, modality, bits, allocated, signed), syntax, frame))
    difference = (found - other + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)  # OpenJPH makes 0 of 256
    assert np.abs(difference).max() <= max(1, top / 2**14)  # floats, rounded here and there
    assert 0 < np.sqrt(((found - values) ** 2).mean()) <= bound


# --- pydicom's own files ---------------------------------------------------------------------------------

BUNDLED = {
    "MR_small_implicit.dcm": "MR_small.dcm",
    "MR_small_bigendian.dcm": "MR_small.dcm",
    "MR_small_expb.dcm": "MR_small.dcm",
    "MR_small_padded.dcm": "MR_small.dcm",
    "MR_small_RLE.dcm": "MR_small.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
}


def bundled(name, modality, **attributes):
    """A test file of pydicom, made a PET slice or a mammogram."""
    data = dcmread(get_testdata_file(name, download=False))
    model = dicom_dataset(np.zeros((2, 2)), modality, BitsStored=16)
    for element in model.group_dataset(0x0028):
        if element.tag not in data:
            data[element.tag] = element
    for keyword in ("SOPClassUID", "Modality", "ImageType"):
        data[keyword] = model[keyword]
    if modality == "PT":
        for keyword in ("Units", "ImagePositionPatient", "ImageOrientationPatient"):
            data[keyword] = model[keyword]
    data.RescaleSlope, data.RescaleIntercept = "1", "0"
    data.pop("PixelPaddingValue", None)  # of a mammogram it becomes black
    data.file_meta.MediaStorageSOPClassUID = model.SOPClassUID
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    return data


@KINDS
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_files_equal_their_uncompressed_sister(read, name, modality):
    np.testing.assert_array_equal(read(bundled(name, modality)), read(bundled(BUNDLED[name], modality)))


@KINDS
@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("693_J2KI.dcm", 14),
        ("J2K_pixelrep_mismatch.dcm", 13),
        ("JPEG2000.dcm", 16),
        ("JPGExtended.dcm", 12),
        ("JPEG-lossy.dcm", 12),
    ],
)
def test_bundled_files_equal_another_decoder(read, name, bits, modality):
    data = bundled(name, modality)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    decode = imagecodecs.jpeg2k_decode if name[4] == "J" or "2" in name else imagecodecs.jpeg8_decode
    other = decode(frame).astype(np.int64)
    if data.PixelRepresentation:  # a codestream may call signed values unsigned
        other = (other + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    error = np.abs(read(data) - other)
    assert error.max() <= 1
    assert np.count_nonzero(other) > 100


@KINDS
@pytest.mark.parametrize("name", ["JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm"])
def test_bundled_near_lossless_files_equal_another_decoder(read, name, modality):
    data = bundled(name, modality)
    other = imagecodecs.jpegls_decode(get_frame(data.PixelData, 0, number_of_frames=1))
    np.testing.assert_array_equal(read(data), other)


def test_a_bundled_deflated_file_by_inflating_it(read):
    raw = Path(get_testdata_file("image_dfl.dcm", download=False)).read_bytes()
    group_length = struct.unpack_from("<I", raw, 140)[0]
    plain = zlib.decompress(raw[144 + group_length :], -zlib.MAX_WBITS)
    pixels = np.frombuffer(plain[-512 * 512 :], np.uint8).reshape(512, 512)
    np.testing.assert_array_equal(read(bundled("image_dfl.dcm", "MG")), pixels)


# --- what is damaged, lies, or has no decoder ------------------------------------------------------------


def compressed():
    """A frame in each compressed syntax, and the values that went in."""
    for bits in (8, 12):
        values = picture(bits, shape=(200, 150), noise=20)
        cells = integers(values, bits, signed=False)
        yield uid.JPEGLosslessSV1, bits, values, imagecodecs.ljpeg_encode(cells, bitspersample=bits)
        yield uid.JPEGLSLossless, bits, values, imagecodecs.jpegls_encode(cells)
        plain = imagecodecs.jpeg2k_encode(cells, level=0, codecformat="j2k", bitspersample=bits)
        yield uid.JPEG2000Lossless, bits, values, plain
        yield uid.HTJ2KLossless, bits, values, imagecodecs.htj2k_encode(cells)
        yield uid.JPEGExtended12Bit, bits, values, imagecodecs.jpeg8_encode(cells, bitspersample=bits)


CUT = [(syntax, bits, values, frame) for syntax, bits, values, frame in compressed()]
EACH = pytest.mark.parametrize(
    ("syntax", "bits", "values", "frame"), CUT, ids=[f"{syntax.keyword}-{bits}" for syntax, bits, *_ in CUT]
)


@EACH
@pytest.mark.parametrize("part", [0.02, 0.5, 0.95])
def test_a_picture_that_is_cut_short_is_refused_rather_than_half_grey(
    read, syntax, bits, values, frame, part, capfd
):
    data = encoded(
        dataset(values, "MG", bits, 8 if bits == 8 else 16), syntax, frame[: int(len(frame) * part)]
    )
    with pytest.raises((Refused, RuntimeError)):
        read(data)
    assert capfd.readouterr().err == ""


@EACH
def test_a_picture_of_another_size_is_refused(read, syntax, bits, values, frame):
    data = encoded(dataset(values[::2], "MG", bits, 8 if bits == 8 else 16), syntax, frame)
    assert "another size" in refusal(read, data)


@EACH
@pytest.mark.parametrize("libjpeg", [False, True])
def test_decoders_are_the_ones_of_choice(read, syntax, bits, values, frame, libjpeg, monkeypatch):
    """Without the others, the last choice reads the same, and refuses the same."""
    if libjpeg:
        pytest.importorskip("libjpeg")
        if not uid.UID(syntax).keyword.startswith(("JPEGL", "JPEGE")) or bits == 8:
            pytest.skip("not read by libjpeg")
        monkeypatch.setitem(codecs._DECODERS, syntax, ("pylibjpeg",))
    data = encoded(dataset(values, "MG", bits, 8 if bits == 8 else 16), syntax, frame)
    lossless = syntax != uid.JPEGExtended12Bit
    found = read(data)
    expected = values if lossless else imagecodecs.jpeg8_decode(frame)
    np.testing.assert_allclose(found, expected, atol=0 if lossless else 1)
    with pytest.raises((Refused, RuntimeError)):
        read(encoded(dataset(values, "MG", bits, 8 if bits == 8 else 16), syntax, frame[: len(frame) // 2]))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("length", [0, 7])
def test_a_box_without_length_is_refused_rather_than_read_for_ever(read, length):
    """pydicom 3.0.1 to 3.0.2 stood still at it."""
    values = picture(12)
    frame = bytearray(imagecodecs.jpeg2k_encode(values.astype(np.uint16), level=0, codecformat="jp2"))
    frame[12:16] = struct.pack(">I", length)
    data = encoded(dataset(values, "MG", 12, 16), uid.JPEG2000Lossless, bytes(frame))
    assert "damaged" in refusal(read, data)


def test_every_compressed_syntax_that_pydicom_knows_has_a_choice():
    from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS

    known = {syntax for syntax in _PIXEL_DATA_DECODERS if uid.UID(syntax).is_encapsulated}
    assert set(codecs._DECODERS) == known
    for syntax, ways in codecs._DECODERS.items():
        assert codecs.decoding_plugin(syntax, 12) == ways[0]
        assert set(ways) <= {*get_decoder(syntax).available_plugins, "pylibjpeg"}


@pytest.mark.parametrize(
    ("syntax", "bits", "package"),
    [
        (uid.JPEGExtended12Bit, 12, "python-gdcm"),
        (uid.JPEGLosslessSV1, 16, "python-gdcm"),
        (uid.JPEGLSLossless, 16, "pyjpegls"),
        (uid.JPEG2000Lossless, 16, "pylibjpeg-openjpeg"),
        (uid.HTJ2K, 16, "pylibjpeg-openjpeg"),
    ],
)
def test_a_missing_decoder_is_named_with_its_package(read, monkeypatch, syntax, bits, package):
    bare = {"pillow", "pydicom", "petgan"}
    for known in codecs._DECODERS:
        there = {name: f for name, f in get_decoder(known)._available.items() if name in bare}
        monkeypatch.setattr(get_decoder(known), "_available", there)
    words = refusal(read, encoded(dataset(picture(bits), "MG", bits, 16), syntax, b"\xff\xd8\xff\xd9"))
    assert syntax.name in words
    assert f"needs {package}: pip install 'petgan[codecs]'" in words


def test_what_petgan_reads_by_itself(monkeypatch, read):
    bare = {"pillow", "pydicom", "petgan"}
    for known in codecs._DECODERS:
        there = {name: f for name, f in get_decoder(known)._available.items() if name in bare}
        monkeypatch.setattr(get_decoder(known), "_available", there)
    assert codecs.decoding_plugin(uid.RLELossless, 16) == "pydicom"
    assert codecs.decoding_plugin(uid.JPEGBaseline8Bit, 8) == "pillow"
    assert codecs.decoding_plugin(uid.JPEGExtended12Bit, 8) == "pillow"


def test_other_syntaxes_are_refused(read):
    data = encoded(dataset(picture(8), "MG", 8, 8), uid.MPEG2MPML, b"\0\0\1\0")
    assert "pydicom does not know" in refusal(read, data)


def test_signed_values_in_lossy_jpeg_are_refused(read):
    frame = imagecodecs.jpeg8_encode(picture(8).astype(np.uint8))
    data = encoded(dataset(picture(8), "MG", 8, 8, signed=True), uid.JPEGBaseline8Bit, frame)
    assert "signed values in lossy JPEG" in refusal(read, data)


def test_memory_that_a_decoder_lacks_is_not_called_damage(read, monkeypatch):
    def fail(src, runner):
        raise MemoryError

    monkeypatch.setattr("pydicom.pixels.decoders.rle._decode_frame", fail)
    data = dataset(picture(8), "MG", 8, 8)
    data.compress(uid.RLELossless, encoding_plugin="pydicom")
    with pytest.raises(MemoryError):
        read(data)
