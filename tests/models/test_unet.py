"""The denoiser's network."""

from __future__ import annotations

import math
import subprocess
import sys

import keras
import numpy as np
import pytest

from petgan.methods.networks import computing_in
from petgan.models import build, unet
from petgan.models.layers import plain


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(unet, "WIDTHS", (8, 4))
    monkeypatch.setattr(unet, "GROUPS", 2)
    monkeypatch.setattr(unet, "TIME_WIDTH", 4)


def denoiser(size=16, seed=0, **options):
    """A network whose weights are all at work; some begin as 0."""
    (model,) = build("ddpm", size, **options)
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        fan_in = max(1, math.prod(variable.shape[:-1]))
        variable.assign(random.normal(0, 1 / math.sqrt(fan_in), variable.shape))
    return model


def inputs(size=16, times=(1, 999)):
    x = np.random.default_rng(0).standard_normal((len(times), size, size, 1)).astype("float32")
    return [x, np.array(times)[:, None]]


@pytest.mark.parametrize("size", [14, 16, 28, 64])
def test_any_size_of_7_or_8_doubled(small, size):
    assert denoiser(size)(inputs(size)).shape == (2, size, size, 1)


def test_the_coarsest_level_is_the_widest():
    (model,) = build("ddpm", 64)
    widths = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            widths.setdefault(layer.output.shape[1], set()).add(layer.filters)
    assert {size: max(found) for size, found in widths.items()} == {8: 128, 16: 64, 32: 32, 64: 16}


def test_fresh_it_finds_no_noise(small):
    (model,) = build("ddpm", 16)
    assert (model(inputs()).numpy() == 0).all()


def test_the_embedding_is_the_formula():
    table = unet.sinusoids(50, 8)
    for t in (0, 1, 49):
        waves = [t / 10_000 ** (k / 4) for k in range(4)]
        expected = [*map(math.sin, waves), *map(math.cos, waves)]
        assert table[t] == pytest.approx(expected, abs=1e-5)


def test_the_time_matters_and_whole_numbers_of_any_type_are_the_same(small):
    model, (x, times) = denoiser(), inputs()
    found = model([x, times]).numpy()
    assert (found != model([x, times + 1]).numpy()).any(axis=(1, 2, 3)).all()
    assert (found == model([x, times.astype("float32")]).numpy()).all()


def test_the_embedding_is_not_trained(small):
    model = denoiser()
    (table,) = [w for w in model.weights if w.shape[0] == unet.TIMES + 1]
    assert not any(v is table for v in model.trainable_variables)
    assert table.numpy() == pytest.approx(unet.sinusoids(unet.TIMES + 1, 4))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_tells_late_times_apart_and_answers_in_float32(small, precision):
    with computing_in(precision):
        model = denoiser()
    late_inputs = [np.zeros((2, 16, 16, 1), "float32"), np.array([[998], [999]])]
    late = model(late_inputs).numpy()
    assert late.dtype == np.float32
    assert (late[0] != late[1]).any()
    assert late == pytest.approx(denoiser()(late_inputs).numpy(), abs=0.1)


def test_exported_it_loads_where_petgan_is_not(small, tmp_path):
    model, (x, times) = denoiser(dropout=0.2), inputs()
    plain(model).save(tmp_path / "generator.keras")
    np.savez(tmp_path / "inputs.npz", x=x, times=times)
    script = (
        "import sys; sys.modules['petgan'] = None\n"
        "import keras, numpy as np\n"
        "model, inputs = keras.models.load_model('generator.keras'), np.load('inputs.npz')\n"
        "np.save('noise.npy', model([inputs['x'], inputs['times']]))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert np.load(tmp_path / "noise.npy") == pytest.approx(model([x, times]).numpy(), abs=1e-6)
