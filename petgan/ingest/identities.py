"""What identifies in one file: names, attributes by the Basic Profile, texts; see `petgan.ingest.audit`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.tag import BaseTag

from petgan.ingest import embedded
from petgan.ingest.basic_profile import identifies, is_of_the_standard
from petgan.ingest.formats import format_of
from petgan.ingest.mute import mute
from petgan.ingest.needles import anchor

LONGEST = 512  # bytes of a value that are looked for
BINARY = 32  # bytes of a value that is no text
LARGE = 2**16  # bytes of a value, or of an .ics file

#: Words that stand in what petgan writes, or in the DICOM files of everybody: no one is known by them.
VOCABULARY = frozenset(
    """
    100 192 abdomen accept accepted acr admin adobe ascii at attn author auto axial b benign bilateral black
    body both bqml breast breasts bw calc calcification cancer cancers case cases cbis cbis-ddsm cc center
    centre chest collection collections color colors colour colours comment configuration copyright coronal
    count counts cr creation crop ct cv data dataset datasets dcm ddsm ddsm-overview decision decy default
    derived description dicom dicomdir digest disclaimer dtype dx dynamic en exif expression f false fb
    female field file files float32 folder folders for full gif gray grey head height hidden histogram
    histograms html http://ns.adobe.com/xap/1.0/ ics ima image images inbreast input inputs iso iso_ir jfif
    jpeg jpg key_id l lanczos lbm lcc left left-at left-cc left-cv left-fb left-iso left-lm left-lmo left-ml
    left-mlo left-sio left-xccl left-xccm lm lmlo lmo ln m male malignant mammo mammogram mammograms
    mammography mask mass maximum median mg mias middle mini-mias minimum mip mip-axial mip-coronal
    mip-sagittal mips ml mlo modality monochrome1 monochrome2 mr n/a na nan neck new nm no none normal
    normals npy null number o oblique old orient original ot other output outputs padding page pages patient
    patientid patients percentile person pet pet/ct petct pgm photoshop picture pictures pixel_digest png
    presentation preview previews primary private processing projection projections pt public quarantine
    quarantined r raw rcc rdf reason record records refused reject report reports resize result results
    right right-at right-cc right-cv right-fb right-iso right-lm right-lmo right-ml right-mlo right-sio
    right-xccl right-xccm rl rm rmlo sagittal sc scan scans schema_version script sct secondary series
    session sessions sio size skipped slice slices snm3 snomed software source sources split splits square
    srt start static stored studies study style subject subjects suv suvbw synthetic table temp test text
    thorax thumbnail thumbnail-left-cc thumbnail-left-mlo thumbnail-right-cc thumbnail-right-mlo time title
    tmp tool_version total train transaxial transverse true u ucum uint16 uint8 umls unicode unit units
    unknown us utf-8 validation value values version view views volume volumes warning white whole
    whole-body whole_body wholebody width window windows xccl xccm xml xml:com.adobe.xmp yes
    """.split()  # noqa: SIM905
) | {
    "whole body", "for presentation", "for processing", "iso_ir 100", "iso_ir 192", "left breast",
    "right breast", "creation time", "pet ct", "siemens", "philips", "ge medical systems",
}  # fmt: skip

_SOFTWARE = re.compile(rb"matplotlib version|pydicom|gdcm|dcmtk|offis_dcmtk|petgan", re.IGNORECASE)
_TEXT_VRS = (
    "AE",
    "AS",
    "CS",
    "DA",
    "DS",
    "DT",
    "IS",
    "LO",
    "LT",
    "PN",
    "SH",
    "ST",
    "TM",
    "UC",
    "UI",
    "UR",
    "UT",
)
_ONE_VALUE = ("LT", "ST", "UT", "UR")  # in which a backslash is no separator
_NUMBER_VRS = ("FL", "FD", "SL", "SS", "SV", "UL", "US", "UV", "AT")
_BINARY_VRS = ("OB", "OW", "OD", "OF", "OL", "OV", "UN")

Identity = tuple[str, bytes]  # what it is, and its value


def file_identities(file: tuple[Path, str]) -> tuple[list[Identity], bool]:
    """What identifies in one file.

    Parameters
    ----------
    file : (Path, str)
        With its name below the given folder.

    Returns
    -------
    list of (str, bytes)
        What each is, in petgan's words, and its value.
    bool
        Whether the file could be read to its end.
    """
    path, name = file
    found: list[Identity] = []
    complete = True
    try:
        kind = format_of(path)
        if path.suffix.lower() == ".ics":
            with open(path, "rb") as ics:
                found += embedded.ics_texts(ics.read(LARGE))
        elif kind == "dicom":
            _dicom(path, found)
        elif kind is not None:
            with embedded.opened(path) as data:
                found += embedded.texts(data)
    except Exception:
        complete = False
    return [*name_identities(name), *_that_count(found)], complete


def name_identities(name: str) -> list[Identity]:
    """What identifies in the name of a file below the given folder."""
    return _that_count(_names(name))


def _that_count(found: Iterable[Identity]) -> list[Identity]:
    cut = ((kind, value.strip(b"\0 \t\r\n")[:LONGEST]) for kind, value in found)
    return [(kind, value) for kind, value in cut if _counts(value)]


def _counts(value: bytes) -> bool:
    if len(set(value)) < 2:  # nothing, or one character several times
        return False
    text = value.decode("utf-8", "replace").casefold()
    return not (text in VOCABULARY or is_of_the_standard(text) or _SOFTWARE.match(value))


def _names(name: str) -> Iterator[Identity]:
    parts = PurePosixPath(name).parts
    if len(parts) > 1:
        yield "path of a file", _encoded(name)
    for part in parts[:-1]:
        yield "name of a folder", _encoded(part)
    stem = parts[-1]
    while "." in stem[1:]:
        stem = stem.rpartition(".")[0]
    if stem.casefold() not in VOCABULARY:
        yield "name of a file", _encoded(parts[-1])
        yield "name of a file", _encoded(PurePosixPath(parts[-1]).stem)
        yield "name of a file", _encoded(stem)


def _dicom(path: Path, found: list[Identity]) -> None:
    """Add what can be read; raises if that is not all."""
    with mute():
        try:
            data = dcmread(path, force=True, defer_size=LARGE)
        except Exception:
            _add(dcmread(path, force=True, stop_before_pixels=True), found)
            raise
        _add(data, found)
    if "PatientID" not in data and "SOPInstanceUID" not in data:
        raise ValueError("cut short")


def _add(data: FileDataset, found: list[Identity]) -> None:
    for part in (data.file_meta, data):
        for identity in _attributes(part, within=False):
            found.append(identity)


def _attributes(data: Any, *, within: bool) -> Iterator[Identity]:
    """Of a dataset; `within` a sequence that the profile removes everything counts."""
    for tag in list(data.keys()):
        if tag.element == 0:  # length of a group
            continue
        raw = data.get_item(tag)
        vr = raw.VR
        if vr in (None, "UN", "SQ"):
            try:
                element = data[tag]
            except Exception:
                element = None
            vr = element.VR if element is not None else vr
            if vr == "SQ" and element is not None:
                for item in element.value or ():
                    yield from _attributes(item, within=within or identifies(tag))
                continue
        if within or identifies(tag, vr):
            kind = _named(tag)
            for value in _values(data, tag, raw, str(vr)):
                yield kind, value


def _named(tag: BaseTag) -> str:
    keyword = "private attribute" if tag.is_private else keyword_for_tag(tag) or "attribute"
    return f"{keyword} ({tag.group:04X},{tag.element:04X})"


def _values(data: Dataset, tag: BaseTag, raw: Any, vr: str) -> Iterator[bytes]:
    value = raw.value
    if value is None and isinstance(raw, RawDataElement) and raw.length:  # too large to be read at once
        value = data[tag].value
    if vr in _NUMBER_VRS:
        number = data[tag].value
        for one in number if isinstance(number, list | tuple) or hasattr(number, "append") else [number]:
            yield str(one).encode()
        return
    if vr in _TEXT_VRS or not isinstance(value, bytes):
        for text in _as_texts(data, tag, raw, vr):
            yield from _text_forms(text, vr)
        return
    stripped = value.strip(b"\0 ")
    if stripped.isascii() and stripped.decode("ascii").isprintable():
        yield from _text_forms(stripped.decode("ascii"), "LO")
    elif len(value) >= 8:
        start = anchor(value[:4096]) or 0
        yield value[start : start + BINARY]


def _as_texts(data: Dataset, tag: BaseTag, raw: Any, vr: str) -> Iterator[str]:
    if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) and raw.value.isascii():
        yield raw.value.decode("ascii")
        return
    try:
        value = data[tag].value
    except Exception:
        value = raw.value.decode("latin-1") if isinstance(raw.value, bytes) else ""
    several = [] if value is None or isinstance(value, str | bytes) else value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if hasattr(several, "append"):
        yield "\\".join(map(str, several))
    elif value is not None:
        yield str(value)


def _text_forms(text: str, vr: str) -> Iterator[bytes]:
    text = text.strip("\0 ")
    yield _encoded(text)
    several = [text] if vr in _ONE_VALUE else text.split("\\")
    for one in map(str.strip, several):
        yield _encoded(one)
        if vr == "DA" and re.fullmatch(r"\d{8}", one):
            yield f"{one[:4]}-{one[4:6]}-{one[6:]}".encode()
        if vr == "PN":
            for group in one.split("="):
                yield _encoded(group)
                parts = [part for part in group.split("^") if part.strip()]
                yield _encoded(" ".join(parts))
                yield _encoded(" ".join(reversed(parts)))
                for part in parts:
                    yield _encoded(part)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
