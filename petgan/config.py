"""What a run is made of: the point (everything that determines its result) and how it is carried out.

`resolve_point` turns the few keys that a user writes into a complete, checked, frozen `Point`;
`run_id` is a hash of it and of the content of its datasets.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from petgan.errors import ConfigError, DatasetError
from petgan.policies import ENLARGEMENTS, normal_policy
from petgan.presets import PRESETS

logger = logging.getLogger(__name__)

RESULT_VERSION = 9  # raised whenever the same point gives other weights than before
CONFIG_SCHEMA: Literal[1] = 1

# Keras' optimizers by their lower-case name, which a test compares with Keras itself, and petgan's own.
OPTIMIZERS = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "lamb", "lion", "muon",
    "nadam", "rmsprop", "sc-rmsprop", "sgd",
)  # fmt: skip
OPTIMIZERS_WITH_BETAS = ("adam", "adamax", "adamw", "lamb", "lion", "nadam")

Positive = Annotated[int, Field(gt=0)]
Width = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
OnTrouble = Literal["continue", "stop"]  # what a run does that sees itself fail; not a matter of weights


class Frozen(BaseModel):
    """A model that does not change and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Point(Frozen):
    """One resolved configuration: all that determines a run's result, but for its datasets.

    ``None`` stands where a field has no meaning for the preset, or leaves the choice to Keras.
    """

    preset: str
    image_size: Positive  # pixels; 7 or 8 times a power of two
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    steps: Positive = 4000  # generator updates
    batch_size: Positive  # global: over all ranks
    latent_size: Positive | None = None
    optimizer: str
    learning_rate: Annotated[float, Field(gt=0)]
    beta_1: Share | None = None
    beta_2: Share | None = None
    discriminator_decay: Annotated[float, Field(ge=0)] = 0.0  # rate / (1 + decay * updates)
    generator_decay: Annotated[float, Field(ge=0)] = 0.0
    gradient_clip: Annotated[float, Field(gt=0)] | None = None  # by value
    dropout: Share = 0.0
    n_critic: Positive = 1  # discriminator updates to one generator update
    ema_decay: Share  # 0 switches the averaged generator off
    recipe: str | None = None  # what has set the fields that were not given
    loss: Literal["bce", "hinge", "least-squares", "wasserstein"] | None = None
    gp_weight: Weight | None = None  # of the gradient penalty between real and generated images
    r1_weight: Weight | None = None  # of the gradient penalty at real images
    lecam_weight: Weight | None = None  # of the distance of scores to their moving averages
    weight_clip: Annotated[float, Field(gt=0)] | None = None
    discriminator_learning_rate: Annotated[float, Field(gt=0)] | None = None  # None: learning_rate
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # weights are float32
    augment: str = "none"  # in training: see petgan.policies.normal_policy
    ada_target: Annotated[float, Field(gt=0, lt=1)] | None = None  # adaptive: the mean sign of real scores
    enlarge: str = "none"  # before training, on the stored images
    enlarge_factor: Positive = 1  # images after it, for each one before
    quirks: tuple[str, ...] = ()
    normalization: Literal["batch", "instance", "group", "layer", "none"] = "none"
    activation: Literal["relu", "leaky_relu", "elu", "selu", "gelu"] | None = None  # hidden; None: published
    spectral_norm: StrictBool = False  # of the discriminator, in place of its normalization
    minibatch_std: StrictBool = False  # of the discriminator
    generator_width: Width = 1.0  # times the published numbers of filters or units
    discriminator_width: Width = 1.0
    init_from: str | None = None  # checkpoint or generator file that the weights start from
    init_digest: str | None = None  # its content; the path does not count for the run id
    init_parts: Literal["both", "generator", "discriminator"] = "both"  # which start from it
    transfer_rate: Annotated[float, Field(gt=0)] = 1.0  # factor on the learning rates of such a run
    freeze_layers: Annotated[int, Field(ge=0)] = 0  # of its discriminator, the first ones with kernels

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, values: Any) -> Any:
        """What a file of an older petgan does not name is as the preset has it."""
        known = isinstance(values, dict) and values.get("preset") in PRESETS
        return {**defaults_of(values), **values} if known else values

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

    @field_validator("augment")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        return normal_policy(value)

    @field_validator("enlarge")
    @classmethod
    def _known_enlargement(cls, value: str) -> str:
        if value != "none" and value not in ENLARGEMENTS:
            raise ConfigError("there is no such enlargement", value=value, allowed=["none", *ENLARGEMENTS])
        return value

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
    steps_per_call: Positive = 1  # at most: more save a GPU the way back and forth
    runs_per_job: Positive = 1  # one after the other, for points that are small beside a job's start

    @property
    def ranks_per_node(self) -> int:
        return self.tasks or self.gpus or 1

    @property
    def ranks(self) -> int:
        """Over how many processes a run is spread."""
        return self.nodes * self.ranks_per_node


