"""The report of a study: ``report.json``, a self-contained ``report.html``, Markdown, LaTeX, figures, the terminal.

All are made from one :class:`cbtrain.eval.report.schema.report.Report`; a part that is missing in it is shown as a gap.
:func:`cbtrain.eval.report.write.write_report` writes the files.
"""
