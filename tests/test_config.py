import pytest
from hypothesis import given
from hypothesis import strategies as st

from petgan.config import Every, Point, image_base, resolve_point, run_id
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
        ({"gp_weight": 1}, ["dcgan does not take 'gp_weight'"]),
        ({"dropuot": 0.1}, ["unknown key 'dropuot'"]),
        ({"quirks": ["blue"]}, ["quirk", "'blue'", "unit-range"]),
        ({"optimizer": "adamm"}, ["optimizer", "'adamm'", "rmsprop"]),
        ({"optimizer": "rmsprop", "beta_1": 0.5}, ["rmsprop does not take 'beta_1'", "0.5", "adam"]),
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


def test_every_fills_in_a_tenth_of_the_run():
    assert Every(sample=7).resolved(300) == Every(log=10, sample=7, score=30, checkpoint=30)
    assert Every().resolved(4).checkpoint == 1
