"""Tests of a judge on sessions as they are: whether it says the same when asked again, and in another order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from cbtrain.eval.judge_audit.findings import AS_EXPECTED, NOT_EXPECTED, UNTOLD, WIDE, Finding, Verdict, shift
from cbtrain.eval.judge_audit.measures import Measure, measure_of
from cbtrain.eval.judge_audit.probes import OTHERS, TOTAL
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score

Ratings = Mapping[str, Sequence[Score]]
"""By the id of the session."""

Patients = Mapping[str, str]
"""By the id of the session."""

RETEST_SHARE = 1 / 10
"""Of the range of the total: the SD of repeated ratings from which on they are not steady (6.6 of 66 points)."""


def repeat_findings(first: Ratings, again: Ratings, patients: Patients, rubric: Rubric) -> list[Finding]:
    """Return whether a judge that is asked again says the same: what is asked first gets no more than what is asked
    later, and ratings of one session are steady."""
    total = measure_of(TOTAL, rubric)
    assert total is not None
    second = {session: scores[:1] for session, scores in again.items()}
    pairs = pairs_of(first, second, patients, total)
    margin = RETEST_SHARE * (total.scale.high - total.scale.low)
    return [shift(TOTAL, "same", pairs, total.margin, total.scale), _retest(pairs, margin, total.scale.rounding)]


def _retest(pairs: Sequence[tuple[str, float, float]], margin: float, rounding: float) -> Finding:
    """Return the SD of ratings of one session, with the interval of a variance over sessions. ``rounding``: SD of a
    difference that steps of the scale bring along; a few equal ratings do not show that there is no other."""
    differences = np.array([two - one for _, one, two in pairs])
    sd = low = high = None
    verdict: Verdict = UNTOLD
    if len(pairs) >= 2:
        variance, freedom = float(differences.var(ddof=1)) / 2, len(pairs) - 1
        sd = math.sqrt(variance)
        low = math.sqrt(freedom * variance / stats.chi2.ppf(0.975, freedom))
        high = math.sqrt(freedom * max(variance, rounding**2 / 2) / stats.chi2.ppf(0.025, freedom))
        verdict = AS_EXPECTED if high <= margin else NOT_EXPECTED if low > margin else UNTOLD
    return Finding(
        measure="SD of a rating",
        expected="small",
        sessions=len(pairs),
        patients=len({patient for patient, *_ in pairs}),
        value=sd,
        ci_low=low,
        ci_high=high,
        margin=margin,
        verdict=verdict,
        why=WIDE if verdict == UNTOLD else "",
    )


def order_findings(straight: Ratings, turned: Ratings, patients: Patients, rubric: Rubric) -> list[Finding]:
    """Return whether scores depend on the order of domains in the judge's instructions: ``turned`` are ratings with the
    last domain first. Of the first and the last domain, and of the two halves, scores when listed early are compared
    with those when listed late."""
    ids, half = rubric.ids, len(rubric.ids) // 2
    total = measure_of(TOTAL, rubric)
    assert total is not None
    findings = [shift(TOTAL, "same", pairs_of(straight, turned, patients, total), total.margin, total.scale)]
    for name, early, late in (("listed first", ids[:1], ids[-1:]), ("listed early", ids[:half], ids[-half:])):
        front, back = (Measure(OTHERS, rubric, tuple(names)) for names in (early, late))
        moved = []
        for session, patient in patients.items():
            a, b = straight.get(session, ()), turned.get(session, ())
            values = [front.of(b), back.of(a), front.of(a), back.of(b)]  # two late, two early
            known = [value for value in values if value is not None]
            if len(known) == 4:
                moved.append((patient, (known[0] + known[1]) / 2, (known[2] + known[3]) / 2))
        findings.append(shift(name, "same", moved, front.margin, front.scale))
    return findings


def turned_round(rubric: Rubric) -> Rubric:
    """Return ``rubric`` with its domains from the last to the first."""
    values = {name: getattr(rubric, name) for name in Rubric.model_fields}
    return Rubric.model_validate(values | {"domains": rubric.domains[::-1]})


def pairs_of(before: Ratings, after: Ratings, patients: Patients, measure: Measure) -> list[tuple[str, float, float]]:
    """Return patient, value before and value after of each session that has both."""
    found = []
    for session, patient in patients.items():
        one, two = measure.of(before.get(session, ())), measure.of(after.get(session, ()))
        if one is not None and two is not None:
            found.append((patient, one, two))
    return found
