"""What a writer model adds to an audit: paraphrases, marked sentences, translations. All of it is checked.

It writes no session anew: it says the same turns in other words, says which sentences speak of agenda and homework, and
translates the sentences that are put into copies. Code makes the copies. What does not pass the checks is not used, and
counted. Every answer that is used is in the journal: an audit that was interrupted asks only for what is missing.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cbtrain.errors import UserError
from cbtrain.eval.judge_audit.changes import Material, Place
from cbtrain.eval.judge_audit.inserts import ENGLISH, Inserts
from cbtrain.eval.judge_audit.sentences import is_question, sentences
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.journal import Journal, Shape, is_section, is_text
from cbtrain.journal import read as read_journal
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.structured import ask
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.text.language import UNKNOWN, language_name, language_of
from cbtrain.text.words import count_words
from cbtrain.transcripts.types import Turn

WRITTEN = "audit_text"
"""The kind of the journal's record of an answer of the writer."""

SHAPES: dict[str, Shape] = {WRITTEN: {"key": is_text, "answer": is_section}}

PART_WORDS = 1_200
"""Words of a session that are paraphrased in one request, about; a turn is never divided."""

MAX_TOKENS = 8_192
TEMPERATURE = 0.7

SHORTEST, LONGEST = 0.5, 1.6
"""Words of a paraphrase, as a share of the original's."""

MOST_MARKED = 0.6
"""Share of the therapist's sentences that may be about one aspect."""

FEW_WORDS = 4
"""A turn of fewer words may stay as it is."""

ASPECTS = ("agenda", "homework")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class Paraphrase(_Answer):
    turns: list[str]


class Marks(_Answer):
    agenda: list[int]
    homework: list[int]


class Translation(_Answer):
    sentences: list[str]


Answer = TypeVar("Answer", bound=_Answer)


@dataclass(slots=True)
class Written:
    """``refused``: how many answers could not be used, by the reason."""

    materials: dict[str, Material]
    refused: Counter[str] = field(default_factory=Counter)


def materials(sessions: Sequence[SimulatedSession], rubric: Rubric) -> dict[str, Material]:
    """Return what copies are made with, by session, without a writer model."""
    texts = {session.id: "\n".join(turn.text for turn in session.turns) for session in sessions}
    return {session.id: Material(session.turns, rubric, language_of(texts[session.id])) for session in sessions}


async def with_writer(given: dict[str, Material], provider: Provider, journal: Journal) -> Written:
    """Return the materials with what the writer model has added to them.

    Raises UserError if its API refuses the key; Stopped after a signal."""
    writer = _Writer(provider, journal)
    languages = sorted({material.language for material in given.values()} - {"en", UNKNOWN})
    inserts = dict(zip(languages, await writer.together(map(writer.inserts, languages)), strict=True))

    async def of(name: str) -> tuple[str, Material]:
        material = given[name]
        marked = None if material.language == "en" else await writer.marked(material)
        paraphrase = await writer.paraphrase(material)
        return name, replace(material, inserts=inserts.get(material.language), marked=marked, paraphrase=paraphrase)

    return Written(dict(await writer.together(map(of, given))), writer.refused)


