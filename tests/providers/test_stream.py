"""Answers that are sent in pieces, beside the official packages: the same request, the same whole."""

import json
import types
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cbtrain.providers.attempt import Endpoint, attempt
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.gemini import GeminiFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.formats.stream import DONE, events_of
from cbtrain.providers.transport import HttpTransport, Reply, open_session
from cbtrain.providers.types import ChatRequest, Message, Usage

REQUEST = ChatRequest((Message("user", "How was your week?"),), max_tokens=80, temperature=0.7)


def sse(events, named=False, comments=True):
    """Events as they come over the line, with a comment that keeps the connection open in between."""
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}" if named else f"data: {json.dumps(event)}"
             for event in events]  # fmt: skip
    return "".join(f"{line}\n\n" + (": keep-alive\n\n" if comments else "") for line in lines)


def chunk(delta=None, finish=None, usage=None):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    facts = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-x-2026-01-01"}
    return facts | {"choices": choices, "usage": usage}


OPENAI = [
    chunk({"role": "assistant", "content": "", "refusal": None}),
    chunk({"content": "Lông, "}),
    chunk({"content": "and grey 🌧."}),
    chunk({}, "stop"),
    chunk(usage={
        "prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52,
        "prompt_tokens_details": {"cached_tokens": 16}, "completion_tokens_details": {"reasoning_tokens": 5},
    }),
]  # fmt: skip

ANTHROPIC = [
    {"type": "message_start", "message": {
        "id": "m1", "type": "message", "role": "assistant", "model": "claude-x-20260101", "content": [],
        "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 20, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 16,
                  "output_tokens": 1},
    }},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "ping"},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Lông, "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "and grey 🌧."}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
     "usage": {"output_tokens": 12}},
    {"type": "message_stop"},
]  # fmt: skip


def part(text, finish=None, usage=None):
    candidate = {"content": {"role": "model", "parts": [text] if isinstance(text, dict) else [{"text": text}]}}
    candidate |= {"finishReason": finish} if finish else {}
    event = {"candidates": [candidate | {"index": 0}], "modelVersion": "gemini-x-001", "responseId": "r"}
    return event | ({"usageMetadata": usage} if usage else {})


GEMINI = [
    part({"text": "hm", "thought": True}, usage={"promptTokenCount": 40}),
    part("Lông, ", usage={"promptTokenCount": 40, "candidatesTokenCount": 3, "thoughtsTokenCount": 5}),
    part("and grey 🌧.", "STOP", {
        "promptTokenCount": 40, "cachedContentTokenCount": 16, "candidatesTokenCount": 7, "thoughtsTokenCount": 5,
        "totalTokenCount": 52,
    }),
]  # fmt: skip


@asynccontextmanager
async def server(text):
    seen = types.SimpleNamespace(url="", requests=[])

    async def handle(request):
        seen.requests.append((request.path_qs, await request.json()))
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await reply.prepare(request)
        raw = text.encode()
        for place in range(0, len(raw), 37):  # pieces of the line are not events, and may split a letter
            await reply.write(raw[place : place + 37])
        return reply

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    seen.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield seen
    finally:
        await runner.cleanup()


async def ours(api_format):
    async with open_session() as session:
        endpoint = Endpoint(api_format, "a-key", stream=True)
        return await attempt(HttpTransport(session), endpoint, api_format.request(REQUEST), 10)


async def test_openai_as_its_own_package():
    openai = pytest.importorskip("openai")
    text = ""
    async with server(sse(OPENAI) + "data: [DONE]\n\n") as seen:
        answer = await ours(OpenAIFormat(f"{seen.url}/v1", "m"))
        async with openai.AsyncOpenAI(api_key="a-key", base_url=f"{seen.url}/v1", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "How was your week?"}], max_tokens=80,
                temperature=0.7, top_p=1.0, stream=True, stream_options={"include_usage": True},
            )  # fmt: skip
            async for piece in stream:
                usage = piece.usage
                text += (piece.choices[0].delta.content or "") if piece.choices else ""
    assert seen.requests[0] == seen.requests[1]
    assert (answer.text, answer.finish_reason, answer.model) == (text, "stop", "gpt-x-2026-01-01")
    assert answer.usage == Usage(usage.prompt_tokens, usage.completion_tokens, 16, reasoning_tokens=5)


