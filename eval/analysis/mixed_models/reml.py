"""A linear mixed model in which patients differ in level and in the effect of each arm on them:

    y = X b + u[patient] + v[patient, arm] + e

It is fitted by restricted maximum likelihood, profiled over b and the residual variance (Harville 1977), with SDs
relative to the residual SD as parameters (Bates and others 2015, doi:10.18637/jss.v067.i01). The sessions of a patient
with an arm are a *cell*. The likelihood needs sums over cells only (Woodbury identity), so a step costs as much for
thousands of sessions as for tens.

Symbols: ``n`` rows, ``k`` fixed effects, H the covariance of y divided by the residual variance. ``relative``: the two
relative SDs, of patients and of patients by arm, float64 ``[2]``.
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
"""Largest relative SD that the search allows."""

GRID = np.linspace(0.0, math.asinh(LARGEST / 0.05), 16)
"""Grid on which the search begins, in its own coordinate (:func:`_relative_sds`): relative SDs in even steps from 0 to
about 0.05, then by factors of 2."""

EFFECTS = ("patients", "patients by arm")
"""Names of the two relative SDs, in the order of their coordinates."""

BEYOND = "the SD of {} is over 1,000 residual SDs, and no model is fitted beyond that"
"""Message if the likelihood still rises at ``LARGEST``: there is a residual variance, but it is too small."""

Point = np.ndarray
"""Coordinates of the search, float64 ``[2]``: patients, patients by arm."""

Deviance = Callable[[Point], float]


@dataclass(frozen=True, slots=True)
class Components:
    """Variances in squared points. ``by_arm`` is None if it cannot be separated from another: from ``residual`` if no
    patient has two sessions with an arm, from ``patients`` if no patient has two arms."""

    patients: float
    by_arm: float | None
    residual: float


@dataclass(frozen=True, slots=True)
class RemlFit:
    """``covariance`` (float64 ``[k, k]``) of the fixed effects ``terms``. ``log_likelihood``: the restricted one.
    ``problem``: what is wrong with the fit, or which variance is at its boundary; empty for a good fit."""

    terms: tuple[Term, ...]
    covariance: np.ndarray
    components: Components
    log_likelihood: float
    converged: bool
    problem: str


@dataclass(frozen=True, slots=True)
class _CellSums:
    """What the likelihood needs of Z = [X y], whose last column is y.

    ``products``: Z'Z, float64 ``[k + 1, k + 1]``. ``sums``: of the rows of each cell, float64 ``[cells, k + 1]``.
    ``sizes``: rows of each cell, float64 ``[cells]``. ``patient``: number of each cell's patient, int ``[cells]``.
    """

    products: np.ndarray
    sums: np.ndarray
    sizes: np.ndarray
    patient: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray, cell: np.ndarray, sizes: np.ndarray, patient: np.ndarray) -> _CellSums:
        """Return the sums of ``columns``, Z of ``[rows, k + 1]``; ``cell``: number of each row's cell, int
        ``[rows]``."""
        sums = np.zeros((len(sizes), columns.shape[1]))
        np.add.at(sums, cell, columns)
        return cls(columns.T @ columns, sums, sizes.astype(np.float64), patient)

    def solve(self, relative: np.ndarray) -> tuple[np.ndarray, float]:
        """Return Z' H⁻¹ Z, float64 ``[k + 1, k + 1]``, and ln |H|."""
        patients_variance, by_arm_variance = relative**2
        # Woodbury twice: first patients by arm, a block for each cell, then patients, a block for each patient.
        cell_factor = 1 + by_arm_variance * self.sizes
        patient_sums = np.zeros((self.patient.max() + 1, self.sums.shape[1]))
        np.add.at(patient_sums, self.patient, self.sums / cell_factor[:, None])
        patient_factor = 1 + patients_variance * np.bincount(self.patient, self.sizes / cell_factor)
        solved = self.products - by_arm_variance * self.sums.T @ (self.sums / cell_factor[:, None])
        solved = solved - patients_variance * patient_sums.T @ (patient_sums / patient_factor[:, None])
        return solved, float(np.log(cell_factor).sum() + np.log(patient_factor).sum())


