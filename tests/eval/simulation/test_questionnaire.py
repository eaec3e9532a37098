"""The questionnaire after a session: files, answers of APIs and of a model on this machine, and what is not asked again."""

import json
from dataclasses import replace

import pytest
import yaml
from lanes import lanes
from loopback import completion, serve, status
from random_model import random_model

from cbtrain.errors import UserError
from cbtrain.eval.simulation.after_session import Answers, AskPatients, dialogue_digest
from cbtrain.eval.simulation.api_speakers import ApiPatient
from cbtrain.eval.simulation.dialogue import Limits, SpeakerStopped, Spoken
from cbtrain.eval.simulation.local_speakers import LocalPatient
from cbtrain.eval.simulation.parts import PatientRole
from cbtrain.eval.simulation.question import with_question
from cbtrain.eval.simulation.questionnaire import load_questionnaire, shipped_questionnaires
from cbtrain.eval.simulation.restoring import restore
from cbtrain.eval.simulation.runner import SimulationSettings, plan_sessions, run_sessions
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.journal import Journal, read
from cbtrain.tokens.dialogue import Message
from cbtrain.transcripts.types import Turn

SHIPPED = load_questionnaire("after-session")
POINTS = {item.id: place for place, item in enumerate(SHIPPED.items)}
TURNS = [Turn("patient", "I feel low."), Turn("therapist", "What happened?")]


def filled(**changes):
    return json.dumps(POINTS | {"own_words": "It was fine."} | changes)


def short(path, **changes):
    """A file with two items and one sub-scale."""
    ends = {"low": 1, "high": 3, "low_label": "no", "high_label": "yes", "subscale": "s"}
    items = [{"id": "a", "text": "A?", **ends}, {"id": "b", "text": "B?", **ends, "reversed": True}]
    content = {"name": "short", "introduction": "Well?", "subscales": {"s": "S"}, "items": items}
    path.write_text(yaml.safe_dump(content | {"own_words": {"text": "W?"}} | changes))
    return str(path)


@pytest.mark.parametrize("name", shipped_questionnaires())
def test_means_are_over_the_items_of_a_subscale_with_reversed_ones_turned_round(name):
    questionnaire = load_questionnaire(name)
    highest = {item.id: item.low if item.reversed else item.high for item in questionnaire.items}
    for subscale, mean in questionnaire.means(highest).items():
        assert mean == questionnaire.range_of(subscale)[1]
    assert any(item.reversed for item in questionnaire.items)
    # 0 + 1 + 2 + (10 − 3) over four items
    assert questionnaire.means(POINTS)["alliance"] == 2.5


def test_a_users_file_is_read_and_all_its_faults_are_told_at_once(tmp_path):
    path = tmp_path / "own.yaml"
    own = load_questionnaire(short(path))
    assert own.means({"a": 1, "b": 1}) == {"s": 2.0}
    ends = {"low": 1, "high": 3, "low_label": "no", "high_label": "yes"}
    items = [{"id": "a", "text": "A?", **ends, "subscale": "t"}, {"id": "a", "text": "B?", **ends, "subscale": "s"}]
    items += [{"id": "seed", "text": "C?", **ends | {"high": 1}, "subscale": "s"}]
    with pytest.raises(UserError) as caught:
        load_questionnaire(short(path, items=items))
    told = str(caught.value)
    for part in ("'a' is given 2 times", "'seed' is given 2 times", "a: no sub-scale 't'", "seed: high must be"):
        assert part in told
    assert "items with different scales" in told
    short(path, items=[{**items[1], "low": "x"}])
    path.write_text(path.read_text().replace("name: short\n", ""))
    with pytest.raises(UserError, match=r"name: missing; items\.0\.low: must be a whole number"):
        load_questionnaire(str(path))
    with pytest.raises(UserError, match="no questionnaire 'after-sesion'. Did you mean 'after-session'"):
        load_questionnaire("after-sesion")


