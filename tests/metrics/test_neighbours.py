from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from petgan.errors import ConfigError
from petgan.metrics import blocks, nearest_distances
from petgan.metrics.neighbours import ball_counts, squared_radii

random = np.random.default_rng(4)


@pytest.mark.parametrize("rows", [2, 1024])
def test_nearest_distances_equal_brute_force(monkeypatch, rows):
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", rows)
    query, reference = random.normal(size=(7, 5)), random.normal(size=(9, 5))
    distance, index = nearest_distances(query, reference)
    everything = cdist(query, reference)
    np.testing.assert_allclose(distance, everything.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(index, everything.argmin(axis=1))


def test_pairs_of_one_group_do_not_count():
    points = random.normal(size=(8, 3))
    groups = np.repeat(np.arange(4), 2)
    everything = cdist(points, points)
    everything[groups[:, None] == groups[None]] = np.inf
    distance, index = nearest_distances(points, points, groups, groups)
    np.testing.assert_allclose(distance, everything.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(index, everything.argmin(axis=1))
    assert np.isinf(nearest_distances(points, points, np.zeros(8), np.zeros(8))[0]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_distance_of_a_copy_is_exactly_zero_far_from_the_origin(dtype):
    reference = (random.normal(size=(5, 4)) + 1e6).astype(dtype)
    distance, index = nearest_distances(reference[[3]], reference)
    assert (distance[0], index[0]) == (0, 3)


@pytest.mark.parametrize("rows", [2, 3, 1024])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_radii_reach_the_kth_neighbour_whatever_the_blocks(monkeypatch, rows, k):
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", rows)
    points = random.normal(size=(11, 4))
    expected = np.sort(cdist(points, points), axis=1)[:, k]  # column 0 is the point itself
    np.testing.assert_allclose(squared_radii(points, k), expected**2, rtol=1e-12)


def test_duplicates_are_neighbours():
    points = np.repeat(random.normal(size=(3, 6)) + 100, 3, axis=0)
    assert (squared_radii(points, 2) == 0).all()
    assert (squared_radii(points, 3) > 1e-3).all()


@pytest.mark.parametrize("rows", [2, 5, 1024])
def test_a_point_on_the_edge_is_in_the_ball(monkeypatch, rows):
    # Each point is, as the k-th neighbour, on the edge of some ball; expanded squares are off.
    monkeypatch.setattr(blocks, "ROWS_AT_ONCE", rows)
    points = random.normal(size=(20, 30)) + 10
    for k in (1, 4):
        held, holding = ball_counts(points, squared_radii(points, k), points)
        assert (held == k + 1).all()
        assert holding.sum() == 20 * (k + 1)


def test_a_point_just_beyond_the_edge_is_not():
    centre, edge = random.normal(size=(2, 1, 30)) + 10
    limit = np.sum((centre - edge) ** 2, axis=1)
    assert ball_counts(centre, limit, edge)[0] == 1
    assert ball_counts(centre, np.nextafter(limit, 0), edge)[0] == 0


def test_counts_of_a_lattice_are_exact():
    # Within the square root of 2 lie 9 points of one inside, 6 of one at an edge, 4 of one in a corner.
    y, x = np.mgrid[:5, :5]
    lattice = np.column_stack([y.ravel(), x.ravel()])
    held, holding = ball_counts(lattice, np.full(25, 2.0), lattice.astype(float))
    inside = ((lattice > 0) & (lattice < 4)).sum(axis=1)
    np.testing.assert_array_equal(held, np.array([4, 6, 9])[inside])
    np.testing.assert_array_equal(holding, held)


@pytest.mark.parametrize("k", [0, 4])
def test_there_must_be_a_kth_neighbour(k):
    with pytest.raises(ConfigError, match="impossible k: got .; allowed: 1 to 3"):
        squared_radii(np.zeros((4, 2)), k)
