from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from petgan.ingest import Refused, dicom
from petgan.ingest.frame import Header, Skipped
from petgan.ingest.mammography import KEYWORDS, describe

PROCESSING = DigitalMammographyXRayImageStorageForProcessing


def mammogram(**attributes):
    data = Dataset()
    data.SOPClassUID, data.PatientID = DigitalMammographyXRayImageStorageForPresentation, "HOSP-4711"
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


def code(value):
    item = Dataset()
    item.CodeValue = value
    return Sequence([item])


def test_what_is_returned_fits_a_header():
    header = Header(**describe(mammogram()))
    assert (header.collection, header.view, header.kind, header.spacing) == (
        "mammogram",
        None,
        "presentation",
        None,
    )


@pytest.mark.parametrize("side", ["ImageLaterality", "Laterality"])
@pytest.mark.parametrize(
    ("meaning", "projection"),
    [
        ("CranioCaudal", "cc"),
        ("MedioLateralObliqueProjection", "mlo"),
        ("MedioLateralProjection", "ml"),
        ("LateroMedial", "lm"),
        ("LateroMedialOblique", "lmo"),
        ("CaudoCranial", "fb"),
        ("CranioCaudalExaggeratedLaterally", "xccl"),
        ("CranioCaudalExaggeratedMedially", "xccm"),
        ("SuperolateralToInferomedialOblique", "sio"),
        ("InferomedialToSuperolateralOblique", "iso"),
    ],
)
def test_views_by_pydicoms_own_table_of_codes(side, meaning, projection):
    snomed = getattr(codes.CID4014, meaning).value
    for attributes in ({"ViewCodeSequence": code(snomed)}, {"ViewPosition": projection.upper()}):
        assert describe(mammogram(**{side: "R"}, **attributes))["view"] == f"right-{projection}"


def test_older_codes_and_unknown_ones():
    assert describe(mammogram(Laterality="L", ViewCodeSequence=code("R-10226")))["view"] == "left-mlo"
    for xcc in ("R-102CF", "399265009"):
        assert describe(mammogram(Laterality="L", ViewCodeSequence=code(xcc)))["view"] == "left-xcc"
    assert describe(mammogram(Laterality="L", ViewCodeSequence=code("1")))["view"] == "left"
    assert describe(mammogram(ImageLaterality="B", ViewPosition="CC"))["view"] is None


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"ImageLaterality": "L", "Laterality": "R"}, "sides"),
        ({"ViewPosition": "CC", "ViewCodeSequence": code("399368009")}, "projections"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "PresentationIntentType"),
        ({"SOPClassUID": BreastTomosynthesisImageStorage}, "tomosynthesis"),
        ({"ViewCodeSequence": code("127457009")}, "specimen"),
        ({"PixelSpacing": [0.1, 0]}, "above 0"),
        ({"PixelSpacing": [0.1]}, "two numbers"),
        ({"ImagerPixelSpacing": [0.1, -1]}, "above 0"),
        (
            {"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": "-1"},
            "(0018,1114)",
        ),
    ],
)
def test_contradictions_are_refused(attributes, words):
    with pytest.raises(Refused, match=words) as caught:
        describe(mammogram(**attributes))
    assert "HOSP" not in caught.value.reason


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({}, "presentation"),
        ({"PresentationIntentType": "FOR PRESENTATION"}, "presentation"),
        ({"SOPClassUID": PROCESSING}, "processing"),
        ({"SOPClassUID": PROCESSING, "PresentationIntentType": "FOR PROCESSING"}, "processing"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, None),
        (
            {"SOPClassUID": SecondaryCaptureImageStorage, "PresentationIntentType": "FOR PROCESSING"},
            "processing",
        ),
    ],
)
def test_kinds(attributes, kind):
    assert describe(mammogram(**attributes))["kind"] == kind


def test_the_kind_is_known_without_sop_class_in_the_data_set():
    data = mammogram(SOPClassUID=PROCESSING)
    data.file_meta = Dataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    del data.SOPClassUID
    assert describe(data)["kind"] == "processing"


