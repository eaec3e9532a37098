"""All APIs of a run, opened from settings."""

import asyncio

import pytest
from loopback import completion, serve, status
from pydantic import ValidationError

from cbtrain.errors import UserError
from cbtrain.journal import Journal, read
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.costs.prices import Price
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.providers import Providers, check
from cbtrain.providers.summary import costs
from cbtrain.providers.summary import status as line
from cbtrain.providers.types import ChatRequest, Message

KEY = "planted-secret-123"
TOKENS = {"input": 1000.0, "output": 1000.0}
"""A cent for the ten tokens of an answer of the test server."""


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", f" {KEY}\n")  # as it is pasted


def asking(text):
    return ChatRequest((Message("user", text),), max_tokens=9)


def paid(script, **more):
    return script.config(api_key_env="TEST_API_KEY", price=TOKENS, **more)


@pytest.mark.parametrize(
    ("settings", "provider", "problem"),
    [
        ({}, {"api_key_env": "NOT_SET_AT_ALL"}, "NOT_SET_AT_ALL: .*not set"),
        ({}, {"api_key_env": "SPACED"}, "SPACED: .*does not hold an API key"),
        ({"budget": 1}, {"api_key_env": "TEST_API_KEY"}, "judge: a budget is set, but the price of m is not known"),
        ({"prices": "none.yaml"}, {}, "none.yaml: cannot be read"),
        ({"replay": "none.jsonl"}, {}, "none.jsonl: cannot be read"),
        ({"record": "/tmp"}, {}, r"/tmp: cannot be written \(Is a directory\)"),
        ({"record": "/dev/null/tape"}, {}, r"/dev/null/tape: cannot be written"),
        ({"answers": "/dev/null/a"}, {"api_key_env": "TEST_API_KEY"}, "/dev/null/a: answers cannot be saved here"),
    ],
)
async def test_what_would_stop_a_run_is_found_before_it(settings, provider, problem, key, monkeypatch):
    monkeypatch.setenv("SPACED", "a key and more")
    config = ProviderConfig(base_url="http://127.0.0.1:9/v1", model="m", **provider)
    with pytest.raises(UserError, match=problem):
        check(ProvidersConfig(**settings), [("judge", config)])
    with pytest.raises(UserError, match=problem):
        async with Providers(ProvidersConfig(**settings)) as providers:
            await providers.open(config, "judge")


def test_a_budget_takes_a_price_from_the_table_or_the_settings(key):
    budget = ProvidersConfig(budget=1)
    base = {"base_url": "http://127.0.0.1:9/v1", "api_key_env": "TEST_API_KEY"}
    check(budget, [("judge", ProviderConfig(model="deepseek-flash", **base))])
    check(budget, [("judge", ProviderConfig(model="m", price=Price(input=1, output=1), **base))])
    check(budget, [("patient", ProviderConfig(model="m", base_url="http://127.0.0.1:9/v1"))])  # nobody is billed


async def test_one_budget_and_one_account_for_all_roles_of_a_key(key, tmp_path):
    async with serve(lambda number, body: completion("fine")) as script:
        settings = ProvidersConfig(budget=0.1, answers=str(tmp_path / "a"))
        async with Providers(settings) as providers:
            patient = await providers.open(paid(script, max_in_flight=50), "patient")
            judge = await providers.open(paid(script, max_in_flight=8), "judge")
            free = await providers.open(script.config(), "writer")
            assert patient.account is judge.account is not free.account
            assert patient.account.limit.limit == patient.account.limit.most == 8
            assert patient.account.tokens is None
            await providers.open(paid(script, tokens_per_minute=90_000), "judge")
            assert patient.account.tokens.per_minute == 90_000
            for number in range(3):
                await patient.chat(asking(f"p{number}"))
                await judge.chat(asking(f"j{number}"))
                await free.chat(asking("free"))
            more = await asyncio.gather(*(judge.chat(asking(f"m{n}")) for n in range(9)), return_exceptions=True)
            assert {error.kind for error in more if isinstance(error, ProviderError)} == {"budget"}
            await free.chat(asking("still"))
            spent = costs(providers)
    assert spent["budget"] == 0.1
    assert spent["dollars"] <= 0.1
    rows = {row["role"]: row for row in spent["roles"]}
    assert set(rows) == {"patient", "judge"}
    assert (rows["patient"]["requests"], rows["patient"]["dollars"]) == (3, pytest.approx(0.03))
    assert rows["patient"]["models"] == {"returned-name": 3}
    assert script.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in script.headers[2]


