"""The page: report, figures and templates put together, with style and script inlined."""

from __future__ import annotations

import base64
import functools
import hashlib

from markupsafe import Markup

from cbtrain import NOTICE
from cbtrain.eval.report.agreement import grouped, settled_sentence
from cbtrain.eval.report.arm_looks import looks_of
from cbtrain.eval.report.browser_data import browser_data, browser_script
from cbtrain.eval.report.claim import claim_of, perplexity_sentence
from cbtrain.eval.report.course import course_view
from cbtrain.eval.report.environment import FOLDER, environment
from cbtrain.eval.report.figures.draw import Figures, figures_of
from cbtrain.eval.report.figures.heatmap import columns_that_fit, compared, domain_means, item_difference
from cbtrain.eval.report.figures.style import arm_labels, shortened
from cbtrain.eval.report.flow import STAGES, flow_of, stages_of
from cbtrain.eval.report.interaction import interaction_sentence
from cbtrain.eval.report.limitations import limits_of
from cbtrain.eval.report.notable import (
    families_of,
    findings_of,
    length_notes,
    shared_notes,
    spread_sentence,
)
from cbtrain.eval.report.patients_page import patient_figures
from cbtrain.eval.report.questionnaire import CREDIT
from cbtrain.eval.report.schema.analysis import LengthPart
from cbtrain.eval.report.schema.report import Report
from cbtrain.files import script_json


def render_html(report: Report, figures: Figures | None = None) -> str:
    """Return one self-contained page: it needs no network and no other file, and runs nothing from a transcript.

    ``figures``: those of this report, if they have been drawn already.
    """
    figures = figures_of(report) if figures is None else figures
    analysis, script = report.analysis, browser_script()
    findings = findings_of(analysis)
    template = environment().get_template("report.html")
    return template.render(
        report=report,
        title=report.title or "Evaluation report",
        notice=report.notice or NOTICE,
        claim=claim_of(report),
        perplexity_sentence=perplexity_sentence(report),
        rater=report.rater.credit,
        scale=report.scale,
        arms=report.arms,
        labels={arm.name: arm.label for arm in report.arms},
        looks=looks_of(report),
        flow_stages=STAGES,
        flow={arm.name: stages_of(flow_of(report, arm)) for arm in report.arms},
        short=arm_labels(report),
        shortened=shortened(report),
        audit=report.patients_audit,
        patient_figures=patient_figures(report.patients_audit),
        figures={name: figure.page for name, figure in figures.items() if figure.on_page},
        analysis=analysis,
        instruments=report.instruments,
        agreement_groups=grouped(analysis.agreement.between) if analysis.agreement else [],
        settled=settled_sentence(analysis),
        length=analysis.length or LengthPart(),
        families=families_of(findings),
        shared_notes=shared_notes(findings),
        interaction=interaction_sentence(analysis),
        compared=compared(analysis),
        difference_columns=columns_that_fit(report),
        course=course_view(report),
        item=functools.partial(item_difference, analysis),
        domain_means=domain_means(report),
        domain_names={domain.id: domain.name for domain in report.scale.domains},
        length_notes=length_notes(analysis),
        spread=spread_sentence(analysis),
        credit=CREDIT,
        limits=limits_of(report),
        style=Markup("".join((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "browser.css"))),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(script_json(browser_data(report))),
    )
