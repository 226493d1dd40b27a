"""Augmentation in training: real and generated images are changed alike before they are judged.

It is differentiable, so that the generator learns through it (DiffAugment, Zhao 2020), and its strength can
follow how much the discriminator overfits (ADA, Karras 2020).

Images are grey, in [-1, 1] before and about there after. What comes in from outside is black, as is the
background of PET and of mammograms. (Published code fills with 0, which is the mid-grey of such images.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from petgan.policies import TRANSFORMATIONS
from petgan.registry import load

BLACK = -1.0
BRIGHTNESS = 0.5  # these four are Zhao's
CONTRAST = 0.5
SHIFT_SHARE = 1 / 8  # of a side
CUTOUT_SHARE = 1 / 2  # of a side
SCALE = 0.1  # logarithm: 0.9 to 1.1; bodies and fields of view differ by about that

#: Images in which the controller goes from 0 to 1. Karras 2020 takes 500,000 of 25 million; the study's runs
#: have 128,000 (4,000 steps of 32). After a quarter of them any strength can be reached, while a step of 32
#: moves by 0.001: the noise of a batch's signs, up to 0.18, averages out over hundreds of steps.
IMAGES_TO_FULL = 32_000
#: The most probable: above it, augmented images leak into the generated ones (Karras 2020, section 2.2).
MOST_PROBABLE = 0.8


def augment(
    images: tf.Tensor,
    policy: Sequence[str],
    seed: tf.Tensor,
    offset: int,
    batch_size: int,
    probability: tf.Tensor | float | None = None,
) -> tf.Tensor:
    """Apply the transformations of `policy`, one after another, with parameters of each image's own.

    Parameters
    ----------
    images : tf.Tensor (n, h, w, 1), floating
        In [-1, 1]: a share of the global batch.
    policy : sequence of str
        Names of `petgan.policies.TRANSFORMATIONS`; see `petgan.policies.policy_of`.
    seed : tf.Tensor (2,) int64
        Of this use; the draws count up from its second number, whose last 8 bits must be free.
    offset, batch_size : int
        The position of the first image in the global batch, and the size of that batch.
    probability : scalar in [0, 1], optional
        With which each transformation is applied to each image (Karras 2020); always, without it (Zhao 2020).

    Returns
    -------
    tf.Tensor (n, h, w, 1)
        Of the same type; differentiable with respect to `images`, any number of times.
    """
    draws = Draws(seed, offset, batch_size, tf.shape(images)[0])
    for name in policy:
        changed = load(TRANSFORMATIONS[name])(images, draws)
        if probability is not None:
            applied = draws.uniform(0, 1) < tf.cast(probability, tf.float32)
            changed = tf.where(_over_pixels(applied), changed, images)
        images = changed
    return images


def overfitting(real_scores: tf.Tensor, undecided: float = 0.0) -> tf.Tensor:
    """r_t = E[sign(D(real) - undecided)] of scores before any sigmoid (Karras 2020, eq. 1).

    0 where the discriminator is right of half of the real images, 1 where it is of all: complete overfitting.
    """
    return tf.reduce_mean(tf.sign(tf.cast(real_scores, tf.float32) - undecided))


def adjust(
    probability: tf.Tensor,
    sign_mean: tf.Tensor,
    target: float,
    batch_size: int,
    images_to_full: int = IMAGES_TO_FULL,
) -> tf.Tensor:
    """The probability after one more batch: up if `sign_mean` is above `target`, down if below (Karras 2020).

    Parameters
    ----------
    probability : scalar float32 in [0, `MOST_PROBABLE`]
    sign_mean : scalar
        `overfitting` of the global batch: the mean over the ranks.
    target : float
        Karras 2020 takes 0.6.
    batch_size, images_to_full : int
        Real images that were judged, and in how many the probability goes from 0 to 1.
    """
    move = tf.sign(tf.cast(sign_mean, tf.float32) - target) * (batch_size / images_to_full)
    return tf.clip_by_value(probability + move, 0.0, MOST_PROBABLE)


@dataclass
class Draws:
    """The random numbers of one use: those of the global batch, of which each rank takes its images'.

    Whole numbers are drawn, and made float32 here, so that every precision has the same, and XLA, which draws
    other floats than TensorFlow from the same seed, has too.
    """

    seed: tf.Tensor
    offset: int
    batch_size: int
    count: tf.Tensor  # of this share's images
    drawn: int = 0

    def uniform(self, low: float, high: float) -> tf.Tensor:
        """One number in [low, high) an image: (n,) float32."""
        return low + (high - low) * self.whole(0, 2**24 - 1) / 2**24

    def whole(self, low: int, high: int) -> tf.Tensor:
        """One of low, low + 1, ..., high an image: (n,) float32."""
        seed = self.seed + tf.constant([0, self.drawn], tf.int64)
        self.drawn += 1
        values = tf.random.stateless_uniform(
            (self.batch_size,), seed, minval=low, maxval=high + 1, dtype=tf.int32, alg="philox"
        )
        return tf.cast(values[self.offset : self.offset + self.count], tf.float32)


# --- transformations: images (n, h, w, 1) and draws to images ------------------------------------


def color(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Brightness and contrast: m + c (x - m) + b, with m the image's mean. Grey has no saturation."""
    brightness = draws.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast = draws.uniform(1 - CONTRAST, 1 + CONTRAST)
    b, c = (tf.cast(_over_pixels(x), images.dtype) for x in (brightness, contrast))
    # In float32, as the sum over the pixels exceeds what float16 tells apart.
    mean = tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2, 3), keepdims=True)
    mean = tf.cast(mean, images.dtype)
    return mean + c * (images - mean) + b


