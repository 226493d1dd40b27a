"""Grid files: their points, and what is refused, with its line."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from pathlib import Path

import pytest

from petgan.config import DatasetRef, run_id
from petgan.errors import ConfigError, DatasetError, InputError
from petgan.grid import expand, grid_file, load_grid

GRIDS = Path(__file__).parent.parent / "grids"
DATASET = DatasetRef(path="x.h5", digest="abc", image_size=32, modality="pet")

# The example of the design.
EXAMPLE = """
name: pet
dataset: data/pet.h5
base: {preset: dcgan, steps: 4000, batch_size: 32, learning_rate: 0.0008, optimizer: rmsprop, dropout: 0.4}
seeds: [0, 1, 2]
resources: {nodes: 1, gpus: 1, cpus: 8, mem_gb: 32, time_min: 120}
sweeps:
  - {name: optimizer-dropout, preset: [gan, dcgan],
     product: {optimizer: [rmsprop, adam, adadelta], dropout: [0.4, 0.5, 0.6]}}
  - {name: batch, preset: [gan, dcgan], product: {batch_size: [8, 16, 32]}}
  - {name: penalty, preset: wgan-gp, product: {batch_size: [8, 16], gp_weight: [0.1, 1, 10]}}
tables:
  - {title: FID by optimizer and dropout, sweep: optimizer-dropout,
     rows: optimizer, columns: dropout, by: preset}
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        file = tmp_path / "g.yaml"
        file.write_text(text)
        return load_grid(file)

    return load


def sweep(rest, head="name: g\nsweeps:\n  - name: s\n    preset: gan\n"):
    return head + "".join(f"    {line}\n" for line in rest.splitlines())


def points(grid, *keys):
    return [
        tuple(getattr(p.point, key) for key in keys) for p in expand(grid) if p.point.seed == grid.seeds[0]
    ]


def test_the_example_of_the_design(load):
    grid = load(EXAMPLE)
    expanded = expand(grid, DATASET)
    first = [p for p in expanded if p.point.seed == 0]
    assert len(first) == 18 + 6 + 6 - 2  # rmsprop, 0.4, 32 of both presets stands in two sweeps
    assert len(expanded) == 3 * len(first)
    assert len({p.run_id for p in expanded}) == len(expanded)
    assert all(p.run_id == run_id(p.point, "abc") and p.point.image_size == 32 for p in expanded)
    shared = [p for p in first if set(p.sweeps) == {"optimizer-dropout", "batch"}]
    assert [(p.point.preset, p.point.optimizer, p.point.dropout, p.point.batch_size) for p in shared] == [
        ("gan", "rmsprop", 0.4, 32),
        ("dcgan", "rmsprop", 0.4, 32),
    ]
    penalty = [p.point for p in first if p.sweeps == ("penalty",)]
    assert {(p.optimizer, p.dropout, p.learning_rate, p.beta_1) for p in penalty} == {
        ("rmsprop", 0.4, 0.0008, None)  # base counts literally; what RMSprop does not take falls away
    }


SOURCE = DatasetRef(path="m.h5", digest="def", image_size=32, modality="mammogram")
MIXED = "name: g\nsource: m.h5\nsweeps: [{name: s, preset: [gan, cut]}]\n"


def test_a_source_goes_to_the_points_that_translate_and_into_their_names(load):
    grid = load(MIXED)
    assert grid.source == "m.h5"
    gan, cut = expand(grid, DATASET, SOURCE)
    assert (gan.source, cut.source) == (None, SOURCE)
    assert gan.run_id == run_id(gan.point, "abc")
    assert cut.run_id == run_id(cut.point, "abc", "def") != run_id(cut.point, "abc")
    other = SOURCE.model_copy(update={"digest": "ghi"})
    assert expand(grid, DATASET, other)[1].run_id != cut.run_id
    moved = SOURCE.model_copy(update={"path": "elsewhere/m.h5"})
    assert expand(grid, DATASET, moved)[1].run_id == cut.run_id


