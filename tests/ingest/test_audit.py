from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import os
import random
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ingest import mutations
from ingest.conftest import dicom_dataset
from petgan.errors import InputError
from petgan.ingest import embedded
from petgan.ingest.audit import BLOCK, Identities, files_below, identities, search
from petgan.ingest.basic_profile import KEYWORDS, TAGS, identifies, is_of_the_standard
from petgan.ingest.frame import Refused
from petgan.ingest.identities import file_identities
from petgan.ingest.needles import LONGEST, Needles, anchor

SECRET = b"HOSP-4711-XYZ"


def known(*values):
    return Identities(dict.fromkeys(values, "PatientID (0010,0020)"))


def found(path, *values):
    """Forms in which values are found in a file."""
    return sorted({finding.form for finding in search([(path, "out")], known(*values))})


# --- the Basic Profile ----------------------------------------------------------------------------------


def test_every_keyword_is_an_attribute():
    unknown = [word for word in KEYWORDS if tag_for_keyword(word) is None]
    assert unknown == []
    assert len(KEYWORDS) == len(set(KEYWORDS))
    assert len(TAGS) > 640


@pytest.mark.parametrize(
    ("tag", "vr", "expected"),
    [
        (0x00100010, "PN", True),
        (0x00101030, "DS", True),  # PatientWeight
        (0x50120010, None, True),  # a curve
        (0x60043000, "OW", True),  # an overlay
        (0x60044000, "LT", True),
        (0x60040010, "US", False),
        (0x00091001, "LO", True),  # private
        (0x00189999, "DA", True),  # any date
        (0x00020003, "UI", True),
        (0x00280010, "US", False),  # Rows
        (0x00181074, "DS", False),  # RadionuclideTotalDose
    ],
)
def test_what_identifies(tag, vr, expected):
    assert identifies(tag, vr) is expected


def test_uids_of_the_standard_are_nobody_s():
    assert is_of_the_standard("1.2.840.10008.5.1.4.1.1.128")
    assert not is_of_the_standard("1.2.840.113619.2.1")


# --- many strings at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("alphabet", [b"ab1.", b"ABCDefgh0123456789._^", bytes(range(256))])
def test_needles_agree_with_brute_force(alphabet):
    random = np.random.default_rng(3)
    letters = np.frombuffer(alphabet, np.uint8)
    block = random.choice(letters, 30_000).tobytes()
    starts = random.integers(0, len(block) - 200, 60)
    taken = [block[at : at + size] for at, size in zip(starts, random.integers(6, 150, 60), strict=True)]
    strangers = [random.choice(letters, 9).tobytes() for _ in range(60)]
    swapped = [needle.swapcase() for needle in taken[:20]]
    needles = list(dict.fromkeys(one.lower() for one in (*taken, *strangers, *swapped)))
    searched = [one for one in needles if anchor(one) is not None]
    machine = Needles(enumerate(needles), needles.__getitem__)
    expected = set()
    for number, needle in enumerate(needles):
        if needle in searched:
            at = block.lower().find(needle)
            while at >= 0:
                expected.add((at, number))
                at = block.lower().find(needle, at + 1)
    assert len(expected) >= 50
    assert set(machine.find(block)) == expected
    halves = {*machine.find(block, 0, 12_345), *machine.find(block, 12_345, len(block))}
    assert halves == expected


def test_of_a_run_of_one_byte_nothing_is_an_anchor():
    assert anchor(b"000000000") is None
    assert anchor(b"0000001203") == 2
    assert anchor(b"short") is None
    assert len(Needles([(0, b"0" * 20), (1, b"x" * (LONGEST + 1))], [].__getitem__)) == 0


def test_what_lies_across_two_blocks_is_found(tmp_path):
    path = tmp_path / "o.bin"
    for at in (BLOCK - 5, BLOCK - len(SECRET), BLOCK, 2 * BLOCK - 1, 0, 3 * BLOCK - len(SECRET)):
        data = bytearray(np.random.default_rng(0).integers(0, 256, 3 * BLOCK, np.uint8).tobytes())
        data[at : at + len(SECRET)] = SECRET
        path.write_bytes(data)
        (finding,) = search([(path, "o.bin")], known(SECRET))
        assert finding.offset == at


