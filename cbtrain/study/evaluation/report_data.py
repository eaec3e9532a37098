"""What an evaluation's report says of scale, arms and sessions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cbtrain.eval.analysis.agreement.panel import Panel, by_panel, decided
from cbtrain.eval.analysis.descriptives import Group, session_groups
from cbtrain.eval.analysis.ratings import Ratings
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.report.flags import FlagInput, Range, flags_of
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.trained_run import TrainedRun
from cbtrain.transcripts.types import Session

ARMS = {"base": "Base model", "tuned": "Tuned therapist"}
"""Therapists under test, and what they are called."""


def describe_scale(ratings: Ratings, rubric: Rubric | None) -> dict[str, Any]:
    """The instrument: its ``rubric``, where one of ours is known, else what the table of ratings tells."""
    scale, items = ratings.scale, ratings.item_names
    domains = [{"id": name, "name": name.replace("_", " ")} for name in items]
    if rubric:
        domains = [{"id": d.id, "name": d.name, "description": d.description} for d in rubric.domains]
    return {
        "name": rubric.name if rubric else scale.name if scale else "",
        "min": scale.low if scale else None,
        "max": scale.high if scale else None,
        "total_max": scale.high * len(items) if scale else None,
        "cutoff": scale.cutoff if scale else None,
        "note": rubric.note if rubric else "" if scale else "The instrument of these scores is not known here.",
        "domains": domains,
    }


def describe_arms(
    sessions: Sequence[SimulatedSession], ratings: Ratings, found: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One entry an arm: scores, endings, lengths. Failures are as the analysis ``found`` counts them, never imputed."""
    arms, failed = [], {done["name"]: done["failed"] for done in found["completion"]["arms"]}
    for group in session_groups(ratings):
        own = [session for session in sessions if session.arm == group.name]
        held = [session for session in own if session.turns]
        spoken = [len(t.text.split()) for s in held for t in s.turns if t.role == "therapist"]
        arms.append(
            {
                "name": group.name,
                "label": _label(group),
                "sessions": len(own),
                "rated": group.n,
                "failed": failed[group.name],
                "total_mean": group.mean,
                "total_sd": group.sd,
                "domains": group.items,
                "endings": dict(Counter(str(session.ending) for session in own if session.ending)),
                "turns_mean": _mean([len(session.turns) for session in held]),
                "words_per_therapist_turn": _mean(spoken),
            }
        )
    return arms


def _label(arm: Group) -> str:
    """Where a table names the base, as in ``Llama tuned``; else what this program calls its own arms."""
    return f"{arm.base} {arm.variant}" if arm.base else ARMS.get(arm.name, arm.name)


def as_transcripts(sessions: Sequence[SimulatedSession]) -> Iterator[Session]:
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


def with_beside(label: str, panel: Panel) -> str:
    """What the raters are called together: ``label`` names those that decide."""
    return f"{label} (beside: {', '.join(panel.beside)})" if panel.beside else label


def describe_sessions(
    sessions: Sequence[SimulatedSession],
    scores: Sequence[Score],
    names: Mapping[str, str],
    ratings: Ratings,
    panel: Panel,
) -> list[dict[str, Any]]:
    """Every session with its dialogue, all its ratings, their mean, its flags. ``ratings`` are ``scores`` as a table.

    A session's scores are those that the analysis compares (:func:`cbtrain.eval.analysis.agreement.panel.decided`); a
    rating without a total counts in the domains that it scored. Pooled judges give a total only: single scores without
    their severity may lie outside the scale. ``status`` names those of the ratings.
    """
    totals = decided(ratings, panel, ratings.total)
    items = {
        name: {} if panel.pooled else decided(ratings, panel, ratings.items[:, place])
        for place, name in enumerate(ratings.item_names)
    }
    rated = by_panel(ratings, panel).rated_sessions
    by_session: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_session[score.session_id].append(score)
    scale = ratings.scale
    # A scale that is not known has no ends that a score could be at.
    limits = Range(scale.low, scale.high, scale.cutoff) if scale else Range(-math.inf, math.inf)
    described = []
    for session in sessions:
        own = by_session[session.id]
        key = (session.arm, session.patient, session.seed)
        facts = FlagInput(
            session.ending,
            session.failed and key not in rated,
            len(session.turns),
            [_mean(_scores(own, name, panel)) for name in ratings.item_names],
            key in totals or (key in rated and not panel.linked),
            totals.get(key),
            [s.total for s in own if s.total is not None],
        )
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
                "domains": {name: by_session.get(key) for name, by_session in items.items()},
                "total": totals.get(key),
                "status": ", ".join(dict.fromkeys(s.status for s in own)) or unrated,
                "flags": flags_of(facts, limits),
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


def _scores(scores: Sequence[Score], domain: str, panel: Panel) -> list[float]:
    """What the panel's ratings of a session gave a domain."""
    found = [score.domains.get(domain) for score in scores if score.judge in panel.judges]
    return [score for score in found if score is not None]


def title_of(trained: TrainedRun) -> str:
    title = "Base model and tuned therapist with simulated patients"
    if trained.is_tiny:
        size = trained.training[0]["parameters"] / 1e6
        title += (
            f". Smoke test: the base is a tiny model of {size:.1f} million parameters, made from the corpus. It shows "
            "that every stage works, and says nothing about therapy"
        )
    return title


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
