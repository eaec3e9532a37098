"""Mixed models beside the contrasts, against statsmodels' formulas."""

import math

import numpy as np
import pytest
import statsmodels.formula.api as smf
from places import SCORES2024, needs_scores
from rating_table import rating_table

from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.analysis.mixed_models.contrast_model import mixed_model
from cbtrain.eval.analysis.mixed_models.reml import fit_reml
from cbtrain.eval.analysis.score_tables import read_ratings

pandas = pytest.importorskip("pandas")


def study(effects, patients=12, sessions=4, spread=3.0, seed=0, repeats=1, noise=5.0, by_arm=0.0):
    """Ratings of two items; ``effects``: points that tuning adds, by base."""
    draw = np.random.default_rng(seed)
    arms = {f"{base}-{variant}": Arm(f"{base}-{variant}", base, variant)
            for base in effects for variant in ("tuned", "instruct")}  # fmt: skip
    level = draw.normal(0, spread, patients)
    taken = {name: draw.normal(0, by_arm, patients) for name in arms}
    rows = [
        (
            name,
            f"p{patient}",
            session,
            repeat,
            30 + level[patient] + taken[name][patient] + effects[arm.base] * (arm.variant == "tuned"),
        )
        for name, arm in arms.items()
        for patient in range(patients)
        for session in range(sessions)
        for repeat in range(repeats)
    ]
    totals = np.array([row[4] for row in rows]) + draw.normal(0, noise, len(rows))
    return rating_table(
        ("one", "two"),
        arms,
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        np.full(len(rows), "judge"),
        np.array([row[3] for row in rows]),
        np.stack([totals / 3, totals * 2 / 3], axis=1),
    )


def frame(ratings):
    table = pandas.DataFrame({"arm": ratings.arm, "patient": ratings.patient, "total": ratings.total})
    table["base"] = [ratings.arms[name].base for name in ratings.arm]
    table["variant"] = [ratings.arms[name].variant for name in ratings.arm]
    return table[np.isfinite(table["total"])]


EFFECTS = {"Llama": 8.0, "Mistral": 15.0, "Qwen": 8.0}


def test_contrasts_are_those_of_a_model_of_all_arms():
    """Against statsmodels' variance components; some sessions have no score."""
    ratings = study(EFFECTS, by_arm=3.0)
    ratings.items[::7] = np.nan
    plans = plan_contrasts(ratings.arms)
    model = mixed_model(ratings, plans)
    found = {contrast.id: contrast for contrast in model.contrasts}
    formula = {"formula": "total ~ 0 + arm", "re_formula": "1", "vc_formula": {"by_arm": "0 + C(arm)"}}
    fit = smf.mixedlm(**formula, data=frame(ratings), groups="patient").fit(reml=True, method="powell")
    for base in EFFECTS:
        signs = {f"arm[{base}-tuned]": 1.0, f"arm[{base}-instruct]": -1.0}
        weights = np.array([signs.get(name, 0.0) for name in fit.fe_params.index])
        ours = found[f"{base}: tuned − instruct"]
        se = math.sqrt(weights @ fit.cov_params().to_numpy()[: len(weights), : len(weights)] @ weights)
        assert ours.estimate == pytest.approx(weights @ fit.fe_params, abs=1e-3)
        assert ours.se == pytest.approx(se, rel=1e-3)
        assert (ours.ci_low, ours.ci_high) == pytest.approx((ours.estimate - 1.96 * se, ours.estimate + 1.96 * se), rel=1e-3)  # fmt: skip
    theirs = (fit.cov_re.iloc[0, 0], fit.vcomp[0], fit.scale)
    assert (model.components.patients, model.components.by_arm, model.components.residual) == pytest.approx(theirs, rel=1e-2)  # fmt: skip
    assert min(theirs) > 1
    rated = np.isfinite(ratings.total)
    columns = [(ratings.arm[rated] == arm).astype(float) for arm in ratings.arms]
    again = fit_reml(
        ratings.total[rated], np.stack(columns, axis=1), list(ratings.arms), ratings.patient[rated], ratings.arm[rated]
    )
    assert again.log_likelihood == pytest.approx(fit.llf, abs=1e-5)
    assert again.problem == ""


def test_with_two_balanced_arms_the_model_says_what_the_patients_differences_say():
    """The SE of the difference is that of the paired t test, since what an arm does for a patient is in the model."""
    ratings = study({"Llama": 5.0}, by_arm=4.0, spread=8.0)
    plans = plan_contrasts(ratings.arms)
    (model,), (contrast,) = mixed_model(ratings, plans).contrasts, compare(ratings, plans, ratings.total, draws=0)
    assert (model.estimate, model.se) == (pytest.approx(contrast.estimate), pytest.approx(contrast.se, rel=1e-5))
    # One session of each with each arm: then what sessions vary by holds it.
    once = ratings.only(ratings.session == 0)
    found = mixed_model(once, plans)
    (contrast,) = compare(once, plans, once.total, draws=0)
    assert found.contrasts[0].se == pytest.approx(contrast.se, rel=1e-5)
    assert (found.components.by_arm, found.contrasts[0].problem) == (None, "")