def test_calibrated_spacing_goes_first():
    assert describe(mammogram(ImagerPixelSpacing=[0.1, 0.2]))["spacing"] == (0.1, 0.2)
    both = mammogram(ImagerPixelSpacing=[0.1, 0.2], PixelSpacing=[0.07, 0.08])
    assert describe(both)["spacing"] == (0.07, 0.08)


def test_the_spacing_of_the_detector_is_that_of_the_breast_magnified():
    magnified = {"ImagerPixelSpacing": [0.1, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25}
    assert describe(mammogram(**magnified))["spacing"] == (0.08, 0.16)
    assert describe(mammogram(**magnified, PixelSpacing=[0.07, 0.08]))["spacing"] == (0.07, 0.08)
    without = magnified | {"EstimatedRadiographicMagnificationFactor": None}
    assert describe(mammogram(**without))["spacing"] == (0.1, 0.2)


def modified(*modifiers):
    sequence = code("399162004")
    sequence[0].ViewModifierCodeSequence = Sequence([code(one)[0] for one in modifiers])
    return {"ViewCodeSequence": sequence}


@pytest.mark.parametrize(
    "attributes",
    [
        {"PartialView": "YES"},
        modified(codes.CID4015.SpotCompression.value),
        modified(codes.CID4015.ImplantDisplaced.value, codes.CID4015.Magnification.value),
        modified("R-102D6"),
        modified("R-102D7"),
    ],
)
def test_what_does_not_show_a_whole_breast_is_skipped(write_dicom, attributes):
    with pytest.raises(Skipped, match="whole breast"):
        dicom.scan(write_dicom("a.dcm", np.zeros((4, 4)), "MG", **attributes))


@pytest.mark.parametrize(
    "attributes", [{"PartialView": "NO"}, modified(), modified(codes.CID4015.ImplantDisplaced.value)]
)
def test_other_modifiers_leave_a_view_what_it_is(attributes):
    assert describe(mammogram(ImageLaterality="L", ViewPosition="CC", **attributes))["view"] == "left-cc"


def test_cbis_by_its_patient_id():
    data = mammogram(
        SOPClassUID=SecondaryCaptureImageStorage,
        PatientID="Mass-Training_P_00001_LEFT_MLO",
        PatientOrientation="MLO",
        SeriesDescription="full mammogram images",
    )
    found = describe(data)
    assert (found["collection"], found["view"], found["patient"]) == (
        "cbis-ddsm",
        "left-mlo",
        "cbis-ddsm P_00001",
    )


@pytest.mark.parametrize("series", ["ROI mask images", "cropped images", ""])
def test_masks_and_crops_of_cbis_are_skipped(series):
    with pytest.raises(Skipped):
        describe(mammogram(PatientID="Calc-Test_P_00038_LEFT_CC_1", SeriesDescription=series))


def test_the_keywords_are_all_that_is_read():
    asked = []

    class Spy(Dataset):
        def get(self, key, default=None):
            asked.append(key)
            return super().get(key, default)

    describe(Spy())
    assert set(asked) <= set(KEYWORDS)


@pytest.mark.parametrize("sop_class", [DigitalMammographyXRayImageStorageForPresentation, PROCESSING])
def test_monochrome1_comes_out_bright_on_dark(write_dicom, sop_class):
    """Exposure falls with what lies in the beam, and a detector's values rise with exposure."""
    thickness = np.repeat(np.linspace(0, 5, 16), 16).reshape(16, 16)
    exposure = np.rint(4000 * np.exp(-0.8 * thickness)).astype(np.uint16)
    path = write_dicom(
        "a.dcm", exposure, "MG", SOPClassUID=sop_class,
        PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11,
    )  # fmt: skip
    shown = dicom.read(path, 0)
    assert (np.diff(shown[:, 0]) > 0).all()
    assert shown.min() == shown[0, 0]
