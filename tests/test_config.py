import pytest
from hypothesis import given
from hypothesis import strategies as st

from petgan.config import Every, Point, image_base, resolve_point, run_id, validated
from petgan.errors import ConfigError
from petgan.presets import PRESETS

DIGEST = "0" * 64


def point(**values):
    return resolve_point({"preset": "dcgan", "image_size": 64, **values})


@given(st.integers(1, 3000))
def test_image_sizes_are_seven_or_eight_times_a_power_of_two(size):
    allowed = {base * 2**k for base in (7, 8) for k in range(1, 12)}
    if size in allowed:
        base, doublings = image_base(size)
        assert base * 2**doublings == size
    else:
        with pytest.raises(ConfigError, match="7 or 8 times a power of two"):
            image_base(size)


@pytest.mark.parametrize("preset", PRESETS.names())
def test_every_preset_resolves_from_its_name_alone(preset):
    resolved = resolve_point({"preset": preset, "image_size": 32})
    for key, value in PRESETS[preset].defaults.items():
        assert getattr(resolved, key) == value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "dcgn"}, ["preset", "'dcgn'", "gan, dcgan, wgan, wgan-gp", "did you mean"]),
        ({"image_size": 65}, ["65", "power of two"]),
        ({"dropout": 1.0}, ["dropout", "1.0", "less than 1"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "nan"]),
        ({"learning_rate": -1}, ["learning_rate", "-1"]),
        ({"latent_size": None}, ["dcgan needs 'latent_size'"]),
        ({"preset": "ddpm", "n_critic": 2}, ["ddpm does not take 'n_critic'"]),
        ({"gp_weight": 1}, ["dcgan does not take 'gp_weight'"]),
        ({"dropuot": 0.1}, ["unknown key 'dropuot'"]),
        ({"quirks": ["blue"]}, ["quirk", "'blue'", "unit-range"]),
        ({"optimizer": "adamm"}, ["optimizer", "'adamm'", "rmsprop"]),
        ({"normalization": "bach"}, ["normalization", "'bach'", "'batch', 'instance', 'group', 'layer'"]),
        ({"normalization": None}, ["normalization", "None", "'batch'"]),
        ({"activation": "swish"}, ["activation", "'swish'", "'gelu'"]),
        ({"spectral_norm": 1}, ["spectral_norm", "1", "boolean"]),
        ({"discriminator_width": 0}, ["discriminator_width", "0", "greater than 0"]),
        ({"optimizer": "rmsprop", "beta_1": 0.5}, ["rmsprop does not take 'beta_1'", "0.5", "adam"]),
        ({"augment": "colour"}, ["augmentation", "'colour'", "none, auto, or some of", "color"]),
        ({"augment": "auto", "ada_target": 0}, ["ada_target", "0", "greater than 0"]),
        ({"ada_target": 0.6}, ["ada_target does nothing while augment is none", "0.6"]),
        ({"preset": "wgan", "augment": "auto", "ada_target": 0.6}, ["wgan does not take 'ada_target'"]),
        ({"augment": "auto", "quirks": ["unit-range"]}, ["[-1, 1]", "unit-range", "'auto'"]),
        ({"enlarge": "flip"}, ["enlargement", "'flip'", "none, ricap, rotation"]),
        ({"enlarge_factor": 0}, ["enlarge_factor", "0"]),
        ({"enlarge": "ricap"}, ["enlarge does nothing while enlarge_factor is 1", "'ricap'"]),
        ({"enlarge_factor": 2}, ["enlarge_factor does nothing while enlarge is none", "2"]),
    ],
)
def test_impossible_values_are_refused_in_one_sentence(values, words):
    with pytest.raises(ConfigError) as caught:
        point(**values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_betas_of_wgan_gp_go_with_adam():
    assert resolve_point({"preset": "wgan-gp", "image_size": 32}).beta_2 == 0.9
    other = resolve_point({"preset": "wgan-gp", "image_size": 32, "optimizer": "rmsprop"})
    assert other.beta_1 is None
    assert other.beta_2 is None


def test_the_order_of_an_augmentation_says_nothing():
    assert point(augment="color,cutout") == point(augment="cutout, color")
    assert point(augment="cutout,color").augment == "cutout,color"


def test_run_id_depends_on_what_determines_the_result_and_on_nothing_else():
    same = run_id(point(dropout=0.4, optimizer="RMSprop"), DIGEST)
    assert same == run_id(point(), DIGEST)  # defaults written out
    moved = point(init_from="/a/x.h5", init_digest="1" * 64)
    assert run_id(moved, DIGEST) == run_id(point(init_from="/b/y.h5", init_digest="1" * 64), DIGEST)
    others = [
        run_id(moved, DIGEST),
        run_id(point(seed=1), DIGEST),
        run_id(point(dropout=0.5), DIGEST),
        run_id(point(), "1" * 64),
    ]
    assert len({same, *others}) == 5


def test_a_point_survives_json():
    original = point(quirks=["uniform-noise", "unit-range"])
    assert Point.model_validate_json(original.model_dump_json()) == original


@pytest.mark.parametrize("preset", PRESETS.names())
def test_a_point_of_an_older_petgan_is_as_its_preset_has_it(preset):
    now = resolve_point({"preset": preset, "image_size": 32})
    new = ("normalization", "activation", "spectral_norm", "minibatch_std", "generator_width")
    assert Point(**now.model_dump(exclude=set(new))) == now


def test_every_fills_in_a_tenth_of_the_run():
    assert Every(sample=7).resolved(300) == Every(log=10, sample=7, score=30, checkpoint=30)
    assert Every().resolved(4).checkpoint == 1


# --- recipes ------------------------------------------------------------------------------------


def test_a_recipe_sets_several_fields_and_what_is_given_wins():
    values = {"preset": "dcgan", "image_size": 16}
    few = resolve_point({**values, "recipe": "few-shot"})
    assert (few.recipe, few.augment, few.ada_target) == ("few-shot", "auto", 0.6)
    pet = resolve_point({**values, "recipe": "few-shot-pet"})
    assert (pet.augment, pet.ada_target, pet.beta_1, pet.discriminator_width) == ("none", None, 0, 0.5)
    stable = {**values, "recipe": "stable"}
    assert (resolve_point(stable).optimizer, resolve_point(stable).beta_1) == ("adam", 0.5)
    own = resolve_point({**stable, "learning_rate": 1e-5, "optimizer": "rmsprop"})
    assert (own.learning_rate, own.optimizer, own.beta_1, own.loss) == (1e-5, "rmsprop", None, "hinge")


@pytest.mark.parametrize("own", [{"augment": "none"}, {"loss": "wasserstein"}])
def test_what_a_recipe_sets_goes_where_it_would_say_nothing(own):
    values = {"preset": "dcgan", "image_size": 16, "recipe": "few-shot", **own}
    assert resolve_point(values).ada_target is None
    with pytest.raises(ConfigError, match="ada_target"):
        resolve_point({**values, "ada_target": 0.6})


def test_the_thesis_recipe_is_the_preset_as_published():
    values = {"preset": "dcgan", "image_size": 16}
    assert resolve_point({**values, "recipe": "thesis"}) == resolve_point(values)


@pytest.mark.parametrize("preset", PRESETS.names())
def test_every_recipe_of_every_preset_resolves(preset):
    for recipe, settings in PRESETS[preset].recipes.items():
        point = resolve_point({"preset": preset, "image_size": 16, "recipe": recipe})
        assert {key: getattr(point, key) for key in settings} == settings


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"preset wgan-gp has no such recipe.*stable.*thesis, few-shot"):
        resolve_point({"preset": "wgan-gp", "image_size": 16, "recipe": "stable"})


