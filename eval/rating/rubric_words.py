"""A rubric in words: what was understood of it in a few lines, and all of it for a reader."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from cbtrain.eval.rating.rubric import Domain, Point, Rubric

MOST_POINTS_TOLD = 12


def understood(rubric: Rubric) -> list[str]:
    """Return, a line each, what its keys mean for scores: scale, totals, anchors, sub-scales, reversed items, weights,
    and who can rate by it."""
    low, high = rubric.total_range
    cutoff = "" if rubric.cutoff is None else f", competent from {rubric.cutoff:g}"
    lines = [f"{len(rubric.domains)} items, {rubric.scale_words}; totals {low:g} to {high:g}{cutoff}"]
    lines += _anchors(rubric)
    if rubric.subscales:
        lines.append("sub-scales: " + "; ".join(f"{name} ({', '.join(ids)})" for name, ids in rubric.subscales.items()))
    if turned := list(rubric.keying.turned):
        lines.append(f"reversed, more is worse: {', '.join(turned)}")
    if weights := rubric.keying.weights:
        lines.append("weights: " + ", ".join(f"{domain} {weight:g}" for domain, weight in weights.items()))
    return [*lines, f"raters: {raters(rubric)}"]


def raters(rubric: Rubric) -> str:
    """Return who can rate by it."""
    without = [domain.id for domain in rubric.domains if not domain.cues]
    if not without:
        return "LLM judges, people, the cue rater"
    which = "no item has cues" if len(without) == len(rubric.domains) else f"no cues: {', '.join(without)}"
    return f"LLM judges and people; not the cue rater ({which})"


def _anchors(rubric: Rubric) -> Iterator[str]:
    """Yield which points have an anchor, once for items that anchor the same ones."""
    by_points: dict[tuple[Point, ...], list[str]] = {}
    for domain in rubric.domains:
        by_points.setdefault(tuple(sorted(domain.anchors)), []).append(domain.id)
    for points, ids in by_points.items():
        who = "" if len(by_points) == 1 else f" ({', '.join(ids)})"
        missing = [point for point in rubric.points if point not in points]
        if not points:
            yield f"no anchors{who}: raters have name and description only"
        elif not missing:
            yield f"an anchor at every point{who}"
        else:
            yield f"anchors at {_numbers(points)}{who}; without one, so in between: {_numbers(missing)}"


def _numbers(points: Iterable[Point]) -> str:
    told = [f"{point:g}" for point in points]
    more = [f"and {len(told) - MOST_POINTS_TOLD} more"] if len(told) > MOST_POINTS_TOLD else []
    return ", ".join([*told[:MOST_POINTS_TOLD], *more])


def in_full(rubric: Rubric, width: int) -> str:
    """Return the whole rubric as text of at most ``width`` columns."""
    head = [rubric.name, rubric.note, f"Source: {rubric.source}" if rubric.source else "", *understood(rubric)]
    lines = [line for text in head if text for line in textwrap.wrap(text, width)]
    for domain in rubric.domains:
        lines += ["", *_item(domain, width)]
    return "\n".join(lines)


def _item(domain: Domain, width: int) -> Iterator[str]:
    marks = [domain.id, domain.subscale, "reversed: more is worse" * domain.reversed]
    marks += [f"weight {domain.weight:g}"] if domain.weight != 1 else []
    yield f"{domain.name} ({'; '.join(filter(None, marks))})"
    yield from textwrap.wrap(domain.description, width, initial_indent="  ", subsequent_indent="  ")
    points = {f"{point:g}": text for point, text in sorted(domain.anchors.items())}
    longest = max(map(len, points), default=0)
    for point, text in points.items():
        yield from textwrap.wrap(
            text, width, initial_indent=f"  {point:>{longest}}  ", subsequent_indent=" " * (longest + 4)
        )
    if domain.cues:
        cues = "; ".join(cue.name for cue in domain.cues)
        yield from textwrap.wrap(f"cues: {cues}", width, initial_indent="  ", subsequent_indent="  ")
