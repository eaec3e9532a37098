"""Describe a judge by its ratings of sessions and of their changed copies, as plain data."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from cbtrain.eval.judge_audit.asked_again import order_findings, pairs_of, repeat_findings
from cbtrain.eval.judge_audit.findings import (
    AS_EXPECTED,
    NOT_EXPECTED,
    UNTOLD,
    Finding,
    Verdict,
    shift,
    too_near,
    unratable,
)
from cbtrain.eval.judge_audit.impressions import generosity_findings, halo_findings, top_share
from cbtrain.eval.judge_audit.measures import Measure, measure_of
from cbtrain.eval.judge_audit.probes import (
    AS_GIVEN,
    KINDS,
    OTHERS,
    PROBES,
    REMOVED,
    RUINED,
    TOTAL,
    Copy,
    Expected,
    Probe,
    probes_of,
)
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession

SCHEMA = "cbtrain.audit/2"
"""2: tests by kind with a verdict each; t intervals over patients; several new probes. 1 had ``probes`` only."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The ratings of a judge. ``first``: the originals, before anything else; ``again``: the same once more or several
    times, along with the copies, which are compared with these; ``turned``: with the domains in the reverse order;
    ``copied``: the copies."""

    first: Sequence[Score] = ()
    again: Sequence[Score] = ()
    turned: Sequence[Score] = ()
    copied: Sequence[Score] = ()

    @property
    def all(self) -> list[Score]:
        return [*self.first, *self.again, *self.turned, *self.copied]


@dataclass(frozen=True, slots=True)
class Audited:
    """What is audited: the ``originals``, their ``copies``, the rubric, the domains that match each aspect, and the
    kinds of tests."""

    originals: Sequence[SimulatedSession]
    copies: Sequence[Copy]
    rubric: Rubric
    matching: Mapping[str, Sequence[str]]
    kinds: Sequence[str] = tuple(KINDS)


def audit(audited: Audited, asked: Asked) -> list[dict[str, Any]]:
    """Return one JSON entry for each probe, from ratings in any order and with any number of repeats."""
    return sorted(_Comparison(audited, asked).entries(), key=lambda entry: list(KINDS).index(entry["kind"]))


NO_ROOM = "all sessions lie too near an end of the scale"


class _Comparison:
    """Ratings of originals and copies, by session. Copies are compared with the later ratings of the originals, which
    were asked for along with them."""

    def __init__(self, audited: Audited, asked: Asked) -> None:
        self.audited, self.rubric = audited, audited.rubric
        self.patients = {session.id: session.patient for session in audited.originals}
        self.first, self.turned = _by_session(asked.first), _by_session(asked.turned)
        self.again = _by_session(asked.again or asked.first)
        self.copied = _by_session(asked.copied)
        self.copies: dict[str, list[Copy]] = defaultdict(list)
        for copy in audited.copies:
            self.copies[copy.probe].append(copy)

    def entries(self) -> list[dict[str, Any]]:
        kinds, again, patients, rubric = self.audited.kinds, self.again, self.patients, self.rubric
        entries = [self._of_probe(probe) for probe in probes_of(kinds)]
        if "repeat" in kinds:
            found = repeat_findings(self.first, again, patients, rubric)
            entries.append(_entry("repeat", "the same session, asked again", found))
        if "order" in kinds and self.turned:
            found = order_findings(again, self.turned, patients, rubric)
            entries.append(_entry("order", "domains listed from the last to the first", found))
        if "halo" in kinds:
            found = halo_findings(again, self._others_where_one_was_removed(), patients, rubric)
            entries.append(_entry("halo", "one impression in all domains", found))
        if "generosity" in kinds:
            worst = {copy.original: self.copied[copy.session.id] for copy in self.copies[RUINED]}
            found = generosity_findings(again, worst, patients, rubric)
            entries.append(
                _entry("generosity", "how high scores are", found, share_at_the_top=top_share(again, rubric))
            )
        return entries

    def _of_probe(self, probe: Probe) -> dict[str, Any]:
        rated = [copy for copy in self.copies[probe.id] if self.copied.get(copy.session.id)]
        statuses = Counter(score.status for copy in rated for score in self.copied[copy.session.id])
        if probe.kind == "nothing":
            findings = [unratable(statuses, len(rated), len({self.patients[copy.original] for copy in rated}))]
        elif probe.kind == "blind":
            findings = [self._blind(rated)]
        else:
            findings = self._shifts(probe, rated)
        return _entry(
            probe.id,
            probe.text,
            findings,
            kind=probe.kind,
            copies=len(rated),
            nothing_to_change=len(self.audited.originals[: probe.most]) - len(self.copies[probe.id]),
            ways=dict(Counter(copy.way for copy in rated)),
            words_added=sum(copy.words for copy in rated) / len(rated) if rated else None,
            statuses=dict(statuses),
            matched=list(self._matched(probe)) if probe.aspect else None,
        )

    def _matched(self, probe: Probe) -> Sequence[str]:
        return self.audited.matching.get(probe.aspect or "", ())

    def _shifts(self, probe: Probe, copies: Sequence[Copy]) -> list[Finding]:
        """Return findings on the total and on every other measure that the probe has an expectation for."""
        matched = self._matched(probe)
        wanted: dict[str, Expected | None] = {AS_GIVEN: probe.given} if probe.given else {TOTAL: probe.total}
        wanted |= dict.fromkeys(matched, "falls")
        if probe.others and matched:
            wanted[OTHERS] = probe.others
        findings = []
        for name, expected in wanted.items():
            measure = measure_of(name, self.rubric, matched)
            if measure is None:
                continue
            taken = _by_words(copies) if name == OTHERS else copies
            if name == OTHERS and not taken:
                expected, taken = None, copies
            seen = self._with_room(taken, measure, expected)
            found = shift(name, expected, self._pairs(seen, measure), measure.margin, measure.scale)
            if left_out := len(taken) - len(seen):
                found = replace(found, no_room=left_out, why=found.why if seen else NO_ROOM)
            if probe.kind == "length" and found.shift is not None and (words := sum(copy.words for copy in taken)) > 0:
                found = replace(found, per_100_words=100 * found.shift / (words / len(taken)))
            findings.append(found)
        return findings

    def _with_room(self, copies: Sequence[Copy], measure: Measure, expected: Expected | None) -> list[Copy]:
        """Return the copies of sessions in which a move that is looked for could be seen. The first asking decides it,
        with which copies are not compared: an unlucky rating must not choose its own session."""
        before = {copy.original: measure.of(self.first.get(copy.original, ())) for copy in copies}
        return [
            copy
            for copy in copies
            if expected is None
            or (value := before[copy.original]) is None
            or not too_near(expected, value, measure.margin, measure.scale)
        ]

    def _pairs(self, copies: Sequence[Copy], measure: Measure) -> list[tuple[str, float, float]]:
        """Return patient, value of the original and value of the copy, of each copy that has both."""
        patients = {copy.original: self.patients[copy.original] for copy in copies}
        copied = {copy.original: self.copied[copy.session.id] for copy in copies}
        return pairs_of(self.again, copied, patients, measure)

    def _others_where_one_was_removed(self) -> list[tuple[str, float, float]]:
        """Return the others' values before and after one thing was left out."""
        found = []
        for probe in PROBES:
            measure = measure_of(OTHERS, self.rubric, self._matched(probe))
            if probe.id in REMOVED and self._matched(probe) and measure is not None:
                found += self._pairs(_by_words(self.copies[probe.id]), measure)
        return found

    def _blind(self, copies: Sequence[Copy]) -> Finding:
        """Return whether the names of arm, patient and session reach the judge. The requests tell it: they have to be
        the same, letter by letter. Of a judge that sends none, scores have to be the same."""
        alike, what = [], "scores"
        for copy in copies:
            known = [*self.first.get(copy.original, ()), *self.again.get(copy.original, ())]
            renamed = self.copied[copy.session.id]
            sent = [_requests(scores) for scores in (known, renamed)]
            if all(sent):
                alike.append(bool(sent[0] & sent[1]))
                what = "requests"
            else:
                alike.append(any(score.domains == other.domains for score in known for other in renamed))
        verdict: Verdict = UNTOLD if not alike else AS_EXPECTED if all(alike) else NOT_EXPECTED
        patients = len({self.patients[copy.original] for copy in copies})
        return Finding(measure=what, expected="same", sessions=len(alike), patients=patients, verdict=verdict)


def _by_words(copies: Sequence[Copy]) -> list[Copy]:
    """Return the copies in which words were found. Where a part of the session was cut, other domains lose what they
    rest on, too."""
    return [copy for copy in copies if copy.way != "structure"]


def _requests(scores: Sequence[Score]) -> set[str]:
    """Return digests of the requests to a judge."""
    return {request.partition("/")[0] for score in scores for request in score.requests}


def _by_session(scores: Sequence[Score]) -> dict[str, list[Score]]:
    ratings: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        ratings[score.session_id].append(score)
    return ratings


def _entry(name: str, text: str, findings: Sequence[Finding], **more: Any) -> dict[str, Any]:
    copies = max((finding.sessions for finding in findings), default=0)
    plain = [asdict(finding) for finding in findings]
    return {"probe": name, "kind": name, "text": text, "copies": copies, **more, "findings": plain}
