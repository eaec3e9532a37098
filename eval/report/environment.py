"""The templates' environment: filters that print numbers, gaps and names as every page has them."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Undefined
from markupsafe import Markup, escape

from cbtrain.eval.report import formatting
from cbtrain.eval.report.browser_data import flag_names, patient_name
from cbtrain.eval.report.claim import bounds_text
from cbtrain.eval.report.notable import row_of, significant
from cbtrain.eval.report.schema.estimates import EstimateRow
from cbtrain.eval.report.schema.fields import words

FOLDER = Path(__file__).parent


@functools.cache
def environment() -> Environment:
    """Return the environment of all templates in this folder."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
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
    return made


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
