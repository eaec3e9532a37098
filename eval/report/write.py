"""The report's two files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.shape import plain
from cbtrain.files import write_atomic


def write_report(report: Mapping[str, Any], folder: str | Path) -> Path:
    """Write ``report.json``, then ``report.html``, into ``folder`` and return the path of the latter."""
    folder = Path(folder)
    content = plain(report)
    write_atomic(folder / "report.json", json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    page = folder / "report.html"
    write_atomic(page, render_html(content))
    return page
