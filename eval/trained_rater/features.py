"""Numbers about a session that a trained rater is fitted on: a fixed list, the same for equal text.

Counts of turns enter as ln(1 + turns), shares as they are. The therapist's summary of the session before, which
patients of the 2024 study open with, is left out. Features with a language count wordings of that language
(:mod:`cbtrain.eval.trained_rater.wordings`); the others work in every language.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Final, NamedTuple

from cbtrain.eval.rating.ratable import without_marks
from cbtrain.eval.simulation.drift import SUMMARY
from cbtrain.eval.trained_rater.wordings import OPEN_QUESTION, TECHNIQUES, WORDINGS, plain
from cbtrain.text.language import FUNCTION_WORDS
from cbtrain.text.words import UNSPACED, count_words
from cbtrain.transcripts.types import Turn

VERSION: Final = 1
"""Grows with every change of a feature: a rater that was fitted on another version cannot be used."""

LECTURE = 60
"""Words of a therapist's turn without a question from which on it is a lecture."""

RUN = 4
"""Words of a run that the therapist says again."""

MARKS = ("?", "？", "؟")
AFTER_QUESTION = "\"'”’)* \n"
LIST_ITEM = re.compile(r"^\s{0,8}(?:[-*•]|\d{1,2}[.)])\s", re.MULTILINE)
NUMBER = re.compile(r"\d")
UNIT = re.compile(r"[\w'’]+")
COMMON = frozenset().union(*(words for lists in FUNCTION_WORDS.values() for words in lists.values()))


class Feature(NamedTuple):
    """``language``: the only one it can be counted in, "" if it can be in all."""

    what: str
    language: str = ""


STRUCTURE = {
    "turns": Feature("ln(1 + turns of both speakers)"),
    "therapist_words": Feature("ln(1 + the therapist's words)"),
    "words_per_turn": Feature("ln(1 + the therapist's words in a turn, mean)"),
    "words_spread": Feature("the SD of words in a therapist's turn, divided by their mean"),
    "talk_share": Feature("the therapist's share of all words"),
    "patient_words_per_turn": Feature("ln(1 + the patient's words in a turn, mean)"),
    "opening_share": Feature("share of the therapist's words that stand in the first third"),
    "closing_share": Feature("share of the therapist's words that stand in the last third"),
    "question_share": Feature("share of the therapist's turns with a question mark"),
    "questions_per_turn": Feature("question marks in a therapist's turn, mean"),
    "ends_with_question": Feature("share of the therapist's turns that end with a question"),
    "many_questions": Feature("share of the therapist's turns with more than two questions"),
    "opening_questions": Feature("question_share in the first third"),
    "closing_questions": Feature("question_share in the last third"),
    "lecture_share": Feature(f"share of the therapist's turns of more than {LECTURE} words without a question"),
    "list_share": Feature("share of the therapist's turns with a list"),
    "number_share": Feature("share of the therapist's turns with a digit"),
    "pickup_share": Feature("share of the therapist's turns that take up a content word of the patient's turn before"),
    "repetition": Feature(f"share of runs of {RUN} words that the therapist has said in an earlier turn"),
    "vocabulary": Feature("ln of different words of the therapist, less half the ln of all of them (Guiraud)"),
}
ENGLISH = {
    "open_questions": Feature("share of the therapist's turns with an open question", "en"),
    **{
        name: Feature(f"ln(1 + the therapist's turns that match: {wording.what}; {wording.part} session)", "en")
        for name, wording in WORDINGS.items()
    },
    "techniques": Feature(f"how many of {len(TECHNIQUES)} techniques the therapist names", "en"),
    "technique_turns": Feature("ln(1 + the therapist's turns that name a technique)", "en"),
}
FEATURES: dict[str, Feature] = {**STRUCTURE, **ENGLISH}
"""Name and meaning of every feature, in the order of a model's coefficients."""


def names_for(languages: Sequence[str]) -> tuple[str, ...]:
    """Return the features that can be counted in sessions of ``languages``: all of them where they are in English
    only."""
    return tuple(name for name, feature in FEATURES.items() if not feature.language or list(languages) == ["en"])


def features_of(turns: Sequence[Turn], names: Sequence[str] = tuple(FEATURES)) -> list[float]:
    """Return the features called ``names`` of a session in which both speakers speak, float ``[names]``, finite."""
    said = [Turn(turn.role, text) for turn in _without_summary(turns) if (text := without_marks(turn.text))]
    values = _structure(said)
    if any(FEATURES[name].language == "en" for name in names):
        values |= _english(said)
    return [float(values[name]) for name in names]


