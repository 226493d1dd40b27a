from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from petgan.ingest.cache import MOST_SEGMENTS, Cache, pack_made, unpack_made
from petgan.ingest.frame import Made


def key(n):
    return n.to_bytes(32, "big")


def payload(n):
    return np.random.default_rng(n).bytes(50 + n)


def fill(path, numbers):
    with Cache(path) as cache:
        for n in numbers:
            cache.put(key(n), payload(n))


def segments(path):
    return sorted(path.glob("*.records"))


def kept(path, numbers):
    """Which of the numbers are there; changes nothing."""
    cache = Cache(path)
    found = {n for n in numbers if cache.get(key(n)) == payload(n)}
    cache.close(drop_unused=False)
    return found


def test_what_was_put_is_there_in_the_next_run(tmp_path):
    fill(tmp_path / "cache", range(20))
    cache = Cache(tmp_path / "cache")
    assert len(cache) == 20
    assert [cache.get(key(n)) for n in range(20)] == [payload(n) for n in range(20)]
    assert cache.get(key(20)) is None
    cache.put(key(20), b"")
    cache.put(key(20), b"new")
    assert cache.get(key(20)) == b"new"
    cache.close()
    with Cache(tmp_path / "cache") as cache:
        assert cache.get(key(20)) == b"new"


def test_an_unused_cache_writes_nothing(tmp_path):
    with Cache(tmp_path / "cache") as cache:
        assert cache.get(key(1)) is None
    assert not (tmp_path / "cache").exists()


def test_only_the_owner_can_read_it(tmp_path):
    before = os.umask(0)
    fill(tmp_path / "cache", [1])
    os.umask(before)
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in segments(tmp_path / "cache")] == [0o600]


def test_what_a_run_did_not_ask_for_goes_when_it_ends_well(tmp_path):
    fill(tmp_path, range(10))
    with Cache(tmp_path) as cache:
        for n in range(5):
            cache.get(key(n))
    assert kept(tmp_path, range(10)) == set(range(5))
    assert all(payload(n) not in path.read_bytes() for path in segments(tmp_path) for n in range(5, 10))


def test_a_run_that_fails_keeps_everything(tmp_path):
    fill(tmp_path, range(10))
    with pytest.raises(ZeroDivisionError), Cache(tmp_path) as cache:
        cache.put(key(10), payload(10))
        raise ZeroDivisionError
    assert kept(tmp_path, range(11)) == set(range(11))


def test_a_run_that_uses_all_changes_no_file(tmp_path):
    fill(tmp_path, range(10))
    before = {path: path.stat() for path in segments(tmp_path)}
    with Cache(tmp_path) as cache:
        for n in range(10):
            cache.get(key(n))
    assert {path: path.stat() for path in segments(tmp_path)} == before


def test_many_runs_leave_few_files(tmp_path):
    for n in range(3 * MOST_SEGMENTS):
        with Cache(tmp_path) as cache:
            assert all(cache.get(key(m)) == payload(m) for m in range(n))
            cache.put(key(n), payload(n))
    assert len(segments(tmp_path)) <= MOST_SEGMENTS + 1
    assert kept(tmp_path, range(n + 1)) == set(range(n + 1))


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_a_torn_end_is_ignored(tmp_path, cut):
    fill(tmp_path, range(3))
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    sizes = [56 + len(payload(n)) for n in range(3)]
    whole = {n for n in range(3) if sum(sizes[: n + 1]) <= sum(sizes) - cut}
    assert kept(tmp_path, range(3)) == whole
    with Cache(tmp_path) as cache:
        assert [cache.get(key(n)) for n in whole] == [payload(n) for n in whole]
        cache.put(key(7), payload(7))
    assert kept(tmp_path, [*range(3), 7]) == {*whole, 7}


