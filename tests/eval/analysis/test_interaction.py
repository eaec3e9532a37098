"""Whether tuning changes bases by different amounts: the patient is the unit there too."""

import math

import numpy as np
import pytest
from places import SCORES2024, needs_scores
from rating_table import rating_table
from scipy import stats
from statsmodels.stats.multivariate import test_mvmean as hotelling

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.mixed_models.interaction import interaction
from cbtrain.eval.analysis.score_tables import read_ratings

BASES = ("A", "B", "C")


def study(gains, sessions=3, noise=0.0, seed=0):
    """One item; ``gains``: points that tuning adds, float ``[patients, bases]``."""
    draw = np.random.default_rng(seed)
    arms = {f"{base}-{kind}": Arm(f"{base}-{kind}", base, kind) for base in BASES for kind in ("tuned", "instruct")}
    rows = [
        (name, f"p{patient}", session, 30 + gain * (arm.variant == "tuned") + noise * draw.normal())
        for name, arm in arms.items()
        for patient, gain in enumerate(np.asarray(gains)[:, BASES.index(arm.base)])
        for session in range(sessions)
    ]
    arm, patient, session, total = zip(*rows, strict=True)
    n = len(rows)
    return rating_table(("one",), arms, np.array(arm), np.array(patient), np.array(session), np.full(n, "j"),
                   np.zeros(n, dtype=int), np.array(total)[:, None])  # fmt: skip


def crossed(ratings):
    return interaction(ratings, plan_contrasts(ratings.arms))


def test_it_is_hotellings_test_on_the_patients_differences():
    gains = np.random.default_rng(1).normal([8.0, 9.0, 12.0], 3.0, (9, 3))
    found = crossed(study(gains))
    beyond = gains[:, 1:] - gains[:, :1]
    theirs = hotelling(beyond)
    assert (found.statistic, found.p) == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))
    assert (found.df, found.patients, found.reference) == ((2, 7), 9, "A")
    for place, base in enumerate("BC"):
        interval = stats.ttest_1samp(beyond[:, place], 0).confidence_interval()
        assert found.sizes[base] == pytest.approx(beyond[:, place].mean())
        assert found.intervals[base] == pytest.approx((interval.low, interval.high))


def test_patients_who_gain_differently_are_no_difference_between_bases():
    """Five patients of twenty sessions whose gains differ by patient and base alone: at .05 some 5 % are called."""
    draw = np.random.default_rng(2)
    called = sum(
        crossed(study(draw.normal(8.0, 5.0, (5, 3)), sessions=20, noise=8.0, seed=place)).p < 0.05
        for place in range(200)
    )
    assert 2 <= called <= 20


def test_what_cannot_be_tested_is_a_gap_with_its_reason():
    few = crossed(study([[1.0, 2.0, 3.0], [2.0, 1.0, 5.0]]))
    assert math.isnan(few.p)
    assert "2 patients have pairs with every base, and the test needs at least 3" in few.problem
    assert few.sizes["C"] == 2.5
    same = crossed(study(np.tile([[1.0, 2.0, 3.0]], (6, 1))))
    assert "do not vary enough" in same.problem
    # The same but for rounding: no F of 10^31, and no interval of no width.
    for gains in ([0.7, 1.4, 7.7], [0.7, 0.7, 1.4]):
        rounded = crossed(study(np.tile([gains], (6, 1))))
        assert ("do not vary enough" in rounded.problem, rounded.intervals) == (True, {})
        assert rounded.sizes["C"] == pytest.approx(gains[2] - gains[0])
    one = study([[1.0, 2.0, 3.0]] * 4)
    assert crossed(one.only(np.char.startswith(one.arm, "A"))) is not None
    alone = rating_table(one.item_names, {name: arm for name, arm in one.arms.items() if arm.base == "A"},
                    *(getattr(one.only(np.char.startswith(one.arm, "A")), name)
                      for name in ("arm", "patient", "session", "judge", "repeat", "items")))  # fmt: skip
    assert crossed(alone) is None


@needs_scores
def test_five_patients_do_not_settle_whether_mistral_gained_more():
    """A likelihood-ratio test that takes sessions for independent has p < .001 here."""
    found = crossed(read_ratings(SCORES2024))
    assert found.sizes["Mistral"] == pytest.approx(8.79, abs=0.05)
    assert found.intervals["Mistral"][0] < 0 < found.intervals["Mistral"][1]
    assert (found.df, found.p > 0.05) == ((2, 3), True)
