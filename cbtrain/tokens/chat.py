"""From chat messages to token ids and a weight for each token: exactly the supervised words and their stop tokens.

A chat template does the layout. One rendering with placeholders in place of the messages says where each message lands
in the text; tokens are weighted by those spans, never by comparing ids. ``agreement.py`` holds the result against a
second method.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbtrain.errors import UserError
from cbtrain.tokens.dialogue import Message, SpokenSpan
from cbtrain.tokens.formats import ChatFormat, choose_format, layout_of
from cbtrain.tokens.template_check import PLACEHOLDER, has_system_role, probe


@dataclass(frozen=True, slots=True)
class Rendering:
    """A whole chat as tokens.

    ``ids`` int32 ``[n]``; ``weights`` float32 ``[n]``, 0 where the loss does not count a token; ``ends`` holds for each
    message the number of tokens up to and with its content.
    """

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    ends: list[int]


class ChatRenderer:
    """Renders chats with ``tokenizer`` (a fast ``transformers`` one) in ``chat_format`` (none: chosen by itself).

    Raises UserError where no usable template is there (:func:`cbtrain.tokens.formats.choose_format`). Threads may share
    one renderer.
    """

    def __init__(self, tokenizer: Any, chat_format: ChatFormat | None = None) -> None:
        self.tokenizer = tokenizer
        self.format = chat_format or choose_format(tokenizer)
        self._layout = layout_of(tokenizer, self.format.template)
        # The tokenizer itself, not the wrapper around it: that one changes its settings at each call, and
        # threads would trip over each other.
        self._encoder = tokenizer.backend_tokenizer
        self._encoder.no_truncation()
        self._encoder.no_padding()
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.specials = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._special_ids = frozenset(tokenizer.convert_tokens_to_ids(self.specials))
        self._special = re.compile("|".join(map(re.escape, self.specials)) or r"(?!)")
        self.has_system_role = has_system_role(self._layout)

    def render(self, messages: Sequence[Message], name: str) -> Rendering:
        """Tokens and weights of a whole chat; ``name`` (session, file) is used in errors.

        Raises UserError where the template refuses the roles, a message holds a special token, a supervised turn
        renders to nothing, does not begin and end between two tokens, or no stop token follows it.
        """
        text, begins, ends, messages = self._render_text(messages, name)
        encoding = self._encoder.encode(text, add_special_tokens=False)
        ids = np.asarray(encoding.ids, dtype=np.int32)
        starts, stops = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(ids)).reshape(-1, 2).T
        weights = np.zeros(len(ids), dtype=np.float32)
        for message, begin, end in zip(messages, begins, ends, strict=True):
            for said in message.said:
                if said.spans:
                    self._set_loss_weights(said, message, begin, end, ids, starts, stops, weights, name)
        return Rendering(ids, weights, np.searchsorted(starts, ends).tolist())

    def prompt(self, messages: Sequence[Message], name: str = "prompt") -> list[int]:
        """The ids that a model continues with the assistant's next turn."""
        return self._encode(self._render_text(messages, name, generate=True)[0])

    def render_answer(self, messages: Sequence[Message]) -> tuple[int, list[int]]:
        """The prompt's length, and the ids up to and with the stop token of the answer that ends ``messages``.

        For checks: the template is given the words themselves, and the answer is what follows serving's prompt up to
        the first special token; no place in the text is known.
        """
        prompt = self._encode(self._laid_out_directly(messages[:-1], generate=True))
        ids = self._encode(self._laid_out_directly(messages))
        stop = next((i for i in range(len(prompt), len(ids)) if ids[i] in self._special_ids), len(ids) - 1)
        return len(prompt), ids[: stop + 1]

    @cached_property
    def answer_stop_id(self) -> int:
        """The token that the template puts after an answer."""
        return self.render_answer([Message("user", "a"), Message("assistant", "b")])[1][-1]

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the one that the template puts there, and the tokenizer's eos."""
        eos = self.tokenizer.eos_token_id
        return frozenset({self.answer_stop_id, *([] if eos is None else [eos])})

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, special tokens and a first space included."""
        text = str(self._encoder.decode(list(ids), skip_special_tokens=False))
        # Sentencepiece's decoders take the first space of whatever they are given for their own.
        first = (self._encoder.id_to_token(ids[0]) if ids else None) or ""
        return f" {text}" if first.startswith("▁") and not text.startswith(" ") else text

    def _encode(self, text: str) -> list[int]:
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def _laid_out_directly(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        messages = self._fold_system(messages)
        return self._layout([(message.role, message.content.strip()) for message in messages], generate)

    def _set_loss_weights(
        self,
        said: SpokenSpan,
        message: Message,
        begin: int,
        end: int,
        ids: NDArray[np.int32],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
        weights: NDArray[np.float32],
        name: str,
    ) -> None:
        """Set the weights of one turn's tokens. ``begin`` and ``end`` are the message's place in the text."""
        place, length = _turn(said), len(message.content)
        offset = end - length  # ``begin`` may lie one space before the content
        for span in said.spans:
            first_char = begin if span.begin == 0 else offset + span.begin
            first, last = np.searchsorted(starts, [first_char, offset + span.end])
            # A token that covers the message's border would be seen whole in training and never in serving.
            if span.begin == 0 and (first >= len(ids) or starts[first] != begin):
                raise UserError(f"{place} does not begin at a token's border", where=name, hint=BORDER)
            weights[first:last] = span.weight
            if span.end != length:
                continue
            if stops[last - 1] != end:
                raise UserError(f"{place} does not end at a token's border", where=name, hint=BORDER)
            if last >= len(ids) or int(ids[last]) not in self._special_ids:
                problem = f"the chat format {self.format.name!r} puts no stop token after {place}"
                raise UserError(problem, where=name, hint="Use a template that does, or tokens.format=plain.")
            weights[last] = span.weight

    def _render_text(
        self, messages: Sequence[Message], name: str, *, generate: bool = False
    ) -> tuple[str, list[int], list[int], list[Message]]:
        """The text, where each message's content begins and ends in it, and the messages as they were laid out."""
        messages = self._fold_system(messages)
        contents = [message.content.strip() for message in messages]
        for message, content in zip(messages, contents, strict=True):
            special = self._special.search(content)
            if special:
                problem = f"{_place(message, messages)} contains the special token {special.group()!r}"
                raise UserError(problem, where=name, hint="Remove it from the text: it would end or open a turn.")
        try:
            laid_out = self._layout(probe(*(message.role for message in messages)), generate)
        except Exception as error:  # templates raise their own kinds to refuse what they do not take
            problem = f"the chat format {self.format.name!r} refuses {_refused(self._layout, messages)} ({error})"
            raise UserError(problem, where=name, hint="Clean the transcript: the speakers must take turns.") from None
        parts = PLACEHOLDER.split(laid_out)
        if [int(index) for index in parts[1::2]] != list(range(len(messages))):
            problem = f"the chat format {self.format.name!r} drops, repeats or reorders messages"
            raise UserError(problem, where=name, hint="Use a template that writes each message once, in order.")
        text, begins, ends = parts[0], [], []
        for content, after in zip(contents, parts[2::2], strict=True):
            # A single space before the content is part of the first token that the model itself has to write.
            begins.append(len(text) - (1 if text.endswith(" ") and not text.endswith("  ") else 0))
            text += content
            ends.append(len(text))
            text += after
        return text, begins, ends, messages

    def _fold_system(self, messages: Sequence[Message]) -> list[Message]:
        """Put the system text into the first user message where the template has no place for it."""
        if self.has_system_role or not messages or messages[0].role != "system":
            return list(messages)
        first = messages[1] if len(messages) > 1 else Message("user", "")
        return [first.after(messages[0].content), *messages[2:]]


BORDER = "Use a template with special tokens around each turn, or tokens.format=plain."


def _turn(said: SpokenSpan) -> str:
    return f"turn {said.turn + 1} of {said.session}" if said.session else f"turn {said.turn + 1}"


def _place(message: Message, messages: Sequence[Message]) -> str:
    if message.said:
        return _turn(message.said[0])
    return "the system prompt" if message.role == "system" else f"message {messages.index(message) + 1}"


def _refused(layout: Any, messages: Sequence[Message]) -> str:
    """The first message at which the template fails."""
    for count in range(1, len(messages)):
        try:
            layout([(message.role, "x") for message in messages[: count + 1]])
        except Exception:
            return f"{_place(messages[count], messages)} as {messages[count].role}"
    return "this dialogue"
