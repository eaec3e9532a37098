"""Requests and answers of each protocol, beside the official packages: the same bodies, read to the same numbers.

Answers and errors have the shape, field by field, that the published references of the APIs and the packages' own types
(openai 3.57, anthropic 2.14, google-genai 3.6) give them, with words and numbers of our own: no paid API was asked.
"""

import json
import types
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.api_format import Malformed
from cbtrain.providers.formats.gemini import GeminiFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.formats.stream import events_of
from cbtrain.providers.types import ChatRequest, Message, Usage

SCHEMA = {
    "type": "object",
    "properties": {"score": {"enum": [0, 1, 2, None]}},
    "required": ["score"],
    "additionalProperties": False,
}
TALK = (
    Message("system", "You play a patient."),
    Message("user", "How was your week?"),
    Message("assistant", "Long. Ünd so weiter…"),
    Message("user", "Tell me more."),
)
PLAIN = ChatRequest(TALK, max_tokens=80, temperature=0.7, top_p=0.9, seed=7, stop=("END",))
SCHEMED = ChatRequest(TALK, max_tokens=80, temperature=0.2, json_schema=SCHEMA)


@asynccontextmanager
async def recorder(answer, status=200):
    """A server that keeps what it is sent (path, headers, body) and always answers ``answer``."""
    seen = types.SimpleNamespace(url="", requests=[])

    async def handle(request):
        seen.requests.append((request.path, {k.lower(): v for k, v in request.headers.items()}, await request.json()))
        return web.json_response(answer, status=status)

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


def ours(api_format, request, key="a-key"):
    made = api_format.request(request)
    assert key not in json.dumps(made.body) + made.url + json.dumps(made.headers)
    return made.url, made.headers | api_format.authorization(key), made.body


def assert_same(theirs, url, api_format, request):
    """Their one request is ours, but for headers that name the package."""
    (path, headers, body) = theirs
    our_url, our_headers, our_body = ours(api_format, request)
    assert our_url == url + path
    assert our_body == body
    for name, value in our_headers.items():
        assert headers[name.lower()] == value


OPENAI_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-x-2026-01-01",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "Work — was hard.", "refusal": None, "annotations": []},
        }
    ],
    "usage": {
        "prompt_tokens": 40,
        "completion_tokens": 12,
        "total_tokens": 52,
        "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp",
}


@pytest.mark.parametrize("request_", [PLAIN, SCHEMED])
async def test_openai_as_its_own_package(request_):
    openai = pytest.importorskip("openai")
    options = {"top_p": request_.top_p}
    if request_.json_schema:
        shape = {"name": "answer", "strict": True, "schema": SCHEMA}
        options["response_format"] = {"type": "json_schema", "json_schema": shape}
    else:
        options |= {"seed": 7, "stop": ["END"]}
    async with recorder(OPENAI_ANSWER) as seen:
        async with openai.AsyncOpenAI(api_key="a-key", base_url=f"{seen.url}/v1", max_retries=0) as client:
            said = await client.chat.completions.create(
                model="m",
                messages=[{"role": m.role, "content": m.content} for m in TALK],
                max_tokens=80,
                temperature=request_.temperature,
                **options,
            )
    api_format = OpenAIFormat(f"{seen.url}/v1", "m")
    assert_same(seen.requests[0], seen.url, api_format, request_)
    answer = api_format.answer(OPENAI_ANSWER)
    assert (answer.text, answer.finish_reason, answer.model) == (said.choices[0].message.content, "stop", said.model)
    usage = said.usage
    assert answer.usage == Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        cached_tokens=usage.prompt_tokens_details.cached_tokens,
        reasoning_tokens=usage.completion_tokens_details.reasoning_tokens,
    )


ANTHROPIC_ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x-20260101",
    "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Work — was hard."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 20,
        "cache_creation_input_tokens": 4,
        "cache_read_input_tokens": 16,
        "output_tokens": 12,
        "output_tokens_details": {"thinking_tokens": 5},
    },
}


@pytest.mark.parametrize("request_", [PLAIN, SCHEMED])
async def test_anthropic_as_its_own_package(request_):
    anthropic = pytest.importorskip("anthropic")
    options = {"stop_sequences": ["END"]}
    if request_.json_schema:
        options = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    async with recorder(ANTHROPIC_ANSWER) as seen:
        async with anthropic.AsyncAnthropic(api_key="a-key", base_url=seen.url, max_retries=0) as client:
            said = await client.messages.create(
                model="m",
                max_tokens=80,
                system=TALK[0].content,
                messages=[{"role": m.role, "content": m.content} for m in TALK[1:]],
                **options,
            )
    api_format = AnthropicFormat("m", f"{seen.url}/v1")
    assert_same(seen.requests[0], seen.url, api_format, request_)
    answer = api_format.answer(ANTHROPIC_ANSWER)
    assert (answer.text, answer.finish_reason, answer.model) == (said.content[1].text, "stop", said.model)
    assert answer.usage == Usage(
        said.usage.input_tokens + 16 + 4,
        said.usage.output_tokens,
        cached_tokens=said.usage.cache_read_input_tokens,
        cache_write_tokens=said.usage.cache_creation_input_tokens,
        reasoning_tokens=said.usage.output_tokens_details.thinking_tokens,
    )


