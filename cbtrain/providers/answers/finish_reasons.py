"""Why an answer ended, in the words of the APIs."""

from __future__ import annotations

from collections.abc import Iterable

from cbtrain.providers.types import FinishReason

REASONS: dict[str, FinishReason] = {
    "stop": "stop",  # OpenAI; Google as STOP
    "end_turn": "stop",  # Anthropic
    "stop_sequence": "stop",  # Anthropic, Hugging Face
    "eos": "stop",  # Together, llama.cpp
    "eos_token": "stop",  # Hugging Face
    "eosfound": "stop",  # LM Studio
    "stopstringfound": "stop",
    "complete": "stop",  # Cohere as COMPLETE
    "completed": "stop",  # OpenAI's Responses, through proxies
    "length": "length",  # OpenAI
    "max_tokens": "length",  # Anthropic, Cohere, Google
    "max_output_tokens": "length",  # OpenAI's Responses, through proxies
    "model_length": "length",  # Mistral
    "maxpredictedtokensreached": "length",  # LM Studio
    "contextlengthreached": "length",
    "content_filter": "content_filter",  # OpenAI, DeepSeek
    "content_filtered": "content_filter",  # Amazon Bedrock
    "guardrail_intervened": "content_filter",
    "sensitive": "content_filter",  # Zhipu
    "error_toxic": "content_filter",  # Cohere
    "safety": "content_filter",  # Google, from here on
    "recitation": "content_filter",
    "language": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "spii": "content_filter",
    "image_safety": "content_filter",
    "escalation": "content_filter",
    "model_armor": "content_filter",
    "refusal": "refusal",  # Anthropic
    "error": "error",  # OpenRouter: the model's own API broke off
    "abort": "error",  # vLLM, SGLang
    "insufficient_system_resource": "error",  # DeepSeek
    "network_error": "error",  # Zhipu
    "other": "error",  # Google
    "malformed_response": "error",
    "pause_turn": "error",  # Anthropic
}
"""By the API's word in lower case; ``error`` is a broken answer, which is asked for again. Add an API's own words here.
"""

TOOLS = frozenset({"tool_calls", "function_call", "tool_use", "toolcalls"})
"""Reasons that some servers also give for plain text. If the answer does call a tool, it fails."""


UNSAID = frozenset({"", "null", "none", "finish_reason_unspecified"})
"""What some servers send in a stream before its end."""

GRAVITY: tuple[FinishReason, ...] = ("content_filter", "refusal", "error", "unknown", "length", "stop")


def gravest(reasons: Iterable[object]) -> object:
    """Return the gravest of the ``reasons`` that the parts of a stream give, the first of equal ones; None if none of
    them says anything. A filter stays one, whatever comes behind it."""
    named = [reason for reason in reasons if reason]
    named = [reason for reason in named if str(reason).lower() not in UNSAID] or named
    return min(named, key=lambda reason: GRAVITY.index(REASONS.get(str(reason).lower(), "unknown")), default=None)


def finish_of(reason: object, *, text: str, calls: bool = False) -> FinishReason:
    """Return how a complete reply ended, from ``reason``, the API's own word. Without a reason, a ``text`` counts as
    ended, and an answer without text as broken off. ``calls`` says whether it calls tools. ``unknown`` if the word is
    not in the tables."""
    if reason is None or reason == "":
        return "stop" if text.strip() else "error"
    word = str(reason).lower()
    if word in TOOLS:
        return "unknown" if calls or not text.strip() else "stop"
    return REASONS.get(word, "unknown")
