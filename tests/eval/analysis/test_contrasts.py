"""Planned contrasts by patient: the 2024 study's figures, and what is told where figures cannot be given."""

import math

import numpy as np
import pytest
from places import SCORES2024, needs_scores
from scipy import stats

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.rating.scores import Score, write_scores_csv


def table(tmp_path, rows):
    """Ratings of (arm, patient, seed, total), a total of None being no score."""
    scores = [
        Score(
            session_id=f"{p}.{arm}.{seed}",
            arm=arm,
            patient=p,
            seed=seed,
            judge="j",
            repeat=0,
            status="ok",
            domains={"agenda": value},
        )
        for arm, p, seed, value in rows
    ]
    write_scores_csv(scores, tmp_path / "scores.csv")
    return read_ratings(tmp_path / "scores.csv")


@needs_scores
def test_the_studys_contrasts():
    ratings = read_ratings(SCORES2024)
    found = {contrast.id: contrast for contrast in compare(ratings, plan_contrasts(ratings.arms), ratings.total)}
    assert list(found) == [
        *(f"{base}: tuned − instruct" for base in ("Llama", "Mistral", "Qwen")),
        "all bases: tuned − instruct",
        *("tuned: Llama − Mistral", "tuned: Llama − Qwen", "tuned: Mistral − Qwen"),
    ]
    for base, interval, p in (("Llama", (3.2, 12.9), ".0099"), ("Mistral", (8.6, 25.0), ".0046"), ("Qwen", (4.4, 13.9), ".0058")):  # fmt: skip
        one = found[f"{base}: tuned − instruct"]
        assert (round(one.ci_low, 1), round(one.ci_high, 1)) == interval
        assert f"{one.p:.4f}".lstrip("0") == p
        assert one.bootstrap_low < one.estimate < one.bootstrap_high
        assert one.p_sign_flip == 2 / 2**5
        assert one.notes[-2:] == [
            "5 patients: a sign-flip test cannot give p below 0.0625",
            "5 patients: bootstrap and mixed-model intervals are too narrow; report the t interval",
        ]
    assert found["Mistral: tuned − instruct"].pairs == 93
    assert "left out: 7 of" in found["Mistral: tuned − instruct"].notes[0]
    tuned = [found[name].p for name in found if name.startswith("tuned: ")]
    assert [round(p, 2) for p in tuned] == [0.08, 0.11, 0.93]
    assert found["tuned: Llama − Qwen"].estimate == pytest.approx(3.58)
    # Holm inside the family of three.
    assert found["Mistral: tuned − instruct"].p_adjusted == pytest.approx(3 * found["Mistral: tuned − instruct"].p)
    pooled = found["all bases: tuned − instruct"]
    t = pooled.estimate / pooled.se
    assert (f"{t:.3f}", f"{pooled.p:.4f}", pooled.pairs) == ("8.202", "0.0012", 293)
    assert pooled.p_adjusted == pooled.p


def test_the_patient_is_the_unit(tmp_path):
    """Many sessions of a few patients are a few patients."""
    rng = np.random.default_rng(0)
    effects = [1.0, 4.0, -2.0, 3.0, 5.0, 2.0, 0.5]
    rows = []
    for n, effect in enumerate(effects):
        for seed in range(20):
            level = rng.normal(30, 5)
            rows += [("tuned", f"p{n}", seed, level + effect), ("base", f"p{n}", seed, level)]
    (found,) = compare(ratings := table(tmp_path, rows), plan_contrasts(ratings.arms), ratings.total)
    assert (found.id, found.family, found.pairs) == ("tuned − base", "tuning", 140)
    expected = stats.ttest_1samp(effects, 0)
    assert (found.estimate, found.p) == (
        pytest.approx(np.mean(effects), abs=1e-3),
        pytest.approx(expected.pvalue, rel=1e-3),
    )
    interval = expected.confidence_interval()
    assert (found.ci_low, found.ci_high) == (
        pytest.approx(interval.low, abs=1e-3),
        pytest.approx(interval.high, abs=1e-3),
    )
    assert found.notes == ["7 patients: bootstrap and mixed-model intervals are too narrow; report the t interval"]
    assert found.effect.d_z == pytest.approx(np.mean(effects) / np.std(effects, ddof=1), rel=1e-3)


