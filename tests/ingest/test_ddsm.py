from __future__ import annotations

import numpy as np
import pytest

from petgan.ingest import Refused, ddsm
from petgan.ingest.formats import format_of
from petgan.ingest.frame import Skipped

CANARY = "C4N4RY"
ICS = """ics_version 1.0
filename {letter}-1141-1
DATE_OF_STUDY 2 7 {canary}
PATIENT_AGE {canary}
FILM
FILM_TYPE REGULAR
DENSITY 3
DATE_DIGITIZED 7 22 1997
DIGITIZER {digitizer}
SELECTED
LEFT_CC LINES 6 PIXELS_PER_LINE 4 BITS_PER_PIXEL {bits} RESOLUTION 43.5 OVERLAY
LEFT_MLO LINES 9 PIXELS_PER_LINE 5 BITS_PER_PIXEL {bits} RESOLUTION 50 NON_OVERLAY
"""
STORED = np.arange(24, dtype=np.uint16).reshape(6, 4) * 170


def ics(letter="A", digitizer="HOWTEK", bits=12):
    return ICS.format(letter=letter, digitizer=digitizer, bits=bits, canary=CANARY)


@pytest.fixture
def write_film(tmp_path):
    def write(stored=STORED, text=None, letter="A", ending="LJPEG.1", case=None, **said):
        path = tmp_path / f"{letter}_1141_1.LEFT_CC.{ending}"
        path.write_bytes(stored.astype(">u2").tobytes())
        (tmp_path / (case or f"{letter}-1141-1.ics")).write_text(text or ics(letter, **said))
        return path

    return write


def reason(path, read=ddsm.scan):
    with pytest.raises(Refused) as caught:
        read(path)
    assert CANARY not in caught.value.reason
    assert "1141" not in caught.value.reason
    return caught.value.reason


# Values whose density is easy to say: x = 0, and where the density is 1 or 2 by the published line.
@pytest.mark.parametrize(
    ("letter", "digitizer", "bits", "value", "density"),
    [
        ("A", "DBA 21", 16, 10**4.80662 - 1, 0.05),  # 0 by the formula, and clipped
        ("A", "DBA 21", 16, 10 ** (4.80662 - 1.07553) - 1, 1.0),
        ("A", "DBA 21", 16, 0, 4.0),  # log10(1) = 0: 4.469, clipped
        ("A", "HOWTEK", 12, 0, 3.789),
        ("A", "HOWTEK", 12, (3.789 - 1) / 0.00094568, 1.0),
        ("D", "HOWTEK 960", 12, 0, 3.96604095),
        ("D", "HOWTEK 960", 12, (3.96604095 - 2) / 0.00099055807612, 2.0),
        ("B", "LUMISYS LASER", 12, 4096.99 - 1009.01, 1.0),
        ("C", "LUMISYS", 12, 4096.99 - 2 * 1009.01, 2.0),
        ("C", "LUMISYS", 12, 0, 4.0),
    ],
)
def test_optical_density_by_digitizer(write_film, letter, digitizer, bits, value, density):
    stored = STORED * 0 + round(value)
    path = write_film(stored, letter=letter, digitizer=digitizer, bits=bits)
    np.testing.assert_allclose(ddsm.read(path), 4 - density, atol=6e-4)


def test_a_film_is_bright_on_dark_and_says_what_it_is(write_film):
    path = write_film()
    header = ddsm.scan(path)[0]
    assert (header.modality, header.units, header.view) == ("mammogram", "optical-density", "left-cc")
    assert (header.collection, header.pixels, header.spacing) == ("ddsm", 24, (0.0435, 0.0435))
    values = ddsm.read(path)
    assert values.dtype == np.float32
    assert values.shape == (6, 4)
    assert (np.diff(values.ravel()) >= 0).all()
    assert header.span[0] <= values.min() < values.max() <= header.span[1]


