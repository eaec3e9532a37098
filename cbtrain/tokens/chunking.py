"""Cut a document that is too long between turns, earlier turns carried along as context.

Each piece begins with the system prompt and says that earlier turns are left out; it repeats the last turns of the
piece before, up to a share of its length, and goes on from there. A turn that the loss counts is counted in the first
piece that holds it and is context in any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cbtrain.errors import UserError
from cbtrain.tokens.chat import ChatRenderer, Rendering
from cbtrain.tokens.dialogue import Message, led_in

MARGIN = 16
"""Tokens kept free for the words that say what was left out; what is rendered is measured all the same."""

Piece = tuple[list[Message], Rendering]


@dataclass(slots=True)
class Cutter:
    """Cuts chats into pieces of at most ``limit`` tokens, each counted up to its last supervised one; at most ``carry``
    of a piece repeats turns that a piece before it held.

    ``left_out`` counts tokens of turns before the last supervised one that found no room in any piece: they would have
    been context only.
    """

    renderer: ChatRenderer
    system: str | None
    limit: int
    carry: float
    left_out: int = 0

    def cut(self, messages: Sequence[Message], ends: Sequence[int], name: str) -> Iterator[Piece]:
        """The pieces of ``messages``; ``ends`` are those of their whole rendering.

        Raises UserError where a turn alone is longer than the limit, naming it. The last piece may lack turns at its
        end that nothing supervised follows.
        """
        talk = [message for message in messages if message.role != "system"]
        head = self._head()
        lengths = np.diff([0, *ends]).tolist()[-len(talk) :]  # tokens from the content before to the end of its own
        begun, todo = 0, _next_supervised(talk, 0)
        while todo < len(talk):
            start, stop = self._guess(lengths, begun, todo, head)
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
            for index in range(begun, start):
                if head + lengths[index] > self.limit:  # perhaps: the whole rendering's lengths are close, not exact
                    alone = self._render(talk, index, index + 1, index + 1, name)[1]
                    if len(alone.ids) > self.limit:
                        raise self._too_long(talk[index], len(alone.ids), name)
                self.left_out += lengths[index]
            yield piece
            begun, todo = stop, _next_supervised(talk, stop)

    def _too_long(self, message: Message, length: int, name: str) -> UserError:
        said = message.said[0]
        problem = f"turn {said.turn + 1} of {said.session} needs {length} tokens with its system prompt"
        hint = "Raise pack_tokens (or tokens.document_tokens)."
        return UserError(f"{problem}, and a document holds {self.limit}", where=name, hint=hint)

    def _guess(self, lengths: Sequence[int], begun: int, todo: int, head: int) -> tuple[int, int]:
        """Where a piece that goes on from message ``todo`` begins and ends, by the lengths in the whole rendering.
        What is in no piece yet (from ``begun`` on) comes along even beyond the carried share, if there is room."""
        room = self.limit - head - lengths[todo]
        context = min(room, max(int(self.carry * self.limit), sum(lengths[begun:todo])))
        start, used = todo, 0
        while start > 0 and used + lengths[start - 1] <= context:
            start -= 1
            used += lengths[start]
        stop, used = todo + 1, used + lengths[todo]
        while stop < len(lengths) and head + used + lengths[stop] <= self.limit:
            used += lengths[stop]
            stop += 1
        return start, stop

    def _head(self) -> int:
        led = led_in([], self.system, cut=True)
        return len(self.renderer.render(led, "system prompt").ids) + MARGIN

    def _render(self, talk: Sequence[Message], start: int, todo: int, stop: int, name: str) -> Piece:
        context = [message.as_context() for message in talk[start:todo]]
        messages = led_in([*context, *talk[todo:stop]], self.system, cut=start > 0)
        return messages, self.renderer.render(messages, name)


def _next_supervised(talk: Sequence[Message], start: int) -> int:
    return next((index for index in range(start, len(talk)) if talk[index].supervised), len(talk))


def _counted_length(rendering: Rendering) -> int:
    counted = np.flatnonzero(rendering.weights)
    return int(counted[-1]) + 1 if len(counted) else 0
