"""Print a session: its dialogue with the facts of each turn, and what was asked for it word for word."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cbtrain.eval.report.formatting import counted
from cbtrain.eval.simulation.runner import MARKS
from cbtrain.providers.exchanges.reading import Exchange
from cbtrain.study.run_files import REQUESTS
from cbtrain.study.session_log.sessions import LoggedSession, LoggedTurn, Requests

TITLE, FACTS, WORDS, RAW = "bold", "cyan", None, "dim"
"""Styles of lines on a terminal."""

Line = tuple[str, str | None]
"""A line, or several, and its style."""

SHOWN_ELSEWHERE = {
    "model", "prompt_tokens", "completion_tokens", "cached_tokens", "latency_s", "attempts", "finish_reason", "seed",
    "requests", "system", "raw", "drawn", "role",
}  # fmt: skip
"""Facts that have words of their own, or are long."""

INDENT = "    "


def session_text(session: LoggedSession, requests: Requests | None, only: int | None = None) -> Iterator[Line]:
    """Yield the lines of ``session``, of its turn ``only`` (from 1) if that is given. ``requests``: to print them,
    too."""
    yield _title(session), TITLE
    if requests is not None and requests.damaged:
        yield f"note: {counted(requests.damaged, 'request')} of it cannot be read: damaged lines in {REQUESTS}", FACTS
    if session.other_turns and only is None:
        yield f"note: {counted(session.other_turns, 'turn')} said under other settings are in the journal, too", FACTS
    for turn in session.turns:
        if only in (None, turn.index + 1):
            yield "", None
            yield f"[{turn.index + 1}] {turn.role} · {_facts(turn.facts)}", FACTS
            yield turn.text, WORDS
            if requests is not None:
                yield from _raw_turn(session, turn, requests)
    if only is not None:
        return
    if session.unsaid or session.error:
        yield "", None
        role = session.unsaid.get("role", "")
        yield " · ".join(filter(None, [f"no turn {role}".strip(), _facts(session.unsaid), session.error])), FACTS
        if requests is not None:
            unsaid = LoggedTurn(len(session.turns), role, "", session.unsaid, [])
            yield from _raw_turn(session, unsaid, requests)
    if session.summary is not None:
        yield "", None
        yield f"summary, with which the next session begins · {_facts(session.summary.facts)}", FACTS
        yield session.summary.text, WORDS
        if requests is not None:
            yield from _raw_turn(session, session.summary, requests)
    for answered in session.questionnaires:
        yield "", None
        yield from _questionnaire(answered, requests)
    for rating in session.ratings:
        yield "", None
        yield from _rating(rating, requests)


def _title(session: LoggedSession) -> str:
    parts = [f"session {session.id}"]
    parts += [f"therapist {session.arm}"] if session.arm else []
    parts += [f"patient {session.patient}"] if session.patient else []
    parts += [f"seed {session.seed}"] if session.seed is not None else []
    return " · ".join([*parts, counted(len(session.turns), "turn"), f"ending: {session.ending or 'not ended'}"])


def _facts(facts: Mapping[str, Any]) -> str:
    """Return the facts of a turn in words."""
    if not facts:
        return "no facts recorded"
    if facts.get("written"):
        return "written beforehand, asked of no model"
    parts = [str(facts.get("model", "this machine"))]
    prompt, answer, cached = (facts.get(f"{name}_tokens") for name in ("prompt", "completion", "cached"))
    if prompt is not None or answer is not None:
        tokens = f"{prompt or 0:,} prompt + {answer or 0:,} answer tokens"
        parts.append(tokens + (f" ({cached:,} cached)" if cached else ""))
    if facts.get("attempts") == 0:
        parts.append("kept answer, not asked again")
    elif "latency_s" in facts:
        parts.append(f"{facts['latency_s']:g} s")
    if facts.get("attempts", 0) > 1:
        parts.append(f"{facts['attempts']} attempts")
    parts += [f"finish reason {facts['finish_reason']}"] if "finish_reason" in facts else []
    parts += [f"seed {facts['seed']}"] if "seed" in facts else []
    for name, value in facts.items():
        if name not in SHOWN_ELSEWHERE:
            note = MARKS.get(name)
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{name.replace('_', ' ')} {shown}" + (f" ({note})" if note else ""))
    return " · ".join(parts)


def _raw_turn(session: LoggedSession, turn: LoggedTurn, requests: Requests) -> Iterator[Line]:
    if "model" in turn.facts or turn.requests:
        yield from _exchanges(turn.requests, requests)
    elif turn.facts and not turn.facts.get("written"):
        yield from _local(session, turn)
    elif turn.text and not turn.facts:
        yield _indented("nothing but the words was recorded (an older version of cbtrain)"), RAW


def _exchanges(names: Sequence[str], requests: Requests) -> Iterator[Line]:
    exchanges = list(requests.of(list(names)))
    if not names:
        yield _indented("its request was not recorded (an older version of cbtrain)"), RAW
    elif not requests.kept:
        yield _indented(f"there is no {REQUESTS}: providers.keep_requests was false, or it was deleted"), RAW
    elif not exchanges:
        yield _indented(f"its request is not in {REQUESTS}: not kept at the time, or lost in a crash"), RAW
    for exchange in exchanges:
        yield from _exchange(exchange)


def _exchange(exchange: Exchange) -> Iterator[Line]:
    number = "kept answer" if exchange.reused else f"attempt {exchange.attempt}"
    yield _indented(f"{number} · {exchange.time} · POST {exchange.url}"), FACTS
    body = exchange.body
    yield _indented("its body is damaged" if body is None else json.dumps(body, ensure_ascii=False, indent=2)), RAW
    if exchange.answer is not None:
        yield _indented("nothing was sent; the answer kept for this request was taken:"), FACTS
        yield _indented(json.dumps(exchange.answer, ensure_ascii=False, indent=2)), RAW
        return
    seconds = "" if exchange.seconds is None else f" after {exchange.seconds:g} s"
    headers = "".join(f" · {name}: {value}" for name, value in exchange.headers.items())
    came = "no reply" if exchange.status is None else f"HTTP {exchange.status}"
    yield _indented(f"{came}{seconds}{headers}"), FACTS
    if exchange.reply is not None:
        yield _indented(exchange.reply), RAW
    if exchange.problem:
        yield _indented(exchange.problem), FACTS


def _local(session: LoggedSession, turn: LoggedTurn) -> Iterator[Line]:
    facts, system = turn.facts, session.system_of(turn.role)
    yield _indented("on this machine; it was given the turns above, after this system prompt:"), FACTS
    yield _indented("(not recorded)" if system is None else system or "(none)"), RAW
    if sampling := session.settings_of(turn.role).get("sampling"):
        yield _indented("sampling: " + json.dumps(sampling, ensure_ascii=False)), FACTS
    prompt, cached = facts.get("prompt_tokens"), facts.get("cached_tokens")
    if prompt is not None:
        yield _indented(f"prompt: {prompt:,} tokens, {cached or 0:,} of them cached"), FACTS
    if "raw" in facts:
        yield _indented("it wrote:"), FACTS
        yield _indented(str(facts["raw"])), RAW
    ids = facts.get("drawn") or turn.ids
    yield _indented(f"tokens drawn: {' '.join(map(str, ids))}" if ids else "tokens drawn: not recorded"), RAW


def _questionnaire(answered: Mapping[str, Any], requests: Requests | None) -> Iterator[Line]:
    facts, problem = answered["facts"], answered["problem"]
    yield " · ".join(filter(None, [f"questionnaire · {answered['status']}", _facts(facts), problem])), FACTS
    for item, answer in (answered["answers"] or {}).items():
        yield f"{item}: {answer}", WORDS
    if requests is None:
        return
    if "model" in facts or facts.get("requests"):
        yield from _exchanges(facts.get("requests", []), requests)
    elif "raw" in facts:
        yield _indented(f"on this machine; it wrote: {facts['raw']}"), RAW


def _rating(rating: Mapping[str, Any], requests: Requests | None) -> Iterator[Line]:
    yield f"rating by {rating['judge']}, repeat {rating['repeat']} · {rating['status']}", FACTS
    reasons = rating.get("reason", {})
    for domain, score in rating["domains"].items():
        why = f" · {reasons[domain]}" if reasons.get(domain) else ""
        yield f"{domain}: {'n/a' if score is None else f'{score:g}'}{why}", WORDS
    for name in ("note", "error"):
        if reasons.get(name):
            yield f"{name}: {reasons[name]}", WORDS
    if requests is not None:
        yield from _exchanges(rating.get("requests", []), requests)


def _indented(text: str) -> str:
    return "\n".join(INDENT + line for line in text.split("\n"))


def session_json(session: LoggedSession, requests: Requests | None, only: int | None = None) -> dict[str, Any]:
    """Return what :func:`session_text` prints as one JSON object."""

    def raw(names: list[str]) -> dict[str, Any]:
        return {} if requests is None else {"exchanges": [asdict(exchange) for exchange in requests.of(names)]}

    turns = [
        {"turn": turn.index + 1, "role": turn.role, "text": turn.text, "facts": turn.facts, "ids": turn.ids}
        | raw(turn.requests)
        for turn in session.turns
        if only in (None, turn.index + 1)
    ]
    whole: dict[str, Any] = {**summary_json(session), "error": session.error, "turns": turns}
    if only is None:
        unsaid = session.unsaid.get("requests", [])
        whole["unsaid"] = {"facts": session.unsaid} | raw(unsaid) if session.unsaid else None
        if session.summary is not None:
            facts = session.summary.facts
            whole["summary"] = {"text": session.summary.text, "facts": facts} | raw(session.summary.requests)
        whole["questionnaires"] = [one | raw(one["facts"].get("requests", [])) for one in session.questionnaires]
        whole["ratings"] = [dict(rating) | raw(rating.get("requests", [])) for rating in session.ratings]
    if requests is not None:
        roles = ("patient", "therapist")
        whole["system"] = {role: session.system_of(role) for role in roles}
        whole["sampling"] = {role: session.settings_of(role).get("sampling") for role in roles}
        whole["requests"] = {"kept": requests.kept, "damaged": requests.damaged}
    return whole


def summary_json(session: LoggedSession) -> dict[str, Any]:
    """Return one row of the list of sessions."""
    return {
        "session": session.id,
        "arm": session.arm,
        "patient": session.patient,
        "seed": session.seed,
        "length": len(session.turns),
        "ending": session.ending,
    }
