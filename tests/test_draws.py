"""Random numbers depend on seed, step and position alone, whoever draws them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from petgan.draws import Draw, bits, draw_indices, draw_noise, halves, normal, seed_for, uniform


def test_no_two_draws_share_a_seed():
    seeds = [
        tuple(seed_for(5, step, draw, turn).numpy())
        for step in (0, 1, 2, 2**31 - 1)
        for draw in Draw
        for turn in range(6)
    ]
    assert len(set(seeds)) == len(seeds)
    # Its layers count up from it: the next seed is more than that away.
    assert min(np.diff(sorted(seed[1] for seed in seeds))) >= 256


def test_draws_depend_on_seed_step_and_position_alone():
    seed = seed_for(1, 7, Draw.IMAGES, 0)
    first = draw_indices(seed, 8, 100).numpy()
    draw_indices(seed_for(1, 8, Draw.IMAGES, 0), 8, 100)
    assert (draw_indices(seed, 8, 100).numpy() == first).all()
    assert (draw_indices(seed, 16, 100).numpy()[:8] == first).all()
    assert (draw_indices(seed_for(2, 7, Draw.IMAGES, 0), 8, 100).numpy() != first).any()


def test_images_are_drawn_evenly_and_with_replacement():
    drawn = draw_indices(seed_for(0, 0, Draw.IMAGES, 0), 20_000, 10).numpy()
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_squared < 33.7  # 1 in 10,000 with 9 degrees of freedom


@pytest.mark.parametrize("is_uniform", [False, True])
def test_noise_is_normal_or_as_published_uniform(is_uniform):
    from scipy import stats

    noise = draw_noise(seed_for(0, 0, Draw.NOISE, 0), 500, 20, is_uniform=is_uniform).numpy().ravel()
    wanted, other = stats.norm(), stats.uniform(-1, 2)
    if is_uniform:
        wanted, other = other, wanted
    assert stats.kstest(noise, wanted.cdf).pvalue > 1e-3
    assert stats.kstest(noise, other.cdf).pvalue < 1e-6


def test_halves_are_those_of_the_bits_wherever_one_starts():
    seed = seed_for(2, 3, Draw.REAL_DROPOUT, 1)
    numbers = bits((30,), seed).numpy().view("uint16")
    for start in (0, 1, 7, 8, 9, 31):
        for count in (1, 6, 29):
            assert (halves((count,), seed, start).numpy() == numbers[start : start + count]).all()


@pytest.mark.parametrize("step", [5, 16, 2**20, 2**31 - 1])  # seeds of up to 32 bits, and of more
def test_xla_draws_the_same(step):
    seed = seed_for(3, step, Draw.NOISE, 1)
    draws = {
        "bits": lambda: bits((7, 5), seed),
        "halves": lambda: halves((7, 5), seed, 11),
        "indices": lambda: draw_indices(seed, 50, 120),
        "uniform": lambda: uniform((7, 5), seed),
        "normal": lambda: normal((7, 5), seed),
    }
    for name, draw in draws.items():
        plain, xla = (tf.function(draw, jit_compile=jit)().numpy() for jit in (False, True))
        np.testing.assert_allclose(plain, xla, rtol=1e-6, atol=1e-6, err_msg=name)