class DatasetRef(Frozen):
    """A dataset of a run: where it is, and what was in it when the run was made."""

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
    source: DatasetRef | None = None  # whose images are translated, where the preset does that
    every: Every = Every()
    on_trouble: OnTrouble = "continue"
    resources: Resources = Resources()

    @property
    def datasets(self) -> list[DatasetRef]:
        """All that the run reads."""
        return [self.dataset, *([self.source] if self.source else [])]

    @property
    def source_digest(self) -> str | None:
        return self.source.digest if self.source else None

    @property
    def shown(self) -> DatasetRef | None:
        """The dataset whose images its generator is shown; None where it makes its images of noise."""
        kinds = {"nothing": None, "dataset": self.dataset, "source": self.source}
        return kinds[PRESETS[self.point.preset].shown]


# Fields that say nothing while another one has its default: (the field, the other).
DEPENDENT_FIELDS = (("ada_target", "augment"), ("enlarge", "enlarge_factor"), ("enlarge_factor", "enlarge"))

UNIVERSAL_FIELDS = (
    "preset", "image_size", "seed", "steps", "quirks", "compute_dtype",
    "init_from", "init_digest", "init_parts", "transfer_rate",
)  # fmt: skip


def defaults_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the preset and the recipe of `values` set.

    Raises
    ------
    ConfigError
        If there is no such preset, or it has no such recipe.
    """
    preset = PRESETS[values["preset"]]
    recipe = values.get("recipe", preset.defaults.get("recipe"))
    if recipe is None:
        return dict(preset.defaults)
    if recipe not in preset.recipes:
        raise ConfigError(
            f"preset {values['preset']} has no such recipe", value=recipe, allowed=preset.recipes or "none"
        )
    return {**preset.defaults, **preset.recipes[recipe], "recipe": recipe}


def fields_of(preset: str) -> tuple[str, ...]:
    """The fields of `Point` that `preset` takes."""
    return (*UNIVERSAL_FIELDS, *PRESETS[preset].defaults)


def default_of(key: str) -> Any:
    """The default of a field of `Point`, where it is the same for every preset."""
    return Point.model_fields[key].default


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
        If a key is unknown, has no meaning for the preset or beside the others, or has an impossible value.
    """
    point = complete_point(values)
    for key, other in DEPENDENT_FIELDS:
        if getattr(point, key) != default_of(key) and getattr(point, other) == default_of(other):
            raise ConfigError(
                f"{key} does nothing while {other} is {default_of(other)}",
                value=getattr(point, key),
                hint=f"give {other} too, or leave {key} out",
            )
    if point.ada_target is not None and point.loss == "wasserstein":
        raise ConfigError(
            f"preset {point.preset} does not take 'ada_target'",
            value=point.ada_target,
            hint="the sign of a Wasserstein critic's score says nothing",
        )
    if point.freeze_layers and point.init_parts == "generator":
        raise ConfigError(
            "freeze_layers keeps layers of the discriminator as they came, and init_parts has it start anew",
            value="init_parts: generator",
            allowed="both, discriminator",
        )
    fully_connected = PRESETS[point.preset].fully_connected
    if fully_connected and point.normalization == "instance":
        raise ConfigError(
            "instance normalization is of images, and a fully connected layer makes none",
            value="normalization: instance",
            allowed="batch, group, layer, none",
        )
    mixes = point.normalization == "batch" and not point.spectral_norm and not fully_connected
    for key in ("gp_weight", "r1_weight"):
        if mixes and getattr(point, key) is not None:
            raise ConfigError(
                f"{key} is of one image at a time, and batch normalization mixes them",
                value="normalization: batch",
                allowed="instance, group, layer, none",
            )
    if point.optimizer == "lion" and point.beta_1 == 0:
        raise ConfigError("optimizer lion does not take this beta_1", value=0, allowed="above 0")
    if point.augment != "none" and "unit-range" in point.quirks:
        raise ConfigError(
            "augment takes images in [-1, 1], which the quirk unit-range does not have", value=point.augment
        )
    return point


