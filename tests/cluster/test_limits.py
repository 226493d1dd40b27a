"""What does not fit into the cluster: too many points for an array, and more than it can ever give."""

from __future__ import annotations

import re
import subprocess

import pytest
from mishaps import queued

from petgan import slurm
from petgan.batch import job_name

pytestmark = pytest.mark.cluster

POINTS = 3000


@pytest.mark.timeout(300)
def test_three_thousand_points_are_three_arrays(cluster, make_dataset):
    """MaxArraySize 1001 limits the index: three arrays, from 0 each, and every run in exactly one task."""
    rates = [round(1e-4 + 1e-6 * number, 6) for number in range(POINTS // 3)]
    grid = cluster.grid(product={"dropout": [0.3, 0.4, 0.5], "learning_rate": rates}, name="many")
    grid.write_text(grid.read_text() + "  columns: learning_rate\n")
    held = cluster.profile(sbatch=["--hold"])
    experiment = cluster.submit(grid, make_dataset(), "--max-parallel", "7", profile=held)
    (submission,) = experiment.slurm_submissions()
    assert slurm.max_array_size() == 1001
    assert [(a["first"], a["tasks"]) for a in submission.arrays] == [(0, 1001), (1001, 1001), (2002, 998)]

    tasks = queued(experiment)
    assert len(tasks) == POINTS
    assert set(tasks) == {f"{array['job']}_{index}" for _, array, index in submission.tasks()}
    runs = experiment.run_folders()
    assert sorted(run_id for run_id, _, _ in submission.tasks()) == sorted(run.path.name for run in runs)

    shown = [show_job(str(array["job"])) for array in submission.arrays]
    assert [re.search(r"ArrayTaskId=(\S+)", text)[1] for text in shown] == ["0-1000%7", "0-1000%7", "0-997%7"]
    first, second = (array["job"] for array in submission.arrays[:2])
    assert re.search(r"Dependency=(\S+)", shown[0])[1] == "(null)"
    assert re.search(r"Dependency=(\S+)", shown[1])[1].startswith(f"afterany:{first}_*")
    assert re.search(r"Dependency=(\S+)", shown[2])[1].startswith(f"afterany:{second}_*")

    cluster.petgan("cancel", experiment.path, timeout=300)
    assert not queued(experiment)
    assert all(run.status().state == "cancelled" for run in runs)


def show_job(job: str) -> str:
    done = subprocess.run(
        ["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[0]


ASKED = {
    "partition": ({"partition": "gpus"}, {}, ["'gpus'", "main, short, low, high"]),
    "memory": ({}, {"mem_gb": 64}, ["GB of memory a node", "64", "11.719", "2 nodes", "8 CPUs"]),
    "memory of the profile": ({"mem_gb": 12}, {}, ["GB of memory a node", "12", "11.719"]),
    "time": ({"partition": "short"}, {"time_min": 30}, ["minutes a job", "30", "at most 5"]),
    "CPUs": ({}, {"cpus": 9}, ["CPUs a node", "9", "at most 8"]),
    "ranks": ({}, {"cpus": 3, "tasks": 3}, ["CPUs a node", "9", "at most 8"]),
    "nodes": ({}, {"nodes": 3}, ["nodes", "3", "at most 2"]),
    "GPUs": ({}, {"gpus": 4}, ["GPUs a node", "4", "at most 2"]),
    "GPU type": ({"gpu_type": "a100"}, {"gpus": 1}, ["gpu_type: partition main has", "'a100'", "leave"]),
    "constraint": ({"constraint": "fast"}, {}, ["constraint: no node of partition main", "'fast'", "leave"]),
    "account": ({"account": "nobody"}, {}, ["account: you have none", "'nobody'", "allowed: petgan"]),
    "qos": ({"qos": "gold"}, {}, ["qos: you have none", "'gold'", "allowed: normal"]),
    "option": ({"sbatch": ["--no-such-option"]}, {}, ["Slurm refuses", "no-such-option", "submit --dry-run"]),
    "start": ({"warning_s": 300}, {"time_min": 5}, ["warning_s", "time_min 5"]),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_the_cluster_cannot_give_is_refused_before_anything_is_written(cluster, make_dataset, asked):
    profile, resources, words = ASKED[asked]
    grid = cluster.grid(resources={"time_min": 10, **resources}, batch_size=12)
    dataset = make_dataset()
    before = {*cluster.folder.rglob("*"), cluster.profile(**profile)}
    said = cluster.petgan(
        "submit", grid, "--dataset", dataset, "--experiment", cluster.folder / "e",
        "--cluster", "slurm", "--profile", cluster.profile(**profile), code=2,
    )  # fmt: skip
    assert set(cluster.folder.rglob("*")) == before
    assert not [task for task in slurm.queue().values() if task.name.startswith(job_name("e", ""))]
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("petgan")]
    assert all(word in sentence for word in words), sentence
