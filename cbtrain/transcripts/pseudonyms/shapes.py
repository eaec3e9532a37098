"""What has a shape: dates, ages over 89, telephone and account numbers, addresses, links, organizations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cbtrain.transcripts.personal_data import personal_spans

KINDS = "PERSON PLACE ORGANIZATION DATE AGE PHONE EMAIL LINK ACCOUNT ADDRESS OTHER".split()
"""What a tag can stand for."""


@dataclass(frozen=True, slots=True)
class Span:
    """``text[start:end]`` is of ``kind``; ``how`` says how it was found. Undecided ones have no kind."""

    start: int
    end: int
    kind: str
    how: str


PERSONAL = {
    "e-mail": "EMAIL",
    "telephone": "PHONE",
    "social security": "ACCOUNT",
    "card": "ACCOUNT",
    "IBAN": "ACCOUNT",
    "street": "ADDRESS",
    "date of birth": "DATE",
    "link": "LINK",
}
"""Kinds of tags, by kinds of personal data."""

MONTH = (
    r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?\.?|July?\.?|Aug(?:ust|\.)?|"
    r"Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
MONTH_NAME = re.compile(MONTH)
DAY, YEAR = r"(?:[12]\d|3[01]|0?[1-9])", r"(?:19|20)\d{2}"
DATE = re.compile(
    rf"\b(?:{MONTH} (?:the )?{DAY}(?:st|nd|rd|th)?(?:,? {YEAR})?(?![\d:])|{MONTH},? {YEAR}"
    rf"|{DAY}(?:st|nd|rd|th)?(?: of|-)? ?{MONTH}(?:,? {YEAR})?(?![a-z])"
    rf"|{YEAR}[-/.](?:0[1-9]|1[0-2])[-/.]{DAY}(?!\d)"
    rf"|(?:0?[1-9]|[12]\d|3[01])(?P<sign>[/.-])(?:0?[1-9]|[12]\d|3[01])(?P=sign)(?:{YEAR}|\d{{2}})(?!\d))"
)
BORN = re.compile(rf"\b(?:born|birth)\b[^.\n\d]{{0,20}}(?P<year>{YEAR})\b", re.IGNORECASE)
AGE = re.compile(
    r"\b(?:aged? (?:of )?|I am |I['’]m |turn(?:ed|ing|s) "
    r"|(?:she|he|who|mother|father|grandmother|grandfather|grandma|grandpa|mom|mum|dad|nana) (?:is|was) )"
    r"(?P<after>9\d|1[0-2]\d)(?![\d%:]| ?(?:percent|minutes|pounds|kilos|kg|lbs|days|hours|dollars|miles))"
    r"|\b(?P<before>9\d|1[0-2]\d)(?=[- ]years?[- ]old)"
    r"|\b(?P<words>ninety(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?|(?:a|one) hundred)"
    r"(?=[- ]years?[- ]old)",
    re.IGNORECASE,
)
ACCOUNT = re.compile(
    r"\b(?:account|member(?:ship)?|policy|case|record|MRN|passport|licen[cs]e|reference|insurance|customer|student|NHS|ID)"
    r"(?: (?:number|no\.?|id|ID|#))?(?: is|:)? ?#?(?P<number>[A-Z]{0,3}-?\d[\d-]{3,18}\d)\b"
)
HANDLE = re.compile(r"(?<![\w@./])@[A-Za-z_][\w.]{2,29}\b")
KIND_OF_ORGANIZATION = (
    r"(?:University|College|Hospital|Clinic|School|Academy|Institute|Church|Mosque|Synagogue|Temple|Bank|Inc\.?|Ltd\.?|"
    r"LLC|GmbH|Corp\.?|Corporation|Company|Foundation|Agency|Centre|Center|Library|Elementary)"
)
ORGANIZATION = re.compile(
    rf"\b(?:[A-Z][A-Za-z'’&-]{{0,30}} ){{1,4}}{KIND_OF_ORGANIZATION}(?![A-Za-z])"
    r"|\b(?:University|College|Bank|Church|School) of (?:the )?[A-Z][A-Za-z'’-]{1,30}(?: [A-Z][A-Za-z'’-]{1,30})?"
)
STOP = re.compile(
    r"(?:The|My|Our|At|In|From|For|And|But|A|An|This|That|His|Her|Their|Your|I|To|Some|High|Middle|Elementary|Medical|"
    r"Law|Graduate|Community|Local|Public|Private|Sunday|Nursing|Art|Business) "
)
"""Words that begin no organization's own name: ``High School`` names none."""
HINT = re.compile(r"[\d@]|://|www\.|[Nn]inety|[Hh]undred")


def shaped_spans(text: str) -> Iterator[Span]:
    """Yield what has a shape, the surer kinds first; spans may overlap."""
    yield from _organizations(text)
    if not HINT.search(text):
        return
    births = []
    for kind, start, end in personal_spans(text):
        span = Span(start, end, PERSONAL[kind], "pattern")
        if kind == "date of birth":  # holds words around the date, which is found by itself in most cases
            births.append(span)
        else:
            yield span
    for match in ACCOUNT.finditer(text):
        yield Span(*match.span("number"), "ACCOUNT", "pattern")
    for match in HANDLE.finditer(text):
        yield Span(*match.span(), "ACCOUNT", "pattern")
    for match in DATE.finditer(text):
        yield Span(*match.span(), "DATE", "pattern")
    for match in BORN.finditer(text):
        yield Span(*match.span("year"), "DATE", "pattern")
    yield from births
    for match in AGE.finditer(text):
        yield Span(*match.span(match.lastgroup or 0), "AGE", "pattern")


def _organizations(text: str) -> Iterator[Span]:
    for match in ORGANIZATION.finditer(text):
        start = match.start()
        while stop := STOP.match(text, start, match.end()):
            start = stop.end()
        if text.find(" ", start, match.end()) > 0:  # "School" alone names none
            yield Span(start, match.end(), "ORGANIZATION", "pattern")
