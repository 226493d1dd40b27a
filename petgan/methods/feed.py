"""The real images of each update: resident on the device as uint8, or streamed from their file.

Which images an update sees depends on (seed, step, turn) alone, so that both give the same, and a stream
knows what will be asked for next.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from petgan.config import Point
from petgan.draws import Draw, draw_indices, seed_for

BATCHES_AHEAD = 8


class Images(Protocol):
    """Training images (n, size, size, 1) uint8 that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def problem(self) -> Exception | None:
        """Why they could not be read."""
        ...

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Those at `indices`, in this order, repeated ones too; called from a thread."""
        ...


@dataclass(frozen=True)
class Data:
    """What a run trains on.

    Parameters
    ----------
    images : ndarray (n, size, size, 1) uint8, or Images
        The training split.
    modality : str
        Of the dataset, such as ``pet`` or ``mammogram``.
    source : ndarray or Images, optional
        The training split of the dataset that images are translated from.
    shown : ndarray (n, size, size, 1) uint8, optional
        What a generator that is shown images is shown for sheets and scores: never trained on.
    """

    images: np.ndarray | Images
    modality: str = ""
    source: np.ndarray | Images | None = None
    shown: np.ndarray | None = None


@contextlib.contextmanager
def reading(data: Data) -> Iterator[None]:
    """Raise an error of reading images in this block as it was: a graph makes one of its own of it."""
    try:
        yield
    except tf.errors.UnknownError:
        for images in (data.images, data.source):
            if problem := getattr(images, "problem", None):
                raise problem from None
        raise


class Feed(Protocol):
    """Real images by update, within a graph."""

    def batch(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        """Make this rank's share of turn `turn` of update `step`: (n, size, size, 1) uint8."""
        ...


def make_feed(
    images: np.ndarray | Images, point: Point, share: slice, turns: int, draw: Draw = Draw.IMAGES
) -> Feed:
    """Make the feed of `images`, which are drawn with replacement.

    Parameters
    ----------
    images : ndarray (n, size, size, 1) uint8, or Images
    point : Point
    share : slice
        This rank's positions in the global batch.
    turns : int
        How often an update asks, with turn 0, 1, ...
    draw : Draw
        The stream of random numbers that chooses them.
    """
    choice = _Choice(point, share, len(images) if isinstance(images, np.ndarray) else images.shape[0], draw)
    if isinstance(images, np.ndarray):
        return _Resident(images, choice)
    return _Streamed(images, choice, turns)


@dataclass(frozen=True)
class _Choice:
    point: Point
    share: slice
    images: int
    draw: Draw

    def indices(self, step: tf.Tensor | int, turn: int) -> tf.Tensor:
        seed = seed_for(self.point.seed, step, self.draw, turn)
        return draw_indices(seed, self.point.batch_size, self.images)[self.share]


class _Resident:
    def __init__(self, images: np.ndarray, choice: _Choice) -> None:
        self._images, self._choice = tf.constant(images), choice

    def batch(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        return tf.gather(self._images, self._choice.indices(step, turn))


class _Streamed:
    """Batches that one thread reads ahead of the updates."""

    def __init__(self, images: Images, choice: _Choice, turns: int) -> None:
        self._images, self._choice, self._turns = images, choice, turns
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="petgan-feed")
        self._ahead: dict[tuple[int, int], Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def batch(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        pixels = tf.numpy_function(self._take, [step, turn], tf.uint8)
        n = len(range(self._choice.point.batch_size)[self._choice.share])
        return tf.ensure_shape(pixels, (n, *self._images.shape[1:]))

    def _take(self, step: Any, turn: Any) -> np.ndarray:
        wanted = int(step), int(turn)
        with self._lock:
            self._ahead = {key: future for key, future in self._ahead.items() if key >= wanted}
            for key in self._from(*wanted):
                if key not in self._ahead:
                    self._ahead[key] = self._reader.submit(self._read, *key)
            batch = self._ahead.pop(wanted)
        return batch.result()

    def _from(self, step: int, turn: int) -> Iterator[tuple[int, int]]:
        for at in range(step * self._turns + turn, step * self._turns + turn + 1 + BATCHES_AHEAD):
            yield divmod(at, self._turns)

    def _read(self, step: int, turn: int) -> np.ndarray:
        with tf.device("CPU:0"):
            indices = self._choice.indices(step, turn).numpy()
        return self._images.read(indices)
