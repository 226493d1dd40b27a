"""What scores are measured with: a metric, of the images themselves or of a network's features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from petgan.features import Extractor
from petgan.metrics import (
    density_coverage,
    frechet_distance,
    histogram_wasserstein,
    kernel_distance,
    precision_recall,
    sliced_wasserstein,
    spectral_distance,
    texture_distance,
)
from petgan.metrics.wasserstein import level_sizes
from petgan.registry import Registry


@dataclass(frozen=True)
class Sample:
    """Some images (n, size, size) uint8, and their features (n, d) under each network, by its name."""

    images: np.ndarray
    features: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: np.ndarray) -> Sample:
        return Sample(self.images[chosen], {name: x[chosen] for name, x in self.features.items()})


@dataclass(frozen=True)
class Metric:
    """A score of generated images against real ones.

    Parameters
    ----------
    of : str
        ``"images"``, or ``"features"`` where it takes a network.
    better : str
        ``"lower"`` or ``"higher"``.
    score : callable
        (real, fake) arrays to value and standard error, None where there is none.
    fewest : int
        Samples that it takes of either side.
    """

    of: str
    better: str
    score: Callable[[np.ndarray, np.ndarray], tuple[float, float | None]]
    fewest: int = 4


NEIGHBOURS = 5  # as in both papers' recommendation for few samples

#: In the order of their weight: the first that can be had is the headline.
METRICS: Registry[Metric] = Registry("score")
METRICS.add("kid", Metric("features", "lower", kernel_distance))
METRICS.add("fid", Metric("features", "lower", lambda real, fake: (frechet_distance(real, fake), None)))
METRICS.add("swd", Metric("images", "lower", lambda real, fake: (sliced_wasserstein(real, fake), None)))


def _add_share(name: str, of_both: Callable[..., tuple[float, float]], place: int) -> None:
    def score(real: np.ndarray, fake: np.ndarray) -> tuple[float, None]:
        return of_both(real, fake, k=NEIGHBOURS)[place], None

    METRICS.add(name, Metric("features", "higher", score, fewest=NEIGHBOURS + 1))


_add_share("precision", precision_recall, 0)
_add_share("recall", precision_recall, 1)
_add_share("density", density_coverage, 0)
_add_share("coverage", density_coverage, 1)
METRICS.add("texture", Metric("images", "lower", lambda real, fake: (texture_distance(real, fake), None)))
METRICS.add("spectrum", Metric("images", "lower", lambda real, fake: (spectral_distance(real, fake), None)))
METRICS.add(
    "histogram", Metric("images", "lower", lambda real, fake: (histogram_wasserstein(real, fake), None))
)


@dataclass(frozen=True)
class Ruler:
    """A metric, and the network whose features it takes.

    Parameters
    ----------
    name : str
        Of its scores.
    metric : str
        A name of `METRICS`.
    network : str or None
        Of the features; None for a metric of images.
    id : str
        What must be equal for two scores to compare.
    """

    name: str
    metric: str
    network: str | None
    id: str

    @property
    def better(self) -> str:
        return METRICS[self.metric].better

    @property
    def fewest(self) -> int:
        return METRICS[self.metric].fewest

    def __call__(self, real: Sample, fake: Sample) -> tuple[float, float | None]:
        """Value and standard error (None where there is none) of `fake` against `real`."""
        if self.network is None:
            return METRICS[self.metric].score(real.images, fake.images)
        return METRICS[self.metric].score(real.features[self.network], fake.features[self.network])


def make_rulers(
    image_size: int,
    extractors: Sequence[Extractor],
    metrics: Iterable[str] = METRICS,
    suffix: str = "",
    fewest: int | None = None,
) -> list[Ruler]:
    """The rulers that can be had, the headline first.

    Parameters
    ----------
    image_size : int
        Pixels along a side of the images that are scored.
    extractors : sequence of Extractor
        The scores of the first are called after the metric, those of others after metric and network.
    metrics : iterable of str
        Names of `METRICS`.
    suffix : str
        Of all names.
    fewest : int, optional
        Samples of the smaller side: metrics that take more are left out.
    """
    metrics = [name for name in metrics if fewest is None or METRICS[name].fewest <= fewest]
    of_images = [
        Ruler(name + suffix, name, None, f"{name}/{_image_id(name, image_size)}")
        for name in metrics
        if METRICS[name].of == "images"
    ]
    of_features = [
        Ruler(
            name + suffix + (f"@{extractor.name}" if number else ""),
            name,
            extractor.name,
            f"{name}/{extractor.id}",
        )
        for number, extractor in enumerate(extractors)
        for name in metrics
        if METRICS[name].of == "features"
    ]
    return [*of_features, *of_images]


def _image_id(metric: str, size: int) -> str:
    return f"{size}px/{len(level_sizes(size))}-levels" if metric == "swd" else f"{size}px"
