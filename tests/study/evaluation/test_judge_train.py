"""``cbtrain judge train``: what it joins, what it refuses, and what it finds in the 2024 study's public simulations."""

import json
from dataclasses import replace

import pytest
from places import SCORES2024, TAHIR2024, needs_scores, needs_tahir2024
from planted_sessions import planted
from scipy.stats import spearmanr
from scored import score_of

from cbtrain.cli.main import main
from cbtrain.errors import UserError
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import read_scores_csv, write_scores_csv
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.trained_rater.rater import load_rater
from cbtrain.study.evaluation.join_scores import join_scores
from cbtrain.study.evaluation.scores import as_transcripts
from cbtrain.transcripts.writing import write_sessions

RUBRIC = "name: two\nminimum: 0\nmaximum: 6\ndomains: [{id: homework}, {id: evidence}]\n"


@pytest.fixture(scope="module")
def scored():
    sessions, scores = planted()
    return sessions, [dict(zip(("homework", "evidence"), map(float, row), strict=True)) for row in scores]


@pytest.fixture
def folder(tmp_path, monkeypatch, scored):
    """Sessions, their scores by one judge, and the rubric."""
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    sessions, scores = scored
    write_sessions(as_transcripts(sessions), [], tmp_path / "sessions.jsonl")
    write_table(tmp_path / "scores.csv", sessions, scores)
    (tmp_path / "two.yaml").write_text(RUBRIC)
    return tmp_path


def write_table(path, sessions, scores, **named):
    write_scores_csv([score_of(*pair, **named) for pair in zip(sessions, scores, strict=True)], path)


def run(capsys, *words):
    status = main(["judge", "train", *map(str, words)])
    out, err = capsys.readouterr()
    return status, out, err


TRAIN = ("sessions.jsonl", "--scores", "scores.csv", "corpus.format=cbtrain", "--rubric", "two.yaml")


def test_a_rater_is_fitted_told_of_and_written(folder, capsys):
    status, out, _ = run(capsys, *TRAIN, "--out", "own.json")
    assert status == 0
    label = "trained rater: imitates j, a machine judge; no clinical judgement"
    assert label in " ".join(out.split())
    rater = load_rater(folder / "own.json")
    assert rater.label == label
    assert rater.content.fitted_to.model_dump() == {
        "kind": "machine", "judges": ["j"], "sessions": 72, "patients": 6, "arms": 3, "languages": ["en"]
    }  # fmt: skip
    rubric = load_rubric("two.yaml")
    assert rater.check(rubric) == []
    total = {row["predictor"]: row for row in rater.content.validation if row["score"] == "total"}
    assert total["patients"]["r"] > 0.85
    assert set(total) == {"patients", "arms", "both", "length", "arm_mean"}
    for words in ("left out 72 0.9", "length alone: ln(turns) 72 0."):
        assert words in " ".join(out.split()), out
    assert not (folder / "own.rubric.yaml").exists()
    before = (folder / "own.json").read_bytes()
    assert run(capsys, *TRAIN, "--out", "own.json")[0] == 0  # another one replaces it, and is the same
    assert (folder / "own.json").read_bytes() == before
    # It rates as one of an evaluation's judges, and by no other instrument.
    judges = "evaluation.judges={mine: {rater: own.json, rubric: %s}}"
    score = ["judge", "score", "sessions.jsonl", "--out", "rated", "corpus.format=cbtrain"]
    assert main([*score, judges % "two.yaml"]) == 0
    assert f"Rated by: {label}" in " ".join(capsys.readouterr().out.split())
    table = read_ratings(folder / "rated" / "scores.csv", rubric)
    assert (table.judges, len(table)) == (["mine"], 72)
    given = {(score.arm, score.patient, score.slot): score.total for score in read_scores_csv(folder / "scores.csv")}
    own = dict(zip(table.sessions, table.total, strict=True))
    assert spearmanr([own[key] for key in given], list(given.values())).statistic > 0.85
    assert main([*score, judges % "alliance"]) == 2
    assert "evaluation.judges.mine: " in capsys.readouterr().err


