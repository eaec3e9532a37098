"""Build documents from sessions: whole, as a course, split between turns, or one record for every turn.

With any recipe, every supervised turn is supervised exactly once an epoch; this is checked for every unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer, Rendering
from cbtrain.tokens.chunking import Chunker, Piece
from cbtrain.tokens.config import Supervise, TokensConfig
from cbtrain.tokens.dialogue import Message, course_messages, session_messages
from cbtrain.tokens.document import Document, trimmed
from cbtrain.tokens.loss_mask import LossPolicy
from cbtrain.transcripts.summary import summary_text
from cbtrain.transcripts.types import Course, Role, Session

TurnId = tuple[str, int]
"""A session's id and the index of a turn in it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Sessions that are rendered together: one, or a course's in order. ``system`` is their system prompt ("": no
    system message); ``last_summaries`` closed the session before each of them (empty if unknown)."""

    name: str
    sessions: tuple[Session, ...]
    system: str
    last_summaries: tuple[str, ...] = field(repr=False)

    @property
    def words(self) -> int:
        return sum(session.words for session in self.sessions)


@dataclass(frozen=True, slots=True)
class BuiltUnit:
    """The documents of one unit, and the tokens of one epoch of it by two recipes.

    ``whole_tokens`` is None if the chat format holds one answer only, ``paper_tokens`` is None for a course, as the
    2024 study's records end with their session. ``truncated``: whether the unit was split between turns; ``dropped``:
    tokens of turns for which no piece had room as context.
    """

    documents: list[Document]
    whole_tokens: int | None
    paper_tokens: int | None
    truncated: bool = False
    dropped: int = 0


def units_of(course: Course, config: TokensConfig, systems: Sequence[str]) -> list[Unit]:
    """Return the units of one patient: a session each, or the whole course, by ``config.document``. ``systems`` are the
    system prompts of the sessions.

    Raises UserError if the sessions of a course that is one document have different system prompts.
    """
    summaries, before = [], ""
    for session in course.sessions:
        summaries.append(before)
        before = summary_text(session)
    if config.document == "course":
        if len(set(systems)) > 1:
            problem = f"its sessions have {len(set(systems))} different system prompts, and a document has one"
            raise UserError(problem, where=course.id, hint="Set tokens.document=session, or tokens.system=ours.")
        return [Unit(course.id, course.sessions, systems[0], tuple(summaries))]
    sessions = zip(course.sessions, systems, summaries, strict=True)
    return [Unit(session.id, (session,), system, (last,)) for session, system, last in sessions]


class DocumentBuilder:
    """Builds the documents that teach a model to play ``speaker``, with the loss on the turns of ``supervise``.

    The longest document has ``config.document_tokens``, or ``pack_tokens`` if that is not set; longer ones are split
    between turns. None may be longer than the model's ``positions``.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        speaker: Role,
        supervise: Supervise,
        config: TokensConfig,
        pack_tokens: int,
        positions: int,
    ) -> None:
        self.renderer, self.config, self.positions = renderer, config, positions
        self.checked = False
        """Whether the loss mask of some of its units was checked."""
        self.limit = config.document_tokens or pack_tokens
        if config.document_tokens is None and config.document == "session":
            self.limit = min(self.limit, positions)
        self.speaker, self.supervise = speaker, supervise
        self.policy = LossPolicy(supervise, speaker, config)
        if renderer.format.single_answer and config.recipe != "paper":
            hint = "Set tokens.recipe=paper, or another tokens.format."
            raise UserError(f"format {renderer.format.name!r} holds one answer a record", where="tokens", hint=hint)
        if renderer.format.single_answer and self.policy.roles != {speaker}:
            hint = f"Supervise the {speaker}, or set another tokens.format."
            raise UserError(f"format {renderer.format.name!r} answers as {speaker} alone", where="tokens", hint=hint)
        if supervise == "everything" and config.recipe != "paper":
            hint = "Set tokens.recipe=paper, or supervise therapist, patient or both."
            raise UserError("supervise 'everything' is the loss of recipe 'paper'", where="tokens", hint=hint)

    @property
    def makes(self) -> dict[str, Any]:
        """What else decides the documents, for the cache."""
        return {}

    def messages(self, unit: Unit) -> list[Message]:
        """Return the whole unit as chat messages, with the supervised text marked."""
        if self.config.document == "course":
            return course_messages(unit.sessions, self.speaker, unit.system, self.policy, unit.last_summaries)
        (session,), (summary,) = unit.sessions, unit.last_summaries
        return session_messages(session, self.speaker, unit.system, self.policy, summary)

    def build(self, unit: Unit) -> BuiltUnit:
        """Return the documents of ``unit``.

        Raises UserError, which names session and turn, if no token of the unit is supervised, a turn is empty or longer
        than the limit, or the chat format refuses it.
        """
        name = place_of(unit)
        messages = self.messages(unit)
        if not any(message.supervised for message in messages):
            roles = " and ".join(sorted(self.policy.roles))
            hint = f"It needs a turn of the {roles} to learn from; clean the corpus or change tokens.weights."
            raise UserError("no token in it is supervised", where=name, hint=hint)
        by_recipe = self._by_paper_recipe if self.config.recipe == "paper" else self._by_whole_recipe
        built, supervised = by_recipe(messages, unit, name)
        if Counter(supervised) != Counter(_supervised(messages)):
            raise RuntimeError(f"{name}: a bug of cbtrain: not every turn is supervised exactly once")
        return built

    def _by_whole_recipe(self, messages: list[Message], unit: Unit, name: str) -> tuple[BuiltUnit, list[TurnId]]:
        """Return the unit as one document, or as pieces if it is too long, and the turns supervised in them."""
        _refuse_empty_turns(messages, name)
        rendering = self.renderer.render(messages, name)
        whole = trimmed(unit.name, rendering.ids, rendering.loss_weights)
        self._refuse_beyond_positions(len(whole), name)
        paper_tokens = None if self.config.document == "course" else _paper_tokens(messages, rendering)
        if len(whole) <= self.limit:
            return BuiltUnit([whole], len(whole), paper_tokens), _supervised(messages)
        chunker = self._chunker(unit, self.limit, self.config.carry)
        pieces = list(chunker.split(messages, rendering.ends, name))
        documents = [trimmed(f"{unit.name}#{n}", r.ids, r.loss_weights) for n, (_, r) in enumerate(pieces, 1)]
        # The tokens after the whole's last supervised one are in no piece.
        documents[-1] = replace(documents[-1], trimmed=whole.trimmed)
        built = BuiltUnit(documents, len(whole), paper_tokens, len(documents) > 1, chunker.dropped)
        return built, [turn for piece, _ in pieces for turn in _supervised(piece)]

    def _by_paper_recipe(self, messages: list[Message], unit: Unit, name: str) -> tuple[BuiltUnit, list[TurnId]]:
        """Return one document for every supervised turn, with the whole history in each, and these turns."""
        whole_tokens = None
        if not self.renderer.format.single_answer:
            rendering = self.renderer.render(messages, name)
            whole_tokens = len(trimmed(unit.name, rendering.ids, rendering.loss_weights))
        documents: list[Document] = []
        supervised: list[TurnId] = []
        for record, rendering in self._records(messages, unit, name):
            loss_weights = np.ones_like(rendering.loss_weights) if self.policy.everything else rendering.loss_weights
            answer = record[-1].turns[0]
            documents.append(trimmed(f"{unit.name}@{answer.index + 1}", rendering.ids, loss_weights))
            supervised += _supervised(record)
        return BuiltUnit(documents, whole_tokens, sum(map(len, documents))), supervised

    def _records(self, messages: Sequence[Message], unit: Unit, name: str) -> Iterator[Piece]:
        """Yield for every supervised turn the history up to it, of which only this turn is supervised."""
        limit = min(self.limit, self.positions)
        context = [message.as_context() for message in messages]
        for index, message in enumerate(messages):
            if not message.supervised:
                continue
            record = [*context[:index], message]
            rendering = self.renderer.render(record, name)
            if len(rendering.ids) > limit:
                # The history is shortened from its beginning, the answer stays whole.
                chunker = self._chunker(unit, limit, carry=1.0)
                ((record, rendering),) = chunker.split(record, rendering.ends, name)
            yield record, rendering

    def _refuse_beyond_positions(self, length: int, name: str) -> None:
        if min(length, self.limit) > self.positions:
            split = f"set tokens.document_tokens={self.positions} to cut it between turns"
            rope = "Write RoPE scaling into rope_parameters of its config.json"
            hint = f"{rope}, take a model with a longer context, or {split}."
            raise UserError(f"{length} tokens, but the model has {self.positions} positions", where=name, hint=hint)

    def _chunker(self, unit: Unit, limit: int, carry: float) -> Chunker:
        return Chunker(self.renderer, unit.system, limit, carry)


def place_of(unit: Unit) -> str:
    """Return file and session of ``unit``, for an error message."""
    file = unit.sessions[0].where if len(unit.sessions) == 1 else ""
    return f"{file} ({unit.name})" if file and unit.name not in file else file or unit.name


def _refuse_empty_turns(messages: Sequence[Message], name: str) -> None:
    for message in messages:
        if message.turns and not message.content:
            turn = message.turns[0]
            hint = "Remove it, or leave corpus.cleaning.drop_empty_turns on."
            raise UserError(f"turn {turn.index + 1} of {turn.session} has no text", where=name, hint=hint)


def _paper_tokens(messages: Sequence[Message], rendering: Rendering) -> int:
    """Return the tokens of all records of :meth:`DocumentBuilder._records`: each ends with its turn's stop token."""
    folded = len(messages) - len(rendering.ends)  # 1 if the system text was put into the first user message
    return sum(rendering.ends[i - folded] + 1 for i, message in enumerate(messages) if message.supervised)


def _supervised(messages: Sequence[Message]) -> list[TurnId]:
    return [(turn.session, turn.index) for message in messages for turn in message.turns if turn.spans]
