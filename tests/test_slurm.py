"""What Slurm's commands print, and what is made of it. Stand-ins print what Slurm 22.05 has printed."""

from __future__ import annotations

import functools
import os

import pytest
from stand_ins import put

from petgan import slurm
from petgan.errors import PetganError, UserError


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a command on the path that prints what it is told to; see `stand_ins.put`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    slurm.config.cache_clear()
    yield functools.partial(put, folder)
    slurm.config.cache_clear()


def test_the_queue_task_by_task(fake):
    calls = fake(
        "squeue",
        "7_4|PENDING||petgan-x-1-0|JobArrayTaskLimit\n"
        "7_0|RUNNING|vm[1-2]|petgan-x-1-0|None\n"
        "9|PENDING||other|ReqNodeNotAvail, UnavailableNodes:vm1\n",
    )
    queue = slurm.queue()
    assert list(queue) == ["7_4", "7_0", "9"]
    assert queue["7_0"] == slurm.Task("7_0", "RUNNING", "None", "vm[1-2]", "petgan-x-1-0")
    assert queue["7_4"].waits
    assert queue["7_4"].why == "as many runs train at once as --max-parallel allows"
    assert not queue["7_0"].waits
    assert queue["9"].why == "a node that it needs is down, drained or reserved"
    slurm.queue(name="petgan-x-1-0", users={1001, 7})
    assert ["--me" in call for call in calls()] == [True, False]
    assert "--user=7,1001 --name=petgan-x-1-0" in calls()[1]


def test_jobs_that_slurm_has_forgotten_are_passed_over(fake):
    fake("squeue", error="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert slurm.queue(["7_0"]) == {}
    fake("squeue", error="slurm_load_jobs error: Unable to contact slurm controller\n", code=1)
    with pytest.raises(PetganError, match="squeue .*failed: .*Unable to contact"):
        slurm.queue(["7_0"])


def test_thousands_of_jobs_are_asked_for_in_a_few_calls(fake):
    calls = fake("squeue")
    slurm.queue(f"7_{index}" for index in range(5000))
    asked = [call.partition("--jobs=")[2].split(",") for call in calls()]
    assert len(asked) == 3
    assert {job for jobs in asked for job in jobs} == {f"7_{index}" for index in range(5000)}
    assert max(map(len, calls())) < 2**17  # what Linux takes as one argument


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "waits for free nodes, CPUs, GPUs or memory"),
        ("(Priority)", "jobs of higher priority are before it"),
        ("QOSMaxGRESPerUser", "your QOS is at its limit (QOSMaxGRESPerUser)"),
        ("AssocGrpCpuLimit", "your account is at its limit (AssocGrpCpuLimit)"),
        ("AssocGrpGRES", "your group has all the GPUs that its account allows"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "the nodes are down, drained or kept for jobs of higher priority",
        ),
        ("SomethingNew", "Slurm says SomethingNew"),
    ],
)
def test_reasons_in_words(reason, words):
    assert slurm.Task("1", "PENDING", reason, "", "n").why == words


SACCT = """\
7_0|COMPLETED|vm1|1|100|05:00.000|4|billing=4,cpu=4,gres/gpu=2,mem=8G,node=1||
7_0.batch|COMPLETED|vm1|1|100|00:00.011|4|cpu=4,mem=8G,node=1|cpu=00:00:00,mem=12232K|cpu=00:00:00,mem=12232K
7_0.0|COMPLETED|vm1|1|99|04:59.984|4|cpu=4,gres/gpu=2,mem=8G|cpu=00:05:00,mem=2048M|gres/gpuutil=37,mem=1024M
7_1|OUT_OF_MEMORY|vm[1-2]|2|50|1-00:00:10|8|cpu=8,mem=16384M,node=2||
7_1.0|OUT_OF_MEMORY|vm[1-2]|2|50|00:00.984|8|cpu=8,mem=16G|mem=6G|mem=2G
7_2|CANCELLED by 0|vm1|1|0|00:00:00|1|||
7_[3-5,9%4]|CANCELLED by 1000|None assigned|1|0|00:00:00|1|||
"""


