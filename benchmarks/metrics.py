"""Speed and memory of the metrics of features, beside the plain way to write each.

    python benchmarks/metrics.py --weights inception_v3.weights.h5 --large

Features are rectified normal numbers whose scales fall off, in float32, the fakes' a little wider. The plain
ways: `scipy.linalg.sqrtm` of the product of the covariances; the kernels of each subset; all distances in
one matrix. Either way has all cores, and the largest difference of their values is shown, over the plain
one. The rate at which features are made is set against that of TensorFlow's product of float32 matrices,
measured in the same run, through the operations that the network's convolutions take. ``--large`` adds
time and peak memory for sets of 50,000, each metric in a process of its own. Medians of several rounds
count, but of ``--large``, which is taken once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import sqrtm

from petgan.features import FEATURE_NETWORKS, Extractor, NetworkFile, find_weights
from petgan.metrics import density_coverage, frechet_distance, kernel_distance, precision_recall
from petgan.registry import load

NETWORK = "inception-v3"
SUBSETS = 100
K = 5
MATRIX = 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=int, default=2048, metavar="D")
    parser.add_argument("--many", type=int, default=10_000, metavar="N", help="samples of the larger case")
    parser.add_argument("--large", type=int, nargs="?", const=50_000, metavar="N", help="50000 by default")
    parser.add_argument("--weights", type=Path, help="of InceptionV3; Keras' cache by default")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{args.features} features, {len(os.sched_getaffinity(0))} cores, seconds")
    print(f"{'':18}{'real':>8}{'fake':>8}{'petgan':>10}{'plain':>10}{'ratio':>8}  difference")
    for n, m in ((404, 150), (args.many, args.many)):
        real, fake = samples(n, args.features, seed=0), 1.1 * samples(m, args.features, seed=1)
        for name, (ours, plain) in COMPARED.items():
            our_time, our_values = timed(ours, real, fake, args.rounds)
            plain_time, values = timed(plain, real, fake, args.rounds)
            difference = np.max(np.abs(our_values - values) / np.maximum(np.abs(values), 1e-12))
            times = f"{our_time:10.3f}{plain_time:10.3f}{plain_time / our_time:8.1f}"
            print(f"{name:18}{n:8}{m:8}{times}  {difference:.0e}")
    if args.large:
        print(f"{'':26}{'count':>8}{'petgan':>10}{'peak GB':>18}")
        for name in COMPARED:
            seconds, peak = in_a_process(alone, name, args.large, args.features)
            print(f"{name:26}{args.large:8}{seconds:10.3f}{peak / 1e9:18.2f}")
    features(find_weights(args.weights), args.images, args.rounds)


def samples(count: int, features: int, seed: int) -> np.ndarray:
    """(count, features) float32."""
    out = np.random.default_rng(seed).standard_normal((count, features), np.float32)
    out /= np.sqrt(np.arange(1, features + 1, dtype=np.float32))
    return np.maximum(out, 0, out=out)


def timed(
    metric: Callable[[np.ndarray, np.ndarray], Any], real: np.ndarray, fake: np.ndarray, rounds: int
) -> tuple[float, np.ndarray]:
    """The median of several rounds, and the values."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        value = metric(real, fake)
        times.append(time.perf_counter() - start)
    return statistics.median(times), np.atleast_1d(value)


def frechet_by_root(real: np.ndarray, fake: np.ndarray) -> float:
    (m, S), (n, T) = ((x.mean(axis=0, dtype=float), np.cov(x, rowvar=False)) for x in (real, fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few samples: the product is singular
        root = sqrtm(S @ T)
    return float(np.sum((m - n) ** 2) + np.trace(S + T - 2 * np.real(root)))


def kernel_of_each_subset(real: np.ndarray, fake: np.ndarray) -> float:
    random, smaller = np.random.default_rng(0), min(len(real), len(fake))
    size, estimates = min(smaller // 2, 1000), []
    for _ in range(SUBSETS):
        x, y = (
            s[random.choice(len(s), round(size * len(s) / smaller), replace=False)].astype(float)
            for s in (real, fake)
        )
        xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
        estimates.append(within - 2 * xy.mean())
    return float(np.mean(estimates))


def precision_recall_of_all_distances(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    real_radii, fake_radii = (np.sort(distances(x, x), axis=1)[:, K] for x in (real, fake))
    between = distances(real, fake)
    return (between <= real_radii[:, None]).any(axis=0).mean(), (between <= fake_radii).any(axis=1).mean()


def density_coverage_of_all_distances(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    inside = distances(real, fake) <= np.sort(distances(real, real), axis=1)[:, K, None]
    return inside.sum() / (K * len(fake)), inside.any(axis=1).mean()


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x.astype(float), y.astype(float)
    squares = np.sum(x**2, axis=1)[:, None] - 2 * x @ y.T + np.sum(y**2, axis=1)
    return np.sqrt(np.maximum(squares, 0))


COMPARED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "FID": (frechet_distance, frechet_by_root),
    "KID": (lambda x, y: kernel_distance(x, y, SUBSETS)[0], kernel_of_each_subset),
    "precision, recall": (lambda x, y: precision_recall(x, y, K), precision_recall_of_all_distances),
    "density, coverage": (lambda x, y: density_coverage(x, y, K), density_coverage_of_all_distances),
}


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def alone(name: str, count: int, features: int) -> tuple[float, int]:
    """Seconds, and the bytes of this process at most, the samples among them."""
    real, fake = samples(count, features, 0), samples(count, features, 1)
    seconds, _ = timed(COMPARED[name][0], real, fake, rounds=1)
    status = Path("/proc/self/status").read_text().split()
    return seconds, 1024 * int(status[status.index("VmHWM:") + 1])


def features(weights: Path | None, count: int, rounds: int) -> None:
    """Print the rate of a feature network, and the share of the machine's own that it is."""
    if weights is None:
        print("features: no learned weights of InceptionV3 found, give them by --weights")
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    extractor = Extractor(NetworkFile(NETWORK, weights))
    images = np.random.default_rng(0).integers(0, 256, (count, 224, 224), np.uint8)
    extractor.features(images)  # traces the network
    seconds, _ = timed(lambda *_: extractor.features(images), images, images, rounds)
    matrix = tf.constant(np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32))
    product, _ = timed(lambda x, y: tf.matmul(x, y)[0, 0].numpy(), matrix, matrix, rounds + 2)
    rate, operations = 2 * MATRIX**3 / product, image_operations()
    print(
        f"features: {count / seconds:.1f} images/s of {operations / 1e9:.2f} GFLOP, "
        f"{count / seconds * operations / rate:.0%} of the matrix rate, {rate / 1e9:.0f} GFLOP/s"
    )


def image_operations() -> int:
    """Multiplications and additions of the network's convolutions, for one image."""
    import keras

    model = load(FEATURE_NETWORKS[NETWORK].build)()
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    # At each place of its output, each filter multiplies and adds its weights once.
    return sum(
        2 * int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3])) for layer in convolutions
    )


if __name__ == "__main__":
    main()
