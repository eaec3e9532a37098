"""Limits by a clock that goes only where it is told, and permits under cancellation at every await."""

import asyncio
import random
import time

import pytest

from cbtrain.providers.limits.account import Account, Gate
from cbtrain.providers.limits.adaptive import COOLDOWN_S, AdaptiveLimit
from cbtrain.providers.limits.clock import Clock, Skipping
from cbtrain.providers.limits.retries import RetryBudget
from cbtrain.providers.limits.tokens import TokenBucket


class Virtual(Clock):
    """Sleeping moves the time on at once."""

    def __init__(self):
        self.time, self.slept = 1000.0, []

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


async def fill(limit, count):
    """``count`` permits held at once; call what is returned to give them back."""
    release = asyncio.Event()

    async def hold():
        async with limit.permit():
            await release.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(count)]
    await asyncio.sleep(0)

    async def done():
        release.set()
        await asyncio.gather(*tasks)

    return done


async def clean_round(limit):
    """A round of successes with everything in flight."""
    done = await fill(limit, limit.limit)
    for _ in range(max(limit.limit, 4)):
        limit.succeeded()
    await done()


async def test_it_doubles_until_the_first_refusal_and_then_grows_by_a_twentieth():
    clock = Virtual()
    limit = AdaptiveLimit(start=10, most=100, clock=clock)
    sizes = []
    for _ in range(2):
        await clean_round(limit)
        sizes.append(limit.limit)
    assert sizes == [20, 40]
    limit.rate_limited()
    assert limit.limit == 32
    clock.time += COOLDOWN_S
    await clean_round(limit)
    assert limit.limit == 34
    for _ in range(60):
        await clean_round(limit)
    assert limit.limit == 100
    assert [change.limit for change in limit.history][:5] == [10, 20, 40, 32, 34]
    assert [change.why for change in limit.history][:4] == ["start", "growth", "growth", "rate_limit"]


async def test_one_burst_of_refusals_is_one_cut():
    clock = Virtual()
    limit = AdaptiveLimit(start=50, clock=clock)
    for _ in range(30):
        limit.rate_limited()
    assert limit.limit == 40
    for _ in range(100):
        limit.succeeded()  # answers to what was in flight before
    clock.time += COOLDOWN_S - 0.1
    limit.rate_limited()
    assert limit.limit == 40
    clock.time += 0.1
    limit.rate_limited()
    assert limit.limit == 32
    for _ in range(100):
        clock.time += COOLDOWN_S
        limit.rate_limited()
    assert limit.limit == limit.least == 1


async def test_what_was_never_full_does_not_grow_and_trouble_starts_the_round_anew():
    limit = AdaptiveLimit(start=10, clock=Virtual())
    done = await fill(limit, 7)
    for _ in range(40):
        limit.succeeded()
    assert limit.limit == 10
    await done()
    done = await fill(limit, 10)
    for _ in range(9):
        limit.succeeded()
    limit.failed()
    for _ in range(9):
        limit.succeeded()
    assert limit.limit == 10
    limit.succeeded()
    assert limit.limit == 20
    await done()


