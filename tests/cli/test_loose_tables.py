"""``cbtrain analyze`` on tables that cbtrain did not write: totals alone, other names, what another table says. And the
long table for other programs."""

import csv
import json
import re

import pytest
from places import ROOT

from cbtrain.cli.main import main
from cbtrain.eval.rating.rubric_files import load_rubric, write_rubric
from cbtrain.eval.rating.scores import Score, write_scores_csv

TOTALS = [("ann", "0", 30.5), ("ann", "1", 33), ("ben", "0", 25), ("ben", "1", 31), ("cid", "0", 28), ("cid", "1", 29)]
MINIMAL = "arm,patient,total\n" + "".join(f"{arm},{patient},{total}\n" for patient, arm, total in TOTALS)


def analyze(capsys, *words):
    code = main(["analyze", *map(str, words), "--draws", "100", "--json"])
    out, err = capsys.readouterr()
    return (json.loads(out), "") if code == 0 else (None, err)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(found, text):
    return any(text in note for note in found["notes"])


@pytest.mark.fault("G10")
def test_arm_patient_and_total_suffice(capsys, here):
    (here / "t.csv").write_text(MINIMAL)
    found, _ = analyze(capsys, "t.csv", "--out", "out")
    assert found["contrasts"][0]["estimate"] == pytest.approx(-19 / 6)
    assert found["contrasts"][0]["patients"].keys() == {"ann", "ben", "cid"}
    assert (found["items"], [group["items"] for group in found["groups"]]) == ([], [{}, {}])
    assert told(found, "there is no column session_id (an id from arm, patient and seed), seed (")
    report = json.loads((here / "out" / "report.json").read_text())
    assert {session["id"] for session in report["sessions"]} >= {"0/ann/0", "1/cid/0"}
    assert report["scale"]["domains"] == []
    # With a rubric the range of totals is known, and what lies outside is refused.
    write_rubric(load_rubric("alliance"), here / "rubric.yaml")
    found, _ = analyze(capsys, "t.csv")
    assert (found["scale"]["total_min"], found["scale"]["total_max"]) == (9, 45)
    assert told(found, "the instrument is that of rubric.yaml")
    (here / "t.csv").write_text(MINIMAL.replace("30.5", "46"))
    assert "is 46, outside 9 to 45" in analyze(capsys, "t.csv")[1]


def test_the_smallest_table_of_the_documentation_is_analysed(capsys, here):
    page = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")
    (here / "t.csv").write_text(re.findall(r"```csv\n(.*?)```", page, re.S)[0])
    found, _ = analyze(capsys, "t.csv")
    assert (found["contrasts"][0]["id"], found["contrasts"][0]["estimate"]) == ("tuned − untuned", 4.75)


def test_columns_under_other_names_and_arms_that_are_numbers(capsys, here):
    rows = "".join(f"{arm};{patient};{str(total).replace('.', ',')};40\n" for patient, arm, total in TOTALS)
    (here / "t.csv").write_text(f"Condition;Client;Score;Age\n{rows}")
    (here / "arms.yaml").write_text("arms:\n  0: {base: L, variant: untuned}\n  1: {base: L, variant: tuned}\n")
    columns = "arm=Condition,patient=Client,total=Score"
    found, _ = analyze(capsys, "t.csv", "--map", columns, "--arms", "arms.yaml")
    assert found["contrasts"][0]["id"] == "L: tuned − untuned"
    assert found["contrasts"][0]["estimate"] == pytest.approx(19 / 6)
    assert told(found, "Age: no items, and left out")
    for wrong, problem in (
        (columns.replace("Client", "Clients"), "has no column 'Clients'. Did you mean 'Client'?"),
        ("arm=Condition", "column 'patient' is missing. Name the column that says it"),
        ("arm", "--map: 'arm' is no pair of columns"),
        ("arm=Condition,patient=Condition", "--map: 'Condition' comes twice"),
    ):
        error = analyze(capsys, "t.csv", "--map", wrong)[1]
        assert (problem in error, error.count("\n")) == (True, 1), error


def test_items_without_a_total_and_sessions_without_a_seed(capsys, here):
    (here / "t.csv").write_text(
        "arm,patient,rater,warmth,order\n"
        + "".join(f"{arm},{p},r{r},{2 + arm},{n}\n" for arm in (0, 1) for p in "ab" for n in (1, 2) for r in (1, 2))
    )
    found, _ = analyze(capsys, "t.csv", "--map", "judge=rater")
    assert (found["judges"], found["ratings"]) == (["r1", "r2"], 16)
    assert [row["estimate"] for row in found["items"]] == [-1, 0]
    assert told(found, "taken as items: warmth, order")
    assert told(found, "4 times a patient has several sessions with an arm and no seed: they are paired in their order")
    # Numbers that do not sum up to the total are no items.
    (here / "t.csv").write_text("arm,patient,age,total\n0,a,40,3\n1,a,40,4\n")
    found, _ = analyze(capsys, "t.csv")
    assert (found["items"], told(found, "age: no items, and left out")) == ([], True)
    (here / "t.csv").write_text("arm,patient,warmth,order,total\n0,a,1,2,3\n1,a,2,2,4\n")
    assert [row["estimate"] for row in analyze(capsys, "t.csv")[0]["items"]] == [-1, 0]


