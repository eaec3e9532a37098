"""Anthropic's Messages protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    reason_of,
    schema_in_prompt,
    section,
    system_apart,
    text_of,
    usage_of,
)
from cbtrain.providers.formats.failures import failure_inside, failure_of
from cbtrain.providers.types import ChatRequest, Usage

VERSION, SAMPLED = "2026-10-21", "2023-06-01"
"""The protocol's version, and the one before it, which still knows temperature and top-p."""

LASTING = ("billing_error", "credit balance is too low", "spend_limit_reached", "spend limit")


@dataclass(frozen=True, slots=True)
class AnthropicFormat:
    """There is no seed, and since version 2026-10-21 neither temperature nor top-p: both are answered with 400.
    ``sampling`` sends one of them, by the older version, to models that still take it (up to Claude Opus 4.6)."""

    model: str
    base_url: str = "https://api.anthropic.com/v1"
    structure: Structure = "json_schema"
    sampling: bool = False
    extra_body: dict[str, Any] = field(default_factory=dict)

    def request(self, request: ChatRequest) -> WireRequest:
        request = schema_in_prompt(request, self.structure)
        system, dialogue = system_apart(request.messages)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_tokens,
            "messages": [{"role": message.role, "content": message.content} for message in dialogue],
        }
        if self.sampling and request.top_p != 1.0:
            body["top_p"] = request.top_p
        elif self.sampling:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        if request.json_schema is not None and self.structure == "json_schema":
            body["output_config"] = {"format": {"type": "json_schema", "schema": request.json_schema}}
        if system:
            body["system"] = "\n\n".join(system)
        headers = {"anthropic-version": SAMPLED if self.sampling else VERSION}
        return WireRequest(f"{self.base_url.rstrip('/')}/messages", headers, body | self.extra_body)

    def streamed(self, wire_request: WireRequest) -> WireRequest:
        return WireRequest(wire_request.url, wire_request.headers, wire_request.body | {"stream": True}, wire_request)

    def assemble_stream(self, events: Sequence[Mapping[str, Any]]) -> Any:
        message: dict[str, Any] = {}
        blocks: dict[int, dict[str, Any]] = {}
        texts: dict[int, list[Any]] = defaultdict(list)
        reasons: list[Any] = []
        for event in events:
            if failure := failure_inside(event, lasting=LASTING):
                raise failure
            kind, index = event.get("type"), count_of(event, "index")
            if kind == "message_start":
                if message:
                    raise Malformed("a second message begins")
                message = dict(section(event.get("message"), "message"))
                if message.get("content"):
                    raise Malformed("a message begins with content")
                reasons.append(message.get("stop_reason"))
                # Its output_tokens are those of the beginning.
                message["usage"] = {**section(message.get("usage"), "usage"), "output_tokens": None}
            elif kind == "content_block_start":
                if index in blocks:
                    raise Malformed(f"block {index} begins twice")
                blocks[index] = dict(section(event.get("content_block"), "content_block"))
            elif kind == "content_block_delta":
                delta = section(event.get("delta"), "delta")
                if delta.get("type") != "text_delta":
                    continue
                if blocks.get(index, {}).get("type") != "text":
                    raise Malformed(f"text of block {index}, which did not begin as text")
                texts[index].append(delta.get("text"))
            elif kind == "message_delta":
                delta = section(event.get("delta"), "delta")
                message |= delta
                reasons.append(delta.get("stop_reason"))
                # Counts so far, not differences.
                counts = {k: v for k, v in section(event.get("usage"), "usage").items() if v is not None}
                message["usage"] = {**section(message.get("usage"), "usage"), **counts}
        message["stop_reason"] = gravest(reasons)
        if not message["stop_reason"] and not any(event.get("type") == "message_stop" for event in events):
            raise Malformed(CUT_SHORT)
        for index, pieces in texts.items():
            blocks[index]["text"] = joined([blocks[index].get("text"), *pieces], "text")
        return message | {"content": [block for _, block in sorted(blocks.items())]}

    def authorization(self, key: str) -> dict[str, str]:
        return {"x-api-key": key} if self.sampling else {"Authorization": f"Bearer {key}"}

    def answer(self, body: Any) -> WireAnswer:
        if failure := failure_inside(body, lasting=LASTING):
            raise failure
        body = section(body, "the answer")
        if body.get("type") != "message":
            raise Malformed("it is not a message")
        stop = body.get("stop_reason")
        if stop == "model_context_window_exceeded":
            raise ProviderError("context_overflow", "the answer reached the end of the context", status=200)
        blocks = entries(body.get("content"), "content")
        text = "".join(text_of(block.get("text"), "text") for block in blocks if block.get("type") == "text")
        calls = any(block.get("type") == "tool_use" for block in blocks)
        usage, unread = usage_of(_usage, body.get("usage"))
        return WireAnswer(
            text=text,
            finish_reason=finish_of(stop, text=text, calls=calls),
            usage=usage,
            model=text_of(body.get("model"), "model") or self.model,
            reason=reason_of(stop),
            unread=unread,
        )

    def failure(self, status: int, headers: Mapping[str, str], text: str) -> ProviderError:
        return failure_of(status, headers, text, lasting=LASTING)


def _usage(usage: Mapping[str, Any]) -> Usage:
    """``input_tokens`` are those that no cache had to do with."""
    if usage.get("input_tokens") is None:
        raise Malformed("no input_tokens")
    read, written = count_of(usage, "cache_read_input_tokens"), count_of(usage, "cache_creation_input_tokens")
    details = section(usage.get("output_tokens_details"), "output_tokens_details")
    return Usage(
        prompt_tokens=count_of(usage, "input_tokens") + read + written,
        completion_tokens=count_of(usage, "output_tokens"),
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=count_of(details, "thinking_tokens"),
    )
