"""Losses and penalties, each against its own formula."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from petgan.methods.losses import (
    bce_discriminator,
    bce_generator,
    gradient_penalty,
    hinge_discriminator,
    least_squares_discriminator,
    least_squares_generator,
    lecam_penalty,
    r1_penalty,
    wasserstein_critic,
    wasserstein_generator,
)


def test_bce_is_keras_binary_cross_entropy_on_probabilities():
    random = np.random.default_rng(0)
    real, fake = random.normal(0, 2, (2, 9, 1))
    p_real, p_fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    expected = (-np.log(p_real).mean() - np.log(1 - p_fake).mean()) / 2
    assert float(bce_discriminator(real, fake)) == pytest.approx(expected, rel=1e-12)
    assert float(bce_generator(fake)) == pytest.approx(-np.log(p_fake).mean(), rel=1e-12)


def test_bce_stays_finite_where_the_sigmoid_is_0_or_1():
    certain = tf.constant([[-2000.0]])
    assert float(bce_generator(certain)) == 2000
    assert float(bce_discriminator(-certain, certain)) == 0


def test_wasserstein_losses():
    real, fake = tf.constant([[1.0], [4.0]]), tf.constant([[-1.0], [2.0]])
    assert float(wasserstein_critic(real, fake)) == 0.5 - 2.5
    assert float(wasserstein_generator(fake)) == -0.5


def tiny_critic(w1, w2):
    def critic(x):
        return tf.tanh(tf.reshape(x, (len(x), -1)) @ w1) @ w2

    return critic


def penalty_by_hand(w1, w2, real, fake, mix):
    x = (mix * real + (1 - mix) * fake).reshape(len(real), -1)
    slopes = ((1 - np.tanh(x @ w1) ** 2) * w2[:, 0]) @ w1.T
    return ((np.linalg.norm(slopes, axis=1) - 1) ** 2).mean()


def test_gradient_penalty_and_its_gradient_against_finite_differences():
    random = np.random.default_rng(0)
    real, fake = random.normal(size=(2, 5, 2, 3, 1))
    mix = random.uniform(size=(5, 1, 1, 1))
    w1, w2 = random.normal(size=(6, 4)), random.normal(size=(4, 1))
    v1, v2 = tf.Variable(w1), tf.Variable(w2)
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(tiny_critic(v1, v2), *map(tf.constant, (real, fake, mix)))
    gradients = tape.gradient(penalty, [v1, v2])
    assert float(penalty) == pytest.approx(penalty_by_hand(w1, w2, real, fake, mix), rel=1e-12)

    h = 1e-6
    for which, gradient in enumerate(gradients):
        expected = np.empty(gradient.shape)
        for index in np.ndindex(*expected.shape):
            ends = []
            for sign in (1, -1):
                moved = [w1.copy(), w2.copy()]
                moved[which][index] += sign * h
                ends.append(penalty_by_hand(*moved, real, fake, mix))
            expected[index] = (ends[0] - ends[1]) / (2 * h)
        assert gradient.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_a_critic_without_slope_has_a_finite_penalty_and_gradient():
    weight = tf.Variable(tf.zeros((4, 1)))
    images = tf.ones((3, 2, 2, 1))
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(
            lambda x: tf.reshape(x, (3, 4)) @ weight, images, images, tf.ones((3, 1, 1, 1))
        )
    assert float(penalty) == pytest.approx(1)
    assert np.isfinite(tape.gradient(penalty, weight)).all()


def test_hinge_and_least_squares_losses():
    real, fake = np.random.default_rng(0).normal(0, 2, (2, 9, 1))
    hinge = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    assert float(hinge_discriminator(real, fake)) == pytest.approx(hinge, rel=1e-12)
    squares = (((real - 1) ** 2).mean() + (fake**2).mean()) / 2
    assert float(least_squares_discriminator(real, fake)) == pytest.approx(squares, rel=1e-12)
    assert float(least_squares_generator(fake)) == pytest.approx(((fake - 1) ** 2).mean() / 2, rel=1e-12)


def test_r1_penalty_against_its_closed_form():
    random = np.random.default_rng(0)
    real, w1, w2 = random.normal(size=(5, 2, 3, 1)), random.normal(size=(6, 4)), random.normal(size=(4, 1))
    slopes = ((1 - np.tanh(real.reshape(5, 6) @ w1) ** 2) * w2[:, 0]) @ w1.T
    expected = 0.5 * (slopes**2).sum(axis=1).mean()
    assert float(r1_penalty(tiny_critic(w1, w2), tf.constant(real))) == pytest.approx(expected, rel=1e-12)


def test_lecam_penalty_pulls_scores_to_the_other_sides_mean():
    real, fake = np.random.default_rng(0).normal(0, 2, (2, 9, 1))
    expected = ((real - 0.3) ** 2).mean() + ((fake - 0.8) ** 2).mean()
    assert float(lecam_penalty(real, fake, 0.8, 0.3)) == pytest.approx(expected, rel=1e-12)