GEMINI_ANSWER = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [{"text": "hm", "thought": True}, {"text": "Work — "}, {"text": "was hard."}],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 40,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 5,
        "cachedContentTokenCount": 16,
        "totalTokenCount": 52,
    },
    "modelVersion": "gemini-x-001",
    "responseId": "r",
}


@pytest.mark.parametrize("request_", [PLAIN, SCHEMED])
async def test_gemini_as_its_own_package(request_):
    genai = pytest.importorskip("google.genai")
    kinds = genai.types
    harms = ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
    settings = {
        "system_instruction": [kinds.Part(text=TALK[0].content)],
        "max_output_tokens": 80,
        "temperature": request_.temperature,
        "top_p": request_.top_p,
        "safety_settings": [
            kinds.SafetySetting(category=f"HARM_CATEGORY_{harm}", threshold="BLOCK_NONE") for harm in harms
        ],
    }
    if request_.json_schema:
        settings |= {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
    else:
        settings |= {"seed": 7, "stop_sequences": ["END"]}
    roles = {"assistant": "model", "user": "user"}
    async with recorder(GEMINI_ANSWER) as seen:
        options = kinds.HttpOptions(base_url=seen.url, api_version="v1beta")
        client = genai.Client(api_key="a-key", http_options=options)
        said = await client.aio.models.generate_content(
            model="m",
            contents=[kinds.Content(role=roles[m.role], parts=[kinds.Part(text=m.content)]) for m in TALK[1:]],
            config=kinds.GenerateContentConfig(**settings),
        )
        await client.aio.aclose()
    api_format = GeminiFormat("m", f"{seen.url}/v1beta")
    path, headers, body = seen.requests[0]
    body["systemInstruction"].pop("role", None)
    assert_same((path, headers, body), seen.url, api_format, request_)
    answer = api_format.answer(GEMINI_ANSWER)
    assert (answer.text, answer.finish_reason, answer.model) == (said.text, "stop", said.model_version)
    counted = said.usage_metadata
    assert answer.usage == Usage(
        counted.prompt_token_count,
        counted.candidates_token_count + counted.thoughts_token_count,
        cached_tokens=counted.cached_content_token_count,
        reasoning_tokens=counted.thoughts_token_count,
    )


WIRES = {
    "openai": OpenAIFormat("http://x/v1", "m"),
    "anthropic": AnthropicFormat("m"),
    "gemini": GeminiFormat("m"),
}


def changed(answer, **parts):
    """A copy of ``answer`` with other values at dotted places."""
    made = json.loads(json.dumps(answer))
    for place, value in parts.items():
        *way, last = [int(part) if part.isdigit() else part for part in place.split("__")]
        inner = made
        for part in way:
            inner = inner[part]
        inner[last] = value
    return made


@pytest.mark.parametrize(
    ("name", "body", "finish", "text"),
    [
        ("openai", changed(OPENAI_ANSWER, choices__0__finish_reason="length"), "length", "Work — was hard."),
        ("openai", changed(OPENAI_ANSWER, choices__0__finish_reason="content_filter"), "content_filter", None),
        ("openai", changed(OPENAI_ANSWER, choices__0__message={"content": None, "refusal": "No."}), "refusal", "No."),
        ("openai", changed(OPENAI_ANSWER, usage=None), "stop", None),
        ("anthropic", changed(ANTHROPIC_ANSWER, stop_reason="max_tokens"), "length", None),
        ("anthropic", changed(ANTHROPIC_ANSWER, stop_reason="stop_sequence"), "stop", None),
        ("anthropic", changed(ANTHROPIC_ANSWER, stop_reason="refusal", content=[]), "refusal", ""),
        ("gemini", changed(GEMINI_ANSWER, candidates__0__finishReason="MAX_TOKENS"), "length", None),
        ("gemini", changed(GEMINI_ANSWER, candidates__0={"finishReason": "SAFETY"}), "content_filter", ""),
        ("gemini", changed(GEMINI_ANSWER, candidates__0={"finishReason": "PROHIBITED_CONTENT"}), "content_filter", ""),
        ("gemini", {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {}}, "content_filter", ""),
        ("gemini", changed(GEMINI_ANSWER, candidates__0={"finishReason": "STOP"}), "stop", ""),
        ("gemini", changed(GEMINI_ANSWER, candidates__0={"finishReason": "IMAGE_SAFETY"}), "content_filter", ""),
        ("gemini", changed(GEMINI_ANSWER, candidates__0__finishReason="OTHER"), "error", None),
        ("openai", changed(OPENAI_ANSWER, choices__0__finish_reason="abort"), "error", None),
        ("anthropic", changed(ANTHROPIC_ANSWER, stop_reason="pause_turn"), "error", None),
    ],
)
def test_how_answers_end(name, body, finish, text):
    answer = WIRES[name].answer(body)
    assert answer.finish_reason == finish
    assert text is None or answer.text == text


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("openai", []),
        ("openai", {"choices": []}),
        ("openai", {"choices": "x"}),
        ("openai", {"choices": [{"message": None}]}),
        ("openai", {"choices": [{"message": {"content": ["x"]}}]}),
        ("openai", {"choices": [{"message": {"content": "\ud800"}}]}),
        ("anthropic", {}),
        ("anthropic", changed(ANTHROPIC_ANSWER, content="x")),
        ("anthropic", changed(ANTHROPIC_ANSWER, content=[{"type": "text", "text": 3}])),
        ("gemini", {}),
        ("gemini", {"candidates": [3]}),
        ("gemini", changed(GEMINI_ANSWER, candidates__0__content="x")),
    ],
)
def test_other_shapes_are_malformed(name, body):
    with pytest.raises(Malformed):
        WIRES[name].answer(body)


