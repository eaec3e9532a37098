"""``cbtrain analyze`` on the 2024 study's scores and on tables of our own."""

import json

import pytest
from authors_scores import SCORES, needs_scores

from cbtrain.cli import main
from cbtrain.eval.scores import Score, write_scores_csv


def analyze(capsys, *words):
    status = main(["analyze", *map(str, words)])
    return status, *capsys.readouterr()


def table(path, rows):
    """Scores of (arm, patient, total) of one item; None is no score."""
    scores = [Score(f"{p}.{arm}.0", arm, p, 0, "j", 0, "ok", {"agenda": value}) for arm, p, value in rows]
    write_scores_csv(scores, path)
    return path


@needs_scores
def test_the_published_analysis_as_json(capsys):
    status, out, err = analyze(capsys, SCORES, "--protocol", "paper", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    effect = {term["term"]: term for term in found["fixed_effects"]}["variant: instruct"]
    assert {"estimate", "se", "ci_low", "ci_high", "p"} <= set(effect)
    assert f"{effect['estimate']:.3f}" == "-11.326"
    assert {(group["n"], f"{group['mean']:.2f}", f"{group['sd']:.2f}") for group in found["groups"]} >= {
        (100, "67.86", "7.24"),
        (93, "47.20", "14.09"),
    }


@needs_scores
def test_the_default_analysis_repeats_and_is_written(capsys, tmp_path):
    _, out, _ = analyze(capsys, SCORES, "--json", "--draws", "500", "--out", tmp_path / "out")
    found = json.loads(out)
    assert found == json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert found == json.loads(analyze(capsys, SCORES, "--json", "--draws", "500")[1])
    keys = {"id", "estimate", "se", "ci_low", "ci_high", "p", "p_adjusted", "method"}
    assert all(keys <= set(contrast) for contrast in found["contrasts"])
    gains = {row["item"]: row["estimate"] for row in found["items"] if row["contrast"].startswith("Llama")}
    assert len(gains) == 11
    assert gains["Agenda"] == pytest.approx(5.79 - 3.92)
    assert f"{found['agreement']['halo'][0]['alpha']['estimate']:.3f}" == "0.909"


@needs_scores
def test_what_a_person_sees(capsys):
    _, out, _ = analyze(capsys, SCORES, "--draws", "500")
    assert "Llama: tuned − instruct" in out
    assert "3.20 to 12.86" in out
    assert "a sign-flip test cannot give p below 0.0625" in out
    assert (
        "No difference between bases is shown in what tuning changes (Hotelling's test over 5 patients, F(2, 3) = "
        in out
    )
    _, out, _ = analyze(capsys, SCORES, "--protocol", "paper")
    assert "−11.326" in out
    assert "optimizer powell" in " ".join(out.split())


def test_gaps_are_marked_and_nothing_is_silent(capsys, tmp_path):
    one = table(tmp_path / "one.csv", [("tuned", "p", 3.0), ("base", "p", 2.0)])
    status, out, _ = analyze(capsys, one)
    assert status == 0
    assert "one patient: no interval can be given" in out
    assert "n/a" in out
    assert analyze(capsys, one, "--out", tmp_path / "out")[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Scores of 1 patient, analysed" in page
    assert (
        "No difference can be shown between Tuned therapist and Base model: +1.0 point, and no interval can be given."
        in page
    )
    alone = table(tmp_path / "alone.csv", [("tuned", "p", 3.0), ("tuned", "q", None)])
    status, out, _ = analyze(capsys, alone, "--json")
    found = json.loads(out)
    assert (found["contrasts"], found["unrated"]) == ([], {"tuned": 1})


def test_statuses_of_tables_alone_are_kept(capsys, tmp_path):
    scores = [
        Score(f"{p}.{arm}.0", arm, p, 0, "j", 0, status, {"agenda": None if status != "ok" else 3.0})
        for arm in ("base", "tuned")
        for p, status in (("p", "ok"), ("q", "refused"), ("r", "truncated"))
    ]
    write_scores_csv(scores, tmp_path / "scores.csv")
    assert analyze(capsys, tmp_path / "scores.csv", "--out", tmp_path / "out")[0] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [session["status"] for session in report["sessions"]] == ["ok", "refused", "truncated"] * 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["none.csv"], "none.csv: cannot be read"),
        (["one.csv", "--protocol", "paper"], "one.csv: the published analysis needs two bases"),
        (["torn.csv"], r"torn.csv: arm 'tu\nned' has a control character"),
        (["one.csv", "--draws", "3"], "--draws: 3 is too few"),
        (["one.csv", "--seed", "-3"], "--seed: -3 is below 0"),
    ],
)
def test_bad_input_is_one_line(words, problem, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "one.csv", [("tuned", "p", 3.0), ("base", "p", 2.0)])
    table(tmp_path / "torn.csv", [("tu\nned", "p", 3.0), ("base", "p", 2.0)])
    status, out, err = analyze(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert problem in err
