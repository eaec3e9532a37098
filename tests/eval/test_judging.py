"""All sessions rated by an LLM judge at once, against a real server; paid ratings are never asked for twice."""

import json

from loopback import completion, serve, status
from rich.console import Console

from cbtrain.eval.config import JudgingConfig
from cbtrain.eval.judging import judge_sessions
from cbtrain.eval.rubric import load_rubric
from cbtrain.eval.runner import SessionRecord
from cbtrain.journal.journal import Journal
from cbtrain.transcripts.types import Turn

RUBRIC = load_rubric()


def answer(score):
    rating = {"evidence": [1], "reason": "asks", "score": score}
    return completion(json.dumps({domain.id: rating for domain in RUBRIC.domains}))


def sessions(*texts):
    return [
        SessionRecord(
            f"s{number}", "tuned", "p", 0, [Turn("patient", text), Turn("therapist", "And then?")], "max_turns"
        )
        for number, text in enumerate(texts)
    ]


async def judge(script, records, events, **judge):
    config = JudgingConfig(provider=script.config(max_retries=0), judge=judge)
    async with script.provider("judge", max_retries=0) as provider:
        with Journal(events) as journal:
            return await judge_sessions(provider, RUBRIC, records, config, journal, Console(quiet=True))


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
