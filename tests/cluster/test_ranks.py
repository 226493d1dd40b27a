"""Several ranks on two nodes, started by srun in the image: they train as one, or stop with one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from petgan.checkpoint import read_header
from petgan.config import Resources
from petgan.errors import EXIT_INTERRUPTED, RankCountError, RankMismatchError, RendezvousError

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parent
STEPS = 50


@pytest.fixture
def ranks_run(make_dataset, make_run):
    """Make a small run of 4 ranks on 2 nodes."""

    def make(name="run", dataset=None, **values):
        run = make_run(dataset or make_dataset(), name, **values)
        config = run.config().model_copy(update={"resources": Resources(nodes=2, tasks=2)})
        run.write_config(config)
        return run

    return make


@pytest.fixture
def train(cluster, tmp_path):
    """Train a run with `train_rank.py`; the exit code, and what all ranks said."""

    def train(run, *mishap, tasks_per_node=2, **environment):
        ended = cluster.srun(
            [HERE / "train_rank.py", run.path, *mishap],
            tasks_per_node=tasks_per_node,
            env=environment,
            work=tmp_path,
            timeout=200,
        )
        return ended.returncode, ended.stdout

    return train


# --- as one -------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_four_ranks_train_as_one(cluster):
    """Of every preset: the gradients in float32, turn by turn, and the weights at the end in float64."""
    ended = cluster.srun([HERE / "compare_ranks.py", STEPS], timeout=500)
    assert ended.returncode == 0, ended.stdout
    found = json.loads(next(line for line in ended.stdout.splitlines() if line.startswith("{")))
    assert found.pop("ranks") == 4
    assert set(found) == {"gan", "dcgan", "wgan", "wgan-gp"}
    for preset, result in found.items():
        turns = STEPS * (3 if preset.startswith("wgan") else 2)
        assert result["turns"] + result["at_kinks"] == turns, preset
        assert result["at_kinks"] <= turns / 20, preset
        assert 0 < result["distance"] < 1e-5, preset
        assert result["weights"] < 1e-6, preset


@pytest.mark.timeout(600)
def test_so_they_do_for_every_other_preset_and_recipe(cluster):
    """The weights after a few updates in float64."""
    ended = cluster.srun([HERE / "compare_ranks.py", 2, "others"], timeout=580)
    assert ended.returncode == 0, ended.stdout
    found = json.loads(next(line for line in ended.stdout.splitlines() if line.startswith("{")))
    assert found.pop("ranks") == 4
    assert set(found) == {"pggan", "srgan", "ddpm", "cut", "few-shot", "few-shot-pet", "stable", "penalty"}
    assert max(found.values()) < 1e-6, found


def test_ranks_train_a_run_that_one_of_them_writes(train, ranks_run, tmp_path):
    run = ranks_run(steps=8)
    code, said = train(run)
    assert code == 0, said
    assert run.status().state == "done"
    assert [line["step"] for line in run.metrics()] == [5, 6, 8]
    lineage = json.loads(run.lineage_file.read_text())
    assert lineage["ranks"] == 4
    assert len(lineage["hosts"]) == 2
    assert len(lineage["jobs"]) == 1
    assert read_header(run.last_checkpoints()[0]).step == 8
    assert not list(tmp_path.rglob("rendezvous*"))
    assert not list(run.path.rglob("*.tmp"))


# --- or not at all ------------------------------------------------------------------------------


def test_without_rank_0_the_others_say_what_they_waited_for(train, ranks_run):
    run = ranks_run()
    code, said = train(run, "missing", 0, PETGAN_RENDEZVOUS_SECONDS="6")
    assert code == RendezvousError.exit_code
    assert "rank 0 did not appear within 6 s" in said
    assert not run.checkpoints.exists()


def test_without_another_rank_all_say_which_one_is_missing(train, ranks_run):
    run = ranks_run()
    code, said = train(run, "missing", 3, PETGAN_RENDEZVOUS_SECONDS="15")
    assert code == RendezvousError.exit_code
    assert said.count("rank 3 of 4 did not come within 15 s") == 3
    assert run.status().state == "failed"
    assert "rank 3 of 4" in run.status().error


def test_fewer_ranks_than_asked_for_are_refused(train, ranks_run):
    run = ranks_run()
    code, said = train(run, tasks_per_node=1)
    assert code == RankCountError.exit_code
    assert said.count("the run asks for 4 ranks, 2 nodes with 2 each: got 2") == 2
    assert run.status().state == "failed"
    assert not run.checkpoints.exists()


def test_another_dataset_on_one_node_is_refused_by_all(train, ranks_run, make_dataset):
    run = ranks_run()
    code, said = train(run, "dataset", f"1:{make_dataset('other.h5', seed=1)}")
    assert code == RankMismatchError.exit_code
    digest = run.config().dataset.digest[:12]
    assert said.count(f"the ranks differ in their dataset: {digest} on ranks 0, 1 (node ") == 4
    assert "on ranks 2, 3 (node " in said
    assert run.status().state == "failed"
    assert not run.checkpoints.exists()


# --- interrupted --------------------------------------------------------------------------------


def test_a_signal_to_one_rank_is_a_checkpoint_of_all(train, ranks_run):
    run = ranks_run(steps=100_000, every={"log": 1})
    code, said = train(run, "signal", "3:SIGTERM:3")
    assert code == EXIT_INTERRUPTED, said
    status, header = run.status(), read_header(run.last_checkpoints()[0])
    assert (status.state, status.step) == ("interrupted", header.step)
    assert header.step >= 3
    assert said.count(f"stopped at step {header.step} of 100000, after a checkpoint") == 4


@pytest.mark.parametrize("rank", [0, 3])
def test_a_signal_before_the_first_step_stops_all(train, ranks_run, rank):
    run = ranks_run()
    code, said = train(run, "early", f"{rank}:SIGUSR2")
    assert code == EXIT_INTERRUPTED, said
    assert said.count("before its first step") == 4
    assert run.status().state == "interrupted"
    assert not run.checkpoints.exists()
    assert not list(run.path.rglob("*.tmp"))


def test_when_a_rank_is_killed_the_others_end_and_say_so(train, ranks_run):
    run = ranks_run(steps=100_000, every={"log": 1, "checkpoint": 2})
    code, said = train(run, "signal", "3:SIGKILL:3")
    assert code not in (0, EXIT_INTERRUPTED)
    assert said.count("lost contact with another rank") == 3
    assert run.status().state == "failed"
    assert "lost contact with another rank" in run.status().error
