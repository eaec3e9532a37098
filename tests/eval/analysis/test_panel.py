"""Whose ratings decide: what a sample by people may not change, and what judges of different coverage cannot give."""

import json

import numpy as np
import pytest
from rating_table import rating_table

from cbtrain.eval.analysis.agreement.panel import panel_of, panel_ratings
from cbtrain.eval.analysis.agreement.severity import connected
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.ratings import Scale
from cbtrain.eval.analysis.sessions import SessionOutcome

ARMS = {"t": Arm("t", "", "tuned"), "b": Arm("b", "", "base")}


def rated(judges, patients=8, sessions=4):
    """``judges``: name → function of (arm, patient, session, generator) to a total from 0 to 60, or None."""
    draw = np.random.default_rng(0)
    rows = []
    for arm in ARMS:
        for patient in range(patients):
            for session in range(sessions):
                for judge, rate in judges.items():
                    total = rate(arm, patient, session, draw)
                    if total is not None:
                        rows.append((arm, f"p{patient}", session, judge, 0, total))
    *columns, totals = zip(*rows, strict=True)
    items = np.stack([np.array(totals) / 2] * 2, axis=1)
    return rating_table(("one", "two"), ARMS, *map(np.array, columns), items, Scale(0, 30, 40))


def level(arm, patient, session, draw=None):
    return 30.0 + patient + 2 * session + 8 * (arm == "t") + (patient % 3) * (arm == "t")


def sample(rate, shift=0.0):
    """Rates the first session of each patient only."""
    return lambda arm, patient, session, draw: rate(arm, patient, session) + shift if session == 0 else None


def test_a_sample_by_people_changes_no_figure():
    alone = analysis(rated({"machine": level}), "default", draws=200)
    ratings = rated({"machine": level, "human": sample(level, shift=-12.0)})
    found = analysis(ratings, "default", draws=200)
    assert found["panel"] == {
        "judges": ["machine"],
        "beside": ["human"],
        "pooled": False,
        "linked": True,
        "rotating": False,
    }
    for part in ("groups", "contrasts", "mixed_models", "levels", "bounds", "completion", "items"):
        assert found[part] == alone[part], part
    assert found["notes"] == ["rated by machine; for comparison: human"]
    assert found["agreement"]["severity"]["machine"] == pytest.approx(6.0)
    # The two agree on every session that both rated, but for severity: no difference in what they conclude.
    (difference,) = found["agreement"]["judge_by_arm"]
    assert difference["estimate"] == pytest.approx(0.0)
    assert len(difference["patients"]) == 8


def test_a_panel_counts_the_sessions_that_all_of_it_rated():
    def other(arm, patient, session, draw):
        return None if (arm, patient, session) == ("b", 0, 0) else level(arm, patient, session) + 4

    ratings = rated({"one": level, "other": other})
    panel = panel_of(ratings)
    assert (panel.judges, panel.secondary, panel.pooled) == (["one", "other"], [], False)
    found = analysis(ratings, "default", draws=200)
    base = found["groups"][0]
    # That one judge did not rate it is no outcome of the arm.
    assert (base["n"], found["completion"]["arms"][0]["unrated"]) == (31, 0)
    assert found["notes"] == [
        "sessions left out because not all of the panel rated them: 1 (no total by other: 1 of b)"
    ]
    whole = [level("b", p, s) + 2 for p in range(8) for s in range(4) if (p, s) != (0, 0)]
    assert base["mean"] == pytest.approx(np.mean(whole))
    bound = found["bounds"][0]
    assert bound["missing"] == 1
    assert bound["worst_low"] < bound["estimate"] < bound["worst_high"]
    # The one judge's score of that session is known: the other's, half of the mean, moves from 0 to 60.
    assert bound["worst_high"] - bound["worst_low"] == pytest.approx(60 / 2 / 4 / 8)
    kept = panel_ratings(ratings, panel_of(ratings, ["one"]))
    assert set(kept.judge) == {"one"}
    assert np.isfinite(kept.total).all()


