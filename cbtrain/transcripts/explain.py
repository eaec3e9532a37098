"""A session before and after cleaning, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from cbtrain.transcripts.cleaning import Change, CleaningReport, clean_session, fingerprint_of, why_dropped
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.labels import NO_LABELS
from cbtrain.transcripts.preference import all_turns
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Role, Session, Turn


@dataclass(frozen=True, slots=True)
class Line:
    """One turn in the comparison: ``same`` on both sides, only ``before`` cleaning, or only ``after`` it.

    ``number`` counts turns from 1 on its own side; those of a pair's rejected answer come after all others.
    """

    side: Literal["same", "before", "after"]
    number: int
    turn: Turn


@dataclass(frozen=True, slots=True)
class Explanation:
    session: str
    where: str
    preamble: str
    changes: tuple[Change, ...]
    lines: tuple[Line, ...]


def explain(
    session: Session,
    policy: CleaningPolicy,
    profile: Profile | None,
    seen: Mapping[bytes, str] | None = None,
    labels: Mapping[str, Role] = NO_LABELS,
) -> Explanation:
    """Return how cleaning changes ``session``; ``seen`` are the fingerprints of the cleaned sessions before it,
    ``labels`` those that the reader was given."""
    report = CleaningReport()
    cleaned = clean_session(session, policy, profile, report, labels)
    dropped = why_dropped(cleaned, fingerprint_of(cleaned), policy, seen or {})
    if dropped:
        report.changes.append(dropped)
    before, after = tuple(all_turns(session)), () if dropped else tuple(all_turns(cleaned))
    lines: list[Line] = []
    matcher = SequenceMatcher(None, [hash(turn) for turn in before], [hash(turn) for turn in after], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            lines += [Line("same", index + 1, before[index]) for index in range(a, b)]
        else:
            lines += [Line("before", index + 1, before[index]) for index in range(a, b)]
            lines += [Line("after", index + 1, after[index]) for index in range(c, d)]
    return Explanation(session.id, session.where, session.preamble, tuple(report.changes), tuple(lines))
