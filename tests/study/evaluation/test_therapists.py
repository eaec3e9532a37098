"""Any therapists in one plan: what is held, kept, extended, stale, and refused before the first call."""

import asyncio
import io
import json
import os
import random
import shutil
import signal
import time
from collections import defaultdict

import pytest
import yaml
from command import cbtrain, start_cbtrain
from loopback import background, completion, cut_off, status
from rich.console import Console
from study_files import ScriptedPatient, model_with_adapters, three_arms, write_study

from cbtrain.cli.main import build_parser
from cbtrain.cli.parser import parse
from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.report.schema.report import Report
from cbtrain.journal import read
from cbtrain.study.evaluation.evaluate import evaluate_study, plan_study
from cbtrain.study.evaluation.local_weights import LocalWeights, layout_digest
from cbtrain.study.evaluation.scores import load_scores
from cbtrain.study.evaluation.simulate import sessions_of
from cbtrain.study.evaluation.study import open_study
from cbtrain.tokens.chat_files import format_files
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.tokenizer import load_tokenizer
from cbtrain.transcripts.types import Turn


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_with_adapters(tmp_path_factory.mktemp("tiny"))


def evaluate(study, out, *settings, **options):
    """Evaluate in this process; return what was printed."""
    shown = io.StringIO()
    config = load_config(str(study), settings)
    asyncio.run(evaluate_study(config, out, Console(file=shown, width=300), **options))
    return shown.getvalue()


def turns_of(out):
    """The turns in the journal of ``out``, by session."""
    turns = defaultdict(dict)
    for event in read(out / "events.jsonl"):
        if event["kind"] == "turn":
            assert event["index"] not in turns[event["session"]], "a turn was said twice"
            turns[event["session"]][event["index"]] = Turn(event["role"], event["text"])
    return {name: [said[index] for index in sorted(said)] for name, said in turns.items()}


def patient_requests(out):
    """How many turns of patients in the journal were the answer to each request; the last message tells them apart."""
    asked = defaultdict(int)
    for turns in turns_of(out).values():
        for index in range(0, len(turns), 2):
            asked[json.dumps([turn.text for turn in turns[:index]])] += 1
    return asked


def said_before(body):
    """The same of a request's body, as the server has it."""
    messages, _ = json.loads(body)
    texts = [message["content"] for message in messages if message["role"] != "system"]
    return json.dumps(texts[1:])  # without the opening


def wait_for_turns(process, out, count):
    events, deadline = out / "events.jsonl", time.monotonic() + 120
    while not (events.exists() and events.read_bytes().count(b'"kind": "turn"') >= count):
        if process.poll() is not None:
            return
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_and_continue(study, out, api, kills, cwd):
    """Run the study, ended by ``kills`` at random moments, then to its end. No turn that the journal held at a kill is
    asked for again after it."""
    draw, seen = random.Random(7), []
    command = ("evaluate", str(study), "--out", str(out))
    for kill in kills:
        with start_cbtrain(*command, cwd=cwd) as process:
            before = sum(map(len, turns_of(out).values())) if (out / "events.jsonl").exists() else 0
            wait_for_turns(process, out, before + draw.randint(3, 9))
            time.sleep(draw.random() * 0.02)
            if process.poll() is None:
                os.killpg(process.pid, kill)
            process.wait()
        seen.append((len(api.asked), patient_requests(out)))
    done = cbtrain(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr
    final = patient_requests(out)
    for number, journalled in seen:
        finished = {words for words, count in journalled.items() if count == final[words]}
        assert not finished & {said_before(body) for body in api.asked[number:]}
    return done, seen


@pytest.mark.slow
@pytest.mark.fault("F14")
def test_kills_under_faults_ask_for_no_turn_twice(model, tmp_path):
    """Three patients with three therapists: three kills and a SIGTERM."""
    draw = random.Random(3)
    faults = [status(429, headers={"Retry-After": "0.05"}), status(503), cut_off]
    patient = ScriptedPatient(lambda number: draw.choice(faults) if draw.random() < 0.15 else None)
    with background(patient) as api:
        study = write_study(tmp_path / "study.yaml", three_arms(model), api.url)
        kills = [signal.SIGKILL] * 3 + [signal.SIGTERM]
        _, seen = kill_and_continue(study, tmp_path / "out", patient, kills, tmp_path)
        assert len({number for number, _ in seen}) == 4  # every process did something
        calm = write_study(tmp_path / "calm.yaml", three_arms(model), api.url)
        evaluate(calm, tmp_path / "calm")
    assert turns_of(tmp_path / "out") == turns_of(tmp_path / "calm")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == ["tiny-untuned", "tiny-placebo", "tiny-tuned"]
    assert all(len(session["turns"]) == 6 for session in report["sessions"])
    assert len(report["sessions"]) == 9


@pytest.mark.deep
def test_many_kills_of_a_large_study(model, tmp_path):
    """Sixty sessions of each of three therapists."""
    draw = random.Random(4)
    faults = [status(429, headers={"Retry-After": "0.05"}), status(503), cut_off]
    patient = ScriptedPatient(lambda number: draw.choice(faults) if draw.random() < 0.1 else None)
    with background(patient) as api:
        study = write_study(
            tmp_path / "study.yaml", three_arms(model), api.url, max_patients=None, seeds=10, sessions_in_flight=64
        )
        kill_and_continue(study, tmp_path / "out", patient, [signal.SIGKILL] * 20 + [signal.SIGTERM] * 3, tmp_path)
    assert len(turns_of(tmp_path / "out")) >= 180


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """A finished study of two therapists, and the patient's API, which keeps running."""
    folder, patient = tmp_path_factory.mktemp("finished"), ScriptedPatient()
    arms = {name: arm for name, arm in three_arms(model).items() if name != "tiny-placebo"}
    with background(patient) as api:
        study = write_study(folder / "study.yaml", arms, api.url, max_patients=2)
        evaluate(study, folder / "out")
        yield folder, api.url, patient


def test_a_plan_is_written_before_the_first_call_and_read_by_analyze(finished, model):
    folder, _, _ = finished
    plan = yaml.safe_load((folder / "out" / "plan.yaml").read_text())
    assert list(plan["therapists"]) == ["tiny-untuned", "tiny-tuned"]
    tuned = plan["therapists"]["tiny-tuned"]
    assert (tuned["base"], tuned["variant"], tuned["prompt"]) == ("tiny", "tuned", "study")
    assert tuned["weights"] == plan["therapists"]["tiny-untuned"]["weights"]
    assert len(tuned["adapter"]) == 16
    assert tuned["sampling"]["max_tokens"] == 8
    assert plan["contrasts"] == ["tiny: tuned − untuned"]
    kinds = [event["kind"] for event in read(folder / "out" / "events.jsonl")]
    assert kinds.index("plan") < kinds.index("request_started" if "request_started" in kinds else "session_started")
    arms = load_scores([folder / "out"]).ratings.arms
    assert [(arm.base, arm.variant) for arm in arms.values()] == [("tiny", "untuned"), ("tiny", "tuned")]
    report = Report.read(folder / "out" / "report.json")
    assert report.deviations == []


@pytest.mark.fault("G8")
def test_therapists_patients_and_seeds_are_added_to_a_finished_study(finished, model, tmp_path):
    folder, url, patient = finished
    before, asked = turns_of(folder / "out"), len(patient.asked)
    more = write_study(folder / "more.yaml", three_arms(model), url, max_patients=3, seeds=2)
    shown = evaluate(more, folder / "out")
    after = turns_of(folder / "out")
    assert len(after) == 3 * 3 * 2
    assert {name: after[name] for name in before} == before
    new = [turns for name, turns in after.items() if name not in before]
    assert len(patient.asked) - asked == sum(len(turns[::2]) for turns in new)
    assert "resuming: 4 of 18 sessions are finished" in shown
    deviations = Report.read(folder / "out" / "report.json").deviations
    assert any("sessions.seeds was 1" in line for line in deviations)
    assert any("therapists.tiny-placebo" in line for line in deviations)


def test_what_a_change_makes_stale_is_said_before_anything_runs(finished, model, tmp_path):
    """Nothing is deleted: with the old settings the old sessions count again."""
    _, url, patient = finished
    out = tmp_path / "out"
    study = write_study(tmp_path / "study.yaml", three_arms(model), url, max_patients=1)
    evaluate(study, out)
    asked, before = len(patient.asked), turns_of(out)
    arms = three_arms(model)
    arms["tiny-tuned"]["prompt"] = "cbt"
    changed = write_study(tmp_path / "changed.yaml", arms, url, max_patients=1)
    with pytest.raises(UserError, match=r"1 session of tiny-tuned \(6 turns\): therapist.system prompt was"):
        evaluate(changed, out)
    assert len(patient.asked) == asked
    assert "held again" in evaluate(changed, out, hold_again=True)
    assert len(patient.asked) == asked + 3
    shown = evaluate(study, out)
    assert len(patient.asked) == asked + 3
    assert "resuming: 3 of 3 sessions are finished" in shown
    written = [json.loads(line) for line in (out / "sessions.jsonl").read_text().splitlines()]
    assert [turn["text"] for turn in written[1]["turns"]] == [turn.text for turn in before[written[1]["facts"]["id"]]]


def test_two_deterministic_evaluations_are_equal(finished, model, tmp_path):
    _, url, _ = finished
    study = write_study(tmp_path / "study.yaml", three_arms(model), url, max_patients=2, deterministic=True)
    for name in "ab":
        evaluate(study, tmp_path / name)
    first, second = ((tmp_path / name / "sessions.jsonl").read_bytes() for name in "ab")
    assert first == second
    assert first.count(b"\n") >= 6


def test_everything_that_is_wrong_is_told_at_once_and_before_the_first_call(model, tmp_path, finished):
    _, url, patient = finished
    other = tmp_path / "other"
    model_with_adapters(other, "qwen2", adapters=("q",))
    arms = three_arms(model) | {
        "nobody": {},
        "elsewhere": {"model": str(tmp_path / "no-such-folder")},
        "foreign": {"model": str(model), "adapter": str(other / "q")},
        "prompted": {"model": str(model), "prompt": "cbd"},
        "with/slash": {"model": str(model)},
    }
    study = write_study(tmp_path / "study.yaml", arms, url)
    asked = len(patient.asked)
    with pytest.raises(UserError) as caught:
        evaluate(study, tmp_path / "out", "evaluation.judging.rubric=cbt_fidelty")
    told = str(caught.value)
    assert told.startswith("6 things keep this study from beginning: (1) ")
    for part in (
        "evaluation.therapists.nobody: a therapist without a model",
        "evaluation.therapists.elsewhere: ",
        "evaluation.therapists.foreign: ",
        "no prompt 'cbd'. Did you mean 'cbt'?",
        "evaluation.therapists.with/slash: this name cannot be used",
        "no such rubric",
    ):
        assert part in told
    assert "\n" not in told
    assert len(patient.asked) == asked
    assert not (tmp_path / "out").exists()


def test_a_dry_run_plans_and_a_budget_that_is_too_small_stops(model, tmp_path, finished, monkeypatch):
    _, url, patient = finished
    monkeypatch.setenv("PAID", "k")
    study = write_study(tmp_path / "study.yaml", three_arms(model), url, max_patients=3, seeds=2)
    paid = ["evaluation.patient_provider.api_key_env=PAID", "evaluation.patient_provider.price={input: 1, output: 2}"]
    asked, shown = len(patient.asked), io.StringIO()
    config = load_config(str(study), paid)
    plan_study(config, tmp_path / "out", Console(file=shown, width=200), effect=2.0)
    text = shown.getvalue()
    assert "3 therapists × 3 patients × 2 seeds = 18 sessions" in text
    assert "patient" in text
    assert " 54 " in text  # 18 sessions of 6 turns, every second one a patient's
    assert "points of the total or more in 80 % of studies" in text
    assert "one of 2 points in" in text
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"providers.budget: what is left of the study may cost \$0\.\d\d"):
        evaluate(study, tmp_path / "out", *paid, "providers.budget=0.001")
    assert len(patient.asked) == asked


