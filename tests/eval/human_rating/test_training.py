"""From training to results: a training set with feedback, blind sessions, half points, and a reversed item."""

import csv
import json

import pytest
from rated_run import ARMS, key_of, run_folder, sessions_of
from short_rubric import IDS, short_rubric

from cbtrain.cli.main import main
from cbtrain.eval.human_rating.key import read_key
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import read_scores_csv
from cbtrain.files import seal
from cbtrain.study.evaluation.scores import human_scores, load_scores
from cbtrain.transcripts.types import Turn

REASON = "She asks what to work on, and keeps to it."
AGREED = {"goals": 4, "warmth": 3.5, "lecturing": 2, "tasks": "n/a"}


def call(*words, status=0):
    assert main([str(word) for word in words]) == status


def agreed_table(path, sessions, **changes):
    rows = [{"session_id": one.id} | AGREED | {"goals reason": REASON, "reason": "A good start."} for one in sessions]
    for row in rows:
        row |= changes
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture
def made(tmp_path):
    """Forms of a run whose first two sessions are for training."""
    sessions = sessions_of()
    run_folder(tmp_path / "run", sessions, rubric=str(short_rubric(tmp_path)))
    table = agreed_table(tmp_path / "agreed.csv", sessions[:2])
    call("rate", "export", tmp_path / "run", "--out", tmp_path / "forms", "--training", table)
    return tmp_path


def ratings_of(made, number=1, rater="Ann", training=None, blind=None):
    key = key_of(made / "forms")

    def rated(sessions, scores):
        return [{"code": one["code"], "ratings": {name: {"score": score} for name, score in scores.items()}}
                for one in sessions] if scores else []  # fmt: skip

    path = made / f"{rater}.json"
    form = key["forms"][number - 1]
    content = {"schema": "cbtrain.ratings/1", "form": form["id"], "rater": rater}
    content |= {"training": rated(key["training"], training), "sessions": rated(form["sessions"], blind)}
    path.write_text(json.dumps(content))
    return path


def bring(made, *forms, status=0):
    call("rate", "import", *forms, "--key", made / "forms" / "key.json", status=status)


def test_training_comes_first_and_never_among_the_results(made, capsys):
    bring(made, ratings_of(made, training={"goals": 4, "warmth": 3, "lecturing": 4, "tasks": 2}))
    said = capsys.readouterr().out
    assert (
        "human: Ann, training: 2 sessions, mean absolute difference from the agreed scores 0.83 points (+0.50 " in said
    )
    assert "on average; furthest in lecturing, 2.00); " in said
    assert "33% the same, 67% at most one point apart (6 scores)" in said
    assert "no scores yet: only training sessions are rated" in said
    run = made / "run"
    assert not (run / "human_scores.csv").exists()
    rows = list(csv.DictReader((run / "human_training.csv").open()))
    assert [(row["domain"], row["score"], row["agreed"], row["difference"]) for row in rows[:4]] == [
        ("goals", "4", "4", "0"), ("warmth", "3", "3.5", "-0.5"), ("lecturing", "4", "2", "2"), ("tasks", "2", "n/a", ""),
    ]  # fmt: skip
    blind = {"goals": 4.5, "warmth": 5, "lecturing": 1, "tasks": 2}
    training = dict.fromkeys(IDS, 3)
    bring(made, ratings_of(made, training=training, blind=blind), ratings_of(made, 2, "Ben", training, blind))
    rows = list(csv.DictReader((run / "human_training.csv").open()))
    assert [row["judge"] for row in rows] == ["human: Ann"] * 8 + ["human: Ben"] * 8
    scores = read_scores_csv(run / "human_scores.csv", load_rubric(str(made / "short.yaml")).keying)
    assert len(scores) == 20  # ten blind sessions, two raters
    assert {one["session_id"] for one in key_of(made / "forms")["training"]}.isdisjoint(
        score.session_id for score in scores
    )
    assert scores[0].domains == blind  # as the rater gave them
    assert scores[0].total == 4.5 + 5 + (6 - 1) + 2 * 2  # reversed and weighted
    assert {score.total for score in human_scores(run, keying=scores[0].keying)} == {18.5}
    assert set(load_scores([run]).ratings.total) == {18.5}
    form = ratings_of(made, training=training, blind=blind | {"goals": 4.3})
    bring(made, form, status=2)
    assert (
        "4.3 is not a point of the scale. Give a point of the scale, 1 to 5 in steps of 0.5" in capsys.readouterr().err
    )


