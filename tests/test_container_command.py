"""The command line of a container, as a stand-in for Apptainer receives it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petgan import container
from petgan.errors import InputError

PATHS = st.text(st.characters(exclude_categories=["C"], exclude_characters="/"), min_size=1, max_size=30)


def mounts(argv):
    """The mounts of a command, each as its fields by name; read as CSV, which Apptainer says that it does."""
    texts = [argv[i + 1] for i, word in enumerate(argv) if word == "--mount"]
    rows = [row for text in texts for row in csv.reader([text])]
    return [{key: value for key, _, value in (field.partition("=") for field in row)} for row in rows]


def command(read_only=(), writable=(), environment=None, gpus=False, words=("true",)):
    return container.exec_command(
        "/i.sif", words, environment=environment or {}, read_only=read_only, writable=writable,
        scratch=Path("/scratch of this run"), gpus=gpus,
    )  # fmt: skip


@given(st.lists(PATHS, min_size=1, max_size=4), st.lists(PATHS, min_size=1, max_size=2))
def test_any_path_is_one_mount_at_its_own_place(read_only, writable):
    argv, _ = command([Path("/r") / p for p in read_only], [Path("/w") / p for p in writable])
    found = mounts(argv)
    *given_paths, last = found
    expected = [*dict.fromkeys(str(Path("/r") / p) for p in read_only)]
    assert [m["source"] for m in given_paths if "ro" in m] == expected
    expected = [*dict.fromkeys(str(Path("/w") / p) for p in writable)]
    assert [m["source"] for m in given_paths if "ro" not in m] == expected
    assert all(m["source"] == m["destination"] and m["type"] == "bind" for m in given_paths)
    assert (last["source"], last["destination"]) == ("/scratch of this run", "/tmp")


def test_what_comes_later_lies_over_what_came_before():
    """A run folder within a read-only one is writable: Apptainer mounts in order."""
    argv, _ = command([Path("/e")], [Path("/e/runs/1")])
    assert [m["source"] for m in mounts(argv)][:2] == ["/e", "/e/runs/1"]


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    """A stand-in that writes down its arguments and its environment, one a line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "apptainer"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"open({str(tmp_path / 'arguments')!r}, 'w').write('\\0'.join(sys.argv[1:]))\n"
        f"open({str(tmp_path / 'environment')!r}, 'wb').write(open('/proc/self/environ', 'rb').read())\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def run(argv, environment):
        subprocess.run(argv, env=environment, check=True)
        variables = (tmp_path / "environment").read_bytes().decode().split("\0")
        return (
            (tmp_path / "arguments").read_text().split("\0"),
            dict(v.partition("=")[::2] for v in variables if v),
        )

    return run


def test_the_environment_is_what_was_given_and_nothing_of_the_user(apptainer, monkeypatch):
    monkeypatch.setenv("PETGAN_SECRET_TOKEN", "geheim")
    monkeypatch.setenv("APPTAINERENV_TOKEN", "geheim")
    monkeypatch.setenv("APPTAINER_BIND", "/home")
    monkeypatch.setenv("SINGULARITY_BIND", "/home")
    monkeypatch.setenv("PYTHONPATH", "/home/me")
    arguments, seen = apptainer(*command(environment={"PETGAN_RANK": "0", "X": "a b $(id) 'q' \"p\" é"}))
    given_names = {name for name in seen if name.startswith("APPTAINERENV_")}
    assert given_names == {"APPTAINERENV_PETGAN_RANK", "APPTAINERENV_X"}
    assert seen["APPTAINERENV_X"] == "a b $(id) 'q' \"p\" é"
    assert "geheim" not in "".join(seen.values())
    assert not {"APPTAINER_BIND", "SINGULARITY_BIND", "PYTHONPATH"} & set(seen)
    for option in ("--cleanenv", "--no-home", "--no-eval"):
        assert option in arguments


@pytest.mark.parametrize("gpus", [False, True])
def test_the_gpu_driver_comes_along_where_there_are_gpus(gpus):
    argv, _ = command(gpus=gpus)
    assert ("--nv" in argv) == gpus


def test_the_command_stands_behind_the_image_word_by_word(apptainer):
    words = ["python3", "-m", "petgan.worker", '{"run": "/a b/\\"é\\" & 100%"}', "--nv", ""]
    arguments, _ = apptainer(*command(words=words))
    assert arguments[arguments.index("/i.sif") + 1 :] == words


def test_an_image_is_known_by_its_content_and_a_change_is_refused(tmp_path):
    file = tmp_path / "i.sif"
    file.write_bytes(b"hsqs, an image")
    image = container.identify(file)
    digest = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert image.digest == digest
    container.refuse_if_changed(image.as_record())

    file.write_bytes(b"hsqs, an IMAGE")
    os.utime(file, ns=(image.modified + 1, image.modified + 1))
    with pytest.raises(InputError, match="has changed since the submission"):
        container.refuse_if_changed(image.as_record())
    file.write_bytes(b"no image")
    with pytest.raises(InputError, match="is no image; 'petgan container build'"):
        container.identify(file)
    file.unlink()
    with pytest.raises(InputError, match="there is no image .* on this node"):
        container.refuse_if_changed(image.as_record())
    with pytest.raises(InputError, match="petgan container build"):
        container.identify(file)