def test_an_api_is_a_therapist_beside_models_on_this_machine(model, tmp_path, finished):
    """Sampling is recorded as the API is asked for it; the shipped prompts are sent as they are."""
    _, url, patient = finished
    arms = {
        "tiny-untuned": {"model": str(model), "prompt": "session-structure"},
        "api": {
            "provider": {"base_url": url, "model": "gpt", "sampling": False},
            "base": "gpt",
            "variant": "untuned",
            "prompt": "few-shot",
        },
    }
    study = write_study(tmp_path / "study.yaml", arms, url, max_patients=1)
    evaluate(study, tmp_path / "out")
    plan = yaml.safe_load((tmp_path / "out" / "plan.yaml").read_text())["therapists"]
    assert plan["api"]["sampling"] == {"max_tokens": 8}
    turns = {name: said for name, said in turns_of(tmp_path / "out").items() if ".api." in name}
    ((_, said),) = turns.items()
    asked = [json.loads(body)[0] for body in patient.asked]
    system = [messages[0]["content"] for messages in asked if messages[0]["content"].startswith("You are a therapist")]
    assert len(system) == len(said[1::2])
    assert "These exchanges" in system[0]
    assert said[1].text == said[1].text.strip()


def test_an_arms_own_layout_and_sampling_are_what_it_is_asked_with(model, tmp_path, finished):
    """Defects 5 and 6 of the 2024 study: another layout in serving than in training, sampling that is ignored."""
    _, url, _ = finished
    adapter, plain = tmp_path / "plain", choose_format(load_tokenizer(model), "plain", "therapist")
    shutil.copytree(model / "kind", adapter)
    for name, content in format_files(plain, ()).items():
        (adapter / name).write_text(content)
    arms = {
        "tiny-untuned": {"model": str(model), "sampling": {"max_tokens": 3}},
        "tiny-tuned": {"model": str(model), "adapter": str(adapter)},
    }
    study = write_study(tmp_path / "study.yaml", arms, url, max_patients=1)
    config = load_config(str(study))
    protocol = open_study(config, tmp_path / "out", Console(quiet=True)).protocol
    base, tuned = protocol.therapists
    own = LocalWeights(model).voice("auto")
    assert layout_digest(own) == base.layout != tuned.layout
    assert tuned.weights.voice("auto").renderer.format.template == plain.template
    evaluate(study, tmp_path / "out")
    tokens = defaultdict(list)
    for event in read(tmp_path / "out" / "events.jsonl"):
        if event["kind"] == "turn" and event["role"] == "therapist":
            tokens[event["session"].split(".")[1]].append(event["facts"]["completion_tokens"])
    assert max(tokens["tiny-untuned"]) <= 3 < max(tokens["tiny-tuned"]) <= 8


