"""Every command that takes scores answers every legal table: with figures, or with gaps and their reasons."""

import io
import json
from itertools import product
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_scores import course_tables, score_tables
from rich.console import Console
from scored import score

from cbtrain.cli.main import main
from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.analysis.contrast_plan import plan_contrasts
from cbtrain.eval.analysis.contrasts import compare
from cbtrain.eval.analysis.effects import noncentral_t_cdf, paired_effect
from cbtrain.eval.analysis.mixed_models.reml import fit_reml
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.rating.scores import write_scores_csv
from cbtrain.eval.report.latex import render_latex
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.tables import show_analysis
from cbtrain.study.evaluation.analysis_report import report_of
from cbtrain.study.evaluation.scores import load_scores

pytestmark = pytest.mark.fault("F1")


@given(st.one_of(score_tables(), course_tables()))
def test_every_legal_table_gives_a_report(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("scores") / "scores.csv"
    path.write_text(text)
    if text.count("\n") == 1:
        assert main(["analyze", str(path)]) == 2  # no row
        return
    assert main(["analyze", str(path), "--protocol", "paper"]) in (0, 2)
    assert main(["power", "--pilot", str(path), "--effect", "2"]) in (0, 2)
    study = load_scores([path])
    found = analysis(study.ratings, "default", study.outcomes, draws=100)
    json.dumps(found, allow_nan=False)
    show_analysis(found, Console(file=io.StringIO()))
    for contrast in found["contrasts"]:
        gaps = [key for key in ("estimate", "ci_low", "p") if contrast[key] is None]
        assert contrast["notes"] or not gaps, contrast["id"]
        assert (contrast["effect"] is None) == (len(contrast["patients"]) < 5 or contrast["ci_low"] is None)
        numbers = [contrast["effect"][key] for key in ("d_z_low", "d_z", "d_z_high")] if contrast["effect"] else []
        assert None not in numbers
        assert numbers == sorted(numbers)
    for model in found["mixed_models"]:
        assert model["problem"] or model["ci_low"] is not None
    for row in found["subgroups"]["rows"] if found["subgroups"] else ():
        assert row["note"] or row["ci_low"] is not None, row
    for test in found["subgroups"]["variation"] if found["subgroups"] else ():
        assert test["problem"] or 0 < test["p"] <= test["p_adjusted"] <= 1, test
    report = report_of(study, found)
    for written in (render_html(report, {}), render_markdown(report, {}), render_latex(report)):
        assert "nan" not in written.replace("finan", "").split()


def test_figures_are_drawn_of_what_is_hardly_a_difference(tmp_path):
    """A density of totals that are equal but for rounding has no width; 1e-12 has squares that are hardly numbers."""
    rows = ["session_id,arm,patient,seed,judge,repeat,status,a,b,total"]
    for p, seed in product(range(3), range(4)):
        rows.append(f"{p}.base.{seed},base,p{p},{seed},j,0,ok,{'0.3' if seed else '0.30000000000000004'},0.1,")
        rows.append(f"{p}.tuned.{seed},tuned,p{p},{seed},j,0,ok,{seed}e-12,-1e-12,")
    (tmp_path / "s.csv").write_text("\n".join(rows))
    assert main(["analyze", str(tmp_path / "s.csv"), "--draws", "100", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").is_file()


def exact(t, df, noncentrality):
    """P(T <= t) by its definition, over the SD of the sample."""
    t, shift, half = mpmath.mpf(t), mpmath.mpf(noncentrality), mpmath.mpf(df) / 2
    scale = 2 * half**half / mpmath.gamma(half)

    def density(s):
        return mpmath.ncdf(t * s - shift) * scale * s ** (df - 1) * mpmath.exp(-half * s * s)

    edge, width = shift / t, 1 / abs(t)
    middle = [edge + far * width for far in (-8, -2, 0, 2, 8)]
    return float(mpmath.quad(density, sorted({0, 0.1, 1, 2, 4, 12, *(float(s) for s in middle if 0 < s < 12)})))


@pytest.mark.parametrize(
    ("t", "df", "noncentrality"),
    [(17, 1, 8), (17, 1, 0.25), (17, 1, 38), (-17, 1, -8), (810, 1, 300), (3e4, 1, 2e4), (0.003, 4, 1), (2, 39, 3),
     (9e4, 37, 1e5), (-5e4, 15, -7e4), (62, 4, 100), (0.5, 2, -3)],
)  # fmt: skip
def test_the_noncentral_t_is_mpmaths(t, df, noncentrality):
    assert noncentral_t_cdf(t, df, noncentrality) == pytest.approx(exact(t, df, noncentrality), abs=1e-12)


@pytest.mark.parametrize(
    "values", [[4.0, 4.5], [4.0, 4.0001], [1.0, 5.0, -3.0], [4.0, 4.01, 4.02], [10, 10.5, 11, 10.2, 10.4]]
)
def test_limits_of_effects_are_mpmaths(values):
    found, n = paired_effect(np.array(values)), len(values)
    for limit, probability in ((found.d_z_low, 0.975), (found.d_z_high, 0.025)):
        assert exact(found.d_z * n**0.5, n - 1, limit * n**0.5) == pytest.approx(probability, abs=1e-7)


def test_two_patients_with_a_consistent_difference_are_a_result(tmp_path):
    """The study of the README, whose report failed for ever."""
    rows = [("tuned", "p", 7.0), ("base", "p", 3.0), ("tuned", "q", 8.0), ("base", "q", 3.5)]
    scores = [score(arm, p, {"agenda": total}) for arm, p, total in rows]
    write_scores_csv(scores, tmp_path / "s.csv")
    ratings = read_ratings(tmp_path / "s.csv")
    (found,) = compare(ratings, plan_contrasts(ratings.arms), ratings.total, draws=100)
    assert (found.estimate, found.effect) == (4.25, None)
    assert "2 patients: too few for a bootstrap interval and effect sizes" in found.notes


@pytest.mark.parametrize("cell", ["1e300", "-1e13", "1e-300"])
def test_scores_that_no_scale_has_are_refused(cell, tmp_path, capsys):
    head = "session_id,arm,patient,seed,judge,repeat,status,agenda,total"
    Path(tmp_path / "s.csv").write_text(f"{head}\ns,tuned,p,0,j,0,ok,{cell},\n")
    assert main(["analyze", str(tmp_path / "s.csv")]) == 2
    assert (
        f"s.csv:2: agenda: {float(cell):g} is not a score (0, or from 1e-12 to 1e+12 in size)"
        in capsys.readouterr().err
    )


def test_a_residual_too_small_for_a_model_is_said_to_be_small():
    """Not to be zero: it is not."""
    patient, arm, _ = (axis.ravel() for axis in np.indices((6, 2, 2)))
    draw = np.random.default_rng(0)
    values = 1e5 * draw.normal(size=6)[patient] + arm + draw.normal(size=24)
    with pytest.raises(
        ValueError, match="the SD of patients is over 1,000 residual SDs, and no model is fitted beyond"
    ):
        fit_reml(values, np.stack([1.0 - arm, arm], axis=1), ["b", "t"], patient, arm)
