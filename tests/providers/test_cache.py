"""What was paid for once is not asked for again: also by another run, and after a kill at any moment."""

import asyncio
import contextlib
import json
import os
import random
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web
from loopback import completion, serve
from places import SHARED

from cbtrain.errors import UserError
from cbtrain.journal import read
from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.caching.cache import AnswerCache, open_answers, request_key
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Billing, Ledger
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.costs.token_estimate import prompt_tokens
from cbtrain.providers.formats.api_format import WireRequest
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.transport import HttpTransport, open_session
from cbtrain.providers.types import ChatRequest, Message

WORKER = SHARED / "paying_worker.py"
PRICE = Price(input=1000.0, output=1000.0)


def asking(text, **more):
    return ChatRequest((Message("user", text),), max_tokens=9, **more)


def provider(session, script, cache, billing=None, **more):
    billing = billing or Billing("judge", None, Ledger(Budget()))
    endpoint = Endpoint(OpenAIFormat(script.url, "m"))
    settings = {"patience": Patience(backoff_s=0.01), "cache": cache, **more}
    return Provider(HttpTransport(session), endpoint, Account(), billing, **settings)


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
                made = provider(session, script, cache, Billing("judge", PRICE, Ledger(budget)))
                found = [await made.chat(asking("same"), sample) for sample in (0, 0, 1)]
                assert [response.text for response in found] == ["answer 1", "answer 1", "answer 2"]
                assert [response.usage.prompt_tokens for response in found] == [7, 7, 7]
                role = budget.roles["judge"]
                assert (role.requests, role.reused) == ((2, 1) if run == "one" else (0, 3))
                assert role.dollars == pytest.approx(0.02 if run == "one" else 0)
        assert len(script.bodies) == 2
        assert found[0].attempts == 0
    assert (tmp_path / "answers.sqlite").stat().st_mode & 0o077 == 0  # patients' words are nobody else's


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
        assert len(script.bodies) == 2


async def test_kept_answers_are_not_taken_where_they_shall_not_be(tmp_path):
    async with serve(lambda number, body: completion(f"answer {number}")) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a", reuse=False) as cache:
            anew = provider(session, script, cache)
            assert [(await anew.chat(asking("x"))).text for _ in range(2)] == ["answer 1", "answer 2"]
        async with AnswerCache(tmp_path / "a") as cache:
            assert (await provider(session, script, cache).chat(asking("x"))).text == "answer 2"


async def test_an_answer_that_cannot_be_kept_is_not_lost(tmp_path):
    told = []
    async with serve(lambda number, body: completion("fine")) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a") as cache:
            made = provider(session, script, cache, warn=told.append)
            await cache._do(lambda: cache._database.execute("PRAGMA max_page_count = 3"))
            long = completion("a long answer " * 2000)
            script.plan = lambda number, body: long
            for number in range(3):
                assert (await made.chat(asking(str(number)))).text.startswith("a long answer")
    assert len(told) == 1
    assert "answers cannot be kept here (database or disk is full)" in told[0]


async def test_a_damaged_answer_is_asked_for_again_and_replaced(tmp_path):
    async with serve(lambda number, body: completion(f"answer {number}")) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a") as cache:
            made = provider(session, script, cache)
            await made.chat(asking("x"))

            def damage():
                with cache._database:
                    cache._database.execute("UPDATE answers SET answer = '{'")

            await cache._do(damage)
            assert [(await made.chat(asking("x"))).text for _ in range(2)] == ["answer 2", "answer 2"]


async def test_half_a_letter_breaks_nothing(tmp_path):
    async with serve(lambda number, body: completion("fine")) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a") as cache:
            made = provider(session, script, cache)
            assert [(await made.chat(asking("x\ud83d"))).attempts for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 20])
async def test_another_file_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "a"
    file.write_bytes(content)
    with pytest.raises(UserError, match="answers cannot be kept here") as caught:
        async with AnswerCache(file):
            pass
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == content
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="answers cannot be kept here"):
        async with AnswerCache(tmp_path / "folder"):
            pass


def test_many_may_make_the_file_at_the_same_moment(tmp_path):
    """The switch to the write-ahead log is the one lock that SQLite itself does not wait for."""
    together = threading.Barrier(8)

    def opened(path):
        together.wait()
        open_answers(path).close()

    with ThreadPoolExecutor(8) as many:
        for round_number in range(60):
            list(many.map(opened, [tmp_path / str(round_number)] * 8))


