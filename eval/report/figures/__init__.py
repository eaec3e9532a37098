"""The report's figures, one a file. Each is drawn once, and then is the page's SVG, an SVG file and a PNG.

:func:`cbtrain.eval.report.figures.all.figures_of` draws what the report has; a figure that has nothing to show is None.
"""
