"""The chat completions protocol of OpenAI, which DeepSeek, OpenRouter, vLLM, SGLang and our own server speak too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cbtrain.providers.answers.finish_reasons import finish_of, gravest
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import (
    CUT_SHORT,
    Malformed,
    Structure,
    WireAnswer,
    WireRequest,
    count_of,
    entries,
    joined,
    only_choice,
    reason_of,
    schema_in_prompt,
    section,
    text_of,
    usage_of,
)
from cbtrain.providers.formats.failures import failure_inside, failure_of
from cbtrain.providers.formats.stream import DONE
from cbtrain.providers.types import ChatRequest, Usage

THINKING = ("thinking", "reasoning", "reasoning.text")
"""Kinds of parts that hold no answer: Mistral's and OpenRouter's."""

LASTING = ("insufficient_quota", "billing_hard_limit_reached", "account_deactivated")
"""Error codes that come with status 429, and that stay if one waits."""


@dataclass(frozen=True, slots=True)
class OpenAIFormat:
    """``base_url`` goes up to and including the version. Servers differ in what they take: ``structure``, ``seed``, the
    name of the output limit, and ``temperature`` (reasoning models refuse sampling settings)."""

    base_url: str
    model: str
    structure: Structure = "json_schema"
    seed: bool = True
    sampling: bool = True
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_body: dict[str, Any] = field(default_factory=dict)

    def request(self, request: ChatRequest) -> WireRequest:
        request = schema_in_prompt(request, self.structure)
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        body: dict[str, Any] = {"model": self.model, "messages": messages, self.limit: request.max_tokens}
        if self.sampling:
            body |= {"temperature": request.temperature, "top_p": request.top_p}
        if request.seed is not None and self.seed:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if request.json_schema is not None and self.structure == "json_schema":
            shape = {"name": "answer", "strict": True, "schema": request.json_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        elif request.json_schema is not None and self.structure == "json_object":
            body["response_format"] = {"type": "json_object"}
        return WireRequest(f"{self.base_url.rstrip('/')}/chat/completions", {}, body | self.extra_body)

    def streamed(self, wire_request: WireRequest) -> WireRequest:
        more = {"stream": True, "stream_options": {"include_usage": True}}
        return WireRequest(wire_request.url, wire_request.headers, wire_request.body | more, wire_request)

    def assemble_stream(self, events: Sequence[Mapping[str, Any]]) -> Any:
        texts: list[Any] = []
        refusals: list[Any] = []
        reasons: list[Any] = []
        seen: dict[Any, Mapping[str, Any]] = {}
        usage = model = None
        calls = False
        for event in events:
            if failure := failure_inside(event, lasting=LASTING):
                raise failure
            model = model or event.get("model")
            choice = only_choice(entries(event.get("choices"), "choices"), "choices")
            if choice is not None:
                seen[count_of(choice, "index")] = choice
                reasons.append(choice.get("finish_reason"))
                if "delta" not in choice and ("message" in choice or "text" in choice):
                    raise Malformed("a choice has no delta")
                delta = section(choice.get("delta"), "delta")
                text, refusal = _pieces(delta)
                texts += text
                refusals += refusal
                calls = calls or bool(delta.get("tool_calls") or delta.get("function_call"))
                if any(text):
                    usage = None  # counts that came before are not those of the whole answer
            usage = event.get("usage") or usage
        only_choice(list(seen.values()), "choices")
        finish = gravest(reasons)
        if finish is None and (not events or events[-1] != DONE):
            raise Malformed(CUT_SHORT)
        message = {"content": joined(texts, "content"), "refusal": joined(refusals, "refusal"), "tool_calls": calls}
        return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage, "model": model}

    def authorization(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def answer(self, body: Any) -> WireAnswer:
        if failure := failure_inside(body, lasting=LASTING):  # OpenRouter hands on the failures of others
            raise failure
        body = section(body, "the answer")
        choice = only_choice(entries(body.get("choices"), "choices"), "choices")
        if choice is None:
            raise Malformed("there are no choices")
        if not isinstance(choice.get("message"), dict):
            raise Malformed("there is no message")
        message = section(choice["message"], "message")
        texts, refusals = _pieces(message)
        text, refusal = joined(texts, "content"), joined(refusals, "refusal")
        calls = bool(message.get("tool_calls") or message.get("function_call"))
        reason = choice.get("finish_reason")
        usage, unread = usage_of(_usage, body.get("usage"))
        return WireAnswer(
            text=text or refusal,
            finish_reason="refusal" if refusal else finish_of(reason, text=text, calls=calls),
            usage=usage,
            model=text_of(body.get("model"), "model") or self.model,
            reason=reason_of(reason),
            unread=unread,
        )

    def failure(self, status: int, headers: Mapping[str, str], text: str) -> ProviderError:
        return failure_of(status, headers, text, lasting=LASTING)


def _pieces(message: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the pieces of a message's text, and those of its refusal. Some servers send both as parts of the content;
    thinking is a part of its own kind. Raises Malformed."""
    content, refusal = message.get("content"), message.get("refusal")
    if not isinstance(content, list):
        return [content], [refusal]
    parts = [part for part in entries(content, "content") if part.get("type") not in THINKING]
    return [part.get("text") for part in parts], [refusal, *(part.get("refusal") for part in parts)]


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt = section(usage.get("prompt_tokens_details"), "prompt_tokens_details")
    completion = section(usage.get("completion_tokens_details"), "completion_tokens_details")
    # DeepSeek's own name for what the others call cached_tokens.
    cached = count_of(prompt, "cached_tokens") or count_of(usage, "prompt_cache_hit_tokens")
    return Usage(
        prompt_tokens=count_of(usage, "prompt_tokens"),
        completion_tokens=count_of(usage, "completion_tokens"),
        cached_tokens=cached,
        reasoning_tokens=count_of(completion, "reasoning_tokens"),
    )
