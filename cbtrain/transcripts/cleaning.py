"""Mend what is known to be wrong in transcripts: in one place, by an explicit policy, every change on record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise

from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.labels import inner_labels, names_of
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.residue import RESIDUE
from cbtrain.transcripts.summary import closing_summaries
from cbtrain.transcripts.types import Corpus, Role, Session, Turn

CHANGES = {
    "turns_split_at_inner_labels": "turns split where another speaker's label stood inside",
    "residue_lines_removed": "lines removed in which the generator talks about parts",
    "summaries_given_to_the_therapist": "closing summaries moved from the patient's label to the therapist",
    "summaries_dropped": "earlier ones of several closing summaries dropped",
    "preambles_left_out": "texts before the first label left out",
    "empty_turns_dropped": "empty turns dropped",
    "turns_merged_into_the_one_before": "turns merged with the same speaker's turn before",
    "sessions_dropped_without_dialogue": "sessions dropped in which one speaker says nothing",
    "duplicate_sessions_dropped": "sessions dropped that repeat an earlier one word by word",
    "patients_dropped_without_sessions": "courses dropped of which nothing is left",
}
"""Every kind of change and what it means."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change to ``session``: its kind, the index of the turn when it was made (None: the whole session), the
    words that are in no turn any more, and a note for a reader."""

    kind: str
    session: str
    turn: int | None = None
    words_left_out: int = 0
    note: str = ""


@dataclass(slots=True)
class CleaningReport:
    """What :func:`clean` changed, in order."""

    changes: list[Change] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(change.kind == kind for change in self.changes)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """For every kind: how often, in how many sessions, and how many words are in no turn any more."""
        times = Counter(change.kind for change in self.changes)
        words: Counter[str] = Counter()
        sessions: dict[str, set[str]] = {kind: set() for kind in CHANGES}
        for change in self.changes:
            words[change.kind] += change.words_left_out
            sessions[change.kind].add(change.session)
        return {
            kind: {"times": times[kind], "sessions": len(sessions[kind]), "words_left_out": words[kind]}
            for kind in CHANGES
        }


def clean(corpus: Corpus, policy: CleaningPolicy) -> tuple[Corpus, CleaningReport]:
    """A cleaned copy of ``corpus`` and what was done to it. No word moves from a patient to the therapist, but for
    the closing summary, which is the therapist's work."""
    report = CleaningReport()
    courses = []
    seen: dict[bytes, str] = {}
    for course in corpus.courses:
        kept = []
        for session in course.sessions:
            session = clean_session(session, policy, course.profile, report)
            if policy.drop_sessions_without_dialogue and not (session.count("therapist") and session.count("patient")):
                dropped = Change("sessions_dropped_without_dialogue", session.id, None, session.words)
                report.changes.append(dropped)
                continue
            key = fingerprint(session.turns)
            if policy.drop_duplicate_sessions and session.turns and key in seen:
                note = f"the same words as {seen[key]}"
                report.changes.append(Change("duplicate_sessions_dropped", session.id, None, session.words, note))
                continue
            seen.setdefault(key, session.id)
            kept.append(session)
        if kept:
            courses.append(replace(course, sessions=tuple(kept)))
        else:
            report.changes.append(Change("patients_dropped_without_sessions", course.id))
    return replace(corpus, courses=tuple(courses)), report


def clean_session(session: Session, policy: CleaningPolicy, profile: Profile | None, report: CleaningReport) -> Session:
    """One cleaned session; ``report`` grows by what was changed. ``profile`` says which name may stand as a label."""
    turns, preamble = list(session.turns), session.preamble
    if policy.split_inner_labels:
        names = names_of(profile.name if profile else "", policy.therapist_names)
        preamble, turns = _split_inner_labels(preamble, turns, names, session.id, report)
    if policy.remove_residue:
        turns = [_without_residue(index, turn, session.id, report) for index, turn in enumerate(turns)]
    if policy.split_summaries:
        turns = _split_summaries(turns, session.id, report)
    if policy.drop_earlier_summaries:
        turns = _drop_earlier_summaries(turns, session.id, report)
    if preamble.strip():
        report.changes.append(Change("preambles_left_out", session.id, None, len(preamble.split()), _excerpt(preamble)))
    if policy.drop_empty_turns:
        empty = [index for index, turn in enumerate(turns) if not turn.text.strip()]
        report.changes += [Change("empty_turns_dropped", session.id, index, note=turns[index].role) for index in empty]
        turns = [turn for turn in turns if turn.text.strip()]
    if policy.merge_repeated_speaker:
        turns = _merge(turns, session.id, report)
    return replace(session, turns=tuple(turns), preamble="")


