"""Power of the paired comparison: against statsmodels, a simulation and the reference table."""

import math

import numpy as np
import pytest
from places import SCORES2024, needs_scores
from rating_table import rating_table
from scipy import stats
from statsmodels.stats.power import TTestPower

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.analysis.power.pilot import NoPilot, Spread, estimate
from cbtrain.eval.analysis.power.power import (
    LARGEST,
    LEAST_ALPHA,
    MOST_PATIENTS,
    MOST_POWER,
    detectable_difference,
    least_for_signs,
    patients_needed,
    power_of,
    variance_of_difference,
)
from cbtrain.eval.analysis.score_tables import read_ratings

# rubric_and_judging.md §7: patients for 3, 5, 8 points; its "patient-by-condition SD" is that of true differences
TABLE = {1: (182, 67, 28), 2: (95, 36, 16), 3: (66, 25, 12), 5: (43, 17, 8), 20: (17, 8, 5)}


@pytest.mark.parametrize("seeds", TABLE)
def test_the_reference_table(seeds):
    sd = math.sqrt(variance_of_difference(2.5, 10.0, 0.0, seeds))
    assert tuple(patients_needed(effect, sd) for effect in (3, 5, 8)) == TABLE[seeds]


def test_the_sentence_under_the_table_and_the_table_of_pairs():
    sds = [math.sqrt(variance_of_difference(2.5, 10.0, 0.0, seeds)) for seeds in (3, 20)]
    assert round(detectable_difference(58, sds[0]), 1) == 3.2
    # "5 x 20 about 8" there: 8 points have more than the 80 %, which 6.8 reach
    assert detectable_difference(5, sds[1]) == pytest.approx(6.78, abs=0.01)
    assert (patients_needed(8, sds[1]), patients_needed(6.8, sds[1])) == (5, 5)
    for alpha, expected in ((0.05, (7.5, 5.3, 4.1, 2.9)), (0.05 / 3, (8.7, 6.2, 4.8, 3.4))):
        # The pair-level figures there are of the normal distribution: the t test's are a little larger.
        normal = (stats.norm.isf(alpha / 2) + stats.norm.ppf(0.8)) * 14.7
        for pairs, figure in zip((30, 60, 100, 200), expected, strict=True):
            assert normal / math.sqrt(pairs) == pytest.approx(figure, abs=0.07)
            exact = detectable_difference(pairs, 14.7, alpha=alpha)
            assert normal / math.sqrt(pairs) < exact < figure * 1.07


def integrated(patients, d_z, alpha):
    """Power by its definition: over the distribution of the observed SD, the chance that the mean is far enough off."""
    df, shift = patients - 1, d_z * math.sqrt(patients)
    sd = np.sqrt(stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, df) / df)
    reach = stats.t.isf(alpha / 2, df) * sd
    return float((stats.norm.cdf(shift - reach) + stats.norm.cdf(-shift - reach)).mean())