async def test_anthropic_as_its_own_package():
    anthropic = pytest.importorskip("anthropic")
    async with server(sse(ANTHROPIC, named=True)) as seen:
        answer = await ours(AnthropicFormat("m", f"{seen.url}/v1"))
        async with anthropic.AsyncAnthropic(api_key="a-key", base_url=seen.url, max_retries=0) as client:
            async with client.messages.stream(
                model="m", max_tokens=80, messages=[{"role": "user", "content": "How was your week?"}]
            ) as stream:
                whole = await stream.get_final_message()
    assert seen.requests[0] == seen.requests[1]
    assert answer.text == "".join(block.text for block in whole.content if block.type == "text")
    assert (answer.finish_reason, answer.model) == ("stop", whole.model)
    counts = whole.usage
    assert answer.usage == Usage(
        counts.input_tokens + counts.cache_read_input_tokens + counts.cache_creation_input_tokens,
        counts.output_tokens,
        counts.cache_read_input_tokens,
        counts.cache_creation_input_tokens,
    )


async def test_gemini_as_its_own_package():
    genai = pytest.importorskip("google.genai")
    async with server(sse(GEMINI, comments=False)) as seen:  # which their package cannot read
        answer = await ours(GeminiFormat("m", f"{seen.url}/v1beta"))
        client = genai.Client(api_key="a-key", http_options={"base_url": seen.url, "api_version": "v1beta"})
        config = {"max_output_tokens": 80, "temperature": 0.7, "top_p": 1.0}
        text = ""
        async for piece in await client.aio.models.generate_content_stream(
            model="m", contents="How was your week?", config=config
        ):
            text += piece.text or ""
            usage = piece.usage_metadata
    assert seen.requests[0][0] == seen.requests[1][0]
    assert (answer.text, answer.finish_reason, answer.model) == (text, "stop", "gemini-x-001")
    spoken = usage.candidates_token_count + usage.thoughts_token_count
    assert answer.usage == Usage(usage.prompt_token_count, spoken, 16, reasoning_tokens=5)


WIRES = [
    (OpenAIFormat("http://x/v1", "m"), OPENAI),
    (AnthropicFormat("m", "http://x/v1"), ANTHROPIC),
    (GeminiFormat("m", "http://x/v1beta"), GEMINI),
]


@pytest.mark.parametrize(("api_format", "events"), WIRES)
async def test_a_stream_that_breaks_off_is_a_passing_fault(api_format, events):
    """After any event but the one that says how the answer ended."""
    last = next(place for place, event in enumerate(events) if '"stop"' in (text := json.dumps(event))
                or '"end_turn"' in text or '"STOP"' in text)  # fmt: skip
    for cut in range(last + 1):
        async with server(sse(events[:cut])) as seen:
            moved = type(api_format)(
                **{name: getattr(api_format, name) for name in ("model", "structure")}, base_url=seen.url
            )
            with pytest.raises(ProviderError, match="transient: not an answer of this protocol") as caught:
                await ours(moved)
        assert caught.value.sent


