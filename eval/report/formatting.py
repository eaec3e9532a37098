"""Numbers as words. Whatever may be missing is printed through here, and a missing value says so."""

from __future__ import annotations

import math

GAP = "n/a"


def number(value: object) -> float | None:
    """Return ``value`` as a finite float; None for null, text, booleans, NaN and infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def fixed(value: object, digits: int = 1, signed: bool = False) -> str:
    """Return ``12,345.6``, with a real minus sign."""
    found = number(value)
    if found is None:
        return GAP
    text = f"{found:+,.{digits}f}" if signed else f"{found:,.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


def span(low: object, high: object, digits: int = 1) -> str:
    """Return ``1.2 to 3.4``; a gap if either end is missing."""
    gap = number(low) is None or number(high) is None
    return GAP if gap else f"{fixed(low, digits)} to {fixed(high, digits)}"


def whole(value: object) -> str:
    return fixed(value, 0)


def percent(value: object, digits: int = 1, signed: bool = False) -> str:
    """Return ``12.3%`` of a value that is a percentage already."""
    return GAP if number(value) is None else f"{fixed(value, digits, signed)}%"


def share(value: object) -> str:
    """Return a share between 0 and 1 as a percentage; small ones keep two decimals."""
    found = number(value)
    if found is None:
        return GAP
    return percent(100 * found, 2 if 0 < abs(found) < 0.01 else 1)


def dollars(value: object) -> str:
    """Return US dollars with cents; small amounts keep four digits."""
    found = number(value)
    if found is None:
        return GAP
    return f"${fixed(found, 4 if 0 < abs(found) < 0.1 else 2)}"


def p_value(value: object) -> str:
    found = number(value)
    if found is None:
        return GAP
    return "< 0.001" if found < 0.001 else fixed(found, 3)


def duration(seconds: object) -> str:
    found = number(seconds)
    if found is None or found < 0:
        return GAP
    if found < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
