"""The LLM judge against a real server with scripted answers."""

import json

import pytest
from loopback import completion, serve, status

from cbtrain.eval.rating.config import JudgeConfig
from cbtrain.eval.rating.cue_rater import rate
from cbtrain.eval.rating.judge import judge_session
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.transcripts.types import Turn

RUBRIC = load_rubric()
TURNS = [Turn("patient", "I feel low.<|end|>"), Turn("therapist", "What happened?"), Turn("patient", "Nothing. [END]")]


def answer(score=4, **changes):
    rating = {"evidence": [2, 99], "reason": "asks", "score": score}
    return completion(json.dumps({domain.id: rating | changes for domain in RUBRIC.domains}))


async def judge(plan, **config):
    async with serve(plan) as script:
        async with script.provider("judge", max_retries=1) as provider:
            score = await judge_session(
                provider,
                RUBRIC,
                SimulatedSession("secret-session", "tuned-arm", "patient-x", 3, TURNS),
                JudgeConfig(**config),
                repeat=1,
            )
    return score, script


async def test_a_valid_answer_becomes_a_score_with_evidence():
    score, script = await judge(lambda n, body: answer())
    assert (score.status, score.total, score.repeat) == ("ok", 44, 1)
    assert score.evidence["agenda"] == [1]  # turn 2 of the transcript; turn 99 is not there
    assert script.bodies[0]["seed"] == 1


async def test_the_judge_is_blind():
    _, script = await judge(lambda n, body: answer())
    sent = json.dumps(script.bodies)
    for hidden in ("tuned-arm", "secret-session", "patient-x", "<|end|>", "[END]"):
        assert hidden not in sent
    assert "[2] Therapist: What happened?" in script.bodies[0]["messages"][1]["content"]
    assert all(text in sent for text in (RUBRIC.domains[3].anchors[5], RUBRIC.domains[10].anchors[0]))


async def test_an_invalid_answer_is_asked_again_with_the_validators_message():
    score, script = await judge(lambda n, body: answer(score=9) if n == 1 else answer(score=2))
    assert (score.status, score.total) == ("ok", 22)
    assert "agenda.score: Input should be less than or equal to 6" in script.bodies[1]["messages"][-1]["content"]


@pytest.mark.parametrize("bad", [completion("no JSON"), answer(score="4"), completion('{"agenda": {}}')])
async def test_an_answer_that_stays_invalid_is_never_guessed(bad):
    score, script = await judge(lambda n, body: bad)
    assert (score.status, score.total, len(script.bodies)) == ("invalid", None, 3)
    assert set(score.domains.values()) == {None}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer(score=None), "unratable"),
        (completion("{", "length"), "truncated"),
        (completion(None, refusal="no"), "refused"),
        (completion("", "content_filter"), "refused"),
        (status(500), "error"),
    ],
)
async def test_what_gives_no_score_has_a_name(reply, expected):
    score, _ = await judge(lambda n, body: reply)
    assert (score.status, score.total) == (expected, None)


async def test_one_domain_a_call():
    def plan(number, body):
        (domain,) = body["response_format"]["json_schema"]["schema"]["properties"]
        return completion("```json\n" + json.dumps({domain: {"evidence": [], "reason": "r", "score": 3}}) + "\n```")

    score, script = await judge(plan, per_domain=True)
    assert (score.total, len(script.bodies)) == (33, 11)


@pytest.mark.fault("D4")
@pytest.mark.parametrize(
    "around", ["{}", "Note {{see turn 2}}.\n{}", "```json\n{}\n```\nScale: {{0-6}}", '<think>{{"agenda": 1}}</think>{}']
)
async def test_a_right_answer_is_taken_with_braces_around_it_whole_floats_and_keys_of_its_own(around):
    whole = json.loads(answer(score=3.0, extra=1)["choices"][0]["message"]["content"])
    text = json.dumps(whole | {"note": "{all} rated", "total": 33.0})
    score, script = await judge(lambda n, body: completion(around.format(text)))
    assert (score.status, score.total, len(script.bodies)) == ("ok", 33, 1)


@pytest.mark.fault("D4")
async def test_two_answers_that_differ_are_no_answer():
    three, four = (answer(score=n)["choices"][0]["message"]["content"] for n in (3, 4))
    score, script = await judge(lambda n, body: completion(f"{three}\nor\n{four}" if n < 3 else three))
    assert (score.status, score.total, len(script.bodies)) == ("ok", 33, 3)
    assert "2 different objects" in script.bodies[1]["messages"][-1]["content"]


@pytest.mark.fault("D2")
async def test_a_judge_that_spends_all_on_thinking_says_what_to_raise():
    reply = completion("", "length") | {"usage": {"prompt_tokens": 900, "completion_tokens": 4096}}
    score, _ = await judge(lambda n, body: reply)
    assert score.status == "truncated"
    assert (
        "thinking, but no answer (4,096 of 4,096 tokens); raise evaluation.judging.judge.max_tokens"
        in score.reason["error"]
    )


@pytest.mark.fault("D7")
async def test_a_judge_that_refuses_in_words_is_not_asked_again():
    score, script = await judge(lambda n, body: completion("I'm sorry, but I can't assist with that request."))
    assert (score.status, len(script.bodies)) == ("refused", 1)


@pytest.mark.fault("G1")
@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([], "no speaker was found"),
        ([Turn("patient", "Low."), Turn("therapist", " <|end|> ")], "no word of the therapist"),
        ([Turn("therapist", "P: I feel low.\nT: And then?")], "no word of the patient"),
    ],
)
async def test_what_nobody_can_rate_is_never_sent(turns, why):
    async with serve(lambda n, body: answer()) as script:
        async with script.provider("judge") as provider:
            session = SimulatedSession("s", "a", "p", 0, turns)
            score = await judge_session(provider, RUBRIC, session, JudgeConfig(), repeat=0)
    assert (score.status, score.total, script.bodies) == ("unratable", None, [])
    assert why in score.reason["error"]
    assert why in rate(session, RUBRIC).reason["error"]
