from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ingest.conftest import dicom_dataset, multi_frame_pet
from petgan.errors import ConfigError
from petgan.ingest import Refused, dicom
from petgan.ingest.frame import Frame, Header, Plane
from petgan.ingest.volume import (
    AXES,
    Take,
    geometry,
    parse_take,
    pictures,
    project,
    projected_axis,
    without_projections,
)  # fmt: skip

ALL = Take()
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def rotation(seed, most=1.0):
    """A rotation by a random axis and angle (Rodrigues)."""
    random = np.random.default_rng(seed)
    x, y, z = axis = random.normal(size=3)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / np.linalg.norm(axis)
    angle = random.uniform(0.05, most)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def frames_at(depths, across=AXIAL[0], down=AXIAL[1], series="s", spacing=(2.0, 2.0), **header):
    """Slices at these depths along their normal, named by number."""
    normal = np.cross(across, down)
    frames = []
    for number, depth in enumerate(depths):
        position = tuple((depth * normal).tolist())
        plane = Plane(position, tuple(across), tuple(down))
        fields = {
            "plane": plane,
            "spacing": spacing,
            "series": series,
            "pixels": 16,
            "view": "slice",
            **header,
        }
        name = f"{series}-{number}.dcm"
        frames.append(Frame(Path(name), name, name, "dicom", 0, Header(**fields), "p"))
    return frames


def changed(frame, **header):
    return replace(frame, header=replace(frame.header, **header))


def reason(frames, take=ALL):
    made, refused = pictures(frames, take)
    assert not made
    assert set(refused) == {frame.id for frame in frames}
    (words,) = set(refused.values())
    return words


def volume_of(frames, read):
    """Every slice by its rank."""
    made, refused = pictures(frames, Take())
    assert not refused
    assert [picture.rank for picture in made] == list(range(len(frames)))
    return np.stack([read(picture.frames[0]) for picture in made])


# --- what is taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["all", "slices:every=4", "central:8", "mip:coronal", "mip:coronal,sagittal,axial"]
)
def test_a_rule_is_its_own_name(text):
    assert str(parse_take(text)) == text


def test_the_order_of_directions_does_not_count():
    assert parse_take("mip:axial,coronal") == parse_take("mip:coronal,axial")


@pytest.mark.parametrize(
    "text",
    ["", "none", "All", "slices", "slices:4", "slices:every=0", "slices:every=-1", "slices:every=1.5",
     "slices:every=٣", "central", "central:0", "central:every=3", "mip", "mip:", "mip:coronal,coronal",
     "mip:front", "mip:coronal,", "all\n", "central:99999999"],
)  # fmt: skip
def test_another_rule_is_refused_with_the_grammar(text):
    with pytest.raises(ConfigError, match="slices:every=K, central:N"):
        parse_take(text)


@pytest.mark.parametrize(("count", "step"), list(itertools.product([1, 2, 7, 20], [1, 2, 3, 4, 9, 30])))
def test_every_kth_slice_is_centred(count, step):
    ranks = list(parse_take(f"slices:every={step}").ranks(count))
    assert ranks
    assert all(after - before == step for before, after in itertools.pairwise(ranks))
    before, after = ranks[0], count - 1 - ranks[-1]
    assert before < step
    assert after < step
    assert abs(before - after) <= 1 or len(ranks) == 1


@pytest.mark.parametrize(("count", "number"), list(itertools.product([1, 2, 7, 20], [1, 2, 8, 30])))
def test_central_slices_are_in_the_middle(count, number):
    ranks = list(parse_take(f"central:{number}").ranks(count))
    assert len(ranks) == min(count, number)
    assert abs(ranks[0] - (count - 1 - ranks[-1])) <= 1
    assert ranks == list(range(ranks[0], ranks[-1] + 1))


