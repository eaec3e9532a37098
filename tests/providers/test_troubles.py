"""Troubles on this side of an API: a disk that is full, money that runs out, too many repeats. Each costs what it has to
cost and nothing more."""

import asyncio
import json
import os

import pytest
from asked import PRICE, REQUEST, Listed, provider, then_ok
from loopback import completion, serve, status

from cbtrain.errors import UserError
from cbtrain.journal import Journal, read
from cbtrain.providers.cassette import Recorder
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.costs.budget import Budget
from cbtrain.providers.costs.ledger import Ledger
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.costs.token_estimate import prompt_tokens
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.limits.account import Account
from cbtrain.providers.provider import Patience
from cbtrain.providers.providers import Providers
from cbtrain.providers.summary import costs
from cbtrain.providers.transport import HttpTransport, open_session
from cbtrain.providers.types import ChatRequest, Message

FULL = OSError(28, "No space left on device")


def asking(text):
    return ChatRequest((Message("user", text),), max_tokens=9)


async def test_a_recording_on_a_full_disk_is_told_of_once_and_nothing_is_paid_for_twice(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", "planted-secret-123")
    told = []
    async with serve(then_ok()) as script:
        run = ProvidersConfig(record="/dev/full", answers=":memory:")
        async with Providers(run, warn=told.append) as providers:
            for role in ("patient", "judge"):
                paid = script.config(api_key_env="TEST_API_KEY", price=PRICE, reuse=False)
                made = await providers.open(paid, role)
                found = [await made.chat(asking(f"{role} {number}")) for number in range(3)]
                assert [response.attempts for response in found] == [1, 1, 1]
            spent = costs(providers)
        assert len(script.bodies) == 6
    assert spent["dollars"] == pytest.approx(0.06)
    assert told == ["/dev/full is incomplete: it cannot be written (No space left on device). The run continues"]


async def test_half_a_line_of_a_recording_is_taken_back(tmp_path, monkeypatch):
    tape, write, told = tmp_path / "tape.jsonl", os.write, []
    async with open_session() as session:
        with Recorder(HttpTransport(session), tape, told.append) as recorder:
            async with provider(then_ok()) as (made, _):
                made.transport = recorder
                await made.chat(asking("one"))
                monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:20]))
                await made.chat(asking("two"))
                monkeypatch.setattr(os, "write", write)
                await made.chat(asking("three"))
    said = [json.loads(line)["body"]["messages"][0]["content"] for line in tape.read_text().splitlines()]
    assert said == ["one", "three"]
    assert len(told) == 1


async def test_half_a_letter_in_an_apis_error_fails_nothing_else(tmp_path):
    """It can be written nowhere; and requests of others stand in the same batch."""
    bad = status(400, "no such field \ud83d")
    plan = lambda number, body: bad if "bad" in body["messages"][0]["content"] else completion("fine")  # noqa: E731
    with Journal(tmp_path / "events.jsonl") as journal:
        async with provider(plan, budget=Budget(), price=PRICE) as (made, _):
            with Ledger(made.ledger.budget, journal) as made.ledger:
                texts = [f"{'bad' if number % 2 else 'good'} {number}" for number in range(20)]
                found = await asyncio.gather(*(made.chat(asking(text)) for text in texts), return_exceptions=True)
    assert [getattr(end, "text", None) for end in found] == ["fine", None] * 10
    assert {str(end) for end in found[1::2]} == {"HTTP 400, permanent: no such field ?"}
    events = list(read(tmp_path / "events.jsonl"))
    started = [event["request"] for event in events if event["kind"] == "request_started"]
    ended = {event["request"]: event["outcome"] for event in events if event["kind"] == "request_ended"}
    assert len(started) == 20
    assert sorted(ended) == sorted(started)
    assert sorted(ended.values()) == ["answered"] * 10 + ["failed"] * 10


async def test_what_cannot_be_written_of_one_request_stops_no_other():
    events, failing = [], lambda kind, fields: FULL if kind == "request_started" and fields["request"] == 3 else None
    async with provider(then_ok(), budget=Budget(), price=PRICE) as (made, script):
        with Ledger(made.ledger.budget, Listed(events, failing)) as made.ledger:
            found = await asyncio.gather(*(made.chat(asking(str(n))) for n in range(6)), return_exceptions=True)
        assert len(script.bodies) == 5  # nothing goes out that is not written down
    (error,) = [end for end in found if isinstance(end, Exception)]
    assert isinstance(error, UserError)
    assert "cannot be recorded before it is sent (No space left on device)" in str(error)
    assert made.ledger.budget.reserved == 0
    assert made.ledger.budget.spent == pytest.approx(0.05)


