"""Pages of audits, in the look of the report."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from cbtrain import NOTICE
from cbtrain.eval.report.environment import FOLDER, environment


def render_audit(template: str, audit: Any, title: str, **more: Any) -> str:
    """Return ``template`` filled in as one self-contained page: it needs no network and no other file, and runs no
    script. ``audit``: has the version and the notice; ``more``: what the template needs beside it."""
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    page = environment().get_template(template)
    return page.render(audit=audit, title=title, notice=audit.notice or NOTICE, style=style, **more)
