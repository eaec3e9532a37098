"""Pairs from a scored evaluation: the same dialogue state, the better session's answer, no held-out patient."""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import yaml

from cbtrain.cli.main import main
from cbtrain.eval.rating.scores import read_scores_csv, write_scores_csv
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.pairs.forks import answer_at, fork_of
from cbtrain.study.pairs.from_evaluation import (
    AGAIN,
    ALONE,
    CLOSE,
    FAILED,
    OPPOSED,
    UNMATCHED,
    UNRATED,
    Wanted,
    pairs_of_evaluation,
)
from cbtrain.study.pairs.held_out import KeepOut
from cbtrain.study.pairs.rated import RatedRuns, RatedSession
from cbtrain.study.pairs.run_plan import RunPlan
from cbtrain.transcripts.types import Turn

GERALD, LUCIA, TESS = "gerald-ashworth", "lucia-barros", "tess-abara"


def talk(*texts, first="patient"):
    roles = ("patient", "therapist") if first == "patient" else ("therapist", "patient")
    return [Turn(roles[place % 2], text) for place, text in enumerate(texts)]


def make(capsys, *words):
    status = main(["pairs", "make", "evaluation", *map(str, words)])
    return status, *capsys.readouterr()


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_sessions_share_their_turns_until_a_therapist_says_something_else():
    start = talk("Low.", "Since when?", "May.")
    assert fork_of([*start, *talk("A?", first="therapist")], [*start, *talk(" B?", first="therapist")]) == 3
    assert fork_of([*start, *talk("A?", first="therapist")], [*start, *talk("A? ", first="therapist")]) is None
    assert fork_of(start, talk("Low.", "Since when?", "June.", "I see.")) is None  # the patient differs first
    assert fork_of(start, start[:2]) is None  # one is the other's beginning
    assert fork_of(talk("Hello.", first="therapist"), talk("Welcome.", first="therapist")) == 0
    turns = talk("a", "b", "c", "d", "e")
    assert [turn.text for turn in answer_at(turns, 1, 1)] == ["b"]
    assert [turn.text for turn in answer_at(turns, 1, 2)] == [turn.text for turn in answer_at(turns, 1, 9)]
    assert [turn.text for turn in answer_at(turns, 1, 9)] == ["b", "c", "d"]  # ends with the therapist


def test_pairs_of_a_real_evaluation_are_ranked_by_its_scores_and_say_where_they_come_from(run, tmp_path, capsys):
    (tmp_path / "kept.txt").write_text(f"{GERALD}\nsomebody-else\n")
    out = tmp_path / "pairs.jsonl"
    status, shown, err = make(capsys, run, "--out", out, "--keep-out", tmp_path / "kept.txt")
    assert (status, err) == (0, "")
    pairs, beside = records(out), json.loads((tmp_path / "pairs.jsonl.patients.json").read_text())
    assert Counter(pair["patient"] for pair in pairs) == beside["patients"] == {LUCIA: 4, TESS: 4}
    assert beside["kept_for_the_final_test"] == [GERALD]
    assert "at least 6.6 points of the total apart (a tenth of the range)" in shown
    assert f"1 patient kept for the final test: {GERALD}" in shown
    assert "names 1 patient who are not here" in shown
    assert "credited to the one answer" in shown
    assert "train with tokens.system=data" in shown
    with (run / "scores.csv").open() as file:
        totals = {row["session_id"]: float(row["total"]) for row in csv.DictReader(file)}
    said = {}
    for line in records(run / "sessions.jsonl"):
        said[line["facts"]["id"]] = line
    assert len({pair["id"] for pair in pairs}) == 8
    for pair in pairs:
        facts = pair["facts"]
        chosen, rejected = said[facts["chosen_session"]], said[facts["rejected_session"]]
        assert (facts["chosen_arm"], facts["rejected_arm"]) == ("asks", "flat")
        assert pair["prompt"] == chosen["turns"][:1] == rejected["turns"][:1]
        assert (pair["chosen"], pair["rejected"]) == (chosen["turns"][1:2], rejected["turns"][1:2])
        scores = totals[facts["chosen_session"]], totals[facts["rejected_session"]]
        assert (float(facts["chosen_score"]), float(facts["rejected_score"])) == scores
        assert float(facts["margin"]) == scores[0] - scores[1] >= 6.6
        assert (facts["judges"], facts["chosen_run"], facts["turn"]) == ("cue", "tried", "2")
        assert (facts["rejected_model"], facts["score_is_of"]) == ("flat", "the whole session")
        assert "temperature 0.8" in facts["rejected_sampling"]
        assert facts["made_by"].startswith("cbtrain ")
        summary = chosen["facts"].get("begins_with", "")
        assert pair["system"].startswith(f"This is session {chosen['session']} with this patient")
        assert pair["system"].endswith(summary or "phase of treatment.")
    longer = tmp_path / "longer.jsonl"
    assert make(capsys, run, "--out", longer, "--keep-out", "0", "--turns", "3", "--margin", "0")[0] == 0
    assert {len(pair["chosen"]) for pair in records(longer)} == {5}
    status, shown, err = make(capsys, run, "--out", tmp_path / "none.jsonl", "--keep-out", "0", "--margin", "60")
    assert status == 2
    assert "left out: 12 pairs of sessions differ by less than the margin" in shown
    assert err.count("\n") == 1
    assert not (tmp_path / "none.jsonl.patients.json").exists()


