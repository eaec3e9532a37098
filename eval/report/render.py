"""The page: report, figures and templates put together, with style and script inlined."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined
from markupsafe import Markup, escape

from cbtrain import NOTICE
from cbtrain.eval.report import formatting
from cbtrain.eval.report.arm_looks import looks_of
from cbtrain.eval.report.browser_data import browser_data, browser_script, flag_names, patient_name
from cbtrain.eval.report.claim import bounds_text, claim_of, perplexity_sentence
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
    row_of,
    shared_notes,
    significant,
    spread_sentence,
)
from cbtrain.eval.report.questionnaire import CREDIT
from cbtrain.eval.report.schema.analysis import EstimateRow, LengthPart
from cbtrain.eval.report.schema.fields import words
from cbtrain.eval.report.schema.report import Report
from cbtrain.files import script_json

FOLDER = Path(__file__).parent


def render_html(report: Report, figures: Figures | None = None) -> str:
    """Return one self-contained page: it needs no network and no other file, and runs nothing from a transcript.

    ``figures``: those of this report, if they have been drawn already.
    """
    figures = figures_of(report) if figures is None else figures
    analysis, script = report.analysis, browser_script()
    findings = findings_of(analysis)
    template = _environment().get_template("report.html")
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
        figures={name: figure.page for name, figure in figures.items() if figure.on_page},
        analysis=analysis,
        length=analysis.length or LengthPart(),
        families=families_of(findings),
        shared_notes=shared_notes(findings),
        interaction=interaction_sentence(analysis),
        compared=compared(analysis),
        difference_columns=columns_that_fit(report),
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


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": formatting.fixed,
        "score": formatting.score,
        "whole": formatting.whole,
        "dollars": formatting.dollars,
        "percent": formatting.percent,
        "share": formatting.share,
        "p_value": formatting.p_value,
        "duration": formatting.duration,
        "text": _text,
        "moment": _moment,
        "yaml": _yaml,
        "bounds": _bounds,
        "parted": _parted,
        "row_of": row_of,
        "significant": significant,
        "span": formatting.span,
        "patient": patient_name,
        "flags": flag_names,
        "heat": _heat,
        "change": _change,
    }
    return environment


def _text(value: object) -> str:
    """Return text, or the mark of a gap."""
    return formatting.GAP if isinstance(value, Undefined) else words(value) or formatting.GAP


def _bounds(row: object, digits: int = 1) -> str:
    """Return the interval of a row, or the mark of a gap if there is no row."""
    return bounds_text(row, digits) if isinstance(row, EstimateRow) else formatting.GAP


def _parted(value: object) -> Markup:
    """Return a name that may be broken after its underscores."""
    return escape(value).replace("_", Markup("_<wbr>"))


def _moment(value: object) -> str:
    """Return an ISO time in UTC without its letters; anything else as it is."""
    time = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*(Z|\+00:00)$", str(value))
    return f"{time[1]} {time[2]} UTC" if time else _text(value)


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _heat(value: object, low: float | None, high: float | None) -> str:
    """Return how far ``value`` lies between ``low`` and ``high``, as the strength of a cell's colour."""
    mean = formatting.number(value)
    if mean is None or low is None or high is None or low >= high:
        return "0%"
    return f"{45 * min(max((mean - low) / (high - low), 0), 1):.0f}%"


def _change(first: Any, second: Any) -> str:
    """Return ``second`` minus ``first``."""
    before, after = formatting.number(first), formatting.number(second)
    return formatting.GAP if before is None or after is None else formatting.fixed(after - before, 2, signed=True)
