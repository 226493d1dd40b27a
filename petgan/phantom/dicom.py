"""The slices of a scan as DICOM files of the PET image storage class, with all that SUV needs.

Everything in a file follows from the patient, the scan and a ``label``; the unique identifiers are
hashes of the label. The identity in them is invented, and as complete as that of a real export.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from petgan import __version__
from petgan.phantom.pet import FIELD_MM, HALF_LIFE_S, Patient, Scan
from petgan.runs import atomic_path

_STORED_MAX = 65535


def file_names(label: str, slices: int) -> list[str]:
    """Names of a patient's files, by slice: hashes, so that their order is not that of the slices."""
    return [hashlib.sha256(f"{label} file {k}".encode()).hexdigest()[:16] + ".dcm" for k in range(slices)]


def write_scan(folder: Path, number: int, patient: Patient, scan: Scan, recon: str, label: str) -> None:
    """Write one file a slice.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    number : int
        Of the patient, for the invented name and id.
    patient : Patient
    scan : Scan
    recon : str
        ``fbp`` or ``mlem``.
    label : str
        What the identifiers and file names are hashes of: unique to this patient and scan.

    Raises
    ------
    DiskError
        If the disk is full or not writable.
    """
    names = file_names(label, len(scan.images))
    instances = np.argsort(np.argsort(names)) + 1  # the numbers follow the names, not the positions
    for k, name in enumerate(names):
        data = Dataset()
        _describe_patient(data, number, patient, label)
        _describe_series(data, patient, len(names), recon, label)
        _describe_slice(data, patient, scan, k)
        data.SOPInstanceUID = _uid(label, f"slice {k}")
        data.InstanceNumber = int(instances[k])
        _set_pixels(data, scan.images[k])
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["petgan"])
        data.file_meta.ImplementationVersionName = "PETGAN"
        with atomic_path(folder / name) as temporary:
            data.save_as(temporary, enforce_file_format=True)


def stored_values(image: np.ndarray) -> tuple[np.ndarray, str]:
    """Spread an image (not negative) over all 16 bits: stored values (uint16), and slope as written."""
    slope = format_number_as_ds(float(image.max()) / _STORED_MAX or 1.0)
    stored = np.clip(np.rint(image / float(slope)), 0, _STORED_MAX)
    return stored.astype(np.uint16), slope


def _describe_patient(data: Dataset, number: int, patient: Patient, label: str) -> None:
    data.PatientName = f"PHANTOM^{number:03d}"
    data.PatientID = f"PHANTOM-{hashlib.sha256(label.encode()).hexdigest()[:8].upper()}"
    data.PatientBirthDate = f"{patient.scanned.year - patient.age_years}0101"
    data.PatientSex = "F"
    data.PatientAge = f"{patient.age_years:03d}Y"
    data.PatientWeight = _ds(patient.weight_kg)
    data.PatientSize = _ds(patient.height_m)
    data.PatientComments = "Synthetic. There is no such person."
    data.PatientIdentityRemoved = "NO"
    data.StudyInstanceUID = _uid(label, "study")
    data.StudyID = str(number)
    data.StudyDescription = "Dedicated breast PET (phantom)"
    data.StudyDate, data.StudyTime = _date(patient.scanned), _time(patient.scanned)
    data.AccessionNumber = ""
    data.ReferringPhysicianName = ""


