"""For whom, when, and by whom the patient was played: the section, its figures, and reports that have none of it."""

import re

import pytest
from course_study import course_ratings
from covered_text import covered
from fake_report import fake_report, report_of
from rich.console import Console

from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.rating.keying import AS_GIVEN
from cbtrain.eval.report.course import main_subgroups, simulator_sentence
from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.formatting import fixed, span
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.report.tables import show_analysis
from cbtrain.study.evaluation.analysis_report import _scores_and_sessions
from cbtrain.study.evaluation.report_data import ReportInput, build_report

NAMES = {"p00": "Doreen Whitlock", "p01": "Tomasz Wilk", "p02": "Adaeze Nwosu"}


@pytest.fixture(scope="module")
def results_and_report():
    ratings = course_ratings(patients=9, gain=lambda patient, number, simulator: 4 + 0.3 * number, noise=3)
    results = analysis(ratings, "default", draws=50)
    scores, sessions = _scores_and_sessions(ratings, [], {}, AS_GIVEN)
    data = ReportInput(ratings, scores, [], results, sessions, NAMES, None)
    return results, build_report(data, Report(title="Course"))


@pytest.fixture(scope="module")
def report(results_and_report):
    return results_and_report[1]


def test_every_form_has_every_estimate(results_and_report):
    results, report = results_and_report
    figures = figures_of(report)
    page, text = render_html(report, figures), render_markdown(report, figures)
    console = Console(width=110, record=True)
    show_analysis(results, console)
    shown = console.export_text()
    assert len(report.analysis.subgroups.rows) == 12
    for row in report.analysis.subgroups.rows:
        estimate, bounds = fixed(row.estimate, signed=True), span(row.ci_low, row.ci_high)
        for form in (page, text, shown):
            assert estimate in form
            assert bounds in form
        assert estimate in figures["subgroups"].page
    for row in report.analysis.by_phase:
        assert all(fixed(row.mean) in form for form in (page, text, shown))
    for row in report.analysis.trend.arms:
        assert all(span(row.ci_low, row.ci_high) in form for form in (page, text, shown))
    assert page.count("does the difference vary?") == 4
    assert "exploratory: 12 subgroup estimates and 4 tests" in page.casefold()
    assert {"subgroups", "phases", "patients"} <= figures.keys()


def test_patients_are_named_where_their_differences_are(report):
    assert [patient.name for patient in report.patients][:3] == sorted(NAMES.values())
    drawn = figures_of(report)["patients"]
    for patient in report.patients:
        assert patient.name in drawn.page
        assert patient.difference == report.analysis.contrasts[0].patients[patient.id]
        assert f"{patient.name} {fixed(patient.difference, signed=True)}" in drawn.alt
    adaeze = report.patients[0]
    own = [session.total for session in report.sessions if (session.patient, session.arm) == ("p02", "llama-tuned")]
    assert (adaeze.columns["severity"], adaeze.sessions) == ("severe", 16)
    assert adaeze.totals["llama-tuned"] == pytest.approx(sum(own) / len(own))


def test_no_text_of_its_figures_covers_another(report):
    for name in ("subgroups", "phases", "patients"):
        figure = figures_of(report)[name].figure
        assert covered(figure) == []
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.02
        assert box.x1 <= width + 0.02
        assert box.y1 <= height + 0.02


def test_simulators_that_disagree_are_said_to(report):
    assert "the sign is the same with each simulator, and each interval leaves out zero" in simulator_sentence(
        report.analysis
    )
    ratings = course_ratings(gain=lambda patient, number, simulator: 6 if simulator == "gpt" else -6)
    found = report_of({"analysis": analysis(ratings, "default", draws=50)}).analysis
    assert "the sign differs between simulators: gpt +" in simulator_sentence(found)
    (group,) = [group for group in main_subgroups(found) if group.factor == "simulator"]
    assert group.test.p_adjusted < 0.001


def test_a_report_without_courses_says_what_is_missing():
    old = report_of(fake_report())
    page = render_html(old)
    section = re.search(r'<section id="course".*?</section>', page, re.DOTALL)[0]
    assert section.count('class="gap"') >= 3
    assert "their number in a course" not in section
    assert "For whom" not in render_markdown(old, figures_of(old))
    assert not {"subgroups", "phases", "patients"} & figures_of(old).keys()
