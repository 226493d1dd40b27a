"""What SUV needs and a header lacks is named by keyword and tag, with the way to go on without SUV.

Branch by branch of `petgan.ingest.dicom.suv_factor`: for each way to SUV, each attribute on that way is left
out, alone; and those that are not on it are left out all together, and nobody misses them.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ingest.conftest import dicom_dataset
from ingest.test_suv import BODY, LATER, NONE, RAMP, SCAN, enhanced, pet, private, stamp
from petgan.errors import InputError
from petgan.ingest import Options, ingest, make_plan
from petgan.ingest.dicom import suv_factor

PHILIPS = "Philips PET Private Group"
MASSES = ("LBM", "LBMJAMES128", "LBMJANMA", "IBW", "BSA")


def named(keyword):
    number = tag_for_keyword(keyword)
    return f"{keyword} ({number >> 16:04X},{number & 0xFFFF:04X})"


def without(data, keyword):
    """Leave an attribute out of a slice, wherever it stands."""
    item = (data.get("RadiopharmaceuticalInformationSequence") or [Dataset()])[0]
    for place in (item, data):
        if keyword in place:
            delattr(place, keyword)
            return data
    raise AssertionError(f"the slice has no {keyword}")


def empty(data, keyword):
    """Type 2: there, and without a value."""
    item = (data.get("RadiopharmaceuticalInformationSequence") or [Dataset()])[0]
    setattr(item if keyword in item else data, keyword, "" if not keyword.endswith("Sequence") else None)
    return data


def counts(**attributes):
    """Philips' counts, with the factor that leads to Bq/ml."""
    return private(pet(Units="CNTS", **attributes), 0x7053, PHILIPS, 0x09, "DS", "1.25")


def by_suv_factor():
    return private(pet(Units="CNTS"), 0x7053, PHILIPS, 0x00, "DS", "0.000382")


def suv_by(kind, sex="F"):
    return pet(Units="CM2ML" if kind == "BSA" else "GML", SUVType=kind, PatientSex=sex, **BODY)


def by_reference(**attributes):
    return pet(acquired=SCAN + timedelta(minutes=5), FrameReferenceTime="600000", **NONE, **attributes)


def assert_refused(series, *words):
    with pytest.raises(InputError) as caught:
        suv_factor(series)
    said = str(caught.value)
    for word in (*words, "--units stored"):
        assert word in said
    assert "\n" not in said


DOSE = ["PatientWeight", "RadiopharmaceuticalInformationSequence", "RadionuclideTotalDose", "DecayCorrection"]
DECAY = ["RadionuclideHalfLife", "RadiopharmaceuticalStartDateTime"]
TIMES = ["SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"]
WAYS = {
    "BQML, START": (pet, ["Units", *DOSE, *DECAY, *TIMES]),
    "BQML, ADMIN": (lambda: pet(DecayCorrection="ADMIN"), ["Units", *DOSE]),
    "BQML, NONE": (lambda: pet(**NONE), ["Units", *DOSE, *DECAY, *TIMES[2:]]),
    "BQML, NONE, by FrameReferenceTime": (by_reference, ["Units", *DOSE, *DECAY, *TIMES]),
    "CNTS, activity factor, START": (counts, ["Units", *DOSE, *DECAY, *TIMES]),
    "CNTS, activity factor, ADMIN": (lambda: counts(DecayCorrection="ADMIN"), ["Units", *DOSE]),
    "CNTS, activity factor, NONE": (lambda: counts(**NONE), ["Units", *DOSE, *DECAY, *TIMES[2:]]),
    "CNTS, SUV factor": (by_suv_factor, ["Units"]),
    "GML": (lambda: pet(Units="GML"), ["Units"]),
    **{
        f"GML, {kind}": (
            lambda kind=kind: suv_by(kind),
            ["Units", "PatientWeight", "PatientSize", *(["PatientSex"] if kind != "BSA" else [])],
        )
        for kind in MASSES
    },
}
NEEDS = [(way, keyword) for way, (_, keywords) in WAYS.items() for keyword in keywords]


@pytest.mark.parametrize("leave", [without, empty])
@pytest.mark.parametrize(("way", "keyword"), NEEDS)
def test_each_attribute_on_a_way_to_suv(way, keyword, leave):
    make, _ = WAYS[way]
    suv_factor(make())
    assert_refused(leave(make(), keyword), "lacks", named(keyword))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_on_the_way_is_not_missed(way):
    make, needed = WAYS[way]
    expected = suv_factor(make())
    data = make()
    left = {"PatientWeight", "PatientSize", "PatientSex", "CorrectedImage", *DOSE, *DECAY, *TIMES} - {*needed}
    for keyword in sorted(left, reverse=True):
        if keyword in data or keyword in data.RadiopharmaceuticalInformationSequence[0]:
            without(data, keyword)
        if "RadiopharmaceuticalInformationSequence" not in data:
            data.RadiopharmaceuticalInformationSequence = Sequence([Dataset()])
    if "RadiopharmaceuticalInformationSequence" in left:
        del data.RadiopharmaceuticalInformationSequence
    assert suv_factor(data) == expected


