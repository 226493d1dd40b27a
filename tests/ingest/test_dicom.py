from __future__ import annotations

import os

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from ingest.conftest import dicom_dataset, enhanced_pet, multi_frame_pet
from petgan.ingest import Refused, dicom
from petgan.ingest.frame import Plane, Skipped

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


def squares(first, count):
    """A Modality LUT from stored values to their squares, less what comes before the first."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, first, 16])
    item.ModalityLUTType = "US"
    item.add_new("LUTData", "US", [(first + k) ** 2 for k in range(count)])
    return [item]


@pytest.mark.parametrize("bits", [4, 12])
def test_the_modality_lut_comes_before_the_turning(write_dicom, bits):
    lut = {"ModalityLUTSequence": squares(0, 16), "BitsStored": bits, "HighBit": bits - 1}
    plain = write_dicom("a.dcm", RAMP, "MG", **lut)
    turned = write_dicom("b.dcm", RAMP, "MG", PhotometricInterpretation="MONOCHROME1", **lut)
    np.testing.assert_array_equal(dicom.read(plain, 0), RAMP.astype(np.float64) ** 2)
    np.testing.assert_array_equal(dicom.read(turned, 0), 225 - RAMP.astype(np.float64) ** 2)


def test_beyond_the_modality_lut_its_ends_count(write_dicom):
    path = write_dicom("a.dcm", RAMP, "MG", ModalityLUTSequence=squares(3, 4))
    np.testing.assert_array_equal(dicom.read(path, 0), np.clip(RAMP.astype(np.float64), 3, 6) ** 2)


def test_sixteen_bits_are_kept(write_dicom):
    path = write_dicom("a.dcm", RAMP + 65520)
    np.testing.assert_array_equal(dicom.read(path, 0), RAMP.astype(np.float32) + 65520)


def test_plane_and_spacing_are_those_of_the_header(write_dicom):
    across, down, position = (1.0, 0.0, 0.0), (0.0, 0.6, 0.8), (-12.5, 3.25, 40.0)
    path = write_dicom(
        "a.dcm",
        RAMP,
        ImageOrientationPatient=[*across, *down],
        ImagePositionPatient=list(position),
        PixelSpacing=["2.5", "1.25"],
    )
    (header,) = dicom.scan(path)
    assert header.plane == Plane(position, across, down)
    assert header.spacing == (2.5, 1.25)
    assert (header.view, header.collection, header.quarantine) == ("slice", "pet", None)


@pytest.mark.parametrize(
    ("cosines", "words"),
    [
        ([1, 0, 0, 0, 1.01, 0], "not of length 1"),
        ([0, 0, 0, 0, 1, 0], "not of length 1"),
        ([1, 0, 0, 0.6, 0.8, 0], "not at right angles"),
        ([1, 0, 0, 0, 1], "6 numbers"),
    ],
)
def test_an_orientation_that_is_none_is_refused(write_dicom, cosines, words):
    text = reason(write_dicom("a.dcm", RAMP, ImageOrientationPatient=cosines))
    assert words in text
    assert "ImageOrientationPatient (0020,0037)" in text


def test_rounded_cosines_are_accepted(write_dicom):
    cosines = [f"{value:.4f}" for value in (np.cos(0.3), np.sin(0.3), 0, -np.sin(0.3), np.cos(0.3), 0)]
    assert dicom.scan(write_dicom("a.dcm", RAMP, ImageOrientationPatient=cosines))[0].plane is not None


@pytest.mark.parametrize("place", [["0", "0", "1e300"], ["0", "0"]])
def test_a_position_that_is_none_is_refused(write_dicom, place):
    assert "ImagePositionPatient (0020,0032)" in reason(
        write_dicom("a.dcm", RAMP, ImagePositionPatient=place)
    )


@pytest.mark.parametrize("spacing", [["0", "1"], ["-1", "1"], ["1", "1", "1"], ["1", "1e200"]])
def test_a_pixel_spacing_that_is_none_is_refused(write_dicom, spacing):
    assert "PixelSpacing (0028,0030)" in reason(write_dicom("a.dcm", RAMP, PixelSpacing=spacing))


@pytest.mark.parametrize("keyword", ["ImagerPixelSpacing", "PixelSpacing"])
def test_the_spacing_of_a_mammogram(write_dicom, keyword):
    path = write_dicom("a.dcm", RAMP, "MG", **{keyword: ["0.07", "0.07"]})
    (header,) = dicom.scan(path)
    assert (header.spacing, header.plane, header.collection) == ((0.07, 0.07), None, "mammogram")


def planes_at(depths):
    return [((0.0, 0.0, float(depth)), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)) for depth in depths]


@pytest.mark.parametrize("legacy", [False, True])
def test_multi_frame_pet_is_read_by_frame(tmp_path, legacy):
    stored = np.stack([RAMP, RAMP + 1, RAMP + 2])
    data = multi_frame_pet(stored, (1, 2, 4), planes_at((30, 10, 20)), (2.0, 3.0), legacy=legacy)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    headers = dicom.scan(tmp_path / "a.dcm")
    assert [header.plane.position[2] for header in headers] == [30, 10, 20]
    assert {header.spacing for header in headers} == {(2.0, 3.0)}
    assert len({header.series for header in headers}) == 1
    assert {header.suv.units for header in headers} == {"BQML"}
    for index, slope in enumerate((1, 2, 4)):
        np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm", index), stored[index] * slope)


def test_frames_of_a_compressed_file_in_any_order(tmp_path):
    stored = np.random.default_rng(3).integers(0, 4000, (5, 8, 6), np.uint16)
    data = multi_frame_pet(stored, [1] * 5, planes_at(range(5)))
    data.compress(RLELossless)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    for index in (3, 0, 4, 4, 1, 2):
        np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm", index), stored[index])


def test_the_header_of_a_file_is_parsed_once(tmp_path, monkeypatch):
    stored = np.zeros((40, 4, 4), np.uint16)
    data = multi_frame_pet(stored, [1] * 40, planes_at(range(40)))
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    calls = []
    parse = dicom._dataset
    monkeypatch.setattr(dicom, "_dataset", lambda *given: calls.append(1) or parse(*given))
    for index in range(40):
        dicom.read(tmp_path / "a.dcm", index)
    assert len(calls) == 1


def test_a_file_that_has_changed_is_read_anew(write_dicom):
    for slope in ("1", "22"):
        path = write_dicom("a.dcm", RAMP, RescaleSlope=slope)
        os.utime(path, (0, int(slope)))
        np.testing.assert_array_equal(dicom.read(path, 0), RAMP * float(slope))


def test_a_frame_that_is_not_there_is_no_other_one(tmp_path):
    data = multi_frame_pet(np.stack([RAMP, RAMP]), (1, 1), planes_at((0, 1)))
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Exception, match="insufficient pixel data"):
        dicom.read(tmp_path / "a.dcm", 2)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_plain_syntaxes_give_the_same_values(tmp_path, syntax):
    data = dicom_dataset(RAMP * 999)
    data.PixelData = (RAMP * 999).astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    data["PixelData"].VR = "OW"
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert dicom.scan(tmp_path / "a.dcm")[0].plane is not None
    np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm", 0), RAMP * 999)


def test_a_deflated_file_equals_a_plain_one(tmp_path):
    data = dicom_dataset(RAMP * 999, RescaleSlope="0.25")
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert dicom.scan(tmp_path / "a.dcm")[0].plane is not None
    np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm", 0), RAMP * 999 * 0.25)


def test_a_deflated_file_of_several_frames_is_inflated_once(tmp_path, monkeypatch):
    stored = np.stack([RAMP, RAMP + 1, RAMP + 2])
    data = multi_frame_pet(stored, (1, 2, 4), planes_at((0, 1, 2)))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    calls = []
    inflate = dicom.zlib.decompressobj
    monkeypatch.setattr(dicom.zlib, "decompressobj", lambda *given: calls.append(1) or inflate(*given))
    for index, slope in enumerate((1, 2, 4)):
        np.testing.assert_array_equal(dicom.read(tmp_path / "a.dcm", index), stored[index] * slope)
    assert len(calls) == 1


def test_a_deflated_file_may_not_fill_the_memory(tmp_path, monkeypatch):
    data = dicom_dataset(RAMP)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.add_new("TextValue", "UT", "0" * 100_000)
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert (tmp_path / "a.dcm").stat().st_size < 5000
    monkeypatch.setattr(dicom, "MAX_INFLATED_BYTES", 50_000)
    assert "deflated" in reason(tmp_path / "a.dcm")


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
        ({"PhotometricInterpretation": "MONOCHROME1"}, "PhotometricInterpretation (0028,0004)"),
        ({"Rows": None}, "cut short"),
        ({"Rows": 60000, "Columns": 60000}, "too large"),
        ({"Rows": 0}, "no pixels"),
        ({"SOPInstanceUID": None}, "SOPInstanceUID"),
    ],
)
def test_what_cannot_be_taken_is_refused(write_dicom, attributes, words):
    assert words in reason(write_dicom("a.dcm", RAMP, **attributes))


@pytest.mark.parametrize(
    ("slope", "words"),
    [(None, "lacks"), ("", "lacks"), ("0", "of 0"), ("-2", "of -2"), (["1", "2"], "not 1")],
)
def test_pet_without_a_slope_above_0_is_refused(write_dicom, slope, words):
    said = reason(write_dicom("a.dcm", RAMP, RescaleSlope=slope))
    assert words in said
    assert "RescaleSlope (0028,1053)" in said


def test_a_frame_without_a_slope_is_refused(tmp_path):
    data = enhanced_pet(np.stack([RAMP, RAMP]), (1, 0), (0, 1))
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert "RescaleSlope (0028,1053) of 0" in reason(tmp_path / "a.dcm")


@pytest.mark.parametrize("slope", ["", "0"])
def test_the_slope_of_a_mammogram_may_be_missing_but_not_empty_or_0(write_dicom, slope):
    dicom.scan(write_dicom("a.dcm", RAMP, "MG"))
    assert "RescaleSlope (0028,1053)" in reason(write_dicom("b.dcm", RAMP, "MG", RescaleSlope=slope))


@pytest.mark.parametrize("modality", ["PT", "MG"])
def test_bits_that_are_not_the_lowest_are_refused(write_dicom, modality):
    said = reason(write_dicom("a.dcm", RAMP << 4, modality, BitsStored=12, HighBit=15))
    assert "HighBit (0028,0102) of 15" in said
    assert "11" in said


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("padding", "what"),
    [
        ({"PixelPaddingValue": 0}, [0]),
        ({"PixelPaddingValue": 15, "PixelPaddingRangeLimit": 13}, [13, 14, 15]),
    ],
)
def test_padding_is_black(write_dicom, photometric, padding, what):
    path = write_dicom(
        "a.dcm", RAMP, "MG", PhotometricInterpretation=photometric, BitsStored=4, HighBit=3, **padding
    )
    shown = dicom.read(path, 0)
    expected = (15.0 - RAMP) if photometric == "MONOCHROME1" else RAMP.astype(np.float64)
    padded = np.isin(RAMP, what)
    expected[padded] = expected[~padded].min()
    np.testing.assert_array_equal(shown, expected)


def test_what_is_padding_and_nothing_else_stays(write_dicom):
    np.testing.assert_array_equal(
        dicom.read(write_dicom("a.dcm", RAMP * 0, "MG", PixelPaddingValue=0), 0), RAMP * 0
    )


@pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "CT_small.dcm"])
def test_other_kinds_of_dicom_are_skipped(name):
    with pytest.raises(Skipped):
        dicom.scan(get_testdata_file(name, download=False))


@pytest.mark.parametrize("modality", ["PT", "MG"])
@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation (0028,0301)"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "SOPClassUID (0008,0016)"),
        ({"ConversionType": "WSD"}, "ConversionType (0008,0064)"),
    ],
)
def test_what_may_name_the_patient_is_for_a_person_to_decide(write_dicom, modality, attributes, words):
    (header,) = dicom.scan(write_dicom("a.dcm", RAMP, modality, **attributes))
    assert words in header.quarantine


def test_a_capture_by_either_sop_class_is_for_a_person_to_decide(tmp_path):
    data = dicom_dataset(RAMP, SOPClassUID=SecondaryCaptureImageStorage)
    data.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
    data.preamble = bytes(128)
    data.save_as(tmp_path / "a.dcm")  # which leaves the two apart
    assert "SOPClassUID (0008,0016)" in dicom.scan(tmp_path / "a.dcm")[0].quarantine


def test_nothing_else_is_in_quarantine(write_dicom):
    (header,) = dicom.scan(write_dicom("a.dcm", RAMP, BurnedInAnnotation="NO", ConversionType=""))
    assert header.quarantine is None


@pytest.mark.parametrize("modality", ["OT", "SC"])
def test_a_capture_of_another_modality_is_for_a_person_to_decide(write_dicom, modality):
    path = write_dicom(
        "a.dcm", RAMP, SOPClassUID=SecondaryCaptureImageStorage, Modality=modality, RescaleSlope=None
    )
    (header,) = dicom.scan(path)
    assert (header.modality, header.plane, header.collection) == (None, None, "other")
    assert header.quarantine
    np.testing.assert_array_equal(dicom.read(path, 0), RAMP)


def test_another_modality_that_is_no_capture_is_skipped(write_dicom):
    with pytest.raises(Skipped):
        dicom.scan(write_dicom("a.dcm", RAMP, Modality="OT"))


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


@pytest.mark.parametrize(
    "words",
    [
        ["DERIVED", "SECONDARY", "PROJECTION IMAGE"],
        ["DERIVED", "PRIMARY", "MAX PIXEL"],
        ["DERIVED", "SECONDARY", "MIP"],
        ["DERIVED", "SECONDARY", "WHOLE BODY", "MAX_IP"],
        ["DERIVED", "SECONDARY", "SUM"],
    ],
)
def test_a_projection_is_none_of_the_slices(write_dicom, words):
    (header,) = dicom.scan(write_dicom("a.dcm", RAMP, ImageType=words))
    (other,) = dicom.scan(write_dicom("b.dcm", RAMP))
    assert (header.view, header.plane) == ("projection", None)
    assert header.series != other.series


@pytest.mark.parametrize(
    "word", ["SUMMARY", "PRIMARY", "MIPPED_NOT", "PROJECTILE", "STATIC", "MAXIMAL", "MPR"]
)
def test_a_slice_is_no_projection(write_dicom, word):
    (header,) = dicom.scan(write_dicom("a.dcm", RAMP, ImageType=["ORIGINAL", "PRIMARY", word]))
    assert header.view == "slice"


def test_a_projection_of_enhanced_pet(tmp_path):
    data = multi_frame_pet(np.stack([RAMP, RAMP]), (1, 1), planes_at((0, 1)))
    frame = Dataset()
    frame.FrameType = ["DERIVED", "PRIMARY", "WHOLE_BODY", "NONE"]
    frame.VolumeBasedCalculationTechnique = "MAX_IP"
    data.PerFrameFunctionalGroupsSequence[1].PETFrameTypeSequence = [frame]
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert [header.view for header in dicom.scan(tmp_path / "a.dcm")] == ["slice", "projection"]