def test_sessions_are_joined_by_id_and_what_is_not_joined_is_told(folder, capsys, scored):
    sessions, scores = scored
    renamed = [SimulatedSession(each.id, f"arm of {each.arm}", each.patient, each.seed) for each in sessions]
    write_table(folder / "scores.csv", renamed[:-4], scores[:-4])
    status, out, _ = run(capsys, *TRAIN)
    assert status == 0
    assert "note: 4 transcripts have no score (a2 4)" in out
    assert "68 sessions joined by id to a transcript of another arm or patient; those of the scores count" in out
    moved = [SimulatedSession(f"x{number}", each.arm, each.patient, each.seed) for number, each in enumerate(sessions)]
    write_table(
        folder / "scores.csv", [*moved[:70], *(SimulatedSession(f"y{n}", "a9", "p0", n) for n in range(2))], scores
    )
    status, out, _ = run(capsys, *TRAIN)
    assert "note: 2 rated sessions have no transcript (a9 2)" in out
    assert load_rater(folder / "rater.json").content.fitted_to.sessions == 70


def test_the_instrument_beside_the_scores_turns_reversed_items_round(folder, capsys, scored):
    reversed_item = RUBRIC.replace("{id: evidence}", "{id: evidence, reversed: true, weight: 2}")
    (folder / "rubric.yaml").write_text(reversed_item)
    keying = load_rubric("rubric.yaml").keying
    scores = [replace(score_of(*pair), keying=keying) for pair in zip(*scored, strict=True)]
    write_scores_csv(scores, folder / "scores.csv")
    status, _, err = run(capsys, "sessions.jsonl", "--scores", "scores.csv", "--out", "turned.json")
    assert status == 0, err
    assert load_rater(folder / "turned.json").check(load_rubric("rubric.yaml")) == []


def test_of_two_transcripts_of_one_place_none_is_guessed(scored):
    sessions, _ = scored
    copy = SimulatedSession("copy", sessions[0].arm, sessions[0].patient, 0, sessions[0].turns)
    ratings = ratings_of(
        [score_of(*pair) for pair in zip(*scored, strict=True)], ("homework", "evidence"), ["a0"], None
    )
    ids = dict(zip(ratings.sessions, (session.id for session in sessions), strict=True))
    joined, notes = join_scores(ratings, ids, [*sessions, copy])
    assert joined[ratings.sessions[0]] is sessions[0]
    assert "2 transcripts have the same arm, patient and seed as another: they are joined by id only" in notes
    joined, notes = join_scores(ratings, {}, [*sessions, copy])
    assert len(joined) == 71
    assert "1 rated session has no transcript (a0)" in notes


def test_people_and_machines_are_not_mixed(folder, capsys, scored):
    sessions, scores = scored
    write_table(folder / "human_scores.csv", sessions[:60], scores[:60], judge="human: Ann")
    status, _, err = run(capsys, "sessions.jsonl", "--scores", ".", "--rubric", "two.yaml")
    assert (status, err.count("\n")) == (2, 1)
    assert "scores of people and of machines together. Name one of them with --judge (human: Ann, j)" in err
    for words in (("--scores", ".", "--judge", "human: Ann"), ("--scores", "human_scores.csv")):
        status, out, _ = run(capsys, "sessions.jsonl", *words, "--rubric", "two.yaml")
        assert "imitates ratings by one person; not validated, no clinical judgement" in " ".join(out.split())
        assert "Ann" not in out
    assert load_rater(folder / "rater.json").content.fitted_to.kind == "people"
    assert run(capsys, *TRAIN, "--people")[0] == 0
    assert load_rater(folder / "rater.json").content.fitted_to.kind == "people"


def test_judges_who_share_too_few_sessions_are_not_averaged(folder, capsys, scored):
    sessions, scores = scored
    write_table(folder / "other.csv", sessions[:4], scores[:4], judge="k")
    status, _, err = run(capsys, "sessions.jsonl", "--scores", "scores.csv", "other.csv", "--rubric", "two.yaml")
    assert status == 2
    assert "the judges share too few sessions to be averaged. Name one with --judge: j, k." in err
    write_table(folder / "other.csv", sessions, scores, judge="k")
    assert run(capsys, "sessions.jsonl", "--scores", "scores.csv", "other.csv", "--rubric", "two.yaml")[0] == 0
    assert load_rater(folder / "rater.json").label.startswith("trained rater: imitates 2 judges (j, k), machine judges")