@pytest.mark.parametrize(
    ("text", "source", "words"),
    [
        (MIXED, None, "cut translates images of a second dataset, and none is given.*--source"),
        (
            MIXED.replace("[gan, cut]", "gan"),
            SOURCE,
            "no preset here translates.*m.h5.*with cut only",
        ),
        (MIXED, SOURCE.model_copy(update={"image_size": 64}), "m.h5 has images of another size.*64.*32"),
    ],
)
def test_a_source_that_is_missing_or_cannot_be_used_is_refused(load, text, source, words):
    with pytest.raises((ConfigError, DatasetError), match=words):
        expand(load(text), DATASET, source)


@pytest.mark.parametrize(
    ("recipes", "dataset", "warned"),
    [
        ("[few-shot]", DATASET, True),
        ("[thesis]", DATASET, False),
        ("[few-shot-pet]", DATASET, False),
        ("[few-shot]", SOURCE, False),
        ("[few-shot, few-shot-pet]", DATASET, False),
    ],
)
def test_a_recipe_with_a_variant_for_these_images_names_it(load, caplog, recipes, dataset, warned):
    expand(load(f"name: g\nsweeps: [{{name: s, preset: dcgan, product: {{recipe: {recipes}}}}}]\n"), dataset)
    assert (
        "recipe few-shot-pet of dcgan is for images of pet, rather than few-shot" in caplog.text
    ) == warned


def test_product_is_every_combination(load):
    grid = load(sweep("product: {dropout: [0.1, 0.2, 0.3], batch_size: [4, 8], optimizer: [adam, sgd]}"))
    expected = set(itertools.product((0.1, 0.2, 0.3), (4, 8), ("adam", "sgd")))
    assert set(points(grid, "dropout", "batch_size", "optimizer")) == expected


def test_layers_are_axes_with_truth_values_and_empty_ones(load):
    axes = "{normalization: [batch, none], spectral_norm: [no, yes], activation: [null, elu]}"
    found = points(load(sweep(f"product: {axes}")), "normalization", "spectral_norm", "activation")
    assert found == list(itertools.product(["batch", "none"], [False, True], [None, "elu"]))


def test_zip_points_and_product_are_crossed(load):
    grid = load(
        sweep(
            "zip: {dropout: [0.1, 0.2], batch_size: [4, 8]}\n"
            "points: [{optimizer: adam, beta_1: 0.5}, {optimizer: sgd}]\n"
            "product: {steps: [1, 2]}"
        )
    )
    expected = {
        (*pair, *optimizer, steps)
        for pair in ((0.1, 4), (0.2, 8))
        for optimizer in (("adam", 0.5), ("sgd", None))
        for steps in (1, 2)
    }
    assert set(points(grid, "dropout", "batch_size", "optimizer", "beta_1", "steps")) == expected


def test_exclude_leaves_out_what_agrees_in_all(load):
    grid = load(
        sweep(
            "product: {dropout: [0.1, 0.2], batch_size: [4, 8]}\n"
            "exclude: [{dropout: 0.1, batch_size: 4}, {dropout: 0.2, batch_size: 16}]"
        )
    )
    assert points(grid, "dropout", "batch_size") == [(0.1, 8), (0.2, 4), (0.2, 8)]


def test_exclude_can_leave_out_what_makes_no_sense(load):
    axes = "product: {optimizer: [rmsprop, adam], beta_1: [0.5, 0.9]}\n"
    with pytest.raises(ConfigError, match="rmsprop does not take 'beta_1'"):
        load(sweep(axes))
    grid = load(sweep(axes + "exclude: [{optimizer: RMSprop}, {beta_1: 0.9, steps: 4000}]"))
    assert points(grid, "optimizer", "beta_1") == [("adam", 0.5)]


def test_nested_sweeps_are_crossed_with_their_parent(load):
    grid = load(
        sweep(
            "base: {steps: 7, dropout: 0.9}\n"
            "product: {batch_size: [4, 8]}\n"
            "sweeps:\n"
            "  - {name: a, product: {dropout: [0.1, 0.2]}}\n"
            "  - {name: b, preset: dcgan, base: {steps: 9}}\n"
        )
        + "tables: [{title: T, sweep: s, rows: batch_size, columns: dropout, by: preset}]\n"
    )
    found = {
        (p.point.preset, p.point.batch_size, p.point.dropout, p.point.steps, p.sweeps) for p in expand(grid)
    }
    assert found == {
        *(("gan", b, d, 7, ("s", "s/a")) for b in (4, 8) for d in (0.1, 0.2)),
        *(("dcgan", b, 0.9, 9, ("s", "s/b")) for b in (4, 8)),
    }


