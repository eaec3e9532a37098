"""Subgroups, tests of variation and trends: known effects are found, and what does not vary is found in 5 %."""

from dataclasses import replace

import numpy as np
import pytest
from analyzed import random_ratings
from course_study import NUMBERS, PAIR, course_ratings
from scipy import stats

from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.subgroups import subgroups
from cbtrain.eval.analysis.trend import by_phase, trend
from cbtrain.eval.analysis.variation import between_patients, within_patients

GAINS = {"mild": 2.0, "moderate": 6.0, "severe": 10.0}


def found(ratings, seed=0):
    return subgroups(ratings, plan_contrasts(ratings.arms), seed)


def test_known_effects_of_subgroups_are_recovered():
    def gain(patient, number, simulator):
        return GAINS[patient["severity"]] + 0.25 * number - 3 * (simulator == "qwen")

    result = found(course_ratings(patients=24, gain=gain, noise=1.0))
    rows = {(row.factor, row.level): row for row in result.rows}
    over_numbers = 0.25 * np.mean(NUMBERS) - 1.5
    for level, points in GAINS.items():
        assert rows["severity", level].estimate == pytest.approx(points + over_numbers, abs=0.5)
        assert (rows["severity", level].patients, rows["severity", level].pairs) == (8, 64)
    mean = np.mean(list(GAINS.values()))
    phases = ("assessment", "initial", "middle", "termination")
    for phase, number in zip(phases, NUMBERS, strict=True):
        assert rows["phase", phase].estimate == pytest.approx(mean + 0.25 * number - 1.5, abs=0.6)
        assert (rows["phase", phase].patients, rows["phase", phase].pairs) == (24, 48)
    assert rows["simulator", "gpt"].estimate - rows["simulator", "qwen"].estimate == pytest.approx(3, abs=0.5)
    p = {test.factor: test.p_adjusted for test in result.variation}
    assert max(p["severity"], p["phase"], p["simulator"]) < 0.01
    assert p["engagement"] > 0.05
    assert (result.estimates, result.tests) == (12, 4)
    assert result.note.startswith("exploratory: 12 subgroup estimates and 4 tests")


def test_intervals_are_scipys_and_pairs_mix_neither_phases_nor_simulators():
    ratings = course_ratings(patients=7, numbers=(2, 9), judges=2)
    total = {key: [] for key in ratings.sessions}
    for key, value in zip(ratings.sessions, ratings.total, strict=True):
        total[key].append(value)
    by_hand = {}
    for (arm, patient, slot), values in total.items():
        if arm == "llama-tuned":
            by_hand[patient, slot] = np.mean(values) - np.mean(total["llama-instruct", patient, slot])
    cells = {
        (key[1], key[2]): place for key, *place in zip(ratings.sessions, ratings.number, ratings.simulator, strict=True)
    }
    for factor, place, level, value in (("phase", 0, "middle", 9), ("simulator", 1, "qwen", "qwen")):
        means = [
            np.mean([d for (p, s), d in by_hand.items() if p == patient and cells[p, s][place] == value])
            for patient in sorted({patient for patient, _ in by_hand})
        ]
        row = next(row for row in found(ratings).rows if (row.factor, row.level) == (factor, level))
        interval = stats.ttest_1samp(means, 0).confidence_interval()
        assert (row.estimate, row.ci_low, row.ci_high) == pytest.approx((np.mean(means), *interval))
    two = next(test for test in found(ratings).variation if test.factor == "simulator")
    levels = [
        [np.mean([d for (p, s), d in by_hand.items() if p == patient and cells[p, s][1] == name]) for name in ("gpt", "qwen")]
        for patient in sorted({patient for patient, _ in by_hand})
    ]  # fmt: skip
    assert two.p == pytest.approx(stats.ttest_rel(*zip(*levels, strict=True)).pvalue)
    # Without the other arm's sessions in one phase, that phase has no pair, whatever other phases have.
    lost = ratings.only(~((ratings.arm == "llama-tuned") & (ratings.number == 2)))
    gone = next(row for row in found(lost).rows if (row.factor, row.level) == ("phase", "assessment"))
    assert (gone.pairs, gone.estimate, gone.note) == (0, None, "no pair of sessions to compare")


def test_permuted_labels_reject_a_true_null_in_five_percent():
    """Skewed differences, groups of unequal size: the permutations assume neither."""
    random = np.random.default_rng(3)
    levels = np.array([0] * 8 + [1] * 5 + [2] * 2)
    p = [between_patients(random.exponential(4, 15), levels, 40).p for _ in range(400)]
    rejected = np.mean(np.array(p) < 0.05)
    assert 0.02 < rejected < 0.085  # binomial, 99.9 %
    within = [within_patients(random.normal(0, 3, (8, 4)) + random.normal(0, 9, (8, 1)), 40).p for _ in range(400)]
    assert 0.02 < np.mean(np.array(within) < 0.05) < 0.085


