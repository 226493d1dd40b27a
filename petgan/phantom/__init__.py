"""Synthetic patients as real files: DICOM PET of the breast, and mammograms as GIF and PNG.

Nobody is in them, and everything about them is known. All of a phantom follows from its parameters: the
same ones give the same bytes, whatever the number of workers.

`pet` is the patient and her scan, `tomography` the scanner's physics, `dicom` the files' content,
`mammogram` the pictures.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from petgan import __version__
from petgan.config import Frozen, Positive, validated
from petgan.errors import ConfigError, InputError, PetganError
from petgan.phantom import dicom, mammogram, pet
from petgan.runs import read_json, write_json

MODALITIES = ("pet", "mammogram", "both")
RECONSTRUCTIONS = ("fbp", "mlem")
DEFAULT_SIZES = {"pet": 128, "mammogram": 256}
SIZE_LIMITS = {"pet": (32, 256), "mammogram": (64, 2048)}  # a finer PET outruns the scanner's resolution
RECORD = "phantom.json"

Progress = Callable[[int, int], None]


class Parameters(Frozen):
    """All that determines a phantom, but for petgan's own version; sizes are in pixels."""

    modality: Literal["pet", "mammogram", "both"]
    patients: Annotated[int, Field(gt=0, le=9999)]
    slices: Annotated[int, Field(gt=0, le=200)]
    size: Positive | None
    recon: Literal["fbp", "mlem"]
    seed: Annotated[int, Field(ge=0, lt=2**63)]

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("pet", "mammogram") if self.modality == "both" else (self.modality,)

    def size_of(self, modality: str) -> int:
        return self.size or DEFAULT_SIZES[modality]

    def label(self, patient: int) -> str:
        """A text that determines the patient's PET files, and that no other patient has."""
        what = f"{self.slices} slices, {self.size_of('pet')} pixels, {self.recon}, seed {self.seed}"
        return f"petgan {__version__} phantom: {what}, patient {patient}"

    def patient_files(self, patient: int) -> list[Path]:
        """What is written of a patient, relative to the phantom's folder."""
        names = {
            "pet": dicom.file_names(self.label(patient), self.slices),
            "mammogram": mammogram.file_names(patient),
        }
        return [Path(kind, folder_name(patient), name) for kind in self.modalities for name in names[kind]]


def folder_name(patient: int) -> str:
    return f"PHANTOM-{patient:03d}"


