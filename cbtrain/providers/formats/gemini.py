"""Google's generateContent protocol."""

from __future__ import annotations

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
    only_choice,
    reason_of,
    schema_in_prompt,
    section,
    system_apart,
    text_of,
    usage_of,
)
from cbtrain.providers.formats.failures import failure_inside, failure_of
from cbtrain.providers.types import ChatRequest, Usage

HARMS = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
"""Categories of which the API lets a caller switch the filter off: patients speak of suicide."""

LASTING = ("API_KEY_INVALID", "PerDay")
"""Words of failures that stay if one waits: a bad key, and a quota that is used up for today."""


@dataclass(frozen=True, slots=True)
class GeminiFormat:
    """Thinking models spend ``maxOutputTokens`` on thoughts too; ``extra_body`` can set ``generationConfig``'s
    ``thinkingConfig``: it is merged, not put in place of what is there."""

    model: str
    base_url: str = "https://generativelanguage.googleapis.com/v1beta"
    structure: Structure = "json_schema"
    seed: bool = True
    sampling: bool = True
    extra_body: dict[str, Any] = field(default_factory=dict)

    def request(self, request: ChatRequest) -> WireRequest:
        request = schema_in_prompt(request, self.structure)
        system, dialogue = system_apart(request.messages)
        config: dict[str, Any] = {"maxOutputTokens": request.max_tokens}
        if self.sampling:
            config |= {"temperature": request.temperature, "topP": request.top_p}
        if request.seed is not None and self.seed:
            config["seed"] = request.seed
        if request.stop:
            config["stopSequences"] = list(request.stop)
        if request.json_schema is not None and self.structure != "none":
            config["responseMimeType"] = "application/json"
        if request.json_schema is not None and self.structure == "json_schema":
            config["responseJsonSchema"] = request.json_schema
        body: dict[str, Any] = {
            "contents": [
                {"role": "model" if message.role == "assistant" else "user", "parts": [{"text": message.content}]}
                for message in dialogue
            ],
            "generationConfig": config,
            "safetySettings": [{"category": f"HARM_CATEGORY_{harm}", "threshold": "BLOCK_NONE"} for harm in HARMS],
        }
        if system:
            body["systemInstruction"] = {"parts": [{"text": "\n\n".join(system)}]}
        extra = dict(self.extra_body)
        config |= extra.pop("generationConfig", {})
        name = self.model.removeprefix("models/")
        return WireRequest(f"{self.base_url.rstrip('/')}/models/{name}:generateContent", {}, body | extra)

    def streamed(self, wire_request: WireRequest) -> WireRequest:
        url = wire_request.url.replace(":generateContent", ":streamGenerateContent?alt=sse")
        return WireRequest(url, wire_request.headers, wire_request.body, wire_request)

    def assemble_stream(self, events: Sequence[Mapping[str, Any]]) -> Any:
        whole: dict[str, Any] = {}
        parts: list[Any] = []
        reasons: list[Any] = []
        seen: dict[Any, Mapping[str, Any]] = {}
        for event in events:
            if failure := failure_inside(event, lasting=LASTING):
                raise failure
            candidate = only_choice(entries(event.get("candidates"), "candidates"), "candidates")
            if candidate is not None:
                seen[count_of(candidate, "index")] = candidate
                reasons.append(candidate.get("finishReason"))
                parts += entries(section(candidate.get("content"), "content").get("parts"), "parts")
                whole.pop("usageMetadata", None)  # counts that came before are not those of the whole answer
            feedback = {"promptFeedback": whole["promptFeedback"]} if _blocked(whole) else {}
            whole |= {k: v for k, v in event.items() if k != "candidates"}
            whole |= feedback  # a filter stays one, whatever comes behind it
        only_choice(list(seen.values()), "candidates")
        finish = gravest(reasons)
        if finish:
            whole["candidates"] = [{"finishReason": finish, "content": {"parts": parts}}]
        elif not _blocked(whole):
            raise Malformed(CUT_SHORT)
        return whole

    def authorization(self, key: str) -> dict[str, str]:
        return {"x-goog-api-key": key}

    def answer(self, body: Any) -> WireAnswer:
        if failure := failure_inside(body, lasting=LASTING):
            raise failure
        body = section(body, "the answer")
        usage, unread = usage_of(_usage, body.get("usageMetadata"))
        model = text_of(body.get("modelVersion"), "modelVersion") or self.model
        candidate = only_choice(entries(body.get("candidates"), "candidates"), "candidates")
        blocked = _blocked(body)
        if candidate is None and not blocked:
            raise Malformed("there are no candidates")
        candidate = candidate or {}
        reason = candidate.get("finishReason")
        content = section(candidate.get("content"), "content")
        parts = entries(content.get("parts"), "parts")
        text = "".join(text_of(part.get("text"), "text") for part in parts if not part.get("thought"))
        calls = any("functionCall" in part for part in parts)
        finish = "content_filter" if blocked else finish_of(reason, text=text, calls=calls)
        return WireAnswer(text, finish, usage, model, reason=reason_of(reason), unread=unread)

    def failure(self, status: int, headers: Mapping[str, str], text: str) -> ProviderError:
        return failure_of(status, headers, text, lasting=LASTING)


def _blocked(body: Mapping[str, Any]) -> bool:
    """Return whether a filter has stopped the prompt, with or without some of an answer."""
    reason = section(body.get("promptFeedback"), "promptFeedback").get("blockReason")
    return bool(reason) and reason != "BLOCK_REASON_UNSPECIFIED"


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Thoughts are paid as output and counted beside the candidates' tokens."""
    thoughts = count_of(usage, "thoughtsTokenCount")
    return Usage(
        prompt_tokens=count_of(usage, "promptTokenCount"),
        completion_tokens=count_of(usage, "candidatesTokenCount") + thoughts,
        cached_tokens=count_of(usage, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )
