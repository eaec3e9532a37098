"""An OpenAI-compatible chat server over a local model: ``POST /v1/chat/completions``, ``GET /v1/models``, ``/health``.

It is for research on one machine: no authentication, bound to the loopback address unless told otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
import uuid
from dataclasses import replace
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cbtrain.errors import UserError
from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.generation.request import BadRequest, ContextOverflow, RequestFailed
from cbtrain.generation.thread import EngineFailed
from cbtrain.settings import first_fault
from cbtrain.tokens.dialogue import Message


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str

    @field_validator("role")
    @classmethod
    def _developer_is_system(cls, role: str) -> str:
        return "system" if role == "developer" else role

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        """Return the text of a message's content, which OpenAI's clients may send in parts."""
        if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
            return "".join(str(part.get("text", "")) for part in content)
        return content

    @field_validator("content")
    @classmethod
    def _whole_characters(cls, content: str) -> str:
        try:
            content.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair") from None
        return content


class ChatBody(BaseModel):
    """The request fields that are served; others are ignored, as OpenAI-compatible servers do."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    n: int | None = 1


def make_app(model: LocalModel, name: str, system: str | None = None) -> web.Application:
    """Return the web application that serves ``model``, with its adapter if it has one, under the model id ``name``. A
    chat without a system message gets ``system``, if that is a text."""
    adapter = next(iter(model.adapters.names), None)

    async def chat(request: web.Request) -> web.Response:
        try:
            body = ChatBody.model_validate(await request.json())
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _error(400, "the body is not JSON")
        except ValidationError as error:
            return _error(400, first_fault(error))
        if body.model != name:
            return _error(404, f"the model {body.model!r} does not exist; this server has {name!r}", "model_not_found")
        if body.stream or body.n not in (None, 1):
            return _error(400, "stream and n > 1 are not supported")
        try:
            sampling = SamplingConfig(
                temperature=1.0 if body.temperature is None else body.temperature,
                top_p=1.0 if body.top_p is None else body.top_p,
                top_k=0,
                max_tokens=body.max_completion_tokens or body.max_tokens or 512,
            )
        except ValidationError as error:  # such as a tiny temperature
            return _error(400, first_fault(error))
        seed = body.seed if body.seed is not None else random.getrandbits(62)
        messages = [Message(m.role, m.content) for m in body.messages]
        if system and all(message.role != "system" for message in messages):
            messages.insert(0, Message("system", system))
        stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        try:
            asked = await model.chat(messages, sampling, seed=seed, adapter=adapter)
            done = await model.complete(replace(asked, stop=(*asked.stop, *stop)))
        except ContextOverflow as error:
            return _error(400, f"maximum context length exceeded: {error}", "context_length_exceeded")
        except (UserError, BadRequest) as error:
            return _error(400, str(error))
        except RequestFailed as error:
            return _error(500, str(error), "request_failed")
        except EngineFailed as error:
            return _error(500, str(error), "engine_failed")
        usage = {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": len(done.ids),
            "total_tokens": done.prompt_tokens + len(done.ids),
            "prompt_tokens_details": {"cached_tokens": done.cached_tokens},
        }
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": done.text},
            "finish_reason": done.finish_reason,
        }
        return web.json_response(
            {
                "id": f"chatcmpl-{uuid.uuid4().hex}",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": name,
                "choices": [choice],
                "usage": usage,
            }
        )

    async def models(request: web.Request) -> web.Response:
        described = {"id": name, "object": "model", "owned_by": "cbtrain", "system_prompt": system}
        return web.json_response({"object": "list", "data": [described]})

    async def health(request: web.Request) -> web.Response:
        if model.failed:
            return web.json_response({"status": "the engine has failed"}, status=503)
        return web.json_response({"status": "ok"})

    async def engine(app: web.Application) -> Any:
        async with model:
            yield

    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", health)
    app.cleanup_ctx.append(engine)
    return app


async def serve(
    model: LocalModel, name: str, host: str, port: int, *, system: str | None = None, until_stdin_closes: bool = False
) -> None:
    """Serve :func:`make_app` until cancelled, SIGTERM, or until standard input ends if a parent process holds its other
    side.

    Prints ``listening on URL`` once connections are accepted. Raises UserError if the port is in use.
    """
    # A client that goes away cancels its handler, and with it the generation it waited for.
    runner = web.AppRunner(make_app(model, name, system), handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            problem = f"cannot listen there ({getattr(error, 'strerror', None) or error})"
            hint = "Choose another --port, or stop what uses this one."
            raise UserError(problem, where=f"{host}:{port}", hint=hint) from None
        bound = runner.addresses[0][1]
        stop = asyncio.Event()
        if not until_stdin_closes:
            with contextlib.suppress(NotImplementedError):  # no signals on this platform's loop
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        print(f"listening on http://{host}:{bound}/v1", flush=True)
        if until_stdin_closes:
            await asyncio.to_thread(sys.stdin.buffer.read)
        else:
            await stop.wait()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await runner.cleanup()


def _error(status: int, message: str, code: str | None = None) -> web.Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return web.json_response(body, status=status)
