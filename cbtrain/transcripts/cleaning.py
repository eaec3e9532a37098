"""Mend what is known to be wrong in transcripts, in one place, and count every change."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields

from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.types import Corpus, Course, Role, Session, Turn

RESIDUE = re.compile(
    r"^[ \t]*here(?:'s| is)(?: the)? part (?:\d+|one|two|three|four)\b"
    r"[^\n]*(?:session|transcript|assessment)[^\n]*:[ \t]*$\n?",
    re.IGNORECASE | re.MULTILINE,
)
"""A line such as "Here is part 2 of 4 for the CBT session:", left by a generator that wrote in parts."""

SUMMARY = re.compile(r"^Session Summary:", re.MULTILINE)


@dataclass(slots=True)
class CleaningCounts:
    """What :func:`clean` changed."""

    residue_lines_removed: int = 0
    summaries_given_to_the_therapist: int = 0
    empty_turns_dropped: int = 0
    turns_merged_into_the_one_before: int = 0
    sessions_dropped_without_dialogue: int = 0
    patients_dropped_without_sessions: int = 0

    def as_dict(self) -> dict[str, int]:
        return {field.name.replace("_", " "): getattr(self, field.name) for field in fields(self)}


def clean(corpus: Corpus, policy: CleaningPolicy) -> tuple[Corpus, CleaningCounts]:
    """A cleaned copy of ``corpus`` and what was done to it. No word moves from a patient to the therapist, but for
    the closing summary, which is the therapist's work."""
    counts = CleaningCounts()
    courses = []
    for course in corpus.courses:
        sessions = [clean_session(session, policy, counts) for session in course.sessions]
        if policy.drop_sessions_without_dialogue:
            kept = [s for s in sessions if s.count("therapist") and s.count("patient")]
            counts.sessions_dropped_without_dialogue += len(sessions) - len(kept)
            sessions = kept
        if sessions:
            courses.append(Course(course.id, tuple(sessions), course.profile))
        else:
            counts.patients_dropped_without_sessions += 1
    return Corpus(corpus.source, corpus.format, tuple(courses), corpus.facts), counts


def clean_session(session: Session, policy: CleaningPolicy, counts: CleaningCounts) -> Session:
    """One cleaned session; ``counts`` grows by what was changed."""
    turns: Iterable[Turn] = session.turns
    if policy.remove_residue:
        turns = [_without_residue(turn, counts) for turn in turns]
    if policy.split_summaries:
        turns = [part for index, turn in enumerate(turns) for part in _split_summary(index, turn, counts)]
    if policy.drop_empty_turns:
        full = [turn for turn in turns if turn.text.strip()]
        counts.empty_turns_dropped += len(list(turns)) - len(full)
        turns = full
    if policy.merge_repeated_speaker:
        turns = _merge(turns, counts)
    return Session(session.course, session.number, tuple(turns), session.where)


def _without_residue(turn: Turn, counts: CleaningCounts) -> Turn:
    text, removed = RESIDUE.subn("", turn.text)
    counts.residue_lines_removed += removed
    return Turn(turn.role, text.strip()) if removed else turn


def _split_summary(index: int, turn: Turn, counts: CleaningCounts) -> list[Turn]:
    """Give a closing summary under a patient's label to the therapist.

    In the first turn it is the last session's summary, which the patient has brought along: that stays.
    """
    found = SUMMARY.search(turn.text) if turn.role == "patient" and index > 0 else None
    if found is None:
        return [turn]
    counts.summaries_given_to_the_therapist += 1
    spoken, summary = turn.text[: found.start()].strip(), turn.text[found.start() :].strip()
    closing = Turn("therapist", summary)
    return [Turn("patient", spoken), closing] if spoken else [closing]


def _merge(turns: Iterable[Turn], counts: CleaningCounts) -> list[Turn]:
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            role: Role = turn.role
            merged[-1] = Turn(role, f"{merged[-1].text}\n\n{turn.text}")
            counts.turns_merged_into_the_one_before += 1
        else:
            merged.append(turn)
    return merged
