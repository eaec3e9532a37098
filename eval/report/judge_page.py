"""The page of a judge's audit, in the look of the report."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from cbtrain import NOTICE
from cbtrain.eval.report.environment import FOLDER, environment
from cbtrain.eval.report.schema.training import ReportAudit


def render_judge_audit(audit: ReportAudit, domain_names: Mapping[str, str]) -> str:
    """Return one self-contained page: it needs no network and no other file, and runs no script. ``domain_names``: of
    the rubric, by id."""
    return (
        environment()
        .get_template("judge_page.html")
        .render(
            audit=audit,
            domain_names=domain_names,
            title=f"Audit of {audit.rater.label or 'a judge'}",
            notice=audit.notice or NOTICE,
            style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        )
    )
