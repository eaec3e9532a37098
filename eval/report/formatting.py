"""Numbers as words. Whatever may be missing is printed through here, and a missing value says so.

One rule of rounding, so that a figure has the same digits in terminal, page, Markdown, LaTeX and figures: points, SDs
and coefficients have two decimals; percentages one, and a space before the sign; p values as :func:`p_value` says.
"""

from __future__ import annotations

import math

GAP = "n/a"

SIGNIFICANT = 0.05
"""Below this a p value counts as significant, and is printed below it."""


def number(value: object) -> float | None:
    """Return ``value`` as a finite float; None for null, text, booleans, NaN and infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def fixed(value: object, digits: int = 2, signed: bool = False) -> str:
    """Return ``12,345.68``, with a real minus sign."""
    finite_value = number(value)
    if finite_value is None:
        return GAP
    text = f"{finite_value:+,.{digits}f}" if signed else f"{finite_value:,.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def score(value: object) -> str:
    """Return one session's score as the browser of transcripts has it: as many decimals as it has, two at most."""
    text = fixed(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def span(low: object, high: object, digits: int = 2) -> str:
    """Return ``1.2 to 3.4``; a gap if either end is missing."""
    gap = number(low) is None or number(high) is None
    return GAP if gap else f"{fixed(low, digits)} to {fixed(high, digits)}"


def whole(value: object) -> str:
    return fixed(value, 0)


def percent(value: object, digits: int = 1, signed: bool = False) -> str:
    """Return ``12.3 %`` of a value that is a percentage already."""
    return GAP if number(value) is None else f"{fixed(value, digits, signed)} %"


def share(value: object) -> str:
    """Return a share between 0 and 1 as a percentage; small ones keep two decimals."""
    fraction = number(value)
    if fraction is None:
        return GAP
    return percent(100 * fraction, 2 if 0 < abs(fraction) < 0.01 else 1)


def dollars(value: object) -> str:
    """Return US dollars with cents; small amounts keep four digits."""
    amount = number(value)
    if amount is None:
        return GAP
    return f"${fixed(amount, 4 if 0 < abs(amount) < 0.1 else 2)}"


def p_value(value: object) -> str:
    """Return three decimals; four below 0.1, where tests of few patients have their smallest p (0.0625 of five); more
    if rounding would carry it over .05; below 0.001 no figure."""
    p = number(value)
    if p is None:
        return GAP
    if p < 0.001:
        return "< 0.001"
    digits = 4 if p < 0.1 else 3
    while p < SIGNIFICANT <= round(p, digits):
        digits += 1
    return fixed(p, digits)


def duration(seconds: object) -> str:
    elapsed = number(seconds)
    if elapsed is None or elapsed < 0:
        return GAP
    if elapsed < 60:
        return f"{elapsed:.1f} s"
    minutes, rest = divmod(round(elapsed), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
