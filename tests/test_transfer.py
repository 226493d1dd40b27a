"""Transfer: what is started from, and the pairs that are trained."""

from __future__ import annotations

import pytest

from petgan import cli
from petgan.config import DatasetRef, RunConfig, run_id
from petgan.errors import ConfigError, InputError
from petgan.grid import expand, load_grid
from petgan.runs import ExperimentFolder, file_digest, write_json
from petgan.submit import make_plan
from petgan.transfer import find_sources, pairs, parent_record

GRID = """
name: g
base: {steps: 4, batch_size: 4}
seeds: [0, 1]
sweeps: [{name: s, preset: %s, product: {dropout: [0.3, 0.4]}}]
tables: [{title: T, sweep: s, rows: dropout, columns: start, by: preset}]
"""
MAMMOGRAMS = DatasetRef(path="m.h5", digest="m", image_size=16, modality="mammogram")
PET = DatasetRef(path="p.h5", digest="p", image_size=16, modality="pet")


@pytest.fixture
def make_points(tmp_path):
    def make(presets, dataset=PET):
        file = tmp_path / "g.yaml"
        file.write_text(GRID % presets)
        grid = load_grid(file)
        return grid, expand(grid, dataset)

    return make


@pytest.fixture
def source(tmp_path, make_points):
    """A trained and scored experiment; the second dropout is better, and the second seed of it best."""
    experiment = ExperimentFolder(tmp_path / "source")
    grid, points = make_points("[gan, dcgan]", MAMMOGRAMS)
    plan = make_plan(grid, points, MAMMOGRAMS, experiment, command="")
    write_json(experiment.record_file, plan.record)
    for config in plan.configs.values():
        run = experiment.run(config.run_id)
        run.write_config(config)
        run.checkpoints.mkdir(parents=True)
        run.checkpoint_file(2).write_text(f"{config.run_id} 2")
        run.checkpoint_file(4).write_text(f"{config.run_id} 4")
        value = 10 * (config.point.dropout == 0.3) - config.point.seed
        common = {"protocol": "petgan", "better": "lower", "n_real": 60, "n_fake": 150, "without": []}
        scores = [
            {"name": name, "value": sign * value, "ruler": name, **common}
            for name, sign in (("kid", 1), ("fid", -1))
        ]
        evaluation = {"schema_version": 2, "headline": "kid", "scores": scores, "gates": []}
        write_json(run.evaluation_file, evaluation)
    return experiment


def point_of(experiment, run):
    return next(e["point"] for e in experiment.record()["points"] if e["run_id"] == run)


def test_each_preset_starts_from_the_best_run_of_its_best_point(source, make_points):
    _, points = make_points("[dcgan, gan]")
    sources, score = find_sources(source.path, points)
    assert score == "kid"
    assert list(sources) == ["dcgan", "gan"]
    for preset, found in sources.items():
        point = point_of(source, found.run_id)
        assert (point["preset"], point["dropout"], point["seed"], found.value) == (preset, 0.4, 1, -1)
        newest = source.run(found.run_id).checkpoint_file(4)
        assert (found.checkpoint, found.digest) == (str(newest), file_digest(newest))


def test_another_score_and_the_best_checkpoint(source, make_points):
    _, points = make_points("gan")
    for run in source.run_folders():
        run.best_checkpoint.write_text("best")
    sources, _ = find_sources(source.path, points, "fid")
    assert point_of(source, sources["gan"].run_id)["dropout"] == 0.3
    assert sources["gan"].checkpoint == str(source.run(sources["gan"].run_id).best_checkpoint)


def test_a_run_or_a_file_may_be_the_source(source, make_points, tmp_path):
    _, points = make_points("gan")
    run = next(run for run in source.run_folders() if run.config().point.preset == "gan")
    (found,), score = [*find_sources(run.path, points)[0].values()], None
    assert (found.run_id, found.value, score) == (run.path.name, None, None)
    file = tmp_path / "generator.h5"
    file.write_bytes(b"weights")
    (found,) = find_sources(file, points)[0].values()
    assert (found.preset, found.run_id, found.digest) == ("gan", None, file_digest(file))


def test_pairs_differ_in_their_start_alone(source, make_points):
    grid, points = make_points("gan")
    sources, score = find_sources(source.path, points)
    both = pairs(points, sources, PET)
    assert [p.start for p in both] == ["scratch", "transfer"] * 4
    assert both[::2] == points
    for cold, warm in zip(both[::2], both[1::2], strict=True):
        changed = {"init_from": sources["gan"].checkpoint, "init_digest": sources["gan"].digest}
        assert warm.point == cold.point.model_copy(update=changed)
        assert warm.run_id == run_id(warm.point, PET.digest) != cold.run_id
    plan = make_plan(
        grid, both, PET, ExperimentFolder(source.path / "x"), command="",
        parent=parent_record(source.path, sources, score),
    )  # fmt: skip
    assert [entry["start"] for entry in plan.record["points"]] == ["scratch", "transfer"] * 4
    assert plan.record["parent"]["score"] == "kid"
    assert set(plan.record["parent"]["runs"][0]) == {"preset", "run_id", "checkpoint", "digest", "value"}
    assert all(RunConfig.model_validate(config.model_dump()) == config for config in plan.configs.values())


def test_what_cannot_be_started_from_is_refused(source, make_points, tmp_path):
    _, points = make_points("[gan, wgan-gp]")
    with pytest.raises(
        ConfigError, match="nothing to start this preset from: got 'wgan-gp'; allowed: gan, dcgan"
    ):
        find_sources(source.path, points)
    with pytest.raises(InputError, match="no experiment, no run and no file"):
        find_sources(tmp_path / "nowhere", points)
    (tmp_path / "w.h5").write_bytes(b"w")
    with pytest.raises(ConfigError, match="one preset only: got 'a grid with gan, wgan-gp'"):
        find_sources(tmp_path / "w.h5", points)
    _, big = make_points("gan", DatasetRef(path="b.h5", digest="b", image_size=32, modality="pet"))
    with pytest.raises(ConfigError, match="images of another size: got 16; allowed: 32"):
        find_sources(source.path, big)
    for run in source.run_folders():
        run.evaluation_file.unlink()
    with pytest.raises(InputError, match="no run has been scored yet; run 'petgan evaluate' first"):
        find_sources(source.path, big)


def test_a_dry_run_shows_the_pairs_and_writes_nothing(source, make_points, make_dataset, tmp_path, capsys):
    make_points("gan")
    data = str(make_dataset())
    before = sorted(tmp_path.rglob("*"))
    arguments = ["transfer", str(tmp_path / "g.yaml"), "--from", str(source.path), "--dry-run"]
    assert cli.main([*arguments, "--dataset", data, "--experiment", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert out.count("│ transfer │") == out.count("│ scratch  │") == 4
    assert "would start 8 runs" in out
    assert cli.main([*arguments, "--dataset", "none.h5"]) == 0
    assert "does not exist yet" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
