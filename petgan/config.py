"""What a run is made of: the point (everything that determines its result) and how it is carried out.

`resolve_point` turns the few keys that a user writes into a complete, checked, frozen `Point`;
`run_id` is a hash of it and of the dataset's content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from petgan.errors import ConfigError
from petgan.presets import PRESETS

RESULT_VERSION = 2  # raised whenever the same point gives other weights than before
CONFIG_SCHEMA: Literal[1] = 1

# Keras' optimizers by their lower-case name; a test compares the list with Keras itself.
OPTIMIZERS = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lamb", "lion", "muon",
    "nadam", "rmsprop", "schedulefreeadamw", "sgd",
)  # fmt: skip
OPTIMIZERS_WITH_BETAS = ("adam", "adamax", "adamw", "lamb", "lion", "nadam")

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Frozen(BaseModel):
    """A model that does not change and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Point(Frozen):
    """One resolved configuration: all that determines a run's result, but for the dataset.

    ``None`` stands where a field has no meaning for the preset, or leaves the choice to Keras.
    """

    preset: str
    image_size: Positive  # pixels; 7 or 8 times a power of two
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    steps: Positive = 4000  # generator updates
    batch_size: Positive  # global: over all ranks
    latent_size: Positive
    optimizer: str
    learning_rate: Annotated[float, Field(gt=0)]
    beta_1: Share | None = None
    beta_2: Share | None = None
    discriminator_decay: Annotated[float, Field(ge=0)]  # rate / (1 + decay * updates)
    generator_decay: Annotated[float, Field(ge=0)]
    gradient_clip: Annotated[float, Field(gt=0)] | None = None  # by value
    dropout: Share
    n_critic: Positive  # discriminator updates to one generator update
    ema_decay: Share  # 0 switches the averaged generator off
    gp_weight: Annotated[float, Field(ge=0)] | None = None
    weight_clip: Annotated[float, Field(gt=0)] | None = None
    quirks: tuple[str, ...] = ()
    init_from: str | None = None  # checkpoint or generator file that the weights start from
    init_digest: str | None = None  # its content; the path does not count for the run id

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        PRESETS[value]
        return value

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, value: str) -> str:
        if value.lower() not in OPTIMIZERS:
            raise ConfigError("there is no such optimizer", value=value, allowed=OPTIMIZERS)
        return value.lower()

    @field_validator("image_size")
    @classmethod
    def _divisible(cls, value: int) -> int:
        image_base(value)
        return value

    @field_validator("quirks", mode="after")
    @classmethod
    def _sorted(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))


class Every(Frozen):
    """How often a run logs, samples, scores and checkpoints, in steps; it does not touch the weights.

    The best checkpoint is the best of the scored steps. 0 stands for "a tenth of the run".
    """

    log: Positive = 10
    sample: Annotated[int, Field(ge=0)] = 0
    score: Annotated[int, Field(ge=0)] = 0
    checkpoint: Annotated[int, Field(ge=0)] = 0
    keep: Positive = 2  # last checkpoints kept, besides the best

    def resolved(self, steps: int) -> Every:
        """The same with every 0 replaced, for a run of `steps` steps."""
        tenth = max(1, steps // 10)
        return self.model_copy(
            update={k: getattr(self, k) or tenth for k in ("sample", "score", "checkpoint")}
        )


class Resources(Frozen):
    """What one run asks the machine or the cluster for."""

    nodes: Positive = 1
    tasks: Positive | None = None  # a node; by default one a GPU, or one
    gpus: Annotated[int, Field(ge=0)] = 0  # a node
    cpus: Positive = 1  # a task
    mem_gb: Annotated[float, Field(gt=0)] = 4  # a node
    time_min: Positive = 120  # of a job: a run goes on in as many as it needs
    runs_per_job: Positive = 1  # one after the other, for points that are small beside a job's start

    @property
    def ranks_per_node(self) -> int:
        return self.tasks or self.gpus or 1

    @property
    def ranks(self) -> int:
        """Over how many processes a run is spread."""
        return self.nodes * self.ranks_per_node


class DatasetRef(Frozen):
    """The dataset that a run trains on: where it is, and what was in it when the run was made."""

    path: str
    digest: str
    image_size: Positive
    modality: str


class RunConfig(Frozen):
    """Everything that a worker is told about its run; saved as ``config.json``."""

    schema_version: Literal[1] = CONFIG_SCHEMA
    run_id: str
    point: Point
    dataset: DatasetRef
    every: Every = Every()
    resources: Resources = Resources()


UNIVERSAL_FIELDS = (
    "preset", "image_size", "seed", "steps", "quirks", "init_from", "init_digest",
)  # fmt: skip


def fields_of(preset: str) -> tuple[str, ...]:
    """The fields of `Point` that `preset` takes."""
    return (*UNIVERSAL_FIELDS, *PRESETS[preset].defaults)


def image_base(image_size: int) -> tuple[int, int]:
    """Split an image size into the generator's first size (7 or 8) and its number of doublings.

    Raises
    ------
    ConfigError
        If `image_size` is not 7 or 8 times a power of two, or smaller than 14.
    """
    for base in (7, 8):
        doublings = (image_size // base).bit_length() - 1
        if doublings >= 1 and base << doublings == image_size:
            return base, doublings
    raise ConfigError(
        "the networks cannot make images of this size",
        value=image_size,
        allowed="7 or 8 times a power of two, such as 16, 28, 32, 56, 64, 112, 128, 224, 256",
    )


def resolve_point(values: Mapping[str, Any]) -> Point:
    """Complete `values` with the preset's defaults and check them.

    Parameters
    ----------
    values : mapping
        Keys of `Point`; at least ``preset`` and ``image_size``.

    Raises
    ------
    ConfigError
        If a key is unknown, has no meaning for the preset, or has an impossible value.
    """
    if "preset" not in values:
        raise ConfigError("a point needs a preset", allowed=PRESETS.names())
    name = values["preset"]
    preset = PRESETS[name]
    for key in values:
        if key not in fields_of(name):
            known = key in Point.model_fields
            raise ConfigError(
                f"preset {name} does not take {key!r}" if known else f"unknown key {key!r}",
                allowed=fields_of(name),
            )
    merged = {**preset.defaults, **values}
    for key in ("gp_weight", "weight_clip"):
        if key in preset.defaults and merged[key] is None:
            raise ConfigError(f"preset {name} needs {key!r}", value=None, allowed="a number")
    if str(merged["optimizer"]).lower() not in OPTIMIZERS_WITH_BETAS:
        for key in ("beta_1", "beta_2"):
            if values.get(key) is not None:
                raise ConfigError(
                    f"optimizer {merged['optimizer']} does not take {key!r}",
                    value=values[key],
                    allowed=f"with {', '.join(OPTIMIZERS_WITH_BETAS)} only",
                )
            merged[key] = None
    point = validated(Point, merged)
    unknown = set(point.quirks) - set(preset.quirks)
    if unknown:
        raise ConfigError(
            f"preset {name} has no such quirk", value=min(unknown), allowed=preset.quirks or "none"
        )
    return point


def validated(model: type[Any], values: Mapping[str, Any]) -> Any:
    """Build a pydantic `model`, with its first complaint as a `ConfigError` of one sentence."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{key}: {first['msg'].removeprefix('Input ')}", value=first.get("input")) from None


def run_id(point: Point, dataset_digest: str) -> str:
    """A name for the result: 12 hexadecimal digits of the SHA-256 of all that determines it."""
    identity = point.model_dump(mode="json", exclude={"init_from"})
    identity |= {"dataset_digest": dataset_digest, "result_version": RESULT_VERSION}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
