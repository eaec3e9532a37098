"""Text that looks like a real person's data: what must not be in a corpus that is trained on or handed on.

Patterns find what has a shape (addresses, numbers). They cannot find names or stories: a clean result is no proof
of anonymity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

EMAIL = re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b")
PHONE = re.compile(
    r"(?<![\w.])(?<!\d[ .-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{2,5}\)[ .-]?|\d{2,5}[ .-])\d{3,4}[ .-]?\d{3,4}"
    r"(?![\w-])(?![ .]\d)"
)
PHONE_WHOLE = re.compile(
    # With a country code, a trunk 0, Chinese mobile, North American; letters of other scripts may touch it.
    r"(?<![A-Za-z0-9_.+-])(?:\+\d{8,15}|0[1-9]\d{7,10}|1[3-9]\d{9}|[2-9]\d{2}[2-9]\d{6})(?![A-Za-z0-9_-])(?!\.\d)"
)
"""A telephone number without separators."""

PHONE_IN_GROUPS = re.compile(
    # After a country code, as in French national numbers, or with a slash after the area.
    r"(?<![\w.+])(?:(?:\+|00)[1-9]\d{0,2}(?:[ .()/-]{1,2}\d{1,8}){2,6}|0[1-9](?:[ .-]\d{2}){4}|0\d{2,4}/\d{5,8})"
    r"(?![\w-])(?![ .]\d)"
)
"""A telephone number in groups of any length."""

SOCIAL_SECURITY = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
CARD = re.compile(r"(?<![\d-])\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,7}(?![\d-])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
STREET = re.compile(
    r"\b\d{1,5} (?:[A-Z][a-z]{1,30} ){1,3}"
    r"(?:Street|St\.|Avenue|Ave\.|Road|Rd\.|Lane|Drive|Boulevard|Blvd\.|Court|Terrace)\b"
)
BIRTH = re.compile(
    r"\b(?:date of birth|born on|DOB)\b\W{0,3}(?:the )?"
    r"(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}(?:st|nd|rd|th)? (?:of )?[A-Z][a-z]{2,8},? \d{4}|"
    r"[A-Z][a-z]{2,8} \d{1,2}(?:st|nd|rd|th)?,? \d{4})",
    re.IGNORECASE,
)
LINK = re.compile(r"\bhttps?://[^\s<>\"')]+|\bwww\.[\w-]{1,63}\.[\w.-][^\s<>\"')]*")

HINT = re.compile(r"\d[\d ()./-]{4,30}\d|\d [A-Z]|[Bb]orn|[Bb]irth|DOB|dob|@|://|www\.")
"""What every shape below holds: most turns hold none of it."""
ROUND = re.compile(r"\d{1,3}(?:\D000){1,4}")
YEARS = re.compile(r"(?:(?:19|20)\d\d\D?){1,8}")
FREE_CALL = re.compile(r"\D{0,4}1?\D{0,4}(?:800|888|877|866|855|844|833)\D")
FICTIONAL = re.compile(r"555\D?01\d\d$")


def personal_data(text: str) -> Iterator[tuple[str, int, str]]:
    """Yield kind, place and masked excerpt of each find of :func:`personal_spans`."""
    for kind, start, end in personal_spans(text):
        yield kind, start, mask(text[start:end])


def personal_spans(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield kind, start and end of each find: ``e-mail``, ``telephone``, ``social security``, ``card``, ``IBAN``,
    ``street``, ``date of birth``, ``link``. Toll-free lines (crisis lines are) and numbers reserved for fiction are
    left out."""
    if not HINT.search(text):
        return
    taken = bytearray(len(text))  # 1 where a character belongs to an earlier find
    for kind, pattern, real in SHAPES:
        for match in pattern.finditer(text):
            start, end = match.span()
            if real(match.group()) and not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                yield kind, start, end


def mask(text: str, shown: int = 4) -> str:
    """Return the first characters; the rest as dots, so that a list of finds is no list of personal data."""
    return text[:shown] + "•" * (min(len(text), 16) - shown)


def _luhn(number: str) -> bool:
    digits = [int(character) for character in number if character.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [sum(divmod(2 * d, 10)) if index % 2 else d for index, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _iban(number: str) -> bool:
    """ISO 13616: the rearranged number, letters as 10 to 35, leaves 1 modulo 97."""
    bare = number.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in bare[4:] + bare[:4])) % 97 == 1


def _telephone(number: str) -> bool:
    digits = sum(character.isdigit() for character in number)
    others = (FREE_CALL.match(number), FICTIONAL.search(number), YEARS.fullmatch(number), ROUND.fullmatch(number))
    return 9 <= digits <= 15 and not any(others)


def _any(text: str) -> bool:
    return True


SHAPES: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("IBAN", IBAN, _iban),
    ("card", CARD, _luhn),
    ("social security", SOCIAL_SECURITY, _any),
    ("date of birth", BIRTH, _any),
    ("street", STREET, _any),
    ("telephone", PHONE_IN_GROUPS, _telephone),
    ("telephone", PHONE, _telephone),
    ("telephone", PHONE_WHOLE, _telephone),
    ("e-mail", EMAIL, _any),
    ("link", LINK, _any),
)
"""Each kind with its pattern and a check that a match is real. A match of one kind is not matched again by the next."""
