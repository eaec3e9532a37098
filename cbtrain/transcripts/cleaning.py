"""Clean transcripts: fix known faults by an explicit policy, with a record of every change."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise

from cbtrain.text.thinking import may_think, without_thinking
from cbtrain.text.words import count_words
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.labels import NO_LABELS, inner_labels, speakers_of
from cbtrain.transcripts.marks import STRIPPING
from cbtrain.transcripts.preference import why_no_pair, with_parts_changed
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.summary import closing_summaries, summary_end
from cbtrain.transcripts.types import Corpus, Role, Session, Turn

NUMBER = r"(?:\d{1,3}|one|two|three|four)"
ABOUT = r"(?=[^\n]{0,120}\b(?:session|transcript|assessment)\b)[^\n]{0,240}"
RESIDUE = re.compile(
    # A patient who hands over "part one of what I wrote" speaks of themselves.
    r"^[ \t]{0,80}(?![^\n]{0,400}\b(?:I|my|me|we|our|you)\b)(?:"
    rf"here(?:'s| is)(?: the)? part {NUMBER}(?:(?: of {NUMBER})?|{ABOUT}):"
    rf"|here(?:'s| is) the (?:first|second|third|fourth|next|final|last) part(?: of {ABOUT})?:"
    rf"|[\[(](?:continued in part|end of part|part) {NUMBER}(?: of {NUMBER})?[^\n\])]{{0,40}}[\])]"
    r")[ \t]{0,20}$\n?",
    re.IGNORECASE | re.MULTILINE,
)
"""A line such as "Here is part 2 of 4 for the CBT session:" or "[Continued in part 3]", left by a generator that wrote
in parts."""

CHANGES = {
    "thinking_removed": "thoughts removed that a model wrote before its answer",
    "markup_stripped": "turns without their HTML tags and entities",
    "notes_stripped": "turns without their transcriber's notes",
    "end_markers_stripped": "turns without their lines that end a conversation",
    "turns_split_at_inner_labels": "turns split at another speaker's label",
    "own_labels_removed": "labels of a turn's own speaker removed from its beginning",
    "residue_lines_removed": "lines removed in which the generator talks about parts",
    "summaries_given_to_the_therapist": "closing summaries moved from the patient's label to the therapist",
    "summaries_dropped": "earlier ones of several closing summaries dropped",
    "preambles_left_out": "texts before the first label left out",
    "empty_turns_dropped": "empty turns dropped",
    "turns_merged_into_the_one_before": "turns merged with the same speaker's turn before",
    "sessions_dropped_without_dialogue": "sessions dropped in which one speaker says nothing",
    "duplicate_sessions_dropped": "sessions dropped that repeat an earlier one word by word",
    "pairs_dropped": "pairs dropped whose answers cleaning has left empty, equal or out of turn",
    "patients_dropped_without_sessions": "courses dropped of which nothing is left",
}
"""Every kind of change and what it means."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change to ``session``: its kind, the index of the turn in the file (None: the session or its preamble), the
    words that are in no turn any more, and a note for a reader."""

    kind: str
    session: str
    turn: int | None = None
    words_left_out: int = 0
    note: str = ""


@dataclass(slots=True)
class CleaningReport:
    """The changes that :func:`clean` made, in order."""

    changes: list[Change] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(change.kind == kind for change in self.changes)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Return for every kind: how often, in how many sessions, and how many words were left out."""
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
    """Return a cleaned copy of ``corpus`` and a report of the changes. Only the closing summary, which is the
    therapist's work, may move from the patient to the therapist. Duplicates are dropped inside a part that has a file
    of its own, not across parts: a split reports those."""
    report = CleaningReport()
    courses = []
    seen_by_side: dict[str, dict[bytes, str]] = {}
    for course in corpus.courses:
        seen = seen_by_side.setdefault(corpus.sides.get(course.id, ""), {})
        kept = []
        for session in course.sessions:
            session = clean_session(session, policy, course.profile, report, corpus.labels)
            key = fingerprint_of(session)
            dropped = why_dropped(session, key, policy, seen)
            if dropped:
                report.changes.append(dropped)
                continue
            seen.setdefault(key, session.id)
            kept.append(session)
        if kept:
            courses.append(replace(course, sessions=tuple(kept)))
        else:
            report.changes.append(Change("patients_dropped_without_sessions", course.id))
    return replace(corpus, courses=tuple(courses)), report


