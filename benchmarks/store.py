"""Size and speed of a dataset under HDF5's compressions, on phantoms.

    python benchmarks/store.py --images 1000

Every compression stores the same images, one a chunk as datasets do. Reading is what training does: all
images once, and single ones at random. The files are in the system's cache, so that the figures are of
the decompression and not of the disk; medians of several rounds count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from petgan.phantom import mammogram, pet

SIZE = 224
PATIENTS = 12
COMPRESSIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "lzf": {"compression": "lzf"},
    "shuffle, lzf": {"compression": "lzf", "shuffle": True},
    "gzip 1": {"compression": "gzip", "compression_opts": 1},
    "shuffle, gzip 1": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "shuffle, gzip 4": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{args.images} images of {SIZE} pixels; microseconds an image")
    print(f"{'images':20}{'compression':18}{'size':>8}{'write':>8}{'read all':>10}{'random':>8}")
    for kind, few in (("PET uint8", pet_slices()), ("PET float32", pet_slices("float32")), *mammograms()):
        images = np.resize(few, (args.images, SIZE, SIZE, 1))
        for name, options in COMPRESSIONS.items():
            size, *times = measure(images, options, args.rounds)
            columns = "".join(
                f"{1e6 * t / len(images):{width}.0f}" for t, width in zip(times, (8, 10, 8), strict=True)
            )
            print(f"{kind:20}{name:18}{size / images.nbytes:8.1%}{columns}")


def pet_slices(dtype: str = "uint8") -> np.ndarray:
    """Slices of phantoms, (n, SIZE, SIZE): Bq/ml, or grey levels of the full window."""
    volumes = []
    for number in range(PATIENTS):
        rng = np.random.default_rng(number)
        volume = pet.scan(pet.random_patient(rng), 8, SIZE, "fbp", rng).images
        volumes.append(volume if dtype == "float32" else np.rint(255 * volume / volume.max()))
    return np.concatenate(volumes).astype(dtype)


def mammograms() -> list[tuple[str, np.ndarray]]:
    pictures = np.concatenate(
        [mammogram.mammograms(SIZE, np.random.SeedSequence(number)) for number in range(PATIENTS)]
    )
    random = np.random.default_rng(0)
    floats = pictures + random.random(pictures.shape, np.float32)  # a detector of more than 8 bits
    return [("mammogram uint8", pictures), ("mammogram float32", floats.astype(np.float32))]


def measure(images: np.ndarray, options: dict[str, Any], rounds: int) -> tuple[float, ...]:
    """Bytes in the file, and seconds to write, to read all, and to read each once at random."""
    order = np.random.default_rng(0).permutation(len(images))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.h5")

        def write() -> None:
            with h5py.File(path, "w") as file:
                stored = file.create_dataset(
                    "images", images.shape, images.dtype, chunks=(1, *images.shape[1:]), **options
                )
                for index, image in enumerate(images):
                    stored[index] = image

        def read_all() -> None:
            with h5py.File(path) as file:
                file["images"][:]

        def read_random() -> None:
            with h5py.File(path) as file:
                stored = file["images"]
                for index in order:
                    stored[index]

        times = [median_time(work, rounds) for work in (write, read_all, read_random)]
        return path.stat().st_size, *times


def median_time(work: Callable[[], None], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
