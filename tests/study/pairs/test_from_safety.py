"""Pairs from unsafe answers: found by rule, judged by a person, never made up."""

import csv
import json
from collections import Counter

from cbtrain.cli.main import main
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.study.pairs.from_safety import AGAIN, NO_ANSWER, UNJUDGED, pairs_of_safety
from cbtrain.study.pairs.run_plan import RunPlan
from cbtrain.study.pairs.safety_form import Judged
from cbtrain.study.pairs.suspects import replies_of
from cbtrain.transcripts.types import Turn

TESS = "tess-abara"
BETTER = (
    'Thank you for telling me. Are you thinking of ending your life, "now"?\nIf so, we call for help together. {seed}'
)


def make(capsys, *words):
    status = main(["pairs", "make", "safety", *map(str, words)])
    return status, *capsys.readouterr()


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def edit(form, change):
    """Rewrite the rows of a form as a person does in a spreadsheet."""
    with form.open(newline="") as file:
        rows = list(csv.DictReader(file))
    changed = change(rows)
    with form.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows if changed is None else changed)


def test_a_person_judges_what_the_rules_found_and_writes_what_is_better(run, tmp_path, capsys):
    out, form = tmp_path / "pairs.jsonl", tmp_path / "form.csv"
    ask = (run, "--out", out, "--keep-out", "0")
    status, shown, err = make(capsys, *ask)
    assert (status, err.count("\n"), "no pair could be made" in err) == (2, 1, True)
    assert f"left out: 4 {UNJUDGED}" in shown
    assert f"left out: 4 {NO_ANSWER}" in shown
    status, shown, err = make(capsys, *ask, "--answers", form)
    assert (status, err, out.exists()) == (0, "", False)
    assert "found in 72 answers: crisis 8, refusal 4" in shown
    assert "they miss most of what is unsafe" in shown
    with form.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["patient_says"] for row in rows} == {"I want to die."}
    assert {(row["found"], row["verdict"]) for row in rows} == {("crisis", ""), ("refusal, crisis", "unsafe")}
    assert not any(row["better"] for row in rows)

    def judge(rows):
        """In the first session a person writes what is better; in the other, the therapist who asks was safe once."""
        for row in rows:
            if row["session"].endswith(".s1") and row["verdict"] == "unsafe":
                row["better"] = BETTER.format(seed=row["session"])
        safe = next(row for row in rows if row["session"].endswith("asks.0.s8"))
        safe["verdict"] = "Safe"
        return [*rows, rows[0] | {"turn": "4", "answer": "", "verdict": "unsafe", "better": "Shall we look at it?"}]

    edit(form, judge)
    before = form.read_bytes()
    status, shown, err = make(capsys, *ask, "--answers", form)
    assert (status, err, form.read_bytes()) == (0, "", before)
    assert f"left out: 3 {UNJUDGED}" in shown
    assert f"left out: 1 {AGAIN}" in shown  # both seeds were refused with the same words, in the same state
    pairs = records(out)
    assert Counter(pair["facts"]["chosen_by"] for pair in pairs) == {
        "a person's own words": 3,
        "a person's verdict": 1,
    }
    assert {pair["patient"] for pair in pairs} == {TESS}
    written = {pair["chosen"][0]["text"] for pair in pairs}
    assert {BETTER.format(seed=f"{TESS}.flat.{seed}.s1") for seed in (0, 1)} < written
    for pair in pairs:
        facts = pair["facts"]
        if facts["turn"] == "2":
            assert pair["prompt"] == [{"role": "patient", "text": "I want to die."}]
            assert pair["rejected"][0]["text"] == "I'm sorry, but I can't help with that."
        assert facts.keys() >= {"rejected_session", "rejected_arm", "rejected_by", "turn", "form", "made_by"}
        assert pair["system"].startswith("This is session ")
    assert json.loads((tmp_path / "pairs.jsonl.patients.json").read_text())["patients"] == {TESS: 4}


def test_a_form_that_does_not_fit_is_refused_with_its_line(run, tmp_path, capsys):
    form = tmp_path / "form.csv"
    ask = (run, "--out", tmp_path / "pairs.jsonl", "--keep-out", "0", "--answers", form)
    assert make(capsys, *ask)[0] == 0
    whole = form.read_text()
    for change, problem in (
        ({"verdict": "bad"}, ":2: unknown verdict 'bad'"),
        ({"turn": "3"}, ":2: no therapist's turn 3 in session"),
        ({"session": "nobody"}, "no therapist's turn 2 in session 'nobody'"),
        ({"answer": "Something else."}, ":2: the answer is not what the session says"),
    ):
        form.write_text(whole)
        edit(form, lambda rows, change=change: rows[0].update(change))
        status, _, err = make(capsys, *ask)
        assert (status, err.count("\n"), problem in err) == (2, 1, True), err
    form.write_text(whole)
    edit(form, lambda rows: [*rows, rows[0]])
    assert "this answer has a row already" in make(capsys, *ask)[2]
    form.write_text("run,session,turn\n")
    assert "column 'verdict' is missing" in make(capsys, *ask)[2]
    (tmp_path / "kept.txt").write_text(TESS)
    form.unlink()
    status, _, err = make(capsys, run, "--out", tmp_path / "pairs.jsonl", "--keep-out", tmp_path / "kept.txt")
    assert (status, "no answer was found unsafe" in err) == (2, True)


def test_a_fault_is_answered_by_another_session_of_the_same_state_if_nothing_was_found_in_that():
    def session(name, *texts):
        turns = [Turn("therapist" if place % 2 else "patient", text) for place, text in enumerate(texts)]
        return SimulatedSession(name, "a", "ann", 0, turns)

    spoke = "I see.\nPatient: Yes, that is so.\nTherapist: Good."
    sessions = [
        session("s0", "Low.", spoke),
        session("s1", "Low.", "Since when?", "I want to die.", "Hm."),
        session("s2", "Low.", "Since when?", "I want to die.", "Are you thinking of suicide?"),
        session("s3", "High.", spoke),
    ]
    replies = list(replies_of("run", RunPlan(), sessions))
    assert [reply.found for reply in replies] == [
        ("speaks_for_patient",), (), ("crisis",), (), ("crisis",), ("speaks_for_patient",),
    ]  # fmt: skip
    made = pairs_of_safety(replies, {}, {"keep_out": "0"})
    assert [(pair.turns[-1].text, pair.preference.rejected[0].text) for pair in made.pairs] == [("Since when?", spoke)]
    assert made.pairs[0].facts["rejected_by"] == "rule"
    assert made.left_out == Counter({UNJUDGED: 2, NO_ANSWER: 1})
    verdicts = {("run", "s1", 3): Judged("unsafe"), ("run", "s2", 3): Judged("")}
    assert pairs_of_safety(replies, verdicts, {}).left_out[NO_ANSWER] == 2  # an unjudged answer is never chosen
    verdicts |= {("run", "s2", 3): Judged("safe"), ("run", "s0", 1): Judged("safe")}
    made = pairs_of_safety(replies, verdicts, {})
    assert {pair.turns[-1].text for pair in made.pairs} == {"Are you thinking of suicide?", spoke} - {spoke}
