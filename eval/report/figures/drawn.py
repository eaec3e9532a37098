"""A figure that was drawn, and the three forms it is kept in."""

from __future__ import annotations

import html
import io
import re
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup
from matplotlib.figure import Figure

from cbtrain.eval.report.figures.style import drawing, printable
from cbtrain.eval.report.svg import page_svg

DPI = 200


@dataclass(frozen=True)
class Drawn:
    """``name`` is that of its files and keeps its ids apart in the page; ``alt`` says in numbers what it shows;
    ``on_page``: whether the page shows it, or has a table for it."""

    name: str
    figure: Figure
    alt: str
    on_page: bool = True

    def __post_init__(self) -> None:
        # Laid out once here, not again for each form.
        if self.figure.get_layout_engine() is not None:
            with drawing():
                self.figure.draw_without_rendering()
                self.figure.set_layout_engine("none")

    @cached_property
    def page(self) -> Markup:
        """Return an ``<svg>`` element whose text is text and whose colours follow the page's."""
        return page_svg(self._saved("svg", "none").decode(), self.name, printable(self.alt))

    @cached_property
    def svg(self) -> str:
        """Return an SVG file: on white, letters as paths, so that it looks the same wherever it is opened."""
        text = self._saved("svg", "path").decode()
        alt = html.escape(printable(self.alt))
        opening = re.search(r"<svg\b", text)
        if opening is None:
            raise ValueError("matplotlib wrote no SVG")
        text = f'{text[: opening.end()]} role="img" aria-label="{alt}"{text[opening.end() :]}'
        return re.sub(r"(<svg\b[^>]*>)", lambda tag: f"{tag[0]}\n <title>{alt}</title>", text, count=1)

    @cached_property
    def png(self) -> bytes:
        """On white, 200 dots an inch; the alternative text is in it as its description."""
        return self._saved("png", "none")

    def _saved(self, form: str, letters: str) -> bytes:
        buffer = io.BytesIO()
        plain = {"Date": None, "Creator": None, "Format": None, "Type": None}
        about = {"Software": None, "Description": printable(self.alt)} if form == "png" else plain
        background = "none" if letters == "none" and form == "svg" else "white"
        with drawing(**{"svg.fonttype": letters}):
            self.figure.savefig(
                buffer, format=form, dpi=DPI if form == "png" else 72, facecolor=background, metadata=about
            )
        return buffer.getvalue()