def why_dropped(session: Session, key: bytes, policy: CleaningPolicy, seen: Mapping[bytes, str]) -> Change | None:
    """Return the change that drops a cleaned session with fingerprint ``key``, or None to keep it. ``seen``: the
    fingerprints of the sessions before it."""
    if session.preference is not None:
        if why := why_no_pair(session):
            return Change("pairs_dropped", session.id, None, session.words, why)
    elif policy.drop_sessions_without_dialogue and not (session.count("therapist") and session.count("patient")):
        return Change("sessions_dropped_without_dialogue", session.id, None, session.words)
    before = seen.get(key) if session.turns else None
    if policy.drop_duplicate_sessions and before:
        note = f"the same words as {before}"
        return Change("duplicate_sessions_dropped", session.id, None, session.words, note)
    return None


def clean_session(
    session: Session,
    policy: CleaningPolicy,
    profile: Profile | None,
    report: CleaningReport,
    labels: Mapping[str, Role] = NO_LABELS,
) -> Session:
    """Return one cleaned session; ``report`` grows by what was changed. Names in ``profile``, and ``labels`` that the
    reader was given, may stand as labels inside turns.

    Prompt, chosen and rejected answer of a pair are cleaned apart. Their speakers are known, so no turn of them is
    split: a rejected answer that speaks for the patient too is rejected for it.
    """
    if session.preference is None:
        return _clean_dialogue(session, policy, profile, report, labels)
    whole = policy.model_copy(update={"split_summaries": False, "drop_earlier_summaries": False})
    end = len(session.turns)

    def cleaned(part: Session, begin: int) -> Session:
        own = CleaningReport()
        part = _clean_dialogue(replace(part, structured=True), whole, profile, own, labels)
        report.changes += [_moved(change, begin, rejected=begin == end) for change in own.changes]
        return replace(part, structured=session.structured)

    return with_parts_changed(session, cleaned)


def _moved(change: Change, begin: int, *, rejected: bool) -> Change:
    """Return a change of a part of a pair with its turn's index in the whole pair."""
    note = f"rejected answer: {change.note}".removesuffix(": ") if rejected else change.note
    return replace(change, turn=None if change.turn is None else change.turn + begin, note=note)


def _clean_dialogue(
    session: Session,
    policy: CleaningPolicy,
    profile: Profile | None,
    report: CleaningReport,
    labels: Mapping[str, Role],
) -> Session:
    parts = [_Part(turn, index) for index, turn in enumerate(session.turns)]
    preamble = session.preamble
    if policy.remove_thinking:
        parts = [_without_thinking(part, session.id, report) for part in parts]
    preamble, parts = _without_marks(preamble, parts, policy, session.id, report)
    if policy.split_inner_labels:
        names = speakers_of(session, profile, policy.therapist_names, labels)
        if session.structured:
            parts = [_without_own_label(part, names, session.id, report) for part in parts]
        else:
            preamble, parts = _split_inner_labels(preamble, parts, names, session.id, report)
    if policy.remove_residue:
        parts = [_without_residue(part, session.id, report) for part in parts]
    if policy.split_summaries:
        parts = _split_summaries(parts, session.id, report)
    if policy.drop_earlier_summaries:
        parts = _drop_earlier_summaries(parts, session.id, report)
    if preamble.strip():
        report.changes.append(Change("preambles_left_out", session.id, None, count_words(preamble), excerpt(preamble)))
    if policy.drop_empty_turns:
        empty = [part for part in parts if not part.turn.text.strip()]
        report.changes += [Change("empty_turns_dropped", session.id, p.origin, note=p.turn.role) for p in empty]
        parts = [part for part in parts if part.turn.text.strip()]
    if policy.merge_repeated_speaker:
        parts = _merge(parts, session.id, report)
    return replace(session, turns=tuple(part.turn for part in parts), preamble="")