def test_what_cannot_be_said_is_a_gap_with_a_reason(tmp_path):
    def only(rows):
        ratings = table(tmp_path, rows)
        return compare(ratings, plan_contrasts(ratings.arms), ratings.total, draws=200)[0]

    nobody = only([("tuned", "p", 0, 3.0), ("base", "q", 0, 2.0)])
    assert (nobody.estimate, nobody.p, nobody.notes[0]) == (None, None, "no pair of sessions to compare")
    one = only([("tuned", "p", 0, 3.0), ("base", "p", 0, 2.0)])
    assert (one.estimate, one.se, one.notes[0]) == (1.0, None, "one patient: no interval can be given")
    equal = only([(arm, p, 0, v) for p in "pq" for arm, v in (("tuned", 3.0), ("base", 2.0))])
    assert (equal.estimate, equal.se, equal.ci_low, equal.p, equal.p_adjusted) == (1.0, 0.0, None, None, None)
    assert "no interval and no t test can be given" in equal.notes[-1]
    assert (equal.bootstrap_low, equal.p_sign_flip) == (None, 0.5)
    many = only([(arm, p, 0, v) for p in "pqrstu" for arm, v in (("tuned", 3.0), ("base", 2.0))])
    assert (many.ci_low, many.bootstrap_low, many.p_sign_flip) == (None, None, 2 / 2**6)
    missing = only([("tuned", p, s, 3.0 + s) for p in "pq" for s in range(2)]
                   + [("base", "p", 0, 1.0), ("base", "p", 1, None), ("base", "q", 0, 2.0), ("base", "q", 1, 2.0)])  # fmt: skip
    assert (missing.pairs, missing.patients) == (3, {"p": 2.0, "q": 1.5})
    assert "left out: 1 of the sessions of tuned and base" in missing.notes[0]


def test_holm_counts_contrasts_without_a_test(tmp_path):
    """x and y are the same: a planned contrast that has data, and its two others are no family of two."""
    draw = np.random.default_rng(0)
    rows = [(arm, p, 0, 3.0 + place) for place, p in enumerate("pqrstu") for arm in ("x", "y")]
    ratings = table(tmp_path, [*rows, *(("z", p, 0, 2.0 + place + draw.normal()) for place, p in enumerate("pqrstu"))])
    same, first, second = compare(ratings, plan_contrasts(ratings.arms), ratings.total, draws=200)
    assert (same.estimate, same.p, same.p_adjusted) == (0.0, None, None)
    assert first.p_adjusted == second.p_adjusted == pytest.approx(min(1.0, 3 * first.p))


def test_arms_of_other_names_are_all_compared(tmp_path):
    ratings = table(tmp_path, [(arm, "p", 0, 1.0) for arm in ("a", "b", "c")])
    assert [plan.id for plan in plan_contrasts(ratings.arms)] == ["a − b", "a − c", "b − c"]
    assert math.isnan(ratings.total.sum()) is False


def test_an_arm_of_another_name_is_compared_too_and_twins_with_each_other(tmp_path):
    arms = [Arm("base", "", "base"), Arm("tuned", "", "tuned"), Arm("placebo", "", "")]
    plans = plan_contrasts({arm.name: arm for arm in arms})
    assert [plan.id for plan in plans] == ["tuned − base", "base − placebo", "tuned − placebo"]
    twins = [Arm("x", "Llama", "tuned"), Arm("y", "Llama", "tuned"), Arm("z", "Llama", "instruct")]
    assert [plan.id for plan in plan_contrasts({arm.name: arm for arm in twins})] == ["x − y", "x − z", "y − z"]


def test_twelve_patients_with_the_same_gain_are_told_by_their_signs(tmp_path):
    rows = [(arm, f"p{n}", 0, 20.0 + n + 11 * (arm == "tuned")) for n in range(12) for arm in ("tuned", "base")]
    ratings = table(tmp_path, rows)
    (found,) = compare(ratings, plan_contrasts(ratings.arms), ratings.total, draws=200)
    assert (found.estimate, found.p, found.p_sign_flip) == (11.0, None, 2 / 2**12)


def test_bases_with_other_numbers_of_sessions_are_told(tmp_path):
    rows = []
    for base, sessions in (("A", 6), ("B", 2)):
        rows += [
            (f"{base}_{kind}_1", p, s, 5.0 + s)
            for kind in ("Finetune", "Instruct")
            for p in "pq"
            for s in range(sessions)
        ]
    lines = [f"{s}_x,{p},{arm},{total:g},1" for arm, p, s, total in rows]
    (tmp_path / "s.csv").write_text("\n".join(["id,patient_id,group,One,Two", *lines]))
    ratings = read_ratings(tmp_path / "s.csv")
    pooled = compare(ratings, plan_contrasts(ratings.arms), ratings.total, draws=0)[2]
    assert pooled.id == "all bases: tuned − instruct"
    assert "bases are weighted by their numbers of paired sessions: A_Finetune_1 12, B_Finetune_1 4" in pooled.notes
