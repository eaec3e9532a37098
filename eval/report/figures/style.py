"""What the figures look like: the page's colours of the light theme, type that a phone can show, marks of the arms."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

# These are page.css's light colours. In the page's SVG each is replaced by the variable that it comes from, so no two
# may be the same.
INK, MUTED, LINE, PAPER, HEAT = "#1d2226", "#5b636b", "#dedad2", "#ffffff", "#0f8a82"
ARMS = ("#626b75", "#0b6963", "#9a5b00", "#7b3fa0", "#1f5fae", "#a3271f")

WIDTH = 4.0
"""Inches. On a phone of 375 px a figure is 319 px wide, where text of SMALL is 8.6 pt."""

TEXT, SMALL = 10.6, 10.4

_STYLE = {
    "svg.hashsalt": "cbtrain",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SMALL,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
}


@contextmanager
def drawing(**more: Any) -> Iterator[None]:
    """Draw under the page's style; a name in a script that the font lacks is no reason for a warning."""
    with warnings.catch_warnings(), matplotlib.rc_context({**_STYLE, **more}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def arm_colour(place: int) -> str:
    return ARMS[place % len(ARMS)]


def arm_look(place: int) -> dict[str, Any]:
    """Return an arm's look: the first is hollow, the others differ by shape, so colour is never the only mark."""
    fill = PAPER if place == 0 else arm_colour(place)
    return {"marker": "oosDv^"[place % 6], "ls": "", "mfc": fill, "mec": arm_colour(place), "mew": 1.6}


def label(text: str, width: int = 24, lines: int = 2) -> str:
    """``text`` on at most ``lines`` lines of like length, broken at spaces, and at the underscores of arms' names."""
    found = _wrapped(text, width)
    if len(found) > lines:
        found = [*found[: lines - 1], found[lines - 1][: len(found[lines - 1]) - 2].rstrip() + " …"]
    elif len(found) > 1:
        even = (_wrapped(text, narrow) for narrow in range(width // 2, width + 1))
        found = next(parted for parted in even if len(parted) == len(found))
    return "\n".join(found) or "(no name)"


def columns(text: str) -> int:
    """Width in letters; those of some scripts are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def printable(text: str) -> str:
    """``text`` without what an SVG or PNG file cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, broken after spaces and underscores, and where a word is too long."""
    found = [""]
    for piece in re.findall(r"[^\s_]*(?:_+|\s+|$)", " ".join(printable(text).split())):
        if found[-1] and columns(found[-1] + piece.rstrip()) > width:
            found.append("")
        found[-1] += piece
        while columns(found[-1].rstrip()) > width:
            cut = max(1, width * len(found[-1]) // columns(found[-1]))
            found[-1:] = [found[-1][:cut], found[-1][cut:]]
    return [line.strip() for line in found if line.strip()]


def scatter_heights(count: int) -> list[float]:
    """``count`` heights in [-0.5, 0.5], spread evenly and always the same: dots of like values do not cover each
    other (multiples of the golden ratio, modulo 1)."""
    return [(place * 0.6180339887498949) % 1 - 0.5 for place in range(1, count + 1)]
