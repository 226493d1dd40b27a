"""Generated images on the page: sheets of samples, and those that come closest to a training image.

Real images get onto the page only where the reader has asked for them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from petgan.errors import DatasetError
from petgan.pictures import GAP
from petgan.report.html import data_uri
from petgan.report.results import Run
from petgan.store import Dataset

NEIGHBOUR_WIDTH = 112  # CSS pixels of an image beside another


@dataclass(frozen=True)
class Sheet:
    """A sheet of samples as the page shows it."""

    caption: str
    image: str  # data URI
    width: int  # CSS pixels
    pixelated: bool


def sheet_of(run: Run, caption: str, width: int) -> Sheet | None:
    """The sheet of the step that was scored, else the last, at most `width` wide; None without one.

    A small sheet is enlarged by a whole number, a large one reduced and compressed.
    """
    files = sorted(run.folder.samples.glob("step-*.png"))
    if not files:
        return None
    scored = run.folder.sample_file(run.evaluation["checkpoint"]["step"]) if run.evaluation else files[-1]
    file = scored if scored in files else files[-1]
    caption = f"{caption}, step {int(file.stem.removeprefix('step-'))}"
    if file != scored:
        caption += ", not the step that was scored"
    with Image.open(file) as image:
        if image.width <= width:
            uri = data_uri(file.read_bytes())
            return Sheet(caption, uri, width // image.width * image.width, pixelated=True)
        image.thumbnail((width * 3 // 2, width * 3 // 2), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
    return Sheet(caption, data_uri(buffer.getvalue(), "jpeg"), width, pixelated=False)


# --- neighbours ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbour:
    """A generated image, and the training image that it is nearest to.

    Parameters
    ----------
    fake, real : str
        Data URIs; `real` is empty unless real images were asked for.
    caption : str
    """

    fake: str
    real: str
    caption: str


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of one run."""

    caption: str
    pairs: list[Neighbour]


class TrainingImages:
    """The training images of an experiment, for a page that may show them.

    Parameters
    ----------
    reference : mapping
        The dataset as the experiment's record has it: ``path`` and ``digest``.
    """

    def __init__(self, reference: Mapping[str, Any]) -> None:
        self.problem = ""  # in one sentence, if they cannot be shown
        self._images: np.ndarray | None = None
        try:
            with Dataset(Path(reference["path"])) as dataset:
                if dataset.digest != reference["digest"]:
                    raise DatasetError(
                        "the dataset has changed since the runs were made",
                        value=dataset.digest[:12],
                        allowed=reference["digest"][:12],
                    )
                if dataset.dtype != np.uint8:
                    raise DatasetError("the dataset's images are not grey levels", value=dataset.dtype.name)
                self._images = dataset.images("train")[..., 0]
        except DatasetError as error:
            self.problem = f"The training images are not shown: {error}."

    def __getitem__(self, index: int) -> str:
        """One image as a data URI; empty if it cannot be shown."""
        if self._images is None or not 0 <= index < len(self._images):
            return ""
        return _png(self._images[index])


def neighbours_of(run: Run, caption: str, training: TrainingImages | None) -> Neighbours | None:
    """The generated images of a run that come closest to a training image; None if it has no such sheet."""
    file = run.folder.nearest_file
    if not run.nearest or not file.is_file():
        return None
    with Image.open(file) as sheet:
        fakes = list(_images_of(np.asarray(sheet.convert("L"))))
    pairs = [
        Neighbour(
            _png(fake),
            training[told["train"]] if training else "",
            f"ratio {told['ratio']:.2f}, training image {told['train']}",
        )
        for told, fake in zip(run.nearest, fakes, strict=False)
    ]
    return Neighbours(caption, pairs)


def _images_of(row: np.ndarray) -> Iterator[np.ndarray]:
    """The square images of a sheet of one row."""
    size = row.shape[0]
    for left in range(0, row.shape[1], size + GAP):
        yield row[:, left : left + size]


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return data_uri(buffer.getvalue())
