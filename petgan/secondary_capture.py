"""Synthetic images as DICOM files that nobody can take for a patient's."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from petgan import __version__


def secondary_capture(image: np.ndarray, number: int, origin: str) -> Dataset:
    """Make a Secondary Capture (PS3.3, A.8.1) of one synthetic image.

    It is marked as synthetic in every place that DICOM has for it, and its modality is "other": grey
    values of a generator are no measurement. The same arguments give the same bytes.

    Parameters
    ----------
    image : ndarray (size, size) uint8
        Of even size.
    number : int
        The image's own, from 1.
    origin : str
        What tells this set of images from any other; its UIDs are derived from it.
    """
    label = f"synthetic-{number:06d}"
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.SOPInstanceUID = _uid(origin, label, "instance")
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian

    ds.PatientName = f"SYNTHETIC^{number:06d}"
    ds.PatientID = label
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "Synthetic image: there is no patient"

    ds.StudyInstanceUID = _uid(origin, label, "study")
    ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyDescription = ds.SeriesDescription = "Synthetic image, not of a patient"
    ds.SeriesInstanceUID = _uid(origin, label, "series")
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.Modality = "OT"
    ds.Manufacturer = ds.SecondaryCaptureDeviceManufacturer = "petgan"
    ds.SoftwareVersions = ds.SecondaryCaptureDeviceSoftwareVersions = __version__
    ds.ConversionType = "SYN"

    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.SyntheticData = "YES"
    ds.QualityControlImage = "YES"
    ds.BurnedInAnnotation = "NO"
    ds.PatientOrientation = ""
    ds.DerivationDescription = "Drawn from a generative adversarial network"
    ds.ImageComments = "Synthetic image made by petgan; not for diagnosis"

    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = image.shape
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    ds.PixelData = np.ascontiguousarray(image, np.uint8).tobytes()
    ds["PixelData"].VR = "OB"
    return ds


def _uid(*parts: str) -> UID:
    return generate_uid(entropy_srcs=list(parts))
