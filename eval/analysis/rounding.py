"""Comparisons of computed numbers that are equal but for rounding, with one tolerance.

The last digits of a sum depend on the processor (BLAS has code for each), on the order of rows and on the release of
numpy. If a computed number decides something (whether patients differ, whether a model has a residual, whether a total
reaches the cut-off), decide it with these functions: the same data then give the same answer on every machine. Counts,
and scores as the table has them, are exact and need no tolerance.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-9
"""Relative tolerance: a number that is smaller than this, relative to the numbers it was computed from, is rounding.

It is a thousand times larger than rounding errors and a thousand times smaller than differences in data. A float64 has
16 digits, and means, least squares and sums over ten thousand sessions lose three or four of them: rounding stays below
1e-12. Scores have steps: one point in a total of a hundred, averaged over a hundred ratings, is 1e-4 of the total, and
two such means over different numbers of ratings differ by at least 1e-6.

Compare deviations, not sums of squares: a difference of two sums of squares has already lost half of its digits.
Deviances have no unit; their tolerance is this times the number of sessions."""


LEAST_SPREAD = 1e4 * ROUNDING
"""Share of their size by which scores that differ have to differ. A step is a hundredth of what they spread over, and a
mean of a hundred of them a hundredth of a step: smaller shares come too near to ``ROUNDING``."""

DIGITS = 1e-12
"""Share of their size by which scores that are equal may differ, as sums of the same decimal fractions do."""


def size_of(values: np.ndarray) -> float:
    """Return the largest absolute value in ``values`` (float, any shape; NaN and infinities are left out), 0 if there
    is none. The rounding of numbers computed from ``values`` is relative to it."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def nought(values: np.ndarray | float, size: float) -> bool:
    """Return whether all ``values`` (float, any shape) are 0 but for rounding. ``size``: largest absolute value of the
    numbers they were computed from."""
    return size_of(np.asarray(values)) <= ROUNDING * size


def alike(values: np.ndarray, size: float = 0.0) -> bool:
    """Return whether ``values`` (float, any shape, not empty, finite) are all equal but for rounding. ``size``: largest
    absolute value of the numbers they were computed from, if that is larger than they are (differences of scores)."""
    return bool(np.ptp(values) <= ROUNDING * max(size, size_of(values)))


def too_close(values: np.ndarray) -> bool:
    """Return whether ``values`` (float, any shape; what is not finite is left out) differ, but by so little of their
    size that differences between means of them can be taken for rounding: a number was added to all of them."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    spread = float(np.ptp(finite)) if finite.size else 0.0
    return DIGITS * size_of(finite) < spread < LEAST_SPREAD * size_of(finite)


def varying(values: np.ndarray) -> np.ndarray:
    """Return which columns of ``values`` (float ``[rows, columns]``, at least one row, finite) are not :func:`alike`.
    Bool ``[columns]``."""
    return np.array([not alike(column) for column in values.T], dtype=bool)


def at_least(values: np.ndarray | float, bound: float, size: float = 0.0) -> np.ndarray:
    """Return whether each of ``values`` (float, any shape) is above ``bound``, or equal to it but for rounding. Bool,
    of the shape of ``values``. ``size`` as in :func:`alike`."""
    return np.asarray(values) >= bound - ROUNDING * max(size, abs(bound))


def at_most(values: np.ndarray | float, bound: float, size: float = 0.0) -> np.ndarray:
    """Return whether each of ``values`` (float, any shape) is below ``bound``, or equal to it but for rounding. Bool,
    of the shape of ``values``. ``size`` as in :func:`alike`."""
    return at_least(-np.asarray(values), -bound, size)


def merged(values: np.ndarray) -> np.ndarray:
    """Return ``values`` (float, any shape) with those that are equal but for rounding made equal, so that ranks and
    levels have the ties of the data. NaN stays NaN. Float64, of the same shape."""
    copy = np.array(values, dtype=np.float64)
    flat = copy.reshape(-1)
    finite = np.flatnonzero(np.isfinite(flat))
    order = finite[np.argsort(flat[finite], kind="stable")]
    if len(order):
        ascending = flat[order]
        starts_level = np.concatenate([[True], np.diff(ascending) > ROUNDING * size_of(ascending)])
        flat[order] = ascending[starts_level][np.cumsum(starts_level) - 1]
    return flat.reshape(copy.shape)


def independent(columns: np.ndarray) -> bool:
    """Return whether the columns of ``columns`` (float ``[rows, columns]``, finite) are linearly independent beyond
    rounding. They are scaled to length 1 first, so their units do not matter."""
    lengths = np.linalg.norm(columns, axis=0)
    if columns.shape[0] < columns.shape[1] or not (lengths > 0).all():
        return False
    return bool(np.linalg.svd(columns / lengths, compute_uv=False).min(initial=1.0) > ROUNDING)
