"""Compare arms with the patient as the unit: sessions of one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cbtrain.eval.scores import Score

FEW_PATIENTS = 6


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """Means over rated sessions; ``n_failed`` counts ratings without a total. SD with n − 1; None where undefined."""

    name: str
    n: int
    n_failed: int
    total_mean: float | None
    total_sd: float | None
    domain_means: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Contrast:
    """``estimate`` is the mean over patients of ``a − b``; None marks a gap that ``note`` explains."""

    id: str
    estimate: float | None
    se: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    method: str
    n_patients: int
    note: str


def summarize(scores: Sequence[Score]) -> list[ArmSummary]:
    """One summary an arm, in the order in which arms first appear."""
    summaries = []
    for arm in dict.fromkeys(score.arm for score in scores):
        own = [score for score in scores if score.arm == arm]
        totals = [score.total for score in own if score.total is not None]
        domains = own[0].domains
        means = {d: _mean([v for s in own if (v := s.domains.get(d)) is not None]) for d in domains}
        sd = float(np.std(totals, ddof=1)) if len(totals) > 1 else None
        summaries.append(ArmSummary(arm, len(totals), len(own) - len(totals), _mean(totals), sd, means))
    return summaries


def paired_contrast(scores: Sequence[Score], a: str, b: str) -> Contrast:
    """``a − b`` on the total: averaged inside each patient, differences between arms, a t interval over patients."""
    first, second = _patient_means(scores, a), _patient_means(scores, b)
    both = sorted(first.keys() & second.keys())
    differences = np.array([first[p] - second[p] for p in both])
    method = "mean over patients of the paired difference, 95 % t interval"
    name, n = f"{a} − {b}", len(both)
    alone = len(first.keys() ^ second.keys())
    unrated = {arm: sum(s.arm == arm and s.total is None for s in scores) for arm in (a, b)}
    notes = [f"ratings without a total, left out: {a} {unrated[a]}, {b} {unrated[b]}"] if any(unrated.values()) else []
    notes += [f"{alone} patients have a score in one arm only and are left out"] if alone else []
    if n == 0:
        return Contrast(name, None, None, None, None, None, method, 0, "; ".join(["no patient in both arms", *notes]))
    estimate = float(differences.mean())
    if n == 1:
        notes.insert(0, "one patient: no interval can be given")
        return Contrast(name, estimate, None, None, None, None, method, 1, "; ".join(notes))
    if n < FEW_PATIENTS:
        smallest = 2 / 2**n
        notes.append(f"{n} patients: a wide interval; an exact sign-flip test cannot give p below {smallest:g}")
    se = float(differences.std(ddof=1) / math.sqrt(n))
    if se == 0:
        notes.append("all patients differ by the same amount: the interval is a point and p is not defined")
        return Contrast(name, estimate, 0.0, estimate, estimate, None, method, n, "; ".join(notes))
    margin = float(stats.t.ppf(0.975, n - 1)) * se
    p = float(stats.ttest_1samp(differences, 0).pvalue)
    return Contrast(name, estimate, se, estimate - margin, estimate + margin, p, method, n, "; ".join(notes))


def _patient_means(scores: Sequence[Score], arm: str) -> dict[str, float]:
    totals: dict[str, list[float]] = {}
    for score in scores:
        if score.arm == arm and score.total is not None:
            totals.setdefault(score.patient, []).append(score.total)
    return {patient: sum(values) / len(values) for patient, values in totals.items()}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