def google_quota(quota):
    """What Google says of a quota that is used up, be it the minute's or the day's."""
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"},
    ]
    message = "You exceeded your current quota, please check your plan and billing details."
    return error(code=429, status="RESOURCE_EXHAUSTED", message=message, details=details)


def error(**facts):
    return json.dumps({"error": facts})


@pytest.mark.parametrize(
    ("name", "status", "body", "kind"),
    [
        ("openai", 429, error(message="Rate limit reached for m", code="rate_limit_exceeded"), "rate_limit"),
        ("openai", 429, error(message="You exceeded your current quota", code="insufficient_quota"), "permanent"),
        ("openai", 400, error(message="This model's maximum context length is 65536 tokens."), "context_overflow"),
        ("openai", 400, error(message="too long", code="context_length_exceeded"), "context_overflow"),
        ("openai", 400, error(message="filtered", code="content_filter"), "content_filter"),
        ("openai", 400, error(message="Invalid schema for response_format"), "permanent"),
        ("openai", 401, error(message="Incorrect API key provided"), "permanent"),
        ("openai", 403, "forbidden", "permanent"),
        ("openai", 404, error(message="The model does not exist"), "permanent"),
        ("openai", 500, "<html>", "transient"),
        ("openai", 503, "", "transient"),
        ("openai", 408, "", "transient"),
        ("anthropic", 429, error(type="rate_limit_error", message="would exceed your rate limit"), "rate_limit"),
        ("anthropic", 529, error(type="overloaded_error", message="Overloaded"), "transient"),
        (
            "anthropic",
            400,
            error(type="invalid_request_error", message="prompt is too long: 210000"),
            "context_overflow",
        ),
        ("anthropic", 400, error(message="Your credit balance is too low to access the API"), "permanent"),
        ("anthropic", 401, error(type="authentication_error", message="invalid x-api-key"), "permanent"),
        ("gemini", 429, error(code=429, status="RESOURCE_EXHAUSTED", message="Resource exhausted."), "rate_limit"),
        ("gemini", 429, google_quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), "rate_limit"),
        ("gemini", 429, google_quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), "permanent"),
        ("gemini", 503, error(code=503, status="RESOURCE_EXHAUSTED", message="quota"), "rate_limit"),
        ("gemini", 503, error(code=503, status="UNAVAILABLE", message="overloaded"), "transient"),
        (
            "gemini",
            400,
            error(message="The input token count (9) exceeds the maximum number of tokens"),
            "context_overflow",
        ),
        (
            "gemini",
            400,
            error(status="INVALID_ARGUMENT", message="API key not valid", reason="API_KEY_INVALID"),
            "permanent",
        ),
        ("gemini", 429, "[" + error(status="RESOURCE_EXHAUSTED", message="in a list") + "]", "rate_limit"),
    ],
)
def test_failures_are_classified(name, status, body, kind):
    found = WIRES[name].failure(status, {}, body)
    assert (found.kind, found.status) == (kind, status)
    assert found.message


