"""Standardised uptake values: what a PET series has to be multiplied by to be in SUVbw.

SUVbw is activity concentration times body weight over the injected dose, decayed to the moment that the
voxels are corrected to (DICOM PS3.3 C.8.9; QIBA's vendor-neutral SUV). Each branch stands in a function of
its own; what is missing or contradicts itself is refused by keyword and tag, never guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.valuerep import DA, DT, TM

from petgan.ingest.frame import Refused

#: Half-lives in seconds, to find a header that contradicts itself (Decay Data Evaluation Project).
HALF_LIVES = {
    "F-18": 6584.0, "Ga-68": 4062.6, "C-11": 1221.8, "N-13": 597.9, "O-15": 122.3, "Rb-82": 75.9,
    "Cu-64": 45721.0, "Zr-89": 282312.0, "I-124": 360806.0,
}  # fmt: skip
#: Nuclides by SNOMED CT (DICOM PS3.16 CID 4020), and by the codes of older files (SNOMED-RT).
NUCLIDES = {
    "77004003": "F-18", "C-111A1": "F-18",
    "35337001": "Ga-68", "C-131A3": "Ga-68",
    "40565003": "C-11", "C-105A1": "C-11",
    "21576001": "N-13", "C-107A1": "N-13",
    "129504001": "O-15", "C-B1038": "O-15",
    "79197006": "Rb-82", "C-159A2": "Rb-82",
    "3932008": "Cu-64", "C-127A2": "Cu-64",
    "63360001": "Zr-89", "C-168A4": "Zr-89",
    "40937006": "I-124", "C-114A5": "I-124",
}  # fmt: skip
_CLOSE_TO_HALF_LIFE = 0.05
_MOST_MINUTES = 1000.0  # in which a half-life may be written; more would be seconds of I-120 and Br-75
_PHILIPS, _GE, _SIEMENS = "Philips PET Private Group", "GEMS_PETD_01", "SIEMENS MED PT"
_LEAST_DOSE_BQ = 1e6  # below it somebody wrote MBq or kBq
_WEIGHT_KG, _HEIGHT_M = (0.5, 500.0), (0.3, 2.5)
_MOST_HALF_LIVES = 10.0  # from injection to scan: then nothing is left to be seen
_SAME_TIME = timedelta(seconds=60)
_DAY_S = 86400.0
#: Units and SUVType by UCUM (PS3.16 CID 85).
_UCUM = {
    "Bq/ml": ("BQML", None), "{counts}": ("CNTS", None), "g/ml{SUVbw}": ("GML", "BW"),
    "g/ml{SUVlbm}": ("GML", "LBM"), "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"),
    "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"), "g/ml{SUVibw}": ("GML", "IBW"),
    "cm2/ml{SUVbsa}": ("CM2ML", "BSA"),
}  # fmt: skip


@dataclass(frozen=True)
class Attributes:
    """What SUV needs to know of a slice; kept in memory only, since it identifies a patient.

    Every field is as the header has it, None where it is missing or empty. Times have dates and are in one
    time zone.
    """

    units: str | None = None
    suv_type: str | None = None
    decay_correction: str | None = None
    corrections: tuple[str, ...] = ()
    weight_kg: float | None = None
    height_m: float | None = None
    sex: str | None = None
    radiopharmaceuticals: int = 0
    dose_bq: float | None = None
    half_life_s: float | None = None
    nuclide: str | None = None
    injected: datetime | None = None
    injected_time_only: timedelta | None = None  # of the day, where the header gives no date
    series_start: datetime | None = None
    acquired: datetime | None = None
    corrected_to: datetime | None = None  # enhanced PET says so
    start: datetime | None = None  # as PET that has a DecayCorrection says besides
    vendor_start: datetime | None = None  # of GE or Siemens
    frame_reference_ms: float | None = None
    frame_duration_ms: float | None = None
    philips_suv: float | None = None
    philips_activity: float | None = None


@dataclass(frozen=True)
class Suv:
    """A factor that turns rescaled values into SUVbw (g/ml), and the way that led to it, in words."""

    factor: float
    rule: str


def attributes_of(data: Dataset, index: int = 0) -> Attributes:
    """Read what SUV needs from a PET dataset; `index` is of a frame in an enhanced one.

    Raises
    ------
    Refused
        If a number, a date or a time cannot be read.
    """
    data = _flat(data, index)
    items: Sequence[Dataset] = data.get("RadiopharmaceuticalInformationSequence") or []
    item = items[0] if items else Dataset()
    offset = _offset(data)
    units, suv_type = _units(data)
    correction = _word(data, "DecayCorrection")
    dated = correction in (None, "START")  # otherwise nobody needs it
    corrected_to = _date_time(data, "DecayCorrectionDateTime", offset) if dated else None
    return Attributes(
        units=units,
        suv_type=suv_type,
        decay_correction=correction or _enhanced_correction(data),
        corrections=tuple(str(word).strip().upper() for word in _values(data, "CorrectedImage"))
        or _enhanced_corrections(data),
        weight_kg=_number(data, "PatientWeight"),
        height_m=_number(data, "PatientSize"),
        sex=_word(data, "PatientSex"),
        radiopharmaceuticals=len(items),
        dose_bq=_number(item, "RadionuclideTotalDose"),
        half_life_s=_number(item, "RadionuclideHalfLife"),
        nuclide=_nuclide(item),
        injected=_injection(item, offset),
        injected_time_only=_time(item, "RadiopharmaceuticalStartTime"),
        series_start=_moment(data, "Series", offset),
        acquired=_acquisition(data, offset),
        corrected_to=None if correction else corrected_to,
        start=corrected_to if correction == "START" else None,
        vendor_start=_private_time(data, 0x0009, _GE, 0x0D, offset)
        or _private_time(data, 0x0071, _SIEMENS, 0x22, offset),
        frame_reference_ms=_number(data, "FrameReferenceTime"),
        frame_duration_ms=_number(data, "ActualFrameDuration") or _number(data, "FrameAcquisitionDuration"),
        philips_suv=_private_number(data, 0x7053, _PHILIPS, 0x00),
        philips_activity=_private_number(data, 0x7053, _PHILIPS, 0x09),
    )


def series_suv(slices: Sequence[Attributes]) -> list[Suv]:
    """The factor of each slice of one series; they differ only where the voxels are not decay corrected.

    Raises
    ------
    Refused
        If something that SUV needs is missing or contradicts itself.
    """
    first = slices[0]
    _check_same(slices, "units", "decay_correction", "corrections")
    if first.units in ("GML", "CM2ML"):
        return [_from_suv(slices)] * len(slices)
    if first.units == "CNTS":
        _check_same(slices, "philips_suv", "philips_activity")
        if first.philips_suv:
            _check_suv_is_corrected(first)
            return [Suv(first.philips_suv, "CNTS, Philips SUV factor (7053,1000)")] * len(slices)
        if first.philips_activity:
            found = _from_activity(slices)
            words = "CNTS, Philips activity factor (7053,1009)"
            return [
                Suv(one.factor * first.philips_activity, one.rule.replace("BQML", words)) for one in found
            ]
        raise Refused(
            "is in counts, and has neither Philips' SUV factor (7053,1000) nor activity factor (7053,1009)"
        )
    if first.units == "BQML":
        return _from_activity(slices)
    if first.units is None:
        raise Refused(f"lacks {_tag('Units')}")
    raise Refused(f"has {_tag('Units')} that are none of BQML, CNTS, GML and CM2ML")


def decay_correction(one: Attributes) -> str:
    """To which moment the voxels are decay corrected: START, ADMIN or NONE.

    Raises
    ------
    Refused
        If that is missing or contradicts CorrectedImage, or if the attenuation is not corrected for.
    """
    _check_corrections(one)
    if one.decay_correction is None:
        raise Refused(
            f"lacks {_tag('DecayCorrection')}, or {_tag('DecayCorrectionDateTime')} of enhanced PET"
        )
    return one.decay_correction


def _check_same(slices: Sequence[Attributes], *names: str) -> None:
    """What a way to SUV rests on is the same in all slices."""
    for name in names:
        if any(getattr(one, name) != getattr(slices[0], name) for one in slices):
            keyword = _OF_A_SERIES[name]
            named = keyword if "(" in keyword else _tag(keyword)
            raise Refused(f"contradicts itself: {named} differs within the series")


def _check_corrections(one: Attributes) -> None:
    """CorrectedImage may be empty (type 2), and DecayCorrection of what is an SUV already be missing."""
    correction = one.decay_correction
    if correction not in (None, "START", "ADMIN", "NONE"):
        raise Refused(f"has a {_tag('DecayCorrection')} that is neither START, ADMIN nor NONE")
    if one.corrections and correction and ("DECY" in one.corrections) == (correction == "NONE"):
        raise Refused(f"contradicts itself: {_tag('DecayCorrection')} and {_tag('CorrectedImage')}")
    if one.corrections and "ATTN" not in one.corrections:
        raise Refused(f"is not corrected for attenuation by {_tag('CorrectedImage')}")


def _check_suv_is_corrected(one: Attributes) -> None:
    _check_corrections(one)
    if one.decay_correction == "NONE" or (one.corrections and "DECY" not in one.corrections):
        raise Refused(
            f"is not corrected for decay by {_tag('DecayCorrection')} or {_tag('CorrectedImage')}, and one "
            "factor cannot make an SUV of it"
        )


_OF_A_SERIES = {
    "units": "Units",
    "suv_type": "SUVType",
    "decay_correction": "DecayCorrection",
    "weight_kg": "PatientWeight",
    "dose_bq": "RadionuclideTotalDose",
    "half_life_s": "RadionuclideHalfLife",
    "injected": "RadiopharmaceuticalStartDateTime",
    "injected_time_only": "RadiopharmaceuticalStartTime",
    "series_start": "SeriesTime",
    "corrections": "CorrectedImage",
    "corrected_to": "DecayCorrectionDateTime",
    "start": "DecayCorrectionDateTime",
    "height_m": "PatientSize",
    "sex": "PatientSex",
    "vendor_start": "the vendor's own start (0009,100D) or (0071,1022)",
    "philips_suv": "Philips' SUV factor (7053,1000)",
    "philips_activity": "Philips' activity factor (7053,1009)",
}


# --- activity concentration ------------------------------------------------------------------------------


def _from_activity(slices: Sequence[Attributes]) -> list[Suv]:
    """Bq/ml: weight over the dose at the moment that the voxels are corrected to."""
    first = slices[0]
    _check_same(slices, "weight_kg", "dose_bq")
    weight_g = 1000 * _weight(first)
    if not first.radiopharmaceuticals:
        raise Refused(f"lacks {_tag('RadiopharmaceuticalInformationSequence')}")
    if first.radiopharmaceuticals > 1:
        raise Refused(f"has several items in {_tag('RadiopharmaceuticalInformationSequence')}")
    dose_bq = _needed(first.dose_bq, "RadionuclideTotalDose")
    if dose_bq < _LEAST_DOSE_BQ:
        raise Refused(
            f"has a {_tag('RadionuclideTotalDose')} below {_LEAST_DOSE_BQ:g} Bq: was it "
            "written in kBq or MBq?"
        )
    correction = decay_correction(first)
    if correction == "ADMIN":
        return [Suv(weight_g / dose_bq, "BQML, ADMIN: the dose as given")] * len(slices)
    _check_same(slices, "half_life_s", "injected", "injected_time_only")
    half_life = _half_life(first)
    if correction == "START":
        _check_same(slices, "corrected_to")
        if first.corrected_to is not None:
            start, found_by = first.corrected_to, "DecayCorrectionDateTime"
        else:
            start, found_by = _start(slices, half_life)
        moments = [start] * len(slices)
        rule = f"BQML, START: the dose decayed to {found_by}"
    else:
        by_reference = any(one.frame_reference_ms for one in slices)
        series_start = _start(slices, half_life)[0] if by_reference else None
        moments = [_measured(one, series_start, half_life) for one in slices]
        rule = "BQML, NONE: the dose decayed to each slice's own time"
    injected = _injected(slices, min(moments), half_life)
    return [
        Suv(weight_g / (dose_bq * 2 ** (-(moment - injected).total_seconds() / half_life)), rule)
        for moment in moments
    ]


def _half_life(one: Attributes) -> float:
    half_life = _needed(one.half_life_s, "RadionuclideHalfLife")
    known = HALF_LIVES.get(one.nuclide or "")
    if known and abs(half_life / known - 1) > _CLOSE_TO_HALF_LIFE:
        raise Refused(
            f"contradicts itself: {_tag('RadionuclideHalfLife')} is not that of "
            f"{_tag('RadionuclideCodeSequence')}"
        )
    in_minutes = (abs(60 * half_life / known - 1) <= _CLOSE_TO_HALF_LIFE for known in HALF_LIVES.values())
    if half_life < _MOST_MINUTES and any(in_minutes):
        raise Refused(f"has a {_tag('RadionuclideHalfLife')} in minutes, which has to be in seconds")
    return half_life


def _start(slices: Sequence[Attributes], half_life_s: float) -> tuple[datetime, str]:
    """The moment that START means, and how it was found.

    SeriesDate and SeriesTime, unless they lie after the earliest acquisition: then somebody has made a new
    series of an old one, and the start is the vendor's own; or it follows from an acquisition, whose mean
    activity was FrameReferenceTime after the start; or it is the earliest acquisition (QIBA).
    """
    _check_same(slices, "series_start", "start")
    first = slices[0]
    if first.series_start is None:
        raise Refused(f"lacks {_tag('SeriesDate')} or {_tag('SeriesTime')}")
    earliest, one = min(((_acquired(one), one) for one in slices), key=lambda pair: pair[0])
    if first.start is not None:
        too_early = first.start < first.series_start - _SAME_TIME and first.series_start <= earliest
        if too_early or first.start > earliest + _SAME_TIME:
            raise Refused(
                f"contradicts itself: {_tag('DecayCorrectionDateTime')} is not the start, between "
                f"{_tag('SeriesTime')} and {_tag('AcquisitionTime')}, that {_tag('DecayCorrection')} names"
            )
        return first.start, "DecayCorrectionDateTime"
    if first.series_start <= earliest:
        return first.series_start, "SeriesTime"
    _check_same(slices, "vendor_start")
    if first.vendor_start is not None:
        return first.vendor_start, "the vendor's own start, since SeriesTime is later than the acquisition"
    if one.frame_reference_ms and one.frame_duration_ms:
        mean = _mean_activity_s(one.frame_duration_ms / 1000, half_life_s)
        return (
            earliest + timedelta(seconds=mean - one.frame_reference_ms / 1000),
            "AcquisitionTime less FrameReferenceTime, since SeriesTime is later",
        )
    return earliest, "the earliest AcquisitionTime, since SeriesTime is later"


def _measured(one: Attributes, start: datetime | None, half_life_s: float) -> datetime:
    """When a voxel that is not decay corrected had its activity: FrameReferenceTime after the start."""
    if start is not None and one.frame_reference_ms:
        return start + timedelta(milliseconds=one.frame_reference_ms)
    duration = (one.frame_duration_ms or 0.0) / 1000
    return _acquired(one) + timedelta(seconds=_mean_activity_s(duration, half_life_s))


def _acquired(one: Attributes) -> datetime:
    if one.acquired is None:
        raise Refused(f"lacks {_tag('AcquisitionDate')} or {_tag('AcquisitionTime')}")
    return one.acquired


def _mean_activity_s(duration_s: float, half_life_s: float) -> float:
    """Seconds from the beginning of a frame until the activity is the frame's mean (QIBA)."""
    decay = math.log(2) * duration_s / half_life_s
    return half_life_s / math.log(2) * math.log(decay / -math.expm1(-decay)) if decay else 0.0