@pytest.mark.parametrize(
    ("kept", "problem"),
    [
        (
            lambda each: each.patient in ("p0", "p1", "p2"),
            "36 scored sessions of 3 patients with transcripts are too few",
        ),
        (lambda each: each.seed == 0, "18 scored sessions of 6 patients with transcripts are too few"),
    ],
)
def test_too_few_sessions_or_patients_are_refused(folder, capsys, scored, kept, problem):
    pairs = [(session, score) for session, score in zip(*scored, strict=True) if kept(session)]
    write_table(folder / "scores.csv", *zip(*pairs, strict=True))
    status, _, err = run(capsys, *TRAIN)
    assert (status, err.count("\n")) == (2, 1)
    assert problem in err
    assert "At least 20 sessions of 4 patients" in err
    assert not (folder / "rater.json").exists()


def test_what_cannot_be_used_is_one_line(folder, capsys, scored):
    sessions, scores = scored
    status, _, err = run(capsys, "sessions.jsonl", "--scores", "scores.csv")
    assert "the instrument of the scores is not known. Name the rubric" in err
    foreign = [SimulatedSession(f"x{n}", "other", "p", n) for n in range(len(sessions))]
    write_table(folder / "foreign.csv", foreign, scores)
    status, _, err = run(capsys, "sessions.jsonl", "--scores", "foreign.csv", "--rubric", "two.yaml")
    assert (status, err.count("\n")) == (2, 1)
    assert "no rated session is among the transcripts" in err
    assert "Arms there: a0 24, a1 24, a2 24; in the scores: other." in err
    swapped = [
        SimulatedSession(sessions[n ^ 1].id, each.arm, each.patient, each.seed) for n, each in enumerate(sessions)
    ]
    write_table(folder / "swapped.csv", swapped, scores)
    status, _, err = run(capsys, "sessions.jsonl", "--scores", "swapped.csv", "--rubric", "two.yaml")
    assert "session_id 'p0.a0.1' is that of one transcript, but 0 of p0 with a0 that of 'p0.a0.0'" in err
    status, _, err = run(capsys, "--scores", "scores.csv", "--rubric", "two.yaml")
    assert "judge train: no transcripts named" in err
    (folder / "rater.json").write_text("{}")
    status, _, err = run(capsys, *TRAIN)
    assert "rater.json: exists, and is no trained rater. Name another file with --out." in err
    with pytest.raises(UserError, match="no trained rater"):
        load_rater(folder / "rater.json")
    twice = [SimulatedSession(each.id, f"{each.arm}", each.patient, each.seed) for each in sessions]
    twice[0], twice[1] = (SimulatedSession(twice[1].id, "z", "p0", 9), twice[1])
    twice[1] = SimulatedSession("new", twice[1].arm, twice[1].patient, twice[1].seed)
    write_table(folder / "twice.csv", twice, scores)
    status, _, err = run(capsys, "sessions.jsonl", "--scores", "twice.csv", "--rubric", "two.yaml", "--out", "b.json")
    assert "is joined to two rated sessions" in err


@needs_scores
@needs_tahir2024
@pytest.mark.slow
def test_the_2024_studys_judge_is_imitated_better_than_by_length(tmp_path, capsys, monkeypatch):
    """The figures of docs/judge-train.md."""
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "rater.json"
    status, printed, _ = run(capsys, TAHIR2024 / "CBT_Simulations", "--scores", SCORES2024, "--out", out)
    assert status == 0
    assert "200 rated sessions have no transcript" in printed
    assert "7 transcripts have no score (Mistral_Instruct_Simulation_Nov_2 7)" in printed
    rows = {(row["score"], row["predictor"]): row for row in json.loads(out.read_text())["validation"]}
    total = {name: rows["total", name] for _, name in rows}
    assert {name: row["sessions"] for name, row in total.items()} == {
        **dict.fromkeys(("patients", "arms", "both", "length", "arm_mean"), 393),
        **dict.fromkeys(("cue", "patients_of_cue", "length_of_cue"), 358),
    }
    assert f"{total['length']['r']:.2f}" == "0.41"
    assert total["patients"]["r"] == pytest.approx(0.66, abs=0.02)
    assert total["both"]["r"] == pytest.approx(0.59, abs=0.02)
    assert total["both"]["within_arms"] == pytest.approx(0.36, abs=0.03)
    assert total["cue"]["r"] == pytest.approx(0.53, abs=0.02)
    rubric = load_rubric(str(tmp_path / "rater.rubric.yaml"))
    assert load_rater(out).check(rubric) == []
    assert (len(rubric.domains), rubric.minimum, rubric.maximum) == (11, 1, 10)
