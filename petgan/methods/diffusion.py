"""Denoising diffusion: a network learns to tell the noise in a noisy image, and so makes an image of noise.

Time 0 is the image, time T = `TIMES` is noise. At time t an image x is sqrt(s) x + sqrt(1 - s) e with
standard normal noise e and the share s(t) that is left of the image's power (called alpha-bar in the papers).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from petgan.config import Point
from petgan.distributed import ALONE, Alone
from petgan.draws import Draw, draw_indices, normal, seed_for
from petgan.methods import Method, Metrics, Update
from petgan.methods.feed import Data, make_feed
from petgan.methods.networks import (
    Networks,
    averaged_copy,
    computing_in,
    learning_rate,
    make_optimizer,
    update_average,
    update_part,
)
from petgan.methods.pixels import to_network
from petgan.models import networks_of
from petgan.models.layers import Segment, dropout_stream
from petgan.models.unet import TIMES
from petgan.place import share_of

SAMPLING_STEPS = 25  # denoisings to one image; Song 2021, table 1, has what fewer cost
INVERSION_ROUNDS = 5  # denoisings to one step back
LAST_TIME = TIMES * 98 // 100  # that sampling begins with
OFFSET = 0.008  # of the schedule: the least noise is then below one grey level
LARGEST_BETA = 0.999

Denoiser = Callable[..., tf.Tensor]  # ([images, times (n, 1)], training) to the noise in them


# --- the schedule -------------------------------------------------------------------------------


def image_shares() -> np.ndarray:
    """The share s(t) of the image's power at each time, 1 at time 0 (Nichol and Dhariwal 2021, eq. 17).

    s(t) = f(t) / f(0) with f(t) = cos(pi/2 (t/T + 0.008) / 1.008)^2, but that no step takes more than 0.999
    of what is left.

    Returns
    -------
    ndarray (T + 1,) float64
        In (0, 1], falling.
    """
    wave = np.cos(np.pi / 2 * (np.arange(TIMES + 1) / TIMES + OFFSET) / (1 + OFFSET)) ** 2
    kept = np.maximum(wave[1:] / wave[:-1], 1 - LARGEST_BETA)
    return np.cumprod(np.concatenate([[1.0], kept]))


def sampling_times(steps: int) -> list[int]:
    """Times 1 + floor(c i^2), i = 0, 1, ..., that sampling visits (Song 2021, appendix D.2: quadratic).

    The finest structures are made at the earliest times. The last one is 0.98 T: at T itself nothing is left
    of the image that a prediction could be divided by.
    """
    c = (LAST_TIME - 1) / (steps - 1) ** 2
    return [1 + math.floor(c * i**2 + 1e-9) for i in range(steps)]


def noisy(images: tf.Tensor, noise: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """sqrt(s) x + sqrt(1 - s) e: images at the time whose share is s (Ho 2020, eq. 4).

    Parameters
    ----------
    images, noise : tf.Tensor (n, size, size, 1)
    share : tf.Tensor, scalar or (n, 1, 1, 1)
    """
    return tf.sqrt(share) * images + tf.sqrt(1 - share) * noise


# --- training -----------------------------------------------------------------------------------


def make_networks(point: Point) -> Networks:
    """Build the denoiser and its optimizer; initial weights depend on the point's seed alone."""
    keras.utils.set_random_seed(point.seed)
    with computing_in(point.compute_dtype):
        (denoiser,) = networks_of(point)
    return Networks(
        generator=denoiser,
        ema_generator=averaged_copy(denoiser),
        generator_optimizer=make_optimizer(point, denoiser.trainable_variables, learning_rate(point)),
    )


def make_update(point: Point, networks: Networks, data: Data, ranks: Alone = ALONE) -> Update:
    """Make the function that carries out update `step`; see `petgan.methods.Method`.

    Its metrics: ``g_loss``, the mean squared error of the noise, 1 for a network that knows nothing; and
    ``g_gradient``, the norm of its gradient.

    Raises
    ------
    ConfigError
        If the ranks cannot share the batch evenly.
    """
    return _Diffusion(point, networks, data, ranks)


