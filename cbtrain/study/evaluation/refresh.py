"""Write the report of a finished run anew from what lies in its folder: people's ratings have come in, say."""

from __future__ import annotations

from pathlib import Path

from cbtrain.eval.analysis.analyze import analysis
from cbtrain.eval.report.schema.report import Report
from cbtrain.eval.report.write import write_report
from cbtrain.study.evaluation.analysis_report import report_of
from cbtrain.study.evaluation.scores import is_run, load_scores
from cbtrain.study.run_files import REPORT, SCORES


def has_report(folder: Path) -> bool:
    """Return whether ``folder`` is that of a run with scores and a report."""
    return is_run(folder) and (folder / SCORES).is_file() and (folder / REPORT).is_file()


def refresh_report(run: Path) -> Path:
    """Analyse the scores in ``run`` again, with the draws and the seed of its report, and write that report anew; what
    it says of training, costs and protocol stays. Nothing is asked of a judge. Return the path of the page. Raises
    UserError if a file of the run is damaged."""
    before = Report.read(run / REPORT).analysis.bootstrap
    study = load_scores([run])
    numbers = {"draws": int(before.draws), "seed": int(before.seed or 0)} if before and before.draws else {}
    results = analysis(
        study.ratings,
        "default",
        study.outcomes,
        primary_judges=study.primary_judges,
        rotating=study.rotating,
        **numbers,
    )
    return write_report(report_of(study, results), run)