def test_sessions_that_patients_explain_wholly_are_no_model():
    """One session of each with each arm, all moved by the same: no residual, and no interval as narrow as the search
    for one is wide."""
    patients = np.random.default_rng(0).normal(30, 5, 6)
    both = np.concatenate([patients, patients + 11.0])
    arm = np.repeat([0.0, 1.0], 6)
    with pytest.raises(ValueError, match="residual variance is at its boundary"):
        fit_reml(both, np.stack([1 - arm, arm], axis=1), ["b", "t"], np.tile(np.arange(6), 2), arm)


def test_a_variance_at_zero_is_told_of():
    ratings = study({"Llama": 5.0}, spread=0.0)
    ratings.items[:, 0] -= np.tile(np.random.default_rng(1).normal(0, 3, 4), len(ratings) // 4)
    (found,) = mixed_model(ratings, plan_contrasts(ratings.arms)).contrasts
    assert "at its boundary of zero" in found.problem
    assert found.se > 0
    y, patients = np.array([1.0, 2.0, 3.0, 4.0]), np.array(["p", "q", "r", "s"])
    with pytest.raises(ValueError, match="explain the sessions completely"):
        fit_reml(y, np.eye(4), list("abcd"), patients, patients)
    with pytest.raises(ValueError, match="depend on each other"):
        fit_reml(y, np.ones((4, 2)), list("ab"), patients, patients)


def test_sessions_that_are_all_equal_within_cells_give_no_model():
    """The likelihood has no maximum there; a fit would call differences that the patients do not show."""
    ratings = study({"Llama": 5.0}, noise=0.0, by_arm=3.0)
    (found,) = mixed_model(ratings, plan_contrasts(ratings.arms)).contrasts
    assert math.isnan(found.p)
    assert "sessions of the same patient and arm all have the same total" in found.problem


def test_repeats_of_a_judge_are_not_more_sessions():
    once = study(EFFECTS, noise=0.0, spread=0.0)
    once.items[:] += np.random.default_rng(3).normal(0, 1, once.items.shape)
    many = rating_table(
        once.item_names, once.arms, *(np.tile(column, 5) for column in (once.arm, once.patient, once.session)),
        np.tile(once.judge, 5), np.repeat(np.arange(5), len(once)), np.tile(once.items, (5, 1)),
    )  # fmt: skip
    plans = plan_contrasts(once.arms)
    for one, other in zip(mixed_model(once, plans).contrasts, mixed_model(many, plans).contrasts, strict=True):
        assert (one.estimate, one.se) == (pytest.approx(other.estimate), pytest.approx(other.se, rel=1e-5))


def test_what_cannot_be_modelled_is_a_gap_with_its_reason():
    ratings = study({"Llama": 5.0})
    plans = plan_contrasts(ratings.arms)
    ratings.items[:] = 3.0
    (gap,) = mixed_model(ratings, plans).contrasts
    assert math.isnan(gap.estimate)
    assert gap.problem == "all totals are equal: there is nothing to model"
    ratings = study({"Llama": 5.0})
    ratings.items[ratings.arm == "Llama-tuned"] = np.nan
    (gap,) = mixed_model(ratings, plans).contrasts
    assert "two arms" in gap.problem
    one = study({"Llama": 5.0}, patients=1)
    assert "two patients" in mixed_model(one, plans).contrasts[0].problem


def test_judges_who_share_no_session_are_not_put_into_one_model():
    """One judge for each arm: severity and therapist cannot be told apart."""
    ratings = study({"Llama": 5.0})
    ratings.judge[:] = np.where(ratings.arm == "Llama-tuned", "one", "two")
    plans = plan_contrasts(ratings.arms)
    (gap,) = mixed_model(ratings, plans).contrasts
    assert math.isnan(gap.estimate)
    assert "share too few sessions to estimate their severity" in gap.problem
    assert compare(ratings, plans, ratings.total, draws=0)[0].estimate is None


@needs_scores
def test_on_the_2024_scores_models_and_contrasts_agree():
    found = analysis(read_ratings(SCORES2024), "default", draws=100)
    for contrast, model in zip(found["contrasts"], found["mixed_models"], strict=True):
        assert contrast["id"] == model["id"]
        assert model["estimate"] == pytest.approx(contrast["estimate"], abs=1.0)  # 7 sessions have no score
