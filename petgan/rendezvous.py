"""How the ranks of a run find each other, and see that they would train the same.

Rank 0 opens a board (`petgan.board`), a small key-value server that Horovod's own rendezvous uses as well,
and says where it is in a file on the shared file system, which only the owner can read. The others write on
the board what they are about to train; rank 0 compares and writes its verdict, a network that all can reach
or a refusal. So they all start, or all stop with the same sentence, and never does each train alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petgan import errors
from petgan.board import Board, Visitor
from petgan.errors import (
    ConfigError,
    InputError,
    Interrupted,
    PetganError,
    RankCountError,
    RankMismatchError,
    RendezvousError,
)
from petgan.place import Place
from petgan.runs import atomic_path, read_json

RENDEZVOUS_SECONDS = 300.0  # PETGAN_RENDEZVOUS_SECONDS: a cold container on a busy file system takes minutes
POLL_SECONDS = 0.2
TELL_SECONDS = 15.0  # between two words on what is being waited for
FAREWELL_SECONDS = 10.0  # for the others to read why they stop

logger = logging.getLogger(__name__)


# --- meeting ------------------------------------------------------------------------------------


@contextlib.contextmanager
def refusals(place: Place) -> Iterator[None]:
    """Whatever stops rank 0 in this block stops the others as well, who wait for it or are yet to come."""
    try:
        yield
    except BaseException as error:
        if place.rank == 0 and place.rendezvous is not None and place.ranks > 1:
            known = error if isinstance(error, PetganError) else RendezvousError(f"rank 0 failed: {error!r}")
            with contextlib.suppress(OSError, PetganError):
                write_private(place.rendezvous, {"job": place.job, **as_refusal(known)})
        raise


@dataclass(frozen=True)
class Network:
    """Where rank 0's board is, and the local interface that leads there."""

    address: str
    port: int
    interface: str


class Patience:
    """How long to wait for other ranks, and what to say meanwhile.

    Parameters
    ----------
    stopping : callable
        Whether this process has been asked to stop.
    seconds : float, optional
        ``PETGAN_RENDEZVOUS_SECONDS``, or `RENDEZVOUS_SECONDS`, by default.
    """

    def __init__(self, stopping: Callable[[], bool], seconds: float | None = None) -> None:
        text = os.environ.get("PETGAN_RENDEZVOUS_SECONDS") or str(RENDEZVOUS_SECONDS)
        try:
            self.seconds = seconds or float(text)
        except ValueError:
            raise ConfigError("PETGAN_RENDEZVOUS_SECONDS", value=text, allowed="seconds") from None
        self.stopping = stopping
        self._began = self._told = time.monotonic()

    def wait_for(self, what: str) -> bool:
        """Wait a moment for `what`; False when it has been too long."""
        now = time.monotonic()
        if now - self._told > TELL_SECONDS:
            self._told = now
            logger.info("waiting for %s, for %d s of %d", what, now - self._began, self.seconds)
        time.sleep(POLL_SECONDS)
        return now - self._began < self.seconds


def meet(
    place: Place, hello: dict[str, Any], stopping: Callable[[], bool]
) -> tuple[Network, Callable[[], None]]:
    """Meet all other ranks; see `petgan.distributed.join`, which this is the first half of.

    Parameters
    ----------
    place : Place
    hello : dict
        What the ranks compare: see `difference`.
    stopping : callable
        Whether this process has been asked to stop.

    Returns
    -------
    Network
    callable
        Closes the board, on rank 0: once Horovod has connected all ranks, nobody needs it.
    """
    hello = {**hello, "node": place.node_name, "ranks": place.ranks}
    if place.rank == 0:
        return _lead(place, hello, Patience(stopping))
    return _follow(place, hello, Patience(stopping)), lambda: None


