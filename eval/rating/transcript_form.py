"""The form in which a judge reads a session: blind, and such that no words of a speaker can pass for another turn.

Each turn is a JSON object on a line of its own, between two lines that carry a code which occurs nowhere in the words:
whatever a speaker says (``[7] Therapist: …``, a score, a closing delimiter) stays inside one JSON string of one turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from cbtrain.eval.rating.ratable import without_marks
from cbtrain.files import text_digest
from cbtrain.transcripts.types import Turn

VERSION = 2
"""Of the form: ratings that were asked for in another one are not mixed with those of this one."""

LINE_ENDS = re.compile("[\x7f-\x9f\u2028\u2029]")
"""Characters that JSON leaves as they are, and that some readers take for the end of a line."""

MAKERS = (
    r"open ?ai|anthropic|google(?: deepmind)?|deepmind|meta(?: ai)?|mistral(?: ai)?|alibaba(?: cloud)?|deepseek|x\.?ai"
)
MODELS = (
    r"chat-?gpt|gpt-?[0-9][\w.-]{0,12}|gemini|gemma[\w.-]{0,12}|qwen[\w.-]{0,12}|llama[\w.-]{0,12}|mistral|mixtral"
    r"|deepseek[\w.-]{0,12}|claude|grok"
)
SELF = re.compile(
    rf"\b(?P<before>(?:(?:I am|I[’']m)(?:\s{{1,3}}(?:called|named))?|call me|my name is)\s{{1,3}}(?=(?:{MODELS})\b)"
    rf"|as\s{{1,3}}(?=(?:{MODELS})\b,?\s{{1,3}}I\b)"
    rf"|(?:created|developed|trained|designed)\s{{1,3}}by\s{{1,3}}(?:the )?(?=(?:{MAKERS})\b))(?:{MODELS}|{MAKERS})\b",
    re.IGNORECASE,
)
"""Where a speaker says which model it is. A person who is called so keeps the name elsewhere ("as Claude said")."""

MASK = "[…]"


def transcript_of(turns: Sequence[Turn]) -> str:
    """Return the session in its form, with template marks and names of models taken out."""
    lines = [
        _line({"turn": number, "speaker": turn.role, "text": blind(turn.text)}) for number, turn in enumerate(turns, 1)
    ]
    code = _code(lines)
    return "\n".join([f"<<<transcript {code}>>>", *lines, f"<<<end of transcript {code}>>>"])


def blind(text: str) -> str:
    """Return the words of a turn without what tells the kind of speaker: template and end marks, and which model it
    says that it is."""
    return SELF.sub(lambda found: f"{found['before']}{MASK}", without_marks(text))


def _line(turn: dict[str, object]) -> str:
    text = json.dumps(turn, ensure_ascii=False)
    return LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _code(lines: Sequence[str]) -> str:
    """Return a code that stands in none of ``lines``. The same session has the same code, so that kept answers fit."""
    text, code = "\n".join(lines), ""
    while not code or code in text:
        code = text_digest(text + code)
    return code
