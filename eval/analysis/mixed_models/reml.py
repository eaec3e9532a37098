"""A linear mixed model in which patients differ in level and in what each arm does for them:

    y = X b + u[patient] + v[patient, arm] + e

by restricted maximum likelihood, profiled over b and the residual variance (Harville 1977; Bates and others 2015,
doi:10.18637/jss.v067.i01, have the same with relative SDs as parameters). Sessions of a patient with an arm are a cell,
and all that the likelihood takes are sums over cells (Woodbury), so a step costs as much for thousands of sessions as
for tens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from cbtrain.eval.analysis.mixed_models.random_intercept import BOUNDARY, Term, wald

STARTS = ((1.0, 1.0), (0.3, 0.3), (1.0, 0.1), (0.1, 1.0))
"""SDs of patients and of patients by arm, in residual SDs, to climb the likelihood from; the best end counts."""

LARGEST = 1e3
"""Relative SDs are sought up to this one."""


@dataclass(frozen=True, slots=True)
class Components:
    """Variances in squared points; ``by_arm`` is None where no patient has two sessions with an arm, and what patients
    take from an arm cannot be told from what sessions vary by."""

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
    if not (np.isfinite(y).all() and np.isfinite(design).all()):
        raise ValueError("scores and design must be finite")
    n, k = design.shape
    if np.linalg.matrix_rank(design) < k:
        raise ValueError("columns of the design depend on each other")
    sums = _sums(np.column_stack([design, y - y.mean()]), patients, arms)
    shift = np.linalg.lstsq(design, np.full(n, y.mean()), rcond=None)[0]
    if n <= k or _residual(sums, np.zeros(2), n - k)[2] <= 1e-12 * float(y.var()):
        raise ValueError("the sessions leave no variance to tell others from")
    several = bool((sums.sizes > 1).any())
    within = sums.products[-1, -1] - float((sums.cells[:, -1] ** 2 / sums.sizes).sum())
    if several and within <= 1e-10 * sums.products[-1, -1]:
        raise ValueError("sessions of a patient with an arm are all equal")
    bounds = [(0.0, LARGEST), (0.0, LARGEST if several else 0.0)]
    ends = [
        optimize.minimize(
            lambda relative: _deviance(sums, relative, n - k),
            [start[0], start[1] if several else 0.0],
            method="L-BFGS-B",
            bounds=bounds,
            options={"ftol": 1e-12, "gtol": 1e-8},
        )
        for start in (STARTS if several else STARTS[:2])
    ]
    best = min(ends, key=lambda end: float(end.fun))
    if best.x.max() >= 0.99 * LARGEST:
        raise ValueError("the residual variance is at its boundary of zero")
    inverse, estimates, scale = _residual(sums, best.x, n - k)
    covariance = scale * inverse
    squares = best.x**2
    problems = [] if best.success else ["the likelihood's highest point was not reached"]
    if squares[0] < BOUNDARY:
        problems.append("the patients' variance is at its boundary of zero")
    if several and squares[1] < BOUNDARY:
        problems.append("the variance of patients by arm is at its boundary of zero")
    errors = np.sqrt(np.diag(covariance))
    return RemlFit(
        terms=tuple(wald(*term) for term in zip(names, (estimates + shift).tolist(), errors.tolist(), strict=True)),
        covariance=covariance,
        components=Components(float(squares[0] * scale), float(squares[1] * scale) if several else None, float(scale)),
        log_likelihood=-float(best.fun) / 2,
        converged=bool(best.success),
        problem="; ".join(problems),
    )


def _sums(both: np.ndarray, patients: np.ndarray, arms: np.ndarray) -> _Sums:
    _, patient = np.unique(patients, return_inverse=True)
    _, arm = np.unique(arms, return_inverse=True)
    found, cell, sizes = np.unique(patient * (arm.max() + 1) + arm, return_inverse=True, return_counts=True)
    cells = np.zeros((len(found), both.shape[1]))
    np.add.at(cells, cell, both)
    return _Sums(both.T @ both, cells, sizes.astype(np.float64), found // (arm.max() + 1))


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
