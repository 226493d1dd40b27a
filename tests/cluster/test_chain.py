"""A whole study as one chain of jobs: submitted once, and nobody gives another command."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import logs, wait_until

from petgan import slurm
from petgan.batch import job_name
from petgan.choice import best_by_preset, headline, read_scores
from petgan.runs import ExperimentFolder, file_digest
from petgan.store import Dataset

pytestmark = pytest.mark.cluster


def test_a_study_finishes_with_nobody_logged_in(cluster, make_dataset):
    grid = cluster.grid(preset="dcgan", product={"dropout": [0.2, 0.5]}, steps=20)  # a "gan" would make noise
    for modality in ("mammogram", "pet"):
        make_dataset(f"{modality}.h5", modality=modality).rename(cluster.folder / f"{modality}.h5")
    stages = [
        {"grid": grid.name, "dataset": f"{m}.h5", "experiment": f"stüdy/{m}"} for m in ("mammogram", "pet")
    ]
    stages.append({**stages[1], "experiment": "stüdy/transfer", "from": "stüdy/mammogram"})
    study = cluster.folder / "study.yaml"
    study.write_text(
        yaml.safe_dump(
            {
                "name": "study",
                "stages": stages,
                "report": "stüdy/report",
                "synthesize": {"from": "stüdy/pet", "count": 12, "output": "stüdy/synthetic.h5"},
            },
            allow_unicode=True,
        )
    )
    said = cluster.petgan("submit", "study.yaml", "--profile", cluster.profile())
    assert "choose for transfer" in said
    names = ("mammogram", "pet", "transfer")
    mammogram, _, transfer = (ExperimentFolder(cluster.folder / "stüdy" / name) for name in names)
    prefixes = tuple(job_name(name, "") for name in names)
    wait_until(
        lambda: not [task for task in slurm.queue().values() if task.name.startswith(prefixes)],
        seconds=400,
        describe=lambda: logs(transfer),
    )

    jobs = {"mammogram": "evaluate", "pet": "evaluate", "transfer": "choose evaluate report synthesize"}
    for name, actions in jobs.items():
        folder = cluster.folder / "stüdy" / name
        told = json.loads(cluster.petgan("status", folder, "--json"))["stages"]
        assert [(job["action"], job["state"]) for job in told] == [(a, "done") for a in actions.split()]

    # The choice is the one that the scores of the mammogram grid make.
    scores = read_scores(mammogram)
    best = mammogram.run(best_by_preset(scores, headline(scores))["dcgan"].best_run)
    record = transfer.record()
    assert [entry["start"] for entry in record["points"]].count("transfer") == 2
    assert record["parent"]["runs"][0]["digest"] == file_digest(best.chosen_checkpoint())
    for entry in record["points"]:
        run = transfer.run(entry["run_id"])
        assert run.status().state == "done", logs(transfer)
        assert "fontManager" not in run.log_file.read_text()
        assert run.evaluation() is not None
        lineage = json.loads(run.lineage_file.read_text())
        expected = best.chosen_checkpoint() if entry["start"] == "transfer" else None
        assert (lineage["parent"] or {}).get("digest") == (expected and file_digest(expected))
    for name in names:
        for run_id, job in jobs_of(ExperimentFolder(cluster.folder / "stüdy" / name)).items():
            lineage = json.loads(
                (cluster.folder / "stüdy" / name / "runs" / run_id / "lineage.json").read_text()
            )
            assert lineage["jobs"] == [job]
            assert lineage["image_digest"] == file_digest(cluster.image)
            assert lineage["hosts"] in (["vm1"], ["vm2"])
    assert "<html" in (cluster.folder / "stüdy" / "report" / "index.html").read_text()
    with Dataset(cluster.folder / "stüdy" / "synthetic.h5") as synthetic:
        assert len(synthetic.images()) == 12


def jobs_of(experiment):
    """The array task that each run was given to."""
    return {
        run_id: f"{array['job']}_{index}"
        for submission in experiment.slurm_submissions()
        for run_id, array, index in submission.tasks()
    }