def test_an_injection_without_any_time_names_both_attributes():
    assert_refused(
        pet(RadiopharmaceuticalStartDateTime=None),
        named("RadiopharmaceuticalStartDateTime"), named("RadiopharmaceuticalStartTime"),
    )  # fmt: skip


def test_counts_without_a_factor_name_both():
    for data in (pet(Units="CNTS"), private(pet(Units="CNTS"), 0x7053, PHILIPS, 0x00, "DS", "0")):
        assert_refused(data, "(7053,1000)", "(7053,1009)")
    other = private(pet(Units="CNTS"), 0x7053, "Somebody's own group", 0x00, "DS", "0.5")
    assert_refused(other, "(7053,1000)")


def test_a_sequence_without_items_is_none():
    data = pet(RadiopharmaceuticalInformationSequence=Sequence([]))
    assert_refused(data, "lacks", named("RadiopharmaceuticalInformationSequence"))


def test_one_slice_of_several_that_are_not_corrected_lacks_its_time():
    first = pet(**NONE)
    for keyword in ("AcquisitionDate", "AcquisitionTime"):
        late = pet(acquired=SCAN + timedelta(minutes=5), **NONE)
        assert_refused([first, without(late, keyword)], "lacks", named(keyword))


def test_a_vendor_s_start_does_not_stand_for_series_time():
    data = private(pet(SeriesTime=None), 0x0009, "GEMS_PETD_01", 0x0D, "DT", stamp(SCAN))
    assert_refused(data, named("SeriesTime"))


@pytest.mark.parametrize("sex", ["O", "", "FEMALE"])
@pytest.mark.parametrize("kind", MASSES)
def test_a_sex_that_is_neither(kind, sex):
    if kind == "BSA":
        assert suv_factor(suv_by(kind, sex)) == suv_factor(suv_by(kind))
    else:
        assert_refused(suv_by(kind, sex), named("PatientSex"))


@pytest.mark.parametrize("keyword", ["PatientSize", "PatientWeight"])
@pytest.mark.parametrize("kind", MASSES)
def test_a_body_without_extent(kind, keyword):
    for value in ("0", "-1"):
        data = suv_by(kind)
        setattr(data, keyword, value)
        assert_refused(data, named(keyword))


@pytest.mark.parametrize(
    ("kind", "sex", "size", "weight"), [("LBM", "F", "1.00", "170"), ("IBW", "M", "0.50", "9")]
)
def test_a_body_that_has_no_such_mass(kind, sex, size, weight):
    data = suv_by(kind, sex)
    data.PatientSize, data.PatientWeight = size, weight
    assert_refused(data, named("PatientWeight"), named("PatientSize"))


@pytest.mark.parametrize("attribute", ["RadionuclideTotalDose", "RadionuclideHalfLife", "PatientWeight"])
@pytest.mark.parametrize("value", ["0", "-5"])
def test_what_has_to_be_above_0(attribute, value):
    assert_refused(pet(**{attribute: value}), named(attribute))


# --- enhanced PET ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keyword",
    [
        "PatientWeight",
        "RadiopharmaceuticalInformationSequence",
        "RadionuclideTotalDose",
        "RadionuclideHalfLife",
        "RadiopharmaceuticalStartDateTime",
        "DecayCorrectionDateTime",
    ],
)
def test_each_attribute_that_enhanced_pet_needs(keyword):
    assert_refused(without(enhanced(), keyword), "lacks", named(keyword))


def test_enhanced_pet_that_does_not_say_whether_it_is_corrected():
    data = enhanced()
    del data.DecayCorrected
    assert_refused(data, named("DecayCorrection"))


def test_enhanced_pet_without_units():
    data = enhanced()
    data.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0].CodeValue = "Bq"
    assert_refused(data, named("Units"))
    del data.RealWorldValueMappingSequence
    assert_refused(data, named("Units"))


