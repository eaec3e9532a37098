"""``cbtrain power`` from a pilot and by hand: what a person reads, the JSON, and bad input."""

import json

import numpy as np
import pytest
from places import SCORES2024, needs_scores

from cbtrain.cli.main import main
from cbtrain.eval.rating.scores import Score, write_scores_csv


def power(capsys, *words):
    status = main(["power", *map(str, words)])
    return status, *capsys.readouterr()


def pilot(path, patients=4, seeds=3, repeats=1, arms=("tuned", "base"), sd=3.0):
    rng = np.random.default_rng(0)
    shape = (len(arms), patients, seeds, repeats)
    totals = rng.normal(20, sd, shape[:3])[..., None] + rng.normal(0, sd / 3, shape)
    scores = [
        Score(
            session_id=f"p{p}.{arms[a]}.{s}",
            arm=arms[a],
            patient=f"p{p}",
            seed=s,
            judge="j",
            repeat=r,
            status="ok",
            domains={"agenda": round(totals[a, p, s, r], 3)},
        )
        for a, p, s, r in np.ndindex(shape)
    ]
    write_scores_csv(scores, path)
    return path


def test_patients_for_an_effect_by_hand(capsys):
    hand = ("--sd-between", 2.5, "--sd-within", 10, "--effect", 8)
    status, out, err = power(capsys, *hand)
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert rows == [["1", "28"], ["2", "16"], ["3", "12"], ["5", "8"], ["10", "6"], ["20", "5"]]
    assert (
        "With 3 sessions per patient and arm, 12 patients are needed to detect a difference of 8 points with 80 % power."
        in joined(out)
    )
    assert "a sign-flip test" not in power(capsys, *hand, "--seeds", 3)[1]
    assert "an exact sign-flip test needs 6 patients to reach p ≤ 0.05" in joined(out)
    found = json.loads(power(capsys, *hand, "--seeds", 3, "--contrasts", 3, "--json")[1])
    assert found["schema"] == "cbtrain.power/1"
    assert found["question"]["alpha_each"] == pytest.approx(0.05 / 3)
    [design] = found["designs"]
    assert design["patients"] == 15
    assert design["power"] >= 0.8
    assert design["detectable"] <= 8


def test_what_so_many_patients_show(capsys):
    hand = ("--sd-between", 2.5, "--sd-within", 9, "--sd-repeat", 4, "--patients", 12, "--seeds", 3)
    once, thrice = (
        json.loads(power(capsys, *hand, "--effect", 5, "--repeats", times, "--json")[1])["designs"][0]
        for times in (1, 3)
    )
    assert (once["patients"], once["repeats"], thrice["repeats"]) == (12, 1, 3)
    assert once["power"] < thrice["power"]
    assert once["detectable"] > thrice["detectable"]
    _, out, _ = power(capsys, *hand)
    assert [line.split()[:2] for line in out.splitlines() if line.strip()[:1] == "3"] == [["3", n] for n in "135"]


def test_a_pilot_with_repeats(capsys, tmp_path):
    table = pilot(tmp_path / "scores.csv", repeats=2)
    status, out, _ = power(capsys, "--pilot", table, "--effect", 3)
    assert status == 0
    assert "tuned − base" in out
    assert "at the upper 80 % limit of the pilot's variance" in joined(out)
    found = json.loads(power(capsys, "--pilot", table, "--effect", 3, "--json")[1])
    assert (found["pilots"][0]["patients"], found["pilots"][0]["pairs"]) == (4, 12)
    assert found["spread"]["repeat"] == pytest.approx(1.0, abs=0.4)
    assert [design["repeats"] for design in found["designs"][:3]] == [1, 3, 5]
    assert all(design["upper"]["patients"] >= design["patients"] for design in found["designs"])


