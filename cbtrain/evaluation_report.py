"""What an evaluation's report says of scale, arms and sessions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cbtrain.eval.report.flags import Facts, Range, flags_of
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
    sessions: Sequence[SessionRecord], scores: Sequence[Score], names: Mapping[str, str], rubric: Rubric
) -> list[dict[str, Any]]:
    """Every session with its dialogue, all its ratings, their mean, and its flags.

    A mean is over judges, of each judge's mean over repeats, so that a judge who was asked more often weighs no more;
    a rating without a total counts in the domains that it scored. ``status`` names those of the ratings.
    """
    ratings: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        ratings[score.session_id].append(score)
    scale = Range(rubric.minimum, rubric.maximum, rubric.cutoff)
    described = []
    for session in sessions:
        own = ratings[session.id]
        domains = {d.id: _mean_of_judges([(s.judge, s.domains.get(d.id)) for s in own]) for d in rubric.domains}
        total = _mean_of_judges([(s.judge, s.total) for s in own])
        totals = [s.total for s in own if s.total is not None]
        unrated = "not rated: the session failed" if session.failed else "not rated"
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
                "domains": domains,
                "total": total,
                "status": ", ".join(dict.fromkeys(s.status for s in own)) or unrated,
                "flags": flags_of(
                    Facts(session.ending, len(session.turns), list(domains.values()), total, totals), scale
                ),
                "ratings": [_describe_rating(score) for score in own],
            }
        )
    return described


def _describe_rating(score: Score) -> dict[str, Any]:
    return {
        "judge": score.judge,
        "repeat": score.repeat,
        "status": score.status,
        "total": score.total,
        "domains": score.domains,
        "evidence": score.evidence,
        "reason": score.reason,
    }


def _mean_of_judges(scores: Sequence[tuple[str, float | None]]) -> float | None:
    """The mean over judges of each one's mean; None where no judge gave a score."""
    judges: dict[str, list[float]] = defaultdict(list)
    for judge, score in scores:
        if score is not None:
            judges[judge].append(score)
    return _mean([sum(own) / len(own) for own in judges.values()])


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
