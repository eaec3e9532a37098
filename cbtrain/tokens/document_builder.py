"""From sessions to documents: whole, as a course, cut between turns, or a record for every turn.

Whatever the recipe, every turn that the loss counts is counted exactly once an epoch; this is checked for every unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer, Rendering
from cbtrain.tokens.chunking import Cutter
from cbtrain.tokens.config import Supervise, TokensConfig
from cbtrain.tokens.dialogue import Message, course_messages, session_messages
from cbtrain.tokens.document import Document, trimmed
from cbtrain.tokens.loss_mask import LossPolicy
from cbtrain.transcripts.summary import summary_text
from cbtrain.transcripts.types import Course, Role, Session


@dataclass(frozen=True, slots=True)
class Unit:
    """What is rendered together: a session, or a course's sessions in order. ``last_summaries`` closed the sessions
    before each of them (empty where unknown)."""

    name: str
    sessions: tuple[Session, ...]
    system: str | None
    last_summaries: tuple[str, ...] = field(repr=False)

    @property
    def words(self) -> int:
        return sum(session.words for session in self.sessions)


@dataclass(frozen=True, slots=True)
class Built:
    """The documents of one unit, and what one epoch of it costs by each recipe (``whole_tokens`` is None where the chat
    format holds one answer only, ``paper_tokens`` for a course, as the study's records end with their session).

    ``cut``: whether it was cut between turns; ``left_out``: tokens of turns that found no room as context anywhere.
    """

    documents: list[Document]
    whole_tokens: int | None
    paper_tokens: int | None
    cut: bool = False
    left_out: int = 0


def units_of(course: Course, config: TokensConfig, system: str | None) -> list[Unit]:
    """The units of one patient, by ``config.document``."""
    summaries, before = [], ""
    for session in course.sessions:
        summaries.append(before)
        before = summary_text(session)
    if config.document == "course":
        return [Unit(course.id, course.sessions, system, tuple(summaries))]
    return [Unit(s.id, (s,), system, (last,)) for s, last in zip(course.sessions, summaries, strict=True)]


class DocumentBuilder:
    """Makes the documents that teach a model to play ``speaker``, with the loss on the turns of ``supervise``.

    The longest document has ``config.document_tokens``, or ``pack_tokens`` where that is not set; longer ones are cut
    between turns. None may reach beyond the model's ``positions``.
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

    def messages(self, unit: Unit) -> list[Message]:
        """The whole unit as chat messages, with what the loss counts marked."""
        if self.config.document == "course":
            return course_messages(unit.sessions, self.speaker, unit.system, self.policy, unit.last_summaries)
        (session,), (summary,) = unit.sessions, unit.last_summaries
        return session_messages(session, self.speaker, unit.system, self.policy, summary)

    def build(self, unit: Unit) -> Built:
        """The documents of ``unit``. Raises UserError, which names session and turn, on a unit that has no supervised
        token, on an empty turn, on what the chat format refuses, and on a turn longer than the limit."""
        name = place_of(unit)
        messages = self.messages(unit)
        if not any(message.supervised for message in messages):
            whom = " and ".join(sorted(self.policy.roles))
            hint = f"It needs a turn of the {whom} to learn from; clean the corpus or change tokens.weights."
            raise UserError("no token in it is supervised", where=name, hint=hint)
        if self.config.recipe == "whole":
            _refuse_empty_turns(messages, name)
        rendering = None if self.renderer.format.single_answer else self.renderer.render(messages, name)
        whole = None if rendering is None else trimmed(unit.name, rendering.ids, rendering.weights)
        if self.config.recipe == "whole" and whole is not None:
            self._refuse_beyond_positions(len(whole), name)
        left_out = 0
        if self.config.recipe == "paper":
            pieces = list(self._records(messages, unit, name))
        elif whole is not None and rendering is not None and len(whole) > self.limit:
            cutter = self._cutter(unit, self.limit, self.config.carry)
            cut = cutter.cut(messages, rendering.ends, name)
            pieces = [(piece, trimmed(f"{unit.name}#{n}", r.ids, r.weights)) for n, (piece, r) in enumerate(cut, 1)]
            # What stands after the whole's last supervised token is in no piece.
            piece, last = pieces[-1]
            pieces[-1] = (piece, replace(last, trimmed=whole.trimmed))
            left_out = cutter.left_out
        else:
            assert whole is not None
            pieces = [(messages, whole)]
        counted = Counter(turn for piece, _ in pieces for turn in _supervised(piece))
        if counted != Counter(_supervised(messages)):
            raise RuntimeError(f"{name}: a defect, not every turn is supervised once")
        documents = [document for _, document in pieces]
        if self.config.recipe == "paper":
            return Built(documents, None if whole is None else len(whole), sum(map(len, documents)))
        assert whole is not None
        assert rendering is not None
        paper = None if self.config.document == "course" else _paper_tokens(messages, rendering)
        return Built(documents, len(whole), paper, len(documents) > 1, left_out)

    def _records(self, messages: Sequence[Message], unit: Unit, name: str) -> Iterator[tuple[list[Message], Document]]:
        """One record for every supervised turn: the whole history, then the turn."""
        context = [message.as_context() for message in messages]
        for place, message in enumerate(messages):
            if not message.supervised:
                continue
            record = [*context[:place], message]
            rendering = self.renderer.render(record, name)
            if len(rendering.ids) > min(self.limit, self.positions):
                # The history is shortened from its beginning, the answer stays whole.
                ((record, rendering),) = self._cutter(unit, min(self.limit, self.positions), carry=1.0).cut(
                    record, rendering.ends, name
                )
            loss_weights = np.ones_like(rendering.weights) if self.policy.everything else rendering.weights
            turn = message.said[0].turn + 1
            yield record, trimmed(f"{unit.name}@{turn}", rendering.ids, loss_weights)

    def _refuse_beyond_positions(self, length: int, name: str) -> None:
        if min(length, self.limit) > self.positions:
            cut = f"set tokens.document_tokens={self.positions} to cut it between turns"
            hint = f"Configure RoPE scaling in its config.json, take a model with a longer context, or {cut}."
            raise UserError(f"{length} tokens, but the model has {self.positions} positions", where=name, hint=hint)

    def _cutter(self, unit: Unit, limit: int, carry: float) -> Cutter:
        return Cutter(self.renderer, unit.system, limit, carry)


def place_of(unit: Unit) -> str:
    """File and session, as a reader looks for them."""
    file = unit.sessions[0].where if len(unit.sessions) == 1 else ""
    return f"{file} ({unit.name})" if file and unit.name not in file else file or unit.name


def _refuse_empty_turns(messages: Sequence[Message], name: str) -> None:
    for message in messages:
        if message.said and not message.content:
            said = message.said[0]
            hint = "Remove it, or leave corpus.cleaning.drop_empty_turns on."
            raise UserError(f"turn {said.turn + 1} of {said.session} renders to nothing", where=name, hint=hint)


def _paper_tokens(messages: Sequence[Message], rendering: Rendering) -> int:
    """Tokens of the records that :meth:`DocumentBuilder._records` would make: each ends with its turn's stop token."""
    folded = len(messages) - len(rendering.ends)  # 1 where the system text stands in the first user message
    return sum(rendering.ends[i - folded] + 1 for i, message in enumerate(messages) if message.supervised)


def _supervised(messages: Sequence[Message]) -> list[tuple[str, int]]:
    return [(said.session, said.turn) for message in messages for said in message.said if said.spans]
