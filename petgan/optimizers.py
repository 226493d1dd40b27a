"""Optimizers that Keras does not have, or that take less memory here than there."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("petgan")
class RMSprop(keras.optimizers.RMSprop):
    """Keras' RMSprop without momentum, with one array beside the gradient where Keras' has three.

    In each update, with the gradient g, of each weight:

        v <- v - (1 - rho) (v - g^2)
        weight <- weight - learning_rate g / sqrt(v + epsilon)

    The study's `gan` has 51 million weights in one layer at 224 pixels: three arrays are 0.6 GB. A gradient
    whose square overflows makes its weight NaN, which the watch sees; Keras' stops its weight for good.

    Parameters
    ----------
    learning_rate : float or schedule
    rho : float
        In [0, 1): how slowly the mean square follows (Tieleman and Hinton 2012: 0.9).
    epsilon : float
        Positive.
    **kwargs
        Of `keras.Optimizer`, such as ``clipvalue``.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        epsilon: float = 1e-7,
        name: str = "rmsprop",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, rho=rho, epsilon=epsilon, name=name, **kwargs)
        if self.momentum or self.centered:
            raise ValueError("this RMSprop has neither momentum nor centering: take Keras' own")

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
        square = self._velocities[self._get_variable_index(variable)]
        self.assign_sub(square, (1 - self.rho) * (square - ops.square(gradient)))
        self.assign_sub(variable, rate * gradient * ops.rsqrt(square + self.epsilon))


@keras.saving.register_keras_serializable("petgan")
class SCRMSprop(keras.Optimizer):
    """SC-RMSProp, RMSProp for strongly convex problems (Mukkamala and Hein 2017, algorithm 5).

    In update t = 1, 2, ... with the gradient g, of each weight:

        v <- (1 - gamma / t) v + gamma / t g^2
        weight <- weight - learning_rate g / (t v + xi_2 exp(-xi_1 t v))

    Parameters
    ----------
    learning_rate : float or schedule
    gamma : float
        In (0, 1]; with 1 it is SC-Adagrad.
    xi_1, xi_2 : float
        Positive; the damping, as in the paper's experiments.
    **kwargs
        Of `keras.Optimizer`, such as ``clipvalue``.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        gamma: float = 0.9,
        xi_1: float = 0.1,
        xi_2: float = 0.1,
        name: str = "sc_rmsprop",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.gamma, self.xi_1, self.xi_2 = gamma, xi_1, xi_2

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self._squares = self.add_optimizer_variables(variables, "square")

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
        t = ops.cast(self.iterations + 1, variable.dtype)
        square = self._squares[self._get_variable_index(variable)]
        self.assign(square, square + self.gamma / t * (ops.square(gradient) - square))
        total = t * square
        self.assign_sub(variable, rate * gradient / (total + self.xi_2 * ops.exp(-self.xi_1 * total)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma, "xi_1": self.xi_1, "xi_2": self.xi_2}
