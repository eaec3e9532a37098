"""Report irregularities of a corpus, session by session, as its files label it. Nothing is changed here.

An *error* says that some words stand under the wrong speaker or that a session cannot be used as it is; a *warning*
a fault that cleaning fixes or a person should look at; a *note* something unusual.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from cbtrain.text.thinking import may_think, without_thinking
from cbtrain.text.words import count_words
from cbtrain.transcripts.cleaning import RESIDUE, excerpt
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.duplicates import DuplicateFinder
from cbtrain.transcripts.labels import COMMON_LABELS, NO_LABELS, inner_labels, speakers_of, unknown_labels
from cbtrain.transcripts.marks import STRIPPING
from cbtrain.transcripts.pair_counts import prompt_digests
from cbtrain.transcripts.personal_data import personal_data
from cbtrain.transcripts.preference import rejected_session
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.summary import closing_summaries, long_lines, opening_turn, summary_labels, summary_text
from cbtrain.transcripts.types import Role, Session

Severity = Literal["error", "warning", "note"]

KINDS: dict[str, tuple[Severity, str]] = {
    "no_turns": ("error", "no labelled turn at all"),
    "one_speaker": ("error", "one of the two speakers says nothing"),
    "inner_label": ("error", "a speaker's label inside a turn: the text after it is another speaker's"),
    "unknown_label": ("warning", "what seems to be a third speaker's label, three times or more in a session"),
    "exact_duplicate": ("error", "the same words as an earlier session"),
    "near_duplicate": ("warning", "much the same words as an earlier session"),
    "repeated_speaker": ("warning", "the same speaker twice in a row"),
    "empty_turn": ("warning", "a turn without words"),
    "text_before_first_label": ("warning", "words before the first speaker's label"),
    "summary_by_patient": ("warning", "the closing summary is under the patient's label"),
    "turns_after_summary": ("warning", "labelled turns after the closing summary"),
    "missing_summary": ("warning", "no closing summary, in a corpus where most sessions have one"),
    "doubled_summary": ("warning", "more than one closing summary"),
    "summary_in_opening": ("note", "the pasted summary has the label of a closing one"),
    "residue": ("warning", "the generator talks about the parts it writes"),
    "thinking": ("warning", "a model's thoughts before its answer"),
    "markup": ("warning", "HTML tags or entities"),
    "transcriber_note": ("note", "notes of a transcriber, such as [crosstalk] or (laughs)"),
    "end_marker": ("note", "a line that says that the conversation is over"),
    "opens_with_therapist": ("note", "the therapist speaks first"),
    "summary_mismatch": ("warning", "the pasted summary is not the previous session's"),
    "personal_data": ("warning", "looks like a real person's data"),
    "shared_prompt": ("note", "a pair with the prompt of an earlier pair"),
    "nested_prompt": ("note", "a pair whose prompt begins with the whole prompt of an earlier pair: one dialogue"),
    "unreadable": ("error", "malformed, left out"),
}
"""Every kind of irregularity, how grave it is, and what it means."""

EXCERPT = 60
"""Characters of a transcript that a finding shows."""

PASTED_WORDS = 80
"""Words from which a patient's opening turn is long enough to hold a pasted summary."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One irregularity: ``turn`` counts from 1 (None: the whole session), ``where`` is a file and perhaps a line."""

    kind: str
    where: str
    session: str = ""
    turn: int | None = None
    detail: str = ""

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    def as_dict(self) -> dict[str, Any]:
        return {"severity": self.severity, **asdict(self)}


