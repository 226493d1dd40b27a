"""Broken and hostile files: what `make(kind, seed)` gives depends on its arguments alone.

A command as well, which reads such files as a worker does and says in JSON what came of it::

    python mutations.py KIND FIRST COUNT

What a reader lets out, a warning too, is among the failures, with the first seed of each; what broke the
process is among the crashes.
"""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, Sequence, uid
from pydicom.encaps import encapsulate

from ingest.conftest import dicom_dataset, enhanced_pet
from petgan.ingest.collections import described
from petgan.ingest.field import parse_field
from petgan.ingest.frame import Frame, Made, Picture, Refused, Skipped
from petgan.ingest.images import How, Unit, make_unit
from petgan.ingest.parallel import worker_pool
from petgan.ingest.scan import scan_file
from petgan.ingest.window import parse_window

HUGE = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
SYNTAXES = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
)
SUFFIXES = {
    "dicom": ".dcm", "gif": ".gif", "png": ".png", "jpeg": ".jpg", "pgm": ".pgm", "npy": ".npy",
    "ddsm": ".ljpeg.1",
}  # fmt: skip
DDSM_NAME, BESIDE = "A_1141_1.LEFT_CC", b"\n-- pixels --\n"
HOW = How(parse_window("percentile:0.5,99.5"), 32, "uint8", parse_field("breast"), "left", False)


def make(kind: str, seed: int) -> bytes:
    """A file of this kind that was whole once, or pretends to be: always the same for a seed."""
    random_ = random.Random(f"{kind} {seed}")
    special = SPECIAL[kind]
    if random_.random() < 0.2:
        content = random_.choice(special)(random_)
        if random_.random() < 0.7:
            return content
    else:
        content = GOOD[kind](random_)
    for _ in range(random_.choice((1, 1, 1, 2, 3, 8))):
        content = random_.choice(MUTATIONS)(content, random_)
    return content


# --- any bytes -------------------------------------------------------------------------------------------


def _place(content, random_):
    """Mostly in the header, where it matters."""
    return random_.randrange(min(len(content), random_.choice((16, 64, 512, 2048, 1 << 30))) or 1)


def flip(content, random_):
    changed = bytearray(content)
    for _ in range(random_.choice((1, 2, 8, 64))):
        if changed:
            changed[_place(changed, random_)] ^= 1 << random_.randrange(8)
    return bytes(changed)


def overwrite(content, random_):
    at, length = _place(content, random_), random_.choice((1, 2, 4, 16, 256))
    return content[:at] + random_.randbytes(length) + content[at + length :]


def forge(content, random_):
    """A number of 1, 2 or 4 bytes becomes an extreme one."""
    code = random_.choice(("<B", "<H", ">H", "<I", ">I"))
    at, width = _place(content, random_), struct.calcsize(code)
    value = random_.choice(HUGE) & (1 << 8 * width) - 1
    return content[:at] + struct.pack(code, value) + content[at + width :]


def truncate(content, random_):
    return content[: random_.randrange(len(content) + 1)]


def extend(content, random_):
    return content + random_.choice((bytes(1000), random_.randbytes(1000), content))


def remove(content, random_):
    at = _place(content, random_)
    return content[:at] + content[at + random_.choice((1, 2, 4, 100)) :]


def repeat(content, random_):
    at, length = _place(content, random_), random_.choice((1, 4, 32, 500))
    return content[:at] + content[at : at + length] * random_.choice((2, 3, 50)) + content[at + length :]


def swap(content, random_):
    a, b = sorted((_place(content, random_), _place(content, random_)))
    length = random_.choice((2, 8, 100))
    return (
        content[:a] + content[b : b + length] + content[a + length : b] + content[a:][:length] + content[b:]
    )


def digits(content, random_):
    """ASCII numbers become absurd ones."""
    at = [n for n, byte in enumerate(content[:4096]) if 48 <= byte <= 57]
    if not at:
        return flip(content, random_)
    place = random_.choice(at)
    word = random_.choice(
        (b"0", b"-1", b"99999999999999999999", b"1e999", b"nan", b"4294967296", b"65536", b"x")
    )
    return content[:place] + word + content[place + 1 :]


MUTATIONS = (flip, flip, overwrite, forge, forge, truncate, extend, remove, repeat, swap, digits)


# --- whole files -----------------------------------------------------------------------------------------