async def test_nothing_goes_out_while_the_disk_takes_nothing():
    async with provider(then_ok(), budget=Budget(), price=PRICE) as (made, script):
        with Ledger(made.ledger.budget, Listed([], unsynced=FULL)) as made.ledger:
            found = await asyncio.gather(*(made.chat(asking(str(n))) for n in range(6)), return_exceptions=True)
        assert not script.bodies
    assert {type(end) for end in found} == {UserError}
    assert (made.ledger.budget.spent, made.ledger.budget.reserved, made.account.limit.in_use) == (0, 0, 0)


@pytest.mark.parametrize("at_once", [1, 5, 50])
async def test_a_budget_holds_where_an_api_counts_more_than_short_prompts_seem_to_have(at_once):
    """A hidden system prompt, say. The first request goes out alone, and tells."""
    many = completion("fine") | {"usage": {"prompt_tokens": 900, "completion_tokens": 9}}
    price, budget = Price(input=1.0, output=1.0), Budget(cap=0.02)
    account = Account(start=at_once, most=at_once)
    async with provider(lambda number, body: many, budget=budget, price=price, account=account) as (made, script):
        found = await asyncio.gather(*(made.chat(REQUEST) for _ in range(60)), return_exceptions=True)
        assert {end.kind for end in found if isinstance(end, ProviderError)} == {"budget"}
        answer = 909 / 1e6
        assert len(script.bodies) == int(0.02 / answer)
        assert budget.spent == pytest.approx(len(script.bodies) * answer)
        assert made.estimate.of(prompt_tokens(made.endpoint.api_format.request(REQUEST))) >= 900
    assert budget.spent <= budget.cap
    assert budget.reserved == 0


async def test_the_end_of_the_money_hides_no_failure():
    budget = Budget(cap=0.06)
    plan, patience = then_ok(*[lambda request: asyncio.sleep(3600)] * 9), Patience(attempt_s=0.2, backoff_s=0.01)
    async with provider(plan, budget=budget, price=PRICE, patience=patience) as (made, script):
        with pytest.raises(
            ProviderError, match=r"budget: the next .* is left; the attempt before failed: transient: no complete"
        ):
            await made.chat(REQUEST)
        assert len(script.bodies) >= 1
    assert budget.spent <= 0.06


async def test_repeats_beyond_their_share_wait_or_fail_by_name():
    """A broken API is asked by everybody once, and then by few."""
    account = Account()
    account.retries.least, patience = 3, Patience(overall_s=1.5, backoff_s=0.01, retries=100)
    account.gate.hold = lambda seconds: None  # the rest, ten seconds, has a test of its own
    async with provider(lambda number, body: status(500, "broken"), account=account, patience=patience) as (
        made,
        script,
    ):
        found = await asyncio.gather(*(made.chat(asking(str(n))) for n in range(20)), return_exceptions=True)
        assert len(script.bodies) == 23
        assert account.retries.waiting == 0
    assert {end.kind for end in found} == {"transient"}
    assert all("broken (not sent again: too many requests fail)" in str(end) for end in found)


async def test_refusals_for_a_time_count_for_no_share():
    """The API says itself when it may be asked again."""
    account = Account()
    account.retries.least = 0
    async with provider(then_ok(*[status(429)] * 5), account=account) as (made, script):
        assert (await made.chat(REQUEST)).attempts == len(script.bodies) == 6


async def test_a_price_without_a_key_is_booked(tmp_path):
    """A server of one's own whose hours are counted."""
    async with serve(then_ok()) as script:
        async with Providers(ProvidersConfig(budget=0.1, answers=str(tmp_path / "a"))) as providers:
            made = await providers.open(script.config(price={"input": 1000, "output": 1000}, max_retries=0), "judge")
            found = await asyncio.gather(*(made.chat(asking(str(n))) for n in range(15)), return_exceptions=True)
            assert {end.kind for end in found if isinstance(end, ProviderError)} == {"budget"}
            assert 0 < costs(providers)["dollars"] <= 0.1
