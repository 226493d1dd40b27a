"""How the ranks of a run speak while they train it together: over Horovod, which this module alone knows.

A run of one rank does not need it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petgan.errors import PetganError, RankCountError, RendezvousError, TrainingError, UserError
from petgan.place import Place
from petgan.rendezvous import Network, as_refusal, difference, meet, raise_refusal

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

LOST_SECONDS = 45  # without a sign of life from another rank, in training

logger = logging.getLogger(__name__)


class Alone:
    """A run of one rank: nobody to speak with, and nothing that costs time.

    Attributes
    ----------
    rank, ranks : int
    node_name : str
        Of this rank.
    """

    rank = 0
    ranks = 1
    node_name = ""

    def average(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The mean of each tensor over the ranks, in one collective; not differentiable."""
        return list(tensors)

    def gather(self, tensor: tf.Tensor) -> tf.Tensor:
        """Every rank's `tensor` (...), as (ranks, ...); gradients go back to the rank that each is from."""
        return tensor[None]

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        return flag

    def tell_all(self, value: Any) -> list[Any]:
        """Every rank's `value`, which must be JSON, in the ranks' order."""
        return [value]

    def first_does(self, work: Callable[[], Any]) -> Any:
        """Have rank 0 do `work`; everywhere return its result, which must be JSON, or raise its error."""
        return work()

    def broadcast(self, variables: Iterable[keras.Variable]) -> None:
        """Set all ranks' variables to those of rank 0."""

    def close(self) -> None:
        """Part from the others, in peace."""


ALONE = Alone()


