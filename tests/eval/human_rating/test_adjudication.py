"""Large differences between people: found, settled by one more rater, and one more judge afterwards."""

import csv
import json

import pytest
from rated_run import DOMAINS, key_of, run_folder, sessions_of

from cbtrain.cli.main import main
from cbtrain.eval.analysis.agreement.panel import panel_of
from cbtrain.eval.analysis.agreement.reliability import groups_of
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.rating.people import ADJUDICATED
from cbtrain.eval.rating.scores import Score, read_scores_csv, write_scores_csv
from cbtrain.study.evaluation.scores import load_scores


def call(*words, status=0):
    assert main([str(word) for word in words]) == status


def score(session, judge, status="ok", **values):
    place = {"session_id": session.id, "arm": session.arm, "patient": session.patient, "seed": session.seed}
    return Score(**place, judge=judge, repeat=0, status=status, domains=dict.fromkeys(DOMAINS, 3.0) | values)


@pytest.fixture
def made(tmp_path):
    """A run that two people rated: they differ by much on two sessions, by a point on all, once on whether."""
    sessions = sessions_of(seeds=1)
    run = run_folder(tmp_path / "run", sessions)
    scores = []
    for place, session in enumerate(sessions):
        scores.append(score(session, "human: Ann", agenda=4.0))
        more = {"pacing": 6.0, "homework": 0.0} if place == 0 else {}
        more |= {"pacing": None} if place == 1 else {}
        scores.append(score(session, "human: Ben", "unratable" if place == 1 else "ok", **more))
    write_scores_csv(scores, run / "human_scores.csv")
    return tmp_path


def adjudicate(made, *words, status=0):
    call("rate", "adjudicate", made / "run", *words, status=status)


def settle(made, scores, folder="settle"):
    key = key_of(made / folder)
    sessions = [
        {"code": one["code"], "ratings": {name: {"score": scores[name]} for name in one["domains"] if name in scores}}
        for one in key["forms"][0]["sessions"]
    ]
    content = {"schema": "cbtrain.ratings/1", "form": key["forms"][0]["id"], "rater": "Cas", "sessions": sessions}
    (made / "cas.json").write_text(json.dumps(content))
    call("rate", "import", made / "cas.json", "--key", made / folder / "key.json")


def adjudicated(made):
    scores = read_scores_csv(made / "run" / "human_scores.csv")
    return {one.session_id: one for one in scores if one.judge == ADJUDICATED}


def test_large_differences_are_listed_and_nothing_is_changed(made, capsys):
    before = sorted((made / "run").iterdir())
    adjudicate(made)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 of 66 scores, in 2 of 6 sessions that two or more of human: Ann, human: Ben rated, differ by more" in said
    assert "than 1 point (or one of them" in said
    assert "Ann 3, Ben 6 3" in said
    assert "Ann 3, Ben cannot be rated" in said
    assert sorted((made / "run").iterdir()) == before
    adjudicate(made, "--threshold", 0.5)
    assert "9 of 66 scores, in 6 of 6 sessions" in " ".join(capsys.readouterr().out.split())
    adjudicate(made, "--threshold", 6, status=2)
    assert "--threshold: 6 points is no difference on this scale" in capsys.readouterr().err


def test_settled_scores_are_one_more_judge_and_originals_stay(made, capsys):
    original = read_scores_csv(made / "run" / "human_scores.csv")
    adjudicate(made, "--out", made / "settle")
    sheet = (made / "settle" / "adjudicator" / "ratings.csv").read_text()
    assert sheet.count("agreed") == 19  # of 22 cells, three are asked for
    assert "Said so far" not in (made / "settle" / "adjudicator" / "reading.txt").read_text()
    settle(made, {"pacing": 5, "homework": 1})
    said = capsys.readouterr().out
    assert "settles 3 scores of 2 sessions" in said
    assert "human: adjudicated: 6 sessions, settled scores and people's means otherwise" in said
    assert read_scores_csv(made / "run" / "human_scores.csv")[: len(original)] == original
    rows = adjudicated(made)
    first, second, third = (rows[one.session_id].domains for one in original[::2][:3])
    assert (first["pacing"], first["homework"], first["agenda"], first["feedback"]) == (5, 1, 3.5, 3)
    assert (second["pacing"], third["agenda"]) == (5, 3.5)
    settled = list(csv.DictReader((made / "run" / "human_adjudicated.csv").open()))
    assert {(row["adjudicator"], row["domain"], row["score"]) for row in settled} == {
        ("Cas", "pacing", "5"), ("Cas", "homework", "1"),
    }  # fmt: skip
    adjudicate(made)
    assert "nothing to settle" in capsys.readouterr().out
    adjudicate(made, "--again", "--show", "--out", made / "again")
    assert "Said so far: 3; 6" in (made / "again" / "adjudicator" / "reading.txt").read_text()
    call("rate", "import", made / "cas.json", "--key", made / "settle" / "key.json")  # again: the same
    assert adjudicated(made) == rows


