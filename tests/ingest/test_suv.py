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
@pytest.mark.parametrize("minutes", [0, 3, 18])
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
    data = enhanced(RadiopharmaceuticalStartDateTime="20240229100000+0000")
    data.DecayCorrectionDateTime = "20240229120000+0100"  # which says in which zone the scan was
    assert_suv_1(activity(3600), data)


def test_an_offset_from_an_unknown_time_zone_needs_a_time_that_agrees():
    """UTC, say, where the scan is in local time: no date-time of the scan has an offset to tell."""
    with pytest.raises(InputError, match=r"TimezoneOffsetFromUTC \(0008,0201\)"):
        suv_factor(pet(RadiopharmaceuticalStartDateTime="20240229100000+0100"))
    with pytest.raises(InputError, match=r"TimezoneOffsetFromUTC \(0008,0201\)"):
        suv_factor(
            pet(
                RadiopharmaceuticalStartDateTime="20240229100000+0000",
                RadiopharmaceuticalStartTime="110000",
            )
        )
    told = {"RadiopharmaceuticalStartTime": "100000"}
    assert_suv_1(activity(7200), pet(RadiopharmaceuticalStartDateTime="20240229100000+0100", **told))


# --- when the injection was ------------------------------------------------------------------------------


def by_time_only(time, **attributes):
    return pet(RadiopharmaceuticalStartDateTime=None, RadiopharmaceuticalStartTime=time, **attributes)


INJECTION_AND_SCAN = (
    r"StartTime \(0018,1072\)\) comes after the scan \(SeriesTime \(0008,0031\), AcquisitionTime .*"
    r"10 half-lives .*--units stored"
)


@pytest.mark.parametrize("half_life", [6586.2, 4062.6])
def test_an_injection_after_the_start_is_no_injection_of_the_day_before(half_life):
    """Almost a day is 13 half-lives of F-18: it would make the SUV 5,900 times too large."""
    for time in ("120500", "133000"):
        with pytest.raises(InputError, match=INJECTION_AND_SCAN):
            suv_factor(by_time_only(time, half_life=half_life))
    with pytest.raises(InputError, match=r"StartDateTime \(0018,1078\)\) comes after the scan"):
        suv_factor(pet(SCAN - timedelta(hours=25), half_life=half_life))


def test_an_injection_after_a_series_time_of_0_is_none_of_the_day_before():
    """The scan itself is more than ten half-lives later."""
    with pytest.raises(InputError, match=INJECTION_AND_SCAN):
        suv_factor(by_time_only("110000", SeriesTime="000000", AcquisitionTime="120000"))
    with pytest.raises(InputError, match="no time of day but 0"):
        suv_factor(by_time_only("000000", SeriesTime="000000", AcquisitionTime="000000"))


@pytest.mark.parametrize(
    "half_life", [12.7 * 3600, 78.4 * 3600, 100.2 * 3600], ids=["Cu-64", "Zr-89", "I-124"]
)
def test_long_lived_nuclides_need_the_date_of_the_injection(half_life):
    """Injected three days earlier, whatever the time of day."""
    with pytest.raises(InputError, match=r"lacks RadiopharmaceuticalStartDateTime .*several days"):
        suv_factor(by_time_only("110000", half_life=half_life))
    data = pet(SCAN - timedelta(days=3), half_life=half_life)
    assert_suv_1(activity(3 * 86400, half_life), data)


@pytest.mark.parametrize("minutes", [109.77, 67.71, 20.4, 9.965, 2.04, 762])
def test_a_half_life_in_minutes(minutes):
    with pytest.raises(InputError, match=r"RadionuclideHalfLife \(0018,1075\) in minutes"):
        suv_factor(pet(SCAN - timedelta(seconds=minutes), half_life=minutes))
    assert_suv_1(activity(120, 76.4), pet(SCAN - timedelta(seconds=120), half_life=76.4))  # Rb-82
    assert_suv_1(activity(3600, 4896), pet(half_life=4896))  # I-120; of Zr-89 these are the minutes


