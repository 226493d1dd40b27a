"""Mammograms by DICOM: which breast, from where, for whom, and how large its pixels are.

`petgan.ingest.dicom` turns MONOCHROME1 round: the right sense for both kinds. Of an image for presentation
MONOCHROME1 says that low values are to be shown bright. An image for processing has no VOI transformation
and no shape of its curve is promised; its values grow with the exposure of the detector, most where nothing
lay in the beam, and MONOCHROME1, which is usual for it, shows those dark. Turned round, dense tissue is
bright and the background the darkest, though not 0.
"""

from __future__ import annotations

import math
from typing import Any

from pydicom import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
)

from petgan.ingest.collections import PROJECTIONS, cbis, view
from petgan.ingest.frame import Refused, Skipped

#: What `describe` reads.
KEYWORDS = [
    "SOPClassUID", "PatientID", "SeriesDescription", "PresentationIntentType", "ImageLaterality",
    "Laterality", "ViewPosition", "ViewCodeSequence", "PartialView", "PatientOrientation", "PixelSpacing",
    "ImagerPixelSpacing", "NominalScannedPixelSpacing", "EstimatedRadiographicMagnificationFactor",
]  # fmt: skip

_KINDS = {
    DigitalMammographyXRayImageStorageForPresentation: "presentation",
    DigitalMammographyXRayImageStorageForProcessing: "processing",
    "FOR PRESENTATION": "presentation",
    "FOR PROCESSING": "processing",
}
# CID 4014, and XCC without a side, by SNOMED CT and by the codes of older files (SNOMED-RT).
_CODES = {
    "399162004": "cc", "R-10242": "cc",
    "399368009": "mlo", "R-10226": "mlo",
    "399260004": "ml", "R-10224": "ml",
    "399352003": "lm", "R-10228": "lm",
    "399099002": "lmo", "R-10230": "lmo",
    "399196006": "fb", "R-10244": "fb",
    "399265009": "xcc", "R-102CF": "xcc",
    "399192008": "xccl", "R-1024A": "xccl",
    "399101009": "xccm", "R-1024B": "xccm",
    "399188001": "sio", "R-102D0": "sio",
    "441555000": "iso", "R-40AAA": "iso",
}  # fmt: skip
_SPECIMEN = ("127457009", "G-8310")
# Of CID 4015: spot compression, magnification.
_DETAILS = ("399055006", "R-102D7", "399163009", "R-102D6")
DETAIL = "spot, magnified or partial view, which does not show a whole breast"


def describe(data: Dataset) -> dict[str, Any]:
    """What a mammogram's header says.

    Parameters
    ----------
    data : Dataset
        With the attributes of `KEYWORDS`, as far as the file has them.

    Returns
    -------
    dict
        Fields of `petgan.ingest.frame.Header`: `collection`, `view`, `kind`, `spacing` and, for CBIS-DDSM,
        `patient`.

    Raises
    ------
    Refused
        If attributes contradict each other, or it shows no breast in one projection.
    Skipped
        If it is a mask or a crop of CBIS-DDSM, or a spot, magnified or partial view.
    """
    sop_class = _sop_class(data)
    if sop_class == BreastTomosynthesisImageStorage:
        raise Refused("is a tomosynthesis, of which no rule takes one image")
    if _is_detail(data):
        raise Skipped(DETAIL)
    out: dict[str, Any] = {
        "collection": "mammogram",
        "view": view(_side(data), _projection(data)),
        "kind": _kind(data, sop_class),
        "spacing": _spacing(data),
    }
    known = cbis(_text(data, "PatientID"), _text(data, "SeriesDescription"))
    if known is not None:
        out |= {"collection": known.collection, "patient": known.patient, "view": known.view or out["view"]}
    return out


def _sop_class(data: Dataset) -> str:
    meta = getattr(data, "file_meta", None)
    return str(data.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else None) or "")


def _kind(data: Dataset, sop_class: str) -> str | None:
    return _agreed(
        {_KINDS.get(sop_class), _KINDS.get(_text(data, "PresentationIntentType").upper())},
        "is for presentation or for processing by its SOP class, and the other by "
        "PresentationIntentType (0008,0068)",
    )


def _side(data: Dataset) -> str | None:
    sides = {_text(data, name).upper()[:1] for name in ("ImageLaterality", "Laterality")}
    return _agreed(
        {side if side in ("L", "R") else None for side in sides},
        "is of different sides by ImageLaterality (0020,0062) and Laterality (0020,0060)",
    )


def _projection(data: Dataset) -> str | None:
    found: set[str | None] = set()
    for item in data.get("ViewCodeSequence") or ():
        code = _text(item, "CodeValue")
        if code in _SPECIMEN:
            raise Refused("is of a specimen, not of a breast")
        found.add(_CODES.get(code))
    position = _text(data, "ViewPosition").lower()
    found.add(position if position in PROJECTIONS else None)
    projection = _agreed(
        found, "is of different projections by ViewPosition (0018,5101) and ViewCodeSequence (0054,0220)"
    )
    if projection is None:  # CBIS-DDSM puts it where the orientation belongs
        projection = _text(data, "PatientOrientation").lower()
    return projection if projection in PROJECTIONS else None


def _is_detail(data: Dataset) -> bool:
    modifiers = [
        _text(modifier, "CodeValue")
        for item in data.get("ViewCodeSequence") or ()
        for modifier in item.get("ViewModifierCodeSequence") or ()
    ]
    return _text(data, "PartialView").upper() == "YES" or not set(_DETAILS).isdisjoint(modifiers)


def _spacing(data: Dataset) -> tuple[float, float] | None:
    """In the breast, between rows and between columns: that on the detector is larger, as is the shadow."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = data.get(name)
        if values is None or values == "":
            continue
        try:
            between_rows, between_columns = (float(value) for value in values)
        except (TypeError, ValueError):
            raise Refused(f"has a {name} that is not two numbers") from None
        if not all(0 < value < math.inf for value in (between_rows, between_columns)):
            raise Refused(f"has a {name} that is not above 0")
        if name == "ImagerPixelSpacing":
            factor = _magnification(data)
            return between_rows / factor, between_columns / factor
        return between_rows, between_columns
    return None


def _magnification(data: Dataset) -> float:
    value = data.get("EstimatedRadiographicMagnificationFactor")
    try:
        factor = float(value or 1)
    except (TypeError, ValueError):
        factor = math.nan
    if not 0 < factor < math.inf:
        raise Refused("has an EstimatedRadiographicMagnificationFactor (0018,1114) that is not above 0")
    return factor


def _agreed(found: set[str | None], reason: str) -> str | None:
    """The one thing that is said, if any is."""
    said = found - {None}
    if len(said) > 1:
        raise Refused(reason)
    return said.pop() if said else None


def _text(data: Dataset, keyword: str) -> str:
    value = data.get(keyword)
    return "" if value is None else str(value).strip()
