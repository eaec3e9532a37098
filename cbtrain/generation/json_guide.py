"""Answers that are JSON of a schema: llguidance says after each token which ones may come next."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cbtrain.errors import UserError

WHITESPACE = r"[ ]|\n[ ]{0,32}"
"""Between two parts: a space, or a line break and an indent. Without a limit a weak model may write spaces for ever."""

OPTIONS = {"whitespace_pattern": WHITESPACE, "lenient": False, "coerce_one_of": False}
"""Nothing of a schema is ignored or weakened, whatever its ``x-guidance`` says: what is not supported is refused."""

KEPT_SCHEMAS = 64
LONGEST = 32 * 1024
"""Characters of a schema. The time to compile one grows with the square of its properties: 5,000 take seconds."""

SUPPORTED = "https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md"


class NotOfSchema(ValueError):
    """No token leads to JSON of the schema, or more possibilities than llguidance follows."""


class JsonGuides:
    """Makes guides for one tokenizer. A schema is compiled once, when it is first used; any thread may ask.

    ``vocabulary`` is the number of embeddings (which may exceed the tokens); ``stop_ids`` end an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, stop_ids: frozenset[int]) -> None:
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        self.stop_ids = frozenset(token for token in stop_ids if token < vocabulary)
        self._lock = threading.Lock()
        self._library_tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def guide(self, schema: Mapping[str, Any] | str | None) -> JsonGuide:
        """Return a new guide to JSON of ``schema`` (a JSON Schema, parsed or as text); None allows any JSON object.

        Raises UserError if the schema is invalid or unsupported, or llguidance is not installed.
        """
        text = _schema_text(schema)
        with self._lock:
            matcher = self._compiled.get(text)
        if matcher is None:  # compiled without the lock: others do not wait for it
            matcher = self._compile(text)
        with self._lock:
            self._compiled[text] = matcher
            self._compiled.move_to_end(text)
            if len(self._compiled) > KEPT_SCHEMAS:
                self._compiled.popitem(last=False)
            return JsonGuide(matcher.deep_copy(), self.vocabulary, self.stop_ids)

    def _compile(self, text: str) -> Any:
        library = _require_llguidance()
        with self._lock:
            if self._library_tokenizer is None:
                from llguidance.hf import from_tokenizer

                size = max(self.vocabulary, 1 + max(self.tokenizer.get_vocab().values()))
                ends = sorted(self.stop_ids) or None
                self._library_tokenizer = from_tokenizer(self.tokenizer, n_vocab=size, eos_token=ends)
        try:
            grammar = library.LLMatcher.grammar_from_json_schema(text, overrides=OPTIONS)
        except ValueError as error:
            raise _refused(str(error)) from None
        matcher = library.LLMatcher(self._library_tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return matcher


class JsonGuide:
    """Follows one answer: :meth:`allowed` before each token, :meth:`accept` after it."""

    def __init__(self, matcher: Any, vocabulary: int, stop_ids: frozenset[int]) -> None:
        self._matcher, self.vocabulary = matcher, vocabulary
        self._stops = torch.tensor(sorted(stop_ids), dtype=torch.long)
        self._stop_ids, self._ended = stop_ids, False

    @property
    def finished(self) -> bool:
        """Whether the JSON is complete and nothing but the end may follow."""
        return self._ended or bool(self._matcher.is_stopped())

    def allowed(self) -> Tensor:
        """Return which tokens may come next: bool ``[vocabulary]`` on the CPU.

        Stop ids are among them only where the JSON may end, embeddings without a token never. Raises NotOfSchema if the
        schema leads to more possibilities than llguidance follows.
        """
        if self._ended:
            allowed = torch.zeros(self.vocabulary, dtype=torch.bool)
        else:
            values = bytearray(self._matcher.compute_logit_bias())  # a byte a token, 0 if it is not allowed
            self._check()
            allowed = torch.frombuffer(values, dtype=torch.uint8)[: self.vocabulary].bool()
        allowed[self._stops] = self._ended or bool(self._matcher.is_accepting())
        return allowed

    def accept(self, token: int) -> None:
        """Take ``token`` as the next one. Raises ValueError if it is not allowed."""
        if token in self._stop_ids:
            if not self._ended and not self._matcher.is_accepting():
                raise ValueError(f"the answer may not end here: token {token} stops within the JSON")
            self._ended = True
            return
        if self._ended:
            raise ValueError(f"token {token} comes after the end of the JSON")
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise NotOfSchema(f"no JSON of the schema: {_one_line(self._matcher.get_error())}")


def _schema_text(schema: Mapping[str, Any] | str | None) -> str:
    """Return ``schema`` as JSON. The order of its properties stays: answers follow it."""
    if schema is None:
        return '{"type": "object"}'
    try:
        parsed = json.loads(schema) if isinstance(schema, str) else schema
        if not isinstance(parsed, Mapping):
            raise _refused("it must be a JSON object")
        text = json.dumps(dict(parsed), allow_nan=False)
        if len(text) > LONGEST:
            raise _refused(f"it has {len(text):,} characters, and at most {LONGEST:,} are taken")
        return text
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise _refused(f"it is no JSON ({error})") from None


def _refused(reason: str) -> UserError:
    hint = f"{SUPPORTED} lists what llguidance supports."
    return UserError(f"the schema cannot be used: {_one_line(reason)}", hint=hint)


def _one_line(text: str) -> str:
    """Return the library's message without its dump of the parser's state."""
    line = " ".join(text.split("<state>")[0].split())
    return line if len(line) <= 300 else f"{line[:299]}…"


def _require_llguidance() -> Any:
    try:
        import llguidance
    except ImportError:
        hint = "Install it: pip install 'cbtrain[schema]'."
        raise UserError("answers of a JSON schema need the package llguidance", hint=hint) from None
    return llguidance
