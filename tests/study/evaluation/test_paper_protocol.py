"""The 2024 study's six arms on tiny models, and what its protocol did wrong and the default does not."""

import asyncio
import hashlib
import io
import json
import random

import pytest
import yaml
from judge_requests import turns_read
from loopback import background, completion
from rich.console import Console
from study_files import ScriptedPatient, model_with_adapters, write_study

from cbtrain.config.loading import load_config
from cbtrain.config.schema import StudyConfig
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.mixed_models.tahir2024 import analyze_as_published
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.simulation.dialogue import Limits, _ended
from cbtrain.eval.simulation.prompts import shipped_prompts
from cbtrain.journal import read
from cbtrain.study.evaluation.evaluate import evaluate_study
from cbtrain.study.evaluation.scores import load_scores
from cbtrain.transcripts.types import Turn

BASES = {"Llama": "llama", "Mistral": "mistral-window", "Qwen": "qwen2"}


def judged(body):
    """A judge that reads: points follow from the dialogue."""
    draw = random.Random(hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest())
    rating = {
        domain.id: {"score": draw.randint(1, 6), "evidence": [2], "reason": "x"} for domain in load_rubric().domains
    }
    return completion(json.dumps(rating))


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """The evaluated study: its folder, and what the APIs were asked."""
    folder = tmp_path_factory.mktemp("six")
    arms = {}
    for name, kind in BASES.items():
        model = model_with_adapters(folder / kind, kind, adapters=("cbt",))
        arms[f"{name}: instruct"] = {"model": str(model)}
        arms[f"{name}: tuned"] = {"model": str(model), "adapter": str(model / "cbt")}
    patient = ScriptedPatient()
    with background(patient) as api, background(lambda number, body: judged(body)) as judge:
        judging = {"rater": "llm", "provider": {"base_url": judge.url, "model": "j", "api_key_env": None}}
        study = write_study(
            folder / "study.yaml",
            arms,
            api.url,
            protocol="paper",
            judging=judging,
            therapist={"max_tokens": 24},
            patient={"max_tokens": 60},
            engine={"context_tokens": 4096},
            max_patients=2,
            max_turns=14,
            course={"length": 3, "summary": {"min_words": 1, "max_tokens": 24}},
        )
        config = load_config(str(study))
        asyncio.run(evaluate_study(config, folder / "out", Console(file=io.StringIO())))
        return folder, [json.loads(body)[0] for body in patient.asked], judge.bodies


def test_six_arms_take_the_published_path(six):
    folder, _, _ = six
    ratings = load_scores([folder / "out"]).ratings
    published = analyze_as_published(ratings)
    assert [term.term for term in published.terms][:4] == [
        "intercept",
        "base: Mistral",
        "base: Qwen",
        "variant: instruct",
    ]
    assert published.fit.n == 36
    plan = yaml.safe_load((folder / "out" / "plan.yaml").read_text())
    assert "Llama: tuned − instruct" in plan["contrasts"]
    assert plan["sessions"]["end_phrases"]
    assert plan["therapist"]["system prompt"] == shipped_prompts()["one-line"]
    report = Report.read(folder / "out" / "report.json")
    assert len(report.arms) == 6
    assert {arm.rated for arm in report.arms} == {6}


def test_the_papers_patient_sees_ten_messages_and_is_told_that_some_are_missing(six):
    _, asked, _ = six
    seen = [[message for message in messages if message["role"] != "system"] for messages in asked]
    assert max(map(len, seen)) in (10, 11)
    assert any(messages[0]["content"].startswith("[Earlier turns are left out.]") for messages in seen)


def test_4_and_6_every_arm_says_which_weights_and_which_sampling_it_has(six):
    """An undisclosed base; sampling that was passed to where it is ignored. What the engine draws with is in the plan
    (test_therapists: an arm's own sampling is what it draws with)."""
    folder, _, _ = six
    plan = yaml.safe_load((folder / "out" / "plan.yaml").read_text())["therapists"]
    assert len({(arm["weights"], arm["architecture"]) for arm in plan.values()}) == 3
    assert all(len(arm["adapter"]) == 16 for name, arm in plan.items() if name.endswith("tuned"))
    for arm in plan.values():
        assert arm["model"].endswith(tuple(BASES.values()))
        assert {key: arm["sampling"][key] for key in ("temperature", "top_k", "top_p", "min_p")} == PAPER_SAMPLING


PAPER_SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
GOODBYE = [Turn("patient", "Thank you."), Turn("therapist", "You are welcome. Take care!")]


def test_7_and_8_by_default_no_baseline_is_without_a_prompt_and_no_phrase_ends_a_session():
    default = StudyConfig()
    assert default.evaluation.prompt == "tokens"
    assert "cognitive behavioural therapy" in default.tokens.therapist_system
    assert {"cbt", "session-structure", "few-shot"} <= shipped_prompts().keys()
    limits = Limits(50, 5000, tuple(default.evaluation.end_phrases))
    assert _ended(GOODBYE, limits) is None
    assert _ended(GOODBYE, Limits(50, 5000, ("take care",))) == "end_phrase"
    assert _ended(GOODBYE[:1], Limits(50, 5000, ("thank you",))) is None  # the patient's words are not searched


def test_9_the_judge_reads_every_turn_and_nothing_else(six):
    """The 2024 study cut the closing turn and left a pasted summary in."""
    folder, _, bodies = six
    turns = {}
    for event in read(folder / "out" / "events.jsonl"):
        if event["kind"] == "turn":
            turns.setdefault(event["session"], []).append(event["text"])
    asked = [[text for _, text in turns_read(body)] for body in bodies if "<<<transcript" in str(body)]
    for said in turns.values():
        assert [text.strip() for text in said] in asked


def test_13_interaction_and_the_contrast_in_question_are_planned(six):
    folder, _, _ = six
    ratings = load_scores([folder / "out"]).ratings
    planned = {plan.id: plan.family for plan in plan_contrasts(ratings.arms)}
    for base in BASES:
        assert planned[f"{base}: tuned − instruct"] == "tuning"
    assert planned["tuned: Llama − Mistral"] == "tuned"
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["analysis"]["interaction"]
