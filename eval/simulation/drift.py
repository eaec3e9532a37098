"""Find where whoever plays a patient no longer speaks as one.

Precision comes first: a sound patient must not be caught, so many a weak turn passes. Repetition, labels and parroting
need no language; the wordings are English, and find nothing in other languages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import get_args

from cbtrain.eval.simulation.drift_wordings import (
    AGREES,
    ASSISTANT,
    COMMITS,
    GRATEFUL,
    GUIDES,
    HEDGES,
    NARRATES,
    NOT_TO_PLAY,
    OUT_OF_CHARACTER,
    PLAINLY_AGREES,
    PLAY,
    POINT,
    SOUNDS_LIKE_THERAPIST,
    TRANSFORMED,
    Drift,
)
from cbtrain.providers.answers.refusals import leaves_role
from cbtrain.text.words import UNSPACED
from cbtrain.transcripts.labels import NO_LABELS, inner_labels, unknown_labels
from cbtrain.transcripts.types import Role, Turn

DRIFTS: tuple[Drift, ...] = get_args(Drift)
"""All kinds, in the order in which they are told."""

SHINGLE = 3
"""Words in a row that are compared."""

REPEATED_WORDS, REPEATED_SHARE = 15, 0.8
"""A turn of this many words or more repeats an earlier one if this share of its shingles stands there: "yeah" and "I
don't know" may recur."""

PARROTED_WORDS, PARROTED_SHARE = 25, 0.8
"""The same for the therapist's turns: more, since a patient reads a phrase back that they are to practise."""

LOOP_WORDS, LOOP_TIMES = 6, 3
"""A sentence of this many words, this many times in one turn, is a loop."""

EARLY = 3
"""A patient gives in at once within the answers to this many turns of the therapist."""

FEWEST_LABELS, FEWEST_QUOTED, FEWEST_POINTS = 4, 3, 3
"""So many lines with two labels in turn are a dialogue, and so many paragraphs that are whole quotations; so many
points are a list."""

MOST_YOUS, FEWEST_WORDS = 0.08, 25
"""A turn of this many words in which this share is "you", and none is "I", addresses somebody as a therapist does."""

UNIT = re.compile(r"[\w'’]+")
SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*|\n+")
QUOTED = re.compile(
    r"\"[^\"\n]{2,400}\"|“[^”\n]{2,400}”|«[^»\n]{2,400}»|(?<!\w)'(?:[^'\n]|(?<=\w)'(?=\w)){2,400}'(?!\w)"
)
REPORTED = re.compile(
    r"\b(?:said|says|saying|told|tells|telling|asked|asks|asking|goes|thinks?|thought|heard|remind(?:s|ed|ing)?"
    r"|remember(?:ed)? (?:what )?you)\b[^.!?\n]{0,400}",
    re.IGNORECASE,
)
"""What somebody else has said, or the patient to themselves."""

SUMMARY = re.compile(r"\b(?:summary|talked about|discussed|summarized)\b[^.!?\n]{0,80}:.*", re.IGNORECASE | re.DOTALL)
"""What a patient opens a later session with in the 2024 study: the therapist's summary of the one before."""

WHOLE_QUOTE = re.compile(r"^(?:\"[^\"]{1,600}\"|“[^”]{1,600}”|«[^»]{1,600}»)$")
YOU, ME = re.compile(r"\byou(?:rs?|rself|'(?:re|ve|ll|d))?\b"), re.compile(r"\b(?:i|me|my|mine|myself)\b")
STRAIGHT = str.maketrans("’‘´`", "''''")


def drift_in(text: str, turns: Sequence[Turn], names: Mapping[str, Role] = NO_LABELS) -> list[Drift]:
    """Return the kinds of drift, in the order of :data:`DRIFTS`, in a patient's next turn ``text`` after ``turns``.

    The patient speaks first. ``names`` are labels of the two beside the common ones, as for :func:`inner_labels`.
    """
    found = {
        "therapist_speech": speaks_as_therapist(text, turns, names),
        "repetition": repeats(text, turns),
        "speaks_for_both": speaks_for_both(text, names),
        "soft_refusal": refuses_softly(text, turns),
        "gives_in": gives_in(text, turns),
    }
    return [kind for kind in DRIFTS if found[kind]]


def speaks_as_therapist(text: str, turns: Sequence[Turn], names: Mapping[str, Role] = NO_LABELS) -> bool:
    """Return whether ``text`` guides, advises, interprets or praises the other (English), or says a turn of the
    therapist again. One wording that no patient uses is enough, or two that a patient rarely uses."""
    if _said_before(QUOTED.sub(" ", text), turns, "therapist", PARROTED_WORDS, PARROTED_SHARE):
        return True
    own = _own_words(text if turns else SUMMARY.sub("", text))
    signs = _weak_signs(own)
    return _guides(own) or signs >= 2 or (signs == 1 and _calls_patient(own, names))


def repeats(text: str, turns: Sequence[Turn]) -> bool:
    """Return whether ``text`` is, but for a few words, an earlier turn of the patient, or one sentence in a loop (a
    quoted one is practised)."""
    if _said_before(text, turns, "patient", REPEATED_WORDS, REPEATED_SHARE):
        return True
    own = QUOTED.sub(" ", text)
    sentences = Counter(" ".join(units) for sentence in SENTENCE_END.split(own) if (units := _units(sentence)))
    return any(times >= LOOP_TIMES and len(words.split()) >= LOOP_WORDS for words, times in sentences.items())