def make_phantom(
    out: Path | str,
    modality: str = "both",
    patients: int = 24,
    slices: int = 8,
    size: int | None = None,
    recon: str = "fbp",
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> int:
    """Write synthetic patients below a folder, and their parameters as ``phantom.json`` when all is done.

    Parameters
    ----------
    out : path
        Gets ``pet/PATIENT/*.dcm`` and ``mammogram/PATIENT/SIDE_VIEW.png`` or ``.gif``. What an
        interrupted call with the same parameters left there is completed.
    modality : str
        ``pet``, ``mammogram`` or ``both``.
    patients : int
    slices : int
        PET slices of a patient, from chest wall to nipple.
    size : int, optional
        Pixels along a side; 128 (PET) and 256 (mammogram) if None.
    recon : str
        Of PET: ``fbp`` (filtered back projection) or ``mlem``.
    seed : int
        Of everything. A patient does not depend on how many follow.
    workers : int
        Processes.
    progress : callable, optional
        Is told the files done and their total.

    Returns
    -------
    int
        Files written, without ``phantom.json``.

    Raises
    ------
    ConfigError
        If a value is impossible, or the folder holds another phantom.
    DiskError
        If the disk is full or not writable; every file that is there then is whole.
    """
    parameters = check_phantom(out, modality, patients, slices, size, recon, seed, workers)
    show = progress or (lambda done, total: None)
    total = sum(count_files(parameters).values())
    done = 0
    show(done, total)
    for number in _write_all(Path(out), parameters, workers):
        done += number
        show(done, total)
    record = {"schema_version": 1, "petgan_version": __version__, **parameters.model_dump(mode="json")}
    write_json(Path(out, RECORD), record)
    return done


def check_phantom(
    out: Path | str,
    modality: str,
    patients: int,
    slices: int,
    size: int | None,
    recon: str,
    seed: int,
    workers: int,
) -> Parameters:
    """Everything that `make_phantom` refuses, found out before anything is written."""
    if workers < 1:
        raise ConfigError("a phantom needs at least one worker", value=workers)
    values = {"modality": modality, "patients": patients, "slices": slices, "size": size}
    parameters: Parameters = validated(Parameters, {**values, "recon": recon, "seed": seed})
    for name in parameters.modalities:
        low, high = SIZE_LIMITS[name]
        if not low <= parameters.size_of(name) <= high:
            raise ConfigError(
                f"{name} phantoms cannot have this size", value=size, allowed=f"{low} to {high} pixels"
            )
    _refuse_other_files(Path(out), parameters)
    return parameters


def count_files(parameters: Parameters) -> dict[str, int]:
    """Files that a phantom has, by modality."""
    each = {"pet": parameters.slices, "mammogram": len(mammogram.VIEWS)}
    return {name: parameters.patients * each[name] for name in parameters.modalities}


def _refuse_other_files(out: Path, parameters: Parameters) -> None:
    hint = "choose another folder, or delete this one first"
    for folder in (out, *out.parents):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file, not a folder to write to", hint="choose another folder")
    if (out / RECORD).is_file():
        try:
            record = read_json(out / RECORD)
        except InputError as error:
            raise ConfigError(str(error), hint=hint) from None
        ours = parameters.model_dump(mode="json")
        if not isinstance(record, dict) or any(record.get(key) != value for key, value in ours.items()):
            raise ConfigError(f"{out} already holds a phantom with other parameters", hint=hint)
    planned = {path for patient in range(parameters.patients) for path in parameters.patient_files(patient)}
    for modality in ("pet", "mammogram"):
        for path in sorted((out / modality).rglob("*")):
            own = path.relative_to(out)
            if path.is_file() and not path.name.startswith(".") and own not in planned:
                raise ConfigError(f"{out} already holds files of something else, such as {own}", hint=hint)


def _write_all(out: Path, parameters: Parameters, workers: int) -> Iterator[int]:
    """Write the patients, and say after each how many files it has."""
    if workers == 1:
        for patient in range(parameters.patients):
            yield _write_patient(out, parameters, patient)
        return
    # Fresh processes: a forked one could inherit the threads' locks of whoever called.
    # Ctrl-C is for the caller; they finish the patient they are at.
    with ProcessPoolExecutor(
        min(workers, parameters.patients),
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        jobs = [pool.submit(_write_patient, out, parameters, n) for n in range(parameters.patients)]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool:
            raise PetganError(
                "a worker process was killed, perhaps for want of memory",
                hint="give the same command again, with fewer workers",
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _write_patient(out: Path, parameters: Parameters, patient: int) -> int:
    if "pet" in parameters.modalities:
        who = pet.random_patient(np.random.default_rng(_seed(parameters, patient, "anatomy")))
        noise = np.random.default_rng(_seed(parameters, patient, "counts"))
        scan = pet.scan(who, parameters.slices, parameters.size_of("pet"), parameters.recon, noise)
        folder = out / "pet" / folder_name(patient)
        dicom.write_scan(folder, patient, who, scan, parameters.recon, parameters.label(patient))
    if "mammogram" in parameters.modalities:
        folder = out / "mammogram" / folder_name(patient)
        seed = _seed(parameters, patient, "mammogram")
        mammogram.write_mammograms(folder, patient, parameters.size_of("mammogram"), seed)
    return len(parameters.patient_files(patient))


def _seed(parameters: Parameters, patient: int, what: str) -> np.random.SeedSequence:
    stream = ("anatomy", "counts", "mammogram").index(what)
    return np.random.SeedSequence(parameters.seed, spawn_key=(patient, stream))