def _injected(slices: Sequence[Attributes], start: datetime, half_life_s: float) -> datetime:
    """The injection, which may come after the start by as much as clocks differ if no slice had begun yet.

    One that has a time of day only was the last such time; that says the day only where the nuclide does not
    outlast it.
    """
    one = slices[0]
    acquired = [one.acquired for one in slices if one.acquired is not None]
    latest = max(start, min([start + _SAME_TIME, *acquired]))
    if one.injected is not None:
        keyword, injected = "RadiopharmaceuticalStartDateTime", one.injected
        if one.injected_time_only is not None and not _same_time(injected, one.injected_time_only):
            raise Refused(f"contradicts itself: {_tag(keyword)} and {_tag('RadiopharmaceuticalStartTime')}")
    elif one.injected_time_only is None:
        raise Refused(
            f"lacks {_tag('RadiopharmaceuticalStartDateTime')} and {_tag('RadiopharmaceuticalStartTime')}"
        )
    elif _MOST_HALF_LIVES * half_life_s >= _DAY_S:
        raise Refused(
            f"lacks {_tag('RadiopharmaceuticalStartDateTime')}, and with its {_tag('RadionuclideHalfLife')} "
            f"the {_tag('RadiopharmaceuticalStartTime')} may be one of several days"
        )
    else:
        keyword = "RadiopharmaceuticalStartTime"
        injected = _midnight(start) + one.injected_time_only
        if injected > latest:
            injected -= timedelta(days=1)
    scan = f"the scan ({_tag('SeriesTime')}, {_tag('AcquisitionTime')})"
    half_lives = (max([start, *acquired]) - injected).total_seconds() / half_life_s
    if injected > latest or half_lives > _MOST_HALF_LIVES:
        raise Refused(
            f"contradicts itself: the injection ({_tag(keyword)}) comes after {scan}, "
            f"or more than {_MOST_HALF_LIVES:g} half-lives before it"
        )
    if injected == start == _midnight(start):
        raise Refused(f"has no time of day but 0 of the injection ({_tag(keyword)}) and {scan}")
    return injected


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _same_time(moment: datetime, time: timedelta) -> bool:
    apart = abs((moment - _midnight(moment) - time).total_seconds())
    return min(apart, _DAY_S - apart) <= _SAME_TIME.total_seconds()