def _describe_series(data: Dataset, patient: Patient, slices: int, recon: str, label: str) -> None:
    data.SOPClassUID = PositronEmissionTomographyImageStorage
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.Modality = "PT"
    data.SeriesInstanceUID = _uid(label, "series")
    data.SeriesNumber = 1
    data.SeriesDescription = f"Breast {patient.side} {recon.upper()}"
    data.SeriesDate, data.SeriesTime = _date(patient.scanned), _time(patient.scanned)
    data.Laterality = patient.side
    data.BodyPartExamined = "BREAST"
    data.PatientPosition = "HFP"
    data.PatientOrientationCodeSequence = Sequence([_code("1240000", "SCT", "prone")])
    data.PatientGantryRelationshipCodeSequence = Sequence([_code("102540008", "SCT", "headfirst")])
    data.FrameOfReferenceUID = _uid(label, "frame of reference")
    data.PositionReferenceIndicator = ""
    data.Manufacturer = "petgan"
    data.ManufacturerModelName = "phantom"
    data.SoftwareVersions = __version__
    data.Units = "BQML"
    data.CountsSource = "EMISSION"
    data.SeriesType = ["STATIC", "IMAGE"]
    data.NumberOfSlices = slices
    data.CorrectedImage = ["NORM", "ATTN", "DECY"]
    data.DecayCorrection = "START"
    data.AttenuationCorrectionMethod = "CALCULATED, 0.096/cm"
    data.ScatterCorrectionMethod = "NONE"
    data.RandomsCorrectionMethod = "NONE"
    data.ReconstructionMethod = "FBP, Hann" if recon == "fbp" else "MLEM"
    data.CollimatorType = "NONE"
    data.RadiopharmaceuticalInformationSequence = Sequence([_radiopharmaceutical(patient)])


def _radiopharmaceutical(patient: Patient) -> Dataset:
    item = Dataset()
    item.Radiopharmaceutical = "Fluorodeoxyglucose F^18^"
    item.RadiopharmaceuticalCodeSequence = Sequence([_code("35321007", "SCT", item.Radiopharmaceutical)])
    item.RadionuclideCodeSequence = Sequence([_code("77004003", "SCT", "^18^Fluorine")])
    item.RadiopharmaceuticalStartTime = _time(patient.injected)
    item.RadiopharmaceuticalStartDateTime = _date(patient.injected) + _time(patient.injected)
    item.RadionuclideTotalDose = _ds(patient.dose_bq)
    item.RadionuclideHalfLife = _ds(HALF_LIFE_S)
    item.RadionuclidePositronFraction = _ds(0.967)
    return item


def _describe_slice(data: Dataset, patient: Patient, scan: Scan, k: int) -> None:
    acquired = patient.scanned + timedelta(seconds=float(scan.start_s[k]))
    data.AcquisitionDate, data.AcquisitionTime = _date(acquired), _time(acquired)
    data.ContentDate, data.ContentTime = _date(acquired), _time(acquired)
    data.ActualFrameDuration = int(1000 * patient.frame_s)
    # The moment at which the activity is the frame's mean.
    data.FrameReferenceTime = _ds(1000 * HALF_LIFE_S * float(np.log2(scan.decay[k])))
    data.DecayFactor = _ds(float(scan.decay[k]))
    data.DoseCalibrationFactor = _ds(1.0)
    data.ImageIndex = k + 1
    pixel = FIELD_MM / scan.images.shape[1]
    edge = FIELD_MM / 2 - pixel / 2
    # Coronal: rows run to the patient's left (+x), columns to the feet (-z), slices from the nipple at
    # the lowest y to the chest wall, at y = 0.
    data.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    data.ImagePositionPatient = [_ds(-edge), _ds(-float(scan.depths_mm[k])), _ds(edge)]
    data.PixelSpacing = [_ds(pixel), _ds(pixel)]
    data.SliceThickness = _ds(scan.thickness_mm)
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    data.QualityControlImage = "YES"  # DICOM's word for an image of a phantom


def _set_pixels(data: Dataset, image: np.ndarray) -> None:
    stored, slope = stored_values(image)
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.RescaleIntercept = "0"
    data.RescaleSlope = slope
    data.PixelData = stored.astype("<u2").tobytes()


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _uid(label: str, what: str) -> str:
    return generate_uid(entropy_srcs=[label, what])


def _date(when: datetime) -> str:
    return when.strftime("%Y%m%d")


def _time(when: datetime) -> str:
    return when.strftime("%H%M%S")


def _ds(value: float) -> str:
    return format_number_as_ds(value)
