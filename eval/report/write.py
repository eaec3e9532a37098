"""The report's files."""

from __future__ import annotations

import re
from pathlib import Path

from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.latex import render_latex
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.schema.report import Report
from cbtrain.files import write_atomic

FIGURES = "figures"
OURS = re.compile(r"(forest|scores|heatmap|length|curve-\d{1,6})\.(svg|png)")


def write_report(report: Report, folder: str | Path) -> Path:
    """Write the report into ``folder`` and return the path of its page.

    ``report.json`` with everything, each figure as SVG and PNG in ``figures/``, ``contrasts.tex``, ``report.md``, and
    last ``report.html``: if it exists, the others do too. Figures of an earlier report that this one does not have are
    removed.
    """
    folder = Path(folder)
    report.write(folder / "report.json")
    figures = figures_of(report)
    wanted = set()
    for name, figure in figures.items():
        for file, data in ((f"{name}.svg", figure.svg), (f"{name}.png", figure.png)):
            write_atomic(folder / FIGURES / file, data)
            wanted.add(file)
    for old in (folder / FIGURES).glob("*.*"):
        if OURS.fullmatch(old.name) and old.name not in wanted:
            old.unlink()
    write_atomic(folder / "contrasts.tex", render_latex(report))
    write_atomic(folder / "report.md", render_markdown(report, figures))
    page = folder / "report.html"
    write_atomic(page, render_html(report, figures))
    return page
