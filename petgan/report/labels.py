"""How values, axes, scores and files are called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from petgan.report.results import Score

SAME_AS_BEST = "≈"


def value_label(value: Any) -> str:
    """A value of an axis as a table shows it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "none"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def axis_label(axis: str | None) -> str:
    """The name of an axis as a table shows it."""
    return "penalty weight" if axis == "gp_weight" else (axis or "").replace("_", " ")


def how_to_read(score: Score, marks: bool = True) -> str:
    """What the numbers of a cell are, and which are good; `marks` where ties have a sign."""
    told = f"Mean over seeds [its 95 % interval] (number of seeds); {score.better} is better"
    return f"{told}; {SAME_AS_BEST} no difference to the best is shown" if marks else told


def floor_in_words(score: Score) -> str:
    """What the same score gives for real against real images."""
    if not score.floors:
        return "no floor was taken"
    values = [floor["value"] for floor in score.floors]
    between = f"{score.number(min(values))} to {score.number(max(values))}"
    if len(score.floors) > 1:
        return f"floor, real against real: {between}"
    (floor,) = score.floors
    return (
        f"floor, real against real: {score.number(floor['value'])} "
        f"[{score.number(floor['low'])}, {score.number(floor['high'])}] ({floor['repeats']} splits)"
    )


def blind_in_words(score: Score) -> str:
    """What the ruler was shown not to see."""
    if score.blind_to is None:
        return "this ruler was not checked"
    if not score.blind_to:
        return "this ruler sees all that it was checked for"
    return f"this ruler does not see images that are {' or '.join(score.blind_to)}"


def ruler_in_words(score: Score) -> str:
    protocol = "" if score.protocol == "petgan" else f", protocol {score.protocol}"
    return (
        f"{score.label}: {score.n_fake} generated against {score.n_real} real images{protocol}; "
        f"{floor_in_words(score)}; {blind_in_words(score)}; ruler {score.ruler}"
    )


def unique_slugs(names: Iterable[str]) -> list[str]:
    """File names for `names`: lower-case ASCII letters, digits and hyphens, each given once."""
    slugs: list[str] = []
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "table"
        number = 2
        unique = slug
        while unique in slugs:
            unique, number = f"{slug}-{number}", number + 1
        slugs.append(unique)
    return slugs