@pytest.mark.parametrize("patients", [2, 3, 6, 12, 58, 400])
@pytest.mark.parametrize("d_z", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_as_statsmodels_and_as_defined(patients, d_z, alpha):
    found = power_of(patients, 10 * d_z, 10.0, alpha)
    assert found == pytest.approx(integrated(patients, d_z, alpha), abs=1e-6)
    theirs = TTestPower().power(d_z, patients, alpha, alternative="two-sided")
    if math.isfinite(theirs):  # scipy's noncentral t has no number here and there
        assert found == pytest.approx(theirs, abs=1e-9)
    least = detectable_difference(patients, 10.0, 0.8, alpha)
    assert integrated(patients, least / 10, alpha) == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("d_z", [0.15, 0.4, 0.9, 2.0])
def test_patients_needed_are_the_fewest(d_z):
    needed = patients_needed(d_z, 1.0)
    assert needed == math.ceil(TTestPower().solve_power(effect_size=d_z, alpha=0.05, power=0.8))
    assert power_of(needed, d_z, 1.0) >= 0.8 > power_of(needed - 1, d_z, 1.0)


def test_the_ends_of_the_range():
    assert patients_needed(0.01, 10.0) is None
    assert patients_needed(1e6, 1e-9) == 2
    assert power_of(2, 0.0, 1.0) == 0.05
    for patients in (2, 5, 1000, MOST_PATIENTS):
        effects = np.geomspace(1e-3, 10 * LARGEST, 200)
        powers = [power_of(patients, effect, 1.0, LEAST_ALPHA) for effect in effects]
        assert np.isfinite(powers).all()
        assert (np.diff(powers) > -1e-9).all()
        least = detectable_difference(patients, 1.0, MOST_POWER, LEAST_ALPHA)
        assert power_of(patients, least, 1.0, LEAST_ALPHA) == pytest.approx(MOST_POWER, abs=1e-6)
    assert [least_for_signs(alpha) for alpha in (0.05, 0.0625, 0.05 / 3)] == [6, 5, 7]


def simulated(rng, patients, seeds, repeats, spread, effect=0.0, judges=("j",)):
    """Ratings of two arms whose totals vary as ``spread`` says (``repeat`` is that of one round by all judges)."""
    shape = (2, patients, seeds, len(judges), repeats)
    arm, patient, session, judge, repeat = (axis.ravel() for axis in np.indices(shape))
    true = np.stack((effect + rng.normal(0, spread.between, patients), np.zeros(patients))) + rng.normal(
        30, 5, patients
    )
    scores = true[:, :, None] + rng.normal(0, spread.within, shape[:3])
    noise = rng.normal(0, (spread.repeat or 0.0) * math.sqrt(len(judges)), shape)
    names = np.array(["tuned", "base"])
    return rating_table(
        ("total",),
        {name: Arm(name, "", "") for name in names},
        names[arm],
        np.array([f"p{i}" for i in patient]),
        session,
        np.array(judges)[judge],
        repeat,
        (scores[..., None, None] + noise).reshape(-1, 1),
    )


def test_the_power_holds_in_simulated_studies():
    """The whole of it: variance of sessions and repeats as drawn, analysed by a t test over patients."""
    rng, spread, n, seeds, repeats = np.random.default_rng(5), Spread(3.0, 6.0, 4.0), 9, 3, 2
    expected = power_of(n, 7.0, math.sqrt(spread.variance(seeds, repeats)))
    assert 0.6 < expected < 0.9
    studies = 20_000
    true = 7.0 + rng.normal(0, spread.between, (studies, n))
    arms = rng.normal(0, spread.within, (2, studies, n, seeds, 1)) + rng.normal(
        0, spread.repeat, (2, studies, n, seeds, repeats)
    )
    first, second = arms.mean(axis=(3, 4))
    p = stats.ttest_1samp(true + first - second, 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(expected, abs=4 * math.sqrt(0.25 / studies))


@pytest.mark.parametrize("judges", [("j",), ("j", "k", "l")])
def test_a_large_pilot_tells_what_was_put_in(judges):
    spread = Spread(4.0, 6.0, 3.0)
    ratings = simulated(np.random.default_rng(1), 800, 3, 2, spread, 5.0, judges)
    [plan] = plan_contrasts(ratings.arms)
    pilot = estimate(ratings, plan)
    assert (pilot.patients, pilot.pairs, pilot.notes) == (800, 2400, [])
    assert pilot.estimate == pytest.approx(5.0, abs=0.6)
    for name in ("between", "within", "repeat"):
        assert getattr(pilot.spread, name) == pytest.approx(getattr(spread, name), rel=0.06)
    assert pilot.spread.variance(2, 1) < pilot.upper_variance(2, 1) < 1.1 * pilot.spread.variance(2, 1)


def test_the_upper_limit_of_small_pilots_holds_as_often_as_it_says():
    spread, rng = Spread(4.0, 6.0, 3.0), np.random.default_rng(2)
    held = []
    for _ in range(300):
        ratings = simulated(rng, 6, 3, 2, spread)
        pilot = estimate(ratings, plan_contrasts(ratings.arms)[0])
        held.append([pilot.upper_variance(seeds, 3) >= spread.variance(seeds, 3) for seeds in (1, 3, 20)])
    shares = np.mean(held, axis=0)
    assert (shares > 0.75).all(), shares
    assert (shares < 0.95).all(), shares


@needs_scores
def test_the_authors_scores_as_a_pilot():
    ratings = read_ratings(SCORES2024)
    plans = {plan.id: plan for plan in plan_contrasts(ratings.arms) if len(plan.pairs) == 1}
    found = {name: estimate(ratings, plan) for name, plan in plans.items()}
    llama, mistral = found["Llama: tuned − instruct"], found["Mistral: tuned − instruct"]
    assert (llama.pairs, mistral.pairs, llama.patients) == (100, 93, 5)
    assert llama.estimate == pytest.approx(8.03)
    # Balanced: MS between = 20 · variance of the five patients' means, and what is left of 12.16² lies within.
    [contrast] = compare(ratings, [plans["Llama: tuned − instruct"]], ratings.total, 100)
    means = np.array(list(contrast.patients.values()))
    within = (99 * 12.16**2 - 80 * means.var(ddof=1)) / 95
    assert llama.spread.within == pytest.approx(math.sqrt(within / 2), abs=0.01)
    assert llama.spread.between == pytest.approx(math.sqrt(means.var(ddof=1) - within / 20), abs=0.01)
    assert mistral.spread.between == pytest.approx(5.7, abs=0.5)  # the reference's figure, by another method
    assert llama.spread.repeat is None
    none = found["tuned: Mistral − Qwen"]
    assert none.spread.between == 0
    assert any("negative, and set to 0" in note for note in none.notes)


@pytest.mark.parametrize(
    ("patients", "seeds", "spread", "problem"),
    [
        (1, 3, Spread(1.0, 1.0), "one patient only"),
        (5, 1, Spread(1.0, 1.0), "no patient has two rated sessions"),
        (5, 3, Spread(0.0, 0.0), "nothing varies"),
    ],
)
def test_what_is_no_pilot(patients, seeds, spread, problem):
    ratings = simulated(np.random.default_rng(0), patients, seeds, 1, spread)
    ratings.items[:] = np.round(ratings.items, 6)
    with pytest.raises(NoPilot, match=problem):
        estimate(ratings, plan_contrasts(ratings.arms)[0])
    ratings.items[ratings.arm == "base"] = np.nan
    with pytest.raises(NoPilot, match="no patient has a rated session in both arms"):
        estimate(ratings, plan_contrasts(ratings.arms)[0])