async def test_answers_are_kept_where_they_are_paid_for(key, tmp_path):
    async with serve(lambda number, body: completion(f"answer {number}")) as script:
        async with Providers(ProvidersConfig(answers=str(tmp_path / "a"))) as providers:
            for config, kept in (
                (script.config(), False),
                (script.config(reuse=True), True),
                (paid(script), True),
                (paid(script, reuse=False), False),
            ):
                made = await providers.open(config, "judge")
                assert (made.cache is not None) == kept
            made = await providers.open(paid(script), "patient", local=True)
            assert made.cache is None


async def test_what_is_recorded_is_played_back_without_key_and_cost(key, tmp_path, monkeypatch):
    tape = tmp_path / "tape.jsonl"
    answers = lambda number, body: status(500) if number == 1 else completion(f"answer {number}")  # noqa: E731
    async with serve(answers) as script:
        config = paid(script, stream=False)
        for _ in range(2):  # an answer on disk would be missing from the tape
            settings = ProvidersConfig(record=tape, answers=str(tmp_path / "a"))
            async with Providers(settings) as providers:
                made = await providers.open(config, "judge")
                real = (await made.chat(asking("x"))).text
        assert len(script.bodies) == 3
    assert KEY not in tape.read_text()
    monkeypatch.delenv("TEST_API_KEY")
    async with Providers(ProvidersConfig(replay=tape, budget=0)) as providers:
        made = await providers.open(config, "judge")
        assert [(await made.chat(asking("x"))).text for _ in range(3)] == ["answer 2", real, real]
        assert costs(providers) is None
        with pytest.raises(ProviderError, match="not in the recording"):
            await made.chat(asking("y"))
    with pytest.raises(ValidationError, match="record and replay are both set"):
        ProvidersConfig(record=tape, replay=tape)


async def test_a_continued_run_knows_what_was_spent_and_who_answered(key, tmp_path):
    told, events = [], tmp_path / "events.jsonl"
    names = iter(["a", "a", "b"])
    async with serve(lambda number, body: completion("fine") | {"model": next(names)}) as script:
        for number in range(3):
            with Journal(events) as journal:
                settings = ProvidersConfig(answers=str(tmp_path / "answers"))
                past = list(read(events))
                async with Providers(settings, events=journal, earlier_events=past, warn=told.append) as providers:
                    made = await providers.open(paid(script), "judge")
                    await made.chat(asking(f"x{number}"))
                    await made.chat(asking("x0"))
                    spent = costs(providers)
    (row,) = spent["roles"]
    assert (row["requests"], row["reused"], row["models"]) == (3, 3, {"a": 2, "b": 1})
    assert told == ["the judge's API now answers with model b, not a: answers may differ"]
    kinds = [event["kind"] for event in read(events)]
    assert kinds.count("request_started") == kinds.count("request_ended") == 3
    assert kinds.count("model_changed") == 1
    assert KEY not in events.read_text()


async def test_how_things_stand_in_one_line(key, tmp_path):
    async with serve(lambda number, body: completion("fine")) as script:
        async with Providers(ProvidersConfig(budget=2, answers=str(tmp_path / "a"))) as providers:
            made = await providers.open(paid(script), "judge")
            assert line(providers, "judge", 0.0) == "budget $2.00, 0 of 20 requests in flight"
            for number in range(5):
                await made.chat(asking(f"{number}"))
            made.account.gate.hold(30)
            made.under_way[object()] = made.account.clock.now() - 75
            made.account.retries._queue.extend(range(4))
            assert line(providers, "judge", 0.25) == (
                "$0.05 of about $0.20, budget $2.00, 0 of 20 requests in flight, the API asks to wait 30 s, "
                "4 retries wait: too many requests fail, the oldest for 75 s"
            )
            assert line(providers, "patient", 0.5) == "budget $2.00, $0.05 of it spent"


async def test_limits_and_what_changes_them_are_events(key, tmp_path):
    async with serve(lambda number, body: status(429) if number == 1 else completion("fine")) as script:
        with Journal(tmp_path / "events.jsonl") as journal:
            settings = ProvidersConfig(answers=str(tmp_path / "answers"))
            async with Providers(settings, events=journal) as providers:
                made = await providers.open(paid(script), "judge")
                await made.chat(asking("x"))
    (event,) = [event for event in read(tmp_path / "events.jsonl") if event["kind"] == "limit_change"]
    assert (event["limit"], event["why"], event["api"]) == (16, "rate_limit", script.url)