def speaks_for_both(text: str, names: Mapping[str, Role] = NO_LABELS) -> bool:
    """Return whether ``text`` goes on as the other too: a label of the therapist, two labels in turn, what a therapist
    does (``*the therapist nods*``), or quotations in a row of which one is a therapist's (both English)."""
    if any(label.role == "therapist" for label in inner_labels(text, names)):
        return True
    labels = [label.lower() for label in unknown_labels(text, ())]
    in_turn = len(set(labels)) == 2 and all(one != other for one, other in pairwise(labels))
    if in_turn and len(labels) >= FEWEST_LABELS and "me" not in labels:  # "Me: …" is a chat that is read out
        return True
    return bool(NARRATES.search(text)) or _goes_on_in_quotations(text)


def refuses_softly(text: str, turns: Sequence[Turn]) -> bool:
    """Return whether ``text`` refuses the part or falls out of it into a helpful assistant's (beginnings of refusals in
    a few languages, the rest English). Not to go on with a role play that the therapist has begun is a patient's."""
    if leaves_role(text):
        return True
    own = _own_words(text if turns else SUMMARY.sub("", text))
    if any(pattern.search(own) for pattern in ASSISTANT):
        return True
    if any(turn.role == "therapist" and PLAY.search(turn.text.lower()) for turn in turns):
        return False
    sentences = SENTENCE_END.split(own)
    leaves = any(PLAY.search(sentence) and NOT_TO_PLAY.search(sentence) for sentence in sentences)
    return leaves or bool(OUT_OF_CHARACTER.search(own))


def gives_in(text: str, turns: Sequence[Turn]) -> bool:
    """Return whether ``text`` agrees without reserve with one of the therapist's first turns and is transformed by it,
    or agrees, thanks and promises at once (English)."""
    heard = sum(turn.role == "therapist" for turn in turns)
    if not 0 < heard <= EARLY or turns[-1].role != "therapist":
        return False
    own = _own_words(text)
    if HEDGES.search(own):
        return False
    signs = sum(bool(pattern.search(own)) for pattern in (AGREES, GRATEFUL, COMMITS))
    transformed = bool(TRANSFORMED.search(own)) and (signs > 0 or bool(PLAINLY_AGREES.search(own)))
    return transformed or signs == 3


def _weak_signs(own: str) -> int:
    """Return how many different wordings of a therapist are in ``own``; speech to a "you" without an "I" is one."""
    words = len(own.split())
    yous, mes = len(YOU.findall(own)), len(ME.findall(own))
    addresses = words >= FEWEST_WORDS and not mes and yous >= MOST_YOUS * words
    if yous < mes:  # who speaks of themselves is the patient
        return 0
    lists = len(POINT.findall(own)) >= FEWEST_POINTS
    return sum(bool(pattern.search(own)) for pattern in SOUNDS_LIKE_THERAPIST) + addresses + lists


def _calls_patient(own: str, names: Mapping[str, Role]) -> bool:
    """Return whether the patient is called by name in ``own``: "I understand, Jo."."""
    called = [name.lower() for name, role in names.items() if role == "patient" and name]
    return any(own.startswith(f"{name},") or f", {name}{end}" in own for name in called for end in ".,!?")


def _own_words(text: str) -> str:
    """Return ``text`` in lower case with straight apostrophes, without what is quoted or reported in it."""
    return REPORTED.sub(" ", QUOTED.sub(" ", text).translate(STRAIGHT).lower())


def _said_before(text: str, turns: Sequence[Turn], role: Role, words: int, share: float) -> bool:
    """Return whether ``share`` of the shingles of ``text`` stand in one earlier turn of ``role``."""
    units = _units(text)
    if len(units) < words:
        return False
    shingles = Counter(_shingles(units))
    for turn in turns:
        if turn.role == role:
            again = (shingles & _shingles_of(turn.text)).total()
            if again >= share * shingles.total():
                return True
    return False


@lru_cache(maxsize=4096)
def _shingles_of(text: str) -> Counter[tuple[str, ...]]:
    return Counter(_shingles(_units(text)))


def _units(text: str) -> list[str]:
    """Return the words of ``text``; in scripts without blanks each character is one."""
    words = [word for part in UNIT.findall(text.casefold()) if (word := part.strip("'’"))]
    if text.isascii() or not UNSPACED.search(text):
        return words
    return [unit for word in words for unit in (word if UNSPACED.search(word) else (word,))]


def _shingles(units: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(units[start:] for start in range(SHINGLE)), strict=False)


def _goes_on_in_quotations(text: str) -> bool:
    """Return whether paragraphs of ``text`` are whole quotations, all different (a phrase that is practised recurs),
    and one of them is a therapist's."""
    quotations = {paragraph.strip().lower() for paragraph in text.splitlines() if WHOLE_QUOTE.match(paragraph.strip())}
    therapists = (_own_words(quotation.strip('"“”«» ')) for quotation in quotations)
    return len(quotations) >= FEWEST_QUOTED and any(_guides(words) or _weak_signs(words) for words in therapists)


def _guides(own: str) -> bool:
    return any(pattern.search(own) for pattern in GUIDES)
