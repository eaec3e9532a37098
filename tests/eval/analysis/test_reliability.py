"""Agreement with intervals: resampling by weights against resampling by hand, and raters whose faults are known."""

import json

import numpy as np
import pytest
from places import SCORES2024, needs_scores
from rating_table import rating_table

from cbtrain.errors import UserError
from cbtrain.eval.analysis.agreement import coefficients
from cbtrain.eval.analysis.agreement.reliability import reliability
from cbtrain.eval.analysis.agreement.severity import severities
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.analysis.ratings import Scale, join_ratings, one_judge
from cbtrain.eval.analysis.score_tables import read_ratings

ARMS = {"t": Arm("t", "", "tuned"), "b": Arm("b", "", "instruct")}


def drawn_by_hand(values, statistic, draws=40):
    rng = np.random.default_rng(1)
    chosen = rng.integers(len(values), size=(draws, len(values)))
    weights = np.stack([np.bincount(row, minlength=len(values)) for row in chosen]).astype(float)
    return weights, [statistic(values[row]) for row in chosen]


@pytest.mark.parametrize("gaps", [False, True])
def test_resamples_by_weights_are_resamples(gaps):
    values = np.random.default_rng(0).integers(0, 7, (25, 3)).astype(float) + np.arange(25)[:, None] // 8
    weights, by_hand = drawn_by_hand(values, coefficients.icc)
    single, mean, consistency = coefficients.icc_draws(values, weights)
    assert single == pytest.approx([found.single for found in by_hand])
    assert mean == pytest.approx([found.mean for found in by_hand])
    assert consistency == pytest.approx([found.consistency for found in by_hand])
    weights, by_hand = drawn_by_hand(values[:, :2], lambda some: coefficients.quadratic_kappa(*some.T))
    assert coefficients.kappa_draws(values[:, :2], weights) == pytest.approx(by_hand)
    if gaps:
        values[[0, 3, 3, 7], [0, 1, 2, 2]] = np.nan
    weights, by_hand = drawn_by_hand(values, coefficients.krippendorff_alpha)
    assert coefficients.alpha_draws(values, weights) == pytest.approx(by_hand)
    values = np.nan_to_num(values, nan=2.0)
    weights, by_hand = drawn_by_hand(values, coefficients.halo)
    alpha, mean_r, shares = coefficients.halo_draws(values, weights)
    assert alpha == pytest.approx([found.alpha for found in by_hand])
    assert mean_r == pytest.approx([found.mean_r for found in by_hand])
    assert shares == pytest.approx(np.array([found.shares for found in by_hand]))


def panel(judges, patients=10, sessions=3, items=4, seed=0):
    """Ratings of two arms; ``judges``: name → function of (arm, true score, generator) to a score of an item, and how
    many repeats."""
    draw = np.random.default_rng(seed)
    rows, scores = [], []
    for arm in ARMS:
        for patient in range(patients):
            for session in range(sessions):
                true = draw.integers(1, 6, items) + (arm == "t") * 0.5
                for judge, (rate, repeats) in judges.items():
                    for repeat in range(repeats):
                        rows.append((arm, f"p{patient}", session, judge, repeat))
                        scores.append(np.clip(np.round([rate(arm, value, draw) for value in true]), 0, 6))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return rating_table(tuple("abcd"[:items]), ARMS, *columns, np.array(scores), Scale(0, 6, 12))


def steady(arm, true, draw):
    return true + draw.normal(0, 0.3)


def severe(arm, true, draw):
    return true - 1 + draw.normal(0, 0.3)


def partial_to_tuned(arm, true, draw):
    return true + (1 if arm == "t" else -0.5) + draw.normal(0, 0.3)


def erratic(arm, true, draw):
    return draw.uniform(0, 6)


def found_for(judges, **more):
    ratings = panel(judges, **more)
    return reliability(ratings, plan_contrasts(ARMS), 500, 0)


def test_severity_is_no_disagreement_about_order():
    found = found_for({"steady": (steady, 1), "severe": (severe, 1)})
    (between,) = found["between"]
    total = between["total"]
    assert (between["judges"], between["sessions"]) == (["severe", "steady"], 60)
    assert total["icc_consistency"]["estimate"] > 0.9 > total["icc_single"]["estimate"]
    assert total["icc_mean"]["estimate"] > total["icc_single"]["estimate"]
    for name in ("icc_single", "icc_mean", "icc_consistency", "kappa", "alpha", "exact", "adjacent"):
        for row in (total, *between["items"]):
            assert row[name]["ci_low"] <= row[name]["estimate"] <= row[name]["ci_high"]
    assert between["items"][0]["exact"]["estimate"] < 0.4 < 0.7 < between["items"][0]["adjacent"]["estimate"]
    assert found["severity"]["steady"] == pytest.approx(-found["severity"]["severe"])
    assert 1.5 < found["severity"]["steady"] < 2.5  # half of four items' one point
    erratic_too = found_for({"steady": (steady, 1), "severe": (severe, 1), "erratic": (erratic, 1)})
    assert [row["judges"] for row in erratic_too["between"]] == [
        ["erratic", "severe", "steady"], ["erratic", "severe"], ["erratic", "steady"], ["severe", "steady"],
    ]  # fmt: skip
    assert erratic_too["between"][2]["total"]["kappa"]["estimate"] < 0.4 < total["kappa"]["estimate"]


