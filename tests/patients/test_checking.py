"""What is wrong with patients that are well formed; their profile."""

import pytest
from places import ROOT

from cbtrain.patients.case import Case
from cbtrain.patients.checking import check_cases
from cbtrain.patients.library import libraries, library
from cbtrain.patients.profile import profile_of
from cbtrain.patients.reading import read_cases
from cbtrain.patients.writing import write_cases

DATA = ROOT.parent / "shared" / "data" / "tahir2024"


def case(name="a", **fields):
    given = {"symptoms": [{"name": "low mood", "severity": 2}], "history": f"{name} was born.", **fields}
    return Case(id=name, name=name.upper(), **given)


def symptoms(*severities):
    return [{"name": f"s{number}", "severity": severity} for number, severity in enumerate(severities)]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"severity": "mild", "symptoms": symptoms(3, 3, 0)}, "severity is mild, and every symptom is severe"),
        ({"severity": "severe", "symptoms": symptoms(1, 1)}, "severity is severe, and every symptom is mild"),
        ({"symptoms": symptoms(0)}, "every symptom has the severity 0"),
        ({"symptoms": symptoms(1) * 2}, "the symptom 's0' comes twice"),
        (
            {"risk": "none", "symptoms": [{"name": "suicidal thoughts", "severity": 1}]},
            "risk is none, and the symptom 'suicidal thoughts' is there",
        ),
        ({"history": " "}, "neither history nor cognitive_model"),
        (
            {"history": "Sie ist nicht mehr die, die sie war, und das ist schwer für sie. " * 3},
            "its texts are German (de)",
        ),
    ],
)
def test_an_error_names_the_patient_and_what_to_do(fields, told):
    (error,) = check_cases([case(**fields)]).errors
    assert error.startswith("a: ")
    assert told in error


def test_what_a_person_should_look_at_is_a_warning():
    thoughts = "Suicidal thoughts were denied. Last year she had suicidal thoughts for a week."
    first = case(risk="none", history=thoughts, style="verbose", phases={"initial": {"summary": "x"}})
    second = case("b", risk="none", symptoms=[{"name": "suicidal thoughts", "severity": 0}, *symptoms(2)])
    checked = check_cases([first, second])
    assert checked.errors == ()
    assert checked.warnings == (
        "a: style is verbose, and in_session does not say how it shows",
        "a: risk is none, and its history says: 'Last year she had suicidal thoughts for a week.'",
        "a, b: no cognitive_model: simulators have the history alone",
        "b: no style, which 1 of 2 patients have",
        "b: no phases.initial, which 1 of 2 patients have",
    )


def test_one_patient_twice_is_an_error_and_much_the_same_a_warning():
    words = " ".join(f"word{number}" for number in range(60))
    same, copy = case(history=words), case("b", history=words)
    near = case("c", history=f"{words} and more").model_copy(update={"name": "A"})
    checked = check_cases([same, copy, near])
    assert checked.errors == ("a, b: the same patient twice. Remove one.",)
    assert any(line.startswith("a, c: much the same words (9") for line in checked.warnings)
    assert "a, c: all are called A" in checked.warnings


@pytest.mark.parametrize("name", libraries())
def test_the_shipped_patients_have_no_fault(name):
    cases = library(name)
    assert len(cases) >= 3
    assert check_cases(cases) == check_cases([])


def test_the_example_of_the_documentation_is_a_patient_without_a_fault(tmp_path):
    page = (ROOT / "docs" / "patients.md").read_text("utf-8")
    path = tmp_path / "example.yaml"
    path.write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    assert check_cases(read_cases(path)) == check_cases([])
    for field in Case.model_fields:
        assert f"`{field}`" in page, field


@pytest.mark.skipif(not DATA.is_dir(), reason="the study's data are not here")
def test_the_2024_studys_patients_have_no_error():
    assert check_cases(read_cases(DATA)).errors == ()


def test_a_profile_holds_all_that_is_known_before_the_first_session():
    one = library("depression")[0]
    profile = profile_of(one)
    assert profile.course == one.id
    assert profile.brief.startswith(f"You are {one.name}, a patient in therapy. About you: {one.demographics['age']}, ")
    assert f"Your symptoms are {one.severity}. Your engagement in therapy is {one.engagement}." in profile.brief
    model = one.cognitive_model
    known = [one.history, one.in_session, *(s.shows for s in one.symptoms), *model.core_beliefs, *one.goals]
    known += [situation.thought for situation in model.situations]
    words = " ".join(profile.text.split())
    assert all(" ".join(text.split()) in words for text in known)
    assert not any(later.since.strip() in profile.text for later in one.phases.values())
    assert profile.first("symptom severity") == one.severity
    bare = profile_of(case(history="", risk="none"))
    assert bare.brief == "You are A, a patient in therapy. You suffer from low mood."
    assert bare.text == "About:\n- name: A\n\nSymptoms:\n- low mood, moderate\n\nRisk:\nnone"


@pytest.mark.parametrize("name", ["all.yaml", "all.jsonl", "folder"])
def test_what_is_written_is_read_back(tmp_path, name):
    cases = library("depression")[:3]
    write_cases(cases, tmp_path / name, "a note")
    assert read_cases(tmp_path / name) == cases