@pytest.mark.parametrize("time_only", [True, False])
def test_an_injection_within_the_first_minute_of_a_dynamic_scan(time_only):
    """The last frame alone: its voxels are corrected to the start, 30 s before the injection."""
    injected, acquired = SCAN + timedelta(seconds=30), SCAN + timedelta(minutes=30)
    data = by_time_only("120030", acquired=acquired) if time_only else pet(injected, acquired=acquired)
    assert_suv_1(activity(-30), data)
    with pytest.raises(InputError, match="comes after the scan"):
        suv_factor(pet(SCAN + timedelta(seconds=90), acquired=acquired))
    with pytest.raises(InputError, match="comes after the scan"):
        suv_factor(pet(injected))


@pytest.mark.parametrize("text", ["2024022911", "20240229", "202402", "2024", "20240229+0100"])
def test_a_date_without_a_time_of_day_is_not_midnight(text):
    with pytest.raises(InputError, match=r"RadiopharmaceuticalStartDateTime \(0018,1078\)"):
        suv_factor(pet(RadiopharmaceuticalStartDateTime=text))
    assert suv_factor(pet(AcquisitionDateTime=text)) == suv_factor(pet())
    assert suv_factor(pet(DecayCorrection="ADMIN", DecayCorrectionDateTime=text)) == suv_factor(
        pet(DecayCorrection="ADMIN")
    )
    alone = {"AcquisitionDate": None, "AcquisitionTime": None}
    for keyword, others in (("AcquisitionDateTime", alone), ("DecayCorrectionDateTime", {})):
        with pytest.raises(InputError, match=keyword):
            suv_factor(pet(**{keyword: text}, **others))
    with pytest.raises(InputError, match=r"\(0009,100D\)"):
        suv_factor(private(pet(), 0x0009, "GEMS_PETD_01", 0x0D, "DT", text))


def test_a_date_of_the_injection_has_its_time_of_day_beside_it():
    date = {"RadiopharmaceuticalStartDateTime": "20240229"}
    assert_suv_1(activity(3600), pet(RadiopharmaceuticalStartTime="1100", **date))
    with pytest.raises(InputError, match=r"StartTime \(0018,1072\) without minutes"):
        suv_factor(pet(RadiopharmaceuticalStartTime="11", **date))


def test_frames_have_times_of_their_own():
    """AcquisitionDateTime of the whole file is the first frame's."""
    data = enhanced(decay="NO", moment=None)
    content = Dataset()
    content.FrameAcquisitionDateTime = stamp(SCAN + timedelta(minutes=20))
    content.FrameAcquisitionDuration = 0.0
    frame = Dataset()
    frame.FrameContentSequence = Sequence([content])
    data.FrameAcquisitionDuration = 0.0
    data.PerFrameFunctionalGroupsSequence = Sequence([frame])
    assert_suv_1(activity(3600 + 1200), data)


def test_a_frame_reference_time_of_0_is_none():
    at = pet(acquired=SCAN + timedelta(minutes=20), FrameReferenceTime="0", **NONE)
    assert_suv_1(activity(3600 + 1200), at)


def test_every_slice_has_to_say_when_it_was_acquired():
    silent = pet(AcquisitionTime=None)
    with pytest.raises(InputError, match=r"AcquisitionTime \(0008,0032\)"):
        suv_factor([pet(), silent])


def test_a_decay_correction_date_time_beside_a_decay_correction():
    """START is a moment from SeriesTime on that no acquisition comes before."""
    within = pet(
        acquired=SCAN + timedelta(minutes=5), DecayCorrectionDateTime=stamp(SCAN + timedelta(minutes=4))
    )
    assert_suv_1(activity(3600 + 240), within)
    later = pet(start=LATER, acquired=SCAN, DecayCorrectionDateTime=stamp(SCAN - timedelta(minutes=5)))
    assert_suv_1(activity(3600 - 300), later)
    for minutes in (-60, 10):
        moment = stamp(SCAN + timedelta(minutes=minutes))
        with pytest.raises(InputError, match=r"DecayCorrectionDateTime .*SeriesTime .*DecayCorrection "):
            suv_factor(pet(DecayCorrectionDateTime=moment))


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
    for units in ("GML", "CM2ML") if kind == "BSA" else ("GML",):
        assert_suv_1(kilograms / 70, pet(Units=units, PatientSex=sex, **given, **BODY))


