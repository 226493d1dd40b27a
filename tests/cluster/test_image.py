"""The image that `make cluster` builds: what it holds, and what it must not hold."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

import petgan

pytestmark = pytest.mark.cluster


def inside(image, *command, **environment):
    """What `command` prints in the image, started as bare as Apptainer allows."""
    argv = [
        "apptainer",
        "--silent",
        "exec",
        "--cleanenv",
        "--no-home",
        "--no-mount",
        "home,cwd,tmp",
        "--pwd",
        "/",
    ]
    argv += [image, *command]
    return subprocess.run(
        argv, check=True, capture_output=True, text=True, env={**os.environ, **environment}
    ).stdout


def test_the_image_passes_its_own_test(image):
    done = subprocess.run(["apptainer", "test", image], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the cpu image works" in done.stdout


def test_the_labels_say_what_is_inside(image):
    told = json.loads(subprocess.check_output(["apptainer", "inspect", "--json", image]))
    labels = told["data"]["attributes"]["labels"]
    script = "import petgan, petgan.snapshot as s; print(petgan.__version__, s.code_digest())"
    assert inside(image, "python", "-c", script).split() == [labels["petgan.version"], labels["petgan.code"]]
    assert labels["petgan.version"] == petgan.__version__
    assert labels["petgan.commit"]


def test_no_setting_of_the_machine_that_built_it_is_left(image):
    names = "pip.conf sources.list *.sources auth.conf *.crt *.pem .netrc .config .keras proxy.sh ca.crt"
    search = "set -f; for name in $1; do find / -xdev -name $name; done; set +f; ls -A /mnt"
    found = inside(image, "sh", "-c", search, "sh", names).split()
    assert [path for path in found if "/site-packages/" not in path] == []  # certificates of certifi, gRPC
    hosts = "grep -rlsE '(deb|deb-src|index-url|proxy) ?[=:]? *https?://' /etc /root || true"
    assert inside(image, "sh", "-c", hosts) == ""


def test_a_users_own_packages_and_variables_stay_outside(image, tmp_path):
    (tmp_path / "petgan").mkdir()
    (tmp_path / "petgan" / "__init__.py").write_text("raise SystemExit('the leak')")
    locking = "os.environ['HDF5_USE_FILE_LOCKING']"
    script = f"import petgan, os, site; print(petgan.__file__, site.ENABLE_USER_SITE, {locking})"
    found = inside(image, "python", "-c", script, PYTHONPATH=str(tmp_path))
    assert found.split() == ["/opt/petgan/source/petgan/__init__.py", "False", "FALSE"]


def test_a_snapshot_of_the_code_comes_before_the_images_own(image, tmp_path):
    (tmp_path / "petgan").mkdir()
    (tmp_path / "petgan" / "__init__.py").write_text("print('the snapshot')")
    bind = {"APPTAINER_BIND": f"{tmp_path}:/snapshot:ro", "APPTAINERENV_PYTHONPATH": "/snapshot"}
    assert inside(image, "python", "-c", "import petgan", **bind).strip() == "the snapshot"