@pytest.mark.parametrize("rule", ["all", "slices:every=4", "central:3"])
def test_a_slice_keeps_its_rank_in_the_volume(rule):
    frames = frames_at([3.0 * k for k in range(11)])
    take = parse_take(rule)
    made, _ = pictures(reversed(frames), take)
    assert [picture.rank for picture in made] == list(take.ranks(11))
    for picture in made:
        assert picture.view == "slice"
        assert [frame.id for frame in picture.frames] == [f"s-{picture.rank}.dcm"]


def test_projections_have_all_slices_and_a_view_each():
    frames = frames_at([0, 9, 3, 6])
    made, refused = pictures(frames, parse_take("mip:axial,coronal"))
    assert not refused
    assert [(picture.view, picture.rank) for picture in made] == [("mip-coronal", 0), ("mip-axial", 2)]
    for picture in made:
        assert [frame.id for frame in picture.frames] == ["s-0.dcm", "s-2.dcm", "s-3.dcm", "s-1.dcm"]
    assert [projected_axis(picture.view) for picture in made] == ["coronal", "axial"]
    assert projected_axis("slice") is projected_axis("coronal") is projected_axis("projection") is None


def test_series_and_patients_are_kept_apart():
    one, two = frames_at([0, 3, 6]), frames_at([0, 3, 6], series="t")
    other = [replace(frame, patient="q", id=f"q-{frame.id}") for frame in one]
    made, refused = pictures([*one, *two, *other], parse_take("mip:coronal"))
    assert not refused
    assert sorted(len(picture.frames) for picture in made) == [3, 3, 3]
    for picture in made:
        assert len({(frame.patient, frame.series) for frame in picture.frames}) == 1


@pytest.mark.parametrize("rule", ["all", "slices:every=2", "central:1", "mip:coronal"])
def test_what_is_no_slice_becomes_one_picture(rule):
    files = [
        Frame(Path(name), name, name, "png", 0, Header(series=None, view=view), "p")
        for name, view in (("a.png", None), ("b.dcm", "left-cc"))
    ]
    made, refused = pictures(files, parse_take(rule))
    assert not refused
    assert [(len(picture.frames), picture.rank) for picture in made] == [(1, 0), (1, 0)]
    assert made[1].view == "left-cc"


def test_a_projection_of_the_scanner_is_none_of_the_slices():
    slices = frames_at([0, 3, 6])
    scanned = Frame(Path("p.dcm"), "p.dcm", "p", "dicom", 0, Header(series="own", view="projection"), "p")
    skipped = Counter()
    assert without_projections([scanned, *slices], skipped) == slices
    assert list(skipped.values()) == [1]
    assert without_projections([scanned], skipped) == [scanned]
    made, refused = pictures([scanned, *slices], parse_take("mip:coronal"))
    assert [picture.view for picture in made] == ["mip-coronal"]
    assert scanned not in made[0].frames
    assert "ImageType (0008,0008)" in refused["p.dcm"]


# --- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("turned", [1, -1])
def test_slices_are_ordered_along_the_normal_of_an_oblique_plane(seed, turned):
    across, down, _ = rotation(seed, 3.0)
    order = np.random.default_rng(seed).permutation(9)
    frames = frames_at(2.5 * order - 11, turned * across, down)
    made, refused = pictures(frames, Take())
    assert not refused
    assert [picture.frames[0].id for picture in made] == [f"s-{k}.dcm" for k in np.argsort(order)]


