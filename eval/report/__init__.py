"""The report of a study: ``report.json``, a self-contained ``report.html``, and what the terminal shows at the end.

The input is one plain dict, the content of ``report.json`` (schema ``cbtrain.report/1``). Any part of it may be missing
or null: the gap is then shown as a gap. :func:`cbtrain.eval.report.write.write_report` is the way in.
"""
