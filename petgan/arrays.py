"""From a submission to Slurm's job arrays: as few as the cluster allows, each with a readable script."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from petgan import slurm
from petgan.batch import Job, script
from petgan.config import Resources
from petgan.profile import Profile
from petgan.runs import ExperimentFolder, Submission, write_json, write_text

USUAL_ARRAY_SIZE = 1001  # Slurm's default, where there is no Slurm to ask

logger = logging.getLogger(__name__)


def split(runs: int, runs_per_job: int, name: str, largest: int) -> list[dict[str, Any]]:
    """The arrays of a submission, as `petgan.runs.Submission` keeps them, of at most `largest` tasks."""
    tasks = -(-runs // runs_per_job)
    return [
        {
            "name": f"{name}-{number}",
            "first": first,
            "tasks": min(largest, tasks - first),
            "job": None,
        }
        for number, first in enumerate(range(0, tasks, largest))
    ]


def scripts(
    experiment: ExperimentFolder,
    name: str,
    submission: Submission,
    resources: Resources,
    profile: Profile,
    *,
    exclude: Sequence[str] = (),
    after: Sequence[str] = (),
) -> Iterator[tuple[dict[str, Any], str]]:
    """Each array of a submission, with its batch script; take an array's script when those before have ids.

    Where there is a limit to how many runs train at once, one array follows the other: the limit that Slurm
    knows is that of one array.

    Parameters
    ----------
    experiment : ExperimentFolder
        Its path is absolute.
    name : str
        Of the submission.
    submission : Submission
    resources : Resources
        Of one run, as the grid has them.
    profile : Profile
    exclude : sequence of str
        Nodes to avoid.
    after : sequence of str
        Ids of jobs that must have ended before.
    """
    parallel, before = submission.parallel or None, list(after)
    for array in submission.arrays:
        first, last = array["first"], array["first"] + array["tasks"] - 1
        job = Job(
            name=array["name"],
            comment=f"tasks {first} to {last} of submission {name}; by hand: sbatch, with this file",
            command=[
                sys.executable, "-m", "petgan.task", str(experiment.path), name, str(first),
            ],
            folder=experiment.code_folder(submission.code),
            output=experiment.batch_folder(name) / f"{first}-%a.log",
            resources=profile.resources(resources),
            tasks=array["tasks"],
            parallel=parallel if parallel and parallel < array["tasks"] else None,
            exclude=exclude,
            after=before,
        )  # fmt: skip
        yield array, script(job, profile)
        if parallel:
            before = [array["job"] or f"JOB-{array['name']}"]


def submit(
    experiment: ExperimentFolder,
    name: str,
    submission: Submission,
    written: Iterator[tuple[dict[str, Any], str]],
) -> list[str]:
    """Hand the arrays to Slurm, and write down each id as soon as there is one; return the ids.

    A submission that is killed on the way leaves arrays without an id, whose jobs Slurm knows by name.
    """
    folder = experiment.batch_folder(name)
    for number, (array, text) in enumerate(written, start=1):
        write_text(folder / f"{array['first']}.sh", text)
        array["job"] = slurm.submit(text)
        now = experiment.submission(name)  # of a transfer, the choice may have given it its runs by now
        now.arrays = submission.arrays
        write_json(experiment.submission_file(name), asdict(now))
        logger.info(
            "array %d of %d: job %s, %d tasks", number, len(submission.arrays), array["job"], array["tasks"]
        )
    return [str(array["job"]) for array in submission.arrays]