class Ranks(Alone):
    """Several ranks, over Horovod, which `join` has started.

    The collectives that a graph contains must be traced in the same order on all ranks: they are named by
    it. Horovod carries them out in any order, by their names.
    """

    def __init__(self, place: Place) -> None:
        import horovod.tensorflow as hvd
        import tensorflow as tf

        self._hvd, self._tf = hvd, tf
        self.rank, self.ranks, self.node_name = place.rank, place.ranks, place.node_name
        self._names = itertools.count()

    def average(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        means: list[tf.Tensor] = self._hvd.grouped_allreduce(
            list(tensors), op=self._hvd.Average, name=self._name(), ignore_name_scope=True
        )
        return means

    def gather(self, tensor: tf.Tensor) -> tf.Tensor:
        # A sum of what each puts at its own place is differentiated by one sum, and does not ask for sizes
        # as Horovod's allgather would.
        others = [[self.rank, self.ranks - self.rank - 1], *[[0, 0]] * len(tensor.shape)]
        return self._sum(self._tf.pad(tensor[None], others))

    def _sum(self, tensor: tf.Tensor) -> tf.Tensor:
        # Horovod's own gradient is named by the tensor, and so by the names that Keras gives to layers.
        @self._tf.custom_gradient
        def summed(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            name = self._name()
            return self._hvd.allreduce(x, op=self._hvd.Sum, name=name, ignore_name_scope=True), self._sum

        return summed(tensor)

    def any(self, flag: bool) -> bool:
        with self._tf.device("CPU:0"):
            count = self._hvd.allreduce(self._tf.constant(float(flag)), op=self._hvd.Sum, name="petgan.any")
        return bool(count > 0)

    def tell_all(self, value: Any) -> list[Any]:
        text = json.dumps(value).encode() + b"\n"
        with self._tf.device("CPU:0"):
            mine = self._tf.constant(list(text), self._tf.uint8)
            texts = bytes(self._hvd.allgather(mine, name=self._name()).numpy())
        return [json.loads(line) for line in texts.splitlines()]

    def first_does(self, work: Callable[[], Any]) -> Any:
        said = None
        if self.rank == 0:
            try:
                said = {"result": work()}
            except PetganError as error:
                said = as_refusal(error)
        first = self.tell_all(said)[0]
        raise_refusal(first)
        return first["result"]

    def broadcast(self, variables: Iterable[keras.Variable]) -> None:
        for variable in variables:
            variable.assign(self._hvd.broadcast(variable.value, root_rank=0, name=self._name()))

    def close(self) -> None:
        self._hvd.shutdown()

    def _name(self) -> str:
        return f"petgan.{next(self._names)}"


@contextlib.contextmanager
def contact(ranks: Alone) -> Iterator[None]:
    """Turn Horovod's error in this block, when another rank has gone, into one sentence.

    Raises
    ------
    TrainingError
    """
    try:
        yield
    except PetganError:
        raise
    except Exception as error:
        if ranks.ranks == 1 or not _is_horovods(error):
            raise
        logger.debug("%s", error)
        raise TrainingError(
            "lost contact with another rank, which has ended or cannot be reached any more",
            hint="its own words are in the log; the same run started again goes on from its last checkpoint",
        ) from error


def _is_horovods(error: Exception) -> bool:
    words = f"{type(error).__module__}.{type(error).__name__} {error}".lower()
    return any(word in words for word in ("horovod", "gloo", "nccl", "connection closed by peer"))


def check_equal_weights(ranks: Alone, arrays: Iterable[np.ndarray]) -> None:
    """Refuse to train with ranks whose weights differ.

    Raises
    ------
    RankMismatchError
        On all ranks.
    """
    if ranks.ranks == 1:
        return
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    hellos = ranks.tell_all({"node": ranks.node_name, "facts": {"weights": total.hexdigest()}})
    if error := difference(dict(enumerate(hellos))):
        raise error


# --- starting -----------------------------------------------------------------------------------


def join(
    place: Place, facts: Mapping[str, str | None], gpu: str | None, stopping: Callable[[], bool]
) -> Alone:
    """Meet the other ranks, see that all would train the same, and start Horovod.

    Parameters
    ----------
    place : Place
    facts : mapping
        What this rank would train and with what, see `difference`.
    gpu : str, optional
        The identity of its GPU, "" where the run asks for one and none is visible; None if it uses none.
    stopping : callable
        Whether this process has been asked to stop: then no rank starts.

    Raises
    ------
    RendezvousError
        If not all are there in time, or no network connects them.
    RankCountError, RankMismatchError
        If they are not as many as asked for, would not train the same, or miss their GPUs.
    Interrupted
        If one has been asked to stop.
    """
    hello = {"facts": dict(facts), "gpu": gpu}
    if place.ranks == 1:
        if error := difference({0: {"node": place.node_name, **hello}}):
            raise error
        return ALONE
    if importlib.util.find_spec("horovod") is None:
        raise UserError(
            "several ranks need Horovod, which is not installed here",
            value=f"{place.ranks} ranks",
            hint="train in the container's image, or ask for one rank",
        )
    network, close_board = meet(place, hello, stopping)
    try:
        ranks = _start_horovod(place, network, on_gpu=gpu is not None)
        with contact(ranks):
            ranks.any(False)  # all are connected
    finally:
        close_board()
        if place.rank == 0 and place.rendezvous is not None:
            place.rendezvous.unlink(missing_ok=True)
    logger.info("%d ranks on %d nodes, over %s", place.ranks, place.nodes, network.interface)
    return ranks


def _start_horovod(place: Place, network: Network, *, on_gpu: bool) -> Ranks:
    settings = {
        "RANK": place.rank,
        "SIZE": place.ranks,
        "LOCAL_RANK": place.local_rank,
        "LOCAL_SIZE": place.local_ranks,
        "CROSS_RANK": place.node,
        "CROSS_SIZE": place.nodes,
        "HOSTNAME": f"node{place.node}",  # without it the local scopes of two nodes collide
        "GLOO_RENDEZVOUS_ADDR": network.address,
        "GLOO_RENDEZVOUS_PORT": network.port,
        "GLOO_IFACE": network.interface,
        "GLOO_TIMEOUT_SECONDS": LOST_SECONDS,
        "CONTROLLER": "gloo",
        "CPU_OPERATIONS": "gloo",
    }
    os.environ.update({f"HOROVOD_{key}": str(value) for key, value in settings.items()})
    os.environ["NCCL_SOCKET_IFNAME"] = f"={network.interface}"  # this one, and none that begins like it
    # While rank 0 scores or writes, the others wait: that is no stall worth a word.
    os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", "600")
    os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", "3600")
    if not on_gpu:
        # Two ranks of a DCGAN on two cores: a step of 224 pixels takes 6.8 s, and 7.6 s with the default of
        # 1 ms, which leaves less for training; one of 32 pixels, which waits more, 0.48 s and 0.42 s.
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "5")
    import horovod.tensorflow as hvd

    try:
        hvd.init()
    except Exception as error:
        raise RendezvousError(
            f"{place} met the others, but Horovod could not connect it over {network.interface}: {error}",
            hint="name another interface: 'interface' in the profile, or PETGAN_INTERFACE",
        ) from None
    if hvd.size() != place.ranks:
        raise RankCountError(
            "Horovod has started with another number of ranks", value=hvd.size(), allowed=[place.ranks]
        )
    return Ranks(place)
