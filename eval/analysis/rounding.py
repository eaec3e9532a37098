"""Equal but for rounding: the one tolerance by which computed numbers are told apart.

The last digits of a sum depend on the processor (BLAS has code for each), on the order of rows and on the release of
numpy. Where something is decided by a computed number (whether patients differ, whether a model has a residual, whether
a total reaches the cut-off), decide it by these functions: then the same data give the same answer everywhere. Counts,
and scores as the table has them, are exact and need none of it.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-9
"""What is smaller than this share of the numbers that it was computed from counts as rounding.

It lies a thousand times above what rounding leaves and a thousand times below what data show. A float64 keeps 16
digits, and means, least squares and sums over ten thousand sessions lose three or four of them: rounding stays below
1e-12. Scores have steps: one point in a total of a hundred, averaged over a hundred ratings, is 1e-4 of the total, and
two such means over different numbers of ratings differ by 1e-6 at least.

Compare deviations, not sums of squares: a difference of two sums of squares has lost half of its digits already.
Deviances, which have no unit, are compared by session: their tolerance is this times the number of sessions."""


def size_of(values: np.ndarray) -> float:
    """Return the largest absolute value in ``values`` (float, any shape; what is not finite is left out), 0 if there is
    none: what the rounding of everything computed from ``values`` is measured by."""
    found = np.asarray(values, dtype=np.float64)
    return float(np.abs(found[np.isfinite(found)]).max(initial=0.0))


def nought(values: np.ndarray | float, size: float) -> bool:
    """Return whether all ``values`` (float, any shape) are 0 but for rounding; ``size``: of what they were computed
    from."""
    return size_of(np.asarray(values)) <= ROUNDING * size


def alike(values: np.ndarray, size: float = 0.0) -> bool:
    """Return whether ``values`` (float, any shape, one at least, finite) are equal but for rounding. ``size``: of what
    they were computed from, where that is larger than they are (differences of scores)."""
    return bool(np.ptp(values) <= ROUNDING * max(size, size_of(values)))


def varying(values: np.ndarray) -> np.ndarray:
    """Return which columns of ``values`` (float ``[rows, columns]``, one row at least, finite) are not :func:`alike`.
    Bool ``[columns]``."""
    return np.array([not alike(column) for column in values.T], dtype=bool)


def at_least(values: np.ndarray | float, bound: float, size: float = 0.0) -> np.ndarray:
    """Return whether each of ``values`` (float, any shape) lies at ``bound`` but for rounding, or above. Bool, of the
    shape of ``values``. ``size`` as :func:`alike` has it."""
    return np.asarray(values) >= bound - ROUNDING * max(size, abs(bound))


def at_most(values: np.ndarray | float, bound: float, size: float = 0.0) -> np.ndarray:
    """Return whether each of ``values`` (float, any shape) lies at ``bound`` but for rounding, or below. Bool, of the
    shape of ``values``. ``size`` as :func:`alike` has it."""
    return at_least(-np.asarray(values), -bound, size)


def merged(values: np.ndarray) -> np.ndarray:
    """``values`` (float, any shape) with those that are equal but for rounding made equal, so that ranks and levels
    have the ties that the data have. NaN stays NaN. Float64, of the same shape."""
    found = np.array(values, dtype=np.float64)
    flat = found.reshape(-1)
    known = np.flatnonzero(np.isfinite(flat))
    order = known[np.argsort(flat[known], kind="stable")]
    if len(order):
        ascending = flat[order]
        first = np.concatenate([[True], np.diff(ascending) > ROUNDING * size_of(ascending)])
        flat[order] = ascending[first][np.cumsum(first) - 1]
    return flat.reshape(found.shape)


def independent(columns: np.ndarray) -> bool:
    """Return whether no column of ``columns`` (float ``[rows, columns]``, finite) is a sum of multiples of the others
    but for rounding. Columns are brought to one length first: their units do not matter."""
    lengths = np.linalg.norm(columns, axis=0)
    if columns.shape[0] < columns.shape[1] or not (lengths > 0).all():
        return False
    return bool(np.linalg.svd(columns / lengths, compute_uv=False).min(initial=1.0) > ROUNDING)
