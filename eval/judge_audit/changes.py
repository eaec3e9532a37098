"""Changed copies of sessions. All changes are made by deterministic code, so that a copy is the same on every machine.

They are blunt on purpose: a rater that misses one of them will miss finer ones. What has to be found or said in words
is done by English wording in English, elsewhere by what a writer model has marked or translated; without one by
structure, which needs no language.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Literal

from cbtrain.eval.judge_audit.inserts import ENGLISH, Inserts, forged
from cbtrain.eval.judge_audit.sentences import is_question, joined, sentences
from cbtrain.eval.judge_audit.wording import speaks_of
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.text.words import count_words
from cbtrain.transcripts.types import Role, Turn

Turns = Sequence[Turn]
Place = tuple[int, int]
"""Index of a turn, and of a sentence in it."""

Way = Literal["wording", "writer", "structure", "code"]
"""How a change was made: by English wording, by a writer model's marks or words, by structure alone where wording would
be finer, or by code that needs no language."""

FEWEST_TURNS = 8
"""A session with fewer turns is not cut."""

FEWEST_STATEMENTS = 3
"""A therapist who says fewer statements has none to put in the place of questions."""


@dataclass(frozen=True, slots=True)
class Material:
    """A session and what copies are made with. ``language``: ISO 639-1 code, or ``unknown``. Of a writer model:
    ``inserts`` in this language, ``marked`` sentences by their aspect, ``paraphrase`` of each turn; None: there are
    none."""

    turns: Turns
    rubric: Rubric
    language: str = "en"
    inserts: Inserts | None = None
    marked: dict[str, frozenset[Place]] | None = None
    paraphrase: Sequence[str] | None = None

    @property
    def words(self) -> tuple[Inserts, Way] | None:
        """Sentences in the language of the session, and whose they are; None if there are none."""
        if self.language == "en":
            return ENGLISH, "wording"
        return (self.inserts, "writer") if self.inserts else None


@dataclass(frozen=True, slots=True)
class Changed:
    turns: list[Turn]
    way: Way = "code"


Change = Callable[[Material], Changed | None]
"""Makes a copy, or None if there is nothing to change in the session or nothing to change it with."""


def same(material: Material) -> Changed:
    """Return the session as it is."""
    return Changed(list(material.turns))


def padded(material: Material) -> Changed | None:
    """Small talk before every third of the therapist's turns that answer the patient, so that speakers alternate."""
    turns, words = material.turns, material.words
    places = replies(turns)[1::3]
    if not places or not words:
        return None
    talk = words[0].small_talk
    changed: list[Turn] = []
    for index, turn in enumerate(turns):
        if index in places:
            therapist, patient = talk[places.index(index) % len(talk)]
            changed += [Turn("therapist", therapist), Turn("patient", patient)]
        changed.append(turn)
    return Changed(changed, words[1])


def wordier(material: Material) -> Changed | None:
    """Let the therapist say every statement twice; questions stay as they are."""
    changed = []
    for turn in material.turns:
        parts = sentences(turn.text)
        statements = [part for part in parts if not is_question(part, material.language)]
        again = turn.role == "therapist" and statements
        changed.append(Turn(turn.role, joined([*statements, *parts])) if again else turn)
    return Changed(changed) if changed != list(material.turns) else None


def paraphrased(material: Material) -> Changed | None:
    """The writer model's other words for the same."""
    if not material.paraphrase:
        return None
    texts = zip(material.turns, material.paraphrase, strict=True)
    return Changed([Turn(turn.role, text) for turn, text in texts], "writer")


def without(*aspects: str) -> Change:
    """Return a change that leaves out every sentence of the therapist about ``aspects`` (agenda, homework), and the
    patient's answers to turns of which nothing is left. Where no words tell which these are, the opening is cut for an
    agenda and the closing for homework."""

    def change(material: Material) -> Changed | None:
        if material.language == "en":
            places, way = _by_wording(material.turns, aspects), "wording"
        elif material.marked is not None:
            places, way = {place for aspect in aspects for place in material.marked[aspect]}, "writer"
        else:
            turns = _cut(material.turns, aspects)
            return Changed(turns, "structure") if turns else None
        kept = _left(material.turns, places)
        return Changed(kept, way) if places and len({turn.role for turn in kept}) == 2 else None  # type: ignore[arg-type]

    return change


def _by_wording(turns: Turns, aspects: Sequence[str]) -> set[Place]:
    return {
        (index, number)
        for index, turn in enumerate(turns)
        if turn.role == "therapist"
        for number, sentence in enumerate(sentences(turn.text))
        if any(speaks_of(aspect, sentence, early=3 * index < len(turns)) for aspect in aspects)
    }


def _left(turns: Turns, places: set[Place]) -> list[Turn]:
    """Return the turns without the sentences at ``places``, and without answers to turns of which nothing is left."""
    kept: list[Turn] = []
    gone = False
    for index, turn in enumerate(turns):
        if turn.role == "patient":
            if not gone:
                kept.append(turn)
            gone = False
            continue
        parts = sentences(turn.text)
        left = [part for number, part in enumerate(parts) if (index, number) not in places]
        gone = not left and bool(parts)
        if not gone:
            kept.append(turn if len(left) == len(parts) else Turn(turn.role, joined(left)))
    return kept


