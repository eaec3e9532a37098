"""From turns to the chat messages that a template lays out, with what the loss counts marked in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cbtrain.tokens.config import LEFT_OUT, OPENING, SESSION_OPENING
from cbtrain.tokens.loss_mask import LossPolicy, Span
from cbtrain.transcripts.types import Role, Session, Turn


@dataclass(frozen=True, slots=True)
class SpokenSpan:
    """One transcript turn inside a message: ``turn`` (from 0) of ``session``; ``spans`` are places in the message's
    content."""

    session: str
    turn: int
    spans: tuple[Span, ...] = ()

    def shifted(self, by: int) -> SpokenSpan:
        return replace(self, spans=tuple(Span(s.begin + by, s.end + by, s.weight) for s in self.spans))


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; ``role`` is ``system``, ``user`` or ``assistant``. ``said`` are the turns in it."""

    role: str
    content: str
    said: tuple[SpokenSpan, ...] = ()

    @property
    def supervised(self) -> bool:
        return any(said.spans for said in self.said)

    def as_context(self) -> Message:
        """The same words with nothing for the loss to count."""
        return replace(self, said=tuple(replace(said, spans=()) for said in self.said))

    def after(self, before: str) -> Message:
        """The same message with ``before`` and a blank line in front, which the loss does not count."""
        lead = f"{before}\n\n" if self.content else before
        return replace(self, content=lead + self.content, said=tuple(said.shifted(len(lead)) for said in self.said))

    def followed_by(self, other: Message) -> Message:
        """Both in one message, a blank line between them."""
        moved = other.after(self.content)
        return replace(self, content=moved.content, said=self.said + moved.said)


def dialogue(turns: Sequence[Turn], speaker: Role, system: str | None) -> list[Message]:
    """The chat seen by a model that plays ``speaker``: its turns are the assistant's, the other's are the user's.

    Chat templates want a user message first, so a dialogue that ``speaker`` opens (or has yet to open) is led by
    :data:`OPENING`.
    """
    return led_in([_message("", index, turn, speaker) for index, turn in enumerate(turns)], system)


def session_messages(
    session: Session, speaker: Role, system: str | None, policy: LossPolicy, last_summary: str = ""
) -> list[Message]:
    """:func:`dialogue` of a session, with what ``policy`` counts marked. Turns are stripped."""
    return led_in(_marked(session, speaker, policy, last_summary), system)


def course_messages(
    sessions: Sequence[Session], speaker: Role, system: str | None, policy: LossPolicy, last_summaries: Sequence[str]
) -> list[Message]:
    """A course as one chat. Each session begins with :data:`SESSION_OPENING` in a user message; where the session
    before ended with the user's turn, in that message, so that the roles go on alternating."""
    messages: list[Message] = []
    for session, last_summary in zip(sessions, last_summaries, strict=True):
        opening = SESSION_OPENING.format(number=session.number)
        own = _marked(session, speaker, policy, last_summary)
        if own and own[0].role == "user":
            own[0] = own[0].after(opening)
        else:
            own.insert(0, Message("user", opening))
        if messages and messages[-1].role == "user":
            messages[-1] = messages[-1].followed_by(own.pop(0))
        messages += own
    return led_in(messages, system)


def led_in(messages: Sequence[Message], system: str | None, *, cut: bool = False) -> list[Message]:
    """``messages`` after a system message and, where the assistant would speak first, a user's; ``cut`` says that
    earlier turns are missing."""
    messages = list(messages)
    lead = LEFT_OUT if cut else OPENING
    if not messages or messages[0].role == "assistant":
        messages.insert(0, Message("user", lead))
    elif cut:
        messages[0] = messages[0].after(lead)
    return ([Message("system", system)] if system else []) + messages


def _marked(session: Session, speaker: Role, policy: LossPolicy, last_summary: str) -> list[Message]:
    turns = [Turn(turn.role, turn.text.strip()) for turn in session.turns]
    spans = policy.spans(turns, last_summary)
    return [
        _message(session.id, index, turn, speaker, own)
        for index, (turn, own) in enumerate(zip(turns, spans, strict=True))
    ]


def _message(session: str, index: int, turn: Turn, speaker: Role, spans: tuple[Span, ...] = ()) -> Message:
    role = "assistant" if turn.role == speaker else "user"
    return Message(role, turn.text, (SpokenSpan(session, index, spans),))
