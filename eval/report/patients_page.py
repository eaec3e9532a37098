"""The page of the simulated patients' audit, in the look of the report."""

from __future__ import annotations

from markupsafe import Markup

from cbtrain.eval.report.audit_page import render_audit
from cbtrain.eval.report.figures.patients import agreement_figure, measures_figure
from cbtrain.eval.report.schema.patients import ReportPatients


def render_patients(audit: ReportPatients) -> str:
    """Return one self-contained page: it needs no network and no other file, and runs no script."""
    title = f"Patients of {audit.sets[0].name}" if audit.sets else "Simulated patients"
    return render_audit("patients_page.html", audit, title, patient_figures=patient_figures(audit))


def patient_figures(audit: ReportPatients | None) -> dict[str, Markup]:
    """Return the figures of an audit as elements of a page, by name; those with nothing to show are left out."""
    if audit is None or not audit.sets:
        return {}
    drawn = {"measures": measures_figure(audit), "agreement": agreement_figure(audit)}
    return {name: figure.page for name, figure in drawn.items() if figure}
