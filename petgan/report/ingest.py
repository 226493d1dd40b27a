"""The page of an ingest: what went into a dataset, what did not and why, and what it looks like.

All of it comes from the record and the dataset. No name of a file or person is in either of them; the only
names of files on the page are those of the dataset and of what lies beside it.
"""

from __future__ import annotations

import io
import json
import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup
from PIL import Image

from petgan.errors import DatasetError
from petgan.ingest.pipeline import cache_folder
from petgan.ingest.quarantine import PER_SHEET, list_file, sheet_file
from petgan.ingest.record import record_file
from petgan.ingest.window import Window, parse_window
from petgan.report import histogram
from petgan.report.html import data_uri, fill
from petgan.runs import write_text
from petgan.store import SPLITS, Dataset

SHOWN = 12  # images of a group on the contact sheet
THUMBNAIL = 192  # pixels along a side, at most
PAIRS_SHOWN = 20  # of duplicates

MODALITIES = {"pet": "PET", "mammogram": "mammograms"}
UNITS = {"suvbw": "SUVbw (g/ml)", "bqml": "activity concentration (Bq/ml)", "stored": "values as stored"}
COLLECTIONS = {
    "pet": "PET", "cbis-ddsm": "CBIS-DDSM", "inbreast": "INbreast", "ddsm": "DDSM",
    "ddsm-overview": "DDSM overviews", "mini-mias": "mini-MIAS", "mammogram": "other DICOM mammograms",
    "other": "other pictures",
}  # fmt: skip
HANGING = {
    "mip-coronal": "head up, the patient's left on the right",
    "mip-sagittal": "head up, the front on the left",
    "mip-axial": "front up, the patient's left on the right",
}

Groups = dict[tuple[str, str], list[int]]  # positions of images, by collection and view
Item = TypeVar("Item")


def page_file(dataset: Path | str) -> Path:
    """Where the page of a dataset is."""
    return Path(dataset).with_suffix(".ingest.html")


def write_page(record: Mapping[str, Any], dataset: Path | str, output: Path | str | None = None) -> Path:
    """Write the page of an ingest, and return it: one HTML file, without scripts, that fetches nothing.

    Parameters
    ----------
    record : mapping
        The ingest's, as `petgan.ingest.ingest` returns it. What it lacks is left out of the page.
    dataset : path
        The dataset's HDF5 file. Its images are read one by one.
    output : path, optional
        The page; by default ``<stem>.ingest.html`` beside the dataset.

    Raises
    ------
    DatasetError
        If the file is no dataset, or not that of the record.
    DiskError
        If the page cannot be written.
    """
    with Dataset(dataset) as opened:
        told = record["dataset"]["digest"]
        if told != opened.digest:
            raise DatasetError(
                "the record of the ingest is that of another dataset",
                value=told[:12],
                allowed=f"{opened.digest[:12]}, the digest of the dataset",
                hint="ingest the files again",
            )
        page = fill("ingest.html", ingest=Ingest(record, opened))
    output = Path(output) if output is not None else page_file(dataset)
    write_text(output, page)
    return output


@dataclass(frozen=True)
class Finding:
    """A sentence of the summary, and the command that comes next; whether somebody has to act."""

    sentence: str
    command: tuple[str, ...] = ()
    is_urgent: bool = False


@dataclass(frozen=True)
class Counts:
    """Images and patients of a collection, or of all: a cell for each split, and the sum."""

    name: str
    cells: list[tuple[int, int]]


@dataclass(frozen=True)
class Table:
    """Numbers of something, the highest first, by reason or name."""

    title: str
    unit: str
    by: str
    rows: list[tuple[str, int]]