def test_equal_points_run_once_and_belong_to_all_their_sweeps(load):
    grid = load(
        "name: g\nsweeps:\n"
        "  - {name: a, preset: gan, product: {dropout: [0.4, 0.5]}}\n"
        "  - {name: b, preset: gan, product: {batch_size: [32, 8]}}\n"
    )
    assert [p.sweeps for p in expand(grid)] == [("a", "b"), ("a",), ("b",)]


def test_base_is_dropped_where_a_preset_does_not_take_it(load):
    grid = load(
        "name: g\nbase: {gp_weight: 5, beta_1: 0.3, quirks: [relu-before-leaky, unit-range]}\n"
        "sweeps: [{name: s, preset: [gan, dcgan, wgan-gp]}]\n"
    )
    assert points(grid, "gp_weight", "beta_1", "quirks") == [
        (None, None, ("unit-range",)),
        (None, None, ("relu-before-leaky", "unit-range")),
        (5, 0.3, ()),
    ]


def test_enlargements_are_axes_beside_none(load):
    """A base that goes with the other values of an axis is dropped where the point says none."""
    grid = load(
        "name: g\nbase: {enlarge_factor: 4, ada_target: 0.6}\n"
        "sweeps:\n"
        "  - {name: s, preset: gan, product: {enlarge: [none, ricap], augment: [none, 'cutout,flip-x']}}\n"
    )
    assert points(grid, "enlarge", "enlarge_factor", "augment", "ada_target") == [
        ("none", 1, "none", None),
        ("none", 1, "flip-x,cutout", 0.6),
        ("ricap", 4, "none", None),
        ("ricap", 4, "flip-x,cutout", 0.6),
    ]
    grid = load(sweep("zip: {enlarge: [none, rotation], enlarge_factor: [1, 2]}"))
    assert points(grid, "enlarge", "enlarge_factor") == [("none", 1), ("rotation", 2)]
    with pytest.raises(ConfigError, match="enlarge does nothing while enlarge_factor is 1"):
        load(sweep("product: {enlarge: [none, rotation]}"))


def test_aliases_merge_keys_and_exponents(load):
    grid = load(
        "name: g\nbase: &b {learning_rate: 1e-4}\n"
        "sweeps:\n  - {name: s, preset: gan, base: {<<: *b, dropout: 0.1}}\n"
        "  - {name: t, preset: gan, base: *b}\n"
    )
    assert points(grid, "learning_rate", "dropout") == [(1e-4, 0.1), (1e-4, 0.4)]


def test_without_a_dataset_there_are_no_run_ids(load):
    assert {(p.run_id, p.point.image_size) for p in expand(load(EXAMPLE))} == {(None, 224)}


