"""Spectral normalization: layers that use their kernel over its largest singular value, W / sigma(W).

Miyato 2018, section 2.1, as a function of the weights and not of the calls: a pass changes nothing, and
`find_vectors` finds the singular vectors anew after an update. So it does not matter in how many passes,
on how many ranks and after how many interruptions the images of an update are judged.

One vector and one step of power iteration, as in that paper, stay at what was the largest singular value
while another one overtakes it: in the first updates of a DCGAN sigma was up to 30 % too small.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

SQUARINGS = 12  # sigma is found within 1 - units ** -(1 / 2 ** 13): 0.08 % for 512 units


class Spectral:
    """What the layers share; their kernel (..., units) is read as a matrix W (inputs, units).

    ``vector`` (units,) is W's first right singular vector u. sigma = |W u|, whose gradient by W is v u^T with
    v = W u / |W u|: that of sigma = v^T W u with u and v held constant.
    """

    def build(self: Any, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)  # type: ignore[misc]
        self.vector = self.add_weight(
            name="vector",
            shape=(self.kernel.shape[-1],),
            initializer=lambda shape, dtype=None: first_right_singular_vector(self._matrix(self.kernel)),
            trainable=False,
            autocast=False,
        )

    def _matrix(self: Any, kernel: tf.Tensor) -> tf.Tensor:
        full = keras.backend.standardize_dtype(self.variable_dtype)
        return tf.reshape(tf.cast(kernel, full), (-1, kernel.shape[-1]))

    def normalized(self: Any, kernel: tf.Tensor) -> tf.Tensor:
        """`kernel` over its largest singular value, in its own dtype; the division is in float32."""
        kernel = tf.convert_to_tensor(kernel)
        sigma = tf.norm(tf.linalg.matvec(self._matrix(kernel), self.vector))
        return tf.cast(tf.cast(kernel, sigma.dtype) / sigma, kernel.dtype)

    def find_vector(self: Any) -> None:
        """Bring the vector up to the kernel."""
        self.vector.assign(first_right_singular_vector(self._matrix(self.kernel)))

    def plain_weights(self: Any) -> list[np.ndarray]:
        """Those of the Keras layer that does the same: normalized kernel, and bias."""
        return [np.asarray(w) for w in (self.normalized(self.kernel), *self.trainable_weights[1:])]

    # Keras' own convolution and dense layer keep their kernel and bias only.
    def save_own_variables(self: Any, store: Any) -> None:
        keras.Layer.save_own_variables(self, store)

    def load_own_variables(self: Any, store: Any) -> None:
        keras.Layer.load_own_variables(self, store)


@keras.saving.register_keras_serializable("petgan")
class SpectralConv2D(Spectral, keras.layers.Conv2D):
    """A convolution whose kernel (height, width, channels, filters) has the largest singular value 1."""

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return super().convolution_op(inputs, self.normalized(kernel))


@keras.saving.register_keras_serializable("petgan")
class SpectralDense(Spectral, keras.layers.Dense):
    """A fully connected layer whose kernel (inputs, units) has the largest singular value 1."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = ops.matmul(inputs, self.normalized(self.kernel))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def find_vectors(model: keras.Model) -> None:
    """Bring the vectors of all spectral layers of `model` up to its weights: after each update of them."""
    for layer in model.layers:
        if layer.trainable and isinstance(layer, Spectral):  # a frozen kernel has its vector
            layer.find_vector()


def first_right_singular_vector(matrix: tf.Tensor) -> tf.Tensor:
    """Find u (units,) with |u| = 1 and |W u| the largest singular value of `matrix` W (inputs, units).

    q = 2 ** `SQUARINGS` steps of power iteration from a unit vector, by squaring: of (W^T W)^q, the column
    with the largest diagonal element. A GPU has a dozen products of matrices to carry out, where a QR or
    eigenvalue decomposition takes thousands of small steps. (A CPU core has 83 ms of work with 512 units of a
    5x5 kernel; a block Krylov iteration took it 39.)

    With the singular values s_i, the right singular vectors v_i and w_i = v_ij^2 for column j,
    |W u|^2 = sum w_i s_i^(4q + 2) / sum w_i s_i^(4q): by Jensen no less than (sum w_i s_i^(2q))^(1 / q).
    The sum is element (j, j) of (W^T W)^q, and the largest of these is no less than trace / units, so
    s_1 >= |W u| >= s_1 units^(-1 / (2q)), whatever the singular values are.
    """
    power = tf.matmul(matrix, matrix, transpose_a=True)
    power /= tf.linalg.trace(power)
    for _ in range(SQUARINGS):
        power = tf.matmul(power, power)
        power /= tf.linalg.trace(power)
    column = tf.argmax(tf.linalg.diag_part(power))
    return tf.math.l2_normalize(tf.gather(power, column, axis=1))
