"""From a session to token ids and a mask of exactly the speaker's words and stop tokens.

The tokenizer's own chat template does the layout. One rendering with placeholders in place of the messages says where
each message lands in the text; tokens are supervised by those spans, never by comparing ids. :func:`check_template`
holds the result against a second method before anything is trained: what serving will feed the model before a turn
must be, token by token, the beginning of what training shows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbtrain.errors import UserError
from cbtrain.tokens.config import OPENING
from cbtrain.transcripts.types import Role, Turn

PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Document:
    """Tokens that attend to each other.

    ``ids`` int32 ``[n]``; ``supervised`` bool ``[n]`` marks the tokens that the loss counts.
    """

    name: str
    ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


def dialogue(turns: Sequence[Turn], speaker: Role, system: str | None) -> list[Message]:
    """The chat seen by a model that plays ``speaker``: its turns are the assistant's, the other's are the user's.

    Chat templates want a user message first, so a dialogue that ``speaker`` opens (or has yet to open) is led by
    :data:`OPENING`.
    """
    messages = [Message("system", system)] if system else []
    if not turns or turns[0].role == speaker:
        messages.append(Message("user", OPENING))
    messages += [Message("assistant" if turn.role == speaker else "user", turn.text) for turn in turns]
    return messages


class ChatRenderer:
    """Renders chats with ``tokenizer`` (a fast ``transformers`` tokenizer with a chat template).

    Raises UserError where there is no template or the template does not keep messages whole and in order.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            fix = "Use an instruct model, or add chat_template to its tokenizer_config.json."
            raise UserError("this tokenizer has no chat template", where=tokenizer.name_or_path, fix=fix)
        self.tokenizer = tokenizer
        self.specials = sorted(set(tokenizer.all_special_tokens), key=len, reverse=True)
        probe = [Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "u")]
        self.has_system_role = self._try(probe)

    def document(self, name: str, messages: Sequence[Message]) -> Document:
        """Render a whole chat and supervise the assistant's turns, each with its stop token.

        ``name`` (session, file) is used in errors. What follows the last supervised token is trimmed: it changes
        neither loss nor gradient.
        """
        text, spans = self._render(messages, name)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = np.asarray(encoded["input_ids"], dtype=np.int32)
        starts, ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
        supervised = np.zeros(len(ids), dtype=bool)
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            begin, end = spans[index]
            # A token that covers the boundary would be seen whole in training and never in serving.
            first, last = np.searchsorted(starts, begin), np.searchsorted(ends, end, side="right")
            if first >= last or starts[first] != begin or ends[last - 1] != end:
                raise UserError(
                    f"turn {index + 1} does not begin and end at token borders under this chat template",
                    where=name,
                    fix="Use a template with special tokens around each turn.",
                )
            if last >= len(ids) or int(ids[last]) not in self._special_ids:
                raise UserError(
                    "the chat template puts no stop token after an assistant turn",
                    where=self.tokenizer.name_or_path,
                    fix="Use a template that does.",
                )
            supervised[first : last + 1] = True
        if not supervised.any():
            raise UserError("nothing in it is supervised", where=name, fix="It needs at least one turn to learn from.")
        kept = int(np.flatnonzero(supervised)[-1]) + 1
        return Document(name, ids[:kept], supervised[:kept])

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids that a model continues with the assistant's next turn."""
        text, _ = self._render(messages, "prompt", generate=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def stop_ids(self) -> frozenset[int]:
        """Special tokens that end an assistant turn: those the template puts there, and the tokenizer's eos."""
        document = self.document("probe", [Message("user", "a"), Message("assistant", "b")])
        stops = {int(document.ids[-1])}
        if self.tokenizer.eos_token_id is not None:
            stops.add(self.tokenizer.eos_token_id)
        return frozenset(stops)

    @property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def _render(
        self, messages: Sequence[Message], name: str, *, generate: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and for each message the span ``[begin, end)`` of its content in it."""
        messages, folded = self._without_system(messages)
        contents = [message.content.strip() for message in messages]
        for index, content in enumerate(contents):
            for special in self.specials:
                if special in content:
                    raise UserError(
                        f"message {index + 1} contains the special token {special!r}",
                        where=name,
                        fix="Remove it from the text: it would end or open a turn.",
                    )
        laid_out = self._apply([Message(m.role, f"\ue000{i}\ue001") for i, m in enumerate(messages)], generate)
        parts = PLACEHOLDER.split(laid_out)
        if [int(i) for i in parts[1::2]] != list(range(len(messages))):
            raise UserError(
                "the chat template drops, repeats or reorders messages",
                where=self.tokenizer.name_or_path,
                fix="Use a template that writes each message once, in order.",
            )
        text, spans = parts[0], []
        for content, after in zip(contents, parts[2::2], strict=True):
            # A single space before the content is part of the first token that the model itself has to write.
            begin = len(text) - (1 if text.endswith(" ") and not text.endswith("  ") else 0)
            text += content
            spans.append((begin, len(text)))
            text += after
        return text, spans[:1] * folded + spans

    def _without_system(self, messages: Sequence[Message]) -> tuple[list[Message], int]:
        """Put the system text into the first user message where the template has no place for it."""
        if self.has_system_role or not messages or messages[0].role != "system":
            return list(messages), 0
        first = messages[1] if len(messages) > 1 else Message("user", "")
        return [Message(first.role, f"{messages[0].content}\n\n{first.content}"), *messages[2:]], 1

    def _apply(self, messages: Sequence[Message], generate: bool) -> str:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generate))

    def _try(self, probe: Sequence[Message]) -> bool:
        marked = [Message(m.role, f"\ue000{i}\ue001") for i, m in enumerate(probe)]
        try:
            found = PLACEHOLDER.findall(self._apply(marked, False))
        except Exception:  # jinja2 errors of any kind: templates raise their own to refuse a role
            return False
        return [int(i) for i in found] == list(range(len(probe)))


def check_template(renderer: ChatRenderer) -> None:
    """Raise UserError unless every serving prompt is a token prefix of the training document of the same dialogue."""
    turns = ["I did not sleep.", "What went through your mind?", "That I fail.", "How sure are you?", "Very.", "I see."]
    roles = ["user", "assistant"] * 3
    messages = [Message("system", "Be brief."), *(Message(r, t) for r, t in zip(roles, turns, strict=True))]
    whole = renderer.document("probe", messages)
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = renderer.prompt(messages[:index])
        prefix = whole.ids[: len(prompt)].tolist()
        if prefix != prompt or whole.supervised[len(prompt) - 1] or not whole.supervised[len(prompt)]:
            raise UserError(
                "the chat template renders earlier turns differently once later ones follow",
                where=renderer.tokenizer.name_or_path,
                fix="Use a template whose rendering only grows (no date, no rewriting of old turns).",
            )
