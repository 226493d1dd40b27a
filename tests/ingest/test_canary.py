"""A canary in everything that identifies; the command line in processes of its own; not a feather anywhere.

The search here is grep's, and knows nothing of petgan's own audit, which is held against it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

import petgan as petgan_package
from ingest.conftest import dicom_dataset
from petgan.ingest.audit import files_below, identities, search
from petgan.ingest.basic_profile import KEYWORDS, NEWER_TAGS

pytestmark = pytest.mark.slow

LEAST = 6  # characters that grep looks for; what is shorter occurs by chance, and only its hashes count


class Canaries:
    """Unique values of every form; all are remembered."""

    def __init__(self):
        self.all, self.broken = [], []

    def keep(self, value):
        self.all.append(value)
        return value

    def word(self):
        return self.keep(f"CNRY{len(self.all):05}Q")

    def of(self, vr):
        n = len(self.all)
        day = f"{date(1801, 1, 1) + timedelta(n):%Y%m%d}"
        time = f"{n % 24:02}{n % 60:02}{n % 59:02}.{100_003 + n:06}"
        if vr == "SQ":
            inner, item = Dataset(), Dataset()
            inner.TextValue, inner.PersonName = self.word(), self.of("PN")
            inner.private_block(0x0029, self.word(), create=True).add_new(1, "LO", self.word())
            item.ContentSequence = Sequence([inner])
            return Sequence([item])
        if vr in ("OB", "UN", "OW"):
            return self.word().encode()
        if vr in ("US", "UL", "SS"):
            return int(self.keep(str(60_000 + n)))
        if vr == "PN":
            return self.keep(f"Canary{n:05}^Q{n:05}")
        return self.keep(
            {
                "DA": day,
                "TM": time,
                "DT": day + time,
                "UI": f"1.2.826.77.{n}.{7919 * (n + 1)}",
                "DS": f"{n + 1}.{31_337 + n}",
                "IS": str(700_000_000 + 7919 * n),
                "AS": f"{n % 1000:03}Y",
                "UR": f"http://canary-{n:05}.example/",
            }.get(vr, f"CNRY{n:05}Q")
        )

    def forms(self):
        """What must not be found: values, and their hashes without a key."""
        out = []
        for value in dict.fromkeys((*self.all, *self.broken)):
            out += [value] * (len(value) >= LEAST)
            for algorithm in (hashlib.md5, hashlib.sha1, hashlib.sha256):
                out += [
                    algorithm(text.encode()).hexdigest() for text in {value, value.upper(), value.lower()}
                ]
        return out


def fill(data, canaries, coherent=()):
    """Set every attribute of the Basic Profile; those of `coherent`, which SUV needs, as it says."""
    coherent = {name: canaries.keep(value) for name, value in dict(coherent).items()}
    planted = 0
    for keyword in KEYWORDS:
        tag = tag_for_keyword(keyword)
        group = tag >> 16
        if group in (0x0000, 0x0004, 0xFFFC):  # of messages and of DICOMDIR; padding after the end
            continue
        if keyword in ("SOPInstanceUID", "MediaStorageSOPInstanceUID"):  # of each file its own
            continue
        vr = dictionary_VR(tag)
        value = coherent.get(keyword) or canaries.of(vr)
        if group == 0x0002:
            setattr(data.file_meta, keyword, value)
        else:
            data.add_new(tag, vr, value)
        planted += 1
    for tag in NEWER_TAGS:
        data.add_new(tag, "LO", canaries.word())
    for group in (0x0009, 0x0071, 0x7F01):
        block = data.private_block(group, canaries.word(), create=True)
        for element, vr in enumerate(("LO", "PN", "DA", "UI", "UN", "SQ", "DS", "ST"), 1):
            block.add_new(element, vr, canaries.of(vr))
    data.add_new(0x50002500, "LO", canaries.word())
    data.add_new(0x60004000, "LT", canaries.word())
    data.add_new(0x60003000, "OW", canaries.of("OW"))
    data.file_meta.SourceApplicationEntityTitle = canaries.word()
    data.file_meta.PrivateInformationCreatorUID = canaries.of("UI")
    data.file_meta.PrivateInformation = canaries.of("OB")
    return planted


def save(data, path, canaries):
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = canaries.of("UI")
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


DAY = "18370419"
FOR_SUV = {
    "SeriesDate": DAY, "AcquisitionDate": DAY,
    "SeriesTime": "101112.271828", "AcquisitionTime": "101113.314159",
    "AcquisitionDateTime": f"{DAY}101113.173205", "DecayCorrectionDateTime": f"{DAY}101112.141421",
    "RadiopharmaceuticalStartDateTime": f"{DAY}091011.577215",
    "RadiopharmaceuticalStartTime": "091011.577215",
    "TimezoneOffsetFromUTC": "+0137", "PatientWeight": "61.273849", "PatientSize": "1.673849",
}  # fmt: skip


def pet_files(folder, canaries):
    random = np.random.default_rng(5)
    data = dicom_dataset(random.integers(0, 999, (32, 32), np.uint16))
    planted = fill(data, canaries, FOR_SUV)
    item = data.RadiopharmaceuticalInformationSequence[0]
    for name in ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"):
        setattr(item, name, FOR_SUV[name])
    where = folder / canaries.word() / canaries.word()
    for depth in range(4):
        data.PixelData = random.integers(0, 999, (32, 32), np.uint16).tobytes()
        data.ImagePositionPatient = ["0", "0", str(3 * depth)]
        save(data, where / f"{canaries.word()}.dcm", canaries)
    patient, kind = data.PatientID, data.Modality
    for change in (
        {"PatientID": canaries.word(), "Units": "PROPCPS", "SeriesInstanceUID": canaries.of("UI")},
        {
            "PatientID": canaries.word(),
            "BurnedInAnnotation": "YES",
            "Units": "BQML",
            "SeriesInstanceUID": canaries.of("UI"),
        },
        {"PatientID": "", "BurnedInAnnotation": "NO", "SeriesInstanceUID": canaries.of("UI")},
        {"PatientID": canaries.word(), "ImagePositionPatient": ["1", "2", "3"], "Rows": 0},
        {"PatientID": patient, "Rows": 32, "Modality": "OT"},
    ):
        for name, value in change.items():
            setattr(data, name, value)
        save(data, folder / canaries.word() / f"{canaries.word()}.dcm", canaries)
    data.Modality = kind
    return planted


def mammogram_files(folder, canaries):
    random = np.random.default_rng(6)
    for burned in ("NO", "YES"):
        data = dicom_dataset(random.integers(0, 4096, (48, 40), np.uint16), "MG", BitsStored=12, HighBit=11)
        data.BurnedInAnnotation, data.ViewPosition, data.ImageLaterality = burned, "CC", "L"
        fill(data, canaries)
        save(data, folder / canaries.word() / canaries.word(), canaries)  # without a suffix


def pictures(folder, canaries):
    random = np.random.default_rng(7)
    for suffix in ("png", "gif", "jpg", "pgm"):
        where = folder / canaries.word()
        where.mkdir(parents=True)
        image = Image.fromarray(random.integers(0, 256, (40, 40), np.uint8))
        path = where / f"{canaries.word()}.{suffix}"
        exif = Image.Exif()
        if suffix in ("png", "jpg"):
            exif[0x010E], exif[0x9286] = canaries.word(), b"ASCII\0\0\0" + canaries.word().encode()
        if suffix == "png":
            texts = PngImagePlugin.PngInfo()
            texts.add_text(canaries.word(), canaries.word())
            texts.add_text("Comment", canaries.word(), zip=True)
            texts.add_itxt("Title", canaries.word(), lang=canaries.word(), tkey=canaries.word(), zip=True)
            image.save(path, pnginfo=texts, exif=exif)
        elif suffix == "jpg":
            image.save(path, comment=canaries.word().encode(), exif=exif)
        elif suffix == "gif":
            image.save(path, comment=canaries.word().encode())
        else:
            path.write_bytes(f"P5\n# {canaries.word()}\n40 40\n255\n".encode() + image.tobytes())
        path.with_suffix(".ics").write_text(
            f"ics_version 1.0\nfilename {canaries.word()}\nDATE_OF_STUDY {canaries.keep('17 3 1812')}\n"
            f"DATE_DIGITIZED {canaries.keep(f'4 11 18{len(canaries.all) % 100:02}')}\nPATIENT_AGE 58\n"
            f"FILM_TYPE REGULAR\nREMARK {canaries.word()}\n"
            "LEFT_CC LINES 40 PIXELS_PER_LINE 40 BITS_PER_PIXEL 8 RESOLUTION 50 NON_OVERLAY\n"
        )
        canaries.keep("18120317")
    (folder / canaries.word() / f"{canaries.word()}.npy").parent.mkdir()
    np.save(folder / canaries.all[-2] / f"{canaries.all[-1]}.npy", random.random((40, 40), np.float32))


def broken_files(source, folder, worst, canaries):
    """Cut short, or of values that are against all rules, which libraries like to quote."""
    whole = len(canaries.all)
    where = folder / canaries.word()
    where.mkdir(parents=True)
    worst.mkdir()
    for path in sorted(path for path in source.rglob("*") if path.is_file() and path.suffix != ".ics"):
        content = path.read_bytes()
        for share in (0.05, 0.4, 0.9):
            cut = (worst if share < 0.1 else where) / f"{canaries.word()}{path.suffix or '.dcm'}"
            cut.write_bytes(content[: int(share * len(content))])
    for name, vr in (
        ("PatientWeight", "DS"), ("SeriesTime", "TM"), ("SeriesDate", "DA"), ("SeriesInstanceUID", "UI"),
        ("InstanceNumber", "IS"), ("PatientAge", "AS"), ("RescaleSlope", "DS"), ("AcquisitionDateTime", "DT"),
        ("FrameReferenceTime", "DS"), ("ImagePositionPatient", "DS"), ("PixelSpacing", "DS"),
        ("NumberOfFrames", "IS"), ("SpecificCharacterSet", "CS"), ("PatientName", "PN"), ("Units", "CS"),
    ):  # fmt: skip
        data = dicom_dataset(
            np.zeros((16, 16)), PatientID=canaries.word(), SeriesInstanceUID=canaries.of("UI")
        )
        if name in data:
            del data[name]
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = canaries.of("UI")
        path = where / f"{canaries.word()}.dcm"
        word = canaries.word() + "\\" + canaries.word()
        data.add_new(0x00091001, "LO", "X" * len(word))
        data.save_as(path, enforce_file_format=True)
        tag = tag_for_keyword(name)
        element = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
        content = (
            path.read_bytes().replace(b"\x09\0\x01\x10LO", element).replace(b"X" * len(word), word.encode())
        )
        path.write_bytes(content)
    canaries.broken, canaries.all = canaries.all[whole:], canaries.all[:whole]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A source in which everything that identifies is a canary, and what petgan made of it and said of it."""
    top = tmp_path_factory.mktemp("canary")
    canaries, source = Canaries(), top / "source"
    planted = pet_files(source / "pet", canaries)
    mammogram_files(source / "mg", canaries)
    pictures(source / "pictures", canaries)
    broken_files(source, top / "broken", top / "worst", canaries)
    out, logs = top / "out", top / "out" / "logs"
    logs.mkdir(parents=True)
    shutil.copytree(source / "pet", top / "mixed", dirs_exist_ok=True)
    shutil.copytree(source / "mg", top / "mixed", dirs_exist_ok=True)
    both = top / "petbroken"
    shutil.copytree(source / "pet", both)
    shutil.copytree(top / "broken", both, dirs_exist_ok=True)
    environment = {
        **os.environ,
        "HOME": str(out / "home"),
        "TMPDIR": str(out / "tmp"),
        "PETGAN_KEY_FILE": str(top / "key"),
        "PYTHONPATH": str(Path(petgan_package.__file__).parents[1]),
    }
    (out / "home").mkdir()
    (out / "tmp").mkdir()

    def petgan(name, *arguments):
        with open(logs / f"{name}.out", "wb") as told, open(logs / f"{name}.err", "wb") as said:
            done = subprocess.run(
                [sys.executable, "-m", "petgan", *map(str, arguments)],
                cwd=out, stdout=told, stderr=said, env=environment, timeout=250,
            )  # fmt: skip
        return done.returncode, (logs / f"{name}.out").read_text(), (logs / f"{name}.err").read_text()

    world = {"top": top, "out": out, "source": source, "canaries": canaries, "petgan": petgan}
    world["planted"] = planted
    small = ("--size", "16", "--workers", "1")
    world["codes"] = {
        name: petgan(name, "ingest", top / folder, "--output", out / f"{name}.h5", *small, *options)[0]
        for name, folder, *options in (
            ("dry", "petbroken", "--modality", "pet", "--dry-run"),
            ("pet", "petbroken", "--modality", "pet"),
            ("stored", "source/pet", "--units", "stored", "--workers", "2", "--patients", "folder"),
            ("mg", "source/mg"),
            ("pictures", "source/pictures"),
            ("broken", "broken"),
            ("worst", "worst"),
            ("mixed", "mixed"),
            ("wrong", "source/pet", "--window", "bqml:0,5"),
        )
    }
    for action in ("info", "verify", "preview"):
        world["codes"][action] = petgan(action, "dataset", action, out / "pet.h5")[0]
    world["codes"]["json"] = petgan("json", "dataset", "info", out / "pet.h5", "--json")[0]
    world["codes"]["audit"] = petgan("audit", "dataset", "audit", out, "--source", source)[0]
    return world


