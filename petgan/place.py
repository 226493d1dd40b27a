"""Where a process stands among the ranks of its run, as the environment says, and which GPU is its own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from petgan.config import RunConfig
from petgan.errors import ConfigError, RankCountError


@dataclass(frozen=True)
class Place:
    """Where this process stands among the ranks of its run.

    Parameters
    ----------
    rank, ranks : int
        Its number, and how many there are.
    local_rank, local_ranks : int
        The same among those of its node.
    node, nodes : int
        The number of its node, and how many nodes there are.
    node_name : str
        The node as Slurm calls it, or else the host.
    job : str, optional
        The job that started it, such as ``123_4+2``: job, array task, restart.
    rendezvous : Path, optional
        The file, unique to job and restart, through which the ranks find each other.
    interface : str, optional
        The network interface to take, if the site has named one.
    started : bool
        The environment said how many ranks there are: they have to be as many as the run asks for.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1
    node: int = 0
    nodes: int = 1
    node_name: str = ""
    job: str | None = None
    rendezvous: Path | None = None
    interface: str | None = None
    started: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Place:
        """Read ``PETGAN_RANK`` and its like; without them a process is alone.

        Raises
        ------
        ConfigError
            If only some of them are there, or they contradict each other.
        """
        given = {
            k.removeprefix("PETGAN_"): v for k, v in environment.items() if k.startswith("PETGAN_") and v
        }
        node_name, job = given.get("NODE_NAME", socket.gethostname()), given.get("JOB")
        numbers = ("RANK", "RANKS", "LOCAL_RANK", "LOCAL_RANKS", "NODE", "NODES")
        if not any(name in given for name in numbers):
            return cls(node_name=node_name, job=job)
        wanted = [*numbers, *(["RENDEZVOUS"] if given.get("RANKS") != "1" else [])]
        if missing := [name for name in wanted if name not in given]:
            raise ConfigError(
                f"the environment does not say this rank's place: PETGAN_{missing[0]} is missing",
                hint=f"have the task set all of {', '.join(f'PETGAN_{name}' for name in wanted)}",
            )
        try:
            rank, ranks, local_rank, local_ranks, node, nodes = (int(given[name]) for name in numbers)
        except ValueError:
            found = ", ".join(f"PETGAN_{name}={given[name]}" for name in numbers)
            raise ConfigError(
                "the environment's place of this rank is no number", value=found, allowed="integers"
            ) from None
        place = cls(
            rank=rank,
            ranks=ranks,
            local_rank=local_rank,
            local_ranks=local_ranks,
            node=node,
            nodes=nodes,
            node_name=node_name,
            job=job,
            rendezvous=Path(given["RENDEZVOUS"]) if "RENDEZVOUS" in given else None,
            interface=given.get("INTERFACE"),
            started=True,
        )
        place._check()
        return place

    def _check(self) -> None:
        pairs = ((self.rank, self.ranks), (self.local_rank, self.local_ranks), (self.node, self.nodes))
        if not all(0 <= number < count for number, count in pairs):
            raise ConfigError(
                "the environment gives this rank an impossible place",
                value=str(self),
                allowed="numbers from 0 to below how many there are",
            )
        if self.nodes * self.local_ranks != self.ranks:
            raise RankCountError(
                f"the ranks are not spread evenly over the nodes: {self.local_ranks} of {self.ranks} are on "
                f"{self.node_name}, one of {self.nodes} nodes",
                hint="start them with --ntasks-per-node",
            )

    def check(self, config: RunConfig) -> None:
        """Refuse to train a run with more or fewer ranks than it asks for.

        Raises
        ------
        RankCountError
        ConfigError
            If the ranks cannot share its batch.
        """
        wanted = config.resources.ranks
        if self.started and self.ranks != wanted:
            raise RankCountError(
                f"the run asks for {wanted} ranks, {config.resources.nodes} nodes with "
                f"{config.resources.ranks_per_node} each",
                value=self.ranks,
                hint="start as many tasks, or make the run with other resources",
            )
        share_of(config.point.batch_size, self.rank, self.ranks)

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.ranks} on {self.node_name}"


def share_of(batch_size: int, rank: int, ranks: int) -> slice:
    """Which positions of the global batch are this rank's.

    Raises
    ------
    ConfigError
        If `ranks` does not divide `batch_size`.
    """
    if batch_size % ranks:
        raise ConfigError(
            f"{ranks} ranks cannot share a batch evenly",
            value=f"batch_size {batch_size}",
            allowed=f"a multiple of {ranks}: it is global, over all ranks",
        )
    local = batch_size // ranks
    return slice(rank * local, (rank + 1) * local)


def take_gpu(place: Place, environment: dict[str, str] | None = None) -> str:
    """Make one of the visible GPUs this rank's, before TensorFlow is imported, and return its identity.

    Where several are visible, the rank takes the one of its local number. The identity is the GPU's UUID;
    where the driver's ``nvidia-smi`` is not there, its number on the node; "" without any.
    """
    environment = os.environ if environment is None else environment  # type: ignore[assignment]
    assert environment is not None  # noqa: S101
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts
    uuids = _gpu_uuids()
    named = environment.get("CUDA_VISIBLE_DEVICES")
    visible = [v for v in named.split(",") if v] if named is not None else [str(i) for i in range(len(uuids))]
    if not visible or visible == ["-1"]:
        return ""
    # A single one is what Slurm has bound to this task; of several, each rank takes its own.
    mine = visible[0] if len(visible) == 1 else visible[place.local_rank % len(visible)]
    environment["CUDA_VISIBLE_DEVICES"] = mine
    return uuids[int(mine)] if mine.isdigit() and int(mine) < len(uuids) else mine


def _gpu_uuids() -> list[str]:
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.startswith("GPU-")]