class Checker:
    """Takes sessions one by one; :meth:`finish` adds what only the whole corpus shows.

    ``policy`` says which names count as the therapist's label; ``profiles`` which are the patients'; ``labels`` are
    those that the reader was given. Memory grows by about a kilobyte a session.
    """

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        policy: CleaningPolicy | None = None,
        near_duplicate: float = 0.5,
        labels: Mapping[str, Role] = NO_LABELS,
    ) -> None:
        self.profiles, self.policy, self.near_duplicate = profiles, policy or CleaningPolicy(), near_duplicate
        self.labels = labels
        self.sessions = 0
        self._places: list[tuple[str, str]] = []
        self._without_summary = array("L")
        self._last_summary: dict[str, tuple[int, frozenset[int]]] = {}
        self._duplicates = DuplicateFinder()
        self._pairs = bytearray()
        """1 where a session is a pair: pairs of one dialogue are alike by nature."""
        self._prompts: dict[bytes, str] = {}

    @property
    def pairs(self) -> int:
        """How many of the sessions are pairs of answers."""
        return sum(self._pairs)

    def add(self, session: Session) -> Iterator[Finding]:
        """Yield irregularities in ``session`` itself, and in how it continues the session before."""

        def finding(kind: str, turn: int | None = None, detail: str = "") -> Finding:
            return Finding(kind, session.where, session.id, None if turn is None else turn + 1, detail)

        self._places.append((session.where, session.id))
        self._duplicates.add(session)
        self._pairs.append(session.preference is not None)
        self.sessions += 1
        if session.preamble.strip():
            yield finding("text_before_first_label", None, excerpt(session.preamble, EXCERPT))
        if not session.turns:
            yield finding("no_turns")
            return
        if session.preference is not None:
            yield from self._pair(session, session.preference.begin, finding)
            return
        if not (session.count("patient") and session.count("therapist")):
            yield finding("one_speaker", None, f"only the {session.turns[0].role} speaks")
        if session.turns[0].role == "therapist":
            yield finding("opens_with_therapist", 0)
        yield from self._turns(session, finding)
        yield from self._summaries(session, finding)

    def _pair(self, session: Session, begin: int, finding: Any) -> Iterator[Finding]:
        """Yield findings on a pair: its turns, those of the rejected answer with a note, and prompts seen before."""
        if session.turns[0].role == "therapist":
            yield finding("opens_with_therapist", 0)
        yield from self._turns(session, finding)
        for found in self._turns(rejected_session(session), finding):
            if found.turn is not None and found.turn > begin:
                yield replace(found, detail=f"rejected answer: {found.detail}")
        *inner, prompt = prompt_digests(session)
        if earlier := self._prompts.get(prompt):
            yield finding("shared_prompt", None, f"that of {earlier}")
        elif earlier := next((self._prompts[digest] for digest in reversed(inner) if digest in self._prompts), ""):
            yield finding("nested_prompt", None, f"continues that of {earlier}")
        self._prompts.setdefault(prompt, session.id)

    def _turns(self, session: Session, finding: Any) -> Iterator[Finding]:
        profile = self.profiles.get(session.course)
        names = speakers_of(session, profile, self.policy.therapist_names, self.labels)
        before = None
        strange: dict[str, list[int]] = {}
        for index, turn in enumerate(session.turns):
            for name in unknown_labels(turn.text, (*COMMON_LABELS, *names)):
                strange.setdefault(name, []).append(index)
            if turn.role == before:
                yield finding("repeated_speaker", index, turn.role)
            before = turn.role
            if not turn.text.strip():
                yield finding("empty_turn", index, turn.role)
            for label in inner_labels(turn.text, names):
                detail = f"{label.label}: in a {turn.role}'s turn: {excerpt(turn.text[label.start :], EXCERPT)}"
                yield finding("inner_label", index, detail)
            for residue in RESIDUE.finditer(turn.text):
                yield finding("residue", index, excerpt(residue.group(), EXCERPT))
            if may_think(turn.text) and without_thinking(turn.text)[0] != turn.text:
                yield finding("thinking", index, excerpt(turn.text, EXCERPT))
            for kind, (marks_in, _) in STRIPPING.items():
                if marks := marks_in(turn.text):
                    yield finding(kind, index, _listed(marks))
            for kind, _, masked in personal_data(turn.text):
                yield finding("personal_data", index, f"{kind}: {masked}")
        for name, places in strange.items():
            if len(places) >= 3:
                yield finding("unknown_label", places[0], f"{name}: {len(places)} times")

    def _summaries(self, session: Session, finding: Any) -> Iterator[Finding]:
        turns, closing = session.turns, closing_summaries(session.turns)
        opening = opening_turn(turns)
        pasted = turns[opening].text if opening is not None else ""
        if opening is not None and any(True for _ in summary_labels(pasted)):
            yield finding("summary_in_opening", opening)
        if len(closing) > 1:
            yield finding("doubled_summary", closing[-1][0], f"{len(closing)} of them")
        for index, _ in closing:
            if turns[index].role == "patient":
                yield finding("summary_by_patient", index)
        if closing and closing[0][0] < len(turns) - 1:
            yield finding("turns_after_summary", closing[0][0] + 1, f"{len(turns) - 1 - closing[0][0]} of them")
        last_number, last_lines = self._last_summary.get(session.course, (0, frozenset()))
        if last_lines and last_number == session.number - 1 and count_words(pasted) >= PASTED_WORDS:
            share = len(last_lines & long_lines(pasted)) / len(last_lines)
            if share < 0.5:
                yield finding("summary_mismatch", opening, f"{share:.0%} of the lines of session {last_number}'s")
        summary = summary_text(session)
        if not summary.strip():
            self._without_summary.append(self.sessions - 1)
        self._last_summary[session.course] = (session.number, long_lines(summary))

    def finish(self) -> Iterator[Finding]:
        """Yield findings on the whole corpus: duplicates, and missing summaries in a corpus that has them."""
        if 2 * len(self._without_summary) < self.sessions:
            for index in self._without_summary:
                yield Finding("missing_summary", *self._places[index])
        for double in self._duplicates.find(self.near_duplicate):
            if self._pairs[double.index] and not double.exact:
                continue
            other = self._places[double.other][1]
            detail = f"of {other}" if double.exact else f"of {other}, similarity {double.similarity:.2f}"
            kind = "exact_duplicate" if double.exact else "near_duplicate"
            yield Finding(kind, *self._places[double.index], None, detail)


def _listed(marks: list[str]) -> str:
    """Return the marks in one turn, each kind once: ``<p> 4 times, <br>``."""
    counts = Counter(marks)
    shown = ", ".join(f"{mark} {count} times" if count > 1 else mark for mark, count in counts.items())
    return excerpt(shown, EXCERPT)


def check(
    sessions: Iterable[Session],
    profiles: Mapping[str, Profile],
    policy: CleaningPolicy | None = None,
    near_duplicate: float = 0.5,
    labels: Mapping[str, Role] = NO_LABELS,
) -> Iterator[Finding]:
    """Yield all findings in ``sessions``, those that need the whole corpus last."""
    checker = Checker(profiles, policy, near_duplicate, labels)
    for session in sessions:
        yield from checker.add(session)
    yield from checker.finish()
