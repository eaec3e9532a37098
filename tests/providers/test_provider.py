"""The whole way of a request against a real server that misbehaves."""

import asyncio
import random

import pytest
from aiohttp import web
from asked import PRICE, REQUEST, SET_ASIDE, Listed, provider, then_ok
from loopback import completion, cut_off, hang, status

from cbtrain.providers.attempt import Endpoint
from cbtrain.providers.caching.cache import AnswerCache
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Billing, Ledger
from cbtrain.providers.costs.token_estimate import prompt_tokens
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.formats.openai import OpenAIFormat
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience, Provider
from cbtrain.providers.transport import HttpTransport, open_session
from cbtrain.providers.types import ChatRequest, Message


async def not_json(request):
    return web.Response(text="<html>", content_type="text/html")


async def empty(request):
    return web.Response(body=b"")


async def half_json(request):
    return web.Response(text='{"choices": [{"mess', content_type="application/json")


async def blank_lines(request):
    """What DeepSeek sends while a request is queued, and then never answers."""
    reply = web.StreamResponse()
    await reply.prepare(request)
    for _ in range(1000):
        await reply.write(b"\n")
        await asyncio.sleep(0.01)
    return reply


async def late(request):
    """Blank lines, then the answer after all."""
    reply = web.StreamResponse()
    await reply.prepare(request)
    for _ in range(3):
        await reply.write(b"\n")
        await asyncio.sleep(0.01)
    await reply.write(web.json_response(completion("fine")).body)
    return reply


async def hang_up(request):
    request.transport.close()
    return web.Response()


async def stuck(request):
    """The beginning of an answer, and nothing more."""
    reply = web.StreamResponse()
    await reply.prepare(request)
    await reply.write(b'{"choices": [')
    await asyncio.sleep(3600)
    raise AssertionError


async def dripping(request):
    """An answer byte by byte: slow, but never silent."""
    reply = web.StreamResponse()
    await reply.prepare(request)
    body = web.json_response(completion("fine")).body
    for place in range(0, len(body), 40):
        await reply.write(body[place : place + 40])
        await asyncio.sleep(0.05)
    return reply


ODD = [
    {"choices": [{"message": None}]},
    {"choices": [{"message": {"content": ["x"]}}]},
    {"choices": [{"message": {"content": "\ud800"}}]},
    {"choices": "x"},
]

PASSING = [status(500), status(503), status(429), cut_off, not_json, empty, half_json, hang_up, {"choices": []}]


@pytest.mark.parametrize("fault", [*PASSING, *ODD])
async def test_passing_faults_are_repeated(fault):
    async with provider(then_ok(fault, fault)) as (made, script):
        response = await made.chat(REQUEST)
    assert (response.text, response.attempts, len(script.bodies)) == ("fine", 3, 3)


async def test_blank_lines_before_an_answer_are_nothing_and_without_one_end_at_the_deadline():
    async with provider(then_ok(late)) as (made, _):
        assert (await made.chat(REQUEST)).attempts == 1
    async with provider(then_ok(blank_lines), patience=Patience(attempt_s=1.0, backoff_s=0.01)) as (made, _):
        assert (await made.chat(REQUEST)).attempts == 2


async def test_a_reply_that_falls_silent_is_given_up_and_a_slow_one_is_not():
    async with provider(then_ok(stuck), idle_s=0.3) as (made, _):
        assert (await made.chat(REQUEST)).attempts == 2
    async with provider(lambda number, body: dripping, idle_s=0.5) as (made, _):
        assert (await made.chat(REQUEST)).attempts == 1
    budget = Budget()
    patience = Patience(retries=0)
    async with provider(lambda number, body: stuck, idle_s=0.2, budget=budget, price=PRICE, patience=patience) as (
        made,
        _,
    ):
        with pytest.raises(ProviderError, match=r"no part of the reply arrived for 0.2 s"):
            await made.chat(REQUEST)
    assert budget.roles["patient"].unknown == 1