def test_where_nobody_rated_all_pairs_are_within_judges_and_the_rest_is_told():
    """Two people share the patients between them; one is ten points more severe."""

    def half(parity, shift):
        return lambda arm, patient, session, draw: (
            level(arm, patient, session) + shift if patient % 2 == parity or session == 0 else None
        )

    found = analysis(rated({"ann": half(0, 0.0), "bo": half(1, -10.0)}), "default", draws=200)
    assert found["panel"]["pooled"] is True
    assert found["notes"] == [
        "ann, bo are pooled, since none of them rated nearly all sessions: contrasts pair sessions rated by the same "
        "judge; each judge's severity, estimated from sessions that several judges rated, is subtracted from the scores "
        "of sessions, and intervals treat it as known"
    ]
    gain = np.mean([8 + patient % 3 for patient in range(8)])
    assert found["contrasts"][0]["estimate"] == pytest.approx(gain)
    assert found["mixed_models"][0]["estimate"] == pytest.approx(gain, abs=1e-6)
    assert found["bounds"][0]["worst_low"] is None
    json.dumps(found, allow_nan=False)


def test_a_planned_judge_that_rated_too_little_is_said_to_be_out():
    ratings = rated({"machine": level, "refusing": sample(level)})
    found = analysis(ratings, "default", primary_judges=["machine", "refusing"], draws=20)
    assert found["panel"]["judges"] == ["machine"]
    out = "not in the panel, though planned: refusing rated 16 of 64 sessions (90% of the rated sessions are needed)"
    assert out in found["notes"]
    assert not any("not in the panel" in note for note in analysis(ratings, "default", draws=20)["notes"])


def test_people_never_join_machine_judges_that_rated_half_each():
    def half(parity, shift=0.0):
        return lambda arm, patient, session, draw: (
            level(arm, patient, session) + shift if patient % 2 == parity or session == 0 else None
        )

    machines = {"one": half(0), "two": half(1, -10.0)}
    alone = analysis(rated(machines), "default", draws=200)
    ratings = rated(machines | {"human": sample(level, shift=-20.0)})
    found = analysis(ratings, "default", primary_judges=["one", "two"], draws=200)
    assert found["panel"] == {
        "judges": ["one", "two"],
        "beside": ["human"],
        "pooled": True,
        "linked": True,
        "rotating": False,
    }
    for part in ("groups", "contrasts", "mixed_models", "levels", "bounds", "completion", "items"):
        assert found[part] == alone[part], part


def test_without_any_rating_nobody_is_pooled():
    found = analysis(rated({"one": level}).only(np.zeros(64, dtype=bool)), "default", primary_judges=["one"], draws=200)
    assert (found["panel"]["pooled"], found["notes"]) == (False, [])


def test_a_judge_without_any_score_does_not_part_the_others():
    ratings = rated({"one": level, "two": sample(level), "silent": lambda *_: float("nan")})
    assert connected(ratings)


def test_a_total_at_the_cut_off_is_competent_however_severities_round():
    """Each judge's severity is a third; the mean of the two is the cut-off itself."""
    ratings = rated({"mild": lambda arm, *_: 40 + 1 / 3, "severe": lambda arm, *_: 40 - 1 / 3}, patients=6)
    some = ratings.only((ratings.judge == "mild") | (ratings.session != 3))
    for table in (ratings, some):
        assert [one["share"] for one in analysis(table, "default", draws=200)["levels"]] == [1.0, 1.0]


def test_a_few_common_sessions_do_not_link_judges():
    """One judge for each arm, and nine sessions that both rated: too few to take a severity for known."""

    def one_arm(arm, common):
        return lambda own, patient, session, draw: (
            level(own, patient, session) if own == arm or patient * 4 + session < common else None
        )

    for common, linked in ((9, False), (10, True)):
        found = analysis(rated({"one": one_arm("t", common), "two": one_arm("b", 0)}), "default", draws=200)
        assert found["panel"]["linked"] is linked
        assert (found["groups"][0]["mean"] is not None) is linked
        assert (found["mixed_models"][0]["estimate"] is not None) is linked


