"""Turn the messages of one session into turns, by the keys of a map."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.keys import MISSING, look_up
from cbtrain.transcripts.mapping.names import TIMES, WEIGHTS, WEIGHTS_OF_PARTS, bare, role_of
from cbtrain.transcripts.types import Role, Turn

FIX = "Correct or remove it."
GUESS = "Correct the record or the map; `cbtrain corpus guess PATH` prints a map to begin with."
LONGEST_TIME = 40
CALLS = ("tool_calls", "function_call")
"""Keys of a message that calls a tool and need not say anything."""

KNOWN_WEIGHTS = frozenset((*WEIGHTS, *WEIGHTS_OF_PARTS))

TAG = re.compile(r"<(?:/?[A-Za-z][^<>]{0,600}|!--[^<>]{0,600}--)>")
BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^<>]{0,200}>", re.IGNORECASE)


class UnknownSpeaker(UserError):
    """A turn of somebody who is neither patient nor therapist; ``name`` is what the source calls them."""

    def __init__(self, name: str, where: object) -> None:
        self.name = name
        hint = (
            "Give it as a label (--therapist-label NAME, --patient-label NAME), or name it under patient, therapist or "
            "ignore of a map (--map); `cbtrain corpus guess PATH` lists who speaks."
        )
        super().__init__(f"speaker {name!r} is neither patient nor therapist", where=where, hint=hint)


@dataclass(slots=True)
class Dialogue:
    """The turns of one session as they are collected; ``times``: when each begins, if the source says so; ``system``:
    its system prompts; ``ignored`` counts turns that the map leaves out, by speaker."""

    turns: list[Turn] = field(default_factory=list)
    times: list[str] = field(default_factory=list)
    system: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


class Speakers:
    """Who is who in one corpus: the names in its map, given labels, and the common names."""

    def __init__(self, corpus_map: CorpusMap, labels: Mapping[str, Role]) -> None:
        self.extra: dict[str, Role | None] = {name.casefold(): role for name, role in labels.items()}
        if corpus_map.each != "pair":
            self.extra |= {bare(name): "patient" for name in corpus_map.patient}
            self.extra |= {bare(name): "therapist" for name in corpus_map.therapist}
        self.extra |= dict.fromkeys(map(bare, corpus_map.system_speaker))
        self.ignored = {bare(name) for name in corpus_map.ignore}
        self._roles: dict[str, Role | Literal["ignored", "?"] | None] = {}

    def add(self, dialogue: Dialogue, name: str, text: str, weight: float, where: object, time: str = "") -> None:
        """Add what ``name`` says, at ``time`` if that is known. Raises UnknownSpeaker."""
        if name not in self._roles:
            self._roles[name] = "ignored" if bare(name) in self.ignored else role_of(name, self.extra)
        role = self._roles[name]
        if role == "ignored":
            dialogue.ignored[name] += 1
        elif role == "patient" or role == "therapist":
            dialogue.turns.append(Turn(role, text, weight))
            dialogue.times.append(time)
        elif role is None and not dialogue.turns:
            dialogue.system.append(text)
        else:
            raise UnknownSpeaker(name, where)


def add_messages(
    dialogue: Dialogue, messages: Sequence[Any], corpus_map: CorpusMap, speakers: Speakers, where: object
) -> None:
    """Add a list of messages: objects with a speaker and words, or texts that alternate. Raises UserError."""
    time_key = time_key_of(messages[0]) if messages else None
    text_key, speaker_key, alternate = corpus_map.text or "content", corpus_map.speaker or "role", corpus_map.alternate
    for number, message in enumerate(messages, 1):
        if type(message) is not dict and not isinstance(message, Mapping):
            _add_text(dialogue, message, number, corpus_map, where)
            continue
        text = message.get(text_key)
        if type(text) is not str:
            text = _words(message, text_key, number, where)
        if alternate is not None:
            name: Any = alternating(alternate, number - 1)
        else:
            name = message.get(speaker_key)
            if type(name) is not str:
                name = look_up(message, speaker_key)
                if name in (MISSING, None) and "" in speakers.ignored:
                    dialogue.ignored[""] += 1
                    continue
                name = speaker_name(name, f"message {number}", where)
        weight = weight_of(message, corpus_map, number, where)
        time = time_of(message, time_key) if time_key else ""
        speakers.add(dialogue, name, clean(text, corpus_map), weight, where, time)


def _add_text(dialogue: Dialogue, message: Any, number: int, corpus_map: CorpusMap, where: object) -> None:
    """Add a message that is a text alone, or nothing. Raises UserError on anything else."""
    if message is not None and not isinstance(message, str):
        raise UserError(f"message {number} is not an object", where=where, hint=FIX)
    if corpus_map.alternate is None:
        hint = "If the speakers take turns, say who begins: alternate: patient in a map (--map)."
        raise UserError(f"message {number} has no speaker", where=where, hint=hint)
    # An empty place keeps its speaker: the next one does not move to the other.
    if text := clean(message or "", corpus_map):
        dialogue.turns.append(Turn(alternating(corpus_map.alternate, number - 1), text))


def _words(message: Mapping[str, Any], key: str, number: int, where: object) -> str:
    """Return what a message says if that is not simply a text under ``key``. Raises UserError."""
    words = look_up(message, key)
    if words is MISSING and any(call in message for call in CALLS):
        words = None
    if words is MISSING:
        keys = ", ".join(map(str, message)) or "nothing"
        raise UserError(f"message {number} has no text under {key!r}, but {keys}", where=where, hint=GUESS)
    return text_of(words, f"message {number}", where)


def time_key_of(message: Any) -> str | None:
    """Return the key under which a message or a row says when it begins; None if it has none."""
    return next((key for key in TIMES if key in message), None) if isinstance(message, Mapping) else None


def time_of(message: Mapping[str, Any], key: str) -> str:
    """Return when a message begins, as its source writes it, without blanks; empty if it does not say so."""
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return "_".join(str(value).split())[:LONGEST_TIME]


def alternating(first: Role, turns_before: int) -> Role:
    other: Role = "therapist" if first == "patient" else "patient"
    return first if turns_before % 2 == 0 else other


def text_of(value: Any, what: str, where: object) -> str:
    """Return the words in ``value``: a text, nothing (null), or a list of text parts. Raises UserError."""
    if value is None:
        return ""
    if isinstance(value, list):  # content in parts, as the OpenAI protocol allows
        if all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value):
            return "".join(part["text"] for part in value)
        raise UserError(f"{what} has parts that are not text", where=where, hint="Remove them.")
    if isinstance(value, bool | Mapping) or value is MISSING:
        problem = "has no text" if value is MISSING else "is not a text"
        raise UserError(f"{what} {problem}", where=where, hint=FIX)
    return "" if isinstance(value, float) and math.isnan(value) else str(value)


def speaker_name(value: Any, what: str, where: object) -> str:
    if value is MISSING or value is None:
        hint = "If such turns are to be left out, write ignore: [''] in a map (--map)."
        raise UserError(f"{what} has no speaker", where=where, hint=hint)
    if isinstance(value, list | Mapping):
        raise UserError(f"the speaker of {what} is not a name", where=where, hint=FIX)
    return str(value)


def weight_of(message: Mapping[str, Any], corpus_map: CorpusMap, number: int, where: object) -> float:
    """Return the weight in the loss of a message: by the map's key, else by OpenAI's ``weight``, or Axolotl's ``train``
    and ``masked``. Raises UserError on anything but a number from 0 or a truth value."""
    if corpus_map.weight is None and KNOWN_WEIGHTS.isdisjoint(message):
        return 1.0
    # In a table a weight may be anything, such as that of a body.
    known = () if corpus_map.each == "turn" else WEIGHTS
    for key in (corpus_map.weight,) if corpus_map.weight else known:
        value = message.get(key, MISSING) if key in known else look_up(message, key)
        if value is MISSING or value is None or value == "":
            continue
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.strip().lower(), value)
        try:
            weight = float(value)
        except (TypeError, ValueError):
            weight = -1.0
        if not 0 <= weight <= 1000:
            problem = f"message {number}: {key} {value!r} is not a weight from 0, true or false"
            raise UserError(problem, where=where, hint=FIX)
        return 1 - weight if key == "masked" and weight in (0, 1) else weight
    return next((_weight_of_parts(message, key, number, where) for key in WEIGHTS_OF_PARTS if message.get(key)), 1.0)


def _weight_of_parts(message: Mapping[str, Any], key: str, number: int, where: object) -> float:
    """Return the weight of a message that says of stretches of its words whether they are learnt. Raises UserError if
    they differ: a turn has one weight."""
    parts = message[key] if isinstance(message[key], list) else [None]
    learnt = {part.get("train") if isinstance(part, Mapping) else None for part in parts}
    if learnt not in ({True}, {False}):
        problem = f"message {number}: {key} has a part of the turn learnt, and a turn has one weight"
        raise UserError(problem, where=where, hint=f"Split the turn, or remove {key}.")
    return float(learnt == {True})


def clean(text: str, corpus_map: CorpusMap) -> str:
    """Return ``text`` without markup and dropped lines, as the map asks, stripped of blanks at its ends."""
    if corpus_map.markup != "strip" and not corpus_map.drop:
        return text.strip()
    if corpus_map.markup == "strip":
        text = html.unescape(TAG.sub("", BREAK.sub("\n", text))).replace("\xa0", " ")
    if corpus_map.drop:
        lines = text.split("\n")
        text = "\n".join(line for line in lines if not any(re.search(pattern, line) for pattern in corpus_map.drop))
    return text.strip()