def write_private(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically, into a file that has never been readable by others."""

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o600)

    with atomic_path(path) as temporary:
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", encoding="utf-8", opener=create) as file:
            json.dump(value, file)


def _lead(place: Place, hello: dict[str, Any], patience: Patience) -> tuple[Network, Callable[[], None]]:
    """Rank 0: open the board, collect every rank's hello, compare, and write the verdict."""
    assert place.rendezvous is not None  # noqa: S101
    place.rendezvous.unlink(missing_ok=True)
    own = interfaces()
    addresses = published(place, own)
    board = Board(addresses, place.ranks)
    try:
        meeting = {"job": place.job, "secret": board.secret, "addresses": board.ports}
        write_private(place.rendezvous, meeting)
        address = _judge(place, board, {0: {**hello, "reach": addresses}}, patience)
    except BaseException:
        board.close()
        raise
    return Network(address, board.ports[address], own[address]), board.close


def _judge(place: Place, board: Board, hellos: dict[int, Any], patience: Patience) -> str:
    """Collect the other ranks' hellos, compare, and write the verdict: rank 0's address that all reach."""
    try:
        _collect(place, board, hellos, patience)
        if error := difference(hellos):
            raise error
        address = common_address(hellos[0]["reach"], hellos)
    except PetganError as error:
        board.put("verdict", as_refusal(error))
        deadline = time.monotonic() + FAREWELL_SECONDS
        while not all(board.get(f"seen.{r}") for r in hellos if r) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        raise
    board.admit_gloo()
    board.put("verdict", {"address": address})
    return address


def _collect(place: Place, board: Board, hellos: dict[int, Any], patience: Patience) -> None:
    while True:
        for rank in range(place.ranks):
            if rank not in hellos and (said := board.get(f"hello.{rank}")) is not None:
                if not _is_hello(said):
                    raise RendezvousError(
                        f"rank {rank} says of itself what rank 0 does not understand",
                        hint="have every node run the same image, or the same environment",
                    )
                hellos[rank] = said
                if said["ranks"] != place.ranks:
                    raise RankCountError(
                        f"rank 0 was told of {place.ranks} ranks, rank {rank} on {said['node']} of others",
                        value=said["ranks"],
                        hint="start all ranks with one srun",
                    )
        if patience.stopping() or board.get("stopping"):
            raise Interrupted("stopped by a signal before its first step")
        missing = [rank for rank in range(place.ranks) if rank not in hellos]
        if not missing:
            return
        who = f"rank{'s' * (len(missing) > 1)} {_listed(map(str, missing))} of {place.ranks}"
        if not patience.wait_for(who):
            raise RendezvousError(
                f"{who} did not come within {patience.seconds:g} s to {place.rendezvous}", hint=_IF_LATE
            )


def _is_hello(said: Any) -> bool:
    kinds = {"node": str, "ranks": int, "facts": dict, "gpu": str | None, "reach": list}
    return isinstance(said, dict) and all(isinstance(said.get(k), kind) for k, kind in kinds.items())


def _follow(place: Place, hello: dict[str, Any], patience: Patience) -> Network:
    """Every other rank: find the board, say hello, and heed the verdict."""
    ways = _find(place, patience)
    board = next(iter(ways.values()))
    hello = {**hello, "reach": list(ways)}
    # Rank 0 has patience of its own, which began later: only its silence ends this.
    patience = Patience(patience.stopping, 2 * patience.seconds + 60)
    verdict, said, heard = None, False, time.monotonic()
    while not verdict:
        try:
            if patience.stopping():  # said first: the last hello ends rank 0's waiting
                board.put("stopping", True)
            if not said:
                board.put(f"hello.{place.rank}", hello)
                said = True
            verdict = board.get("verdict")
            heard = time.monotonic()
        except OSError:
            raise_refusal(_meeting(place))
        silent = time.monotonic() - heard > FAREWELL_SECONDS
        if not verdict and (silent or not patience.wait_for("rank 0's verdict")):
            raise RendezvousError(
                f"rank 0 is gone: nothing answers at {board.address}",
                hint="look into the log for what happened on its node",
            )
    with contextlib.suppress(OSError):
        board.put(f"seen.{place.rank}", True)
    raise_refusal(verdict)
    address = verdict.get("address")
    if address not in ways:
        raise RendezvousError(
            "rank 0 chose an address that this rank does not reach", value=address, allowed=list(ways)
        )
    interface = place.interface or interfaces().get(ways[address].local_address(), "")
    return Network(address, ways[address].port, interface)


def _find(place: Place, patience: Patience) -> dict[str, Visitor]:
    """The ways to the board of this very start, by its addresses."""
    asked_to_stop: float | None = None
    while True:
        meeting = _meeting(place)
        raise_refusal(meeting)
        ways = {}
        for address, port in meeting.get("addresses", {}).items():
            visitor = Visitor(address, port, meeting["secret"])
            with contextlib.suppress(OSError):
                visitor.get("verdict")  # from each network, so that the board knows this rank there
                ways[address] = visitor
        if ways:
            return ways
        if patience.stopping():  # rank 0 may be still to come, and would wait for a word
            asked_to_stop = asked_to_stop or time.monotonic()
            if time.monotonic() - asked_to_stop > FAREWELL_SECONDS:
                raise Interrupted("stopped by a signal before its first step")
        if not patience.wait_for(f"rank 0, at {place.rendezvous}"):
            what = f"could not be reached at {list(meeting['addresses'])}" if meeting else "did not appear"
            raise RendezvousError(
                f"rank 0 {what} within {patience.seconds:g} s; it was to say where in {place.rendezvous}",
                hint=_IF_LATE,
            )


_IF_LATE = (
    "look into the log for what happened on its node; if it is only slow to start, set "
    "PETGAN_RENDEZVOUS_SECONDS higher"
)


def _meeting(place: Place) -> dict[str, Any]:
    """What rank 0 says in the file, unless it is the remainder of another start or not of rank 0's making."""
    assert place.rendezvous is not None  # noqa: S101
    try:
        said = read_json(place.rendezvous)
    except InputError:
        return {}
    if not isinstance(said, dict) or said.get("job") != place.job:
        return {}
    is_whole = isinstance(said.get("secret"), str) and isinstance(said.get("addresses"), dict)
    return said if is_whole or "error" in said else {}


def as_refusal(error: PetganError) -> dict[str, str]:
    """An error as JSON, to be raised by another rank."""
    return {"error": type(error).__name__, "sentence": str(error)}


def raise_refusal(said: Mapping[str, Any]) -> None:
    """Raise the error that `said` holds, if it holds one."""
    if "error" in said:
        kind = vars(errors).get(said["error"])
        if not (isinstance(kind, type) and issubclass(kind, PetganError)):
            kind = PetganError
        raise kind(str(said.get("sentence")))


# --- comparing ----------------------------------------------------------------------------------

#: What the ranks must agree on, and what to do where they do not.
AGREE = {
    "version": "have every node run the same image, or the same environment",
    "code": "submit again: all ranks have to run one snapshot of the code",
    "image": "have every node read the same image file",
    "configuration": "make sure that all nodes see the same run folder",
    "dataset": "bring the same file to all nodes, or use one on the shared file system",
    "source": "bring the same file to all nodes, or use one on the shared file system",
    "weights": "start the run again: it begins from its last checkpoint",
}


def difference(hellos: Mapping[int, Mapping[str, Any]]) -> RankMismatchError | None:
    """What differs between the ranks that must not, as an error of one sentence.

    Parameters
    ----------
    hellos : mapping
        Rank to its ``node``, ``facts`` (a text for each of `AGREE`, or None) and ``gpu`` (its identity, ""
        where the run asks for a GPU and there is none, None where it asks for none).
    """
    for name, hint in AGREE.items():
        ranks_of = defaultdict(list)
        for rank in sorted(hellos):
            ranks_of[hellos[rank]["facts"].get(name)].append(rank)
        if len(ranks_of) > 1:
            found = " but ".join(
                f"{_short(value)} on {_names(ranks, hellos)}" for value, ranks in ranks_of.items()
            )
            return RankMismatchError(f"the ranks differ in their {name}: {found}", hint=hint)

    users = defaultdict(list)
    for rank in sorted(hellos):
        if (gpu := hellos[rank].get("gpu")) is not None:
            users[hellos[rank]["node"] if gpu.isdigit() else "", gpu].append(rank)
    for (_, gpu), ranks in users.items():
        if not gpu:
            return RankMismatchError(
                f"no GPU is visible on {_names(ranks, hellos)}, though the run asks for GPUs",
                hint="check the profile's GPU request, and that the container is started with --nv",
            )
        if len(ranks) > 1:
            return RankMismatchError(
                f"one GPU, {gpu}, would be used by several ranks: {_names(ranks, hellos)}",
                hint="ask for as many GPUs a node as ranks a node",
            )
    return None


def _short(value: str | None) -> str:
    if value is None:
        return "none"
    is_digest = len(value) >= 32 and all(c in "0123456789abcdef:sh" for c in value)
    return value.removeprefix("sha256:")[:12] if is_digest else value


def _names(ranks: Sequence[int], hellos: Mapping[int, Mapping[str, Any]]) -> str:
    nodes = list(dict.fromkeys(hellos[rank]["node"] for rank in ranks))
    return (
        f"rank{'s' * (len(ranks) > 1)} {_listed(map(str, ranks))} ({'nodes' if len(nodes) > 1 else 'node'} "
        f"{_listed(nodes)})"
    )


def _listed(words: Iterable[str], most: int = 8) -> str:
    words = list(words)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


# --- networks -----------------------------------------------------------------------------------

_SIOCGIFADDR = 0x8915
_TYPES = {"32": 0, "1": 1, "772": 3}  # Linux if_arp.h: InfiniBand, Ethernet, loopback


def interfaces() -> dict[str, str]:
    """IPv4 addresses of this host to their interfaces, the fastest network first, loopback last."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):  # without an address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                found[socket.inet_ntoa(answer[20:24])] = name
    return dict(sorted(found.items(), key=lambda item: _preference(item[1])))


def _preference(name: str, folder: Path = Path("/sys/class/net")) -> tuple[int, bool, str]:
    """InfiniBand before Ethernet before others before loopback, and real ones before bridges and such."""
    try:
        kind = (folder / name / "type").read_text().strip()
    except OSError:
        kind = ""
    virtual = "virtual" in Path(os.path.realpath(folder / name)).parts
    return _TYPES.get(kind, 2), virtual, name


def published(place: Place, own: Mapping[str, str]) -> list[str]:
    """The addresses of this host that other ranks may try, the best first.

    Raises
    ------
    ConfigError
        If the interface that the site has named is not here, or has no IPv4 address.
    """
    if place.interface is not None:
        chosen = [address for address, name in own.items() if name == place.interface]
        if not chosen:
            raise ConfigError(
                f"{place.node_name} has no such network interface with an IPv4 address",
                value=place.interface,
                allowed=sorted(set(own.values())),
            )
        return chosen
    loopback = [address for address in own if address.startswith("127.")]
    others = [address for address in own if address not in loopback]
    return loopback if place.nodes == 1 and loopback else others or loopback


def common_address(addresses: Sequence[str], hellos: Mapping[int, Mapping[str, Any]]) -> str:
    """The first of rank 0's addresses that every rank reaches.

    Raises
    ------
    RendezvousError
    """
    for address in addresses:
        if all(address in said["reach"] for said in hellos.values()):
            return address
    reached = {f"rank {rank} on {said['node']}": said["reach"] for rank, said in hellos.items()}
    raise RendezvousError(
        "no network connects all ranks",
        value=reached,
        hint="name an interface that all nodes have: 'interface' in the profile, or PETGAN_INTERFACE",
    )
