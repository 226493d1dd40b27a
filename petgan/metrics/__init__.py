"""Scores as plain functions on arrays, NumPy and SciPy only."""

from petgan.metrics.frechet import frechet_distance, frechet_infinity
from petgan.metrics.histogram import histogram_wasserstein
from petgan.metrics.kernel import kernel_distance
from petgan.metrics.neighbours import nearest_distances
from petgan.metrics.prdc import density_coverage, precision_recall
from petgan.metrics.privacy import authenticity, memorisation_test, nearest_neighbours
from petgan.metrics.spectrum import spectral_distance
from petgan.metrics.texture import texture_distance, texture_features
from petgan.metrics.wasserstein import sliced_wasserstein

__all__ = [
    "authenticity",
    "density_coverage",
    "frechet_distance",
    "frechet_infinity",
    "histogram_wasserstein",
    "kernel_distance",
    "memorisation_test",
    "nearest_distances",
    "nearest_neighbours",
    "precision_recall",
    "sliced_wasserstein",
    "spectral_distance",
    "texture_distance",
    "texture_features",
]