def grep(canaries, folder):
    """Files below a folder that hold a canary, or a hash of one, by name or by content."""
    patterns = folder.parent / "patterns.txt"
    patterns.write_text("\n".join(canaries.forms()) + "\n")
    command = ["grep", "-rlaiF", "-f", str(patterns), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode in (0, 1), done.stderr
    below = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    patterns.with_name("names.txt").write_text("\n".join(below))
    command[1:2], command[-1] = ["-aiF"], str(patterns.with_name("names.txt"))
    named = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    return sorted(os.path.relpath(path, folder) for path in done.stdout.splitlines()), named.stdout


def test_the_canary_is_everywhere_and_petgan_did_its_work(world):
    assert world["planted"] > 610
    assert len(set(world["canaries"].all)) > 1500
    made = {"pet", "stored", "mg", "pictures", "info", "verify", "preview", "json"}
    assert {name: world["codes"][name] for name in made if world["codes"][name] not in (0, 2)} == {}
    for name in ("pet.h5", "pet.ingest.json", "pet.preview.png", "stored.h5", "mg.h5", "pictures.h5"):
        assert (world["out"] / name).stat().st_size > 0
    assert all(world["codes"][name] == 2 for name in ("broken", "worst", "mixed", "wrong"))


def test_no_canary_is_in_anything_that_petgan_wrote(world):
    assert grep(world["canaries"], world["out"]) == ([], "")


def test_no_text_is_in_a_picture_that_petgan_wrote(world):
    sheets = list(world["out"].rglob("*.png"))
    assert sheets
    for path in sheets:
        with Image.open(path) as sheet:
            assert sheet.info == {}, path.name


def test_no_file_is_left_over(world):
    assert list((world["out"] / "tmp").rglob("*")) == []
    assert not list(world["out"].rglob("*.tmp"))


def test_petgan_does_not_crash_over_broken_files(world):
    for path in (world["out"] / "logs").iterdir():
        assert "Traceback" not in path.read_text(), path.name


def test_the_audit_agrees_with_grep(world):
    said = (world["out"] / "logs" / "audit.out").read_text()
    assert "none is there" in said.splitlines()[-1]
    assert world["codes"]["audit"] == 0


def test_quarantined_pictures_say_nothing_either(world):
    """Decided on and accepted: burned-in text goes in then, but no name of anything."""
    lists = sorted(world["out"].glob("*.quarantine.csv"))
    assert {path.name for path in lists} >= {"pet.quarantine.csv", "mg.quarantine.csv"}
    for path in lists:
        assert path.stat().st_mode & 0o777 == 0o600
    with open(world["out"] / "mg.quarantine.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    decided = world["top"] / "decided.csv"
    with open(decided, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "decision": "accept"} for row in rows)
    folder = world["top"] / "accepted"
    folder.mkdir()
    code, _, said = world["petgan"](
        "accept", "ingest", world["source"] / "mg", "--output", folder / "mg.h5", "--size", "16",
        "--workers", "1", "--accept-quarantined", decided,
    )  # fmt: skip
    assert code in (0, 2), said
    with h5py.File(folder / "mg.h5") as file:
        assert len(file["images"]) == 2
    assert grep(world["canaries"], folder) == ([], "")
    assert grep(world["canaries"], world["out"] / "logs") == ([], "")


@pytest.fixture(scope="module")
def two_keys(world):
    """Runs over one output, some of whose pictures were accepted: with the world's key, then with another."""
    top, folder = world["top"], world["top"] / "keys"
    folder.mkdir()
    for source, name in ((world["source"] / "mg", "mg.h5"), (top / "petbroken", "pet.h5")):
        options = ["--size", "16", "--workers", "1"] + ["--modality", "pet"] * (name == "pet.h5")
        runs = []
        for number, key in enumerate(("key", "key", "other.key", "other.key")):
            accepted = ["--accept-quarantined", top / "of-both.csv"] if number % 2 else []
            code, *_ = world["petgan"](
                f"keys-{name}-{number}", "ingest", source, "--output", folder / name,
                "--key-file", top / key, *options, *accepted,
            )  # fmt: skip
            assert code in (0, 2)
            runs.append(
                {path: path.read_bytes() for path in sorted(folder.glob(f"{name[:-3]}.*")) if path.is_file()}
            )
            if not number % 2:
                accept_all(folder / f"{name[:-3]}.quarantine.csv", top / "of-both.csv")
        world[name] = runs
    return folder


def accept_all(quarantine, decided):
    with open(quarantine, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    with open(decided, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "decision": "accept"} for row in rows)


def ids_in(files):
    """Keyed ids by which the files of a run call patients, sources and files; of the key, too."""
    found = set()
    for path, content in files.items():
        if path.suffix in (".json", ".csv"):
            found |= set(re.findall(rb"\b[0-9a-f]{16}\b", content))
        if path.suffix == ".h5":
            with h5py.File(io.BytesIO(content)) as file:
                found |= {*file["patient"][:], *file["source"][:], str(file.attrs["key_id"]).encode()}
    return found


def test_a_second_key_over_the_same_output_says_nothing_either(world, two_keys):
    for name in ("mg.h5", "pet.h5"):
        assert len(list((two_keys / name).with_suffix(".ingest.cache").iterdir())) >= 1
    assert grep(world["canaries"], two_keys) == ([], "")
    assert grep(world["canaries"], world["out"] / "logs") == ([], "")


@pytest.mark.parametrize("name", ["mg.h5", "pet.h5"])
def test_no_id_of_the_first_key_is_left_by_the_second(world, two_keys, name):
    """Not as a part of anything that was written, but for the cache, which is the first key's as well."""
    waiting, accepted, waiting_again, accepted_again = world[name]
    first, second = ids_in(waiting) | ids_in(accepted), ids_in(waiting_again) | ids_in(accepted_again)
    assert len(first) > 4
    assert sorted(first & second) == []
    assert len(second) == len(first)
    for files in (waiting_again, accepted_again):
        for path, content in files.items():
            assert [one for one in first if one in content] == [], path.name
    logs = (world["out"] / "logs").glob(f"keys-{name}-[23].*")
    said = b"".join(path.read_bytes() for path in logs)
    assert [one for one in first if one in said] == []
    for one, other in ((waiting, waiting_again), (accepted, accepted_again)):
        assert images_in(one) == images_in(other)
    assert len(images_in(accepted)) > len(images_in(waiting))


def images_in(files):
    (content,) = (content for path, content in files.items() if path.suffix == ".h5")
    with h5py.File(io.BytesIO(content)) as file:
        return sorted(image.tobytes() for image in file["images"][:])


# --- controls: that it can fail -------------------------------------------------------------------------


def test_grep_finds_every_form_of_every_canary(world, tmp_path):
    folder = tmp_path / "planted"
    folder.mkdir()
    forms = world["canaries"].forms()
    for number, form in enumerate(forms[:: len(forms) // 40]):
        shutil.copy(world["out"] / "stored.h5", folder / f"{number}.h5")
        with open(folder / f"{number}.h5", "ab") as file:
            file.write(form.upper().encode())
    assert len(grep(world["canaries"], folder)[0]) == number + 1


def test_the_audit_finds_everything_that_is_planted(world, tmp_path, capsys):
    """Each canary of the source that is long enough, in clear, and each one's hashes."""
    from petgan import cli

    known = identities([world["source"]])
    wanted = {value.encode() for value in world["canaries"].all}
    missing = wanted - set(known.kinds)
    assert sorted(missing) == []
    path = tmp_path / "planted" / "pet.h5"
    path.parent.mkdir()
    shutil.copy(world["out"] / "stored.h5", path)
    assert not list(search(files_below([path]), known))
    with h5py.File(path, "r+") as file:
        file["in clear"] = sorted(wanted)
        file["md5"] = [hashlib.md5(value).hexdigest() for value in sorted(wanted)]  # noqa: S324
        file["sha1"] = np.array([hashlib.sha1(value).digest() for value in sorted(wanted)], "S20")  # noqa: S324
        file["sha256"] = [hashlib.sha256(value).hexdigest()[:16] for value in sorted(wanted)]
    found = {}
    for finding in search(files_below([path]), known):
        found.setdefault(finding.form, set()).add(known.values[finding.number - 1])
    long = {value for value in wanted if len(value) >= 4}
    assert sorted(long - found["text"]) == []
    for form in ("MD5 without a key", "SHA-1 without a key, in bytes", "SHA-256 without a key"):
        assert sorted(wanted - found[form]) == [], form
    capsys.readouterr()
    assert cli.main(["dataset", "audit", str(path), "--source", str(world["source"])]) == 1
    told = capsys.readouterr()
    assert "PatientID (0010,0020) as text" in told.out
    (path.parent / "told.txt").write_text(told.out + told.err)
    path.unlink()
    assert grep(world["canaries"], path.parent) == ([], "")
