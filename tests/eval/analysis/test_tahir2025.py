"""The 2025 study's analysis, from its own scores, at the printed precision; and beside it what the study left out."""

import csv
import re
import warnings

import numpy as np
import pytest
from places import TAHIR2025, needs_tahir2025
from study2025 import by_name

from cbtrain.eval.analysis.mixed_models.balanced import BOUNDARY, SumsOfSquares, fit_balanced
from cbtrain.eval.analysis.mixed_models.reml import fit_reml
from cbtrain.eval.analysis.resampling import holm_sidak
from cbtrain.eval.analysis.tahir2025.scores import OUTCOMES, SUBSCALES, read_study_scores
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.study.evaluation.tahir2025 import analyze_tahir2025

TABLES = TAHIR2025 / "tables"
PRINTED = {"act_fm": "act_fm_total", "tes": "tes_mean"}
"""What the study's tables call the outcomes."""
LABELS = {
    "instruct-thinking": "Instruct (COT)",
    "instruct-plain": "Instruct (no COT)",
    "ORPO-thinking": "ORPO (COT)",
    "ORPO-plain": "ORPO (no COT)",
    "SFT-thinking": "SFT (COT)",
    "SFT-plain": "SFT (no COT)",
}


@pytest.fixture(scope="module")
def found():
    return analyze_tahir2025([TAHIR2025], None, draws=2000, seed=0)


def printed(name):
    with (TABLES / name).open(newline="") as file:
        return list(csv.DictReader(file))


@needs_tahir2025
@pytest.mark.parametrize("outcome", PRINTED)
def test_every_printed_figure_is_reproduced(found, outcome):
    """The summary prints three decimals; the study's files have more, of an optimizer that stopped before the maximum."""
    ours, summary = (
        found["outcomes"][outcome]["published"],
        (TABLES / f"mixedlm_summary_{PRINTED[outcome]}.txt").read_text(),
    )
    for label, value in (("Log-Likelihood", ours["log_likelihood"]), ("Scale", ours["stopped"]["scale"])):
        assert re.search(rf"{label}: +(\S+)", summary)[1] == f"{value:.4f}"
    numbers = re.search(r"Group Var +(\S+) +(\S+)", summary).groups()
    assert numbers == (
        f"{ours['stopped']['patient_variance']:.3f}",
        f"{ours['patient_variance_se_as_printed']:.3f}",
    )
    assert 0 <= ours["stopped"]["below_maximum"] < 1e-7
    assert ours["scale"] == pytest.approx(ours["stopped"]["scale"], rel=1e-5)
    terms = {row["name"].partition(" − ")[0]: row for row in ours["fixed_effects"]}
    for label in ("Intercept", *(f"C(model)[T.{name}]" for name in list(LABELS.values())[1:])):
        arm = (
            "intercept" if label == "Intercept" else next(ours for ours, name in LABELS.items() if f".{name}]" in label)
        )
        row = terms[arm]
        line = re.search(rf"^{re.escape(label)} +(.+)$", summary, re.MULTILINE)[1].split()
        keys = ("estimate", "se", "z", "p", "ci_low", "ci_high")
        assert line == [f"{row[key]:.3f}" for key in keys]
    groups = {
        row["Model"]: row
        for row in printed("table1_descriptive_stats.csv")
        if row["Measure"].startswith({"act_fm": "ACT-FM", "tes": "TES"}[outcome])
    }
    assert len(groups) == 6
    for row in ours["groups"]:
        there = groups[LABELS[row["name"]]]
        assert (there["n"], there["M (SD)"], there["Range"]) == (
            str(row["n"]),
            f"{row['mean']:.2f} ({row['sd']:.2f})",
            f"{row['low']:.2f}-{row['high']:.2f}",
        )


@needs_tahir2025
@pytest.mark.parametrize("outcome", PRINTED)
def test_all_fifteen_contrasts_are_the_printed_ones(found, outcome):
    contrasts = by_name(found["outcomes"][outcome]["published"]["contrasts"])
    ours = {label: name for name, label in LABELS.items()}
    rows = printed(f"mixedlm_posthoc_{PRINTED[outcome]}.csv")
    assert len(rows) == len(contrasts) == 15
    for row in rows:
        here = contrasts[f"{ours[row['group1']]} − {ours[row['group2']]}"]
        assert here["estimate"] == pytest.approx(float(row["mean_difference"]), abs=1e-9)
        for key, column in (
            ("se", "std_error"),
            ("z", "z_value"),
            ("ci_low", "ci_lower_95"),
            ("ci_high", "ci_upper_95"),
        ):
            assert here[key] == pytest.approx(float(row[column]), rel=1e-4, abs=1e-4), (row, key)
        for key, column in (("p", "p_value_raw"), ("p_adjusted", "p_value_adjusted")):
            assert here[key] == pytest.approx(float(row[column]), rel=2e-3), (row, key)
        assert (here["p_adjusted"] < 0.05) == (row["reject_null"] == "True")