class _Diffusion:
    def __init__(self, point: Point, networks: Networks, data: Data, ranks: Alone) -> None:
        self._point, self._networks, self._ranks = point, networks, ranks
        self._share = share_of(point.batch_size, ranks.rank, ranks.ranks)
        self._feed = make_feed(data.images, point, self._share, turns=1)
        self._shares = tf.constant(image_shares(), keras.backend.floatx())

    def __call__(self, step: tf.Tensor) -> Metrics:
        point, networks = self._point, self._networks
        images = to_network(self._feed.batch(step, 0))
        times, noise = self._draw(step, images.shape[1:])
        inputs = noisy(images, noise, tf.gather(self._shares, times)[:, None, None])
        masks = Segment(self._seed(step, Draw.GENERATOR_DROPOUT), self._share.start)
        with tf.GradientTape() as tape:
            with dropout_stream(masks):
                predicted = networks.generator([inputs, times], training=True)
            # Ho 2020, eq. 14.
            loss = tf.reduce_mean(tf.square(noise - tf.cast(predicted, noise.dtype)))
            scaled = networks.generator_optimizer.scale_loss(loss)
        variables = networks.generator.trainable_variables
        gradients = tape.gradient(scaled, variables)
        metrics = update_part(networks, "generator", variables, gradients, {"g_loss": loss}, self._ranks)
        update_average(networks.ema_generator, networks.generator, step, point.ema_decay)
        return metrics

    def _seed(self, step: tf.Tensor, draw: Draw) -> tf.Tensor:
        return seed_for(self._point.seed, step, draw, 0)

    def _draw(self, step: tf.Tensor, shape: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        """Times (n, 1) int32, each of 1..T as likely, and standard normal noise (n, size, size, 1)."""
        count = self._point.batch_size
        times = 1 + draw_indices(self._seed(step, Draw.TIMES), count, TIMES)[:, None]
        noise = normal((count, *shape), self._seed(step, Draw.NOISE))
        return times[self._share], noise[self._share]


# --- sampling -----------------------------------------------------------------------------------


def images(generator: Denoiser, noise: np.ndarray) -> tf.Tensor:
    """Images in [-1, 1] of standard normal noise, both (n, size, size, 1) (Song 2021, eq. 12, eta 0).

    The image that the predicted noise leaves is clipped to [-1, 1] in each step. So few steps draw somewhat
    too little variation: normal pixels of deviation 0.05, 0.15, 0.5 come out with 0.89, 0.93, 0.95 of it.
    """
    start = tf.constant(noise)
    if generator not in _samplers:
        _samplers[generator] = _sampler(weakref.proxy(generator), tf.TensorSpec((None, *start.shape[1:])))
    return _samplers[generator](start)


# The graphs that draw images with a network, for as long as there is that network.
_samplers: weakref.WeakKeyDictionary[Denoiser, Callable[[tf.Tensor], tf.Tensor]] = weakref.WeakKeyDictionary()


def _sampler(generator: Denoiser, noise: tf.TensorSpec) -> Callable[[tf.Tensor], tf.Tensor]:
    def step(x: tf.Tensor, at: tuple[tf.Tensor, ...]) -> tf.Tensor:
        time, begin, end = at
        image = tf.clip_by_value(_image(x, _noise(generator, x, time), begin), -1.0, 1.0)
        return noisy(image, (x - tf.sqrt(begin) * image) / tf.sqrt(1 - begin), end)

    times = sampling_times(SAMPLING_STEPS)[::-1]
    path = (tf.constant(times), _shares_at(times), _shares_at([*times[1:], 0]))
    walk = tf.function(lambda x: tf.foldl(step, path, x), autograph=False)
    sampler: Callable[[tf.Tensor], tf.Tensor] = walk.get_concrete_function(noise)
    return sampler


def ddim_invert(generator: Denoiser, images: np.ndarray) -> tf.Tensor:
    """The noise that `images` makes these images of, where it clips nothing.

    A step back from x looks for the y that a step leads to x, by y = noisy(image, e(y)) with the image that
    e(y) leaves of x, a few times from y = x on (once would be Song 2021, section 5.4). With the best denoiser
    of normal pixels the noise comes back within a hundredth of its largest value.
    """

    def step(x: tf.Tensor, at: tuple[tf.Tensor, ...]) -> tf.Tensor:
        time, begin, end = at
        y = x
        for _ in range(INVERSION_ROUNDS):
            noise = _noise(generator, y, time)
            y = noisy(_image(x, noise, begin), noise, end)
        return y

    times = sampling_times(SAMPLING_STEPS)
    path = (tf.constant(times), _shares_at([0, *times[:-1]]), _shares_at(times))
    return tf.foldl(step, path, images)


def _shares_at(times: Sequence[int]) -> tf.Tensor:
    return tf.constant(image_shares()[times], keras.backend.floatx())


def _noise(generator: Denoiser, x: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
    """The noise that the network finds in images that are all of one time."""
    return tf.cast(generator([x, tf.fill((tf.shape(x)[0], 1), time)], training=False), x.dtype)


def _image(x: tf.Tensor, noise: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """What `noise` leaves of x: the inverse of `noisy`."""
    return (x - tf.sqrt(1 - share) * noise) / tf.sqrt(share)


METHOD = Method(make_networks, lambda point: networks_of(point)[0], make_update, images)