# --- what is an SUV already ------------------------------------------------------------------------------


def _from_suv(slices: Sequence[Attributes]) -> Suv:
    """g/ml: an SUV by body weight, or by another measure of the body that is turned back; cm2/ml: by surface.

    An SUV by surface is in cm2/ml by whatever name: some write GML of every SUVType.

    Lean body mass by James (120 or 128) and by Janmahasatian, ideal body weight and body surface by DuBois
    as in DICOM PS3.16 (CID 85) and PS3.3 C.8.9.1; weights in kg, heights in cm.
    """
    one = slices[0]
    _check_same(slices, "suv_type")
    _check_suv_is_corrected(one)
    kind = one.suv_type or ("BSA" if one.units == "CM2ML" else "BW")
    if kind != "BW" and kind not in _MASS:
        raise Refused(f"has a {_tag('SUVType')} that is none of BW, {', '.join(_MASS)}")
    if one.units == "CM2ML" and kind != "BSA":
        raise Refused(f"contradicts itself: {_tag('Units')} and {_tag('SUVType')}: CM2ML goes with BSA alone")
    if kind == "BW":
        return Suv(1.0, "GML, SUV by body weight already")
    _check_same(slices, "weight_kg", "height_m", *(["sex"] if kind != "BSA" else []))
    weight = _weight(one)
    height_cm = 100 * _within(one.height_m, "PatientSize", _HEIGHT_M, "m")
    if kind != "BSA" and one.sex not in ("F", "M"):
        raise Refused(f"lacks {_tag('PatientSex')}, or it is neither F nor M")
    mass = _MASS[kind](weight, height_cm, one.sex == "F")
    if mass <= 0:
        raise Refused(f"contradicts itself: {_tag('PatientWeight')} and {_tag('PatientSize')} are no body's")
    return Suv(weight / mass, f"{one.units}, SUV by {kind} turned into one by body weight")