def test_the_statistic_is_f_and_few_patients_are_permuted_exactly():
    random = np.random.default_rng(1)
    values, levels = random.normal(0, 1, 6), np.array([0, 0, 0, 1, 1, 1])
    found_f = between_patients(values, levels, 10)
    f = stats.f_oneway(values[:3], values[3:])
    assert (found_f.statistic, found_f.df) == (pytest.approx(f.statistic), (1, 4))
    exact = stats.permutation_test(
        (values[:3], values[3:]), lambda x, y: abs(np.mean(x) - np.mean(y)), n_resamples=np.inf, alternative="greater"
    )
    assert found_f.p == pytest.approx(exact.pvalue)
    order = np.random.default_rng(2).permutation(30)
    many, groups = random.normal(0, 1, 30), np.arange(30) % 3
    assert between_patients(many, groups, 10).p == between_patients(many[order], groups[order], 10).p
    scipys = stats.permutation_test([many[groups == g] for g in range(3)], lambda *a: stats.f_oneway(*a).statistic,
                                    n_resamples=400, alternative="greater", rng=5)  # fmt: skip
    assert between_patients(many, groups, 10).p == pytest.approx(scipys.pvalue, abs=0.07)


def test_what_cannot_be_said_is_said():
    ratings = course_ratings(patients=4, numbers=(1,), simulators=("",), noise=0.0)
    result = found(ratings)
    rows = {(row.factor, row.level): row for row in result.rows}
    assert {factor for factor, _ in rows} == {"severity", "engagement"}
    assert rows["severity", "moderate"].note == "fewer than two patients: no interval"
    assert rows["severity", "moderate"].estimate == pytest.approx(5)
    assert (rows["severity", "moderate"].ci_low, rows["severity", "mild"].ci_low) == (None, None)
    assert {test.problem for test in result.variation} == {"fewer than two levels have two patients"}
    assert result.tests == 0
    few = found(course_ratings(patients=3))
    phase = next(test for test in few.variation if test.factor == "phase")
    assert phase.problem == "3 patients have pairs at every level, and the test needs 4"


def test_trends_and_phases():
    ratings = course_ratings(gain=lambda patient, number, simulator: 0.5 * number, noise=0.5)
    result = trend(ratings, plan_contrasts(ratings.arms))
    instruct, tuned = result.arms
    assert (instruct.slope, tuned.slope) == (pytest.approx(0, abs=0.05), pytest.approx(0.5, abs=0.05))
    (contrast,) = result.contrasts
    assert contrast.ci_low < 0.5 < contrast.ci_high
    own = ratings.only((ratings.patient == "p03") & (ratings.arm == "llama-tuned"))
    of_instruct = ratings.only((ratings.patient == "p03") & (ratings.arm == "llama-instruct"))
    slopes = [stats.linregress(one.number, one.total).slope for one in (own, of_instruct)]
    assert contrast.patients["p03"] == pytest.approx(slopes[0] - slopes[1])
    by_hand = [stats.linregress((one := ratings.only((ratings.patient == p) & (ratings.arm == "llama-tuned"))).number,
                                one.total).slope for p in sorted(set(ratings.patient))]  # fmt: skip
    interval = stats.ttest_1samp(by_hand, 0).confidence_interval()
    assert (tuned.slope, tuned.ci_low, tuned.ci_high) == pytest.approx((np.mean(by_hand), *interval))
    rows = by_phase(ratings)
    assert [(row.name, row.phase) for row in rows][:2] == [
        ("llama-instruct", "assessment"),
        ("llama-instruct", "initial"),
    ]
    middle = ratings.total[(ratings.arm == "llama-tuned") & (ratings.number == 8)]
    row = next(row for row in rows if (row.name, row.phase) == ("llama-tuned", "middle"))
    assert (row.n, row.patients, row.mean, row.sd) == (
        24,
        12,
        pytest.approx(middle.mean()),
        pytest.approx(middle.std(ddof=1)),
    )
    assert trend(course_ratings(numbers=(1, 4)), plan_contrasts(ratings.arms)) is None
    assert by_phase(course_ratings(numbers=(1, 2))) == []


def test_tables_without_courses_are_analysed_as_before():
    arms = [Arm(f"{base}-{kind}", base, kind) for base in ("A", "B") for kind in ("instruct", "tuned")]
    plain = analysis(random_ratings(arms, 5, 2), "default", draws=50)
    assert [plain[key] for key in ("subgroups", "by_phase", "trend")] == [None, [], None]


def test_columns_change_no_other_figure():
    ratings = course_ratings(PAIR, 6, numbers=(1, 4), judges=2)
    known = analysis(ratings, "default", draws=50)
    order = np.argsort(ratings.session, kind="stable")
    shuffled = analysis(ratings.only(order[::-1]), "default", draws=50)
    assert shuffled["subgroups"]["variation"] == known["subgroups"]["variation"]
    bare = analysis(replace(ratings, moderators={}), "default", draws=50)
    assert {key for key in known if known[key] != bare[key]} == {"subgroups"}
    assert {row["factor"] for row in bare["subgroups"]["rows"]} == {"phase", "simulator"}
