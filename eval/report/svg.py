"""From a matplotlib figure to SVG that lives inside the page: its text is text, its colours are the page's."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

# Figures are drawn in these marks, which the page's style sheet then colours, for light, dark and print.
INK, MUTED, LINE, PAPER = "#010101", "#010102", "#010103", "#010104"
ARMS = ("#010201", "#010202", "#010203", "#010204", "#010205", "#010206")
_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--card)"}
_COLOURS |= {mark: f"var(--arm-{place})" for place, mark in enumerate(ARMS)}

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cbtrain",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


def arm_mark(place: int) -> str:
    return ARMS[place % len(ARMS)]


@contextmanager
def drawing() -> Iterator[None]:
    """Draw under the page's style; a name in a script that the measuring font lacks is no reason for a warning."""
    with warnings.catch_warnings(), matplotlib.rc_context(_STYLE):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """``figure`` as an ``<svg>`` element; ``name`` keeps its ids apart, ``alt`` is what a screen reader says."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", name)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#|url\(#', lambda found: f"{found[0]}{name}-", text)
    text = re.sub(r"font-family: 'DejaVu Sans';? ?", "", text)
    text = re.sub(r"#0101\d\d|#0102\d\d", lambda found: _COLOURS.get(found[0], found[0]), text)
    opening = re.match(r"<svg[^>]*>", text)
    box = re.search(r'viewBox="[^"]*"', opening[0]) if opening else None
    if opening is None or box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    label = html.escape(alt)
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{label}">'
    return Markup(head + text[opening.end() :].strip())