def _james(weight: float, height_cm: float, female: bool, male_factor: float = 120.0) -> float:
    ratio = (weight / height_cm) ** 2
    return 1.07 * weight - 148.0 * ratio if female else 1.10 * weight - male_factor * ratio


def _james_128(weight: float, height_cm: float, female: bool) -> float:
    return _james(weight, height_cm, female, 128.0)


def _janmahasatian(weight: float, height_cm: float, female: bool) -> float:
    index = weight / (height_cm / 100) ** 2
    return 9270 * weight / (8780 + 244 * index if female else 6680 + 216 * index)


def _ideal(weight: float, height_cm: float, female: bool) -> float:
    return 45.5 + 0.91 * (height_cm - 152) if female else 48.0 + 1.06 * (height_cm - 152)


def _surface(weight: float, height_cm: float, female: bool) -> float:
    """Body surface in units of 1000 cm2, as weights are in units of 1000 g."""
    return 0.0718400 * weight**0.425 * height_cm**0.725


_MASS = {
    "LBM": _james,
    "LBMJAMES128": _james_128,
    "LBMJANMA": _janmahasatian,
    "IBW": _ideal,
    "BSA": _surface,
}


#: What `attributes_of` reads, by keyword and, for the vendors' own, by number in any of the usual blocks.
KEYWORDS = [
    "Units", "SUVType", "DecayCorrection", "CorrectedImage", "PatientWeight", "PatientSize", "PatientSex",
    "RadiopharmaceuticalInformationSequence", "SeriesDate", "SeriesTime", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionDateTime", "DecayCorrectionDateTime", "FrameReferenceTime",
    "ActualFrameDuration", "TimezoneOffsetFromUTC", "RealWorldValueMappingSequence", "DecayCorrected",
    "AttenuationCorrected",
]  # fmt: skip
PRIVATE_TAGS = [
    tag
    for group, elements in ((0x0009, (0x0D,)), (0x0071, (0x22,)), (0x7053, (0x00, 0x09)))
    for block in range(0x10, 0x18)
    for tag in (group << 16 | block, *(group << 16 | block << 8 | element for element in elements))
]


