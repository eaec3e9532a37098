"""Patients from YAML, JSON, tables, folders and the two studies' formats; every fault at once."""

import json

import pytest
import yaml
from places import ROOT

from cbtrain.errors import UserError
from cbtrain.patients.config import TableMap
from cbtrain.patients.reading import read_cases

DATA = ROOT.parent / "shared" / "data"
ONE = {"id": "a", "name": "A. Bo", "symptoms": [{"name": "low mood", "severity": 2}]}


def written(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def read(path, **options):
    said = []
    return read_cases(path, say=said.append, **options), said


def test_every_layout_of_our_schema_holds_the_same_patients(tmp_path):
    two = [{"schema": "cbtrain.patient/1", **ONE}, {**ONE, "id": "b", "demographics": {"age": 40, "employed": False}}]
    lines = "".join(f"{json.dumps(one)}\n" for one in two)
    paths = [
        written(tmp_path, "list.yaml", two),
        written(tmp_path, "named.yml", {"patients": two}),
        written(tmp_path, "list.json", json.dumps(two)),
        written(tmp_path, "named.json", json.dumps({"patients": two})),
        written(tmp_path, "lines.jsonl", lines),
        written(tmp_path, "folder/1.yaml", two[0]).parent,
    ]
    written(tmp_path, "folder/2.yaml", two[1])
    cases = [read_cases(path) for path in paths]
    assert all(one == cases[0] for one in cases)
    assert [case.id for case in cases[0]] == ["a", "b"]
    assert cases[0][1].demographics == {"age": 40, "employed": "no"}


def test_all_faults_of_a_folder_are_one_error_with_places_and_remedies(tmp_path):
    first = [
        {**ONE, "symptoms": []},
        {
            **ONE,
            "id": "b c",
            "severty": "mild",
            "style": "loud",
            "symptoms": [{"name": "x", "severity": 4, "show": "y"}],
        },
        {**ONE, "demographics": {"age": 3.5}, "symptoms": [{"name": "x", "severity": True}]},
        {key: value for key, value in ONE.items() if key != "symptoms"},
        7,
    ]
    written(tmp_path, "p/1.yaml", first)
    written(tmp_path, "p/2.yaml", {**ONE, "id": "same", "phases": {"first": {"summary": "x"}}})
    written(tmp_path, "p/3.yaml", "id: [")
    with pytest.raises(UserError) as error:
        read_cases(tmp_path / "p")
    told = str(error.value)
    assert told.startswith("12 faults in the patients: (1)")
    for line in (
        "1.yaml[1] (a): a patient without a symptom. Add symptoms:",
        "1.yaml[2] (b c): id: take letters",
        "1.yaml[2] (b c): style: must be 'plain', 'upset', 'verbose', 'reserved', 'tangential' or 'pleasing'. Got 'loud'.",
        "1.yaml[2] (b c): symptoms.0.severity: must be at most 3",
        "1.yaml[2] (b c): symptoms.0.show: unknown field. Did you mean 'shows'?",
        "1.yaml[2] (b c): severty: unknown field. Did you mean 'severity'?",
        "1.yaml[3] (a): symptoms.0.severity: must be a number. Got True.",
        "1.yaml[3] (a): demographics.age: must be a text or a whole number",
        "1.yaml[4] (a): a patient without a symptom",
        "1.yaml[5]: not a patient",
        "2.yaml (same): phases.first: must be 'initial', 'middle' or 'termination'",
        "3.yaml",
    ):
        assert line in told


def test_two_patients_with_one_id_are_named_with_both_places(tmp_path):
    path = written(tmp_path, "p.jsonl", f"{json.dumps(ONE)}\n\n{json.dumps(ONE)}\n")
    with pytest.raises(UserError, match=r"p.jsonl:3: the id 'a' is also that of .*p.jsonl:1"):
        read_cases(path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("no.yaml", None, "no such file or folder"),
        ("p.txt", "x", "unknown kind of file '.txt'"),
        ("empty.yaml", "", "nothing in it"),
        ("none.json", "[]", "no patient in it"),
        ("other.yaml", {**ONE, "schema": "cbtrain.patient/2"}, "'cbtrain.patient/2' is not cbtrain.patient/1"),
        ("beside.yaml", {"patients": [ONE], "model": "x"}, "'model' beside patients"),
        ("p.csv", "id;name\na;A\n", "a patient without a symptom"),
        ("t.csv", "id,symptoms\na,low mood\n", "column 'symptoms': 'mood' is no severity"),
        ("v.csv", 'id;symptom_sleep\na;"1,5"\n', "v.csv:2, column 'symptom_sleep': '1,5' is no severity"),
        ("s.csv", "id,symptom_sleep,Severity,severity level\na,1,mild,mild\n", "are both severity"),
        ("c.csv", "id,symptom_sleep,Style\na,1,loud\n", r"style \(column 'Style'\): must be"),
    ],
)
def test_what_is_no_file_of_patients_is_said_in_one_line(tmp_path, name, content, told):
    path = tmp_path / name if content is None else written(tmp_path, name, content)
    with pytest.raises(UserError, match=told) as error:
        read_cases(path)
    assert str(tmp_path) in str(error.value)


