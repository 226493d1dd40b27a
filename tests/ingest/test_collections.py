from __future__ import annotations

import pytest

from petgan.ingest.collections import COLLECTIONS, PROJECTIONS, described, is_nobody, recognise, view_in
from petgan.ingest.frame import Header, Skipped

CBIS = "CBIS-DDSM/{}/08-29-2017-DDSM-NA-96009/1.000000-{}-63992/1-1.dcm"
FILM = Header(pixels=4_000_000)


def by_name(name, header=FILM):
    known = described(name, header)
    assert known.collection in COLLECTIONS
    return known.collection, known.view, known.patient


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            CBIS.format("Calc-Test_P_00038_RIGHT_MLO", "full mammogram images"),
            ("cbis-ddsm", "right-mlo", "cbis-ddsm P_00038"),
        ),
        ("Mass-Training_P_00001_LEFT_CC.png", ("cbis-ddsm", "left-cc", "cbis-ddsm P_00001")),
        (
            "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm",
            ("inbreast", "right-cc", "inbreast 6c613a14b80a8591"),
        ),
        ("20586960_6C613A14B80A8591_MG_L_ML_ANON.png", ("inbreast", "left-mlo", "inbreast 6c613a14b80a8591")),
        ("case1141/A_1141_1.LEFT_CC.png", ("ddsm", "left-cc", "ddsm 1141")),
        ("case0069/A_0069_1.RIGHT_MLO.GIF", ("ddsm-overview", "thumbnail-right-mlo", "ddsm 69")),
        ("A-1141-1.gif", ("ddsm-overview", "thumbnail", "ddsm 1141")),
        ("mdb001.pgm", ("mini-mias", "left-mlo", "mini-mias 1")),
        ("MDB002.PNG", ("mini-mias", "right-mlo", "mini-mias 1")),
        ("all/mdb003ll.png", ("mini-mias", "left-mlo", "mini-mias 2")),
        ("mdb004rl.png", ("mini-mias", "right-mlo", "mini-mias 2")),
        ("woman-1/L_CC.gif", ("other", "left-cc", None)),
        ("woman-1/1.png", ("other", None, None)),
    ],
)
def test_what_a_name_says(name, expected):
    assert by_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "A_1141_1.png",  # no projection: too little to be sure
        "xA_1141_1.LEFT_CC.png",
        "A_1141_12.LEFT_CC.png",
        "E_1141_1.LEFT_CC.png",
        "mdb01.png",
        "mdb0001.png",
        "2058690_6c613a14b80a8591_MG_R_CC_ANON.dcm",
        "Mass-Training_P_1_LEFT_CC.png",
        "case1141/x.png",
    ],
)
def test_what_only_looks_alike_is_of_no_collection(name):
    assert recognise(name, FILM) is None


def test_a_woman_is_one_in_all_her_films():
    shown = [f"{side}_{projection}" for side in ("LEFT", "RIGHT") for projection in ("CC", "MLO")]
    sets = [f"{kind}-{part}_P_00001_{end}" for kind in ("Mass", "Calc") for part in ("Training", "Test")
            for end in shown]  # fmt: skip
    assert {by_name(f"{folder}/1-1.dcm")[2] for folder in sets} == {"cbis-ddsm P_00001"}
    films = [f"{view}.{end}" for view in shown for end in ("gif", "png", "LJPEG.1")]
    assert {by_name(f"B_3024_{version}.{film}")[2] for film in films for version in (1, 2)} == {"ddsm 3024"}


def test_a_small_picture_of_ddsm_is_a_thumbnail():
    assert by_name("A_1141_1.LEFT_CC.png", Header(pixels=300 * 500))[:2] == (
        "ddsm-overview",
        "thumbnail-left-cc",
    )


@pytest.mark.parametrize(
    "name",
    [
        CBIS.format("Mass-Training_P_00001_LEFT_CC_1", "ROI mask images"),
        CBIS.format("Mass-Training_P_00001_LEFT_CC_1", "cropped images"),
        CBIS.format("Mass-Training_P_00001_LEFT_CC", "cropped images"),
        "Calc-Test_P_00038_LEFT_CC_2/1-2.dcm",
    ],
)
def test_masks_and_crops_are_skipped(name):
    with pytest.raises(Skipped, match="CBIS-DDSM"):
        described(name, FILM)


def test_a_copy_of_cbis_that_does_not_name_the_woman_has_no_patient():
    name = "jpeg/1.3.6.1.4.1.9590.100.1.2.100018879311824535125115145152454291132/1-263.jpg"
    assert by_name(name) == ("cbis-ddsm", None, "")


def test_the_header_goes_before_the_name():
    header = Header(modality="mammogram", patient="HOSP-1", view="left-mlo", collection="mammogram")
    assert by_name("mdb001.dcm", header) == ("mammogram", "left-mlo", "HOSP-1")
    assert by_name("L_CC.dcm", Header(modality="pet", patient="x", view="slice")) == ("pet", "slice", "x")


@pytest.mark.parametrize("nobody", ["", "removed", "Anonymous", "ANON^", "de-identified", "N/A"])
def test_a_placeholder_is_no_patient(nobody):
    assert is_nobody(nobody)
    header = Header(modality="mammogram", patient=nobody, collection="mammogram")
    assert by_name("a.dcm", header) == ("mammogram", None, "")
    inbreast = by_name("20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", header)
    assert inbreast == ("inbreast", "right-cc", "inbreast 6c613a14b80a8591")


@pytest.mark.parametrize("somebody", ["0", "HOSP-4711", "anon-17", "removed2"])
def test_what_can_be_somebody_is(somebody):
    assert not is_nobody(somebody)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_projection_is_found_whole(projection):
    for side, written in (("left", "L"), ("left", "LEFT"), ("right", "r"), ("right", "Right")):
        for mark in ("", "_", "-", " "):
            assert view_in(f"x_{written}{mark}{projection.upper()}-2") == f"{side}-{projection}"


@pytest.mark.parametrize("text", ["CC", "L", "pool_cc", "rcco", "all_mloop", "LEFT"])
def test_half_a_view_is_none(text):
    assert view_in(text) is None


def test_films_of_mini_mias_have_their_spacing():
    assert described("mdb001.pgm", Header(pixels=1024**2)).spacing == (0.2, 0.2)
    assert described("mdb001.png", Header(pixels=256**2)).spacing is None
