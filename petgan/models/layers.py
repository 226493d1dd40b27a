"""Layers that see the global batch, in dropout and statistics, and that hold little for their gradients."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from petgan.draws import halves
from petgan.models import fused
from petgan.models.spectral import SpectralConv2D, SpectralDense

SLOPE = 0.2  # of the leaky ReLU below 0, in every paper that a preset follows


@dataclass(frozen=True)
class Segment:
    """Images of one pass that belong together: this process' share of one global batch.

    Parameters
    ----------
    seed : tf.Tensor (2,) int64
        Of the dropout layers' masks; they count up from it.
    offset : int
        The position of the first image in the global batch.
    """

    seed: tf.Tensor
    offset: int


class _Stream:
    def __init__(self, segments: tuple[Segment, ...]) -> None:
        self.segments, self.drawn = segments, 0


_stream: ContextVar[_Stream] = ContextVar("dropout_stream")


@contextlib.contextmanager
def dropout_stream(*segments: Segment) -> Iterator[None]:
    """Within this block, `Dropout` draws its masks for images that are these segments, one after another.

    The segments are equally large, such as real and fake images: one pass through all of them does to each
    what a pass of its own would do.
    """
    before = _stream.set(_Stream(segments))
    try:
        yield
    finally:
        _stream.reset(before)


@keras.saving.register_keras_serializable("petgan")
class Dropout(keras.layers.Dropout):
    """Dropout whose mask is a slice of the global batch's mask, drawn without state.

    A rank that holds images 8 to 15 of 32 leaves out what one process with all 32 would. Rates are
    multiples of 2^-16: 16 random bits a unit are half the work of a float.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return inputs
        stream = _stream.get()
        left_out = round(self.rate * 2**16)
        shape = (inputs.shape[0] // len(stream.segments), *inputs.shape[1:])
        units = math.prod(inputs.shape[1:])
        masks = []
        for segment in stream.segments:
            seed = segment.seed + tf.constant([0, stream.drawn], tf.int64)
            masks.append(halves(shape, seed, segment.offset * units) >= left_out)
        stream.drawn += 1
        scale = tf.constant(2**16 / (2**16 - left_out), inputs.dtype)
        # Not a product with the mask: the backward pass would hold it as floats.
        return tf.where(tf.concat(masks, axis=0), inputs * scale, tf.zeros((), inputs.dtype))


Gather = Callable[[tf.Tensor], tf.Tensor]
_gather: ContextVar[Gather | None] = ContextVar("gather", default=None)


@contextlib.contextmanager
def statistics_over_ranks(gather: Gather) -> Iterator[None]:
    """Within this block, layers that take statistics of a batch take them of all ranks' images.

    Parameters
    ----------
    gather : callable
        Every rank's tensor (...) to all of them (ranks, ...), differentiable on each rank.
    """
    before = _gather.set(gather)
    try:
        yield
    finally:
        _gather.reset(before)


def over_ranks(mean: tf.Tensor, variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The moments of the global batch, of those of this rank's share.

    The ranks' shares are equally large, so that the global mean is the mean of their means m_r, and the
    global variance the mean of their variances plus the variance of the m_r. (The mean square minus the
    squared mean would lose digits, and one collective for the mean and one for the squares takes longer.)
    """
    gather = _gather.get()
    if gather is None:
        return mean, variance
    means, variances = tf.unstack(gather(tf.stack([mean, variance])), axis=1)
    mean = tf.reduce_mean(means, axis=0)
    return mean, tf.reduce_mean(variances + tf.square(means - mean), axis=0)


def _variance(values: tf.Tensor, mean: tf.Tensor, axes: list[int]) -> tf.Tensor:
    # Not tf.nn.moments: it holds the mean constant, which is right for a slope, but not for a penalty's.
    return tf.reduce_mean(tf.square(values - mean), axes)


@keras.saving.register_keras_serializable("petgan")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' own batch normalization, but within `statistics_over_ranks` over the global batch.

    Of images it uses TensorFlow's fused operations, which read and write them less often.
    """

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        image = len(inputs.shape) == 4 and inputs.dtype != tf.float64
        if not (training and self.trainable and image):
            return super().call(inputs, training=training, mask=mask)
        scale, offset = (tf.cast(w, tf.float32) for w in (self.gamma, self.beta))
        if _gather.get() is None:
            outputs, mean, variance = fused.normalized_by_itself(inputs, scale, offset, self.epsilon)
        else:
            mean, variance = over_ranks(*fused.moments(inputs))
            outputs = fused.normalized(inputs, mean, variance, scale, offset, self.epsilon)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        mean = tf.reduce_mean(inputs, self._reduction_axes)
        return over_ranks(mean, _variance(inputs, mean, self._reduction_axes))


@keras.saving.register_keras_serializable("petgan")
class GroupNormalization(keras.layers.GroupNormalization):
    """Keras' own group normalization, whose slope has the right slope, too: a gradient penalty needs it."""

    def _apply_normalization(self, grouped: tf.Tensor, input_shape: tf.Tensor) -> tf.Tensor:
        axes = [axis for axis in range(1, len(grouped.shape)) if axis != len(grouped.shape) - 2]
        precise = tf.cast(grouped, keras.backend.result_type(grouped.dtype, "float32"))
        mean = tf.reduce_mean(precise, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(precise - mean), axes, keepdims=True)
        normal = (precise - mean) * tf.math.rsqrt(variance + self.epsilon)
        shape = self._create_broadcast_shape(input_shape)
        gamma, beta = (tf.cast(tf.reshape(w, shape), normal.dtype) for w in (self.gamma, self.beta))
        return tf.cast(normal * gamma + beta, grouped.dtype)


@keras.saving.register_keras_serializable("petgan")
class MinibatchStd(keras.layers.Layer):
    """One more channel that tells how unlike the images of a batch are (Karras 2018, section 3).

    It holds the standard deviation over the batch, averaged over places and channels. In training the batch
    is the global one, and each segment of a pass (see `dropout_stream`) one of its own.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        stream = _stream.get(None) if training else None
        segments = len(stream.segments) if stream else 1
        precise = keras.backend.result_type(inputs.dtype, "float32")
        batches = tf.reshape(tf.cast(inputs, precise), (segments, -1, *inputs.shape[1:]))
        mean = tf.reduce_mean(batches, axis=1)  # (segments, ..., channels)
        variance = _variance(batches, mean[:, None], [1])
        if training:
            mean, variance = over_ranks(mean, variance)
        deviation = tf.sqrt(variance + 1e-8)  # the root of 0 has no slope
        deviation = tf.reduce_mean(deviation, axis=list(range(1, len(inputs.shape))))
        each = tf.repeat(deviation, tf.shape(batches)[1])  # (n,)
        each = tf.reshape(tf.cast(each, inputs.dtype), (-1, *[1] * (len(inputs.shape) - 1)))
        return tf.concat([inputs, tf.ones_like(inputs[..., :1]) * each], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        *others, channels = input_shape
        return (*others, channels + 1 if channels is not None else None)


@keras.saving.register_keras_serializable("petgan")
def leaky_relu(x: tf.Tensor, negative_slope: float = SLOPE) -> tf.Tensor:
    """max(x, negative_slope x), which can be differentiated any number of times.

    TensorFlow's own adds zeros, as large as `x`, to the gradient of a gradient, and keeps them in memory for
    each layer that a gradient penalty passes.

    Parameters
    ----------
    x : tf.Tensor, floating, of any shape
    negative_slope : float
        In [0, 1].

    Returns
    -------
    tf.Tensor
        Of the shape and dtype of `x`.
    """

    @tf.custom_gradient
    def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        # Linear in `upstream`, and so its own gradient; with respect to x that is 0, but at 0.
        return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=x, alpha=negative_slope), backward

    @tf.custom_gradient
    def forward(inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.nn.leaky_relu(inputs, negative_slope), backward

    return forward(x)


@keras.saving.register_keras_serializable("petgan")
class LeakyReLU(keras.layers.LeakyReLU):
    """Keras' own layer with the `leaky_relu` of here, and its slope."""

    def __init__(self, negative_slope: float = SLOPE, **kwargs: Any) -> None:
        super().__init__(negative_slope, **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return leaky_relu(inputs, self.negative_slope)


PLAIN = {
    Dropout: keras.layers.Dropout,
    BatchNormalization: keras.layers.BatchNormalization,
    GroupNormalization: keras.layers.GroupNormalization,
    LeakyReLU: keras.layers.LeakyReLU,
    SpectralConv2D: keras.layers.Conv2D,
    SpectralDense: keras.layers.Dense,
}


def plain(model: keras.Model) -> keras.Model:
    """A copy in which every layer is Keras' own, for use without petgan.

    A layer that Keras has only in another form tells it by ``plain()``, and its weights, where they differ
    from its own, by ``plain_weights()``.
    """

    def layer_of(layer: keras.Layer) -> Any:
        if hasattr(layer, "plain"):
            return layer.plain()
        return PLAIN.get(type(layer), type(layer)).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=layer_of)
    for ours, layer in zip(copy.layers, model.layers, strict=True):
        weights = layer.plain_weights() if hasattr(layer, "plain_weights") else layer.get_weights()
        ours.set_weights(weights)
    return copy
