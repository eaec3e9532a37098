"""What decides an evaluation is in its protocol; what differs between two of them is named."""

import io

import pytest
from rich.console import Console

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.config import EvaluationConfig
from cbtrain.eval.rating.rubric import load_rubric
from cbtrain.study.evaluation.protocol import EvaluationProtocol, as_always, deviations
from cbtrain.study.evaluation.run_context import BEGUN, PLAN, open_run
from cbtrain.study.evaluation.simulate import SimulationPlan
from cbtrain.tokens.chat_files import TrainedPrompt, format_files
from cbtrain.tokens.formats import ChatFormat

API = "evaluation.patient_provider={base_url: 'http://127.0.0.1:1/v1', model: m}"
JUDGE = "evaluation.judging.provider={base_url: 'http://127.0.0.1:1/v1', model: m, api_key_env: null}"

# Setting, and which of the two keys it changes: a session is not continued with another, a run not compared with one.
CHANGES = {
    "max_patients": (["evaluation.max_patients=1"], "resume"),  # who is simulated is in ``patients``
    "seeds": (["evaluation.seeds=9"], "both"),
    "sessions_in_flight": (["evaluation.sessions_in_flight=3"], "neither"),
    "max_turns": (["evaluation.max_turns=4"], "both"),
    "max_words": (["evaluation.max_words=77"], "both"),
    "therapist": (["evaluation.therapist.temperature=0.1"], "both"),
    "engine": (["evaluation.engine.context_tokens=512"], "resume"),  # a part of the therapists, as their weights are
    "deterministic": (["evaluation.deterministic=true"], "resume"),  # as the engine's context
    "patient": (["evaluation.patient.temperature=0.1"], "both"),
    "patient_provider": ([API], "both"),
    "patient_instructions": ([API, "evaluation.patient_instructions=Be brief."], "both"),
    "judging": ([JUDGE, "evaluation.judging.rater=llm"], "compare"),
    "perplexity_tokens": (["evaluation.perplexity_tokens=7"], "neither"),
    "max_failures": (["evaluation.max_failures=0.5"], "neither"),
}


def protocol_of(folder, settings):
    config = load_config("quick", settings)
    rubric = load_rubric(config.evaluation.judging.rubric)
    return EvaluationProtocol(config, folder, {"ann": None}, rubric, ["base", "tuned"])


@pytest.mark.parametrize("name", EvaluationConfig.model_fields)
def test_every_setting_of_an_evaluation_is_in_the_keys_that_it_decides(name, tmp_path, monkeypatch):
    """A setting that is added has to be added here, with what it decides."""
    monkeypatch.delenv("CBTRAIN_JUDGE_API_KEY", raising=False)
    settings, changed = CHANGES[name]
    plain = [API] if settings[:1] == [API] and len(settings) > 1 else []
    before, after = protocol_of(tmp_path, plain), protocol_of(tmp_path, settings)
    assert (before.resume_key != after.resume_key) == (changed in ("resume", "both"))
    assert (before.compare_key != after.compare_key) == (changed in ("compare", "both"))


@pytest.mark.fault("D2")
@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (["evaluation.patient.max_tokens=4096"], None),
        (["evaluation.patient.max_tokens=8"], "evaluation.patient.max_tokens differs"),
        (["evaluation.patient.max_tokens=4096", "evaluation.max_turns=4"], "differs from the settings of the sessions"),
    ],
)
async def test_a_patients_limit_may_be_raised_later_and_that_is_a_deviation(settings, refused, tmp_path):
    """It is what the failure of a patient advises that has spent all its tokens on thinking."""
    before, after, out = protocol_of(tmp_path, [API]), protocol_of(tmp_path, [API, *settings]), io.StringIO()
    async with open_run(after.config, tmp_path, Console(file=out, width=300)) as run:
        run.record(PLAN, protocol=before.compare_key)
        run.record(BEGUN, settings=before.resume_key)
        plan = SimulationPlan(None, after, [])
        if refused:
            with pytest.raises(UserError, match=refused):
                plan.resume(run)
            return
        assert plan.resume(run)
        assert "evaluation.patient.max_tokens is 4,096 now, and was 30" in out.getvalue()
        assert deviations(after.compare_key, run.events)[0].startswith("patient.sampling.max_tokens was 30")


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


@pytest.mark.fault("A12")
def test_the_simulated_therapists_get_the_prompt_of_the_setting(tmp_path):
    prompt, renderer_format = TrainedPrompt("Be kind."), ChatFormat("template", "{{ messages }}")
    (tmp_path / "therapist").mkdir()
    for name, text in format_files(renderer_format, (), prompt).items():
        (tmp_path / "therapist" / name).write_text(text)
    for setting, system in (("ours", "We."), ("data", "Be kind."), ("none", "")):
        protocol = protocol_of(tmp_path, [f"tokens.system={setting}", "tokens.therapist_system=We."])
        assert protocol.therapist_system == system
        assert protocol.resume_key["tokens.therapist_system"] == system
        assert protocol.compare_key["therapist"]["system prompt"] == system
    (tmp_path / "therapist" / "chat_format.json").unlink()
    assert protocol_of(tmp_path, ["tokens.system=data"]).therapist_system == ""


def test_sizes_of_the_engine_and_settings_that_came_later_change_no_protocol(tmp_path):
    before = protocol_of(tmp_path, [])
    sizes = ["evaluation.engine.slots=3", "evaluation.engine.memory_gb=1", "evaluation.engine.prefill_tokens=64"]
    after = protocol_of(tmp_path, sizes)
    assert (before.resume_key, before.compare_key) == (after.resume_key, after.compare_key)
    assert "min_p" not in before.resume_key["evaluation"]["therapist"]
    journalled = before.resume_key | {"evaluation": {**before.resume_key["evaluation"], "engine": {"slots": 16}}}
    journalled["evaluation"]["engine"]["context_tokens"] = 8192
    journalled["evaluation"]["therapist"] = {**journalled["evaluation"]["therapist"], "min_p": 0.0}
    assert as_always(journalled) == before.resume_key