@dataclass(frozen=True, slots=True)
class _Part:
    """A turn, or a piece of one, and the index of the labelled turn that it comes from (None: the preamble)."""

    turn: Turn
    origin: int | None


def _without_thinking(part: _Part, session: str, report: CleaningReport) -> _Part:
    """Take out what a model thought before its answer: nothing of it is trained. A thought without an end reaches to
    the end of the turn."""
    before = part.turn.text
    after, characters = without_thinking(before) if may_think(before) else (before, 0)
    if after == before:
        return part
    words = max(0, count_words(before) - count_words(after))
    report.changes.append(Change("thinking_removed", session, part.origin, words, f"{characters:,} characters"))
    return _Part(replace(part.turn, text=after), part.origin)


def _without_marks(
    preamble: str, parts: Sequence[_Part], policy: CleaningPolicy, session: str, report: CleaningReport
) -> tuple[str, list[_Part]]:
    """Strip marks that nobody said, of the kinds that the policy names. A preamble loses its markup only: it may hold
    turns that begin with labels in bold."""
    wanted = {
        "markup": (policy.strip_markup, "markup_stripped"),
        "transcriber_note": (policy.strip_notes, "notes_stripped"),
        "end_marker": (policy.strip_end_markers, "end_markers_stripped"),
    }
    stripped = list(parts)
    for kind, (marks_in, without_marks) in STRIPPING.items():
        is_wanted, change = wanted[kind]
        if not is_wanted:
            continue
        if kind == "markup" and marks_in(preamble):
            preamble = without_marks(preamble)
            report.changes.append(Change(change, session, None, note="before the first label"))
        for index, part in enumerate(stripped):
            before = part.turn.text
            if not marks_in(before):
                continue
            after = without_marks(before)
            words = max(0, count_words(before) - count_words(after))
            report.changes.append(Change(change, session, part.origin, words, excerpt(before)))
            stripped[index] = _Part(replace(part.turn, text=after), part.origin)
    return preamble, stripped


def fingerprint(turns: Sequence[Turn]) -> bytes:
    """Equal for sessions with the same speakers and words, whatever the spaces and capitals between them."""
    digest = blake2b(digest_size=16)
    for turn in turns:
        digest.update(turn.role.encode() + b"\0" + " ".join(turn.text.lower().split()).encode() + b"\1")
    return digest.digest()


def fingerprint_of(session: Session) -> bytes:
    """Return :func:`fingerprint` of the session's turns; of a pair, of its prompt and both answers."""
    preference = session.preference
    if preference is None:
        return fingerprint(session.turns)
    parts = (session.turns[: preference.begin], session.turns[preference.begin :], preference.rejected)
    return blake2b(b"pair".join(map(fingerprint, parts)), digest_size=16).digest()


def _split_inner_labels(
    preamble: str, parts: Sequence[_Part], names: Mapping[str, Role], session: str, report: CleaningReport
) -> tuple[str, list[_Part]]:
    """Give each label's words to its speaker, in the therapist's turns and in a preamble that is a dialogue under
    other labels. A patient's turn is left whole: no words may pass from a patient to the therapist."""
    cut: list[_Part] = []
    before, opening = _pieces(preamble, names)
    if opening:
        words = count_words(preamble) - count_words(before) - sum(count_words(turn.text) for turn in opening)
        note = f"{len(opening)} turns before the first common label"
        report.changes.append(Change("turns_split_at_inner_labels", session, None, words, note))
        cut += [_Part(turn, None) for turn in opening]
        preamble = before
    for part in parts:
        text = part.turn.text
        first, rest = _pieces(text, names) if part.turn.role == "therapist" else (text, [])
        if not rest:
            cut.append(part)
            continue
        labels = ", ".join(dict.fromkeys(inner.label for inner in inner_labels(text, names)))
        words = count_words(text) - count_words(first) - sum(count_words(turn.text) for turn in rest)
        report.changes.append(Change("turns_split_at_inner_labels", session, part.origin, words, f"at {labels}"))
        turns = [replace(part.turn, text=first), *rest] if first else rest
        cut += [_Part(turn, part.origin) for turn in turns]
    return preamble, cut