def test_one_of_a_hundred_thousand_identities_is_found_in_a_large_file(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "o.h5"
    with h5py.File(path, "w") as file:  # flat and dark, as breast films are: full of digits' codes
        pixels = random.integers(40, 64, (160, 512, 512), np.uint8)
        file.create_dataset("images", data=pixels, chunks=(1, 512, 512))
        file.attrs["note"] = "of 1.2.826.99.5000"
    uids = (f"1.2.826.99.{n}".encode() for n in range(50_000))
    everybody = known(*uids, *(f"{19000000 + n}".encode() for n in range(50_000)))
    assert len(everybody.anywhere) > 900_000  # each in its forms
    (finding,) = search([(path, "o.h5")], everybody)
    assert finding.form == "text"
    assert everybody.values[finding.number - 1] == b"1.2.826.99.5000"


def test_memory_does_not_grow_with_the_file(tmp_path):
    everybody, peaks = known(*(f"1.2.826.99.{n}".encode() for n in range(1000))), []
    len(everybody.anywhere)
    for size in (4, 24):
        path = tmp_path / f"{size}.bin"
        path.write_bytes(np.random.default_rng(0).integers(0, 256, size * 2**20, np.uint8).tobytes())
        tracemalloc.start()
        assert not list(search([(path, "o.bin")], everybody))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20
    assert peaks[1] < 64 * 2**20


# --- forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (SECRET, "text"),
        (SECRET.lower(), "text"),
        (SECRET.decode().encode("utf-16-le"), "text in UTF-16"),
        (SECRET.decode().encode("utf-16-be"), "text in UTF-16"),
        *(
            (change(algorithm(value)), f"{name} without a key{', in bytes' if change is bytes else ''}")
            for name, algorithm in (
                ("MD5", lambda value: hashlib.md5(value).digest()),  # noqa: S324
                ("SHA-1", lambda value: hashlib.sha1(value).digest()),  # noqa: S324
                ("SHA-256", lambda value: hashlib.sha256(value).digest()),
            )
            for value in (SECRET, SECRET.lower())
            for change in (
                bytes,
                lambda digest: digest.hex().encode(),
                lambda digest: digest.hex().upper().encode(),
                lambda digest: digest.hex()[:16].encode(),
            )
        ),
    ],
)
def test_every_form_is_found(tmp_path, content, form):
    random = np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes()
    (tmp_path / "o").write_bytes(random + content + random)
    assert found(tmp_path / "o", SECRET) == [form]
    (tmp_path / "o").write_bytes(
        random + content[:-1] + bytes([content[-1] ^ 1]) * (len(content) > 16) + random
    )
    expected = [form] if len(content) > 16 and "without" in form else []  # 16 digits or bytes are enough
    assert found(tmp_path / "o", SECRET) == expected


def test_letters_beyond_ascii(tmp_path):
    name = "Müller^Zoë"
    for content in (name.encode(), name.encode("latin-1"), name.upper().encode(), name.encode("utf-16-le")):
        (tmp_path / "o").write_bytes(b"--" + content + b"--")
        assert found(tmp_path / "o", name.encode())
    for algorithm in (hashlib.sha1, hashlib.sha256):
        for content in (name.encode(), name.encode("latin-1")):
            (tmp_path / "o").write_text(algorithm(content).hexdigest())
            assert found(tmp_path / "o", name.encode())


@pytest.mark.parametrize(
    ("value", "content", "expected"),
    [
        (b"19480229", b"born 19480229.", True),
        (b"19480229", b"on19480229T12", True),
        (b"19480229", b"0.7719480229", False),  # within a number
        (b"19480229", b"119480229", False),
        (b"19480229", b"ab19480229cd", False),  # within a hash
        (b"abc12345", b"9fabc12345e0", False),
        (b"abc12345", b"id abc12345", True),
        (b"62.51234", b"62.51234", True),
        (b"62.51234", b"162.512345", False),
        (b"1.2.826.99.1", b"UID 1.2.826.99.1, and", True),
        (b"1.2.826.99.1", b"1.2.826.99.1.7", False),
        (b"120000", b"in 120000 steps", False),  # noon: no longer than many numbers
        (b"120000", b'["120000"]', True),
        (b"Jane", b"Jane", False),
        (b"Jane", b'{"a": ["Jane"]}', True),
        (b"Jane", b'{"a": ["Janet"]}', False),
        (b"Jane", b'{"Jane": 1}', True),
        (b"Doe", b'["Doe"]', False),  # too short, as the documentation says
        (b"Doe^Jane", b"xxDOE^JANExx", True),
    ],
)
def test_what_counts_and_what_is_chance(tmp_path, value, content, expected):
    (tmp_path / "o").write_bytes(content)
    assert bool(found(tmp_path / "o", value)) is expected


