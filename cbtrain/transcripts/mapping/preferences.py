"""Pairs of answers in records of other programs: TRL's ``prompt``, ``chosen``, ``rejected``, and what resembles them.

Prompt and answers are texts, or lists of messages. Without a prompt of its own (TRL's implicit prompt), ``chosen`` and
``rejected`` are whole dialogues, and the turns with which both begin are the prompt.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.keys import MISSING, look_up
from cbtrain.transcripts.mapping.names import SPEAKER, texts_of
from cbtrain.transcripts.mapping.no_dialogue import template_of
from cbtrain.transcripts.mapping.turns import FIX, Dialogue, Speakers, add_messages, clean, text_of
from cbtrain.transcripts.preference import SAME, words
from cbtrain.transcripts.types import Role, Turn

if TYPE_CHECKING:
    from cbtrain.transcripts.readers.options import ReadOptions

PROMPTS = ("prompt", "instruction", "conversations", "question")
"""Keys of a prompt: TRL's, LLaMA-Factory's of its two layouts, and that beside a ``system`` in sets of single answers.
The first that is there counts."""

PRINTED = re.compile(r"\[?[ \n]{0,8}\{'\w{1,40}': ")
"""How a list of messages begins that Python has printed, as pandas does when it writes a table: it is no JSON."""

NO_PROMPT = "Give the prompt under a key of its own, or write both answers as lists of messages or as labelled texts."


def preference_shape(content: Mapping[str, Any]) -> CorpusMap | None:
    """Return the map of a record with a chosen and a rejected answer under these names. None if it is not one."""
    by_name = {str(name).strip().casefold(): str(name) for name in reversed(list(content))}
    answers = [by_name.get("chosen"), by_name.get("rejected")]
    if not all(name is not None and _may_be_said(content[name]) for name in answers):
        return None
    prompt = next((by_name[name] for name in PROMPTS if name in by_name), None)
    keys: dict[str, Any] = {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}
    if prompt is not None and prompt.casefold() == "instruction" and "input" in by_name:
        keys["prompt"] = f"{prompt} + {by_name['input']}"
    messages = [message for name in answers for message in _messages(content[str(name)]) or ()]
    first = next((message for message in messages if isinstance(message, Mapping)), None)
    if first is not None and (speaker := next((key for key in SPEAKER if key in first), None)):
        text = next((key for key in texts_of(speaker) if key != speaker and key in first), None)
        keys |= {"speaker": speaker, "text": text}
    return CorpusMap(each="preference", **keys)


def _may_be_said(value: Any) -> bool:
    return value is None or isinstance(value, str | Mapping) or _messages(value) is not None


def _messages(value: Any) -> list[Any] | None:
    """Return the messages in ``value``: a list of objects, one object, or either as JSON in a text. None if it is
    something else."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):  # a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return _messages(value) if isinstance(value, list | dict) else None
    return value if isinstance(value, list) and all(isinstance(item, Mapping) for item in value) else None


@dataclass(slots=True)
class PreferenceRecord:
    """The turns of a pair: ``prompt`` and, in ``dialogue.system``, its system prompts; two answers; its weight."""

    dialogue: Dialogue
    chosen: list[Turn]
    rejected: list[Turn]
    weight: float


