"""The frame of the command line: help, exit codes, and what is not imported."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from petgan import __version__, cli
from petgan.errors import ConfigError, TrainingError

HEAVY = ("tensorflow", "keras", "horovod")

PROBE = """
import importlib, json, sys
{statement}
print(json.dumps(sorted(name for name in {names!r} if name in sys.modules)))
"""


def loaded_after(statement, names):
    """Which of `names` are loaded in a fresh interpreter after `statement`."""
    probe = PROBE.format(statement=statement, names=names)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_probe_sees_a_module_that_is_loaded():
    assert loaded_after("import numpy", ["numpy", "keras"]) == ["numpy"]


def test_no_command_loads_tensorflow():
    modules = [f"petgan.cli.{module}" for module, _ in cli.COMMANDS.values()]
    statement = f"for name in {modules!r}: importlib.import_module(name)"
    assert loaded_after(statement, HEAVY) == []


def test_help_loads_nothing_that_takes_time():
    statement = (
        "import contextlib, petgan.cli\nwith contextlib.suppress(SystemExit): petgan.cli.main(['--help'])"
    )
    assert loaded_after(statement, ["numpy", "pandas", "h5py", "pydantic", "matplotlib", "rich"]) == []


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"\n  petgan {name}" in out.partition("Example")[2]


def test_the_top_help_lists_every_command(capsys):
    assert cli.main([]) == 2
    out = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"\n  {name} " in out


def test_an_unknown_command_is_the_users_mistake(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["trian"])
    assert caught.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"petgan {__version__}\n"


@pytest.mark.parametrize(("error", "code"), [(ConfigError("x", value=1), 2), (TrainingError("x"), 1)])
def test_an_error_is_one_sentence_and_an_exit_code(monkeypatch, capsys, error, code):
    def fail(args):
        raise error

    monkeypatch.setattr(importlib.import_module("petgan.cli.doctor"), "run", fail)
    assert cli.main(["doctor"]) == code
    assert capsys.readouterr().err == f"petgan doctor: {error}\n"


def test_doctor_in_json_says_what_to_do_wherever_something_is_missing(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"petgan", "training", "FID and KID", "a Slurm cluster"} <= {f["what"] for f in findings}
    assert all(f["ok"] or f["advice"] for f in findings)
