"""All sessions rated by an LLM judge at once, against a real server; paid ratings are never asked for twice."""

import asyncio
import json

import pytest
from judges import RUBRIC, asking, rated
from loopback import completion, serve, status

from cbtrain.eval.rating.judging import JudgeWork
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.journal import Journal
from cbtrain.providers.config import ProvidersConfig
from cbtrain.providers.providers import Providers
from cbtrain.transcripts.types import Turn


def answer(score):
    rating = {"evidence": [1], "reason": "asks", "score": score}
    return completion(json.dumps({domain.id: rating for domain in RUBRIC.domains}))


def sessions(*texts):
    return [
        SimulatedSession(
            f"s{number}", "tuned", "p", 0, [Turn("patient", text), Turn("therapist", "And then?")], "max_turns"
        )
        for number, text in enumerate(texts)
    ]


async def judge(script, records, events, **judge):
    async with script.provider("judge", max_retries=0) as provider:
        with Journal(events) as journal:
            return await rated(provider, script.config(max_retries=0), records, journal, **judge)


async def test_ratings_are_kept_and_only_what_changed_is_asked_again(tmp_path):
    events = tmp_path / "events.jsonl"
    events.write_text('{"kind": "run_started", "time": "t", "settings": {}}\n')

    def plan(number, body):
        return status(400, "no") if "third" in body["messages"][1]["content"] else answer(number % 6)

    async with serve(plan) as script:
        first = await judge(script, sessions("first", "second", "third"), events)
        assert sorted(score.status for score in first) == ["error", "ok", "ok"]
        assert len(script.bodies) == 3
        again = await judge(script, sessions("first", "second", "third"), events)
        assert again[:2] == first[:2]
        assert len(script.bodies) == 4  # the failed one alone
        changed = await judge(script, sessions("first", "other", "third"), events)
        assert changed[0] == first[0]
        assert changed[1] != first[1]
        assert len(script.bodies) == 6
        await judge(script, sessions("first"), events, temperature=0.9)
        assert len(script.bodies) == 7
        both = await judge(script, sessions("first"), events, repeats=2)
        assert both[0] == first[0]
        assert both[1].repeat == 1
        assert len(script.bodies) == 8


async def test_a_rating_that_came_to_nothing_is_asked_for_anew(tmp_path, monkeypatch):
    """Not taken from the answers on disk, which would be as useless as before."""
    monkeypatch.setenv("TEST_API_KEY", "k")
    events, useless = tmp_path / "events.jsonl", True
    settings = ProvidersConfig(answers=str(tmp_path / "answers"))
    async with serve(lambda number, body: completion("Well.") if useless else answer(2)) as script:
        config = script.config(api_key_env="TEST_API_KEY")
        for status_, posts in (("invalid", 2), ("invalid", 4), ("ok", 5), ("ok", 5)):
            useless = status_ == "invalid"
            async with Providers(settings) as providers:
                provider = await providers.open(config, "judge")
                with Journal(events) as journal:
                    (score,) = await rated(provider, config, sessions("x"), journal, max_reasks=1)
            assert (score.status, len(script.bodies)) == (status_, posts)


@pytest.mark.parametrize(
    "fault", [status(400, "no"), status(401), completion("Well."), completion("", "content_filter")]
)
async def test_domains_that_are_kept_are_not_bought_again_whatever_became_of_another(fault, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", "k")
    third, broken = RUBRIC.domains[2], True

    def plan(number, body):
        (asked,) = [domain for domain in RUBRIC.domains if f"{domain.id} ({domain.name})" in str(body["messages"])]
        if broken and asked is third:
            return fault
        return completion(json.dumps({asked.id: {"evidence": [1], "reason": "asks", "score": 4}}))

    settings = ProvidersConfig(answers=str(tmp_path / "answers"))
    async with serve(plan) as script:
        judge = {"per_domain": True, "max_reasks": 0}
        config = script.config(api_key_env="TEST_API_KEY")
        for posts in (3, 4, 4 + len(RUBRIC.domains) - 2):  # two are kept
            broken = posts <= 4
            async with Providers(settings) as providers:
                provider = await providers.open(config, "judge")
                with Journal(tmp_path / "events.jsonl") as journal:
                    (score,) = await rated(provider, config, sessions("x"), journal, **judge)
            assert len(script.bodies) == posts
            assert (score.status == "ok", score.stopped_at) == ((False, third.id) if broken else (True, ""))
    assert score.total == 4 * len(RUBRIC.domains)


async def test_that_a_domain_cannot_be_rated_is_an_answer(tmp_path):
    async with serve(lambda number, body: answer(None)) as script:
        for _ in range(2):
            (score,) = await judge(script, sessions("x"), tmp_path / "events.jsonl")
            assert (score.status, score.total) == ("unratable", None)
        assert len(script.bodies) == 1


async def test_where_one_rating_breaks_the_others_have_ended(tmp_path):
    """A disk that is full, say: nothing goes on behind what is told of."""

    async def slow(request):
        await asyncio.sleep(30)
        raise AssertionError

    class Full(Journal):
        def append(self, kind, **fields):
            if kind == "rating":
                raise OSError(28, "No space left on device")
            return super().append(kind, **fields)

    async with serve(lambda number, body: slow if number > 1 else answer(3)) as script:
        async with script.provider("judge") as provider:
            (tmp_path / "events.jsonl").touch()
            with Full(tmp_path / "events.jsonl") as journal, pytest.raises(OSError, match="No space"):
                await rated(provider, script.config(), sessions("a", "b", "c"), journal)
            assert not provider.under_way
            assert provider.account.limit.in_use == 0


@pytest.mark.fault("G1")
async def test_a_rating_of_nothing_that_an_older_version_kept_is_not_taken(tmp_path):
    """Its key is that of the same session without a turn."""
    events, empty = tmp_path / "events.jsonl", [SimulatedSession("s", "tuned", "p", 0, [], labels_seen="P, T")]
    async with serve(lambda number, body: answer(3)) as script:
        key = JudgeWork(asking(), script.config(max_retries=0), empty).older_key(empty[0], 0)
        domains = {domain.id: 3.0 for domain in RUBRIC.domains}
        old = Score(session_id="s", arm="tuned", patient="p", seed=0, judge="m", repeat=0, status="ok", domains=domains)
        with Journal(events) as journal:
            journal.append("rating", key=key, score=old.record())
        (score,) = await judge(script, empty, events)
    assert (score.status, score.total, script.bodies) == ("unratable", None, [])
    assert "P, T; name the speakers' labels (corpus.therapist_labels=…" in score.reason["error"]


async def test_ratings_of_an_older_form_are_kept_where_all_are_of_it_and_never_mixed(tmp_path):
    first, second = sessions("first", "second")
    async with serve(lambda number, body: answer(3)) as script:
        work = JudgeWork(asking(judge="m"), script.config(max_retries=0), [first, second])
        for held, posts in (([first, second], 0), ([first], 2)):
            events = tmp_path / f"{len(held)}.jsonl"
            with Journal(events) as journal:
                for session in held:
                    old = Score.empty(session, "m", 0, RUBRIC)
                    old.status, old.domains = "ok", dict.fromkeys(RUBRIC.ids, 5.0)
                    journal.append("rating", key=work.older_key(session, 0), score=old.record())
            before = len(script.bodies)
            scores = await judge(script, [first, second], events)
            assert len(script.bodies) - before == posts
            assert {score.total for score in scores} == ({55.0} if not posts else {33.0})
