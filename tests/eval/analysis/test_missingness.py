"""What is missing: counted by arm, compared, bounded; shares above the cut-off and at the ends of the scale."""

import numpy as np
import pytest
from rating_table import rating_table
from scipy import stats

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.analysis.descriptives import levels, session_groups
from cbtrain.eval.analysis.missingness import bounds, completion
from cbtrain.eval.analysis.ratings import Scale
from cbtrain.eval.analysis.sessions import SessionOutcome

ARMS = {"t": Arm("t", "", "tuned"), "b": Arm("b", "", "instruct")}


SCALE = Scale(0, 6, 8)


def rated(rows, scale=SCALE):
    """Ratings of (arm, patient, session, first item, second item)."""
    arm, patient, session, one, two = zip(*rows, strict=True)
    n = len(rows)
    return rating_table(
        ("one", "two"), ARMS, np.array(arm), np.array(patient), np.array(session), np.full(n, "j"),
        np.zeros(n, dtype=int), np.array([one, two], dtype=float).T, scale,
    )  # fmt: skip


def held(*failed, patients="pqr", sessions=2):
    return {
        (arm, p, s): SessionOutcome(8, 90, "provider_error" if (arm, p, s) in failed else "patient_end",
                                  (arm, p, s) in failed)
        for arm in ARMS for p in patients for s in range(sessions)
    }  # fmt: skip


NAN = float("nan")
ROWS = [("t", p, s, 4.0, 5.0) for p in "pqr" for s in range(2)] + [("b", p, s, 2.0, 2.0 + (p == "q")) for p in "pqr" for s in range(2)]  # fmt: skip


def test_failures_and_missing_scores_are_outcomes():
    rows = [row for row in ROWS if row[:3] not in {("b", "p", 0), ("b", "q", 1)}]
    rows = [(*row[:4], NAN) if row[:3] == ("b", "r", 0) else row for row in rows]
    ratings, facts = rated(rows), held(("b", "p", 0))
    found = completion(ratings, facts, plan_contrasts(ARMS))
    tuned, base = found.arms
    assert (tuned.planned, tuned.failed, tuned.unrated, tuned.rated) == (6, 0, 0, 6)
    assert (base.planned, base.failed, base.unrated, base.rated) == (6, 1, 2, 3)
    assert base.endings == {"patient_end": 5, "provider_error": 1}
    (share,) = found.contrasts
    assert share.patients == {"p": 0.5, "q": 0.5, "r": 0.5}
    assert (share.estimate, share.p) == (0.5, None)
    expected = stats.ttest_1samp([-0.5, 0, 0], 0)
    (failures,) = found.failures
    assert (failures.estimate, failures.p) == (pytest.approx(-1 / 6), pytest.approx(expected.pvalue))


def test_bounds_hold_whatever_the_missing_scores_would_be():
    gone = {("b", "p", 0), ("t", "q", 1)}
    ratings, facts = rated([row for row in ROWS if row[:3] not in gone]), held()
    plans = plan_contrasts(ARMS)
    (found,) = bounds(ratings, facts, plans, compare(ratings, plans, ratings.total, 100))
    assert found.missing == 2
    draw = np.random.default_rng(0)
    for _ in range(50):
        rows = [(*row[:3], *draw.integers(0, 7, 2)) if row[:3] in gone else row for row in ROWS]
        whole = rated(rows)
        estimate = compare(whole, plans, whole.total, 0)[0].estimate
        assert found.worst_low <= estimate <= found.worst_high
    for arm_b, arm_t, end in ((6, 0, found.worst_low), (0, 6, found.worst_high)):
        fill = {("b", "p", 0): arm_b, ("t", "q", 1): arm_t}
        whole = rated([(*row[:3], fill[row[:3]], fill[row[:3]]) if row[:3] in gone else row for row in ROWS])
        assert compare(whole, plans, whole.total, 0)[0].estimate == pytest.approx(end)
    assert found.worst_ci_low < found.worst_low <= found.estimate <= found.worst_high < found.worst_ci_high


def test_without_gaps_the_bounds_are_the_estimate_and_without_a_scale_there_are_none():
    ratings, plans = rated(ROWS), plan_contrasts(ARMS)
    complete = compare(ratings, plans, ratings.total, 100)
    (found,) = bounds(ratings, {}, plans, complete)
    assert (found.missing, found.worst_low, found.worst_high) == (0, complete[0].estimate, complete[0].estimate)
    (unknown,) = bounds(rated(ROWS, scale=None), {}, plans, complete)
    assert (unknown.worst_low, unknown.worst_high, unknown.estimate) == (None, None, complete[0].estimate)