@pytest.fixture(scope="module")
def oblique(tmp_path_factory):
    """20 slices with 20 slopes as single files, shuffled, and as one file of either enhanced kind."""
    folder = tmp_path_factory.mktemp("oblique")
    random = np.random.default_rng(20)
    stored = random.integers(0, 65536, (20, 12, 10), np.uint16)
    slopes = [f"{slope:.7f}" for slope in random.uniform(0.01, 7, 20)]
    across, down, normal = rotation(4)
    start = np.array([-80.0, 40.0, -311.5])
    planes = [
        tuple(
            tuple(round(value, 9) for value in vector) for vector in (start + 3.27 * k * normal, across, down)
        )
        for k in range(20)
    ]
    numbers = random.permutation(20)
    for k, (position, *cosines) in enumerate(planes):
        data = dicom_dataset(
            stored[k],
            RescaleSlope=slopes[k],
            ImagePositionPatient=[f"{value:.9f}" for value in position],
            ImageOrientationPatient=[f"{value:.9f}" for vector in cosines for value in vector],
            PixelSpacing=["2", "2"],
            InstanceNumber=str(numbers[k]),
        )
        where = folder / "single" / f"{random.integers(3)}" / f"{random.integers(1 << 40):x}.dcm"
        where.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(where, enforce_file_format=True)
    shuffled = random.permutation(20)
    for kind in ("enhanced", "legacy"):
        data = multi_frame_pet(
            stored[shuffled],
            [slopes[k] for k in shuffled],
            [planes[k] for k in shuffled],
            legacy=kind == "legacy",
        )
        (folder / kind).mkdir()
        data.save_as(folder / kind / "all.dcm", enforce_file_format=True)
    expected = np.stack([stored[k] * float(slopes[k]) for k in range(20)]).astype(np.float32)
    return folder, expected


def frames_below(folder):
    return [
        Frame(path, path.relative_to(folder).as_posix(), "s", "dicom", index, header, header.patient)
        for path in sorted(folder.rglob("*.dcm"))
        for index, header in enumerate(dicom.scan(path))
    ]


def read(frame):
    return dicom.read(frame.path, frame.index)


@pytest.mark.parametrize("kind", ["single", "enhanced", "legacy"])
def test_single_slices_equal_one_file_to_the_last_bit(oblique, kind):
    folder, expected = oblique
    frames = frames_below(folder / kind)
    assert len(frames) == 20
    assert {frame.header.suv.units for frame in frames} == {"BQML"}
    found = volume_of(frames, read)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axis", AXES)
def test_their_projections_are_equal_too(oblique, axis):
    folder, _ = oblique
    images = []
    for kind in ("single", "enhanced", "legacy"):
        made, refused = pictures(frames_below(folder / kind), Take("mip", axes=(axis,)))
        assert not refused
        image, spacing = project(map(read, made[0].frames), geometry(made[0].frames), axis)
        images.append(image)
        assert spacing == pytest.approx((2, 2) if axis == "axial" else (3.27, 2))
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


# --- what is refused ---------------------------------------------------------------------------------------


def test_slices_at_one_position_are_refused_with_it():
    words = reason(frames_at([0, 3, 6.25, 9, 3.004, 6.25, 6.25]))
    assert "at 3.00, 6.25 mm" in words
    assert "9.00" not in words


@pytest.mark.parametrize("lost", [{4}, {4, 5}, {1, 7}])
def test_missing_slices_are_refused_with_their_neighbours(lost):
    depths = [3.27 * k - 10 for k in range(12)]
    words = reason(frames_at([depth for k, depth in enumerate(depths) if k not in lost][::-1]))
    runs = {4: (3, 5), 1: (0, 2), 7: (6, 8)} if lost != {4, 5} else {4: (3, 6)}
    for k in lost & set(runs):
        before, after = runs[k]
        assert f"{depths[before]:.2f} and {depths[after]:.2f}" in words
    assert words.count(" and ") == len(lost & set(runs))
    assert "lacks slices" in words
    assert "3.27 mm apart" in words


def test_many_positions_are_not_all_told():
    depths = [3.0 * k for k in range(300) if k % 10]
    words = reason(frames_at(depths))
    assert "and 24 more" in words
    assert len(words) < 300


def test_uneven_slices_are_refused():
    words = reason(frames_at([0, 3, 6, 10.5, 13.5]))
    assert "unevenly: between 6.00 and 10.50 mm" in words


