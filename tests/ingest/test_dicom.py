from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLSLossless, RLELossless, SecondaryCaptureImageStorage

from ingest.conftest import dicom_dataset, enhanced_pet
from petgan.ingest import Refused, dicom
from petgan.ingest.frame import Skipped

RAMP = np.arange(16, dtype=np.uint16).reshape(4, 4)


def reason(path):
    with pytest.raises(Refused) as caught:
        dicom.scan(path)
    return caught.value.reason


@pytest.mark.parametrize(("slope", "intercept"), [("1", "0"), ("0.5", "0"), ("2.25", "-7")])
def test_each_slice_has_its_own_slope(write_dicom, slope, intercept):
    path = write_dicom("a.dcm", RAMP, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_allclose(dicom.read(path, 0), RAMP * float(slope) + float(intercept))


def test_monochrome1_is_inverted_within_the_stored_range(write_dicom):
    path = write_dicom(
        "a.dcm", RAMP, "MG", PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11
    )
    np.testing.assert_array_equal(dicom.read(path, 0), 4095.0 - RAMP)
    assert dicom.scan(path)[0].span == (0, 4095)


def test_sixteen_bits_are_kept(write_dicom):
    path = write_dicom("a.dcm", RAMP + 65520)
    np.testing.assert_array_equal(dicom.read(path, 0), RAMP.astype(np.float32) + 65520)


def test_position_is_along_the_normal_of_a_tilted_plane(write_dicom):
    angle = np.radians(30)
    across, down = (1, 0, 0), (0, np.cos(angle), np.sin(angle))
    normal = np.cross(across, down)
    for depth in (-12.5, 0, 40):
        place = depth * normal + 3 * np.array(across) - 5 * np.array(down)  # in-plane shifts do not count
        path = write_dicom(
            "a.dcm",
            RAMP,
            ImageOrientationPatient=[f"{v:.9f}" for v in (*across, *down)],
            ImagePositionPatient=[f"{v:.9f}" for v in place],
        )
        assert dicom.scan(path)[0].position == pytest.approx(depth, abs=1e-6)


def test_multi_frame_pet_is_read_by_frame(tmp_path):
    stored = np.stack([RAMP, RAMP + 1, RAMP + 2])
    enhanced_pet(stored, (1, 2, 4), (30, 10, 20)).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    headers = dicom.scan(tmp_path / "a.dcm")
    assert [header.position for header in headers] == [30, 10, 20]
    for index, slope in enumerate((1, 2, 4)):
        np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm", index), stored[index] * slope)


def test_multi_frame_without_positions_is_refused(tmp_path):
    data = enhanced_pet(np.stack([RAMP, RAMP]), (1, 1), (0, 1))
    del data.PerFrameFunctionalGroupsSequence
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "frames lie" in reason(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"ImagePositionPatient": None}, "ImagePositionPatient"),
        ({"PhotometricInterpretation": "RGB"}, "colours"),
        ({"BurnedInAnnotation": "YES"}, "burned"),
        ({"Rows": None}, "cut short"),
        ({"Rows": 60000, "Columns": 60000}, "too large"),
        ({"Rows": 0}, "no pixels"),
        ({"SOPInstanceUID": None}, "SOPInstanceUID"),
    ],
)
def test_what_cannot_be_taken_is_refused(write_dicom, attributes, words):
    assert words in reason(write_dicom("a.dcm", RAMP, **attributes))


def test_pet_without_slope_is_refused(write_dicom):
    with pytest.raises(Refused, match="RescaleSlope"):
        dicom.read(write_dicom("a.dcm", RAMP, RescaleSlope=None), 0)


@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "CT_small.dcm"])
def test_other_kinds_of_dicom_are_skipped(name):
    with pytest.raises(Skipped):
        dicom.scan(get_testdata_file(name, download=False))


def test_a_secondary_capture_of_another_modality_is_skipped(write_dicom):
    with pytest.raises(Skipped):
        dicom.scan(write_dicom("a.dcm", RAMP, SOPClassUID=SecondaryCaptureImageStorage, Modality="OT"))


def test_run_length_encoding_equals_plain(tmp_path):
    data = dicom_dataset(RAMP * 999, RescaleSlope="0.25")
    data.compress(RLELossless)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    dicom.scan(tmp_path / "a.dcm")
    np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm", 0), RAMP * 999 * 0.25)


def test_lossless_jpeg_2000_equals_plain(tmp_path):
    """Whichever decoder pydicom finds must not shift the values, as Pillow once did."""
    images = []
    for name in ("MR_small.dcm", "MR_small_jp2klossless.dcm"):
        data = dcmread(get_testdata_file(name, download=False))
        data.Modality, data.RescaleSlope, data.RescaleIntercept = "PT", "1", "0"
        data.save_as(tmp_path / name)
        images.append(dicom.read(tmp_path / name, 0))
    np.testing.assert_array_equal(*images)
    assert images[0].max() > 255


@pytest.mark.skipif(get_decoder(JPEGLSLossless).is_available, reason="the codec is installed")
def test_a_missing_codec_is_named(tmp_path):
    data = dicom_dataset(RAMP)
    data.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    words = reason(tmp_path / "a.dcm")
    assert "JPEG-LS" in words
    assert "pylibjpeg-libjpeg" in words


def test_a_projection_is_called_one(write_dicom):
    path = write_dicom("a.dcm", RAMP, ImageType=["DERIVED", "SECONDARY", "PROJECTION IMAGE"])
    assert dicom.scan(path)[0].view == "projection"
