"""Colours of cells: a single hue, so that only lightness tells, which colour-blind readers see too."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from petgan.report.cells import Cell
from petgan.report.results import Score

LIGHT, DARK = (234, 242, 251), (8, 64, 129)


def heat_of(cells: Iterable[Cell], score: Score) -> Callable[[Cell], str]:
    """The CSS of a cell's colours among `cells`: the better its mean, the darker.

    The text is black or white, whichever has the higher contrast: at least 4.5 to 1. A cell that is not
    ranked has no colour, and no cell where there is one at most.
    """
    means = [score.sign * cell.mean for cell in cells if cell.is_ranked and cell.mean is not None]
    worst, span = (max(means), max(means) - min(means)) if means else (0.0, 0.0)

    def colour(cell: Cell) -> str:
        if cell.mean is None or not cell.is_ranked or len(means) < 2:
            return ""
        share = (worst - score.sign * cell.mean) / span if span else 0.0
        red, green, blue = (round(a + share * (b - a)) for a, b in zip(LIGHT, DARK, strict=True))
        luminance = _luminance((red, green, blue))
        text = "#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff"
        return f"background:#{red:02x}{green:02x}{blue:02x};color:{text}"

    return colour


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2)."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
