"""DICOM files: PET slice by slice, and mammograms.

Values are rescaled slice by slice, since PET's RescaleSlope changes from slice to slice (PS3.3 C.8.9.4).
Where a slice lies is in its header's plane (PS3.3 C.7.6.2), for `petgan.ingest.volume`. Of a multi-frame file
(enhanced PET and legacy converted enhanced PET) both come from the functional groups of the frame, else from
the shared ones, else from the top (PS3.3 C.7.6.16).
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info, read_partial
from pydicom.filewriter import write_file_meta_info
from pydicom.pixels import apply_modality_lut
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from petgan.errors import InputError
from petgan.ingest import mammography, suv
from petgan.ingest.codecs import check_codec, decode
from petgan.ingest.frame import Header, Plane, Refused, Skipped
from petgan.ingest.raster import check_size

MODALITIES = {"PT": "pet", "MG": "mammogram"}
CAPTURE_MODALITIES = ("OT", "SC")  # whatever was captured
CAPTURES = (
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
MAX_INFLATED_BYTES = 2**29  # of a deflated file: against decompression bombs
SPACING_MM = (1e-3, 1e3)  # what can be between two pixels
FARTHEST_MM = 1e5  # from the origin
ORTHONORMAL = 1e-3  # by how much direction cosines may be rounded

_PIXELS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "SOPClassUID", "Modality", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "PixelPaddingValue", "PixelPaddingRangeLimit", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_HEADER = [
    *_PIXELS, "SOPInstanceUID", "ImageType", "PatientID", "SeriesInstanceUID", "Units", "BurnedInAnnotation",
    "ConversionType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "VolumeBasedCalculationTechnique", "NumberOfSlices", *suv.KEYWORDS, *mammography.KEYWORDS,
]  # fmt: skip


def _numbers(keywords: Sequence[str]) -> list[int]:
    return [number for name in dict.fromkeys(keywords) if (number := tag_for_keyword(name)) is not None]


_PIXEL_TAGS = _numbers(_PIXELS)
_HEADER_TAGS = [*_numbers(_HEADER), *suv.PRIVATE_TAGS]
_SERIES = 0x0020000E  # SeriesInstanceUID

# In ImageType, with spaces for underscores: MAX PIXEL, MAX_IP, MIP, PROJECTION IMAGE, SUM, but not SUMMARY.
_PROJECTION = re.compile(
    r"\b(PROJ(ECT(ED|IONS?))?|SUM|(2D|3D)?MIPS?|(MAX|MIN|MEAN|AVG)(IMUM)? ?(PIXEL|IP|INTENSITY))\b"
)
_RENDERED = ("MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER")  # VolumeBasedCalculationTechnique


def scan(path: Path) -> list[Header]:
    """What the images of a DICOM file are.

    Raises
    ------
    Refused
        If an image is there that cannot be taken.
    Skipped
        If the file holds no PET image, no mammogram and no secondary capture of nobody knows what.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(path) as file:
            data = _dataset(file, _HEADER_TAGS)
            modality = _modality(data)
            _check_image(data)
            check_codec(data)
            _check_whole(file, UID(data.file_meta.TransferSyntaxUID))
        frames = int(data.get("NumberOfFrames") or 1)
        if frames > 1 and modality != "pet":
            kind = "mammogram (tomosynthesis)" if modality else "secondary capture"
            raise Refused(f"is a {kind} of several frames, of which no rule takes one")
        if frames > 1 and frames != len(data.get("PerFrameFunctionalGroupsSequence") or ()):
            raise Refused(f"does not say where its frames lie: {_tag('PerFrameFunctionalGroupsSequence')}")
        return [_frame_header(data, modality, index) for index in range(frames)]


class NoSlice(Refused):
    """What cannot be taken, and no series lacks."""


