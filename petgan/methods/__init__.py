"""How each kind of network is trained: one module a method, which a preset names.

A method makes the networks of a point and the function that carries out one update, and draws images from
what was trained. The trainer, the checkpoints and the scores know no more of it than this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from petgan.config import Point
from petgan.distributed import Alone
from petgan.methods.feed import Data
from petgan.methods.networks import Networks
from petgan.presets import PRESETS
from petgan.registry import load

Metrics = dict[str, tf.Tensor]
Update = Callable[[tf.Tensor], Metrics]


def in_one_pass(generator: keras.Model, noise: np.ndarray) -> tf.Tensor:
    """Images (n, size, size, 1) in [-1, 1] of a generator that makes them of noise at once."""
    return generator(noise, training=False)


@dataclass(frozen=True)
class Method:
    """What a preset names as its way of training.

    Parameters
    ----------
    make_networks : callable
        Point to `Networks` with fresh weights that depend on its seed alone.
    make_generator : callable
        Point to its generator alone, computing in float32, for weights that are read.
    make_update : callable
        (point, networks, data, ranks) to a function that a graph can hold: it carries out update `step`
        (scalar int tensor, 0 is the first), changes the networks in place, and returns float32 scalars by
        name. It sees its share of the global batch and averages over the ranks, so that every rank carries
        out the same update.
    images : callable
        (generator, noise) to images (n, size, size, 1) in [-1, 1], where noise is standard normal in the
        shape of the generator's first input, (n, ...) float32.
    inputs : callable, optional
        Of a generator that is shown images: real ones (n, size, size, 1) uint8 of the run's size to what
        takes the place of noise.
    """

    make_networks: Callable[[Point], Networks]
    make_generator: Callable[[Point], keras.Model]
    make_update: Callable[[Point, Networks, Data, Alone], Update]
    images: Callable[[keras.Model, np.ndarray], tf.Tensor] = in_one_pass
    inputs: Callable[[np.ndarray], np.ndarray] | None = None


def method_of(preset: str) -> Method:
    """The method of a preset."""
    method: Method = load(PRESETS[preset].method)
    return method
