"""Nearest neighbours among features, and the balls around them, in blocks of bounded memory.

Squared distances are taken as |x|^2 - 2 x.y + |y|^2, which is fast, and again by difference wherever the
rounding of that sum could decide: which are the nearest, whether a point lies in a ball. So a duplicate is
at distance 0, and a point on a ball's edge lies in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.blocks import column_means, row_blocks
from petgan.metrics.checks import check_same_width, checked_features


def nearest_distances(
    query: np.ndarray,
    reference: np.ndarray,
    query_groups: np.ndarray | None = None,
    reference_groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance of each query to its nearest reference, and which that is.

    Parameters
    ----------
    query, reference : ndarray (n, d), (m, d)
    query_groups, reference_groups : ndarray (n,), (m,), optional
        Pairs of the same group do not count; so patients are compared with other patients only.

    Returns
    -------
    distance : ndarray (n,) float64
        Infinite where no reference counts.
    index : ndarray (n,) int
        Into `reference`.

    Raises
    ------
    ConfigError
        If the arrays are of another kind.
    """
    query = checked_features("query", query, at_least=1)
    reference = checked_features("reference", reference, at_least=1)
    check_same_width(reference, query)
    squares, index = _k_nearest(query, reference, 1, query_groups, reference_groups)
    return np.sqrt(squares[:, 0]), index[:, 0]


def squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance (n,) float64 of each point to its k-th nearest other; duplicates are others, too.

    Parameters
    ----------
    points : ndarray (n, d) float
    k : int
        1 to n - 1.

    Raises
    ------
    ConfigError
        If there are not as many neighbours.
    """
    if not 1 <= k < len(points):
        raise ConfigError(
            "impossible k", value=k, allowed=f"1 to {len(points) - 1}, one less than the samples"
        )
    oneself = np.arange(len(points))
    return _k_nearest(points, points, k, oneself, oneself)[0][:, -1]


def ball_counts(centres: np.ndarray, limits: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many points each ball holds, and how many balls hold each point.

    Parameters
    ----------
    centres : ndarray (n, d) float
    limits : ndarray (n,) float64
        The balls' squared radii; what lies on the edge is held.
    points : ndarray (m, d) float

    Returns
    -------
    held : ndarray (n,) int
    holding : ndarray (m,) int
    """
    held, holding = np.zeros(len(centres), int), np.zeros(len(points), int)
    for rows, columns, squares, rounding in _squared_distances(centres, points):
        beyond = squares - limits[rows, None]
        inside = beyond <= 0
        row, column = np.nonzero(np.abs(beyond) < rounding)
        exact = _by_difference(centres[rows], points[columns], row, column)
        inside[row, column] = exact <= limits[rows][row]
        held[rows] += inside.sum(axis=1)
        holding[columns] += inside.sum(axis=0)
    return held, holding


def _k_nearest(
    query: np.ndarray,
    reference: np.ndarray,
    k: int,
    query_groups: np.ndarray | None,
    reference_groups: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (n, k), in order, and places in `reference`; pairs of one group do not count."""
    best = np.full((len(query), k), np.inf)
    index = np.zeros((len(query), k), int)
    for rows, columns, squares, rounding in _squared_distances(query, reference):
        if query_groups is not None and reference_groups is not None:
            squares[query_groups[rows, None] == reference_groups[None, columns]] = np.inf
        count = min(k, squares.shape[1])
        nearest = np.sort(np.argpartition(squares, count - 1, axis=1)[:, :count], axis=1)
        found = np.take_along_axis(squares, nearest, axis=1)
        row, place = np.nonzero(
            np.isfinite(found) & (found - np.take_along_axis(rounding, nearest, axis=1) < best[rows, -1:])
        )
        found[:] = np.inf
        found[row, place] = _by_difference(query[rows], reference[columns], row, nearest[row, place])
        both = np.hstack([best[rows], found])
        both_index = np.hstack([index[rows], columns.start + nearest])
        order = np.argsort(both, axis=1, kind="stable")[:, :k]
        best[rows] = np.take_along_axis(both, order, axis=1)
        index[rows] = np.take_along_axis(both_index, order, axis=1)
    return best, index


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray]]:
    """Blocks of the squared distances: rows of x, rows of y, the distances, a bound of their rounding."""
    # A sum of d products is off by d units in the last place at most (Higham 2002, section 3.1). The
    # bound is in the squares of the vectors, which are smallest around their mean.
    centre, unit = column_means(y), 2 * (x.shape[1] + 4) * np.finfo(float).eps
    for rows in row_blocks(len(x)):
        a = x[rows] - centre
        a_squares = np.einsum("ij,ij->i", a, a)
        for columns in row_blocks(len(y)):
            b = y[columns] - centre
            sums = a_squares[:, None] + np.einsum("ij,ij->i", b, b)
            yield rows, columns, sums - 2 * (a @ b.T), unit * sums


def _by_difference(x: np.ndarray, y: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Squared distances of the pairs (x[row], y[column])."""
    out = np.empty(len(row))
    for pairs in row_blocks(len(row)):
        difference = x[row[pairs]].astype(np.float64) - y[column[pairs]]
        out[pairs] = np.sum(difference**2, axis=1)
    return out
