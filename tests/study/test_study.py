"""The whole study as a person runs it: real processes, the quick config."""

import asyncio
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import cbtrain, start_cbtrain
from forked import DEVNULL
from loopback import background, completion, serve
from places import BIN, ROOT, TAHIR2024, needs_tahir2024

from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import read_scores_csv
from cbtrain.eval.simulation.api_speakers import ApiPatient
from cbtrain.eval.simulation.parts import PatientRole
from cbtrain.generation.config import SamplingConfig
from cbtrain.journal import read as read_journal
from cbtrain.tokens.chat_files import TrainedPrompt, saved_prompt
from cbtrain.tokens.config import THERAPIST_SYSTEM
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.writing import write_canonical, write_sessions

pytestmark = pytest.mark.slow


SMALL = ["base.token_budget=8000", "therapist.token_budget=6000", "patient.token_budget=4000"]
TALK = ["evaluation.seeds=1", "evaluation.max_turns=4", "evaluation.perplexity_tokens=500", "evaluation.max_failures=1"]
"""For studies whose numbers nobody looks at: some steps of training, some turns, tiny patients that may say nothing."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("study")
    done = cbtrain("run", "--config", "quick", "--out", "run", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd / "run", done.stdout


def test_it_ends_with_the_table_and_the_path_of_the_report(run):
    folder, out = run
    assert "Guided discovery" in out
    assert "smoke-test cue rater: counts wording, no clinical judgement" in out
    assert out.strip().splitlines()[-1] == f"report: {Path('run') / 'report.html'}"
    assert (folder / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")


@pytest.mark.fault("F11")
def test_only_its_owner_may_read_a_run(run):
    folder, _ = run
    files = [folder, *folder.rglob("*")]
    assert {path.name for path in files} >= {"events.jsonl", "report.html", "sessions.jsonl", "training"}
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_the_report_says_what_was_done(run):
    folder, _ = run
    report = json.loads((folder / "report.json").read_text())
    corpus = read("sample")
    assert report["corpus"]["words"] == corpus.words
    parts = report["corpus"]["split"]
    assert sorted(course for side in parts.values() for course in side) == sorted(c.id for c in corpus.courses)
    assert {stage["name"]: stage["method"] for stage in report["training"]} == {
        "base": "full",
        "therapist": "lora",
        "patient": "lora",
    }
    for stage in report["training"]:
        assert 0 < stage["share_of_corpus"] <= 1
        assert stage["validation_best"] <= stage["validation_before"]
    assert {s["patient"] for s in report["sessions"]} == set(parts["test"])
    assert {p["patient"] for p in report["perplexity"]["patients"]} == set(parts["test"])
    assert report["perplexity"]["mean_change_percent"] < 0
    assert len(report["sessions"]) == len(parts["test"]) * 2 * 2
    assert not [s for s in report["sessions"] if s["error"]]
    assert report["rater"]["kind"] == "cue"
    for stage in report["training"][1:]:
        general, turns = stage["forgetting"]
        assert turns["text"] == {"therapist": "patients' turns", "patient": "therapists' turns"}[stage["name"]]
        for text in (general, turns):
            assert text["tokens"] == 1000
            assert text["kl"] > 0
            assert text["tuned_perplexity"] / text["base_perplexity"] - 1 == pytest.approx(text["rise"])
            assert text["about"] in (folder / stage["name"] / "README.md").read_text()
        data = stage["data"]
        assert data["chat_format"] == "template"
        assert data["tokens_per_epoch"] == data["whole_recipe_tokens_per_epoch"]
        assert data["paper_recipe_tokens_per_epoch"] > 4 * data["tokens_per_epoch"]
        assert 0 < data["supervised_per_epoch"] < data["tokens_per_epoch"]
        assert f"{data['paper_recipe_tokens_per_epoch']:,}" in (folder / "report.html").read_text()
    assert (report["protocol"]["patients"], report["protocol"]["judge"]) == (parts["test"], {"kind": "cue"})
    assert report["prompts"]["therapist"] == report["config"]["tokens"]["therapist_system"]
    found = report["analysis"]
    assert [contrast["id"] for contrast in found["contrasts"]] == report["protocol"]["contrasts"] == ["tuned − base"]
    assert found["length"]["arms"][0]["sessions"] == len(parts["test"]) * 2
    assert sum(arm["planned"] for arm in found["completion"]["arms"]) == len(report["sessions"])
    assert {path.name for path in (folder / "figures").glob("*.png")} >= {"forest.png", "scores.png", "length.png"}


def test_the_plan_comes_before_the_sessions_and_what_is_changed_later_is_told(run, tmp_path):
    folder, _ = run
    kinds = [event["kind"] for event in read_journal(folder / "events.jsonl")]
    assert kinds.index("plan") < kinds.index("run_started") < kinds.index("turn")
    assert json.loads((folder / "report.json").read_text())["deviations"] == []
    again = tmp_path / "run"
    subprocess.run(["cp", "-r", folder, again], check=True)
    rubric = (ROOT / "configs" / "rubrics" / "cbt_fidelity.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(rubric.replace("name: CBT Fidelity Rating", "name: My rating"))
    done = cbtrain("evaluate", "--run", "run", f"evaluation.judging.rubric={tmp_path}/mine.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((again / "report.json").read_text())["deviations"]
    assert [line.split()[0] for line in told] == ["rubric.name", "rubric.digest"]
    assert "My rating" in told[0]
    done = cbtrain("compare", folder, again, cwd=tmp_path)
    assert done.returncode == 2
    assert "rubric.name (CBT Fidelity Rating (11 domains, 0-6) and My rating (11 domains, 0-6))" in done.stderr


def test_scores_events_and_report_agree(run):
    folder, _ = run
    report = json.loads((folder / "report.json").read_text())
    transcripts = {(s.facts["arm"], s.patient, s.number - 1): s for s in read(folder / "sessions.jsonl").sessions()}
    assert len(transcripts) == len(report["sessions"])
    for session in report["sessions"]:
        written = transcripts[session["arm"], session["patient"], session["seed"]]
        assert [turn.text for turn in written.turns] == [turn["text"] for turn in session["turns"]]
        assert written.facts["ending"] == session["ending"]
    totals = {score.session_id: score.total for score in read_scores_csv(folder / "scores.csv")}
    spoken = {}
    for event in read_journal(folder / "events.jsonl"):
        if event["kind"] == "turn":
            spoken.setdefault(event["session"], []).append(event["text"])
    for session in report["sessions"]:
        assert session["total"] == totals[session["id"]]
        assert [turn["text"] for turn in session["turns"]] == spoken[session["id"]]


def test_what_was_saved_opens_in_transformers_and_peft(run):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = run
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    chat = [{"role": "user", "content": "I did not sleep."}]
    ids = torch.tensor([tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)])
    plain = model(ids).logits
    for speaker in ("therapist", "patient"):
        tuned = PeftModel.from_pretrained(model, folder / speaker, adapter_name=speaker)
        tuned.set_adapter(speaker)
        assert (tuned(ids).logits - plain).abs().max() > 0.01
        model = tuned.unload()


@pytest.mark.fault("H2")
def test_an_adapters_folder_is_enough_for_other_programs_and_its_card_says_how(run, monkeypatch, capsys):
    from huggingface_hub import ModelCard
    from transformers import AutoTokenizer

    folder, _ = run
    monkeypatch.chdir(folder)  # where the base is called as the card calls it
    chat = [{"role": "user", "content": "I did not sleep."}]
    base = AutoTokenizer.from_pretrained("base")
    for speaker, system in (("therapist", THERAPIST_SYSTEM), ("patient", None)):
        card = ModelCard.load(Path(speaker) / "README.md")
        described = card.data.to_dict()
        assert described.items() >= {"base_model": "base", "library_name": "peft", "language": ["en"]}.items()
        assert "license" not in described
        (example,) = re.findall(r"```python\n(.*?)```", card.content, re.DOTALL)
        exec(example.replace("ADAPTER", speaker), {})
        assert capsys.readouterr().out
        opened = AutoTokenizer.from_pretrained(speaker)
        expected = [{"role": "system", "content": system}, *chat] if system else chat
        assert opened.apply_chat_template(chat, return_dict=False) == base.apply_chat_template(
            expected, return_dict=False
        )
        assert (f"    {system}\n" in card.content) == bool(system)
        assert "medical device" in card.content
        assert "| patients | " in card.content
        light = {path.name for path in Path("training", speaker, "checkpoints").glob("step-*/adapter/*")}
        assert "chat_format.json" in light
        assert not light & {"tokenizer.json", "README.md"}


@pytest.mark.fault("A12")
@pytest.mark.fault("H2")
def test_a_study_with_the_prompts_of_its_data(run, tmp_path):
    corpus = read("sample")
    sessions = [replace(session, facts={"system": "Be kind."}) for session in corpus.sessions()]
    write_sessions(sessions, [course.profile for course in corpus.courses], tmp_path / "own")
    settings = [f"model.path={run[0] / 'base'}", "corpus.path=own", "tokens.system=data", *SMALL, *TALK]
    done = cbtrain("run", "--config", "quick", "--out", "run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "note: 18 of 18 sessions have their own system prompt (the same). The therapist is trained" in done.stdout
    assert saved_prompt(tmp_path / "run" / "therapist") == TrainedPrompt("Be kind.", in_template=True)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["prompts"]["therapist"] == report["protocol"]["therapist"]["system prompt"] == "Be kind."
    (tmp_path / "run" / "study.json").unlink()  # as if training had been interrupted
    refused = cbtrain("train", "--out", "run", "tokens.system=ours", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "tokens.system is ours, the interrupted run has data" in refused.stderr


@pytest.mark.fault("F14")
def test_an_evaluation_that_is_killed_goes_on_without_asking_anything_twice_and_says_the_same(run, tmp_path):
    folder, _ = run
    again = tmp_path / "run"
    subprocess.run(["cp", "-r", folder, again], check=True)
    for name in ("events.jsonl", "scores.csv", "report.html", "report.json"):
        (again / name).unlink()
    arguments = ("evaluate", "--run", "run", "evaluation.sessions_in_flight=2")
    child = start_cbtrain(*arguments, cwd=tmp_path, stdout=DEVNULL, stderr=DEVNULL)
    events = again / "events.jsonl"
    deadline = time.monotonic() + 120
    while not (events.exists() and events.read_text().count('"kind": "turn"') >= 9):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = [e for e in read_journal(events) if e["kind"] == "turn"]
    unfinished = len(json.loads((folder / "report.json").read_text())["sessions"]) * 8 - len(before)
    assert unfinished > 0
    done = cbtrain("evaluate", "--run", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout
    turns = [e for e in read_journal(events) if e["kind"] == "turn"]
    places = [(e["session"], e["index"]) for e in turns]
    assert turns[: len(before)] == before
    assert len(places) == len(set(places))
    report = json.loads((again / "report.json").read_text())
    assert not [s for s in report["sessions"] if s["error"]]
    assert sum(len(s["turns"]) for s in report["sessions"]) == len(places)
    words = lambda events: {(e["session"], e["index"]): e["text"] for e in events if e["kind"] == "turn"}  # noqa: E731
    assert words(turns) == words(read_journal(folder / "events.jsonl"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluation.max_turns=6", "4 sessions of base (32 turns): limits.max_turns was 8, and is 6"),
        ("evaluation.therapist.temperature=0.1", "therapist.sampling.temperature was 0.8, and is 0.1"),
        ("seed=5", "seed was 0, and is 5"),
        ("tokens.therapist_system=Pirate", "therapist.system prompt was You are Nova"),
        ("model.weights=bf16", "on this machine.weights was auto, and is bf16"),
        ("model.path=/nowhere", "not on /nowhere"),
        ("split.seed=8", "split differently in training"),
        ("corpus.cleaning.drop_empty_turns=false", None),
    ],
)
def test_other_settings_do_not_mix_into_begun_sessions(run, tmp_path, setting, message):
    folder, _ = run
    done = cbtrain("evaluate", "--run", folder, setting, cwd=tmp_path)
    if message is None:  # it changes nothing here
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2
        assert message in done.stderr


def test_transcripts_that_changed_since_training_are_refused(tmp_path):
    write_canonical(read("sample"), tmp_path / "c")
    done = cbtrain("train", "--config", "quick", "--out", "run", "corpus.path=c", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "c" / "sessions.jsonl"
    file.write_text(file.read_text().replace("I feel", "I felt"))
    done = cbtrain("evaluate", "--run", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "the transcripts have changed since training" in done.stderr
    assert not (tmp_path / "run" / "events.jsonl").exists()


def test_a_patient_api_that_never_answers_is_no_success(run, tmp_path):
    folder, _ = run
    again = tmp_path / "run"
    subprocess.run(["cp", "-r", folder, again], check=True)
    for name in ("events.jsonl", "scores.csv", "report.html", "report.json"):
        (again / name).unlink()
    api = ["evaluation.patient_provider.base_url=http://127.0.0.1:9/v1", "evaluation.patient_provider.model=m"]
    quick = ["evaluation.patient_provider.max_retries=0", "evaluation.perplexity_tokens=100"]
    done = cbtrain("evaluate", "--run", "run", *api, *quick, cwd=tmp_path)
    assert done.returncode == 2
    assert "http://127.0.0.1:9/v1: every session failed: " in done.stderr
    assert not (again / "report.html").exists()


def test_patients_and_judge_behind_apis_within_a_budget(run, tmp_path):
    """Killed in the middle and taken up again, with a budget that first ends sessions and then is raised."""
    folder, _ = run
    again, keys = tmp_path / "run", {"PATIENT_KEY": "planted-patient-key", "JUDGE_KEY": "planted-judge-key"}
    subprocess.run(["cp", "-r", folder, again], check=True)
    for name in ("events.jsonl", "scores.csv", "report.html", "report.json", "sessions.jsonl"):
        (again / name).unlink()
    asked = Counter()

    def plan(number, body):
        asked[json.dumps(body["messages"])] += 1
        if body["model"] == "patient":
            words, usage = (
                f"I slept badly, number {len(body['messages'])}.",
                {"prompt_tokens": 7, "completion_tokens": 10},
            )
            return completion(words) | {"model": "patient-1", "usage": usage}
        rating = {"evidence": [1], "reason": "asks", "score": 3}
        return completion(json.dumps({domain.id: rating for domain in load_rubric().domains}))

    with background(plan) as script:
        api = f"base_url: '{script.url}'"
        dear = "price: {input: 0, output: 1000}"  # ten tokens an answer: 1 cent
        cheap = "price: {input: 0, output: 1}"
        settings = [
            f"evaluation.patient_provider={{{api}, {dear}, model: patient, api_key_env: PATIENT_KEY}}",
            f"evaluation.judging.provider={{{api}, {cheap}, model: judge, api_key_env: JUDGE_KEY}}",
            *("evaluation.perplexity_tokens=100", "evaluation.max_turns=6", "evaluation.patient.max_tokens=10"),
            *("evaluation.judging.judge.max_tokens=100", f"providers.record={tmp_path}/tape.jsonl"),
        ]
        environment = keys | {"CBTRAIN_CACHE": str(tmp_path / "cache")}
        done = cbtrain("evaluate", "--run", "run", *settings, "providers.budget=0.13", cwd=tmp_path, env=environment)
        assert "the budget ended" in done.stdout
        patients = sum(event["kind"] == "turn" and event["role"] == "patient"
                       for event in read_journal(again / "events.jsonl"))  # fmt: skip
        assert 1 <= patients == sum(asked.values()) <= 13
        assert not (again / "report.html").exists() or "Failed" in done.stdout
        done = cbtrain("evaluate", "--run", "run", *settings, "providers.budget=9", cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    report = json.loads((again / "report.json").read_text())
    rows = {row["role"]: row for row in report["costs"]["roles"]}
    turns = [turn for session in report["sessions"] for turn in session["turns"] if turn["role"] == "patient"]
    assert rows["patient"]["requests"] + rows["patient"]["reused"] == len(turns)
    assert rows["patient"]["models"] == {"patient-1": rows["patient"]["requests"]}
    assert rows["judge"]["requests"] == len(report["sessions"])
    dollars = 0.01 * rows["patient"]["requests"] + 3e-6 * rows["judge"]["requests"]
    assert report["costs"]["dollars"] == pytest.approx(dollars)
    assert sum(asked.values()) == sum(row["requests"] for row in rows.values())
    assert "APIs: patient" in done.stdout
    page = html.unescape((again / "report.html").read_text())
    assert "Requests to APIs and what they cost" in page
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not any(key.encode() in path.read_bytes() for key in keys.values())
    assert not any(key in done.stdout + done.stderr for key in keys.values())
    # The recording plays the same study without keys, APIs or costs.
    for name in ("events.jsonl", "scores.csv", "report.html", "report.json"):
        (again / name).unlink()
    settings = [*settings[:-1], f"providers.replay={tmp_path}/tape.jsonl"]
    done = cbtrain("evaluate", "--run", "run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    replayed = json.loads((again / "report.json").read_text())
    assert replayed["costs"] is None
    words = [[[turn["text"] for turn in s["turns"]] for s in one["sessions"]] for one in (replayed, report)]
    assert words[0] == words[1]
    assert [s["total"] for s in replayed["sessions"]] == [s["total"] for s in report["sessions"]]


def test_special_tokens_in_a_patients_mouth_are_taken_out(run):
    async def speak():
        script_ = {"choices": [{"message": {"content": "Low.<|end|> And tired."}, "finish_reason": "stop"}]}
        async with serve(lambda number, body: script_) as script:
            async with script.provider() as provider:
                patient = ApiPatient(provider, PatientRole(forbidden=["<|end|>"]), SamplingConfig())
                return await patient.speak((), 0)

    spoken = asyncio.run(speak())
    assert spoken.text == "Low.  And tired."
    assert spoken.facts["special_tokens_removed"] == 1


# The therapist is trained on the defaults; what a simulated patient says, or whether, decides no perplexity.
SHORT = ["evaluation.seeds=1", "evaluation.max_turns=4", "evaluation.max_failures=1", "patient.token_budget=20000"]


@pytest.mark.deep
def test_the_default_study_lowers_every_held_out_patients_perplexity(tmp_path):
    """What `make run` promises, on the defaults: both arms on the same token ids."""
    done = cbtrain("run", "--out", "run", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    perplexity = json.loads((tmp_path / "run" / "report.json").read_text())["perplexity"]
    assert len(perplexity["patients"]) == 2
    assert all(row["tuned"] < row["base"] for row in perplexity["patients"])
    assert perplexity["mean_change_percent"] <= -5
    assert "lower than the base's for 2 of 2" in html.unescape((tmp_path / "run" / "report.html").read_text())


@pytest.mark.deep
@needs_tahir2024
def test_the_study_of_the_authors_corpus_lowers_every_held_out_patients_perplexity(tmp_path):
    small = [*SHORT, "evaluation.max_patients=2"]
    done = cbtrain("run", "--out", "run", f"corpus.path={TAHIR2024}", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    rows = report["perplexity"]["patients"]
    assert len(rows) == len(report["corpus"]["split"]["test"]) > 5
    assert all(row["tuned"] < row["base"] for row in rows)
    assert report["perplexity"]["mean_change_percent"] <= -5
    assert report["corpus"]["sessions"] == 960
    assert len(report["sessions"]) == 4


def test_a_named_model_and_the_authors_layout(run, tmp_path):
    folder, _ = run
    for number, course in enumerate(read("sample").courses, 1):
        target = tmp_path / "repo" / "Synthetic_Transcripts" / f"depression_set_{number}"
        target.mkdir(parents=True)
        for session in course.sessions:
            text = "\n\n".join(f"{t.role.capitalize()}: {t.text}" for t in session.turns)
            file = target / f"session_{session.number}.json"
            file.write_text(json.dumps({"transcript": text, "word_count": len(text.split())}))
    settings = [f"model.path={folder / 'base'}", f"corpus.path={tmp_path / 'repo'}"]
    done = cbtrain("run", "--config", "quick", "--out", "run", *settings, *SMALL, *TALK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["corpus"]["format"] == "author"
    assert [stage["name"] for stage in report["training"]] == ["therapist", "patient"]
    assert not (tmp_path / "run" / "base").exists()


def without_template(folder, target):
    """A copy of the base model in ``folder`` as base models come: without a chat template."""
    shutil.copytree(folder / "base", target)
    (target / "chat_template.jinja").unlink(missing_ok=True)
    config = target / "tokenizer_config.json"
    facts = json.loads(config.read_text())
    facts.pop("chat_template", None)
    config.write_text(json.dumps(facts))
    return target


def test_a_base_model_without_a_chat_template(run, tmp_path):
    model = without_template(run[0], tmp_path / "model")
    refused = cbtrain("run", "--config", "quick", f"model.path={model}", cwd=tmp_path)
    assert refused.returncode == 2
    assert "no chat template. Set tokens.format=plain" in refused.stderr
    settings = [f"model.path={model}", "tokens.format=plain", "therapist.supervise=both"]
    settings += ["tokens.weights=[{match: ai_limits, weight: 0.1}]"]
    done = cbtrain("run", "--config", "quick", "--out", "run", *settings, *SMALL, *TALK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [stage["data"]["chat_format"] for stage in report["training"]] == ["plain", "plain"]
    # So small a model may stop before its first word; that is no failure of the layout.
    endings = {session["ending"]: session["error"] for session in report["sessions"]}
    assert set(endings) <= {"max_turns", "empty_turn", "provider_error"}
    assert "empty answer" in (endings.get("provider_error") or "empty answer")
    assert any(session["turns"] for session in report["sessions"])
    for speaker, label in (("therapist", "Therapist"), ("patient", "Patient")):
        template = (tmp_path / "run" / speaker / "chat_template.jinja").read_text()
        assert f"assistant_label, user_label = '{label}'" in template
        stops = json.loads((tmp_path / "run" / speaker / "chat_format.json").read_text())["stop_strings"]
        assert stops == ["\nTherapist:", "\nPatient:"]
    # What is served is what was trained: no label is left in anybody's mouth.
    said = [turn["text"] for session in report["sessions"] for turn in session["turns"]]
    assert not [text for text in said if "Patient:" in text or "Therapist:" in text]


def test_the_papers_recipe_runs_for_comparison(run, tmp_path):
    model = without_template(run[0], tmp_path / "model")
    budgets = [f"{speaker}.{key}={value}" for speaker in ("therapist", "patient") for key, value in PAPER.items()]
    settings = [f"model.path={model}", *budgets, *TALK, "evaluation.max_patients=1"]
    done = cbtrain("run", "--config", "paper", "--out", "run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    data = report["training"][0]["data"]
    assert data["chat_format"] == "alpaca"
    assert data["whole_recipe_tokens_per_epoch"] is None
    assert data["supervised_per_epoch"] > 0.9 * data["tokens_per_epoch"]


PAPER = {"token_budget": 4_000, "validation_tokens": 2_000, "validate_every": 2_000}


def test_a_run_can_be_evaluated_from_another_folder(run, tmp_path):
    folder, _ = run
    (tmp_path / "corpus").mkdir()
    (tmp_path / "elsewhere").mkdir()
    copy = read("sample")
    write_canonical(copy, tmp_path / "corpus")
    model = f"model.path={os.path.relpath(folder / 'base', tmp_path)}"
    done = cbtrain("train", "--config", "quick", "--out", "run", "corpus.path=corpus", model, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = cbtrain("evaluate", "--run", "../run", *TALK, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("H9")
def test_the_halves_as_files_and_two_ranks(tmp_path):
    command = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", ROOT / "launch/train.py"]
    command += ["--config", "quick", *SMALL, "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: run") == 1
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    lines = failed.stderr.strip().splitlines()
    problem = "cbtrain: run: training is already finished here."
    assert sum(line.startswith(problem) for line in lines) == 1  # from one rank
    assert problem in lines[-2]  # and last, as the root cause in torchrun's own report
    command = [sys.executable, ROOT / "launch/evaluate.py", "--run", "run", *TALK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
