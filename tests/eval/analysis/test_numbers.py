"""Agreement, effects and resampling: published examples, known answers, and the 2024 study's scores."""

import math
from itertools import product

import numpy as np
import pytest
from places import SCORES2024, needs_scores
from scipy import stats

from cbtrain.eval.analysis.agreement.coefficients import halo, icc, krippendorff_alpha, quadratic_kappa
from cbtrain.eval.analysis.effects import paired_effect
from cbtrain.eval.analysis.resampling import hierarchical_bootstrap, holm, percentile_interval, sign_flip_p
from cbtrain.eval.analysis.score_tables import read_ratings

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
"""Six targets, four judges: table 2 of Shrout and Fleiss (1979)."""

GAP = math.nan
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, GAP, GAP, GAP],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, GAP, 3],
        [GAP, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, GAP],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, GAP],
    ]
).T
"""Twelve units, four observers: the example of Krippendorff (2011)."""


def test_intraclass_correlations_are_those_of_the_textbook():
    found = icc(SHROUT_FLEISS)
    assert (f"{found.single:.2f}", f"{found.mean:.2f}", f"{found.consistency:.2f}") == ("0.29", "0.62", "0.71")
    assert math.isnan(icc(np.full((3, 2), 4)).single)
    with pytest.raises(ValueError, match="two sessions"):
        icc(np.array([[1.0, math.nan], [2.0, 3.0]]))


def test_krippendorffs_alpha_is_that_of_its_author():
    assert f"{krippendorff_alpha(KRIPPENDORFF):.3f}" == "0.815"
    assert krippendorff_alpha(np.array([[1, 1], [2, 2], [3, 3]])) == 1.0
    assert math.isnan(krippendorff_alpha(np.full((4, 2), 3)))
    assert math.isnan(krippendorff_alpha(np.array([[1, GAP], [GAP, 2]])))


def test_quadratic_kappa_by_cohens_own_table():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 7, 50)
    other = np.clip(one + rng.integers(-2, 3, 50), 0, 6)
    table = np.zeros((7, 7))
    np.add.at(table, (one, other), 1 / 50)
    weights = (np.arange(7)[:, None] - np.arange(7)) ** 2
    chance = np.outer(table.sum(axis=1), table.sum(axis=0))
    assert quadratic_kappa(one, other) == pytest.approx(1 - (weights * table).sum() / (weights * chance).sum())
    assert quadratic_kappa(one, one) == 1.0
    assert math.isnan(quadratic_kappa(np.full(5, 3), np.full(5, 3)))


def test_effects_have_the_intervals_that_the_noncentral_t_gives():
    differences = np.array([15.42, 7.97, 8.74, 12.97, 11.03])
    found = paired_effect(differences)
    d = differences.mean() / differences.std(ddof=1)
    assert found.d_z == pytest.approx(d)
    t = d * math.sqrt(5)
    assert stats.nct.sf(t, 4, found.d_z_low * math.sqrt(5)) == pytest.approx(0.025)
    assert stats.nct.cdf(t, 4, found.d_z_high * math.sqrt(5)) == pytest.approx(0.025)
    # Hedges' factor is close to 1 - 3 / (4 df - 1).
    assert found.hedges_g / found.d_z == pytest.approx(1 - 3 / (4 * 4 - 1), abs=0.005)
    assert math.isnan(paired_effect(np.full(4, 2.0)).d_z)
    with pytest.raises(ValueError, match="two patients"):
        paired_effect(np.array([1.0]))


def test_signs_are_flipped_exactly():
    rng = np.random.default_rng(1)
    for n in (3, 6, 9):
        values = rng.normal(0.6, 1, n)
        flips = [abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=n)]
        by_hand = np.mean([flip >= abs(values.sum()) - 1e-12 for flip in flips])
        assert sign_flip_p(values) == pytest.approx(by_hand)
    assert sign_flip_p(np.array([15.42, 7.97, 8.74, 12.97, 11.03])) == 2 / 2**5  # it cannot be lower
    assert math.isnan(sign_flip_p(np.zeros(4)))
    many = rng.normal(0.3, 1, 40)
    scipys = stats.permutation_test((many,), np.mean, permutation_type="samples", n_resamples=20_000, rng=2).pvalue
    assert sign_flip_p(many, draws=20_000) == pytest.approx(scipys, abs=0.01)


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(3)
    for count in (1, 2, 11):
        p = rng.uniform(0, 0.2, count)
        assert holm(list(p)) == pytest.approx(multitest.multipletests(p, method="holm")[1])
    assert holm([0.01, math.nan, 0.04]) == [0.02, pytest.approx(math.nan, nan_ok=True), 0.04]


def test_the_bootstrap_is_deterministic_and_of_two_levels():
    groups = [np.array([1.0, 1.0, 1.0]), np.array([5.0])]
    draws = hierarchical_bootstrap(groups, 4000, seed=1)
    assert (draws == hierarchical_bootstrap(groups, 4000, seed=1)).all()
    assert set(draws) == {1.0, 3.0, 5.0}  # patients weigh alike, values do not vary
    assert set(hierarchical_bootstrap(groups, 4000, by_patient=False)) == {1.0, 2.0, 5.0}
    one = hierarchical_bootstrap([np.arange(50.0)], 4000)
    assert one.std() == pytest.approx(np.arange(50.0).std() / math.sqrt(50), rel=0.05)
    with pytest.raises(ValueError, match="needs a value"):
        hierarchical_bootstrap([np.array([])])


@needs_scores
def test_the_studys_differences_by_patient():
    ratings = read_ratings(SCORES2024)
    total = {}
    for row, value in enumerate(ratings.total):
        arm = ratings.arms[ratings.arm[row]]
        total[arm.base, arm.variant, str(ratings.patient[row]), int(ratings.session[row])] = value
    pairs = {}
    for (base, variant, patient, session), value in total.items():
        other = total.get((base, "instruct", patient, session))
        if variant == "tuned" and other is not None:
            pairs.setdefault(base, {}).setdefault(patient, []).append(value - other)
    pooled = {p: np.concatenate([pairs[b][p] for b in pairs]) for p in pairs["Llama"]}
    assert {p.split()[0]: f"{values.mean():.2f}" for p, values in pooled.items()} == {
        **{"Alicia": "15.42", "Derek": "7.97", "Marcus": "8.74", "Naomi": "12.97", "Samantha": "11.03"}
    }
    whole = np.concatenate(list(pooled.values()))
    assert (len(whole), f"{whole.mean():.2f}", f"{whole.std(ddof=1):.2f}") == (293, "11.21", "14.72")
    published = {"Llama": (4.26, 11.92), "Mistral": (10.91, 22.74), "Qwen": (5.62, 13.11)}
    for base, interval in published.items():
        groups = [np.array(values) for values in pairs[base].values()]
        found = percentile_interval(hierarchical_bootstrap(groups, 20_000, by_patient=False))
        assert found == pytest.approx(interval, abs=0.25)  # another generator
    found = halo(ratings.items)
    assert (f"{found.alpha:.3f}", f"{found.mean_r:.3f}") == ("0.909", "0.514")
    assert [f"{share:.3f}" for share in found.shares[:3]] == ["0.566", "0.092", "0.081"]
