"""Every petgan command of the documentation is one that petgan takes, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from petgan import cli
from petgan.grid import load_grid

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page):
    """The lines of a page's shell blocks that call petgan, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("petgan ")]


def example(module):
    """The example lines of a command's help."""
    lines = (module.__doc__ or "").partition("Example:\n")[2].splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip().startswith("petgan ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_parse(page):
    for words in commands(page):
        _, parser = cli.command(words[1])
        parser.parse_args(words[2:])  # exits where an option is unknown or an argument is missing


def test_the_readme_shows_the_whole_road():
    shown = {words[1] for words in commands(ROOT / "README.md")}
    assert {"ingest", "dataset", "submit", "status", "evaluate", "report"} <= shown


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_the_example_in_the_help_of_a_command_parses(name):
    module, _ = cli.command(name)
    found = example(module)
    assert found
    for words in found:
        _, parser = cli.command(words[1])
        parser.parse_args(words[2:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_grid_of_the_documentation_is_a_grid(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", (ROOT / "docs" / "grids.md").read_text(), flags=re.DOTALL)[1]
    (tmp_path / "grid.yaml").write_text(text)
    grid = load_grid(tmp_path / "grid.yaml")
    # (8 + 6) of gan and dcgan, of which batch 32 with rmsprop and 0.4 is in both sweeps; 6 of wgan-gp.
    assert len(grid.configurations) == 8 + 6 - 2 + 6
