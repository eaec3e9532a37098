"""Find patients who open alike: perhaps several dialogues that were made from one patient's words.

Sets are often made by letting a model continue a patient's question several times. Nothing in such files names the
patient; the question does.
"""

from __future__ import annotations

from collections.abc import Iterator

from cbtrain.text.words import count_words
from cbtrain.transcripts.duplicates import DuplicateFinder
from cbtrain.transcripts.types import Session

SHORTEST = 4
"""Words of an opening that says anything about who speaks."""

NAME_PATIENTS = "name patients (patient_id of corpus.map), or set split.openings=join"

THRESHOLD = 0.5
"""Jaccard index of 5-word shingles from which two openings are alike, as for whole sessions."""


class Openings:
    """Takes the first session of each course, and keeps a sketch of the patient's first turn if it has enough words."""

    def __init__(self) -> None:
        self._finder = DuplicateFinder()
        self._sessions: list[tuple[str, str]] = []

    def add(self, session: Session) -> None:
        turn = next((turn for turn in session.turns if turn.role == "patient"), None)
        if turn is not None and count_words(turn.text) >= SHORTEST:
            self._finder.add(Session(session.course, session.number, (turn,)))
            self._sessions.append((session.patient or session.course, session.id))

    def pairs(self, threshold: float = THRESHOLD) -> Iterator[tuple[str, str]]:
        """Yield the ids of sessions of different patients that open alike, the later session first; an exact copy is
        paired with the first of its kind only."""
        for pair in self._finder.pairs(threshold):
            (later, later_session), (earlier, earlier_session) = self._sessions[pair.index], self._sessions[pair.other]
            if later != earlier:
                yield later_session, earlier_session

    def count(self) -> int:
        """Return how many sessions open as an earlier one of another patient does."""
        return len({later for later, _ in self.pairs()})