def test_a_failed_session_has_no_score_and_is_told_by_arm(model, tmp_path, finished):
    """Defect 10 of the 2024 study: failures scored 1, or dropped unequally."""
    _, url, _ = finished

    def failing(number, body):
        return status(400, "retired") if body["seed"] % 2 else completion("What went through your mind then?")

    with background(failing) as therapist:
        arms = {
            "tiny-untuned": {"model": str(model)},
            "api": {"provider": {"base_url": therapist.url, "model": "gpt", "max_retries": 0}, "variant": "tuned"},
        }
        study = write_study(tmp_path / "study.yaml", arms, url, max_patients=2, seeds=3, max_turns=2, max_failures=1.0)
        evaluate(study, tmp_path / "out")
    report = Report.read(tmp_path / "out" / "report.json")
    by_arm = {arm.name: arm for arm in report.arms}
    failed = [session for session in report.sessions if session.ending == "provider_error"]
    assert 0 < len(failed) < 6
    assert {session.arm for session in failed} == {"api"}
    assert all(session.total is None and not session.ratings for session in failed)
    assert (by_arm["tiny-untuned"].failed, by_arm["api"].failed) == (0, len(failed))


def test_a_study_writes_into_no_other_folder_and_saves_settings_that_are_not_refused(model, tmp_path, finished):
    folder, url, _ = finished
    other = write_study(tmp_path / "other.yaml", {"someone": {"model": str(model)}}, url)
    with pytest.raises(UserError, match="another study is in this folder"):
        main_of("evaluate", str(other), "--out", str(folder / "out"))
    (tmp_path / "trained" / "training").mkdir(parents=True)
    with pytest.raises(UserError, match="a training run is in this folder"):
        main_of("evaluate", str(other), "--out", str(tmp_path / "trained"))
    saved = (folder / "out" / "config.yaml").read_text()
    study = write_study(tmp_path / "study.yaml", three_arms(model), url, max_turns=4)
    with pytest.raises(UserError, match="limits.max_turns was 6, and is 4"):
        evaluate(study, folder / "out")
    assert (folder / "out" / "config.yaml").read_text() == saved
    with pytest.raises(UserError, match="evaluation.protocol: the run was set up with cbtrain"):
        main_of("evaluate", "--out", str(folder / "out"), "evaluation.protocol=paper")


def main_of(*words):
    parsed = parse(build_parser(), words)
    parsed.run(parsed)


def test_arms_that_are_the_same_and_differences_beside_the_weights_are_noted(model, tmp_path, finished):
    _, url, _ = finished
    arms = three_arms(model) | {"again-untuned": {"model": str(model)}, "lazy-tuned": {"model": str(model)}}
    arms["tiny-tuned"]["prompt"] = "cbt"
    study = write_study(tmp_path / "study.yaml", arms, url)
    notes = open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True)).protocol.plan["notes"]
    assert "tiny-untuned and tiny-tuned differ in system prompt, not by weights alone" in notes
    assert "tiny-untuned and again-untuned are the same therapist: model, prompt and sampling" in notes
    assert "lazy-tuned is called tuned and has no adapter" in notes


def test_a_server_that_moved_makes_nothing_stale_and_other_files_do(model, tmp_path, finished):
    """An adapter's scale, the architecture's window, a tokenizer: each decides what is said."""
    _, url, _ = finished
    folder = tmp_path / "model"
    shutil.copytree(model, folder)

    def settings(address=url):
        study = write_study(tmp_path / "study.yaml", three_arms(folder), address, max_patients=1)
        protocol = open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True)).protocol
        return [protocol.session_settings(session) for session in sessions_of(protocol)]

    before = settings()
    assert settings("http://127.0.0.1:9/v1") == before
    for file, key, value in (("kind/adapter_config.json", "lora_alpha", 3), ("config.json", "rms_norm_eps", 0.5)):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {key: value}))
        after = settings()
        assert after[1] != before[1]
        assert (after[0] == before[0]) == file.startswith("kind")
        before = after
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert settings()[0] != before[0]
