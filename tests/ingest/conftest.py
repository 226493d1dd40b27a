"""Small real files of every kind, made on the spot."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedPETImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

CLASSES = {
    "PT": PositronEmissionTomographyImageStorage,
    "MG": DigitalMammographyXRayImageStorageForPresentation,
}


def dicom_dataset(stored, modality="PT", **attributes):
    """A DICOM dataset around stored values (h, w); keyword arguments set attributes, None removes them."""
    data = Dataset()
    data.SOPClassUID = CLASSES[modality]
    data.Modality = modality
    data.PatientID, data.PatientName, data.PatientBirthDate = "HOSP-4711", "Doe^Jane", "19480229"
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    data.SOPInstanceUID = generate_uid()
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.PixelData = stored.astype("<u2").tobytes()
    if modality == "PT":
        data.Units, data.RescaleSlope, data.RescaleIntercept = "BQML", "1", "0"
        describe_uptake(data)
        data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        data.ImagePositionPatient = ["0", "0", "0"]
    for name, value in attributes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID") or generate_uid()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def describe_uptake(data):
    """What SUV needs: F-18, injected an hour before the scan."""
    item = Dataset()
    item.RadiopharmaceuticalStartDateTime, item.RadiopharmaceuticalStartTime = "20240229110000", "110000"
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = "370000000", "6586.2"
    data.RadiopharmaceuticalInformationSequence = Sequence([item])
    data.PatientWeight, data.PatientSize, data.PatientSex = "70", "1.70", "F"
    data.DecayCorrection, data.CorrectedImage = "START", ["ATTN", "DECY"]
    data.SeriesDate = data.AcquisitionDate = "20240229"
    data.SeriesTime = data.AcquisitionTime = "120000"


def enhanced_pet(stored, slopes, depths):
    """A multi-frame PET (n, h, w) with a slope and a position for each frame."""
    data = dicom_dataset(
        stored,
        SOPClassUID=EnhancedPETImageStorage,
        NumberOfFrames=len(stored),
        RescaleSlope=None,
        RescaleIntercept=None,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    shared, plane = Dataset(), Dataset()
    plane.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    shared.PlaneOrientationSequence = Sequence([plane])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for slope, depth in zip(slopes, depths, strict=True):
        frame, place, transformation = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = ["0", "0", str(depth)]
        transformation.RescaleSlope, transformation.RescaleIntercept = str(slope), "0"
        frame.PlanePositionSequence = Sequence([place])
        frame.PixelValueTransformationSequence = Sequence([transformation])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return data


def multi_frame_pet(stored, slopes, planes, spacing=(2.0, 2.0), legacy=False, **attributes):
    """An enhanced PET (n, h, w), or one converted from single slices, with every frame's plane.

    `planes` are (position, across, down). A converted one has its orientation frame by frame, and what no
    functional group has room for in a sequence of unassigned attributes.
    """
    data = enhanced_pet(stored, slopes, range(len(stored)))
    shared, frames = Dataset(), data.PerFrameFunctionalGroupsSequence
    measures = Dataset()
    measures.PixelSpacing = list(spacing)
    shared.PixelMeasuresSequence = Sequence([measures])
    for frame, (position, across, down) in zip(frames, planes, strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = list(position)
        orientation = Dataset()
        orientation.ImageOrientationPatient = [*across, *down]
        frame.PlaneOrientationSequence = Sequence([orientation])
    if legacy:
        data.SOPClassUID = LegacyConvertedEnhancedPETImageStorage
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        rest = Dataset()
        rest.Units = data.Units
        del data.Units
        shared.UnassignedSharedConvertedAttributesSequence = Sequence([rest])
    else:
        shared.PlaneOrientationSequence = frames[0].PlaneOrientationSequence
        for frame in frames:
            del frame.PlaneOrientationSequence
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


@pytest.fixture
def write_dicom(tmp_path):
    def write(name, stored, modality="PT", **attributes):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dicom_dataset(np.asarray(stored), modality, **attributes).save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def write_picture(tmp_path):
    def write(name, pixels):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(path)
        return path

    return write


@pytest.fixture
def pictures(tmp_path, write_picture):
    """Eight pictures of four patients, one folder a patient."""
    random = np.random.default_rng(7)
    for patient in range(4):
        for side in "LR":
            pixels = random.integers(0, 256, (24, 24), np.uint8)
            write_picture(f"files/woman-{patient}/{side}.png", pixels)
    return tmp_path / "files"


@pytest.fixture(autouse=True)
def key_file(tmp_path, monkeypatch):
    """A key of the test's own, never the user's."""
    path = tmp_path / "identity.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    monkeypatch.setenv("PETGAN_KEY_FILE", str(path))
    return path