# --- reading ---------------------------------------------------------------------------------------------


def _tag(keyword: str) -> str:
    number = tag_for_keyword(keyword)
    assert number is not None, keyword  # noqa: S101
    return f"{keyword} ({number >> 16:04X},{number & 0xFFFF:04X})"


def _needed(value: float | None, keyword: str) -> float:
    if value is None:
        raise Refused(f"lacks {_tag(keyword)}")
    if not value > 0 or not math.isfinite(value):
        raise Refused(f"has a {_tag(keyword)} that is not above 0")
    return value


def _weight(one: Attributes) -> float:
    return _within(one.weight_kg, "PatientWeight", _WEIGHT_KG, "kg")


def _within(value: float | None, keyword: str, limits: tuple[float, float], unit: str) -> float:
    low, high = limits
    if not low <= (value := _needed(value, keyword)) <= high:
        raise Refused(f"has a {_tag(keyword)} that is not between {low:g} and {high:g} {unit}")
    return value


def _flat(data: Dataset, index: int) -> Dataset:
    """The dataset itself or, of an enhanced one, its attributes together with those of a frame's groups."""
    per_frame = (data.get("PerFrameFunctionalGroupsSequence") or ())[index : index + 1]
    groups = [*(data.get("SharedFunctionalGroupsSequence") or ())[:1], *per_frame]
    if not groups:
        return data
    flat = Dataset()
    flat.update(data)
    for group in groups:
        for element in group:
            if element.keyword == "RealWorldValueMappingSequence":  # may have several items
                flat.add(element)
            elif element.VR == "SQ" and element.value:
                flat.update(element.value[0])
    return flat


