"""The losses and penalties of adversarial training, on scores before any sigmoid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def bce_discriminator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Mean of -log s(real) and -log(1 - s(fake)) with the sigmoid s (Goodfellow 2014, eq. 1)."""
    return 0.5 * (tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(fake)))


def bce_generator(fake: tf.Tensor) -> tf.Tensor:
    """-log s(fake), the loss that does not saturate (Goodfellow 2014, section 3)."""
    return tf.reduce_mean(tf.nn.softplus(-fake))


def hinge_discriminator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Mean of max(0, 1 - f(real)) plus mean of max(0, 1 + f(fake)) (Lim 2017; Miyato 2018, eq. 16)."""
    return tf.reduce_mean(tf.nn.relu(1 - real)) + tf.reduce_mean(tf.nn.relu(1 + fake))


def least_squares_discriminator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Half the mean of (f(real) - 1)^2 plus half the mean of f(fake)^2 (Mao 2017, eq. 9)."""
    return 0.5 * (tf.reduce_mean(tf.square(real - 1)) + tf.reduce_mean(tf.square(fake)))


def least_squares_generator(fake: tf.Tensor) -> tf.Tensor:
    """Half the mean of (f(fake) - 1)^2 (Mao 2017, eq. 9)."""
    return 0.5 * tf.reduce_mean(tf.square(fake - 1))


def wasserstein_critic(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Mean f(fake) - mean f(real) (Arjovsky 2017, algorithm 1)."""
    return tf.reduce_mean(fake) - tf.reduce_mean(real)


def wasserstein_generator(fake: tf.Tensor) -> tf.Tensor:
    """-mean f(fake) (Arjovsky 2017, algorithm 1; with the hinge, Miyato 2018, eq. 17)."""
    return -tf.reduce_mean(fake)


LOSSES: dict[str, tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]] = {
    "bce": (bce_discriminator, bce_generator),
    "hinge": (hinge_discriminator, wasserstein_generator),
    "least-squares": (least_squares_discriminator, least_squares_generator),
    "wasserstein": (wasserstein_critic, wasserstein_generator),
}

#: The score of an image of which the discriminator cannot tell whether it is real.
UNDECIDED = {"bce": 0.0, "hinge": 0.0, "least-squares": 0.5}


def gradient_penalty(
    critic: Callable[[tf.Tensor], tf.Tensor], real: tf.Tensor, fake: tf.Tensor, mix: tf.Tensor
) -> tf.Tensor:
    """Mean of (|grad f(x)| - 1)^2 at x = mix * real + (1 - mix) * fake (Gulrajani 2017, eq. 3).

    Parameters
    ----------
    critic : callable
        (n, h, w, c) to (n, 1).
    real, fake : tf.Tensor (n, h, w, c)
    mix : tf.Tensor (n, 1, 1, 1)
        In [0, 1).
    """
    squares = squared_slopes(critic, mix * real + (1 - mix) * fake)
    # A norm of exactly 0 has no gradient; the smallest normal number keeps it finite.
    norms = tf.sqrt(tf.maximum(squares, np.finfo(np.float32).tiny))
    return tf.reduce_mean(tf.square(norms - 1))


def r1_penalty(critic: Callable[[tf.Tensor], tf.Tensor], real: tf.Tensor) -> tf.Tensor:
    """Half the mean of |grad f(x)|^2 at real images (Mescheder 2018, eq. 9).

    Parameters
    ----------
    critic : callable
        (n, h, w, c) to (n, 1).
    real : tf.Tensor (n, h, w, c)
    """
    return 0.5 * tf.reduce_mean(squared_slopes(critic, real))


def squared_slopes(critic: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """|grad f(x)|^2 of each image, (n,)."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        scores = critic(images)
    slopes = tape.gradient(scores, images)
    return tf.reduce_sum(tf.square(slopes), axis=(1, 2, 3))


def lecam_penalty(real: tf.Tensor, fake: tf.Tensor, mean_real: tf.Tensor, mean_fake: tf.Tensor) -> tf.Tensor:
    """Mean (f(real) - mean f(fake))^2 plus mean (f(fake) - mean f(real))^2 (Tseng 2021, eq. 3).

    Parameters
    ----------
    real, fake : tf.Tensor (n, 1)
        Scores.
    mean_real, mean_fake : tf.Tensor ()
        Their moving averages, through which no gradient flows.
    """
    to_fake = tf.reduce_mean(tf.square(real - mean_fake))
    return to_fake + tf.reduce_mean(tf.square(fake - mean_real))


def patch_contrast(queries: tf.Tensor, keys: tf.Tensor, temperature: float) -> tf.Tensor:
    """Mean cross entropy of finding each query's key among those of its image (Park 2020, eq. 3 and 4).

    Parameters
    ----------
    queries, keys : tf.Tensor (n, patches, d)
        Of unit length; those at the same place belong together. No gradient flows to the keys.
    temperature : float
    """
    logits = tf.matmul(queries, tf.stop_gradient(keys), transpose_b=True) / temperature
    return -tf.reduce_mean(tf.linalg.diag_part(tf.nn.log_softmax(logits)))
