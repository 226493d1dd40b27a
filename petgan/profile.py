"""A site's Slurm settings: read from a file, and checked against what the cluster says of itself."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from petgan import slurm
from petgan.config import Frozen, Positive, Resources
from petgan.errors import ConfigError, InputError
from petgan.yamlsource import YamlSource

#: The least that a job needs besides the warning: a container's start and some steps; and Slurm may warn a
#: minute early.
_START_SECONDS = 120

Word = Annotated[str, Field(pattern=r"^[^\s\"'`$\\]+$")]
Line = Annotated[str, Field(pattern=r"^[^\r\n]+$")]


class Profile(Frozen):
    """Everything that differs from cluster to cluster, and nothing of a grid.

    Parameters
    ----------
    partition, account, qos, constraint : str, optional
        As ``sbatch`` takes them; by default the cluster's.
    gpu_request : str
        How GPUs are asked for: ``gres`` or ``gpus-per-node``.
    gpu_type : str, optional
        Such as ``a100``.
    time_min, mem_gb : optional
        Instead of the grid's.
    image : str, optional
        The container's image; without one, runs use the Python that submitted them.
    binds : list of str
        Further folders that the container sees, read-only.
    modules, setup : list of str
        Modules to load and shell lines to run before, on the node.
    sbatch : list of str
        Further options of ``sbatch``, such as ``--reservation=gan``.
    warning_s : int
        How long before its time limit a job is told to write a checkpoint, in seconds.
    interface : str, optional
        Network interface over which the ranks of a run speak; by default they find one.
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    gpu_request: Literal["gres", "gpus-per-node"] = "gres"
    gpu_type: Word | None = None
    time_min: Positive | None = None
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    image: str | None = None
    binds: tuple[str, ...] = ()
    modules: tuple[Word, ...] = ()
    setup: tuple[Line, ...] = ()
    sbatch: tuple[Line, ...] = ()
    warning_s: Annotated[int, Field(ge=10, le=65535)] = 120
    interface: Word | None = None

    @field_validator("sbatch")
    @classmethod
    def _options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for option in value:
            if not option.startswith("--"):
                raise ValueError("an option of sbatch begins with --")
        return value

    def resources(self, grid: Resources) -> Resources:
        """What a run asks for here: the grid's resources, with this site's time and memory."""
        changes = {k: v for k in ("time_min", "mem_gb") if (v := getattr(self, k)) is not None}
        return grid.model_copy(update=changes)


