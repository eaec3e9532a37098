"""One simulated session: patient and therapist take turns until a named ending."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

from cbtrain.text.words import count_words
from cbtrain.transcripts.types import Ending, Role, Turn

END_MARK = r"[*_~`\"'“‘(<\\]{0,6}[\[［【] ?END ?\\?[\]］】][*_~`\"'”’)>.! ]{0,6}"
"""``[END]`` in any case and markup."""

ALONE = re.compile(rf"^[ \t]{{0,20}}{END_MARK}[ \t]{{0,20}}$", re.IGNORECASE | re.MULTILINE)
LAST = re.compile(rf"{END_MARK}\Z", re.IGNORECASE)
"""Where it ends a session: alone on a line, or at the end of the last one. In the middle of a sentence it is speech."""


SILENT_PATIENT = "the patient said nothing"
"""The error of a session that an empty answer of the patient's model ended."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The ``text`` of one turn, and ``facts`` on its generation: token counts, finish reason, latency in seconds.

    ``ids`` are the tokens that a local model has written, if their text is all that was said.
    """

    text: str
    facts: dict[str, Any]
    ids: tuple[int, ...] = ()


class SpeakerStopped(Exception):
    """A speaker cannot continue; ``ending`` names the reason. ``facts``: on the answer that is no turn, or on the
    request that had none."""

    def __init__(self, ending: Ending, message: str, facts: Mapping[str, Any] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.ending, self.facts = ending, dict(facts)


class Speaker(Protocol):
    """A therapist or a patient: says the next turn of a dialogue. Raises SpeakerStopped."""

    async def speak(self, turns: Sequence[Turn], seed: int) -> Spoken: ...


Record = Callable[[int, Turn, Spoken], Awaitable[None]]
"""Called with each new turn's index before the next one is asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A session ends after ``max_turns`` turns or ``max_words`` words, and when the therapist says one of
    ``end_phrases``. Before ``min_turns`` turns a patient's end mark does not count."""

    max_turns: int
    max_words: int
    end_phrases: tuple[str, ...] = ()
    min_turns: int = 0


# More than seven parameters: the two speakers, and what the session's owner decides and is told.
async def hold_session(
    patient: Speaker,
    therapist: Speaker,
    turns: list[Turn],
    limits: Limits,
    *,
    seed: Callable[[int], int],
    record: Record,
    refuse_new: Callable[[], None] = lambda: None,
    unsaid: Callable[[Mapping[str, Any]], None] = lambda facts: None,
) -> tuple[Ending, str | None]:
    """Extend ``turns`` (empty, or those of an interrupted session) to an ending. Return it, and the text of an error.

    The patient speaks first. ``seed(index)`` is the seed of a turn. ``refuse_new()`` is called before each turn, and
    raises Stopped if none is to begin. ``unsaid(facts)`` is told of a last answer that became no turn.
    """
    while True:
        ending = _ended(turns, limits)
        if ending:
            return ending, None
        refuse_new()
        role: Role = "patient" if len(turns) % 2 == 0 else "therapist"
        speaker = patient if role == "patient" else therapist
        try:
            spoken = await speaker.speak(turns, seed(len(turns)))
        except SpeakerStopped as stopped:
            unsaid({"role": role, **stopped.facts})
            return stopped.ending, str(stopped)
        text = spoken.text.strip()
        if role == "patient" and (LAST.search(text) or ALONE.search(text)):
            text = LAST.sub("", ALONE.sub("", text)).strip()
            early = len(turns) + 1 < limits.min_turns
            if text:
                said = replace(spoken, facts={**spoken.facts, "end_too_early": 1}) if early else spoken
                await _add(turns, Turn(role, text), said, record)
            else:
                unsaid({"role": role, **spoken.facts})
            if early and text:
                continue
            if early:
                return "provider_error", f"{SILENT_PATIENT} but that the session ends, before evaluation.min_turns"
            return "patient_end", None
        if not text:
            unsaid({"role": role, **spoken.facts})
        if not text and role == "patient":  # whoever plays the patient has failed: it says nothing about the therapist
            return "provider_error", SILENT_PATIENT
        if not text:
            thought = spoken.facts.get("thinking_removed")
            but = f" but {thought:,} characters of thinking: raise evaluation.therapist.max_tokens" if thought else ""
            return "empty_turn", f"the therapist said nothing{but}"
        await _add(turns, Turn(role, text), spoken, record)


async def _add(turns: list[Turn], turn: Turn, spoken: Spoken, record: Record) -> None:
    if turn.text != spoken.text.strip():
        spoken = replace(spoken, ids=())
    await record(len(turns), turn, spoken)
    turns.append(turn)


def _ended(turns: Sequence[Turn], limits: Limits) -> Ending | None:
    if turns and turns[-1].role == "therapist":
        said = turns[-1].text.casefold()
        if any(phrase.casefold() in said for phrase in limits.end_phrases):
            return "end_phrase"
    if len(turns) >= limits.max_turns:
        return "max_turns"
    if sum(count_words(turn.text) for turn in turns) >= limits.max_words:
        return "max_words"
    # The same words three times in a row from one speaker: nothing new will come.
    last = [turn.text for turn in turns[-1::-2][:3]]
    if len(last) == 3 and len(set(last)) == 1:
        return "repetition"
    return None
