"""Augmentation in training, against brute force with the same numbers; and the controller of its strength."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from petgan.methods.augment import BLACK, IMAGES_TO_FULL, adjust, augment, overfitting
from petgan.methods.losses import UNDECIDED
from petgan.policies import TRANSFORMATIONS

SEED = tf.constant([3, 5 * 2**8], tf.int64)
COUNT, HEIGHT, WIDTH = 6, 16, 24
IMAGES = np.random.default_rng(0).uniform(-1, 1, (COUNT, HEIGHT, WIDTH, 1)).astype("float32")
ALL = tuple(TRANSFORMATIONS)


def whole(position, low, high, count=COUNT):
    """The whole numbers of the draw at `position`, by TensorFlow's own function."""
    seed = SEED + tf.constant([0, position], tf.int64)
    return tf.random.stateless_uniform((count,), seed, low, high + 1, tf.int32).numpy()


def drawn(position, low, high, count=COUNT):
    return low + (high - low) * whole(position, 0, 2**24 - 1, count) / 2**24


def changed(*policy, images=IMAGES, seed=SEED, offset=0, batch_size=None, probability=None):
    size = len(images) if batch_size is None else batch_size
    return augment(tf.constant(images), policy, seed, offset, size, probability).numpy()


# --- each transformation, pixel by pixel ----------------------------------------------------------


def test_color_moves_and_stretches_about_the_mean():
    brightness, contrast = drawn(0, -0.5, 0.5), drawn(1, 0.5, 1.5)
    expected = [
        x.mean(dtype="float64") + c * (x - x.mean(dtype="float64")) + b
        for x, b, c in zip(IMAGES, brightness, contrast, strict=True)
    ]
    np.testing.assert_allclose(changed("color"), expected, atol=1e-6)


def test_translation_moves_by_whole_pixels_and_brings_in_black():
    down = whole(0, -2, 2)
    right = whole(1, -3, 3)
    assert len(set(down)) > 2
    expected = np.full_like(IMAGES, BLACK)
    for n in range(COUNT):
        for i in range(HEIGHT):
            for j in range(WIDTH):
                if 0 <= i - down[n] < HEIGHT and 0 <= j - right[n] < WIDTH:
                    expected[n, i, j] = IMAGES[n, i - down[n], j - right[n]]
    np.testing.assert_array_equal(changed("translation"), expected)


def test_cutout_is_a_black_square_of_half_the_side():
    row, column = whole(0, 0, HEIGHT - 1), whole(1, 0, WIDTH - 1)
    expected = IMAGES.copy()
    for n in range(COUNT):
        for i in range(HEIGHT):
            for j in range(WIDTH):
                if -4 <= i - row[n] < 4 and -6 <= j - column[n] < 6:
                    expected[n, i, j] = BLACK
    np.testing.assert_array_equal(changed("cutout"), expected)


def test_flip_x_exchanges_left_and_right_in_every_second_image():
    flipped = drawn(0, 0, 1) < 0.5
    assert set(flipped) == {True, False}
    expected = [x[:, ::-1] if flip else x for x, flip in zip(IMAGES, flipped, strict=True)]
    np.testing.assert_array_equal(changed("flip-x"), expected)


def test_scale_is_bilinear_about_the_centre():
    def taken(image, y, x):
        """Bilinear by its definition: four neighbours, black outside."""
        total = 0.0
        for i in (int(np.floor(y)), int(np.floor(y)) + 1):
            for j in (int(np.floor(x)), int(np.floor(x)) + 1):
                inside = 0 <= i < HEIGHT and 0 <= j < WIDTH
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * (image[i, j, 0] if inside else BLACK)
        return total

    factors = np.exp(drawn(0, -0.1, 0.1).astype("float64"))
    assert factors.min() < 1 < factors.max()
    found = changed("scale")
    for n, factor in enumerate(factors):
        expected = [
            [taken(IMAGES[n], 7.5 + (i - 7.5) / factor, 11.5 + (j - 11.5) / factor) for j in range(WIDTH)]
            for i in range(HEIGHT)
        ]
        np.testing.assert_allclose(found[n, ..., 0], expected, atol=1e-5)


