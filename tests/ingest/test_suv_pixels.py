"""Uniform phantoms come out of an ingest as SUV 1, voxel by voxel, whatever the vendor and the units.

A slice of a phantom is its header and the value that each of its voxels has to have after rescaling, so that
their SUV is 1; that value comes from the definition, not from petgan. Every slice has another slope.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ingest.conftest import multi_frame_pet
from ingest.test_suv import BODY, LATER, NONE, SCAN, WEIGHT, activity, mapped, pet, private, stamp
from petgan.cli import main
from petgan.ingest import Options, ingest
from petgan.store import Dataset as Images

SIDE, SLICES = 16, 3
IN_SUV = Options(size=SIDE, units="suvbw", dtype="float32")
SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
PHILIPS, GE, SIEMENS = "Philips PET Private Group", "GEMS_PETD_01", "SIEMENS MED PT"


def stored_and_slope(k, value):
    """Of slice k: what is in the file, and what it is multiplied by to be `value`; 11 digits of it."""
    stored = 1000 + 313 * k
    return stored, f"{value / stored:.10e}"[:16]


def write(folder, made, syntax=ExplicitVRLittleEndian):
    """A series of slices (dataset, value), the last one first."""
    folder.mkdir()
    for k, (data, value) in enumerate(made):
        stored, data.RescaleSlope = stored_and_slope(k, value)
        data.Rows = data.Columns = SIDE
        data.PixelData = np.full((SIDE, SIDE), stored, "<u2").tobytes()
        data.ImagePositionPatient = ["0", "0", str(3 * k)]
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(folder / f"{9 - k}.dcm", enforce_file_format=True)


def assert_all_voxels_are_1(path, slices=SLICES):
    with Images(path) as made:
        assert (made.units, made.window, made.dtype) == ("suvbw", "none", np.float32)
        assert made.images().shape == (slices, SIDE, SIDE, 1)
        np.testing.assert_allclose(made.images().astype(np.float64), 1, rtol=0, atol=1e-6)


def philips(data, suv=None, concentration=None):
    for element, factor in ((0x00, suv), (0x09, concentration)):
        if factor is not None:
            private(data, 0x7053, PHILIPS, element, "DS", factor)
    return data


def of_its_frame(k, **attributes):
    """A slice of four minutes, begun 5 + 5 k minutes after the start; its mean activity follows from both."""
    begun, duration, decay = 300.0 * (k + 1), 240.0, math.log(2) / 6586.2
    mean = math.log(decay * duration / (1 - math.exp(-decay * duration))) / decay
    acquired, lasted = SCAN + timedelta(seconds=begun), str(int(1000 * duration))
    reference = f"{1000 * (begun + mean):.6f}"
    data = pet(acquired=acquired, ActualFrameDuration=lasted, FrameReferenceTime=reference, **attributes)
    return data, begun, mean


def not_corrected_by_its_frame(k):
    data, begun, mean = of_its_frame(k, **NONE)
    del data.FrameReferenceTime
    return data, activity(3600 + begun + mean)


def not_corrected_by_frame_reference_time(k):
    data, begun, mean = of_its_frame(k, **NONE)
    return data, activity(3600 + begun + mean)


def injected_before_midnight(k, with_date):
    start = datetime(2024, 3, 1, 0, 20)
    data = pet(datetime(2024, 2, 29, 23, 40), start, start + timedelta(minutes=5 * k))
    if not with_date:
        item = data.RadiopharmaceuticalInformationSequence[0]
        del item.RadiopharmaceuticalStartDateTime
        item.RadiopharmaceuticalStartTime = "234000"
    return data, activity(40 * 60)


def over_midnight(k, **attributes):
    """The injection and the first slice before midnight, the others after it."""
    start = datetime(2024, 2, 29, 23, 55)
    moment = start + timedelta(minutes=10 * k)
    left = activity(3600 + 600 * k) if attributes else activity(3600)
    return pet(start - timedelta(hours=1), start, moment, **attributes), left


def made_later(k, start=None):
    """A series that was made hours after the scan; `start` sets the vendor's own."""
    data = pet(start=LATER, acquired=SCAN + timedelta(seconds=(300 * k if start is None else 30 + 300 * k)))
    return (start(data) if start else data), activity(3600)