def test_rounded_positions_are_even():
    made, refused = pictures(frames_at([round(3.269799 * k, 1) for k in range(50)]), Take())
    assert len(made) == 50
    assert not refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plane": Plane((0.0, 0.0, 6.0), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0))}, "ImageOrientationPatient"),
        ({"plane": Plane((0.0, 0.0, 6.0), (1.0, 0.0, 0.0), (0.0, 0.995, 0.0998))}, "ImageOrientationPatient"),
        ({"spacing": (2.0, 2.1)}, "PixelSpacing"),
        ({"spacing": None}, "PixelSpacing"),
        ({"pixels": 17}, "Rows"),
    ],
)
def test_slices_that_differ_are_refused(change, words):
    frames = frames_at([0, 3, 6, 9])
    frames[2] = changed(frames[2], **change)
    assert words in reason(frames)
    assert words in reason(frames, parse_take("mip:coronal"))


def test_one_series_does_not_spoil_another():
    good, bad = frames_at([0, 3, 6]), frames_at([0, 3, 3], series="t")
    made, refused = pictures([*bad, *good], Take())
    assert {picture.frames[0].series for picture in made} == {"s"}
    assert set(refused) == {frame.id for frame in bad}


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (frames_at([0]), "single slice"),
        (frames_at([0, 3], spacing=None), "PixelSpacing"),
        (
            frames_at([0, 3, 6], (np.sqrt(0.5), np.sqrt(0.5), 0.0), (-np.sqrt(0.5), np.sqrt(0.5), 0.0)),
            "askew",
        ),
    ],
)
def test_what_cannot_be_projected_is_refused(frames, words):
    made, refused = pictures(frames, Take())
    assert len(made) == len(frames)
    assert not refused
    assert words in reason(frames, parse_take("mip:coronal"))


def test_a_sheared_volume_has_no_projection():
    frames = frames_at([0, 3, 6])
    for k, frame in enumerate(frames):
        plane = replace(frame.header.plane, position=(2.0 * k, 0.0, 3.0 * k))
        frames[k] = changed(frame, plane=plane)
    assert "shifted" in reason(frames, parse_take("mip:sagittal"))
    assert len(pictures(frames, Take())[0]) == 3


def test_a_reason_quotes_nothing_of_the_file():
    frames = frames_at([0, 3, 3], series="1.2.840.SECRET")
    frames = [replace(frame, id=f"Doe/{frame.id}", patient="DOE^JANE") for frame in frames]
    words = reason(frames)
    assert not any(secret in words for secret in ("SECRET", "Doe", "DOE"))


# --- projections -------------------------------------------------------------------------------------------

# A patient: [superior, posterior, left], in 2, 3 and 4 mm. What each projection shows, by brute force.
PATIENT = np.random.default_rng(5).uniform(0, 9, (5, 6, 7)).astype(np.float32)
STEPS = (2.0, 3.0, 4.0)
TRUTH = {
    "coronal": (PATIENT.max(axis=1)[::-1], (2.0, 4.0)),
    "sagittal": (PATIENT.max(axis=2)[::-1], (2.0, 3.0)),
    "axial": (PATIENT.max(axis=0), (3.0, 4.0)),
}
UNIT = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # superior, posterior, left


def stored_along(order, signs, tilt=None):
    """The patient as slices (n, h, w) along these of its axes, each forwards (1) or backwards (-1).

    The planes are in the order of the slices, whose depth may fall; `tilt` turns all of the directions.
    """
    slices, down, across = (sign * UNIT[axis] for axis, sign in zip(order, signs, strict=True))
    turn = np.eye(3) if tilt is None else tilt
    volume = PATIENT.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    step, *spacing = (STEPS[axis] for axis in order)
    frames = [
        Frame(
            Path(f"{k}"),
            f"{k}",
            f"{k}",
            "dicom",
            k,
            Header(
                plane=Plane(
                    tuple((turn @ (k * step * slices)).tolist()),
                    tuple((turn @ across).tolist()),
                    tuple((turn @ down).tolist()),
                ),
                spacing=tuple(spacing),
                series="s",
            ),
            "p",
        )
        for k in range(len(volume))
    ]
    return volume, frames


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("tilt", [None, rotation(1, 0.5), rotation(2, 0.5)])
def test_a_projection_is_the_same_however_the_volume_is_stored(axis, order, tilt):
    for signs in itertools.product((1, -1), repeat=3):
        volume, frames = stored_along(order, signs, tilt)
        (made,), refused = pictures(frames, Take("mip", axes=(axis,)))
        assert not refused
        image, spacing = project((volume[frame.index] for frame in made.frames), geometry(made.frames), axis)
        expected, steps = TRUTH[axis]
        np.testing.assert_array_equal(image, expected)
        assert spacing == pytest.approx(steps)
        assert image.flags.c_contiguous


