"""Nearest neighbours among features, and the balls around them, in blocks of bounded memory.

Squared distances are taken as |x|^2 - 2 x.y + |y|^2, which is fast. Those of the nearest are taken again by
difference, and so are those where rounding could decide whether a point lies in a ball: a duplicate is at
distance 0, and a point on a ball's edge lies in it.
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
        inside = _at_most(limits[rows, None], squares, rounding, centres[rows], points[columns])
        held[rows] += inside.sum(axis=1)
        holding[columns] += inside.sum(axis=0)
    return held, holding


def in_each_others_balls(
    x: np.ndarray, x_limits: np.ndarray, y: np.ndarray, y_limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each x lies in a ball around a y, and each y in one around an x.

    Parameters
    ----------
    x, y : ndarray (n, d), (m, d) float
    x_limits, y_limits : ndarray (n,), (m,) float64
        The balls' squared radii; what lies on the edge is inside.

    Returns
    -------
    x_inside : ndarray (n,) bool
    y_inside : ndarray (m,) bool
    """
    x_inside, y_inside = np.zeros(len(x), bool), np.zeros(len(y), bool)
    for rows, columns, squares, rounding in _squared_distances(x, y):
        block = squares, rounding, x[rows], y[columns]
        x_inside[rows] |= _at_most(y_limits[columns], *block).any(axis=1)
        y_inside[columns] |= _at_most(x_limits[rows, None], *block).any(axis=0)
    return x_inside, y_inside


def _at_most(
    limits: np.ndarray, squares: np.ndarray, rounding: float, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Where a block's squared distances are within limits (n, 1) or (m,), as if they were exact."""
    beyond = squares - limits
    inside: np.ndarray = beyond <= 0
    row, column = np.nonzero(np.abs(beyond, out=beyond) < rounding)
    inside[row, column] = (
        _by_difference(x, y, row, column) <= np.broadcast_to(limits, squares.shape)[row, column]
    )
    return inside


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
        row, place = np.nonzero(np.isfinite(found) & (found - rounding < best[rows, -1:]))
        found[:] = np.inf
        found[row, place] = _by_difference(query[rows], reference[columns], row, nearest[row, place])
        both = np.hstack([best[rows], found])
        both_index = np.hstack([index[rows], columns.start + nearest])
        order = np.argsort(both, axis=1, kind="stable")[:, :k]
        best[rows] = np.take_along_axis(both, order, axis=1)
        index[rows] = np.take_along_axis(both_index, order, axis=1)
    return best, index


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray, float]]:
    """Blocks of the squared distances: rows of x, rows of y, the distances, a bound of their rounding."""
    # A sum of d products is off by d units in the last place at most (Higham 2002, section 3.1). The
    # bound is in the squares of the vectors, which are smallest around their mean.
    centre, unit = column_means(y), 2 * (x.shape[1] + 4) * np.finfo(float).eps
    for rows in row_blocks(len(x)):
        a = x[rows] - centre
        a_squares = np.einsum("ij,ij->i", a, a)
        for columns in row_blocks(len(y)):
            b = a if x is y and rows == columns else y[columns] - centre  # NumPy halves the work of a a^T
            b_squares = np.einsum("ij,ij->i", b, b)
            squares = a @ b.T
            squares *= -2
            squares += a_squares[:, None]
            squares += b_squares
            yield rows, columns, squares, unit * (a_squares.max() + b_squares.max())


def _by_difference(x: np.ndarray, y: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Squared distances of the pairs (x[row], y[column])."""
    out = np.empty(len(row))
    for pairs in row_blocks(len(row)):
        difference = np.subtract(x[row[pairs]], y[column[pairs]], dtype=np.float64)
        difference *= difference
        out[pairs] = difference.sum(axis=1)
    return out