def made_later_with_reference_time(k):
    data, _, _ = of_its_frame(k)
    data.SeriesTime = stamp(LATER)[8:]
    return data, activity(3600)


PHANTOMS = {
    "BQML, START": lambda k: (pet(acquired=SCAN + timedelta(minutes=5 * k)), activity(3600)),
    "BQML, ADMIN": lambda k: (pet(DecayCorrection="ADMIN"), activity(0)),
    "BQML, NONE": lambda k: (
        pet(acquired=SCAN + timedelta(minutes=5 * k), **NONE), activity(3600 + 300 * k),
    ),
    "BQML, NONE, by the frame": not_corrected_by_its_frame,
    "BQML, NONE, by FrameReferenceTime": not_corrected_by_frame_reference_time,
    "BQML, NONE, over midnight": lambda k: over_midnight(k, **NONE),
    "CNTS, SUV factor": lambda k: (philips(pet(Units="CNTS"), suv="0.000382"), 1 / 0.000382),
    "CNTS, activity factor, START": lambda k: (
        philips(pet(Units="CNTS"), concentration="1.25"), activity(3600) / 1.25,
    ),
    "CNTS, activity factor, ADMIN": lambda k: (
        philips(pet(Units="CNTS", DecayCorrection="ADMIN"), concentration="1.25"), activity(0) / 1.25,
    ),
    "CNTS, activity factor, NONE": lambda k: (
        philips(pet(Units="CNTS", acquired=SCAN + timedelta(minutes=k), **NONE), concentration="1.25"),
        activity(3600 + 60 * k) / 1.25,
    ),
    "CNTS, both": lambda k: (philips(pet(Units="CNTS"), "0.000382", "1.25"), 1 / 0.000382),
    "CNTS, both, the SUV factor 0": lambda k: (
        philips(pet(Units="CNTS"), "0", "1.25"), activity(3600) / 1.25,
    ),
    "injected before midnight": lambda k: injected_before_midnight(k, True),
    "injected before midnight, a time without its date": lambda k: injected_before_midnight(k, False),
    "over midnight": over_midnight,
    "SeriesTime after AcquisitionTime": made_later,
    "SeriesTime after AcquisitionTime, with FrameReferenceTime": made_later_with_reference_time,
    "GE's own start": lambda k: made_later(
        k, lambda data: private(data, 0x0009, GE, 0x0D, "DT", stamp(SCAN))
    ),
    "Siemens' own start": lambda k: made_later(
        k, lambda data: private(data, 0x0071, SIEMENS, 0x22, "DT", stamp(SCAN))
    ),
}  # fmt: skip


@pytest.mark.parametrize("phantom", PHANTOMS)
def test_activity_and_counts(tmp_path, phantom):
    write(tmp_path / "pet", [PHANTOMS[phantom](k) for k in range(SLICES)])
    ingest([tmp_path / "pet"], tmp_path / "o.h5", IN_SUV, workers=1)
    assert_all_voxels_are_1(tmp_path / "o.h5")


@pytest.mark.parametrize("syntax", ["implicit", "deflated"])
@pytest.mark.parametrize(
    "phantom", ["CNTS, SUV factor", "CNTS, activity factor, START", "GE's own start", "Siemens' own start"]
)
def test_private_attributes_in_other_syntaxes(tmp_path, phantom, syntax):
    write(tmp_path / "pet", [PHANTOMS[phantom](k) for k in range(SLICES)], SYNTAXES[syntax])
    ingest([tmp_path / "pet"], tmp_path / "o.h5", IN_SUV, workers=1)
    assert_all_voxels_are_1(tmp_path / "o.h5")


