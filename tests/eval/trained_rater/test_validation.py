"""No figure of a validation has seen what it is about."""

import numpy as np
import pytest
from planted_sessions import examples, instrument, planted
from scipy import stats

from cbtrain.eval.rating.keying import Keying
from cbtrain.eval.trained_rater.validation import PREDICTORS, out_of_fold, validate


@pytest.fixture(scope="module")
def sound():
    return examples(*planted())


def figures(found, given=None):
    return {(row["score"], row["predictor"]): row for row in validate(found, given or instrument())}


def with_scores(found, scores):
    return examples_like(found, scores=scores)


def examples_like(found, **changed):
    kept = {name: getattr(found, name) for name in type(found).__dataclass_fields__}
    return type(found)(**{**kept, **changed})


def test_what_the_scores_follow_from_is_found_in_patients_and_arms_that_were_left_out(sound):
    found = figures(sound)
    for name in ("patients", "arms", "both"):
        assert found["total", name]["r"] > 0.85
        assert found["total", name]["ci_low"] < found["total", name]["r"] < found["total", name]["ci_high"]
        assert found["total", name]["slope"] == pytest.approx(1, abs=0.15)
        assert found["homework", name]["r2"] > 0.7
    assert found["total", "length"]["r"] < 0.8
    expected = stats.spearmanr(sound.turns, sound.scores.sum(axis=1).round(6)).statistic
    assert found["total", "length"]["r"] == pytest.approx(expected)
    assert abs(found["total", "arm_mean"]["r"]) < 0.5
    assert {name for _, name in found} == {name for name in PREDICTORS if "cue" not in name}


def test_scores_that_are_shuffled_are_not_predicted(sound):
    order = np.random.default_rng(1).permutation(len(sound))
    found = figures(with_scores(sound, sound.scores[order]))
    assert max(found["total", name]["r"] for name in ("patients", "arms", "both")) < 0.25


def test_a_left_out_group_decides_nothing_about_its_own_scores(sound):
    """Neither the fit, nor the standardization, nor the choice of the penalty sees it."""
    for groups, other in ((sound.patient, None), (sound.arm, None), (sound.patient, sound.arm)):
        left_out = [groups] if other is None else [groups, other]
        mine = np.logical_and.reduce([column == column[0] for column in left_out])
        share = np.logical_or.reduce([column == column[0] for column in left_out])
        before = out_of_fold(sound, instrument(), *left_out)
        scores, features = sound.scores.copy(), sound.features.copy()
        scores[share] = 6 - scores[share] * np.random.default_rng(0).uniform(0, 1, scores[share].shape)
        features[share & ~mine] += 100.0
        after = out_of_fold(examples_like(sound, scores=scores, features=features), instrument(), *left_out)
        assert (before[mine] == after[mine]).all()
        assert (before[~share] != after[~share]).any()


def test_who_the_patient_is_helps_nobody_with_another_patient(sound):
    """Scores that follow from the patient alone, and a feature that names the patient."""
    number = np.unique(sound.patient, return_inverse=True)[1]
    level = np.array([1.0, 5.0, 2.0, 4.0, 0.0, 6.0])[number]
    noise = np.random.default_rng(0).normal(0, 0.01, (len(sound), 2))
    names = np.column_stack([sound.features, np.eye(6)[number]])
    found = figures(examples_like(sound, scores=np.clip(level[:, None] + noise, 0, 6), features=names))
    assert found["total", "patients"]["r"] < 0
    assert found["total", "arms"]["r"] > 0.8


def test_totals_are_keyed_and_items_are_as_raters_give_them(sound):
    keying = Keying({"evidence": 6.0}, {"evidence": 2.0})
    scores = np.column_stack([sound.scores[:, 0], 6 - sound.scores[:, 1]])
    found, plain = figures(with_scores(sound, scores), instrument(keying)), figures(sound)
    assert instrument(keying).totals(scores) == pytest.approx(sound.scores[:, 0] + 2 * sound.scores[:, 1])
    assert found["evidence", "length"]["r"] == pytest.approx(-plain["evidence", "length"]["r"])
    assert found["total", "patients"]["r"] > 0.85