def test_the_question_is_the_last_message_and_roles_alternate():
    before = [Message("system", "s"), Message("user", "Hello."), Message("assistant", "I feel low.")]
    roles = [message.role for message in with_question(before, SHIPPED.question.text)]
    assert roles == ["system", "user", "assistant", "user"]
    merged = with_question([*before, Message("user", "What happened?")], SHIPPED.question.text)
    assert [message.role for message in merged] == roles
    assert merged[-1].content.startswith("What happened?\n\nThe session is over")


async def ask(plan, **changes):
    async with serve(plan) as script:
        async with script.provider(max_retries=0, **changes) as provider:
            patient = ApiPatient(
                provider,
                PatientRole(),
                SamplingConfig(max_tokens=80),
            )
            return await patient.ask(TURNS, SHIPPED.question, 7), script


async def test_an_api_is_asked_in_character_and_held_to_the_schema():
    answered, script = await ask(lambda number, body: completion(filled(bond=3.0)))
    assert (answered.status, answered.values["bond"], answered.values["own_words"]) == ("ok", 3, "It was fine.")
    (body,) = script.bodies
    assert [message["content"] for message in body["messages"][:3]] == [
        "You are a patient in therapy for depression.",
        body["messages"][1]["content"],
        "I feel low.",
    ]
    assert SHIPPED.items[0].text in body["messages"][-1]["content"]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["bond"] == {"enum": list(range(11))}
    assert len(answered.facts["requests"]) == 1
    assert answered.facts["prompt_tokens"] == 7


@pytest.mark.parametrize(
    ("reply", "expected", "problem", "asked"),
    [
        (completion(filled(bond=11)), "invalid", "bond: Input should be less than or equal to 10", 3),
        (completion("I would rather not."), "invalid", "no JSON object", 3),
        (completion("", "content_filter"), "refused", "content_filter", 1),
        (completion(filled()[:20], "length"), "truncated", "cut at max_tokens", 1),
        (status(400, "no"), "error", "HTTP 400", 1),
    ],
)
async def test_what_is_no_valid_answer_has_a_status_and_a_reason(reply, expected, problem, asked):
    answered, script = await ask(lambda number, body: reply)
    assert (answered.status, answered.values) == (expected, None)
    assert problem in answered.problem
    assert len(script.bodies) == asked == len(answered.facts["requests"])


async def test_after_an_invalid_answer_the_patient_is_asked_again_with_what_is_wrong():
    answered, script = await ask(lambda number, body: completion(filled(bond=99) if number == 1 else filled()))
    assert (answered.status, answered.facts["asked"]) == ("ok", 2)
    assert "bond: Input should be" in script.bodies[1]["messages"][-1]["content"]
    assert answered.facts["completion_tokens"] == 6


async def test_a_model_on_this_machine_is_held_to_the_schema_by_a_grammar(tmp_path):
    from cbtrain.generation.local_model import LocalModel

    folder = random_model(tmp_path / "tiny", "llama", 4096)
    own = load_questionnaire(short(tmp_path / "own.yaml"))
    sampling = SamplingConfig(max_tokens=8, min_tokens=4, repetition_penalty=1.3)
    async with LocalModel(str(folder), {}, EngineConfig(slots=1, context_tokens=4096)) as model:
        patient = LocalPatient(model, PatientRole(), sampling, adapter=None, ids={})
        answered, again = [await patient.ask(TURNS, own.question, 3) for _ in range(2)]
        assert (answered.status, answered.values) == (again.status, again.values)
        long = replace(own.question, text=SHIPPED.question.text * 20)
        overflow = await patient.ask(TURNS, long, 3)
    # A random model may never close the text of its own words; what it has said is of the schema up to there.
    assert answered.status in ("ok", "truncated")
    assert answered.facts.get("raw", '{"a"').lstrip("{ \n").startswith('"a"')
    assert answered.values is None or own.accepts(answered.values)
    assert (overflow.status, overflow.values) == ("error", None)


class Talker:
    """Says one line with the number of its turn; an exception in its place is raised."""

    def __init__(self, line):
        self.line = line

    async def speak(self, turns, seed):
        if isinstance(self.line, Exception):
            raise self.line
        return Spoken(f"{self.line} {len(turns)}", {})