@pytest.mark.parametrize(
    ("api_format", "event", "kind"),
    [
        (WIRES[0][0], {"error": {"message": "overloaded", "code": 503}}, "transient"),
        (WIRES[0][0], {"error": {"message": "slow down", "code": 429}}, "rate_limit"),
        (WIRES[1][0], {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "transient"),
        (WIRES[1][0], {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, "rate_limit"),
        (WIRES[1][0], {"type": "error", "error": {"type": "invalid_request_error", "message": "x"}}, "permanent"),
        (WIRES[2][0], {"error": {"code": 503, "message": "x", "status": "RESOURCE_EXHAUSTED"}}, "rate_limit"),
        (WIRES[2][0], {"error": {"code": 500, "message": "x", "status": "INTERNAL"}}, "transient"),
    ],
)
def test_failures_in_the_middle_of_a_stream(api_format, event, kind):
    begun = next(events for own, events in WIRES if own is api_format)[:2]
    with pytest.raises(ProviderError) as caught:
        api_format.answer(api_format.assemble_stream([*begun, event]))
    assert caught.value.kind == kind


def test_events_in_all_their_forms():
    assert events_of('data: {"a": 1}\r\n\r\n: note\r\n\r\ndata:{"b":\r\ndata: 2}\r\n\r\ndata: [DONE]\r\n\r\n') == [
        {"a": 1},
        {"b": 2},
        DONE,
    ]
    assert events_of('data: {"a": 1}\n\ndata: {"cut": ') == [{"a": 1}]
    assert events_of('data: {"a": 1}\n\ndata: {"b": 2}\n') == [{"a": 1}, {"b": 2}]  # no blank line behind the last
    assert events_of("\n\n\n\n") == []
    for blank in ("\n\n", "\r\r", "\r\n\r\n", "\n\r\n", "\r\n\n", "\n\n\n"):
        assert events_of(f'data: {{"a": 1}}{blank}data: {{"b": 2}}{blank}') == [{"a": 1}, {"b": 2}]
    odd = {"a": "\u2028, \x85 and \x0b end no line"}
    assert events_of("data: " + json.dumps(odd, ensure_ascii=False) + "\n\n") == [odd]
    with pytest.raises(ValueError, match="not an object"):
        events_of("data: 3\n\n")


def test_a_letter_that_comes_in_two_halves_is_whole():
    halves = [json.loads(half) for half in ('"Good \\ud83d"', '"\\ude00."')]
    chunks = [{"choices": [{"delta": {"content": half}, "finish_reason": "stop"}]} for half in halves]
    blocks = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": h}} for h in halves]
    begun = [
        {"type": "message_start", "message": {"type": "message", "model": "m", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    ended = [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}]
    for api_format, whole, half in (
        (OpenAIFormat("http://x/v1", "m"), chunks, chunks[:1]),
        (AnthropicFormat("m"), [*begun, *blocks, *ended], [*begun, blocks[0], *ended]),
    ):
        assert api_format.answer(api_format.assemble_stream(whole)).text == "Good \U0001f600."
        with pytest.raises(ValueError, match="not valid text"):
            api_format.assemble_stream(half)


SAID = [
    {"model": "x", "choices": [{"delta": {"content": [{"type": "text", "text": "Lo"}]}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "ng."}, "finish_reason": "stop"}]},
]


@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream; charset=utf-8", "text/plain", None])
@pytest.mark.parametrize("before", ["", "\ufeff", ": wait\n\n", "\n\nevent: message\n"])
async def test_a_stream_is_known_by_how_it_begins(kind, before):
    class Api:
        async def post(self, made, secret):
            body = before + "\n\n".join(f"data: {json.dumps(event)}" for event in SAID)
            return Reply(200, {"Content-Type": kind} if kind else {}, body.encode())

    api_format = OpenAIFormat("http://host/v1", "m")
    asked = api_format.request(REQUEST)
    answer = await attempt(Api(), Endpoint(api_format, stream=True), asked, 5)
    assert answer.text == "Long."


async def test_a_server_that_does_not_stream_is_read_all_the_same():
    async def handle(request):
        return web.json_response(
            {"model": "x", "choices": [{"message": {"content": "Long."}, "finish_reason": "stop"}]}
        )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        answer = await ours(OpenAIFormat(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "m"))
    finally:
        await runner.cleanup()
    assert (answer.text, answer.usage) == ("Long.", Usage())