def test_an_suv_by_surface_is_in_cm2_per_ml():
    """Surface in cm2 * activity / dose, over weight in g * activity / dose."""
    surface_cm2 = 71.84 * 70**0.425 * 164**0.725
    assert_suv_1(surface_cm2 / 70_000, pet(Units="CM2ML", **BODY))
    for kind in ("BW", "LBM"):
        with pytest.raises(InputError, match=r"Units \(0054,1001\) and SUVType \(0054,1006\)"):
            suv_factor(pet(Units="CM2ML", SUVType=kind, PatientSex="F", **BODY))


def test_the_body_does_not_matter_to_what_is_in_suv_already():
    others = {"PatientSize": "1.9", "PatientSex": "M", "PatientWeight": "80", "SeriesTime": "130000"}
    for keyword, value in others.items():
        assert suv_factor([pet(Units="GML"), pet(Units="GML", **{keyword: value})]) == 1
    assert suv_factor([pet(), pet(PatientSize="1.9", PatientSex="M")]) == suv_factor(pet())


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
        ({"RadionuclideTotalDose": "370000"}, "RadionuclideTotalDose (0018,1074) below 1e+06 Bq"),
        ({"PatientWeight": "72500"}, "PatientWeight (0010,1030) that is not between 0.5 and 500 kg"),
        ({"PatientWeight": "0.07"}, "PatientWeight (0010,1030) that is not between 0.5 and 500 kg"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSex": "F", "PatientSize": "164"}, "0.3 and 2.5 m"),
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
        {"CorrectedImage": ["ATTN", "DECY", "SCAT"]}, {"DecayCorrectionDateTime": "20240229115900"},
    ],
)  # fmt: skip
def test_a_series_that_contradicts_itself(attribute):
    with pytest.raises(InputError, match="differs within the series"):
        suv_factor([pet(), pet(**attribute)])


@pytest.mark.parametrize("attribute", [{"PatientSize": "1.9"}, {"PatientSex": "M"}, {"PatientWeight": "80"}])
def test_a_series_of_several_bodies(attribute):
    slices = [
        pet(Units="GML", SUVType="LBM", **{"PatientSex": "F", **BODY, **given}) for given in ({}, attribute)
    ]
    with pytest.raises(InputError, match="differs within the series"):
        suv_factor(slices)


SUV_ALREADY = {
    "GML": lambda **given: pet(Units="GML", **given),
    "CM2ML": lambda **given: pet(Units="CM2ML", **BODY, **given),
    "CNTS": lambda **given: private(
        pet(Units="CNTS", **given), 0x7053, "Philips PET Private Group", 0x00, "DS", "0.5"
    ),
}


@pytest.mark.parametrize("units", SUV_ALREADY)
@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"CorrectedImage": ["DECY"]}, "attenuation"),
        ({"CorrectedImage": ["ATTN"]}, "CorrectedImage (0028,0051)"),
        ({"CorrectedImage": ["ATTN"], "DecayCorrection": None}, "CorrectedImage (0028,0051)"),
        ({"CorrectedImage": ["ATTN"], "DecayCorrection": "NONE"}, "DecayCorrection (0054,1102)"),
        ({"CorrectedImage": None, "DecayCorrection": "NONE"}, "DecayCorrection (0054,1102)"),
        ({"DecayCorrection": "NONE"}, "CorrectedImage (0028,0051)"),
        ({"DecayCorrection": "SOMETIMES"}, "DecayCorrection (0054,1102)"),
    ],
)  # fmt: skip
def test_what_is_an_suv_already_is_corrected_too(units, attributes, words):
    make = SUV_ALREADY[units]
    suv_factor(make())
    with pytest.raises(InputError) as caught:
        suv_factor(make(**attributes))
    assert words in str(caught.value)


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


