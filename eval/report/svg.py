"""From matplotlib's SVG to one that lives inside the page: its text is text, its colours are the page's."""

from __future__ import annotations

import html
import re

from markupsafe import Markup

from cbtrain.eval.report.figures.style import ARMS, HEAT, INK, LINE, MUTED, PAPER

_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", LINE: "var(--line)", PAPER: "var(--card)"}
_COLOURS |= {HEAT: "var(--heat-ink)"}
_COLOURS |= {colour: f"var(--arm-{hue}-{tone})" for hue, tones in enumerate(ARMS) for tone, colour in enumerate(tones)}


def page_svg(text: str, name: str, alt: str) -> Markup:
    """``text`` (a file of matplotlib's, with ``svg.fonttype`` none) as an ``<svg>`` element; ``name`` keeps its ids
    apart, ``alt`` is what a screen reader says."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", name)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#|url\(#', lambda match: f"{match[0]}{name}-", text)
    text = re.sub(r"font-family: 'DejaVu Sans';? ?", "", text)
    text = re.sub(r"(fill|stroke)(: |=\")(#[0-9a-f]{6})", _colour, text)
    opening = re.match(r"<svg[^>]*>", text)
    box = re.search(r'viewBox="[^"]*"', opening[0]) if opening else None
    if opening is None or box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{html.escape(alt)}">'
    return Markup(head + text[opening.end() :].strip())


def _colour(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}{_COLOURS.get(match[3], match[3])}"