def test_text_in_parts_and_failures_in_a_word():
    parts = [{"type": "text", "text": "Work — "}, {"type": "text", "text": "was hard."}]
    assert WIRES["openai"].answer(changed(OPENAI_ANSWER, choices__0__message={"content": parts})).text == (
        "Work — was hard."
    )
    with pytest.raises(ProviderError, match="busy"):
        WIRES["openai"].answer({"error": "busy"})
    made = GeminiFormat("models/gemini-x").request(PLAIN)
    assert made.url.endswith("/v1beta/models/gemini-x:generateContent")


INSIDE = [
    ({"error": {"code": 429, "message": "upstream is busy"}}, "rate_limit"),
    ({"error": {"code": "429", "message": "upstream is busy"}}, "rate_limit"),
    ({"error": {"type": "rate_limit_exceeded", "message": "x"}}, "rate_limit"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "transient"),
    ({"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, "rate_limit"),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "x"}}, "permanent"),
    ({"type": "error", "error": {"type": "authentication_error", "message": "x"}}, "permanent"),
    ({"type": "error", "message": "prompt is too long"}, "context_overflow"),
    ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "x"}}, "rate_limit"),
    ({"error": {"status": "RESOURCE_EXHAUSTED", "message": "x"}}, "rate_limit"),
    ({"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}, "transient"),
    ({"error": {"status": "PERMISSION_DENIED", "message": "x"}}, "permanent"),
    ({"error": {"code": 400, "message": "Content Exists Risk"}}, "content_filter"),
    ({"object": "error", "message": "the maximum context length is 9", "code": 400}, "context_overflow"),
    ({"error": "busy"}, "transient"),
    ({"error": ["busy"]}, "transient"),
]


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize(("body", "kind"), INSIDE)
def test_failures_inside_answers(name, body, kind):
    """Each has its class in each format: alone, in a list, in the middle of a stream, and by an event's name alone."""
    api_format = WIRES[name]
    inner = body["error"] if isinstance(body.get("error"), dict) else body
    tries = [
        lambda: api_format.answer(body),
        lambda: api_format.answer([body]),
        lambda: api_format.assemble_stream([body]),
        lambda: api_format.assemble_stream(events_of(f"event: error\ndata: {json.dumps(inner)}\n\n")),
        lambda: api_format.assemble_stream(events_of(f"event: error\ndata: {json.dumps(inner)}")),
    ]
    for attempt in tries:
        with pytest.raises(ProviderError) as caught:
            attempt()
        assert caught.value.kind == kind


def test_an_answer_may_end_in_an_overflow():
    with pytest.raises(ProviderError) as caught:
        WIRES["anthropic"].answer(changed(ANTHROPIC_ANSWER, stop_reason="model_context_window_exceeded"))
    assert caught.value.kind == "context_overflow"


def test_where_no_schema_is_taken_the_prompt_asks():
    api_format = OpenAIFormat("http://x/v1", "m", structure="json_object", seed=False, limit="max_completion_tokens")
    body = api_format.request(ChatRequest(TALK, 80, seed=3, json_schema=SCHEMA)).body
    assert body["response_format"] == {"type": "json_object"}
    assert "seed" not in body
    assert "max_tokens" not in body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][0]["content"].startswith("You play a patient.\n\nAnswer with one JSON object")
    assert json.loads(body["messages"][0]["content"].rpartition("\n")[2]) == SCHEMA
    none = GeminiFormat("m", structure="none").request(ChatRequest(TALK[1:], 80, json_schema=SCHEMA)).body
    assert "responseMimeType" not in none["generationConfig"]
    assert "JSON schema" in none["systemInstruction"]["parts"][0]["text"]
    asked = AnthropicFormat("m", structure="none").request(SCHEMED).body
    assert "output_config" not in asked
    assert "JSON schema" in asked["system"]


def test_older_models_of_anthropic_take_one_sampling_setting():
    api_format = AnthropicFormat("m", sampling=True)
    bodies = [api_format.request(request).body for request in (PLAIN, SCHEMED)]
    assert [(body.get("temperature"), body.get("top_p")) for body in bodies] == [(None, 0.9), (0.2, None)]
    assert api_format.request(PLAIN).headers == {"anthropic-version": "2023-06-01"}
    assert api_format.authorization("k") == {"x-api-key": "k"}


def test_fields_of_ones_own_are_merged():
    api_format = GeminiFormat(
        "m", extra_body={"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}, "labels": {"a": "b"}}
    )
    body = api_format.request(PLAIN).body
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 0}
    assert body["generationConfig"]["maxOutputTokens"] == 80
    assert body["labels"] == {"a": "b"}
    assert api_format.extra_body["generationConfig"]  # the settings are left as they are
    assert OpenAIFormat("http://x/v1/", "m", sampling=False, extra_body={"thinking": {"type": "disabled"}}).request(
        PLAIN
    ).body.keys() == {"model", "messages", "max_tokens", "seed", "stop", "thinking"}