def test_what_raters_get(made):
    folder = made / "forms" / "rater-1"
    key = key_of(made / "forms")
    codes = [one["code"] for one in key["training"]]
    assert len(key["forms"][0]["sessions"]) == 10
    assert codes == [one["code"] for one in key["training"]]
    with (folder / "ratings.csv").open() as file:
        assert [row["session"] for row in csv.DictReader(file)][:2] == codes
    reading = (folder / "reading.txt").read_text()
    assert REASON not in reading
    assert "TRAINING SESSION" in reading
    assert "--- Structure ---" in reading
    assert "--- Other domains ---" in reading
    assert "a point (1 to 5 in steps of 0.5)" in reading
    assert "Rate every domain as it is written" in reading
    assert "reversed" not in reading
    answers = (folder / "training-answers.txt").read_text()
    assert f"Goals: 4. {REASON}" in answers
    assert "Tasks for home: cannot be rated" in answers
    for path in folder.iterdir():
        assert not [word for word in ARMS if word in path.read_text()]
    assert "whoever reads the source of the page finds them" in " ".join(
        (made / "forms/README.txt").read_text().split()
    )


def test_a_spreadsheet_has_half_points_too(made, capsys):
    path = made / "forms" / "rater-1" / "ratings.csv"
    rows = list(csv.DictReader(path.open()))
    for row in rows:
        row |= {"rater": "Ann", "goals": "4,5", "warmth": "5", "lecturing": "1.5", "tasks": "n/a"}
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], delimiter=";")
        table.writeheader()
        table.writerows(rows)
    bring(made, path)
    assert "training: 2 sessions" in capsys.readouterr().out
    scores = read_scores_csv(made / "run" / "human_scores.csv")
    assert scores[0].domains == {"goals": 4.5, "warmth": 5, "lecturing": 1.5, "tasks": None}


def test_agreed_scores_come_from_people_who_rated_other_transcripts(tmp_path, capsys):
    """Consensus raters fill in a form as others do; their table and its notes are the training set of the next forms."""
    pilot = sessions_of(patients=["zz-old"], seeds=1)
    for session in pilot:
        session.turns.append(Turn("therapist", "Goodbye."))
    other = run_folder(tmp_path / "pilot", pilot, rubric=str(short_rubric(tmp_path)))
    run = run_folder(tmp_path / "run", sessions_of(seeds=1), rubric=str(tmp_path / "short.yaml"))
    call("rate", "export", other, "--out", tmp_path / "forms", "--raters", 1)
    form = key_of(tmp_path / "forms")["forms"][0]
    sessions = [
        {"code": one["code"], "note": "Well done.", "ratings": {name: {"score": 3, "evidence": [2]} for name in IDS}}
        for one in form["sessions"]
    ]
    (tmp_path / "team.json").write_text(
        json.dumps({"schema": "cbtrain.ratings/1", "form": form["id"], "rater": "agreed", "sessions": sessions})
    )
    bring(tmp_path, tmp_path / "team.json")
    table = other / "human_scores.csv"
    capsys.readouterr()
    words = ("--training", table, "--training-from", other)
    call("rate", "export", run, "--out", tmp_path / "next", *words)
    assert "2 training sessions first in every form" in capsys.readouterr().out
    answers = (tmp_path / "next" / "rater-2" / "training-answers.txt").read_text()
    assert "Goals: 3 (turn 2)" in answers
    assert "Well done." in answers
    assert len(key_of(tmp_path / "next")["forms"][0]["sessions"]) == 6
    call("rate", "export", run, "--out", tmp_path / "no", "--training", table, status=2)
    err = capsys.readouterr().err
    assert "not among the transcripts: session 'zz-old.loratuned.0' and 1 more. Name the transcripts that" in err


BAD = {
    "no number": ({"goals": "high"}, "goals: 'high' is no score. Give a number from 1 to 5, n/a, or nothing."),
    "outside": ({"warmth": "9"}, "warmth: '9' is no score"),
    "column": ({"mood": "3"}, "column 'mood' is no domain of Short"),
    "empty": (dict.fromkeys(IDS, ""), "has no score"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_of_agreed_scores_that_does_not_fit(case, tmp_path, capsys):
    changes, message = BAD[case]
    sessions = sessions_of(seeds=1)
    run = run_folder(tmp_path / "run", sessions, rubric=str(short_rubric(tmp_path)))
    table = agreed_table(tmp_path / "agreed.csv", sessions[:2], **changes)
    call("rate", "export", run, "--out", tmp_path / "forms", "--training", table, status=2)
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "forms").exists()


def test_keys_of_older_versions_are_read(made):
    content = key_of(made / "forms")
    del content["checksum"], content["training"], content["adjudication"]
    for name in ("step", "turned", "weights"):
        del content["rubric"][name]
    for form in content["forms"]:
        for session in form["sessions"]:
            del session["domains"]
    (made / "old.json").write_text(json.dumps(seal(content)))
    key = read_key(made / "old.json")
    assert key.rubric.points == (1, 2, 3, 4, 5)
    assert key.training == []