def _values(data: Dataset, keyword: str) -> Iterable[Any]:
    value = data.get(keyword)
    if value in (None, ""):
        return ()
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else value


def _word(data: Dataset, keyword: str) -> str | None:
    return str(data.get(keyword) or "").strip().upper() or None


def _number(data: Dataset, keyword: str) -> float | None:
    value = data.get(keyword)
    try:
        return None if value in (None, "") else float(value)
    except (TypeError, ValueError):
        raise Refused(f"has a {_tag(keyword)} that is no number") from None


def _enhanced_correction(data: Dataset) -> str | None:
    """Enhanced PET has no DecayCorrection, and says to which moment it is corrected (PS3.3 C.8.22.4)."""
    corrected = _word(data, "DecayCorrected")
    if corrected == "YES":
        return "START" if data.get("DecayCorrectionDateTime") else None
    return "NONE" if corrected == "NO" else None


def _enhanced_corrections(data: Dataset) -> tuple[str, ...]:
    """What CorrectedImage would say; nothing if an attribute is missing."""
    words = {"DECY": _word(data, "DecayCorrected"), "ATTN": _word(data, "AttenuationCorrected")}
    said = None not in words.values()
    return ("ENHANCED", *(name for name, word in words.items() if word == "YES")) if said else ()


def _units(data: Dataset) -> tuple[str | None, str | None]:
    """Units and SUVType; of enhanced PET, by that mapping of real world values that is the rescaling."""
    if units := _word(data, "Units"):
        return units, _word(data, "SUVType")
    mappings = [item for item in data.get("RealWorldValueMappingSequence") or () if item.get(_UNIT_CODES)]
    if not mappings:
        return None, None
    unlike = [_unlike_rescaling(item, data) for item in mappings]
    if all(unlike):
        raise Refused(f"contradicts itself: {unlike[0]}")
    codes = [item.get(_UNIT_CODES)[0] for item, word in zip(mappings, unlike, strict=True) if not word]
    found = {_UCUM.get(str(code.get("CodeValue") or code.get("LongCodeValue"))) for code in codes}
    if len(found) > 1:
        raise Refused(f"contradicts itself: {_tag('RealWorldValueMappingSequence')} has several units")
    if (units_and_type := found.pop()) is None:
        raise Refused(f"lacks {_tag('Units')}, and its {_tag(_UNIT_CODES)} has none of {', '.join(_UCUM)}")
    return units_and_type


