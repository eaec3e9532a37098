"""A pair of answers as a line of a file, schema ``cbtrain.pair/1``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cbtrain.transcripts.types import Session, Turn

PAIR_SCHEMA = "cbtrain.pair/1"

SYSTEM = "system"
"""The fact that holds the system prompt with which the prompt was answered."""


def pair_line(session: Session, id: str) -> dict[str, Any]:
    """Return the record of ``session``, which is a pair (:func:`cbtrain.transcripts.preference.pair_session`)."""
    preference = session.preference
    assert preference is not None
    facts = {name: text for name, text in session.facts.items() if name != SYSTEM}
    record = {
        "schema": PAIR_SCHEMA,
        "id": id,
        "patient": session.patient or session.course,
        "prompt": _said(session.turns[: preference.begin]),
        "chosen": _said(session.turns[preference.begin :]),
        "rejected": _said(preference.rejected),
        "weight": preference.weight,
    }
    system = {SYSTEM: session.facts[SYSTEM]} if session.facts.get(SYSTEM) else {}
    return record | system | ({"facts": facts} if facts else {})


def _said(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "text": turn.text} for turn in turns]
