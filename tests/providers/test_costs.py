"""Prices and the budget of a run."""

import asyncio
import random

import pytest

from cbtrain.errors import UserError
from cbtrain.journal import Journal, read
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.costs.budget import Budget, BudgetSpent
from cbtrain.providers.costs.ledger import SHAPES, Ledger
from cbtrain.providers.costs.prices import Price, load_prices
from cbtrain.providers.providers import Providers
from cbtrain.providers.types import Usage

PRICE = Price(input=2.0, cached=0.5, written=2.5, output=10.0)


def test_an_answers_cost_by_hand():
    usage = Usage(1000, 200, cached_tokens=600, cache_write_tokens=100, reasoning_tokens=50)
    assert PRICE.cost(usage) == pytest.approx((300 * 2 + 600 * 0.5 + 100 * 2.5 + 200 * 10) / 1e6)
    plain = Price(input=2.0, output=10.0)
    assert plain.cost(usage) == pytest.approx((1000 * 2 + 200 * 10) / 1e6)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("anthropic/claude-haiku-4-5", "claude-haiku-4-5"),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
        ("gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("gemini-2.5-flash-lite", None),
        ("deepseek-v4-pro", "deepseek-v4-pro"),
        ("deepseek-v4", None),
        ("", None),
    ],
)
def test_which_price_a_name_has(model, known):
    prices = load_prices()
    assert prices.of(model) == (prices.models[known] if known else None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("date: 2026-01-01\nmodels: {m: {input: 1}}", "models.m.output: missing"),
        ("date: 2026-01-01\nmodels: {m: {input: -1, output: 1}}", "models.m.input"),
        ("date: 2026-01-01\nmodels: {m: {input: .inf, output: 1}}", "models.m.input"),
        ("models: {}", "date: missing"),
        ("- 1", "must be a section"),
        ("date: [", "malformed YAML"),
        ("date: 2026-13-45\nmodels: {}", "malformed YAML (month must be in 1..12)"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, text, problem):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_prices(file)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        load_prices(tmp_path / "none.yaml")


STARTED = {"kind": "request_started", "request": 1, "role": "judge", "dollars": 0.5, "key": "k", "time": "10:00"}
COUNTS = {"prompt_tokens": 7, "completion_tokens": 3}
ENDED = {"kind": "request_ended", "request": 1, "role": "judge", "outcome": "answered", "dollars": 0.25, "priced": True,
         "model": "m", "usage": COUNTS, "time": "10:01"}  # fmt: skip
LOST = {"kind": "unknown_outcome", "request": 1, "role": "judge", "dollars": 0.5, "key": "k", "time": "10:02"}
UNKNOWN = {
    "kind": "request_ended",
    "request": 1,
    "role": "judge",
    "outcome": "unknown",
    "dollars": 0.5,
    "time": "10:01",
}


@pytest.mark.parametrize(
    ("events", "spent", "requests", "repeated"),
    [
        ([STARTED, ENDED], 0.25, 1, 0),
        ([STARTED, ENDED, ENDED, ENDED | {"time": "10:09"}], 0.25, 1, 2),
        ([STARTED, ENDED, STARTED, ENDED], 0.25, 1, 1),  # the file, appended to itself
        ([STARTED, STARTED], 0.5, 1, 0),
        ([STARTED, LOST, STARTED, LOST], 0.5, 1, 1),
        ([STARTED, UNKNOWN, UNKNOWN], 0.5, 1, 1),
        ([ENDED, ENDED | {"request": 2}], 0.5, 2, 0),
        ([STARTED, ENDED, ENDED | {"dollars": 0.5}], None, 0, 0),
        ([STARTED, ENDED, LOST], None, 0, 0),
        ([STARTED, LOST, ENDED], None, 0, 0),
        ([STARTED, ENDED, UNKNOWN], None, 0, 0),
        ([STARTED, STARTED | {"dollars": 9}], None, 0, 0),
        ([ENDED, STARTED], None, 0, 0),  # its lines in another order
    ],
)
def test_a_requests_end_counts_once(events, spent, requests, repeated):
    with Ledger(Budget()) as ledger:
        if spent is None:
            with pytest.raises(UserError, match="the run's events: request 1 (ends in two|begins in two|begins after)"):
                ledger.resume(events)
            return
        ledger.resume(events)
        role = ledger.budget.roles["judge"]
        assert (ledger.budget.spent, role.requests, ledger.repeated) == (spent, requests, repeated)


async def test_a_journal_that_was_appended_to_itself_is_said(tmp_path):
    heard, path = [], tmp_path / "events.jsonl"
    with Journal(path) as journal:
        for event in (STARTED, ENDED):
            fields = {name: value for name, value in event.items() if name not in ("kind", "time")}
            journal.append(event["kind"], **fields)
    path.write_bytes(path.read_bytes() * 3)
    with Journal(path) as journal:
        past = list(read(path, SHAPES))
        async with Providers(ProvidersConfig(), events=journal, earlier_events=past, warn=heard.append) as providers:
            assert providers.budget.spent == 0.25
        assert heard == ["2 ends of paid requests come twice in this run's journal; each is counted once"]
        other = [*past, past[-1] | {"dollars": 0.75}]
        with pytest.raises(UserError, match=r"events\.jsonl: request 1 ends in two ways"):
            async with Providers(ProvidersConfig(), events=journal, earlier_events=other):
                pass


async def asked(budget, prompt, longest):
    """A reservation now or never: nobody gives anything back meanwhile."""
    return await asyncio.wait_for(budget.reserve("patient", PRICE, prompt, longest), 0.001)


async def test_a_cap_is_never_exceeded():
    """In any order of going out, coming back, failing and getting lost."""
    draw = random.Random(0)
    budget, under_way, refused = Budget(cap=0.05), [], 0
    for _ in range(500):
        if draw.random() < 0.5:
            prompt, longest = draw.randrange(2000), draw.randrange(1, 300)
            try:
                under_way.append((await asked(budget, prompt, longest), prompt, longest))
            except (BudgetSpent, asyncio.TimeoutError):
                refused += 1
        elif under_way:
            reservation, prompt, longest = under_way.pop(draw.randrange(len(under_way)))
            end = draw.random()
            if end < 0.2:
                budget.release(reservation)
            elif end < 0.4:
                budget.lose(reservation)
            else:
                cached = draw.randrange(prompt + 1)
                budget.settle(reservation, PRICE, Usage(prompt, draw.randrange(longest + 1), cached_tokens=cached))
        assert budget.spent + budget.reserved <= 0.05 + 1e-12
    assert refused > 0
    assert budget.spent > 0.03


async def test_costs_by_role():
    budget = Budget()
    for _ in range(4):
        budget.settle(await budget.reserve("patient", PRICE, 1000, 100), PRICE, Usage(1000, 50))
    budget.settle(await budget.reserve("judge", None, 500, 100), None, Usage(500, 60))
    patient, judge = budget.roles["patient"], budget.roles["judge"]
    assert (patient.requests, patient.prompt_tokens, patient.completion_tokens) == (4, 4000, 200)
    assert patient.dollars == pytest.approx(4 * 0.0025)
    assert (judge.unpriced, judge.dollars) == (1, 0.0)
    assert patient.models == {}  # who answered is the book's business
    assert budget.reserved == pytest.approx(0)


async def test_a_cap_without_a_price_is_refused():
    with pytest.raises(UserError, match="price of this model is not known"):
        await Budget(cap=1.0).reserve("judge", None, 10, 10)


async def test_what_was_given_back_is_given_back_once():
    budget = Budget(cap=1.0)
    one, two = [await budget.reserve("judge", PRICE, 1000, 100) for _ in range(2)]
    budget.release(one)
    budget.release(one)
    assert budget.reserved == pytest.approx(two.dollars)


async def test_who_needs_what_others_may_give_back_waits_for_them():
    budget = Budget(cap=0.005)
    first = await budget.reserve("judge", PRICE, 1000, 100)  # 0.35 cents
    second = asyncio.create_task(budget.reserve("judge", PRICE, 1000, 100))
    await asyncio.sleep(0)
    assert not second.done()
    budget.settle(first, PRICE, Usage(100, 50))
    assert (await second).dollars == pytest.approx(0.0035)
    with pytest.raises(BudgetSpent):  # whatever the second comes to
        await budget.reserve("judge", PRICE, 2000, 100)