def test_sessions_of_unknown_length_still_tell_severity():
    """What both rated has no transcript: the severity that it tells holds for the sessions that have one."""

    def one_arm(arm):
        return lambda own, patient, session, draw: (
            level(own, patient, session) - 5 * (arm == "b") if own == arm or session == 0 else None
        )

    ratings = rated({"one": one_arm("t"), "two": one_arm("b")})
    facts = {
        (arm, patient, session): SessionOutcome(10 + 4 * session, 100, "patient_end", False)
        for arm, patient, session in ratings.sessions
        if session > 0
    }
    found = analysis(ratings, "default", facts, draws=200)
    assert found["panel"]["linked"]
    assert found["length"]["spearman"]["n"] == 8 * 3 * 2
    # The tuned arm is 8 better, and up to 2 by patient; its judge is 5 milder, which is no part of it.
    gain = np.mean([8 + patient % 3 for patient in range(8)])
    for check in ("adjusted", "matched"):
        (own,) = found["length"][check] if check == "adjusted" else found["length"][check]["contrasts"]
        assert own["estimate"] == pytest.approx(gain), check


def test_arms_without_a_common_patient_are_not_compared_by_the_model_either():
    ratings = rated(
        {"one": lambda arm, patient, *rest: level(arm, patient, *rest) if (arm == "t") == patient % 2 else None}
    )
    found = analysis(ratings, "default", draws=200)
    assert found["contrasts"][0]["estimate"] is None
    assert found["mixed_models"][0]["estimate"] is None
    assert "no patient in common" in found["mixed_models"][0]["problem"]
    assert [arm["planned"] for arm in found["completion"]["arms"]] == [16, 16]


def test_judges_who_are_told_apart_by_nothing_but_the_arm():
    ratings = rated({"one": lambda arm, *rest: level(arm, *rest) if arm == "t" else None,
                     "two": lambda arm, *rest: level(arm, *rest) if arm == "b" else None})  # fmt: skip
    assert not connected(ratings)
    found = analysis(ratings, "default", draws=200)
    assert found["contrasts"][0]["estimate"] is None
    assert found["mixed_models"][0]["estimate"] is None
    assert "there are no scores of sessions, means or levels" in found["notes"][0]
    for group, one in zip(found["groups"], found["levels"], strict=True):
        assert (group["n"], group["mean"], group["sd"], set(group["items"].values())) == (32, None, None, {None})
        assert (one["n"], one["share"], one["floor_share"]) == (32, None, None)
    assert found["length"] is None
    assert [arm["rated"] for arm in found["completion"]["arms"]] == [32, 32]
    assert found["agreement"]["severity"] == {"one": None, "two": None}
    json.dumps(found, allow_nan=False)
    assert connected(rated({"one": level, "two": sample(level)}))


def test_repeats_are_no_more_sessions_to_halo():
    once = rated({"one": level})
    many = rating_table(
        once.item_names, ARMS, *(np.tile(column, 6) for column in (once.arm, once.patient, once.session, once.judge)),
        np.repeat(np.arange(6), len(once)), np.tile(once.items + np.arange(len(once))[:, None] % 3 * [1, 0], (6, 1)),
        once.scale,
    )  # fmt: skip
    one = rating_table(once.item_names, ARMS, once.arm, once.patient, once.session, once.judge, once.repeat,
                  many.items[: len(once)], once.scale)  # fmt: skip
    first, second = (analysis(table, "default", draws=300)["agreement"]["halo"] for table in (one, many))
    assert first == second


def test_a_planned_judge_without_a_score_is_a_gap_and_nobody_takes_its_place():
    ratings = rated({"machine": lambda *_: float("nan"), "human": sample(level)})
    found = analysis(ratings, "default", primary_judges=["machine"], draws=200)
    assert (found["panel"]["judges"], found["panel"]["beside"]) == (["machine"], ["human"])
    assert found["contrasts"][0]["estimate"] is None
