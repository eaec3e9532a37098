"""Whatever is missing or odd in a report: a gap on the page, never an error."""

import io
import json
import re

import pytest
from analyzed import analyzed_report, random_ratings
from fake_report import fake_report, report_of
from rich.console import Console

from cbtrain import NOTICE
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.report import render
from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.latex import render_latex
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.terminal import summary

ODD = ["odd", 7, [], {}, [None, 3], float("nan"), 10**400]


def variants(value, replacements, path=()):
    """``value`` with each entry in turn replaced by each of ``replacements``, or left out."""
    if isinstance(value, dict):
        for key in value:
            for replacement in replacements:
                yield (*path, key), {**value, key: replacement}
            yield (*path, key), {k: v for k, v in value.items() if k != key}
            for where, inner in variants(value[key], replacements, (*path, key)):
                yield where, {**value, key: inner}
    elif isinstance(value, list) and value:
        for where, inner in variants(value[0], replacements, (*path, 0)):
            yield where, [inner, *value[1:]]


def small_report():
    report = fake_report()
    report["sessions"] = [{**session, "turns": session["turns"][:2]} for session in report["sessions"][3:5]]
    report["training"] = [{**stage, "curve": stage["curve"][:3]} for stage in report["training"][1:2]]
    pair = [Arm("base", "", "instruct"), Arm("tuned", "", "tuned")]
    report["analysis"] = analyzed_report(random_ratings(pair, 3, 2, items=2), draws=100)["analysis"]
    scale, arms = report["scale"], report["arms"]
    scale["domains"] = scale["domains"][:2]
    for scored in arms + report["sessions"]:
        scored["domains"] = {domain["id"]: scored["domains"][domain["id"]] for domain in scale["domains"]}
    return report


def printed(renderable):
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("report", [{}, {"sessions": None, "arms": []}, {"sessions": [{}], "arms": [{}]}])
def test_an_empty_report_shows_its_gaps(report):
    page = render_html(report_of(report))
    assert "No difference between the therapists could be computed." in page
    assert "rater not recorded" in page
    assert NOTICE in page
    for gap in ("Perplexity was not measured.", "No training corpus was recorded.", "No training was recorded."):
        assert gap in page
    assert "None" not in re.sub(r"<script.*</script>|<style.*</style>", "", page, flags=re.DOTALL)
    assert printed(summary(report_of(report)))


@pytest.mark.parametrize(
    "replacements",
    [
        pytest.param([None], id="missing"),
        pytest.param(["odd"], marks=pytest.mark.deep, id="odd"),
        pytest.param(ODD[1:], marks=pytest.mark.deep, id="everything odd"),
    ],
)
def test_no_part_breaks_page_or_terminal(monkeypatch, replacements):
    # Drawing is slow; the figures have their own case below.
    monkeypatch.setattr(render, "figures_of", lambda report: {})
    for path, report in variants(small_report(), replacements):
        try:
            report = report_of(report)
            assert render_html(report).endswith("</html>")
            assert printed(summary(report))
            assert render_markdown(report, {})
            assert render_latex(report)
            assert report_of(json.loads(report.to_json())).to_json() == report.to_json()
        except Exception as error:
            raise AssertionError(path) from error


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("part", ["arms", "sessions", "scale", "training", "analysis"])
@pytest.mark.parametrize(
    "replacements",
    [
        pytest.param([], marks=pytest.mark.slow, id="missing"),
        pytest.param([None, "odd", -7, 10**400], marks=pytest.mark.deep, id="odd"),
    ],
)
def test_no_part_breaks_a_figure(part, replacements):
    report = small_report()
    # The other parts stay, but a stage that does not change need not be drawn again and again.
    rest = report if part == "training" else {**report, "training": []}
    unseen = {"evidence", "description", "endings", "seed", "status", "error", "note", "turns", "notes", "p"}
    if part == "analysis":  # tables show the rest
        report[part] = {key: report[part][key] for key in ("contrasts", "mixed_models", "length", "bounds", "items")}
        unseen |= {"effect", "arms", "spearman", "covariate", "method", "p_sign_flip", "se", "df"}
        report[part]["items"] = report[part]["items"][:1]
    for path, changed in variants(report[part], replacements, (part,)):
        if unseen.isdisjoint(path):
            try:
                for drawn in figures_of(report_of({**rest, part: changed})).values():
                    assert drawn.page.startswith("<svg")
            except Exception as error:
                raise AssertionError(path) from error
