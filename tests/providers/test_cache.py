"""What was paid for once is not asked for again: also by another run, and after a kill at any moment."""

import asyncio
import contextlib
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from loopback import completion, hang, serve, status

from cbtrain.errors import UserError
from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.caching.cache import AnswerCache
from cbtrain.providers.caching.key import request_key
from cbtrain.providers.carrier import HttpCarrier, open_session
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.types import ChatRequest, Message
from cbtrain.providers.wires.openai import OpenAIWire
from cbtrain.providers.wires.wire import WireRequest

WORKER = Path(__file__).parents[1] / "shared" / "paying_worker.py"
PRICE = Price(input=1000.0, output=1000.0)


def asking(text, **more):
    return ChatRequest((Message("user", text),), max_tokens=9, **more)


def provider(session, script, cache, **more):
    endpoint = Endpoint(OpenAIWire(script.url, "m"))
    settings = {"role": "judge", "patience": Patience(backoff_s=0.01), "cache": cache, "run": "a run", **more}
    return Provider(HttpCarrier(session), endpoint, Account(), **settings)


def test_a_key_is_the_request_whatever_the_order_of_its_fields():
    one = WireRequest("http://x", {}, {"model": "m", "messages": [{"role": "user", "content": "ü"}], "n": 1})
    same = WireRequest("http://x", {"a": "b"}, dict(reversed(one.body.items())))
    others = [
        request_key(one, 1),
        request_key(WireRequest("http://y", {}, one.body)),
        request_key(WireRequest("http://x", {}, one.body | {"n": 2})),
        request_key(WireRequest("http://x", {}, one.body | {"n": 1.5})),
    ]
    assert request_key(one) == request_key(same)
    assert len({request_key(one), *others}) == 5


async def test_an_answer_is_asked_for_once_a_sample_by_any_run(tmp_path):
    answers = lambda number, body: completion(f"answer {number}")  # noqa: E731
    async with serve(answers) as script, open_session() as session:
        for run in ("one", "two"):
            async with AnswerCache(tmp_path / "answers.sqlite") as cache:
                budget = Budget()
                made = provider(session, script, cache, run=run, budget=budget, price=PRICE)
                found = [await made.chat(asking("same"), sample) for sample in (0, 0, 1)]
                assert [response.text for response in found] == ["answer 1", "answer 1", "answer 2"]
                assert [response.usage.prompt_tokens for response in found] == [7, 7, 7]
                assert budget.roles["judge"].requests == (2 if run == "one" else 0)
        assert len(script.bodies) == 2
        assert found[0].attempts == 0
    assert not list((tmp_path / "answers.sqlite.owners").iterdir())


async def test_the_same_at_once_goes_out_once(tmp_path):
    async with serve(lambda number, body: completion("fine")) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a") as cache:
            made = provider(session, script, cache)
            await asyncio.gather(*(made.chat(asking("same")) for _ in range(20)))
            assert not cache._locks
        assert len(script.bodies) == 1


NOT_KEPT = [completion("", "content_filter"), completion(None, refusal="No."), completion(""), completion(" \n")]


@pytest.mark.parametrize("answer", NOT_KEPT)
async def test_refusals_and_empty_answers_are_not_kept(answer, tmp_path):
    async with serve(lambda number, body: answer) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a") as cache:
            made = provider(session, script, cache)
            for _ in range(2):
                await made.chat(asking("x"))
            assert await cache.lost("a run") == []
        assert len(script.bodies) == 2


async def test_failures_and_cancellation_leave_no_note(tmp_path):
    async with serve(lambda number, body: status(400) if number == 1 else hang) as script:
        async with open_session() as session, AnswerCache(tmp_path / "a") as cache:
            made = provider(session, script, cache)
            with pytest.raises(Exception, match="permanent"):
                await made.chat(asking("x"))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(made.chat(asking("y")), 0.3)
            left = await cache._do(lambda: cache._database.execute("SELECT COUNT(*) FROM intents").fetchone())
            assert left == (0,)


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 20])
async def test_another_file_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "a"
    file.write_bytes(content)
    with pytest.raises(UserError, match="cannot be used as a cache") as caught:
        async with AnswerCache(file):
            pass
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == content


@pytest.mark.parametrize("seed", range(4))
async def test_killed_anywhere_nothing_that_was_answered_is_asked_for_again(seed, tmp_path):
    """By the server's own log: twice at most what was in flight at a kill, and that is known as lost."""
    draw = random.Random(seed)
    handled = Counter()

    async def slow(request):
        await asyncio.sleep(draw.random() * 0.05)
        body = await request.json()
        return web.json_response(completion(f"to {body['messages'][0]['content']}"))

    def plan(number, body):
        handled[body["messages"][0]["content"]] += 1
        return slow

    lost = []
    async with serve(plan) as script:
        settings = json.dumps({"cache": str(tmp_path / "a"), "url": script.url, "count": 60})
        for kill in (True, True, False):
            child = await asyncio.create_subprocess_exec(
                sys.executable, WORKER, settings, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            lost += json.loads(await child.stdout.readline())
            if kill:
                before = sum(handled.values())
                wanted = before + draw.randrange(5, 25)
                while sum(handled.values()) < wanted and child.returncode is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                with contextlib.suppress(ProcessLookupError):  # it may have done everything already
                    child.kill()
                await child.wait()
            else:
                out, err = await child.communicate()
                assert child.returncode == 0, err.decode()
                assert json.loads(out) == [f"to question {number}" for number in range(60)]
    assert set(handled) == {f"question {number}" for number in range(60)}
    repeats = sum(handled.values()) - 60
    assert repeats <= len(lost)
    async with AnswerCache(tmp_path / "a") as cache:
        assert await cache.lost("the run") == []
