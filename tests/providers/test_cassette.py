"""Traffic on record: what is served back is what came, and what is secret is not in it."""

import json
import time

import pytest
from aiohttp import web
from loopback import completion, serve, status

from cbtrain.errors import UserError
from cbtrain.eval.rating.config import JudgingConfig
from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.cassette import Recorder, Replay
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Billing, Ledger
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.anthropic import AnthropicFormat
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.providers import Providers, api_format_of, recorded
from cbtrain.providers.transport import HttpTransport, Reply, open_session
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.study.evaluation.judges import uses_llm_judge

KEY = 'planted-"secret"-123'


def asking(text):
    return ChatRequest((Message("user", text),), max_tokens=9)


def provider(transport, url, key=KEY, api_format=OpenAIFormat):
    made = api_format(url, "m") if api_format is OpenAIFormat else api_format("m", url)
    billing = Billing("judge", None, Ledger(Budget()))
    return Provider(transport, Endpoint(made, key), Account(), billing, patience=Patience(backoff_s=0.01))


async def test_a_recording_is_served_back_and_holds_no_key(tmp_path):
    tape = tmp_path / "tapes" / "one.jsonl"

    def plan(number, body):
        said = body["messages"][-1]["content"]
        if number == 1:
            return status(500, f"it broke over {KEY}", headers={"Set-Cookie": "session=abc", "Retry-After": "0"})
        return completion(f"to {said}: {KEY}" if said == "two" else f"to {said}")

    async with serve(plan) as script, open_session() as session:
        with Recorder(HttpTransport(session), tape) as recorder:
            made = provider(recorder, script.url)
            real = [(await made.chat(asking(text))).text for text in ("one", "two")]
    assert real[0] == "to one"
    text = tape.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["status"] for line in lines] == [500, 200, 200]
    assert "session=abc" not in text
    assert "secret" not in text
    assert "Retry-After" in lines[0]["headers"]
    replayed = provider(Replay(tape), script.url, key="")
    found = [(await replayed.chat(asking(text))).text for text in ("one", "two", "one")]
    assert found[0] == found[2] == real[0]
    assert found[1] == real[1] == "to two: [key]"
    with pytest.raises(ProviderError, match="not in the recording"):
        await replayed.chat(asking("three"))


@pytest.mark.parametrize("api_format", [OpenAIFormat, AnthropicFormat])
async def test_keys_that_come_back_are_taken_out(tmp_path, api_format):
    tape = tmp_path / "tape.jsonl"
    async with serve(lambda number, body: status(401, f"no such key: {KEY}")) as script, open_session() as session:
        with Recorder(HttpTransport(session), tape) as recorder:
            made = provider(recorder, script.url, api_format=api_format)
            with pytest.raises(ProviderError):
                await made.chat(asking("x"))
    assert "secret" not in tape.read_text()
    assert tape.read_text().count("\n") == 1


@pytest.mark.parametrize("line", ["no json", "{}", "[]", '{"key": "k", "status": "x", "headers": {}, "reply": ""}'])
def test_another_file_is_refused_with_its_line(tmp_path, line):
    file = tmp_path / "tape.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(UserError, match=r"tape.jsonl:2: not a line of a recording"):
        Replay(file)
    with pytest.raises(UserError, match="cannot be read"):
        Replay(tmp_path / "none.jsonl")


async def test_what_is_unusual_in_a_recording(tmp_path):
    """Letters that end a line to some, a line that a kill has torn, and eyes of others."""
    tape = tmp_path / "tape.jsonl"
    async with serve(lambda number, body: completion("one\u2028two\x85three")) as script, open_session() as session:
        with Recorder(HttpTransport(session), tape) as recorder:
            await provider(recorder, script.url).chat(asking("x"))
    assert tape.stat().st_mode & 0o077 == 0
    with tape.open("a") as file:
        file.write('{"key": "torn')
    assert (await provider(Replay(tape), script.url).chat(asking("x"))).text == "one\u2028two\x85three"


@pytest.mark.parametrize("code", [200, 201])
async def test_failures_that_an_answer_came_after_are_not_waited_for_again(code, tmp_path):
    async def fine(request):
        return web.json_response(completion("fine"), status=code)

    tape = tmp_path / "tape.jsonl"
    plan = lambda number, body: status(429, headers={"Retry-After": "0.05"}) if number < 3 else fine  # noqa: E731
    async with serve(plan) as script, open_session() as session:
        with Recorder(HttpTransport(session), tape) as recorder:
            assert (await provider(recorder, script.url).chat(asking("x"))).attempts == 3
    assert (await provider(Replay(tape), script.url).chat(asking("x"))).attempts == 1


EVENTS = [
    {"model": "m", "choices": [{"index": 0, "delta": {"content": "in "}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "pieces"}, "finish_reason": "stop"}]},
]


async def in_pieces(request):
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in EVENTS)
    return web.Response(text=body, content_type="text/event-stream")


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_recording_serves_whole_answers_and_those_in_pieces(streamed, tmp_path):
    tape, answer = tmp_path / "tape.jsonl", in_pieces if streamed else completion("in pieces")
    async with serve(lambda number, body: answer) as script, open_session() as session:
        with Recorder(HttpTransport(session), tape) as recorder:
            made = provider(recorder, script.url)
            made.endpoint = Endpoint(made.endpoint.api_format, KEY, stream=streamed)
            await made.chat(asking("x"))
    made = provider(Replay(tape), script.url)
    made.endpoint = Endpoint(made.endpoint.api_format, stream=not streamed)
    assert (await made.chat(asking("x"))).text == "in pieces"


async def test_failures_on_record_are_not_waited_for(tmp_path, monkeypatch):
    """Neither their repeats, nor the rest that an API has asked for."""
    monkeypatch.setenv("TEST_API_KEY", "planted-secret-123")
    tape = tmp_path / "tape.jsonl"
    plan = lambda number, body: status(429, "busy", headers={"Retry-After": "40"})  # noqa: E731
    async with serve(plan) as script:
        config = script.config(api_key_env="TEST_API_KEY", max_retries=0)
        async with Providers(ProvidersConfig(record=tape, answers=str(tmp_path / "a"))) as providers:
            with pytest.raises(ProviderError, match="busy"):
                await (await providers.open(config, "judge")).chat(asking("x"))
    began = time.monotonic()
    async with Providers(ProvidersConfig(replay=tape)) as providers:
        made = await providers.open(config.model_copy(update={"max_retries": 6, "backoff_s": 60.0}), "judge")
        for _ in range(3):
            with pytest.raises(ProviderError, match="busy after 7 attempts"):
                await made.chat(asking("x"))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini"])
async def test_a_recording_knows_who_was_asked(kind, tmp_path):
    config = ProviderConfig(kind=kind, base_url="http://host/v1", model="models/m", api_key_env=None)
    api_format, tape = api_format_of(config), tmp_path / "tape.jsonl"

    class Api:
        async def post(self, made, secret, arriving=None):
            return Reply(200, {}, b"{}")

    with Recorder(Api(), tape) as recorder:
        await recorder.post(api_format.streamed(api_format.request(asking("x"))), {})
    settings = ProvidersConfig(replay=tape)
    assert recorded(settings, config)
    for other in ({"model": "n"}, {"base_url": "http://other/v1"}):
        assert not recorded(settings, config.model_copy(update=other))
    judging = JudgingConfig(provider=config.model_copy(update={"api_key_env": "NOT_SET_AT_ALL"}))
    assert uses_llm_judge(judging, settings)
    assert not uses_llm_judge(JudgingConfig(), settings)  # a study that the cue rater rated is rated by it again
