"""Files per second and peak memory of `petgan ingest`, beside the loop that users write.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --files 200 --rounds 1

Both read the same files, made in a temporary folder: single-slice DICOM PET in series of 100, and 8-bit grey
PNG. The loop is pydicom or Pillow, a resize, and numpy.save of all images in one array; it has one window,
and neither splits, hashes, order, checks, record nor page. Each is a command of its own, timed with the
start of Python, its files in the page cache. petgan starts from scratch, without the folder
``<stem>.ingest.cache`` of an earlier run; "the same again" is its last command once more, over the folder
that it left. The medians of several rounds count, one method after the other in each round; memory is that
of the largest process (as the kernel counts it) and that of all processes together (their PSS, sampled).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

SERIES = 100  # slices of one
SUV_TOP = 10  # what the window makes white
SAMPLES_PER_S = 5  # of memory
AGAIN = "the same again"
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Used:
    """What a command took: seconds, those of all its processes' CPU, and MiB of memory."""

    seconds: float
    cpu: float
    largest: float
    together: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2000, help="of each kind (default: 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256], help="of DICOM slices, pixels")
    parser.add_argument("--png-side", type=int, default=512, help="pixels")
    parser.add_argument("--size", type=int, default=224, help="of the dataset's images, pixels")
    parser.add_argument("--loop", nargs=2, metavar=("FOLDER", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        users_loop(Path(args.loop[0]), Path(args.loop[1]), args.size)
        return
    print(f"{machine()}; {args.files} files a kind, images of {args.size} pixels, {args.rounds} rounds\n")
    print("| files | method | files/s | s | CPU s | largest process, MiB | all processes, MiB |")
    print("|---|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for label, source in kinds(Path(folder), args):
            measure(label, source, args.files, args)
        source = Path(folder) / "one"
        make_dicom(source, 1, args.sides[0])
        measure("one DICOM: the start alone", source, 1, args)


def measure(label: str, source: Path, files: int, args: argparse.Namespace) -> None:
    """Print a line for each method."""
    found: dict[str, list[Used]] = {}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=source.parent) as folder:
            for method, command in methods(source, Path(folder), args.size).items():
                if method != AGAIN:
                    forget(Path(folder))
                elif not list(Path(folder).glob("*.ingest.cache/*")):
                    sys.exit("petgan left no cache, so nothing can be made again out of it")
                found.setdefault(method, []).append(run(command))
    for method, rounds in found.items():
        seconds, cpu, largest, together = (
            statistics.median(getattr(used, what) for used in rounds)
            for what in ("seconds", "cpu", "largest", "together")
        )
        rate = f"{files / seconds:.0f}" if files > 1 else ""
        numbers = f"{rate} | {seconds:.2f} | {cpu:.2f} | {largest:.0f} | {together:.0f}"
        print(f"| {label} | {method} | {numbers} |", flush=True)


def forget(folder: Path) -> None:
    """Delete what earlier runs in a folder remember of what they read."""
    for cache in folder.glob("*.ingest.cache"):
        shutil.rmtree(cache)


def methods(source: Path, folder: Path, size: int) -> dict[str, list[str]]:
    """Commands, in their order: `AGAIN` is over the cache of the one before it."""

    def petgan(workers: int) -> list[str]:
        output = folder / f"{workers}.h5"
        options = ["--size", size, "--workers", workers, "--key-file", folder / "key"]
        if "png" not in source.name:
            options += ["--window", f"suv:0,{SUV_TOP}"]
        command = [sys.executable, "-m", "petgan", "ingest", source, "--output", output, *options]
        return list(map(str, command))

    found = {
        "loop": [sys.executable, __file__, "--size", str(size), "--loop", str(source), f"{folder}/loop.npy"]
    }
    for workers in sorted({1, CORES}):
        found[f"petgan, {workers} worker{'s' if workers > 1 else ''}"] = petgan(workers)
    found[AGAIN] = petgan(CORES)
    return found


# --- the loop that users write ------------------------------------------------------------------


def users_loop(folder: Path, output: Path, size: int) -> None:
    from PIL import Image

    images = []
    for path in sorted(folder.rglob("*.*")):
        if path.suffix == ".dcm":
            import pydicom

            data = pydicom.dcmread(path)
            dose = data.RadiopharmaceuticalInformationSequence[0].RadionuclideTotalDose
            values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
            suv = values * float(data.PatientWeight) * 1000 / float(dose)
            grey = Image.fromarray(np.clip(suv * 255 / SUV_TOP, 0, 255).astype(np.uint8))
        else:
            grey = Image.open(path).convert("L")
        images.append(np.asarray(grey.resize((size, size), Image.Resampling.LANCZOS)))
    np.save(output, np.stack(images))


# --- measuring ----------------------------------------------------------------------------------


def run(command: list[str]) -> Used:
    """Run a command to its end."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        peak = Peak(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{said.read().decode()[-2000:]}")
    largest = usage.ru_maxrss / 1024
    return Used(seconds, usage.ru_utime + usage.ru_stime, largest, max(largest, peak.end()))


class Peak:
    """Watches the memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._pid, self._mib, self._over = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> float:
        """MiB, at the most."""
        self._over.set()
        self._thread.join()
        return self._mib

    def _watch(self) -> None:
        while not self._over.wait(1 / SAMPLES_PER_S):
            self._mib = max(self._mib, sum(map(pss_mib, tree(self._pid))))


def tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def pss_mib(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = names[0].partition(": ")[2] if names else platform.machine()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("pydicom", "pillow", "numpy", "h5py")
    )
    return f"{CORES} cores ({cpu}), {gib:.0f} GiB, Python {platform.python_version()}, {versions}"


# --- files --------------------------------------------------------------------------------------


def kinds(folder: Path, args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Labels and folders of the files, made one kind after the other."""
    for side in args.sides:
        source = folder / f"dicom-{side}"
        make_dicom(source, args.files, side)
        yield f"DICOM PET {side} × {side}", source
    source = folder / "png"
    in_parallel(make_png, [(source, n, args.png_side) for n in range(args.files)])
    yield f"PNG {args.png_side} × {args.png_side}", source


def make_dicom(folder: Path, files: int, side: int) -> None:
    """Single-slice PET files in Bq/ml, in series of `SERIES`, each slice with a slope of its own."""
    starts = range(0, files, SERIES)
    in_parallel(
        make_series, [(folder, n, min(SERIES, files - first), side) for n, first in enumerate(starts)]
    )


def in_parallel(function: Callable[..., None], tasks: list[tuple]) -> None:
    with ProcessPoolExecutor(CORES) as pool:
        list(pool.map(function, *zip(*tasks, strict=True), chunksize=max(1, len(tasks) // (4 * CORES))))


def make_series(folder: Path, number: int, slices: int, side: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

    (folder / f"series-{number}").mkdir(parents=True)
    item = Dataset()
    item.RadiopharmaceuticalStartDateTime = "20240301110000"
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = "370000000", "6586.2"
    data = Dataset()
    data.SOPClassUID, data.Modality = PositronEmissionTomographyImageStorage, "PT"
    data.PatientID, data.PatientWeight = f"PATIENT-{number}", "70"
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number)])
    data.ImageType, data.Units, data.DecayCorrection = ["ORIGINAL", "PRIMARY"], "BQML", "START"
    data.CorrectedImage = ["DECY", "ATTN"]
    data.SeriesDate = data.AcquisitionDate = "20240301"
    data.SeriesTime = data.AcquisitionTime = "120000"
    data.RadiopharmaceuticalInformationSequence = Sequence([item])
    data.ImageOrientationPatient, data.PixelSpacing = ["1", "0", "0", "0", "1", "0"], ["2", "2"]
    data.SliceThickness = "2"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows = data.Columns = side
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.RescaleIntercept = 15, 0, "0"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    random = np.random.default_rng([number, side])
    for n in range(slices):
        data.SOPInstanceUID = generate_uid(entropy_srcs=[f"slice {n} of {number}"])
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.InstanceNumber, data.ImagePositionPatient = n + 1, ["0", "0", str(2 * n)]
        data.RescaleSlope = f"{random.uniform(0.5, 2):.6f}"
        data.PixelData = (picture(random, side) * 30000).astype("<u2").tobytes()
        data.save_as(folder / f"series-{number}" / f"{n}.dcm", enforce_file_format=True)


def make_png(folder: Path, number: int, side: int) -> None:
    from PIL import Image

    patient = folder / f"patient-{number // SERIES}"
    patient.mkdir(parents=True, exist_ok=True)
    grey = picture(np.random.default_rng(number), side) * 255
    Image.fromarray(grey.astype(np.uint8)).save(patient / f"{number}.png", compress_level=1)


def picture(random: np.random.Generator, side: int) -> np.ndarray:
    """Smooth patches with some noise, unlike any other: (side, side), 0 to 1."""
    from PIL import Image

    patches = Image.fromarray(random.random((8, 8), np.float32))
    smooth = np.asarray(patches.resize((side, side), Image.Resampling.BILINEAR))
    return 0.9 * smooth + 0.1 * random.random((side, side), np.float32)


if __name__ == "__main__":
    main()
