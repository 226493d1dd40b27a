"""Sweeps and tables: the part of a grid that says which points there are, and how they are shown."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from petgan.config import (
    DEPENDENT_FIELDS,
    OPTIMIZERS_WITH_BETAS,
    Frozen,
    Point,
    complete_point,
    default_of,
    defaults_of,
    fields_of,
    resolve_point,
)
from petgan.errors import ConfigError
from petgan.presets import PRESETS
from petgan.yamlsource import Place, YamlSource

UNKNOWN_IMAGE_SIZE = 224  # while there is no dataset
_NOT_IN_A_GRID = {
    "seed": "the key 'seeds' of the grid gives the seeds",
    "image_size": "the images of the dataset give it",
    "init_from": "'petgan transfer' gives it",
    "init_digest": "'petgan transfer' gives it",
}
_BETAS = ("beta_1", "beta_2")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Values = dict[str, Any]

#: What a point sets, without its seed, and the full names of the sweeps that it belongs to.
Configuration = tuple[Values, tuple[str, ...]]


class Sweep(Frozen):
    """A named set of points: every combination of what stands in its parts.

    Parameters
    ----------
    name : str
        A nested sweep is called ``parent/child``; the parent's name stands for all its children.
    preset : str or list of str, optional
        The nearest one counts: of this sweep, of its parents, of the grid's ``base``.
    base : dict
        Values of every point of this sweep; they win over the grid's.
    product : dict of lists
        Axes that are crossed.
    zip : dict of lists of one length
        Axes that are walked side by side.
    points : list of dict
        Values that belong together; crossed with the axes.
    exclude : list of dict
        Points that agree with one of these in all that it names are left out.
    sweeps : list of Sweep
        Each is crossed with all of the above; then the parent has no points of its own.
    """

    name: Name
    preset: str | list[str] | None = None
    base: Values = Field(default_factory=dict)
    product: dict[str, list[Any]] = Field(default_factory=dict)
    zip: dict[str, list[Any]] = Field(default_factory=dict)
    points: list[Values] = Field(default_factory=list)
    exclude: list[Values] = Field(default_factory=list)
    sweeps: list[Sweep] = Field(default_factory=list)


class Table(Frozen):
    """A table of a sweep: ``rows`` and ``columns`` are axes; one table for each value of ``by``."""

    title: str
    sweep: str
    rows: str
    columns: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class _Scope:
    """What a sweep has from its parents, and gives to its children with its own parts added."""

    names: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    base: Values = field(default_factory=dict)
    factors: tuple[tuple[Values, ...], ...] = ()
    exclude: tuple[Values, ...] = ()
    given_at: Mapping[str, Place] = field(default_factory=dict)

    @property
    def axes(self) -> list[str]:
        return list(dict.fromkeys(key for factor in self.factors for values in factor for key in values))

    def combinations(self) -> Iterator[Values]:
        presets = tuple({"preset": preset} for preset in self.presets)
        factors = self.factors if "preset" in self.axes else (presets, *self.factors)
        for combination in itertools.product(*factors):
            values: Values = dict(self.base)
            for part in combination:
                values.update(part)
            yield values


class Expansion:
    """All points of a grid's sweeps, and the axes of each sweep."""

    def __init__(self, base: Values, sweeps: list[Sweep], source: YamlSource) -> None:
        self._sweeps = sweeps
        self._source = source
        self._axes: dict[str, list[str]] = {}
        self._base = self._checked_values(base, ("base",))

    def configurations(self) -> list[Configuration]:
        """The points in the order of the file; equal ones are one, which belongs to all their sweeps."""
        found: dict[Point, tuple[Values, dict[str, None]]] = {}
        top = _Scope(presets=(self._base["preset"],) if "preset" in self._base else ())
        for n, sweep in enumerate(self._sweeps):
            for point, values, names in self._points(sweep, ("sweeps", n), top):
                _, sweeps = found.setdefault(point, (values, {}))
                sweeps.update(dict.fromkeys(names))
        return [(values, tuple(sweeps)) for values, sweeps in found.values()]

    def _points(
        self, sweep: Sweep, place: Place, outer: _Scope
    ) -> Iterator[tuple[Point, Values, tuple[str, ...]]]:
        scope = self._scope(sweep, place, outer)
        if scope.names[-1] in self._axes:
            raise self._source.error(place, f"there are two sweeps called {scope.names[-1]!r}")
        self._axes[scope.names[-1]] = scope.axes
        if not sweep.sweeps:
            yield from self._own_points(scope, place)
        for n, child in enumerate(sweep.sweeps):
            yield from self._points(child, (*place, "sweeps", n), scope)
        for name in scope.names[:-1]:
            self._axes[name] = list(dict.fromkeys([*self._axes[name], *scope.axes]))

    def _scope(self, sweep: Sweep, place: Place, outer: _Scope) -> _Scope:
        given_at = self._given_at(sweep, place, outer.axes)
        base = self._checked_values(sweep.base, (*place, "base"))
        own_preset = sweep.preset if sweep.preset is not None else base.pop("preset", None)
        presets = [own_preset] if isinstance(own_preset, str) else own_preset
        if presets is not None:
            presets = self._checked_axis("preset", presets, (*place, "preset"))
        factors = [
            tuple({key: value} for value in self._checked_axis(key, values, (*place, "product", key)))
            for key, values in sweep.product.items()
        ]
        if sweep.zip:
            factors.append(self._zipped(sweep.zip, (*place, "zip")))
        if "points" in sweep.model_fields_set:
            factors.append(self._partial_points(sweep.points, (*place, "points")))
        return _Scope(
            names=(*outer.names, "/".join([*outer.names[-1:], sweep.name])),
            presets=tuple(presets or outer.presets),
            base={**outer.base, **base},
            factors=(*outer.factors, *factors),
            exclude=(*outer.exclude, *self._partial_points(sweep.exclude, (*place, "exclude"))),
            given_at={**outer.given_at, **given_at},
        )

    def _given_at(self, sweep: Sweep, place: Place, outer_axes: list[str]) -> dict[str, Place]:
        """Where each key of a sweep stands; within a sweep it has one place, and an axis stays one."""
        places: list[tuple[str, Place]] = []
        if sweep.preset is not None:
            places.append(("preset", (*place, "preset")))
        for part in ("base", "product", "zip"):
            places += [(key, (*place, part, key)) for key in getattr(sweep, part)]
        in_points = dict.fromkeys(key for values in sweep.points for key in values)
        places += [(key, (*place, "points")) for key in in_points]
        for key, count in Counter([*outer_axes, *(key for key, _ in places)]).items():
            if count > 1:
                raise self._source.error(
                    dict(places)[key], f"the sweep {sweep.name!r} is given {key!r} twice"
                )
        return dict(places)

    def _own_points(self, scope: _Scope, place: Place) -> Iterator[tuple[Point, Values, tuple[str, ...]]]:
        if not scope.presets and "preset" not in scope.axes:
            raise self._source.error(place, "this sweep has no preset", allowed=PRESETS.names())
        kept = 0
        for own in scope.combinations():
            values = {**self._base_for(own), **own}
            if any(_agrees(values, partial) for partial in scope.exclude):
                continue
            kept += 1
            self._refuse_untaken(own, scope)
            try:
                point = resolve_point({**values, "image_size": UNKNOWN_IMAGE_SIZE})
            except ConfigError as error:
                raise self._source.error(place, str(error)) from None
            yield point, values, scope.names
        if not kept:
            raise self._source.error(place, f"the sweep {scope.names[-1]!r} has no points left")

    def _base_for(self, own: Values) -> Values:
        """The grid's base without what this point's preset, optimizer or other values do not take."""
        taken = fields_of(own["preset"])
        base = {key: value for key, value in self._base.items() if key in taken}
        optimizer = {**defaults_of({**base, **own}), **base, **own}["optimizer"]
        if str(optimizer).lower() not in OPTIMIZERS_WITH_BETAS:
            base = {key: value for key, value in base.items() if key not in _BETAS}
        for key, other in DEPENDENT_FIELDS:
            if other in own and own[other] == default_of(other):
                base.pop(key, None)
        if "quirks" in base:
            base["quirks"] = [quirk for quirk in base["quirks"] if quirk in PRESETS[own["preset"]].quirks]
        return base

    def _refuse_untaken(self, own: Values, scope: _Scope) -> None:
        for key in own:
            if key not in fields_of(own["preset"]):
                takers = [name for name in PRESETS if key in fields_of(name)]
                raise self._source.error(
                    scope.given_at[key],
                    f"preset {own['preset']} does not take {key!r}",
                    allowed=f"with {', '.join(takers)} only",
                )

    def _zipped(self, axes: Mapping[str, list[Any]], place: Place) -> tuple[Values, ...]:
        checked = {key: self._checked_axis(key, values, (*place, key)) for key, values in axes.items()}
        lengths = {key: len(values) for key, values in checked.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise self._source.error(place, f"the lists of a zip must be equally long: {told}")
        return tuple(dict(zip(checked, row, strict=True)) for row in zip(*checked.values(), strict=True))

    def _partial_points(self, points: list[Values], place: Place) -> tuple[Values, ...]:
        if not points and place[-1] == "points":
            raise self._source.error(place, "this list of points is empty")
        return tuple(self._checked_values(values, (*place, n)) for n, values in enumerate(points))

    def _checked_axis(self, key: str, values: list[Any], place: Place) -> list[Any]:
        if not values:
            raise self._source.error(place, f"the axis {key!r} has no values")
        return [self._checked(key, value, (*place, n)) for n, value in enumerate(values)]

    def _checked_values(self, values: Values, place: Place) -> Values:
        return {key: self._checked(key, value, (*place, key)) for key, value in values.items()}

    def _checked(self, key: str, value: Any, place: Place) -> Any:
        """A single value in its normal form, if any preset could have it."""
        if key in _NOT_IN_A_GRID:
            raise self._source.error(place, f"the key {key!r} has no place here", hint=_NOT_IN_A_GRID[key])
        if key not in Point.model_fields:
            known = [name for name in Point.model_fields if name not in _NOT_IN_A_GRID]
            raise self._source.unknown_key(place if place[-1] == key else place[:-1], known)
        try:
            return _normal(key, value)
        except ConfigError as error:
            raise self._source.error(place, str(error)) from None

    def check_table(self, table: Table, place: Place, configurations: Iterable[Configuration]) -> None:
        """Refuse a table of an unknown sweep or axis, or with two different points in one cell."""
        if table.sweep not in self._axes:
            raise self._source.error(
                (*place, "sweep"), "there is no such sweep", value=table.sweep, allowed=self._axes
            )
        allowed = dict.fromkeys([*self._axes[table.sweep], "preset", "start"])
        axes = {role: getattr(table, role) for role in ("rows", "columns", "by") if getattr(table, role)}
        for role, axis in axes.items():
            if axis not in allowed:
                raise self._source.error(
                    (*place, role),
                    f"the sweep {table.sweep!r} has no such axis",
                    value=axis,
                    allowed=allowed,
                )
            if list(axes.values()).count(axis) > 1:
                raise self._source.error((*place, role), f"the axis {axis!r} is used twice in this table")
        cells: dict[tuple[Any, ...], Point] = {}
        for values, sweeps in configurations:
            if table.sweep in sweeps:
                point = resolve_point({**values, "image_size": UNKNOWN_IMAGE_SIZE})
                cell = tuple(getattr(point, axis) for axis in axes.values() if axis != "start")
                other = cells.setdefault(cell, point)
                if other != point:
                    raise self._source.error(
                        place,
                        f"a cell of this table would hold points that differ in {_difference(point, other)}",
                        hint="make that an axis: rows, columns or by",
                    )


def _difference(a: Point, b: Point) -> str:
    differing = [key for key in Point.model_fields if getattr(a, key) != getattr(b, key)]
    return "preset" if "preset" in differing else " and ".join(differing)


def _normal(key: str, value: Any) -> Any:
    if key == "preset":
        if not isinstance(value, str):
            raise ConfigError("preset: should be a name", value=value, allowed=PRESETS.names())
        PRESETS[value]
        return value
    if isinstance(value, bool) and Point.model_fields[key].annotation is not bool:
        raise ConfigError(f"{key}: should be no truth value", value=value)
    if key == "quirks":
        known = sorted({quirk for name in PRESETS for quirk in PRESETS[name].quirks})
        for quirk in value if isinstance(value, list) else [value]:
            if quirk not in known:
                raise ConfigError("there is no such quirk", value=quirk, allowed=known)
        return value if isinstance(value, list) else [value]
    if key == "recipe":  # a preset need not have those of another
        recipes = list(dict.fromkeys(recipe for name in PRESETS for recipe in PRESETS[name].recipes))
        if value not in recipes:
            raise ConfigError("there is no such recipe", value=value, allowed=recipes)
        return value
    taker = next(name for name in PRESETS if key in fields_of(name))
    values = {"preset": taker, "image_size": UNKNOWN_IMAGE_SIZE, key: value}
    if key in _BETAS:
        values["optimizer"] = "adam"
    return getattr(complete_point(values), key)


def _agrees(values: Values, partial: Values) -> bool:
    """Whether a point, not resolved yet because it need not make sense, has all of `partial`."""
    general = {name: field.default for name, field in Point.model_fields.items()}
    complete = {**general, **defaults_of(values), **values}
    return all(_same(complete[key], value) for key, value in partial.items())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return sorted(a) == sorted(b)
    return bool(a == b)