def load_profile(path: Path | str) -> Profile:
    """Read and check a profile; the paths in it are relative to its folder.

    Raises
    ------
    InputError
        If there is no such file, or no such image.
    ConfigError
        With the line, if something in it cannot be meant.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the profile {path}: {error}") from None
    source = YamlSource(path, text)
    content = source.read()
    if not isinstance(content, dict | None):
        raise source.error((), "a profile is a mapping", allowed=Profile.model_fields)
    try:
        profile = Profile(**(content or {}))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            raise source.unknown_key(first["loc"], list(Profile.model_fields)) from None
        words = ".".join(map(str, first["loc"]))
        raise source.error(
            first["loc"],
            f"{words}: {_in_words(first['msg'])}",
            value=first["input"],
        ) from None
    absolute = tuple(str((path.parent / Path(p).expanduser()).resolve()) for p in profile.binds)
    image = profile.image and str((path.parent / Path(profile.image).expanduser()).resolve())
    for needed in filter(None, [image, *absolute]):
        if not Path(needed).exists():
            key = "image" if needed == image else "binds"
            raise source.error(
                (key,),
                f"{key}: there is no {needed}",
                hint="'petgan container build' makes an image" if key == "image" else None,
            )
    return profile.model_copy(update={"image": image, "binds": absolute})


def _in_words(message: str) -> str:
    return message.removeprefix("Value error, ").replace("valid tuple", "list, such as [a, b]")


def check(profile: Profile, grid: Resources) -> None:
    """Compare what a run will ask for with what the cluster has.

    Raises
    ------
    ConfigError
        With the cluster's own limits, if a job could never start or never get anywhere.
    """
    wanted = profile.resources(grid)
    if wanted.time_min * 60 < profile.warning_s + _START_SECONDS:
        raise ConfigError(
            f"a job is told to stop {profile.warning_s} s before its end; it needs {_START_SECONDS} s too",
            value=f"time_min {wanted.time_min}",
            allowed=f"{-(-(profile.warning_s + _START_SECONDS) // 60)} or more",
            hint="raise time_min, or lower warning_s in the profile",
        )
    known = slurm.partitions()
    if profile.partition is not None and profile.partition not in known:
        raise ConfigError(
            "partition: the cluster has none of this name that takes jobs",
            value=profile.partition,
            allowed=known,
        )
    if profile.image is None and importlib.util.find_spec("tensorflow") is None:
        raise ConfigError(
            "the profile names no image, and the Python that would train without one has no TensorFlow",
            hint="give the profile's image; 'petgan container build' makes one",
        )
    name = profile.partition or next(iter(known), None)
    if name is None:
        raise ConfigError("the cluster has no partition that takes jobs", hint="see 'sinfo'")
    _check_account(profile)
    partition = known[name]
    cpus = wanted.cpus * wanted.ranks_per_node
    limits: list[tuple[str, float, float | None, str]] = [
        ("nodes", wanted.nodes, partition.nodes, "nodes"),
        ("CPUs a node", cpus, partition.cpus, "a node"),
        ("GPUs a node", wanted.gpus, partition.gpus, "a node"),
        ("GB of memory a node", wanted.mem_gb, partition.mem_gb, "a node"),
        ("minutes a job", wanted.time_min, partition.time_min, "a job"),
    ]
    for what, asked, most, _ in limits:
        if most is not None and asked > most:
            raise ConfigError(
                f"partition {name} cannot give so many {what}",
                value=_short(asked),
                allowed=f"at most {_short(most)}; its limits are {_limits(limits)}",
                hint="change the grid's resources or the profile",
            )
    _check_nodes(profile, wanted, partition)


def _check_nodes(profile: Profile, wanted: Resources, partition: slurm.Partition) -> None:
    """Refuse words that no node of the partition knows."""
    # "[a*2&b]|c": operators of sbatch, and how many nodes of a kind
    features = re.findall(r"[^&|()\[\],]+", re.sub(r"\*\d+", "", profile.constraint or ""))
    for feature in features:
        if feature not in partition.features:
            raise ConfigError(
                f"constraint: no node of partition {partition.name} has this feature",
                value=feature,
                allowed=sorted(partition.features) or "none, leave constraint out",
            )
    if wanted.gpus and profile.gpu_type is not None and profile.gpu_type not in partition.gpu_types:
        raise ConfigError(
            f"gpu_type: partition {partition.name} has no GPU of this type",
            value=profile.gpu_type,
            allowed=sorted(partition.gpu_types) or "none, its GPUs have no type: leave gpu_type out",
        )


def _check_account(profile: Profile) -> None:
    accounts = slurm.accounts()
    if not accounts:
        return
    if profile.account is not None and profile.account not in accounts:
        raise ConfigError(
            "account: you have none of this name on this cluster", value=profile.account, allowed=accounts
        )
    ours = accounts.values() if profile.account is None else [accounts[profile.account]]
    names = sorted({name for names in ours for name in names})
    if profile.qos is not None and profile.qos not in names:
        raise ConfigError("qos: you have none of this name on this cluster", value=profile.qos, allowed=names)


def _limits(limits: list[tuple[str, float, float | None, str]]) -> str:
    return ", ".join(f"{_short(most)} {what}" for what, _, most, _ in limits if most is not None)


def _short(number: float) -> str:
    return f"{number:.5g}"