# --- over many draws ------------------------------------------------------------------------------


def test_color_leaves_the_mean_image_and_translation_blurs_it_by_a_box():
    count = 20_000
    image = np.random.default_rng(1).uniform(-1, 1, (1, 8, 8, 1)).astype("float32")
    images = np.repeat(image, count, axis=0)
    # Six deviations of a mean: brightness is uniform over 1, grey values lie within 2.
    bound = 6 * 0.6 / np.sqrt(count)
    np.testing.assert_allclose(changed("color", images=images).mean(0), image[0], atol=bound)
    padded = np.pad(image[0, ..., 0], 1, constant_values=BLACK)
    box = sum(padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 9
    moved = changed("translation", images=images).mean(0)[..., 0]
    np.testing.assert_allclose(moved, box, atol=6 / np.sqrt(count))


def test_draws_of_a_policy_are_independent():
    """Brightness is not tied to the shift: no two draws share a seed."""
    numbers = [drawn(k, 0, 1, count=4000) for k in range(13)]
    correlations = np.corrcoef(numbers) - np.eye(len(numbers))
    assert np.abs(correlations).max() < 6 / np.sqrt(4000)


# --- what holds for all ----------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [None, 0.5])
def test_shares_of_a_batch_are_changed_as_the_whole(probability):
    together = changed(*ALL, probability=probability)
    halves = [
        changed(*ALL, images=IMAGES[at : at + 3], offset=at, batch_size=COUNT, probability=probability)
        for at in (0, 3)
    ]
    np.testing.assert_array_equal(np.concatenate(halves), together)


@pytest.mark.parametrize("name", ALL)
def test_no_image_sees_another(name):
    others = IMAGES.copy()
    others[1:] = -IMAGES[1:]
    before, after = changed(name), changed(name, images=others)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1:] != after[1:]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_reaches_the_images(name):
    """Of a sum of squares, against central differences in 20 pixels; and a second gradient, as R1 takes."""
    images = tf.constant(IMAGES.astype("float64"))
    weights = np.random.default_rng(2).normal(size=IMAGES.shape)

    def loss(x):
        return tf.reduce_sum(weights * augment(x, [name], SEED, 0, COUNT) ** 2)

    with tf.GradientTape() as outer:
        outer.watch(images)
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = loss(images)
        slopes = tape.gradient(value, images)
        steepness = tf.reduce_sum(slopes**2)
    curvature = outer.gradient(steepness, images)
    assert float(tf.reduce_max(tf.abs(curvature))) > 0
    # float64 images, but parameters and the image's mean in float32: a step that those do see.
    h = 1e-2
    random = np.random.default_rng(3)
    for place in zip(*(random.integers(0, n, 20) for n in IMAGES.shape), strict=True):
        step = np.zeros(IMAGES.shape)
        step[place] = h
        expected = (float(loss(images + step)) - float(loss(images - step))) / (2 * h)
        assert float(slopes[place]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_nothing_happens_with_probability_0_and_everything_with_1():
    np.testing.assert_array_equal(changed(*ALL, probability=0.0), IMAGES)
    for name in ALL:
        np.testing.assert_array_equal(changed(name, probability=1.0), changed(name))
    np.testing.assert_array_equal(changed(), IMAGES)


def test_each_image_is_changed_by_each_transformation_with_the_probability():
    images = np.tile(IMAGES[:1, :8, :8], (4000, 1, 1, 1))
    images[:, 0] = 0.25  # so that a cutout of any place is seen in the counts below
    color = (changed("color", images=images, probability=0.3) != images).any(axis=(1, 2, 3))
    both = changed("color", "cutout", images=images, probability=0.3)
    cut = (both == BLACK).any(axis=(1, 2, 3))
    deviation = np.sqrt(0.3 * 0.7 / 4000)
    assert color.mean() == pytest.approx(0.3, abs=5 * deviation)
    assert cut.mean() == pytest.approx(0.3, abs=5 * deviation)
    assert (color & cut).mean() == pytest.approx(0.09, abs=5 * deviation)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_draws_what_float32_draws(dtype):
    images = tf.cast(IMAGES, dtype)
    half = augment(images, ALL, SEED, 0, COUNT, 0.7)
    assert half.dtype == dtype
    whole = augment(tf.cast(images, tf.float32), ALL, SEED, 0, COUNT, 0.7)
    # Three roundings (color, scale, scale) of values up to 2.
    error = 3 * 2 * {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    np.testing.assert_allclose(tf.cast(half, tf.float32), whole, atol=2 * error)


def test_a_large_float16_image_has_the_mean_that_it_has():
    """224 x 224 ones: a sum in float16 would stop at 2,048."""
    image = np.ones((1, 224, 224, 1), "float16")
    found = changed("color", images=image)
    np.testing.assert_allclose(found, 1 + drawn(0, -0.5, 0.5, 1)[0], atol=2e-3)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_graph_does_the_same(compiled):
    @tf.function(jit_compile=compiled)
    def graph(images, probability):
        return augment(images, ALL, SEED, 0, COUNT, probability)

    np.testing.assert_allclose(
        graph(tf.constant(IMAGES), tf.constant(0.5)), changed(*ALL, probability=0.5), atol=1e-6
    )


# --- the controller -------------------------------------------------------------------------------


def simulated(overfitting_at, steps=4000, target=0.6, batch=32):
    """Probabilities (steps,) of a run whose discriminator's E[sign] on real images is r(p, step)."""
    luck = tf.random.stateless_uniform((steps, batch), SEED)

    @tf.function
    def course():
        def step(p, now):
            number, luck = now
            positive = luck < (1 + overfitting_at(p, number)) / 2
            return adjust(p, overfitting(tf.where(positive, 0.1, -3.0)), target, batch)

        return tf.scan(step, (tf.range(steps, dtype=tf.float32), luck), tf.constant(0.0))

    return course().numpy()


def test_the_controller_reaches_its_target():
    """r falls from 0.9 to 0.1 with the probability: over the last 1,000 steps it is 0.6 within 0.05."""
    course = simulated(lambda p, step: 0.9 - 0.8 * p)
    r = 0.9 - 0.8 * course[-1000:]
    assert abs(r.mean() - 0.6) < 0.05
    assert r.std() < 0.05
    assert simulated(lambda p, step: 0.9 - 0.8 * p, target=0.3)[-1000:].mean() == pytest.approx(
        0.75, abs=0.07
    )


def test_it_follows_a_discriminator_that_overfits_more_and_more():
    """r grows by 1 in 4,000 steps: nothing happens until it is at the target, and there it stays."""
    course = simulated(lambda p, step: step / 4000 - 0.8 * p)
    assert course[:1800].max() < 0.05
    r = np.arange(4000) / 4000 - 0.8 * course
    assert np.abs(r[-1000:] - 0.6).max() < 0.1


def test_a_discriminator_that_cannot_tell_overfits_to_nothing():
    rng = np.random.default_rng(0)
    for loss, undecided in UNDECIDED.items():
        assert abs(float(overfitting(undecided + rng.normal(0, 0.1, 40_000), undecided))) < 0.03, loss
        # What each loss asks of a score of a real image.
        assert float(overfitting(np.ones(8), undecided)) == 1


def test_without_overfitting_it_stays_at_0_and_with_all_of_it_goes_to_where_leaks_begin():
    assert simulated(lambda p, step: 0 * p, steps=500).max() < 0.01
    assert adjust(tf.constant(0.0), tf.constant(0.59), 0.6, 32) == 0
    course = simulated(lambda p, step: 0 * p + 1, steps=1100)
    full = IMAGES_TO_FULL // 32
    np.testing.assert_allclose(course, np.minimum(np.arange(1, 1101) / full, 0.8), atol=1e-4)


def test_overfitting_is_the_mean_sign():
    assert float(overfitting(tf.constant([[3.0], [-0.1], [2.0], [0.0]]))) == 0.25