class _Writer:
    def __init__(self, provider: Provider, journal: Journal) -> None:
        self.provider, self.journal = provider, journal
        self.refused: Counter[str] = Counter()
        events = read_journal(journal.path, SHAPES)
        self.earlier = {event["key"]: event["answer"] for event in events if event["kind"] == WRITTEN}
        self.done = 0

    async def together(self, works: Any) -> list[Any]:
        return await self.provider.stop.together(list(works), lambda: f"{self.done} answers of the writer are there")

    async def inserts(self, language: str) -> Inserts | None:
        """Return the inserts in ``language``; None if the translation cannot be used."""
        english = ENGLISH.texts

        def problem(answer: Translation) -> str:
            texts = [text.strip() for text in answer.sentences]
            if len(texts) != len(english) or not all(texts):
                return f"{len(english)} sentences are wanted, each of them translated"
            same = sum(one.casefold() == other.casefold() for one, other in zip(texts, english, strict=True))
            if same or language_of(" ".join(texts)) not in (language, UNKNOWN):
                return f"they are not in {language_name(language)}"
            return ""

        system = (
            f"Translate each sentence into {language_name(language)}, as it is said in a conversation. Keep the order "
            "and the number of sentences, and turn no statement into a question. Answer with one JSON object: "
            '"sentences", a list of texts.'
        )
        numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(english, 1))
        answer = await self._ask(system, numbered, Translation, problem, "translation")
        return ENGLISH.translated([text.strip() for text in answer.sentences]) if answer else None

    async def marked(self, material: Material) -> dict[str, frozenset[Place]] | None:
        """Return the therapist's sentences about each aspect; None if the marks cannot be used."""
        places: list[Place] = []
        lines = []
        for index, turn in enumerate(material.turns):
            if turn.role == "patient":
                lines.append(f"Patient: {turn.text}")
                continue
            for number, sentence in enumerate(sentences(turn.text)):
                places.append((index, number))
                lines.append(f"Therapist ({len(places)}): {sentence}")

        def problem(answer: Marks) -> str:
            for aspect in ASPECTS:
                numbers = getattr(answer, aspect)
                if any(not 1 <= number <= len(places) for number in numbers):
                    return f"{aspect}: a number that no sentence has"
                if len(set(numbers)) > MOST_MARKED * len(places):
                    return f"{aspect}: most sentences of the session are marked"
            return ""

        system = (
            "Each sentence of the therapist in this therapy session has a number. Say which of them are about (1) the "
            "agenda: what this session is for, what the patient wants to talk about today, the order of topics, coming "
            "back to a plan for the session; (2) homework: tasks between sessions, looking back at earlier ones, "
            'planning new ones. Answer with one JSON object: "agenda" and "homework", two lists of numbers, empty '
            "where there is no such sentence."
        )
        answer = await self._ask(system, "\n".join(lines), Marks, problem, "marked sentences")
        if answer is None:
            return None
        return {aspect: frozenset(places[number - 1] for number in getattr(answer, aspect)) for aspect in ASPECTS}

    async def paraphrase(self, material: Material) -> list[str] | None:
        """Return each turn in other words; None if a part of the session cannot be used."""
        texts: list[str] = []
        for part in _parts(material.turns):
            system = (
                "Below is a part of a therapy session, a JSON list of turns. Say each turn in other words, in the same "
                "language: the same content, stance and tone, questions as questions, of about the same length, "
                "neither better nor worse, nothing added or left out. Answer with one JSON object: "
                f'"turns", a list of {len(part)} texts in the same order.'
            )
            turns = json.dumps([{"speaker": turn.role, "text": turn.text} for turn in part], ensure_ascii=False)
            problem = functools.partial(_paraphrase_problem, part, material.language)
            answer = await self._ask(system, turns, Paraphrase, problem, "paraphrase")
            if answer is None:
                return None
            texts += [text.strip() for text in answer.turns]
        return texts

    async def _ask(
        self, system: str, text: str, shape: type[Answer], problem: Callable[[Answer], str], what: str
    ) -> Answer | None:
        """Return the answer, from the journal or the writer model; None, counted, if it cannot be used: what does not
        pass ``problem`` is asked for once more, with what is wrong."""
        inputs = [system, text, shape.__name__, self.provider.model]
        key = hashlib.blake2b(json.dumps(inputs).encode(), digest_size=16).hexdigest()
        with suppress(ValidationError):  # of a damaged record: asked again
            if key in self.earlier:
                return shape.model_validate(self.earlier[key])
        messages = (Message("system", system), Message("user", text))
        wrong = ""
        for sample in range(2):
            again = f"\n\nAn earlier answer was not usable: {wrong}." if wrong else ""
            asked = (messages[0], Message("user", f"{text}{again}"))
            request = ChatRequest(asked, max_tokens=MAX_TOKENS, temperature=TEMPERATURE, seed=sample)
            try:
                found = await ask(functools.partial(self.provider.chat, sample=sample), request, shape)
            except ProviderError as error:
                if error.status in (401, 403) and error.kind == "permanent":
                    raise UserError(str(error), where="writer", hint="Check its API key and its rights.") from None
                wrong = str(error)
                break
            wrong = found.problem if found.value is None else problem(found.value)
            if found.value is not None and not wrong:
                self.done += 1
                await asyncio.to_thread(self.journal.append, WRITTEN, key=key, answer=found.value.model_dump())
                return found.value
            if found.status in ("refused", "truncated"):
                break
        self.refused[f"{what}: {wrong}"] += 1
        return None


def _parts(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Return the turns in parts of about ``PART_WORDS`` words."""
    parts: list[list[Turn]] = [[]]
    words = 0
    for turn in turns:
        count = count_words(turn.text)
        if parts[-1] and words + count > PART_WORDS:
            parts.append([])
            words = 0
        parts[-1].append(turn)
        words += count
    return [part for part in parts if part]


def _paraphrase_problem(turns: Sequence[Turn], language: str, answer: Paraphrase) -> str:
    """Return why ``answer`` is no paraphrase of ``turns``; an empty text if it passes."""
    texts = [text.strip() for text in answer.turns]
    if len(texts) != len(turns):
        return f"{len(texts)} turns in place of {len(turns)}"
    if any(turn.text.strip() and not text for turn, text in zip(turns, texts, strict=True)):
        return "a turn is empty"
    words = [sum(map(count_words, part)) for part in ((turn.text for turn in turns), texts)]
    if not SHORTEST * words[0] <= words[1] <= LONGEST * words[0]:
        return f"{words[1]} words in place of {words[0]}"
    long = [(turn.text, text) for turn, text in zip(turns, texts, strict=True) if count_words(turn.text) >= FEW_WORDS]
    if 2 * sum(one.casefold().split() == two.casefold().split() for one, two in long) > len(long):
        return "most turns are as they were"
    found = language_of("\n".join(texts))
    if UNKNOWN not in (language, found) and found != language:
        return f"it is in {language_name(found)}"
    asked = [sum(is_question(text, language) for text in part) for part in ([turn.text for turn in turns], texts)]
    if abs(asked[0] - asked[1]) > 1 + asked[0] // 4:
        return f"{asked[1]} turns with a question in place of {asked[0]}"
    return ""
