"""What decides an evaluation is in its protocol; what differs between two of them is named."""

import io
import json
import shutil
from dataclasses import replace

import pytest
from rich.console import Console
from study_files import model_with_adapters

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.config import EvaluationConfig
from cbtrain.study.evaluation.earlier_runs import earlier_settings, settings_of_run
from cbtrain.study.evaluation.judges import jury_of
from cbtrain.study.evaluation.problems import Problems
from cbtrain.study.evaluation.protocol import deviations
from cbtrain.study.evaluation.resume import match, refuse_stale, resume
from cbtrain.study.evaluation.run_context import BEGUN, PLAN, open_run
from cbtrain.study.evaluation.simulate import sessions_of
from cbtrain.study.evaluation.study import player_of, questionnaire_of
from cbtrain.study.evaluation.study import protocol_of as of_parts
from cbtrain.study.evaluation.therapists import therapists_of
from cbtrain.study.evaluation.treated import Treated
from cbtrain.study.trained_run import TrainedRun
from cbtrain.tokens.chat_files import TrainedPrompt, format_files
from cbtrain.tokens.formats import ChatFormat
from cbtrain.transcripts.profile import Profile

API = "evaluation.patient_provider={base_url: 'http://127.0.0.1:1/v1', model: m}"
JUDGE = "evaluation.judging.provider={base_url: 'http://127.0.0.1:1/v1', model: m, api_key_env: null}"

# Setting, and which of the two it changes: a session is not continued with another, a run not compared with one.
CHANGES = {
    "protocol": (["evaluation.protocol=paper"], "both"),
    "therapists": (["evaluation.therapists={x: {model: DIR, prompt: cbt}}"], "both"),
    "prompt": (["evaluation.prompt=cbt"], "both"),
    "patients": (["evaluation.patients={library: depression}"], "neither"),  # who is simulated is in the profiles
    "max_patients": (["evaluation.max_patients=1"], "neither"),  # who is simulated is in ``patients``
    "seeds": (["evaluation.seeds=9"], "compare"),
    "course": (["evaluation.course={sessions: whole, length: 3}"], "both"),
    "sessions_in_flight": (["evaluation.sessions_in_flight=3"], "neither"),
    "min_turns": (["evaluation.min_turns=4"], "both"),
    "max_turns": (["evaluation.max_turns=4"], "both"),
    "max_words": (["evaluation.max_words=77"], "both"),
    "end_phrases": (["evaluation.end_phrases=goodbye"], "both"),
    "therapist": (["evaluation.therapist.temperature=0.1"], "both"),
    "engine": (["evaluation.engine.context_tokens=512"], "session"),  # a part of the therapists, as their weights are
    "deterministic": (["evaluation.deterministic=true"], "session"),  # as the engine's context
    "patient": (["evaluation.patient.temperature=0.1"], "both"),
    "patient_provider": ([API], "both"),
    "patient_model": (["evaluation.patient_model={model: DIR}"], "both"),
    "patient_instructions": ([API, "evaluation.patient_instructions=Be brief."], "both"),
    "patient_messages": (["evaluation.patient_messages=4"], "both"),
    "simulators": ([API, "evaluation.simulators={story: {}}"], "both"),
    "drift": (["evaluation.drift=ignore"], "both"),
    "questionnaire": (["evaluation.questionnaire=after-session"], "compare"),
    "judging": ([JUDGE, "evaluation.judging.rater=llm"], "compare"),
    "judges": (["evaluation.judges={one: {rater: cue}}"], "compare"),
    "allocation": (["evaluation.allocation=cyclic"], "neither"),  # of one judge
    "perplexity_tokens": (["evaluation.perplexity_tokens=7"], "neither"),
    "max_failures": (["evaluation.max_failures=0.5"], "neither"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_with_adapters(tmp_path_factory.mktemp("tiny"))


def protocol_of(model, settings):
    """The protocol of a run on ``model``, whose tuned therapist and patient are its adapters."""
    config = load_config("quick", [setting.replace("DIR", str(model)) for setting in settings])
    problems, folder = Problems(), model / "run"
    if not folder.exists():
        folder.mkdir()
        for role, adapter in (("therapist", "kind"), ("patient", "brief")):
            shutil.copytree(model / adapter, folder / role)
    trained = TrainedRun(folder, str(model), {}, [{"name": "therapist"}], 0.0, {})
    therapists = therapists_of(config, trained, problems)
    player = player_of(config, trained, problems)
    questionnaire = questionnaire_of(config, player)
    problems.refuse()
    jury, ann = jury_of(config.evaluation, config.providers), Profile(course="ann", name="Ann", brief="You are Ann.")
    protocol = of_parts(config, Treated({"ann": ann}), jury, therapists, player, problems)
    problems.refuse()
    return replace(protocol, questionnaire=questionnaire)


def session_of(protocol):
    return protocol.session_settings(sessions_of(protocol)[-1])


@pytest.mark.parametrize("name", EvaluationConfig.model_fields)
def test_every_setting_of_an_evaluation_is_in_the_keys_that_it_decides(name, model, monkeypatch):
    """A setting that is added has to be added here, with what it decides."""
    monkeypatch.delenv("CBTRAIN_JUDGE_API_KEY", raising=False)
    settings, changed = CHANGES[name]
    plain = [API] if settings[:1] == [API] and len(settings) > 1 else []
    before, after = protocol_of(model, plain), protocol_of(model, settings)
    assert (session_of(before) != session_of(after)) == (changed in ("session", "both"))
    assert (before.compare_key != after.compare_key) == (changed in ("compare", "both"))


@pytest.mark.fault("D2")
@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (["evaluation.patient.max_tokens=4096"], None),
        (["evaluation.patient.max_tokens=8"], "patient.sampling.max_tokens was 30, and is 8"),
        (["evaluation.patient.max_tokens=4096", "evaluation.max_turns=4"], "limits.max_turns was 8, and is 4"),
        (["evaluation.seeds=3"], None),
    ],
)
async def test_a_patients_limit_may_be_raised_later_and_that_is_a_deviation(older, settings, refused, model, tmp_path):
    """It is what the failure of a patient advises that has spent all its tokens on thinking. Sessions may be added.
    Also to a run of an older version, which had one set of settings for all sessions."""
    before, after, out = protocol_of(model, [API]), protocol_of(model, [API, *settings]), io.StringIO()
    run_folder = model / "run"
    (run_folder / "events.jsonl").unlink(missing_ok=True)
    async with open_run(after.config, run_folder, Console(file=out, width=300)) as run:
        begun = sessions_of(before)[0]
        run.record(PLAN, protocol=before.compare_key if older else before.plan)
        if older:
            run.record(BEGUN, settings=settings_of_run(before, run_folder))
            run.record("session_started", session=begun.id)
        else:
            resume(match([begun], before, run.events, run_folder), [begun], run)
            run.record("session_started", session=begun.id, key=begun.key)
        run.record("turn", session=begun.id, index=0, role="patient", text="I feel low.")
        if refused:
            with pytest.raises(UserError, match="an older version" if older else refused):
                refuse_stale(match(sessions_of(after), after, run.events, run_folder), run, hold_again=False)
            return
        again = sessions_of(after)
        resume(match(again, after, run.events, run_folder), again, run)
        assert [len(session.turns) for session in again] == [1] + [0] * (len(again) - 1)
        raised = "max_tokens" in settings[0]
        assert ("evaluation.patient.max_tokens was raised" in out.getvalue()) == raised
        told = deviations(after.plan, run.events)
        assert [line.partition(" was ")[0] for line in told] == (
            ["patient.sampling.max_tokens"] if raised else ["sessions.seeds"]
        )


