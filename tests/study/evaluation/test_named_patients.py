"""Patients of a library or a file in a study: phases, simulators, columns, and all that is wrong at once."""

import asyncio
import csv
import io
import json

import pytest
import yaml
from loopback import background, completion
from random_model import random_model
from rich.console import Console

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.report.schema.report import Report
from cbtrain.patients.case import COLUMNS
from cbtrain.patients.library import library
from cbtrain.study.evaluation.checks import check_evaluation
from cbtrain.study.evaluation.earlier_runs import settings_of_run
from cbtrain.study.evaluation.evaluate import evaluate_study, plan_study
from cbtrain.study.evaluation.simulate import sessions_of
from cbtrain.study.evaluation.study import open_study

SAYS = {
    "patient": "I read your words, {words}, and thought of the bus and the rain, and it was like that again.",
    "therapist": "Shall we set an agenda, and look at what went through your mind, {words}? What do you make of it?",
}


def study_of(folder, url, **evaluation):
    provider = {"base_url": url, "backoff_s": 0.01, "model": "therapist"}
    settings = {
        "therapists": {
            "tiny-untuned": {"provider": provider, "base": "tiny", "variant": "untuned", "prompt": "none"},
            "tiny-tuned": {"provider": provider, "base": "tiny", "variant": "tuned", "prompt": "cbt"},
        },
        "patients": {"library": "depression", "count": 3, "stratify": ["severity", "style"]},
        "patient_provider": provider | {"model": "patient"},
        "judging": {"rater": "cue"},
        "seeds": 1,
        "max_turns": 6,
        "drift": "ignore",
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"evaluation": settings | evaluation}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A study of two therapists with three patients of the library, in two phases, played in two ways."""
    folder, asked = tmp_path_factory.mktemp("named"), []

    def answer(number, body):
        asked.append(body)
        words = " ".join(sorted(body["messages"][-1]["content"].split())[:: max(1, number % 3 + 1)][:5])
        return completion(SAYS[body["model"]].format(words=words))

    with background(answer) as server:
        simulators = {"story": {}, "beliefs": {"method": "cognitive-model"}}
        course = {"phases": ["assessment", "termination"]}
        study = study_of(folder, server.url, simulators=simulators, course=course)
        shown = io.StringIO()
        plan_study(load_config(str(study)), folder / "out", Console(file=shown, width=200))
        asyncio.run(evaluate_study(load_config(str(study)), folder / "out", Console(file=shown, width=200)))
    return folder / "out", asked, shown.getvalue()


def test_every_phase_begins_with_its_own_summary_and_every_way_of_playing_with_its_own_prompt(run):
    out, asked, shown = run
    assert "2 therapists × 3 patients × 1 seed × 2 sessions × 2 simulators = 24 sessions" in shown
    cases = {case["id"]: case for case in map(json.loads, (out / "patients.jsonl").read_text().splitlines())}
    assert len(cases) == 3
    systems = {body["model"]: set() for body in asked}
    for body in asked:
        systems[body["model"]].add(body["messages"][0]["content"] if body["messages"][0]["role"] == "system" else "")
    for case in cases.values():
        later = case["phases"]["termination"]
        told = [text for text in systems["patient"] if later["summary"].strip() in text]
        assert len(told) == 2  # a story, and beliefs
        assert all(later["since"].strip() in text for text in told)
        known = [text for text in systems["therapist"] if later["summary"].strip() in text]
        assert len(known) == 2  # with the shipped prompt, and with none
        assert not any(later["since"].strip() in text for text in known)
    assert len(systems["patient"]) == 3 * 2 * 2
    phases = (
        "in its assessment phase",
        "SESSION 1, assessment phase",
        "in its termination phase",
        "18, termination phase",
    )
    assert [sum(words in text for text in systems["patient"]) for words in phases] == [3] * 4
    assert all(" phase of treatment" in text for text in systems["therapist"])


def test_columns_phases_and_simulators_reach_scores_and_report(run):
    out, _, _ = run
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["session"] for row in rows} == {"1", "18"}
    assert {row["phase"] for row in rows} == {"assessment", "termination"}
    assert {row["simulator"] for row in rows} == {"story", "beliefs"}
    by_id = {case.id: case for case in library("depression")}
    assert all(row[name] == str(getattr(by_id[row["patient"]], name)) for row in rows for name in COLUMNS)
    plan = yaml.safe_load((out / "plan.yaml").read_text())
    assert plan["sessions"]["numbers"] == [1, 18]
    assert {one["simulator"]["name"] for one in plan["patient"].values()} == {"narrative", "cognitive-model"}
    report = Report.read(out / "report.json")
    assert len(report.sessions) == 24
    assert {arm.rated for arm in report.arms} == {12}
    assert len(report.patients) == 3
    assert report.analysis.subgroups is not None


def test_all_that_is_wrong_with_patients_and_sessions_is_told_at_once(tmp_path):
    case = yaml.safe_load(CASE)
    broken = [case | {"id": "one"}, case | {"id": "one"}, case | {"id": "two", "symptoms": []}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(broken))
    study = study_of(
        tmp_path,
        "http://127.0.0.1:9/v1",
        patients={"file": str(tmp_path / "mine.yaml")},
        questionnaire="no",
        simulators={"x": {"method": "nope"}},
    )
    with pytest.raises(UserError) as refused:
        open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True))
    for problem in ("'one'", "two", "symptom", "no questionnaire 'no'", "no simulator 'nope'"):
        assert problem in str(refused.value)
    spanish = case | {"id": "tres", "history": "Vive con su madre en una ciudad pequeña y no ha tenido trabajo. " * 9}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump([case, spanish]))
    study = study_of(tmp_path, "http://127.0.0.1:9/v1", patients={"file": str(tmp_path / "mine.yaml")})
    with pytest.raises(UserError, match="Spanish"):
        open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump([case | {"cognitive_model": {}}]))
    study = study_of(
        tmp_path,
        "http://127.0.0.1:9/v1",
        patients={"file": str(tmp_path / "mine.yaml")},
        course={"sessions": "phases"},
        simulators={"beliefs": {"method": "cognitive-model"}, "other": {"method": "narative"}},
    )
    with pytest.raises(UserError) as refused:
        open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True))
    for problem in ("ann has no previous summary", "ann has no cognitive model", "Did you mean 'narrative'"):
        assert problem in str(refused.value)


def test_simulators_that_cannot_play_are_found_before_the_first_call(tmp_path):
    templates = {
        "typo": "You are {{ patient.name }}.{% if session %} Session {{ session.nmber }}.{% endif %}",
        "sessions-only": "You are {{ patient.name }} in session {{ session.number }}: {{ summary }}",
    }
    for name, system in templates.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "system": system}))
    simulators = {name: {"method": str(tmp_path / f"{name}.yaml")} for name in templates}
    simulators |= {"": {}, "unsent": {"sampling": {"top_k": 40}}}
    study = study_of(tmp_path, "http://127.0.0.1:9/v1", simulators=simulators)
    with pytest.raises(UserError) as refused:
        open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True))
    for problem in ("name of a simulator is empty", "unsent: sampling.top_k is 40"):
        assert problem in str(refused.value)
    study = study_of(tmp_path, "http://127.0.0.1:9/v1", simulators={name: simulators[name] for name in templates})
    with pytest.raises(UserError) as refused:
        open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True))
    assert "nmber" in str(refused.value)
    assert "sessions-only" not in str(refused.value)


def test_what_has_happened_since_reaches_the_patient_where_first_words_tell_the_summary(tmp_path):
    course = {"phases": ["middle"], "told": "opening"}
    study = study_of(tmp_path, "http://127.0.0.1:9/v1", course=course)
    protocol = open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True)).protocol
    session = sessions_of(protocol)[0]
    later = protocol.cases[session.patient].phases["middle"]
    assert later.summary.strip() in protocol.opening(session)
    assert later.summary.strip() not in protocol.patient_prompt(session)
    assert later.since.strip() in protocol.patient_prompt(session)
    assert later.since.strip() not in protocol.opening(session) + protocol.therapist_prompt(
        protocol.therapists[0], session
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["patients.library=nosuch", "simulators.x.method=nope"], "2 things .*no such library .*no simulator 'nope'"),
        (["course.sessions=phases"], "patients of a corpus have no previous summaries"),
        (["simulators.x.method=narrative"], "the adapter that will be trained plays in its own way"),
    ],
)
def test_a_run_finds_what_would_stop_its_evaluation_before_it_trains(settings, problem):
    with pytest.raises(UserError, match=problem):
        check_evaluation(load_config("quick", [f"evaluation.{setting}" for setting in settings]))
    check_evaluation(load_config("quick", ["evaluation.patients.library=depression"]))


def test_settings_that_older_versions_did_not_have_make_their_runs_no_others(tmp_path):
    study = study_of(tmp_path, "http://127.0.0.1:9/v1", patients=None)
    new = {"patients", "course", "simulators", "drift", "min_turns"}

    def written(*settings):
        study_now = open_study(load_config(str(study), settings), tmp_path / "out", Console(quiet=True))
        return new & settings_of_run(study_now.protocol, tmp_path / "out")["evaluation"].keys()

    assert written() == set()
    assert written("evaluation.drift=flag", "evaluation.course.sessions=whole") == {"course"}


def test_what_a_patient_without_summaries_does_to_the_others_is_said(tmp_path):
    cases = [case.model_dump(mode="json") for case in library("depression")[:2]]
    cases[1]["phases"] = {}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(cases))
    url = "http://127.0.0.1:9/v1"
    simulators = {"own": {"provider": {"base_url": url, "model": "x"}}}  # nobody else has to play
    study = study_of(
        tmp_path,
        url,
        patients={"file": str(tmp_path / "mine.yaml")},
        patient_provider=None,
        simulators=simulators,
    )
    said = io.StringIO()
    protocol = open_study(load_config(str(study)), tmp_path / "out", Console(file=said, width=300)).protocol
    assert protocol.course.mode == "first"
    assert f"first meetings only (evaluation.course.sessions): {cases[1]['id']} has no previous" in said.getvalue()
    study = study_of(tmp_path, url, patients={"file": str(tmp_path / "mine.yaml")}, max_patients=1)
    assert (
        open_study(load_config(str(study)), tmp_path / "out", Console(file=said, width=300)).protocol.course.mode
        == "phases"
    )
    assert "evaluation.max_patients takes the first 1 of 2 patients" in said.getvalue()


def test_a_session_that_no_context_holds_is_found_before_the_first_call(tmp_path):
    model = random_model(tmp_path / "tiny", "llama", 512)
    study = study_of(
        tmp_path,
        "http://127.0.0.1:9/v1",
        therapists={"a": {"model": str(model)}, "b": {"model": str(model), "prompt": "none"}},
    )
    with pytest.raises(
        UserError, match=r"2 things .*therapists\.a: a session takes up to .* tokens, and the context holds 512"
    ):
        open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True))


CASE = """
id: ann
name: Ann Lee
history: She has lived alone since the spring and works in a bakery in the town where she was born.
symptoms: [{name: low mood, severity: 2, shows: she stays in bed}]
cognitive_model:
  core_beliefs: ["I am no good."]
  intermediate_beliefs: ["If I ask, people will be cross."]
  situations: [{situation: the shop was full, thought: they all look at me, feeling: shame, behaviour: she left}]
"""
