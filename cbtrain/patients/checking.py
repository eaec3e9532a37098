"""Find what is wrong with patients that are well formed: languages, contradictions, gaps, two that are one.

An *error* makes sessions wrong or impossible; a *warning* is for a person to look at. Nothing is changed here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cbtrain.patients.case import COLUMNS, LATER_PHASES, Case
from cbtrain.patients.faults import named
from cbtrain.text.language import UNKNOWN, language_name, language_of
from cbtrain.transcripts.duplicates import DuplicateFinder
from cbtrain.transcripts.types import Session, Turn

SIMILAR = 0.5
"""Share of common 5-word sequences from which two patients are said to be much the same."""

SUICIDAL = re.compile(r"suicid|self-harm|end(?:ing)? (?:it|their|his|her) (?:all|life)|kill (?:him|her|them)sel", re.I)
DENIED = re.compile(r"\b(?:no|not|never|den(?:y|ies|ied)|without|none|nor)\b", re.I)
SENTENCE_END = re.compile(r"(?<=[.!?])\s")
LANGUAGES_OF_SUICIDAL = "en"


@dataclass(frozen=True, slots=True)
class Checked:
    """Lines that name the patient and what is wrong."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def check_cases(cases: Sequence[Case]) -> Checked:
    """Return everything that is wrong with ``cases``, each by itself and all of them together."""
    errors = [f"{case.id}: {text}" for case in cases for text in _errors(case)]
    warnings = [f"{case.id}: {text}" for case in cases for text in _warnings(case)]
    for text, lacking in (
        ("no history", [case.id for case in cases if _is_modelled(case) and not case.history.strip()]),
        (
            "no cognitive_model: simulators have the history alone",
            [case.id for case in cases if _has_history_alone(case)],
        ),
    ):
        warnings += [f"{named(lacking)}: {text}"] if lacking else []
    same, similar = _repeated(cases)
    return Checked((*errors, *_languages(cases), *same), (*warnings, *_gaps(cases), *_names(cases), *similar))


def words_of(case: Case) -> str:
    """Return all prose of a patient, one text a line."""
    model = case.cognitive_model
    situations = [text for one in model.situations for text in (one.situation, one.thought, one.behaviour)]
    phases = [text for later in case.phases.values() for text in (later.summary, later.since)]
    shows = [symptom.shows for symptom in case.symptoms]
    beliefs = [*model.core_beliefs, *model.intermediate_beliefs, *situations, *model.coping]
    texts = [case.complaint, case.history, *shows, *beliefs, *case.goals, case.in_session, *phases]
    return "\n".join(text.strip() for text in texts if text.strip())


def _errors(case: Case) -> Iterator[str]:
    found = language_of(words_of(case))
    if found not in (UNKNOWN, _base(case.language)):
        yield (
            f"language is {language_name(case.language)}, and its texts are {language_name(found)}. "
            "Correct one of them."
        )
    present = [symptom.severity for symptom in case.symptoms if symptom.severity > 0]
    if not present:
        yield "every symptom has the severity 0 (absent). Give one that is there."
    elif case.severity == "mild" and min(present) == 3:
        yield "severity is mild, and every symptom is severe (3). Correct one of them."
    elif case.severity == "severe" and max(present) == 1:
        yield "severity is severe, and every symptom is mild (1). Correct one of them."
    if case.risk == "none":
        for symptom in case.symptoms:
            if symptom.severity > 0 and SUICIDAL.search(symptom.name):
                yield f"risk is none, and the symptom {symptom.name!r} is there ({symptom.severity}). Correct one."
    twice = [name for name, times in Counter(symptom.name.lower() for symptom in case.symptoms).items() if times > 1]
    if twice:
        yield f"the symptom {twice[0]!r} comes twice. Remove one."
    if not case.history.strip() and not _is_modelled(case):
        yield "neither history nor cognitive_model: a simulated patient would have nothing to say. Write one of them."


def _warnings(case: Case) -> Iterator[str]:
    if not case.in_session.strip() and case.style not in (None, "plain"):
        yield f"style is {case.style}, and in_session does not say how it shows"
    if case.risk == "none" and _base(case.language) == LANGUAGES_OF_SUICIDAL and (sentence := _suicidal(case)):
        yield f"risk is none, and its history says: {sentence!r}"


def _has_history_alone(case: Case) -> bool:
    return bool(case.history.strip()) and not _is_modelled(case)


def _is_modelled(case: Case) -> bool:
    model = case.cognitive_model
    return bool(model.core_beliefs or model.intermediate_beliefs or model.situations)


def _suicidal(case: Case) -> str:
    """Return the first sentence of the history on suicide or self-harm that denies nothing; English alone."""
    for sentence in SENTENCE_END.split(" ".join(case.history.split())):
        if SUICIDAL.search(sentence) and not DENIED.search(sentence):
            return sentence[:100]
    return ""


def _languages(cases: Sequence[Case]) -> Iterator[str]:
    languages: dict[str, list[str]] = {}
    for case in cases:
        languages.setdefault(_base(case.language), []).append(case.id)
    if len(languages) > 1:
        groups = sorted(languages.items(), key=lambda group: -len(group[1]))
        each = "; ".join(f"{language_name(code)}: {named(ids)}" for code, ids in groups)
        yield f"patients of {len(groups)} languages ({each}). Keep each language in a file of its own."


def _gaps(cases: Sequence[Case]) -> Iterator[str]:
    """What some patients have and others lack: they cannot be compared or stratified by it."""
    lacks = [(column, [case.id for case in cases if getattr(case, column) is None]) for column in COLUMNS]
    lacks += [(f"phases.{phase}", [case.id for case in cases if phase not in case.phases]) for phase in LATER_PHASES]
    for field, lacking in lacks:
        if lacking and len(lacking) < len(cases):
            yield f"{named(lacking)}: no {field}, which {len(cases) - len(lacking)} of {len(cases)} patients have"


def _names(cases: Sequence[Case]) -> Iterator[str]:
    ids: dict[str, list[str]] = {}
    for case in cases:
        ids.setdefault(case.name.casefold(), []).append(case.id)
    for same in ids.values():
        if len(same) > 1:
            name = next(case.name for case in cases if case.id == same[0])
            yield f"{named(same)}: all are called {name}"


def _repeated(cases: Sequence[Case]) -> tuple[list[str], list[str]]:
    """Return the pairs of patients with the same words, and those with much the same ones."""
    finder = DuplicateFinder()
    for number, case in enumerate(cases, 1):
        finder.add(Session(case.id, number, (Turn("patient", words_of(case)),)))
    same, similar = [], []
    for pair in finder.pairs(SIMILAR):
        ids = f"{cases[pair.other].id}, {cases[pair.index].id}"
        if pair.exact:
            same.append(f"{ids}: the same patient twice. Remove one.")
        else:
            similar.append(f"{ids}: much the same words ({pair.similarity:.0%} of 5-word sequences)")
    return same, similar


def _base(language: str) -> str:
    """``en-GB`` is ``en``."""
    return language.lower().replace("_", "-").partition("-")[0]
