"""The report of a study: ``report.json``, a self-contained ``report.html``, Markdown, LaTeX, figures, the terminal.

The input is one plain dict, the content of ``report.json``. Any part of it may be missing or null: the gap is then
shown as a gap. :func:`cbtrain.eval.report.write.write_report` is the way in.
"""

SCHEMA = "cbtrain.report/2"
