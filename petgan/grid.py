"""Grid files: what a user writes to train many points, and the points that follow from it.

A grid is a YAML file with these keys:

``name``       of the experiment
``dataset``    path of the HDF5 file, relative to the current folder; may be given on the command line
``source``     the same of a second one, whose images are translated, for presets that do that
``base``       values for every point; a preset leaves out those that it does not take
``seeds``      whole numbers; every point is trained once with each
``resources``  `petgan.config.Resources` of one run
``every``      `petgan.config.Every`
``on_trouble`` ``continue`` or ``stop``: what becomes of a run that collapses or diverges
``sweeps``     see `Sweep`
``tables``     see `Table`
``published``  see `Published`

Whatever cannot be meant is refused with the line it stands on. Nothing is read but the grid file and the
file of published values; nothing is written.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictInt, ValidationError

from petgan.config import (
    DatasetRef,
    Every,
    Frozen,
    OnTrouble,
    Point,
    Resources,
    check_datasets,
    resolve_point,
    run_id,
    source_of,
)
from petgan.errors import ConfigError, InputError
from petgan.sweeps import UNKNOWN_IMAGE_SIZE, Configuration, Expansion, Name, Sweep, Table, Values
from petgan.yamlsource import Place, YamlSource

PUBLISHED_COLUMNS = (
    "table", "dataset", "model", "optimizer", "dropout", "batch_size", "learning_rate", "gp_weight", "fid",
)  # fmt: skip


class Published(Frozen):
    """Values of another study to stand beside ours: a CSV file of `PUBLISHED_COLUMNS`.

    The file is given relative to the grid; ``dataset``, one or several, chooses among its rows.
    """

    file: str
    dataset: str | list[str]

    @property
    def datasets(self) -> list[str]:
        return [self.dataset] if isinstance(self.dataset, str) else self.dataset


class _GridFile(Frozen):
    name: Name
    dataset: str | None = None
    source: str | None = None
    base: Values = Field(default_factory=dict)
    seeds: list[Annotated[StrictInt, Field(ge=0, lt=2**31)]] = Field(default=[0], min_length=1)
    resources: Resources = Resources()
    every: Every = Every()
    on_trouble: OnTrouble = "continue"
    sweeps: Annotated[list[Sweep], Field(min_length=1)]
    tables: list[Table] = Field(default_factory=list)
    published: Published | None = None


@dataclass(frozen=True)
class GridPoint:
    """One point of a grid.

    Parameters
    ----------
    run_id : str or None
        None while the dataset is unknown.
    point : Point
    sweeps : tuple of str
        Full names of all sweeps that it belongs to, parents before children.
    start : str
        ``scratch``, or ``transfer`` where the point starts from other networks.
    source : DatasetRef or None
        The dataset whose images are translated, where the preset does that.
    """

    run_id: str | None
    point: Point
    sweeps: tuple[str, ...]
    start: str = "scratch"
    source: DatasetRef | None = None

    def named(self, dataset: DatasetRef) -> GridPoint:
        """The same with the run id that it has on this dataset."""
        source = self.source.digest if self.source else None
        return replace(self, run_id=run_id(self.point, dataset.digest, source))


@dataclass(frozen=True)
class Grid:
    """A grid file that was read and found to be sound.

    Parameters
    ----------
    path : Path
    text : str
        The file's content.
    name, dataset, source, seeds, resources, every, on_trouble, tables
        As in the file.
    published : list of dict or None
        The rows of the published file that were asked for.
    published_datasets : list of str
    configurations : list of Configuration
        The points without their seeds.
    """

    path: Path
    text: str
    name: str
    dataset: str | None
    source: str | None
    seeds: tuple[int, ...]
    resources: Resources
    every: Every
    on_trouble: OnTrouble
    tables: tuple[Table, ...]
    published: list[dict[str, Any]] | None
    published_datasets: list[str]
    configurations: list[Configuration]


def grid_file(name: str) -> Path:
    """The path of a grid that comes with petgan, such as ``demo.yaml``: in a checkout or as installed.

    Raises
    ------
    InputError
        If none has this name.
    """
    package = Path(__file__).parent
    folder = next((f for f in (package / "_grids", package.parent / "grids") if f.is_dir()), package)
    if not (folder / name).is_file():
        names = sorted(file.name for file in folder.glob("*.yaml"))
        raise InputError("no such grid comes with petgan", value=name, allowed=names or "none")
    return folder / name


def load_grid(path: Path | str) -> Grid:
    """Read and check a grid file.

    Raises
    ------
    InputError
        If there is no such file, or it is no text.
    ConfigError
        With the file and the line, if anything in it cannot be meant.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"there is no grid {path}", hint="'ls grids' shows those that come with petgan"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the grid {path}: {error}") from None
    source = YamlSource(path, text)
    content = source.read()
    if not isinstance(content, dict):
        raise source.error((), "a grid is a mapping with the keys name, base, seeds, sweeps, tables")
    try:
        parsed = _GridFile(**content)
    except ValidationError as error:
        raise _complaint(error, source) from None
    if len(set(parsed.seeds)) < len(parsed.seeds):
        raise source.error(("seeds",), "a seed is given twice")
    expansion = Expansion(parsed.base, parsed.sweeps, source)
    configurations = expansion.configurations()
    for number, table in enumerate(parsed.tables):
        expansion.check_table(table, ("tables", number), configurations)
    return Grid(
        path=path,
        text=text,
        name=parsed.name,
        dataset=parsed.dataset,
        source=parsed.source,
        seeds=tuple(parsed.seeds),
        resources=parsed.resources,
        every=parsed.every,
        on_trouble=parsed.on_trouble,
        tables=tuple(parsed.tables),
        published=_published_rows(parsed.published, source) if parsed.published else None,
        published_datasets=parsed.published.datasets if parsed.published else [],
        configurations=configurations,
    )