def test_short_values_are_known_by_their_hashes(tmp_path):
    (tmp_path / "o").write_text(hashlib.sha256(b"Doe").hexdigest())
    assert found(tmp_path / "o", b"Doe") == ["SHA-256 without a key"]


# --- where it may stand ---------------------------------------------------------------------------------


def png(text):
    information = PngImagePlugin.PngInfo()
    information.add_text("Comment", text, zip=True)
    out = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(out, "PNG", pnginfo=information)
    return out.getvalue()


def test_packed_and_escaped_texts_are_found(tmp_path):
    text = "Jäne Doe <4711>"
    escaped = html.escape(text).replace("ä", "&auml;")
    image = base64.b64encode(png(text) + bytes(300)).decode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", 50 * text)
    for name, content in {
        "a.json": json.dumps({"note": text}).encode(),
        "a.jsonl": (json.dumps([1]) + "\n" + json.dumps({"note": text})).encode(),
        "a.html": f"<p>{escaped}</p>".encode(),
        "b.html": f'<img src="data:image/png;base64,{image}">'.encode(),
        "a.png": png(text),
        "a.gz": gzip.compress(3 * text.encode()),
        "a.zip": archive.getvalue(),
    }.items():
        assert text.encode() not in content
        (tmp_path / name).write_bytes(content)
        assert "text" in found(tmp_path / name, text.encode()), name


def test_hdf5_strings_attributes_and_names_are_found(tmp_path):
    def as_attribute(file):
        file.attrs["configuration"] = json.dumps({"a": "Jane"})

    def as_group_attribute(file):
        file.create_group("g").attrs["Jane"] = 1

    def as_string(file):
        file["patient"] = ["0123", "Jane"]

    def as_name(file):
        file.create_group("a/Jane")

    def as_packed(file):
        file.create_dataset("s", data=np.array([b"Jane".ljust(99)] * 500), compression="gzip")

    def as_scalar(file):
        file["s"] = "Jane"

    for write in (as_attribute, as_group_attribute, as_string, as_name, as_packed, as_scalar):
        with h5py.File(tmp_path / "o.h5", "w") as file:
            file["images"] = np.zeros((3, 64, 64), np.uint8)
            write(file)
        assert found(tmp_path / "o.h5", b"Jane"), write.__name__
        assert not found(tmp_path / "o.h5", b"Joan"), write.__name__


def test_long_texts_among_pixels_are_found_and_short_ones_are_chance(tmp_path):
    for options in ({}, {"chunks": (1, 64, 64)}, {"chunks": (1, 64, 64), "compression": "gzip"}):
        pixels = np.zeros((3, 64, 64), np.uint8)
        pixels[1, 5, :13] = np.frombuffer(SECRET, np.uint8)
        pixels[2, 5, :8] = np.frombuffer(b"19480229", np.uint8)
        with h5py.File(tmp_path / "o.h5", "w") as file:
            file.create_dataset("images", data=pixels, **options)
        assert found(tmp_path / "o.h5", SECRET) == ["text"]
        assert not found(tmp_path / "o.h5", b"19480229")


def test_the_name_of_a_file_is_searched(tmp_path):
    (tmp_path / "Doe^Jane").mkdir()
    (tmp_path / "Doe^Jane" / "a.txt").write_text("nothing")
    (finding,) = search(files_below([tmp_path]), known(b"Doe^Jane"))
    assert finding.place == "its name"
    assert "Doe" not in str(finding)


