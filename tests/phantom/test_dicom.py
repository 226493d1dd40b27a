from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from petgan.phantom import dicom, pet, tomography

from .breasts import plain


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A breast of fat alone with SUV 0.4, injected before midnight and scanned after it."""
    folder = tmp_path_factory.mktemp("dicom")
    who = replace(
        plain(), injected=datetime(2021, 3, 1, 23, 30), scanned=datetime(2021, 3, 2, 0, 40), weight_kg=61.5
    )
    scan = pet.scan(who, 6, 64, "fbp", np.random.default_rng(0))
    dicom.write_scan(folder, 7, who, scan, "fbp", "test")
    slices = [dcmread(path) for path in sorted(folder.iterdir())]
    return who, scan, slices


def by_depth(slices):
    return sorted(slices, key=lambda data: -data.ImagePositionPatient[1])


def test_pixels_come_back_to_half_a_stored_step(written):
    _, scan, slices = written
    for image, data in zip(scan.images, by_depth(slices), strict=True):
        assert data.pixel_array.dtype == np.uint16
        slope = float(data.RescaleSlope)
        np.testing.assert_allclose(data.pixel_array * slope, image, atol=0.5001 * slope)
        assert data.pixel_array.max() == 65535


def test_slopes_change_from_slice_to_slice(written):
    slopes = [data.RescaleSlope for data in written[2]]
    assert len(set(slopes)) == len(slopes)
    assert {float(data.RescaleIntercept) for data in written[2]} == {0.0}


def test_suv_by_hand_is_that_of_the_fat(written):
    x, y = tomography.pixel_centres(64, pet.FIELD_MM)
    data = by_depth(written[2])[1]
    item = data.RadiopharmaceuticalInformationSequence[0]
    injected = datetime.strptime(item.RadiopharmaceuticalStartDateTime, "%Y%m%d%H%M%S")
    series = datetime.strptime(data.SeriesDate + data.SeriesTime, "%Y%m%d%H%M%S")
    elapsed = (series - injected).total_seconds()
    assert elapsed == 70 * 60
    dose = float(item.RadionuclideTotalDose) * 0.5 ** (elapsed / float(item.RadionuclideHalfLife))
    suv = data.pixel_array * float(data.RescaleSlope) * float(data.PatientWeight) * 1000 / dose
    assert suv[np.hypot(x, y) < 40].mean() == pytest.approx(0.4, rel=0.05)


def test_every_attribute_of_suv_and_place_is_there(written):
    who, _, slices = written
    for data in slices:
        assert data.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.128"
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert (data.Modality, data.Units, data.DecayCorrection) == ("PT", "BQML", "START")
        assert {"DECY", "ATTN"} <= set(data.CorrectedImage)
        assert float(data.PatientWeight) == 61.5
        item = data.RadiopharmaceuticalInformationSequence[0]
        assert float(item.RadionuclideTotalDose) == who.dose_bq
        assert float(item.RadionuclideHalfLife) == 6586.2
        assert item.RadiopharmaceuticalStartTime == "233000"
        assert item.RadionuclideCodeSequence[0].CodeValue == "77004003"
        assert (data.SeriesDate, data.SeriesTime) == ("20210302", "004000")
        assert data.AcquisitionDate == "20210302"
        assert data.AcquisitionTime >= data.SeriesTime
        assert int(data.ActualFrameDuration) == 1000 * who.frame_s
        assert data.PixelSpacing == [170 / 64, 170 / 64]
        assert data.SliceThickness == 2
        assert data.NumberOfSlices == len(slices)
        assert data.BurnedInAnnotation == "NO"
        assert data.PatientIdentityRemoved == "NO"
        assert data.PatientName == "PHANTOM^007"


def test_frame_reference_time_lies_within_its_frame(written):
    who, scan, slices = written
    for start, data in zip(scan.start_s, by_depth(slices), strict=True):
        offset = float(data.FrameReferenceTime) / 1000 - start
        # The mean activity is passed a little before the middle.
        assert 0.48 * who.frame_s < offset < 0.5 * who.frame_s


def test_positions_are_even_along_the_normal_and_not_in_the_order_of_the_names(written):
    _, scan, slices = written
    rows, columns = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    along = np.array([np.dot(np.cross(rows, columns), data.ImagePositionPatient) for data in slices])
    np.testing.assert_allclose(np.diff(np.sort(along)), np.diff(scan.depths_mm), atol=1e-9)
    assert not np.all(np.diff(along) > 0)
    assert not np.all(np.diff(along) < 0)
    assert sorted(int(data.InstanceNumber) for data in slices) == list(range(1, 7))
    in_order = [int(data.ImageIndex) for data in by_depth(slices)]
    assert in_order == list(range(1, 7))


def test_identifiers_are_valid_and_belong_to_their_level(written):
    slices = written[2]
    for name, number in [
        ("SOPInstanceUID", 6), ("SeriesInstanceUID", 1), ("StudyInstanceUID", 1), ("FrameOfReferenceUID", 1),
    ]:  # fmt: skip
        found = {data[name].value for data in slices}
        assert len(found) == number
        assert all(UID(value).is_valid for value in found)
    assert len({slices[0][name].value for name in ("SeriesInstanceUID", "StudyInstanceUID")}) == 2


def test_an_empty_slice_can_be_stored():
    stored, slope = dicom.stored_values(np.zeros((4, 4), np.float32))
    assert float(slope) == 1
    assert not stored.any()