def mapped(slope, intercept="0", code="Bq/ml"):
    """Units by a mapping of real world values, as enhanced PET has them."""
    unit, item = Dataset(), Dataset()
    setattr(unit, "CodeValue" if len(code) <= 16 else "LongCodeValue", code)
    item.MeasurementUnitsCodeSequence = Sequence([unit])
    item.RealWorldValueSlope, item.RealWorldValueIntercept = float(slope), float(intercept)
    return Sequence([item])


def test_a_mapping_of_other_values_than_the_rescaled_ones_gives_no_units():
    same = pet(Units=None, RescaleSlope="2.5", RealWorldValueMappingSequence=mapped("2.5"))
    assert_suv_1(activity(3600), same)
    for mapping, words in ((mapped("5"), "RealWorldValueSlope"), (mapped("2.5", "3"), "Intercept")):
        with pytest.raises(InputError, match=words):
            suv_factor(pet(Units=None, RescaleSlope="2.5", RealWorldValueMappingSequence=mapping))


@pytest.mark.parametrize("where", ["top", "frame"])
def test_of_several_mappings_the_one_that_is_the_rescaling_counts(where):
    both = Sequence([mapped("0.001", code="g/ml{SUVbw}")[0], mapped("2.5")[0]])
    data = enhanced(RescaleSlope="2.5")
    if where == "top":
        data.RealWorldValueMappingSequence = both
    else:
        del data.RealWorldValueMappingSequence
        group = Dataset()
        group.RealWorldValueMappingSequence = both
        data.PerFrameFunctionalGroupsSequence = Sequence([group])
    assert_suv_1(activity(3600), data)
    both[0].RealWorldValueSlope = 2.5
    with pytest.raises(InputError, match=r"RealWorldValueMappingSequence \(0040,9096\) has several units"):
        suv_factor(data)


def test_the_codes_of_units_are_those_of_dicom():
    from pydicom.sr.codedict import codes

    kinds = {
        "BodyWeight": "BW", "LeanBodyMassJames": "LBM", "LeanBodyMassJames128Multiplier": "LBMJAMES128",
        "LeanBodyMassJanma": "LBMJANMA", "IdealBodyWeight": "IBW", "BodySurfaceArea": "BSA",
    }  # fmt: skip
    assert len(kinds) == len(codes.cid85.dir())
    for name, kind in kinds.items():
        code = getattr(codes.cid85, f"StandardizedUptakeValue{name}").value
        data = pet(Units=None, RealWorldValueMappingSequence=mapped("1", code=code), PatientSex="F", **BODY)
        said = pet(Units="CM2ML" if kind == "BSA" else "GML", SUVType=kind, PatientSex="F", **BODY)
        assert suv_factor(data) == suv_factor(said)
    with pytest.raises(InputError, match=r"MeasurementUnitsCodeSequence .* has none of Bq/ml"):
        suv_factor(pet(Units=None, RealWorldValueMappingSequence=mapped("1", code="ml/g")))


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
    from pydicom.sr._snomed_dict import mapping
    from pydicom.sr.codedict import codes

    elements = {
        "F": "Fluorine",
        "Ga": "Gallium",
        "C": "Carbon",
        "N": "Nitrogen",
        "O": "Oxygen",
        "Rb": "Rubidium",
        "Cu": "Copper",
        "Zr": "Zirconium",
        "I": "Iodine",
    }
    for code, nuclide in NUCLIDES.items():
        element, mass = nuclide.split("-")
        known = getattr(codes.cid4020, f"_{mass}{elements[element]}")
        assert (code if code.isdigit() else mapping["SRT"][code]) == known.value
    assert set(NUCLIDES.values()) == set(HALF_LIVES_OF_PETGAN)
