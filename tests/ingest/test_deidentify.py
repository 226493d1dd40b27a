from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from petgan.errors import ConfigError, DiskError
from petgan.ingest.deidentify import Key, key_file, load_key, warn_of_key_beside


def test_hashes_are_hmac_sha256():
    key = Key(b"k" * 32)
    full = hmac.new(b"k" * 32, b"petgan patient\0HOSP-4711", hashlib.sha256).hexdigest()
    assert key.patient("HOSP-4711") == full[:16]
    assert key.id == hmac.new(b"k" * 32, b"petgan key id", hashlib.sha256).hexdigest()[:8]
    assert "kkk" not in repr(key)


def test_kinds_of_identity_do_not_share_hashes():
    key = Key(b"k" * 32)
    assert len({key.patient("a"), key.series("a"), key.name("a"), key.seal("instance", "a")[:16]}) == 4


def test_a_key_is_made_once_for_the_user_alone(tmp_path):
    path = tmp_path / "new" / "identity.key"
    first = load_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 32
    assert load_key(path) == first
    assert load_key(tmp_path / "other.key") != first
    assert [p.name for p in path.parent.iterdir()] == ["identity.key"]


def test_where_the_key_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PETGAN_KEY_FILE")
    assert key_file() == tmp_path / ".config/petgan/identity.key"
    monkeypatch.setenv("PETGAN_KEY_FILE", "elsewhere")
    assert str(key_file()) == "elsewhere"
    assert str(key_file("given")) == "given"


def test_a_short_key_is_refused(key_file):
    key_file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        load_key()


def test_a_key_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="key file"):
        load_key(tmp_path / "file" / "identity.key")


def test_a_key_open_to_others_is_told_of(key_file, caplog):
    key_file.chmod(0o644)
    load_key()
    assert "chmod 600" in caplog.text


def test_a_seal_is_whole_and_of_its_kind():
    key = Key(b"k" * 32)
    full = hmac.new(b"k" * 32, b"petgan series\x001.2.3", hashlib.sha256).hexdigest()
    assert key.seal("series", "1.2.3") == full
    assert key.seal("patient", "x")[:16] == key.patient("x")
    assert key.seal("series", "x") != key.seal("patient", "x")


def test_a_key_that_must_be_there_is_not_made(tmp_path):
    with pytest.raises(ConfigError, match="no key file"):
        load_key(tmp_path / "new.key", make=False)
    assert not (tmp_path / "new.key").exists()


def test_who_makes_a_key_at_the_same_moment_gets_the_same(tmp_path):
    path, start = tmp_path / "new" / "identity.key", threading.Barrier(16)

    def load(_):
        start.wait()
        return load_key(path)

    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(load, range(16)))
    assert len(keys) == 1
    assert [file.name for file in path.parent.iterdir()] == ["identity.key"]


@pytest.mark.parametrize(
    ("place", "warned"), [("data/identity.key", True), ("data/a/b.key", True), ("k", False)]
)
def test_a_key_beside_its_dataset_is_told_of(tmp_path, caplog, place, warned):
    warn_of_key_beside(tmp_path / "data" / "pet.h5", tmp_path / place)
    assert bool(caplog.records) is warned


def test_hashes_do_not_depend_on_the_locale():
    """Of letters, and of bytes in a file's name that are no UTF-8."""
    code = (
        "from petgan.ingest.deidentify import Key; k = Key(bytes(32));"
        "print(k.patient('M\\xfcller'), k.name('\\udcff'))"
    )
    told = []
    for locale in ({"PYTHONUTF8": "1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **locale},
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(done.stdout.split())
    expected = [
        hmac.digest(bytes(32), b"petgan patient\0" + "Müller".encode(), "sha256").hex()[:16],
        hmac.digest(bytes(32), b"petgan name\0\xff", "sha256").hex()[:16],
    ]
    assert told == [expected, expected]