async def test_nobody_there_costs_nothing():
    budget = Budget()
    async with open_session() as session:
        endpoint = Endpoint(OpenAIFormat("http://127.0.0.1:9/v1", "m"))
        made = Provider(HttpTransport(session), endpoint, Account(), Billing("patient", PRICE, Ledger(budget)),
                        patience=Patience(retries=1, backoff_s=0.01))  # fmt: skip
        with pytest.raises(ProviderError, match="transient: .*after 2 attempts"):
            await made.chat(REQUEST)
        endpoint = Endpoint(OpenAIFormat("no-address", "m"))
        made = Provider(HttpTransport(session), endpoint, Account(), Billing("patient", PRICE, Ledger(budget)))
        with pytest.raises(ProviderError, match="permanent: not a usable address"):
            await made.chat(REQUEST)
    assert (budget.spent, budget.reserved) == (0, 0)


async def test_another_name_in_the_answers_is_told_of_once_a_name():
    told = []
    names = ["a", "a", "b", "a", "b", "c"]
    async with provider(lambda number, body: completion("fine") | {"model": names[number - 1]}) as (made, _):
        made.warn = told.append
        for _ in names:
            await made.chat(REQUEST)
    assert [text.split(":")[0] for text in told] == [
        "the patient's API now answers with model b, not a",
        "the patient's API now answers with model c, not a, b",
    ]


class CancelledAt:
    """Runs a coroutine and cancels its task where it waits for the ``number``-th time; ``reached`` tells whether it
    ever waited so often."""

    def __init__(self, coroutine, number):
        self.coroutine, self.number, self.reached = coroutine, number, False

    def __await__(self):
        steps, waits = self.coroutine.__await__(), 0
        send, value = steps.send, None
        while True:
            try:
                future = send(value)
            except StopIteration as end:
                return end.value
            waits += 1
            if waits == self.number:
                self.reached = True
                asyncio.current_task().cancel()
            try:
                send, value = steps.send, (yield future)
            except BaseException as error:  # cancelled: hand it on to where the coroutine waits
                send, value = steps.throw, error


@pytest.mark.parametrize("fault", [None, status(500), status(429, headers={"Retry-After": "0"}), cut_off])
async def test_cancelled_at_every_await_leaves_nothing_taken(fault, tmp_path):
    """Permit, tokens, money, locks: all are back, and what went out and is not known is booked."""
    events = []
    async with AnswerCache(tmp_path / "answers") as cache:
        number = 0
        while True:
            number += 1
            budget, account = Budget(cap=1.0), Account(tokens_per_minute=1_000_000)
            plan = then_ok(fault) if fault else then_ok()
            async with provider(plan, account=account, price=PRICE, budget=budget) as (made, script):
                with Ledger(budget, Listed(events)) as made.ledger:
                    made.cache = cache
                    waiting = CancelledAt(made.chat(REQUEST, sample=number), number)

                    async def ask(waiting=waiting):
                        await waiting

                    found = (await asyncio.gather(asyncio.create_task(ask()), return_exceptions=True))[0]
                    assert (account.limit.in_use, account.limit.waiting, cache._locks) == (0, 0, {})
                    assert (budget.reserved, made.under_way) == (0, {})
                    role = budget.roles["patient"]
                    assert budget.spent == pytest.approx(
                        0.01 * (role.requests - role.unknown) + SET_ASIDE * role.unknown
                    )
                    # One may have been cancelled between its note and its way out.
                    assert role.requests <= len(script.bodies) + 1
                    assert account.tokens.level > 1_000_000 - 100
            started = [fields["request"] for kind, fields in events if kind == "request_started"]
            ended = [fields["request"] for kind, fields in events if kind == "request_ended"]
            assert started == ended
            events.clear()
            if not waiting.reached:
                assert found is None
                break
            assert isinstance(found, asyncio.CancelledError)
    assert number > 5


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (status(400, "bad field"), "permanent"),
        (status(401), "permanent"),
        (status(400, "This model's maximum context length is 9"), "context_overflow"),
        (status(400, "stopped by content_filter"), "content_filter"),
        (status(301, headers={"Location": "http://127.0.0.1:9/"}), "permanent"),
    ],
)
async def test_lasting_faults_end_at_once(fault, kind):
    async with provider(lambda number, body: fault) as (made, script):
        with pytest.raises(ProviderError) as caught:
            await made.chat(REQUEST)
    assert (caught.value.kind, len(script.bodies)) == (kind, 1)


