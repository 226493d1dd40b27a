"""Sheets of images, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from petgan.runs import atomic_path

GAP = 2  # pixels between the images of a sheet
READABLE = 96  # smaller images are enlarged to this, or a little more
HEADING = 28  # height of a line of text


def sheet(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lay images (n, size, size) uint8 out on black, row by row: nearly square unless `columns` is given."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    pitch = images.shape[1] + GAP
    out = np.zeros((rows * pitch - GAP, columns * pitch - GAP), np.uint8)
    for i, image in enumerate(images):
        top, left = pitch * (i // columns), pitch * (i % columns)
        out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def contact_sheet(groups: Mapping[str, np.ndarray]) -> np.ndarray:
    """Lay out groups of images under their headings.

    Parameters
    ----------
    groups : mapping of str to ndarray (n, size, size) uint8
        By heading; none of them empty. Small images are enlarged, pixel by pixel.

    Returns
    -------
    ndarray (h, w) uint8
    """
    columns = math.ceil(math.sqrt(sum(map(len, groups.values()))))
    parts = []
    for heading, images in groups.items():
        times = math.ceil(READABLE / images.shape[1])
        body = sheet(images.repeat(times, axis=1).repeat(times, axis=2), columns)
        parts += [_heading(heading, body.shape[1]), body]
    return np.concatenate(parts)


def save_png(path: Path | str, image: np.ndarray) -> None:
    """Write a grey image (h, w) uint8 as PNG, atomically."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def _heading(text: str, width: int) -> np.ndarray:
    line = Image.new("L", (width, HEADING))
    ImageDraw.Draw(line).text(
        (GAP, HEADING // 2), text, fill=255, font=ImageFont.load_default(16), anchor="lm"
    )
    return np.asarray(line)
