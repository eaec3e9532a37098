"""Tests of a judge on its ratings as they are: halo, and generosity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from cbtrain.eval.analysis.agreement.coefficients import halo_draws
from cbtrain.eval.analysis.resampling import percentile_interval
from cbtrain.eval.analysis.rounding import alike, varying
from cbtrain.eval.judge_audit.asked_again import Patients, Ratings
from cbtrain.eval.judge_audit.findings import (
    AS_EXPECTED,
    NOT_EXPECTED,
    UNTOLD,
    WIDE,
    Finding,
    Verdict,
    interval_of,
    shift,
)
from cbtrain.eval.judge_audit.measures import Measure, measure_of
from cbtrain.eval.judge_audit.probes import OTHERS
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score

HIGH_LEVEL = 3 / 4
"""Of the way from the lowest to the highest point: ruined sessions above it are rated too high."""

FEWEST_DOMAINS = 4
"""With fewer domains, equal scores in all of them are ordinary."""

STUDY_R = 0.514
"""Mean correlation of domains of the judge of the 2024 study."""

DRAWS = 2_000


def generosity_findings(originals: Ratings, worst: Ratings, patients: Patients, rubric: Rubric) -> list[Finding]:
    """Return whether sessions with several faults get high scores: the mean of all domains of ``worst``, whose interval
    has to lie below three quarters of the scale; and of the originals, which say nothing by themselves."""
    every = Measure(OTHERS, rubric, tuple(rubric.ids))
    margin = rubric.minimum + HIGH_LEVEL * (rubric.maximum - rubric.minimum)
    findings = []
    for name, ratings in (("mean domain, originals", originals), ("mean domain, ruined", worst)):
        values = [
            (patient, value)
            for session, patient in patients.items()
            if (value := every.of(ratings.get(session, ()))) is not None
        ]
        interval = interval_of(values, every.scale.rounding)
        judged = ratings is worst
        verdict: Verdict = UNTOLD
        if interval.low is not None and interval.high is not None and interval.unit == "patients":
            verdict = AS_EXPECTED if interval.high <= margin else NOT_EXPECTED if interval.low > margin else UNTOLD
        findings.append(
            Finding(
                measure=name,
                expected="not high" if judged else None,
                sessions=len(values),
                patients=len({patient for patient, _ in values}),
                value=float(np.mean([value for _, value in values])) if values else None,
                ci_low=interval.low,
                ci_high=interval.high,
                unit=interval.unit,
                margin=margin if judged else None,
                verdict=verdict if judged else None,
                why="no interval below or above the line" if judged and verdict == UNTOLD else "",
            )
        )
    return findings


def top_share(originals: Ratings, rubric: Rubric) -> float | None:
    """Return the share of scores of the originals that are the highest point (of reversed domains, the lowest)."""
    keyed = [
        rubric.keying.keyed(name, value)
        for scores in originals.values()
        for score in scores
        for name, value in score.domains.items()
        if value is not None
    ]
    return sum(value >= rubric.maximum for value in keyed) / len(keyed) if keyed else None


def halo_findings(
    originals: Ratings, removed: Sequence[tuple[str, float, float]], patients: Patients, rubric: Rubric
) -> list[Finding]:
    """Return whether one impression fills all domains: how domains correlate over sessions, how often one number stands
    in all of them, and how far other domains moved where one thing was ``removed`` (patient, before, after)."""
    rows = {session: _row(originals.get(session, ()), rubric) for session in patients}
    values = np.array([row for row in rows.values() if row is not None])
    count, of = len(values), len({patients[session] for session, row in rows.items() if row is not None})
    others = measure_of(OTHERS, rubric)
    assert others is not None
    margin = others.margin
    return [
        _correlation(values, count, of),
        _one_number(values, count, of),
        shift("others, one removed", "same", removed, margin, others.scale),
    ]


def _row(scores: Sequence[Score], rubric: Rubric) -> list[float] | None:
    found = [Measure(name, rubric, (name,)).of(scores) for name in rubric.ids]
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def _correlation(values: np.ndarray, sessions: int, patients: int) -> Finding:
    """Return the mean correlation of domains, with a bootstrap interval over sessions; no verdict: good sessions are
    good in several domains."""
    mean = low = high = None
    if sessions >= 3 and varying(values).sum() >= 2:
        counts = np.random.default_rng(0).multinomial(sessions, np.full(sessions, 1 / sessions), size=DRAWS)
        weights = np.concatenate([np.ones((1, sessions)), counts.astype(np.float64)])
        _, draws, _ = halo_draws(values, weights)
        resampled = draws[1:][np.isfinite(draws[1:])]
        mean = float(draws[0]) if math.isfinite(draws[0]) else None
        if mean is not None and len(resampled) and not alike(resampled, 1.0):
            low, high = percentile_interval(resampled)
    return Finding(
        measure="mean r of domains",
        expected=None,
        sessions=sessions,
        patients=patients,
        value=mean,
        ci_low=low,
        ci_high=high,
        why=f"the judge of the 2024 study: {STUDY_R:.3f}",
    )


def _one_number(values: np.ndarray, sessions: int, patients: int) -> Finding:
    """Return the share of sessions with one number in all domains: to be less than a half. No verdict where sessions do
    not differ at all, since then nothing fills domains but habit."""
    verdict, why = UNTOLD, "too few domains" if sessions and values.shape[1] < FEWEST_DOMAINS else WIDE
    share = low = high = None
    if sessions:
        flat = int(sum(alike(row) for row in values))
        share = flat / sessions
        interval = stats.binomtest(flat, sessions).proportion_ci()
        low, high = float(interval.low), float(interval.high)
        if alike(values):
            why = "all scores of all sessions are the same"
        elif values.shape[1] >= FEWEST_DOMAINS:
            verdict = AS_EXPECTED if high < 0.5 else NOT_EXPECTED if low > 0.5 else UNTOLD
    return Finding(
        measure="share with one number",
        expected="small",
        sessions=sessions,
        patients=patients,
        value=share,
        ci_low=low,
        ci_high=high,
        margin=0.5,
        verdict=verdict,
        why=why if verdict == UNTOLD else "",
    )
