"""DICOM files: PET slice by slice, and mammograms.

Values are rescaled slice by slice, since PET's RescaleSlope changes from slice to slice (PS3.3 C.8.9.4);
slices are ordered by their position along the normal of their plane (PS3.3 C.7.6.2), never by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, get_decoder, pixel_array
from pydicom.uid import UID

from petgan.errors import InputError
from petgan.ingest import suv
from petgan.ingest.frame import Header, Refused, Skipped
from petgan.ingest.raster import check_size

MODALITIES = {"PT": "pet", "MG": "mammogram"}
TAGS = [
    "SOPInstanceUID", "ImageType", "Modality", "PatientID", "SeriesInstanceUID", "Units",
    "BurnedInAnnotation", "ImagePositionPatient", "ImageOrientationPatient",
    "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "Rows", "Columns", "BitsStored", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_KEYWORDS = dict.fromkeys([*TAGS, *suv.KEYWORDS])
_HEADER_TAGS = [
    *(number for name in _KEYWORDS if (number := tag_for_keyword(name)) is not None),
    *suv.PRIVATE_TAGS,
]
# Words of ImageType in projections of a whole volume.
PROJECTIONS = ("PROJ", "MIP", "MAX_IP", "MAX PIXEL", "SUM")


def scan(path: Path) -> list[Header]:
    """What the images of a DICOM file are.

    Raises
    ------
    Refused
        If an image is there that cannot be taken.
    Skipped
        If the file holds no PET image and no mammogram.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = _header(path)
    modality = _modality(data)
    _check_image(data)
    _check_codec(data)
    frames = int(data.get("NumberOfFrames") or 1)
    if frames > 1 and modality != "pet":
        raise Refused("is a mammogram of several frames (tomosynthesis), of which no rule takes one")
    return [_frame_header(data, modality, index) for index in range(frames)]