S = "sweeps: [{name: s, preset: gan}]\n"
TWO = sweep("product: {dropout: [0.1, 0.2]}") + "tables:\n- {title: T, sweep: s, "


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: g\nname: h\n", 2, "'name' stands here twice, first on line 1"),
        ("name: g\nbase: {a: 1\nseeds: [0]\n", 3, "this is no YAML"),
        ("name: g\n\tx: 1\n", 2, "this is no YAML"),
        ("name: !!python/object:os.system x\n", 1, "this is no YAML"),
        ("- 1\n", 1, "a grid is a mapping"),
        ("", 1, "a grid is a mapping"),
        ("name: g\nbase: &a\n  x: *a\n", 3, "alias stands within itself"),
        ("name: g\nsweps: []\n", 2, "did you mean 'sweeps'?"),
        ("name: g\n", 1, "the key 'sweeps' is missing"),
        ("name: g\nsweeps: []\n", 2, "sweeps: List should have at least 1 item"),
        ("name: a/b\n" + S, 1, "name: should match"),
        ("name: g\nresources:\n  cpus: 1\n  gpu: 1\n" + S, 4, "did you mean 'gpus'?"),
        ("name: g\nresources: {cpus: 0}\n" + S, 2, "cpus: should be greater than 0: got 0"),
        ("name: g\nevery: {logs: 1}\n" + S, 2, "did you mean 'log'?"),
        ("name: g\non_trouble: halt\n" + S, 2, "on_trouble: should be 'continue' or 'stop': got 'halt'"),
        ("name: g\nseeds: [0, 1.5]\n" + S, 2, "seeds: should be a valid integer: got 1.5"),
        ("name: g\nseeds: [3, 3]\n" + S, 2, "a seed is given twice"),
        ("name: g\nseeds: [-1]\n" + S, 2, "greater than or equal to 0: got -1"),
        ("name: g\nbase:\n  dropout: 2\n" + S, 3, "dropout: should be less than 1: got 2"),
        ("name: g\nbase: {seed: 1}\n" + S, 2, "the key 'seeds' of the grid gives the seeds"),
        ("name: g\nbase: {image_size: 64}\n" + S, 2, "the images of the dataset give it"),
        ("name: g\nbase: {gp_weight: null}\n" + S, 2, "needs 'gp_weight'"),
        ("name: g\nbase: {steps: yes}\n" + S, 2, "steps: should be no truth value"),
        ("name: g\nbase: {quirks: [nearest]}\n" + S, 2, "there is no such quirk: got 'nearest'"),
        (sweep("product:\n  dropout:\n    - 0.4\n    - 1.5"), 8, "dropout: should be less than 1: got 1.5"),
        (sweep("product: {dropout: [0.4, 1.5]}\nexclude: [{dropout: 1.5}]"), 5, "got 1.5"),
        (sweep("product: {droput: [0.4]}"), 5, "did you mean 'dropout'?"),
        (sweep("product: {dropout: []}"), 5, "the axis 'dropout' has no values"),
        (sweep("product: {dropout: 0.4}"), 5, "dropout: should be a valid list: got 0.4"),
        (sweep("zip: {dropout: [0.1], batch_size: [1, 2]}"), 5, "dropout has 1, batch_size has 2"),
        (sweep("points: []"), 5, "this list of points is empty"),
        (sweep("product: {gp_weight: [1]}"), 5, "preset gan does not take 'gp_weight'"),
        (sweep("base: {gp_weight: 1}"), 5, "preset gan does not take 'gp_weight'"),
        (sweep("base: {dropout: 0.1}\nproduct: {dropout: [0.2]}"), 6, "given 'dropout' twice"),
        (sweep("product: {dropout: [0.1]}\nsweeps: [{name: a, base: {dropout: 0.2}}]"), 6, "'dropout' twice"),
        (sweep("exclude: [{preset: gan}]"), 3, "has no points left"),
        (sweep("exclude: [{optimizer: adamm}]"), 5, "there is no such optimizer: got 'adamm'"),
        (sweep("base: {beta_1: 0.5}"), 3, "optimizer rmsprop does not take 'beta_1'"),
        ("name: g\nsweeps:\n  - {name: s, preset: gann}\n", 3, "did you mean 'gan'?"),
        ("name: g\nsweeps:\n  - {name: s, preset: 5}\n", 3, "preset: should be a name or a list of names"),
        ("name: g\nsweeps:\n  - {name: s, preset: []}\n", 3, "the axis 'preset' has no values"),
        ("name: g\nsweeps:\n  - {name: s}\n", 3, "this sweep has no preset"),
        ("name: g\nsweeps:\n  - {name: s, preset: gan}\n  - {name: s, preset: wgan}\n", 4, "two sweeps"),
        ("name: g\n" + S + "tables:\n  - {title: T, sweep: t, rows: dropout}\n", 4, "no such sweep: got 't'"),
        (TWO + "rows: steps}\n", 7, "no such axis: got 'steps'"),
        (TWO + "rows: preset}\n", 7, "differ in dropout"),
        (TWO + "rows: dropout, by: dropout}\n", 7, "used twice"),
        ("name: g\n" + S + "published: {file: no.csv, dataset: x}\n", 3, "cannot read the published values"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_line(load, tmp_path, text, line, words):
    with pytest.raises(ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'g.yaml'}, line {line}: ")
    assert words in message
    assert "\n" not in message


def test_a_file_that_is_no_text_and_one_that_is_not_there(tmp_path):
    (tmp_path / "g.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read the grid"):
        load_grid(tmp_path / "g.yaml")
    with pytest.raises(InputError, match="there is no grid"):
        load_grid(tmp_path / "no.yaml")


@pytest.mark.parametrize("text", ["name: [" * 5000, "a: &a [x,x]\nb: &b [*a,*a]\n" + "".join(
    f"{chr(c + 1)}: &{chr(c + 1)} [*{chr(c)},*{chr(c)}]\n" for c in range(98, 121))])  # fmt: skip
def test_a_hostile_file_is_refused_quickly(load, text):
    with pytest.raises(ConfigError, match="nested too deeply|alias"):
        load(text)


def test_a_preset_without_noise_and_critic_stands_beside_others(load):
    grid = load(
        "name: g\nbase: {latent_size: 16, n_critic: 2, batch_size: 8}\nsweeps:\n"
        "  - {name: s, preset: [dcgan, ddpm], product: {dropout: [0.1, 0.2]}}\n"
        "tables:\n  - {title: All, sweep: s, rows: dropout, columns: preset}\n"
    )
    assert set(points(grid, "preset", "latent_size", "batch_size")) == {
        ("dcgan", 16, 8),
        ("ddpm", None, 8),
    }
    with pytest.raises(ConfigError, match="preset ddpm does not take 'latent_size'.*with gan, dcgan"):
        load("name: g\nsweeps:\n  - {name: s, preset: ddpm, product: {latent_size: [8, 16]}}\n")


def test_an_axis_of_recipes_takes_those_of_its_preset(load):
    text = "name: g\nsweeps:\n  - {name: s, preset: %s, product: {recipe: [thesis, %s]}}\n"
    grid = load(text % ("dcgan", "few-shot-pet"))
    assert set(points(grid, "preset", "recipe")) == {("dcgan", "thesis"), ("dcgan", "few-shot-pet")}
    with pytest.raises(ConfigError, match="preset gan has no such recipe.*few-shot-pet"):
        load(text % ("gan", "few-shot-pet"))
    with pytest.raises(ConfigError, match="no such recipe.*'many'; allowed: thesis, stable, few-shot"):
        load(text % ("dcgan", "many"))


def test_grids_that_come_with_petgan_are_found_by_name():
    assert grid_file("demo.yaml").samefile(GRIDS / "demo.yaml")
    allowed = "demo-beyond.yaml, demo-transfer.yaml, demo.yaml"
    with pytest.raises(InputError, match=f"got 'no.yaml'; allowed: {allowed}"):
        grid_file("no.yaml")


@pytest.mark.parametrize("file", sorted(GRIDS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_grid_that_comes_with_petgan_is_sound(file):
    grid = load_grid(file)
    assert expand(grid, DATASET, source=DATASET if grid.source else None)


@pytest.mark.parametrize(("file", "dataset"), [("thesis-pet", "i3m"), ("thesis-mammogram", "usf")])
def test_the_grids_of_the_study_are_its_published_cells(file, dataset):
    grid = load_grid(GRIDS / f"{file}.yaml")
    expanded = [p for p in expand(grid) if p.point.seed == 0]
    assert Counter(p.point.preset for p in expanded) == {"gan": 13, "dcgan": 13, "wgan-gp": 6}
    with open(GRIDS / "published-fid.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["dataset"] == dataset]
    published = {
        (row["model"], row["optimizer"], float(row["dropout"] or 0.25), int(row["batch_size"]),
         float(row["learning_rate"] or 1e-4), float(row["gp_weight"]) if row["gp_weight"] else None)
        for row in rows
    }  # fmt: skip
    keys = ("preset", "optimizer", "dropout", "batch_size", "learning_rate", "gp_weight")
    assert {tuple(getattr(p.point, key) for key in keys) for p in expanded} == published
    assert [row["fid"] for row in grid.published or []] == [float(row["fid"]) for row in rows]
    assert all((p.point.beta_1, p.point.beta_2) == (0, 0.9) for p in expanded if p.point.preset == "wgan-gp")


def test_all_published_values_are_there():
    with open(GRIDS / "published-fid.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 73
    *scratch, transfer = load_grid(GRIDS / "thesis-transfer.yaml").published or []
    assert (transfer["table"], transfer["fid"], transfer["batch_size"]) == ("transfer", 183.973, 16)
    assert ["7.11", 239.813] in [[row["table"], row["fid"]] for row in scratch]  # the same point from scratch
