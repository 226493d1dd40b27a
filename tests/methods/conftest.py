"""Fixtures that the tests of several methods share."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf


@pytest.fixture
def float64_without_graphs():
    """Threads cannot wait for each other within one graph; rounding is not what is tested."""
    floats, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(floats)
