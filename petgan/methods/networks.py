"""What a run trains: its networks, their averages and their optimizers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from petgan.config import Point, image_base
from petgan.distributed import Alone
from petgan.optimizers import RMSprop, SCRMSprop

DTYPE_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class State:
    """Numbers that an update changes besides weights, such as the strength of an augmentation.

    Parameters
    ----------
    **values : float
        Each becomes a float32 variable, and an attribute of its name.
    """

    def __init__(self, **values: float) -> None:
        self._variables = {
            name: keras.Variable(value, trainable=False, dtype="float32", name=name)
            for name, value in values.items()
        }

    @property
    def variables(self) -> list[keras.Variable]:
        """All of them, in the order that they were given."""
        return list(self._variables.values())

    def __getattr__(self, name: str) -> keras.Variable:
        try:
            return self.__dict__["_variables"][name]
        except KeyError:
            raise AttributeError(name) from None


Part: TypeAlias = Any  # keras.Model, keras.Optimizer or State: for mypy, Keras has no types


class Networks(dict[str, Part]):
    """The parts of a run by name, in the order that a checkpoint holds them.

    Every method has a ``generator`` and its average, ``ema_generator``, that makes its images.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class _Value:
    name: str
    value: np.ndarray

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value, dtype)


@dataclass(frozen=True)
class _Copy:
    variables: list[_Value]


def copied(networks: Networks, shown: keras.Model) -> Networks:
    """A copy of what a checkpoint holds, which updates leave alone; its averaged generator is `shown`."""
    shown.set_weights(networks.ema_generator.get_weights())
    copies = {
        name: _Copy([_Value(v.name, np.array(v.numpy())) for v in variables_of(part)])
        for name, part in networks.items()
        if name != "ema_generator"
    }
    return Networks({name: copies.get(name, shown) for name in networks})


def variables_of(part: Part) -> list[keras.Variable]:
    """All that a checkpoint holds of a part."""
    return part.weights if isinstance(part, keras.Model) else part.variables


@contextlib.contextmanager
def computing_in(compute_dtype: str) -> Iterator[None]:
    """Within this block, networks are built to compute in this type; their weights are float32."""
    before = keras.config.dtype_policy()
    if compute_dtype != "float32":
        keras.config.set_dtype_policy(DTYPE_POLICIES[compute_dtype])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def averaged_copy(model: keras.Model) -> keras.Model:
    """A copy to average the weights of `model` in; it computes in the precision of its weights."""

    def layer_of(layer: keras.Layer) -> keras.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": layer.variable_dtype})

    copy = keras.models.clone_model(model, clone_function=layer_of)
    for own, weight in zip(copy.weights, model.weights, strict=True):
        own.assign(weight)  # the same memory until one is updated; set_weights makes copies on the way
    return copy


def update_average(average: keras.Model, model: keras.Model, step: tf.Tensor, decay: float) -> None:
    """Move an averaged model: a' = d a + (1 - d) w, with d = min(decay, (1 + t) / (10 + t)).

    The early limit is that of TensorFlow's ExponentialMovingAverage with `num_updates`: the average
    forgets the random start quickly. Statistics of batch normalization are averaged with the weights.
    """
    t = tf.cast(step, keras.backend.floatx())
    keep = tf.minimum(tf.constant(decay, t.dtype), (1 + t) / (10 + t))
    for mean, weight in zip(average.weights, model.weights, strict=True):
        mean.assign(weight + keep * (mean - weight))  # one array; d a + (1 - d) w would take two


def learning_rate(point: Point, own: float | None = None) -> float:
    """Of an optimizer, the point's or its own: in a transfer slower or faster than otherwise."""
    return (own or point.learning_rate) * (point.transfer_rate if point.init_from is not None else 1.0)


def make_optimizer(point: Point, variables: list[keras.Variable], rate: float, decay: float = 0.0) -> Any:
    """Make the optimizer of `variables`; its rate after t updates is rate / (1 + decay * t).

    With float16 it scales losses, and skips an update whose gradients overflow.
    """
    schedule = (
        keras.optimizers.schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=decay) if decay else rate
    )
    options = {"learning_rate": schedule, "clipvalue": point.gradient_clip}
    options |= {k: v for k in ("beta_1", "beta_2") if (v := getattr(point, k)) is not None}
    # By class: keras.optimizers.get does not know all of them (not Lamb, in 3.15).
    kinds = {name.lower(): kind for name, kind in vars(keras.optimizers).items()}
    kinds |= {"rmsprop": RMSprop, "sc-rmsprop": SCRMSprop}
    optimizer = kinds[point.optimizer](**options)
    if point.compute_dtype == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def adversaries(point: Point, generator: keras.Model, discriminator: keras.Model) -> Networks:
    """A generator with its average, a discriminator, and the optimizers that the point gives them."""
    return Networks(
        generator=generator,
        discriminator=discriminator,
        ema_generator=averaged_copy(generator),
        generator_optimizer=make_optimizer(
            point, generator.trainable_variables, learning_rate(point), point.generator_decay
        ),
        discriminator_optimizer=make_optimizer(
            point,
            discriminator.trainable_variables,
            learning_rate(point, point.discriminator_learning_rate),
            point.discriminator_decay,
        ),
    )


