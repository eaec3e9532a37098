"""The 2025 study's analysis on made-up scores: known effects, the terminal, and what is refused."""

import json

import numpy as np
import pytest
from scipy import stats
from study2025 import by_name, made, profiles, row_of, write

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.eval.analysis.tahir2025.scores import COLUMNS, read_study_scores
from cbtrain.study.evaluation.tahir2025 import analyze_tahir2025


def test_known_effects_of_a_made_up_study_are_recovered(tmp_path, capsys):
    table = write(tmp_path / "scores.csv", made())
    profiles(tmp_path / "standardized_patient_profiles.json")
    assert main(["analyze", str(table), "--protocol", "tahir2025", "--json", "--draws", "200"]) == 0
    found = json.loads(capsys.readouterr().out)
    act = found["outcomes"]["act_fm"]
    assert act["published"]["stopped"] is None
    scores = read_study_scores(table).outcome("act_fm")
    row = by_name(act["paired"])["instruct-thinking − SFT-plain"]
    theirs = stats.ttest_rel(scores[:, 0], scores[:, 5])
    assert (row["p"], row["ci_low"]) == pytest.approx((theirs.pvalue, theirs.confidence_interval()[0]))
    thinking = by_name(act["factors"]["tests"])["thinking"]
    gains = (scores[:, 0::2] - scores[:, 1::2]).mean(axis=1)
    assert thinking["statistic"] == pytest.approx(stats.ttest_1samp(gains, 0).statistic ** 2)
    by_kind = {(row["gain"], row["column"]): row for row in act["moderators"]}
    harmed = by_kind["SFT − instruct", "archetype"]
    assert harmed["p_adjusted"] < 0.01
    assert by_name(harmed["levels"], "level")["The Cautious Sailor"]["gain"]["estimate"] < -10
    assert by_kind["ORPO − instruct", "archetype"]["p_adjusted"] > 0.05
    words = read_study_scores(table).columns["word_count"]
    (over_all, _) = act["length"]["correlations"]
    assert over_all["r"] == pytest.approx(np.corrcoef(scores.ravel(), words.ravel())[0, 1])
    assert over_all["ci_low"] < over_all["r"] < over_all["ci_high"]


def test_what_a_person_sees(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    write(tmp_path / "scores.csv", made(6))
    (tmp_path / "elsewhere").mkdir()
    patients = profiles(tmp_path / "elsewhere" / "patients.json", 6)
    words = ["analyze", str(tmp_path), "--protocol", "tahir2025", "--draws", "100", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    out = capsys.readouterr().out
    for piece in (
        "note: no standardized_patient_profiles.json beside the table",
        "mixed model as published; arms minus instruct-thinking",
        "≥ 51",
        "words held equal",
        "A sensitivity check",
        "p, Holm",
        "Not a medical device",
    ):
        assert piece in " ".join(out.split()), piece
    assert "kinds of patients\n" not in out
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["protocol"] == "tahir2025"
    assert main([*words, "--metadata", str(patients)]) == 0
    assert "SFT − instruct, by archetype" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: rows[0].update(model_type="dpo"), r"csv:2: model_type 'dpo' is not one of llama3_3b_instruct,"),
        (lambda rows: rows[1].update(tes_item_4=""), r"csv:3: tes_item_4 is empty"),
        (lambda rows: rows[1].update(act_fm_item_4="4"), r"csv:3: act_fm_item_4: 4 is not within 0 to 3"),
        (lambda rows: rows[1].update(tes_item_4="much"), r"csv:3: tes_item_4: 'much' is not a number"),
        (lambda rows: rows[2].update(act_fm_total_consistency="35.5"), r"csv:4: .*consistency is 35.5, and its parts"),
        (lambda rows: rows[2].update(word_count="0"), r"csv:4: word_count is 0"),
        (lambda rows: rows[2].update(turn_count="51.5"), r"csv:4: turn_count: 51.5 is not a count"),
        (lambda rows: rows[2].update(parsing_status="FAILED"), r"csv:4: parsing_status is 'FAILED', not 'OK'"),
        (lambda rows: rows.append(rows[3]), r"csv:14: patient 1 with orpo_no_COT comes twice"),
        (lambda rows: rows.pop(), r"csv: patient 2 has no dialogue with sft_answer_only"),
        (lambda rows: rows.__delitem__(slice(6, None)), r"csv: 1 patients: the analysis needs two"),
        (
            lambda rows: [row.update(row_of(row["session_id"], row["model_type"], (1, 1, 1))) for row in rows],
            "residual",
        ),
    ],
)
def test_tables_that_do_not_fit_are_one_line(change, problem, tmp_path):
    rows = made(2)
    change(rows)
    table = write(tmp_path / "scores.csv", rows)
    with pytest.raises(UserError, match=problem) as caught:
        analyze_tahir2025([table], None, draws=100, seed=0)
    assert "\n" not in str(caught.value)


def test_columns_files_and_options_that_do_not_fit_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "lost.csv", made(2), [name for name in COLUMNS if name != "tes_item_9"])
    write(tmp_path / "good.csv", made(2))
    profiles(tmp_path / "one.json", 1)
    for words, problem in (
        (["lost.csv"], "lost.csv: column 'tes_item_9' is missing"),
        (["none.csv"], "none.csv: no such file"),
        (["good.csv", "lost.csv"], "lost.csv: the 2025 study's analysis reads one table"),
        (["good.csv", "--rubric", "empathy"], "--rubric: the 2025 study's analysis does not use it"),
        (["good.csv", "--metadata", "one.json"], "one.json: no patient 2: it has 1"),
        (["."], "no scores.csv in it"),
    ):
        assert main(["analyze", *words, "--protocol", "tahir2025"]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert problem in err
    assert main(["analyze", "good.csv"]) == 2
    assert "good.csv: the 2025 study's table has several totals. Take --protocol tahir2025" in capsys.readouterr().err
