"""An evaluation whose patients fill in a questionnaire: asked once, kept over kills, told in table, report and show."""

import asyncio
import csv
import io
import json
import os
import random
import signal
import statistics
import time
from collections import defaultdict

import pytest
from command import cbtrain, start_cbtrain
from loopback import background, completion
from rich.console import Console
from scipy import stats
from study_files import ScriptedPatient, model_with_adapters, three_arms, write_study

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.sessions import session_outcomes
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.simulation.questionnaire import load_questionnaire
from cbtrain.journal import read
from cbtrain.study.evaluation.analysis_report import report_of
from cbtrain.study.evaluation.evaluate import evaluate_study, plan_study
from cbtrain.study.evaluation.scores import load_scores

ASKED = load_questionnaire("after-session")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_with_adapters(tmp_path_factory.mktemp("tiny"))


def evaluate(study, out, *settings):
    shown = io.StringIO()
    asyncio.run(evaluate_study(load_config(str(study), settings), out, Console(file=shown, width=300)))
    return shown.getvalue()


def two_arms(model):
    return {name: arm for name, arm in three_arms(model).items() if name != "tiny-placebo"}


def questionnaires(patient):
    """The requests to fill in a questionnaire that the server has had."""
    return [body for body in patient.asked if ASKED.question.text.splitlines()[0][:40] in body]


