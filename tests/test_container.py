"""What images are built from, and the script that builds them, with a stand-in for Apptainer.

Real images: tests/cluster/test_image.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from petgan import cli

tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).parents[1]
CONTAINERS = ROOT / "containers"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted(p for p in CONTAINERS.iterdir() if p.suffix in (".sh", ".def", ".txt", ".py"))

# Writes what it was given into $SEEN; its image is the definition file.
APPTAINER = """#!/bin/bash
set -e
if [[ " $* " = *" pull "* ]]; then exit ${NO_REGISTRY:-0}; fi
printf '%s\\n' "$@" >"$SEEN/arguments"
while [ $# -gt 2 ]; do
    [ "$1" != --bind ] || cp -r "${2%%:/mnt*}" "$SEEN/mnt"
    shift
done
cat "$2" >"$1"
exit ${BUILD_FAILS:-0}
"""


@pytest.fixture
def place(tmp_path):
    """A copy of petgan in a folder that no script likes, an Apptainer that is none, and room for images."""
    root = tmp_path / "my pet, gän"
    (root / "petgan").mkdir(parents=True)
    shutil.copy(ROOT / "petgan" / "__init__.py", root / "petgan")
    (root / "containers").mkdir()
    for file in FILES:
        shutil.copy(file, root / "containers")
    (tmp_path / "bin").mkdir()
    (tmp_path / "seen").mkdir()
    fake = tmp_path / "bin" / "apptainer"
    fake.write_text(APPTAINER)
    fake.chmod(0o755)
    return root


def build(place, *words, **environment):
    top = place.parent
    images, seen, path = top / "images é", top / "seen", f"{top / 'bin'}:{os.environ['PATH']}"
    own = {"PETGAN_IMAGES": str(images), "SEEN": str(seen), "PATH": path}
    return subprocess.run(
        [place / "containers" / "build.sh", *words],
        env={**os.environ, **own, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def name(place, *words):
    done = build(place, "--name", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def append(file, text):
    file.write_text(file.read_text() + text)


def test_the_name_is_of_the_kind():
    assert re.fullmatch(r"petgan-cpu-[0-9a-f]{12}\.sif", name(ROOT, "cpu"))
    assert re.fullmatch(r"petgan-gpu-[0-9a-f]{12}\.sif", name(ROOT, "gpu"))


@pytest.mark.parametrize(
    "file", ["petgan-cpu.def", "install.sh", "horovod.sh", "test.py", "requirements-cpu.txt"]
)
def test_the_name_changes_with_what_the_image_is_built_from(place, file):
    before = name(place, "cpu")
    assert name(place, "cpu") == before
    append(place / "containers" / file, "# changed\n")
    assert name(place, "cpu") != before


def test_the_documentation_names_the_allocators_variables_as_the_image_has_them():
    [line] = re.findall("export LD_PRELOAD.*", (CONTAINERS / "petgan-cpu.def").read_text())
    assert line in (ROOT / "docs" / "training.md").read_text()


def test_the_name_changes_with_weights_and_with_petgans_version(place):
    weights = place / "w.h5"
    weights.write_bytes(b"one")
    one = name(place, "cpu", "--weights", str(weights))
    weights.write_bytes(b"two")
    two = name(place, "cpu", "--weights", str(weights))
    init = place / "petgan" / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0"', init.read_text()))
    assert len({name(place, "cpu"), name(place, "gpu"), one, two, name(ROOT, "cpu")}) == 5


def test_the_name_stays_when_petgans_code_changes(place):
    before = name(place, "cpu")
    append(place / "petgan" / "__init__.py", "# changed\n")
    assert name(place, "cpu") == before


def test_a_build_says_where_the_image_lies_and_a_second_one_builds_nothing(place):
    first = build(place, "cpu")
    assert first.returncode == 0, first.stderr
    image = Path(first.stdout.splitlines()[-1])
    assert image == place.parent / "images é" / name(place, "cpu")
    assert hashlib.sha256(image.read_bytes()).hexdigest() in first.stdout
    second = build(place, "cpu", BUILD_FAILS="1")
    assert second.returncode == 0
    assert second.stdout.strip() == str(image)
    assert "already built" in second.stderr


def test_an_image_that_is_there_is_copied_to_where_it_is_wanted(place):
    image = Path(build(place, "cpu").stdout.splitlines()[-1])
    wanted = place / "mine.sif"
    assert build(place, "cpu", "--output", str(wanted), BUILD_FAILS="1").stdout.strip() == str(wanted)
    assert wanted.read_bytes() == image.read_bytes()


def test_a_build_that_fails_leaves_nothing(place):
    done = build(place, "cpu", "--output", str(place / "mine.sif"), BUILD_FAILS="1")
    assert done.returncode == 1
    assert "apptainer build failed" in done.stderr
    assert not (place / "mine.sif").exists()
    assert list((place.parent / "images é").iterdir()) == []


def test_what_the_host_needs_reaches_the_build_and_stays_nowhere(place, tmp_path):
    bundle = tmp_path / "ca.crt"
    bundle.write_text("CERTIFICATE OF THIS SITE")
    weights = tmp_path / "w.h5"
    weights.write_bytes(b"weights")
    done = build(
        place, "cpu", "--weights", str(weights),
        SSL_CERT_FILE=str(bundle), https_proxy="http://me:it's a secret@proxy.site:3128",
        PIP_INDEX_URL="https://me:secret@mirror.site/simple", PIP_FIND_LINKS="/opt/of/this/machine",
        PIP_CONFIG_FILE=os.devnull,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = tmp_path / "seen" / "mnt"
    assert (seen / "ca.crt").read_text() == "CERTIFICATE OF THIS SITE"
    assert (seen / "weights.h5").read_bytes() == b"weights"
    assert (seen / "pip.conf").read_text() == "[global]\nindex-url = https://me:secret@mirror.site/simple\n"
    shell = ["bash", "-c", '. "$1"; printf %s "$https_proxy"', "bash", seen / "proxy.sh"]
    assert subprocess.check_output(shell, env={}, text=True) == "http://me:it's a secret@proxy.site:3128"
    assert (seen / "source" / "petgan" / "__init__.py").is_file()
    assert "secret" not in (tmp_path / "seen" / "arguments").read_text() + done.stdout + done.stderr
    assert [p.suffix for p in (tmp_path / "images é").iterdir()] == [".sif"]


def test_without_a_registry_the_base_comes_from_the_debian_mirror(place, tmp_path):
    debian = tmp_path / "bin" / "mmdebstrap"
    debian.write_text(
        '#!/bin/bash\nfor word; do [[ $word != *.tar ]] || tar -cf "$word" -T /dev/null; done\n'
    )
    debian.chmod(0o755)
    assert build(place, "cpu", NO_REGISTRY="1").returncode == 0
    arguments = (tmp_path / "seen" / "arguments").read_text().splitlines()
    assert {"bootstrap=localimage", "base=base"} <= set(arguments)
    assert "--fakeroot" in arguments
    (tmp_path / "seen" / "arguments").unlink()
    shutil.rmtree(tmp_path / "seen" / "mnt")
    assert build(place, "gpu").returncode == 0
    assert "base=base" not in (tmp_path / "seen" / "arguments").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "write cpu or gpu"),
        (["tpu"], "'tpu' is not understood"),
        (["cpu", "--weights"], "--weights wants a file"),
        (["cpu", "--weights", "no such.h5"], "there is no weights file no such.h5"),
    ],
)
def test_a_mistake_gives_a_sentence_and_exit_code_2(place, words, sentence):
    done = build(place, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(shutil.which("apptainer", path="/usr/bin:/bin") is not None, reason="one is in /usr/bin")
def test_without_apptainer_it_says_where_to_get_it(place):
    done = build(place, "cpu", PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert "there is no apptainer on PATH" in done.stderr


def test_the_command_runs_the_script(place, monkeypatch, capfd):
    monkeypatch.setenv("PETGAN_IMAGES", str(place.parent / "images é"))
    image = place.parent / "images é" / name(ROOT, "cpu")
    image.parent.mkdir()
    image.touch()
    assert cli.main(["container", "build", "cpu"]) == 0
    assert capfd.readouterr().out.strip() == str(image)
    assert cli.main(["container", "build", "cpu", "--weights", "no such.h5"]) == 2


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_every_package_is_pinned_and_what_petgan_asks_for_is_among_them(kind):
    lines = (CONTAINERS / f"requirements-{kind}.txt").read_text().splitlines()[1:]
    pin = re.compile(r"([a-z0-9.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")
    pinned = dict(pin.fullmatch(line).groups() for line in lines)
    project = PROJECT["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["train"]:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"python_version": "3.11"}):
            continue
        found = "tensorflow-cpu" if (kind, wanted.name) == ("cpu", "tensorflow") else wanted.name
        assert wanted.specifier.contains(pinned[found]), text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_names_a_server(file):
    text = re.sub(r"org\.opencontainers\.\S+", "", file.read_text())
    assert not re.findall(r"\w+://(?!\$)|\b[a-z][a-z0-9-]*\.(?:io|org|com|net|dev)\b", text)


def test_an_installed_petgan_brings_what_images_are_built_from():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    brought = {target for target in wheel.values() if target.startswith("petgan/_containers")}
    assert brought == {f"petgan/_containers/{file.name}" for file in FILES if file.name != "pin.py"}


def test_scripts_can_be_run_and_shells_can_read_them():
    for file in [*CONTAINERS.glob("*.sh"), ROOT / "slurm" / "testbed" / "apptainer.sh"]:
        assert file.stat().st_mode & stat.S_IXUSR, file
        subprocess.run(["bash", "-n", file], check=True)