_UNIT_CODES = "MeasurementUnitsCodeSequence"


def _unlike_rescaling(item: Dataset, data: Dataset) -> str:
    """In which attributes a mapping of real world values is not the line of the rescaling."""
    for ours, theirs, usual in (("RealWorldValueSlope", "RescaleSlope", 1.0),
                                ("RealWorldValueIntercept", "RescaleIntercept", 0.0)):  # fmt: skip
        told, used = _number(item, ours), _number(data, theirs)
        if told is not None and not math.isclose(told, usual if used is None else used, rel_tol=1e-6):
            return f"{_tag(ours)} and {_tag(theirs)}"
    return ""


def _nuclide(item: Dataset) -> str | None:
    for code in (item.get("RadionuclideCodeSequence") or ())[:1]:
        return NUCLIDES.get(str(code.get("CodeValue")))
    return None


def _offset(data: Dataset) -> tzinfo | None:
    """The time zone of what does not say its own: TimezoneOffsetFromUTC, or that of the scan's date-times."""
    text = str(data.get("TimezoneOffsetFromUTC") or "").strip()
    try:
        if text:
            return datetime.strptime(text, "%z").tzinfo
    except ValueError:
        raise Refused(f"has a {_tag('TimezoneOffsetFromUTC')} that is no offset") from None
    for keyword in ("DecayCorrectionDateTime", "FrameAcquisitionDateTime", "AcquisitionDateTime"):
        with suppress(Refused):  # who needs it will say so
            moment = _parsed_date_time(data.get(keyword), _tag(keyword))
            if moment is not None and moment.tzinfo is not None:
                return moment.tzinfo
    return None


def _local(moment: datetime, offset: tzinfo | None) -> datetime:
    """In the time zone of the dataset's dates and times, and without saying so."""
    if moment.tzinfo is not None and offset is not None:
        moment = moment.astimezone(offset)
    return moment.replace(tzinfo=None)


