"""A linear mixed model in which patients differ in level and in what each arm does for them:

    y = X b + u[patient] + v[patient, arm] + e

by restricted maximum likelihood, profiled over b and the residual variance (Harville 1977; Bates and others 2015,
doi:10.18637/jss.v067.i01, have the same with relative SDs as parameters). Sessions of a patient with an arm are a cell,
and all that the likelihood takes are sums over cells (Woodbury), so a step costs as much for thousands of sessions as
for tens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from cbtrain.eval.analysis.mixed_models.estimable import check_design, check_groups, within
from cbtrain.eval.analysis.mixed_models.random_intercept import Term, wald
from cbtrain.eval.analysis.rounding import ROUNDING, at_least, at_most, nought, size_of

LARGEST = 1e3
"""SDs of patients and of patients by arm are sought up to this one, in residual SDs."""

GRID = np.linspace(0.0, math.asinh(LARGEST / 0.05), 16)
"""Where the likelihood is looked at first, in the unit of the search (:func:`_sds`): SDs from 0 evenly up to some 0.05,
from there on by factors of 2."""


@dataclass(frozen=True, slots=True)
class Components:
    """Variances in squared points; ``by_arm`` is None if no patient has two sessions with an arm, and what patients
    take from an arm cannot be told from what sessions vary by, or none has two arms, and it cannot be told from their
    level."""

    patients: float
    by_arm: float | None
    residual: float


@dataclass(frozen=True, slots=True)
class RemlFit:
    """``covariance`` (float ``[terms, terms]``) is that of the fixed effects. ``log_likelihood`` is the restricted one.
    ``problem`` says what is wrong with the fit or at a boundary, and is empty for a good one."""

    terms: tuple[Term, ...]
    covariance: np.ndarray
    components: Components
    log_likelihood: float
    converged: bool
    problem: str


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of ``[X y]``: products ``[k, k]``, sums over each cell ``[cells, k]``; each cell's number of sessions, and the
    number of its patient (int ``[cells]``)."""

    products: np.ndarray
    cells: np.ndarray
    sizes: np.ndarray
    owner: np.ndarray

    def solved(self, relative: np.ndarray) -> tuple[np.ndarray, float]:
        """``[X y]' H⁻¹ [X y]`` and ``log |H|`` for the covariance H in residual variances; ``relative``: SDs."""
        patients, by_arm = relative**2
        inner = 1 + by_arm * self.sizes
        sums = np.zeros((self.owner.max() + 1, self.cells.shape[1]))
        np.add.at(sums, self.owner, self.cells / inner[:, None])
        outer = 1 + patients * np.bincount(self.owner, self.sizes / inner)
        made = self.products - by_arm * self.cells.T @ (self.cells / inner[:, None])
        made = made - patients * sums.T @ (sums / outer[:, None])
        return made, float(np.log(inner).sum() + np.log(outer).sum())