async def test_never_more_than_the_limit_in_order_and_a_cut_takes_nothing_away():
    limit = AdaptiveLimit(start=3, clock=Virtual())
    order, most = [], 0

    async def work(number):
        nonlocal most
        async with limit.permit():
            order.append(number)
            most = max(most, limit.in_use)
            await asyncio.sleep(0.001)

    tasks = [asyncio.create_task(work(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert (limit.in_use, limit.waiting) == (3, 17)
    limit.rate_limited()  # 2 from now on; the three go on
    await asyncio.gather(*tasks)
    assert order == list(range(20))
    assert (most, limit.in_use, limit.waiting) == (3, 0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_no_permit_leaks_wherever_holders_are_cancelled(seed):
    """Also where a permit is granted in the moment of the cancellation."""
    draw = random.Random(seed)
    limit = AdaptiveLimit(start=4, clock=Virtual())

    async def work():
        async with limit.permit():
            for _ in range(draw.randrange(4)):
                await asyncio.sleep(0)

    tasks = [asyncio.create_task(work()) for _ in range(60)]
    while not all(task.done() for task in tasks):
        draw.choice(tasks).cancel()
        if draw.random() < 0.1:
            limit.rate_limited()
        await asyncio.sleep(0)
        assert 0 <= limit.in_use <= 4
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (limit.in_use, limit.waiting) == (0, 0)
    async with limit.permit():
        assert limit.in_use == 1


async def test_the_gate_holds_everybody_back_until_the_latest_time():
    clock = Virtual()
    gate = Gate(clock)
    await gate.passing()
    assert clock.slept == []
    gate.hold(5)
    gate.hold(2)
    assert gate.left == 5
    late = asyncio.create_task(gate.passing())
    await asyncio.gather(late, gate.passing())
    assert clock.time == 1005
    assert gate.left == 0


async def test_a_gate_that_closes_again_is_waited_for_again():
    clock = Virtual()
    gate = Gate(clock)

    async def sleep(seconds):
        if not clock.slept:
            gate.hold(seconds + 7)
        await Virtual.sleep(clock, seconds)

    clock.sleep = sleep
    gate.hold(3)
    await gate.passing()
    assert clock.time == 1010


async def test_tokens_a_minute():
    clock = Virtual()
    bucket = TokenBucket(600, clock)
    await bucket.take(500)
    assert clock.slept == []
    await bucket.take(200)  # 100 are there, 10 come a second
    assert clock.time == pytest.approx(1010)
    assert bucket.level == pytest.approx(0)
    bucket.settle(200, 50)
    assert bucket.level == pytest.approx(150)
    bucket.settle(0, 350)  # it took more than was thought
    assert bucket.level == pytest.approx(-200)
    await bucket.take(10)
    assert clock.time == pytest.approx(1031)
    clock.time += 1000
    assert bucket.level == 600
    await bucket.take(5000)  # larger than the bucket: from a full one
    assert bucket.level == pytest.approx(-4400)


async def test_small_requests_do_not_starve_a_large_one():
    bucket, order = TokenBucket(60_000), []
    await bucket.take(60_000)

    async def take(name, tokens):
        await bucket.take(tokens)
        order.append(name)

    await asyncio.gather(take("small", 50), take("large", 500), *(take(f"later {n}", 1) for n in range(5)))
    assert order == ["small", "large", *(f"later {n}" for n in range(5))]


def test_retries_are_a_tenth_of_requests():
    clock = Virtual()
    budget = RetryBudget(ratio=0.1, least=2, window_s=60, clock=clock)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    clock.time += 61
    for _ in range(100):
        budget.began()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    clock.time += 61
    assert budget.spend()


async def test_a_refusal_holds_back_what_already_waits_for_its_permit():
    clock = Virtual()
    account = Account(start=1, most=1, tokens_per_minute=600, clock=clock)
    went_out = []

    async def request(name, refused=False):
        async with account.turn(100):
            went_out.append((name, clock.time))
            await asyncio.sleep(0)
            if refused:
                account.rate_limited(30)
        account.settle(100, 40)

    both = [asyncio.create_task(request("first", refused=True)), asyncio.create_task(request("second"))]
    await asyncio.sleep(0)
    assert account.limit.waiting == 1
    await asyncio.gather(*both)
    assert went_out == [("first", 1000), ("second", 1030)]
    assert account.limit.in_use == 0
    assert account.tokens.level == 600  # 30 seconds have refilled it


@pytest.mark.parametrize("seed", range(20))
async def test_an_account_loses_neither_permits_nor_tokens(seed):
    draw = random.Random(seed)
    clock = Virtual()
    account = Account(start=3, tokens_per_minute=10**9, clock=clock)

    async def request():
        async with account.turn(1000):
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            if draw.random() < 0.2:
                account.rate_limited(draw.random())
            if draw.random() < 0.2:
                raise ValueError
        account.settle(1000, 0)

    tasks = [asyncio.create_task(request()) for _ in range(40)]
    while not all(task.done() for task in tasks):
        if draw.random() < 0.5:
            draw.choice(tasks).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (account.limit.in_use, account.limit.waiting) == (0, 0)
    assert account.tokens.level == pytest.approx(10**9)


async def test_too_many_repeats_close_the_gate_and_wait_for_their_share():
    clock = Virtual()
    account = Account(clock=clock)
    assert [await account.repeat(100) for _ in range(10)] == [True] * 10
    assert (account.gate.left, clock.slept) == (0, [])
    began = clock.time
    assert await account.repeat(100)
    assert clock.time - began == pytest.approx(60, abs=1.1)  # the ten are a minute old
    assert account.gate.opens_at == began + 10  # a rest is begun once, not by everybody who waits
    assert [await account.repeat(100) for _ in range(9)] == [True] * 9
    began = clock.time
    assert not await account.repeat(20)
    assert clock.time - began == pytest.approx(20)
    for _ in range(200):
        account.retries.began()
    assert [await account.repeat(0) for _ in range(11)] == [True] * 10 + [False]  # a tenth of 200, ten are spent


async def test_repeats_are_let_through_in_order_and_their_places_are_given_back():
    budget, order = RetryBudget(least=1, window_s=0.5), []

    async def take(name, patience_s=60.0):
        if await budget.take(patience_s):
            order.append(name)

    assert budget.spend()
    tasks = [asyncio.create_task(take(name)) for name in "abc"]
    short = asyncio.create_task(take("short", 0.1))
    await asyncio.sleep(0.05)
    assert budget.waiting == 4
    tasks[1].cancel()
    await asyncio.gather(*tasks, short, return_exceptions=True)
    assert order == ["a", "c"]
    assert budget.waiting == 0


async def test_nobodys_patience_waits_for_anothers():
    clock = Virtual()
    budget = RetryBudget(least=1, window_s=60, clock=clock)
    assert budget.spend()
    began = clock.time
    long = asyncio.create_task(budget.take(1000))
    assert not await budget.take(5)
    assert clock.time - began < 15  # both sleep on this clock
    assert await long
    assert budget.waiting == 0


async def test_on_record_nobody_waits():
    clock = Skipping()
    real, began = time.monotonic(), clock.now()
    account = Account(clock=clock)
    account.rate_limited(3600)
    async with account.turn(1):
        pass
    assert clock.now() - began >= 3600
    assert time.monotonic() - real < 60