def fit_reml(
    y: np.ndarray, design: np.ndarray, names: Sequence[str], patients: np.ndarray, arms: np.ndarray
) -> RemlFit:
    """Return the fit, with 95 % Wald intervals of the fixed effects.

    ``y``: float ``[rows]``; ``design``: float ``[rows, k]``, its columns called ``names``; ``patients`` and ``arms``:
    ``[rows]``. Raises ValueError if a value is not finite, if columns of the design depend on each other, if nothing
    is left to estimate the variances from, or if an SD is beyond ``LARGEST``.
    """
    check_design(y, design)
    n, k = design.shape
    patient_names, patient = np.unique(patients, return_inverse=True)
    _, arm = np.unique(arms, return_inverse=True)
    arm_count = arm.max() + 1
    cell_codes, cell, sizes = np.unique(patient * arm_count + arm, return_inverse=True, return_counts=True)
    repeated = bool((sizes > 1).any())
    if repeated and nought(within(y[:, None], cell), size_of(y)):
        raise ValueError("sessions of the same patient and arm all have the same total")
    check_groups(y, design, cell if repeated else patient)
    # Fit the residuals of least squares, scaled to a variance of 1: the search then does not depend on the unit of y.
    least_squares = np.linalg.lstsq(design, y, rcond=None)[0]
    unit = float(np.linalg.norm(y - design @ least_squares)) / math.sqrt(n - k)
    sums = _CellSums.of(
        np.column_stack([design, (y - design @ least_squares) / unit]), cell, sizes, cell_codes // arm_count
    )
    has_by_arm = repeated and len(cell_codes) > len(patient_names)
    relative, converged = _maximize(sums, n, k, has_by_arm)
    inverse, effects, scaled_variance = _fixed_effects(sums, relative, n - k)
    residual = scaled_variance * unit**2
    covariance = scaled_variance * unit**2 * inverse
    patients_ratio, by_arm_ratio = relative**2
    problems = [] if converged else ["the maximum of the likelihood was not reached"]
    if patients_ratio == 0:
        problems.append("the patients' variance is at its boundary of zero")
    if has_by_arm and by_arm_ratio == 0:
        problems.append("the variance of patients by arm is at its boundary of zero")
    estimates = (effects * unit + least_squares).tolist()
    errors = np.sqrt(np.diag(covariance)).tolist()
    return RemlFit(
        terms=tuple(wald(*term) for term in zip(names, estimates, errors, strict=True)),
        covariance=covariance,
        components=Components(
            patients=float(patients_ratio * residual),
            by_arm=float(by_arm_ratio * residual) if has_by_arm else None,
            residual=float(residual),
        ),
        log_likelihood=-_deviance(sums, relative, n - k) / 2 - (n - k) * math.log(unit),
        converged=converged,
        problem="; ".join(problems),
    )


def _relative_sds(point: Point) -> np.ndarray:
    """Return the relative SDs at ``point``: 0 at 0, about linear up to 0.05, then exponential."""
    return np.asarray(0.05 * np.sinh(point))


def _maximize(sums: _CellSums, n: int, k: int, has_by_arm: bool) -> tuple[np.ndarray, bool]:
    """Return the relative SDs of the highest likelihood, and whether the likelihood is lower all around them.

    ``has_by_arm``: whether patients by arm have an SD. An SD is exactly 0 if the likelihood without it is as high.
    Raises ValueError if the likelihood at ``LARGEST`` is as high.

    The likelihood may have two maxima, and where a search ends depends on rounding. So a search starts from every
    local minimum of the deviance on the grid, and two deviances count as equal within ``ROUNDING`` per session.
    """

    def deviance(point: Point) -> float:
        return _deviance(sums, _relative_sds(point), n - k)

    tolerance, by_arm_grid = ROUNDING * n, GRID if has_by_arm else GRID[:1]
    minima = [_descend(deviance, indices, by_arm_grid) for indices in _grid_minima(deviance, by_arm_grid, tolerance)]
    lowest = min(deviance(point) for point in minima)
    best = next(point for point in minima if deviance(point) <= lowest + tolerance)
    converged = True
    for axis in range(2 if has_by_arm else 1):
        if deviance(_moved(best, axis, GRID[-1])) <= lowest + tolerance:
            raise ValueError(BEYOND.format(EFFECTS[axis]))
        if deviance(_moved(best, axis, 0.0)) <= lowest + tolerance:
            best = _moved(best, axis, 0.0)
        neighbours = (_moved(best, axis, max(best[axis] + step, 0.0)) for step in (-0.01, 0.01))
        converged = converged and all(deviance(point) > lowest - tolerance for point in neighbours)
    return _relative_sds(best), converged