def test_a_session_whose_difference_is_left_has_no_settled_score(made, capsys):
    adjudicate(made, "--out", made / "settle")
    settle(made, {"homework": 1})
    assert "5 sessions" not in capsys.readouterr().out.split("human: adjudicated:")[0]
    rows = adjudicated(made)
    assert len(rows) == 4  # pacing is left in two sessions
    settle(made, {"homework": 1, "pacing": "n/a"})
    rows = adjudicated(made)
    assert len(rows) == 6
    assert sorted(row.status for row in rows.values()) == ["ok"] * 4 + ["unratable"] * 2


def test_the_analysis_takes_what_was_settled_in_place_of_those_who_settled_it(made, capsys):
    adjudicate(made, "--out", made / "settle")
    settle(made, {"pacing": 5, "homework": 1})
    capsys.readouterr()
    ratings = load_scores([made / "run"]).ratings
    panel = panel_of(ratings)
    assert panel.judges == [ADJUDICATED]
    assert panel.secondary == ["human: Ann", "human: Ben"]
    few = ratings.only((ratings.judge != ADJUDICATED) | (ratings.patient != "zz-rowe"))
    assert panel_of(few).judges == ["human: Ann"]  # it covers too little, and Ben found a session unratable
    found = analysis(ratings, "default", draws=100)["agreement"]
    assert [(row["kind"], row["judges"]) for row in found["between"]] == [("people", ["human: Ann", "human: Ben"])]
    assert [row["judge"] for row in found["by_judge"]] == ["human: Ann", "human: Ben", ADJUDICATED]
    call("analyze", made / "run", "--draws", 100)
    said = " ".join(capsys.readouterr().out.split())
    assert "People with each other" in said
    assert "the settled score where they differed by much, and their mean where they did not" in said


def test_people_are_compared_with_people_first():
    assert groups_of(["cue", "gpt", "human: Ann", "human: Ben"]) == [
        ("people", ["human: Ann", "human: Ben"]),
        ("people and judges", ["human: Ann", "cue"]),
        ("people and judges", ["human: Ann", "gpt"]),
        ("people and judges", ["human: Ben", "cue"]),
        ("people and judges", ["human: Ben", "gpt"]),
        ("judges", ["cue", "gpt"]),
        ("all", ["cue", "gpt", "human: Ann", "human: Ben"]),
    ]
    assert groups_of(["a", "b", "c"])[0] == ("judges", ["a", "b", "c"])
    assert groups_of(["a"]) == []


def test_what_cannot_be_settled_is_one_line(made, tmp_path, capsys):
    call("rate", "adjudicate", tmp_path / "nothing.csv", status=2)
    assert "nothing.csv: no scores by people. Name a table." in capsys.readouterr().err
    table = tmp_path / "one.csv"
    write_scores_csv([one for one in read_scores_csv(made / "run" / "human_scores.csv") if "Ann" in one.judge], table)
    call("rate", "adjudicate", table, status=2)
    assert "one rater only (human: Ann)" in capsys.readouterr().err
    write_scores_csv(read_scores_csv(made / "run" / "human_scores.csv"), table)
    call("rate", "adjudicate", table, "--out", tmp_path / "out", status=2)
    assert "no transcripts of these sessions. Name them with --transcripts." in capsys.readouterr().err
    call("rate", "adjudicate", table, "--out", tmp_path / "out", "--transcripts", made / "run")
    form = key_of(tmp_path / "out")["forms"][0]
    other = {"code": form["sessions"][0]["code"], "ratings": {"agenda": {"score": 3}}}
    content = {"schema": "cbtrain.ratings/1", "form": form["id"], "rater": "Cas", "sessions": [other]}
    (made / "cas.json").write_text(json.dumps(content))
    capsys.readouterr()
    call("rate", "import", made / "cas.json", "--key", tmp_path / "out" / "key.json", status=2)
    assert "domain 'agenda' was not to be rated here" in capsys.readouterr().err
    assert ADJUDICATED not in table.read_text()