async def test_repeats_end():
    patience = Patience(retries=2, backoff_s=0.01)
    async with provider(lambda number, body: status(500, "still broken"), patience=patience) as (made, script):
        with pytest.raises(ProviderError, match="HTTP 500, transient: still broken after 3 attempts"):
            await made.chat(REQUEST)
    assert len(script.bodies) == 3
    patience = Patience(attempt_s=0.2, overall_s=0.5, retries=1000, backoff_s=0.01)
    async with provider(lambda number, body: hang, patience=patience) as (made, script):
        with pytest.raises(ProviderError, match="no complete answer|no turn"):
            await made.chat(REQUEST)
    assert len(script.bodies) <= 3


async def test_waiting_for_a_repeats_turn_is_no_part_of_the_overall_deadline():
    """Many wait for one place: whoever has met a fault stands in the queue again, which is nobody's failure."""
    account = Account(start=1, most=1)

    async def slow(request):
        await asyncio.sleep(0.05)
        return web.json_response(completion("fine"))

    plan = lambda number, body: status(500) if number == 1 else slow  # noqa: E731
    patience = Patience(overall_s=0.5, backoff_s=0.01)
    async with provider(plan, account=account, patience=patience) as (made, _):
        found = await asyncio.gather(*(made.chat(REQUEST) for _ in range(30)))
    assert sorted(response.attempts for response in found) == [1] * 29 + [2]


async def test_a_wait_that_nobody_would_sit_out_is_a_failure_with_its_name():
    account, told = Account(), []
    headers = {"Retry-After": "86400"}
    async with provider(lambda number, body: status(429, "quota", headers=headers), account=account) as (made, script):
        for _ in range(2):
            with pytest.raises(ProviderError, match=r"rate limit: quota \(it asks to wait 86,400 s\)"):
                await made.chat(REQUEST)
        assert account.gate.left == 0
    assert len(script.bodies) == 2
    headers = {"Retry-After": "100"}
    patience = Patience(overall_s=200, retries=0)
    async with provider(lambda number, body: status(429, "busy", headers=headers), patience=patience) as (made, _):
        made.warn = told.append
        found = await asyncio.gather(*(made.chat(REQUEST) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(error, ProviderError) for error in found)
        assert 99 < made.account.gate.left <= 100
    assert told == ["the patient's API asks to wait 100 s: busy"]


async def test_repeats_within_the_budget_close_no_door_however_long_the_queue_is():
    """Requests count when they go out: a thousand that have waited for an hour are no reason to rest."""
    account = Account(start=2, most=2)

    async def note(request):
        return web.json_response(completion("fine"))

    plan = lambda number, body: status(500) if number % 20 == 0 else note  # noqa: E731
    async with provider(plan, account=account) as (made, _):
        account.retries.window_s = 0.2  # a minute, in little
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(made.chat(REQUEST) for _ in range(400)))
        assert asyncio.get_running_loop().time() - began < 9  # a single rest takes ten seconds
    assert account.gate.opens_at == 0


async def test_whole_replies_that_are_no_answers_are_not_paid_for_for_ever():
    budget = Budget()
    async with provider(lambda number, body: {"choices": "x"}, budget=budget, price=PRICE) as (made, script):
        with pytest.raises(ProviderError, match="not an answer of this protocol"):
            await made.chat(REQUEST)
    assert len(script.bodies) == budget.roles["patient"].unknown == 3


@pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource"])
async def test_an_answer_that_was_broken_off_is_asked_for_again_and_paid(finish, tmp_path):
    budget, account, settled = Budget(), Account(), []
    account.settle = lambda tokens, used: settled.append(used)
    async with AnswerCache(tmp_path / "a") as cache:
        plan = then_ok(completion("half an ans", finish))
        async with provider(plan, budget=budget, price=PRICE, account=account) as (made, script):
            made.cache = cache
            assert [(await made.chat(REQUEST)).text for _ in range(2)] == ["fine", "fine"]
    assert len(script.bodies) == 2
    assert budget.spent == pytest.approx(0.02)
    assert settled == [10, 10]  # tokens a minute are given back once


async def test_an_answer_that_says_no_usage_costs_all_that_was_set_aside():
    budget = Budget()
    silent = {"choices": completion("fine")["choices"], "model": "m"}
    async with provider(lambda number, body: silent, budget=budget, price=PRICE) as (made, _):
        await made.chat(REQUEST)
    assert budget.spent == pytest.approx(SET_ASIDE)


async def test_what_is_set_aside_counts_all_that_is_sent_and_all_that_may_come():
    schema = {"type": "object", "properties": {f"domain {n}": {"type": "integer"} for n in range(40)}}
    seen = []
    async with provider(then_ok(), budget=Budget(), price=PRICE) as (made, _):
        reserve = made.ledger.reserve
        made.ledger.reserve = lambda role, price, prompt, most: (
            seen.append((prompt, most)),
            reserve(role, price, prompt, most),
        )[1]
        await made.chat(REQUEST)
        await made.chat(ChatRequest(REQUEST.messages, 9, json_schema=schema))
        await made.chat(ChatRequest((Message("user", "我昨晚又没睡好。" * 100),), 9))
        made.endpoint = Endpoint(
            OpenAIFormat(made.endpoint.api_format.base_url, "m", extra_body={"max_tokens": 20_000})
        )
        await made.chat(REQUEST)
    (plain, most), (schemed, _), (chinese, _), (_, longest) = seen
    assert schemed > plain + len(str(schema)) / 4
    assert chinese >= 800  # about one to a character
    assert (most, longest) == (9, 20_000)


async def test_an_api_that_counts_more_tokens_than_was_thought_is_believed():
    many = completion("fine") | {"usage": {"prompt_tokens": 3000, "completion_tokens": 3}}
    budget = Budget()
    long = ChatRequest((Message("user", "hm " * 2000),), 9)
    async with provider(lambda number, body: many, budget=budget, price=PRICE) as (made, _):
        await made.chat(long)
        thought = prompt_tokens(made.endpoint.api_format.request(long))
        assert (made.estimate.of(thought), made.estimate.of(2 * thought)) == (3000, 6000)


async def test_a_refusal_holds_back_the_other_requests_too():
    times = []

    async def note(request):
        times.append(asyncio.get_running_loop().time())
        return web.json_response(completion("fine"))

    plan = lambda number, body: status(429, headers={"Retry-After": "0.5"}) if number == 1 else note  # noqa: E731
    account = Account(start=1, most=1)
    async with provider(plan, account=account) as (made, _):
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(*(made.chat(REQUEST) for _ in range(5)))
    assert len(times) == 5
    assert min(times) - begun >= 0.5
    assert [change.why for change in account.limit.history] == ["start"]  # it is as low as it goes


async def test_costs_are_booked_as_answered_lost_or_not_at_all():
    budget = Budget(cap=10.0)
    async with provider(then_ok(status(500), hang, cut_off), budget=budget, price=PRICE,
                        patience=Patience(attempt_s=1.5, backoff_s=0.01)) as (made, _):  # fmt: skip
        await made.chat(REQUEST)
    role = budget.roles["patient"]
    assert (role.requests, role.unknown) == (3, 2)
    assert role.dollars == pytest.approx(2 * SET_ASIDE + 0.01)
    assert budget.reserved == 0