@dataclass(frozen=True)
class Drawing:
    """A histogram on the page."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Group:
    """Some images of one collection and view."""

    caption: str
    pictures: list[str]  # data URIs
    pixelated: bool


class Ingest:
    """What the page shows."""

    def __init__(self, record: Mapping[str, Any], dataset: Dataset) -> None:
        self.record = record
        self.dataset = dataset
        self.window = parse_window(dataset.window)
        self.groups = groups_of(dataset)

    @property
    def title(self) -> str:
        return f"Ingest of {_named(MODALITIES, self.dataset.modality)}"

    # --- in words ---

    @property
    def sentences(self) -> list[str]:
        record, size = self.record, self.dataset.image_size
        origin = f", from {_count(record['files'], 'file')} looked at" if "files" in record else ""
        taken = f"{_count(record['images'], 'image')} of {_count(record['patients'], 'patient')}"
        return [
            f"{taken}{origin}.",
            f"{_capital(_named(MODALITIES, self.dataset.modality))} in {self.units}, "
            f"{size} × {size} pixels, {self.dataset.dtype.name}.",
            *window_in_words(
                self.window, self.units, self.dataset.modality, set(self.dataset.columns["view"])
            ),
        ]

    @property
    def findings(self) -> list[Finding]:
        """What asks for something to be done comes first."""
        found = [
            *self._empty(), *self._refused(), *self._quarantined(), *self._duplicates(), *self._skipped()
        ]  # fmt: skip
        return sorted(found, key=lambda finding: not finding.is_urgent)

    def _refused(self) -> Iterable[Finding]:
        refused = self.record.get("refused")
        if refused is None:
            return
        if not refused["files"]:
            yield Finding("No file was refused.")
            return
        reasons = _count(len(refused["by_reason"]), "reason")
        yield Finding(
            f"{_were(refused['files'], 'file')} refused, for {reasons}. "
            f"{record_file(self.dataset.path).name} lists them by keyed ids; whoever has the key "
            "can turn an id back into the file's name:",
            ("petgan", "dataset", "find", "ID", "--source", "SOURCE"),
            is_urgent=True,
        )

    def _quarantined(self) -> Iterable[Finding]:
        quarantine = self.record.get("quarantine")
        if quarantine is None:
            return
        accepted, waiting = quarantine.get("accepted") or 0, quarantine["pictures"]
        if accepted:
            yield Finding(
                f"{_were(accepted, 'picture')} accepted out of quarantine by a person, and went in."
            )
        rejected = quarantine.get("rejected") or 0
        if rejected:
            yield Finding(f"{_were(rejected, 'picture')} rejected by a person, and stayed out.")
        if not waiting:
            yield Finding("Nothing waits in quarantine.")
            return
        path = self.dataset.path
        last = math.ceil((waiting + rejected + accepted) / PER_SHEET)
        sheets = [sheet_file(path.with_suffix(""), number).name for number in (1, last)[: min(2, last)]]
        decisions = list_file(path.with_suffix("")).name
        yield Finding(
            f"{_were(waiting, 'picture')} kept out of the dataset, in quarantine: text in a picture may name "
            f"a patient, so a person has to decide. Look at {' to '.join(sheets)}, write accept into "
            f"{decisions} beside those that may go in, and ingest again with the same options and the list:",
            (
                "petgan", "ingest", "SOURCE", "--output", shlex.quote(path.name), "--accept-quarantined",
                shlex.quote(decisions),
            ),
            is_urgent=True,
        )  # fmt: skip

    def _duplicates(self) -> Iterable[Finding]:
        duplicates = self.record.get("duplicates")
        if duplicates is None:
            return
        if not duplicates["pairs"]:
            yield Finding("No two images were found to be the same.")
            return
        across = duplicates.get("across_patients", 0)
        yield Finding(
            f"{_count(duplicates['pairs'], 'pair')} of images that are the same, or nearly: "
            f"{duplicates.get('exact', 0)} in every pixel, {across} across patients. "
            + (
                "Patients who share an image are in one split; is it one patient with two names?"
                if across
                else ""
            ),
            is_urgent=bool(across),
        )

    def _skipped(self) -> Iterable[Finding]:
        number = sum(self.record.get("skipped", {}).values())
        if number:
            yield Finding(f"{_were(number, 'file')} skipped, as holding no image for this dataset.")

    def _empty(self) -> Iterable[Finding]:
        """Splits that ought to have images, and have none."""
        shares = self.record.get("configuration", {}).get("split") or [1] * len(SPLITS)
        empty = [s for s, share in zip(SPLITS, shares, strict=True) if share and not self._images_of(s)]
        if empty:
            yield Finding(f"No image is in {' or '.join(empty)}, so nothing can be scored.", is_urgent=True)

    # --- in numbers ---

    @cached_property
    def counts(self) -> list[Counts]:
        """Of each collection, if there are several, then of all."""
        rows = []
        collections = self.record.get("splits_by_collection", {})
        for collection, splits in sorted(collections.items()):
            cells = [splits.get(split, {}) for split in SPLITS]
            pairs = [(cell.get("images", 0), cell.get("patients", 0)) for cell in cells]
            name = _named(COLLECTIONS, collection)
            rows.append(Counts(name, [*pairs, (sum(i for i, _ in pairs), sum(p for _, p in pairs))]))
        patients = self.record.get("patients_by_split", {})
        pairs = [(self._images_of(split), patients.get(split, 0)) for split in SPLITS]
        whole = Counts("all", [*pairs, (self.record["images"], self.record["patients"])])
        return rows if len(rows) == 1 else [*rows, whole]

    def _images_of(self, split: str) -> int:
        return int(self.record.get("by_split", {}).get(split, 0))

    @property
    def views(self) -> list[tuple[str, str, int]]:
        """Collection, view and number of images."""
        return [
            (_named(COLLECTIONS, collection), view, number)
            for collection, views in sorted(self.record.get("by_collection", {}).items())
            for view, number in sorted(views.items())
        ]

    @property
    def kinds(self) -> list[Table]:
        """What the images came from."""
        return _tables(("Formats", "images", "format", self.record.get("by_format")))

    @property
    def left_out(self) -> list[Table]:
        """What is not in the dataset, and why."""
        return _tables(
            ("Refused", "files", "why", self.record.get("refused", {}).get("by_reason")),
            ("In quarantine", "pictures", "why", self.record.get("quarantine", {}).get("by_reason")),
            ("Skipped", "files", "why", self.record.get("skipped")),
        )

    @property
    def suv(self) -> list[Table]:
        """The ways that led to SUV."""
        return _tables(("", "slices", "by which way", self.record.get("suv")))

    @property
    def duplicates(self) -> list[tuple[str, int]]:
        names = {
            "pairs": "pairs of images that are the same, or nearly",
            "exact": "of these, the same in every pixel",
            "across_patients": "of these, across patients",
            "groups": "groups that the pairs make up",
        }
        told = self.record.get("duplicates", {})
        return [(name, told[key]) for key, name in names.items() if key in told] if told.get("pairs") else []

    @property
    def pairs(self) -> list[Sequence[str]]:
        """Ids of the first pairs."""
        return list(self.record.get("duplicates", {}).get("sources", []))[:PAIRS_SHOWN]

    @property
    def pairs_left_out(self) -> int:
        return len(self.record.get("duplicates", {}).get("sources", [])) - len(self.pairs)

    @property
    def units(self) -> str:
        return UNITS.get(self.dataset.units, self.dataset.units)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """How the dataset was made, by name."""
        record, dataset = self.record, self.dataset
        facts = [("petgan", record.get("tool_version", dataset.tool_version))]
        facts += [(name, version) for name, version in sorted(record.get("versions", {}).items())]
        facts += [
            ("dataset digest (SHA-256)", dataset.digest),
            ("key id", dataset.key_id or "none"),
            ("units", dataset.units),
            ("window", dataset.window),
        ]
        facts += [(key, _plain(value)) for key, value in sorted(record.get("configuration", {}).items())
                  if key not in dict(facts)]  # fmt: skip
        return [*facts, ("schema of the record", str(record.get("schema_version", "")))]

    @property
    def audit(self) -> tuple[str, ...]:
        """The command that looks for identities in the dataset, word by word."""
        name = shlex.quote(self.dataset.path.name)
        return ("petgan", "dataset", "audit", name, "FOLDER", "--source", "SOURCE")

    @property
    def files(self) -> list[tuple[str, str]]:
        """What lies beside the page, and what it is."""
        path = self.dataset.path
        record = "the record, in which keyed ids stand for files"
        cache = "what another run need not read again; treat it like the dataset, delete it whenever you like"
        return [
            (path.name, "the dataset"),
            (record_file(path).name, record),
            (cache_folder(path).name, cache),
        ]

    # --- in pictures ---

    @cached_property
    def drawings(self) -> list[tuple[str, list[Drawing]]]:
        """Histograms before and after the window, by collection."""
        by_collection: dict[str, list[int]] = {}
        for (collection, _), indices in self.groups.items():
            by_collection.setdefault(collection, []).extend(indices)
        told = self.record.get("histograms", {})
        drawn = []
        for collection in sorted({*by_collection, *told}):
            name = _named(COLLECTIONS, collection)
            drawings = []
            if collection in told and (before := histogram.from_record(told[collection])):
                drawings.append(self._before(name, before))
            if collection in by_collection:
                drawings.append(
                    self._after(name, histogram.of_images(self.dataset, by_collection[collection]))
                )
            drawn.append((name, drawings))
        return drawn

    def _before(self, name: str, found: histogram.Histogram) -> Drawing:
        caption = f"{name}: before the window, {_range(found)} in {self.units}"
        limits = {}
        if self.window.is_fixed:
            limits = {
                f"black {self.window.low:g}": self.window.low,
                f"white {self.window.high:g}": self.window.high,
            }
            caption += f"; the window is {self.window.low:g} to {self.window.high:g}"
        return Drawing(caption, histogram.draw(found, self.units, limits, f"Histogram. {caption}"))

    def _after(self, name: str, found: histogram.Histogram) -> Drawing:
        if found.ends is None:
            caption = f"{name}: in the dataset, {_range(found)} in {self.units}"
            return Drawing(caption, histogram.draw(found, self.units, {}, f"Histogram. {caption}"))
        top = np.iinfo(self.dataset.dtype).max
        black, white = (_share(share) for share in found.ends)
        caption = f"{name}: after the window, in the dataset; {black} black (0), {white} white ({top})"
        return Drawing(caption, histogram.draw(found, "grey level", {}, f"Histogram. {caption}"))

    @property
    def contact_sheet(self) -> list[Group]:
        """Some images of each collection and view."""
        sheet = []
        for (collection, view), indices in sorted(self.groups.items()):
            picks = picked(indices, self.dataset.columns["patient"], SHOWN)
            images = [self.dataset.image(index)[..., 0] for index in picks]
            caption = (
                f"{_named(COLLECTIONS, collection)}, {view}: {len(picks)} of {_count(len(indices), 'image')}"
            )
            if view in HANGING:
                caption += f"; {HANGING[view]}"
            if self.dataset.dtype.kind == "f":
                low, high = min(map(np.min, images)), max(map(np.max, images))
                caption += f"; black is {low:.4g}, white {high:.4g}, in {self.units}"
            pictures = [data_uri(thumbnail(grey)) for grey in _as_bytes(images)]
            sheet.append(Group(caption, pictures, self.dataset.image_size < THUMBNAIL))
        return sheet


# --- groups of images ---------------------------------------------------------------------------


def groups_of(dataset: Dataset) -> Groups:
    """Positions of the images by collection and view."""
    groups: Groups = {}
    for index, key in enumerate(zip(dataset.columns["collection"], dataset.columns["view"], strict=True)):
        groups.setdefault((str(key[0]), str(key[1])), []).append(index)
    return groups


def picked(indices: Iterable[int], patients: Sequence[str] | np.ndarray, number: int) -> list[int]:
    """At most so many of the positions: of as many patients as can be, and evenly over the images of each."""
    of_patient: dict[str, list[int]] = {}
    for index in indices:
        of_patient.setdefault(patients[index], []).append(index)
    chosen = _evenly(list(of_patient), number)
    each = math.ceil(number / max(1, len(chosen)))
    return _evenly([index for patient in chosen for index in _evenly(of_patient[patient], each)], number)


def _evenly(items: list[Item], number: int) -> list[Item]:
    if len(items) <= number:
        return items
    return [items[int((n + 0.5) * len(items) / number)] for n in range(number)]


def thumbnail(grey: np.ndarray) -> bytes:
    """A PNG file of an image (h, w) uint8, at most `THUMBNAIL` pixels along a side."""
    image = Image.fromarray(grey)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _as_bytes(images: Sequence[np.ndarray]) -> Iterable[np.ndarray]:
    """Images as uint8; of floating-point ones the smallest value of all is black, the largest white."""
    dtype = images[0].dtype
    if dtype.kind == "f":
        low, high = float(min(map(np.min, images))), float(max(map(np.max, images)))
        scale = 255 / (high - low) if high > low else 0.0
        return [np.rint((image.astype(np.float64) - low) * scale).astype(np.uint8) for image in images]
    return [(image >> (8 * dtype.itemsize - 8)).astype(np.uint8) for image in images]


# --- words --------------------------------------------------------------------------------------


def window_in_words(window: Window, units: str, modality: str, views: Collection[str]) -> list[str]:
    """What becomes black and white, and what that means; a few sentences."""
    if window.kind == "none":
        return ["There is no window: values keep their units."]
    if window.kind == "full":
        return ["Black and white are the ends of the range that the files' type can hold."]
    if window.kind != "percentile":
        return [f"The window is fixed: black is {window.low:g}, white {window.high:g}, in {units}."]
    low = "the smallest value" if window.low == 0 else f"percentile {window.low:g}"
    high = "the largest" if window.high == 100 else f"percentile {window.high:g}"
    wholes = sorted({"series" if view == "slice" else "projection" for view in views})
    whole = f"each {' or '.join(wholes)}" if modality == "pet" else "each picture"
    said = [f"Black is {low}, white {high}, of {whole}."]
    if modality == "pet" and window.high < 100:
        said.append("The hottest voxels are clipped.")
    if modality == "pet":
        said.append(
            f"Equal greys are equal uptake only within {whole}; with a fixed window they are everywhere."
        )
    return said


def _named(names: Mapping[str, str], value: str) -> str:
    return names.get(value, value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _were(number: int, noun: str) -> str:
    return f"{_count(number, noun)} {'was' if number == 1 else 'were'}"


def _tables(*told: tuple[str, str, str, Mapping[str, int] | None]) -> list[Table]:
    return [
        Table(title, unit, by, sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        for title, unit, by, counts in told
        if counts
    ]


def _range(found: histogram.Histogram) -> str:
    return f"{found.edges[0]:.4g} to {found.edges[-1]:.4g}"


def _share(share: float) -> str:
    percent = 100 * share
    if not percent:
        return "none is"
    return f"{percent:.1f} % are" if percent >= 0.05 else "under 0.1 % are"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value)