def test_shares_above_the_cutoff_and_at_the_ends():
    rows = [("t", p, s, 6.0, float(s)) for p in "pqrst" for s in range(4)] + [("b", "p", 0, 0.0, NAN)]
    tuned, base = levels(rated(rows), 2000, 0)
    assert (tuned.n, tuned.at_or_above, tuned.share) == (20, 10, 0.5)
    assert tuned.share_low < 0.5 < tuned.share_high
    assert (tuned.floor_share, tuned.ceiling_share) == (5 / 40, 20 / 40)
    assert (base.n, base.share, base.share_low, base.floor_share) == (0, None, None, 1.0)
    assert levels(rated(rows, Scale(0, 6)), 100, 0)[0].share is None
    # Four patients are too few to tell an interval from.
    few = levels(rated([row for row in rows if row[1] != "t"]), 2000, 0)[0]
    assert (few.share, few.share_low, few.share_high) == (0.5, None, None)


def test_a_share_of_none_or_all_is_not_certain():
    """No bootstrap says how far off it could be; Clopper and Pearson's bound for 0 of n is 1 − .025^(1/n)."""
    rows = [(arm, p, s, points, points) for arm, points in (("t", 6.0), ("b", 0.0)) for p in "pqrst" for s in range(4)]
    tuned, base = levels(rated(rows), 2000, 0)
    assert (base.share, base.share_low, base.share_high) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 5)))
    assert (tuned.share, tuned.share_low, tuned.share_high) == (1.0, pytest.approx(0.025 ** (1 / 5)), 1.0)


def test_groups_count_sessions_and_not_ratings():
    """Two judges and a gap: one judge is two points more severe, and rated only half."""
    rows = [(arm, p, s, 4.0 + s, 4.0) for arm in ARMS for p in "pqrst" for s in range(2)]
    mild = rated(rows)
    severe = rated([(*row[:3], row[3] - 1, row[4] - 1) for row in rows if row[2] == 0])
    both = rating_table(
        mild.item_names, ARMS,
        *(np.concatenate([getattr(mild, name), getattr(severe, name)]) for name in ("arm", "patient", "session")),
        np.array(["mild"] * len(mild) + ["severe"] * len(severe)), np.zeros(len(mild) + len(severe), dtype=int),
        np.concatenate([mild.items, severe.items]), mild.scale,
    )  # fmt: skip
    alone, together = session_groups(mild)[0], session_groups(both)[0]
    assert (together.n, alone.n) == (10, 10)
    # What the two say of a session does not depend on which of them rated it.
    assert together.sd == pytest.approx(alone.sd)
    assert together.mean == pytest.approx(alone.mean - 1)
    assert compare(both, plan_contrasts(ARMS), both.total, 0)[0].estimate == 0.0


def test_a_session_without_a_row_is_missing_where_another_arm_held_it():
    """No transcripts: what the other arm held with the same patient tells what was planned."""
    ratings = rated([row for row in ROWS if row[:3] not in {("b", "p", 0), ("b", "p", 1), ("b", "q", 0)}])
    found = completion(ratings, {}, plan_contrasts(ARMS))
    # Also of a patient that the arm has nothing of. What failed is not known without transcripts.
    assert [(arm.planned, arm.unrated, arm.failed) for arm in found.arms] == [(6, 0, None), (6, 3, None)]
    assert (len(found.contrasts), found.failures) == (1, [])
    plans = plan_contrasts(ARMS)
    (bound,) = bounds(ratings, {}, plans, compare(ratings, plans, ratings.total, 0))
    assert bound.missing == 3
    assert bound.worst_low < bound.estimate < bound.worst_high
    # Arms with other sessions altogether tell nothing of each other's plans.
    apart = rated([(arm, p, s + 2 * (arm == "b"), one, two) for arm, p, s, one, two in ROWS])
    assert [(arm.planned, arm.unrated) for arm in completion(apart, {}, plans).arms] == [(6, 0), (6, 0)]


def test_a_missing_item_moves_a_session_by_that_item_only():
    rows = [(*row[:4], NAN) if row[:3] == ("b", "p", 0) else row for row in ROWS]
    plans = plan_contrasts(ARMS)
    ratings = rated(rows)
    (bound,) = bounds(ratings, held(), plans, compare(ratings, plans, ratings.total, 0))
    # One of six sessions, an item of 0 to 6: the mean over three patients of two sessions moves by one point.
    assert bound.worst_high - bound.worst_low == pytest.approx(6 / 6)
