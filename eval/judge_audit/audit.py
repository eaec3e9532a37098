"""Choose and change sessions, and describe the rater by their ratings, as plain data."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from random import Random
from typing import Any

from cbtrain.eval.judge_audit.findings import Finding, shift, unratable
from cbtrain.eval.judge_audit.probes import OTHERS, PROBES, TOTAL, Probe
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession

SCHEMA = "cbtrain.audit/1"

SHARE_OF_MANY, SHARE_OF_ONE = 1 / 20, 1 / 12
"""Of the scale's range, for several domains and for one: smaller shifts count as none (3.3 of 66 points, 0.5 of 6)."""


def pick(sessions: Sequence[SimulatedSession], count: int, seed: int = 0) -> list[SimulatedSession]:
    """Return at most ``count`` sessions that did not fail and can be rated, in their order, of as many patients as
    possible: they are drawn in rounds of one per patient."""
    rng = Random(seed)
    by_patient: dict[str, list[SimulatedSession]] = defaultdict(list)
    for session in sessions:
        if not session.failed and not why_unratable(session.turns):
            by_patient[session.patient].append(session)
    drawn = [rng.sample(patient_sessions, len(patient_sessions)) for _, patient_sessions in sorted(by_patient.items())]
    rng.shuffle(drawn)
    rounds = [session for round_ in itertools.zip_longest(*drawn) for session in round_ if session is not None]
    chosen = {session.id for session in rounds[:count]}
    return [session for session in sessions if session.id in chosen]


def copies(sessions: Sequence[SimulatedSession]) -> list[SimulatedSession]:
    """Return the changed copies; none for a probe that finds nothing to change in a session."""
    changed = []
    for probe in PROBES:
        for session in sessions:
            turns = probe.change(session.turns)
            if turns is not None:
                changed.append(replace(session, id=_id(session, probe), turns=turns))
    return changed


def audit(
    sessions: Sequence[SimulatedSession], scores: Sequence[Score], rubric: Rubric, seed: int = 0
) -> list[dict[str, Any]]:
    """Return one JSON entry per probe, from ``scores`` of ``sessions`` and of their :func:`copies`, in any order and
    with any number of repeats. An expectation of a domain that ``rubric`` lacks is left out."""
    ratings: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        ratings[score.session_id].append(score)
    entries = []
    for probe in PROBES:
        pairs = [
            (original, ratings[original.id], ratings[_id(original, probe)])
            for original in sessions
            if _id(original, probe) in ratings
        ]
        statuses = Counter(score.status for _, _, copied in pairs for score in copied)
        if probe.expected:
            findings = _shifts(probe, pairs, rubric, seed)
        else:
            findings = [unratable(statuses, len(pairs), len({session.patient for session, _, _ in pairs}))]
        entries.append(
            {
                "probe": probe.id,
                "text": probe.text,
                "copies": len(pairs),
                "nothing_to_change": len(sessions) - len(pairs),
                "statuses": dict(statuses),
                "findings": [asdict(finding) for finding in findings],
            }
        )
    return entries


def _shifts(
    probe: Probe, pairs: Sequence[tuple[SimulatedSession, list[Score], list[Score]]], rubric: Rubric, seed: int
) -> list[Finding]:
    """Return findings on the total and on every other measure that the probe has an expectation for."""
    domains, size = [domain.id for domain in rubric.domains], rubric.maximum - rubric.minimum
    findings = []
    for measure in dict.fromkeys((TOTAL, *probe.expected)):
        over = {TOTAL: domains, OTHERS: [domain for domain in domains if domain not in probe.expected]}.get(
            measure, [measure]
        )
        if not set(over) <= set(domains):
            continue
        weight = 1 if measure == TOTAL else 1 / len(over)
        values = []
        for session, original_scores, copy_scores in pairs:
            before, after = _value(original_scores, over), _value(copy_scores, over)
            if before is not None and after is not None:
                values.append((session.patient, weight * before, weight * after))
        share = SHARE_OF_MANY if measure in (TOTAL, OTHERS) else SHARE_OF_ONE
        margin = share * size * weight * len(over)
        findings.append(shift(measure, probe.expected.get(measure), values, margin, seed))
    return findings


def _value(scores: Sequence[Score], domains: Sequence[str]) -> float | None:
    """Return the sum over ``domains``, as the mean of the ratings with a score in all of them; None if none has."""
    sums = []
    for score in scores:
        values = [value for name in domains if (value := score.domains[name]) is not None]
        if len(values) == len(domains):
            sums.append(sum(values))
    return sum(sums) / len(sums) if sums else None


def _id(session: SimulatedSession, probe: Probe) -> str:
    return f"{session.id}#{probe.id}"
