"""Where a picture comes from and what it shows, by its name: the public collections name their files alike.

=================  =======================================================================================
``pet``            PET by DICOM
``cbis-ddsm``      ``Mass-Training_P_00001_LEFT_CC``, as PatientID or folder. P_00001 is the woman, in the
                   sets of masses and calcifications alike. Masks and crops of lesions are skipped
``inbreast``       ``20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm``: the second field is the woman's, for the
                   header says ``removed``. What is named ML there is an MLO (Moreira 2012)
``ddsm``           ``A_1141_1.LEFT_CC.LJPEG.1``: hospital, case, version. The case alone is the woman: its
                   folder is ``case1141``, without the rest, so its number stands once in the collection
``ddsm-overview``  the same names, of a GIF or of less than a million pixels: thumbnails
``mini-mias``      ``mdb001.pgm`` and ``mdb002.pgm`` are the left and the right breast of one woman
``mammogram``      other mammograms by DICOM
``other``          pictures and arrays of which nothing is known
=================  =======================================================================================

Of mini-MIAS the list that comes with it says that even numbers are left. The lead markers on the films say L
on odd ones and R on even ones, mirrored, as the films were scanned from the back; so do the names of the
full MIAS (mdb001ll, mdb002rl), and so does petgan. All of them are MLO, and
of 0.2 mm a pixel where they have their 1024 x 1024.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from petgan.ingest.frame import Header, Skipped

COLLECTIONS = ("pet", "cbis-ddsm", "inbreast", "ddsm", "ddsm-overview", "mini-mias", "mammogram", "other")
NAMED = ("cbis-ddsm", "inbreast", "ddsm", "ddsm-overview", "mini-mias")  # whose names tell the woman
#: Abbreviations of projections (DICOM PS3.16 CID 4014), as the second half of a view such as ``left-mlo``.
PROJECTIONS = ("cc", "mlo", "ml", "lm", "lmo", "fb", "xcc", "xccl", "xccm", "sio", "iso")
THUMBNAIL_PIXELS = 1_000_000  # a film of DDSM has four million and more
LESION = "mask or crop of a lesion (CBIS-DDSM), not a mammogram"
CBIS_UIDS = "1.3.6.1.4.1.9590."  # folders of its copies as JPEG, which do not name the woman

_CBIS = re.compile(
    r"(?:Mass|Calc)-(?:Training|Test)_(P_\d{5})_(LEFT|RIGHT)_(CC|MLO)(_\d+)?(?![A-Za-z0-9])", re.I
)
_INBREAST = re.compile(r"\d{8}_([0-9a-f]{16})_MG_([LR])_([A-Z]{2,4})_ANON(?![A-Za-z])", re.I)
_DDSM = re.compile(
    r"([A-D])[_-](\d{4})[_-](\d)(?![0-9])(?:[._-](LEFT|RIGHT)[._-](CC|MLO)(?![A-Za-z]))?", re.I
)
_MINI_MIAS = re.compile(r"mdb(\d{3})([lr][smlx]?)?", re.I)
_VIEW = re.compile(rf"(?<![A-Za-z])(L|R|LEFT|RIGHT)[ _.-]?({'|'.join(PROJECTIONS)})(?![A-Za-z])", re.I)
# What de-identified files have for a PatientID, in lower case and letters alone: it names nobody.
_NOBODY = (
    "",
    "removed",
    "anon",
    "anonymous",
    "anonymized",
    "anonymised",
    "unknown",
    "none",
    "na",
    "deidentified",
)
_SIDES = {"l": "left", "r": "right", "left": "left", "right": "right"}


@dataclass(frozen=True)
class Known:
    """What a name says. `patient` is identity; None where it does not tell."""

    collection: str
    patient: str | None
    view: str | None
    spacing: tuple[float, float] | None = None


def described(name: str, header: Header) -> Header:
    """Complete what a file says of an image by what its name says.

    Parameters
    ----------
    name : str
        Path below the given folder, with ``/``.
    header : Header
        As the format's `scan` gave it.

    Returns
    -------
    Header
        With `collection`; `modality`, `view` and `patient` where the header has none of its own. A PatientID
        that names nobody, such as ``removed``, is none: without a name that helps it becomes empty.

    Raises
    ------
    Skipped
        If it is a mask or a crop of CBIS-DDSM.
    """
    if header.modality == "pet":
        patient = "" if header.patient is not None and is_nobody(header.patient) else header.patient
        return replace(header, collection="pet", patient=patient)
    nameless = header.patient is None or is_nobody(header.patient)
    known = recognise(name, header) if nameless or header.collection in ("cbis-ddsm", "other") else None
    if known is None:
        usual = "mammogram" if header.modality == "mammogram" else "other"
        return replace(
            header,
            collection=usual if header.collection == "other" else header.collection,
            view=header.view or view_in(PurePosixPath(name).stem),
            patient="" if header.patient is not None and nameless else header.patient,
        )
    return replace(
        header,
        collection=known.collection,
        modality="mammogram",
        view=known.view or header.view,
        patient=known.patient if nameless else header.patient,
        spacing=header.spacing or known.spacing,
    )


def recognise(name: str, header: Header) -> Known | None:
    """What a name says by the rules of one of the collections; None if it follows none of them.

    Raises
    ------
    Skipped
        If it is a mask or a crop of CBIS-DDSM.
    """
    path = PurePosixPath(name)
    for rule in _RULES:
        known = rule(path, header)
        if known is not None:
            return known
    return None


def cbis(patient_id: str, series: str = "") -> Known | None:
    """What a PatientID or a folder of CBIS-DDSM says.

    Parameters
    ----------
    patient_id : str
        ``Mass-Training_P_00001_LEFT_CC``; with the number of a lesion at its end, that of a mask or crop.
    series : str
        SeriesDescription, or a path in which it stands: it goes before the number.

    Raises
    ------
    Skipped
        If it is a mask or a crop.
    """
    match = _CBIS.search(patient_id)
    if match is None:
        return None
    series = series.lower()
    lesion = any(word in series for word in ("roi mask", "cropped"))
    if lesion or (match[4] and "full mammogram" not in series):
        raise Skipped(LESION)
    return Known("cbis-ddsm", f"cbis-ddsm {match[1].upper()}", view(match[2], match[3]))


def view(side: str | None, projection: str | None) -> str | None:
    """``left-mlo`` from L and MLO; the side alone where that is all; None if not even that is known."""
    known_side = _SIDES.get((side or "").lower())
    projection = (projection or "").lower()
    if known_side is None:
        return None
    return f"{known_side}-{projection}" if projection in PROJECTIONS else known_side


def view_in(text: str) -> str | None:
    """The view in a name such as ``L_CC`` or ``x-RMLO``; None unless both side and projection stand there."""
    match = _VIEW.search(text)
    return view(match[1], match[2]) if match else None


def is_nobody(patient_id: str) -> bool:
    """Whether a PatientID is a placeholder, which many women share."""
    return re.sub(r"[^a-z0-9]", "", patient_id.lower()) in _NOBODY


def ddsm_film(file_name: str) -> re.Match[str] | None:
    """Hospital, case, version, side and projection in the name of a film of DDSM."""
    match = _DDSM.match(file_name)
    return match if match and match[4] else None


def mini_mias_woman(stem: str) -> str | None:
    """Whose film of mini-MIAS it is: two films a woman."""
    match = _MINI_MIAS.fullmatch(stem)
    return f"mini-mias {(int(match[1]) + 1) // 2}" if match else None


# --- the collections -------------------------------------------------------------------------------------


def _cbis(path: PurePosixPath, header: Header) -> Known | None:
    for part in reversed(path.parts):
        known = cbis(part, path.as_posix())
        if known is not None:
            return known
    if header.patient is None and any(part.startswith(CBIS_UIDS) for part in path.parts):
        return Known("cbis-ddsm", "", None)
    return None


def _inbreast(path: PurePosixPath, header: Header) -> Known | None:
    match = _INBREAST.match(path.name)
    if match is None:
        return None
    projection = match[3].lower()
    shown = view(match[2], "mlo" if projection == "ml" else projection)
    return Known("inbreast", f"inbreast {match[1].lower()}", shown)


def _ddsm(path: PurePosixPath, header: Header) -> Known | None:
    match = _DDSM.match(path.name)
    is_gif = path.suffix.lower() == ".gif"
    if match is None or not (match[4] or is_gif):
        return None
    patient, shown = f"ddsm {int(match[2])}", view(match[4], match[5])
    if is_gif or 0 < header.pixels < THUMBNAIL_PIXELS:
        return Known("ddsm-overview", patient, f"thumbnail-{shown}" if shown else "thumbnail")
    return Known("ddsm", patient, shown)


def _mini_mias(path: PurePosixPath, header: Header) -> Known | None:
    match = _MINI_MIAS.fullmatch(path.stem)
    if match is None:
        return None
    side = (match[2] or "lr"[int(match[1]) % 2 == 0])[0]
    spacing = (0.2, 0.2) if header.pixels == 1024 * 1024 else None
    return Known("mini-mias", mini_mias_woman(path.stem), view(side, "mlo"), spacing)


_RULES: tuple[Callable[[PurePosixPath, Header], Known | None], ...] = (_cbis, _inbreast, _ddsm, _mini_mias)
