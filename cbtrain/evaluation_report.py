"""What an evaluation's report says of scale, arms and sessions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cbtrain.eval.rubric import Rubric
from cbtrain.eval.runner import SessionRecord
from cbtrain.eval.scores import Score
from cbtrain.eval.statistics import summarize
from cbtrain.transcripts.types import Session

ARMS = {"base": "Base model", "tuned": "Tuned therapist"}
"""Therapists under test, and what they are called."""


def is_tiny(state: Mapping[str, Any]) -> bool:
    """Whether the run made its base model itself."""
    return any(stage["name"] == "base" for stage in state["training"])


def describe_scale(rubric: Rubric) -> dict[str, Any]:
    return {
        "name": rubric.name,
        "min": rubric.minimum,
        "max": rubric.maximum,
        "total_max": rubric.maximum * len(rubric.domains),
        "cutoff": rubric.cutoff,
        "note": rubric.note,
        "domains": [{"id": d.id, "name": d.name, "description": d.description} for d in rubric.domains],
    }


def describe_arms(sessions: Sequence[SessionRecord], scores: Sequence[Score]) -> list[dict[str, Any]]:
    """One entry an arm: scores, endings, lengths. Failures are counted, never imputed."""
    summaries = {entry.name: entry for entry in summarize(scores)}
    arms = []
    for name, label in ARMS.items():
        own = [session for session in sessions if session.arm == name]
        spoken = [len(t.text.split()) for s in own for t in s.turns if t.role == "therapist"]
        entry = summaries.get(name)
        arms.append(
            {
                "name": name,
                "label": label,
                "sessions": len(own),
                "rated": len({s.session_id for s in scores if s.arm == name and s.total is not None}),
                "failed": sum(session.failed for session in own),
                "total_mean": entry.total_mean if entry else None,
                "total_sd": entry.total_sd if entry else None,
                "domains": entry.domain_means if entry else {},
                "endings": dict(Counter(str(session.ending) for session in own)),
                "turns_mean": _mean([len(session.turns) for session in own]),
                "words_per_therapist_turn": _mean(spoken),
            }
        )
    return arms


def as_transcripts(sessions: Sequence[SessionRecord]) -> Iterator[Session]:
    """Simulated sessions as transcripts, so that whatever reads a corpus reads them too: a course is one patient with
    one arm, the session's number is one above the seed; ``facts`` hold what tables of scores know it by."""
    for session in sessions:
        facts = {"arm": session.arm, "ending": session.ending or "", "error": session.error or ""}
        facts |= {"id": session.id, "seed": str(session.seed)}
        yield Session(
            f"{session.arm}/{session.patient}",
            session.seed + 1,
            tuple(session.turns),
            patient=session.patient,
            facts={name: value for name, value in facts.items() if value},
        )


def describe_sessions(
    sessions: Sequence[SessionRecord], scores: Sequence[Score], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Every session with its dialogue and, where it was rated, the first rating's scores and evidence."""
    first = {score.session_id: score for score in reversed(scores)}
    described = []
    for session in sessions:
        score = first.get(session.id)
        described.append(
            {
                "id": session.id,
                "arm": session.arm,
                "patient": session.patient,
                "patient_name": names.get(session.patient, session.patient),
                "seed": session.seed,
                "ending": session.ending,
                "error": session.error,
                "turns": [{"role": turn.role, "text": turn.text} for turn in session.turns],
                "domains": score.domains if score else {},
                "total": score.total if score else None,
                "status": score.status if score else "not rated: the session failed",
                "evidence": score.evidence if score else {},
            }
        )
    return described


def title_of(state: Mapping[str, Any]) -> str:
    title = "Base model and tuned therapist with simulated patients"
    if is_tiny(state):
        size = state["training"][0]["parameters"] / 1e6
        title += (
            f". Smoke test: the base is a tiny model of {size:.1f} million parameters, made from the corpus. It shows "
            "that every stage works, and says nothing about therapy"
        )
    return title


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
