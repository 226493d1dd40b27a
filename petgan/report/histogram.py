"""Histograms of intensities, drawn as SVG that follows the page's colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

from petgan.store import Dataset

BINS = 64
WIDTH, HEIGHT = 360, 210  # of the drawing, in units that are CSS pixels on a phone
LEFT, RIGHT, TOP, BOTTOM = 66, 350, 28, 164  # of its panel
DECADES = 6  # shown at most


@dataclass(frozen=True)
class Histogram:
    """How often which values occur.

    Parameters
    ----------
    edges : ndarray (n + 1,)
        Of the bins, ascending.
    counts : ndarray (n,)
        None negative; of any scale.
    ends : (float, float), optional
        Shares of the values that are exactly black, and exactly white; None where values keep their units.
    """

    edges: np.ndarray
    counts: np.ndarray
    ends: tuple[float, float] | None = None

    @property
    def is_even(self) -> bool:
        """Whether all bins are equally wide."""
        widths = np.diff(self.edges)
        return bool(np.allclose(widths, widths[0], rtol=1e-3, atol=0))

    @property
    def shares(self) -> np.ndarray:
        """Of all values: those in each bin or, where bins differ in width, those per unit of the values."""
        shares = self.counts / max(self.counts.sum(), np.finfo(float).tiny)
        return shares if self.is_even else shares / np.diff(self.edges)


def from_record(told: Mapping[str, Sequence[float]]) -> Histogram | None:
    """A histogram of the record (``edges`` and ``counts``); None if there is nothing in it."""
    edges, counts = np.asarray(told["edges"], float), np.asarray(told["counts"], float)
    if (
        len(counts) == 0
        or len(edges) != len(counts) + 1
        or not counts.sum()
        or not (np.diff(edges) > 0).all()
    ):
        return None
    return Histogram(edges, counts)


def of_images(dataset: Dataset, indices: Iterable[int]) -> Histogram:
    """A histogram of a dataset's images, which are read one by one.

    Integers go into bins of equally many grey levels, 0 to the type's largest value; floating-point values
    into bins from the smallest to the largest of them.
    """
    indices = list(indices)
    if dataset.dtype.kind == "f":
        return _of_floats(dataset, indices)
    levels = int(np.iinfo(dataset.dtype).max) + 1
    counts = np.zeros(levels, np.int64)
    for index in indices:
        counts += np.bincount(dataset.image(index).ravel(), minlength=levels)
    total = max(1, int(counts.sum()))
    return Histogram(
        np.linspace(0, levels, BINS + 1),
        counts.reshape(BINS, -1).sum(axis=1),
        (counts[0] / total, counts[-1] / total),
    )


def _of_floats(dataset: Dataset, indices: Sequence[int]) -> Histogram:
    low, high = math.inf, -math.inf
    for index in indices:
        image = dataset.image(index)
        low, high = min(low, float(image.min())), max(high, float(image.max()))
    if not high > low:
        low, high = (low - 0.5, low + 0.5) if math.isfinite(low) else (0.0, 1.0)
    counts = np.zeros(BINS, np.int64)
    edges = np.linspace(low, high, BINS + 1)
    for index in indices:
        counts += np.histogram(dataset.image(index).astype(np.float64), edges)[0]
    return Histogram(edges, counts)


# --- drawing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """Where a value stands."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float] = field(default_factory=list)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def draw(histogram: Histogram, unit: str, limits: Mapping[str, float], words: str) -> Markup:
    """A histogram as an ``<svg>`` element.

    Parameters
    ----------
    histogram : Histogram
    unit : str
        Of its values; stands below them.
    limits : mapping of str to float
        Values to be marked, by what stands there.
    words : str
        What the drawing shows, for who cannot see it.
    """
    across, up = _across(histogram, limits.values()), _up(histogram)
    each = "a bin" if histogram.is_even else f"per {unit}"
    parts = [
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">',
        *(
            f'<path class="grid" d="M{LEFT} {up(tick)}H{RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{up(tick) + 4:g}" text-anchor="end">{_percent(tick)}</text>'
            for tick in up.ticks
        ),
        f'<path class="bars" d="{_bars(histogram, across, up)}"/>',
        f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>',
        *(
            f'<path class="axis" d="M{across(tick)} {BOTTOM}v4"/>'
            f'<text x="{across(tick)}" y="{BOTTOM + 17}" text-anchor="middle">{_number(tick)}</text>'
            for tick in across.ticks
        ),
        *(_limit(name, across(value)) for name, value in limits.items()),
        f'<text x="{(LEFT + RIGHT) / 2:g}" y="{BOTTOM + 38}" text-anchor="middle">{escape(unit)}</text>',
        f'<text x="2" y="12">share of the pixels, {escape(each)}</text>',
        "</svg>",
    ]
    return Markup("".join(parts))  # noqa: S704 - all that comes from outside is escaped above


def _across(histogram: Histogram, marked: Iterable[float]) -> Axis:
    values = [float(histogram.edges[0]), float(histogram.edges[-1]), *marked]
    low, high = min(values), max(values)
    step = _nice((high - low) / 5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, LEFT, RIGHT, [step * n for n in range(first, last + 1)])


def _up(histogram: Histogram) -> Axis:
    """Of shares, by their decimal logarithms, `DECADES` of them at most."""
    shares = histogram.shares[histogram.shares > 0]
    if not len(shares):
        return Axis(-1, 0, BOTTOM, TOP, [0.0])
    top = math.ceil(math.log10(shares.max()) - 1e-9)
    bottom = max(math.ceil(math.log10(shares.min())) - 1, top - DECADES)
    bottom = min(bottom, top - 1)
    step = math.ceil((top - bottom) / 4)
    return Axis(bottom, top, BOTTOM, TOP, [float(n) for n in range(top, bottom - 1, -step)])


def _bars(histogram: Histogram, across: Axis, up: Axis) -> str:
    path = []
    for low, high, share in zip(histogram.edges[:-1], histogram.edges[1:], histogram.shares, strict=True):
        if share > 0:
            height = min(up(math.log10(share)), BOTTOM - 1)  # what occurs is seen
            path.append(f"M{across(low)} {BOTTOM}V{height}H{across(high)}V{BOTTOM}Z")
    return "".join(path)


def _limit(name: str, x: float) -> str:
    near_end = x > (LEFT + RIGHT) / 2
    anchor, shift = ("end", -4) if near_end else ("start", 4)
    return (
        f'<path class="limit" d="M{x} {TOP - 6}V{BOTTOM}"/>'
        f'<text class="limit" x="{x + shift:g}" y="{TOP + 4}" text-anchor="{anchor}">{escape(name)}</text>'
    )


def _nice(step: float) -> float:
    """The number 1, 2 or 5 times a power of ten that is next above `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:.6g}".replace("e+0", "e").replace("e+", "e") if value else "0"


def _percent(decade: float) -> str:
    """A power of ten as a percentage: -1 is "10 %"."""
    return (
        f"{10.0 ** (decade + 2):.{max(0, round(-decade - 2))}f} %" if decade <= 2 else f"1e{decade + 2:g} %"
    )
