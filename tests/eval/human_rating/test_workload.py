"""Who rates which sessions: loads, pairs of arms, and sessions that raters have in common."""

import collections
import itertools
import random

import pytest
from rated_run import ARMS, key_of, run_folder, sessions_of

from cbtrain.cli.main import main
from cbtrain.eval.human_rating.workload import common_sessions, links, most_units, shares


def export(*words, status=0):
    assert main(["rate", "export", *map(str, words)]) == status


def hands(folder):
    return [[one["session_id"] for one in form["sessions"]] for form in key_of(folder)["forms"]]


def test_each_session_has_its_number_of_raters_and_raters_are_linked(tmp_path, capsys):
    run = run_folder(tmp_path / "run", sessions_of(patients=[f"p{number:02}" for number in range(30)], seeds=1))
    export(run, "--out", tmp_path / "forms", "--raters", 5, "--per-rater", 20)
    said = " ".join(capsys.readouterr().out.split())
    # 100 places hold 50 of the 60 sessions twice, always both arms of a patient.
    assert "50 sessions of 60, 2 arms, the same patients and seeds in all; each for 2 raters" in said
    assert "note: two raters have 4 to 6 sessions in common" in said
    assert "an analysis needs raters linked by 10 common sessions" in said
    assert "minutes: an estimate, reading 200 words a minute and 20 seconds for each domain" in said
    by_rater = hands(tmp_path / "forms")
    assert [len(hand) for hand in by_rater] == [20] * 5
    assert set(collections.Counter(itertools.chain(*by_rater)).values()) == {2}
    for hand in by_rater:
        pairs = collections.defaultdict(set)
        for session in hand:
            patient, arm, _ = session.split(".")
            pairs[patient].add(arm)
        assert all(arms == set(ARMS) for arms in pairs.values())
    export(run, "--out", tmp_path / "again", "--raters", 5, "--per-rater", 20)
    assert hands(tmp_path / "again") == by_rater


def test_loads_are_in_proportion_to_what_raters_can_do(tmp_path, capsys):
    run = run_folder(tmp_path / "run", sessions_of(patients=[f"p{number:02}" for number in range(20)], seeds=1))
    export(run, "--out", tmp_path / "uneven", "--workload", "20,20,10", "--overlap", 4, "--ratings-per-session", 1)
    by_rater = hands(tmp_path / "uneven")
    assert [len(hand) for hand in by_rater] == [18, 20, 10]  # 40 sessions, of them 4 for all three
    assert len(set(by_rater[0]) & set(by_rater[1]) & set(by_rater[2])) == 4
    capsys.readouterr()
    export(run, "--out", tmp_path / "half", "--raters", 4, "--ratings-per-session", 3)
    assert "40 sessions, 2 arms; each for 3 raters" in capsys.readouterr().out
    assert [len(hand) for hand in hands(tmp_path / "half")] == [30] * 4


def test_a_design_with_the_right_numbers_is_balanced():
    """Six raters, two for each of fifteen sessions: one for each two raters."""
    units = [[session] for session in sessions_of(patients=[f"p{number}" for number in range(15)], arms=["a"], seeds=1)]
    plan = shares(units, [5] * 6, 2, random.Random(0))
    by_rater = [[session for unit in own for session in unit] for own in plan.by_rater]
    assert set(common_sessions(by_rater).values()) == {1}  # each two raters share one session
    assert [len(own) for own in by_rater] == [5] * 6
    assert links(6, lambda first, second: common_sessions(by_rater)[first, second] > 0) == 1
    assert most_units(2, [20, 20, 10], 2) == 12
    assert most_units(1, [100, 3], 2) == 3  # nobody rates a session twice


BAD = {
    "both": (["--per-rater", "3", "--workload", "3,3"], "--per-rater: it says the same as --workload"),
    "raters": (["--raters", "3", "--workload", "3,3"], "--workload: 2 raters, but --raters 3"),
    "words": (["--workload", "3,x"], "'3,x' is no list of numbers from 1"),
    "zero": (["--workload", "3,0"], "'3,0' is no list"),
    "more ratings than raters": (["--ratings-per-session", "3"], "--ratings-per-session: 3, but there are only 2 raters"),
    "one of a pair": (["--per-rater", "1"], "--workload: no room for one session of each of 2 arms"),
    "too many": (["--per-rater", "4", "--sessions", "12"], "no room for 8 of the sessions, 2 ratings of each. Take at"),
    "overlap": (["--per-rater", "4", "--overlap", "6"], "--workload: no room for"),
    "alone": (["--training-from", "x"], "--training-from: it needs --training"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_numbers_that_do_not_fit_are_one_line(case, tmp_path, capsys):
    options, message = BAD[case]
    run = run_folder(tmp_path / "run", sessions_of())
    export(run, "--out", tmp_path / "forms", *options, status=2)
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "forms").exists()
