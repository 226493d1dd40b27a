"""Batch scripts: run by bash with a stand-in for srun, which says what it was given."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from petgan.batch import EXPORTED, Job, job_name, script
from petgan.config import Resources
from petgan.errors import ConfigError
from petgan.profile import Profile

NASTY = ["plain", "two words", 'quote\'d "twice"', "$HOME `id` $(id)", "100%", "Füße/日本", "a\nb", "-x", ""]
STAND_IN = (
    f"#!{sys.executable}\nimport json, os, sys\njson.dump([sys.argv[1:], dict(os.environ)], sys.stdout)\n"
)


@pytest.fixture
def run_script(tmp_path):
    """Run a script as Slurm would: with the exported variables and nothing else of ours."""
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text(STAND_IN)
    srun.chmod(0o755)

    def run(text):
        kept = {name: os.environ[name] for name in EXPORTED if name in os.environ}
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-s"], input=text, env={**kept, "PATH": path}, capture_output=True, text=True
        )

    return run


def job(folder, **values):
    resources = values.pop("resources", Resources(nodes=2, tasks=3, cpus=5, mem_gb=1.5, time_min=7))
    return Job("petgan-x", "a comment\n#SBATCH --evil", NASTY, folder, folder / "%a.log", resources, **values)


def options(text):
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH ")]
    return dict(shlex.split(line)[1].partition("=")[::2] for line in lines)


def test_what_srun_is_given(tmp_path, run_script):
    folder = tmp_path / "a b'\"$x é"
    folder.mkdir()
    done = run_script(script(job(folder), Profile(setup=["export FROM_SETUP='1 2'"])))
    assert done.returncode == 0, done.stderr
    arguments, environment = json.loads(done.stdout)
    assert arguments[-len(NASTY) :] == NASTY
    given = dict(word.partition("=")[::2] for word in arguments[: -len(NASTY)])
    assert given["--export"] == "ALL", "or the tasks would see none of what the script sets"
    assert given["--cpus-per-task"] == "5", "srun does not take it from sbatch"
    assert environment["PYTHONPATH"] == environment["PWD"] == str(folder)
    assert environment["PYTHONNOUSERSITE"] == "1"
    assert environment["FROM_SETUP"] == "1 2"


def test_nothing_runs_without_its_modules_or_its_folder(tmp_path, run_script):
    gone = run_script(script(job(tmp_path / "gone"), Profile()))
    assert (gone.returncode, gone.stdout) == (1, "")
    done = run_script(script(job(tmp_path), Profile(modules=["no-such-module"])))
    assert done.returncode != 0
    assert done.stdout == ""


def test_the_options_of_sbatch(tmp_path):
    text = script(job(tmp_path, tasks=8, parallel=3, exclude=["vm1", "vm2"], after=["7", "8"]), Profile())
    found = options(text)
    assert "--evil" not in text.replace("# petgan: a comment #SBATCH --evil", "")
    wanted = {
        "--nodes": "2", "--ntasks-per-node": "3", "--cpus-per-task": "5", "--mem": "1536M", "--time": "7",
        "--array": "0-7%3", "--exclude": "vm1,vm2", "--dependency": "afterany:7:8", "--signal": "USR2@120",
        "--export": ",".join(EXPORTED),
    }  # fmt: skip
    assert wanted.items() <= found.items()
    assert not {"--partition", "--account", "--gres", "--gpus-per-node"} & found.keys()


@pytest.mark.parametrize(
    ("profile", "option"),
    [
        (Profile(), ("--gres", "gpu:2")),
        (Profile(gpu_type="a100"), ("--gres", "gpu:a100:2")),
        (Profile(gpu_request="gpus-per-node", gpu_type="a100"), ("--gpus-per-node", "a100:2")),
    ],
)
def test_how_gpus_are_asked_for(tmp_path, profile, option):
    assert option in options(script(job(tmp_path, resources=Resources(gpus=2)), profile)).items()


def test_the_log_of_a_folder_with_a_pattern_in_its_name(tmp_path):
    found = options(script(job(tmp_path / "100% %a"), Profile()))
    assert found["--output"] == f"{tmp_path}/100%% %%a/%a.log"
    with pytest.raises(ConfigError, match="line break"):
        script(job(Path("/a\nb")), Profile())


def test_names_of_jobs_hold_no_sign_that_a_shell_minds():
    assert job_name("mein Füße $(x)", "s") == "petgan-mein-F-e-x--s"
    assert len(job_name("x" * 300, "s")) < 64