# --- what cannot be read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keyword",
    ["PatientWeight", "PatientSize", "RadionuclideTotalDose", "RadionuclideHalfLife", "FrameReferenceTime",
     "ActualFrameDuration", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime",
     "AcquisitionDateTime", "DecayCorrectionDateTime", "RadiopharmaceuticalStartDateTime",
     "RadiopharmaceuticalStartTime", "TimezoneOffsetFromUTC"],
)  # fmt: skip
def test_what_is_no_number_date_or_time_is_not_quoted(keyword):
    data = pet()
    item = data.RadiopharmaceuticalInformationSequence[0]
    target = item if keyword.startswith("Radio") else data
    target.add_new(tag_for_keyword(keyword), "LO", "Doe^Jane")
    assert_refused(data, named(keyword))
    with pytest.raises(InputError) as caught:
        suv_factor(data)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("group", "creator", "element", "name"),
    [
        (0x7053, PHILIPS, 0x00, "(7053,1000)"),
        (0x7053, PHILIPS, 0x09, "(7053,1009)"),
        (0x0009, "GEMS_PETD_01", 0x0D, "(0009,100D)"),
        (0x0071, "SIEMENS MED PT", 0x22, "(0071,1022)"),
    ],
)
def test_private_values_that_cannot_be_read(group, creator, element, name):
    data = pet(start=LATER, acquired=SCAN, Units="CNTS" if group == 0x7053 else "BQML")
    assert_refused(private(data, group, creator, element, "LO", "Doe^Jane"), name)


def given(keyword, value):
    def make():
        return pet(**{keyword: value})

    return make


@pytest.mark.parametrize(
    ("keyword", "make", "other"),
    [
        ("SUVType", lambda: suv_by("LBM"), lambda: suv_by("BW")),
        ("DecayCorrection", pet, given("DecayCorrection", "ADMIN")),
        ("RadionuclideHalfLife", pet, given("RadionuclideHalfLife", "6600")),
        ("RadiopharmaceuticalStartDateTime", pet, lambda: pet(SCAN - timedelta(minutes=59))),
        ("RadiopharmaceuticalStartTime", pet, given("RadiopharmaceuticalStartTime", "110000")),
        ("SeriesTime", pet, lambda: pet(start=SCAN + timedelta(seconds=1))),
        (
            "(0009,100D)",
            lambda: pet(start=LATER, acquired=SCAN),
            lambda: private(pet(start=LATER, acquired=SCAN), 0x0009, "GEMS_PETD_01", 0x0D, "DT", stamp(SCAN)),
        ),
    ],
)  # fmt: skip
def test_what_may_not_differ_within_a_series(keyword, make, other):
    word = keyword if keyword.startswith("(") else named(keyword)
    assert_refused([make(), other()], word, "differs within the series")
    assert_refused([other(), make()], word, "differs within the series")


# --- in an ingest ---------------------------------------------------------------------------------------


def save(data, path, series):
    data.SeriesInstanceUID = f"1.2.3.{series}"
    data.PatientID = f"P{series}"
    path.parent.mkdir(exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def test_an_ingest_says_the_same_of_every_series(tmp_path):
    """One series for each need, in one folder; the files that are left are those that are whole."""
    for n, (way, keyword) in enumerate(NEEDS):
        make, _ = WAYS[way]
        save(without(make(), keyword), tmp_path / "pet" / f"{n}.dcm", n + 1)
    for n, (make, _) in enumerate(WAYS.values()):
        save(make(), tmp_path / "pet" / f"whole-{n}.dcm", 1000 + n)
    plan = make_plan([tmp_path / "pet"], Options(size=16, units="suvbw"), workers=1)
    assert (len(plan.pictures), len(plan.refused)) == (len(WAYS), len(NEEDS))
    for reason in plan.refused.values():
        assert reason.startswith("lacks ")
        assert reason.endswith("; --units stored takes it without SUV")
    for keyword in {keyword for _, keyword in NEEDS}:
        those = sum(named(keyword) in reason for reason in plan.refused.values())
        assert those >= sum(keyword == needed for _, needed in NEEDS), keyword
    stored = make_plan([tmp_path / "pet"], Options(size=16, units="stored"), workers=1)
    assert (len(stored.pictures), stored.refused) == (len(WAYS) + len(NEEDS), {})


def test_stored_takes_what_suv_refuses_as_it_is(tmp_path):
    data = dicom_dataset(RAMP, PatientWeight=None, RescaleSlope="2.5")
    save(data, tmp_path / "pet" / "a.dcm", 1)
    with pytest.raises(InputError, match="no image is left"):
        ingest([tmp_path / "pet"], tmp_path / "o.h5", Options(size=16), workers=1)
    record = ingest([tmp_path / "pet"], tmp_path / "o.h5", Options(size=16, units="stored"), workers=1)
    assert (record["images"], record["suv"], record["dataset"]["units"]) == (1, {}, "stored")