@pytest.mark.parametrize(
    ("kind", "sex", "kilograms"),
    [
        (None, None, 70.0),
        ("BW", None, 70.0),
        ("LBM", "F", 1.07 * 70 - 148 * (70 / 164) ** 2),
        ("LBM", "M", 1.10 * 70 - 120 * (70 / 164) ** 2),
        ("LBMJAMES128", "F", 1.07 * 70 - 148 * (70 / 164) ** 2),
        ("LBMJAMES128", "M", 1.10 * 70 - 128 * (70 / 164) ** 2),
        ("LBMJANMA", "F", 9270 * 70 / (8780 + 244 * 70 / 1.64**2)),
        ("LBMJANMA", "M", 9270 * 70 / (6680 + 216 * 70 / 1.64**2)),
        ("IBW", "F", 45.5 + 0.91 * (164 - 152)),
        ("IBW", "M", 48.0 + 1.06 * (164 - 152)),
        ("BSA", None, 10 * 0.007184 * 70**0.425 * 164**0.725),
    ],
)
def test_what_is_an_suv_already(tmp_path, kind, sex, kilograms):
    """An SUV of 1 by body weight is one of mass / weight by another mass."""
    given = {} if kind is None else {"SUVType": kind}
    data = [pet(Units="GML", PatientSex=sex, **given, **BODY) for _ in range(SLICES)]
    write(tmp_path / "pet", [(one, kilograms / 70) for one in data])
    ingest([tmp_path / "pet"], tmp_path / "o.h5", IN_SUV, workers=1)
    assert_all_voxels_are_1(tmp_path / "o.h5")


def test_one_series_of_each_phantom_by_the_command(tmp_path, capsys):
    """All together, in two processes: every series keeps its own factors."""
    (tmp_path / "pet").mkdir()
    for n, (name, phantom) in enumerate(PHANTOMS.items()):
        made = [phantom(k) for k in range(SLICES)]
        for data, _ in made:
            data.PatientID, data.SeriesInstanceUID = name, f"1.2.3.{n + 1}"
        write(tmp_path / "pet" / str(n), made)
    options = ["--units", "suvbw", "--dtype", "float32", "--window", "none", "--size", str(SIDE)]
    command = ["ingest", str(tmp_path / "pet"), "--output", str(tmp_path / "o.h5"), "--workers", "2"]
    assert main([*command, *options]) == 0, capsys.readouterr().err
    assert_all_voxels_are_1(tmp_path / "o.h5", SLICES * len(PHANTOMS))


# --- enhanced PET ---------------------------------------------------------------------------------------


def enhanced(values, legacy=False, injected=SCAN - timedelta(hours=1), acquired=(SCAN,) * SLICES):
    """A multi-frame file of frames with these values, without what tells how they are decay corrected."""
    stored, slopes = zip(*(stored_and_slope(k, value) for k, value in enumerate(values)), strict=True)
    pixels = np.stack([np.full((SIDE, SIDE), one, np.uint16) for one in stored])
    planes = [((0.0, 0.0, 3.0 * k), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)) for k in range(len(values))]
    data = multi_frame_pet(pixels, slopes, planes, legacy=legacy)
    item = data.RadiopharmaceuticalInformationSequence[0]
    item.RadiopharmaceuticalStartDateTime = stamp(injected)
    del item.RadiopharmaceuticalStartTime
    item.RadionuclideTotalDose = "370000000"
    data.PatientWeight = str(WEIGHT)
    del data.AcquisitionDate, data.AcquisitionTime
    data.AcquisitionDateTime = stamp(min(acquired))
    for frame, moment in zip(data.PerFrameFunctionalGroupsSequence, acquired, strict=True):
        content = Dataset()
        content.FrameAcquisitionDateTime = stamp(moment)
        frame.FrameContentSequence = Sequence([content])
    return data


def of_the_enhanced_iod(data, corrected, moment=None, unit="Bq/ml"):
    """Units by a mapping of real world values, frame by frame; corrections in their own attributes."""
    for name in ("Units", "DecayCorrection", "CorrectedImage"):
        delattr(data, name)
    for frame in data.PerFrameFunctionalGroupsSequence:
        slope = frame.PixelValueTransformationSequence[0].RescaleSlope
        frame.RealWorldValueMappingSequence = mapped(slope)
        frame.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = unit
    data.DecayCorrected, data.AttenuationCorrected = corrected, "YES"
    if moment is not None:
        data.DecayCorrectionDateTime = stamp(moment)
    return data


def corrected_to_the_start():
    return of_the_enhanced_iod(enhanced([activity(3600)] * SLICES), "YES", SCAN)