@lru_cache
def _picture(bits, side=24):
    y, x = np.mgrid[:side, :side]
    values = (np.sin(x / 3) + np.cos(y / 5) + 2) / 4 * (2**bits - 1)
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def _saved(picture, **options):
    stream = io.BytesIO()
    picture.save(stream, **options)
    return stream.getvalue()


def png(random_):
    bits = random_.choice((1, 8, 8, 16))
    picture = Image.fromarray(_picture(bits) if bits > 1 else _picture(8) > 99)
    if bits == 8:
        picture = picture.convert(random_.choice(("L", "LA", "RGB", "RGBA", "P", "I;16")))
    return _saved(picture, format="PNG", optimize=random_.random() < 0.3)


def gif(random_):
    frames = [Image.fromarray(_picture(8)), Image.fromarray(_picture(8).T)]
    more = {"save_all": True, "append_images": frames[1:], "disposal": random_.randrange(4)}
    options = more if random_.random() < 0.5 else {}
    return _saved(frames[0], format="GIF", interlace=random_.randrange(2), **options)


def jpeg(random_):
    picture = Image.fromarray(_picture(8)).convert(random_.choice(("L", "RGB", "CMYK")))
    return _saved(picture, format="JPEG", progressive=random_.random() < 0.5, quality=random_.choice((1, 80)))


def pgm(random_):
    kind = random_.choice(("P5", "P5", "P2", "P1", "P4", "P6", "Pf", "P7"))
    top = random_.choice((1, 100, 255, 256, 65535))
    head = f"{kind}\n# a comment\n24 24\n" + (f"{top}\n" if kind not in ("P1", "P4") else "")
    if kind in ("P2", "P1"):
        return (
            head + " ".join(map(str, _picture(8).ravel().astype(int) % (top + 1 if kind == "P2" else 2)))
        ).encode()
    return head.encode() + _picture(16).tobytes() * 3


def npy(random_):
    dtype = random_.choice(("u1", "<u2", ">u2", "<i4", "<f4", ">f8", "<f2", "?", "<u8"))
    values = _picture(16).astype(dtype)
    if random_.random() < 0.3:
        values = np.asfortranarray(values)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, version=random_.choice(((1, 0), (2, 0), (3, 0))))
    return stream.getvalue()


def dicom(random_):
    return _dicom(random_.choice(SYNTAXES), random_.choice(("PT", "MG", "multi")))


@lru_cache
def _dicom(syntax, modality):
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    stored = _picture(bits)
    if modality == "multi":
        data = enhanced_pet(np.stack([stored] * 3), (1, 2, 3), (0, 3, 6))
    else:
        data = dicom_dataset(stored, modality)
    data.BitsStored, data.HighBit = bits, bits - 1
    if bits == 8:
        data.BitsAllocated = 8
    frame = _encoded(stored, syntax, bits)
    if frame is not None:
        data.PixelData = encapsulate([frame] * (3 if modality == "multi" else 1))
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    elif syntax == uid.ExplicitVRBigEndian:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    return _written(data)


def _written(data):
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"  # else one of chance
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _encoded(stored, syntax, bits):
    """A frame by whichever encoder there is; where there is none, something like one."""
    if not syntax.is_compressed or syntax == uid.DeflatedExplicitVRLittleEndian:
        return None
    if syntax == uid.JPEGBaseline8Bit:
        return _saved(Image.fromarray(stored), format="JPEG")
    if syntax == uid.RLELossless:
        return _run_lengths(stored)
    try:
        import imagecodecs
    except ImportError:
        return b"\xff\xd8\xff\xc3\x00\x0b\x0c\x00\x18\x00\x18\x01\x01\x11\x00" + bytes(90) + b"\xff\xd9"
    return {
        uid.JPEGExtended12Bit: lambda: imagecodecs.jpeg8_encode(stored, bitspersample=bits),
        uid.JPEGLosslessSV1: lambda: imagecodecs.ljpeg_encode(stored, bitspersample=bits),
        uid.JPEGLSLossless: lambda: imagecodecs.jpegls_encode(stored),
        uid.JPEG2000Lossless: lambda: imagecodecs.jpeg2k_encode(stored, level=0, bitspersample=bits),
        uid.HTJ2KLossless: lambda: imagecodecs.htj2k_encode(stored),
    }[syntax]()