def test_what_is_where_on_a_projection():
    """One bright voxel, high up, to the patient's left and at her front."""
    volume = np.zeros((10, 10, 10), np.float32)
    volume[8, 1, 7] = 1  # axial slices from the feet to the head: row 1 is anterior, column 7 left
    frames = frames_at([3.0 * k for k in range(10)])
    places = {"coronal": (1, 7), "sagittal": (1, 1), "axial": (1, 7)}
    for axis, place in places.items():
        image, _ = project(volume, geometry(frames), axis)
        assert np.unravel_index(image.argmax(), image.shape) == place


@pytest.mark.parametrize("axis", AXES)
def test_slices_are_taken_one_by_one(axis):
    """No slice is held once the next has been asked for."""
    image = np.empty((10, 10), np.float32)

    def reused():
        for k in range(10):
            image[:] = (np.indices((10, 10)).sum(0) * 7 + k * 5) % 31
            yield image

    volume = np.stack([one.copy() for one in reused()])
    frames = frames_at([3.0 * k for k in range(10)])
    found, _ = project(reused(), geometry(frames), axis)
    expected, _ = project(volume, geometry(frames), axis)
    np.testing.assert_array_equal(found, expected)


def test_negative_values_have_a_maximum_too():
    volume = np.full((3, 4, 4), -5, np.float32)
    for axis in AXES:
        assert (project(volume, geometry(frames_at([0, 3, 6])), axis)[0] == -5).all()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("shapes", [[(4, 4)] * 2, [(4, 4), (4, 4), (1, 4)], []])
def test_slices_that_do_not_fit_are_refused(axis, shapes):
    with pytest.raises(Refused, match="differ in size|could not be read"):
        project((np.ones(shape, np.float32) for shape in shapes), geometry(frames_at([0, 3, 6])), axis)


def test_the_axis_nearest_to_the_direction_is_taken():
    """Slices tilted by 40 degrees about left-right are still axial ones, by 50 degrees coronal ones."""
    volume = np.random.default_rng(1).uniform(0, 1, (4, 5, 6)).astype(np.float32)
    for degrees, axis in ((40, 1), (50, 0)):
        angle = np.radians(degrees)
        frames = frames_at([0, 3, 6, 9], (1.0, 0.0, 0.0), (0.0, np.cos(angle), np.sin(angle)))
        image, _ = project(volume, geometry(frames), "coronal")
        np.testing.assert_array_equal(np.sort(image, None), np.sort(volume.max(axis=axis), None))


@pytest.mark.parametrize(("told", "lacks"), [(10, True), (8, True), (7, False), (4, False), (0, False)])
def test_slices_missing_at_an_end_are_known_by_their_number(told, lacks):
    frames = frames_at([3.0 * k for k in range(7)], slices=told)
    made, refused = pictures(frames, ALL)
    assert len(made) == (0 if lacks else 7)
    for words in refused.values():
        assert "there are 7, from 0.00 to 18.00 mm" in words
        assert f"NumberOfSlices (0054,0081) is {told}" in words


def test_two_series_merged_to_one_may_say_the_number_of_either():
    frames = [
        changed(frame, slices=3 + (k > 2)) for k, frame in enumerate(frames_at([0, 3, 6, 9, 12, 15, 18]))
    ]
    assert len(pictures(frames, ALL)[0]) == 7
