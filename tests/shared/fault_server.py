"""A chat API in a process of its own that fails in every way it can, by chance, and keeps a log of what it did.

Arguments: seed, share of requests that something goes wrong with. The first line of its output is its address. ``GET
/log`` gives the log: for each request, in order, what was asked (the last message), what was done, and whether the
answer was sent to its end. It has no part of cbtrain in it.
"""

import asyncio
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


async def stream(request, parts, pause):
    reply = web.StreamResponse(headers={"Content-Type": "application/json"})
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
    "400": lambda request: error(400, "bad field"),
    "overflow": lambda request: error(400, "This model's maximum context length is 8192 tokens"),
    "filtered": lambda request: error(400, "stopped by our content_filter"),
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
        said = json.loads(await request.read())["messages"][-1]["content"]
        entry = {"said": said, "done": self.choose(), "sent": False}
        LOG.append(entry)
        await asyncio.sleep(self.draw.random() * 0.03)
        done, text = entry["done"], f"to {said}"
        if done in WAITS:
            reply = error(429, "slow down", **WAITS[done]())
        elif done in FAULTS:
            reply = FAULTS[done](request)
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
        await reply.write_eof()
        entry["sent"] = True
        return reply

    def choose(self):
        if self.burst:
            self.burst -= 1
            return "500"
        if self.draw.random() >= self.share:
            return "ok"
        done = self.draw.choice([*WAITS, *FAULTS, "500", "drip", "blanks first", "refusal", "renamed", "no text"])
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