def rows_of(out):
    with (out / "questionnaires.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    folder, patient = tmp_path_factory.mktemp("finished"), ScriptedPatient()
    with background(patient) as api:
        study = write_study(folder / "study.yaml", two_arms(model), api.url, questionnaire="after-session", seeds=2)
        evaluate(study, folder / "out")
        yield folder, study, patient


def test_each_patient_is_asked_once_and_the_table_has_answers_and_means(finished):
    folder, study, patient = finished
    rows = rows_of(folder / "out")
    assert len(rows) == len(questionnaires(patient)) == 12
    for row in rows:
        answers = {item.id: int(row[item.id]) for item in ASKED.items}
        assert row["status"] == "ok"
        assert {name: float(row[name]) for name in ASKED.subscales} == ASKED.means(answers)
        assert row["own_words"].startswith("I still have number")
    asked = len(patient.asked)
    evaluate(study, folder / "out")
    assert len(patient.asked) == asked
    plan = (folder / "out" / "plan.yaml").read_text()
    assert ASKED.digest in plan


def test_show_prints_the_answers_and_the_request(finished):
    folder, _, _ = finished
    session = json.loads(cbtrain("show", "out", "--json", cwd=folder).stdout)[0]["session"]
    shown = cbtrain("show", "out", session, "--raw", "--json", cwd=folder)
    (filled,) = json.loads(shown.stdout)["questionnaires"]
    text = cbtrain("show", "out", session, cwd=folder).stdout
    assert "questionnaire · ok · " in text
    assert f"bond: {filled['answers']['bond']}" in text
    (exchange,) = filled["exchanges"]
    assert ASKED.items[0].text in exchange["body"]["messages"][-1]["content"]
    assert json.loads(json.loads(exchange["reply"])["choices"][0]["message"]["content"]) == filled["answers"]


def test_the_report_has_the_answers_apart_from_the_judges(finished):
    """Means and SDs by arm, contrasts over patients with Holm of their own, and each patient's own words."""
    folder, _, _ = finished
    report, rows = Report.read(folder / "out" / "report.json"), rows_of(folder / "out")
    part = report.questionnaire
    assert (part.asked, part.filled_in, len(part.contrasts)) == (12, 12, len(ASKED.subscales))
    by_arm = {arm: [row for row in rows if row["arm"] == arm] for arm in ("tiny-untuned", "tiny-tuned")}
    for group in part.groups:
        hopes = [float(row["hope"]) for row in by_arm[group.name]]
        assert group.means["hope"] == pytest.approx(statistics.mean(hopes))
        assert group.sds["hope"] == pytest.approx(statistics.stdev(hopes))
    hope = next(row for row in part.contrasts if row.subscale == "hope")
    differences = defaultdict(list)
    for first, second in zip(by_arm["tiny-tuned"], by_arm["tiny-untuned"], strict=True):
        assert (first["patient"], first["seed"]) == (second["patient"], second["seed"])
        differences[first["patient"]].append(float(first["hope"]) - float(second["hope"]))
    means = [statistics.mean(values) for values in differences.values()]
    assert hope.estimate == pytest.approx(statistics.mean(means))
    assert hope.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    smallest = min(row.p for row in part.contrasts)
    assert min(row.p_adjusted for row in part.contrasts) == pytest.approx(min(1, smallest * len(part.contrasts)))
    assert [domain.id for domain in report.scale.domains] == [domain.id for domain in load_rubric().domains]
    assert {session.answers.own_words for session in report.sessions} == {row["own_words"] for row in rows}
    page, text = (folder / "out" / "report.html").read_text(), (folder / "out" / "report.md").read_text()
    for written in (page, text):
        assert "What the simulated patients said" in written
        assert "a language model that plays the patient filled it in" in written
    assert rows[0]["own_words"] in page


def test_analyze_keeps_the_answers(finished):
    folder, _, _ = finished
    study = load_scores([folder / "out"])
    outcomes = session_outcomes(study.transcripts)
    before = Report.read(folder / "out" / "report.json")
    after = report_of(study, analysis(study.ratings, "default", outcomes, draws=0))
    assert after.questionnaire == before.questionnaire
    given = [{session.id: session.answers for session in report.sessions} for report in (before, after)]
    assert given[0] == given[1]
    assert all(given[0].values())


def test_a_dry_run_counts_a_call_for_each_session_that_lacks_it(finished, tmp_path):
    folder, study, _ = finished
    shown = io.StringIO()
    plan_study(load_config(str(study), ["evaluation.seeds=3"]), folder / "out", Console(file=shown, width=200))
    (line,) = [line for line in shown.getvalue().splitlines() if "patient (questionnaire)" in line]
    assert " 6 " in line


def test_a_questionnaire_that_is_added_later_holds_no_session_again(model, tmp_path):
    """Nor does another one; the change is named as a deviation from the plan."""
    patient, out = ScriptedPatient(), tmp_path / "out"
    with background(patient) as api:
        study = write_study(tmp_path / "study.yaml", two_arms(model), api.url, max_patients=1)
        evaluate(study, out)
        turns, asked = sum(event["kind"] == "turn" for event in read(out / "events.jsonl")), len(patient.asked)
        shown = evaluate(study, out, "evaluation.questionnaire=after-session")
        assert "resuming: 2 of 2 sessions are finished" in shown
        assert len(patient.asked) == asked + 2
        assert sum(event["kind"] == "turn" for event in read(out / "events.jsonl")) == turns
    assert any("questionnaire" in line for line in Report.read(out / "report.json").deviations)


def test_a_questionnaire_that_is_not_filled_in_is_no_failed_session(model, tmp_path):
    def plan(number, body):
        return completion("I would rather not.") if "response_format" in body else patient(number, body)

    patient, out = ScriptedPatient(), tmp_path / "out"
    with background(plan) as api:
        study = write_study(
            tmp_path / "study.yaml", two_arms(model), api.url, max_patients=1, questionnaire="after-session"
        )
        shown = evaluate(study, out)
    assert "2 of 2 questionnaires are not filled in (invalid: answer: no JSON object in it)" in shown
    assert [(row["status"], row["bond"], row["alliance"]) for row in rows_of(out)] == [("invalid", "", "")] * 2
    assert all(session.ending == "max_turns" for session in Report.read(out / "report.json").sessions)


def test_a_patient_on_this_machine_fills_it_in_by_a_grammar(model, tmp_path):
    """Also one that plays in an engine with the therapists; what is cut is said."""
    ends = {"low": 0, "high": 2, "low_label": "no", "high_label": "yes", "subscale": "mood"}
    content = {"name": "short", "introduction": "Well?", "subscales": {"mood": "Mood"}, "own_words": {"text": "W?"}}
    content["items"] = [{"id": "low", "text": "Low?", "reversed": True, **ends}]
    (tmp_path / "short.yaml").write_text(json.dumps(content))
    arms = {"tiny-untuned": {"model": str(model)}}
    study = write_study(
        tmp_path / "study.yaml",
        arms,
        None,
        patient_provider=None,
        patient_model={"model": str(model), "adapter": str(model / "kind")},
        max_turns=2,
        patient={"max_tokens": 8},
        questionnaire=str(tmp_path / "short.yaml"),
    )
    shown, out = evaluate(study, tmp_path / "out"), tmp_path / "out"
    rows = rows_of(out)
    assert len(rows) == 3
    for row in rows:
        assert row["status"] in ("ok", "truncated")  # a random model may not end its own words in time
        assert row["status"] != "ok" or float(row["mood"]) == 2 - int(row["low"])
    cut = sum(row["status"] == "truncated" for row in rows)
    assert (f"{cut} of 3 questionnaires are not filled in (truncated: the answer was cut" in shown) == bool(cut)
    assert "short.yaml" in (out / "config.yaml").read_text()


def test_an_unknown_questionnaire_is_told_before_the_first_call(finished, tmp_path):
    _, study, patient = finished
    asked = len(patient.asked)
    with pytest.raises(UserError, match="evaluation.questionnaire: no questionnaire 'after-sesion'. Did you mean"):
        evaluate(study, tmp_path / "out", "evaluation.questionnaire=after-sesion")
    assert len(patient.asked) == asked


@pytest.mark.slow
def test_kills_ask_no_patient_twice(model, tmp_path):
    """What the journal held at a kill is not asked for again."""
    patient, out, draw = ScriptedPatient(), tmp_path / "out", random.Random(5)
    with background(patient) as api:
        study = write_study(
            tmp_path / "study.yaml", two_arms(model), api.url, questionnaire="after-session", sessions_in_flight=2
        )
        command, seen = ("evaluate", str(study), "--out", str(out)), []
        for number in (1, 3):
            with start_cbtrain(*command, cwd=tmp_path) as process:
                events, deadline = out / "events.jsonl", time.monotonic() + 120
                while not (events.exists() and events.read_bytes().count(b'"kind": "questionnaire"') >= number):
                    if process.poll() is not None:
                        break
                    assert time.monotonic() < deadline
                    time.sleep(0.002)
                time.sleep(draw.random() * 0.02)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            answered = {e["session"] for e in read(out / "events.jsonl") if e["kind"] == "questionnaire"}
            seen.append((len(patient.asked), answered))
        done = cbtrain(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    records = [event for event in read(out / "events.jsonl") if event["kind"] == "questionnaire"]
    sessions = [record["session"] for record in records]
    assert len(sessions) == len(set(sessions)) == 6
    last = {event["session"]: event["text"] for event in read(out / "events.jsonl") if event["kind"] == "turn"
            and event["role"] == "patient"}  # fmt: skip
    assert len(set(last.values())) == 6  # so a request tells its session
    for asked, answered in seen:
        later = [body for body in patient.asked[asked:] if body in questionnaires(patient)]
        assert not [session for session in answered if any(last[session] in body for body in later)]
    assert all(row["status"] == "ok" for row in rows_of(out))
