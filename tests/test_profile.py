"""A site's settings: what is read, what is refused with its line, and what a cluster cannot give."""

from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from petgan import profile as profiles
from petgan import slurm
from petgan.config import Resources
from petgan.errors import ConfigError, InputError
from petgan.profile import Profile, check, load_profile

PARTITIONS = {
    "main": slurm.Partition("main", 1440, 2, 8, 11.72, 2),
    "short": slurm.Partition("short", 5, 2, 8, 11.72, 2),
    "endless": slurm.Partition("endless", None, 2, 8, 11.72, 0),
}


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "site.yaml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with three partitions, where an account is needed."""
    monkeypatch.setattr(slurm, "partitions", lambda: PARTITIONS)
    accounts = {"breast": ["normal"], "lung": ["normal", "urgent"]}
    monkeypatch.setattr(slurm, "accounts", lambda: accounts)
    return accounts


def test_an_empty_profile_is_one(write):
    assert load_profile(write("")) == Profile()


def test_paths_are_relative_to_the_profile_and_not_to_the_caller(write, tmp_path, monkeypatch):
    (tmp_path / "im äge.sif").touch()
    (tmp_path / "data").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    profile = load_profile(write("image: im äge.sif\nbinds: [data, ../]\n"))
    assert profile.image == str(tmp_path / "im äge.sif")
    assert profile.binds == (str(tmp_path / "data"), str(tmp_path.parent))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("partition: gpu\npartiton: gpu\n", 2, "'partiton'"),
        ("time_min: 10\nmem_gb: -3\n", 2, "mem_gb"),
        ("time_min: 0\n", 1, "time_min"),
        ("gpu_request: cores\n", 1, "gres"),
        ("partition: main; rm -rf /\n", 1, "partition"),
        ("account: a b\n", 1, "account"),
        ("qos: $(id)\n", 1, "qos"),
        ("\nsbatch:\n  - -p main\n", 2, "sbatch: an option of sbatch begins with --"),
        ("setup:\n  - echo a\n  - \"echo b\\nrm c\"\n", 3, "setup"),
        ("modules: apptainer\n", 1, "[a, b]"),
        ("warning_s: 5\n", 1, "warning_s"),
        ("time_min: 5\nimage: none.sif\n", 2, "petgan container build"),
        ("binds: [nowhere]\n", 1, "nowhere"),
        ("- a list\n", 1, "a profile is a mapping"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_line(write, text, line, words):
    with pytest.raises(ConfigError) as refused:
        load_profile(write(text))
    assert f"site.yaml, line {line}: " in str(refused.value)
    assert words in str(refused.value)


def test_a_profile_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(InputError, match="cannot read the profile"):
        load_profile(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read the profile"):
        load_profile(tmp_path / "binary.yaml")


@given(time=st.none() | st.integers(1, 10_000), mem=st.none() | st.floats(0.1, 4000))
def test_time_and_memory_of_the_site_stand_before_the_grids(time, mem):
    grid = Resources(time_min=77, mem_gb=7.5, cpus=3)
    merged = Profile(time_min=time, mem_gb=mem).resources(grid)
    assert (merged.time_min, merged.mem_gb, merged.cpus) == (time or 77, mem or 7.5, 3)


@given(
    st.integers(1, 4), st.integers(1, 12), st.integers(0, 4), st.floats(0.5, 20), st.integers(1, 2000),
    st.sampled_from(sorted(PARTITIONS)),
)  # fmt: skip
def test_a_run_is_refused_exactly_when_it_exceeds_one_of_the_limits(nodes, cpus, gpus, mem, time, name):
    partition, wanted = (
        PARTITIONS[name],
        Resources(nodes=nodes, cpus=cpus, gpus=gpus, mem_gb=mem, time_min=time),
    )
    ranks = gpus or 1
    fits = (
        nodes <= partition.nodes
        and cpus * ranks <= partition.cpus
        and gpus <= partition.gpus
        and mem <= partition.mem_gb
        and (partition.time_min is None or time <= partition.time_min)
        and time * 60 >= 60 + profiles._START_SECONDS
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "partitions", lambda: PARTITIONS)
        patch.setattr(slurm, "accounts", dict)
        refused = contextlib.nullcontext() if fits else pytest.raises(ConfigError, match="; allowed: ")
        with refused:
            check(Profile(partition=name, image="x.sif", warning_s=60), wanted)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ({"account": "heart"}, "allowed: breast, lung"),
        ({"qos": "golden"}, "allowed: normal, urgent"),
        ({"account": "breast", "qos": "urgent"}, "allowed: normal"),
        ({"partition": "gpu"}, "allowed: main, short, endless"),
    ],
)
def test_names_that_the_cluster_does_not_know(cluster, asked, allowed):
    with pytest.raises(ConfigError) as refused:
        check(Profile(image="x.sif", **asked), Resources())
    assert str(refused.value).endswith(allowed)
    assert f"got '{list(asked.values())[-1]}'" in str(refused.value)


NODES = slurm.Partition("gpu", None, 9, 64, 500, 8, frozenset({"ssd", "rack1"}), frozenset({"a100"}))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"constraint": "fast"}, "got 'fast'; allowed: rack1, ssd"),
        ({"constraint": "[ssd*2&rack2*4]"}, "got 'rack2'; allowed: rack1, ssd"),
        ({"constraint": "(ssd|tape)&rack1"}, "got 'tape'; allowed: rack1, ssd"),
        ({"gpu_type": "v100"}, "got 'v100'; allowed: a100"),
        ({"constraint": "[ssd*2&rack1]|ssd", "gpu_type": "a100"}, None),
    ],
)
def test_words_that_no_node_knows(cluster, monkeypatch, asked, words):
    monkeypatch.setattr(slurm, "partitions", lambda: {"gpu": NODES})
    profile = Profile(image="x.sif", **asked)
    if words is None:
        check(profile, Resources(gpus=2))
        return
    with pytest.raises(ConfigError) as refused:
        check(profile, Resources(gpus=2))
    assert str(refused.value).endswith(words)
    if "gpu_type" in asked:
        check(profile, Resources())  # of a run without GPUs it says nothing


def test_a_cluster_without_features_and_types_says_so(cluster):
    for asked in ({"constraint": "fast"}, {"gpu_type": "a100"}):
        with pytest.raises(ConfigError, match=r"allowed: none.*leave \w+ out"):
            check(Profile(image="x.sif", **asked), Resources(gpus=1))


def test_accounts_are_not_asked_for_where_slurm_does_not_insist(cluster):
    check(Profile(image="x.sif", account="lung", qos="urgent"), Resources())
    cluster.clear()
    check(Profile(image="x.sif", account="anything", qos="whatever"), Resources())


def test_profiles_survive_being_kept_in_a_submission():
    """As `retry` reads the profile of the submission before it."""
    profile = Profile(partition="main", binds=("/a",), modules=("x",), setup=("echo",), sbatch=("--hold",))
    assert Profile(**yaml.safe_load(yaml.safe_dump(profile.model_dump(mode="json")))) == profile
