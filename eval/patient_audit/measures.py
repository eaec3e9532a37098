"""What patients do in sessions, in numbers that need no judge: by session, and as means by patient.

A measure is None where it cannot be computed: lexical diversity of too few words, or an English wording in sessions of
another language.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from cbtrain.eval.patient_audit.wordings import FIRST_PERSON, QUESTION, agrees, content_ngrams, hedges, words_of
from cbtrain.eval.simulation.drift import DRIFTS, SUMMARY, drift_in
from cbtrain.text.language import UNKNOWN, language_of
from cbtrain.text.words import count_words
from cbtrain.transcripts.labels import NO_LABELS
from cbtrain.transcripts.types import Role, Session, Turn

WINDOW = 50
"""Words of the moving window of lexical diversity."""

ECHO = 2
"""Words of an n-gram that a patient repeats after the therapist."""

MEASURES: Mapping[str, str] = {
    "turns": "patient's turns in a session",
    "words_per_turn": "words in a turn, mean",
    "words_sd": "words in a turn, SD within a session",
    "questions": "share of turns with a question",
    "diversity": f"lexical diversity: share of different words in a window of {WINDOW} (MATTR)",
    "echo": "share of the therapist's last word pairs that the patient repeats",
    "agreement": "share of answers that open with agreement (English)",
    "hedges": "hedges in 100 words (English)",
    "first_person": "share of words in the first person (English)",
    "drift": "share of turns with drift",
}
"""The measures of a session, in their order."""

ENGLISH = ("agreement", "hedges", "first_person")


@dataclass(frozen=True, slots=True)
class Measured:
    """One session: ``values`` of :data:`MEASURES`, its drift by kind, whether each answer agrees and is reserved, and
    the patient's words. ``answers`` are the patient's turns after a turn of the therapist."""

    patient: str
    arm: str
    ending: str
    values: Mapping[str, float | None]
    drift: Mapping[str, int]
    agreement: Sequence[bool]
    reserve: Sequence[bool]
    words: Sequence[str] = field(repr=False)
    summary_cut: bool = False


def measured(session: Session, names: Mapping[str, Role] = NO_LABELS) -> Measured | None:
    """Return the measures of one session; None if the patient says nothing in it.

    ``names`` are the speakers' names, as for :func:`drift_in`. The therapist's summary of the session before, which
    patients of the 2024 study open with, is left out (``summary_cut``).
    """
    turns, cut = without_summary(session.turns)
    spoken = [turn.text for turn in turns if turn.role == "patient" and turn.text.strip()]
    if not spoken:
        return None
    drift = Counter[str]()
    drifted = 0
    for index, turn in enumerate(turns):
        if turn.role == "patient":
            kinds = drift_in(turn.text, turns[:index], names)
            drift.update(kinds)
            drifted += bool(kinds)
    answers = [turn.text for before, turn in _pairs(turns) if before.role == "therapist"]
    words = [word for text in spoken for word in words_of(text)]
    lengths = [count_words(text) for text in spoken]
    values: dict[str, float | None] = {
        "turns": float(len(spoken)),
        "words_per_turn": fmean(lengths),
        "words_sd": stdev(lengths) if len(lengths) > 1 else None,
        "questions": fmean(bool(QUESTION.search(text)) for text in spoken),
        "diversity": mattr(words),
        "echo": echo(turns),
        "agreement": fmean(map(agrees, answers)) if answers else None,
        "hedges": 100 * sum(map(hedges, spoken)) / len(words) if words else None,
        "first_person": fmean(word in FIRST_PERSON for word in words) if words else None,
        "drift": drifted / len(spoken),
    }
    if language_of(" ".join(spoken)) not in ("en", UNKNOWN):
        values |= dict.fromkeys(ENGLISH)
        answers = []
    return Measured(
        patient=session.patient or session.course,
        arm=session.facts.get("arm", ""),
        ending=session.facts.get("ending", ""),
        values=values,
        drift={kind: drift[kind] for kind in DRIFTS},
        agreement=[agrees(text) for text in answers],
        reserve=[not agrees(text) or hedges(text) > 0 for text in answers],
        words=words,
        summary_cut=cut,
    )


def without_summary(turns: Sequence[Turn]) -> tuple[list[Turn], bool]:
    """Return ``turns`` with the first patient's turn cut where a summary of the session before begins, and whether it
    was cut."""
    if not turns or turns[0].role != "patient" or not SUMMARY.search(turns[0].text):
        return list(turns), False
    return [Turn("patient", SUMMARY.sub("", turns[0].text).strip()), *turns[1:]], True


def mattr(words: Sequence[str], window: int = WINDOW) -> float | None:
    """Return the moving-average type-token ratio (Covington and McFall 2010): the mean share of different words over
    all windows of ``window`` words, which does not fall with the length of a text. None with fewer words."""
    if len(words) < window:
        return None
    counts = Counter(words[:window])
    total, windows = len(counts), len(words) - window + 1
    for start in range(windows - 1):
        counts[words[start]] -= 1
        if not counts[words[start]]:
            del counts[words[start]]
        counts[words[start + window]] += 1
        total += len(counts)
    return total / (windows * window)


def echo(turns: Sequence[Turn], size: int = ECHO) -> float | None:
    """Return the share of content n-grams of a therapist's turn that stand in the patient's answer, mean over the
    answers; None if no therapist's turn that is answered has any."""
    shares = []
    for before, turn in _pairs(turns):
        heard = content_ngrams(words_of(before.text), size) if before.role == "therapist" else set()
        if heard:
            shares.append(len(heard & content_ngrams(words_of(turn.text), size)) / len(heard))
    return fmean(shares) if shares else None


def by_patient(sessions: Sequence[Measured]) -> dict[str, dict[str, float | None]]:
    """Return each patient's mean over their sessions, by measure; None where no session has the measure."""
    groups: dict[str, list[Measured]] = defaultdict(list)
    for session in sessions:
        groups[session.patient].append(session)
    return {
        patient: {
            name: fmean(found) if (found := [v for s in of_patient if (v := s.values[name]) is not None]) else None
            for name in MEASURES
        }
        for patient, of_patient in groups.items()
    }


def _pairs(turns: Sequence[Turn]) -> list[tuple[Turn, Turn]]:
    """Return each of the patient's turns with the turn before it."""
    return [(turns[i - 1], turns[i]) for i in range(1, len(turns)) if turns[i].role == "patient"]
