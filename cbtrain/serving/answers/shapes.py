"""Answers in the shapes of the OpenAI protocol: of chats, and of texts that were continued."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from cbtrain.generation.request import Completion, Piece
from cbtrain.generation.sampling.draw import TokenLogprobs
from cbtrain.serving.answers.token_text import TokenText

LEAST = -9999.0
"""In place of the logarithm of 0, which JSON cannot write; as vLLM."""


class _Shape:
    """What both have: an envelope with choices. ``alternatives`` to each token are shown (None: no
    log-probabilities)."""

    prefix: ClassVar[str]
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, model: str, tokens: TokenText, alternatives: int | None) -> None:
        self.id, self.created = f"{self.prefix}-{uuid.uuid4().hex}", int(time.time())
        self.model, self.tokens, self.alternatives = model, tokens, alternatives

    def whole(self, completions: Sequence[Completion], usage: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON of whole answers."""
        answers = [self._answer(index, done) for index, done in enumerate(completions)]
        return self._envelope(self.whole_object, answers) | {"usage": usage}

    def text_of(self, completions: Sequence[Completion], usage: dict[str, Any]) -> str:
        """Return the JSON of :meth:`whole` as text, written choice by choice: the encoder lets no other thread run."""
        choices = ", ".join(json.dumps(self._answer(index, done)) for index, done in enumerate(completions))
        return json.dumps(self.whole((), usage)).replace('"choices": []', f'"choices": [{choices}]', 1)

    def usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return the chunk with the usage, which has no choices."""
        return self._envelope(self.chunk_object, []) | {"usage": usage}

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _answer(self, index: int, done: Completion) -> dict[str, Any]:
        raise NotImplementedError


class ChatShape(_Shape):
    """Answers to a chat."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def _answer(self, index: int, done: Completion) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": done.text, "refusal": None},
            "logprobs": self._logprobs(done.ids, done.logprobs),
            "finish_reason": done.finish_reason,
        }

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return a choice's first chunk, if it has one before its text."""
        return self._chunk(index, {"role": "assistant", "content": ""}, None, None)

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        if not piece.text and not piece.logprobs:
            return None  # its text is not certain yet
        return self._chunk(index, {"content": piece.text}, self._logprobs(piece.ids, piece.logprobs), None)

    def closing(self, index: int, done: Completion) -> dict[str, Any]:
        return self._chunk(index, {}, None, done.finish_reason)

    def _chunk(self, index: int, delta: dict[str, Any], logprobs: Any, reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._envelope(self.chunk_object, [choice])

    def _logprobs(self, ids: Sequence[int], entries: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
        if self.alternatives is None:
            return None
        content = [
            self._entry(token, entry.chosen)
            | {"top_logprobs": [self._entry(other, value) for other, value in entry.top[: self.alternatives]]}
            for token, entry in zip(ids, entries, strict=True)
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        spelled = self.tokens.bytes_of(token)
        text = spelled.decode(errors="replace")
        return {"token": text, "logprob": max(logprob, LEAST), "bytes": list(spelled)}


class TextShape(_Shape):
    """Answers to texts that were continued."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, tokens: TokenText, alternatives: int | None) -> None:
        super().__init__(model, tokens, alternatives)
        self._offsets: dict[int, int] = {}  # of streams, by choice

    def _answer(self, index: int, done: Completion) -> dict[str, Any]:
        return self._choice(index, done.text, self._logprobs(done.ids, done.logprobs, 0), done.finish_reason)

    def opening(self, index: int) -> dict[str, Any] | None:
        return None

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        if not piece.text and not piece.logprobs:
            return None
        logprobs = self._logprobs(piece.ids, piece.logprobs, self._offsets.get(index, 0))
        self._offsets[index] = self._offsets.get(index, 0) + sum(map(len, logprobs["tokens"] if logprobs else ()))
        return self._chunk(index, piece.text, logprobs, None)

    def closing(self, index: int, done: Completion) -> dict[str, Any]:
        return self._chunk(index, "", None, done.finish_reason)

    def _choice(self, index: int, text: str, logprobs: Any, reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _chunk(self, index: int, text: str, logprobs: Any, reason: str | None) -> dict[str, Any]:
        return self._envelope(self.chunk_object, [self._choice(index, text, logprobs, reason)])

    def _logprobs(self, ids: Sequence[int], entries: Sequence[TokenLogprobs], offset: int) -> dict[str, Any] | None:
        if self.alternatives is None:
            return None
        texts = [self.tokens.text_of(token) for token in ids]
        offsets = []
        for text in texts:
            offsets.append(offset)
            offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [max(entry.chosen, LEAST) for entry in entries],
            "top_logprobs": [self._best(entry) for entry in entries],
            "text_offset": offsets,
        }

    def _best(self, entry: TokenLogprobs) -> dict[str, float]:
        """Return alternatives by text. Of tokens that read alike (halves of characters) the likeliest is shown."""
        best: dict[str, float] = {}
        for token, value in entry.top[: self.alternatives]:
            best.setdefault(self.tokens.text_of(token), max(value, LEAST))
        return best


Shape = ChatShape | TextShape


def usage_of(completions: Sequence[Completion], choices: int) -> dict[str, Any]:
    """Return the protocol's counts of tokens; each prompt, which ``choices`` share, is counted once."""
    prompts = completions[::choices]
    prompt, drawn = sum(done.prompt_tokens for done in prompts), sum(len(done.ids) for done in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": drawn,
        "total_tokens": prompt + drawn,
        "prompt_tokens_details": {"cached_tokens": sum(done.cached_tokens for done in prompts)},
    }
