"""Scores as plain functions on arrays, NumPy and SciPy only."""

from petgan.metrics.copies import nearest_distances
from petgan.metrics.frechet import frechet_distance
from petgan.metrics.kernel import kernel_distance
from petgan.metrics.wasserstein import sliced_wasserstein

__all__ = ["frechet_distance", "kernel_distance", "nearest_distances", "sliced_wasserstein"]
