"""Transfer: train on from the best networks of another experiment, beside the same points from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from petgan.choice import best_by_preset, headline, read_scores
from petgan.config import DatasetRef
from petgan.errors import ConfigError, InputError
from petgan.grid import GridPoint
from petgan.runs import ExperimentFolder, RunFolder, file_digest


@dataclass(frozen=True)
class Source:
    """The networks that the points of one preset start from.

    Parameters
    ----------
    preset : str
    run_id : str or None
        The run that made them; None for a file that was given.
    checkpoint : str
        Its absolute path.
    digest : str
        SHA-256 of the file.
    image_size : int or None
        Pixels; None for a file, which the worker checks.
    value : float or None
        The score that the run was chosen by.
    """

    preset: str
    run_id: str | None
    checkpoint: str
    digest: str
    image_size: int | None = None
    value: float | None = None


def find_sources(
    path: Path | str, points: Sequence[GridPoint], score: str | None = None
) -> tuple[dict[str, Source], str | None]:
    """The networks to start from, for each preset of `points`.

    Parameters
    ----------
    path : path
        An experiment (its best point of each preset is taken), a run's folder, or a file of weights.
    points : sequence of GridPoint
        The points that are to be trained.
    score : str, optional
        What the best point is chosen by; the experiment's headline by default.

    Returns
    -------
    sources : dict of str to Source
        By preset.
    score : str or None
        What they were chosen by.

    Raises
    ------
    InputError
        If there is nothing of the kind at `path`, or it has no scores or no checkpoints.
    ConfigError
        If a preset has no source, or its images are of another size.
    """
    path = Path(path)
    presets = list(dict.fromkeys(point.point.preset for point in points))
    if ExperimentFolder(path).record_file.is_file():
        sources, score = _from_experiment(ExperimentFolder(path), score)
    elif RunFolder(path).config_file.is_file():
        source = _from_run(RunFolder(path))
        sources = {source.preset: source}
    elif path.is_file():
        if len(presets) > 1:
            raise ConfigError(
                "a file of weights can start points of one preset only",
                value=f"a grid with {', '.join(presets)}",
                hint="give an experiment that has them all",
            )
        sources = {presets[0]: Source(presets[0], None, str(path.resolve()), file_digest(path))}
    else:
        raise InputError(f"{path} is no experiment, no run and no file of weights")
    for preset in presets:
        if preset not in sources:
            raise ConfigError(
                f"{path} has nothing to start this preset from",
                value=preset,
                allowed=sources,
                hint="what its gates block cannot be taken: 'petgan best' says which runs",
            )
    for point in points:
        size = sources[point.point.preset].image_size
        if point.run_id and size not in (None, point.point.image_size):
            raise ConfigError(
                f"the networks of {path} make images of another size",
                value=size,
                allowed=f"{point.point.image_size}, as in the dataset",
            )
    return {preset: sources[preset] for preset in presets}, score


def pairs(
    points: Sequence[GridPoint], sources: Mapping[str, Source], dataset: DatasetRef | None
) -> list[GridPoint]:
    """Each point twice, with the same seed and budget: from scratch, and from its preset's source."""
    both = []
    for given in points:
        source = sources[given.point.preset]
        warm = given.point.model_copy(update={"init_from": source.checkpoint, "init_digest": source.digest})
        started = replace(given, point=warm, run_id=None, start="transfer")
        both += [given, started.named(dataset) if dataset else started]
    return both


def parent_record(path: Path | str, sources: Mapping[str, Source], score: str | None) -> dict[str, Any]:
    """What ``experiment.json`` keeps of where the networks came from."""
    return {
        "experiment": str(Path(path).resolve()),
        "score": score,
        "runs": [
            {key: value for key, value in asdict(source).items() if key != "image_size"}
            for source in sources.values()
        ],
    }


def _from_experiment(experiment: ExperimentFolder, score: str | None) -> tuple[dict[str, Source], str]:
    scores = read_scores(experiment)
    score = score or headline(scores)
    return {
        preset: replace(_from_run(experiment.run(choice.best_run)), value=choice.best_value)
        for preset, choice in best_by_preset(scores, score).items()
    }, score


def _from_run(run: RunFolder) -> Source:
    config = run.config()
    file = run.chosen_checkpoint().resolve()
    return Source(config.point.preset, config.run_id, str(file), file_digest(file), config.point.image_size)