def slice_of(path: Path) -> tuple[str, str] | None:
    """Series and image of a slice of PET, though its file may be damaged after its SeriesInstanceUID.

    None if it is no slice of PET, or does not get as far.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _opened(path) as file:
                data = read_partial(file, lambda tag, vr, length: tag > _SERIES, specific_tags=_HEADER_TAGS)
            if data.get("Modality") != "PT" or _is_capture(data) or _is_projection(data, 0):
                return None
            series, instance = (str(data.get(k) or "") for k in ("SeriesInstanceUID", "SOPInstanceUID"))
            is_slice = series and "LOCALIZER" not in _values(data, "ImageType")
            return (series, instance) if is_slice else None
    except Exception:
        return None


def read(path: Path, index: int) -> np.ndarray:
    """One frame's values after the modality transformation; MONOCHROME1 is turned to bright on dark.

    It is turned round in the range of what is transformed, or of the LUT's entries. Padding of a mammogram
    has the smallest value of what is none.

    The header of the file read last is kept, so that all frames of a file cost one reading of it, and no
    frame costs the reading of another's pixels.

    Returns
    -------
    ndarray (h, w) float32
        In the units of the header.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status = path.stat()
        file = _parsed(path, status.st_mtime_ns, status.st_size)
        stored = file.frame(index)
        values = _modality_values(stored, file.data, index)
        padding = _padding(stored, file.data)
        if padding.any() and not padding.all():
            values[padding] = values[~padding].min()
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
            start is SeriesDate and SeriesTime, unless they lie after the earliest acquisition: then GE's
            (0009,100D), or Siemens' (0071,1022), or the earliest AcquisitionTime less FrameReferenceTime
            (0054,1300) plus the time to the frame's mean activity, by ActualFrameDuration (0018,1242); where
            these are absent or 0, the earliest AcquisitionTime. DecayCorrectionDateTime (0018,9701) goes
            before all of them. In enhanced PET it stands for DecayCorrection, if DecayCorrected (0018,9758)
            is YES; beside a DecayCorrection it must be a start, between SeriesTime and the first acquisition.
        ADMIN
            as given.
        NONE
            decayed to the moment of the slice: FrameReferenceTime after the start or, where it is absent or
            0, FrameAcquisitionDateTime (0018,9074), else AcquisitionDateTime (0008,002A), else
            AcquisitionTime, plus the time to the frame's mean activity.

        The injection is RadiopharmaceuticalStartDateTime (0018,1078), with StartTime if it is a date alone,
        or the last RadiopharmaceuticalStartTime (0018,1072) before the start, if ten half-lives are less
        than a day. It lies at most ten half-lives before the end of the scan, and before the start or, where
        the first acquisition is later, at most a minute after it.
    CNTS
        Philips' SUV factor (7053,1000); without it, or if it is 0, Philips' activity factor (7053,1009)
        times the factor of BQML.
    GML
        1 for SUVType (0054,1006) BW, or none; weight over lean body mass or ideal weight for LBM,
        LBMJAMES128, LBMJANMA, IBW, from PatientWeight, PatientSize (0010,1020) and PatientSex.
    CM2ML, or GML of SUVType BSA
        Weight over surface; CM2ML goes with no other SUVType.

    Without Units, the unit (UCUM) of that item of RealWorldValueMappingSequence (0040,9096) that is the line
    of RescaleSlope and RescaleIntercept. CorrectedImage (0028,0051) has to have ATTN, and DECY unless
    DecayCorrection is NONE, which goes with BQML and Philips' activity factor alone; if it is empty (type 2),
    the correction for attenuation is taken for granted. A date-time has hour and minute; one with an offset
    from UTC needs TimezoneOffsetFromUTC (0008,0201), a date-time of the scan with an offset, or a StartTime
    that agrees.

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


# --- files -----------------------------------------------------------------------------------------------


def _check_whole(file: BinaryIO, syntax: UID) -> None:
    """Refuse a file that ends before its pixels do; it stands at the pixels.

    A header alone would stand for a slice, and its intact copy would be taken for a copy of it. Compressed
    pixels do not say how long they are.
    """
    element = file.read(8 if syntax.is_implicit_VR else 12)
    if len(element) < 8:
        raise Refused("is cut short: it has no pixels")
    length = int.from_bytes(element[-4:], "little" if syntax.is_little_endian else "big")
    start = file.tell()
    if length != _UNDEFINED_LENGTH and file.seek(0, os.SEEK_END) - start < length:
        raise Refused("is cut short: it ends within its pixels")


_UNDEFINED_LENGTH = 0xFFFFFFFF


