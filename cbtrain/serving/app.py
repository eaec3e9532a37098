"""The server's routes: chats and texts answered by a local model, its models, its health and numbers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from cbtrain.errors import UserError
from cbtrain.generation.request import Completion, ContextOverflow, Request
from cbtrain.serving.answers.shapes import ChatShape, Shape, TextShape, usage_of
from cbtrain.serving.answers.stream import stream_answers
from cbtrain.serving.errors import Refused
from cbtrain.serving.failures import refusal_of
from cbtrain.serving.guards.access import Access
from cbtrain.serving.guards.bodies import BodyReader
from cbtrain.serving.guards.gate import Gate
from cbtrain.serving.guards.queue import Queue
from cbtrain.serving.metrics import Metrics
from cbtrain.serving.models import ServedModels
from cbtrain.serving.request_log import RECORD, RequestLog
from cbtrain.serving.requests.adapters import LoadBody, UnloadBody
from cbtrain.serving.requests.chat import ChatBody
from cbtrain.serving.requests.sampled import SampledBody, choice_seed
from cbtrain.serving.requests.text import TextBody

MOST_LOGPROBS = 500_000
"""Log-probabilities in one request's answers: each takes some hundred bytes, more than once. One answer may be as long
as the context all the same."""
MOST_ANSWERS = 1_024
"""Answers that may be asked for at a time: those under way and those that wait."""


class ModelServer:
    """Serves ``models`` to whom ``access`` lets in. Adapters are loaded and unloaded over HTTP only with
    ``load_adapters``."""

    def __init__(
        self,
        models: ServedModels,
        access: Access | None = None,
        *,
        most_answers: int = MOST_ANSWERS,
        load_adapters: bool = False,
        log: RequestLog | None = None,
    ) -> None:
        self.models, self.model = models, models.model
        self.queue, self.load_adapters = Queue(most_answers), load_adapters
        self.context = self.model.engine.context
        self.bodies, self.metrics = BodyReader.for_context(self.context), Metrics(self.model.engine, self.queue)
        self.gate = Gate(access or Access(), self.metrics, log)

    def app(self) -> web.Application:
        app = self.gate.application(
            [
                ("POST", "/v1/chat/completions", self.chat),
                ("POST", "/v1/completions", self.complete_texts),
                ("GET", "/v1/models", self.list_models),
                ("GET", "/v1/models/{id:.+}", self.show_model),
                ("GET", "/health", self.health),
                ("HEAD", "/health", self.health),
                ("GET", "/metrics", self.show_metrics),
                ("POST", "/v1/load_lora_adapter", self.load),
                ("POST", "/v1/unload_lora_adapter", self.unload),
            ]
        )
        app.cleanup_ctx.append(self._engine)
        return app

    def close(self) -> int:
        """Refuse new requests for answers; return how many are under way, which may end."""
        self.queue.closed = True
        return self.queue.now

    async def chat(self, http: web.Request) -> web.StreamResponse:
        body = await self.bodies.read(http, ChatBody.read)
        adapter = self._model_of(body, http)
        messages = body.chat(self.models.system_prompt(adapter))
        if len(messages) >= self.context:  # each begins with a token at least
            raise ContextOverflow(f"{len(messages):,} messages are more than {self.context:,} tokens can be")
        self._require_short(sum(len(message.content) for message in messages), adapter)
        sampling, seed = body.sampling(self.context), _seed_of(body)
        with self.queue.place_for(body.choices):
            try:
                request = await self.model.chat(messages, sampling, seed=seed, adapter=adapter)
            except UserError as error:  # a special token, or roles that the template refuses
                raise Refused(400, str(error), param="messages") from None
            shape = ChatShape(body.model, self.models.tokens(adapter), body.wanted_logprobs)
            return await self._answer(http, body, [body.applied_to(request)], shape)

    async def complete_texts(self, http: web.Request) -> web.StreamResponse:
        body = await self.bodies.read(http, TextBody.read)
        adapter = self._model_of(body, http)
        for prompt in body.prompts:
            if isinstance(prompt, str):
                self._require_short(len(prompt), adapter)
        sampling, seed = body.sampling(self.context), _seed_of(body)
        with self.queue.place_for(len(body.prompts) * body.choices):
            requests = [
                body.applied_to(await self.model.text(prompt, sampling, seed=seed, adapter=adapter))
                for prompt in body.prompts
            ]
            shape = TextShape(body.model, self.models.tokens(adapter), body.wanted_logprobs)
            return await self._answer(http, body, requests, shape)

    async def list_models(self, http: web.Request) -> web.Response:
        described = [self.models.describe(name) for name in self.models.names]
        return web.json_response({"object": "list", "data": described})

    async def show_model(self, http: web.Request) -> web.Response:
        return web.json_response(self.models.describe(http.match_info["id"]))

    async def health(self, http: web.Request) -> web.Response:
        if self.model.failed:
            return web.json_response({"status": "the engine has failed"}, status=503)
        if self.queue.closed:
            return web.json_response({"status": "the server is ending"}, status=503)
        return web.json_response({"status": "ok"})

    async def show_metrics(self, http: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def load(self, http: web.Request) -> web.Response:
        self._require_loading()
        body = await self.bodies.read(http, LoadBody.read)
        await self.models.load(body.lora_name, body.lora_path, replace=bool(body.load_inplace))
        return web.json_response({"status": "ok", "models": self.models.names})

    async def unload(self, http: web.Request) -> web.Response:
        self._require_loading()
        body = await self.bodies.read(http, UnloadBody.read)
        await self.models.unload(body.lora_name)
        return web.json_response({"status": "ok", "models": self.models.names})

    async def _answer(
        self, http: web.Request, body: SampledBody, prompts: Sequence[Request], shape: Shape
    ) -> web.StreamResponse:
        """Answer each of ``prompts`` as often as ``body`` asks for, whole or as a stream."""
        for prompt in prompts:  # all that is wrong has a status of its own, in a stream too
            self.model.engine.check(prompt)
        await self.model.compile_schema(prompts[0])
        record = http[RECORD]
        requests = [
            replace(prompt, seed=choice_seed(prompt.seed, choice))
            for prompt in prompts
            for choice in range(body.choices)
        ]
        self._require_few_logprobs(body, len(requests))
        if not body.stream:
            completions = await self._complete(requests)
            record.add(completions, body.choices)
            usage = usage_of(completions, body.choices)
            if shape.alternatives is None:
                return web.json_response(shape.whole(completions, usage))
            # With log-probabilities an answer has megabytes.
            return web.json_response(text=await asyncio.to_thread(shape.text_of, completions, usage))
        options = body.stream_options
        sent = await stream_answers(
            http,
            [self.model.stream(request) for request in requests],
            shape,
            choices=body.choices,
            with_usage=bool(options and options.include_usage),
            describe=lambda error: refusal_of(error).body(),
            on_first=record.first_token,
        )
        record.add(sent.completions, body.choices)
        if sent.error:
            record.note = f"failed in mid-stream: {type(sent.error).__name__}"
        return sent.response

    async def _complete(self, requests: Sequence[Request]) -> list[Completion]:
        tasks = [asyncio.ensure_future(self.model.complete(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _model_of(self, body: SampledBody, http: web.Request) -> str | None:
        adapter = self.models.adapter(body.model)
        http[RECORD].model = body.model
        return adapter

    def _require_short(self, characters: int, adapter: str | None) -> None:
        """Raise ContextOverflow for a text that cannot fit, before the time is spent to tokenize it."""
        most = self.context * self.models.tokens(adapter).longest
        if characters > most:
            raise ContextOverflow(f"{characters:,} characters are more than {self.context:,} tokens can be")

    def _require_few_logprobs(self, body: SampledBody, answers: int) -> None:
        """Raise Refused if ``answers`` answers may have more log-probabilities than there is memory for."""
        if body.wanted_logprobs is None or answers == 1:
            return
        longest = min(body.most_tokens or self.context, self.context)
        if (count := answers * longest * (1 + body.wanted_logprobs)) > MOST_LOGPROBS:
            problem = f"{answers} answers may have {count:,} log-probabilities, more than {MOST_LOGPROBS:,}"
            raise Refused(400, f"{problem}: ask for fewer answers, alternatives or tokens", param="logprobs")

    def _require_loading(self) -> None:
        if not self.load_adapters:
            problem = "adapters are loaded over HTTP only if the server was started with --load-adapters"
            raise Refused(404, problem, code="not_enabled")

    async def _engine(self, app: web.Application) -> AsyncGenerator[None, None]:
        async with self.model:
            yield


def _seed_of(body: SampledBody) -> int:
    return random.getrandbits(62) if body.seed is None else body.seed