def _injection(item: Dataset, offset: tzinfo | None) -> datetime | None:
    """The injection; a date alone has its time of day in RadiopharmaceuticalStartTime."""
    keyword = "RadiopharmaceuticalStartDateTime"
    value, time = item.get(keyword), _time(item, "RadiopharmaceuticalStartTime")
    if time is not None and re.fullmatch(r"\d{8}", str(value).strip()):
        return _day(str(value).strip(), keyword) + time
    moment = _parsed_date_time(value, _tag(keyword))
    if moment is None:
        return None
    if moment.tzinfo is not None and offset is None and (time is None or not _same_time(moment, time)):
        raise Refused(
            f"lacks {_tag('TimezoneOffsetFromUTC')}, and its {_tag(keyword)} has an offset from UTC"
        )
    return _local(moment, offset)


def _date_time(data: Dataset, keyword: str, offset: tzinfo | None) -> datetime | None:
    moment = _parsed_date_time(data.get(keyword), _tag(keyword))
    return None if moment is None else _local(moment, offset)


def _acquisition(data: Dataset, offset: tzinfo | None) -> datetime | None:
    """A frame's own time goes first; a date-time without hour and minute counts for nothing beside both."""
    moment = _moment(data, "Acquisition", offset)
    is_date = re.fullmatch(r"\d{4,11}([+-]\d{4})?", str(data.get("AcquisitionDateTime")).strip())
    return (
        _date_time(data, "FrameAcquisitionDateTime", offset)
        or (None if moment and is_date else _date_time(data, "AcquisitionDateTime", offset))
        or moment
    )


def _parsed_date_time(value: Any, name: str) -> datetime | None:
    if value in (None, ""):
        return None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    try:
        moment = DT(text)
    except ValueError:
        moment = None
    if moment is None or not re.match(r"\d{8}", text.strip()):
        raise Refused(f"has a {name} that is no date and time")
    if not re.match(r"\d{12}", text.strip()):
        raise Refused(f"has a {name} without hour and minute")
    return datetime.fromisoformat(moment.isoformat())


def _moment(data: Dataset, which: str, offset: tzinfo | None) -> datetime | None:
    """``SeriesDate`` and ``SeriesTime``, say, as one; None if one of them is missing."""
    date, time = data.get(f"{which}Date"), _time(data, f"{which}Time")
    if date in (None, "") or time is None:
        return None
    return _day(str(date), f"{which}Date") + time


def _day(text: str, keyword: str) -> datetime:
    try:
        day = DA(text)
    except ValueError:
        day = None
    if day is None:
        raise Refused(f"has a {_tag(keyword)} that is no date")
    return datetime(day.year, day.month, day.day)


def _time(data: Dataset, keyword: str) -> timedelta | None:
    value = data.get(keyword)
    if value in (None, ""):
        return None
    try:
        time = TM(str(value))
    except ValueError:
        time = None
    if time is None:
        raise Refused(f"has a {_tag(keyword)} that is no time")
    if not re.match(r"\d{4}", str(value).strip()):
        raise Refused(f"has a {_tag(keyword)} without minutes")
    return timedelta(hours=time.hour, minutes=time.minute, seconds=time.second, microseconds=time.microsecond)


def _private(data: Dataset, group: int, creator: str, element: int) -> Any:
    try:
        return data.private_block(group, creator)[element].value
    except KeyError:
        return None


def _private_number(data: Dataset, group: int, creator: str, element: int) -> float | None:
    value = _private(data, group, creator, element)
    if isinstance(value, bytes):  # implicit syntax, and a creator that pydicom does not know
        value = value.decode("ascii", "replace").strip("\0 ")
    try:
        number = 0.0 if value in (None, "") else float(value)
    except (TypeError, ValueError):
        raise Refused(f"has a ({group:04X},10{element:02X}) that is no number") from None
    return number if number > 0 and math.isfinite(number) else None


def _private_time(
    data: Dataset, group: int, creator: str, element: int, offset: tzinfo | None
) -> datetime | None:
    value = _private(data, group, creator, element)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip("\0 ")
    if not str(value or "").strip("0. "):  # absent, or 0
        return None
    moment = _parsed_date_time(value, f"({group:04X},10{element:02X})")
    return None if moment is None else _local(moment, offset)