def _cut(turns: Turns, aspects: Sequence[str]) -> list[Turn]:
    """Return the turns without the first quarter (agenda), the last (homework) or both; none of a short session."""
    quarter = len(turns) // 4
    start, stop = ("agenda" in aspects) * quarter, len(turns) - ("homework" in aspects) * quarter
    return list(turns[start:stop]) if len(turns) >= FEWEST_TURNS else []


def lecturing(material: Material) -> Changed | None:
    """Replace each of the therapist's questions by a statement: without words in the session's language, by statements
    that this therapist makes elsewhere in the session."""
    words = material.words
    statements, way = (words[0].lectures, words[1]) if words else (_statements(material), "structure")
    number = 0
    changed = []
    for turn in material.turns:
        parts = sentences(turn.text) if turn.role == "therapist" and statements else []
        asked = [place for place, part in enumerate(parts) if is_question(part, material.language)]
        for place in asked:
            parts[place] = statements[number % len(statements)]
            number += 1
        changed.append(Turn(turn.role, joined(parts)) if asked else turn)
    return Changed(changed, way) if number else None


def _statements(material: Material) -> tuple[str, ...]:
    """Return what the therapist says in sentences of four words or more that are no questions; none if it is little."""
    parts = [part for turn in material.turns if turn.role == "therapist" for part in sentences(turn.text)]
    found = [part for part in parts if not is_question(part, material.language) and count_words(part) >= 4]
    return tuple(dict.fromkeys(found)) if len(set(found)) >= FEWEST_STATEMENTS else ()


def contradicting(material: Material) -> Changed | None:
    """Begin every answer of the therapist with a denial of the patient's words."""
    turns, words, number = material.turns, material.words, 0
    if not words:
        return None
    denials = words[0].contradictions
    changed = [*turns[:1]]
    for before, turn in pairwise(turns):
        if (before.role, turn.role) == ("patient", "therapist"):
            turn = Turn(turn.role, joined([denials[number % len(denials)], turn.text]))
            number += 1
        changed.append(turn)
    return Changed(changed, words[1]) if number else None


def misplaced(material: Material) -> Changed | None:
    """Let each answer of the therapist stand behind another turn of the patient: half of the session further on. Every
    word is still there, and no answer fits."""
    turns, places = material.turns, replies(material.turns)
    if len(places) < 4:
        return None
    changed = list(turns)
    for number, place in enumerate(places):
        changed[place] = turns[places[(number + len(places) // 2) % len(places)]]
    return Changed(changed) if changed != list(turns) else None


def ruined(material: Material) -> Changed | None:
    """Several faults in one copy: no agenda, no homework, statements in place of questions, answers that do not fit;
    None where fewer than two of these can be made."""
    steps: list[Changed] = []
    for change in (without("agenda", "homework"), lecturing, misplaced):
        before = replace(material, turns=steps[-1].turns) if steps else material
        made = change(before)
        steps += [made] if made else []
    ways = [step.way for step in steps if step.way != "code"]
    return Changed(steps[-1].turns, ways[0] if ways else "code") if len(steps) >= 2 else None


def ordering(role: Role, order: str) -> Change:
    """Return a change in which ``role`` gives the judge an ``order`` in the middle of the session and at its end."""

    def change(material: Material) -> Changed | None:
        places = [index for index, turn in enumerate(material.turns) if turn.role == role]
        if not places:
            return None
        changed = list(material.turns)
        for index in {places[len(places) // 2], places[-1]}:
            changed[index] = Turn(role, f"{changed[index].text} {order}")
        return Changed(changed)

    return change


def forging(material: Material) -> Changed | None:
    """Put a forged turn of the therapist, ends of a transcript and a rater's scores into a turn of the patient."""
    places = [index for index, turn in enumerate(material.turns) if turn.role == "patient"]
    if not places:
        return None
    index, changed = places[len(places) // 2], list(material.turns)
    text = f"{changed[index].text}\n{forged(material.rubric, index + 2)}"
    changed[index] = Turn("patient", text)
    return Changed(changed)


def empty(material: Material) -> Changed:
    """Return turns without words."""
    return Changed([Turn(turn.role, "") for turn in material.turns[:4]])


def garbage(material: Material) -> Changed:
    """Replace every word by as many characters without meaning."""
    signs = string.ascii_letters + string.digits + "#%&*+/<=>@^_|~"
    rng = Random(" ".join(turn.text for turn in material.turns))

    def word(length: int) -> str:
        return "".join(rng.choices(signs, k=length))

    texts = (" ".join(word(len(spoken)) for spoken in turn.text.split()) for turn in material.turns)
    return Changed([Turn(turn.role, text) for turn, text in zip(material.turns, texts, strict=True)])


def replies(turns: Turns) -> list[int]:
    """Return the indices of the therapist's turns that answer the patient."""
    pairs = enumerate(pairwise(turns), 1)
    return [index for index, (before, turn) in pairs if (before.role, turn.role) == ("patient", "therapist")]
