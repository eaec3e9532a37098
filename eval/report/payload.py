"""What the transcript browser reads: the sessions in one regular shape, as JSON that no transcript can break out of."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from cbtrain.eval.report.shape import Report, Scale, arms_of, rater_of, rows, scale_of, table, words
from cbtrain.eval.report.values import number

# Inside <script> a parser ends at "</script", wavers at "<!--"; old ones end a line at U+2028 and U+2029.
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def script_json(value: object) -> Markup:
    """JSON for a ``<script type="application/json">`` element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(ESCAPES))


def browser_data(report: Report) -> dict[str, Any]:
    """Sessions with arms as indices, scores and evidence in the order of the domains."""
    scale, arms = scale_of(report), arms_of(report)
    places = {arm["name"]: place for place, arm in enumerate(arms)}
    return {
        "rater": rater_of(report),
        "low": scale.low,
        "high": scale.high,
        "totalHigh": scale.total_high,
        "arms": [arm["label"] for arm in arms],
        "domains": [domain.name for domain in scale.domains],
        "sessions": [_session(row, scale, places) for row in rows(report.get("sessions"))],
    }


def patient_name(session: dict[str, Any]) -> str:
    return words(session.get("patient_name") or session.get("patient")) or "patient not recorded"


def _session(raw: dict[str, Any], scale: Scale, places: dict[str, int]) -> dict[str, Any]:
    turns = rows(raw.get("turns"))
    scores, evidence = table(raw.get("domains")), table(raw.get("evidence"))
    return {
        "id": words(raw.get("id")),
        "arm": places.get(words(raw.get("arm"))),
        "patient": patient_name(raw),
        "seed": words(raw.get("seed")),
        "ending": words(raw.get("ending")).replace("_", " ") or "ending not recorded",
        "error": words(raw.get("error")),
        "status": words(raw.get("status")),
        "total": number(raw.get("total")),
        "turns": [{"role": words(turn.get("role")), "text": words(turn.get("text"))} for turn in turns],
        "scores": [number(scores.get(domain.id)) for domain in scale.domains],
        "evidence": [_indices(evidence.get(domain.id), len(turns)) for domain in scale.domains],
    }


def _indices(value: object, turns: int) -> list[int]:
    """The turn indices of ``value`` that exist, in order."""
    found = value if isinstance(value, list) else []
    return sorted({item for item in found if type(item) is int and 0 <= item < turns})
