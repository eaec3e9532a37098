"""The client against a real server that misbehaves in every way it should survive."""

import asyncio
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from aiohttp import web
from loopback import completion, cut_off, hang, serve, status

from cbtrain.errors import UserError
from cbtrain.providers.config import ProviderConfig
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.openai import OpenAIProvider
from cbtrain.providers.retry import backoff_s, parse_retry_after
from cbtrain.providers.types import ChatRequest, Message

REQUEST = ChatRequest((Message("system", "s"), Message("user", "u")), max_tokens=9, seed=4, stop=("X",))


def then_ok(*faults):
    return lambda number, body: faults[number - 1] if number <= len(faults) else completion("fine")


async def ask(script, request=REQUEST, **changes):
    async with OpenAIProvider(script.config(**changes)) as provider:
        return await provider.chat(request)


async def test_request_and_response():
    async with serve(then_ok()) as script:
        response = await ask(script, extra_body={"thinking": {"type": "disabled"}})
    assert (response.text, response.finish_reason, response.model, response.attempts) == (
        "fine",
        "stop",
        "returned-name",
        1,
    )
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (7, 3)
    assert script.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "max_tokens": 9,
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": 4,
            "stop": ["X"],
            "thinking": {"type": "disabled"},
        }
    ]
    assert "Authorization" not in script.headers[0]


async def not_json(request):
    return web.Response(text="<html>", content_type="text/html")


@pytest.mark.parametrize("fault", [status(500), status(503), status(429), cut_off, not_json])
async def test_passing_faults_are_retried(fault):
    async with serve(then_ok(fault, fault)) as script:
        response = await ask(script)
    assert (response.text, response.attempts) == ("fine", 3)


ODD = [
    {"choices": [{"message": None}]},
    {"choices": [{"message": {"content": ["x"]}}]},
    {"choices": [{"message": {"content": "x"}}], "usage": "none"},
    {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "7"}},
    {"choices": [{"message": {"content": "\ud800"}}]},
    {"choices": "x"},
    {"choices": []},
]


@pytest.mark.parametrize("odd", ODD)
async def test_an_answer_of_another_shape_is_a_passing_fault(odd):
    async with serve(then_ok(odd, odd)) as script:
        response = await ask(script)
    assert (response.text, response.attempts) == ("fine", 3)


async def test_a_hanging_attempt_is_given_up_and_tried_again():
    async with serve(then_ok(hang)) as script:
        response = await ask(script, attempt_timeout_s=0.2)
    assert response.attempts == 2


async def test_retry_after_is_honoured():
    async with serve(then_ok(status(429, headers={"Retry-After": "0.4"}))) as script:
        started = time.monotonic()
        await ask(script)
        assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (status(400, "bad field"), "permanent"),
        (status(404), "permanent"),
        (status(400, "This model's maximum context length is 9"), "context_overflow"),
        (status(400, "stopped by content_filter"), "content_filter"),
    ],
)
async def test_lasting_faults_fail_at_once(fault, kind):
    async with serve(lambda number, body: fault) as script:
        with pytest.raises(ProviderError) as caught:
            await ask(script)
    assert (caught.value.kind, len(script.bodies)) == (kind, 1)


async def test_retries_end():
    async with serve(lambda number, body: status(500, "still broken")) as script:
        with pytest.raises(ProviderError, match="HTTP 500, transient: still broken after 3 attempts"):
            await ask(script, max_retries=2)
        assert len(script.bodies) == 3
        script.bodies.clear()
        with pytest.raises(ProviderError):
            await ask(script, max_retries=1000, overall_deadline_s=0.3, backoff_s=0.05)
        assert len(script.bodies) < 100


async def test_nobody_there():
    config = ProviderConfig(base_url="http://127.0.0.1:9/v1", model="m", backoff_s=0.01, max_retries=1)
    async with OpenAIProvider(config) as provider:
        with pytest.raises(ProviderError, match="transient: .*after 2 attempts") as caught:
            await provider.chat(REQUEST)
    assert caught.value.kind == "transient"


async def test_finish_reasons():
    answers = [
        completion("half", "length"),
        completion("", "content_filter"),
        completion(None, refusal="I won't"),
        completion(""),
    ]
    async with serve(lambda number, body: answers[number - 1]) as script:
        got = [await ask(script) for _ in answers]
    assert [(r.finish_reason, r.text) for r in got] == [
        ("length", "half"),
        ("content_filter", ""),
        ("refusal", "I won't"),
        ("stop", ""),
    ]


async def test_json_schema_is_asked_for_by_the_providers_own_mechanism():
    schema = {"type": "object"}
    async with serve(then_ok()) as script:
        await ask(script, ChatRequest(REQUEST.messages, 5, json_schema=schema))
    assert script.bodies[0]["response_format"]["json_schema"]["schema"] == schema


async def test_no_more_in_flight_than_allowed_and_cancellation_leaks_no_permit():
    async def slow(request):
        await asyncio.sleep(0.05)
        return web.json_response(completion("fine"))

    async with serve(lambda number, body: slow if number <= 40 else completion("fine")) as script:
        async with OpenAIProvider(script.config(max_in_flight=4)) as provider:
            tasks = [asyncio.create_task(provider.chat(REQUEST)) for _ in range(40)]
            await asyncio.sleep(0.12)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert 1 < script.most_in_flight <= 4
            again = await asyncio.wait_for(asyncio.gather(*(provider.chat(REQUEST) for _ in range(8))), 5)
            assert len(again) == 8


async def test_the_key_goes_out_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("TEST_CBTRAIN_KEY", "planted-secret-123")
    async with serve(lambda number, body: status(401, "bad key planted-secret-123")) as script:
        config = script.config(api_key_env="TEST_CBTRAIN_KEY")
        async with OpenAIProvider(config) as provider:
            with pytest.raises(ProviderError) as caught:
                await provider.chat(REQUEST)
            shown = f"{provider!r} {config!r} {caught.value} {caught.value!r} {caught.value.__dict__}"
    assert script.headers[0]["Authorization"] == "Bearer planted-secret-123"
    assert "planted-secret-123" not in shown
    monkeypatch.delenv("TEST_CBTRAIN_KEY")
    with pytest.raises(UserError, match="TEST_CBTRAIN_KEY: .*not set"):
        OpenAIProvider(config)


def test_waiting_times():
    assert parse_retry_after("3.5") == 3.5
    soon = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert 27 < parse_retry_after(format_datetime(soon, usegmt=True)) <= 30
    assert parse_retry_after("soon") is parse_retry_after(None) is None
    assert all(0 <= backoff_s(attempt, 1.0) <= min(60, 2 ** (attempt - 1)) for attempt in range(1, 40))
