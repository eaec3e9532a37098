"""The data of the transcript browser: all sessions in one shape, as JSON that no transcript can break out of."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbtrain.eval.report.arm_looks import arms_in, looks_of
from cbtrain.eval.report.flags import FLAGS
from cbtrain.eval.report.schema.analysis import PanelPart
from cbtrain.eval.report.schema.fields import words
from cbtrain.eval.report.schema.questionnaire import ReportAnswers
from cbtrain.eval.report.schema.report import Report, ReportDomain, ReportRating, ReportSession, ReportTurn

FOLDER = Path(__file__).parent
SCRIPTS = ("browser_data.js", "browser_filters.js", "browser_reading.js", "browser_comparison.js", "browser.js")
"""In this order: each may use what those before it name."""
ASKED = (
    "model", "finish_reason", "request", "prompt_tokens", "cached_tokens", "completion_tokens", "latency_s", "seed",
)  # fmt: skip
"""Facts of a turn that have a place of their own."""
ALL = "All ratings, mean"
KNOWN = {flag.id: flag for flag in FLAGS}


def browser_script() -> str:
    """Return the browser's parts as one script: a page with one script needs one hash in its security policy."""
    parts = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def browser_data(report: Report) -> dict[str, Any]:
    """Return sessions with arms and ratings as indices; scores, evidence and reasons are in the order of the domains.

    What only an open session needs (dialogue, ratings) is JSON in a text of its own (``body``), parsed when the session
    is opened: with hundreds of sessions the list must not wait for their words.
    """
    scale, sessions = report.scale, report.sessions
    turns = [turn for session in sessions for turn in session.turns]
    words_of = {name: distinct(turn.facts.get(name) for turn in turns) for name in ("model", "finish_reason")}
    arms = {arm.name: index for index, arm in enumerate(report.arms)}
    raters = _raters(sessions)
    return {
        "low": scale.low,
        "high": scale.high,
        "totalHigh": scale.total_high,
        "arms": _arms(report),
        "domains": [domain.name for domain in scale.domains],
        "raters": list(raters.values()),
        "meanLabel": _mean_label(report.analysis.panel),
        "models": words_of["model"],
        "reasons": words_of["finish_reason"],
        "requests": report.requests,
        "flags": [{"name": name, "meaning": meaning} for name, meaning in _flags(sessions).items()],
        "sessions": [
            _describe_session(session, patient, arms.get(session.arm), scale.domains, list(raters), words_of)
            for session, patient in zip(sessions, _patients(sessions), strict=True)
        ],
    }


def _arms(report: Report) -> list[dict[str, Any]]:
    """Return name, label, base (empty if it is not known) and look of each arm."""
    looks, bases = looks_of(report), {arm.name: arm.base for arm in arms_in(report)}
    return [
        {"name": arm.name, "label": arm.label, "base": bases[arm.name], **asdict(looks[arm.name])}
        for arm in report.arms
    ]


def _mean_label(panel: PanelPart) -> str:
    """Return the name of a session's own scores: the mean over all judges or over the primary ones, or the scores of
    pooled judges without their severity."""
    if panel.pooled:
        return "Judges pooled, severity taken off" if panel.linked else "Judges pooled: no common score"
    return f"Mean, {', '.join(panel.judges)}" if panel.secondary else ALL


def patient_name(session: ReportSession) -> str:
    return session.patient_name or session.patient or "patient not recorded"


def place_of(session: ReportSession) -> str:
    """Return the seed of a session, with its number in the course and who played the patient if they are known."""
    number = f"session {session.number}" if session.number else ""
    simulator = f"simulator {session.simulator}" if session.simulator else ""
    return ", ".join(filter(None, (words(session.seed), number, simulator)))


def flag_names(session: ReportSession) -> list[str]:
    """Return the session's flags by name; a flag that is not known is shown as it is."""
    return [KNOWN[flag].name if flag in KNOWN else flag for flag in session.flags if flag]


def _patients(sessions: Sequence[ReportSession]) -> list[str]:
    """Return each session's patient by name; if two patients share a name, with the id."""
    ids: dict[str, set[str]] = defaultdict(set)
    for session in sessions:
        ids[patient_name(session)].add(session.patient)
    return [
        f"{name} ({session.patient or 'no id'})" if len(ids[name]) > 1 else name
        for session, name in zip(sessions, map(patient_name, sessions), strict=True)
    ]