def _run_lengths(stored):
    planes = np.frombuffer(stored.astype(">u2").tobytes(), np.uint8).reshape(-1, 2).T
    segments = [
        b"".join(b"\x7f" + part.tobytes() for part in np.split(plane, range(128, len(plane), 128))[:-1])
        + bytes([len(plane) % 128 - 1])
        + plane[-(len(plane) % 128) :].tobytes()
        for plane in planes
    ]
    segments = [segment + bytes(len(segment) % 2) for segment in segments]
    offsets = [64, 64 + len(segments[0])]
    return struct.pack("<16I", 2, *offsets, *[0] * 13) + b"".join(segments)


def ddsm(random_):
    """The .ics of a case and, behind `BESIDE`, the pixels of one of its films: two files in one."""
    digitizer = random_.choice(("DBA", "HOWTEK", "LUMISYS"))
    text = (
        "ics_version 1.0\nfilename A-1141-1\nDATE_OF_STUDY 2 7 1995\nPATIENT_AGE 57\n"
        f"DIGITIZER {digitizer} 21\n"
        "LEFT_CC LINES 24 PIXELS_PER_LINE 24 BITS_PER_PIXEL 12 RESOLUTION 42 NON_OVERLAY\n"
    )
    return text.encode() + BESIDE + _picture(12).astype(">u2").tobytes()


GOOD = {"dicom": dicom, "gif": gif, "png": png, "jpeg": jpeg, "pgm": pgm, "npy": npy, "ddsm": ddsm}


# --- bombs -----------------------------------------------------------------------------------------------

# The first are taken, the others never; 9459 squared would be, and takes seconds.
SIDES = ((24, 24), (1000, 1000), (1, 65_535), (9460, 9460), (30_000, 65_535), (65_535, 65_535))


def _sides(random_):
    return (9459, 9459) if random_.random() < 0.002 else random_.choice(SIDES)


def _chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@lru_cache
def _zeros(count):
    """Deflated: a thousandth of its size."""
    stream = zlib.compressobj(9)
    return b"".join(stream.compress(bytes(1 << 20)) for _ in range(count >> 20)) + stream.flush()


