"""Scores as plain functions on arrays, NumPy and SciPy only."""

from petgan.metrics.frechet import frechet_distance, frechet_infinity
from petgan.metrics.kernel import kernel_distance
from petgan.metrics.neighbours import nearest_distances
from petgan.metrics.prdc import density_coverage, precision_recall
from petgan.metrics.wasserstein import sliced_wasserstein

__all__ = [
    "density_coverage",
    "frechet_distance",
    "frechet_infinity",
    "kernel_distance",
    "nearest_distances",
    "precision_recall",
    "sliced_wasserstein",
]