def test_what_jobs_took(fake):
    calls = fake("sacct", SACCT)
    used = slurm.usage(["7"])
    assert len(calls()) == 1
    assert list(used) == [f"7_{index}" for index in (0, 1, 2, 3, 4, 5, 9)]
    first, second = used["7_0"], used["7_1"]
    assert (first.cpus, first.gpus, first.asked_mem_gb, first.peak_mem_gb) == (4, 2, 8, 2)
    assert first.gpu_percent == 37
    assert first.cpu_efficiency == pytest.approx(300 / (100 * 4))
    assert (second.state, second.nodes, second.asked_mem_gb, second.peak_mem_gb) == (
        "OUT_OF_MEMORY", "vm[1-2]", 8, 3,
    )  # fmt: skip
    assert second.cpu_seconds == 86410
    assert used["7_2"].state == used["7_9"].state == "CANCELLED"
    assert used["7_2"].cpu_efficiency is None
    assert (used["7_9"].nodes, used["7_9"].asked_mem_gb) == ("", None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("00:00.011", 0.011), ("05:10", 310), ("01:00:00", 3600), ("2-03:00:00", 2 * 86400 + 3 * 3600)],
)
def test_durations(text, seconds):
    assert slurm.seconds(text) == pytest.approx(seconds)


def test_time_limits():
    assert slurm.minutes("1-00:00:00") == 1440
    assert slurm.minutes("5:00") == 5
    assert slurm.minutes("infinite") is None


def test_partitions_the_default_first_and_the_largest_of_each(fake):
    fake(
        "sinfo",
        "down|down|infinite|1|64|1|(null)|old\n"
        "cpu|up|infinite|40|64+|256000+|gpu:2|(null)\n"
        "gpu*|up|2-00:00:00|4|32|128000|gpu:a100:4(S:0-1)|rack1,ssd\n"
        "gpu*|up|2-00:00:00|2|64|512000|gpu:v100:2,gpu:a100:6,shard:8|rack2,ssd\n",
    )
    found = slurm.partitions()
    assert list(found) == ["gpu", "cpu"]
    assert found["cpu"] == slurm.Partition("cpu", None, 40, 64, 250, 2)
    features, types = frozenset({"rack1", "rack2", "ssd"}), frozenset({"a100", "v100"})
    assert found["gpu"] == slurm.Partition("gpu", 2880, 6, 64, 500, 8, features, types)


def test_the_configuration_is_asked_for_once(fake):
    calls = fake(
        "scontrol", "MaxArraySize            = 1001\nAccountingStorageType   = accounting_storage/slurmdbd\n"
    )
    assert slurm.max_array_size() == 1001
    assert slurm.has_accounting()
    assert len(calls()) == 1
    slurm.config.cache_clear()
    fake("scontrol", "AccountingStorageType   = (null)\n")
    assert not slurm.has_accounting()


def test_a_script_is_handed_over_without_what_would_override_it(fake, tmp_path, monkeypatch):
    calls = fake("sbatch", "1234;cluster\n")
    monkeypatch.setenv("SBATCH_PARTITION", "wrong")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CONF", "/right")
    assert slurm.submit("#!/bin/bash\n# ä\n") == "1234"
    assert calls() == ["--parsable"]
    assert (tmp_path / "bin" / "sbatch.input").read_text(encoding="utf-8") == "#!/bin/bash\n# ä\n"
    told = (tmp_path / "bin" / "sbatch.env").read_text()
    assert "SLURM_CONF=/right" in told
    assert "SBATCH_PARTITION" not in told
    assert "SLURM_JOB_ID" not in told


def test_a_refused_script_in_slurms_words(fake):
    fake(
        "sbatch",
        error="sbatch: error: invalid partition specified: x\nsbatch: error: Batch job failed\n",
        code=1,
    )
    with pytest.raises(UserError, match="refuses the job: invalid partition specified: x; Batch job failed;"):
        slurm.submit("#!/bin/bash\n")


def test_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not slurm.available()
    with pytest.raises(UserError, match="there is no command squeue here; .*login node"):
        slurm.queue()
