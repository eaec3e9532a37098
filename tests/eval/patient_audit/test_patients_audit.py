"""``cbtrain patients audit``: its tables, JSON and page, facts read by a judge, bad input, and the 2024 study's data."""

import json
import re

import pytest
from loopback import background, completion
from places import TAHIR2024, needs_tahir2024
from rated_run import run_folder, sessions_of

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.schema.report import Report
from cbtrain.study.evaluation.scores import patients_audit_of

SIMULATIONS = TAHIR2024 / "CBT_Simulations"
PATIENTS = ("ann", "ben", "cas", "dee", "eva")
CASE = {
    "name": "Ann",
    "severity": "severe",
    "style": "reserved",
    "demographics": {"age": 34, "occupation": "nurse"},
    "symptoms": [{"name": "early waking", "severity": 2}],
}


def run(capsys, *words):
    status = main(["patients", "audit", *map(str, words)])
    return status, *capsys.readouterr()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CBTRAIN_JUDGE_API_KEY", raising=False)


@pytest.fixture
def folder(tmp_path):
    made = run_folder(tmp_path / "run", sessions_of(PATIENTS))
    cases = [json.dumps({"schema": "cbtrain.patient/1", **CASE, "id": name}) for name in PATIENTS]
    (made / "patients.jsonl").write_text("\n".join(cases) + "\n")
    return made


def test_a_run_beside_the_embedded_corpus(capsys, folder):
    status, out, err = run(capsys, folder, "--against", "sample", "--json")
    assert status == 0, err
    found = json.loads(out)
    ours, theirs = found["sets"]
    assert (ours["name"], ours["patients"], ours["sessions"], theirs["patients"]) == ("run", 5, 20, 6)
    assert ours["measures"]["turns"]["mean"] == 3
    assert ours["endings"] == {"max_turns": 20}
    assert [curve["arm"] for curve in ours["agreement"]] == ["frozenbase", "loratuned"]
    (comparison,) = found["comparisons"]
    assert comparison["all_at_once"]["p"] < 0.05
    assert found["facts"] is None
    assert "no proof" in found["cannot"]
    assert json.loads((folder / "patients_audit" / "patients_audit.json").read_text()) == found
    page = (folder / "patients_audit" / "patients_audit.html").read_text()
    assert "Do the patients behave like patients?" in page
    assert page.count("<svg") == 2
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert patients_audit_of(folder).comparisons[0].with_name == theirs["name"]
    assert run(capsys, folder, "--against", "sample", "--json")[1] == out
    status, out, _ = run(capsys, folder)
    assert "patients_audit.html" in out
    assert "Not a medical device" in out


def test_a_patient_who_is_called_by_the_name_of_the_case_speaks_as_the_therapist(capsys, folder):
    path = folder / "sessions.jsonl"
    path.write_text(path.read_text().replace("of turn 2.", "of turn 2. I hear you, Ann. Let's explore your week."))
    found = json.loads(run(capsys, folder, "--json")[1])
    assert found["sets"][0]["drift"]["therapist_speech"] == 20
    (folder / "patients.jsonl").unlink()
    assert json.loads(run(capsys, folder, "--json")[1])["sets"][0]["drift"]["therapist_speech"] == 0


def sheet(**changes):
    empty = {"value": None, "turns": []}
    names = ("age_band", "gender", "occupation", "complaint", "severity", "engagement", "style", "risk")
    return dict.fromkeys(names, empty) | {"symptoms": [], "core_beliefs": []} | changes


