"""Render chat messages to token ids and loss weights: the supervised words and their stop tokens count, nothing else.

A chat template lays the messages out. It is rendered with placeholders instead of the messages, which shows where each
message lies in the text, and once more with the messages themselves, which must give the same text: a template can
replace, cut or add words depending on what is said. Loss weights are set by these character positions, never by
comparing ids; ``mask_check.py`` compares them with a second method.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbtrain.errors import UserError
from cbtrain.tokens.bounded_template import TooMuchWork
from cbtrain.tokens.default_system import own_system_text
from cbtrain.tokens.dialogue import Message, SpokenTurn
from cbtrain.tokens.formats import PLACEHOLDER, ChatFormat, Layout, choose_format, has_system_role, layout_of, probe
from cbtrain.tokens.loss_mask import Span


@dataclass(frozen=True, slots=True)
class Rendering:
    """A whole chat as tokens.

    ``ids`` int32 ``[n]``; ``loss_weights`` float32 ``[n]``, 0 for tokens that the loss does not count; ``ends`` holds
    for each message the number of tokens from the chat's first to the last of its content.
    """

    ids: NDArray[np.int32]
    loss_weights: NDArray[np.float32]
    ends: list[int]


@dataclass(frozen=True, slots=True)
class PlacedMessage:
    """A message and its content's characters ``[begin, end)`` in the rendered text.

    They include a single space that the layout puts before the content: the model has to write that space itself.
    """

    message: Message
    begin: int
    end: int

    def opens_with(self, span: Span) -> bool:
        """Return whether ``span`` begins where the content begins."""
        return span.begin == 0

    def closes_with(self, span: Span) -> bool:
        """Return whether ``span`` ends where the content ends."""
        return span.end == len(self.message.content)

    def to_text(self, span: Span) -> tuple[int, int]:
        """Return first and last + 1 character in the rendered text of ``span``, a part of the content."""
        content_begin = self.end - len(self.message.content)
        begin = self.begin if self.opens_with(span) else content_begin + span.begin
        return begin, content_begin + span.end


class TokenBorder(Exception):
    """A text that must begin and end between two tokens does not."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """The tokens of a text, each with its characters and its weight in the loss.

    ``ids`` int32 ``[n]``; ``char_starts`` and ``char_stops`` int64 ``[n]``, a token's first and last + 1 character, in
    ascending order; ``loss_weights`` float32 ``[n]``, 0 until they are set.
    """

    ids: NDArray[np.int32]
    char_starts: NDArray[np.int64]
    char_stops: NDArray[np.int64]
    loss_weights: NDArray[np.float32]

    @classmethod
    def of(cls, encoding: Any) -> EncodedText:
        """Return the tokens of an ``Encoding`` of the ``tokenizers`` library, none of them counted."""
        count = len(encoding.ids)
        chars = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * count).reshape(-1, 2).T
        ids = np.asarray(encoding.ids, dtype=np.int32)
        starts, stops = np.ascontiguousarray(chars)  # searched for every span
        return cls(ids, starts, stops, np.zeros(count, dtype=np.float32))

    def tokens_of(self, begin: int, end: int, *, whole_begin: bool = False, whole_end: bool = False) -> slice:
        """Return the tokens that begin in characters ``[begin, end)``.

        Raises TokenBorder if no token begins exactly at ``begin`` (with ``whole_begin``), or if the last one does not
        end exactly at ``end`` (with ``whole_end``).
        """
        first, stop = np.searchsorted(self.char_starts, [begin, end]).tolist()
        if whole_begin and (first >= len(self.ids) or self.char_starts[first] != begin):
            raise TokenBorder("does not begin at a token's border")
        if whole_end and self.char_stops[stop - 1] != end:
            raise TokenBorder("does not end at a token's border")
        return slice(first, stop)

    def tokens_until(self, ends: Sequence[int]) -> list[int]:
        """Return for each character position the number of tokens that begin before it."""
        return list(np.searchsorted(self.char_starts, ends).tolist())


class ChatRenderer:
    """Renders chats with ``tokenizer``, a fast ``transformers`` one, in ``chat_format`` (None: chosen automatically).
    ``vocabulary`` is the number of the model's embeddings: a text with a token beyond them is refused.

    Raises UserError if there is no usable template (:func:`cbtrain.tokens.formats.choose_format`). Threads may share a
    renderer.
    """

    def __init__(self, tokenizer: Any, chat_format: ChatFormat | None = None, vocabulary: int | None = None) -> None:
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self.format = chat_format or choose_format(tokenizer)
        self._layout = layout_of(tokenizer, self.format.template)
        # The tokenizer itself, not the wrapper around it: the wrapper changes settings at each call, and threads
        # would change them under each other.
        self._encoder = tokenizer.backend_tokenizer
        self._encoder.no_truncation()
        self._encoder.no_padding()
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.specials = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._special_ids = frozenset(tokenizer.convert_tokens_to_ids(self.specials))
        self._special = re.compile(any_of(self.specials) or r"(?!)")
        self.has_system_role = has_system_role(self._layout)

    def render(self, messages: Sequence[Message], name: str) -> Rendering:
        """Return tokens and loss weights of a whole chat; ``name`` (session, file) is used in errors.

        Raises UserError if the template refuses the roles, changes the order of messages or lays them out depending on
        their words, if a message contains a special token, if a supervised turn does not begin and end between two
        tokens, or if no stop token follows it.
        """
        text, placed_messages = self._render_text(messages, name)
        encoded = EncodedText.of(self._encoder.encode(text, add_special_tokens=False))
        self._require_embeddings(encoded.ids, name)
        for placed in placed_messages:
            self._set_loss_weights(encoded, placed, name)
        ends = encoded.tokens_until([placed.end for placed in placed_messages])
        return Rendering(encoded.ids, encoded.loss_weights, ends)

    def prompt(self, messages: Sequence[Message], name: str = "prompt") -> list[int]:
        """Return the ids that a model continues with the assistant's next turn.

        A message whose ``ids`` are known keeps them, if its words begin and end between two tokens of the chat: what a
        model has written is then read by it token by token as it was written. Where special tokens are among them,
        which would end or open turns, the words count.
        """
        text, placed_messages = self._render_text(messages, name, generate=True)
        with_ids = [placed for placed in placed_messages if placed.message.ids and self._is_plain(placed.message.ids)]
        # As a batch: unlike `encode`, it lets other threads run, and a server tokenizes long texts beside its loop.
        encode = self._encoder.encode_batch if with_ids else self._encoder.encode_batch_fast  # without offsets
        (encoding,) = encode([text], add_special_tokens=False)
        if not with_ids:
            ids = list(encoding.ids)
            self._require_embeddings(np.asarray(ids, dtype=np.int32), name)
            return ids
        encoded = EncodedText.of(encoding)
        self._require_embeddings(encoded.ids, name)
        ids = []
        first = 0
        for placed in with_ids:
            try:
                tokens = encoded.tokens_of(placed.begin, placed.end, whole_begin=True, whole_end=True)
            except TokenBorder:
                continue
            ids += [*encoded.ids[first : tokens.start].tolist(), *placed.message.ids]
            first = tokens.stop
        return ids + encoded.ids[first:].tolist()

    def _is_plain(self, ids: Sequence[int]) -> bool:
        """Return whether ``ids`` are tokens of text."""
        return not self._special_ids.intersection(ids) and all(self._encoder.id_to_token(token) for token in ids)

    def render_answer(self, messages: Sequence[Message]) -> tuple[int, list[int]]:
        """Return the prompt's length in tokens, and the ids from the prompt to the stop token of the last message.

        For checks: the template gets the words themselves, not placeholders. The answer is then everything after
        serving's prompt, up to the first special token.
        """
        prompt = self._encode(self._render_directly(messages[:-1], generate=True))
        ids = self._encode(self._render_directly(messages))
        stop = next((i for i in range(len(prompt), len(ids)) if ids[i] in self._special_ids), len(ids) - 1)
        return len(prompt), ids[: stop + 1]

    @cached_property
    def answer_stop_id(self) -> int:
        """Id of the token that the template puts after an answer."""
        return self.render_answer([Message("user", "a"), Message("assistant", "b")])[1][-1]

    @cached_property
    def own_system_text(self) -> str:
        """The text that the template puts into a system message by itself if a chat has none, "" if it has none."""
        return own_system_text(self._layout)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids of the tokens that end an answer: the one that the template puts there, and the tokenizer's eos."""
        eos = self.tokenizer.eos_token_id
        return frozenset({self.answer_stop_id, *([] if eos is None else [eos])})

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, with special tokens and a first space."""
        text = str(self._encoder.decode(list(ids), skip_special_tokens=False))
        # Sentencepiece's decoders remove the first space, as if they had added it themselves.
        first = (self._encoder.id_to_token(ids[0]) if ids else None) or ""
        return f" {text}" if first.startswith("▁") and not text.startswith(" ") else text

    def _require_embeddings(self, ids: NDArray[np.int32], name: str) -> None:
        if self.vocabulary is None or not len(ids) or ids.max() < self.vocabulary:
            return
        token = int(ids.max())
        text = self._encoder.id_to_token(token)
        problem = f"the token {text!r} occurs, number {token}, but the model has only {self.vocabulary} embeddings"
        hint = "Use the tokenizer that belongs to the model, or one without this token."
        raise UserError(problem, where=name, hint=hint)

    def _encode(self, text: str) -> list[int]:
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def _render_directly(self, messages: Sequence[Message], *, generate: bool = False) -> str:
        messages = self._fold_system(messages)
        return self._layout([(message.role, message.content.strip()) for message in messages], generate)

    def _set_loss_weights(self, encoded: EncodedText, placed: PlacedMessage, name: str) -> None:
        """Set the weights of the tokens that the loss counts in one message. Raises UserError like :meth:`render`."""
        for turn in placed.message.turns:
            for span in turn.spans:
                opens, closes = placed.opens_with(span), placed.closes_with(span)
                try:
                    # Training would show a token across the message's border whole, serving never would.
                    tokens = encoded.tokens_of(*placed.to_text(span), whole_begin=opens, whole_end=closes)
                except TokenBorder as error:
                    hint = "Use a template with special tokens around each turn, or tokens.format=plain."
                    raise UserError(f"{_turn_name(turn)} {error}", where=name, hint=hint) from None
                encoded.loss_weights[tokens] = span.weight
                if closes:
                    encoded.loss_weights[self._stop_token_after(tokens, encoded, turn, name)] = span.weight

    def _stop_token_after(self, tokens: slice, encoded: EncodedText, turn: SpokenTurn, name: str) -> int:
        """Return the index of the stop token after ``tokens``. Raises UserError if no special token follows them."""
        index: int = tokens.stop
        if index >= len(encoded.ids) or int(encoded.ids[index]) not in self._special_ids:
            problem = f"the chat format {self.format.name!r} puts no stop token after {_turn_name(turn)}"
            raise UserError(problem, where=name, hint="Use a template that does, or tokens.format=plain.")
        return index

    def _render_text(
        self, messages: Sequence[Message], name: str, *, generate: bool = False
    ) -> tuple[str, list[PlacedMessage]]:
        """Return the text and, in order, the messages as they were laid out in it. Raises UserError like
        :meth:`render`."""
        messages = self._fold_system(messages)
        contents = [message.content.strip() for message in messages]
        for message, content in zip(messages, contents, strict=True):
            special = self._special.search(content)
            if special:
                problem = f"{_message_name(message, messages)} contains the special token {special.group()!r}"
                raise UserError(problem, where=name, hint="Remove it from the text: it would end or open a turn.")
        try:
            laid_out = self._layout(probe(*(message.role for message in messages)), generate)
            expected = self._layout([(m.role, text) for m, text in zip(messages, contents, strict=True)], generate)
        except TooMuchWork as error:
            raise UserError(error.what, where=name, hint=error.hint) from None
        except Exception as error:  # templates raise exceptions of their own to refuse roles
            problem = (
                f"the chat format {self.format.name!r} refuses {_refused_message(self._layout, messages)} ({error})"
            )
            raise UserError(problem, where=name, hint="Clean the transcript: the speakers must take turns.") from None
        parts = PLACEHOLDER.split(laid_out)
        if [int(index) for index in parts[1::2]] != list(range(len(messages))):
            problem = f"the chat format {self.format.name!r} drops, repeats or reorders messages"
            raise UserError(problem, where=name, hint="Use a template that writes each message once, in order.")
        text = parts[0]
        placed = []
        for message, content, after in zip(messages, contents, parts[2::2], strict=True):
            # A single space before the content is part of the first token that the model itself has to write.
            begin = len(text) - (1 if text.endswith(" ") and not text.endswith("  ") else 0)
            text += content
            placed.append(PlacedMessage(message, begin, len(text)))
            text += after
        if text != expected:
            self._refuse_other_layout(text, expected, placed, messages, name)
        return text, placed

    def _refuse_other_layout(
        self, text: str, expected: str, placed_messages: Sequence[PlacedMessage], messages: Sequence[Message], name: str
    ) -> None:
        """Raise UserError: the template lays the messages out as ``expected``, and placeholders as in ``text``."""
        first = common_length(text, expected)
        before = [placed for placed in placed_messages if placed.begin <= first] or placed_messages[:1]
        message = _message_name(before[-1].message, messages)
        problem = f"the chat format {self.format.name!r} changes the words of {message}, or what it writes around them"
        raise UserError(problem, where=name, hint="Use a template whose layout does not depend on the words.")

    def _fold_system(self, messages: Sequence[Message]) -> list[Message]:
        """Put the system text into the first user message if the template takes no system message."""
        if self.has_system_role or not messages or messages[0].role != "system":
            return list(messages)
        first = messages[1] if len(messages) > 1 else Message("user", "")
        return [first.after(messages[0].content), *messages[2:]]


def common_length(one: str, other: str) -> int:
    """Return how many leading characters the texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def any_of(texts: Iterable[str]) -> str:
    """Return a pattern for the longest of ``texts`` that fits, "" if there are none.

    It branches at the first character that differs. A plain alternation of a thousand special tokens tries each of them
    at every "<" of a text: 8 s for a megabyte of them, in which no other thread runs.
    """
    by_first: dict[str, list[str]] = {}
    for text in sorted(set(texts)):
        by_first.setdefault(text[:1], []).append(text)
    ends = "?" if by_first.pop("", None) else ""
    branches = []
    for group in by_first.values():
        length = common_length(group[0], group[-1])  # they are sorted: what these two share, all do
        branches.append(re.escape(group[0][:length]) + any_of(text[length:] for text in group))
    return f"(?:{'|'.join(branches)}){ends}" if branches else ""


def _turn_name(turn: SpokenTurn) -> str:
    return f"turn {turn.index + 1} of {turn.session}" if turn.session else f"turn {turn.index + 1}"


def _message_name(message: Message, messages: Sequence[Message]) -> str:
    if message.turns:
        return _turn_name(message.turns[0])
    return "the system prompt" if message.role == "system" else f"message {messages.index(message) + 1}"


def _refused_message(layout: Layout, messages: Sequence[Message]) -> str:
    """Return the first message that the template refuses, and its role, for an error message. A template that refuses
    some messages refuses more of them too, so that a dialogue of thousands need not be laid out thousands of times."""

    def refuses(count: int) -> bool:
        try:
            layout([(message.role, "x") for message in messages[:count]])
        except Exception:
            return True
        return False

    count = bisect_left(range(2, len(messages) + 1), True, key=refuses) + 2
    if count > len(messages):
        return "this dialogue"
    return f"{_message_name(messages[count - 1], messages)} as {messages[count - 1].role}"
