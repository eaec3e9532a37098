"""One rule of rounding: a figure has the same digits wherever it is printed, and no p crosses a bound."""

import io
import re

import numpy as np
import pytest
from analyzed import analyzed_report, random_ratings
from fake_report import report_of
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cbtrain.eval.analysis.arms import arms_of
from cbtrain.eval.report.claim import claim_of
from cbtrain.eval.report.formatting import SIGNIFICANT, fixed, p_value, score, share, span
from cbtrain.eval.report.latex import escape, render_latex
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.tables import show_analysis

pytestmark = pytest.mark.fault("G7")


def written(patients, seed=1):
    """The same analysis in the terminal, on the page, in Markdown and in LaTeX, as plain text."""
    arms = list(arms_of(["Llama: tuned", "Llama: untuned"]).values())
    content = analyzed_report(random_ratings(arms, patients, 3, items=3, seed=seed), draws=100)
    report = report_of(content)
    console = Console(file=io.StringIO(), width=200)
    show_analysis(content["analysis"], console)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_html(report, {})))
    return report, {
        "terminal": console.file.getvalue(),
        "page": page,
        "Markdown": render_markdown(report, {}),
        "LaTeX": render_latex(report),
    }


@pytest.mark.parametrize("patients", [2, 5, 7])
def test_a_figure_has_the_same_digits_everywhere(patients):
    report, texts = written(patients)
    (contrast,) = report.analysis.contrasts
    interval = span(contrast.ci_low, contrast.ci_high)
    figures = [
        fixed(contrast.estimate, signed=True),
        interval,
        p_value(contrast.p),
        p_value(contrast.p_adjusted),
    ]
    for place, text in texts.items():
        for figure in figures:
            assert (escape(figure) if place == "LaTeX" else figure) in text.replace("&lt;", "<"), place
        assert "95%" not in text, place
        assert "95 %" in text or "95 \\%" in text, place
    claim = claim_of(report).sentence
    assert fixed(abs(contrast.estimate)) in claim
    assert f"95 % interval {interval}" in claim
    assert (contrast.effect is None) == (patients < 5)
    if patients >= 5:
        assert contrast.effect.unit == "patients' mean differences"
        for place, text in texts.items():
            assert fixed(contrast.effect.d_z) in text, place
        assert all("of patients" in text for text in texts.values())


def test_a_p_value_is_not_printed_below_the_bound_beside_it():
    for patients in (2, 3, 4, 5):
        _, texts = written(patients)
        bound = re.search(r"cannot give p below (0\.\d+)", texts["terminal"])[1]
        assert float(p_value(2 / 2**patients)) == float(bound) == 2 / 2**patients


@given(st.floats(0.001, 1), st.floats(0.001, 1))
def test_p_values_are_on_their_side_of_a_bound(one, other):
    low, high = sorted((one, other))
    assert float(p_value(low)) <= float(p_value(high))
    for p in (one, SIGNIFICANT - one * 1e-6, SIGNIFICANT):
        assert (float(p_value(p)) < SIGNIFICANT) == (p < SIGNIFICANT)
        assert float(p_value(p)) == pytest.approx(p, abs=6e-4)
    assert p_value(np.nextafter(0.001, 0)) == "< 0.001"


def test_shares_and_single_scores():
    assert [share(0.5), share(0.004), share(0)] == ["50.0 %", "0.40 %", "0.0 %"]
    assert [score(31.0), score(30.5), score(1 / 3), score(0), score(1200), score(None)] == [
        "31",
        "30.5",
        "0.33",
        "0",
        "1,200",
        "n/a",
    ]
