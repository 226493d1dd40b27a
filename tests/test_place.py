"""A rank's place: as the environment tells it, and refused where it cannot be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from petgan.config import DatasetRef, Resources, RunConfig, resolve_point
from petgan.errors import ConfigError, RankCountError
from petgan.place import Place, share_of, take_gpu

COMPLETE = {
    "PETGAN_RANK": "3",
    "PETGAN_RANKS": "4",
    "PETGAN_LOCAL_RANK": "1",
    "PETGAN_LOCAL_RANKS": "2",
    "PETGAN_NODE": "1",
    "PETGAN_NODES": "2",
    "PETGAN_NODE_NAME": "n2",
    "PETGAN_JOB": "7_1+2",
    "PETGAN_RENDEZVOUS": "/shared/Füße/meet.json",
    "HOME": "/root",
}


def config(batch_size=8, **resources):
    return RunConfig(
        run_id="x",
        point=resolve_point({"preset": "gan", "image_size": 16, "batch_size": batch_size}),
        dataset=DatasetRef(path="x", digest="x", image_size=16, modality="pet"),
        resources=Resources(**resources),
    )


def test_without_a_word_a_process_is_alone():
    place = Place.from_environment({"HOME": "/root", "PETGAN_CODE_DIGEST": "abc"})
    assert place == Place(node_name=socket.gethostname())
    place.check(config(nodes=2, tasks=2))  # the same grid on a laptop


def test_a_complete_environment():
    assert Place.from_environment(COMPLETE) == Place(
        3, 4, 1, 2, 1, 2, "n2", "7_1+2", Path("/shared/Füße/meet.json"), None, True
    )
    assert Place.from_environment({**COMPLETE, "PETGAN_INTERFACE": "ib0"}).interface == "ib0"


@pytest.mark.parametrize(
    "name", [*(f"PETGAN_{x}" for x in ("RANK", "RANKS", "LOCAL_RANKS", "NODE")), "PETGAN_RENDEZVOUS"]
)
def test_an_incomplete_one_is_no_job_of_size_1(name):
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        Place.from_environment({k: v for k, v in COMPLETE.items() if k != name})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"RANK": "x"}, ConfigError),
        ({"RANK": "4"}, ConfigError),
        ({"NODE": "-1"}, ConfigError),
        ({"LOCAL_RANKS": "3"}, RankCountError),
    ],
)
def test_an_impossible_place_is_refused(changes, error):
    with pytest.raises(error):
        Place.from_environment(COMPLETE | {f"PETGAN_{k}": v for k, v in changes.items()})


def test_a_run_is_trained_by_as_many_ranks_as_it_asks_for():
    place = Place.from_environment(COMPLETE)
    place.check(config(nodes=2, gpus=2))
    with pytest.raises(RankCountError, match="asks for 6 ranks, 2 nodes with 3 each: got 4"):
        place.check(config(nodes=2, tasks=3))
    one = {name: "1" if name.endswith("S") else "0" for name in COMPLETE if "RANK" in name or "NODE" in name}
    one["PETGAN_NODE_NAME"] = "n1"
    Place.from_environment(one).check(config())
    with pytest.raises(RankCountError, match="asks for 2 ranks, 1 nodes with 2 each: got 1"):
        Place.from_environment(one).check(config(tasks=2))


def test_the_shares_of_a_batch_are_all_of_it():
    for ranks in (1, 2, 3, 4, 6, 12):
        shares = [list(range(12))[share_of(12, rank, ranks)] for rank in range(ranks)]
        assert [position for share in shares for position in share] == list(range(12))
        assert len({len(share) for share in shares}) == 1


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ConfigError, match="4 ranks cannot share a batch evenly: got 'batch_size 6'"):
        Place.from_environment(COMPLETE).check(config(batch_size=6, nodes=2, tasks=2))


# --- GPUs ---------------------------------------------------------------------------------------

GPUS = ["GPU-aa", "GPU-bb", "GPU-cc"]


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A driver's program that lists `count` GPUs."""

    def install(count):
        program = tmp_path / "nvidia-smi"
        program.write_text("#!/bin/sh\n" + "".join(f"echo {gpu}\n" for gpu in GPUS[:count]))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return install


@pytest.mark.parametrize(
    ("seen", "visible", "local_rank", "mine", "identity"),
    [
        (3, None, 1, "1", "GPU-bb"),  # all of the node's: each takes its own
        (3, "2,0", 1, "0", "GPU-aa"),  # two of them were given to this job
        (1, "0", 1, "0", "GPU-aa"),  # a device cgroup shows this task one, as number 0
        (3, "GPU-cc", 0, "GPU-cc", "GPU-cc"),
        (0, "4,7", 1, "7", "7"),  # no driver's program to ask
        (0, None, 0, None, ""),
        (3, "", 0, "", ""),
    ],
)
def test_each_rank_takes_one_gpu(nvidia_smi, seen, visible, local_rank, mine, identity):
    nvidia_smi(seen)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert take_gpu(Place(local_rank=local_rank), environment) == identity
    assert environment.get("CUDA_VISIBLE_DEVICES") == mine
