"""Whether the usage that an API reports can be that of its answer: money is counted by it."""

from __future__ import annotations

from dataclasses import replace

from cbtrain.providers.costs.token_estimate import answer_tokens, prompt_bytes
from cbtrain.providers.formats.api_format import WireAnswer, WireRequest
from cbtrain.providers.types import Usage

MOST_HIDDEN_TOKENS = 20_000
"""Tokens that an API may add to a prompt: a system prompt of its own, a template, what it has looked up. A token of the
prompt itself has at least one byte."""

MOST_BEYOND_LIMIT = 1_000
"""Tokens by which an answer may exceed its limit: some APIs take it loosely where a model thinks."""

LONGEST_ANSWER = 1_000_000
"""Tokens, for a request without a limit."""


def checked_usage(answer: WireAnswer, wire_request: WireRequest) -> WireAnswer:
    """Return ``answer`` to ``wire_request``; if its usage cannot be right, without usage and with what is wrong in
    ``unread``. All that was reserved for it is booked then."""
    problem = "" if answer.unread else _problem(answer, wire_request)
    return replace(answer, usage=Usage(), unread=problem) if problem else answer


def _problem(answer: WireAnswer, wire_request: WireRequest) -> str:
    usage, has_text = answer.usage, bool(answer.text.strip())
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt == 0:
        return "no tokens of the prompt"
    if usage.cached_tokens + usage.cache_write_tokens > prompt:
        return f"more cached tokens than the {prompt:,} of the prompt"
    if usage.reasoning_tokens > completion:
        return f"more tokens of thinking than the {completion:,} of the answer"
    if (has_text and usage.reasoning_tokens == completion) or (answer.finish_reason == "length" and completion == 0):
        return "no tokens of the answer's text"
    if prompt > prompt_bytes(wire_request) + MOST_HIDDEN_TOKENS:
        return f"{prompt:,} tokens for a prompt of {prompt_bytes(wire_request):,} bytes"
    limit = answer_tokens(wire_request) or LONGEST_ANSWER
    # An API that ignores the limit shows it by the length of its text.
    if completion > max(limit, len(answer.text.encode())) + MOST_BEYOND_LIMIT:
        return f"{completion:,} tokens for an answer of at most {limit:,}"
    return ""