def one_after_another(metrics: Mapping[str, tf.Tensor]) -> contextlib.AbstractContextManager[None]:
    """Within this block, start nothing before the turn before has these metrics, and so its gradients.

    TensorFlow would generate the images of all turns first, and hold them. XLA has an order of its own.
    """
    block: contextlib.AbstractContextManager[None] = tf.control_dependencies(list(metrics.values()))
    return block


def with_penalty(
    optimizer: keras.Optimizer,
    variables: Sequence[keras.Variable],
    gradients: Sequence[tf.Tensor],
    weight: float,
    penalty: Callable[[], tf.Tensor],
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Add the gradients of a penalty to those of a loss, once their backward pass has given back its memory.

    (XLA has an order of its own.)

    Parameters
    ----------
    optimizer : keras.Optimizer
        By which losses are scaled.
    variables : sequence of keras.Variable
    gradients : sequence of tf.Tensor
        One a variable, none of them None, of the loss as ``optimizer.scale_loss`` scales it.
    weight : float
        Of the penalty in the sum.
    penalty : callable
        Carries out the penalty's forward pass; a float32 scalar.

    Returns
    -------
    gradients : list of tf.Tensor
        Of the scaled sum, shapes and dtypes as given.
    penalty : tf.Tensor
        Its value, neither weighted nor scaled.
    """
    with tf.control_dependencies(gradients), tf.GradientTape() as tape:
        value = penalty()
        scaled = optimizer.scale_loss(weight * value)
    more = all_gradients(tape, scaled, variables)
    return [a + b for a, b in zip(gradients, more, strict=True)], value


def all_gradients(
    tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[keras.Variable]
) -> list[tf.Tensor]:
    """Gradients of `loss`: zeros for a variable that has no part in it, as a last bias in a penalty."""
    # TensorFlow's own UnconnectedGradients.ZERO fails on variables of Keras.
    return [
        tf.zeros(variable.shape, variable.dtype) if gradient is None else gradient
        for gradient, variable in zip(tape.gradient(loss, variables), variables, strict=True)
    ]


# --- after a backward pass ----------------------------------------------------------------------


def update_part(
    networks: Networks,
    part: str,
    variables: Sequence[keras.Variable],
    gradients: Sequence[tf.Tensor],
    metrics: Mapping[str, tf.Tensor],
    ranks: Alone,
) -> dict[str, tf.Tensor]:
    """Average gradients and metrics over the ranks in one collective, and apply the part's optimizer.

    Returns
    -------
    dict of str to tf.Tensor
        The averaged metrics, and ``g_gradient`` or ``d_gradient``: the norm.
    """
    optimizer = networks[f"{part}_optimizer"]
    means, metrics = averaged(ranks, gradients, metrics)
    norm = gradient_norm(means, optimizer)
    # Only then the update: it may overwrite the gradients, and change the scale that the norm is freed of.
    with tf.control_dependencies([norm]):
        optimizer.apply(means, variables)
    return metrics | {f"{part[0]}_gradient": norm}


def averaged(
    ranks: Alone, gradients: Sequence[tf.Tensor], metrics: Mapping[str, tf.Tensor]
) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
    """The means of gradients and metrics over the ranks, in one collective."""
    dtype = gradients[0].dtype  # a collective takes tensors of one type
    means = ranks.average([*gradients, *(tf.cast(value, dtype) for value in metrics.values())])
    count = len(gradients)
    return means[:count], dict(zip(metrics, means[count:], strict=True))


def gradient_norm(gradients: Sequence[tf.Tensor], optimizer: keras.Optimizer) -> tf.Tensor:
    """The norm of all `gradients` together, without the optimizer's loss scale.

    0 where they overflow in float16, since such an update is skipped.
    """
    norm = tf.linalg.global_norm(gradients) / optimizer.scale_loss(tf.ones((), gradients[0].dtype))
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return tf.where(tf.math.is_finite(norm), norm, 0.0)
    return norm


# --- how much images vary -----------------------------------------------------------------------

ROUNDING = 1e-3  # a standard deviation of images in [-1, 1] that says nothing: an eighth of a grey level


def cell_moments(images: tf.Tensor) -> tf.Tensor:
    """Mean and mean square over a batch of each cell's mean: (2, cells, cells).

    Images are cut into 7 or 8 cells a side, so that noise is not taken for variation. Moments of equal
    shares of a batch have the batch's as their mean.
    """
    size, channels = images.shape[1], images.shape[3]
    cells = image_base(size)[0]
    cut = tf.reshape(images, (-1, cells, size // cells, cells, size // cells, channels))
    means = tf.reduce_mean(cut, axis=(2, 4, 5))
    return tf.stack([tf.reduce_mean(means, axis=0), tf.reduce_mean(tf.square(means), axis=0)])


def relative_variation(generated: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """The `variation` of generated images as a share of the real ones', of their `cell_moments`.

    1 where the real ones do not vary, as one image alone does not.
    """
    of_real = variation(real)
    return tf.where(of_real > ROUNDING, tf.math.divide_no_nan(variation(generated), of_real), 1.0)


def variation(moments: tf.Tensor) -> tf.Tensor:
    """The standard deviation over a batch of its images' cells, of `cell_moments`."""
    mean, square = tf.unstack(moments)
    return tf.sqrt(tf.maximum(tf.reduce_mean(square - tf.square(mean)), 0))
