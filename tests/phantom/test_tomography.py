import numpy as np
import pytest

from petgan.phantom import tomography

FIELD_MM = 170.0


@pytest.fixture(scope="module")
def scanner():
    return tomography.projector(64, FIELD_MM)


def disk(size, radius_mm, centre=(0.0, 0.0), fine=8):
    """A disk of value 1, each pixel the mean of fine x fine samples."""
    x, y = tomography.pixel_centres(size * fine, FIELD_MM)
    samples = np.hypot(x - centre[0], y - centre[1]) < radius_mm
    return samples.reshape(size, fine, size, fine).mean(axis=(1, 3)).astype(np.float32)


def mean_chord(edges, radius):
    """The mean of 2 sqrt(r^2 - s^2) between neighbouring edges, from its antiderivative."""
    s = np.clip(edges, -radius, radius)
    integral = s * np.sqrt(radius**2 - s**2) + radius**2 * np.arcsin(s / radius)
    return np.diff(integral) / np.diff(edges)


@pytest.mark.parametrize("centre", [(0.0, 0.0), (21.0, -13.0)])
def test_projection_of_a_disk_is_its_chord(scanner, centre):
    radius = 50.0
    sinogram = scanner.project(disk(64, radius, centre)[None])[0]
    edges = (np.arange(65) - 32) * scanner.pixel_mm
    for angle, row in zip(scanner.angles, sinogram, strict=True):
        shift = centre[0] * np.cos(angle) + centre[1] * np.sin(angle)
        # Pixels of 2.7 mm smear the border of the disk; behind it, the chord is met.
        np.testing.assert_allclose(row, mean_chord(edges - shift, radius), atol=5)
        core = np.abs((edges[1:] + edges[:-1]) / 2 - shift) < 40
        np.testing.assert_allclose(row[core], mean_chord(edges - shift, radius)[core], rtol=0.012)


def test_a_projection_keeps_the_whole_activity(scanner):
    image = disk(64, 60, (5, 8)) * np.random.default_rng(0).uniform(size=(64, 64)).astype(np.float32)
    totals = scanner.project(image[None])[0].sum(axis=1)
    np.testing.assert_allclose(totals, image.sum() * scanner.pixel_mm, rtol=1e-4)


def test_elements_are_the_areas_shared_by_pixel_and_strip():
    scanner = tomography.Projector(16, 16.0, angles=7)
    x, y = tomography.pixel_centres(16, 16.0)
    offsets = (np.arange(400) + 0.5) / 400 - 0.5
    for row, column in [(8, 8), (3, 10), (12, 5)]:
        image = np.zeros((1, 16, 16))
        image[0, row, column] = 1
        sinogram = scanner.project(image)[0]
        for angle, projection in zip(scanner.angles, sinogram, strict=True):
            points = (x[row, column] + offsets)[:, None] * np.cos(angle)
            points = points + (y[row, column] + offsets)[None] * np.sin(angle)
            brute, _ = np.histogram(points, bins=np.arange(17) - 8.0)
            np.testing.assert_allclose(projection, brute / points.size, atol=5e-3)


def test_back_projection_is_the_adjoint(scanner):
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(2, 64, 64))
    sinograms = rng.uniform(size=(2, len(scanner.angles), 64))
    left = np.vdot(scanner.project(x).astype(float), sinograms)
    right = np.vdot(x, scanner.back_project(sinograms).astype(float))
    assert left == pytest.approx(right, rel=1e-5)


def test_filtered_back_projection_recovers_a_disk_to_one_per_cent(scanner):
    x, y = tomography.pixel_centres(64, FIELD_MM)
    image = 7 * tomography.filtered_back_projection(scanner, scanner.project(disk(64, 50)[None]))[0]
    distance = np.hypot(x, y)
    np.testing.assert_allclose(image[distance < 40], 7, rtol=0.01)
    assert np.abs(image[(distance > 60) & scanner.inside]).max() < 0.01 * 7


def test_attenuation_of_a_disk_is_exponential(scanner):
    factors = tomography.attenuation_factors(scanner, 0.0096 * disk(64, 50)[None])[0]
    assert factors[:, 31:33] == pytest.approx(np.exp(-0.0096 * 100), rel=0.01)
    assert factors[:, 2] == pytest.approx(1)


def test_mlem_climbs_the_likelihood_and_keeps_the_counts(scanner):
    rng = np.random.default_rng(2)
    activity = disk(64, 50)[None] * 1000 + 3000 * disk(64, 9, (15, 10))[None]
    factors = 0.01 * tomography.attenuation_factors(scanner, 0.0096 * disk(64, 50)[None])
    counts = tomography.acquire(scanner, activity, factors, rng)
    likelihoods = []
    for iterations in range(1, 9):
        image = tomography.mlem(scanner, counts, factors, iterations)
        expected = (factors * scanner.project(image)).astype(float)
        possible = expected > 0
        assert expected.sum() == pytest.approx(counts.sum(), rel=1e-4)
        likelihoods.append(np.sum(counts[possible] * np.log(expected[possible])) - expected.sum())
    assert np.all(np.diff(likelihoods) > 0)


def test_mlem_recovers_activity_through_attenuation(scanner):
    x, y = tomography.pixel_centres(64, FIELD_MM)
    activity = 500 * disk(64, 50)[None]
    factors = tomography.attenuation_factors(scanner, 0.0096 * disk(64, 50)[None])
    image = tomography.mlem(scanner, factors * scanner.project(activity), factors)[0]
    assert image[np.hypot(x, y) < 35].mean() == pytest.approx(500, rel=0.01)


def test_counts_have_the_mean_and_variance_of_poisson(scanner):
    activity = np.repeat(disk(64, 50)[None], 300, axis=0)
    factors = np.full((300, len(scanner.angles), 64), 0.2, np.float32)
    counts = tomography.acquire(scanner, activity, factors, np.random.default_rng(3))
    mean = 0.2 * scanner.project(activity[:1])[0].astype(float)
    bright = mean > 1
    np.testing.assert_array_equal(counts, np.rint(counts))
    # 3,000 bins of 300 draws: the pooled ratios are known to better than 1 %.
    assert np.mean(counts.mean(axis=0)[bright] / mean[bright]) == pytest.approx(1, abs=0.01)
    assert np.mean(counts.var(axis=0, ddof=1)[bright] / mean[bright]) == pytest.approx(1, abs=0.01)


def test_slices_do_not_disturb_each_other(scanner):
    images = np.random.default_rng(4).uniform(size=(3, 64, 64))
    together = scanner.project(images)
    for k in range(3):
        np.testing.assert_array_equal(together[k], scanner.project(images[k : k + 1])[0])