def corrected_to_the_injection():
    return of_the_enhanced_iod(enhanced([activity(0)] * SLICES), "YES", SCAN - timedelta(hours=1))


def corrected_to_a_start_before_midnight():
    injected, start = datetime(2024, 2, 29, 22, 50), datetime(2024, 2, 29, 23, 50)
    frames = [start + timedelta(minutes=10 * k) for k in range(SLICES)]
    data = enhanced([activity(3600)] * SLICES, injected=injected, acquired=frames)
    data.SeriesDate, data.SeriesTime = "20240301", "003000"
    return of_the_enhanced_iod(data, "YES", start)


def frames_that_are_not_corrected():
    moments = [SCAN + timedelta(seconds=300 * k) for k in range(SLICES)]
    values = [activity(3600 + 300 * k) for k in range(SLICES)]
    data = of_the_enhanced_iod(enhanced(values, acquired=moments), "NO")
    del data.SeriesDate, data.SeriesTime
    return data


def long_frames_that_are_not_corrected():
    duration, decay = 1200.0, math.log(2) / 6586.2
    share = (1 - math.exp(-decay * duration)) / (decay * duration)  # mean activity over that at the beginning
    moments = [SCAN + timedelta(seconds=duration * k) for k in range(SLICES)]
    values = [activity(3600 + duration * k) * share for k in range(SLICES)]
    data = of_the_enhanced_iod(enhanced(values, acquired=moments), "NO")
    for frame in data.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].FrameAcquisitionDuration = 1000 * duration
    return data


def suv_by_ucum():
    return of_the_enhanced_iod(enhanced([1.0] * SLICES), "YES", SCAN, "g/ml{SUVbw}")


def converted():
    """Out of single slices: what no functional group has room for is in unassigned attributes."""
    return enhanced([activity(3600)] * SLICES, legacy=True)


def converted_without_correction():
    """What differs by slice is in the unassigned attributes of its frame, all else in the shared ones."""
    data = enhanced([activity(3600 + 420 + 60 * k) for k in range(SLICES)], legacy=True)
    shared = data.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence[0]
    shared.DecayCorrection, shared.CorrectedImage = "NONE", ["ATTN"]
    shared.RadiopharmaceuticalInformationSequence = data.RadiopharmaceuticalInformationSequence
    del data.DecayCorrection, data.CorrectedImage, data.RadiopharmaceuticalInformationSequence
    for k, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        rest = Dataset()
        rest.FrameReferenceTime = str(1000 * (420 + 60 * k))
        frame.UnassignedPerFrameConvertedAttributesSequence = Sequence([rest])
    return data


def converted_counts_of_philips():
    data = enhanced([1 / 0.000382] * SLICES, legacy=True)
    rest = data.SharedFunctionalGroupsSequence[0].UnassignedSharedConvertedAttributesSequence[0]
    rest.Units = "CNTS"
    philips(rest, suv="0.000382")
    return data


@pytest.mark.parametrize(
    "make",
    [
        corrected_to_the_start, corrected_to_the_injection, corrected_to_a_start_before_midnight,
        frames_that_are_not_corrected, long_frames_that_are_not_corrected, suv_by_ucum,
        converted, converted_without_correction, converted_counts_of_philips,
    ],
)  # fmt: skip
def test_multi_frame_files(tmp_path, make):
    (tmp_path / "pet").mkdir()
    make().save_as(tmp_path / "pet" / "all.dcm", enforce_file_format=True)
    ingest([tmp_path / "pet"], tmp_path / "o.h5", IN_SUV, workers=1)
    assert_all_voxels_are_1(tmp_path / "o.h5")


def test_the_check_sees_a_millionth(tmp_path):
    """That it can fail: one slice is off by 3e-6."""
    data = [(pet(), activity(3600) * factor) for factor in (1, 1 + 3e-6, 1)]
    write(tmp_path / "pet", data)
    ingest([tmp_path / "pet"], tmp_path / "o.h5", IN_SUV, workers=1)
    with pytest.raises(AssertionError, match="1e-06"):
        assert_all_voxels_are_1(tmp_path / "o.h5")