def _structure(turns: Sequence[Turn]) -> dict[str, float]:
    therapist = [(index, turn.text) for index, turn in enumerate(turns) if turn.role == "therapist"]
    texts = [text for _, text in therapist]
    lengths = [count_words(text) for text in texts]
    patient = [count_words(turn.text) for turn in turns if turn.role == "patient"]
    words, count = sum(lengths), len(texts)
    asked = [_questions(text) for text in texts]
    opening, closing = _parts(len(turns))
    first = [place for place, (index, _) in enumerate(therapist) if index in opening]
    last = [place for place, (index, _) in enumerate(therapist) if index in closing]
    units = [_units(text) for text in texts]
    total = sum(map(len, units))
    return {
        "turns": math.log1p(len(turns)),
        "therapist_words": math.log1p(words),
        "words_per_turn": math.log1p(_share(words, count)),
        "words_spread": _share(pstdev(lengths), fmean(lengths)) if lengths else 0.0,
        "talk_share": _share(words, words + sum(patient)),
        "patient_words_per_turn": math.log1p(_share(sum(patient), len(patient))),
        "opening_share": _share(sum(lengths[place] for place in first), words),
        "closing_share": _share(sum(lengths[place] for place in last), words),
        "question_share": _share(sum(n > 0 for n in asked), count),
        "questions_per_turn": _share(sum(asked), count),
        "ends_with_question": _share(sum(text.rstrip(AFTER_QUESTION).endswith(MARKS) for text in texts), count),
        "many_questions": _share(sum(n > 2 for n in asked), count),
        "opening_questions": _share(sum(asked[place] > 0 for place in first), len(first)),
        "closing_questions": _share(sum(asked[place] > 0 for place in last), len(last)),
        "lecture_share": _share(sum(n > LECTURE and not q for n, q in zip(lengths, asked, strict=True)), count),
        "list_share": _share(sum(bool(LIST_ITEM.search(text)) for text in texts), count),
        "number_share": _share(sum(bool(NUMBER.search(text)) for text in texts), count),
        "pickup_share": _share(sum(_takes_up(turns, index) for index, _ in therapist), count),
        "repetition": _repetition(units),
        "vocabulary": math.log(len({word for part in units for word in part})) - math.log(total) / 2 if total else 0.0,
    }


def _english(turns: Sequence[Turn]) -> dict[str, float]:
    therapist = [(index, plain(turn.text)) for index, turn in enumerate(turns) if turn.role == "therapist"]
    opening, closing = _parts(len(turns))
    parts = {"whole": range(len(turns)), "opening": opening, "closing": closing}
    values = {
        "open_questions": _share(sum(bool(OPEN_QUESTION.search(text)) for _, text in therapist), len(therapist)),
    }
    found: dict[str, list[int]] = {}
    for name, wording in WORDINGS.items():
        pattern = wording.pattern
        if pattern.pattern not in found:  # one pattern may count in several parts
            found[pattern.pattern] = [index for index, text in therapist if pattern.search(text)]
        values[name] = math.log1p(sum(index in parts[wording.part] for index in found[pattern.pattern]))
    named = [[bool(pattern.search(text)) for pattern in TECHNIQUES.values()] for _, text in therapist]
    values["techniques"] = float(sum(map(any, zip(*named, strict=True))))
    values["technique_turns"] = math.log1p(sum(map(any, named)))
    return values


def _without_summary(turns: Sequence[Turn]) -> list[Turn]:
    if not turns or turns[0].role != "patient":
        return list(turns)
    return [Turn("patient", SUMMARY.sub("", turns[0].text)), *turns[1:]]


def _parts(turns: int) -> tuple[range, range]:
    """Return the places of the first and the last third of ``turns`` turns, at least two each."""
    third = max(2, -(-turns // 3))
    return range(min(third, turns)), range(max(0, turns - third), turns)


def _questions(text: str) -> int:
    return sum(text.count(mark) for mark in MARKS)


def _takes_up(turns: Sequence[Turn], index: int) -> bool:
    if not index or turns[index - 1].role != "patient":
        return False
    return bool(_content(turns[index - 1].text) & _content(turns[index].text))


def _content(text: str) -> set[str]:
    """Words that say something: no function word of a known language, and five letters where words have letters."""
    return {
        word for word in _units(text) if word not in COMMON and (len(word) > 4 or UNSPACED.search(word) is not None)
    }


def _units(text: str) -> list[str]:
    """Return the words of ``text`` in lower case; in scripts without blanks each character is one."""
    words = UNIT.findall(text.replace("’", "'").casefold())
    if text.isascii() or not UNSPACED.search(text):
        return words
    return [unit for word in words for unit in (word if UNSPACED.search(word) else (word,))]


def _repetition(units: Sequence[Sequence[str]]) -> float:
    seen: set[tuple[str, ...]] = set()
    again = total = 0
    for words in units:
        runs = {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}
        again += len(runs & seen)
        total += len(runs)
        seen |= runs
    return _share(again, total)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