def test_what_was_changed_after_the_plan_is_a_deviation():
    plan = {"judge": {"model": "one"}, "seed": 7, "patient": {"instructions": "x" * 100}}
    events = [{"kind": "turn"}, {"kind": PLAN, "time": "2026-11-23T03:10:00.123+00:00", "protocol": plan}]
    assert deviations(plan, events) == []
    later = {"judge": {"model": "two"}, "patient": {"instructions": "y" * 100}}
    assert deviations(later, events) == [
        "judge.model was one in the plan of 2026-11-23 03:10 UTC, and is two",
        "seed was 7 in the plan of 2026-11-23 03:10 UTC, and is nothing",
        f"patient.instructions was {'x' * 57}... in the plan of 2026-11-23 03:10 UTC, and is {'y' * 57}...",
    ]
    assert "no plan was journalled" in deviations(plan, [{"kind": "turn"}])[0]


def test_a_folder_that_has_moved_is_no_deviation_but_other_weights_are(model):
    plan = protocol_of(model, []).plan
    events = [{"kind": PLAN, "time": "2026-11-30T03:10:00.123+00:00", "protocol": plan}]
    moved = {
        name: arm | {"model": "elsewhere", **({"adapter folder": "there"} if "adapter folder" in arm else {})}
        for name, arm in plan["therapists"].items()
    }
    assert deviations(plan | {"therapists": moved}, events) == []
    moved["tuned"]["adapter"] = "other"
    (told,) = deviations(plan | {"therapists": moved}, events)
    assert told.startswith("therapists.tuned.adapter was ")


@pytest.mark.fault("A12")
def test_the_simulated_therapists_get_the_prompt_of_the_setting(model):
    adapter = model / "run" / "therapist"
    protocol_of(model, [])
    plain = (adapter / "chat_format.json").read_text() if (adapter / "chat_format.json").exists() else None
    files = format_files(ChatFormat("template", "{{ messages }}"), (), TrainedPrompt("Be kind."))
    layout = json.loads(files["chat_format.json"]) | {"name": "plain"}
    try:
        (adapter / "chat_format.json").write_text(json.dumps(layout))
        (adapter / "chat_template.jinja").write_text(files["chat_template.jinja"])
        for setting, system in (("ours", "We."), ("data", "Be kind."), ("none", "")):
            protocol = protocol_of(model, [f"tokens.system={setting}", "tokens.therapist_system=We."])
            assert {therapist.system for therapist in protocol.therapists} == {system}
            assert session_of(protocol)["therapist"]["system prompt"] == system
            assert protocol.compare_key["therapist"]["system prompt"] == system
    finally:
        (adapter / "chat_template.jinja").unlink()
        (adapter / "chat_format.json").unlink()
        if plain is not None:
            (adapter / "chat_format.json").write_text(plain)
    assert protocol_of(model, ["tokens.system=data"]).therapists[0].system == ""


def test_sizes_of_the_engine_and_settings_that_came_later_change_no_protocol(model):
    before = protocol_of(model, [])
    sizes = ["evaluation.engine.slots=3", "evaluation.engine.memory_gb=1", "evaluation.engine.prefill_tokens=64"]
    after = protocol_of(model, sizes)
    assert (session_of(before), before.plan) == (session_of(after), after.plan)
    assert "min_p" not in before.plan["therapist"]["sampling"]
    older = settings_of_run(before, model / "run")
    journalled = older | {"evaluation": {**older["evaluation"], "engine": {"slots": 16}, "seeds": 2}}
    journalled["evaluation"]["engine"]["context_tokens"] = 8192
    journalled["evaluation"]["therapist"] = {**journalled["evaluation"]["therapist"], "min_p": 0.0}
    assert earlier_settings([{"kind": BEGUN, "settings": journalled}]) == older
