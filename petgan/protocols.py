"""Protocols: which images are scored against which, how many and how. Scores of two of them never compare."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from petgan.errors import ConfigError
from petgan.registry import Registry
from petgan.rulers import METRICS

FEWEST_IMAGES = 4  # of either side: two subsets of two for the kernel distance
MOST_IMAGES = 50_000
USUAL_IMAGES = 150


@dataclass(frozen=True)
class Protocol:
    """A way to take scores.

    Parameters
    ----------
    metrics : tuple of str
        Names of `petgan.rulers.METRICS`.
    suffix : str
        Of the names of its scores.
    resize : str
        To the network's size; a name of `petgan.features.RESIZES`.
    of_all_real : bool
        Whether all real images are the reference, and not the test split alone.
    counts : tuple of (str, int)
        Generated images, by modality; empty where it is for the caller to say.
    jpeg : tuple of str
        Modalities whose real images go through JPEG first.
    averaged : bool
        Whether the averaged generator of the chosen checkpoint draws, and not the plain one of the last.
    """

    metrics: tuple[str, ...]
    suffix: str
    resize: str
    of_all_real: bool = False
    counts: tuple[tuple[str, int], ...] = ()
    jpeg: tuple[str, ...] = ()
    averaged: bool = True

    def count(self, wanted: int | None, modality: str, n_train: int, n_test: int) -> int:
        """How many generated images are scored.

        Raises
        ------
        ConfigError
            If `wanted` is impossible, or the protocol says it.
        """
        fixed = dict(self.counts).get(modality)
        if fixed is not None:
            if wanted not in (None, fixed):
                raise ConfigError(
                    "the published procedure has its own number of images", value=wanted, allowed=[fixed]
                )
            return fixed
        if wanted is None:
            return max(n_test, min(USUAL_IMAGES, n_train // 2))
        if not FEWEST_IMAGES <= wanted <= MOST_IMAGES:
            raise ConfigError(
                "impossible number of images", value=wanted, allowed=f"{FEWEST_IMAGES} to {MOST_IMAGES}"
            )
        return wanted

    def real_images(self, images: np.ndarray, modality: str) -> np.ndarray:
        """Real images (n, size, size) uint8 as the protocol scores against them."""
        return _through_jpeg(images) if modality in self.jpeg else images


PROTOCOLS: Registry[Protocol] = Registry("protocol")
PROTOCOLS.add("petgan", Protocol(tuple(METRICS), "", "antialias"))
# What was published (UPV 2022): FID of 150 images against all of the PET images, of 1000 against all
# mammograms, which had been made JPEG; nearest-neighbour resize; the last generator, which had no average.
PROTOCOLS.add(
    "thesis",
    Protocol(
        ("fid",),
        "-thesis",
        "nearest",
        of_all_real=True,
        counts=(("pet", 150), ("mammogram", 1000)),
        jpeg=("mammogram",),
        averaged=False,
    ),
)


def _through_jpeg(images: np.ndarray) -> np.ndarray:
    """At Pillow's usual quality of 75: which the study used is not known."""
    out = np.empty_like(images)
    for target, image in zip(out, images, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="JPEG")
        target[:] = np.asarray(Image.open(buffer))
    return out