def test_the_contrast_that_varies_most_is_planned_for_unless_one_is_named(capsys, tmp_path):
    table = pilot(tmp_path / "scores.csv", arms=("a1", "a2", "b"), patients=6)
    found = json.loads(power(capsys, "--pilot", table, "--effect", 3, "--json")[1])
    needs = [one["spread"]["between"] ** 2 + 2 * one["spread"]["within"] ** 2 / 3 for one in found["pilots"]]
    assert needs == sorted(needs, reverse=True)
    assert len(needs) == 3
    named = json.loads(power(capsys, "--pilot", table, "--effect", 3, "--contrast", "A2 - b", "--json")[1])
    assert [one["contrast"] for one in named["pilots"]] == ["a2 − b"]


@needs_scores
def test_the_authors_scores(capsys):
    status, out, _ = power(capsys, "--pilot", SCORES2024, "--effect", 8)
    assert status == 0
    assert "Planned for the one that varies most: Mistral: tuned − instruct" in joined(out)
    assert (
        "With 3 sessions per patient and arm, 17 patients are needed to detect a difference of 8 points with 80 % power"
        in joined(out)
    )
    assert "no session was rated twice by one judge" in joined(out)
    assert max(map(len, out.splitlines())) <= 80


def test_what_nobody_reaches_is_said(capsys):
    hand = ("--sd-between", 10, "--sd-within", 10, "--effect", 0.01)
    assert "over 10,000" in power(capsys, *hand)[1]
    found = json.loads(power(capsys, *hand, "--json")[1])
    assert {design["patients"] for design in found["designs"]} == {None}
    assert found["conclusion"].startswith("None of these designs can detect")


HAND = ["--sd-between", "2", "--sd-within", "9"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "nothing to plan for"),
        (["--effect", "8"], "--sd-between: how scores vary is not known"),
        (["--effect", "8", "--sd-between", "1"], "--sd-within: how scores vary is not known"),
        ([*HAND, "--effect", "-1"], "--effect: -1 cannot be planned with"),
        ([*HAND, "--effect", "nan"], "--effect: nan cannot be planned with"),
        ([*HAND, "--effect", "8", "--sd-repeat", "-1"], "--sd-repeat: -1 cannot be planned with"),
        (["--effect", "8", "--sd-between", "0", "--sd-within", "0"], "nothing varies"),
        ([*HAND, "--effect", "8", "--alpha", "1"], "--alpha: 1 is not a level"),
        ([*HAND, "--effect", "8", "--alpha", "0.05", "--contrasts", "999"], "--alpha: 5.00501e-05 for each contrast"),
        ([*HAND, "--effect", "8", "--power", "1"], "--power: 1 cannot be planned for"),
        ([*HAND, "--patients", "1"], "--patients: 1 is too few"),
        ([*HAND, "--patients", "10001"], "--patients: 10001 is too many"),
        ([*HAND, "--effect", "8", "--seeds", "0"], "--seeds: 0 is too few"),
        ([*HAND, "--effect", "8", "--repeats", "3"], "--repeats: how repeated ratings vary is not known"),
        ([*HAND, "--effect", "8", "--contrast", "a"], "--contrast: there is no pilot"),
        (["--pilot", "good.csv", "--effect", "8", *HAND], "--sd-between: the pilot gives this SD"),
        (["--pilot", "none.csv", "--effect", "8"], "none.csv: no such file"),
        (["--pilot", "good.csv", "--effect", "8", "--contrast", "x"], "--contrast: no contrast 'x' here"),
        (["--pilot", "one.csv", "--effect", "8"], "one.csv: tuned − base: one patient only"),
        (["--pilot", "seed.csv", "--effect", "8"], "no patient has two rated sessions in both arms"),
        (["--pilot", "arm.csv", "--effect", "8"], "arm.csv: one arm only"),
        (["--pilot", "same.csv", "--effect", "8"], "nothing varies"),
    ],
)
def test_bad_input_is_one_line(words, problem, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pilot(tmp_path / "good.csv")
    pilot(tmp_path / "one.csv", patients=1)
    pilot(tmp_path / "seed.csv", seeds=1)
    pilot(tmp_path / "arm.csv", arms=("tuned",))
    pilot(tmp_path / "same.csv", sd=0.0)
    status, out, err = power(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert problem in err


def joined(text):
    return " ".join(text.split())
