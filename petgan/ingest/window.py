"""Windows: which values become black and white.

======================  ==================================================================================
``full``                the range that the stored type can hold (8 bits: 0 to 255); the smallest to the
                        largest value where the type says nothing, as for PET and floats
``percentile:LOW,HIGH`` these percentiles of the series (PET) or of the picture
``UNITS:LOW,HIGH``      fixed values in the units of the images, e.g. ``suv:0,10``, ``bqml:0,50000``,
                        ``stored:0,4095``
``none``                no window: the values stay as they are, in their units, float32
======================  ==================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from petgan.errors import ConfigError

SAMPLE = 2**22  # values that percentiles are taken from; of a larger series every k-th counts
GRAMMAR = "auto, none, full, percentile:LOW,HIGH or UNITS:LOW,HIGH, such as suv:0,10 or bqml:0,50000"
UNSCALED = ("full", "none")


@dataclass(frozen=True)
class Window:
    """``kind`` is ``full``, ``none``, ``percentile``, or the units of `low` and `high`."""

    kind: str
    low: float = 0.0
    high: float = 100.0

    def __str__(self) -> str:
        return self.kind if self.kind in UNSCALED else f"{self.kind}:{self.low:g},{self.high:g}"

    @property
    def is_fixed(self) -> bool:
        return self.kind not in (*UNSCALED, "percentile")

    @property
    def units(self) -> str:
        """Those of `low` and `high`, as a dataset names them."""
        return {"suv": "suvbw"}.get(self.kind, self.kind)

    def limits(self, images: Iterable[np.ndarray], pixels: int, span: tuple[float, float] | None) -> Limits:
        """Values that become black and white.

        Parameters
        ----------
        images : iterable of ndarray
            All of the series; taken one by one.
        pixels : int
            How many values they have together.
        span : (float, float), optional
            What the stored type can hold.
        """
        if self.is_fixed:
            return self.low, self.high
        if self.kind == "full" and span is not None:
            return span
        sample, lowest, highest = [], math.inf, -math.inf
        for image in images:
            sample.append(sampled(image, math.ceil(pixels / SAMPLE)))
            lowest, highest = min(lowest, float(image.min())), max(highest, float(image.max()))
        if not sample:
            return 0.0, 0.0
        values = np.concatenate(sample)
        low = lowest if self.low == 0 else float(np.percentile(values, self.low))
        high = highest if self.high == 100 else float(np.percentile(values, self.high))
        return low, high


def sampled(image: np.ndarray, step: int) -> np.ndarray:
    """Every k-th value, for the smallest k from `step` on that leaves out no column."""
    while math.gcd(step, image.shape[-1]) > 1:
        step += 1
    return image.ravel()[::step].copy()


Limits = tuple[float, float]


def parse_window(text: str) -> Window:
    """Read a window.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if text in UNSCALED:
        return Window(text)
    kind, colon, numbers = text.partition(":")
    try:
        low, high = map(float, numbers.split(","))
    except ValueError:
        low = high = math.nan
    within = kind != "percentile" or 0 <= low < high <= 100
    if not (kind.isidentifier() and colon and low < high and math.isfinite(high - low) and within):
        raise ConfigError("there is no such window", value=text, allowed=GRAMMAR)
    return Window(kind.lower(), low, high)


def apply(values: np.ndarray, limits: Limits, top: int = 255) -> np.ndarray:
    """Turn values into grey levels, 0 to `top` and not rounded: float32 of the same shape."""
    low, high = limits
    if high <= low:
        return np.zeros_like(values, np.float32)
    return np.clip((values - np.float32(low)) * np.float32(top / (high - low)), 0, top).astype(np.float32)
