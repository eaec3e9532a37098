"""Ridge regression, its folds, and rank correlations of resamples."""

import numpy as np
import pytest
from scipy import stats

from cbtrain.eval.trained_rater.rank_correlation import interval, spearman, spearman_draws, within_groups
from cbtrain.eval.trained_rater.ridge import PENALTIES, fit_ridge, fit_with_choice, folds_of


def data(rows=40, features=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (rows, features)) * rng.uniform(0.1, 50, features)
    return x, np.column_stack([x @ rng.normal(size=features) + rng.normal(size=rows), rng.normal(size=rows)]), rng


def test_it_is_the_least_squares_solution_of_the_augmented_system():
    x, y, rng = data()
    penalty = np.array([0.3, 2.0])
    fit = fit_ridge(x, y, penalty)
    new = rng.uniform(x.min(axis=0), x.max(axis=0), (5, 6))
    z, new_z = ((values - x.mean(axis=0)) / x.std(axis=0) for values in (x, new))
    for place in range(2):
        augmented = np.vstack([z, np.sqrt(len(x) * penalty[place]) * np.eye(6)])
        target = np.concatenate([y[:, place] - y[:, place].mean(), np.zeros(6)])
        coefficients = np.linalg.lstsq(augmented, target, rcond=None)[0]
        assert fit.coefficients[place] == pytest.approx(coefficients)
        assert fit.predict(new)[:, place] == pytest.approx(new_z @ coefficients + y[:, place].mean())


def test_features_that_do_not_vary_count_for_nothing_and_none_is_extrapolated():
    x, y, _ = data()
    x[:, 2] = 7.0
    fit = fit_ridge(x, y, np.array([0.1, 0.1]))
    assert (fit.coefficients[:, 2] == 0).all()
    outside = x[:1].copy()
    outside[0, 2] = 1e9
    assert fit.predict(outside) == pytest.approx(fit.predict(x[:1]))
    beyond = np.where(np.arange(6) == 0, 1e9, x[:1])
    at_most = np.where(np.arange(6) == 0, x[:, 0].max(), x[:1])
    assert fit.predict(beyond) == pytest.approx(fit.predict(at_most))


def test_noise_gets_a_large_penalty_and_a_signal_a_small_one():
    x, y, _ = data(rows=60, seed=1)
    groups = np.repeat([f"p{number}" for number in range(6)], 10)
    signal, noise = fit_with_choice(x, y, groups).penalty
    assert signal <= 0.01
    assert noise == PENALTIES[-1]
    assert fit_with_choice(x, y, np.full(60, "one")).penalty.tolist() == [PENALTIES[-1]] * 2


def test_folds_hold_whole_groups_whatever_the_order():
    groups = np.repeat([f"p{number}" for number in range(13)], range(1, 14))
    folds = folds_of(groups, 5)
    assert len(folds) == 5
    assert (sum(fold.astype(int) for fold in folds) == 1).all()
    assert all(len({fold[row] for row in np.flatnonzero(groups == name)}) == 1 for name in groups for fold in folds)
    assert max(fold.sum() for fold in folds) - min(fold.sum() for fold in folds) <= 3
    order = np.random.default_rng(1).permutation(len(groups))
    assert all((fold[order] == again).all() for fold, again in zip(folds, folds_of(groups[order], 5), strict=True))
    assert len(folds_of(groups, 20)) == 13


def test_rank_correlations_are_scipys_with_ties_and_in_resamples():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 8, 50).astype(float), rng.integers(0, 5, 50).astype(float)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    drawn = rng.integers(0, 50, (4, 50))
    weights = np.array([np.bincount(rows, minlength=50) for rows in drawn], dtype=float)
    expected = [stats.spearmanr(x[rows], y[rows]).statistic for rows in drawn]
    assert spearman_draws(x, y, weights) == pytest.approx(expected)
    assert np.isnan(spearman(np.ones(9), np.arange(9.0)))
    assert spearman(np.arange(9.0) / 3 + 1e-14, np.arange(9.0)) == 1.0


def test_within_groups_no_difference_between_them_counts():
    level, noise = np.repeat([0.0, 100.0], 20), np.random.default_rng(3).normal(size=(2, 40))
    groups = np.repeat(["a", "b"], 20)
    x, y = level + noise[0], level + noise[1]
    assert spearman(x, y) > 0.7
    of_each = [stats.spearmanr(x[rows], y[rows]).statistic for rows in (slice(0, 20), slice(20, 40))]
    assert within_groups(x, y, groups) == pytest.approx(np.mean(of_each))
    low, high = interval(x, y, np.array([f"p{row % 8}" for row in range(40)]), 500, 0)
    assert low < spearman(x, y) < high