def test_a_table_is_read_by_the_names_of_its_columns(tmp_path):
    table = (
        "\ufeffPatient ID;Name;Age;Symptom-Severity;ENGAGEMENT_LEVEL;symptom_Low mood;Symptoms;core beliefs;"
        "situations;Treatment goals;Histori;initial_summary;score\n"
        'p1;Ann;"34,0";Moderate;low;"2,0";sleep: 3; worry (1)\n'
    )
    # A cell with the delimiter in it is quoted.
    table = table.replace("sleep: 3; worry (1)\n", '"sleep: 3; worry = mild";"I am a fool\nI am alone";')
    table += '"at work | I fail | sad | left";run; He said.;We met.;"1,25"\n'
    cases, said = read(written(tmp_path, "p.csv", table))
    (case,) = cases
    assert (case.id, case.name, case.severity, case.engagement) == ("p1", "Ann", "moderate", "low")
    assert [(one.name, one.severity) for one in case.symptoms] == [("low mood", 2), ("sleep", 3), ("worry", 1)]
    assert case.cognitive_model.core_beliefs == ["I am a fool", "I am alone"]
    assert case.cognitive_model.situations[0].behaviour == "left"
    assert (case.goals, case.phases["initial"].summary) == (["run"], "We met.")
    assert case.demographics == {"Age": 34, "Histori": "He said.", "score": "1,25"}
    assert said == [f"{tmp_path}/p.csv: kept as demographics: Age, Histori (or is it history?), score"]


def test_a_map_names_columns_encoding_and_delimiter(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("Größe|k|schwer|traurig\n1|Jörg|mild|3\n".encode("cp1252"))
    table = TableMap(
        columns={"name": "k", "severity": "schwer", "symptom_low mood": "traurig"}, encoding="cp1252", delimiter="|"
    )
    (case,), said = read(path, table=table)
    assert (case.id, case.name, case.severity, case.symptoms[0].severity) == ("jorg", "Jörg", "mild", 3)
    assert any("ids are made from the names" in line for line in said)
    with pytest.raises(UserError, match=r"not utf-8 text .*encoding: cp1252"):
        read_cases(path)
    with pytest.raises(UserError, match="no column 'shwer'. Did you mean 'schwer'"):
        read_cases(path, table.model_copy(update={"columns": {"severity": "shwer"}}))


def author(**facts):
    content = {"Age": "26-35", "Symptom_Severity": "Severe", "Engagement_Level": "Low", "Coping_Mechanisms": ["Sleep"]}
    return json.dumps({"profile": "Patient Name: Jo Roe\n\nA life.", "characteristics": content | facts})


def test_the_2024_studys_profiles_become_cases(tmp_path):
    written(tmp_path, "depression_set_10/patient_profile.json", author())
    written(tmp_path, "depression_set_10/session_1.json", "{}")
    written(
        tmp_path, "depression_set_2/patient_profile.json", author(Life_Events=["War", "Loss"], Engagement_Level="None")
    )
    (first, second), said = read(tmp_path)
    assert (first.id, second.id, second.name) == ("set-2", "set-10", "Jo Roe")
    assert (second.severity, second.engagement, second.symptoms[0].severity) == ("severe", "low", 3)
    assert second.cognitive_model.coping == ["Sleep"]
    assert (first.engagement, first.demographics["life_events"]) == (None, "War; Loss")
    assert "no style, risk, goals, beliefs, situations or phases are in it (set-2, set-10)" in said[1]
    assert "Engagement_Level 'none' is not one of low, medium, high: left out (set-2)" in said[0]
    written(tmp_path, "depression_set_3/patient_profile.json", author(Symptom_Severity="Extreme"))
    with pytest.raises(UserError, match="depression_set_3.*Symptom_Severity 'Extreme'"):
        read_cases(tmp_path)


def test_the_2025_studys_scenarios_become_cases(tmp_path):
    scenario = (
        "Patient is a young adult (18-24), identifies as female, works as a clerk, and is currently single. Primary "
        "concern involves mild anxiety (worry (e.g., at night), panic), particularly manifesting as: x."
    )
    other = scenario.replace("mild anxiety", "grief")
    records = [{"full_scenario_text": text, "profile_hash": f"h{n}"} for n, text in enumerate((scenario, other))]
    (first, second), said = read(written(tmp_path, "s.json", json.dumps(records)))
    assert (first.id, first.severity, first.symptoms[0].shows) == ("h0", "mild", "worry (e.g., at night), panic")
    assert first.demographics["occupation"] == "clerk"
    assert (second.symptoms[0].name, second.symptoms[0].severity, second.severity) == ("grief", 2, None)
    assert any("taken as 2 (moderate) (h1)" in line for line in said)


def test_a_corpus_of_ours_gives_its_profiles(tmp_path):
    profile = {"schema": "cbtrain.profile/1", "course": "Amara O", "name": "Amara", "brief": "You are Amara."}
    facts = {"characteristics": {"severity": "mild", "engagement": "high"}}
    (case,), _ = read(written(tmp_path, "profiles.jsonl", json.dumps(profile | facts)))
    assert (case.id, case.severity, case.engagement, case.history) == ("amara-o", "mild", "high", "You are Amara.")


@pytest.mark.skipif(not DATA.is_dir(), reason="the studies' data are not here")
def test_the_studies_own_files_are_read_whole():
    assert len(read_cases(DATA / "tahir2024")) == 48
    assert len(read_cases(DATA / "tahir2025" / "standardized_patient_profiles.json")) == 150