async def hold(folder, sessions, speakers, answers):
    with Journal(folder / "events.jsonl") as journal:
        events = list(read(journal.path))
        restore(sessions, events)
        answers.restore(sessions, events)
        settings = SimulationSettings(2, Limits(4, 1000), seed=0)
        await run_sessions(
            sessions, lanes(sessions, speakers), journal, settings, after=[AskPatients(answers, journal, 0)]
        )
    return answers


async def test_a_session_is_asked_about_once_and_anew_only_if_dialogue_or_questionnaire_change(tmp_path):
    """A failed session is not asked about; a defect in the asking ends neither the session nor the run."""
    api = []
    own = load_questionnaire(short(tmp_path / "own.yaml"))
    other = load_questionnaire(short(tmp_path / "other.yaml", introduction="Now?"))

    def plan(number, body):
        api.append(body)
        return completion('{"a": 1, "b": 1, "own_words": "Hm."}')

    def evaluate(questionnaire, therapists=lambda session: "Go on.", broken=()):
        sessions = plan_sessions(["p", "q"], ["base"], 2)

        def speakers(session):
            if session.id in broken:
                raise RuntimeError("lost")
            patient = ApiPatient(provider, PatientRole(), SamplingConfig())
            patient.speak = Talker("I am low.").speak
            return patient, Talker(therapists(session))

        return hold(tmp_path, sessions, speakers, Answers(questionnaire, 80))

    failing = SpeakerStopped("provider_error", "HTTP 500")
    async with serve(plan) as script, script.provider() as provider:
        answers = await evaluate(own, lambda session: failing if session.patient == "q" else "Go on.")
        assert sorted(answers.filled) == ["p.base.0", "p.base.1"]
        assert answers.filled["p.base.0"].answers == {"a": 1, "b": 1, "own_words": "Hm."}
        answers = await evaluate(own)  # the failed sessions are taken up again
        assert (sorted(answers.filled), len(api)) == (["p.base.0", "p.base.1", "q.base.0", "q.base.1"], 4)
        await evaluate(own)
        assert len(api) == 4
        answers = await evaluate(other, broken=("p.base.1",))
        assert (sorted(answers.filled), len(api)) == (["p.base.0", "q.base.0", "q.base.1"], 7)
        answers = await evaluate(other)
        assert (len(answers.filled), len(api)) == (4, 8)
        await evaluate(own)  # set back
        assert len(api) == 8
    events = list(read(tmp_path / "events.jsonl"))
    assert sum(event["kind"] == "defect" for event in events) == 1
    turns = [(event["session"], event["index"]) for event in events if event["kind"] == "turn"]
    assert len(turns) == len(set(turns)) == 16
    records = [event for event in events if event["kind"] == "questionnaire"]
    assert [record["status"] for record in records] == ["ok"] * 8
    assert all(record["facts"]["requests"] for record in records)


def test_no_answer_is_asked_for_again_and_a_useless_one_is_not():
    sessions = plan_sessions(["p"], ["base"], 1)
    sessions[0].turns = TURNS

    def lacks(status, turn_tokens=80, **facts):
        answers = Answers(SHIPPED, turn_tokens)
        asked = {"questionnaire": SHIPPED.digest, "dialogue": dialogue_digest(sessions[0])}
        record = {"kind": "questionnaire", "session": "p.base.0", **asked, "status": status}
        answers.restore(sessions, [record | {"answers": None, "problem": "x", "facts": facts}])
        return answers.lacks(sessions[0])

    assert [lacks(word) for word in ("invalid", "refused", "error")] == [False, False, True]
    limit = 80 + SHIPPED.question.tokens
    assert not lacks("truncated", max_tokens=limit)
    assert lacks("truncated", turn_tokens=90, max_tokens=limit)
    assert lacks("ok")  # without its answers: changed by hand
    sessions[0].turns = []
    assert not lacks("error")
