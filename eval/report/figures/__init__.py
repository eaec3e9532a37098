"""The report's figures, one a file. Each is drawn once, and then is the page's SVG, an SVG file and a PNG."""
