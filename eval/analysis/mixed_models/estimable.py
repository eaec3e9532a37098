"""Whether data leave anything to fit a mixed model to: asked of the data, before any search of a likelihood.

Where effects explain the scores wholly, the likelihood has no highest point: a search climbs until rounding or its last
step stops it, and would call that a fit with an interval of hardly any width.
"""

from __future__ import annotations

import numpy as np

from cbtrain.eval.analysis.rounding import ROUNDING, independent, nought, size_of

NO_RESIDUAL = "the residual variance is at its boundary of zero"


def check_design(y: np.ndarray, design: np.ndarray) -> None:
    """``y``: float ``[rows]``; ``design``: float ``[rows, terms]``. Raises ValueError on what is not finite, on columns
    that depend on each other, and where ``design`` explains ``y`` wholly."""
    if not (np.isfinite(y).all() and np.isfinite(design).all()):
        raise ValueError("scores and design must be finite")
    if not independent(design):
        raise ValueError("columns of the design depend on each other")
    if len(y) <= design.shape[1] or nought(_beyond(y, _directions(_unit(design))), size_of(y)):
        raise ValueError("the sessions leave no variance to tell others from")


def check_groups(y: np.ndarray, design: np.ndarray, groups: np.ndarray) -> None:
    """For what has passed :func:`check_design`: raises ValueError where ``design`` and a level of its own for each of
    ``groups`` (int ``[rows]``, numbered from 0) explain ``y`` wholly."""
    # Brought to one length before levels are taken off: of an arm that a group has throughout, rounding is left.
    directions = _directions(within(_unit(design), groups))
    if len(y) <= groups.max() + 1 + directions.shape[1]:
        raise ValueError(NO_RESIDUAL)
    if nought(_beyond(within(y[:, None], groups)[:, 0], directions), size_of(y)):
        raise ValueError(NO_RESIDUAL)


def within(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """``columns`` (float ``[rows, columns]``) less their means over each of ``groups`` (int ``[rows]``, numbered from
    0). Float64 ``[rows, columns]``."""
    sums = np.zeros((groups.max() + 1, columns.shape[1]))
    np.add.at(sums, groups, columns)
    return np.asarray(columns - (sums / np.bincount(groups)[:, None])[groups])


def _unit(design: np.ndarray) -> np.ndarray:
    return np.asarray(design / np.linalg.norm(design, axis=0))


def _directions(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of what ``columns``, none longer than 1, span but for rounding. Float64 ``[rows,
    rank]``."""
    left, found, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, found > ROUNDING])


def _beyond(y: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return what ``directions`` do not explain of ``y``, float64 ``[rows]``."""
    return np.asarray(y - directions @ (directions.T @ y))