def expand(
    grid: Grid, dataset: DatasetRef | None = None, source: DatasetRef | None = None
) -> list[GridPoint]:
    """The points of a grid: all with the first seed, then all with the second, and so on.

    Parameters
    ----------
    grid : Grid
    dataset : DatasetRef, optional
        Without it the image size is taken to be 224, and there are no run ids.
    source : DatasetRef, optional
        The dataset whose images are translated.

    Raises
    ------
    ConfigError, DatasetError
        If there is a dataset, and `source` is not what its points need.
    """
    image_size = dataset.image_size if dataset else UNKNOWN_IMAGE_SIZE
    points: list[GridPoint] = []
    for seed in grid.seeds:
        for values, sweeps in grid.configurations:
            point = resolve_point({**values, "image_size": image_size, "seed": seed})
            points.append(GridPoint(None, point, sweeps, source=source_of(point, source)))
    if dataset is None:
        return points
    check_datasets([point.point for point in points], dataset, source)
    return [point.named(dataset) for point in points]


_PARTS: dict[str, type[BaseModel]] = {
    "resources": Resources,
    "every": Every,
    "sweeps": Sweep,
    "tables": Table,
    "published": Published,
}


def _complaint(error: ValidationError, source: YamlSource) -> ConfigError:
    """The first complaint of pydantic as a sentence; a mistyped key comes before a missing one."""
    first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    place = first["loc"]
    words = [part for part in place if isinstance(part, str)]
    if first["type"] == "extra_forbidden":
        part = next((_PARTS[word] for word in reversed(words[:-1]) if word in _PARTS), _GridFile)
        return source.unknown_key(place, list(part.model_fields))
    if first["type"] == "missing":
        return source.error(place[:-1], f"the key {words[-1]!r} is missing")
    if words[-2:-1] == ["preset"]:  # pydantic adds which member of the union it tried
        return source.error(place[:-1], "preset: should be a name or a list of names", value=first["input"])
    message = re.sub(r"^(Input|String) | or instance of \w+", "", first["msg"])
    return source.error(place, f"{words[-1]}: {message}", value=first["input"])


def _published_rows(published: Published, source: YamlSource) -> list[dict[str, Any]]:
    file = source.folder / published.file
    here: Place = ("published", "file")
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError):
        raise source.error(here, f"cannot read the published values in {file}") from None
    if not rows or set(rows[0]) != set(PUBLISHED_COLUMNS):
        raise source.error(here, f"{file} must have the columns {', '.join(PUBLISHED_COLUMNS)}")
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    for dataset in published.datasets:
        if dataset not in datasets:
            raise source.error(
                ("published", "dataset"), f"{file} has no such dataset", value=dataset, allowed=datasets
            )
    return [
        {key: _number(key, text) for key, text in row.items()}
        for row in rows
        if row["dataset"] in published.datasets
    ]


def _number(key: str, text: str) -> Any:
    if key in ("table", "dataset", "model", "optimizer"):
        return text or None
    if not text:
        return None
    return int(text) if key == "batch_size" else float(text)
