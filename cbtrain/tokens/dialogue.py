"""Turn transcripts into the chat messages that a template lays out, with the supervised text marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cbtrain.tokens.config import LEFT_OUT, OPENING, SESSION_OPENING, TokensConfig
from cbtrain.tokens.loss_mask import LossPolicy, Span
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Course, Role, Session, Turn


@dataclass(frozen=True, slots=True)
class SpokenTurn:
    """A transcript turn inside a message: turn ``index`` (from 0) of ``session``; the loss counts ``spans``, characters
    of the message's content."""

    session: str
    index: int
    spans: tuple[Span, ...] = ()

    def shifted(self, by: int) -> SpokenTurn:
        """Return the turn with its spans ``by`` characters later."""
        return replace(self, spans=tuple(Span(s.begin + by, s.end + by, s.weight) for s in self.spans))


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message; ``role`` is ``system``, ``user`` or ``assistant``, ``turns`` are the transcript's turns in it.

    ``ids`` are the tokens in which a model has written ``content``, if they are known: a prompt holds these, and not
    those that the tokenizer would make of the words.
    """

    role: str
    content: str
    turns: tuple[SpokenTurn, ...] = ()
    ids: tuple[int, ...] = ()

    @property
    def supervised(self) -> bool:
        """Whether the loss counts anything in it."""
        return any(turn.spans for turn in self.turns)

    def as_context(self) -> Message:
        """Return the same words, none of them counted by the loss."""
        return replace(self, turns=tuple(replace(turn, spans=()) for turn in self.turns))

    def after(self, before: str) -> Message:
        """Return the message with ``before`` and a blank line in front, which the loss does not count."""
        lead = f"{before}\n\n" if self.content else before
        turns = tuple(turn.shifted(len(lead)) for turn in self.turns)
        return replace(self, content=lead + self.content, turns=turns)

    def followed_by(self, other: Message) -> Message:
        """Return both as one message of this role, with a blank line between them."""
        moved = other.after(self.content)
        return replace(self, content=moved.content, turns=self.turns + moved.turns)


def system_prompts(course: Course, speaker: Role, config: TokensConfig) -> list[str]:
    """Return the system prompt of the model that plays ``speaker`` in each session of ``course``; "" stands for no
    system message."""
    if speaker == "patient":
        return [patient_system(course.profile)] * len(course.sessions)
    if config.system == "none":
        return [""] * len(course.sessions)
    own = [own_prompt(session) if config.system == "data" else "" for session in course.sessions]
    return [prompt or config.therapist_system for prompt in own]


def own_prompt(session: Session) -> str:
    """Return the system prompt that the data give with ``session``, "" if they give none."""
    return session.facts.get("system", "").strip()


def patient_system(profile: Profile | None) -> str:
    """Return the system prompt of a patient model, in training and in serving."""
    return profile.brief if profile else "You are a patient in therapy for depression."


def dialogue(
    turns: Sequence[Turn],
    speaker: Role,
    system: str | None,
    ids: Mapping[int, Sequence[int]] = MappingProxyType({}),
    *,
    last: int | None = None,
) -> list[Message]:
    """Return the chat as a model that plays ``speaker`` sees it: its turns are the assistant's, the other's the user's.

    Chat templates want a user message first, so :data:`OPENING` is put before a dialogue that is empty or that
    ``speaker`` opens. ``ids`` are the tokens in which ``speaker`` has said its turns, by their index, as far as they
    are known. With ``last`` only so many turns are in it; if some are missing, it says so.
    """
    messages = [_message("", index, turn, speaker) for index, turn in enumerate(turns)]
    for index in ids.keys() & set(range(len(messages))):
        if messages[index].role == "assistant":  # the other's tokens may be of another tokenizer
            messages[index] = replace(messages[index], ids=tuple(ids[index]))
    truncated = last is not None and len(messages) > last
    return led_in(messages[-last:] if last else messages, system, truncated=truncated)


def session_messages(
    session: Session, speaker: Role, system: str | None, policy: LossPolicy, last_summary: str = ""
) -> list[Message]:
    """Return :func:`dialogue` of a session, with the text that ``policy`` counts marked. Turns are stripped."""
    return led_in(_marked(session, speaker, policy, last_summary), system)


def course_messages(
    sessions: Sequence[Session], speaker: Role, system: str | None, policy: LossPolicy, last_summaries: Sequence[str]
) -> list[Message]:
    """Return a course as one chat. Each session begins with :data:`SESSION_OPENING` in a user message.

    If the session before ended with a user message, the opening is appended to it, so that the roles alternate.
    """
    messages: list[Message] = []
    for session, last_summary in zip(sessions, last_summaries, strict=True):
        opening = SESSION_OPENING.format(number=session.number)
        added = _marked(session, speaker, policy, last_summary)
        if added and added[0].role == "user":
            added[0] = added[0].after(opening)
        else:
            added.insert(0, Message("user", opening))
        if messages and messages[-1].role == "user":
            messages[-1] = messages[-1].followed_by(added.pop(0))
        messages += added
    return led_in(messages, system)


def led_in(messages: Sequence[Message], system: str | None, *, truncated: bool = False) -> list[Message]:
    """Return ``messages`` after the system message (if any) and, if the assistant would speak first, a user message.

    With ``truncated`` the first user message says that earlier turns are missing.
    """
    messages = list(messages)
    lead = LEFT_OUT if truncated else OPENING
    if not messages or messages[0].role == "assistant":
        messages.insert(0, Message("user", lead))
    elif truncated:
        messages[0] = messages[0].after(lead)
    return ([Message("system", system)] if system else []) + messages


def _marked(session: Session, speaker: Role, policy: LossPolicy, last_summary: str) -> list[Message]:
    turns = [replace(turn, text=turn.text.strip()) for turn in session.turns]
    spans = policy.spans(turns, last_summary)
    return [
        _message(session.id, index, turn, speaker, turn_spans)
        for index, (turn, turn_spans) in enumerate(zip(turns, spans, strict=True))
    ]


def _message(session: str, index: int, turn: Turn, speaker: Role, spans: tuple[Span, ...] = ()) -> Message:
    role = "assistant" if turn.role == speaker else "user"
    return Message(role, turn.text, (SpokenTurn(session, index, spans),))