async def test_a_budget_stops_requests_before_it_is_exceeded():
    budget = Budget(cap=0.2)
    async with provider(then_ok(), budget=budget, price=PRICE) as (made, script):
        found = await asyncio.gather(*(made.chat(REQUEST) for _ in range(30)), return_exceptions=True)
        errors = [error for error in found if isinstance(error, ProviderError)]
        assert {error.kind for error in errors} == {"budget"}
        # The last goes out while what is set aside for it is left.
        assert len(script.bodies) == 30 - len(errors) == int((0.2 - SET_ASIDE) / 0.01 + 1e-6) + 1
    assert budget.spent == pytest.approx(0.01 * len(script.bodies))
    assert budget.reserved == 0


async def test_cancelled_in_the_queue_costs_nothing_and_under_way_what_was_set_aside():
    budget, account, arrived = Budget(), Account(start=1, most=1), asyncio.Event()

    async def arrive(request):
        arrived.set()
        await hang(request)

    async with provider(lambda number, body: arrive, budget=budget, price=PRICE, account=account) as (made, _):
        tasks = [asyncio.create_task(made.chat(REQUEST)) for _ in range(3)]
        await asyncio.wait_for(arrived.wait(), 5)
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert budget.roles["patient"].requests == 1
    assert budget.spent == pytest.approx(SET_ASIDE)
    assert (budget.reserved, account.limit.in_use, account.limit.waiting) == (0, 0, 0)


async def test_the_key_goes_out_and_nowhere_else():
    key = "planted-secret-123"
    async with provider(lambda number, body: status(401, f"bad key {key}"), key=key) as (made, script):
        with pytest.raises(ProviderError) as caught:
            await made.chat(REQUEST)
        shown = f"{made!r} {made.endpoint!r} {caught.value} {caught.value!r} {caught.value.__dict__}"
    assert script.headers[0]["Authorization"] == f"Bearer {key}"
    assert key not in shown


async def test_a_word_in_a_keys_place_is_left_in_answers():
    async with provider(lambda number, body: completion("EMPTY is how I feel. x"), key="EMPTY") as (made, _):
        assert (await made.chat(REQUEST)).text == "EMPTY is how I feel. x"


@pytest.mark.parametrize("seed", range(3))
async def test_many_conversations_under_a_mix_of_faults_all_end_and_nothing_leaks(seed):
    draw = random.Random(seed)

    def plan(number, body):
        if draw.random() < 0.75:
            return completion(f"answer to {body['messages'][-1]['content']}")
        return draw.choice([*PASSING, late, status(400, "no"), status(429, headers={"Retry-After": "0.05"})])

    account, budget = Account(start=10), Budget(cap=100.0)
    patience = Patience(attempt_s=2, overall_s=20, retries=5, backoff_s=0.01)
    async with provider(plan, account=account, budget=budget, price=PRICE, patience=patience) as (made, _):
        account.retries.least = 10**6  # their share, for which they would wait, has tests of its own

        async def talk(number):
            for turn in range(3):
                said = f"{number}/{turn}"
                response = await made.chat(ChatRequest((Message("user", said),), max_tokens=9))
                assert response.text == f"answer to {said}" or response.text == "fine"

        tasks = [asyncio.create_task(talk(number)) for number in range(60)]
        for task in tasks[::10]:
            asyncio.get_running_loop().call_later(draw.random(), task.cancel)
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    kinds = {type(end) for end in found}
    assert kinds <= {type(None), ProviderError, asyncio.CancelledError}
    assert type(None) in kinds
    assert (account.limit.in_use, account.limit.waiting) == (0, 0)
    assert budget.reserved == pytest.approx(0)
