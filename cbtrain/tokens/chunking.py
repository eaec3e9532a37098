"""Split a document that is too long between turns, with earlier turns repeated as context.

Each piece begins with the system prompt and a note that earlier turns are left out. It repeats the last turns of the
piece before, up to a share of its length, and continues from there. A supervised turn is supervised in the first piece
that contains it, and is context in any later one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer, Rendering
from cbtrain.tokens.dialogue import Message, led_in

MARGIN = 16
"""Tokens reserved for the note on turns left out. It is an estimate only: each piece is rendered and measured."""

Piece = tuple[list[Message], Rendering]


@dataclass(slots=True)
class Chunker:
    """Splits chats into pieces of at most ``limit`` tokens, each measured up to its last supervised one; at most the
    share ``carry`` of a piece repeats turns of an earlier piece.

    ``dropped`` counts tokens of turns before the last supervised one that are in no piece; they would have been context
    only.
    """

    renderer: ChatRenderer
    system: str
    limit: int
    carry: float
    dropped: int = 0

    def split(self, messages: Sequence[Message], ends: Sequence[int], name: str) -> Iterator[Piece]:
        """Yield the pieces of ``messages``; ``ends`` are those of their whole rendering.

        Raises UserError if a turn alone is longer than the limit, and names it. The last piece may lack turns at its
        end that no supervised turn follows.
        """
        talk = [message for message in messages if message.role != "system"]
        head = self._head_length()
        # Of each message: the tokens from the end of the content before to the end of its own.
        lengths = np.diff([0, *ends]).tolist()[-len(talk) :]
        covered, todo = 0, _next_supervised(talk, 0)
        while todo < len(talk):
            start, stop = self._estimate(lengths, covered, todo, head)
            while True:
                stop = max(index for index in range(todo, stop) if talk[index].supervised) + 1
                piece = self._render(talk, start, todo, stop, name)
                length = _counted_length(piece[1])
                if length <= self.limit:
                    break
                if sum(message.supervised for message in talk[todo:stop]) > 1:
                    stop -= 1
                elif start < todo:
                    start += 1
                else:
                    raise self._too_long(talk[todo], length, name)
            for index in range(covered, start):
                if head + lengths[index] > self.limit:  # perhaps: the whole rendering's lengths are close, not exact
                    alone = self._render(talk, index, index + 1, index + 1, name)[1]
                    if len(alone.ids) > self.limit:
                        raise self._too_long(talk[index], len(alone.ids), name)
                self.dropped += lengths[index]
            yield piece
            covered, todo = stop, _next_supervised(talk, stop)

    def _too_long(self, message: Message, length: int, name: str) -> UserError:
        turn = message.turns[0]
        problem = f"turn {turn.index + 1} of {turn.session} needs {length} tokens with its system prompt"
        hint = "Raise pack_tokens (or tokens.document_tokens)."
        return UserError(f"{problem}, and a document holds {self.limit}", where=name, hint=hint)

    def _estimate(self, lengths: Sequence[int], covered: int, todo: int, head: int) -> tuple[int, int]:
        """Return first and last + 1 message of the piece whose first supervised message is ``todo``, by the lengths in
        the whole rendering.

        Messages in no piece yet (from ``covered`` on) are included even beyond the carried share, if there is room.
        """
        room = self.limit - head - lengths[todo]
        context = min(room, max(int(self.carry * self.limit), sum(lengths[covered:todo])))
        start, used = todo, 0
        while start > 0 and used + lengths[start - 1] <= context:
            start -= 1
            used += lengths[start]
        stop, used = todo + 1, used + lengths[todo]
        while stop < len(lengths) and head + used + lengths[stop] <= self.limit:
            used += lengths[stop]
            stop += 1
        return start, stop

    def _head_length(self) -> int:
        messages = led_in([], self.system, truncated=True)
        return len(self.renderer.render(messages, "system prompt").ids) + MARGIN

    def _render(self, talk: Sequence[Message], start: int, todo: int, stop: int, name: str) -> Piece:
        context = [message.as_context() for message in talk[start:todo]]
        messages = led_in([*context, *talk[todo:stop]], self.system, truncated=start > 0)
        return messages, self.renderer.render(messages, name)


def _next_supervised(talk: Sequence[Message], start: int) -> int:
    return next((index for index in range(start, len(talk)) if talk[index].supervised), len(talk))


def _counted_length(rendering: Rendering) -> int:
    counted = np.flatnonzero(rendering.loss_weights)
    return int(counted[-1]) + 1 if len(counted) else 0
