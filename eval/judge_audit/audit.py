"""Which sessions are changed, and what their ratings tell of the rater, as plain data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from random import Random
from typing import Any

from cbtrain.eval.judge_audit.findings import Finding, shift, unratable
from cbtrain.eval.judge_audit.probes import OTHERS, PROBES, TOTAL, Probe
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession

SCHEMA = "cbtrain.audit/1"

SHARE_OF_MANY, SHARE_OF_ONE = 1 / 20, 1 / 12
"""Of the scale's range, for several domains and for one: smaller shifts count as none (3.3 of 66 points, 0.5 of 6)."""


def pick(sessions: Sequence[SimulatedSession], count: int, seed: int = 0) -> list[SimulatedSession]:
    """At most ``count`` sessions that did not fail, in their order: drawn in rounds of one a patient, so that there are
    as many patients as can be."""
    rng = Random(seed)
    by_patient: dict[str, list[SimulatedSession]] = defaultdict(list)
    for session in sessions:
        if not session.failed:
            by_patient[session.patient].append(session)
    drawn = [rng.sample(own, len(own)) for _, own in sorted(by_patient.items())]
    rng.shuffle(drawn)
    rounds = [own[turn] for turn in range(max(map(len, drawn), default=0)) for own in drawn if turn < len(own)]
    chosen = {session.id for session in rounds[:count]}
    return [session for session in sessions if session.id in chosen]


def copies(sessions: Sequence[SimulatedSession]) -> list[SimulatedSession]:
    """The changed copies; a session in which a probe finds nothing to change has none of it."""
    made = []
    for probe in PROBES:
        for session in sessions:
            turns = probe.change(session.turns)
            if turns is not None:
                made.append(replace(session, id=_id(session, probe), turns=turns))
    return made


def audit(
    sessions: Sequence[SimulatedSession], scores: Sequence[Score], rubric: Rubric, seed: int = 0
) -> list[dict[str, Any]]:
    """One entry a probe, as JSON has it, from ``scores`` of ``sessions`` and of their :func:`copies`, in any order and
    with any number of repeats. An expectation of a domain that ``rubric`` lacks is left out."""
    ratings: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        ratings[score.session_id].append(score)
    entries = []
    for probe in PROBES:
        pairs = [(one, ratings[one.id], ratings[_id(one, probe)]) for one in sessions if _id(one, probe) in ratings]
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
    """The total, of which something may be expected or not, and what else the probe expects."""
    domains, size = [domain.id for domain in rubric.domains], rubric.maximum - rubric.minimum
    findings = []
    for measure in dict.fromkeys((TOTAL, *probe.expected)):
        over = {TOTAL: domains, OTHERS: [one for one in domains if one not in probe.expected]}.get(measure, [measure])
        if not set(over) <= set(domains):
            continue
        weight = 1 if measure == TOTAL else 1 / len(over)
        values = []
        for session, own, copied in pairs:
            before, after = _value(own, over), _value(copied, over)
            if before is not None and after is not None:
                values.append((session.patient, weight * before, weight * after))
        share = SHARE_OF_MANY if measure in (TOTAL, OTHERS) else SHARE_OF_ONE
        margin = share * size * weight * len(over)
        findings.append(shift(measure, probe.expected.get(measure), values, margin, seed))
    return findings


def _value(scores: Sequence[Score], domains: Sequence[str]) -> float | None:
    """The sum over ``domains``, as the mean of the ratings that have a score in all of them; None where none has."""
    found = []
    for score in scores:
        own = [value for name in domains if (value := score.domains[name]) is not None]
        if len(own) == len(domains):
            found.append(sum(own))
    return sum(found) / len(found) if found else None


def _id(session: SimulatedSession, probe: Probe) -> str:
    return f"{session.id}#{probe.id}"