def test_a_point_of_an_older_petgan_is_read_as_its_preset_was():
    point = resolve_point({"preset": "dcgan", "image_size": 16})
    newer = ("recipe", "loss", "normalization", "augment", "compute_dtype", "freeze_layers")
    old = {key: value for key, value in point.model_dump().items() if key not in newer}
    assert validated(Point, old) == point


MIXES = "is of one image at a time, and batch normalization mixes them"


@pytest.mark.parametrize(
    ("problem", "refused", "allowed"),
    [
        (
            f"gp_weight {MIXES}",
            {"preset": "wgan-gp", "normalization": "batch"},
            [{"preset": "wgan-gp", "normalization": "layer"}],
        ),
        (
            f"r1_weight {MIXES}",
            {"preset": "dcgan", "r1_weight": 1.0},
            [{"preset": p, "r1_weight": 1.0} for p in ("gan", "wgan")]
            + [{"preset": "dcgan", "r1_weight": 1.0, "recipe": "stable"}],
        ),
        (
            "a fully connected layer makes none",
            {"preset": "gan", "normalization": "instance"},
            [{"preset": "dcgan", "normalization": "instance"}],
        ),
        (
            "lion does not take this beta_1: got 0",
            {"preset": "pggan", "optimizer": "lion"},
            [{"preset": "pggan", "optimizer": "lion", "beta_1": 0.9}],
        ),
    ],
    ids=["gp", "r1", "instance", "lion"],
)
def test_settings_that_cannot_meet_are_refused(problem, refused, allowed):
    with pytest.raises(ConfigError, match=problem):
        resolve_point({"image_size": 16, **refused})
    for values in allowed:
        resolve_point({"image_size": 16, **values})


def test_no_setting_has_the_name_of_a_score():
    """Both are columns of one table."""
    from petgan.rulers import METRICS

    assert not set(Point.model_fields) & set(METRICS)


def test_frozen_layers_need_a_discriminator_that_does_not_start_anew():
    frozen = {"preset": "dcgan", "image_size": 16, "freeze_layers": 2}
    assert resolve_point({**frozen, "init_parts": "discriminator"}).freeze_layers == 2
    with pytest.raises(ConfigError, match="init_parts has it start anew"):
        resolve_point({**frozen, "init_parts": "generator"})
