"""Scores as plain functions on arrays, NumPy and SciPy only."""

from petgan.metrics.wasserstein import sliced_wasserstein

__all__ = ["sliced_wasserstein"]