def _without_own_label(part: _Part, names: Mapping[str, Role], session: str, report: CleaningReport) -> _Part:
    """Take the label of a turn's own speaker off its beginning; other labels inside it are part of what is said."""
    label = next(inner_labels(part.turn.text, names), None)
    if label is None or label.start != 0 or label.role != part.turn.role:
        return part
    report.changes.append(Change("own_labels_removed", session, part.origin, 1, label.label))
    return _Part(replace(part.turn, text=part.turn.text[label.end :].strip()), part.origin)


def _pieces(text: str, names: Mapping[str, Role]) -> tuple[str, list[Turn]]:
    """Return the text before the first inner label, and the turns that the labels begin."""
    inner = list(inner_labels(text, names))
    if not inner:
        return text, []
    turns = []
    for label, end in zip(inner, [label.start for label in inner[1:]] + [len(text)], strict=True):
        text_after, role = text[label.end : end].strip(), label.role
        # What a label leaves may begin with a label itself.
        while (nested := next(inner_labels(text_after, names), None)) and nested.start == 0:
            text_after, role = text_after[nested.end :].strip(), nested.role
        turns.append(Turn(role, text_after))
    return text[: inner[0].start].strip(), turns


def _without_residue(part: _Part, session: str, report: CleaningReport) -> _Part:
    for match in RESIDUE.finditer(part.turn.text):
        words = count_words(match.group())
        report.changes.append(Change("residue_lines_removed", session, part.origin, words, match.group().strip()))
    text, removed = RESIDUE.subn("", part.turn.text)
    return _Part(replace(part.turn, text=text.strip()), part.origin) if removed else part


def _split_summaries(parts: Sequence[_Part], session: str, report: CleaningReport) -> list[_Part]:
    """Give closing summaries under a patient's label to the therapist; what the patient says before and after one
    stays the patient's."""
    starts: dict[int, int] = {}
    for index, start in closing_summaries([part.turn for part in parts]):
        if parts[index].turn.role == "patient":
            starts.setdefault(index, start)
    split = []
    for index, part in enumerate(parts):
        if index not in starts:
            split.append(part)
            continue
        text, start = part.turn.text, starts[index]
        end = summary_end(text, start)
        report.changes.append(Change("summaries_given_to_the_therapist", session, part.origin))
        pieces = (
            Turn("patient", text[:start].strip(), part.turn.weight),
            Turn("therapist", text[start:end].strip(), part.turn.weight),
            Turn("patient", text[end:].strip(), part.turn.weight),
        )
        split += [_Part(turn, part.origin) for turn in pieces if turn.text]
    return split


def _drop_earlier_summaries(parts: Sequence[_Part], session: str, report: CleaningReport) -> list[_Part]:
    """Keep the last of several closing summaries; each ends where its turn or the next summary does."""
    summaries, kept = closing_summaries([part.turn for part in parts]), list(parts)
    for (index, start), (after, stop) in reversed(list(pairwise(summaries))):
        turn, origin = kept[index].turn, kept[index].origin
        end = stop if after == index else len(turn.text)
        dropped = turn.text[start:end]
        report.changes.append(Change("summaries_dropped", session, origin, count_words(dropped), excerpt(dropped)))
        text = f"{turn.text[:start].rstrip()}\n\n{turn.text[end:].lstrip()}".strip()
        kept[index] = _Part(replace(turn, text=text), origin)
    return kept


def _merge(parts: Sequence[_Part], session: str, report: CleaningReport) -> list[_Part]:
    merged: list[_Part] = []
    for part in parts:
        if merged and merged[-1].turn.role == part.turn.role:
            before = merged[-1]
            # Nothing is learnt that one of the two turns keeps from being learnt.
            weight = min(before.turn.weight, part.turn.weight)
            merged[-1] = _Part(Turn(part.turn.role, f"{before.turn.text}\n\n{part.turn.text}", weight), before.origin)
            report.changes.append(Change("turns_merged_into_the_one_before", session, part.origin, note=part.turn.role))
        else:
            merged.append(part)
    return merged


def excerpt(text: str, length: int = 80) -> str:
    """Return the beginning of ``text`` on one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