async def test_two_processes_may_use_one_file(tmp_path):
    async with serve(lambda number, body: completion(f"to {body['messages'][0]['content']}")) as script:
        settings = run_settings(tmp_path, script, count=40)
        workers = [await start(settings | {"folder": str(tmp_path / name)}) for name in ("one", "two")]
        ended = [await worker.communicate() for worker in workers]
    for worker, (out, err) in zip(workers, ended, strict=True):
        assert worker.returncode == 0, err.decode()
        answers, costs = json.loads(out.splitlines()[-1])
        assert answers == [f"to question {number}" for number in range(40)]
        assert costs["roles"][0]["requests"] + costs["roles"][0]["reused"] == 40


def run_settings(tmp_path, script, **more):
    provider = {"base_url": script.url, "model": "m", "backoff_s": 0.01, "api_key_env": "PAYING_WORKER_KEY"}
    price = {"input": 1000.0, "output": 1000.0}
    answers, folder = str(tmp_path / "answers"), str(tmp_path / "run")
    return {"answers": answers, "folder": folder, "provider": provider | {"price": price}, **more}


async def start(settings):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, WORKER, json.dumps(settings)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PAYING_WORKER_KEY": "a-key"},
    )


@pytest.mark.parametrize("seed", range(4))
async def test_killed_anywhere_nothing_that_was_answered_is_asked_for_again(seed, tmp_path):
    """By the server's own log: twice at most what was in flight at a kill. That is counted at what it may have cost."""
    draw = random.Random(seed)
    handled = Counter()

    async def slow(request):
        await asyncio.sleep(draw.random() * 0.05)
        body = await request.json()
        return web.json_response(completion(f"to {body['messages'][0]['content']}"))

    def plan(number, body):
        handled[body["messages"][0]["content"]] += 1
        return slow

    async with serve(plan) as script:
        settings = run_settings(tmp_path, script, count=60)
        for kill in (True, True, False):
            child = await start(settings)
            await child.stdout.readline()
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
    answers, spent = json.loads(out)
    assert answers == [f"to question {number}" for number in range(60)]
    assert set(handled) == {f"question {number}" for number in range(60)}
    events = list(read(tmp_path / "run" / "events.jsonl"))
    unknown = [event for event in events if event["kind"] == "unknown_outcome"]
    repeats = sum(handled.values()) - 60
    assert repeats <= len(unknown)
    started = [event["request"] for event in events if event["kind"] == "request_started"]
    closed = [e["request"] for e in events if e["kind"] in ("request_ended", "unknown_outcome")]
    assert sorted(closed) == sorted(started) == sorted(set(started))
    (role,) = spent["roles"]
    answered = [event for event in events if event["kind"] == "request_ended"]
    assert (role["requests"], role["unknown"]) == (len(answered) + len(unknown), len(unknown))
    by_hand = sum(event["dollars"] for event in events if event["kind"] in ("request_ended", "unknown_outcome"))
    assert role["dollars"] == spent["dollars"] == pytest.approx(by_hand)
    # At what was set aside: the prompt as estimated, and the longest answer.
    bodies = [OpenAIFormat(script.url, "m").request(asking(f"question {number}")) for number in (1, 10)]
    assert {event["dollars"] for event in unknown} <= {(prompt_tokens(made) + 9) / 1000 for made in bodies}


async def test_a_budget_holds_over_kills_and_continued_runs(tmp_path):
    async with serve(lambda number, body: completion("fine")) as script:
        settings = run_settings(tmp_path, script, count=60, budget=0.2)
        child = await start(settings)
        _, err = await child.communicate()
        assert b"budget: the next judge request may cost" in err
        once = len(script.bodies)
        assert 15 <= once <= 20
        child = await start(settings)
        out, err = await child.communicate()
        assert b"budget: the next judge request may cost" in err
        assert len(script.bodies) == once
        assert json.loads(out)["dollars"] == pytest.approx(once * 0.01)
        child = await start(settings | {"budget": 1.0})
        out, err = await child.communicate()
        assert child.returncode == 0, err.decode()
        assert len(script.bodies) == 60
        assert json.loads(out.splitlines()[-1])[1]["dollars"] == pytest.approx(0.6)
