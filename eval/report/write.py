"""The report's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.latex import render_latex
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.render import render_html
from cbtrain.eval.report.schema.report import Report
from cbtrain.files import write_atomic, written_together

FIGURES = "figures"
OURS = re.compile(r"(flow|forest|scores|heatmap|length|subgroups|phases|patients|curve-\d{1,6})\.(svg|png)")


def write_report(report: Report, folder: str | Path, beside: Mapping[str, str] | None = None) -> Path:
    """Write the report into ``folder``, all of its files or none, and return the path of its page.

    The texts ``beside`` it, by their file names; ``report.json`` with everything, each figure as SVG and PNG in
    ``figures/``, ``contrasts.tex``, ``report.md``, and last ``report.html``. Figures of an earlier report that this one
    does not have are removed.
    """
    folder = Path(folder)
    wanted = set()
    with written_together(folder) as temporary:
        for name, text in (beside or {}).items():
            write_atomic(temporary / name, text)
        report.write(temporary / "report.json")
        figures = figures_of(report)
        for name, figure in figures.items():
            for file, data in ((f"{name}.svg", figure.svg), (f"{name}.png", figure.png)):
                write_atomic(temporary / FIGURES / file, data)
                wanted.add(file)
        write_atomic(temporary / "contrasts.tex", render_latex(report))
        write_atomic(temporary / "report.md", render_markdown(report, figures))
        write_atomic(temporary / "report.html", render_html(report, figures))
    for old in (folder / FIGURES).glob("*.*"):
        if OURS.fullmatch(old.name) and old.name not in wanted:
            old.unlink()
    return folder / "report.html"