@needs_tahir2025
def test_the_maximum_is_the_one_that_statsmodels_seeks():
    """By powell: lbfgs, which the study used, ends in a singular matrix on some processors."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    scores = read_study_scores(TAHIR2025 / "scores/scores.csv").outcome("act_fm")
    fit, (n, k) = fit_balanced(scores), scores.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        design = np.tile(np.eye(k), (n, 1))
        theirs = MixedLM(scores.ravel(), design, groups=np.repeat(np.arange(n), k)).fit(reml=True, method="powell")
    assert theirs.llf <= fit.log_likelihood + 1e-9
    assert theirs.llf == pytest.approx(fit.log_likelihood, abs=1e-6)
    assert theirs.scale == pytest.approx(fit.scale, rel=1e-4)
    assert float(theirs.cov_re[0, 0]) == pytest.approx(fit.patient_variance, rel=1e-3)
    assert theirs.bse_fe == pytest.approx(np.full(k, fit.mean_se), rel=1e-4)


@needs_tahir2025
def test_what_the_study_left_out(found):
    act, tes = found["outcomes"]["act_fm"], found["outcomes"]["tes"]
    paired = by_name(act["paired"])
    for name, figures in {
        "instruct-thinking − ORPO-thinking": "-2.69 [-3.95, -1.44] -0.35",
        "instruct-thinking − SFT-plain": "4.75 [3.25, 6.26] 0.51",
    }.items():
        row = paired[name]
        assert f"{row['estimate']:.2f} [{row['ci_low']:.2f}, {row['ci_high']:.2f}] {row['d_z']:.2f}" == figures
    over_all, within = act["length"]["correlations"]
    assert f"{over_all['r']:.2f}" == "-0.25"
    assert within["ci_low"] < 0 < within["ci_high"]
    adjusted = by_name(act["length"]["adjusted"], "term")
    assert f"{adjusted['ORPO-plain − SFT-plain']['estimate']:.2f}" == "7.39"
    arms = by_name(act["length"]["arms"])
    assert [round(row["words_mean"]) for row in arms.values()] == [3868, 3918, 3418, 3611, 5209, 5910]
    assert {name: row["at_cap"] for name, row in arms.items()} == {
        **{"instruct-thinking": 115, "instruct-plain": 145, "ORPO-thinking": 146},
        **{"ORPO-plain": 150, "SFT-thinking": 142, "SFT-plain": 150},
    }
    tests = {
        key: by_name(part["factors"]["tests"])["thinking × objective"] for key, part in (("act", act), ("tes", tes))
    }
    assert {key: (row["df"], f"{row['statistic']:.2f} {row['p']:.3f}") for key, row in tests.items()} == {
        "act": ([2, 148], "4.65 0.011"),
        "tes": ([2, 148], "6.93 0.001"),
    }
    assert {(row["column"], len(row["levels"])) for row in act["moderators"]} == {
        ("archetype", 4),
        ("primary concern", 10),
    }
    assert min(row["p_adjusted"] for row in act["moderators"]) > 0.05


def test_the_closed_form_is_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(3)
    for spread in (2.0, 0.0):
        noise = rng.normal(0, 1.5, (12, 4))
        if not spread:  # patients differ by less than chance would have it
            noise -= noise.mean(axis=1, keepdims=True)
        scores = np.arange(4) + spread * rng.normal(size=(12, 1)) + noise
        fit, sums = fit_balanced(scores), SumsOfSquares.of(scores)
        searched = fit_reml(
            scores.ravel(),
            np.tile(np.eye(4), (12, 1)),
            list("abcd"),
            np.repeat(np.arange(12), 4),
            np.tile(range(4), 12),
        )
        assert fit.log_likelihood == pytest.approx(searched.log_likelihood, abs=1e-8)
        assert fit.scale == pytest.approx(searched.components.residual, rel=1e-5)
        assert fit.patient_variance == pytest.approx(searched.components.patients, rel=1e-4)
        assert fit.problem == ("" if spread else BOUNDARY)
        if spread:
            ratio = fit.patient_variance / fit.scale
            for other in (0.99 * ratio, 1.01 * ratio):
                assert sums.log_likelihood_at(other) < fit.log_likelihood
    with pytest.raises(ValueError, match="residual variance"):
        fit_balanced(np.arange(4) + np.arange(3.0)[:, None])


def test_the_shipped_rubrics_have_the_frames_of_the_studys_instruments():
    for kind in ("consistent", "inconsistent"):
        rubric = load_rubric(f"act_{kind.removesuffix('t')}cy")
        frame = {name.rpartition("_")[2]: part for name, part in SUBSCALES.items() if f"_{kind}_" in name}
        found = {
            name: [(item.weight, item.reversed) for item in rubric.domains if item.subscale == name] for name in frame
        }
        assert found == {name: [(weight, False)] * len(items) for name, (items, weight) in frame.items()}
        total = sum(item.weight for item in rubric.domains)
        outcome = OUTCOMES["act_fm" if kind == "consistent" else "act_fm_inconsistency"]
        assert (rubric.minimum * total, rubric.maximum * total) == (outcome.low, outcome.high)
    empathy = load_rubric("empathy")
    assert (len(empathy.domains), empathy.minimum, empathy.maximum) == (9, OUTCOMES["tes"].low, OUTCOMES["tes"].high)


def test_holm_sidak_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p_values = [0.04, 1e-30, 0.2, 0.011, 0.011, 0.99]
    assert holm_sidak(p_values) == pytest.approx(multipletests(p_values, method="holm-sidak")[1].tolist(), rel=1e-9)
    assert holm_sidak([1e-30, 1.0]) == pytest.approx([2e-30, 1.0])