def test_a_judge_that_favours_an_arm_is_seen():
    found = found_for({"steady": (steady, 1), "partial": (partial_to_tuned, 1)})
    estimates = {row["judge"]: row["contrasts"][0]["estimate"] for row in found["by_judge"]}
    (difference,) = found["judge_by_arm"]
    assert difference["judges"] == ["partial", "steady"]
    assert difference["estimate"] == pytest.approx(estimates["partial"] - estimates["steady"])
    assert difference["ci_low"] > 0
    (fair,) = found_for({"steady": (steady, 1), "severe": (severe, 1)})["judge_by_arm"]
    assert fair["ci_low"] < 0 < fair["ci_high"]


def test_retest_tells_a_steady_judge_from_an_erratic_one():
    found = found_for({"steady": (steady, 3), "erratic": (erratic, 3), "once": (steady, 1)})
    erratic_one, steady_one = found["retest"]
    assert (steady_one["judge"], steady_one["sessions"], steady_one["repeats"]) == ("steady", 60, 3)
    assert steady_one["icc"]["ci_low"] > 0.8 > erratic_one["icc"]["ci_high"]
    assert steady_one["sd"]["ci_high"] < 1.5 < 2.5 < erratic_one["sd"]["ci_low"] < 4.5


def test_judges_who_rated_different_sessions_are_compared_within_each(tmp_path):
    """A severe judge rates the tuned arm's other half: paired within judges, severity is no difference between arms."""
    ratings = panel({"mild": (lambda arm, true, draw: true, 1), "severe": (lambda arm, true, draw: true - 1, 1)})
    chosen = (ratings.judge == "mild") | (ratings.session < 1) | ((ratings.arm == "t") & (ratings.session < 2))
    some = ratings.only(chosen)
    whole = one_judge(ratings, "mild", "here")
    plans = plan_contrasts(ARMS)
    found = compare(some, plans, some.total, 0)[0]
    assert found.pairs == 30
    assert found.estimate == pytest.approx(compare(whole, plans, whole.total, 0)[0].estimate, abs=0.4)
    assert severities(some, some.total)["mild"] == pytest.approx(2.0, abs=0.3)
    with pytest.raises(UserError, match=r"here: no rating by 'kind'. The judges are: mild, severe"):
        one_judge(ratings, "kind", "here")
    again = join_ratings([one_judge(ratings, name, "") for name in ("severe", "mild")], "both")
    assert sorted(again.total) == sorted(ratings.total)
    with pytest.raises(UserError, match="both: session 0 of patient p0 with t occurs twice"):
        join_ratings([ratings, ratings], "both")


def test_all_equal_scores_are_gaps_and_json():
    ratings = panel({"one": (lambda *_: 3, 2), "two": (lambda *_: 3, 2)})
    found = analysis(ratings, "default", draws=200)
    json.dumps(found, allow_nan=False)
    total = found["agreement"]["between"][0]["total"]
    assert {total[name]["estimate"] for name in ("icc_single", "kappa", "alpha")} == {None}
    assert total["exact"]["estimate"] == 1.0
    assert found["agreement"]["halo"] == []
    assert found["agreement"]["retest"][0]["icc"]["estimate"] is None
    assert (found["contrasts"][0]["estimate"], found["contrasts"][0]["p"]) == (0.0, None)


def test_what_resampling_cannot_move_has_no_interval_of_no_width():
    """Judges who agree wholly do in every resample; two sessions' items correlate perfectly whatever the judge."""
    ratings = panel({"one": (lambda arm, true, draw: true, 1), "twin": (lambda arm, true, draw: true, 1)})
    total = reliability(ratings, plan_contrasts(ARMS), 200, 0)["between"][0]["total"]
    for name in ("icc_single", "kappa", "alpha"):
        assert total[name]["estimate"] == pytest.approx(1.0)
        assert np.isnan(total[name]["ci_low"])
    # Clopper and Pearson's bound for 60 of 60.
    assert (total["exact"]["ci_low"], total["exact"]["ci_high"]) == (pytest.approx(0.025 ** (1 / 60)), 1.0)
    two = panel({"one": (lambda arm, true, draw: true, 1)}, patients=1, sessions=1)
    assert reliability(two, plan_contrasts(ARMS), 200, 0)["halo"] == []


@needs_scores
def test_the_2024_judge_has_one_general_factor():
    found = analysis(read_ratings(SCORES2024), "default", draws=500)["agreement"]
    (halo,) = found["halo"]
    assert f"{halo['alpha']['estimate']:.3f}" == "0.909"
    assert f"{halo['mean_r']['estimate']:.3f}" == "0.514"
    assert [f"{share:.3f}" for share in halo["shares"][:3]] == ["0.566", "0.092", "0.081"]
    assert halo["first_factor"]["ci_low"] < 0.566 < halo["first_factor"]["ci_high"]
    assert (found["between"], found["retest"], found["by_judge"]) == ([], [], [])


def test_scores_with_decimals_have_an_alpha_too():
    """As a trained rater gives them: every score is a level of its own, and no table of all pairs of levels is made."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(600, 1)) + rng.normal(scale=0.5, size=(600, 2))
    ranks = values.ravel().argsort().argsort().reshape(600, 2) + 0.5  # no ties: a level's middle rank
    observed = 2 * ((ranks[:, 0] - ranks[:, 1]) ** 2).sum()
    expected = ((ranks.reshape(1, -1) - ranks.reshape(-1, 1)) ** 2).sum() / (ranks.size - 1)
    weights = np.ones((1001, 600))
    assert coefficients.alpha_draws(values, weights) == pytest.approx(1 - observed / expected)