def read(path: Path, index: int) -> np.ndarray:
    """One frame's values after the modality transformation; MONOCHROME1 is turned to bright on dark.

    Returns
    -------
    ndarray (h, w) float32
        In the units of the header.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Dataset()
        stored = pixel_array(path, ds_out=data, specific_tags=_tag_numbers(), index=index)
        if data.PhotometricInterpretation == "MONOCHROME1":
            low, high = _stored_span(data)
            stored = low + high - stored.astype(np.float64)
        values = _modality_values(stored, data, index)
    if not np.isfinite(values).all():
        raise Refused("holds values that are not finite numbers")
    return values.astype(np.float32)


def suv_factor(series: Dataset | Sequence[Dataset]) -> float:
    """The factor that turns rescaled values (stored * RescaleSlope + RescaleIntercept) into SUVbw, in g/ml.

    SUVbw is activity concentration (Bq/ml) * body weight (g) / dose (Bq) at the moment to which the voxels
    are decay corrected (DICOM PS3.3 C.8.9; QIBA's vendor-neutral SUV). By Units (0054,1001):

    BQML
        PatientWeight (0010,1030) * 1000 over RadionuclideTotalDose (0018,1074), the dose taken by
        DecayCorrection (0054,1102):

        START
            decayed from the injection to the series' start: 2^(-t / RadionuclideHalfLife (0018,1075)). The
            injection is RadiopharmaceuticalStartDateTime (0018,1078), or the last
            RadiopharmaceuticalStartTime (0018,1072) before the start. The start is SeriesDate and SeriesTime,
            unless they lie after the earliest acquisition: then GE's (0009,100D), or Siemens' (0071,1022),
            or the earliest AcquisitionTime less FrameReferenceTime (0054,1300) plus the time to the frame's
            mean activity, by ActualFrameDuration (0018,1242); where these are absent or 0, the
            earliest AcquisitionTime. DecayCorrectionDateTime (0018,9701) of enhanced PET goes before all
            of them.
        ADMIN
            as given.
        NONE
            decayed to the moment of the slice: FrameReferenceTime after the start or, without it,
            AcquisitionTime plus the time to the frame's mean activity.
    CNTS
        Philips' SUV factor (7053,1000); without it, or if it is 0, Philips' activity factor (7053,1009)
        times the factor of BQML.
    GML
        1 for SUVType (0054,1006) BW, or none; weight over lean body mass, ideal weight or surface for
        LBM, LBMJAMES128, LBMJANMA, IBW, BSA, from PatientWeight, PatientSize (0010,1020) and PatientSex.

    Parameters
    ----------
    series : Dataset, or sequence of Dataset
        One slice, or all slices of one series (in any order): only they show the earliest acquisition. One
        multi-frame dataset counts as its first frame.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If an attribute is missing or contradicts another; it names keyword and tag. Also for slices whose
        voxels are not decay corrected (NONE) and differ in time: give those one by one.
    """
    slices = [series] if isinstance(series, Dataset) else list(series)
    hint = "--units stored takes the values as they are, without SUV"
    if not slices:
        raise InputError("there is no SUV of a series without slices")
    try:
        if len({str(one.get("SeriesInstanceUID")) for one in slices}) > 1:
            raise Refused("is several, by SeriesInstanceUID (0020,000E)")
        factors = {found.factor for found in suv.series_suv([suv.attributes_of(one) for one in slices])}
        if len(factors) > 1:
            raise Refused(
                "is not decay corrected, and its slices differ in time: each has a factor of its own"
            )
    except Refused as refused:
        raise InputError(f"no SUV: the series {refused.reason}", hint=hint) from None
    return factors.pop()


def _header(path: Path) -> Dataset:
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=_HEADER_TAGS)
    except InvalidDicomError:
        raise Refused("is not a DICOM file, or lacks the DICM prefix") from None


def _tag_numbers() -> list[int]:
    return [number for name in TAGS if (number := tag_for_keyword(name)) is not None]


def _modality(data: Dataset) -> str:
    kind = UID(data.file_meta.get("MediaStorageSOPClassUID") or "").name
    if kind and "Image Storage" not in kind:
        raise Skipped("DICOM without an image")
    code = data.get("Modality")
    if not kind or code is None:
        raise Refused("is cut short: it does not say what it is")
    if code not in MODALITIES:
        raise Skipped("DICOM of another modality than PT and MG")
    return MODALITIES[code]


def _check_image(data: Dataset) -> None:
    if "Rows" not in data or "Columns" not in data:
        raise Refused("is cut short: it says nothing of its pixels")
    check_size(int(data.Columns), int(data.Rows))
    if data.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("is in colours")
    if str(data.get("BurnedInAnnotation", "")).upper() == "YES":
        raise Refused("has text burned into its pixels (BurnedInAnnotation), which may name the patient")


def _check_codec(data: Dataset) -> None:
    syntax = UID(data.file_meta.get("TransferSyntaxUID", ""))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Refused("has a transfer syntax that pydicom does not know") from None
    if not decoder.is_available:
        # One way is enough, and pylibjpeg covers every syntax: "pylibjpeg - requires pylibjpeg>=2.0 and ...".
        ways = [
            way.partition(" - ")[2] for way in decoder.missing_dependencies if way.startswith("pylibjpeg")
        ]
        raise Refused(f"is compressed with {syntax.name}, which {ways[0]}")


def _frame_header(data: Dataset, modality: str, index: int) -> Header:
    patient = str(data.get("PatientID") or "").strip()
    series, instance = (str(data.get(name) or "") for name in ("SeriesInstanceUID", "SOPInstanceUID"))
    if not instance:
        raise Refused("has no SOPInstanceUID")
    common: dict[str, Any] = {
        "pixels": int(data.Rows) * int(data.Columns),
        "modality": modality,
        "patient": patient,
        "instance": f"{instance}/{index}",
    }
    if modality == "mammogram":
        span = None if "ModalityLUTSequence" in data else _rescaled_span(data, index)
        return Header(**common, span=span, series=instance)
    common["units"] = str(data.get("Units") or "unknown").lower()
    try:
        common["suv"] = suv.attributes_of(data, index)
    except Refused as refused:
        common["suv"] = refused.reason
    if any(word in part for part in data.get("ImageType") or () for word in PROJECTIONS):
        return Header(**common, series=instance, view="projection")
    return Header(**common, series=series or instance, position=_position(data, index))


def _position(data: Dataset, index: int) -> float:
    """Of a slice along the normal of its plane, in mm."""
    place = _group(data, index, "PlanePositionSequence").get("ImagePositionPatient")
    plane = _group(data, index, "PlaneOrientationSequence").get("ImageOrientationPatient")
    if not place or not plane:
        several = int(data.get("NumberOfFrames") or 1) > 1
        raise Refused(f"does not say where its {'frames' if several else 'slice'} lie (ImagePositionPatient)")
    across, down = np.array(plane[:3], float), np.array(plane[3:], float)
    return float(np.dot(np.cross(across, down), np.array(place, float)))


def _modality_values(stored: np.ndarray, data: Dataset, index: int) -> np.ndarray:
    if "ModalityLUTSequence" in data:
        return apply_modality_lut(stored.astype(np.int64), data)
    slope, intercept = _rescale(data, index)
    return stored * slope + intercept


def _rescale(data: Dataset, index: int) -> tuple[float, float]:
    group = _group(data, index, "PixelValueTransformationSequence")
    if "RescaleSlope" not in group and data.get("Modality") == "PT":
        raise Refused("has no RescaleSlope, without which PET values mean nothing")
    return float(group.get("RescaleSlope", 1)), float(group.get("RescaleIntercept", 0))


def _group(data: Dataset, index: int, name: str) -> Dataset:
    """Where the attributes of a frame stand: in its functional group, in the shared one, or at the top."""
    per_frame: Sequence[Dataset] = data.get("PerFrameFunctionalGroupsSequence") or ()
    shared: Sequence[Dataset] = data.get("SharedFunctionalGroupsSequence") or ()
    for groups in (per_frame[index : index + 1], shared[:1]):
        for group in groups:
            if name in group:
                item: Dataset = group[name].value[0]
                return item
    return data


def _stored_span(data: Dataset) -> tuple[int, int]:
    bits = int(data.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)


def _rescaled_span(data: Dataset, index: int) -> tuple[float, float]:
    slope, intercept = _rescale(data, index)
    low, high = sorted(slope * value + intercept for value in _stored_span(data))
    return low, high
