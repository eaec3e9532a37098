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
from cbtrain.journal import Journal, read
from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.caching import lease
from cbtrain.providers.caching.cache import AnswerCache, open_answers, request_key
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Billing, Ledger
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.costs.token_estimate import prompt_tokens
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.api_format import WireRequest
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.providers import Providers
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
            # The first one stays: what is on disk is never overwritten.
            assert (await provider(session, script, cache).chat(asking("x"))).text == "answer 1"


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
    assert "answers cannot be saved here (database or disk is full)" in told[0]


@pytest.mark.fault("F7")
@pytest.mark.parametrize(
    "change", ["answer = '{'", "answer = replace(answer, 'answer 1', 'answer 7')", "answer = NULL"]
)
async def test_a_damaged_answer_is_asked_for_again_and_replaced(change, tmp_path):
    async with serve(lambda number, body: completion(f"answer {number}")) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a") as cache:
            made = provider(session, script, cache)
            await made.chat(asking("x"))

            def damage():
                with cache._database:
                    cache._database.execute(f"UPDATE answers SET {change}")

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
    with pytest.raises(UserError, match="answers cannot be saved here") as caught:
        async with AnswerCache(file):
            pass
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == content
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="answers cannot be saved here"):
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


@pytest.mark.fault("F8")
async def test_two_processes_on_one_file_pay_once_for_an_answer(tmp_path):
    async with serve(slowly(lambda body: f"to {body['messages'][0]['content']}")) as script:
        settings = run_settings(tmp_path, script, count=40)
        workers = [await start(settings | {"folder": str(tmp_path / name)}) for name in ("one", "two")]
        ended = [await worker.communicate() for worker in workers]
    requests = 0
    for worker, (out, err) in zip(workers, ended, strict=True):
        assert worker.returncode == 0, err.decode()
        answers, costs = json.loads(out.splitlines()[-1])
        assert answers == [f"to question {number}" for number in range(40)]
        assert costs["roles"][0]["requests"] + costs["roles"][0]["reused"] == 40
        requests += costs["roles"][0]["requests"]
    assert requests == len(script.bodies) == 40


@pytest.mark.fault("F8")
async def test_a_killed_process_blocks_nobody(tmp_path):
    """The first one is killed with all its requests out; the second, which waits for them, asks itself."""
    hang, asked = asyncio.Event(), Counter()

    def plan(number, body):
        asked[body["messages"][0]["content"]] += 1
        return slowly(lambda body: "fine", None if hang.is_set() else hang)(number, body)

    async with serve(plan) as script:
        settings = run_settings(tmp_path, script, count=12)
        first = await start(settings | {"folder": str(tmp_path / "one")})
        while len(script.bodies) < 12:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        second = await start(settings | {"folder": str(tmp_path / "two")})
        await second.stdout.readline()  # it has opened the file
        await asyncio.sleep(0.3)
        assert len(script.bodies) == 12
        first.kill()
        await first.wait()
        hang.set()
        out, err = await second.communicate()
    assert second.returncode == 0, err.decode()
    answers, costs = json.loads(out.splitlines()[-1])
    assert answers == ["fine"] * 12
    assert costs["roles"][0]["requests"] == 12
    assert set(asked.values()) == {2}


def slowly(text_of, until=None):
    """Answers after a moment, or once the event ``until`` is set."""

    def plan(number, body):
        async def answer(request):
            await (until.wait() if until else asyncio.sleep(0.05))
            return web.json_response(completion(text_of(body)))

        return answer

    return plan


@pytest.mark.fault("F8")
async def test_a_lease_ends_with_its_owners_beats_and_not_before(tmp_path, monkeypatch):
    """Of an owner on another machine nothing is known but its beats."""
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    monkeypatch.setattr(lease, "EXPIRY_S", 0.4)
    released, told = asyncio.Event(), []
    async with serve(slowly(lambda body: "the first one's", released)) as script, open_session() as session:
        async with AnswerCache(tmp_path / "a") as one, AnswerCache(tmp_path / "a") as two:
            asking_first = asyncio.create_task(provider(session, script, one).chat(asking("x")))
            while not script.bodies:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(provider(session, script, two, warn=told.append).chat(asking("x")))
            await asyncio.sleep(1.0)
            assert len(script.bodies) == 1
            assert not waiting.done()
            released.set()
            assert [(await task).text for task in (asking_first, waiting)] == ["the first one's"] * 2
            assert len(script.bodies) == 1
            assert told == [
                "another process has sent the judge's API the same request; this process waits for that answer"
            ]
            gone = (
                "INSERT INTO leases VALUES (?, 'elsewhere/1/x', 7)",
                (request_key(OpenAIFormat(script.url, "m").request(asking("y"))),),
            )
            await one._do(lambda: one._database.execute(*gone) and one._database.commit())
            assert (await provider(session, script, two).chat(asking("y"))).attempts == 1


@pytest.mark.fault("F8")
async def test_a_lease_is_given_back_wherever_one_is_cancelled(tmp_path):
    async with AnswerCache(tmp_path / "a") as cache:

        async def hold():
            async with cache.ask("k"):
                await asyncio.sleep(0.002)

        for moment in range(40):
            task = asyncio.create_task(hold())
            await asyncio.sleep(moment / 10_000)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            left = await cache._do(lambda: cache._database.execute("SELECT count(*) FROM leases").fetchone())
            assert left == (0,), moment


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


@pytest.mark.fault("F4")
@pytest.mark.parametrize(("dense", "hidden"), [(3, 0), (1, 400), (2.5, 150)])
async def test_a_budget_holds_where_an_api_counts_more_than_its_prompts_seem_to_have(
    dense, hidden, tmp_path, monkeypatch
):
    """Restarted again and again: what was learnt of its counting is in the journal, so that no later process spends
    more than there is. By the server's own bill."""
    monkeypatch.setenv("A_KEY", "k")
    bill = []

    def plan(number, body):
        counted = round(len(json.dumps(body)) / 3 * dense) + hidden
        bill.append(counted / 1000)
        return completion("fine") | {"usage": {"prompt_tokens": counted, "completion_tokens": 1}}

    async with serve(plan) as script:
        price = Price(input=1000.0, output=0.0)
        config = script.config(api_key_env="A_KEY", price=price, reuse=False, max_retries=0)
        # The first process learns. With less than a request costs none goes out afterwards, with more one does.
        for number, (share, wanted) in enumerate([(None, 1), (0.8, 0), (1.6, 1), (0.8, 0), (1.6, 1)]):
            budget = 100.0 if share is None else sum(bill) + share * max(bill)
            before = len(bill)
            with Journal(tmp_path / "events.jsonl") as journal:
                past, settings = list(read(journal.path)), ProvidersConfig(budget=budget)
                async with Providers(settings, events=journal, earlier_events=past) as providers:
                    made = await providers.open(config, "judge")
                    many = range(1 if share is None else 4)
                    asks = [made.chat(asking(f"{number}, {n}: " + "word " * 150)) for n in many]
                    ended = await asyncio.gather(*asks, return_exceptions=True)
            assert sum(bill) <= budget
            assert len(bill) - before == wanted
            assert {response.kind for response in ended if isinstance(response, ProviderError)} <= {"budget"}
    assert len(bill) == 3
    started = [event for event in read(tmp_path / "events.jsonl") if event["kind"] == "request_started"]
    assert {(event["api"], event["model"]) for event in started} == {(script.url, "m")}
