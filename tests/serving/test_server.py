"""The OpenAI-compatible server as our own client sees it, when the engine fails, and when it is told to end."""

import asyncio
import signal
import subprocess
import threading

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from places import BIN
from random_model import random_model

from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.providers import Providers
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.serving.address import bind
from cbtrain.serving.app import ModelServer
from cbtrain.serving.models import ServedModels
from cbtrain.serving.run import listening
from cbtrain.tokens.dialogue import Message as ChatMessage

ASK = (Message("system", "Be brief."), Message("user", "I feel low."))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("served"), "llama")


@pytest.fixture
async def url(model_folder):
    model = LocalModel(str(model_folder), {}, EngineConfig(slots=4, context_tokens=256))
    async with listening(ModelServer(ServedModels(model, "m")).app(), bind("127.0.0.1", 0)) as url:
        yield f"{url}/v1"


async def test_the_server_gives_what_the_engine_gives_and_counts_tokens(model_folder, url):
    sampling = SamplingConfig(temperature=0.9, top_p=0.9, max_tokens=12)
    requests = [ChatRequest(ASK, 12, 0.9, 0.9, seed) for seed in range(10)]
    async with Providers(ProvidersConfig()) as providers:
        provider = await providers.open(ProviderConfig(base_url=url, model="m"), "patient")
        served = await asyncio.gather(*(provider.chat(request) for request in requests))
    chat = [ChatMessage(m.role, m.content) for m in ASK]
    async with LocalModel(str(model_folder), {}, EngineConfig(slots=4, context_tokens=256)) as model:
        local = await asyncio.gather(*(model.answer(chat, sampling, seed=seed) for seed in range(10)))
    assert [s.text for s in served] == [c.text for c in local]
    assert len({s.text for s in served}) > 5
    assert [s.finish_reason for s in served] == [c.finish_reason for c in local]
    assert [s.usage.prompt_tokens for s in served] == [c.prompt_tokens for c in local]
    assert [s.usage.completion_tokens for s in served] == [len(c.ids) for c in local]


async def test_our_own_client_understands_a_chat_that_is_too_long(url):
    async with Providers(ProvidersConfig()) as providers:
        provider = await providers.open(ProviderConfig(base_url=url, model="m"), "patient")
        with pytest.raises(ProviderError) as caught:
            await provider.chat(ChatRequest((Message("user", "word " * 400),), 5))
    assert caught.value.kind == "context_overflow"


async def test_a_client_that_goes_away_frees_its_slot(url):
    endless = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200, "temperature": 5}
    async with aiohttp.ClientSession() as session:
        for _ in range(12):  # three times as many as slots
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(session.post(f"{url}/chat/completions", json=endless), 0.002)
        async with session.post(f"{url}/chat/completions", json=endless | {"max_tokens": 2}) as reply:
            assert reply.status == 200


@pytest.mark.fault("F2")
async def test_a_defect_ends_requests_and_not_the_server(model_folder, monkeypatch):
    model = LocalModel(str(model_folder), {}, EngineConfig(slots=2, context_tokens=256))
    step = model.engine.step
    async with TestClient(TestServer(ModelServer(ServedModels(model, "m")).app())) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 3}
        monkeypatch.setattr(model.engine, "step", lambda: 1 / 0)
        for _ in range(2):
            reply = await client.post("/v1/chat/completions", json=body)
            assert (reply.status, (await reply.json())["error"]["code"]) == (500, "request_failed")
        assert (await client.get("/health")).status == 200
        monkeypatch.setattr(model.engine, "step", step)
        assert (await client.post("/v1/chat/completions", json=body)).status == 200


async def test_an_engine_whose_thread_has_ended_says_so(model_folder, monkeypatch):
    model = LocalModel(str(model_folder), {}, EngineConfig(slots=2, context_tokens=256))
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)

    def end():
        raise SystemExit

    monkeypatch.setattr(model.engine, "step", end)
    async with TestClient(TestServer(ModelServer(ServedModels(model, "m")).app())) as client:
        assert (await client.get("/health")).status == 200
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}
        for _ in range(2):
            reply = await client.post("/v1/chat/completions", json=body)
            assert (reply.status, (await reply.json())["error"]["code"]) == (500, "engine_failed")
        assert (await client.get("/health")).status == 503


def test_sigterm_ends_a_server_that_a_script_has_put_in_the_background(model_folder):
    # Shells without job control start background jobs with SIGINT ignored. An interpreter of its own, which must end.
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    command = [BIN / "cbtrain", "serve", "--model", model_folder, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignore)
    server.stdout.readline()
    server.terminate()
    assert server.wait(20) == 0