def _raters(sessions: Sequence[ReportSession]) -> dict[tuple[str, str], str]:
    """Return the name of each judge and repeat, judge by judge; repeats are named only if there are several."""
    pairs = dict.fromkeys(_rater(rating) for session in sessions for rating in session.ratings)
    judges = [judge for judge, _ in pairs]
    repeats = Counter(judges)
    return {
        (judge, repeat): f"{judge}, repeat {repeat or 'not recorded'}" if repeats[judge] > 1 else judge
        for judge, repeat in sorted(pairs, key=lambda pair: judges.index(pair[0]))
    }


def _rater(rating: ReportRating) -> tuple[str, str]:
    return rating.judge or "judge not recorded", words(rating.repeat)


def _flags(sessions: Sequence[ReportSession]) -> dict[str, str]:
    """Return the meaning of every flag; a flag that only a session names has none here."""
    meanings = {flag.name: flag.meaning for flag in FLAGS}
    for session in sessions:
        for name in flag_names(session):
            meanings.setdefault(name, "")
    return meanings


def _describe_session(
    session: ReportSession,
    patient: str,
    arm: int | None,
    domains: Sequence[ReportDomain],
    raters: Sequence[tuple[str, str]],
    words_of: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    asked = [_describe_asked(turn, words_of) for turn in session.turns]
    body = {
        "turns": [_describe_turn(turn) for turn in session.turns],
        "asked": asked if any(asked) else [],
        "scores": [session.domains.get(domain.id) for domain in domains],
        **({"answers": _describe_answers(session.answers)} if session.answers else {}),
        **{name: getattr(session, name) for name in ("begins_with", "summary") if getattr(session, name)},
        "ratings": [
            {"rater": raters.index(_rater(rating)), **_describe_rating(rating, domains, len(session.turns))}
            for rating in session.ratings
        ],
    }
    return {
        "id": session.id,
        "arm": arm,
        "patient": patient,
        "seed": place_of(session),
        "ending": (session.ending or "").replace("_", " ") or "ending not recorded",
        "error": session.error or "",
        "status": session.status,
        "total": session.total,
        "length": len(session.turns),
        "flags": flag_names(session),
        "body": json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
    }


def _describe_turn(turn: ReportTurn) -> dict[str, Any]:
    described: dict[str, Any] = {"role": turn.role, "text": turn.text}
    if turn.raw is not None:  # what stands before and after the turn's words; the whole, if they are not in it
        before, inside, after = turn.raw.partition(turn.text) if turn.text else (turn.raw, "", "")
        described["raw"] = [before, after] if inside else [turn.raw]
    return described


def _describe_asked(turn: ReportTurn, words_of: Mapping[str, Sequence[str]]) -> list[Any] | None:
    """Return the facts of a turn in the order of :data:`ASKED`, words as indices, and behind them a table of all others
    if there are some; None if nothing is known."""
    if not turn.facts:
        return None
    facts = {**turn.facts, "request": turn.request}
    values = [facts.pop(name, None) for name in ASKED]
    for place, name in enumerate(("model", "finish_reason")):
        values[place] = words_of[name].index(str(values[place])) if values[place] is not None else None
    if facts.get("attempts") == 1:
        del facts["attempts"]
    return [*values, facts] if facts else values


def distinct(values: Iterable[object]) -> list[str]:
    """Return the different texts in ``values``, in their order."""
    return list(dict.fromkeys(str(value) for value in values if value is not None))


def _describe_rating(rating: ReportRating, domains: Sequence[ReportDomain], turns: int) -> dict[str, Any]:
    return {
        "status": rating.status,
        "error": rating.reason.get("error", ""),
        "note": rating.reason.get("note", ""),
        "total": rating.total,
        "scores": [rating.domains.get(domain.id) for domain in domains],
        "evidence": [_existing(rating.evidence, domain.id, turns) for domain in domains],
        "reasons": [rating.reason.get(domain.id, "") for domain in domains],
    }


def _describe_answers(answers: ReportAnswers) -> dict[str, Any]:
    return {
        "problem": answers.problem,
        "means": [[name.replace("_", " "), mean] for name, mean in answers.means.items()],
        "words": answers.own_words,
    }


def _existing(evidence: Mapping[str, Sequence[int]], domain: str, turns: int) -> list[int]:
    """Return the indices of turns that exist, in order."""
    return sorted({index for index in evidence.get(domain, ()) if 0 <= index < turns})
