"""``cbtrain patients list``, ``show`` and ``check``."""

import yaml

from cbtrain.cli.main import main
from cbtrain.patients.library import library

ONE = {"id": "a", "name": "A", "history": "A life.", "symptoms": [{"name": "low mood", "severity": 2}]}


def run(capsys, *words):
    code = main(["patients", *words])
    return code, *capsys.readouterr()


def test_list_shows_a_row_for_each_and_how_many_of_each_kind(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    code, out, err = run(capsys, "list")
    cases = library("depression")
    assert (code, err) == (0, "")
    for case in cases:
        row = next(line for line in out.splitlines() if line.split()[:1] == [case.id])
        assert f"{case.severity} " in row
        assert row.split()[-1] == "4"
    assert f"{len(cases)} patients" in out
    assert f"mild {sum(case.severity == 'mild' for case in cases)}" in out
    assert "Nobody in the shipped libraries exists" in out


def test_show_prints_a_patient_that_can_be_copied_to_a_file(capsys, tmp_path):
    case = library("depression")[0]
    code, out, _ = run(capsys, "show", case.id)
    assert code == 0
    (tmp_path / "mine.yaml").write_text(out, encoding="utf-8")
    assert run(capsys, "show", case.id, "--from", str(tmp_path / "mine.yaml"))[1] == out
    assert run(capsys, "show", case.id, "--profile")[1].startswith(f"You are {case.name}")
    code, _, err = run(capsys, "show", case.id[:-1])
    assert (code, f"Did you mean '{case.id}'?" in err) == (2, True)


def test_check_has_one_status_for_errors_and_another_for_what_cannot_be_read(capsys, tmp_path):
    assert run(capsys, "check", "depression")[0] == 0
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump([ONE, {**ONE, "id": "b", "severity": "mild", "history": ""}]))
    code, out, err = run(capsys, "check", str(path))
    assert (code, err) == (1, "")
    assert "error: b: neither history nor cognitive_model" in out
    assert "warning: a: no severity, which 1 of 2 patients have" in out
    assert "2 patients: 1 errors, " in out
    path.write_text(yaml.safe_dump([{**ONE, "symptoms": []}, {**ONE, "hstory": "x"}]))
    code, out, err = run(capsys, "check", str(path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Did you mean 'history'?" in err
    code, _, err = run(capsys, "check", "depresion")
    assert (code, "Did you mean 'depression'?" in err) == (2, True)
