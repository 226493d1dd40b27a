"""SUV of uniform phantoms is 1: activity is made from the definition, and has to be found again."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ingest.conftest import dicom_dataset
from petgan.errors import InputError
from petgan.ingest.dicom import suv_factor
from petgan.ingest.suv import HALF_LIVES as HALF_LIVES_OF_PETGAN
from petgan.ingest.suv import NUCLIDES

HALF_LIVES = {
    "F-18": 6586.2,
    "Ga-68": 4062.6,
    "C-11": 1223.4,
    "N-13": 597.9,
    "O-15": 122.24,
    "Cu-64": 45721.0,
}
DOSE, WEIGHT = 3.7e8, 72.5
SCAN = datetime(2024, 2, 29, 12, 0, 0)
RAMP = np.arange(16, dtype=np.uint16).reshape(4, 4)


def stamp(moment):
    return moment.strftime("%Y%m%d%H%M%S.%f")


def pet(injected=SCAN - timedelta(hours=1), start=SCAN, acquired=None, half_life=6586.2, **attributes):
    """One slice of a series; keyword arguments set attributes, None removes them."""
    acquired = acquired or start
    data = dicom_dataset(RAMP)
    item = Dataset()
    item.RadiopharmaceuticalStartDateTime = stamp(injected)
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = str(DOSE), str(half_life)
    data.RadiopharmaceuticalInformationSequence = Sequence([item])
    data.PatientWeight = str(WEIGHT)
    data.SeriesDate, data.SeriesTime = stamp(start)[:8], stamp(start)[8:]
    data.AcquisitionDate, data.AcquisitionTime = stamp(acquired)[:8], stamp(acquired)[8:]
    for name, value in attributes.items():
        target = item if name in ITEM else data
        if value is None:
            delattr(target, name)
        else:
            setattr(target, name, value)
    return data


ITEM = (
    "RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime", "RadionuclideTotalDose",
    "RadionuclideHalfLife", "RadionuclideCodeSequence",
)  # fmt: skip


def activity(seconds, half_life=6586.2):
    """Bq/ml of SUV 1, so long after the injection."""
    return DOSE * 2 ** (-seconds / half_life) / (1000 * WEIGHT)


def private(data, group, creator, element, vr, value):
    data.private_block(group, creator, create=True).add_new(element, vr, value)
    return data


def assert_suv_1(value, series):
    assert value * suv_factor(series) == pytest.approx(1, abs=1e-6)


# --- activity concentration -----------------------------------------------------------------------------


@pytest.mark.parametrize("half_life", HALF_LIVES.values(), ids=HALF_LIVES)
@pytest.mark.parametrize("minutes", [0, 3, 25])
def test_start(half_life, minutes):
    data = pet(SCAN - timedelta(minutes=minutes), half_life=half_life)
    assert_suv_1(activity(60 * minutes, half_life), data)


def test_admin():
    assert_suv_1(activity(0), pet(DecayCorrection="ADMIN"))


NONE = {"DecayCorrection": "NONE", "CorrectedImage": ["ATTN"]}


def test_none_is_decayed_to_the_time_of_the_slice():
    assert_suv_1(activity(3600 + 700), pet(acquired=SCAN + timedelta(seconds=700), **NONE))
    at = pet(acquired=SCAN + timedelta(seconds=600), FrameReferenceTime="700000", **NONE)
    assert_suv_1(activity(3600 + 700), at)


def test_none_of_a_long_frame_is_its_mean_activity():
    """By numerical integration over the frame."""
    seconds = np.linspace(600, 1800, 200_001)
    mean = float(np.mean(activity(3600 + seconds)))
    frame = pet(acquired=SCAN + timedelta(seconds=600), ActualFrameDuration="1200000", **NONE)
    assert mean * suv_factor(frame) == pytest.approx(1, abs=1e-5)


def test_none_has_a_factor_for_each_time():
    slices = [pet(acquired=SCAN + timedelta(seconds=s), **NONE) for s in (0, 60)]
    with pytest.raises(InputError, match="a factor of its own"):
        suv_factor(slices)
    assert suv_factor(slices[1]) / suv_factor(slices[0]) == pytest.approx(2 ** (60 / 6586.2))


@pytest.mark.parametrize("with_date", [True, False])
def test_an_injection_before_midnight(with_date):
    start = datetime(2024, 3, 1, 0, 20)
    data = pet(datetime(2024, 2, 29, 23, 40), start)
    if not with_date:
        item = data.RadiopharmaceuticalInformationSequence[0]
        del item.RadiopharmaceuticalStartDateTime
        item.RadiopharmaceuticalStartTime = "234000"
    assert_suv_1(activity(40 * 60), data)


def test_an_acquisition_over_midnight():
    start = datetime(2024, 2, 29, 23, 50)
    slices = [pet(start - timedelta(hours=1), start, start + timedelta(minutes=m)) for m in (20, 0, 10)]
    assert_suv_1(activity(3600), slices)


def test_time_zones():
    data = pet(RadiopharmaceuticalStartDateTime="20240229100000+0000", TimezoneOffsetFromUTC="+0100")
    assert_suv_1(activity(3600), data)
    assert_suv_1(activity(7200), pet(RadiopharmaceuticalStartDateTime="20240229100000+0100"))


# --- a series that was made later -----------------------------------------------------------------------

LATER = SCAN + timedelta(hours=3)


def test_a_later_series_time_gives_way_to_ge_s_own_start():
    data = pet(start=LATER, acquired=SCAN + timedelta(seconds=30))
    assert_suv_1(activity(3600), private(data, 0x0009, "GEMS_PETD_01", 0x0D, "DT", stamp(SCAN)))


def test_a_later_series_time_gives_way_to_siemens_own_start():
    data = pet(start=LATER, acquired=SCAN + timedelta(seconds=30))
    assert_suv_1(activity(3600), private(data, 0x0071, "SIEMENS MED PT", 0x22, "DT", stamp(SCAN)))


def test_a_later_series_time_gives_way_to_what_the_frame_s_reference_time_says():
    """The second bed position: its mean activity is FrameReferenceTime after the start."""
    duration, begun = 240.0, 300.0
    decay = math.log(2) / 6586.2
    mean = math.log(decay * duration / (1 - math.exp(-decay * duration))) / decay
    data = pet(
        start=LATER, acquired=SCAN + timedelta(seconds=begun), ActualFrameDuration=str(int(1000 * duration)),
        FrameReferenceTime=f"{1000 * (begun + mean):.6f}",
    )  # fmt: skip
    assert_suv_1(activity(3600), data)


@pytest.mark.parametrize("reference", [None, "0"])
def test_a_later_series_time_gives_way_to_the_earliest_acquisition(reference):
    given = {} if reference is None else {"FrameReferenceTime": reference, "ActualFrameDuration": "240000"}
    acquired = (SCAN + timedelta(minutes=m) for m in (8, 0, 4))
    assert_suv_1(activity(3600), [pet(start=LATER, acquired=moment, **given) for moment in acquired])


def test_a_private_start_of_zero_is_none():
    data = pet(start=LATER, acquired=SCAN)
    assert_suv_1(activity(3600), private(data, 0x0009, "GEMS_PETD_01", 0x0D, "LO", "0"))


# --- counts, and what is an SUV already -----------------------------------------------------------------


def test_philips_suv_factor():
    data = private(pet(Units="CNTS"), 0x7053, "Philips PET Private Group", 0x00, "DS", "0.000382")
    assert_suv_1(1 / 0.000382, data)


def test_philips_activity_factor():
    data = private(pet(Units="CNTS"), 0x7053, "Philips PET Private Group", 0x09, "DS", "1.25")
    assert_suv_1(activity(3600) / 1.25, data)


def test_of_both_the_suv_factor_counts_unless_it_is_0():
    for suv, expected in (("0.5", 2.0), ("0", activity(3600) / 1.25)):
        data = private(pet(Units="CNTS"), 0x7053, "Philips PET Private Group", 0x00, "DS", suv)
        assert_suv_1(expected, private(data, 0x7053, "Philips PET Private Group", 0x09, "DS", "1.25"))


BODY = {"PatientSize": "1.64", "PatientWeight": "70"}


@pytest.mark.parametrize(
    ("kind", "sex", "kilograms"),
    [
        (None, "F", 70.0),
        ("BW", "F", 70.0),
        ("LBM", "F", 1.07 * 70 - 148 * (70 / 164) ** 2),
        ("LBM", "M", 1.10 * 70 - 120 * (70 / 164) ** 2),
        ("LBMJAMES128", "M", 1.10 * 70 - 128 * (70 / 164) ** 2),
        ("LBMJANMA", "F", 9270 * 70 / (8780 + 244 * 70 / 1.64**2)),
        ("LBMJANMA", "M", 9270 * 70 / (6680 + 216 * 70 / 1.64**2)),
        ("IBW", "F", 45.5 + 0.91 * (164 - 152)),
        ("IBW", "M", 48.0 + 1.06 * (164 - 152)),
        ("BSA", "F", 10 * 0.007184 * 70**0.425 * 164**0.725),  # 1000 cm2 in the place of kg
    ],
)
def test_an_suv_by_another_measure_of_the_body(kind, sex, kilograms):
    given = {} if kind is None else {"SUVType": kind}
    assert_suv_1(kilograms / 70, pet(Units="GML", PatientSex=sex, **given, **BODY))


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Units": None}, "Units (0054,1001)"),
        ({"Units": "PROPCPS"}, "Units (0054,1001)"),
        ({"Units": "CNTS"}, "(7053,1000)"),
        ({"PatientWeight": None}, "PatientWeight (0010,1030)"),
        ({"PatientWeight": ""}, "PatientWeight (0010,1030)"),
        ({"PatientWeight": "0"}, "PatientWeight (0010,1030)"),
        ({"RadiopharmaceuticalInformationSequence": None}, "InformationSequence (0054,0016)"),
        ({"RadiopharmaceuticalInformationSequence": Sequence([Dataset(), Dataset()])}, "several items"),
        ({"RadionuclideTotalDose": None}, "RadionuclideTotalDose (0018,1074)"),
        ({"RadionuclideTotalDose": "370"}, "MBq"),
        ({"RadionuclideHalfLife": None}, "RadionuclideHalfLife (0018,1075)"),
        ({"RadionuclideHalfLife": "0"}, "RadionuclideHalfLife (0018,1075)"),
        ({"RadiopharmaceuticalStartDateTime": None}, "RadiopharmaceuticalStartDateTime (0018,1078)"),
        ({"RadiopharmaceuticalStartTime": "093000"}, "RadiopharmaceuticalStartTime (0018,1072)"),
        ({"DecayCorrection": None}, "DecayCorrection (0054,1102)"),
        ({"DecayCorrection": "SOMETIMES"}, "DecayCorrection (0054,1102)"),
        ({"CorrectedImage": ["ATTN"]}, "CorrectedImage (0028,0051)"),
        ({"DecayCorrection": "NONE"}, "CorrectedImage (0028,0051)"),
        ({"CorrectedImage": ["DECY"]}, "attenuation"),
        ({"SeriesDate": None}, "SeriesDate (0008,0021)"),
        ({"SeriesTime": None}, "SeriesTime (0008,0031)"),
        ({"AcquisitionDate": None}, "AcquisitionDate (0008,0022)"),
        ({"AcquisitionTime": None}, "AcquisitionTime (0008,0032)"),
        ({"injected": SCAN + timedelta(minutes=1)}, "comes after the scan"),
        ({"injected": SCAN - timedelta(days=30)}, "half-lives"),
        ({"Units": "GML", "SUVType": "HEIGHT"}, "SUVType (0054,1006)"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSize": None}, "PatientSize (0010,1020)"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSex": "O"}, "PatientSex (0010,0040)"),
        ({"Units": "GML", "SUVType": "LBM", "PatientWeight": None}, "PatientWeight (0010,1030)"),
    ],
)  # fmt: skip
def test_what_is_missing_or_contradicts_itself_is_named(attributes, words):
    with pytest.raises(InputError) as caught:
        suv_factor(pet(**attributes))
    assert words in str(caught.value)
    assert "--units stored" in str(caught.value)


def test_the_half_life_of_another_nuclide():
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "77004003", "SCT"
    with pytest.raises(InputError, match=r"RadionuclideHalfLife .* RadionuclideCodeSequence"):
        suv_factor(pet(half_life=1223.4, RadionuclideCodeSequence=Sequence([code])))
    assert_suv_1(activity(3600), pet(RadionuclideCodeSequence=Sequence([code])))


@pytest.mark.parametrize(
    "attribute",
    [
        {"PatientWeight": "80"}, {"Units": "CNTS"}, {"RadionuclideTotalDose": "3e8"},
        {"CorrectedImage": ["ATTN", "DECY", "SCAT"]}, {"PatientSize": "1.9"}, {"PatientSex": "M"},
        {"DecayCorrectionDateTime": "20240229115900"},
    ],
)  # fmt: skip
def test_a_series_that_contradicts_itself(attribute):
    with pytest.raises(InputError, match="differs within the series"):
        suv_factor([pet(), pet(**attribute)])


@pytest.mark.parametrize("element", [0x00, 0x09])
@pytest.mark.parametrize("order", [1, -1])
def test_philips_factors_that_differ_within_a_series(element, order):
    slices = [
        private(pet(Units="CNTS"), 0x7053, "Philips PET Private Group", element, "DS", factor)
        for factor in ("0.5", "0.6")
    ]
    with pytest.raises(InputError, match=rf"\(7053,10{element:02X}\) differs within the series"):
        suv_factor(slices[::order])


def enhanced(decay="YES", attenuation="YES", moment=SCAN, acquired=SCAN, **attributes):
    """With the attributes of the Enhanced PET IOD, which lacks those of the older one."""
    data = pet(DecayCorrection=None, CorrectedImage=None, Units=None, **attributes)
    del data.AcquisitionDate, data.AcquisitionTime, data.SeriesDate, data.SeriesTime
    data.RealWorldValueMappingSequence = mapped("1")
    data.DecayCorrected, data.AttenuationCorrected = decay, attenuation
    data.AcquisitionDateTime, data.FrameAcquisitionDuration = stamp(acquired), 600_000.0
    if moment is not None:
        data.DecayCorrectionDateTime = stamp(moment)
    return data


@pytest.mark.parametrize("seconds", [-3600, 0, 1500])
def test_enhanced_pet_says_to_which_moment_it_is_corrected(seconds):
    moment = SCAN + timedelta(seconds=seconds)  # an hour earlier is the injection, as ADMIN has it
    assert_suv_1(activity(3600 + seconds), enhanced(moment=moment))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"moment": None}, "DecayCorrectionDateTime (0018,9701)"),
        ({"decay": "MAYBE"}, "DecayCorrection (0054,1102)"),
        ({"attenuation": "NO"}, "attenuation"),
    ],
)
def test_what_enhanced_pet_lacks_is_named(attributes, words):
    with pytest.raises(InputError) as caught:
        suv_factor(enhanced(**attributes))
    assert words in str(caught.value)


def mapped(slope, intercept="0"):
    """Units by a mapping of real world values, as enhanced PET has them."""
    unit, item = Dataset(), Dataset()
    unit.CodeValue = "Bq/ml"
    item.MeasurementUnitsCodeSequence = Sequence([unit])
    item.RealWorldValueSlope, item.RealWorldValueIntercept = float(slope), float(intercept)
    return Sequence([item])


def test_a_mapping_of_other_values_than_the_rescaled_ones_gives_no_units():
    same = pet(Units=None, RescaleSlope="2.5", RealWorldValueMappingSequence=mapped("2.5"))
    assert_suv_1(activity(3600), same)
    for mapping, words in ((mapped("5"), "RealWorldValueSlope"), (mapped("2.5", "3"), "Intercept")):
        with pytest.raises(InputError, match=words):
            suv_factor(pet(Units=None, RescaleSlope="2.5", RealWorldValueMappingSequence=mapping))


def test_slices_of_several_series():
    with pytest.raises(InputError, match="SeriesInstanceUID"):
        suv_factor([pet(), pet(SeriesInstanceUID="1.2.3")])
    with pytest.raises(InputError, match="without slices"):
        suv_factor([])


def test_a_phantom_of_petgan(tmp_path):
    """Its own writer, which knows nothing of this reader: the factor by hand."""
    from petgan.phantom import make_phantom

    make_phantom(tmp_path, "pet", patients=1, size=32, seed=0)
    slices = [dcmread(path) for path in sorted(tmp_path.rglob("*.dcm"))]
    (item,) = slices[0].RadiopharmaceuticalInformationSequence
    assert len(slices) > 1
    start = datetime.strptime(slices[0].SeriesDate + slices[0].SeriesTime, "%Y%m%d%H%M%S")
    injected = datetime.strptime(item.RadiopharmaceuticalStartDateTime, "%Y%m%d%H%M%S")
    seconds = (start - injected).total_seconds()
    left = float(item.RadionuclideTotalDose) * math.exp(
        -math.log(2) * seconds / float(item.RadionuclideHalfLife)
    )
    assert suv_factor(slices) == pytest.approx(1000 * float(slices[0].PatientWeight) / left, rel=1e-9)


def test_the_codes_of_nuclides_are_those_of_dicom():
    from pydicom.sr.codedict import codes

    elements = {"F": "Fluorine", "Ga": "Gallium", "C": "Carbon", "N": "Nitrogen", "O": "Oxygen"}
    for code, nuclide in NUCLIDES.items():
        element, mass = nuclide.split("-")
        known = getattr(codes.cid4020, f"_{mass}{elements[element]}")
        assert code == known.value or not code.isdigit()
    assert set(NUCLIDES.values()) == set(HALF_LIVES_OF_PETGAN)
