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


def arm_colour(index: int) -> str:
    return ARMS[index % len(ARMS)]


def arm_look(index: int) -> dict[str, Any]:
    """Return an arm's look: the first is hollow, the others differ by shape, so colour is never the only mark."""
    fill = PAPER if index == 0 else arm_colour(index)
    return {"marker": "oosDv^"[index % 6], "ls": "", "mfc": fill, "mec": arm_colour(index), "mew": 1.6}


def label(text: str, width: int = 24, lines: int = 2) -> str:
    """``text`` on at most ``lines`` lines of like length, broken at spaces, and at the underscores of arms' names."""
    wrapped = _wrapped(text, width)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: len(wrapped[lines - 1]) - 2].rstrip() + " …"]
    elif len(wrapped) > 1:
        even = (_wrapped(text, narrow) for narrow in range(width // 2, width + 1))
        wrapped = next(parted for parted in even if len(parted) == len(wrapped))
    return "\n".join(wrapped) or "(no name)"


def columns(text: str) -> int:
    """Width in letters; those of some scripts are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def printable(text: str) -> str:
    """``text`` without what an SVG or PNG file cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters, broken after spaces and underscores, and where a word is too long."""
    lines = [""]
    for piece in re.findall(r"[^\s_]*(?:_+|\s+|$)", " ".join(printable(text).split())):
        if lines[-1] and columns(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while columns(lines[-1].rstrip()) > width:
            cut = max(1, width * len(lines[-1]) // columns(lines[-1]))
            lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
    return [line.strip() for line in lines if line.strip()]


def scatter_heights(count: int) -> list[float]:
    """``count`` heights in [-0.5, 0.5], spread evenly and always the same: dots of like values do not cover each
    other (multiples of the golden ratio, modulo 1)."""
    return [(index * 0.6180339887498949) % 1 - 0.5 for index in range(1, count + 1)]
