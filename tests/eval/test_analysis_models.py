"""Mixed models beside the contrasts, against statsmodels' formulas."""

import math

import numpy as np
import pytest
import statsmodels.formula.api as smf
from authors_scores import SCORES, needs_scores
from rating_table import rating_table

from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.contrasts import compare, plan_contrasts
from cbtrain.eval.analysis.models import model_contrasts
from cbtrain.eval.analysis.ratings import Arm, read_ratings

pandas = pytest.importorskip("pandas")


def study(effects, patients=12, sessions=4, spread=3.0, seed=0, repeats=1, noise=5.0):
    """Ratings of two items; ``effects``: points that tuning adds, by base."""
    draw = np.random.default_rng(seed)
    arms = {f"{base}-{variant}": Arm(f"{base}-{variant}", base, variant)
            for base in effects for variant in ("tuned", "instruct")}  # fmt: skip
    level = draw.normal(0, spread, patients)
    rows = [
        (name, f"p{patient}", session, repeat, 30 + level[patient] + effects[arm.base] * (arm.variant == "tuned"))
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


def fitted(formula, table):
    return smf.mixedlm(formula, table, groups=table["patient"]).fit(reml=False, method="powell")


EFFECTS = {"Llama": 8.0, "Mistral": 15.0, "Qwen": 8.0}


def test_contrasts_are_those_of_a_model_of_all_arms():
    ratings = study(EFFECTS)
    plans = plan_contrasts(ratings.arms)
    found = {contrast.id: contrast for contrast in model_contrasts(ratings, plans)}
    fit = fitted("total ~ 0 + arm", frame(ratings))
    for base in EFFECTS:
        signs = {f"arm[{base}-tuned]": 1.0, f"arm[{base}-instruct]": -1.0}
        theirs = fit.t_test(np.array([[signs.get(name, 0.0) for name in fit.fe_params.index]]))
        ours = found[f"{base}: tuned − instruct"]
        assert ours.estimate == pytest.approx(theirs.effect[0], abs=1e-6)
        assert ours.se == pytest.approx(theirs.sd.item(), rel=1e-4)
        assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(theirs.conf_int()[0]), rel=1e-4)
        assert ours.p == pytest.approx(theirs.pvalue.item(), rel=1e-2, abs=1e-12)
    # Balanced, the estimates are those of the patients' differences.
    for contrast in compare(ratings, plans, ratings.total, draws=100):
        assert found[contrast.id].estimate == pytest.approx(contrast.estimate)


def test_repeats_of_a_judge_are_not_more_sessions():
    once = study(EFFECTS, noise=0.0, spread=0.0)
    once.items[:] += np.random.default_rng(3).normal(0, 1, once.items.shape)
    many = rating_table(
        once.item_names, once.arms, *(np.tile(column, 5) for column in (once.arm, once.patient, once.session)),
        np.tile(once.judge, 5), np.repeat(np.arange(5), len(once)), np.tile(once.items, (5, 1)),
    )  # fmt: skip
    plans = plan_contrasts(once.arms)
    for one, other in zip(model_contrasts(once, plans), model_contrasts(many, plans), strict=True):
        assert (one.estimate, one.se) == (pytest.approx(other.estimate), pytest.approx(other.se))


def test_what_cannot_be_modelled_is_a_gap_with_its_reason():
    ratings = study({"Llama": 5.0})
    plans = plan_contrasts(ratings.arms)
    ratings.items[:] = 3.0
    (gap,) = model_contrasts(ratings, plans)
    assert math.isnan(gap.estimate)
    assert gap.problem == "all totals are equal: there is nothing to model"
    ratings = study({"Llama": 5.0})
    ratings.items[ratings.arm == "Llama-tuned"] = np.nan
    (gap,) = model_contrasts(ratings, plans)
    assert "two arms" in gap.problem
    one = study({"Llama": 5.0}, patients=1)
    assert "two patients" in model_contrasts(one, plans)[0].problem


def test_judges_who_share_no_session_are_not_put_into_one_model():
    """One judge for each arm: severity and therapist cannot be told apart."""
    ratings = study({"Llama": 5.0})
    ratings.judge[:] = np.where(ratings.arm == "Llama-tuned", "one", "two")
    plans = plan_contrasts(ratings.arms)
    (gap,) = model_contrasts(ratings, plans)
    assert math.isnan(gap.estimate)
    assert "judges without a common session" in gap.problem
    assert compare(ratings, plans, ratings.total, draws=0)[0].estimate is None


@needs_scores
def test_on_the_2024_scores_models_and_contrasts_agree():
    found = analysis(read_ratings(SCORES), "default", draws=100)
    for contrast, model in zip(found["contrasts"], found["mixed_models"], strict=True):
        assert contrast["id"] == model["id"]
        assert model["estimate"] == pytest.approx(contrast["estimate"], abs=1.0)  # 7 sessions have no score
