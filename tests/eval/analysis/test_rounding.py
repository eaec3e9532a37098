"""What is decided does not depend on the last digits: of another processor, another order of rows, another unit."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from rating_table import rating_table

from cbtrain.errors import UserError
from cbtrain.eval.analysis.agreement.coefficients import halo_draws, icc_draws, kappa_draws, krippendorff_alpha
from cbtrain.eval.analysis.agreement.reliability import reliability
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.analysis.effects import paired_effect
from cbtrain.eval.analysis.mixed_models.contrast_model import mixed_model
from cbtrain.eval.analysis.mixed_models.interaction import interaction
from cbtrain.eval.analysis.mixed_models.random_intercept import fit_mixed
from cbtrain.eval.analysis.mixed_models.reml import fit_reml
from cbtrain.eval.analysis.power.pilot import NoPilot, estimate
from cbtrain.eval.analysis.resampling import sign_flip_p
from cbtrain.eval.analysis.rounding import ROUNDING, alike, at_least, at_most, independent, merged, nought, varying
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.analysis.session_length import length_analysis
from cbtrain.eval.analysis.sessions import SessionOutcome
from cbtrain.eval.judge_audit.findings import shift

pytestmark = pytest.mark.fault("E4")

ARMS = {f"{base}-{kind}": Arm(f"{base}-{kind}", base, kind) for base in "AB" for kind in ("tuned", "instruct")}
PATIENTS = 6


def totals(kind, arm, patient, session):
    """Tenths, which no float64 has exactly."""
    draw = np.random.default_rng(7)
    level, taken = draw.integers(200, 400, PATIENTS), draw.integers(-40, 40, (len(ARMS), PATIENTS))
    noise = draw.integers(-30, 30, (len(ARMS), PATIENTS, 5))
    gain = 7 * (arm % 2 == 0)
    return (
        0.1
        * {
            "patients explain them wholly": level[patient] + gain,
            "sessions differ, arms by one amount": level[patient] + gain + noise[0, patient, session],
            "cells are equal": level[patient] + gain + taken[arm, patient],
            "all are equal": np.full(len(arm), 321),
            "ordinary": level[patient] + gain + taken[arm, patient] + noise[arm, patient, session],
        }[kind]
    )


def study(kind, sessions=2, judges=2, repeats=2):
    shape = (len(ARMS), PATIENTS, sessions, judges, repeats)
    arm, patient, session, judge, repeat = (axis.ravel() for axis in np.indices(shape))
    total = totals(kind, arm, patient, session) + 0.3 * judge * (kind == "ordinary")
    items = np.stack([total / 3, total - total / 3], axis=1)
    names, people = np.array(list(ARMS)), np.array([f"p{number}" for number in range(PATIENTS)])
    return rating_table(tuple("ab"), ARMS, names[arm], people[patient], session, np.array(["j", "k"])[judge],
                        repeat, items)  # fmt: skip


def decisions(ratings):
    """Everything but the figures themselves: which of them there are, and what is said."""
    plans = plan_contrasts(ARMS)
    model = mixed_model(ratings, plans)
    found = [asdict(contrast) for contrast in compare(ratings, plans, ratings.total, draws=20)]
    found += [asdict(contrast) for contrast in model.contrasts]
    found += [model.components and asdict(model.components), asdict(interaction(ratings, plans))]
    found.append(reliability(ratings, plans, 40, 0))
    try:
        pilot = estimate(ratings, plans[0])
        found += [asdict(pilot.spread), pilot.notes, [sd == 0 for sd in asdict(pilot.spread).values()]]
    except NoPilot as problem:
        found.append(str(problem))
    return shape_of(found)


def shape_of(value):
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shape_of(inner) for inner in value]
    if isinstance(value, float):
        return "a number" if math.isfinite(value) else "none"
    return value


def ulps(values, seed=0):
    return values * (1 + np.random.default_rng(seed).choice([-1e-15, 0.0, 1e-15], values.shape))


def other_rows(ratings):
    """Judges are named in the order in which they come: each keeps its rows together."""
    draw = np.random.default_rng(2)
    return ratings.only(np.concatenate([draw.permutation(np.flatnonzero(ratings.judge == name)) for name in "jk"]))


MOVES = {
    "a few ulps": lambda ratings: replace(ratings, items=ulps(ratings.items)),
    "thousandths": lambda ratings: replace(ratings, items=ratings.items * 1e-3),
    "thousands": lambda ratings: replace(ratings, items=ratings.items * 1e3),
    "a tenth": lambda ratings: replace(ratings, items=ratings.items * 0.1),
    "far from zero": lambda ratings: replace(ratings, items=ratings.items + 1e3),
    "other rows": other_rows,
}


KINDS = {
    "patients explain them wholly": (None, "sessions of the same patient and arm all have the same total"),
    "sessions differ, arms by one amount": (None, ""),
    "cells are equal": ("a number", "sessions of the same patient and arm all have the same total"),
    "all are equal": (None, "all totals are equal"),
    "ordinary": ("a number", ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_decided_does_not_depend_on_the_last_digits(kind):
    ratings = study(kind)
    expected = decisions(ratings)
    interval, problem = KINDS[kind]
    assert (expected[0]["ci_low"], problem in expected[5]["problem"]) == (interval, True)
    for name, move in MOVES.items():
        assert decisions(move(ratings)) == expected, name


def likelihood(values, patient, arm, by_arm=True):
    """What is said of a fit, with patients by arm or (by maximum likelihood) without; why there is none."""
    design = (arm[:, None] == np.arange(arm.max() + 1)).astype(float)
    try:
        if by_arm:
            return fit_reml(values, design, ["b", "t"], patient, arm).problem
        return fit_mixed(values, design, ["b", "t"], patient).problem
    except ValueError as error:
        return str(error)


WHOLE = np.random.default_rng(0).normal(30, 5, 6)
NO_RESIDUAL = "the residual variance is at its boundary of zero"
MODELS = {
    "patients explain all": (np.stack([WHOLE, WHOLE + 11.0], axis=1), (6, 2, 1), [NO_RESIDUAL] * 2),
    "a residual of a thousandth": (np.stack([WHOLE, WHOLE + 11.0 + 0.03 * np.arange(6)], axis=1), (6, 2, 1), [""] * 2),
    # Whole numbers on which a search of the likelihood from any one place ended here or there, or said it had not.
    "two hills": (
        [27, 27, 30, 27, 23, 24, 27, 27, 33, 37, 35, 36, 30, 29, 30, 29], (4, 2, 2), ["", ""],
    ),
    "zero without a slope": (
        [28, 24, 24, 26, 27, 28, 27, 26, 26, 28, 26, 25], (3, 2, 2),
        ["the variance of patients by arm is at its boundary of zero", "the patients' variance is at its boundary of zero"],
    ),
    "a search that gave up": ([33, 33, 35, 35, 36, 36, 32, 34, 32, 34, 29, 29], (3, 2, 2), ["", ""]),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_whether_there_is_a_model_does_not_depend_on_the_last_digits(name):
    values, shape, expected = MODELS[name]
    values = np.asarray(values, dtype=float).ravel()
    patient, arm, _ = (axis.ravel() for axis in np.indices(shape))
    order = np.random.default_rng(3).permutation(len(values))
    tries = [values, ulps(values, 1), ulps(values, 2), values * 1e-3, values * 1e3, values + 1000]
    for moved in tries:
        assert likelihood(moved, patient, arm) == expected[0]
    assert likelihood(values[order], patient[order], arm[order]) == expected[0]
    for moved in (values, ulps(values)):
        assert likelihood(moved, patient, arm, by_arm=False) == expected[1]


def test_a_patients_level_and_what_an_arm_does_for_it_are_one_where_none_has_two_arms():
    patient = np.repeat(np.arange(8), 3)
    arm = patient % 2
    draw = np.random.default_rng(0)
    values = 30 + draw.normal(0, 3, 8)[patient] + draw.normal(0, 2, 24)
    found = fit_reml(values, np.stack([1.0 - arm, arm], axis=1), ["b", "t"], patient, arm)
    assert (found.components.by_arm, found.problem) == (None, "")
    # The analysis of variance of a nested design has the same in numbers.
    means = values.reshape(8, 3).mean(axis=1)
    residual = values.reshape(8, 3).var(axis=1, ddof=1).mean()
    between = np.mean([means[arm[::3] == one].var(ddof=1) for one in (0, 1)])
    assert found.components.residual == pytest.approx(residual)
    assert found.components.patients == pytest.approx(between - residual / 3)


def test_the_tolerance_lies_between_rounding_and_data():
    """A mean of ten thousand scores on the one side, a point in a hundred ratings of a hundred points on the other."""
    scores = np.full(10_000, 0.1)
    spread = np.array([scores.sum() / 10_000, 0.1, np.cumsum(scores)[-1] / 10_000])
    assert np.ptp(spread) > 0
    assert alike(spread)
    assert not alike(np.array([50.0, 50.01]))
    assert not alike(np.array([1e-5, 2e-5]))
    assert alike(np.array([1e-14, 0.0]), size=66.0)
    assert nought(0.1 + 0.2 - 0.3, size=0.3)
    assert not nought(1e-4, size=66.0)
    assert varying(np.array([[1.0, 0.3], [2.0, 0.1 + 0.2]])).tolist() == [True, False]
    assert at_least(np.array([0.3, 0.1 + 0.2, 0.2999]), 0.3).tolist() == [True, True, False]
    assert at_most(np.array([0.3, 0.1 + 0.2, 0.3001]), 0.3).tolist() == [True, True, False]
    assert len(set(merged(np.array([0.3, 0.1 + 0.2, 0.4, 0.2])))) == 3
    assert np.isnan(merged(np.array([np.nan, 1.0]))).tolist() == [True, False]
    third = np.arange(6.0) / 3
    assert not independent(np.stack([np.ones(6), third, 1e6 * (third + 0.1)], axis=1))
    assert independent(np.stack([np.ones(6), third, 1e6 * (third + 0.1) + (np.arange(6) == 2)], axis=1))
    assert ROUNDING == 1e-9


def test_signs_whose_sums_are_equal_are_equal():
    """The observed sum is 0, and rounding puts some assignments of signs above it and some below."""
    values = np.array([0.1, 0.2, -0.3, 0.6, -0.6])
    assert sum(values.tolist()) != 0
    assert sign_flip_p(values) == sign_flip_p(values[::-1]) == sign_flip_p(values * 1e3) == 1.0
    assert sign_flip_p(np.array([0.1 + 0.2 - 0.3, 1.0, 2.0, 3.0]), size=30.0) == sign_flip_p(np.array([1.0, 2.0, 3.0]))


def test_resamples_in_which_nothing_varies_have_no_coefficient():
    """A variance of them, as a difference of squares, is not 0."""
    items = np.array([[1.1, 2.3, 3.1], [1.1, 0.7, 2.9], [4.3, 1.9, 0.3], [1.1, 2.3, 3.3]])
    draws = np.array([[1.0, 1, 1, 1], [2, 1, 0, 1], [4, 0, 0, 0]])
    _, mean_r, shares = halo_draws(items, draws)
    assert np.isfinite(mean_r).tolist() == np.isfinite(shares[:, 0]).tolist() == [True, False, False]
    raters = np.array([[1.1, 1.3], [1.1, 1.3], [2.7, 2.9], [0.3, 0.3]])
    draws = np.array([[1.0, 1, 1, 1], [2, 2, 0, 0], [0, 0, 0, 4]])
    single, _, consistency = icc_draws(raters, draws)
    assert np.isfinite(single).tolist() == [True, True, False]
    assert np.isfinite(consistency).tolist() == [True, False, False]
    assert np.isfinite(kappa_draws(raters, draws)).tolist() == [True, True, False]


def test_totals_that_are_equal_have_one_rank_and_lengths_that_are_equally_close_one_pairing():
    """Turns of 2, 4, 8 and 16 are equally far apart in logarithms, crossed or not."""
    ratings = study("sessions differ, arms by one amount", sessions=4, judges=1, repeats=1)
    facts = {
        key: SessionOutcome(2 ** (1 + (key[2] + (key[0] == "A-tuned")) % 4), 9, "", False) for key in ratings.sessions
    }
    plans = plan_contrasts(ARMS)[:1]
    first, *others = (length_analysis(moved, facts, plans, 20, 0) for moved in
                      (ratings, MOVES["a few ulps"](ratings), MOVES["thousands"](ratings)))  # fmt: skip
    for other in others:
        assert shape_of(asdict(other)) == shape_of(asdict(first))
        assert other.spearman.r == first.spearman.r


def test_levels_of_ordinal_scores_are_those_of_the_data():
    one, other = np.array([0.3, 0.4, 0.3, 0.6]), np.array([0.1 + 0.2, 0.4, 0.4, 0.6])
    assert krippendorff_alpha(np.stack([one, other], axis=1)) == krippendorff_alpha(
        np.stack([one, other.round(1)], axis=1)
    )


def test_effects_have_an_interval_where_scipy_has_no_number():
    for values in ([-9.0, -8.0], [8.0, 9.0]):
        found = paired_effect(np.array(values))
        assert found.d_z_low < found.d_z < found.d_z_high
    assert math.isnan(paired_effect(np.array([0.7, 7.7 - 7.0]), size=7.7).d_z)


def test_a_shift_by_the_margin_itself_is_within_it():
    """Every copy has a tenth more than its original, or less, and the margin is a tenth."""
    before = np.arange(1, 13) / 10
    pairs = {sign: [(f"p{n % 6}", one, one + sign * 0.1) for n, one in enumerate(before)] for sign in (1, -1)}
    assert len({after - one for _, one, after in pairs[1]}) > 1
    for move in (1.0, 1 + 1e-15, 1 - 1e-15):
        moved = {sign: [(who, one * move, after) for who, one, after in own] for sign, own in pairs.items()}
        assert shift("m", "same", moved[1], 0.1).verdict == "as expected"
        assert shift("m", "falls", moved[-1], 0.1).verdict == "as expected"


@pytest.mark.parametrize("offset", [0, 1e4, 1e6, 1e8, 1e11])
def test_differences_at_an_offset_are_seen_or_the_table_is_refused(offset, tmp_path):
    base, gain = [2, 0, 1, 0, 2, 2, 1, 1], [1, 2, 1, 2, 1, -1, 0, 2]
    rows = [f"b{p},base,p{p},0,j,0,ok,{offset + x:.0f}," for p, x in enumerate(base)]
    rows += [f"t{p},tuned,p{p},0,j,0,ok,{offset + x + d:.0f}," for p, (x, d) in enumerate(zip(base, gain, strict=True))]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(["session_id,arm,patient,seed,judge,repeat,status,x,total", *rows]))
    if offset > 1e5:
        with pytest.raises(UserError, match=r"scores for x lie between .*: subtract the same number from all"):
            read_ratings(path)
        return
    ratings = read_ratings(path)
    (contrast,) = compare(ratings, plan_contrasts(ratings.arms), ratings.total, draws=20)
    assert (contrast.estimate, contrast.p > 0.03) == (1.0, True)
    assert (contrast.ci_low < 0.2, contrast.ci_high > 1.8) == (True, True)