def flip_x(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Left and right exchanged, in every second image."""
    flipped = draws.uniform(0, 1) < 0.5
    return tf.where(_over_pixels(flipped), tf.reverse(images, axis=[2]), images)


def scale(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Larger or smaller about the centre, bilinear."""
    factor = tf.exp(draws.uniform(-SCALE, SCALE))[:, None]

    def places(side: int) -> tf.Tensor:
        centre = (side - 1) / 2
        return centre + (tf.range(side, dtype=tf.float32) - centre) / factor

    return _resampled(images, places(images.shape[1]), places(images.shape[2]))


def translation(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """Moved by whole pixels, at most an eighth of the side."""

    def places(side: int) -> tf.Tensor:
        most = round(side * SHIFT_SHARE)
        return tf.range(side, dtype=tf.float32) - draws.whole(-most, most)[:, None]

    return _resampled(images, places(images.shape[1]), places(images.shape[2]))


def cutout(images: tf.Tensor, draws: Draws) -> tf.Tensor:
    """A black square of half the side; its centre is any pixel, so that it may reach over the border."""

    def inside(side: int) -> tf.Tensor:
        length = round(side * CUTOUT_SHARE)
        first = draws.whole(0, side - 1)[:, None] - length // 2
        pixels = tf.range(side, dtype=tf.float32)
        return (pixels >= first) & (pixels < first + length)

    rows, columns = inside(images.shape[1]), inside(images.shape[2])
    cut = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(cut, tf.constant(BLACK, images.dtype), images)


def _over_pixels(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None, None]


def _resampled(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Take row i of each image at `rows[:, i]` (n, h), column j at `columns[:, j]` (n, w), bilinearly.

    As two products of matrices, R X C^T: exact for whole numbers, and the gradient is again a product, that
    of a gather a sum whose order is left to chance on a GPU.
    """
    left, right = _hats(rows, images.dtype), _hats(columns, images.dtype)
    moved = tf.matmul(tf.matmul(left, images[..., 0]), right, transpose_b=True)
    covered = tf.reduce_sum(left, axis=2)[:, :, None] * tf.reduce_sum(right, axis=2)[:, None, :]
    return (moved + BLACK * (1 - covered))[..., None]


def _hats(places: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Weights (n, m, m) of the m pixels at `places` (n, m): 1 at the pixel, 0 from the next on."""
    pixels = tf.range(places.shape[1], dtype=tf.float32)
    return tf.cast(tf.maximum(1 - tf.abs(places[:, :, None] - pixels), 0), dtype)