def _dataset(file: BinaryIO, tags: list[int]) -> Dataset:
    """The attributes before the pixels; the file stands at the pixels then."""
    try:
        return dcmread(file, stop_before_pixels=True, specific_tags=tags)
    except InvalidDicomError:
        raise Refused("is not a DICOM file, or lacks the DICM prefix") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file or, if it is deflated as a whole, what is in it."""
    with open(path, "rb") as file:
        if DeflatedExplicitVRLittleEndian.encode() not in file.peek(_META_BYTES):
            yield file
            return
        meta = FileMetaDataset(read_file_meta_info(path))
        if meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
            yield file
            return
        file.seek(_BEFORE_META + meta.FileMetaInformationGroupLength)
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = stream.decompress(file.read(), MAX_INFLATED_BYTES)
    if stream.unconsumed_tail:
        raise Refused(f"is deflated from more than {MAX_INFLATED_BYTES >> 20} MiB")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    start = DicomBytesIO()
    write_file_meta_info(start, meta, enforce_standard=False)
    yield io.BytesIO(b"".join([bytes(128), b"DICM", start.getvalue(), inflated]))


_META_BYTES = 4096  # in which the transfer syntax is named
_BEFORE_META = 128 + 4 + 12  # preamble, prefix, and FileMetaInformationGroupLength itself


#: Defined terms of Units (0054,1001), PS3.3 C.8.9.1.
UNITS = frozenset((
    "CNTS", "NONE", "CM2", "CM2ML", "PCNT", "CPS", "BQML", "MGMINML", "UMOLMINML", "MLMING", "MLG", "1CM",
    "UMOLML", "PROPCNTS", "PROPCPS", "MLMINML", "MLML", "GML", "STDDEV",
))  # fmt: skip


@dataclass(frozen=True)
class _Parsed:
    """What does not have to be read anew for each frame of a file."""

    path: Path
    data: Dataset
    options: dict[str, Any]
    offset: int  # of the pixels
    inflated: bytes | None  # all of a file that was deflated

    def frame(self, index: int) -> np.ndarray:
        """Stored values of one frame."""
        with open(self.path, "rb") if self.inflated is None else io.BytesIO(self.inflated) as file:
            file.seek(self.offset)
            return decode(file, index, self.options)


@lru_cache(maxsize=1)
def _parsed(path: Path, changed: int, size: int) -> _Parsed:
    with _opened(path) as file:
        data = _dataset(file, _PIXEL_TAGS)
        syntax = UID(data.file_meta.TransferSyntaxUID)
        element = file.read(8 if syntax.is_implicit_VR else 12)
        if len(element) < 8:
            raise Refused("is cut short: it has no pixels")
        group, number = np.frombuffer(element, "<u2" if syntax.is_little_endian else ">u2", 2).tolist()
        options = as_pixel_options(
            data, transfer_syntax_uid=syntax, pixel_keyword=keyword_for_tag(group << 16 | number)
        )
        if not syntax.is_implicit_VR:
            options["pixel_vr"] = element[4:6].decode("ascii")
        inflated = file.getvalue() if isinstance(file, io.BytesIO) else None
        return _Parsed(path, data, options, file.tell(), inflated)


# --- what an image is ------------------------------------------------------------------------------------


def _modality(data: Dataset) -> str | None:
    """``pet`` or ``mammogram``; None of a secondary capture of either, or of neither."""
    kind = UID(data.file_meta.get("MediaStorageSOPClassUID") or "").name
    if kind and "Image Storage" not in kind:
        raise Skipped("DICOM without an image")
    code = data.get("Modality")
    if not kind or code is None:
        raise Refused("is cut short: it does not say what it is")
    if code in CAPTURE_MODALITIES and _is_capture(data):
        return None
    if code not in MODALITIES:
        raise Skipped("DICOM of another modality than PT and MG")
    return MODALITIES[code]


def _is_capture(data: Dataset) -> bool:
    return not {data.file_meta.get("MediaStorageSOPClassUID"), data.get("SOPClassUID")}.isdisjoint(CAPTURES)


def _check_image(data: Dataset) -> None:
    if "Rows" not in data or "Columns" not in data:
        raise Refused("is cut short: it says nothing of its pixels")
    check_size(int(data.Columns), int(data.Rows))
    if data.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise NoSlice("is in colours")
    stored, high = data.get("BitsStored"), data.get("HighBit")
    if stored is not None and high is not None and high != stored - 1:
        raise Refused(f"has a {_tag('HighBit')} of {high}, and of {stored} bits stored it is {stored - 1}")


def _quarantine(data: Dataset) -> str | None:
    """Why a person has to look at it."""
    if burned_in := _burned_in(data):
        return burned_in
    if _is_capture(data):
        return f"is a secondary capture by its {_tag('SOPClassUID')}, which may show anything"
    if data.get("ConversionType"):
        return f"is a secondary capture by its {_tag('ConversionType')}, which may show anything"
    return None


def _burned_in(data: Dataset) -> str | None:
    if str(data.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        return f"says that text is burned into its pixels ({_tag('BurnedInAnnotation')})"
    return None


def _frame_header(data: Dataset, modality: str | None, index: int) -> Header:
    instance = str(data.get("SOPInstanceUID") or "")
    if not instance:
        raise Refused("has no SOPInstanceUID")
    common: dict[str, Any] = {
        "pixels": int(data.Rows) * int(data.Columns),
        "modality": modality,
        "patient": str(data.get("PatientID") or "").strip(),
        "series": instance,
        "instance": f"{instance}/{index}",
        "quarantine": _quarantine(data),
    }
    describe = _pet_fields if modality == "pet" else _mammogram_fields
    return Header(**{**common, **describe(data, index)})


def _mammogram_fields(data: Dataset, index: int) -> dict[str, Any]:
    """Of a mammogram, and of a capture of nobody knows what."""
    fields = mammography.describe(data)
    if fields["collection"] == "mammogram" and data.get("Modality") != "MG":
        fields["collection"] = "other"
    if fields["collection"] == "cbis-ddsm":
        # Its films are captures by their SOP class, all of them; writing is looked for on every film.
        fields["quarantine"] = _burned_in(data)
    return {**fields, "span": None if "ModalityLUTSequence" in data else _rescaled_span(data, index)}


def _pet_fields(data: Dataset, index: int) -> dict[str, Any]:
    if data.PhotometricInterpretation == "MONOCHROME1" and not _is_capture(data):
        raise Refused(
            f"is MONOCHROME1 by {_tag('PhotometricInterpretation')}, which PET never is: its values may be "
            "turned round"
        )
    if "ModalityLUTSequence" not in data:
        _rescale(data, index)
    fields: dict[str, Any] = {
        "units": _units(data),
        "spacing": _spacing(data, index, "PixelSpacing"),
        "collection": "pet",
    }
    try:
        fields["suv"] = suv.attributes_of(data, index)
    except Refused as refused:
        fields["suv"] = refused.reason
    placed = _group(data, index, "PlanePositionSequence").get("ImagePositionPatient")
    if _is_projection(data, index):
        return {**fields, "view": "projection"}
    if _is_capture(data) and not placed:
        return {**fields, "view": "capture"}
    return {
        **fields,
        "view": "slice",
        "plane": _plane(data, index),
        "slices": int(data.get("NumberOfSlices") or 0),
        "series": str(data.get("SeriesInstanceUID") or data.SOPInstanceUID),
    }


def _units(data: Dataset) -> str:
    """Out of DICOM's own list: what else stands there may be anything, and would go into the dataset."""
    units = str(data.get("Units") or "").upper()
    return units.lower() if units in UNITS else "unknown"


