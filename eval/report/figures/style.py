"""What the figures look like: the page's colours of the light theme, type that a phone can show, marks of the arms."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

from cbtrain.eval.report.arm_looks import ArmLook
from cbtrain.eval.report.schema.report import Report

# These are page.css's light colours. In the page's SVG each is replaced by the variable that it comes from, so no two
# may be the same.
INK, MUTED, LINE, PAPER, HEAT = "#1d2226", "#5b636b", "#dedad2", "#ffffff", "#0f8a82"
ARMS = (
    ("#579b97", "#058781", "#036f6b", "#055754"),
    ("#af8863", "#a26d33", "#905605", "#724200"),
    ("#9f87b3", "#8d6aa8", "#7c5199", "#673886"),
    ("#7591bb", "#5279b3", "#3563a7", "#194c94"),
    ("#ba827b", "#af635b", "#a14740", "#8b2c27"),
    ("#8d9563", "#757d32", "#606800", "#4b5101"),
    ("#b48299", "#a96285", "#994872", "#842d5c"),
    ("#709a75", "#498653", "#237136", "#015a21"),
)
"""A row for each base, in it a tone for each variant; in grey the tones lie eight steps of L* or more apart."""

MARKERS = "osD^vPX*"
FILLINGS = ("full", "left", "bottom", "full")
DASHES = ((0, (4, 2)), (0, (1, 1.3)), (0, (6, 1.6, 1, 1.6)), "-")
"""By tone: how marks are filled (the first is hollow), and how lines are drawn."""

LABEL = 32
"""Letters of an arm's name in a figure; the caption has the whole name."""

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


def arm_colour(look: ArmLook) -> str:
    return ARMS[look.hue][look.tone]


def arm_mark(look: ArmLook) -> dict[str, Any]:
    """Return an arm's mark: a shape for the base, filled by variant, so colour is never the only difference."""
    colour = arm_colour(look)
    return {
        "marker": MARKERS[look.shape],
        "fillstyle": FILLINGS[look.tone],
        "mfc": colour if look.tone else PAPER,
        "mfcalt": PAPER,
        "mec": colour,
        "mew": 1.6,
        "ls": "",
    }


def line_style(look: ArmLook) -> Any:
    """Return the dashes of an arm's lines."""
    return DASHES[look.tone]


def arm_labels(report: Report) -> dict[str, str]:
    """Return the label of each arm, by name, as figures have it (:func:`short_labels`)."""
    short = short_labels([arm.label for arm in report.arms], LABEL)
    return {arm.name: text for arm, text in zip(report.arms, short, strict=True)}


def contrast_label(report: Report, contrast: str) -> str:
    """Return the id of a contrast with the arms' names in it as short as :func:`arm_labels` has them."""
    short = short_labels([arm.name for arm in report.arms], LABEL)
    names = sorted(zip((arm.name for arm in report.arms), short, strict=True), key=lambda pair: -len(pair[0]))
    for name, text in names:
        contrast = contrast.replace(name, text)
    return contrast


def shortened(report: Report) -> list[tuple[str, str]]:
    """Return the labels that figures shorten, each with the whole one, for a caption."""
    short = arm_labels(report)
    return [(short[arm.name], arm.label) for arm in report.arms if "…" in short[arm.name] != arm.label]


def short_labels(labels: Sequence[str], length: int) -> list[str]:
    """Return ``labels`` with at most ``length`` letters. Long ones lose their middle, since names often begin alike;
    if two are then the same, they are numbered."""
    short = [_without_middle(text, length) for text in labels]
    count, seen = Counter(short), Counter[str]()
    for index, text in enumerate(short):
        if count[text] > 1 and text != labels[index]:
            seen[text] += 1
            short[index] = f"{_without_middle(labels[index], length - 4)} ({seen[text]})"
    return short


def _without_middle(text: str, length: int) -> str:
    """Return ``text`` with a third of ``length`` from its beginning and two from its end."""
    text = " ".join(printable(text).split())
    if columns(text) <= length:
        return text
    head = tail = ""
    while columns(head) < (length - 1) // 3:
        head += text[len(head)]
    while columns(head + tail) < length - 2:
        tail = text[-1 - len(tail)] + tail
    return f"{head.rstrip()}…{tail.lstrip()}"


def label(text: str, width: int = 24, lines: int = 2) -> str:
    """``text`` on at most ``lines`` lines of like length, broken at spaces, and at the underscores of arms' names;
    inside what is too long for a line at hyphens and slashes."""
    pieces = _pieces(text, width)
    wrapped = _wrapped(pieces, width)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], wrapped[lines - 1][: len(wrapped[lines - 1]) - 2].rstrip() + " …"]
    elif len(wrapped) > 1:
        even = (_wrapped(pieces, narrow) for narrow in range(width // 2, width + 1))
        wrapped = next(parted for parted in even if len(parted) == len(wrapped))
    return "\n".join(wrapped) or "(no name)"


def columns(text: str) -> int:
    """Width in letters; those of some scripts are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def printable(text: str) -> str:
    """``text`` without what an SVG or PNG file cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _pieces(text: str, width: int) -> list[str]:
    """Parts of ``text`` that are not broken, if a line has room for them."""
    pieces = re.findall(r"[^\s_]*(?:_+|\s+|$)", " ".join(printable(text).split()))
    return [
        part
        for piece in pieces
        for part in (re.findall(r"[^/-]*[/-]*", piece) if columns(piece.rstrip()) > width else [piece])
    ]


def _wrapped(pieces: Sequence[str], width: int) -> list[str]:
    """Lines of at most ``width`` characters, broken after pieces, and where a piece is too long."""
    lines = [""]
    for piece in pieces:
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
