"""What a judge has to answer: its JSON schema, and the check that scores are points of the scale and evidence is there.

Evidence and reason come before the score, and ``unratable`` is a score. Scores are an enum of texts: some APIs drop
numeric bounds, and some take enums of texts only. Evidence is a turn's number with words copied from it; words that do
not stand there are a fault, like a score outside the scale.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, create_model

from cbtrain.eval.rating.rubric import Domain, Point, Rubric, whole
from cbtrain.eval.rating.transcript_form import blind
from cbtrain.transcripts.types import Turn

UNRATABLE = "unratable"

GAP = re.compile(r"\[?(?:\.{3,}|…)\]?")
"""Where a quotation leaves words out."""
MARKS = re.compile(r"[\W_]+")
"""What may differ between copies of the same words: marks, blanks, accents that stand alone, invisible characters."""
ESCAPED = re.compile(r"\\(?:[nrt]|u[0-9a-fA-F]{4})")
"""A character as the transcript's JSON writes it, which some judges copy as it stands there."""


class Evidence(NamedTuple):
    """A turn by its number, from 1, and words of it; no words where a judge gives a number only."""

    turn: int
    quote: str = ""


def schema_of(rubric: Rubric, domains: Sequence[Domain]) -> dict[str, Any]:
    """Return the JSON schema of an answer on ``domains``."""
    evidence = _section({"turn": {"type": "integer"}, "quote": {"type": "string"}})
    points = [*(f"{point:g}" for point in rubric.points), UNRATABLE]
    rating = {
        "evidence": {"type": "array", "items": evidence},
        "reason": {"type": "string"},
        "score": {"type": "string", "enum": points},
    }
    return _section({domain.id: _section(rating) for domain in domains})


def _section(properties: dict[str, Any]) -> dict[str, Any]:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def shape_of(rubric: Rubric, domains: Sequence[Domain], turns: Sequence[Turn] | None) -> type[BaseModel]:
    """Return the shape of an answer on ``domains``: by id, ``evidence`` (of :class:`Evidence`), ``reason`` and
    ``score`` (None: unratable). Evidence has to stand in ``turns``; None: it is not looked at."""
    # Keys that nobody asked for change no score; neither do 3 or 3.0 in place of "3".
    lax = ConfigDict(extra="ignore")
    points = {f"{point:g}": point for point in rubric.points}

    def point(score: Any) -> Point | None:
        text = f"{score:g}" if isinstance(score, int | float) and not isinstance(score, bool) else score
        if text is None or text == UNRATABLE:
            return None
        if text not in points:
            raise ValueError(f"{score!r} is none of {', '.join(points)}, {UNRATABLE}")
        return points[text]

    def there(evidence: list[Evidence]) -> list[Evidence]:
        problems = [why_absent(one, turns) for one in evidence] if turns is not None else []
        if problem := next(filter(None, problems), ""):
            raise ValueError(problem)
        return evidence

    rating = create_model(
        "Rating",
        __config__=lax,
        evidence=(Annotated[list[Annotated[Evidence, BeforeValidator(_evidence)]], AfterValidator(there)], ...),
        reason=(str, ...),
        score=(Annotated[int | float | None, BeforeValidator(point)], ...),
    )
    fields: dict[str, Any] = {domain.id: (rating, ...) for domain in domains}
    return create_model("Answer", __config__=lax, **fields)


def _evidence(given: Any) -> Evidence:
    """Return one piece of evidence, also from a bare number of a turn. Raises ValueError."""
    turn, quote = (given.get("turn"), given.get("quote", "")) if isinstance(given, dict) else (given, "")
    turn = whole(turn)
    if not isinstance(turn, int) or isinstance(turn, bool) or not isinstance(quote, str):
        raise ValueError("evidence is a turn's number and a quote")
    return Evidence(turn, quote)


def why_absent(evidence: Evidence, turns: Sequence[Turn]) -> str:
    """Return why ``evidence`` is not in ``turns``; an empty text if it is. Case, marks and blanks do not count, and a
    quotation may leave words out with ``…``."""
    if not 1 <= evidence.turn <= len(turns):
        return f"there is no turn {evidence.turn} (they are 1 to {len(turns)})"
    spoken = turns[evidence.turn - 1].text
    quotes = (evidence.quote, ESCAPED.sub(_meant, evidence.quote))
    if any(_holds(text, quote) for text in (blind(spoken), spoken) for quote in quotes):
        return ""
    return f"turn {evidence.turn} does not contain the quote {evidence.quote[:80]!r}"


def _meant(escaped: re.Match[str]) -> str:
    return chr(int(escaped[0][2:], 16)) if escaped[0][1] == "u" else " "


def _holds(said: str, quote: str) -> bool:
    """Return whether ``said`` has the parts of ``quote``, in their order."""
    if not _plain(quote):  # nothing, or signs alone
        return all(part.strip() in said for part in GAP.split(quote))
    plain, at = _plain(said), 0
    for part in map(_plain, GAP.split(quote)):
        found = plain.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _plain(text: str) -> str:
    """Return the letters and digits of ``text``, which copies of the same words have in common."""
    return MARKS.sub("", unicodedata.normalize("NFKC", text).casefold())
