"""The page of a judge's audit, in the look of the report."""

from __future__ import annotations

from collections.abc import Mapping

from cbtrain.eval.report.audit_page import render_audit
from cbtrain.eval.report.schema.training import ReportAudit


def render_judge_audit(audit: ReportAudit, domain_names: Mapping[str, str]) -> str:
    """Return one self-contained page: it needs no network and no other file, and runs no script. ``domain_names``: of
    the rubric, by id."""
    title = f"Audit of {audit.rater.label or 'a judge'}"
    return render_audit("judge_page.html", audit, title, domain_names=domain_names)