def _grid_minima(deviance: Deviance, by_arm_grid: np.ndarray, tolerance: float) -> list[tuple[int, int]]:
    """Return the indices in (``GRID``, ``by_arm_grid``) of the local minima on the grid; of adjacent minima, the first
    only."""
    values = np.array([[deviance(np.array([patients, by_arm])) for by_arm in by_arm_grid] for patients in GRID])
    minima: list[tuple[int, int]] = []
    for row, column in np.ndindex(values.shape):
        neighbourhood = values[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        adjacent = any(abs(row - other[0]) < 2 and abs(column - other[1]) < 2 for other in minima)
        if values[row, column] <= neighbourhood.min() + tolerance and not adjacent:
            minima.append((row, column))
    return minima


def _descend(deviance: Deviance, start: tuple[int, int], by_arm_grid: np.ndarray) -> Point:
    """Return the local minimum of the deviance around the grid point with the indices ``start``.

    Each search is confined to the neighbouring grid points. If it ends at one of these bounds, the next search is
    centred there.
    """
    axes, centre = (GRID, by_arm_grid), list(start)
    point = np.array([axis[index] for axis, index in zip(axes, centre, strict=True)])
    for _ in GRID:  # a curved valley may lead through several neighbourhoods
        bounds = [
            (axis[max(index - 1, 0)], axis[min(index + 1, len(axis) - 1)])
            for axis, index in zip(axes, centre, strict=True)
        ]
        # Relative SDs enter squared, so the slope at 0 is always 0: start next to it.
        inside = [min(max(coordinate, GRID[1] / 2), high) for coordinate, (_, high) in zip(point, bounds, strict=True)]
        options = {"ftol": 1e-13, "gtol": 1e-8}
        point = optimize.minimize(deviance, inside, method="L-BFGS-B", jac="3-point", bounds=bounds, options=options).x
        before = list(centre)
        for axis, (low, high) in enumerate(bounds):
            down, up = at_most(point[axis], low), at_least(point[axis], high)
            centre[axis] = min(max(centre[axis] + int(up) - int(down), 0), len(axes[axis]) - 1)
        if centre == before:
            break
    return np.asarray(point)


def _moved(point: Point, axis: int, value: float) -> Point:
    """Return ``point`` with ``value`` as its coordinate ``axis``."""
    moved = point.copy()
    moved[axis] = value
    return moved


def _fixed_effects(sums: _CellSums, relative: np.ndarray, df: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (X' H⁻¹ X)⁻¹, float64 ``[k, k]``, the fixed effects, ``[k]``, and the residual variance."""
    solved, _ = sums.solve(relative)
    inverse = np.linalg.inv(solved[:-1, :-1])
    effects = inverse @ solved[:-1, -1]
    return inverse, effects, float(solved[-1, -1] - solved[:-1, -1] @ effects) / df


def _deviance(sums: _CellSums, relative: np.ndarray, df: int) -> float:
    """Return −2 times the restricted log-likelihood, profiled, its constant included; infinite if nothing is left for
    the residual variance. ``df``: n − k."""
    solved, log_determinant = sums.solve(relative)
    fixed = solved[:-1, :-1]
    residual_squares = float(solved[-1, -1] - solved[:-1, -1] @ np.linalg.solve(fixed, solved[:-1, -1]))
    if residual_squares <= 0:
        return math.inf
    variance = residual_squares / df
    return df * (math.log(2 * math.pi * variance) + 1) + log_determinant + float(np.linalg.slogdet(fixed)[1])
