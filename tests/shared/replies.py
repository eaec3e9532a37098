"""Replies of the three formats, whole and in pieces, and what an attempt reads out of them."""

import json

from loopback import completion

from cbtrain.providers.attempt import Endpoint, attempt
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.gemini import GeminiFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.transport import Reply
from cbtrain.providers.types import ChatRequest, Message

REQUEST = ChatRequest((Message("user", "How was your week?"),), max_tokens=80)


OPENAI, ANTHROPIC, GEMINI = OpenAIFormat("http://x/v1", "m"), AnthropicFormat("m"), GeminiFormat("m")


def replied(body, kind="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(200, {"content-type": kind}, data)


class Said:
    """A transport that gives one reply."""

    def __init__(self, reply):
        self.reply = reply

    async def post(self, made, secret):
        return self.reply


async def read(api_format, reply):
    return await attempt(Said(reply), Endpoint(api_format), api_format.request(REQUEST), 5)


def openai(text, finish="stop", **message):
    return completion(text, finish, **message)


def anthropic(text, stop="end_turn", usage=None):
    blocks = [{"type": "text", "text": text}]
    return {"type": "message", "model": "m", "content": blocks, "stop_reason": stop, "usage": usage or {}}


def gemini(text, finish="STOP", usage=None):
    candidate = {"content": {"parts": [{"text": text}]}, "finishReason": finish}
    return {"candidates": [candidate], "usageMetadata": usage or {}}


def streamed(*pieces, finish="stop", done=True):
    events = [{"model": "m", "choices": [{"delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    events[-1]["choices"][0]["finish_reason"] = finish
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * done
    return replied("".join(lines).encode(), "text/event-stream")


def sse(events):
    return replied("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode(), "text/event-stream")


def openai_events(pieces):
    return [{"choices": [{"delta": {"content": text}, "finish_reason": end}]} for text, end in pieces]


def anthropic_events(pieces):
    yield {"type": "message_start", "message": {"type": "message", "usage": {"input_tokens": 5, "output_tokens": 1}}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text, end in pieces:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        if end:
            yield {"type": "message_delta", "delta": {"stop_reason": end}, "usage": {"output_tokens": 3}}
    yield {"type": "message_stop"}


def gemini_events(pieces):
    return [
        {"candidates": [{"content": {"parts": [{"text": text}]}} | ({"finishReason": end} if end else {})]}
        for text, end in pieces
    ]


def usages(prompt, answered, cached=0, thinking=0):
    """The same counts in the words of each API; None leaves one out."""
    given = lambda **counts: {name: count for name, count in counts.items() if count is not None}  # noqa: E731
    visible = answered - thinking if isinstance(answered, int) and thinking else answered
    fresh = prompt - cached if isinstance(prompt, int) and cached else prompt
    return (
        (OPENAI, given(prompt_tokens=prompt, completion_tokens=answered, total_tokens=1,
                       prompt_tokens_details={"cached_tokens": cached},
                       completion_tokens_details={"reasoning_tokens": thinking})),
        (ANTHROPIC, given(input_tokens=fresh, output_tokens=answered, cache_read_input_tokens=cached,
                          output_tokens_details={"thinking_tokens": thinking})),
        (GEMINI, given(promptTokenCount=prompt, candidatesTokenCount=visible, cachedContentTokenCount=cached,
                       thoughtsTokenCount=thinking)),
    )  # fmt: skip


def with_usage(api_format, usage, text="Low.", finish="stop"):
    """The answer in one piece, and in several with the usage at the end."""
    if api_format is OPENAI:
        end = {"choices": [], "usage": usage}
        return replied(openai(text, finish) | {"usage": usage}), sse([*openai_events([(text, finish)]), end])
    if api_format is ANTHROPIC:
        events = [*anthropic_events([(text, finish)])]
        begun = {name: count for name, count in usage.items() if name != "output_tokens"} | {"output_tokens": 1}
        events[0] = {"type": "message_start", "message": {"type": "message", "usage": begun}}
        events[-2] = events[-2] | {"usage": {"output_tokens": usage.get("output_tokens")}}
        return replied(anthropic(text, finish, usage)), sse(events)
    events = gemini_events([(text, None), ("", finish)])
    events[0] |= {"usageMetadata": {"promptTokenCount": 40, "candidatesTokenCount": 1}}
    events[1] |= {"usageMetadata": usage}
    return replied(gemini(text, finish, usage)), sse(events)