def png_bomb(random_):
    width, height = _sides(random_)
    depth, colour = random_.choice(((8, 0), (16, 0), (8, 2), (8, 6), (1, 0), (8, 3)))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, random_.randrange(2))
    extras = {
        b"zTXt": b"a\0\0" + _zeros(1 << 24),
        b"iCCP": b"a\0\0" + _zeros(1 << 24),
        b"iTXt": b"a\0\1\0\0\0" + _zeros(1 << 24),
        b"PLTE": bytes(768),
    }
    extra = random_.choice((b"", *extras))
    chunks = [
        (b"IHDR", header),
        *([(extra, extras[extra])] if extra else []),
        (b"IDAT", _zeros(random_.choice((1 << 20, 1 << 24)))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def gif_bomb(random_):
    content = bytearray(gif(random_))
    content[6:10] = struct.pack("<HH", *_sides(random_))
    if random_.random() < 0.5 and b"," in content:
        at = content.index(b",") + 5
        content[at : at + 4] = struct.pack("<HH", *_sides(random_))
    return bytes(content)


def jpeg_bomb(random_):
    content = bytearray(jpeg(random_))
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if marker in content:
            at = content.index(marker) + 5
            content[at : at + 4] = struct.pack(">HH", *_sides(random_))
    return bytes(content)


def pgm_bomb(random_):
    kind = random_.choice(("P1", "P2", "P3", "P4", "P5", "P6", "Pf", "P7"))
    width, height = random_.choice((*SIDES, (10**9, 1), (10**9, 10**9), (-5, 5), (10**30, 1)))
    body = random_.choice((b"", b"1 " * 50, b"x" * 50, b"9" * 100_000, b"# " * 50_000, b"\n" * 100_000))
    return f"{kind} {width} {height} 255\n".encode() + body


def npy_bomb(random_):
    shape = random_.choice(
        ((900, 9459), (10**9, 10**9), (2**63, 2), (1, 2**31), (-1, 5), (0, 9), (2**40,), (3,) * 60, (True, 2))
    )
    dtype = random_.choice(
        ("u1", "<f8", "<f16", "|O", "|S999999999", "<U2147483647", "<M8[s]", "|V9", "(9,9)u1")
    )
    text = repr({"descr": dtype, "fortran_order": random_.choice((True, False, 5)), "shape": shape})
    text = random_.choice(
        (text, text, "[" * 5000, "(" * 90 + ")" * 90, "{" + "'a':1," * 9000 + "}", "-" * 9000 + "1")
    )
    version = random_.choice((1, 2, 3, 9))
    length = struct.pack("<H" if version == 1 else "<I", min(len(text), 65535))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + bytes(random_.choice((0, 500)))


def _forged(random_):
    """A dataset whose pixel attributes say something else than its pixels."""
    data = dicom_dataset(_picture(12), random_.choice(("PT", "MG")))
    for keyword in random_.sample(("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel"), 2):
        setattr(data, keyword, random_.choice((0, 1, 8, 12, 16, 24, 32, 64, 9000, 65535)))
    data.HighBit, data.PixelRepresentation = random_.choice(((11, 0), (15, 1), (65535, 65535)))
    if random_.random() < 0.5:
        data.NumberOfFrames = random_.choice(("0", "-1", "2", "1000000", "2147483647"))
    for keyword in random_.sample(
        ("RescaleSlope", "RescaleIntercept", "PatientWeight", "FrameReferenceTime", "PatientSize"), 2
    ):
        setattr(data, keyword, random_.choice(("0", "1e308", "-1e308", "1e-320", "99999999999999")))
    return data


def dicom_forged(random_):
    return _written(_forged(random_))


def dicom_frames(random_):
    """Compressed frames that are larger than the header says, or the other way round."""
    data = _forged(random_)
    syntax = random_.choice(SYNTAXES[4:])
    frame = _encoded(_picture(8 if syntax == uid.JPEGBaseline8Bit else 12), syntax, 12)
    for mutation in random_.sample(MUTATIONS, random_.randrange(3)):
        frame = mutation(frame, random_)
    data.PixelData = encapsulate([frame] * random_.choice((1, 1, 5)))
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = syntax
    return _written(data)


def dicom_run_lengths(random_):
    """2 bytes make 128: a bomb of 1 to 64."""
    side = random_.choice((24, 2000, 9460))
    data = dicom_dataset(_picture(12), "MG", Rows=side, Columns=side)
    segment = b"\x81\x00" * random_.choice((10, 1000, 300_000))
    count = random_.choice((1, 2, 15))
    frame = struct.pack("<16I", count, *[64] * 15) + segment
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = uid.RLELossless
    return _written(data)


def dicom_deflated(random_):
    """Nothing but zeros behind the header."""
    data = dicom_dataset(_picture(12), "MG")
    data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    content = _written(data)
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    at = plain.index(b"\xe0\x7f\x10\x00")
    size = 1 << (30 if random_.random() < 0.01 else random_.choice((16, 20, 24)))
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = stream.compress(plain[:at] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", size))
    return content[:start] + body + stream.flush(zlib.Z_SYNC_FLUSH) + _raw_zeros(size)


@lru_cache
def _raw_zeros(size):
    stream = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return b"".join(stream.compress(bytes(1 << 20)) for _ in range(size >> 20 or 1)) + stream.flush()


def dicom_nested(random_):
    """Sequences within sequences, in one that is read and in one that is not."""
    depth = random_.choice((10, 300, 3000, 20_000))
    tag = random_.choice((b"\x08\x00\x40\x11", b"\x00\x52\x29\x92", b"\x54\x00\x16\x00", b"\x28\x00\x00\x30"))
    head = dicom_dataset(_picture(12), "PT")
    content = _written(head)
    at = 144 + struct.unpack_from("<I", content, 140)[0]
    opened = tag + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return content[:at] + opened * depth + closed * random_.choice((0, depth)) + content[at:]


def dicom_groups(random_):
    """Functional groups that are missing, empty or not sequences."""
    data = enhanced_pet(np.stack([_picture(12)] * 3), (1, 2, 3), (0, 3, 6))
    frame = data.PerFrameFunctionalGroupsSequence[random_.randrange(3)]
    name = random_.choice(("PlanePositionSequence", "PixelValueTransformationSequence"))
    setattr(frame, name, Sequence(random_.choice(([], [Dataset()], [Dataset(), Dataset()]))))
    data.NumberOfFrames = random_.choice((0, 1, 2, 3, 4, 10**9))
    return _written(data)


def ddsm_absurd(random_):
    """Numbers in the .ics that nobody can mean."""
    content = ddsm(random_)
    number = str(random_.choice((*HUGE, 10**40, -1, "1e9", "²", ""))).encode()
    return content.replace(random_.choice((b"24", b"12", b"42")), number)


SPECIAL = {
    "ddsm": (ddsm_absurd,),
    "dicom": (
        dicom_forged, dicom_frames, dicom_frames, dicom_run_lengths, dicom_deflated, dicom_nested,
        dicom_groups,
    ),
    "gif": (gif_bomb,),
    "png": (png_bomb,),
    "jpeg": (jpeg_bomb,),
    "pgm": (pgm_bomb,),
    "npy": (npy_bomb,),
}  # fmt: skip


# --- the command -----------------------------------------------------------------------------------------


def read_as_worker(path: Path) -> str:
    """Scan and read a file as the processes of an ingest do; what came of it."""
    with warnings.catch_warnings(record=True) as spoken:
        warnings.simplefilter("always")
        outcome = _read(path)
    assert not spoken, f"warned: {spoken[0].message}"
    return outcome


def _read(path: Path) -> str:
    outcome = scan_file(path)
    if isinstance(outcome, Skipped):
        return "skipped"
    if isinstance(outcome, Refused):
        return "refused"
    name, headers = outcome
    assert headers, "a file without images is neither refused nor skipped"
    read = 0
    for index in {0, len(headers) - 1}:
        header = described(path.name, headers[index])
        frame = Frame(path, "0" * 16, "stamp", name, index, header)
        picture = Picture((frame,), header.view or "mammogram")
        (made,) = make_unit(Unit((frame,), (picture,), HOW))
        if isinstance(made, Made):
            read += 1
            assert (made.pixels.dtype, made.pixels.shape) == (np.uint8, (HOW.size, HOW.size))
            assert np.isfinite(made.quantiles).all(), "values that are not finite"
    return "read" if read else "unread"


def lay(folder: Path, kind: str, name: str, content: bytes) -> Path:
    """Write a file of a kind as it lies on a disk, with what belongs beside it."""
    if kind != "ddsm":
        path = folder / f"{name}{SUFFIXES[kind]}"
        path.write_bytes(content)
        return path
    beside, _, pixels = content.rpartition(BESIDE)
    folder = folder / f"{name}-case"
    folder.mkdir(exist_ok=True)
    (folder / "A-1141-1.ics").write_bytes(beside)
    path = folder / f"{DDSM_NAME}{SUFFIXES[kind]}"
    path.write_bytes(pixels)
    return path


def attempt(task: tuple[str, int, str]) -> tuple[str, str, float, int]:
    """Make and read a file; what came of it, what was let out, seconds, and the most memory so far (MB)."""
    kind, seed, folder = task
    path = lay(Path(folder), kind, "a", make(kind, seed))
    start, escaped = time.monotonic(), ""
    try:
        outcome = read_as_worker(path)
    except Exception as error:
        outcome, escaped = "failed", f"{type(error).__name__}: {error}"[:200]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return outcome, escaped, round(time.monotonic() - start, 2), used


def main(kind: str, first: int, count: int) -> None:
    start, outcomes = time.monotonic(), Counter()
    slowest, largest = (0.0, first), (0, first)
    failures: dict[str, int] = {}
    crashes: list[int] = []
    seeds = range(first, first + count)
    with tempfile.TemporaryDirectory() as folder, worker_pool(1, isolated=True) as run_all:
        results = run_all(attempt, ((kind, seed, folder) for seed in seeds))
        for seed, result in zip(seeds, results, strict=True):
            if isinstance(result, Refused):
                crashes.append(seed)
                outcomes[result.reason] += 1
                continue
            outcome, escaped, seconds, used = result
            outcomes[outcome] += 1
            if escaped:
                failures.setdefault(escaped, seed)
            slowest = max(slowest, (seconds, seed))
            if used > largest[0]:
                largest = (used, seed)
    rate = round(count / (time.monotonic() - start))
    summary = {"kind": kind, "files": count, "files_per_s": rate, "outcomes": outcomes, "failures": failures}
    print(json.dumps({**summary, "crashes": crashes, "slowest_s": slowest, "largest_mb": largest}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