def test_a_changed_byte_is_never_given_out(tmp_path):
    """Wherever it is: what is found is right, and what lies before it is found."""
    fill(tmp_path, range(3))
    (path,) = segments(tmp_path)
    content = path.read_bytes()
    sizes = [56 + len(payload(n)) for n in range(3)]
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        cache = Cache(tmp_path)
        found = {n: cache.get(key(n)) for n in range(3)}
        cache.close(drop_unused=False)
        hit = next(n for n in range(3) if place < sum(sizes[: n + 1]))
        assert found[hit] is None
        assert all(found[n] in (None, payload(n)) for n in range(3))
        assert all(found[n] == payload(n) for n in range(hit))


def test_a_file_of_something_else_is_ignored(tmp_path):
    (tmp_path / "x.records").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "huge.records").write_bytes(b"\xff" * 200)
    assert kept(tmp_path, range(3)) == set()


def test_two_runs_at_once_do_not_damage_each_other(tmp_path):
    fill(tmp_path, range(4))
    first, second = Cache(tmp_path), Cache(tmp_path)
    first.put(key(10), payload(10))
    late = Cache(tmp_path)  # sees the first one's record, and does not ask for it
    for n in range(50):
        first.put(key(100 + n), payload(n))
        second.put(key(200 + n), payload(n))
    assert [first.get(key(n)) for n in range(4)] == [payload(n) for n in range(4)]
    late.close()  # drops 0 to 3; but not the segment that the first one has appended to
    assert [second.get(key(n)) for n in range(4)] == [payload(n) for n in range(4)]
    first.close()
    second.close()
    with Cache(tmp_path) as after:
        assert all(after.get(key(base + n)) == payload(n) for base in (100, 200) for n in range(50))


KILLED = """
import os, signal, sys
from petgan.ingest.cache import Cache
cache = Cache(sys.argv[1])
for n in range(5):
    cache.put(n.to_bytes(32, "big"), b"payload %d" % n)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_what_it_put(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    with Cache(tmp_path) as cache:
        assert [cache.get(key(n)) for n in range(5)] == [b"payload %d" % n for n in range(5)]


@contextmanager
def small_files():
    """No file can grow beyond 1,000 bytes; not for the whole of a test, whose report may go to a file too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_on_a_full_disk_the_run_goes_on_after_one_warning(tmp_path, caplog):
    with small_files(), Cache(tmp_path) as cache:
        for n in range(50):
            cache.put(key(n), payload(n))
        found = [n for n in range(50) if cache.get(key(n)) == payload(n)]
    assert len(caplog.records) == 1
    assert "going on without it" in caplog.text
    assert 0 < len(found) < 50
    assert kept(tmp_path, range(50)) == set(found)


def test_a_disk_that_fills_while_unused_records_are_dropped_loses_nothing(tmp_path, caplog):
    with small_files():
        for start in (0, 6):
            cache = Cache(tmp_path)
            for n in range(start, start + 6):
                cache.put(key(n), payload(n))
            cache.close(drop_unused=False)
        used = (*range(5), *range(6, 11))  # more than one file can hold
        with Cache(tmp_path) as cache:
            assert [cache.get(key(n)) for n in used] == [payload(n) for n in used]
    assert kept(tmp_path, used) == set(used)
    assert len(caplog.records) == 1


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with Cache(tmp_path / "file" / "cache") as cache:
        cache.put(key(1), b"x")
        cache.put(key(2), b"x")
        assert cache.get(key(1)) is None
    assert len(caplog.records) == 1


DTYPES = st.sampled_from(["uint8", "uint16", "float32"])
SHAPES = st.tuples(st.integers(0, 9), st.integers(0, 9))


@given(
    DTYPES.flatmap(lambda dtype: arrays(dtype, SHAPES)),
    arrays("float32", 65),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)
def test_made_images_come_back(pixels, quantiles, fingerprint, text):
    made = unpack_made(pack_made(Made(pixels, quantiles, fingerprint, text)))
    assert made.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(made.pixels, pixels)
    assert made.quantiles.tobytes() == quantiles.tobytes()
    assert (made.fingerprint, made.text) == (fingerprint, text)


@given(st.binary(max_size=100))
def test_other_bytes_are_no_made_image(content):
    with pytest.raises(ValueError, match="no made image"):
        unpack_made(content)