def fingerprint(turns: Sequence[Turn]) -> bytes:
    """Equal for sessions with the same speakers and words, whatever the spaces and capitals between them."""
    digest = blake2b(digest_size=16)
    for turn in turns:
        digest.update(turn.role.encode() + b"\0" + " ".join(turn.text.lower().split()).encode() + b"\1")
    return digest.digest()


def _split_inner_labels(
    preamble: str, turns: Sequence[Turn], names: Mapping[str, Role], session: str, report: CleaningReport
) -> tuple[str, list[Turn]]:
    """Give each label's words to its speaker, in turns and in a preamble that is a dialogue under other labels."""
    parts: list[Turn] = []
    before, opening = _parts(preamble, names)
    if opening:
        note = f"{len(opening)} turns before the first common label"
        report.changes.append(Change("turns_split_at_inner_labels", session, 0, note=note))
        parts += opening
        preamble = before
    for index, turn in enumerate(turns):
        first, rest = _parts(turn.text, names)
        if rest:
            labels = ", ".join(dict.fromkeys(found.label for found in inner_labels(turn.text, names)))
            report.changes.append(Change("turns_split_at_inner_labels", session, index, note=f"at {labels}"))
            parts += [Turn(turn.role, first), *rest] if first else rest
        else:
            parts.append(turn)
    return preamble, parts


def _parts(text: str, names: Mapping[str, Role]) -> tuple[str, list[Turn]]:
    """The text before the first inner label, and the turns that the labels begin."""
    found = list(inner_labels(text, names))
    if not found:
        return text, []
    ends = [label.start for label in found[1:]] + [len(text)]
    turns: list[Turn] = []
    for label, end in zip(found, ends, strict=True):
        # What a label leaves may begin with a label itself.
        first, rest = _parts(text[label.end : end].strip(), names)
        turns += [Turn(label.role, first)] * bool(first or not rest) + rest
    return text[: found[0].start].strip(), turns


def _without_residue(index: int, turn: Turn, session: str, report: CleaningReport) -> Turn:
    for found in RESIDUE.finditer(turn.text):
        words = len(found.group().split())
        report.changes.append(Change("residue_lines_removed", session, index, words, found.group().strip()))
    text, removed = RESIDUE.subn("", turn.text)
    return Turn(turn.role, text.strip()) if removed else turn


def _split_summaries(turns: Sequence[Turn], session: str, report: CleaningReport) -> list[Turn]:
    """Give closing summaries under a patient's label to the therapist.

    In the patient's first turn it is the last session's summary, which the patient has brought along: that stays.
    """
    starts: dict[int, int] = {}
    for index, start in closing_summaries(turns):
        if turns[index].role == "patient":
            starts.setdefault(index, start)
    parts = []
    for index, turn in enumerate(turns):
        if index not in starts:
            parts.append(turn)
            continue
        report.changes.append(Change("summaries_given_to_the_therapist", session, index))
        spoken, summary = turn.text[: starts[index]].strip(), turn.text[starts[index] :].strip()
        parts += [Turn("patient", spoken)] * bool(spoken) + [Turn("therapist", summary)]
    return parts


def _drop_earlier_summaries(turns: Sequence[Turn], session: str, report: CleaningReport) -> list[Turn]:
    """Keep the last of several closing summaries; each ends where its turn or the next summary does."""
    found, kept = closing_summaries(turns), list(turns)
    for (index, start), (after, stop) in reversed(list(pairwise(found))):
        text = kept[index].text
        end = stop if after == index else len(text)
        words = len(text[start:end].split())
        report.changes.append(Change("summaries_dropped", session, index, words, _excerpt(text[start:end])))
        kept[index] = Turn(kept[index].role, f"{text[:start].rstrip()}\n\n{text[end:].lstrip()}".strip())
    return kept


def _merge(turns: Sequence[Turn], session: str, report: CleaningReport) -> list[Turn]:
    merged: list[Turn] = []
    for index, turn in enumerate(turns):
        if merged and merged[-1].role == turn.role:
            merged[-1] = Turn(turn.role, f"{merged[-1].text}\n\n{turn.text}")
            report.changes.append(Change("turns_merged_into_the_one_before", session, index, note=turn.role))
        else:
            merged.append(turn)
    return merged


def _excerpt(text: str, length: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