def test_files_below_are_all_but_the_source_s(tmp_path):
    top = tmp_path / "top"
    for name in ("a/1.txt", "a/.hidden", "source/2.txt"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    names = {name for _, name in files_below([top], [top / "source"])}
    assert names == {"a/1.txt", "a/.hidden"}
    with pytest.raises(InputError, match="no files to search"):
        files_below([top / "source"], [top / "source"])


@pytest.mark.parametrize(
    "kind", ["empty folder", "link to a folder", "link to nothing", "pipe", "link's target"]
)
def test_whatever_has_a_name_is_searched(tmp_path, kind):
    top = tmp_path / "out"
    (top / "inner").mkdir(parents=True)
    (top / "a.txt").write_text("nothing")
    (tmp_path / "elsewhere").mkdir()
    secret = top / "inner" / "Doe^Jane"
    {
        "empty folder": lambda: secret.mkdir(),
        "link to a folder": lambda: secret.symlink_to(tmp_path / "elsewhere"),
        "link to nothing": lambda: secret.symlink_to("/nowhere"),
        "pipe": lambda: os.mkfifo(secret),
        "link's target": lambda: (top / "x").symlink_to("/clinic/Doe^Jane/1.dcm"),
    }[kind]()
    found = list(search(files_below([top]), known(b"Doe^Jane")))
    assert [finding.place for finding in found] == [
        "where it leads as a link" if kind == "link's target" else "its name"
    ]
    assert "Doe" not in str(found[0])


def test_a_short_name_is_searched_as_a_whole_one(tmp_path):
    for name in ("out/Jane/1.txt", "out/Janet/2.txt", "out/3/Jane.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    found = search(files_below([tmp_path / "out"]), known(b"Jane"))
    assert [finding.file.name for finding in found] == ["Jane.txt", "1.txt"]


def test_a_link_into_a_source_is_searched_and_the_source_is_not(tmp_path):
    (tmp_path / "source/Doe^Jane").mkdir(parents=True)
    (tmp_path / "source/Doe^Jane/1.txt").write_text("Doe^Jane")
    (tmp_path / "link").symlink_to(tmp_path / "source/Doe^Jane")
    (finding,) = search(files_below([tmp_path], [tmp_path / "source"]), known(b"Doe^Jane"))
    assert (finding.file.name, finding.place) == ("link", "where it leads as a link")


def test_what_cannot_be_looked_at_is_no_proof_and_nobody_s_name(tmp_path, monkeypatch):
    top = tmp_path / "out"
    top.mkdir()
    (top / "long").symlink_to("x" * 300)
    (top / "loop").symlink_to("loop")
    assert not list(search(files_below([top]), known(SECRET)))
    (top / "Doe-Jane").mkdir()

    def refuse(self, **options):
        if self.name.startswith("Doe"):
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **options)

    stat = Path.stat
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(InputError, match="may not be read") as told:
        list(search(files_below([top]), known(SECRET)))
    assert "Doe" not in str(told.value)
    with pytest.raises(InputError, match=r"cannot look at .*: Permission denied"):
        files_below([top / "Doe-Jane"])
    with pytest.raises(InputError, match="cannot look at"):
        files_below([top / ("x" * 300)])


# --- what identifies in a source ------------------------------------------------------------------------


def values_of(folder):
    everything = identities([folder])
    return {value.decode("latin-1"): kind for value, kind in everything.kinds.items()}


def test_identities_of_dicom_at_any_depth(tmp_path):
    inner, item = Dataset(), Dataset()
    inner.PersonName, inner.TextValue = "Roe^Richard", "seen by R. R."
    item.ContentSequence = Sequence([inner])
    item.private_block(0x0029, "MAKER HEADER", create=True).add_new(1, "LO", "private and nested")
    data = dicom_dataset(
        np.zeros((4, 4)), PatientName="Möller^Eva=Ideo^Graph", OtherPatientIDs=["A-100-1", "A-100-2"],
        SpecificCharacterSet="ISO_IR 192", StudyDescription="of Eva", Units="GML", BodyPartExamined="BREAST",
        ConceptNameCodeSequence=Sequence([item]),
    )  # fmt: skip
    data.private_block(0x0099, "MAKER", create=True).add_new(2, "UN", b"unknown form")
    data.add_new(0x50100010, "LO", "of a curve")
    data.add_new(0x60004000, "LT", "of an overlay")
    (tmp_path / "s").mkdir()
    data.save_as(tmp_path / "s" / "IMG-7.dcm", enforce_file_format=True)
    found = values_of(tmp_path / "s")
    for value in (
        "HOSP-4711", "19480229", "1948-02-29", "A-100-1", "A-100-1\\A-100-2", "of Eva", "Roe^Richard",
        "Richard", "seen by R. R.",
        "private and nested", "MAKER HEADER", "unknown form", "of a curve", "of an overlay",
        "IMG-7.dcm", "IMG-7", "Ideo^Graph", data.SOPInstanceUID, "20240229110000",
    ):  # fmt: skip
        assert value in found, value
    assert "Möller^Eva" in {value.encode("latin-1").decode() for value in found}
    for value in ("GML", "BREAST", "PT", "F", "BQML", data.SOPClassUID, data.file_meta.TransferSyntaxUID):
        assert value not in found
    assert found["HOSP-4711"] == "PatientID (0010,0020)"
    assert found["private and nested"] == "private attribute (0029,1001)"


def test_identities_of_names(tmp_path):
    (tmp_path / "clinic/Doe-Jane/left").mkdir(parents=True)
    (tmp_path / "clinic/Doe-Jane/left/slice.png").write_bytes(b"no picture")
    (tmp_path / "clinic/Doe-Jane/left/Jane.left.nii.gz").touch()
    found = values_of(tmp_path / "clinic")
    assert set(found) == {
        "Doe-Jane", "Doe-Jane/left/slice.png", "Doe-Jane/left/Jane.left.nii.gz", "Jane.left.nii.gz",
        "Jane.left.nii", "Jane",
    }  # fmt: skip


def test_identities_of_ics_files():
    text = b"ics_version 1.0\nfilename A-1141-1\nDATE_OF_STUDY 2 7 1995\nPATIENT_AGE 58\nFILM_TYPE REGULAR\n"
    text += b"DIGITIZER LUMISYS LASER\nSELECTED\nLEFT_CC LINES 4696 PIXELS_PER_LINE 3024\nREMARK of Jane\n"
    found = {value.decode(): kind for kind, value in embedded.ics_texts(text)}
    expected = {"A-1141-1", "2 7 1995", "19950702", "1995-07-02", "58", "of Jane", "REMARK of Jane"}
    assert set(found) == expected
    assert (found["A-1141-1"], found["58"]) == (".ics FILENAME", ".ics PATIENT_AGE")


@pytest.mark.parametrize("line", ["DOE JANEBORN19480229", "DOE_JANE born 1948", "DOE-JANE-19480229"])
def test_a_free_line_of_an_ics_file_is_searched_for_whole_and_never_told(line):
    found = embedded.ics_texts(f"FILM_TYPE REGULAR\n{line}\n".encode())
    assert (".ics line", line.encode()) in found
    assert {kind for kind, _ in found} == {".ics line"}


def test_texts_of_pictures(tmp_path):
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    information = PngImagePlugin.PngInfo()
    information.add_text("Key-1", "plain text")
    information.add_text("Key-2", "packed text", zip=True)
    information.add_itxt("Key-3", "tëxt of the world", lang="nl", tkey="sleutel", zip=True)
    exif = Image.Exif()
    exif[0x010E], exif[0x9C9D] = "described by EXIF", "author in UTF-16\0".encode("utf-16-le")
    grey.save(tmp_path / "a.png", pnginfo=information, exif=exif)
    grey.save(tmp_path / "a.jpg", comment=b"comment of JPEG", exif=exif)
    colours = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("P")
    colours.save(tmp_path / "a.gif", comment=b"comment of GIF " * 40)
    (tmp_path / "a.pgm").write_bytes(b"P5\n# comment of PGM\n2 2\n255\n" + bytes(4))
    for name, texts in {
        "a.png": ["Key-1", "plain text", "packed text", "tëxt of the world", "sleutel", "described by EXIF",
                  "author in UTF-16"],
        "a.jpg": ["comment of JPEG", "described by EXIF", "author in UTF-16"],
        "a.gif": [("comment of GIF " * 40).strip()],
        "a.pgm": ["comment of PGM"],
    }.items():  # fmt: skip
        data = (tmp_path / name).read_bytes()
        found = {text.decode() for _, text in embedded.texts(data)}
        assert set(texts) <= found, name
        for length in range(0, len(data), 7):
            embedded.texts(data[:length])  # damaged files do no harm


def test_pixel_ranges_of_png():
    data = png("x")
    ((start, stop),) = embedded.pixel_ranges(data)
    assert data[start - 4 : start] == b"IDAT"
    assert data[stop + 8 : stop + 12] == b"IEND"


def test_what_cannot_be_read_is_counted(tmp_path):
    (tmp_path / "s").mkdir()
    dicom_dataset(np.zeros((4, 4))).save_as(tmp_path / "s/good.dcm", enforce_file_format=True)
    (tmp_path / "s/broken-1.dcm").write_bytes((tmp_path / "s/good.dcm").read_bytes()[:200])
    everything = identities([tmp_path / "s"])
    assert (everything.files, everything.damaged) == (2, 1)
    assert b"broken-1" in everything.kinds


def test_a_source_without_identities_is_one_sentence(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "image.png").touch()
    with pytest.raises(InputError, match="nothing that identifies"):
        identities([tmp_path / "s"])


def test_a_damaged_file_is_no_proof(tmp_path):
    with h5py.File(tmp_path / "o.h5", "w") as file:
        file["patient"] = ["a"] * 5000
    (tmp_path / "o.h5").write_bytes((tmp_path / "o.h5").read_bytes()[:2000])
    (tmp_path / "o.gz").write_bytes(gzip.compress(bytes(range(256)) * 99)[:300])
    (tmp_path / "o.zip").write_bytes(b"PK\3\4 and no more")
    for kind in ("h5", "gz", "zip"):
        with pytest.raises(InputError, match=f"cannot search file 1 of 1, of kind .{kind}"):
            list(search([(tmp_path / f"o.{kind}", "o")], known(SECRET)))


def test_the_ending_of_a_name_is_told_only_if_it_is_a_usual_one(tmp_path):
    (tmp_path / "report.DOE-JANE").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(InputError, match=r"cannot search file \d of \d: it is damaged"):
        list(search(files_below([tmp_path]), known(SECRET)))


def test_a_file_that_breaks_its_reader_is_known_by_its_name_and_proves_nothing(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/Doe-Jane.dcm").touch()
    everything = identities([tmp_path / "s"], lambda function, tasks: (Refused("crash") for _ in tasks))
    assert everything.damaged == 1
    assert set(everything.kinds) == {b"Doe-Jane", b"Doe-Jane.dcm"}


def test_a_damaged_archive_of_any_compression_is_no_proof(tmp_path):
    random = np.random.default_rng(0)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", method) as file:
            file.writestr("a", bytes(random.integers(0, 256, 200, np.uint8)) + b"a" * 5000)
        for at in range(30, 130, 10):
            content = bytearray(archive.getvalue())
            content[at : at + 30] = b"\xff" * 30
            (tmp_path / "o.zip").write_bytes(content)
            with pytest.raises(InputError, match="cannot search"):
                list(search([(tmp_path / "o.zip", "o")], known(SECRET)))


@pytest.mark.parametrize("kind", sorted(mutations.SUFFIXES))
def test_identities_of_broken_files_are_all_that_comes_of_them(tmp_path, kind):
    for seed in range(60):
        content = mutations.make(kind, seed)
        if len(content) < 2**20:
            path = mutations.lay(tmp_path, kind, "Doe-Jane", content)
            found, complete = file_identities((path, f"ward/{path.name}"))
            assert isinstance(complete, bool)
            assert ("name of a folder", b"ward") in found
            assert all(0 < len(value) <= 512 for _, value in found)
    texts = random.Random(0)
    for _ in range(200):
        (tmp_path / "A-1-1.ics").write_bytes(texts.randbytes(texts.randrange(300)))
        assert file_identities((tmp_path / "A-1-1.ics", "A-1-1.ics"))[1]
