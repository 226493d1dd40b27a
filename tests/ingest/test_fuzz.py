"""Files that are broken, or were made to break: an image or a reason, never anything else.

The short form is a part of every run; ``make test-fuzz`` reads 20,000 files of each kind.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from ingest import mutations
from petgan.errors import InputError
from petgan.ingest import FORMATS, Options, ingest
from petgan.ingest.frame import Refused
from petgan.ingest.scan import scan_file
from petgan.store import Dataset

SHORT, LONG = 250, 20_000
MEMORY_MB = 2048  # of a process, its imports among it
KINDS = pytest.mark.parametrize("kind", sorted(mutations.SUFFIXES))


def environment():
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}


def attempt(kind, first, count):
    """Read so many files in a process of their own; the summary."""
    done = subprocess.run(
        [sys.executable, mutations.__file__, kind, str(first), str(count)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert not summary["failures"]
    assert summary["files"] == sum(summary["outcomes"].values()) == count
    assert summary["largest_mb"][0] < MEMORY_MB, f"seed {summary['largest_mb'][1]}"
    # GDCM ends its process on some damaged pictures, which costs the ingest one file.
    assert not summary["crashes"] or kind == "dicom"
    assert len(summary["crashes"]) < count / 100
    return summary


@KINDS
def test_a_few_files(kind):
    outcomes = attempt(kind, 0, SHORT)["outcomes"]
    assert outcomes["read"] > SHORT / 50  # the mutations do not break everything
    assert SHORT - outcomes["read"] > SHORT / 10  # nor nothing


@KINDS
@pytest.mark.fuzz
@pytest.mark.timeout(7200)
def test_many_files(kind, record_property):
    record_property("summary", attempt(kind, 0, LONG))


@pytest.mark.parametrize("seed", [724, 2685, 6173])
def test_no_warning_quotes_a_file_whose_series_is_looked_for(tmp_path, seed):
    path = mutations.lay(tmp_path, "dicom", "a", mutations.make("dicom", seed))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert isinstance(scan_file(path), Refused)
    assert not told


def test_every_format_has_its_mutations():
    assert set(mutations.SUFFIXES) == set(FORMATS)
    for kind, suffix in mutations.SUFFIXES.items():
        assert suffix in FORMATS[kind].suffixes


DIGESTS = """
import hashlib, sys
from ingest import mutations
for kind in mutations.SUFFIXES:
    for seed in reversed(range(40)):
        print(kind, seed, hashlib.sha256(mutations.make(kind, seed)).hexdigest())
"""


def test_a_file_is_the_same_whenever_it_is_made():
    """In another order, and in another process."""
    there = subprocess.check_output([sys.executable, "-c", DIGESTS], env=environment(), text=True)
    here = [
        f"{kind} {seed} {hashlib.sha256(mutations.make(kind, seed)).hexdigest()}"
        for kind in mutations.SUFFIXES
        for seed in range(40)
    ]
    assert sorted(there.splitlines()) == sorted(here)
    assert len({line.split()[2] for line in here}) > 0.9 * len(here)


@KINDS
def test_without_a_mutation_the_files_are_read(kind, tmp_path):
    """So that what is refused above is refused for its mutation."""
    outcomes = []
    for seed in range(40):
        path = mutations.lay(tmp_path, kind, "a", mutations.GOOD[kind](random.Random(seed)))
        outcomes.append(mutations.read_as_worker(path))
    assert outcomes.count("read") > 12  # DICOM has syntaxes that need the codecs


@pytest.mark.parametrize("good", [True, False])
def test_an_ingest_of_broken_files_leaves_a_valid_dataset_or_none(tmp_path, good, capfd):
    folder = tmp_path / "files"
    folder.mkdir()
    for kind in mutations.SUFFIXES:
        for seed in range(1000, 1012):
            mutations.lay(folder, kind, f"{kind}-{seed}", mutations.make(kind, seed))
    if good:
        np.save(folder / "good.npy", np.arange(256.0).reshape(16, 16))
    options = Options(size=16, modality="mammogram", patients="file", units="stored")
    output = tmp_path / "out.h5"
    if not good:
        for path in filter(Path.is_file, folder.rglob("*")):
            if mutations.read_as_worker(path) == "read":
                path.unlink()
        with pytest.raises(InputError, match="no dataset was written"):
            ingest([folder], output, options, workers=2)
        assert [file.name for file in tmp_path.glob("*out*")] in ([], ["out.ingest.cache"])
    else:
        record = ingest([folder], output, options, workers=2)
        with Dataset(output) as dataset:
            dataset.verify()
            assert len(dataset) == record["images"] > 0
        assert record["refused"]["files"] > 20
    assert capfd.readouterr().err == ""
