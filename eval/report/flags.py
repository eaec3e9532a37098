"""Flags: what a reader of many sessions should notice about one, each with its threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cbtrain.eval.analysis.rounding import at_least
from cbtrain.transcripts.types import Ending

SHORT_TURNS = 6
"""A session of fewer turns is short: patient and therapist have not spoken three times each."""
LIMITS: tuple[Ending, ...] = ("max_turns", "max_words", "context_limit")
"""Endings by a limit and not by patient or therapist."""
EXTREME_SHARE = 0.5
"""Share of the domains at an end of the scale from which on the session is at that end."""
DISAGREEMENT = 1.0
"""Points a domain, on average, by which the totals of two ratings differ where ratings disagree."""


@dataclass(frozen=True, slots=True)
class Range:
    """The scale of one domain, and the total from which on a session counts as competent (None: the scale has none)."""

    low: float
    high: float
    cutoff: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagInput:
    """What the flags of a session are computed from. ``failed``: it ended by a failure, and no primary judge rated it;
    ``domains``: means over its ratings, None without a score; ``rated``: whether it counts in the comparison;
    ``total``: its score there; ``totals``: of each of its ratings that has one; ``marks``: what was found or changed in
    its turns; ``refused``: whether one of them is a model's refusal."""

    ending: str | None
    failed: bool
    turns: int
    domains: Sequence[float | None]
    rated: bool
    total: float | None
    totals: Sequence[float]
    marks: Sequence[str] = ()
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    id: str
    name: str
    meaning: str
    raised: Callable[[FlagInput, Range], bool]


def _at_end(point: float, session: FlagInput) -> bool:
    """Return whether enough domains have the score ``point``; a missing score is at no end."""
    count = sum(score == point for score in session.domains)
    return session.rated and count >= EXTREME_SHARE * len(session.domains)


def _disagree(session: FlagInput, scale: Range) -> bool:
    return bool(session.totals) and max(session.totals) - min(session.totals) >= DISAGREEMENT * len(session.domains)


def _competent(session: FlagInput, scale: Range) -> bool:
    return scale.cutoff is not None and session.total is not None and bool(at_least(session.total, scale.cutoff))


FLAGS = (
    Flag(
        "failed",
        "Failed",
        "An API, the budget, a content filter or a defect ended the session. It says nothing about the therapist and "
        "is not rated.",
        lambda session, scale: session.failed,
    ),
    Flag(
        "not_rated",
        "Not rated",
        "Not every primary judge gave a score in every domain, so there is no total. Missing scores are not filled in.",
        lambda session, scale: not session.rated,
    ),
    Flag(
        "short",
        "Short",
        f"Fewer than {SHORT_TURNS} turns.",
        lambda session, scale: session.turns < SHORT_TURNS and bool(session.turns or session.ending),
    ),
    Flag(
        "stopped_by_limit",
        "Stopped by a limit",
        "The limit of turns, of words or of the model's context ended the session, neither patient nor therapist.",
        lambda session, scale: session.ending in LIMITS,
    ),
    Flag(
        "at_or_above_cutoff",
        "At or above the cut-off",
        "The mean total reaches the point from which on the scale calls a session competent.",
        _competent,
    ),
    Flag(
        "at_floor",
        "At the floor",
        "At least half of the domains have the scale's lowest score. The scale cannot show a worse session.",
        lambda session, scale: _at_end(scale.low, session),
    ),
    Flag(
        "at_ceiling",
        "At the ceiling",
        "At least half of the domains have the scale's highest score. The scale cannot show a better session.",
        lambda session, scale: _at_end(scale.high, session),
    ),
    Flag(
        "ratings_disagree",
        "Ratings disagree",
        f"The totals of two of its ratings (judges or repeats) differ by {DISAGREEMENT:g} point a domain or more, on "
        "average over the domains.",
        _disagree,
    ),
    Flag(
        "refusal",
        "Refusal",
        "A turn is a language model's refusal in words, such as “I'm sorry, but I can't help with that.”",
        lambda session, scale: session.refused,
    ),
    Flag(
        "thinking_removed",
        "Thinking taken out",
        "A model wrote its thinking into a turn. It was removed before the other speaker read the turn; the journal "
        "counts it.",
        lambda session, scale: "thinking_removed" in session.marks,
    ),
    Flag(
        "other_speaker_cut",
        "Patient's turn cut",
        "The patient's model continued with words of the therapist. The text from the therapist's label on was cut.",
        lambda session, scale: "other_speaker_cut" in session.marks,
    ),
    Flag(
        "speaks_for_patient",
        "Speaks for the patient",
        "The therapist's model continued with words of the patient. The turn is not changed: it is rated as it is.",
        lambda session, scale: "speaks_for_patient" in session.marks,
    ),
    Flag(
        "drift",
        "Patient out of part",
        "In a turn, the patient's model spoke like a therapist, repeated itself, spoke for both, refused softly, or "
        "gave in at once, also when it was asked again (evaluation.drift). The turn is not changed.",
        lambda session, scale: "drift" in session.marks,
    ),
)
"""Every flag, in the order in which they are shown."""


def flags_of(session: FlagInput, scale: Range) -> list[str]:
    """Return the ids of the flags that a session raises."""
    return [flag.id for flag in FLAGS if flag.raised(session, scale)]
