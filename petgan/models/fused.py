"""Batch normalization of images out of TensorFlow's fused operations, which read and write them seldom.

TensorFlow's own takes the moments of the images that it normalizes. Where other ranks hold a part of the
batch, the moments come from elsewhere, and their slopes go there. Slopes have slopes too: a gradient
penalty needs them.

Images are (n, height, width, channels), of float32, bfloat16 or float16; all else is (channels,) float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import tensorflow as tf

AXES = (0, 1, 2)

Tensors: TypeAlias = Sequence[tf.Tensor]


def normalized_by_itself(
    images: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalize `images` by their own moments.

    Returns
    -------
    outputs : tf.Tensor
        ``scale * (images - mean) / sqrt(variance + epsilon) + offset``, with slopes for all three inputs.
    mean, variance : tf.Tensor (channels,) float32
        No slope passes through these: `moments` has some.
    """
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=scale,
        offset=offset,
        mean=tf.zeros((0,)),
        variance=tf.zeros((0,)),
        epsilon=epsilon,
        is_training=True,
    )
    n = _count(images)
    return outputs, mean, variance * ((n - 1) / n)  # the operation's variance is the unbiased one


def moments(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of each channel.

    Returns
    -------
    mean, variance : tf.Tensor (channels,) float32
        With slopes for the images.
    """

    @tf.custom_gradient
    def of(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[..., tf.Tensor]]:
        ones = tf.ones(x.shape[-1])
        _, mean, variance = normalized_by_itself(x, ones, ones, 1.0)

        def slopes(of_mean: tf.Tensor, of_variance: tf.Tensor) -> tf.Tensor:
            # The mean as it is, but as the mean of the images where this slope is differentiated.
            (mean_of_x,) = _differentiated_as(_plain_mean, lambda _: [mean], x)
            return _shifted(x, mean_of_x, 2 * of_variance / _count(x), of_mean / _count(x))

        return (mean, variance), slopes

    result: tuple[tf.Tensor, tf.Tensor] = of(images)
    return result


def normalized(
    images: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
) -> tf.Tensor:
    """Normalize `images` by moments that come from elsewhere.

    Returns
    -------
    tf.Tensor
        ``scale * (images - mean) / sqrt(variance + epsilon) + offset``, with slopes for the five tensors.
    """

    @tf.custom_gradient
    def of(
        x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[..., Tensors]]:
        def slopes(of_outputs: tf.Tensor) -> Tensors:
            inverse = tf.math.rsqrt(variance + epsilon)
            of_x, of_scale, of_offset = _slopes(of_outputs, x, mean, variance, scale, epsilon)
            of_mean = -scale * inverse * of_offset
            of_variance = -0.5 * scale * tf.square(inverse) * of_scale
            return of_x, of_mean, of_variance, of_scale, of_offset

        return _inference(x, mean, variance, scale, offset, epsilon), slopes

    return of(images, mean, variance, scale, offset)


def _slopes(
    of_outputs: tf.Tensor,
    images: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    scale: tf.Tensor,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of images, scale and offset, with mean and variance as they are."""

    def fused(dy: tf.Tensor, x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, scale: tf.Tensor) -> Tensors:
        of_x, of_scale, of_offset, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=dy,
            x=x,
            scale=scale,
            reserve_space_1=mean,
            reserve_space_2=variance,
            reserve_space_3=tf.zeros((0,)),
            epsilon=epsilon,
            is_training=False,
        )
        return of_x, of_scale, of_offset

    def plain(dy: tf.Tensor, x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, scale: tf.Tensor) -> Tensors:
        precise, inverse = tf.cast(dy, tf.float32), tf.math.rsqrt(variance + epsilon)
        normal = (tf.cast(x, tf.float32) - mean) * inverse
        of_scale, of_offset = tf.reduce_sum(precise * normal, AXES), tf.reduce_sum(precise, AXES)
        return tf.cast(precise * (scale * inverse), x.dtype), of_scale, of_offset

    # TensorFlow has no deterministic kernel of this operation for GPUs, and refuses it there.
    on_gpu = tf.config.list_physical_devices("GPU")
    quickest = plain if on_gpu else fused
    of_x, of_scale, of_offset = _differentiated_as(plain, quickest, of_outputs, images, mean, variance, scale)
    return of_x, of_scale, of_offset


def _shifted(images: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """``(images - mean) * scale + offset``, in one pass."""

    def fused(x: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> Tensors:
        return [_inference(x, mean, tf.zeros_like(mean), scale, offset, 1.0)]

    def plain(x: tf.Tensor, mean: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> Tensors:
        return [tf.cast((tf.cast(x, tf.float32) - mean) * scale + offset, x.dtype)]

    (shifted,) = _differentiated_as(plain, fused, images, mean, scale, offset)
    return shifted


def _inference(
    x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tf.Tensor:
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=False,
    ).y


def _differentiated_as(
    plain: Callable[..., Tensors], fused: Callable[..., Tensors], *inputs: tf.Tensor
) -> Tensors:
    """The outputs of `fused` of the inputs, with the slopes of `plain`, which gives the same."""

    @tf.custom_gradient
    def of(*xs: tf.Tensor) -> tuple[Tensors, Callable[..., Tensors]]:
        def slopes(*of_outputs: tf.Tensor) -> Tensors:
            with tf.GradientTape() as tape:
                tape.watch(xs)
                outputs = plain(*xs)
            of_xs: Tensors = tape.gradient(outputs, xs, of_outputs, tf.UnconnectedGradients.ZERO)
            return of_xs

        return fused(*xs), slopes

    result: Tensors = of(*inputs)
    return result


def _plain_mean(images: tf.Tensor) -> Tensors:
    return [tf.reduce_mean(tf.cast(images, tf.float32), AXES)]


def _count(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.size(images) / images.shape[-1], tf.float32)
