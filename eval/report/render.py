"""The page: the report's dict, the plots and the template put together, with style and script inlined."""

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
from cbtrain.eval.report.browser_data import browser_data, browser_script, flag_names, patient_name
from cbtrain.eval.report.claim import bounds_text, claim_of, perplexity_sentence
from cbtrain.eval.report.figures.draw import Figures, figures_of
from cbtrain.eval.report.figures.heatmap import columns_of, compared, domain_means, item_difference
from cbtrain.eval.report.interaction import interaction_sentence
from cbtrain.eval.report.limitations import limits_of
from cbtrain.eval.report.notable import (
    analysis_of,
    families_of,
    findings_of,
    length_notes,
    row_of,
    shared_notes,
    significant,
    spread_sentence,
)
from cbtrain.eval.report.shape import Report, arms_of, plain, rater_of, rows, scale_of, table, words
from cbtrain.files import script_json

FOLDER = Path(__file__).parent


def render_html(report: Report, figures: Figures | None = None) -> str:
    """One self-contained page: no network, no file beside it, nothing from a transcript that a browser would run.

    ``figures``: those of this report, where they have been drawn already.
    """
    report = plain(table(report))
    figures = figures_of(report) if figures is None else figures
    script = browser_script()
    template = _environment().get_template("report.html")
    return template.render(
        report=report,
        title=words(report.get("title")) or "Evaluation report",
        notice=words(report.get("notice")) or NOTICE,
        claim=claim_of(report),
        perplexity_sentence=perplexity_sentence(report),
        rater=rater_of(report),
        scale=scale_of(report),
        arms=arms_of(report),
        figures={name: figure.page for name, figure in figures.items() if figure.on_page},
        analysis=analysis_of(report),
        families=families_of(findings_of(report)),
        shared_notes=shared_notes(findings_of(report)),
        interaction=interaction_sentence(report),
        compared=compared(report),
        difference_columns=columns_of(report),
        item=functools.partial(item_difference, report),
        domain_means=domain_means(report),
        domain_names={domain.id: domain.name for domain in scale_of(report).domains},
        told=length_notes(report),
        spread=spread_sentence(report),
        limits=limits_of(report),
        deviations=report.get("deviations") if isinstance(report.get("deviations"), list) else None,
        style=Markup("".join((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "browser.css"))),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(script_json(browser_data(report))),
    )


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "fixed": formatting.fixed,
        "whole": formatting.whole,
        "dollars": formatting.dollars,
        "percent": formatting.percent,
        "share": formatting.share,
        "p_value": formatting.p_value,
        "duration": formatting.duration,
        "rows": rows,
        "table": table,
        "text": _text,
        "moment": _moment,
        "yaml": _yaml,
        "bounds": bounds_text,
        "parted": _parted,
        "row_of": row_of,
        "significant": significant,
        "span": formatting.span,
        "patient": patient_name,
        "flags": flag_names,
        "heat": _heat,
        "change": _change,
    }
    return made


def _text(value: object) -> str:
    """Text, or the mark of a gap."""
    return formatting.GAP if isinstance(value, Undefined) else words(value) or formatting.GAP


def _parted(value: object) -> Markup:
    """A name that may be broken after its underscores."""
    return escape(value).replace("_", Markup("_<wbr>"))


def _moment(value: object) -> str:
    """An ISO time in UTC without its letters; anything else as it is."""
    found = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[\d:.]*(Z|\+00:00)$", str(value))
    return f"{found[1]} {found[2]} UTC" if found else _text(value)


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _heat(value: object, low: float | None, high: float | None) -> str:
    """How far ``value`` lies between ``low`` and ``high``, as the strength of a cell's colour."""
    found = formatting.number(value)
    if found is None or low is None or high is None or low >= high:
        return "0%"
    return f"{45 * min(max((found - low) / (high - low), 0), 1):.0f}%"


def _change(first: Any, second: Any) -> str:
    """``second`` minus ``first``."""
    before, after = formatting.number(first), formatting.number(second)
    return formatting.GAP if before is None or after is None else formatting.fixed(after - before, 2, signed=True)
