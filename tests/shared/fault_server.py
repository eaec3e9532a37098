"""A chat API in a process of its own that fails in every way it can, by chance, and keeps a log of what it did.

Arguments: seed, share of requests that something goes wrong with. The first line of its output is its address. ``GET
/log`` gives the log: for each request, in order, what was asked (the last message), what was done, and whether the
answer was sent to its end. It has no part of cbtrain in it.
"""

import asyncio
import contextlib
import json
import random
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

from aiohttp import web

LOG = []


def completion(text, model="fault-model", finish="stop", **message):
    return {
        "id": "x",
        "model": model,
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def error(status, message="no", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


def now():
    return datetime.now(timezone.utc)


WAITS = {
    "429": lambda: {},
    "429 seconds": lambda: {"Retry_After": "0.3"},
    "429 whole seconds": lambda: {"Retry_After": "1"},
    "429 date": lambda: {"Retry_After": format_datetime(now() + timedelta(seconds=1), usegmt=True)},
    "429 iso": lambda: {"Retry_After": (now() + timedelta(seconds=0.4)).isoformat()},
    "429 duration": lambda: {"Retry_After": "300ms"},
    "429 milliseconds": lambda: {"retry_after_ms": "200"},
    "429 reset": lambda: {"x_ratelimit_reset_requests": "250ms", "x_ratelimit_remaining_requests": "0"},
    "429 nonsense": lambda: {"Retry_After": "soon"},
}


async def stream(request, parts, pause, kind="application/json"):
    reply = web.StreamResponse(headers={"Content-Type": kind})
    await reply.prepare(request)
    for part in parts:
        await reply.write(part)
        await asyncio.sleep(pause)
    return reply


async def cut_off(request):
    reply = web.StreamResponse(headers={"Content-Length": "1000"})
    await reply.prepare(request)
    await reply.write(b'{"choices": [')
    request.transport.close()
    return reply


async def hang(request):
    await asyncio.sleep(3600)


FAULTS = {
    "hang": hang,
    "cut off": cut_off,
    "truncated": lambda request: web.Response(text='{"choices": [{"mess', content_type="application/json"),
    "another type": lambda request: web.Response(text="<html>busy</html>", content_type="text/html"),
    "empty": lambda request: web.Response(body=b""),
    "blank for ever": lambda request: stream(request, [b"\n"] * 1000, 0.05),
    "503": lambda request: error(503, "overloaded"),
    "400": lambda request: error(400, "bad field \ud83d"),
    "overflow": lambda request: error(400, "This model's maximum context length is 8192 tokens"),
    "filtered": lambda request: error(400, "stopped by our content_filter"),
}


def events(text, model="fault-model", finish="stop", **more):
    """The same completion in pieces, as lines of a stream."""
    middle = len(text) // 2
    deltas = [{"role": "assistant", "content": text[:middle]}, {"content": text[middle:]} | more, {}]
    chunks = [
        {"model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": finish if delta == {} else None}]}
        for delta in deltas
    ]
    chunks.append({"model": model, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    return [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks] + [b"data: [DONE]\n\n"]


async def broken_stream(request):
    reply = await stream(request, events("half of it")[:2], 0.01, "text/event-stream")
    request.transport.close()
    return reply


STREAM_FAULTS = {
    "ends early": lambda request: stream(request, events("half of it")[:2], 0.01, "text/event-stream"),
    "breaks": broken_stream,
    "stalls": lambda request: stream(request, [*events("half of it")[:2], *[b""] * 60], 60, "text/event-stream"),
    "error inside": lambda request: stream(
        request, [events("half")[0], b'data: {"error": {"message": "overloaded \\ud83d"}}\n\n'], 0, "text/event-stream"
    ),
    "cut event": lambda request: stream(request, [b'data: {"choices": [{"del'], 0, "text/event-stream"),
    "keeps alive for ever": lambda request: stream(request, [b": wait\n\n"] * 1000, 0.05, "text/event-stream"),
}


def streams(request, text):
    """Answers in pieces, though odd ones."""
    whole, kind = events(text), "text/event-stream"
    return {
        "ok": lambda: stream(request, [b"".join(whole)], 0, kind),
        "drip": lambda: stream(request, whole, 0.02, kind),
        "blanks first": lambda: stream(request, [b": wait\n\n", b"\n", *whole], 0.01, kind),
        "refusal": lambda: stream(request, events("", refusal="I will not."), 0, kind),
        "renamed": lambda: stream(request, events(text, model="another-model"), 0, kind),
        "no text": lambda: stream(request, events(""), 0, kind),
        "no last line": lambda: stream(request, [b"".join(whole[:-1]).rstrip()], 0, kind),
        "unmarked": lambda: stream(request, whole, 0, "text/plain"),
    }


def answers(request, text):
    """What are answers, though odd ones."""
    whole = json.dumps(completion(text)).encode()
    return {
        "drip": lambda: stream(request, [whole[at : at + 50] for at in range(0, len(whole), 50)], 0.02),
        "blanks first": lambda: stream(request, [b"\n", b"\n", whole], 0.02),
        "refusal": lambda: web.json_response(completion(None, refusal="I will not.")),
        "renamed": lambda: web.json_response(completion(text, model="another-model")),
        "no text": lambda: web.json_response(completion("")),
    }


class Api:
    def __init__(self, seed, share):
        self.draw, self.share, self.burst = random.Random(seed), share, 0

    async def chat(self, request):
        body = json.loads(await request.read())
        said, streamed = body["messages"][-1]["content"], body.get("stream", False)
        entry = {"said": said, "done": self.choose(streamed), "sent": False}
        LOG.append(entry)
        await asyncio.sleep(self.draw.random() * 0.03)
        done, text = entry["done"], f"to {said}"
        if done in WAITS:
            reply = error(429, "slow down", **WAITS[done]())
        elif done in FAULTS:
            reply = FAULTS[done](request)
        elif done in STREAM_FAULTS:
            reply = STREAM_FAULTS[done](request)
        elif streamed and done != "500":
            reply = streams(request, text)[done]()
        elif done == "ok":
            reply = web.json_response(completion(text))
        elif done == "500":
            reply = error(500, "broken")
        else:
            reply = answers(request, text)[done]()
        if asyncio.iscoroutine(reply):
            reply = await reply
        if not reply.prepared:
            await reply.prepare(request)
        with contextlib.suppress(ConnectionError):  # it was to break
            await reply.write_eof()
            entry["sent"] = True
        return reply

    def choose(self, streamed):
        if self.burst:
            self.burst -= 1
            return "500"
        if self.draw.random() >= self.share:
            return "ok"
        ways = [*WAITS, *FAULTS, "500", "drip", "blanks first", "refusal", "renamed", "no text"]
        done = self.draw.choice(ways + [*STREAM_FAULTS, "no last line", "unmarked"] * streamed)
        self.burst = 4 if done == "500" else 0
        return done


async def main(seed, share):
    api = Api(int(seed), float(share))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", api.chat)
    app.router.add_get("/log", lambda request: web.json_response(LOG))
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
