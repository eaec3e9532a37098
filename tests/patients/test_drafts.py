"""Drafts of patients from a real server on the loopback address that plays the large model."""

import json
import re
from collections import Counter

import pytest
from loopback import background, completion, status

from cbtrain.cli.main import main
from cbtrain.patients.case import COLUMNS
from cbtrain.patients.drafts import spread
from cbtrain.patients.reading import read_cases

NAMES = ("Ada Bell", "Ben Cole", "Cy Dunn", "Di Eck", "Ed Fox", "Flo Gale")


def number_of(body):
    return int(re.search(r"Patient (\d+)\. Given", body["messages"][1]["content"])[1])


def draft(body, **changes):
    number = number_of(body)
    severity = {"mild": 1, "moderate": 2, "severe": 3}[re.search(r"severity: (\w+)", body["messages"][1]["content"])[1]]
    words = " ".join(f"thing{number}x{word}" for word in range(30))
    later = {"summary": f"S {words}", "since": "You did it."}
    record = {
        "name": NAMES[number - 1],
        "demographics": {"age": 30, "gender": "woman", "occupation": "baker", "living": "alone", "country": "Wales"},
        "complaint": words,
        "history": words,
        "symptoms": [{"name": "low mood", "severity": severity, "shows": "often"}],
        "cognitive_model": {
            "core_beliefs": ["I fail"],
            "intermediate_beliefs": ["If I rest, then I fail"],
            "situations": [{"situation": "at work", "thought": "no", "feeling": "sad", "behaviour": "left"}],
            "coping": ["walks"],
        },
        "goals": ["rest"],
        "in_session": words,
        "phases": dict.fromkeys(("initial", "middle", "termination"), later),
    }
    return completion(json.dumps(record | changes))


@pytest.fixture
def write(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WRITER_KEY", "k")
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "cache"))

    def on(script, out, *words):
        provider = tmp_path / "provider.yaml"
        provider.write_text(
            f"base_url: {script.url}\nmodel: m\napi_key_env: WRITER_KEY\nprice: {{input: 1, output: 2}}\n"
            "max_retries: 0\n"
        )
        before = len(script.bodies)
        code = main(["patients", "write", "--provider", str(provider), "--out", str(tmp_path / out), *words])
        return code, *capsys.readouterr(), script.bodies[before:]

    def run(plan, out, *words):
        with background(plan) as script:
            return on(script, out, *words)

    run.on = on

    return run


def test_drafts_are_spread_checked_and_written_with_a_note(write, tmp_path):
    code, out, err, bodies = write(lambda n, body: draft(body), "new", "--count", "6", "--brief", "They all sing.")
    assert (code, err) == (0, "")
    assert len(bodies) == 6
    cases = read_cases(tmp_path / "new")
    assert [case.id for case in cases] == ["ada-bell", "ben-cole", "cy-dunn", "di-eck", "ed-fox", "flo-gale"]
    assert set(Counter(case.severity for case in cases).values()) == {2}
    assert set(Counter(case.style for case in cases).values()) == {1}
    assert (tmp_path / "new" / "ada-bell.yaml").read_text().startswith("# Drafts by m: a person has to read")
    assert "Read and correct each; nobody has yet." in out
    assert "6 paid requests for $0.0001" in out
    asked = bodies[0]["messages"][1]["content"]
    assert "They all sing." in asked
    assert "Take nothing of its content" in asked
    schema = bodies[0]["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == set(schema["properties"])  # strict answers allow nothing else


def test_a_repeated_or_contradictory_draft_is_asked_for_again_with_the_reason(write, tmp_path):
    def plan(n, body):
        asked = body["messages"][1]["content"]
        if number_of(body) == 2 and "the name Ada Bell is taken" not in asked:
            return draft(body, name="Ada Bell")
        if number_of(body) == 3 and "every symptom has the severity 0" not in asked:
            return draft(body, symptoms=[{"name": "low mood", "severity": 0, "shows": "never"}])
        return draft(body)

    code, _, _, bodies = write(plan, "new.yaml", "--count", "3")
    assert (code, len(bodies)) == (0, 5)
    assert [case.id for case in read_cases(tmp_path / "new.yaml")] == ["ada-bell", "ben-cole", "cy-dunn"]


def test_what_fails_is_named_and_what_was_paid_for_is_not_asked_again(write, tmp_path):
    def plan(n, body):
        return completion("I cannot.") if number_of(body) == 2 else draft(body)

    with background(plan) as script:
        code, _, err, _ = write.on(script, "some.jsonl", "--count", "2")
        assert code == 2
        assert "patient 2 could not be written: answer: no JSON object in it" in err
        assert [case.id for case in read_cases(tmp_path / "some.jsonl")] == ["ada-bell"]
        code, out, _, bodies = write.on(script, "other.jsonl", "--count", "1")
    assert (code, bodies) == (0, [])
    assert "1 answers were on disk" in out


def test_nothing_is_overwritten_and_bad_input_is_found_before_any_request(write, tmp_path):
    (tmp_path / "there.yaml").write_text("mine")
    for out, words, told in (
        ("there.yaml", ["--count", "1"], "already exists"),
        ("new.docx", ["--count", "1"], "unknown kind of file .docx"),
        ("new", ["--count", "0"], "--count: must be at least 1"),
        ("new", ["--count", "1", "--like", "depresion"], "Did you mean 'depression'"),
    ):
        code, _, err, bodies = write(lambda n, body: draft(body), out, *words)
        assert (code, bodies) == (2, [])
        assert told in err
    assert (tmp_path / "there.yaml").read_text() == "mine"
    code, _, err, _ = write(lambda n, body: status(401), "new", "--count", "1")
    assert (code, "Check the API key" in err) == (2, True)


def test_columns_are_spread_and_a_longer_list_begins_with_the_shorter():
    many = spread(24, 1)
    assert many[:10] == spread(10, 1)
    assert many != spread(24, 2)
    assert set(Counter(one["style"] for one in many).values()) == {4}
    assert Counter(one["risk"] for one in many)["none"] == 12
    assert all(one[column] in COLUMNS[column] for one in many for column in COLUMNS)
    assert not any(one["severity"] == "mild" and one["risk"] == "active ideation" for one in many)
