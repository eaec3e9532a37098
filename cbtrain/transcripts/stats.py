"""Count a corpus as it is labelled, before any cleaning, session by session in bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cbtrain.transcripts.openings import Openings
from cbtrain.transcripts.pair_counts import PAIR_QUANTITIES, PairCounts
from cbtrain.transcripts.preference import all_turns
from cbtrain.transcripts.types import PHASES, Corpus, Phase, Session

QUANTITIES = ("turns", "words", "tokens")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of one quantity over sessions; ``sd`` is the sample standard deviation (0 for a single session)."""

    sessions: int
    mean: float
    sd: float
    minimum: int
    p10: float
    median: float
    p90: float
    maximum: int
    total: int


class Statistics:
    """Takes sessions one by one, as they are labelled: turns count before any are merged.

    ``words`` are those of the source text where there is one (labels included), else the turns'. ``count_tokens``
    counts a text's tokens, if a tokenizer is named.
    """

    def __init__(self, count_tokens: Callable[[str], int] | None = None) -> None:
        self._count_tokens = count_tokens
        self._courses: set[str] = set()
        self._openings = Openings()
        self._pairs = PairCounts()
        self._patients: set[str] = set()
        self._therapist = self._patient = self._repeated = self._empty = self._ignored = self._characters = 0
        # Eight bytes a session and quantity; the phase beside them as an index.
        self._phases = array("b")
        self._values = {name: array("q") for name in QUANTITIES if name != "tokens" or count_tokens}

    def add(self, session: Session) -> None:
        therapist, patient = session.count("therapist"), session.count("patient")
        if session.course not in self._courses:
            self._openings.add(session)
            self._courses.add(session.course)
        self._patients.add(session.patient or session.course)
        if session.preference is not None:
            self._pairs.add(session)
        self._ignored += session.ignored
        self._characters += sum(len(turn.text) for turn in all_turns(session))
        self._therapist += therapist
        self._patient += patient
        self._repeated += any(before.role == after.role for before, after in pairwise(session.turns))
        self._empty += not session.turns
        self._phases.append(PHASES.index(session.phase))
        self._values["turns"].append(therapist + patient)
        self._values["words"].append(session.source_words or session.words)
        if self._count_tokens:
            self._values["tokens"].append(sum(self._count_tokens(turn.text) for turn in session.turns))

    def counts(self) -> dict[str, int]:
        """Counts by name. Turns and words of pairs are those of prompt and chosen answer; what is known of pairs alone
        comes last."""
        return {
            "patients": len(self._patients),
            "courses": len(self._courses),
            "sessions": len(self._phases),
            "turns": self._therapist + self._patient,
            "therapist_turns": self._therapist,
            "patient_turns": self._patient,
            "ignored_turns": self._ignored,
            "words": sum(self._values["words"]),
            "characters": self._characters,
            "sessions_with_repeated_speaker": self._repeated,
            "sessions_without_turns": self._empty,
            "repeated_openings": self._openings.count(),
            **self._pairs.counts(),
        }

    def values(self, quantity: str, phase: str | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
        """``quantity`` of every session (of one phase), int64 ``[sessions]``."""
        values = np.array(self._values[quantity], np.int64)
        return values if phase is None else values[np.array(self._phases) == PHASES.index(phase)]

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases that sessions are counted by: none for pairs of answers, whose number says nothing."""
        return () if len(self._pairs.values["chosen_words"]) else PHASES

    def distributions(self) -> dict[str, dict[str, Distribution]]:
        """For each quantity a distribution over all sessions (``all``) and over those of each phase that occurs."""
        by_quantity: dict[str, dict[str, Distribution]] = {}
        for quantity in self._values:
            groups = {"all": self.values(quantity)} | {phase: self.values(quantity, phase) for phase in self.phases}
            by_quantity[quantity] = {name: _distribution(values) for name, values in groups.items() if len(values)}
        for quantity in PAIR_QUANTITIES if len(self._pairs.values["chosen_words"]) else ():
            by_quantity[quantity] = {"all": _distribution(np.array(self._pairs.values[quantity], np.int64))}
        return by_quantity


def stats(corpus: Corpus) -> dict[str, int]:
    """Counts of a corpus that is in memory already."""
    return gather(corpus.sessions()).counts()


def gather(sessions: Iterable[Session], count_tokens: Callable[[str], int] | None = None) -> Statistics:
    """Return the statistics of a stream of sessions."""
    statistics = Statistics(count_tokens)
    for session in sessions:
        statistics.add(session)
    return statistics


def _distribution(values: np.ndarray[Any, np.dtype[np.int64]]) -> Distribution:
    p10, median, p90 = (float(value) for value in np.percentile(values, (10, 50, 90)))
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    low, high, total = int(values.min()), int(values.max()), int(values.sum())
    return Distribution(len(values), float(values.mean()), sd, low, p10, median, p90, high, total)
