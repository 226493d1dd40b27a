"""A whole study as a chain of Slurm's jobs, queued at once: it finishes with nobody logged in.

====================  ======================================================================
``name``              of the study
``weights``           of the feature network, where the image has none; optional
``stages``            each a ``grid``, its ``dataset``, optionally its ``source`` (of images to translate;
                      by default the grid's), its ``experiment`` folder, and ``from``: the experiment
                      whose best networks its points also start from
``report``            folder of the report on all experiments; by default ``report``
``synthesize``        optional: ``from`` an experiment, ``count`` images, into the file ``output``
====================  ======================================================================

Grids are found relative to the study's file, everything else relative to the current folder. The jobs of
one stage: the array that trains, then the evaluation; for a transfer, first the choice, then a second
array that starts from what was chosen. Last come the report and the synthetic dataset.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from petgan import slurm, submit
from petgan.batch import Job, job_name, script
from petgan.config import DatasetRef, Frozen, Positive, Resources
from petgan.errors import ConfigError
from petgan.grid import Grid, GridPoint, expand, load_grid
from petgan.runs import ExperimentFolder
from petgan.snapshot import code_digest
from petgan.status import tasks_queued
from petgan.submit import Target
from petgan.sweeps import Name
from petgan.yamlsource import YamlSource

_ACTIONS = ("-choose", "-evaluate", "-report", "-synthesize")
_CHOICE = Resources(cpus=1, mem_gb=2, time_min=30)

logger = logging.getLogger(__name__)


class StageFile(Frozen):
    """One grid of a study, as the file has it."""

    grid: str
    dataset: str
    translated: Annotated[str | None, Field(alias="source")] = None
    experiment: str | None = None
    source: Annotated[str | None, Field(alias="from")] = None
    score: str | None = None


class SynthesisFile(Frozen):
    """The synthetic dataset at the end of a study, as the file has it."""

    source: Annotated[str, Field(alias="from")]
    count: Positive
    output: str


class StudyFile(Frozen):
    """A study, as the file has it."""

    name: Name
    weights: str | None = None
    stages: Annotated[list[StageFile], Field(min_length=1)]
    report: str = "report"
    synthesize: SynthesisFile | None = None


@dataclass(frozen=True)
class Stage:
    """One grid of a study, found to be sound.

    Parameters
    ----------
    grid : Grid
    points : list of GridPoint
    dataset : DatasetRef
    experiment : ExperimentFolder
        Its path is absolute.
    source : ExperimentFolder or None
        Whose best networks the points also start from.
    score : str or None
        What the best is chosen by.
    """

    grid: Grid
    points: list[GridPoint]
    dataset: DatasetRef
    experiment: ExperimentFolder
    source: ExperimentFolder | None
    score: str | None


@dataclass(frozen=True)
class Study:
    """A study that was read and found to be sound; its paths are absolute."""

    name: str
    weights: str | None
    stages: list[Stage]
    report: Path
    synthesize: SynthesisFile | None


def is_study(path: Path | str) -> bool:
    """Whether a YAML file is a study and no grid."""
    try:
        content = YamlSource(Path(path), Path(path).read_text(encoding="utf-8")).read()
    except (OSError, ValueError, ConfigError):
        return False  # whoever reads it as a grid says what is wrong
    return isinstance(content, dict) and "stages" in content


def load_study(path: Path | str, open_dataset: Callable[[str], DatasetRef]) -> Study:
    """Read and check a study and its grids; `open_dataset` looks into a dataset's file.

    Raises
    ------
    ConfigError, InputError, DatasetError
        With the file and the line, if anything in it cannot be meant.
    """
    path = Path(path)
    source = YamlSource(path, path.read_text(encoding="utf-8"))
    content = source.read()
    try:
        parsed = StudyFile(**content)
    except ValidationError as error:
        first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
        place = first["loc"]
        if first["type"] == "extra_forbidden":
            parts: dict[str, type[Frozen]] = {"stages": StageFile, "synthesize": SynthesisFile}
            part = parts.get(str(place[0]), StudyFile)
            names = [field.alias or name for name, field in part.model_fields.items()]
            raise source.unknown_key(place, names) from None
        raise source.error(place, f"{place[-1]}: {first['msg']}", value=first["input"]) from None
    stages: list[Stage] = []
    for number, given in enumerate(parsed.stages):
        grid = load_grid(path.parent / given.grid)
        dataset = open_dataset(given.dataset)
        translated = given.translated or grid.source
        points = expand(grid, dataset, open_dataset(translated) if translated else None)
        folder = Path(given.experiment or f"experiments/{grid.name}").resolve()
        if any(stage.experiment.path == folder for stage in stages):
            raise source.error(("stages", number), f"two stages have the folder {folder}")
        before = None
        if given.source is not None:
            before = ExperimentFolder(Path(given.source).resolve())
            named = [stage.experiment.path for stage in stages]
            if before.path not in named and not before.record_file.exists():
                raise source.error(
                    ("stages", number, "from"),
                    "this is no experiment, and none of a stage before",
                    value=given.source,
                    allowed=[str(name) for name in named],
                )
        stages.append(Stage(grid, points, dataset, ExperimentFolder(folder), before, given.score))
    if parsed.synthesize is not None:
        chosen = Path(parsed.synthesize.source).resolve()
        named = [stage.experiment.path for stage in stages]
        if chosen not in named and not ExperimentFolder(chosen).record_file.exists():
            raise source.error(
                ("synthesize", "from"),
                "this is no experiment, and none of a stage",
                value=parsed.synthesize.source,
                allowed=[str(name) for name in named],
            )
    weights = parsed.weights and str(Path(parsed.weights).resolve())
    if weights and not Path(weights).is_file():
        raise source.error(("weights",), "there is no such file", value=parsed.weights)
    return Study(parsed.name, weights, stages, Path(parsed.report).resolve(), parsed.synthesize)


def submit_study(study: Study, target: Target, *, command: str) -> dict[str, list[str]]:
    """Queue all jobs of a study, and return their ids by what they do.

    Given again, it starts what is neither done nor under way, and queues evaluations, choices and report
    anew, in place of those that still wait.

    Raises
    ------
    UserError
        For what the cluster refuses, before anything is written.
    """
    for stage in study.stages:
        sizes = [point.point.batch_size for point in stage.points]
        submit.check_target(target, stage.grid.resources, sizes)
    earlier = _make_room(study)
    queued: dict[str, list[str]] = {}
    evaluations: dict[Path, list[str]] = {}
    for stage in study.stages:
        name = stage.experiment.path.name
        submit.submit(stage.grid, stage.points, stage.dataset, stage.experiment, target, command=command)
        training = [*_under_way(stage.experiment), *earlier]
        queued[f"train {name}"] = list(training)
        if stage.source is not None:
            before = replace(target, after=tuple(evaluations.get(stage.source.path, [])))
            choice, transfers = _transfer(stage, before)
            queued[f"choose for {name}"] = [choice]
            queued[f"transfer {name}"] = transfers
            training += transfers
        evaluation = _Stage("evaluate", stage.experiment, stage.grid.resources)
        job = evaluation.queue(replace(target, after=tuple(training)), weights=study.weights)
        evaluations[stage.experiment.path] = [job]
        queued[f"evaluate {name}"] = [job]
    ended = replace(target, after=tuple(job for jobs in evaluations.values() for job in jobs))
    report = _report(study).queue(ended, **_report_arguments(study))
    queued["report"] = [report]
    if study.synthesize is not None:
        behind = replace(target, after=(report,))
        queued["synthesize"] = [_synthesis(study).queue(behind, **_synthesis_arguments(study.synthesize))]
    return queued


def preview(study: Study, target: Target) -> Iterator[tuple[str, str]]:
    """What `submit_study` would queue, as (what it does, batch script); writes nothing.

    For the ids that Slurm has yet to give stands ``JOB-`` and what the job does.
    """
    evaluations: dict[Path, str] = {}
    for stage in study.stages:
        name, resources = stage.experiment.path.name, stage.grid.resources
        plan = submit.make_plan(stage.grid, stage.points, stage.dataset, stage.experiment, command="")
        for text in submit.preview(stage.experiment, resources, target, len(plan.to_start)):
            yield f"train {name}", text
        training = [f"JOB-train-{name}"] if plan.to_start else []
        if stage.source is not None:
            before = [evaluations[stage.source.path]] if stage.source.path in evaluations else []
            choice = _Stage("choose", stage.experiment, _CHOICE)
            yield f"choose for {name}", choice.script(replace(target, after=tuple(before)), name="NAME")
            after = replace(target, after=(f"JOB-choose-for-{name}",))
            for text in submit.preview(stage.experiment, resources, after, len(stage.points)):
                yield f"transfer {name}", text
            training.append(f"JOB-transfer-{name}")
        evaluation = _Stage("evaluate", stage.experiment, resources)
        ended = replace(target, after=tuple(training))
        yield f"evaluate {name}", evaluation.script(ended, weights=study.weights)
        evaluations[stage.experiment.path] = f"JOB-evaluate-{name}"
    ended = replace(target, after=tuple(evaluations.values()))
    yield "report", _report(study).script(ended, **_report_arguments(study))
    if study.synthesize is not None:
        behind = replace(target, after=("JOB-report",))
        yield "synthesize", _synthesis(study).script(behind, **_synthesis_arguments(study.synthesize))


def _report(study: Study) -> _Stage:
    return _Stage("report", study.stages[-1].experiment, _CHOICE)


def _report_arguments(study: Study) -> dict[str, Any]:
    experiments = [str(stage.experiment.path) for stage in study.stages]
    return {"experiments": experiments, "output": str(study.report)}


def _synthesis(study: Study) -> _Stage:
    last = study.stages[-1]
    return _Stage("synthesize", last.experiment, last.grid.resources)


def _synthesis_arguments(wanted: SynthesisFile) -> dict[str, Any]:
    source, output = Path(wanted.source).resolve(), Path(wanted.output).resolve()
    return {"source": str(source), "count": wanted.count, "output": str(output)}


@dataclass(frozen=True)
class _Stage:
    """One job between the arrays; `petgan.stages` does its work on a node."""

    action: str
    experiment: ExperimentFolder
    resources: Resources

    def queue(self, target: Target, **arguments: Any) -> str:
        name = submit.new_name()
        text = self.script(target, name, **arguments)
        return submit.queue_script(self.experiment, name, self.action, text)

    def script(self, target: Target, submission: str | None = None, /, **arguments: Any) -> str:
        name = submission or submit.new_name()
        code = code_digest()
        alone = {"nodes": 1, "tasks": 1, "gpus": min(1, self.resources.gpus)}
        image = submit.image_of(target)
        arguments |= {"profile": target.profile.model_dump(), "image": image and image.as_record()}
        arguments["submission"] = name
        job = Job(
            name=job_name(self.experiment.path.name, f"{name}-{self.action}"),
            comment=f"{self.action} {self.experiment.path.name}",
            command=[
                sys.executable, "-m", "petgan.stages",
                self.action, str(self.experiment.path), json.dumps(arguments),
            ],
            folder=self.experiment.code_folder(code),
            output=self.experiment.batch_folder(name) / f"{self.action}.log",
            resources=target.profile.resources(self.resources.model_copy(update=alone)),
            after=target.after,
        )  # fmt: skip
        return script(job, target.profile)


def _make_room(study: Study) -> list[str]:
    """Cancel what waits of an earlier submission's evaluations, choices and report; ids of what runs."""
    waiting: set[str] = set()
    running: set[str] = set()
    for stage in study.stages:
        unfilled = {
            array["name"]
            for submission in stage.experiment.slurm_submissions()
            if submission.transfer is not None and not submission.transfer.get("filled")
            for array in submission.arrays
        }
        for task in tasks_queued(stage.experiment):
            if task.name.endswith(_ACTIONS) or task.name in unfilled:
                (waiting if task.waits else running).add(task.job.partition("_")[0])
    if waiting:
        slurm.cancel(sorted(waiting))
    return sorted(running)


def _under_way(experiment: ExperimentFolder) -> list[str]:
    """The ids of the experiment's arrays that Slurm still has."""
    ids = {str(array["job"]) for s in experiment.slurm_submissions() for array in s.arrays if array["job"]}
    return sorted({job.partition("_")[0] for job in slurm.queue(ids)}) if ids else []


def _transfer(stage: Stage, target: Target) -> tuple[str, list[str]]:
    """Queue the choice, and the array that starts from what it will have chosen; return their ids."""
    assert stage.source is not None  # noqa: S101
    name = submit.prepare_transfer(
        stage.experiment, stage.points, stage.grid.resources, stage.source, stage.score, target
    )
    choice = _Stage("choose", stage.experiment, _CHOICE).queue(target, name=name)
    return choice, submit.queue_prepared(stage.experiment, name, stage.grid.resources, choice, target)