def complete_point(values: Mapping[str, Any]) -> Point:
    """`resolve_point` without the checks of one field against another: so a single value is checked."""
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
    merged = {**defaults_of(values), **values}
    for key in ("loss", "latent_size", "gp_weight", "weight_clip"):
        if key in preset.defaults and merged[key] is None:
            raise ConfigError(f"preset {name} needs {key!r}", value=None, allowed="a value")
    if str(merged["optimizer"]).lower() not in OPTIMIZERS_WITH_BETAS:
        for key in ("beta_1", "beta_2"):
            if values.get(key) is not None:
                raise ConfigError(
                    f"optimizer {merged['optimizer']} does not take {key!r}",
                    value=values[key],
                    allowed=f"with {', '.join(OPTIMIZERS_WITH_BETAS)} only",
                )
            merged[key] = None
    # What a recipe sets goes where the point's own settings leave it without meaning.
    if merged.get("loss") == "wasserstein" and "ada_target" in merged and "ada_target" not in values:
        merged["ada_target"] = None
    for key, other in DEPENDENT_FIELDS:
        if key in merged and key not in values and merged[other] == default_of(other):
            merged[key] = default_of(key)
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


def source_of(point: Point, source: DatasetRef | None) -> DatasetRef | None:
    """The dataset whose images are translated, for points that do that."""
    return source if PRESETS[point.preset].shown == "source" else None


def check_datasets(points: Sequence[Point], dataset: DatasetRef, source: DatasetRef | None) -> None:
    """Compare the datasets with what these points need.

    Where points take a recipe that has a variant for the dataset's modality (``few-shot-pet`` for PET), and
    none takes the variant, a warning names it.

    Raises
    ------
    ConfigError
        If one of them needs a source and there is none, or none of them takes it.
    DatasetError
        If its images have another size than those of `dataset`.
    """
    _check_source(points, dataset, source)
    _name_variants(points, dataset.modality)


def _check_source(points: Sequence[Point], dataset: DatasetRef, source: DatasetRef | None) -> None:
    takers = [point.preset for point in points if PRESETS[point.preset].shown == "source"]
    if takers and source is None:
        raise ConfigError(
            f"preset {takers[0]} translates images of a second dataset, and none is given",
            hint="give it with --source, or by the key 'source' of the grid",
        )
    if source is None:
        return
    if not takers:
        raise ConfigError(
            "no preset here translates images of a second dataset",
            value=source.path,
            allowed=f"with {', '.join(name for name in PRESETS if PRESETS[name].shown == 'source')} only",
        )
    if source.image_size != dataset.image_size:
        raise DatasetError(
            f"{source.path} has images of another size than {dataset.path}",
            value=source.image_size,
            allowed=[dataset.image_size],
        )


def _name_variants(points: Sequence[Point], modality: str) -> None:
    recipes = {(point.preset, point.recipe) for point in points}
    for preset, recipe in sorted(recipes):
        variant = f"{recipe}-{modality}"
        if variant in PRESETS[preset].recipes and (preset, variant) not in recipes:
            logger.warning(
                "recipe %s of %s is for images of %s, rather than %s: take that one, or compare the two",
                *(variant, preset, modality, recipe),
            )


def run_id(point: Point, dataset_digest: str, source_digest: str | None = None) -> str:
    """A name for the result: 12 hexadecimal digits of the SHA-256 of all that determines it.

    The last digits of its sums hang on the number of ranks and CPUs, too.
    """
    identity = point.model_dump(mode="json", exclude={"init_from"})
    identity |= {"dataset_digest": dataset_digest, "result_version": RESULT_VERSION}
    if source_digest is not None:
        identity["source_digest"] = source_digest
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