def test_people_can_rank_otherwise_than_judges(run, tmp_path, capsys):
    rated = shutil.copytree(run, tmp_path / "rated")
    scores = read_scores_csv(rated / "scores.csv")
    assert {score.judge for score in scores} == {"cue"}
    turned = [
        replace(score, judge="human: ann", domains={name: 6 - points for name, points in score.domains.items()})
        for score in scores
    ]
    write_scores_csv(turned, rated / "human_scores.csv")
    for option, chosen in (("--people", "flat"), ("--judge=cue", "asks")):
        out = tmp_path / f"{chosen}.jsonl"
        assert make(capsys, rated, "--out", out, "--keep-out", "0", option)[0] == 0
        assert {pair["facts"]["chosen_arm"] for pair in records(out)} == {chosen}
    status, _, err = make(capsys, run, "--out", tmp_path / "no.jsonl", "--keep-out", "0", "--people")
    assert (status, "nobody has rated its sessions" in err) == (2, True)


def test_held_out_patients_never_enter(run, tmp_path, capsys):
    trained = shutil.copytree(run, tmp_path / "trained")
    split = {"train": ["x"], "validation": [LUCIA], "test": [TESS]}
    (trained / "study.json").write_text(json.dumps({"corpus": {"split": split}}))
    out = tmp_path / "pairs.jsonl"
    status, shown, _ = make(capsys, trained, "--out", out, "--keep-out", "0")
    assert status == 0
    assert {pair["patient"] for pair in records(out)} == {GERALD}
    assert f"2 patients refused, held out by the split of trained: {LUCIA}, {TESS}" in shown
    behind = shutil.copytree(run, tmp_path / "behind")
    plan = yaml.safe_load((behind / "plan.yaml").read_text())
    plan["therapists"]["asks"]["adapter folder"] = str(trained / "therapist")
    (behind / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert make(capsys, behind, "--out", tmp_path / "of-adapter.jsonl", "--keep-out", "0")[0] == 0
    assert {pair["patient"] for pair in records(tmp_path / "of-adapter.jsonl")} == {GERALD}
    split["test"] = [TESS, GERALD]
    (trained / "study.json").write_text(json.dumps({"corpus": {"split": split}}))
    refused = tmp_path / "refused.jsonl"
    for words, problem in (
        ((trained, "--keep-out", "0"), "all 3 patients are held out of training by the split"),
        ((run,), "who of 3 patients is kept for the final test?"),
        ((run, "--keep-out", "1"), "1 is not a share"),
        ((run, "--keep-out", "nofile"), "neither a share nor a file"),
        ((run, "--keep-out", trained), "keeps all"),
        ((run, run, "--keep-out", "0"), "two runs are called 'tried'"),
        ((tmp_path, "--keep-out", "0"), "no scores.csv in it"),
        ((run, "--keep-out", "0", "--turns", "0"), "0 turns"),
        ((run, "--keep-out", "0", "--margin", "-1"), "-1 is no difference of scores"),
    ):
        if problem == "keeps all":
            split["validation"] = [LUCIA]
        status, _, err = make(capsys, *words, "--out", refused)
        assert (status, err.count("\n"), problem in err) == (2, 1, True), err
        assert not refused.exists()
    status, _, err = make(capsys, run, "--out", out, "--keep-out", "0")
    assert (status, "already exists" in err) == (2, True)


def test_a_share_of_patients_is_kept_for_good_and_never_all_or_nobody():
    everybody = [f"p{number:03}" for number in range(400)]
    half = KeepOut("0.5", 0.5, seed=3)
    kept = set(half.among(everybody))
    assert 150 < len(kept) < 250
    assert set(half.among(everybody[:200])) == kept & set(everybody[:200])  # who is added moves no other
    assert kept != set(KeepOut("0.5", 0.5, seed=4).among(everybody))
    for few in (everybody[:2], everybody[5:8]):
        assert len(KeepOut("0.001", 0.001).among(few)) == 1
        assert len(KeepOut("0.999", 0.999).among(few)) == len(few) - 1
    assert KeepOut("0").among(everybody) == []


def rated_session(name, arm, seed, score, *texts, patient="ann", **more):
    session = SimulatedSession(name, arm, patient, seed, talk(*texts))
    session.ending = more.get("ending", "max_turns")
    return RatedSession("run", session, RunPlan(), score)


def test_seeds_are_compared_within_an_arm_and_contradictions_are_left_out():
    sessions = [
        rated_session("a0", "a", 0, 30.0, "Low.", "Why?", "Work."),
        rated_session("a1", "a", 1, 20.0, "Low.", "I see.", "Yes."),
        rated_session("a2", "a", 2, 30.5, "Low.", "Why?", "Home."),
        rated_session("a3", "a", 3, None, "Low.", "Hm."),
        rated_session("a4", "a", 4, 1.0, "Low.", ending="budget"),
        rated_session("b0", "b", 0, 10.0, "Low.", "Why?", "Work.", "Go on."),
        rated_session("b1", "b", 1, 40.0, "High.", "Why?"),
        rated_session("c0", "a", 0, 10.0, "Low.", "Why?", patient="bob"),
        rated_session("c1", "a", 1, 90.0, "Low.", "Hm.", patient="bob"),
    ]
    rated = RatedRuns(sessions, "scale", ("judge",), 100.0)
    made = pairs_of_evaluation(rated, ["ann"], Wanted("seed", margin=5.0), {"x": "y"})
    assert [(pair.id, pair.turns[-1].text, pair.preference.rejected[0].text) for pair in made.pairs] == [
        ("a0-over-a1/1", "Why?", "I see.")
    ]
    assert made.left_out == Counter({FAILED: 1, UNRATED: 1, ALONE: 2, AGAIN: 1})
    assert made.pairs[0].facts["x"] == "y"
    both = pairs_of_evaluation(rated, ["ann", "bob"], Wanted("seed", margin=15.0), {})
    assert [pair.patient for pair in both.pairs] == ["bob"]
    assert both.left_out[CLOSE] == 2
    mirrored = [*sessions[:2], rated_session("a5", "a", 5, 5.0, "Low.", "Why?")]
    made = pairs_of_evaluation(RatedRuns(mirrored, "scale", ("judge",), 100.0), ["ann"], Wanted("seed"), {})
    assert (made.pairs, made.left_out[OPPOSED]) == ([], 2)
    by_arm = pairs_of_evaluation(rated, ["ann"], Wanted("arm"), {})
    assert (by_arm.pairs, by_arm.left_out[ALONE], by_arm.left_out[UNMATCHED]) == ([], 2, 1)


@pytest.mark.parametrize("words", ["--by moon", "--judge a --people", ""])
def test_a_wrong_command_is_one_line(words, tmp_path, capsys):
    status, _, err = make(capsys, tmp_path, *words.split())
    assert (status, err.count("\n")) == (2, 1)
