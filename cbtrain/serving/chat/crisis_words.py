"""Words that plainly speak of suicide or self-harm: the chat then shows once more where people help.

The list is short, English, and incomplete: it misses most of the ways in which people say this, and misspellings, and
it also fires on quotations and jokes. All it does is show a text. Nothing may rely on it.
"""

from __future__ import annotations

import re

CRISIS_WORDS = re.compile(
    r"\b(?:"
    r"suicid(?:e|al)\b"
    r"|overdos(?:e|ed|ing)\b"
    r"|kill(?:ing)? my ?self\b"
    r"|end(?:ing)? (?:my (?:own )?life|it all)\b"
    r"|tak(?:e|ing) my (?:own )?life\b"
    r"|(?:want|wish|hope|ready|rather|going|trying) (?:to )?(?:just )?(?:die|be dead)\b"
    r"|wanna die\b"
    r"|wish i (?:was|were|could be) dead\b"
    r"|wish i could die\b"
    r"|(?:hurt|harm|cut|burn|injur)(?:t?ing|e|ed)? my ?self\b"
    r"|self[ -]?harm(?:ed|ing)?\b"
    r"|better off (?:dead|without me)\b"
    r"|(?:no|any) reason to (?:live|be alive)\b"
    r"|tired of (?:living|being alive)\b"
    r"|(?:do not|don't|dont) (?:want|wish) to (?:live|be alive|exist|wake up|be here any ?more)\b"
    r")",
    re.IGNORECASE,
)


def mentions_crisis(words: str) -> bool:
    """Return whether one of the listed wordings occurs in ``words``."""
    return CRISIS_WORDS.search(" ".join(words.replace("’", "'").split())) is not None