@dataclass(slots=True)
class PreferenceReader:
    """Reads the pairs of records by ``corpus_map``; ``options`` know the labels of texts."""

    corpus_map: CorpusMap
    speakers: Speakers
    options: ReadOptions
    _keys: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._keys = (self.corpus_map.chosen or "chosen", self.corpus_map.rejected or "rejected")

    def read(self, record: Any, where: str) -> PreferenceRecord:
        """Return the pair in ``record``. Raises UserError, with what is wrong and under which key."""
        chosen, rejected = (self._said(record, key, "therapist", where) for key in self._keys)
        weight = self._weight(record, where)
        prompt = self._prompt(record, where)
        answers = (chosen, rejected)
        if prompt is None or (self._is_title(record) and all(_opens(answer.turns, prompt.turns) for answer in answers)):
            begun = self._begun(record, chosen, rejected, where)
            if not begun.turns:
                self.options.note("prompts, which are missing: both answers begin with the therapist", 1, where)
            if prompt is not None and words(prompt.turns) != words(begun.turns[: len(prompt.turns)]):
                self.options.note("prompts unlike the turns with which both answers begin; those are read", 1, where)
            return PreferenceRecord(begun, chosen.turns[len(begun.turns) :], rejected.turns[len(begun.turns) :], weight)
        if chosen.system != rejected.system or (chosen.system and prompt.system not in ([], chosen.system)):
            raise UserError("the answers have different system prompts", where=where, hint="Leave one, in the prompt.")
        prompt.system = prompt.system or chosen.system
        return PreferenceRecord(prompt, chosen.turns, rejected.turns, weight)

    def _is_title(self, record: Any) -> bool:
        """Return whether the prompt is a text beside answers of messages, which TRL takes for a copy of their
        beginning."""
        key = self.corpus_map.prompt or ""
        return _messages(look_up(record, key)) is None and _messages(look_up(record, self._keys[0])) is not None

    def _prompt(self, record: Any, where: str) -> Dialogue | None:
        """Return the turns of the prompt; None if the record has none."""
        key = self.corpus_map.prompt
        if key is None:
            return None
        if look_up(record, key) is not MISSING or " + " not in key:
            return self._said(record, key, "patient", where)
        values = [(part, look_up(record, part)) for part in key.split(" + ")]
        texts = [text_of(value, repr(part), where) for part, value in values if value is not MISSING]
        return self._turns_of("\n".join(filter(None, texts)), "patient", where)

    def _said(self, record: Any, key: str, role: Role, where: str) -> Dialogue:
        """Return the turns under ``key``: of messages, or of a text, which is one turn of ``role`` without labels."""
        value = look_up(record, key)
        if value is MISSING:
            there = ", ".join(map(str, record)) if isinstance(record, Mapping) else type(record).__name__
            hint = "Pairs and sessions need files of their own."
            if key == self.corpus_map.prompt:
                hint = "Give each pair of the file a prompt, or none; a map (--map) names it under another key."
            raise UserError(f"no {key!r} among {there[:200]}: no pair of answers", where=where, hint=hint)
        messages = _messages(value)
        if messages is None:
            return self._turns_of(text_of(value, key, where), role, where)
        dialogue = Dialogue()
        try:
            add_messages(dialogue, messages, self.corpus_map, self.speakers, where)
        except UserError as error:
            error.what = f"{key}: {error.what}"
            raise
        return dialogue

    def _turns_of(self, text: str, role: Role, where: str) -> Dialogue:
        if template := template_of({"text": text}):
            what = f"a text that a chat template has rendered ({template}), not turns"
            raise UserError(what, where=where, hint="Name the file with the messages from before the template.")
        if PRINTED.match(text.lstrip()):
            hint = "Write the cells with json.dumps, or the table as JSON Lines or Parquet."
            raise UserError("messages as Python prints them, not as JSON", where=where, hint=hint)
        dialogue, text = Dialogue(), clean(text, self.corpus_map)
        parsed = self.options.labelled(text, where)
        if parsed.turns and not parsed.preamble.strip():
            dialogue.turns, dialogue.ignored = parsed.turns, parsed.ignored
        elif text:
            dialogue.turns = [Turn(role, text)]
        return dialogue

    def _begun(self, record: Any, chosen: Dialogue, rejected: Dialogue, where: str) -> Dialogue:
        """Return the turns with which both dialogues begin: all that are the same, as in TRL's ``extract_prompt``."""
        texts = [key for key in self._keys if _messages(look_up(record, key)) is None]
        if texts and not all(len(said.turns) > 1 for said in (chosen, rejected)):
            raise UserError(f"no prompt, and no turns in the text of {texts[0]!r}", where=where, hint=NO_PROMPT)
        if words(chosen.turns) == words(rejected.turns):
            raise UserError(SAME, where=where, hint=FIX)
        if chosen.system != rejected.system:
            raise UserError("the answers have different system prompts", where=where, hint=FIX)
        same = 0
        for one, other in zip(chosen.turns, rejected.turns, strict=False):
            if words([one]) != words([other]):
                break
            same += 1
        return Dialogue(turns=chosen.turns[:same], system=chosen.system)

    def _weight(self, record: Any, where: str) -> float:
        """Return the weight of a pair: by the map's key, else under ``weight``."""
        value = look_up(record, self.corpus_map.weight or "weight")
        if value is MISSING or value is None or value == "":
            return 1.0
        try:
            weight = float(value)
        except (TypeError, ValueError):
            weight = math.nan
        if not 0 < weight <= 1000:
            problem = f"weight {value!r} is not a number above 0, at most 1000"
            raise UserError(problem, where=where, hint="Leave a pair out that is to have no weight.")
        return weight


def _opens(turns: list[Turn], prompt: list[Turn]) -> bool:
    """Return whether ``turns`` begin with the patient, as a whole dialogue does, though there is a ``prompt``."""
    return bool(turns) and (turns[0].role == "patient" or words(turns[: len(prompt)]) == words(prompt) != [])