@pytest.mark.parametrize("ending", ["LJPEG.1", "raw", "ljpeg.1"])
@pytest.mark.parametrize("case", ["A-1141-1.ics", "A_1141_1.ics", "A-1141-1.ICS"])
def test_names_of_film_and_case(write_film, ending, case):
    path = write_film(ending=ending, case=case)
    assert format_of(path) == "ddsm"
    assert len(ddsm.scan(path)) == 1


def test_a_compressed_film_names_the_program(write_film):
    path = write_film(ending="LJPEG")
    assert format_of(path) == "ddsm"
    assert "jpeg -d -s" in reason(path)
    path.with_name(f"{path.name}.1").write_bytes(b"")
    with pytest.raises(Skipped):
        ddsm.scan(path)


def test_a_raw_file_of_something_else_is_skipped(tmp_path):
    (tmp_path / "photo.raw").write_bytes(bytes(48))
    with pytest.raises(Skipped):
        ddsm.scan(tmp_path / "photo.raw")


def test_without_its_case_a_film_is_refused(write_film):
    path = write_film()
    path.with_name("A-1141-1.ics").unlink()
    assert ".ics" in reason(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("DIGITIZER HOWTEK", "", "DIGITIZER"),
        ("DIGITIZER HOWTEK", "DIGITIZER", "DIGITIZER"),
        ("DIGITIZER HOWTEK", "DIGITIZER HOWTEK\nDIGITIZER DBA", "DIGITIZER"),
        ("DIGITIZER HOWTEK", f"DIGITIZER {CANARY}", "not known"),
        ("DIGITIZER HOWTEK", "DIGITIZER LUMISYS", "not known"),
        ("LINES 6", "", "LINES"),
        ("LINES 6", "LINES -6", "LINES"),
        ("LINES 6", f"LINES {CANARY}", "LINES"),
        ("LINES 6", "LINES " + "9" * 5000, "LINES"),
        ("LINES 6", "LINES 99999", "size"),
        ("LINES 6", "LINES 7", "size"),
        ("PIXELS_PER_LINE 4", "PIXELS_PER_LINE 0", "PIXELS_PER_LINE"),
        ("PIXELS_PER_LINE 4", "PIXELS_PER_LINE 1e1", "PIXELS_PER_LINE"),
        ("BITS_PER_PIXEL 12", "BITS_PER_PIXEL 99", "BITS_PER_PIXEL"),
        ("BITS_PER_PIXEL 12 RESOLUTION 43.5", "", "BITS_PER_PIXEL"),
        ("RESOLUTION 43.5", "RESOLUTION nan", "RESOLUTION"),
        ("RESOLUTION 43.5", "RESOLUTION 0", "RESOLUTION"),
        ("RESOLUTION 43.5", "", "RESOLUTION"),
        ("LEFT_CC", "RIGHT_CC", "list"),
        ("LEFT_MLO", "LEFT_CC", "list"),
    ],
)
def test_a_case_that_does_not_suit_is_refused(write_film, old, new, words):
    text = ics()
    assert old in text
    assert words in reason(write_film(text=text.replace(old, new)))


def test_a_film_of_another_size_or_byte_order_is_refused(write_film):
    path = write_film()
    path.write_bytes(path.read_bytes()[:-1])
    assert "size" in reason(path)
    assert "big-endian" in reason(write_film(STORED.byteswap()), ddsm.read)


def test_garbage_in_a_case_is_refused_and_nothing_else():
    random = np.random.default_rng(5)
    good = ics().encode()
    for _ in range(300):
        broken = bytearray(good)
        for place in random.integers(0, len(good), random.integers(1, 40)):
            broken[place] = random.integers(0, 256)
        cut = bytes(broken[: random.integers(0, len(good))])
        for content in (bytes(broken), cut, random.bytes(200)):
            film = parsed(content)
            if film is not None:
                assert 1 <= film.lines <= 99999
                assert 8 <= film.bits <= 16
                assert film.resolution > 0


def parsed(content):
    """Any other exception than `Refused` fails the test."""
    try:
        return ddsm.parse_ics(content, "LEFT_CC")
    except Refused:
        return None