@pytest.mark.fault("G10")
def test_another_table_says_whose_the_sessions_are(capsys, here):
    scores = [f"s{place},{total}\n" for place, (_, _, total) in enumerate(TOTALS)]
    said = [f"s{place},{patient},{arm},mild\n" for place, (patient, arm, _) in enumerate(TOTALS)]
    (here / "t.csv").write_text("session_id,total\n" + "".join(scores))
    (here / "m.csv").write_text("session_id,patient_id,arm,severity\n" + "".join(reversed(said)))
    assert "column 'arm' is missing" in analyze(capsys, "t.csv")[1]
    found, _ = analyze(capsys, "t.csv", "--metadata", "m.csv")
    assert found["contrasts"][0]["estimate"] == pytest.approx(-19 / 6)
    assert told(found, "m.csv: joined by session_id")
    # Ratings of files without a label of the arm, as `cbtrain rate` writes them.
    rated = [f"x/{patient}-{arm}/1,transcripts,{patient}-{arm},1,j,0,ok,{total}\n" for patient, arm, total in TOTALS]
    (here / "t.csv").write_text("session_id,arm,patient,seed,judge,repeat,status,total\n" + "".join(rated))
    (here / "m.csv").write_text(
        "file,patient,arm\n" + "".join(f"x/{patient}-{arm}.txt,{patient},{arm}\n" for patient, arm, _ in TOTALS)
    )
    found, _ = analyze(capsys, "t.csv", "--metadata", "m.csv")
    assert found["contrasts"][0]["estimate"] == pytest.approx(-19 / 6)
    assert told(found, "6 rows of scores say something else than m.csv, which counts")
    # A patient's own columns; a row that is missing is counted, one that contradicts another is refused.
    (here / "t.csv").write_text(MINIMAL)
    (here / "m.csv").write_text("patient,severity\nann,mild\nben,severe\n")
    found, _ = analyze(capsys, "t.csv", "--metadata", "m.csv")
    assert told(found, "2 rows of scores have no row in m.csv")
    (here / "m.csv").write_text("patient,severity\nann,mild\nann,severe\n")
    assert (
        "m.csv:3: a second row of 'ann' that says something else" in analyze(capsys, "t.csv", "--metadata", "m.csv")[1]
    )
    (here / "m.csv").write_text("patient,severity\ndan,mild\n")
    assert "no row for 6 of 6 rows of t.csv (ann, ben, cid)" in analyze(capsys, "t.csv", "--metadata", "m.csv")[1]


def test_the_long_table_holds_scores_as_given_and_keyed_with_a_codebook(capsys, here):
    rubric = load_rubric("alliance")
    rubric = rubric.model_copy(update={"domains": [d.model_copy(update={"weight": 2.0}) if d.id == "sense" else d
                                                   for d in rubric.domains]})  # fmt: skip
    write_rubric(rubric, here / "rubric.yaml")
    scores = [
        Score(session_id=f"s-{arm}-{patient}", arm=arm, patient=patient, seed=0, judge="=j", repeat=0, status=status,
              domains=dict.fromkeys(rubric.ids, 4.5 if status == "ok" else None), number=4, keying=rubric.keying,
              columns={"severity": "mild"})
        for arm in ("base", "tuned") for patient, status in (("ann", "ok"), ("ben", "refused"))
    ]  # fmt: skip
    write_scores_csv(scores, here / "t.csv")
    assert analyze(capsys, "t.csv", "--long", "long.csv")[1] == ""
    rows = list(csv.DictReader((here / "long.csv").open(encoding="utf-8")))
    assert len(rows) == 4 * 9
    first = [row for row in rows if row["session_id"] == "s-base-ann"]
    assert {row["item"]: (row["score"], row["keyed"]) for row in first if row["item"] in ("strain", "sense")} == {
        "strain": ("4.5", "1.5"),
        "sense": ("4.5", "4.5"),
    }
    total = sum(float(row["weight"]) * float(row["keyed"]) for row in first)
    assert {row["total"] for row in first} == {f"{total:g}"} == {f"{scores[0].total:g}"}
    said = {"subscale": "bond", "phase": "initial", "severity": "mild", "variant": "base", "judge": "'=j"}
    assert {name: first[0][name] for name in said} == said
    assert {(row["status"], row["score"], row["total"]) for row in rows if row["patient"] == "ben"} == {
        ("refused", "", "")
    }
    codebook = list(csv.DictReader((here / "long.codebook.csv").open(encoding="utf-8")))
    assert [row["name"] for row in codebook if row["part"] == "column"] == list(rows[0])
    items = {row["name"]: row for row in codebook if row["part"] == "item"}
    assert items["strain"]["reversed"] == "yes"
    assert items["sense"]["weight"] == "2"
    assert items["candour"]["values"] == "1 to 5 in steps of 0.5"
    assert "3 = Some of it comes out" in items["candour"]["anchors"]
    assert "not the WAI" in (here / "long.codebook.md").read_text(encoding="utf-8")
    for name, problem in (("t.csv", "it would replace a table of scores"), ("long.txt", "the long table is a CSV")):
        assert problem in analyze(capsys, "t.csv", "--long", name)[1]