def _is_projection(data: Dataset, index: int) -> bool:
    """Of a whole volume, by ImageType (0008,0008) and what enhanced PET has besides."""
    frame = _group(data, index, "PETFrameTypeSequence")
    words = [*_values(data, "ImageType"), *_values(frame, "FrameType")]
    if any(_PROJECTION.search(str(word).upper().replace("_", " ")) for word in words):
        return True
    techniques = {str(one.get("VolumeBasedCalculationTechnique") or "").upper() for one in (data, frame)}
    return not techniques.isdisjoint(_RENDERED)


def _values(data: Dataset, keyword: str) -> Sequence[Any]:
    value = data.get(keyword)
    if value is None:
        return ()
    return (value,) if isinstance(value, str | float | int) else value


# --- where it lies ---------------------------------------------------------------------------------------


def _plane(data: Dataset, index: int) -> Plane:
    place = _reals(_group(data, index, "PlanePositionSequence"), "ImagePositionPatient", 3)
    cosines = _reals(_group(data, index, "PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    for name, numbers in (("ImagePositionPatient", place), ("ImageOrientationPatient", cosines)):
        if numbers is None:
            several = int(data.get("NumberOfFrames") or 1) > 1
            raise Refused(f"does not say where its {'frames lie' if several else 'slice lies'}: {_tag(name)}")
    assert place is not None and cosines is not None  # noqa: S101, PT018
    if max(map(abs, place)) > FARTHEST_MM:
        raise Refused(f"has an {_tag('ImagePositionPatient')} farther away than {FARTHEST_MM / 1000:g} m")
    across, down = cosines[:3], cosines[3:]
    if abs(math.hypot(*across) - 1) > ORTHONORMAL or abs(math.hypot(*down) - 1) > ORTHONORMAL:
        raise Refused(f"has an {_tag('ImageOrientationPatient')} whose vectors are not of length 1")
    if abs(float(np.dot(across, down))) > ORTHONORMAL:
        raise Refused(f"has an {_tag('ImageOrientationPatient')} whose vectors are not at right angles")
    x, y, z = place
    return Plane((x, y, z), (across[0], across[1], across[2]), (down[0], down[1], down[2]))


def _spacing(data: Dataset, index: int, keyword: str) -> tuple[float, float] | None:
    """Between rows and between columns, in mm."""
    spacing = _reals(_group(data, index, "PixelMeasuresSequence"), keyword, 2)
    if spacing is None:
        return None
    least, most = SPACING_MM
    if min(spacing) < least or max(spacing) > most:
        raise Refused(f"has {_tag(keyword)} that is not between {least:g} and {most:g} mm")
    return spacing[0], spacing[1]


def _reals(data: Dataset, keyword: str, count: int) -> list[float] | None:
    values = _values(data, keyword)
    if not values:
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise Refused(f"has {_tag(keyword)} that is not {count} numbers")
    return numbers


# --- its values ------------------------------------------------------------------------------------------


def _modality_values(stored: np.ndarray, data: Dataset, index: int) -> np.ndarray:
    turned = data.PhotometricInterpretation == "MONOCHROME1"
    if "ModalityLUTSequence" in data:
        values = apply_modality_lut(stored.astype(np.int64), data)
        if turned:
            count, first, _ = data.ModalityLUTSequence[0].LUTDescriptor
            entries = apply_modality_lut(np.arange(first, first + (count or 2**16)), data)
            values = float(entries.min()) + float(entries.max()) - values
        return values
    if turned:
        low, high = _stored_span(data)
        stored = low + high - stored.astype(np.float64)
    slope, intercept = _rescale(data, index)
    return stored * slope + intercept


def _padding(stored: np.ndarray, data: Dataset) -> np.ndarray:
    """Which pixels of a mammogram are none of the picture; of PET none are."""
    value = data.get("PixelPaddingValue")
    if value is None or data.get("Modality") == "PT":
        return np.zeros(stored.shape, bool)
    limit = data.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def _rescale(data: Dataset, index: int) -> tuple[float, float]:
    group = _group(data, index, "PixelValueTransformationSequence")
    slope, intercept = (_reals(group, name, 1) for name in ("RescaleSlope", "RescaleIntercept"))
    is_pet = data.get("Modality") == "PT" and not _is_capture(data)
    if slope is None:
        if is_pet:
            raise Refused(f"lacks {_tag('RescaleSlope')}, without which PET values mean nothing")
        if "RescaleSlope" in group:
            raise Refused(f"has an empty {_tag('RescaleSlope')}")
        slope = [1.0]
    if slope[0] == 0 or (is_pet and slope[0] < 0):
        wanted = "above 0" if is_pet else "not 0"
        raise Refused(f"has a {_tag('RescaleSlope')} of {slope[0]:g}, and it must be {wanted}")
    return slope[0], intercept[0] if intercept else 0.0


def _group(data: Dataset, index: int, name: str) -> Dataset:
    """Where the attributes of a frame stand: in its functional group, in the shared one, or at the top."""
    per_frame: Sequence[Dataset] = data.get("PerFrameFunctionalGroupsSequence") or ()
    shared: Sequence[Dataset] = data.get("SharedFunctionalGroupsSequence") or ()
    for groups in (per_frame[index : index + 1], shared[:1]):
        for group in groups:
            if items := group.get(name):
                item: Dataset = items[0]
                return item
    return data


def _stored_span(data: Dataset) -> tuple[int, int]:
    bits = int(data.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)


def _rescaled_span(data: Dataset, index: int) -> tuple[float, float]:
    slope, intercept = _rescale(data, index)
    low, high = sorted(slope * value + intercept for value in _stored_span(data))
    return low, high


def _tag(keyword: str) -> str:
    number = tag_for_keyword(keyword)
    assert number is not None, keyword  # noqa: S101
    return f"{keyword} ({number >> 16:04X},{number & 0xFFFF:04X})"