def test_a_judge_reads_the_dialogue_alone_and_is_paid_once(capsys, folder, monkeypatch):
    read = sheet(
        age_band={"value": "30 to 44", "turns": [1]},
        severity={"value": "mild", "turns": [3]},
        occupation={"value": "works on a ward", "turns": [1]},
    )
    match = {"verdict": "absent", "turns": []}

    def plan(number, body):
        if "Facts:" in body["messages"][-1]["content"]:
            return completion(json.dumps({"fact_1": {"verdict": "recovered", "turns": [1]}, "fact_2": match}))
        return completion(json.dumps(read))

    monkeypatch.setenv("A_KEY", "k")
    with background(plan) as script:
        provider = f"evaluation.judging.provider={{base_url: '{script.url}', model: m, api_key_env: A_KEY}}"
        words = [folder, "--judge", provider, "--sessions", 5, "--json"]
        status, out, err = run(capsys, *words)
        assert status == 0, err
        facts = json.loads(out)["facts"]
        assert (facts["sessions"], facts["patients"], facts["failed"]) == (5, 5, 0)
        assert len(script.bodies) == 6  # five dialogues, and one sheet that was the same
        # Of five facts two are recovered: the age band, and the occupation by the second question.
        assert facts["share"] == pytest.approx(2 / 5)
        rows = {row["fact"]: row for row in facts["facts"]}
        assert [rows[name]["recovered"] for name in ("age_band", "severity", "style", "occupation", "symptoms")] == [
            5, 0, 0, 5, 0
        ]  # fmt: skip
        assert {row["fact"] for row in facts["contradictions"]} == {"severity"}
        assert facts["contradictions"][0] | {"session": "", "patient": ""} == {
            "session": "", "patient": "", "fact": "severity", "expected": "severe", "read": "mild", "turns": [3]
        }  # fmt: skip
        first = [body["messages"][-1]["content"] for body in script.bodies if "Facts:" not in str(body)]
        assert all("nurse" not in text and "early waking" not in text for text in first)
        assert json.loads(run(capsys, *words)[1])["facts"]["share"] == facts["share"]
        assert len(script.bodies) == 6


def test_facts_need_cases(capsys, folder, monkeypatch):
    monkeypatch.setenv("CBTRAIN_JUDGE_API_KEY", "k")
    (folder / "patients.jsonl").unlink()
    status, out, _ = run(capsys, folder, "--judge")
    assert status == 0
    assert "no patients.jsonl" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no sessions named"),
        (["nowhere"], "no such file or folder"),
        (["sample", "--seed", "-1"], "--seed: -1 is too small"),
        (["sample", "--judge"], "a judge needs a folder"),
        (["sample", "evaluation.judging.rubric=x"], "settings are the judge's"),
        (["run", "--judge"], "holds the API key and is not set"),
        (["broken", "--judge"], "broken/patients.jsonl:1"),
    ],
)
def test_bad_input_is_one_line(words, problem, capsys, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    broken = run_folder(folder.parent / "broken", sessions_of())
    (broken / "patients.jsonl").write_text('{"id": "zz-quist"}\n')
    status, _, err = run(capsys, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert problem in err


def test_dialogues_are_not_sent_away_unasked(capsys, folder, monkeypatch):
    monkeypatch.setenv("CBTRAIN_JUDGE_API_KEY", "k")
    status, _, err = run(capsys, folder, "--judge")
    assert status == 2
    assert "--allow-upload" in err


@needs_tahir2024
def test_the_studys_own_simulations_drift_where_its_instruct_model_lost_its_part(capsys):
    status, out, _ = run(
        capsys,
        SIMULATIONS / "Mistral_Instruct_Simulation_Nov_2",
        "--against",
        SIMULATIONS / "Mistral_Finetune_Simulation_Nov_6",
        "--json",
    )
    assert status == 0
    instruct, tuned = json.loads(out)["sets"]
    assert (instruct["patients"], tuned["patients"]) == (5, 5)
    for one in (instruct, tuned):
        assert one["resemblance"]["recognised"] > 2 * one["resemblance"]["chance"]
    assert (
        instruct["drift"]["therapist_speech"] / instruct["turns"]
        > 2 * tuned["drift"]["therapist_speech"] / tuned["turns"]
    )
    assert 0 < tuned["measures"]["drift"]["mean"] < 0.05


def test_the_report_of_a_run_has_its_audit_as_a_section(capsys, folder):
    assert run(capsys, folder, "--json")[0] == 0
    audit = patients_audit_of(folder)
    page = render_html(Report(title="A run", patients_audit=audit))
    assert 'id="patients"' in page
    assert 'href="#patients"' in page
    assert "Share of answers that open with agreement" in page
    assert 'id="patients"' not in render_html(Report(title="A run"))
    path = folder / "patients_audit" / "patients_audit.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="not an audit of patients"):
        patients_audit_of(folder)
