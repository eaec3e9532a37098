"""What is counted in a patient's words: agreement, hedges, the first person (English); words and n-grams (any)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cbtrain.text.language import FUNCTION_WORDS
from cbtrain.text.words import UNSPACED

UNIT = re.compile(r"[\w'’]+")
QUESTION = re.compile(r"[?？؟]")
FIRST_PERSON = frozenset({"i", "i'm", "i've", "i'd", "i'll", "me", "my", "mine", "myself"})
OPENS_WITH_AGREEMENT = re.compile(
    r"^[\W_]{0,8}(?:yes|yeah|yep|yup|sure|okay|ok|alright|all right|right|exactly|absolutely|definitely|of course|true"
    r"|agreed|(?:that|it|this) makes sense|makes sense|you're right|you are right|i agree|i see|sounds good|good idea"
    r"|(?:that|it|this) sounds|i(?:'ll| will| can) (?:try|do)|thank you|thanks|i understand|i like that)\b"
)
RESERVE = re.compile(r"\b(?:but|though|although|however|not really|no|don't think|doesn't|can't)\b")
HEDGE = re.compile(
    r"\b(?:maybe|perhaps|i guess|i suppose|i'm not sure|not sure|i don't know|kind of|sort of|probably|might|possibly"
    r"|i think|a bit|a little|somehow|i don't really)\b"
)
"""English only: elsewhere these measures are None (:func:`cbtrain.eval.patient_audit.measures.measures_of`)."""

STRAIGHT = str.maketrans("’‘´`", "''''")
SENTENCE = re.compile(r"[.!?\n]")

COMMON = frozenset().union(*(words for lists in FUNCTION_WORDS.values() for words in lists.values()))
"""Function words of all languages that are known: an n-gram of these alone says nothing."""


def plain(text: str) -> str:
    """Return ``text`` in lower case with straight apostrophes."""
    return text.translate(STRAIGHT).lower()


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case; in scripts without blanks each character is one."""
    words = [word for part in UNIT.findall(plain(text)) if (word := part.strip("'"))]
    if text.isascii() or not UNSPACED.search(text):
        return words
    return [unit for word in words for unit in (word if UNSPACED.search(word) else (word,))]


def content_ngrams(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Return the runs of ``size`` words that are not all function words."""
    runs = zip(*(words[start:] for start in range(size)), strict=False)
    return {run for run in runs if not COMMON.issuperset(run)}


def agrees(text: str) -> bool:
    """Return whether ``text`` opens with agreement, and has no reserve in its first sentence."""
    said = plain(text)
    if not OPENS_WITH_AGREEMENT.match(said):
        return False
    first = next((part for part in SENTENCE.split(said) if len(part.split()) > 1), said)
    return not RESERVE.search(first)


def hedges(text: str) -> int:
    """Return the number of hedges in ``text``."""
    return len(HEDGE.findall(plain(text)))
