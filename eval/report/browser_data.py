"""What the transcript browser reads: the sessions in one regular shape, as JSON that no transcript can break out of."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from cbtrain.eval.report.flags import FLAGS
from cbtrain.eval.report.formatting import number
from cbtrain.eval.report.shape import Report, Scale, arms_of, rows, scale_of, table, words

FOLDER = Path(__file__).parent
SCRIPTS = ("browser_data.js", "browser_filters.js", "browser_reading.js", "browser_comparison.js", "browser.js")
"""In this order: each may use what those before it name."""
ALL = "All ratings, mean"
KNOWN = {flag.id: flag for flag in FLAGS}


def browser_script() -> str:
    """The browser's parts as one script: a page with one script needs one hash in its security policy."""
    parts = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def browser_data(report: Report) -> dict[str, Any]:
    """Sessions with arms and ratings as indices, scores, evidence and reasons in the order of the domains.

    What only an open session needs (dialogue, ratings) is JSON in a text of its own (``body``), parsed when it is
    wanted: with hundreds of sessions the list must not wait for their words.
    """
    scale, arms = scale_of(report), arms_of(report)
    sessions = rows(report.get("sessions"))
    places = {arm["name"]: place for place, arm in enumerate(arms)}
    raters = _raters(sessions)
    patients = _patients(sessions)
    return {
        "low": scale.low,
        "high": scale.high,
        "totalHigh": scale.total_high,
        "arms": [{"name": arm["name"], "label": arm["label"]} for arm in arms],
        "domains": [domain.name for domain in scale.domains],
        "raters": list(raters.values()),
        "meanLabel": _mean_label(report),
        "flags": [{"name": name, "meaning": meaning} for name, meaning in _flags(sessions).items()],
        "sessions": [
            _session(row, patient, scale, places, raters) for row, patient in zip(sessions, patients, strict=True)
        ],
    }


def _mean_label(report: Report) -> str:
    """What a session's own scores are: the mean over all judges or over those that decide, or what is left of pooled
    ones."""
    panel = table(table(report.get("analysis")).get("panel"))
    judges = panel.get("judges")
    if panel.get("pooled"):
        return "Judges pooled, severity taken off" if panel.get("linked") else "Judges pooled: no common score"
    return f"Mean, {', '.join(map(words, judges))}" if panel.get("beside") and isinstance(judges, list) else ALL


def patient_name(session: dict[str, Any]) -> str:
    return words(session.get("patient_name") or session.get("patient")) or "patient not recorded"


def flag_names(session: dict[str, Any]) -> list[str]:
    """The session's flags by name; one that is not known is shown as it is."""
    found = session.get("flags")
    flags = [words(flag) for flag in found] if isinstance(found, list) else []
    return [KNOWN[flag].name if flag in KNOWN else flag for flag in flags if flag]


def _patients(sessions: list[dict[str, Any]]) -> list[str]:
    """Each session's patient by name; where two patients share a name, with the id."""
    ids: dict[str, set[str]] = defaultdict(set)
    for row in sessions:
        ids[patient_name(row)].add(words(row.get("patient")))
    return [
        f"{name} ({words(row.get('patient')) or 'no id'})" if len(ids[name]) > 1 else name
        for row, name in zip(sessions, map(patient_name, sessions), strict=True)
    ]


def _raters(sessions: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Who rated, judge by judge and repeat by repeat, and what each is called; repeats only where there are several."""
    pairs = dict.fromkeys(_rater(rating) for row in sessions for rating in rows(row.get("ratings")))
    repeats = Counter(judge for judge, _ in pairs)
    return {
        (judge, repeat): f"{judge}, repeat {repeat or 'not recorded'}" if repeats[judge] > 1 else judge
        for judge, repeat in sorted(pairs, key=lambda pair: [judge for judge, _ in pairs].index(pair[0]))
    }


def _rater(rating: dict[str, Any]) -> tuple[str, str]:
    return words(rating.get("judge")) or "judge not recorded", words(rating.get("repeat"))


def _flags(sessions: list[dict[str, Any]]) -> dict[str, str]:
    """What every flag means; one that only a session names has no meaning here."""
    found = {flag.name: flag.meaning for flag in FLAGS}
    for row in sessions:
        for name in flag_names(row):
            found.setdefault(name, "")
    return found


def _session(
    raw: dict[str, Any], patient: str, scale: Scale, places: dict[str, int], raters: dict[tuple[str, str], str]
) -> dict[str, Any]:
    turns = rows(raw.get("turns"))
    scores = table(raw.get("domains"))
    judged = list(raters)
    body = {
        "turns": [{"role": words(turn.get("role")), "text": words(turn.get("text"))} for turn in turns],
        "scores": [number(scores.get(domain.id)) for domain in scale.domains],
        "ratings": [_rating(rating, scale, judged, len(turns)) for rating in rows(raw.get("ratings"))],
    }
    return {
        "id": words(raw.get("id")),
        "arm": places.get(words(raw.get("arm"))),
        "patient": patient,
        "seed": words(raw.get("seed")),
        "ending": words(raw.get("ending")).replace("_", " ") or "ending not recorded",
        "error": words(raw.get("error")),
        "status": words(raw.get("status")),
        "total": number(raw.get("total")),
        "length": len(turns),
        "flags": flag_names(raw),
        "body": json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
    }


def _rating(raw: dict[str, Any], scale: Scale, judged: list[tuple[str, str]], turns: int) -> dict[str, Any]:
    scores, evidence, reasons = table(raw.get("domains")), table(raw.get("evidence")), table(raw.get("reason"))
    return {
        "rater": judged.index(_rater(raw)),
        "status": words(raw.get("status")),
        "error": words(reasons.get("error")),
        "note": words(reasons.get("note")),
        "total": number(raw.get("total")),
        "scores": [number(scores.get(domain.id)) for domain in scale.domains],
        "evidence": [_indices(evidence.get(domain.id), turns) for domain in scale.domains],
        "reasons": [words(reasons.get(domain.id)) for domain in scale.domains],
    }


def _indices(value: object, turns: int) -> list[int]:
    """The turn indices of ``value`` that exist, in order."""
    found = value if isinstance(value, list) else []
    return sorted({item for item in found if type(item) is int and 0 <= item < turns})
