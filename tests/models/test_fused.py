"""Fused operations against the formula in float64, slopes and slopes of slopes included."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from petgan.models import fused

EPSILON = 1e-3
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.1, "float16": 0.01}


def plain_moments(x):
    mean = tf.reduce_mean(x, (0, 1, 2))
    return mean, tf.reduce_mean(tf.square(x - mean), (0, 1, 2))


def plainly_normalized(x, mean, variance, scale, offset, epsilon):
    return scale * (x - mean) / tf.sqrt(variance + epsilon) + offset


def by_shares(x, scale, offset, moments, normalized):
    """As ranks do: each share by the moments of all."""
    shares = tf.split(x, 2)
    means, variances = (tf.stack(each) for each in zip(*map(moments, shares), strict=True))
    mean = tf.reduce_mean(means, 0)
    variance = tf.reduce_mean(variances + tf.square(means - mean), 0)
    return tf.concat([normalized(share, mean, variance, scale, offset, EPSILON) for share in shares], 0)


def ours(x, scale, offset):
    return by_shares(x, scale, offset, fused.moments, fused.normalized)


def by_itself(x, scale, offset):
    return fused.normalized_by_itself(x, scale, offset, EPSILON)[0]


def formula(x, scale, offset):
    return plainly_normalized(x, *plain_moments(x), scale, offset, EPSILON)


def slopes_of_slopes(function, dtype, *arrays):
    """Outputs; slopes for all inputs; the slopes of the sum of their squares."""
    precise = "float64" if dtype == "float64" else "float32"
    inputs = [tf.constant(a, dtype if a.ndim == 4 else precise) for a in arrays]

    @tf.function(autograph=False)
    def calculate():
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                outputs = function(*inputs)
                value = tf.reduce_sum(tf.sin(tf.cast(outputs, precise)))
            slopes = inner.gradient(value, inputs)
            squares = tf.add_n([tf.reduce_sum(tf.square(tf.cast(s, precise))) for s in slopes])
        return [outputs, *slopes, *outer.gradient(squares, inputs)]

    return [np.asarray(tf.cast(t, "float64")) for t in calculate()]


def draw(others):
    random = np.random.default_rng(0)
    images = random.normal(1, 2, (6, 5, 4, 3))
    images[:3] *= 3  # shares of unlike mean and variance
    return [images, *(random.uniform(0.5, 2, 3) for _ in range(others))]


def assert_close(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("function", [ours, by_itself])
def test_batch_normalization(function, dtype):
    inputs = draw(2)
    found = slopes_of_slopes(function, dtype, *inputs)
    assert_close(found, slopes_of_slopes(formula, "float64", *inputs), TOLERANCE[dtype])


def test_images_are_normalized_by_the_moments_that_are_given():
    inputs = draw(4)
    expected = slopes_of_slopes(lambda *xs: plainly_normalized(*xs, EPSILON), "float64", *inputs)
    assert_close(
        slopes_of_slopes(lambda *xs: fused.normalized(*xs, EPSILON), "float32", *inputs), expected, 1e-5
    )


@pytest.mark.parametrize(
    "function", [fused.moments, lambda x: fused.normalized_by_itself(x, x[0, 0, 0], x[0, 0, 0], 1.0)[1:]]
)
def test_moments_are_those_of_the_images(function):
    (images,) = draw(0)
    found = function(tf.constant(images, "float32"))
    assert_close([np.asarray(m) for m in found], [images.mean((0, 1, 2)), images.var((0, 1, 2))], 1e-6)


def test_far_from_zero_no_digit_is_lost():
    images = np.random.default_rng(0).normal(1000, 1, (4, 8, 8, 2))
    _, variance = fused.moments(tf.constant(images, "float32"))
    assert np.asarray(variance) == pytest.approx(images.var((0, 1, 2)), rel=1e-3)