def fit_reml(
    y: np.ndarray, design: np.ndarray, names: Sequence[str], patients: np.ndarray, arms: np.ndarray
) -> RemlFit:
    """``y``: float ``[rows]``; ``design``: float ``[rows, terms]``; ``patients`` and ``arms``: ``[rows]``. 95 % Wald
    intervals. Raises ValueError on what is not finite, on a design whose columns depend on each other, and where
    nothing is left to tell variances from."""
    check_design(y, design)
    n, k = design.shape
    owners, patient = np.unique(patients, return_inverse=True)
    _, arm = np.unique(arms, return_inverse=True)
    found, cell, sizes = np.unique(patient * (arm.max() + 1) + arm, return_inverse=True, return_counts=True)
    several = bool((sizes > 1).any())
    if several and nought(within(y[:, None], cell), size_of(y)):
        raise ValueError("sessions of a patient with an arm are all equal")
    check_groups(y, design, cell if several else patient)
    # The likelihood is that of residuals with a variance of 1: then the search does not depend on the unit of y.
    level = np.linalg.lstsq(design, y, rcond=None)[0]
    unit = float(np.linalg.norm(y - design @ level)) / math.sqrt(n - k)
    sums = _sums(np.column_stack([design, (y - design @ level) / unit]), cell, sizes, found // (arm.max() + 1))
    told = several and len(found) > len(owners)
    relative, reached = _highest(sums, n, k, told)
    inverse, estimates, scale = _residual(sums, relative, n - k)
    covariance, variance = scale * unit**2 * inverse, scale * unit**2
    squares = relative**2
    problems = [] if reached else ["the likelihood's highest point was not reached"]
    if squares[0] == 0:
        problems.append("the patients' variance is at its boundary of zero")
    if told and squares[1] == 0:
        problems.append("the variance of patients by arm is at its boundary of zero")
    errors = np.sqrt(np.diag(covariance))
    effects = (estimates * unit + level).tolist()
    return RemlFit(
        terms=tuple(wald(*term) for term in zip(names, effects, errors.tolist(), strict=True)),
        covariance=covariance,
        components=Components(
            float(squares[0] * variance), float(squares[1] * variance) if told else None, float(variance)
        ),
        log_likelihood=-_deviance(sums, relative, n - k) / 2 - (n - k) * math.log(unit),
        converged=reached,
        problem="; ".join(problems),
    )


def _sds(points: np.ndarray) -> np.ndarray:
    """Return the relative SDs of ``points`` of the search: even at first, by factors later on, and 0 at 0."""
    return np.asarray(0.05 * np.sinh(points))


BEYOND = "the SD of {} is over 1,000 residual SDs, and no model is fitted beyond that"
"""Why there is no fit where the likelihood still rises at ``LARGEST``: the residual variance is there, but small."""

EFFECTS = ("patients", "patients by arm")


def _highest(sums: _Sums, n: int, k: int, told: bool) -> tuple[np.ndarray, bool]:
    """Return the relative SDs, float64 ``[2]``, with the highest likelihood, and whether all around them it is lower.
    ``told``: whether patients by arm have an SD. An SD that the likelihood does not fall without is exactly 0. Raises
    ValueError where the likelihood is as high at ``LARGEST``.

    There may be two hills, and where a search goes and stops depends on rounding. So every hill that the grid shows is
    climbed inside its own neighbourhood, and points are told apart by their deviance only, and by ``ROUNDING`` of it
    for each session."""

    def deviance(points: np.ndarray) -> float:
        return _deviance(sums, _sds(points), n - k)

    slack, by_arm = ROUNDING * n, GRID if told else GRID[:1]
    ends = [_climbed(deviance, place, by_arm) for place in _hills(deviance, by_arm, slack)]
    lowest = min(deviance(end) for end in ends)
    found = next(end for end in ends if deviance(end) <= lowest + slack)
    reached = True
    for axis in range(2 if told else 1):
        if deviance(_with(found, axis, GRID[-1])) <= lowest + slack:
            raise ValueError(BEYOND.format(EFFECTS[axis]))
        if deviance(_with(found, axis, 0.0)) <= lowest + slack:
            found = _with(found, axis, 0.0)
        beside = (_with(found, axis, max(found[axis] + step, 0.0)) for step in (-0.01, 0.01))
        reached = reached and all(deviance(points) > lowest - slack for points in beside)
    return _sds(found), reached


def _hills(deviance: Callable[[np.ndarray], float], by_arm: np.ndarray, slack: float) -> list[tuple[int, int]]:
    """Return places on the grid (of patients, of patients ``by_arm``) without a lower one beside them, and none beside
    another of them."""
    found = np.array([[deviance(np.array([one, other])) for other in by_arm] for one in GRID])
    made: list[tuple[int, int]] = []
    for row, column in np.ndindex(found.shape):
        around = found[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        beside = any(abs(row - one) < 2 and abs(column - other) < 2 for one, other in made)
        if found[row, column] <= around.min() + slack and not beside:
            made.append((row, column))
    return made


def _climbed(deviance: Callable[[np.ndarray], float], place: tuple[int, int], by_arm: np.ndarray) -> np.ndarray:
    """Return the point of the search, float64 ``[2]``, at the top of the hill around a ``place`` on the grid."""
    axes, at = (GRID, by_arm), list(place)
    points = np.array([axis[own] for axis, own in zip(axes, at, strict=True)])
    for _ in GRID:  # a bent ridge may lead on to the next place
        ends = [(axis[max(own - 1, 0)], axis[min(own + 1, len(axis) - 1)]) for axis, own in zip(axes, at, strict=True)]
        # At 0 no SD has a slope, whether it is a top or not: start beside it.
        start = [min(max(own, GRID[1] / 2), high) for own, (_, high) in zip(points, ends, strict=True)]
        options = {"ftol": 1e-13, "gtol": 1e-8}
        points = optimize.minimize(deviance, start, method="L-BFGS-B", jac="3-point", bounds=ends, options=options).x
        before = list(at)
        for axis, (low, high) in enumerate(ends):
            down, up = at_most(points[axis], low), at_least(points[axis], high)
            at[axis] = min(max(at[axis] + int(up) - int(down), 0), len(axes[axis]) - 1)
        if at == before:
            break
    return np.asarray(points)


def _with(points: np.ndarray, axis: int, value: float) -> np.ndarray:
    made = points.copy()
    made[axis] = value
    return made


def _sums(both: np.ndarray, cell: np.ndarray, sizes: np.ndarray, owner: np.ndarray) -> _Sums:
    cells = np.zeros((len(sizes), both.shape[1]))
    np.add.at(cells, cell, both)
    return _Sums(both.T @ both, cells, sizes.astype(np.float64), owner)


def _residual(sums: _Sums, relative: np.ndarray, df: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Inverse of ``X' H⁻¹ X``, fixed effects, residual variance."""
    solved, _ = sums.solved(relative)
    inverse = np.linalg.inv(solved[:-1, :-1])
    estimates = inverse @ solved[:-1, -1]
    return inverse, estimates, float(solved[-1, -1] - solved[:-1, -1] @ estimates) / df


def _deviance(sums: _Sums, relative: np.ndarray, df: int) -> float:
    """Minus twice the restricted log-likelihood, its constant included."""
    solved, determinant = sums.solved(relative)
    fixed = solved[:-1, :-1]
    left = float(solved[-1, -1] - solved[:-1, -1] @ np.linalg.solve(fixed, solved[:-1, -1]))
    if left <= 0:
        return math.inf
    scale = left / df
    return df * (math.log(2 * math.pi * scale) + 1) + determinant + float(np.linalg.slogdet(fixed)[1])
